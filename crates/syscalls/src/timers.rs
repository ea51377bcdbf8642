//! Timers: timer_create(2) and its family, setitimer(2), alarm(2).

use std::sync::Arc;

use identity::Capability;
use kernel::clock::{Clock, id};
use kernel::timers::{Notify, Setting, Timer};
use linux_abi::Errno;
use linux_abi::signal::Signo;
use linux_abi::time::{Timespec, Timeval};
use rustix::time::ClockId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SigEvent {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    pad: [u32; 11],
}

impl Default for SigEvent {
    fn default() -> SigEvent {
        SigEvent { value: 0, signo: Signo::SIGALRM.raw(), notify: SIGEV_SIGNAL, tid: 0, pad: [0; 11] }
    }
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;
const TIMER_ABSTIME: i32 = 1;

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ItimerSpec {
    interval: Timespec,
    value: Timespec,
}

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ItimerVal {
    interval: Timeval,
    value: Timeval,
}

impl ItimerVal {
    fn from_setting(setting: Setting) -> ItimerVal {
        // Rounded up: what is armed does not look disarmed.
        let up = |ns: u64| Timeval::from_nanos(ns.saturating_add(999));
        ItimerVal { interval: up(setting.interval), value: up(setting.value) }
    }
    fn to_setting(self) -> Result<Setting, Errno> {
        Ok(Setting { value: self.value.to_nanos()?, interval: self.interval.to_nanos()? })
    }
}

/// timer_create(2).
pub fn timer_create(cx: &mut Cx<'_>, clock: i32, event: Ptr, id_out: Ptr) -> SysResult {
    if matches!(clock, id::REALTIME_ALARM | id::BOOTTIME_ALARM) {
        cx.require(Capability::WAKE_ALARM)?;
    }
    let clock = Clock::from_id(clock, cx.thread)?;
    if !clock.can_wait() {
        return Err(Errno::EINVAL.into());
    }
    let given = !event.is_null();
    let event: SigEvent = if given { cx.read(event)? } else { SigEvent::default() };
    let sig = Signo::new(event.signo).ok_or(Errno::EINVAL);
    let process = Arc::downgrade(cx.process());
    let notify = match event.notify {
        SIGEV_NONE => Notify::None,
        // The library makes the thread itself and asks for a signal; the bare kind is one, too.
        SIGEV_SIGNAL | SIGEV_THREAD => Notify::Process(process, sig?),
        SIGEV_THREAD_ID => {
            let thread = cx.process().thread(event.tid).map_err(|_| Errno::EINVAL)?;
            Notify::Thread(Arc::downgrade(&thread), sig?)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let id = cx
        .process()
        .timers
        .lock()
        .create(|id| Timer::new(id, clock, notify, if given { event.value } else { id as u64 }))?;
    if let Err(err) = cx.write(id_out, &id) {
        let _ = cx.process().timers.lock().delete(id);
        return Err(err);
    }
    Ok(0)
}

/// timer_settime(2).
pub fn timer_settime(cx: &mut Cx<'_>, id: i32, flags: i32, new: Ptr, old: Ptr) -> SysResult {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let new: ItimerSpec = cx.read(new)?;
    let setting = Setting { value: new.value.to_nanos()?, interval: new.interval.to_nanos()? };
    let timer = cx.process().timers.lock().get(id)?;
    let before = timer.set(setting, flags & TIMER_ABSTIME != 0);
    if !old.is_null() {
        write_spec(cx, old, before)?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub fn timer_gettime(cx: &mut Cx<'_>, id: i32, out: Ptr) -> SysResult {
    let timer = cx.process().timers.lock().get(id)?;
    write_spec(cx, out, timer.get())?;
    Ok(0)
}

fn write_spec(cx: &mut Cx<'_>, out: Ptr, setting: Setting) -> SysResult<()> {
    let spec = ItimerSpec {
        interval: Timespec::from_nanos(setting.interval),
        value: Timespec::from_nanos(setting.value),
    };
    cx.write(out, &spec)
}

/// timer_getoverrun(2).
pub fn timer_getoverrun(cx: &mut Cx<'_>, id: i32) -> SysResult {
    let timer = cx.process().timers.lock().get(id)?;
    Ok(i64::from(timer.overrun()))
}

/// timer_delete(2): a signal of it that waits goes with it.
pub fn timer_delete(cx: &mut Cx<'_>, id: i32) -> SysResult {
    let timer = cx.process().timers.lock().delete(id)?;
    timer.set(Setting::default(), false);
    cx.process().shared_pending.lock().remove(|info| timer.is_own(info));
    let threads: Vec<_> = cx.process().threads.lock().values().cloned().collect();
    for thread in threads {
        thread.signals.lock().pending.remove(|info| timer.is_own(info));
    }
    Ok(0)
}

/// The interval timer of this number; `EINVAL`.
fn interval_timer(cx: &Cx<'_>, which: u32) -> SysResult<Arc<Timer>> {
    let process = Arc::downgrade(cx.process());
    let (clock, sig) = match which {
        0 => (Clock::Host(ClockId::Monotonic), Signo::SIGALRM),
        1 => (Clock::ProcessUser(process.clone()), Signo::SIGVTALRM),
        2 => (Clock::Process(process.clone()), Signo::SIGPROF),
        _ => return Err(Errno::EINVAL.into()),
    };
    let make = || Timer::new(-1, clock, Notify::Plain(process, sig), 0);
    Ok(cx.process().timers.lock().interval(which as usize, make)?)
}

/// getitimer(2).
pub fn getitimer(cx: &mut Cx<'_>, which: u32, out: Ptr) -> SysResult {
    let timer = interval_timer(cx, which)?;
    cx.write(out, &ItimerVal::from_setting(timer.get()))?;
    Ok(0)
}

/// setitimer(2). A null `new` disarms, as Linux has it.
pub fn setitimer(cx: &mut Cx<'_>, which: u32, new: Ptr, old: Ptr) -> SysResult {
    let new = if new.is_null() { ItimerVal::default() } else { cx.read(new)? };
    let setting = new.to_setting()?;
    let timer = interval_timer(cx, which)?;
    let before = timer.set(setting, false);
    if !old.is_null() {
        cx.write(old, &ItimerVal::from_setting(before))?;
    }
    Ok(0)
}

/// alarm(2).
pub fn alarm(cx: &mut Cx<'_>, seconds: u32) -> SysResult {
    let timer = interval_timer(cx, 0)?;
    let setting = Setting { value: u64::from(seconds) * 1_000_000_000, interval: 0 };
    let before = timer.set(setting, false).value;
    let (whole, rest) = (before / 1_000_000_000, before % 1_000_000_000);
    // Rounded, but what is armed is never 0.
    let up = (whole == 0 && rest > 0) || rest >= 500_000_000;
    Ok((whole + u64::from(up)) as i64)
}
