//! Clocks and sleeping: clock_gettime(2), clock_nanosleep(2), gettimeofday(2) and relatives.

use identity::Capability;
use kernel::clock::{Clock, id};
use linux_abi::Errno;
use linux_abi::time::{Timespec, Timeval};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

const TIMER_ABSTIME: i32 = 1;

/// clock_gettime(2).
pub fn clock_gettime(cx: &mut Cx<'_>, clock: i32, out: Ptr) -> SysResult {
    let now = Clock::from_id(clock, cx.thread)?.now_ns();
    cx.write(out, &Timespec::from_nanos(now))?;
    Ok(0)
}

/// clock_getres(2).
pub fn clock_getres(cx: &mut Cx<'_>, clock: i32, out: Ptr) -> SysResult {
    let resolution = Clock::from_id(clock, cx.thread)?.resolution_ns();
    if !out.is_null() {
        cx.write(out, &Timespec::from_nanos(resolution))?;
    }
    Ok(0)
}

/// clock_settime(2): the date is the host's; nobody here may set it.
pub fn clock_settime(cx: &mut Cx<'_>, clock: i32, new: Ptr) -> SysResult {
    let new: Timespec = cx.read(new)?;
    if clock != id::REALTIME {
        return Err(Errno::EINVAL.into());
    }
    new.to_nanos()?;
    Err(Errno::EPERM.into())
}

/// gettimeofday(2).
pub fn gettimeofday(cx: &mut Cx<'_>, out: Ptr, zone: Ptr) -> SysResult {
    if !out.is_null() {
        cx.write(out, &Timeval::from_nanos(executor::realtime_ns()))?;
    }
    if !zone.is_null() {
        // `tz_minuteswest`, `tz_dsttime`: obsolete.
        cx.write(zone, &[0i32; 2])?;
    }
    Ok(0)
}

/// settimeofday(2): as clock_settime.
pub fn settimeofday(cx: &mut Cx<'_>, new: Ptr, _zone: Ptr) -> SysResult {
    if !new.is_null() {
        let new: Timeval = cx.read(new)?;
        new.to_nanos()?;
    }
    cx.require(Capability::SYS_TIME)?;
    Err(Errno::EPERM.into())
}

/// time(2).
pub fn time(cx: &mut Cx<'_>, out: Ptr) -> SysResult {
    let seconds = (executor::realtime_ns() / 1_000_000_000) as i64;
    if !out.is_null() {
        cx.write(out, &seconds)?;
    }
    Ok(seconds)
}

/// nanosleep(2).
pub async fn nanosleep(cx: &mut Cx<'_>, wanted: Ptr, remaining: Ptr) -> SysResult {
    let wanted: Timespec = cx.read(wanted)?;
    let length = wanted.to_nanos()?;
    // An interrupted sleep that goes on keeps its end.
    let resumed = cx.local.restart_deadline.take();
    let deadline = resumed.unwrap_or_else(|| executor::monotonic_ns().saturating_add(length));
    sleep(cx, &Clock::Host(rustix::time::ClockId::Monotonic), deadline, Some(remaining)).await
}

/// clock_nanosleep(2).
pub async fn clock_nanosleep(
    cx: &mut Cx<'_>,
    clock: i32,
    flags: i32,
    wanted: Ptr,
    remaining: Ptr,
) -> SysResult {
    // The C library says EINVAL for it.
    if clock == id::THREAD_CPUTIME_ID {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let clock = Clock::from_id(clock, cx.thread)?;
    if !clock.can_wait() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let wanted: Timespec = cx.read(wanted)?;
    let time = wanted.to_nanos()?;
    if flags & TIMER_ABSTIME != 0 {
        return sleep(cx, &clock, time, None).await;
    }
    let resumed = cx.local.restart_deadline.take();
    // A relative sleep does not follow changes of the date.
    let clock = if clock.is_realtime() { Clock::Host(rustix::time::ClockId::Monotonic) } else { clock };
    let target = resumed.unwrap_or_else(|| clock.now_ns().saturating_add(time));
    sleep(cx, &clock, target, Some(remaining)).await
}

/// Sleeps until the clock shows `target`. A relative sleep tells what is left when a signal ends it.
async fn sleep(cx: &mut Cx<'_>, clock: &Clock, target: u64, remaining: Option<Ptr>) -> SysResult {
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        let left = target.saturating_sub(clock.now_ns());
        if left == 0 {
            return Ok(0);
        }
        if cx.thread.interrupted() {
            if let Some(remaining) = remaining {
                if !remaining.is_null() {
                    // At once: with a bad address the sleep ends with EFAULT and does not start over.
                    let left = Timespec::from_nanos(left);
                    cx.guest.copy_out_now(remaining.0, zerocopy::IntoBytes::as_bytes(&left))?;
                }
                cx.local.restart_deadline = Some(target);
            }
            return Err(SysError::Interrupted(Restart::Never));
        }
        let alarm = executor::Alarm::at(clock.monotonic_deadline(target), waiter.clone());
        cx.sleep_on(&waiter).await;
        drop(alarm);
    }
}
