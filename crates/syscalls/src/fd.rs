//! Descriptors: close(2), close_range(2), dup(2).

use std::sync::Arc;

use kernel::FdFlags;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::OpenFile;

use crate::context::Resume;
use crate::{Cx, SysResult};

/// close(2).
pub fn close(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    close_soon(cx, fd);
    let file = cx.files().remove(fd)?;
    let done = closed(cx, &file);
    if file.is_kept() {
        let_go(cx, &[file.id()], done.is_ok());
    }
    done?;
    Ok(0)
}

/// Files are closed that may stay in the stub: the host's descriptors go with the answer, if that is 0.
fn let_go(cx: &mut Cx<'_>, ids: &[u64], ok: bool) {
    let seen = cx.thread.ptrace.is_active() || cx.kernel().config.strace;
    if ok && !seen && cx.guest.resume_closed(ids.iter().copied()) {
        cx.local.resume = Resume::Done;
    } else {
        ids.iter().for_each(|id| cx.guest.leave_kept(*id));
    }
}

/// Before the number may be another file's, nobody is told of this one any more.
fn close_soon(cx: &Cx<'_>, fd: i32) {
    if let Ok(file) = cx.files().get(fd)
        && file.is_held()
    {
        cx.kernel().posting.descriptor_closed(&file, cx.thread);
    }
}

/// What closing a descriptor means beyond dropping it: POSIX locks of the process on the file go.
fn closed(cx: &Cx<'_>, file: &Arc<OpenFile>) -> SysResult<()> {
    if file.is_held() || file.is_posted_to() {
        cx.kernel().posting.descriptor_closed(file, cx.thread);
    }
    kernel::locks::descriptor_closed(cx.process(), file);
    kernel::mqueue::descriptor_closed(cx.process(), file);
    file.ops().flush(file)?;
    Ok(file.tell_late_error()?)
}

/// close_range(2).
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> SysResult {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags & UNSHARE != 0 {
        cx.thread.set_files(Some(cx.files().duplicate()));
    }
    if flags & CLOEXEC != 0 {
        cx.files().set_cloexec_range(first, last);
    } else {
        let mut kept = Vec::new();
        for file in cx.files().remove_range(first, last) {
            // close_range reports no errors of single files.
            let _ = closed(cx, &file);
            if file.is_kept() {
                kept.push(file.id());
            }
        }
        if !kept.is_empty() {
            let_go(cx, &kept, true);
        }
    }
    Ok(0)
}

/// dup(2).
pub fn dup(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = cx.file(fd)?;
    cx.install(file, false)
}

/// dup2(2).
pub fn dup2(cx: &mut Cx<'_>, old: i32, new: i32) -> SysResult {
    let file = cx.file(old)?;
    if old == new {
        return Ok(i64::from(new));
    }
    dup_to(cx, file, new, false)
}

/// dup3(2).
pub fn dup3(cx: &mut Cx<'_>, old: i32, new: i32, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if old == new || !(flags - OpenFlags::CLOEXEC).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.file(old)?;
    dup_to(cx, file, new, flags.contains(OpenFlags::CLOEXEC))
}

/// Puts a file at this descriptor, whatever was there; `EBADF` beyond the limit.
pub(crate) fn dup_to(cx: &mut Cx<'_>, file: Arc<OpenFile>, new: i32, cloexec: bool) -> SysResult {
    let limit = cx.process().limit(kernel::limits::resource::NOFILE);
    close_soon(cx, new);
    if let Some(old) = cx.files().replace(new, file, FdFlags { cloexec }, limit)? {
        // dup2 reports no error of the file it closes.
        let _ = closed(cx, &old);
        if old.is_kept() {
            cx.guest.leave_kept(old.id());
        }
    }
    Ok(i64::from(new))
}
