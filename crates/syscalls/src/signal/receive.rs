//! Taking signals without a handler: rt_sigtimedwait(2), signalfd(2).

use kernel::signalfd::SignalFd;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::SigSet;
use linux_abi::time::Timespec;

use super::mask;
use crate::args::Ptr;
use crate::{Cx, SysResult};

/// rt_sigtimedwait(2).
pub async fn rt_sigtimedwait(
    cx: &mut Cx<'_>,
    set: Ptr,
    info_out: Ptr,
    timeout: Ptr,
    size: usize,
) -> SysResult {
    mask::check_size(size)?;
    let wanted = cx.read::<SigSet>(set)?.blockable();
    let deadline = if timeout.is_null() {
        None
    } else {
        let length = cx.read::<Timespec>(timeout)?.to_nanos()?;
        Some(executor::monotonic_ns().saturating_add(length))
    };
    cx.thread.signals.lock().waited = wanted;
    let taken = wait(cx, wanted, deadline).await;
    cx.thread.signals.lock().waited = SigSet::EMPTY;
    let info = taken?;
    if !info_out.is_null() {
        cx.write(info_out, &info)?;
    }
    Ok(i64::from(info.signo))
}

async fn wait(
    cx: &mut Cx<'_>,
    wanted: SigSet,
    deadline: Option<u64>,
) -> SysResult<linux_abi::signal::SigInfo> {
    let waiter = cx.thread.waiter().clone();
    let mut alarm = None;
    loop {
        waiter.reset();
        if let Some(info) = kernel::signal::take(cx.thread, wanted) {
            return Ok(info);
        }
        if deadline.is_some_and(|at| executor::monotonic_ns() >= at) {
            return Err(Errno::EAGAIN.into());
        }
        // Any other signal ends it, a stop as well, and it is never restarted (signal(7)).
        if cx.thread.interrupted() {
            return Err(Errno::EINTR.into());
        }
        if alarm.is_none() {
            alarm = deadline.map(|at| executor::Alarm::at(at, waiter.clone()));
        }
        cx.sleep_on(&waiter).await;
    }
}

/// signalfd(2).
pub fn signalfd(cx: &mut Cx<'_>, fd: i32, set: Ptr, size: usize) -> SysResult {
    signalfd4(cx, fd, set, size, 0)
}

/// signalfd4: signalfd(2) with flags.
pub fn signalfd4(cx: &mut Cx<'_>, fd: i32, set: Ptr, size: usize, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - (OpenFlags::CLOEXEC | OpenFlags::NONBLOCK)).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    mask::check_size(size)?;
    let wanted: SigSet = cx.read(set)?;
    if fd == -1 {
        let file = SignalFd::open(cx.thread, wanted, flags.contains(OpenFlags::NONBLOCK));
        return cx.install(file, flags.contains(OpenFlags::CLOEXEC));
    }
    let file = cx.file(fd)?;
    file.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(wanted);
    Ok(i64::from(fd))
}
