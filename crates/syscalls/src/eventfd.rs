//! eventfd(2), timerfd_create(2).

use kernel::timerfd::{Setting, TimerFd};
use kernel::{eventfd, timerfd};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::time::Timespec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use identity::Capability;

use crate::args::Ptr;
use crate::{Cx, SysResult};

const NONBLOCK: u32 = OpenFlags::NONBLOCK.bits();
const CLOEXEC: u32 = OpenFlags::CLOEXEC.bits();

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Itimerspec {
    interval: Timespec,
    value: Timespec,
}

impl From<Setting> for Itimerspec {
    fn from(s: Setting) -> Itimerspec {
        Itimerspec { interval: Timespec::from_nanos(s.interval), value: Timespec::from_nanos(s.value) }
    }
}

/// eventfd(2) without flags.
pub fn eventfd(cx: &mut Cx<'_>, initial: u32) -> SysResult {
    eventfd2(cx, initial, 0)
}

/// eventfd(2).
pub fn eventfd2(cx: &mut Cx<'_>, initial: u32, flags: u32) -> SysResult {
    const SEMAPHORE: u32 = 1;
    if flags & !(SEMAPHORE | NONBLOCK | CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = eventfd::open(initial, flags & SEMAPHORE != 0, flags & NONBLOCK != 0);
    cx.install(file, flags & CLOEXEC != 0)
}

/// timerfd_create(2).
pub fn timerfd_create(cx: &mut Cx<'_>, clock: i32, flags: u32) -> SysResult {
    if flags & !(NONBLOCK | CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // CLOCK_REALTIME_ALARM and CLOCK_BOOTTIME_ALARM would wake the machine.
    if matches!(clock, 8 | 9) {
        cx.require(Capability::WAKE_ALARM)?;
    }
    let file = timerfd::open(clock, flags & NONBLOCK != 0)?;
    cx.install(file, flags & CLOEXEC != 0)
}

/// timerfd_settime(2).
pub fn timerfd_settime(cx: &mut Cx<'_>, fd: i32, flags: u32, new: Ptr, old: Ptr) -> SysResult {
    const ABSTIME: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    let spec: Itimerspec = cx.read(new)?;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let setting = Setting { value: spec.value.to_nanos()?, interval: spec.interval.to_nanos()? };
    let file = cx.file(fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let before = timer.set(setting, flags & ABSTIME != 0, flags);
    if !old.is_null() {
        cx.write(old, &Itimerspec::from(before))?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(cx: &mut Cx<'_>, fd: i32, now: Ptr) -> SysResult {
    let file = cx.file(fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let left = timer.get();
    cx.write(now, &Itimerspec::from(left))?;
    Ok(0)
}
