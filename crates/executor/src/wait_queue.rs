//! Wait queues with poll(2) events, and the waiter that a task sleeps on.
//!
//! Observers are called without the queue's lock, from a snapshot: an observer may remove itself
//! or wake other queues, and may be called once after its removal.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use linux_abi::poll::Events;
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;

/// Somebody who wants to know of events on a [`WaitQueue`].
pub trait Observer: Send + Sync {
    /// Called for each wake whose events match. Must not block. Returns whether it used up an
    /// exclusive wake-up; non-exclusive observers' answers are ignored.
    fn notify(&self, events: Events) -> bool;
}

/// Exclusive or not, the order of coming, and whom to notify.
type Found = (bool, u64, Arc<dyn Observer>);

struct Entry {
    observer: Arc<dyn Observer>,
    events: Events,
    exclusive: bool,
    order: u64,
}

#[derive(Default)]
struct Inner {
    entries: Slab<Entry>,
    next_order: u64,
}

/// Names one observer of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    index: usize,
    order: u64,
}

/// A list of observers, each with the events it waits for.
#[derive(Default)]
pub struct WaitQueue {
    /// Number of entries, so that waking an empty queue takes no lock.
    len: AtomicUsize,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").field("len", &self.len).finish_non_exhaustive()
    }
}

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> WaitQueue {
        WaitQueue::default()
    }

    /// Adds an observer of `events` (`ERR` and `HUP` are always added). Exclusive observers are
    /// woken in the order they came, one per [`WaitQueue::wake`].
    pub fn add(&self, observer: Arc<dyn Observer>, events: Events, exclusive: bool) -> Key {
        let mut inner = self.inner.lock();
        let order = inner.next_order;
        inner.next_order += 1;
        let events = events | Events::ERR | Events::HUP;
        let index = inner.entries.insert(Entry { observer, events, exclusive, order });
        // SeqCst pairs with `wake`: who changes state, then sees 0 here, was before this add, and
        // the adder's check of the state after it sees the change.
        self.len.fetch_add(1, Ordering::SeqCst);
        Key { index, order }
    }

    /// Removes an observer; a key that is gone already is ignored.
    pub fn remove(&self, key: Key) {
        let mut inner = self.inner.lock();
        if inner.entries.get(key.index).is_some_and(|entry| entry.order == key.order) {
            let entry = inner.entries.remove(key.index);
            self.len.fetch_sub(1, Ordering::SeqCst);
            drop(inner);
            drop(entry);
        }
    }

    /// As [`WaitQueue::add`], removed when the returned value is dropped.
    pub fn listen(&self, waiter: &Arc<Waiter>, events: Events, exclusive: bool) -> Listener<'_> {
        let observer: Arc<dyn Observer> = waiter.clone();
        Listener { queue: self, key: self.add(observer, events, exclusive) }
    }

    /// Notifies every matching non-exclusive observer and one matching exclusive one.
    pub fn wake(&self, events: Events) {
        self.wake_n(1, events);
    }

    /// Notifies every matching observer.
    pub fn wake_all(&self, events: Events) {
        self.wake_n(usize::MAX, events);
    }

    /// Notifies every matching non-exclusive observer and up to `n` matching exclusive ones, who
    /// came first. Returns how many exclusive wake-ups were used.
    pub fn wake_n(&self, n: usize, events: Events) -> usize {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.len.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        let mut found: SmallVec<[Found; 4]> = SmallVec::new();
        for (_, entry) in &self.inner.lock().entries {
            if entry.events.intersects(events) {
                found.push((entry.exclusive, entry.order, Arc::clone(&entry.observer)));
            }
        }
        if found.len() > 1 {
            found.sort_unstable_by_key(|(_, order, _)| *order);
        }
        let mut used = 0;
        for (exclusive, _, observer) in found {
            if !exclusive {
                observer.notify(events);
            } else if used < n && observer.notify(events) {
                used += 1;
            }
        }
        used
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }
}

/// An observer's place in a queue, given up on drop; see [`WaitQueue::listen`].
#[must_use = "dropping a listener removes it from the queue"]
pub struct Listener<'a> {
    queue: &'a WaitQueue,
    key: Key,
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.queue.remove(self.key);
    }
}

/// An observer that wakes one task. Reusable: waiting takes the notification away.
#[derive(Debug, Default)]
pub struct Waiter {
    woken: AtomicBool,
    events: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    /// A waiter without a notification.
    pub fn new() -> Arc<Waiter> {
        Arc::default()
    }

    /// Whether a notification is there to be taken.
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Forgets a notification that nobody took.
    pub fn reset(&self) {
        self.events.store(0, Ordering::Relaxed);
        self.woken.store(false, Ordering::Release);
    }

    /// Takes the notification with the events of all wakes since the last one, or leaves the
    /// task's waker to be called for the next.
    pub fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<Events> {
        if self.woken.load(Ordering::Acquire) {
            return Poll::Ready(self.take());
        }
        let mut waker = self.waker.lock();
        if !waker.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        // A notification that came before the waker was there.
        if self.woken.load(Ordering::SeqCst) {
            return Poll::Ready(self.take());
        }
        Poll::Pending
    }

    /// Waits for a notification; see [`Waiter::poll_wait`].
    pub async fn wait(&self) -> Events {
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn take(&self) -> Events {
        self.woken.store(false, Ordering::SeqCst);
        Events::from_bits_truncate(self.events.swap(0, Ordering::SeqCst))
    }
}

impl Observer for Waiter {
    fn notify(&self, events: Events) -> bool {
        self.events.fetch_or(events.bits(), Ordering::SeqCst);
        let first = !self.woken.swap(true, Ordering::SeqCst);
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::{Events, Observer, WaitQueue, Waiter};
    use crate::block_on;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Counter(AtomicU32);

    impl Observer for Counter {
        fn notify(&self, _: Events) -> bool {
            self.0.fetch_add(1, Ordering::SeqCst);
            true
        }
    }

    #[test]
    fn only_matching_events_wake() {
        let queue = WaitQueue::new();
        let counter = Arc::new(Counter(AtomicU32::new(0)));
        let key = queue.add(counter.clone(), Events::IN, false);
        queue.wake(Events::OUT);
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        queue.wake(Events::IN);
        queue.wake(Events::HUP);
        assert_eq!(counter.0.load(Ordering::SeqCst), 2);
        queue.remove(key);
        queue.remove(key);
        queue.wake(Events::IN);
        assert_eq!(counter.0.load(Ordering::SeqCst), 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn exclusive_observers_take_turns_in_order() {
        let queue = WaitQueue::new();
        let first = Waiter::new();
        let second = Waiter::new();
        let _a = queue.listen(&first, Events::IN, true);
        let _b = queue.listen(&second, Events::IN, true);
        assert_eq!(queue.wake_n(1, Events::IN), 1);
        assert!(first.is_woken() && !second.is_woken());
        // The first has its notification still, so the next wake goes on to the second.
        assert_eq!(queue.wake_n(1, Events::IN), 1);
        assert!(second.is_woken());
        assert_eq!(block_on(first.wait()), Events::IN);
        assert!(!first.is_woken());
    }

    struct RemovesItself(Arc<WaitQueue>, parking_lot::Mutex<Option<super::Key>>);

    impl Observer for RemovesItself {
        fn notify(&self, _: Events) -> bool {
            if let Some(key) = self.1.lock().take() {
                self.0.remove(key);
            }
            true
        }
    }

    #[test]
    fn an_observer_may_remove_itself() {
        let queue = Arc::new(WaitQueue::new());
        let observer = Arc::new(RemovesItself(queue.clone(), parking_lot::Mutex::new(None)));
        let key = queue.add(observer.clone(), Events::IN, false);
        *observer.1.lock() = Some(key);
        queue.wake(Events::IN);
        assert!(queue.is_empty());
    }
}
