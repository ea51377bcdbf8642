//! The clocks of clock_gettime(2), read on behalf of a guest thread.

use std::sync::{Arc, Weak};

use linux_abi::Errno;
use rustix::time::{ClockId, Timespec};

use crate::{Process, Result, Thread, cpu_time};

/// Clock ids.
#[expect(missing_docs, reason = "named in clock_gettime(2)")]
pub mod id {
    pub const REALTIME: i32 = 0;
    pub const MONOTONIC: i32 = 1;
    pub const PROCESS_CPUTIME_ID: i32 = 2;
    pub const THREAD_CPUTIME_ID: i32 = 3;
    pub const MONOTONIC_RAW: i32 = 4;
    pub const REALTIME_COARSE: i32 = 5;
    pub const MONOTONIC_COARSE: i32 = 6;
    pub const BOOTTIME: i32 = 7;
    pub const REALTIME_ALARM: i32 = 8;
    pub const BOOTTIME_ALARM: i32 = 9;
    pub const TAI: i32 = 11;
}

/// How often a CPU clock is looked at when something waits for it, nanoseconds.
const CPU_CLOCK_STEP_NS: u64 = 1_000_000;

/// A clock.
#[derive(Clone)]
pub enum Clock {
    /// One that the host has for everybody.
    Host(ClockId),
    /// CPU time of a process in user mode (`ITIMER_VIRTUAL`).
    ProcessUser(Weak<Process>),
    /// CPU time of a process.
    Process(Weak<Process>),
    /// CPU time of a thread.
    Thread(Weak<Thread>),
}

impl Clock {
    /// The clock of an id as this thread means it; `EINVAL`.
    pub fn from_id(clock: i32, thread: &Arc<Thread>) -> Result<Clock> {
        Ok(match clock {
            id::REALTIME => Clock::Host(ClockId::Realtime),
            id::MONOTONIC => Clock::Host(ClockId::Monotonic),
            id::MONOTONIC_RAW => Clock::Host(ClockId::MonotonicRaw),
            id::REALTIME_COARSE => Clock::Host(ClockId::RealtimeCoarse),
            id::MONOTONIC_COARSE => Clock::Host(ClockId::MonotonicCoarse),
            id::BOOTTIME => Clock::Host(ClockId::Boottime),
            // The alarm clocks show the same time; hosts without an RTC lack them.
            id::REALTIME_ALARM => Clock::Host(ClockId::Realtime),
            id::BOOTTIME_ALARM => Clock::Host(ClockId::Boottime),
            id::TAI => Clock::Host(ClockId::Tai),
            id::PROCESS_CPUTIME_ID => Clock::Process(Arc::downgrade(thread.process())),
            id::THREAD_CPUTIME_ID => Clock::Thread(Arc::downgrade(thread)),
            clock if clock < 0 => Clock::of_cpu(clock, thread)?,
            _ => return Err(Errno::EINVAL),
        })
    }

    /// The clocks that clock_getcpuclockid(3) and pthread_getcpuclockid(3) make.
    fn of_cpu(clock: i32, thread: &Arc<Thread>) -> Result<Clock> {
        // The low two bits are the kind; 3 is a device's clock. All three kinds count the same here.
        if clock & 3 == 3 {
            return Err(Errno::EINVAL);
        }
        let pid = !(clock >> 3);
        let pids = &thread.kernel().pids;
        if clock & 4 != 0 {
            let target = if pid == 0 { Ok(thread.clone()) } else { pids.thread(pid) };
            // Only threads of the own process.
            let target = target.ok().filter(|t| t.process().pid() == thread.process().pid());
            return target.map(|t| Clock::Thread(Arc::downgrade(&t))).ok_or(Errno::EINVAL);
        }
        let target = if pid == 0 { Ok(thread.process().clone()) } else { pids.process(pid) };
        target.map(|p| Clock::Process(Arc::downgrade(&p))).map_err(|_| Errno::EINVAL)
    }

    /// Its number, in [`id`].
    pub fn id(&self) -> i32 {
        match self {
            Clock::Host(clock) => *clock as i32,
            Clock::Process(_) | Clock::ProcessUser(_) => id::PROCESS_CPUTIME_ID,
            Clock::Thread(_) => id::THREAD_CPUTIME_ID,
        }
    }

    /// Whether it counts CPU time.
    pub fn is_cpu(&self) -> bool {
        !matches!(self, Clock::Host(_))
    }

    /// Whether it follows changes of the date.
    pub fn is_realtime(&self) -> bool {
        matches!(self, Clock::Host(ClockId::Realtime | ClockId::Tai))
    }

    /// Whether something can wait for it: not the coarse and raw ones.
    pub fn can_wait(&self) -> bool {
        !matches!(
            self,
            Clock::Host(ClockId::MonotonicRaw | ClockId::RealtimeCoarse | ClockId::MonotonicCoarse)
        )
    }

    /// Its time, nanoseconds; the CPU clock of somebody who has ended stands at 0.
    pub fn now_ns(&self) -> u64 {
        match self {
            Clock::Host(clock) => nanoseconds(rustix::time::clock_gettime(*clock)),
            Clock::ProcessUser(process) => {
                process.upgrade().map_or(0, |p| cpu_time::process_usage(&p).user_ns)
            }
            Clock::Process(process) => process.upgrade().map_or(0, |p| cpu_time::process_ns(&p)),
            Clock::Thread(thread) => thread.upgrade().map_or(0, |t| cpu_time::thread_ns(&t)),
        }
    }

    /// Its resolution, nanoseconds.
    pub fn resolution_ns(&self) -> u64 {
        match self {
            Clock::Host(clock) => nanoseconds(rustix::time::clock_getres(*clock)),
            _ => 1,
        }
    }

    /// When, on CLOCK_MONOTONIC, to look whether it has come to `target`. For a CPU clock that is a guess
    /// and may be early.
    pub fn monotonic_deadline(&self, target: u64) -> u64 {
        let left = target.saturating_sub(self.now_ns());
        let now = executor::monotonic_ns();
        if !self.is_cpu() {
            return now.saturating_add(left);
        }
        // Several threads use up CPU time faster than one.
        let speed = match self {
            Clock::Process(process) | Clock::ProcessUser(process) => {
                process.upgrade().map_or(1, |p| p.threads.lock().len().clamp(1, 64))
            }
            _ => 1,
        };
        now.saturating_add((left / speed as u64).max(CPU_CLOCK_STEP_NS))
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
