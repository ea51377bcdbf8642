//! The adaptive spinner: answers requests without a doorbell while they come thick and fast.
//!
//! It may only spin where a CPU would otherwise be idle, so it starts after a burst of doorbells, on a CPU
//! that the doorbell did not come from, and stops when calls dry up or when it woke a waiting thread. If
//! another thread wanted its CPU, that was not idle: it rests for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::machine::Platform;
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

/// State of the spinner.
pub(crate) struct Spinner {
    allowed: bool,
    running: AtomicBool,
    thread: OnceLock<Thread>,
    burst: Mutex<Burst>,
    cpu: AtomicU32,
    /// How often it started.
    pub(crate) starts: AtomicU64,
}

/// Doorbells of late.
#[derive(Default)]
struct Burst {
    since: Option<Instant>,
    count: u32,
    /// Not to start before.
    rest: Option<Instant>,
}

impl Spinner {
    pub(crate) fn new(allowed: bool) -> Spinner {
        Spinner {
            allowed: allowed && cpus().is_some_and(|set| set.count() > 1),
            running: AtomicBool::new(false),
            thread: OnceLock::new(),
            burst: Mutex::default(),
            cpu: AtomicU32::new(0),
            starts: AtomicU64::new(0),
        }
    }

    /// Makes the thread, which sleeps until it is needed. Early, since the container's limit of processes
    /// may leave no room later.
    pub(crate) fn prepare(&self, platform: &Arc<Platform>) -> std::io::Result<()> {
        if !self.allowed {
            return Ok(());
        }
        let platform = platform.clone();
        let handle = std::thread::Builder::new()
            .name("spinner".into())
            .stack_size(512 << 10)
            .spawn(move || run(&platform))?;
        let _ = self.thread.set(handle.thread().clone());
        Ok(())
    }

    /// Called by the notification worker after each doorbell.
    pub(crate) fn doorbell(&self) {
        if !self.allowed || self.running.load(Ordering::Relaxed) {
            return;
        }
        let Some(thread) = self.thread.get() else { return };
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
        // The doorbell's caller sleeps on this CPU and wakes here too.
        self.cpu.store(u32::try_from(sched_getcpu()).unwrap_or(0), Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.running.store(true, Ordering::SeqCst);
        thread.unpark();
    }
}

fn cpus() -> Option<CpuSet> {
    sched_getaffinity(None).ok()
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
    let _scope = executor::worker_scope();
    let spinner = &platform.spinner;
    let all = cpus().unwrap_or_default();
    let mut placed = u32::MAX;
    let mut rest = REST;
    loop {
        while !spinner.running.load(Ordering::SeqCst) {
            std::thread::park();
        }
        let cpu = spinner.cpu.load(Ordering::Relaxed);
        if cpu != placed {
            avoid(&all, cpu);
            placed = cpu;
        }
        let control = platform.slots.control();
        control.guest_spin.store(GUEST_SPIN, Ordering::Relaxed);
        control.spinning.store(1, Ordering::SeqCst);
        let before = host::process::involuntary_switches();
        let began = Instant::now();
        spin(platform);
        control.spinning.store(0, Ordering::SeqCst);
        // Now and then somebody passes by.
        let switches = host::process::involuntary_switches() - before;
        if switches > 1 + i64::try_from(began.elapsed().as_millis()).unwrap_or(0) / 4 {
            spinner.burst.lock().rest = Some(Instant::now() + rest);
            rest = (rest * 2).min(REST_MAX);
        } else if switches == 0 {
            rest = REST;
        }
        spinner.running.store(false, Ordering::SeqCst);
        // Requests posted before the flag was seen.
        std::sync::atomic::fence(Ordering::SeqCst);
        while scan(platform) {
            executor::run_ready();
        }
    }
}

fn spin(platform: &Arc<Platform>) {
    let mut last = Instant::now();
    let mut rounds = 0u32;
    WOKE_PARKED.set(false);
    loop {
        if scan(platform) {
            executor::run_ready();
            last = Instant::now();
            rounds = 0;
            if WOKE_PARKED.replace(false) {
                return;
            }
        } else {
            std::hint::spin_loop();
            rounds = rounds.wrapping_add(1);
            // The clock costs more than a look at the slots.
            if rounds.is_multiple_of(16) && last.elapsed() > DRY {
                return;
            }
        }
    }
}

/// One look at all slots in use.
fn scan(platform: &Arc<Platform>) -> bool {
    let mut found = false;
    for (i, word) in platform.active.iter().take(platform.used_words()).enumerate() {
        let mut bits = word.load(Ordering::Relaxed);
        while bits != 0 {
            let index = i * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let Some(slot) = platform.slots.slot(index) else { continue };
            if slot.state().load(Ordering::Relaxed) != slot::state::REQUEST {
                continue;
            }
            if let Some(core) = platform.core(index as u64) {
                found |= platform.take(&core, None);
            }
        }
    }
    found
}
