//! Where callers and answerer wake each other: on one CPU, or where the scheduler likes.
//!
//! A thread that waits for an answer is best woken where the answerer runs, and wakes it where it runs itself: no other
//! CPU must be waked, and what both use is in the cache. But so one CPU does all the work of a sandbox whose threads call
//! often. Where more threads call by turns than there are CPUs, and do much between their calls, the scheduler places them
//! better; where they do little, each call would wake another CPU.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Calls in which callers are counted, for each CPU.
const WINDOW: u32 = 4;
/// Callers among them, for each CPU, that keep all CPUs busy.
const MANY: u32 = 2;
/// Nanoseconds from one call to the next, of any of them, that are much: together, then while they are spread, so that
/// two CPUs do it.
const MUCH_NS: u64 = 32_000;
const MUCH_SPREAD_NS: u64 = 18_000;
/// After so many windows of the last 16 with many callers they are spread,
const SPREAD: u32 = 12;
/// after so many they are not.
const TOGETHER: u32 = 4;

/// Who has called of late. All of it is a hint: threads that count at the same time may miss each other.
#[derive(Default)]
pub(crate) struct Placement {
    /// The host takes the hint: `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6).
    available: bool,
    window: AtomicU32,
    calls: AtomicU32,
    callers: AtomicU32,
    /// A bit for each of the last windows.
    history: AtomicU32,
    cpus: AtomicU32,
    /// When the window began.
    since: AtomicU64,
    spread: AtomicBool,
}

impl Placement {
    pub(crate) fn new(available: bool) -> Placement {
        // A caller's mark of no window is 0.
        Placement { available, window: AtomicU32::new(1), ..Placement::default() }
    }

    /// A thread called that has been in the window `mark`; `cpus` tells how many there are.
    pub(crate) fn called(&self, listener: BorrowedFd<'_>, mark: &AtomicU32, cpus: impl FnOnce() -> u32) {
        if let Some(together) = self.count(mark, cpus, executor::monotonic_ns) {
            // As before, then.
            let _ = host::notify::set_sync_wake_up(listener, together);
        }
    }

    /// Whether callers are to be kept together from now on, if that changes.
    fn count(&self, mark: &AtomicU32, cpus: impl FnOnce() -> u32, now: impl FnOnce() -> u64) -> Option<bool> {
        if !self.available {
            return None;
        }
        let window = self.window.load(Ordering::Relaxed);
        if mark.load(Ordering::Relaxed) != window {
            mark.store(window, Ordering::Relaxed);
            self.callers.store(self.callers.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        }
        let calls = self.calls.load(Ordering::Relaxed).saturating_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        let known = self.cpus.load(Ordering::Relaxed);
        if calls < WINDOW * known.max(1) {
            return None;
        }
        let spread = self.spread.load(Ordering::Relaxed);
        let now = now();
        let took = now.saturating_sub(self.since.swap(now, Ordering::Relaxed));
        let much = u64::from(calls) * if spread { MUCH_SPREAD_NS } else { MUCH_NS };
        let many = known >= 2 && self.callers.load(Ordering::Relaxed) >= MANY * known && took >= much;
        let history = (self.history.load(Ordering::Relaxed) << 1 | u32::from(many)) & 0xffff;
        self.history.store(history, Ordering::Relaxed);
        self.calls.store(0, Ordering::Relaxed);
        self.callers.store(0, Ordering::Relaxed);
        self.window.store(window.wrapping_add(1).max(1), Ordering::Relaxed);
        if window % 16 == 1 {
            self.cpus.store(cpus().min(1 << 10), Ordering::Relaxed);
        }
        let ones = history.count_ones();
        let spreads = if spread { ones > TOGETHER } else { ones >= SPREAD };
        if spreads == spread {
            return None;
        }
        self.spread.store(spreads, Ordering::Relaxed);
        Some(!spreads)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Placement;

    /// So many threads call by turns, each a while after the last one; what was decided last.
    fn turns_each(placement: &Placement, threads: usize, calls: usize, cpus: u32, ns: u64) -> Option<bool> {
        let clock = Cell::new(placement.since.load(Ordering::Relaxed));
        let marks: Vec<_> = (0..threads).map(|_| AtomicU32::new(0)).collect();
        let turns = marks.iter().cycle().take(calls);
        turns
            .filter_map(|mark| {
                clock.set(clock.get() + ns);
                placement.count(mark, || cpus, || clock.get())
            })
            .last()
    }

    fn turns(placement: &Placement, threads: usize, calls: usize, cpus: u32) -> Option<bool> {
        turns_each(placement, threads, calls, cpus, 40_000)
    }

    #[test]
    fn who_does_little_between_calls_is_not_spread() {
        let placement = Placement::new(true);
        assert_eq!(turns_each(&placement, 8, 1000, 2, 10_000), None);
        assert_eq!(turns(&placement, 8, 1000, 2), Some(false));
    }

    #[test]
    fn many_callers_are_spread() {
        for cpus in [2, 4, 64] {
            let placement = Placement::new(true);
            let calls = 100 * cpus as usize;
            assert_eq!(turns(&placement, cpus as usize, calls, cpus), None);
            assert_eq!(turns(&placement, 4 * cpus as usize, calls, cpus), Some(false));
            assert_eq!(turns(&placement, 4 * cpus as usize, calls, cpus), None);
            assert_eq!(turns(&placement, 1, calls, cpus), Some(true));
        }
    }

    #[test]
    fn one_after_the_other_stays() {
        let placement = Placement::new(true);
        // Short processes that come after each other.
        assert!((0..100).all(|_| turns(&placement, 1, 30, 2).is_none()));
    }

    #[test]
    fn one_cpu_is_not_many() {
        assert_eq!(turns(&Placement::new(true), 100, 1000, 1), None);
        assert_eq!(turns(&Placement::new(false), 100, 1000, 2), None);
    }
}
