//! fcntl(2): descriptors, flags, locks, pipe sizes, seals, leases; flock(2), memfd_create(2).

use std::sync::Arc;

use executor::Events;
use fs_tmp::TmpFile;
use identity::Capability;
use kernel::FdFlags;
use kernel::locks::{Owner, RangeLock};
use kernel::pipe::{OutsideFifo, PipeEnd};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::{OpenFile, Place};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

const GETLK: u32 = 5;
const SETLK: u32 = 6;
const SETLKW: u32 = 7;
const OFD_GETLK: u32 = 36;
const OFD_SETLK: u32 = 37;
const OFD_SETLKW: u32 = 38;
const SETLEASE: u32 = 1024;
const GETLEASE: u32 = 1025;
const DUPFD_QUERY: u32 = 1027;
const CREATED_QUERY: u32 = 1028;
const SETPIPE_SZ: u32 = 1031;
const GETPIPE_SZ: u32 = 1032;
const ADD_SEALS: u32 = 1033;
const GET_SEALS: u32 = 1034;

const RDLCK: i16 = 0;
const WRLCK: i16 = 1;
const UNLCK: i16 = 2;

/// `struct flock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Flock {
    kind: i16,
    whence: i16,
    pad0: u32,
    start: i64,
    len: i64,
    pid: i32,
    pad1: u32,
}

/// fcntl(2).
pub async fn fcntl(cx: &mut Cx<'_>, fd: i32, cmd: u32, arg: u64) -> SysResult {
    const DUPFD: u32 = 0;
    const GETFD: u32 = 1;
    const SETFD: u32 = 2;
    const GETFL: u32 = 3;
    const SETFL: u32 = 4;
    const DUPFD_CLOEXEC: u32 = 1030;
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) && !matches!(cmd, DUPFD | DUPFD_CLOEXEC | GETFD | SETFD | GETFL)
    {
        return Err(Errno::EBADF.into());
    }
    match cmd {
        DUPFD | DUPFD_CLOEXEC => {
            let limit = cx.process().limit(kernel::limits::resource::NOFILE);
            let min = usize::try_from(arg as u32).unwrap_or(usize::MAX);
            if min as u64 >= limit {
                return Err(Errno::EINVAL.into());
            }
            Ok(i64::from(cx.files().insert(file, FdFlags { cloexec: cmd == DUPFD_CLOEXEC }, min, limit)?))
        }
        GETFD => Ok(i64::from(cx.files().flags(fd)?.cloexec)),
        SETFD => {
            cx.files().set_flags(fd, FdFlags { cloexec: arg & 1 != 0 })?;
            Ok(0)
        }
        GETFL if file.flags().contains(OpenFlags::PATH) => Ok(i64::from(file.flags().bits())),
        GETFL => {
            // open(2) sets it; what was never opened by a name has not got it.
            let opened = !file.inode().as_any().is::<vfs::anonymous::AnonInode>();
            let large = if opened { OpenFlags::LARGEFILE } else { OpenFlags::empty() };
            Ok(i64::from((file.flags() | large).bits()))
        }
        SETFL => {
            crate::file_owner::set_flags(cx, &file, fd, OpenFlags::from_bits_retain(arg as u32));
            Ok(0)
        }
        _ => match crate::file_owner::fcntl(cx, &file, fd, cmd, arg)? {
            Some(value) => Ok(value),
            None => other(cx, &file, cmd, arg).await,
        },
    }
}

/// Commands that are not about descriptors and status flags.
async fn other(cx: &mut Cx<'_>, file: &Arc<OpenFile>, cmd: u32, arg: u64) -> SysResult {
    match cmd {
        GETLK | OFD_GETLK => get_lock(cx, file, cmd == OFD_GETLK, Ptr(arg)),
        SETLK | SETLKW | OFD_SETLK | OFD_SETLKW => {
            let ofd = matches!(cmd, OFD_SETLK | OFD_SETLKW);
            set_lock(cx, file, ofd, matches!(cmd, SETLKW | OFD_SETLKW), Ptr(arg)).await
        }
        GETPIPE_SZ if let Some(fifo) = file.ops_as::<OutsideFifo>() => Ok(fifo.capacity()? as i64),
        SETPIPE_SZ if let Some(fifo) = file.ops_as::<OutsideFifo>() => {
            Ok(fifo.set_capacity(arg as u32 as usize)? as i64)
        }
        GETPIPE_SZ => Ok(pipe_of(file)?.pipe().capacity() as i64),
        SETPIPE_SZ => {
            let privileged = cx.credentials.capable(Capability::SYS_RESOURCE);
            let size = arg as u32 as usize;
            Ok(pipe_of(file)?.pipe().set_capacity(size, privileged)? as i64)
        }
        ADD_SEALS => {
            let memfd = file.ops_as::<TmpFile>().ok_or(Errno::EINVAL)?;
            memfd.add_seals(file, arg as u32)?;
            Ok(0)
        }
        GET_SEALS => Ok(i64::from(file.ops_as::<TmpFile>().ok_or(Errno::EINVAL)?.seals()?)),
        // Leases are never given.
        GETLEASE => Ok(i64::from(UNLCK)),
        SETLEASE => Err(Errno::EINVAL.into()),
        CREATED_QUERY => Ok(i64::from(file.created())),
        DUPFD_QUERY => Ok(i64::from(Arc::ptr_eq(file, &cx.file(arg as i32)?))),
        _ => {
            cx.kernel().note_missing(&format!("fcntl command {cmd}"));
            Err(Errno::EINVAL.into())
        }
    }
}

fn pipe_of(file: &OpenFile) -> SysResult<&PipeEnd> {
    Ok(file.ops_as::<PipeEnd>().ok_or(Errno::EBADF)?)
}

/// The bytes that a `struct flock` means, first and last; `EINVAL`, `EOVERFLOW`.
fn range(file: &OpenFile, lock: &Flock) -> SysResult<(u64, u64)> {
    let base = match lock.whence {
        0 => 0,
        1 => i64::try_from(*file.pos().lock()).map_err(|_| Errno::EOVERFLOW)?,
        2 => i64::try_from(file.inode().metadata()?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL.into()),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL.into());
    }
    let (first, last) = match lock.len {
        0 => (start, i64::MAX),
        len if len > 0 => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        // A negative length reaches back.
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    if first < 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok((first as u64, last as u64))
}

fn owner(cx: &Cx<'_>, file: &OpenFile, ofd: bool, lock: &Flock) -> SysResult<Owner> {
    if !ofd {
        return Ok(Owner::Process(cx.process().pid()));
    }
    if lock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(Owner::Open(file.id()))
}

fn get_lock(cx: &mut Cx<'_>, file: &Arc<OpenFile>, ofd: bool, at: Ptr) -> SysResult {
    let mut lock: Flock = cx.read(at)?;
    if !matches!(lock.kind, RDLCK | WRLCK) {
        return Err(Errno::EINVAL.into());
    }
    let owner = owner(cx, file, ofd, &lock)?;
    let (start, end) = range(file, &lock)?;
    let wanted = RangeLock { start, end, write: lock.kind == WRLCK, owner };
    match cx.kernel().io.locks.test(file, &wanted)? {
        None => lock.kind = UNLCK,
        Some(other) => {
            lock.kind = if other.write { WRLCK } else { RDLCK };
            lock.whence = 0;
            lock.start = other.start as i64;
            lock.len = if other.end >= i64::MAX as u64 { 0 } else { (other.end - other.start + 1) as i64 };
            lock.pid = match other.owner {
                Owner::Process(pid) => pid,
                Owner::Open(_) => -1,
            };
        }
    }
    cx.write(at, &lock)?;
    Ok(0)
}

async fn set_lock(cx: &mut Cx<'_>, file: &Arc<OpenFile>, ofd: bool, wait: bool, at: Ptr) -> SysResult {
    let lock: Flock = cx.read(at)?;
    let owner = owner(cx, file, ofd, &lock)?;
    let (start, end) = range(file, &lock)?;
    let locks = cx.kernel().io.locks.clone();
    let allowed = match lock.kind {
        RDLCK => file.flags().readable(),
        WRLCK => file.flags().writable(),
        UNLCK => {
            locks.unlock(file, owner, start, end)?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if !allowed {
        return Err(Errno::EBADF.into());
    }
    let wanted = RangeLock { start, end, write: lock.kind == WRLCK, owner };
    if !wait {
        locks.lock(file, wanted, false)?;
        return Ok(0);
    }
    let queue = locks.queue().clone();
    let done = cx
        .wait_until(&queue, Events::IN, None, Restart::IfSaRestart, |_| Ok(locks.lock(file, wanted, true)?))
        .await;
    if done.is_err() {
        locks.stop_waiting(owner);
    }
    done.map(|_| 0)
}

/// flock(2).
pub async fn flock(cx: &mut Cx<'_>, fd: i32, op: u32) -> SysResult {
    const SH: u32 = 1;
    const EX: u32 = 2;
    const NB: u32 = 4;
    const UN: u32 = 8;
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    let locks = cx.kernel().io.locks.clone();
    let exclusive = match op & !NB {
        SH => false,
        EX => true,
        UN => {
            locks.unflock(&file)?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let (queue, pid) = (locks.queue().clone(), cx.process().pid());
    if op & NB != 0 {
        locks.flock(&file, exclusive, pid)?;
        return Ok(0);
    }
    cx.wait_until(
        &queue,
        Events::IN,
        None,
        Restart::IfSaRestart,
        |_| Ok(locks.flock(&file, exclusive, pid)?),
    )
    .await?;
    Ok(0)
}

/// memfd_create(2).
pub fn memfd_create(cx: &mut Cx<'_>, name: Ptr, flags: u32) -> SysResult {
    const CLOEXEC: u32 = 1;
    let name = cx.read_cstr(name, 250)?.ok_or(SysError::Errno(Errno::EINVAL))?;
    let (inode, ops) = fs_tmp::memfd(&name, flags, cx.credentials.fsuid, cx.credentials.fsgid)?;
    let shown = [b"/memfd:".as_slice(), &name, b" (deleted)"].concat();
    let place = Place::anonymous(&shown, inode.clone());
    let file = OpenFile::new(place, inode, ops, OpenFlags::RDWR | OpenFlags::LARGEFILE);
    cx.install(file, flags & CLOEXEC != 0)
}
