//! Blocked and pending signals: rt_sigprocmask(2), rt_sigpending(2), rt_sigsuspend(2).

use kernel::Thread;
use linux_abi::Errno;
use linux_abi::signal::SigSet;

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

const SIG_BLOCK: i32 = 0;
const SIG_UNBLOCK: i32 = 1;
const SIG_SETMASK: i32 = 2;

/// Sets the mask of the calling thread; what becomes deliverable is looked at before it runs on, and what
/// it no longer takes goes to another thread.
pub fn set(thread: &Thread, mask: SigSet) {
    let mask = mask.blockable();
    let newly_blocked = {
        let mut signals = thread.signals.lock();
        let old = std::mem::replace(&mut signals.mask, mask);
        SigSet(mask.0 & !old.0)
    };
    kernel::signal::retarget(thread, newly_blocked);
    if kernel::signal::has_deliverable(thread) {
        thread.note_attention();
    }
}

/// `EINVAL` unless the guest's `sigset_t` has the size that this kernel has.
pub fn check_size(size: usize) -> SysResult<()> {
    if size == size_of::<SigSet>() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// Puts a mask in place for the duration of a wait (ppoll, pselect, epoll_pwait, sigsuspend): the old one comes
/// back by the run loop, or after the handler that ended the wait.
pub fn set_for_wait(cx: &mut Cx<'_>, mask: SigSet) {
    let old = cx.thread.signals.lock().mask;
    cx.local.saved_mask.get_or_insert(old);
    set(cx.thread, mask);
}

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(cx: &mut Cx<'_>, how: i32, new: Ptr, old: Ptr, size: usize) -> SysResult {
    check_size(size)?;
    let before = cx.thread.signals.lock().mask;
    if !new.is_null() {
        let wanted: SigSet = cx.read(new)?;
        let mask = match how {
            SIG_BLOCK => SigSet(before.0 | wanted.0),
            SIG_UNBLOCK => SigSet(before.0 & !wanted.0),
            SIG_SETMASK => wanted,
            _ => return Err(Errno::EINVAL.into()),
        };
        set(cx.thread, mask);
    }
    if !old.is_null() {
        cx.write(old, &before)?;
    }
    Ok(0)
}

/// rt_sigpending(2): blocked signals that wait. Sizes below 8 give the low bytes, as Linux does.
pub fn rt_sigpending(cx: &mut Cx<'_>, set: Ptr, size: usize) -> SysResult {
    if size > size_of::<SigSet>() {
        return Err(Errno::EINVAL.into());
    }
    let shared = cx.process().shared_pending.lock().set();
    let pending = {
        let signals = cx.thread.signals.lock();
        (signals.pending.set().0 | shared.0) & signals.mask.0
    };
    cx.write_bytes(set, pending.to_ne_bytes().get(..size).unwrap_or_default())?;
    Ok(0)
}

/// rt_sigsuspend(2).
pub async fn rt_sigsuspend(cx: &mut Cx<'_>, mask: Ptr, size: usize) -> SysResult {
    check_size(size)?;
    let mask: SigSet = cx.read(mask)?;
    set_for_wait(cx, mask);
    wait_for_signal(cx).await
}

/// pause(2).
pub async fn pause(cx: &mut Cx<'_>) -> SysResult {
    wait_for_signal(cx).await
}

/// Sleeps until a signal, a stop or death comes.
async fn wait_for_signal(cx: &mut Cx<'_>) -> SysResult {
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        if cx.thread.interrupted() {
            return Err(SysError::Interrupted(Restart::Never));
        }
        cx.sleep_on(&waiter).await;
    }
}
