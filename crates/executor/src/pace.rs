//! Long work in turns: who asks for much at once keeps no worker, and so nobody else, waiting.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use crate::monotonic_ns;

/// Nanoseconds of work between two turns.
const TURN_NS: u64 = 2_000_000;

/// How long a task has been at work.
#[derive(Debug, Default)]
pub struct Pace {
    /// Most work is one step, which needs no clock.
    begun: bool,
    since: Option<u64>,
}

impl Pace {
    /// Called between two steps of long work: goes on elsewhere when it was another's turn.
    pub async fn keep(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            return;
        }
        let now = monotonic_ns();
        match self.since {
            None => self.since = Some(now),
            Some(since) if now.saturating_sub(since) < TURN_NS => {}
            Some(_) => {
                step_aside().await;
                self.since = Some(monotonic_ns());
            }
        }
    }
}

thread_local! {
    /// Set while a task is polled that is to go on elsewhere.
    static ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the task that was just polled here wants to go on in the blocking pool.
pub(crate) fn wants_aside() -> bool {
    ASIDE.replace(false)
}

/// Has this task go on in the blocking pool, behind others that did the same.
pub async fn step_aside() {
    let mut stepped = false;
    poll_fn(|_| {
        if stepped {
            return Poll::Ready(());
        }
        stepped = true;
        // Not by a wake: where the waker is faster than this thread, the task would stay here.
        ASIDE.set(true);
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Pace, TURN_NS};
    use crate::{block_on, spawn};

    #[test]
    fn long_work_leaves_its_worker() {
        let names = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let seen = names.clone();
        let task = spawn(async move {
            let mut pace = Pace::default();
            let end = Instant::now() + Duration::from_nanos(10 * TURN_NS);
            while Instant::now() < end {
                pace.keep().await;
            }
            seen.lock().push(std::thread::current().name().map(str::to_owned));
        });
        while !task.is_finished() {
            block_on(crate::sleep(Duration::from_millis(1)));
        }
        assert_eq!(*names.lock(), [Some("blocking".to_owned())]);
    }
}
