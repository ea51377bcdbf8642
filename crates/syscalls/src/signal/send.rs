//! Sending: kill(2), tkill(2), tgkill(2), rt_sigqueueinfo(2), rt_tgsigqueueinfo(2), pidfd_send_signal(2).

use std::sync::Arc;

use identity::{Capability, Credentials};
use kernel::{Process, Thread};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, SigSet, Signo, si};
use zerocopy::FromZeros;

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// A signal number, or none for 0, the probe; `EINVAL`.
fn number(sig: i32) -> SysResult<Option<Signo>> {
    match sig {
        0 => Ok(None),
        sig => Ok(Some(Signo::new(sig).ok_or(Errno::EINVAL)?)),
    }
}

/// Whether the caller may signal the target: same user, `CAP_KILL`, or SIGCONT within the session.
fn may_signal(cx: &Cx<'_>, target: &Process, sig: Option<Signo>) -> bool {
    let caller = &cx.credentials;
    if target.pid() == cx.process().pid() || caller.capable(Capability::KILL) {
        return true;
    }
    if sig == Some(Signo::SIGCONT) && target.job().sid == cx.process().job().sid {
        return true;
    }
    // A zombie has no thread left to ask; Linux still has its ids, and no harm can come to it.
    target.any_thread().is_none_or(|t| same_user(caller, &t.credentials()))
}

fn same_user(caller: &Credentials, target: &Credentials) -> bool {
    let ids = [target.uid, target.suid];
    ids.contains(&caller.uid) || ids.contains(&caller.euid)
}

/// Whether init is spared: SIGKILL and SIGSTOP from inside its own pid namespace do nothing.
fn spared(target: &Process, sig: Signo) -> bool {
    target.pid() == 1 && !target.kernel().config.ordinary_init && SigSet::UNBLOCKABLE.contains(sig)
}

fn send(cx: &Cx<'_>, target: &Process, sig: Option<Signo>, info: Option<SigInfo>) -> SysResult<()> {
    if !may_signal(cx, target, sig) {
        return Err(Errno::EPERM.into());
    }
    let Some(sig) = sig else { return Ok(()) };
    if target.is_zombie() || spared(target, sig) {
        return Ok(());
    }
    let info =
        info.unwrap_or_else(|| SigInfo::from_user(sig, si::USER, cx.process().pid(), cx.credentials.uid));
    Ok(target.send_signal(info)?)
}

/// A process by its id or that of one of its threads; `ESRCH`.
fn process_or_of_thread(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<Process>> {
    let pids = &cx.kernel().pids;
    Ok(pids.process(pid).or_else(|err| pids.thread(pid).map(|t| t.process().clone()).map_err(|_| err))?)
}

/// kill(2).
pub fn kill(cx: &mut Cx<'_>, pid: i32, sig: i32) -> SysResult {
    let sig = number(sig)?;
    let targets: Vec<Arc<Process>> = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        pid if pid > 0 => {
            let target = process_or_of_thread(cx, pid)?;
            send(cx, &target, sig, None)?;
            return Ok(0);
        }
        0 => cx.kernel().pids.group(cx.process().job().pgid),
        -1 => {
            let own = cx.process().pid();
            cx.kernel().pids.processes().into_iter().filter(|p| p.pid() > 1 && p.pid() != own).collect()
        }
        group => cx.kernel().pids.group(-group),
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    // One success is a success of all; for -1, EPERM of some is not told.
    let mut result = Err(Errno::EPERM.into());
    for target in &targets {
        match send(cx, target, sig, None) {
            Ok(()) => result = Ok(0),
            Err(err) if result.is_err() => result = Err(err),
            Err(_) => {}
        }
    }
    if pid == -1 && result == Err(Errno::EPERM.into()) { Ok(0) } else { result }
}

fn to_thread(cx: &Cx<'_>, thread: &Thread, sig: Option<Signo>, info: Option<SigInfo>) -> SysResult {
    if !may_signal(cx, thread.process(), sig) {
        return Err(Errno::EPERM.into());
    }
    let Some(sig) = sig else { return Ok(0) };
    if !spared(thread.process(), sig) {
        let info = info
            .unwrap_or_else(|| SigInfo::from_user(sig, si::TKILL, cx.process().pid(), cx.credentials.uid));
        thread.send_signal(info)?;
    }
    Ok(0)
}

/// tkill(2).
pub fn tkill(cx: &mut Cx<'_>, tid: i32, sig: i32) -> SysResult {
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let sig = number(sig)?;
    let thread = cx.kernel().pids.thread(tid)?;
    to_thread(cx, &thread, sig, None)
}

/// tgkill(2).
pub fn tgkill(cx: &mut Cx<'_>, tgid: i32, tid: i32, sig: i32) -> SysResult {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let sig = number(sig)?;
    let thread = thread_of(cx, tgid, tid)?;
    to_thread(cx, &thread, sig, None)
}

fn thread_of(cx: &Cx<'_>, tgid: i32, tid: i32) -> SysResult<Arc<Thread>> {
    let thread = cx.kernel().pids.thread(tid)?;
    if thread.process().pid() == tgid { Ok(thread) } else { Err(Errno::ESRCH.into()) }
}

/// Reads a siginfo that the guest made: it may not claim to come from the kernel or from kill(2) unless it
/// goes to itself.
fn read_info(cx: &mut Cx<'_>, ptr: Ptr, sig: i32, to_self: bool) -> SysResult<SigInfo> {
    let mut info = SigInfo::new_zeroed();
    cx.guest.copy_in(ptr.0, zerocopy::IntoBytes::as_mut_bytes(&mut info))?;
    info.signo = sig;
    if (info.code >= 0 || info.code == si::TKILL) && !to_self {
        return Err(Errno::EPERM.into());
    }
    Ok(info)
}

/// rt_sigqueueinfo(2).
pub fn rt_sigqueueinfo(cx: &mut Cx<'_>, pid: i32, sig: i32, info: Ptr) -> SysResult {
    let to_self = pid == cx.process().pid();
    let info = read_info(cx, info, sig, to_self)?;
    let target = process_or_of_thread(cx, pid)?;
    send(cx, &target, number(sig)?, Some(info))?;
    Ok(0)
}

/// rt_tgsigqueueinfo(2).
pub fn rt_tgsigqueueinfo(cx: &mut Cx<'_>, tgid: i32, tid: i32, sig: i32, info: Ptr) -> SysResult {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let to_self = tid == cx.thread.tid();
    let info = read_info(cx, info, sig, to_self)?;
    let thread = thread_of(cx, tgid, tid)?;
    to_thread(cx, &thread, number(sig)?, Some(info))
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(cx: &mut Cx<'_>, fd: i32, sig: i32, info: Ptr, flags: u32) -> SysResult {
    // PIDFD_SIGNAL_THREAD 1, _THREAD_GROUP 2, _PROCESS_GROUP 4: one of them.
    if flags & !7 != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.file(fd)?;
    let target = cx.kernel().process_to_signal(&file)?;
    let info = if info.is_null() {
        None
    } else {
        let mut given = SigInfo::new_zeroed();
        cx.guest.copy_in(info.0, zerocopy::IntoBytes::as_mut_bytes(&mut given))?;
        if given.signo != sig {
            return Err(Errno::EINVAL.into());
        }
        let to_self = target.pid() == cx.process().pid();
        if (given.code >= 0 || given.code == si::TKILL) && !to_self {
            return Err(Errno::EPERM.into());
        }
        Some(given)
    };
    // Reaped, and its id perhaps given to another.
    if !cx.kernel().pids.process(target.pid()).is_ok_and(|p| Arc::ptr_eq(&p, &target)) {
        return Err(Errno::ESRCH.into());
    }
    let sig = number(sig)?;
    match flags {
        4 => {
            let group = cx.kernel().pids.group(target.job().pgid);
            for member in &group {
                send(cx, member, sig, info)?;
            }
            Ok(0)
        }
        1 => {
            let thread = target.thread(target.pid())?;
            to_thread(cx, &thread, sig, info)
        }
        _ => {
            send(cx, &target, sig, info)?;
            Ok(0)
        }
    }
}
