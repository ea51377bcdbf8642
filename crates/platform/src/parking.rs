//! Answers without a doorbell where many threads call by turns.
//!
//! A doorbell costs its caller and the worker a switch each, and the worker hears one at a time. Where many threads call
//! and little is done between their calls, that one thread is what all wait for. There a caller that finds the worker
//! awake does not ring: it leaves its request in its slot and waits in futex(2), and the worker looks at all slots
//! before it sleeps. Few callers are better off with doorbells, which keep both sides on one CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use crate::machine::Platform;
use crate::spinner;

/// Calls in which callers are counted, for each CPU.
const WINDOW: u32 = 16;
/// Callers among them, for each CPU, that are many.
const MANY: u32 = 4;
/// Nanoseconds from one call to the next, of any of them, that are little.
const LITTLE_NS: u64 = 32_000;
/// After so many windows of the last 8 with many callers they park,
const PARK: u32 = 6;
/// after so many they ring.
const RING: u32 = 2;
/// How long the worker looks for requests in vain before it sleeps: to wake it costs more.
const DRY: Duration = Duration::from_micros(1);
/// How long it looks at the slots before it hears who rings: requests may never end, and a guest forges them.
const TURN: Duration = Duration::from_micros(50);

/// Whether callers park, by who has called of late. All of it is a hint: threads that count at the same time may miss
/// each other.
#[derive(Default)]
pub(crate) struct Parking {
    allowed: bool,
    /// Whether or not it pays, for tests.
    always: bool,
    window: AtomicU32,
    calls: AtomicU32,
    callers: AtomicU32,
    /// A bit for each of the last windows.
    history: AtomicU32,
    cpus: AtomicU32,
    /// When the window began.
    since: AtomicU64,
    on: AtomicBool,
}

impl Parking {
    pub(crate) fn new(allowed: bool, always: bool) -> Parking {
        // A caller's mark of no window is 0.
        Parking { allowed, always, window: AtomicU32::new(1), ..Parking::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.allowed && (self.always || self.on.load(Ordering::Relaxed))
    }

    /// A thread called that has been in the window `mark`; `cpus` tells how many there are.
    pub(crate) fn called(&self, mark: &AtomicU32, cpus: impl FnOnce() -> u32) {
        if self.allowed {
            self.count(mark, cpus, executor::monotonic_ns);
        }
    }

    fn count(&self, mark: &AtomicU32, cpus: impl FnOnce() -> u32, now: impl FnOnce() -> u64) {
        let window = self.window.load(Ordering::Relaxed);
        if mark.load(Ordering::Relaxed) != window {
            mark.store(window, Ordering::Relaxed);
            self.callers.store(self.callers.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        }
        let calls = self.calls.load(Ordering::Relaxed).saturating_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        let known = self.cpus.load(Ordering::Relaxed);
        if calls < WINDOW * known.max(1) {
            return;
        }
        let now = now();
        let took = now.saturating_sub(self.since.swap(now, Ordering::Relaxed));
        let many = known >= 2 && self.callers.load(Ordering::Relaxed) >= MANY * known;
        let pays = many && took <= u64::from(calls) * LITTLE_NS;
        let history = (self.history.load(Ordering::Relaxed) << 1 | u32::from(pays)) & 0xff;
        self.history.store(history, Ordering::Relaxed);
        self.calls.store(0, Ordering::Relaxed);
        self.callers.store(0, Ordering::Relaxed);
        self.window.store(window.wrapping_add(1).max(1), Ordering::Relaxed);
        if window % 16 == 1 {
            self.cpus.store(cpus().min(1 << 10), Ordering::Relaxed);
        }
        let ones = history.count_ones();
        let on = if self.on.load(Ordering::Relaxed) { ones > RING } else { ones >= PARK };
        self.on.store(on, Ordering::Relaxed);
    }
}

/// Says that callers may park, until [`end`].
pub(crate) fn begin(platform: &Platform) {
    platform.slots.control().awake.store(1, Ordering::SeqCst);
}

/// Answers what is in the slots until nothing comes any more, and has callers ring again; or until somebody rings, who is to
/// be heard next: true, and callers may park as before.
pub(crate) fn run_dry(platform: &Arc<Platform>) -> bool {
    let mut last = Instant::now();
    let mut turn = last;
    while !executor::is_relieved() {
        if spinner::scan(platform) > 0 {
            executor::run_ready();
            last = Instant::now();
            if last.duration_since(turn) > TURN {
                if host::notify::is_waiting(platform.listener()) {
                    return true;
                }
                turn = last;
            }
        } else if last.elapsed() > DRY {
            break;
        }
    }
    // Also who was relieved: its successor may sleep by now.
    end(platform);
    false
}

/// Has callers ring, and takes what was posted before they saw it: one look finds that.
pub(crate) fn end(platform: &Arc<Platform>) {
    platform.slots.control().awake.store(0, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    if spinner::scan(platform) > 0 {
        executor::run_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Parking;

    /// So many threads call by turns, each a while after the last one; whether they park then.
    fn turns(parking: &Parking, threads: usize, calls: usize, cpus: u32, ns: u64) -> bool {
        let clock = Cell::new(parking.since.load(Ordering::Relaxed));
        let marks: Vec<_> = (0..threads).map(|_| AtomicU32::new(0)).collect();
        for mark in marks.iter().cycle().take(calls) {
            clock.set(clock.get() + ns);
            parking.count(mark, || cpus, || clock.get());
        }
        parking.is_on()
    }

    #[test]
    fn many_callers_park_until_they_are_few() {
        for cpus in [2, 4, 64] {
            let parking = Parking::new(true, false);
            let calls = 1000 * cpus as usize;
            assert!(!turns(&parking, 2 * cpus as usize, calls, cpus, 1000), "{cpus} CPUs");
            assert!(turns(&parking, 4 * cpus as usize, calls, cpus, 1000), "{cpus} CPUs");
            assert!(!turns(&parking, 1, calls, cpus, 1000), "{cpus} CPUs");
        }
    }

    #[test]
    fn who_does_much_between_calls_rings() {
        assert!(!turns(&Parking::new(true, false), 100, 1000, 2, 40_000));
    }

    #[test]
    fn one_cpu_is_best_used_by_turns() {
        assert!(!turns(&Parking::new(true, false), 100, 1000, 1, 1000));
        assert!(!turns(&Parking::new(false, true), 100, 1000, 2, 1000));
    }
}
