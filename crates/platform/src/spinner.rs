//! The adaptive spinner: answers requests without a doorbell while they come thick and fast.
//!
//! It may only spin where a CPU would otherwise be idle, so it starts after a burst of doorbells, on a CPU
//! that the doorbell did not come from, and stops when calls dry up or when it woke a waiting thread. If
//! another thread wanted its CPU, that was not idle: it rests for a while. So it does where threads wait for CPUs
//! anywhere and it takes more of them than the doorbells would that it spares. Its time is charged to the
//! container: where the control group's quota would run short by it, it does not start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::getpid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::machine::{Platform, is_request};
use crate::quota::Quota;
use crate::thread::WOKE_PARKED;

/// Doorbells within `BURST_WINDOW` that start the spinner.
const BURST: u32 = 8;
const BURST_WINDOW: Duration = Duration::from_micros(200);
/// Without a request for this long it stops.
const DRY: Duration = Duration::from_micros(60);
/// Pauses of the guest's spin before it parks.
const GUEST_SPIN: u32 = 2000;

/// Rest after the CPU was wanted by others, doubled each time up to the maximum.
const REST: Duration = Duration::from_millis(2);
const REST_MAX: Duration = Duration::from_millis(256);
/// Rest after the sandbox ran out of its CPU time.
const REST_THROTTLED: Duration = Duration::from_secs(1);
/// Where CPUs are short, spinning must find a request in this time: a doorbell costs twice as much, but the guest
/// waits for its answer in vain, too.
const WORTH: Duration = Duration::from_nanos(2500);
/// The most that a look at the slots takes: what took longer was spent by others on this CPU.
const LOOK_COSTS: Duration = Duration::from_nanos(300);
/// How often in a row that must not be so for it to rest.
const TRIALS: u32 = 4;
/// How long it spins before that is judged.
const TRIAL: Duration = Duration::from_micros(300);
/// How long a look at the CPU set and the quota counts.
const LOOK: Duration = Duration::from_millis(100);

/// State of the spinner.
pub(crate) struct Spinner {
    enabled: bool,
    quota: Arc<Quota>,
    running: AtomicBool,
    thread: Mutex<Option<Thread>>,
    burst: Mutex<Burst>,
    room: Mutex<Room>,
    cpu: AtomicU32,
    /// How often it started.
    pub(crate) starts: AtomicU64,
    /// Requests that it took.
    pub(crate) taken: AtomicU64,
}

/// Doorbells of late.
#[derive(Default)]
struct Burst {
    since: Option<Instant>,
    count: u32,
    /// Not to start before.
    rest: Option<Instant>,
}

/// Whether there is a CPU to spare for spinning, as of the last look.
struct Room {
    looked: Option<Instant>,
    cpus: CpuSet,
    enough: bool,
    throttled: u64,
}

impl Room {
    /// Looks again if the last look is too old: the set of CPUs, the quota and the period's end change from
    /// outside while the sandbox runs.
    fn look(&mut self, quota: &Quota, now: Instant) -> bool {
        if self.looked.is_some_and(|at| now.duration_since(at) < LOOK) {
            return self.enough;
        }
        let first = self.looked.is_none();
        // After the thread was throttled more than LOOK may have passed, so that this is seen at once.
        let throttled = quota.throttled();
        let ran_out = throttled != self.throttled && !first;
        self.throttled = throttled;
        // The leader's set: that of the spinner's thread is its own choice.
        self.cpus = sched_getaffinity(Some(getpid())).unwrap_or_default();
        self.enough = !ran_out && is_enough(self.cpus.count(), quota.cpus());
        self.looked = Some(if ran_out { now + REST_THROTTLED } else { now });
        self.enough
    }
}

/// A spinner beside one running guest thread takes two CPUs' time: with less it would take the guest's.
fn is_enough(cpus: u32, quota: f64) -> bool {
    cpus >= 2 && quota >= 2.0
}

impl Spinner {
    /// How many CPUs the sandbox may use; 1 while a quota leaves it less than two.
    pub(crate) fn cpus(&self) -> u32 {
        let mut room = self.room.lock();
        if room.look(&self.quota, Instant::now()) { room.cpus.count() } else { 1 }
    }

    pub(crate) fn new(enabled: bool, quota: Arc<Quota>) -> Spinner {
        Spinner {
            enabled,
            quota,
            running: AtomicBool::new(false),
            thread: Mutex::new(None),
            burst: Mutex::default(),
            room: Mutex::new(Room { looked: None, cpus: CpuSet::new(), enough: false, throttled: 0 }),
            cpu: AtomicU32::new(0),
            starts: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// Makes the thread, which sleeps until it is needed. Early, since the container's limit of processes
    /// may leave no room later.
    pub(crate) fn prepare(&self, platform: &Arc<Platform>) -> std::io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let platform = platform.clone();
        executor::start_duty("spinner", move || run(&platform))
    }

    /// Called by the notification worker after each doorbell.
    pub(crate) fn doorbell(&self) {
        if !self.enabled || self.running.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        {
            let mut burst = self.burst.lock();
            if burst.rest.is_some_and(|rest| now < rest) {
                return;
            }
            match burst.since {
                Some(since) if now.duration_since(since) < BURST_WINDOW => burst.count += 1,
                _ => (burst.since, burst.count) = (Some(now), 1),
            }
            if burst.count < BURST {
                return;
            }
            *burst = Burst::default();
        }
        if !self.room.lock().look(&self.quota, now) {
            return;
        }
        // The doorbell's caller sleeps on this CPU and wakes here too.
        self.cpu.store(u32::try_from(sched_getcpu()).unwrap_or(0), Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.running.store(true, Ordering::SeqCst);
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

/// Moves this thread off the given CPU, among those of the process.
fn avoid(all: &CpuSet, cpu: u32) {
    let mut set = *all;
    set.unset(cpu as usize);
    if set.count() > 0 {
        // Without it the host places the thread; only speed is lost.
        let _ = sched_setaffinity(None, &set);
    }
}

fn run(platform: &Arc<Platform>) {
    let spinner = &platform.spinner;
    // Before it is looked whether it is to run: who starts it sees this thread, or is seen.
    let before = spinner.thread.lock().replace(std::thread::current());
    // If it was relieved in its last moment it has perhaps not noticed.
    before.inspect(Thread::unpark);
    last_look(platform);
    let mut placed = None;
    let mut rest = REST;
    let mut trial = Trial::default();
    'relieved: loop {
        while !spinner.running.load(Ordering::SeqCst) {
            if executor::is_relieved() {
                break 'relieved;
            }
            std::thread::park();
        }
        if executor::is_relieved() {
            break;
        }
        let place = (spinner.cpu.load(Ordering::Relaxed), spinner.room.lock().cpus);
        if placed != Some(place) {
            avoid(&place.1, place.0);
            placed = Some(place);
        }
        let control = platform.slots.control();
        control.guest_spin.store(GUEST_SPIN, Ordering::Relaxed);
        control.spinning.store(1, Ordering::SeqCst);
        let crowded = spin(platform, &mut trial);
        // Even if somebody else spins by now: that one may have ended already, and callers would look in vain for ever.
        control.spinning.store(0, Ordering::SeqCst);
        if executor::is_relieved() {
            break;
        }
        match crowded {
            Some(true) => {
                spinner.burst.lock().rest = Some(Instant::now() + rest);
                rest = (rest * 2).min(REST_MAX);
            }
            Some(false) => rest = REST,
            None => {}
        }
        spinner.running.store(false, Ordering::SeqCst);
        last_look(platform);
    }
    // Somebody else spins on.
    executor::run_anywhere();
}

/// Takes requests posted before it was seen that nobody spins.
fn last_look(platform: &Arc<Platform>) {
    std::sync::atomic::fence(Ordering::SeqCst);
    while !executor::is_relieved() && scan(platform) > 0 {
        executor::run_ready();
    }
}

/// Whether others want the CPU that this thread spins on.
struct Crowd {
    began: Instant,
    switches: i64,
}

impl Crowd {
    fn new(now: Instant) -> Crowd {
        Crowd { began: now, switches: host::process::involuntary_switches() }
    }
    /// Whether others wanted it since `new`: now and then somebody passes by. Nothing for a stay that tells little.
    fn came(&self, now: Instant) -> Option<bool> {
        let switches = host::process::involuntary_switches() - self.switches;
        let stayed = i64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(0);
        if switches > 1 + stayed / 4 { Some(true) } else { (switches == 0).then_some(false) }
    }
}

/// What spinning brought since it was judged last.
#[derive(Default)]
struct Trial {
    time: Duration,
    /// Of that, spent looking in vain.
    idle: Duration,
    requests: u32,
    /// How often in a row it cost more than it saved while CPUs were short.
    dear: u32,
}

impl Trial {
    /// Whether it costs more than it saves; nothing until that can be told.
    fn judge(&mut self) -> Option<bool> {
        if self.time < TRIAL {
            return None;
        }
        let trial = std::mem::replace(self, Trial { dear: self.dear, ..Trial::default() });
        Some(trial.idle > WORTH * trial.requests)
    }

    /// Whether to rest: not for a passing crowd.
    fn is_over(&mut self, quota: &Quota) -> Option<bool> {
        let dear = self.judge()?;
        self.dear = if dear && quota.is_contended() { self.dear.saturating_add(1) } else { 0 };
        Some(self.dear >= TRIALS)
    }
}

/// Spins until requests dry up, or there is no CPU to spare any more; whether others came to this one.
fn spin(platform: &Arc<Platform>, trial: &mut Trial) -> Option<bool> {
    let spinner = &platform.spinner;
    let mut last = Instant::now();
    let mut judged = last;
    let mut look = LOOK_COSTS;
    let mut crowd = Crowd::new(last);
    let mut rounds = 0u32;
    WOKE_PARKED.set(false);
    loop {
        let found = scan(platform);
        if found > 0 {
            executor::run_ready();
            if executor::is_relieved() {
                return None;
            }
            last = Instant::now();
            trial.idle += look * rounds;
            rounds = 0;
            trial.requests = trial.requests.saturating_add(found);
            if last.duration_since(judged) > TRIAL {
                trial.time += last.duration_since(judged);
                judged = last;
                if trial.is_over(&spinner.quota) == Some(true) {
                    return Some(true);
                }
            }
            if WOKE_PARKED.replace(false) {
                break;
            }
            if last.duration_since(crowd.began) > LOOK {
                if crowd.came(last) == Some(true) || !spinner.room.lock().look(&spinner.quota, last) {
                    break;
                }
                crowd = Crowd::new(last);
            }
        } else {
            std::hint::spin_loop();
            rounds = rounds.wrapping_add(1);
            // The clock costs more than a look at the slots.
            if rounds.is_multiple_of(16) {
                let waited = last.elapsed();
                look = (waited / rounds).min(LOOK_COSTS);
                if waited > DRY {
                    break;
                }
            }
        }
    }
    let now = Instant::now();
    trial.time += now.duration_since(judged);
    trial.idle += look * rounds;
    if trial.is_over(&spinner.quota) == Some(true) {
        Some(true)
    } else {
        crowd.came(now).filter(|came| *came || trial.dear == 0)
    }
}

/// One look at all slots in use; how many requests were found.
pub(crate) fn scan(platform: &Arc<Platform>) -> u32 {
    let mut found = 0;
    for (i, word) in platform.active.iter().take(platform.used_words()).enumerate() {
        let mut bits = word.load(Ordering::Relaxed);
        while bits != 0 {
            let index = i * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let Some(slot) = platform.slots.slot(index) else { continue };
            if !is_request(slot.state().load(Ordering::Relaxed)) {
                continue;
            }
            if let Some(core) = platform.core(index as u64)
                && platform.take(&core, None)
            {
                platform.parking.called(&core.turn, || platform.spinner.cpus());
                found += 1;
                platform.spinner.taken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{TRIAL, Trial, WORTH, is_enough};

    #[test]
    fn spinning_is_dear_where_doorbells_would_cost_less() {
        let judge = |time, idle, requests| Trial { time, idle, requests, dear: 0 }.judge();
        assert_eq!(judge(TRIAL / 2, TRIAL / 2, 0), None);
        assert_eq!(judge(TRIAL, TRIAL, 1), Some(true));
        assert_eq!(judge(TRIAL, WORTH * 100, 100), Some(false));
        assert_eq!(judge(TRIAL, WORTH * 101, 100), Some(true));
    }

    #[test]
    fn one_cpu_or_a_short_quota_leaves_no_room() {
        assert!(is_enough(2, f64::INFINITY));
        assert!(is_enough(4, 2.0));
        assert!(!is_enough(1, f64::INFINITY));
        assert!(!is_enough(4, 1.5));
        assert!(!is_enough(4, 1.0));
    }
}
