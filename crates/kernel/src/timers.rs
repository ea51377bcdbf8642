//! Timers that send signals: timer_create(2), setitimer(2), alarm(2).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer};
use linux_abi::Errno;
use linux_abi::process::RLIM_INFINITY;
use linux_abi::signal::{SigInfo, Signo, si};
use linux_abi::time::NSEC_PER_SEC;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::limits::resource;
use crate::process::ExitStatus;
use crate::{Process, Result, Thread, cpu_time};

/// Timers rest at least this long between two expirations, nanoseconds: shorter intervals are counted as
/// overruns, so that no guest can keep the driver busy.
const SHORTEST_REST_NS: u64 = 100_000;

/// How many timers a process may have.
const MAX_TIMERS: usize = 4096;

/// Interval and POSIX timers of a process.
#[derive(Default)]
pub struct Timers {
    /// Those of timer_create(2), by id.
    posix: BTreeMap<i32, Arc<Timer>>,
    /// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`, and that of `RLIMIT_CPU`; made when first set.
    interval: [Option<Arc<Timer>>; 4],
    next_id: i32,
}

impl Timers {
    /// Adds a POSIX timer made by `make` from its id; `EAGAIN` if there are too many.
    pub fn create(&mut self, make: impl FnOnce(i32) -> Arc<Timer>) -> Result<i32> {
        if self.posix.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        while self.posix.contains_key(&self.next_id) {
            self.next_id = self.next_id.checked_add(1).unwrap_or(0);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(0);
        self.posix.insert(id, make(id));
        Ok(id)
    }
    /// A POSIX timer; `EINVAL`.
    pub fn get(&self, id: i32) -> Result<Arc<Timer>> {
        self.posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }
    /// Removes a POSIX timer; `EINVAL`.
    pub fn delete(&mut self, id: i32) -> Result<Arc<Timer>> {
        self.posix.remove(&id).ok_or(Errno::EINVAL)
    }
    /// The interval timer of this number, made if it is not there yet; `EINVAL`.
    pub fn interval(&mut self, which: usize, make: impl FnOnce() -> Arc<Timer>) -> Result<Arc<Timer>> {
        Ok(self.interval.get_mut(which).ok_or(Errno::EINVAL)?.get_or_insert_with(make).clone())
    }
    /// What exec keeps: the interval timers.
    pub fn after_exec(&mut self) {
        self.posix.clear();
    }
    /// The POSIX timers, as /proc/PID/timers shows them.
    pub fn describe(&self, pid: i32) -> String {
        self.posix.values().map(|timer| timer.describe(pid)).collect()
    }
}

/// What an expiration does.
pub enum Notify {
    /// Nothing: the timer is only looked at (`SIGEV_NONE`).
    None,
    /// A signal to the process as the kernel sends it (interval timers).
    Plain(Weak<Process>, Signo),
    /// A signal to the process (`SIGEV_SIGNAL`).
    Process(Weak<Process>, Signo),
    /// A signal to one thread (`SIGEV_THREAD_ID`).
    Thread(Weak<Thread>, Signo),
    /// SIGXCPU, or SIGKILL past the hard limit (`RLIMIT_CPU`).
    CpuLimit(Weak<Process>),
}

/// Expiry and interval as the timer's clock counts, nanoseconds; expiry 0 is disarmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// When, or how long until.
    pub value: u64,
    /// Then every; 0 is once.
    pub interval: u64,
}

#[derive(Default)]
struct State {
    setting: Setting,
    alarm: Option<Alarm>,
}

/// One timer.
pub struct Timer {
    id: i32,
    clock: Clock,
    notify: Notify,
    /// `sigev_value`.
    value: u64,
    state: Mutex<State>,
    overrun: AtomicI32,
    ring: Arc<Ring>,
}

/// What the executor's alarm holds: it must not keep the timer alive.
struct Ring(Weak<Timer>);

impl Observer for Ring {
    fn notify(&self, _events: Events) -> bool {
        if let Some(timer) = self.0.upgrade() {
            timer.expired();
        }
        true
    }
}

impl Timer {
    /// A disarmed timer. `id` and `value` go into the siginfo of POSIX timers.
    pub fn new(id: i32, clock: Clock, notify: Notify, value: u64) -> Arc<Timer> {
        Arc::new_cyclic(|weak| Timer {
            id,
            clock,
            notify,
            value,
            state: Mutex::default(),
            overrun: AtomicI32::new(0),
            ring: Arc::new(Ring(weak.clone())),
        })
    }

    /// Time left and interval.
    pub fn get(&self) -> Setting {
        let mut state = self.state.lock();
        if matches!(self.notify, Notify::None) {
            self.advance(&mut state);
        }
        self.left(state.setting)
    }

    /// Sets it, `absolute` on its clock or from now; returns time left and interval of before.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let mut state = self.state.lock();
        let old = self.left(state.setting);
        state.alarm = None;
        state.setting = Setting::default();
        self.overrun.store(0, Ordering::Relaxed);
        if new.value != 0 {
            let value = if absolute { new.value } else { self.clock.now_ns().saturating_add(new.value) };
            state.setting = Setting { value, interval: new.interval };
            self.arm(&mut state);
        }
        old
    }

    fn describe(&self, pid: i32) -> String {
        let (sig, notify) = match &self.notify {
            Notify::Process(_, sig) | Notify::Plain(_, sig) => (sig.raw(), format!("signal/pid.{pid}")),
            Notify::Thread(thread, sig) => {
                (sig.raw(), format!("signal/tid.{}", thread.upgrade().map_or(0, |thread| thread.tid())))
            }
            Notify::None | Notify::CpuLimit(_) => (0, format!("none/pid.{pid}")),
        };
        format!(
            "ID: {}\nsignal: {sig}/{:016x}\nnotify: {notify}\nClockID: {}\n",
            self.id,
            self.value,
            self.clock.id()
        )
    }
    /// timer_getoverrun(2): of the signal delivered last.
    pub fn overrun(&self) -> i32 {
        self.overrun.load(Ordering::Relaxed)
    }
    /// Its signal was delivered with this overrun count.
    pub fn note_delivered(&self, overrun: i32) {
        self.overrun.store(overrun, Ordering::Relaxed);
    }

    fn left(&self, setting: Setting) -> Setting {
        let value = match setting.value {
            0 => 0,
            // Armed and late: not yet 0, which would say disarmed.
            at => at.saturating_sub(self.clock.now_ns()).max(1),
        };
        Setting { value, interval: setting.interval }
    }

    fn arm(&self, state: &mut State) {
        if matches!(self.notify, Notify::None) {
            return;
        }
        let ring: Arc<dyn Observer> = self.ring.clone();
        state.alarm = Some(Alarm::at(self.clock.monotonic_deadline(state.setting.value), ring));
    }

    /// Moves past what has expired by now; how many times it has.
    fn advance(&self, state: &mut State) -> u64 {
        let now = self.clock.now_ns();
        let Setting { value, interval } = state.setting;
        if value == 0 || now < value {
            return 0;
        }
        if interval == 0 {
            state.setting = Setting::default();
            return 1;
        }
        let times = (now - value) / interval + 1;
        state.setting.value = value.saturating_add(times.saturating_mul(interval));
        times
    }

    fn expired(&self) {
        let times = {
            let mut state = self.state.lock();
            state.alarm = None;
            let times = self.advance(&mut state);
            if state.setting.value != 0 {
                let soonest = self.clock.now_ns().saturating_add(SHORTEST_REST_NS);
                let at = state.setting.value.max(if times > 0 { soonest } else { 0 });
                let ring: Arc<dyn Observer> = self.ring.clone();
                state.alarm = Some(Alarm::at(self.clock.monotonic_deadline(at), ring));
            }
            times
        };
        if times > 0 {
            self.send(times);
        }
    }

    fn send(&self, times: u64) {
        let more = i32::try_from(times - 1).unwrap_or(i32::MAX);
        match &self.notify {
            Notify::None => {}
            Notify::Plain(process, sig) => {
                if let Some(process) = process.upgrade() {
                    // Pending already is sent.
                    let _ = self.signal(&process, SigInfo::new(*sig, si::KERNEL));
                }
            }
            Notify::CpuLimit(process) => {
                if let Some(process) = process.upgrade() {
                    cpu_limit_reached(&process);
                }
            }
            Notify::Process(process, sig) => {
                let Some(process) = process.upgrade() else { return };
                let counted = process.shared_pending.lock().update(|i| self.is_own(i), count(times));
                if !counted {
                    let _ = self.signal(&process, self.info(*sig, more));
                }
            }
            Notify::Thread(thread, sig) => {
                let Some(thread) = thread.upgrade() else { return };
                let counted = thread.signals.lock().pending.update(|i| self.is_own(i), count(times));
                if !counted {
                    let _ = thread.send_signal(self.info(*sig, more));
                }
            }
        }
    }

    fn signal(&self, process: &Process, info: SigInfo) -> Result<()> {
        if self.clock.is_cpu() {
            crate::signal::send_to_running(process, info)
        } else {
            process.send_signal(info)
        }
    }

    fn info(&self, sig: Signo, overrun: i32) -> SigInfo {
        SigInfo::new(sig, si::TIMER).with_i32(0, self.id).with_i32(4, overrun).with_u64(8, self.value)
    }

    /// Whether a queued siginfo is from this timer.
    pub fn is_own(&self, info: &SigInfo) -> bool {
        info.code == si::TIMER && info.i32_at(0) == self.id
    }
}

/// Arms what watches `RLIMIT_CPU`, after the limit was set or inherited.
pub fn watch_cpu_limit(process: &Arc<Process>) {
    const LIMIT_TIMER: usize = 3;
    let soft = process.limit(resource::CPU);
    let mut timers = process.timers.lock();
    let slot = timers.interval.get_mut(LIMIT_TIMER);
    if soft == RLIM_INFINITY {
        // It disarms itself by being dropped.
        let old = slot.and_then(Option::take);
        drop(timers);
        drop(old);
        return;
    }
    let weak = Arc::downgrade(process);
    let make = || Timer::new(-1, Clock::Process(weak.clone()), Notify::CpuLimit(weak), 0);
    let timer = slot.map(|slot| slot.get_or_insert_with(make).clone());
    drop(timers);
    if let Some(timer) = timer {
        // 0 counts as one second, as in Linux.
        let value = soft.max(1).saturating_mul(NSEC_PER_SEC);
        timer.set(Setting { value, interval: NSEC_PER_SEC }, true);
    }
}

fn cpu_limit_reached(process: &Process) {
    let limit = process.limits.read().0.get(resource::CPU).copied();
    let hard = limit.map_or(RLIM_INFINITY, |limit| limit.max);
    if cpu_time::process_ns(process) >= hard.saturating_mul(NSEC_PER_SEC) {
        process.begin_exit(ExitStatus::Signaled { signal: Signo::SIGKILL, core: false });
    } else {
        // Pending already is sent.
        let _ = crate::signal::send_to_running(process, SigInfo::new(Signo::SIGXCPU, si::KERNEL));
    }
}

/// Adds to the overrun count of a signal that nobody has taken yet.
fn count(times: u64) -> impl FnOnce(&mut SigInfo) {
    move |info| {
        let more = i32::try_from(times).unwrap_or(i32::MAX);
        *info = info.with_i32(4, info.i32_at(4).saturating_add(more));
    }
}

/// A signal was taken off a queue: a timer's overrun count is told to the timer.
pub fn note_taken(process: &Process, info: &SigInfo) {
    if info.code == si::TIMER
        && let Ok(timer) = process.timers.lock().get(info.i32_at(0))
    {
        timer.note_delivered(info.i32_at(4));
    }
}
