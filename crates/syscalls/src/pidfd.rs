//! Processes as descriptors: pidfd_open(2), pidfd_getfd(2), process_mrelease(2).

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::OpenFlags;

use crate::{Cx, SysResult};

/// `PIDFD_THREAD`.
const PIDFD_THREAD: u32 = OpenFlags::EXCL.bits();

/// pidfd_open(2).
pub fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> SysResult {
    let nonblock = OpenFlags::NONBLOCK.bits();
    if flags & !(nonblock | PIDFD_THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let process = match cx.kernel().pids.process(pid) {
        Ok(process) => process,
        Err(err) => {
            let thread = cx.kernel().pids.thread(pid).map_err(|_| err)?;
            if flags & PIDFD_THREAD == 0 {
                return Err(Errno::EINVAL.into());
            }
            cx.kernel().note_missing("PIDFD_THREAD of a thread that is not the first");
            drop(thread);
            return Err(Errno::EINVAL.into());
        }
    };
    let file = kernel::pidfd::open(&process, flags & nonblock != 0);
    cx.install(file, true)
}

/// pidfd_getfd(2).
pub fn pidfd_getfd(cx: &mut Cx<'_>, pidfd: i32, target: i32, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.file(pidfd)?;
    let process = kernel::pidfd::process_of(&file).ok_or(Errno::EBADF)?;
    let thread = process.any_thread().ok_or(Errno::ESRCH)?;
    if !crate::process_vm::may_access(cx, &thread) {
        return Err(Errno::EPERM.into());
    }
    let file = thread.files().get(target)?;
    cx.install(file, true)
}

/// process_mrelease(2). The host gives the memory back by itself as soon as a process has been killed.
pub fn process_mrelease(cx: &mut Cx<'_>, pidfd: i32, flags: u32) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.file(pidfd)?;
    let process = kernel::pidfd::process_of(&file).ok_or(Errno::EBADF)?;
    let thread = process.any_thread().ok_or(Errno::ESRCH)?;
    // All that share the memory (vfork) must be ending.
    let used = cx.kernel().pids.processes().iter().any(|other| {
        let shares = other.any_thread().is_some_and(|other| Arc::ptr_eq(&other.mm(), &thread.mm()));
        shares && other.exit_status().is_none()
    });
    if used { Err(Errno::EINVAL.into()) } else { Ok(0) }
}
