//! Process ids, groups, sessions, umask: getpid(2), setpgid(2), setsid(2), umask(2).

use std::sync::atomic::Ordering;

use kernel::process::Job;
use linux_abi::Errno;

use crate::{Cx, SysResult};

/// getpid(2).
pub fn getpid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.process().pid()))
}

/// getppid(2): 0 for init.
pub fn getppid(cx: &mut Cx<'_>) -> SysResult {
    Ok(i64::from(cx.process().parent_pid()))
}

/// gettid(2).
pub fn gettid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.thread.tid()))
}

/// set_tid_address(2).
pub fn set_tid_address(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    cx.local.clear_child_tid = addr;
    Ok(i64::from(cx.thread.tid()))
}

/// umask(2).
pub fn umask(cx: &mut Cx<'_>, mask: u32) -> SysResult {
    Ok(i64::from(cx.fs().set_umask(mask)))
}

/// getpgrp(2).
pub fn getpgrp(cx: &mut Cx<'_>) -> SysResult {
    Ok(i64::from(cx.process().job().pgid))
}

/// getpgid(2).
pub fn getpgid(cx: &mut Cx<'_>, pid: i32) -> SysResult {
    let process = if pid == 0 { cx.process().clone() } else { cx.kernel().pids.process(pid)? };
    Ok(i64::from(process.job().pgid))
}

/// getsid(2).
pub fn getsid(cx: &mut Cx<'_>, pid: i32) -> SysResult {
    let process = if pid == 0 { cx.process().clone() } else { cx.kernel().pids.process(pid)? };
    Ok(i64::from(process.job().sid))
}

/// setpgid(2).
pub fn setpgid(cx: &mut Cx<'_>, pid: i32, pgid: i32) -> SysResult {
    if pgid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let caller = cx.process().clone();
    let target =
        if pid == 0 || pid == caller.pid() { caller.clone() } else { cx.kernel().pids.process(pid)? };
    let is_child = target.parent_pid() == caller.pid();
    if target.pid() != caller.pid() {
        if !is_child {
            return Err(Errno::ESRCH.into());
        }
        if target.job().sid != caller.job().sid {
            return Err(Errno::EPERM.into());
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES.into());
        }
    }
    // A session leader keeps its group.
    if target.job().sid == target.pid() {
        return Err(Errno::EPERM.into());
    }
    let pgid = if pgid == 0 { target.pid() } else { pgid };
    if pgid != target.pid() {
        let sid = caller.job().sid;
        if !cx.kernel().pids.group(pgid).iter().any(|p| p.job().sid == sid) {
            return Err(Errno::EPERM.into());
        }
    }
    target.set_job(Job { pgid, sid: target.job().sid });
    Ok(0)
}

/// setsid(2).
pub fn setsid(cx: &mut Cx<'_>) -> SysResult {
    let pid = cx.process().pid();
    if !cx.kernel().pids.group(pid).is_empty() {
        return Err(Errno::EPERM.into());
    }
    cx.process().set_job(Job { pgid: pid, sid: pid });
    cx.kernel().leave_terminal(cx.process());
    Ok(i64::from(pid))
}
