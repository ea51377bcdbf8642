//! Timers of the driver thread, ordered by deadline in nanoseconds of `CLOCK_MONOTONIC`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use linux_abi::poll::Events;
use parking_lot::Mutex;

use crate::clock::monotonic_ns;
use crate::driver::Executor;
use crate::wait_queue::Observer;

enum Target {
    Waker(Waker),
    Observer(Arc<dyn Observer>),
}

pub(crate) struct Timers {
    entries: Mutex<BTreeMap<(u64, u64), Target>>,
    next_id: AtomicU64,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers { entries: Mutex::new(BTreeMap::new()), next_id: AtomicU64::new(0) }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.entries.lock().first_key_value().map(|(key, _)| key.0)
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds or replaces an entry; true if it is now the earliest.
    fn insert(&self, key: (u64, u64), target: Target) -> bool {
        let mut entries = self.entries.lock();
        let old = entries.insert(key, target);
        let first = entries.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(entries);
        first && old.is_none()
    }

    fn remove(&self, key: (u64, u64)) {
        let removed = self.entries.lock().remove(&key);
        drop(removed);
    }

    /// Fires what is due at `now`, without the lock held.
    pub(crate) fn fire(&self, now: u64) {
        loop {
            let mut entries = self.entries.lock();
            let due = match entries.first_entry() {
                Some(entry) if entry.key().0 <= now => entry.remove(),
                _ => return,
            };
            drop(entries);
            match due {
                Target::Waker(waker) => waker.wake(),
                Target::Observer(observer) => {
                    observer.notify(Events::IN);
                }
            }
        }
    }
}

/// A future that is ready at a deadline; made by [`sleep_until`] and [`sleep`].
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    deadline: u64,
    id: Option<u64>,
}

/// Sleeps until `deadline`, in nanoseconds of `CLOCK_MONOTONIC`.
pub fn sleep_until(deadline: u64) -> Sleep {
    Sleep { deadline, id: None }
}

/// Sleeps for `duration` from now.
pub fn sleep(duration: Duration) -> Sleep {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    sleep_until(monotonic_ns().saturating_add(nanoseconds))
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if monotonic_ns() >= self.deadline {
            return Poll::Ready(());
        }
        let executor = Executor::get();
        let id = *self.id.get_or_insert_with(|| executor.timers.new_id());
        if executor.timers.insert((self.deadline, id), Target::Waker(cx.waker().clone())) {
            executor.ring();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            Executor::get().timers.remove((self.deadline, id));
        }
    }
}

/// A one-shot timer that notifies an observer with `Events::IN` on the driver thread. Dropping it
/// disarms it, though a notification already under way may still arrive.
#[must_use = "dropping an alarm disarms it"]
pub struct Alarm {
    key: (u64, u64),
}

impl Alarm {
    /// Arms an alarm for `deadline`, in nanoseconds of `CLOCK_MONOTONIC`; a past one fires at once.
    pub fn at(deadline: u64, observer: Arc<dyn Observer>) -> Alarm {
        let executor = Executor::get();
        let key = (deadline, executor.timers.new_id());
        if executor.timers.insert(key, Target::Observer(observer)) {
            executor.ring();
        }
        Alarm { key }
    }

    /// The deadline it was armed for.
    pub fn deadline(&self) -> u64 {
        self.key.0
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        Executor::get().timers.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::{Alarm, sleep};
    use crate::{Waiter, block_on, monotonic_ns};
    use std::time::Duration;

    #[test]
    fn sleeps_at_least_as_long_as_asked() {
        let start = monotonic_ns();
        block_on(sleep(Duration::from_millis(5)));
        assert!(monotonic_ns() - start >= 5_000_000);
    }

    #[test]
    fn an_alarm_notifies_and_a_dropped_one_does_not() {
        let waiter = Waiter::new();
        let dropped = Waiter::new();
        let _alarm = Alarm::at(monotonic_ns() + 2_000_000, waiter.clone());
        drop(Alarm::at(monotonic_ns() + 1_000_000, dropped.clone()));
        block_on(waiter.wait());
        assert!(!dropped.is_woken());
    }
}
