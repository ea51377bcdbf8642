//! Attributes: chmod(2), chown(2), utimensat(2), access(2), truncate(2).

use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, S_IFREG};
use linux_abi::signal::Signo;
use linux_abi::time::{Timespec, Timeval};
use vfs::ops::attributes;
use vfs::{Place, SetTime};

use crate::args::Ptr;
use crate::path::{at, check_flags, real_file, resolve_at};
use crate::{Cx, SysResult};

/// chmod(2).
pub fn chmod(cx: &mut Cx<'_>, path: Ptr, mode: u32) -> SysResult {
    fchmodat(cx, AT_FDCWD, path, mode)
}

/// fchmodat(2): the system call has no flags.
pub fn fchmodat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32) -> SysResult {
    fchmodat2(cx, dirfd, path, mode, 0)
}

/// fchmodat2(2).
pub fn fchmodat2(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH)?;
    let place = resolve_at(cx, dirfd, path, flags)?;
    attributes::chmod(cx, &place, mode)?;
    Ok(0)
}

/// fchmod(2).
pub fn fchmod(cx: &mut Cx<'_>, fd: i32, mode: u32) -> SysResult {
    let file = real_file(cx, fd)?;
    attributes::chmod(cx, file.place(), mode)?;
    Ok(0)
}

/// chown(2).
pub fn chown(cx: &mut Cx<'_>, path: Ptr, uid: u32, gid: u32) -> SysResult {
    fchownat(cx, AT_FDCWD, path, uid, gid, 0)
}

/// lchown(2).
pub fn lchown(cx: &mut Cx<'_>, path: Ptr, uid: u32, gid: u32) -> SysResult {
    fchownat(cx, AT_FDCWD, path, uid, gid, at::SYMLINK_NOFOLLOW)
}

/// fchownat(2).
pub fn fchownat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, uid: u32, gid: u32, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH)?;
    let place = resolve_at(cx, dirfd, path, flags)?;
    attributes::chown(cx, &place, id(uid), id(gid))?;
    Ok(0)
}

/// fchown(2).
pub fn fchown(cx: &mut Cx<'_>, fd: i32, uid: u32, gid: u32) -> SysResult {
    let file = real_file(cx, fd)?;
    attributes::chown(cx, file.place(), id(uid), id(gid))?;
    Ok(0)
}

/// -1 leaves an id.
fn id(raw: u32) -> Option<u32> {
    (raw != u32::MAX).then_some(raw)
}

const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

/// utimensat(2): a null path names the descriptor's file itself.
pub fn utimensat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, times: Ptr, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH)?;
    let (atime, mtime) = if times.is_null() {
        (Some(SetTime::Now), Some(SetTime::Now))
    } else {
        let (first, second) = (cx.read::<Timespec>(times)?, cx.read::<Timespec>(times.add(16)?)?);
        (time(first)?, time(second)?)
    };
    if atime.is_none() && mtime.is_none() {
        return Ok(0);
    }
    let place = if path.is_null() && dirfd != AT_FDCWD {
        check_flags(flags, at::EMPTY_PATH)?;
        real_file(cx, dirfd)?.place().clone()
    } else {
        resolve_at(cx, dirfd, path, flags)?
    };
    attributes::utimens(cx, &place, atime, mtime)?;
    Ok(0)
}

fn time(spec: Timespec) -> SysResult<Option<SetTime>> {
    match spec.nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..=999_999_999 => Ok(Some(SetTime::At(spec))),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// utimes(2).
pub fn utimes(cx: &mut Cx<'_>, path: Ptr, times: Ptr) -> SysResult {
    futimesat(cx, AT_FDCWD, path, times)
}

/// futimesat(2).
pub fn futimesat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, times: Ptr) -> SysResult {
    let (atime, mtime) = if times.is_null() {
        (SetTime::Now, SetTime::Now)
    } else {
        let (first, second) = (cx.read::<Timeval>(times)?, cx.read::<Timeval>(times.add(16)?)?);
        (timeval(first)?, timeval(second)?)
    };
    let place = if path.is_null() && dirfd != AT_FDCWD {
        real_file(cx, dirfd)?.place().clone()
    } else {
        resolve_at(cx, dirfd, path, 0)?
    };
    attributes::utimens(cx, &place, Some(atime), Some(mtime))?;
    Ok(0)
}

fn timeval(time: Timeval) -> SysResult<SetTime> {
    if !(0..1_000_000).contains(&time.usec) {
        return Err(Errno::EINVAL.into());
    }
    Ok(SetTime::At(Timespec { sec: time.sec, nsec: time.usec * 1000 }))
}

/// utime(2).
pub fn utime(cx: &mut Cx<'_>, path: Ptr, times: Ptr) -> SysResult {
    let (atime, mtime) = if times.is_null() {
        (SetTime::Now, SetTime::Now)
    } else {
        let [atime, mtime] = cx.read::<[i64; 2]>(times)?;
        let at = |sec| SetTime::At(Timespec { sec, nsec: 0 });
        (at(atime), at(mtime))
    };
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    attributes::utimens(cx, &place, Some(atime), Some(mtime))?;
    Ok(0)
}

/// access(2).
pub fn access(cx: &mut Cx<'_>, path: Ptr, mode: u32) -> SysResult {
    faccessat2(cx, AT_FDCWD, path, mode, 0)
}

/// faccessat(2): the system call has no flags.
pub fn faccessat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32) -> SysResult {
    faccessat2(cx, dirfd, path, mode, 0)
}

/// faccessat2(2).
pub fn faccessat2(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32, flags: u32) -> SysResult {
    if mode & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | at::EACCESS)?;
    let own = cx.credentials.clone();
    if flags & at::EACCESS == 0 && needs_real(&own) {
        // The walk asks with the real ids too.
        cx.credentials = std::sync::Arc::new(attributes::real_credentials(&own));
    }
    let result = resolve_at(cx, dirfd, path, flags)
        .and_then(|place| Ok(attributes::access(&cx.credentials, &place, mode)?));
    cx.credentials = own;
    result.map(|()| 0)
}

/// Whether the real ids may answer otherwise than the ones in use.
fn needs_real(cred: &identity::Credentials) -> bool {
    let capabilities = if cred.uid == 0 { cred.permitted } else { identity::CapabilitySet::EMPTY };
    cred.uid != cred.fsuid || cred.gid != cred.fsgid || cred.effective != capabilities
}

/// truncate(2).
pub fn truncate(cx: &mut Cx<'_>, path: Ptr, length: i64) -> SysResult {
    let size = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let place: Place = resolve_at(cx, AT_FDCWD, path, 0)?;
    check_file_size(cx, size)?;
    attributes::truncate(cx, &place, size)?;
    Ok(0)
}

/// ftruncate(2).
pub fn ftruncate(cx: &mut Cx<'_>, fd: i32, length: i64) -> SysResult {
    let size = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let file = real_file(cx, fd)?;
    let meta = file.inode().metadata()?;
    if meta.kind() != S_IFREG || !file.flags().writable() {
        return Err(Errno::EINVAL.into());
    }
    check_file_size(cx, size)?;
    attributes::set_size(&cx.credentials, file.place(), &meta, size)?;
    Ok(0)
}

/// `RLIMIT_FSIZE`: `EFBIG` and SIGXFSZ.
fn check_file_size(cx: &mut Cx<'_>, size: u64) -> SysResult<()> {
    if size > cx.process().limit(kernel::limits::resource::FSIZE) {
        crate::run_loop::raise(cx, Signo::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    Ok(())
}
