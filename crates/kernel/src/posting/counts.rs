//! How much of what was posted within the sandbox has been done: whether anything is on its way to a stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use platform::MAX_COUNTS;

/// By the index of a count, see `slot::Count`.
pub(super) struct Counts {
    done: Vec<AtomicU32>,
    /// What the shims had counted where that was not what was done, when a thread asked first, and when that was.
    odd: Mutex<HashMap<u16, (u32, u64)>>,
    /// How often a thread found such.
    asked: AtomicU64,
}

impl Default for Counts {
    fn default() -> Counts {
        let done = std::iter::repeat_with(|| AtomicU32::new(0)).take(MAX_COUNTS).collect();
        Counts { done, odd: Mutex::default(), asked: AtomicU64::new(0) }
    }
}

/// The index of the count of what is posted to an end of a connection: few share one.
pub(super) fn index(number: u32) -> u16 {
    (1 + number % (MAX_COUNTS as u32 - 1)) as u16
}

impl Counts {
    /// Something that was posted has been done.
    pub(super) fn done(&self, index: u16) {
        if let Some(done) = self.done.get(usize::from(index)) {
            done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A time, for [`Counts::is_all`].
    pub(super) fn now(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether all has been done that the shims have counted: `posted`. Asked by a thread that waits for an answer, and
    /// that has done since `then` all that was found posted.
    pub(super) fn is_all(&self, index: u16, posted: u32, then: u64) -> bool {
        let Some(done) = self.done.get(usize::from(index)) else { return false };
        if done.load(Ordering::SeqCst) == posted {
            return true;
        }
        // A thread that died, or forged. What was counted when somebody asked before was posted by then, and so has been
        // done by now, if it was looked for since.
        let now = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut odd = self.odd.lock();
        let before = *odd.entry(index).or_insert((posted, now));
        if before.0 != posted {
            odd.insert(index, (posted, now));
        } else if before.1 <= then {
            odd.remove(&index);
            done.store(posted, Ordering::SeqCst);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use platform::MAX_COUNTS;

    use super::{Counts, index};

    /// A thread asks in the answer to a call.
    fn ask(counts: &Counts, posted: u32) -> bool {
        counts.is_all(7, posted, counts.now())
    }

    #[test]
    fn what_is_on_its_way_is_seen() {
        let counts = Counts::default();
        assert!(ask(&counts, 0) && !ask(&counts, 1));
        counts.done(7);
        assert!(ask(&counts, 1) && counts.is_all(8, 0, 0));
    }

    #[test]
    fn what_never_comes_is_forgotten() {
        let counts = Counts::default();
        // Each time more: some of it may be on its way.
        assert!((1..10).all(|posted| !ask(&counts, posted)));
        assert!(!ask(&counts, 9));
        assert!(ask(&counts, 9));
        // Done before it was counted.
        counts.done(7);
        assert!(!ask(&counts, 9) && ask(&counts, 10));
    }

    #[test]
    fn asking_twice_in_one_answer_forgets_nothing() {
        let counts = Counts::default();
        let then = counts.now();
        // Another thread has posted since.
        assert!((0..10).all(|_| !counts.is_all(7, 1, then)));
        // So has one that began before the first of these, and looks only now.
        counts.done(7);
        assert!(counts.is_all(7, 1, then) && !counts.is_all(7, 2, then));
    }

    #[test]
    fn indexes_are_within() {
        for number in [0, 1, MAX_COUNTS as u32 - 2, MAX_COUNTS as u32 - 1, u32::MAX] {
            assert!((1..MAX_COUNTS as u16).contains(&index(number)));
        }
        assert_ne!(index(0), index(1));
        let counts = Counts::default();
        counts.done(u16::MAX);
        assert!(!counts.is_all(u16::MAX, 1, 0));
    }
}
