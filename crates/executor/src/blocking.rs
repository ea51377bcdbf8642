//! A small pool of threads for host calls that may sleep.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::affinity::run_anywhere;
use crate::driver::Executor;
use crate::worker::{run_ready, work, worker_scope};

/// Threads at most.
const MAX_THREADS: usize = 32;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { state: Mutex::default(), work: Condvar::new() }
    }

    fn submit(&'static self, job: Job) {
        // With no thread at all the caller does the work itself.
        if let Some(job) = self.offer(job) {
            job();
        }
    }

    /// Queues a job; gives it back where there is no thread, and none to be had.
    pub(crate) fn offer(&'static self, job: Job) -> Option<Job> {
        let mut state = self.state.lock();
        if state.idle <= state.jobs.len() && state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            let spawned =
                thread::Builder::new().name("blocking".into()).stack_size(512 << 10).spawn(|| self.serve());
            state = self.state.lock();
            if spawned.is_err() {
                state.threads -= 1;
            }
            if state.threads == 0 {
                // Others may have relied on this thread.
                let left = std::mem::take(&mut state.jobs);
                drop(state);
                left.into_iter().for_each(|job| job());
                return Some(job);
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_one();
        None
    }

    fn serve(&self) {
        run_anywhere();
        let _worker = worker_scope(None, VecDeque::new());
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                work(job);
                run_ready();
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

enum Outcome<T> {
    Pending(Option<Waker>),
    Done(Result<T, Box<dyn Any + Send>>),
    Taken,
}

/// The result of a [`blocking`] call, to be awaited. Dropping it lets the call finish unobserved.
#[must_use = "the result is lost unless it is awaited"]
pub struct Blocking<T>(Arc<Mutex<Outcome<T>>>);

/// Runs `work` on a thread that may sleep. A panic in it continues in the awaiting task.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    let cell = Arc::new(Mutex::new(Outcome::Pending(None)));
    let result = Arc::clone(&cell);
    Executor::get().pool.submit(Box::new(move || {
        let value = catch_unwind(AssertUnwindSafe(work));
        let before = std::mem::replace(&mut *result.lock(), Outcome::Done(value));
        if let Outcome::Pending(Some(waker)) = before {
            waker.wake();
        }
    }));
    Blocking(cell)
}

impl<T> Future for Blocking<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut outcome = self.0.lock();
        match &mut *outcome {
            Outcome::Pending(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Outcome::Taken => Poll::Pending,
            Outcome::Done(_) => {
                let taken = std::mem::replace(&mut *outcome, Outcome::Taken);
                drop(outcome);
                match taken {
                    Outcome::Done(Ok(value)) => Poll::Ready(value),
                    Outcome::Done(Err(payload)) => resume_unwind(payload),
                    Outcome::Pending(_) | Outcome::Taken => Poll::Pending,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::blocking;
    use crate::block_on;

    #[test]
    fn returns_the_value_of_many_calls() {
        let calls: Vec<_> = (0..40).map(|i| blocking(move || i * 2)).collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(block_on(call), i * 2);
        }
    }
}
