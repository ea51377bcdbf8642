//! The task cell: a boxed future, its state, and the waker that is the cell itself.
//!
//! States: `IDLE` waits for a wake; `SCHEDULED` is in exactly one run queue; `RUNNING` is being
//! polled; `NOTIFIED` is being polled and was woken meanwhile; `DONE` has no future any more.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use crate::{driver, worker};

const IDLE: u8 = 0;
const SCHEDULED: u8 = 1;
const RUNNING: u8 = 2;
const NOTIFIED: u8 = 3;
const DONE: u8 = 4;

type BoxedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Task {
    future: Mutex<Option<BoxedFuture>>,
    state: AtomicU8,
}

/// A spawned task seen from outside; dropping it leaves the task running.
#[derive(Clone)]
pub struct TaskHandle(Arc<Task>);

impl TaskHandle {
    /// Whether the task has returned or panicked.
    pub fn is_finished(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == DONE
    }
}

/// Starts a task. It runs first on this worker's next drain, or on the driver thread.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
    let task = Task::new(future);
    worker::schedule(Arc::clone(&task));
    TaskHandle(task)
}

impl Task {
    /// One that is to be put into a run queue.
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static) -> Arc<Task> {
        Arc::new(Task { future: Mutex::new(Some(Box::pin(future))), state: AtomicU8::new(SCHEDULED) })
    }

    /// Polls the task once. Called only by the thread that took it from a run queue.
    pub(crate) fn run(self: Arc<Self>) {
        self.state.store(RUNNING, Ordering::Release);
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else {
            self.state.store(DONE, Ordering::Release);
            return;
        };
        let waker = Waker::from(Arc::clone(&self));
        let mut cx = Context::from_waker(&waker);
        let result = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        match result {
            Ok(Poll::Pending) => {
                drop(slot);
                if crate::pace::wants_aside() {
                    return self.step_aside();
                }
                let back = self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
                if back.is_err() {
                    self.state.store(SCHEDULED, Ordering::Release);
                    worker::schedule(self);
                }
            }
            Ok(Poll::Ready(())) => self.finish(slot.take()),
            Err(payload) => {
                let future = slot.take();
                drop(slot);
                self.finish(future);
                driver::report_panic(&*payload);
            }
        }
    }

    /// Goes on in the blocking pool, or here where that has no threads.
    fn step_aside(self: Arc<Self>) {
        // A wake that came meanwhile is served by the next poll, too.
        self.state.store(SCHEDULED, Ordering::Release);
        let task = Arc::clone(&self);
        if driver::Executor::get().pool.offer(Box::new(move || task.run())).is_some() {
            worker::schedule(self);
        }
    }

    fn finish(&self, future: Option<BoxedFuture>) {
        self.state.store(DONE, Ordering::Release);
        // A destructor that panics must not take the worker with it.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    }

    /// True if the caller must put the task into a run queue.
    fn notify(&self) -> bool {
        let mut seen = self.state.load(Ordering::Acquire);
        loop {
            let next = match seen {
                IDLE => SCHEDULED,
                RUNNING => NOTIFIED,
                _ => return false,
            };
            match self.state.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next == SCHEDULED,
                Err(now) => seen = now,
            }
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.notify() {
            worker::schedule(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.notify() {
            worker::schedule(Arc::clone(self));
        }
    }
}

/// Lets the other tasks of this worker run once.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::{spawn, yield_now};
    use crate::{block_on, sleep};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[test]
    fn many_tasks_run_and_yield() {
        let count = Arc::new(AtomicU32::new(0));
        let handles: Vec<_> = (0..50)
            .map(|_| {
                let count = Arc::clone(&count);
                spawn(async move {
                    for _ in 0..20 {
                        yield_now().await;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        while !handles.iter().all(super::TaskHandle::is_finished) {
            block_on(sleep(Duration::from_millis(1)));
        }
        assert_eq!(count.load(Ordering::SeqCst), 50);
    }

    #[test]
    fn a_panic_ends_only_its_task() {
        let bad = spawn(async { panic!("expected by the test") });
        while !bad.is_finished() {
            block_on(sleep(Duration::from_millis(1)));
        }
        let good = spawn(async {});
        while !good.is_finished() {
            block_on(sleep(Duration::from_millis(1)));
        }
    }
}
