//! Reading and writing: read(2), write(2), readv(2), lseek(2).

use std::sync::Arc;

use executor::{Events, Pace};
use kernel::posting::Ready;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::Signo;
use vfs::notify::Happening;
use vfs::{OpenFile, Whence};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::context::Limit;
use crate::path::real_file;
use crate::patience::{PAGE, Patience};
use crate::straight::{read_straight, write_straight};
use crate::undo::Undo;
use crate::{Cx, SysError, SysResult};

/// The most that one call moves, as in Linux.
const MAX_RW_COUNT: usize = 0x7fff_f000;
/// Bytes moved between guest and file at a time.
const CHUNK: usize = 256 << 10;
/// The most entries of an iovec.
const IOV_MAX: usize = 1024;

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoVec {
    /// Address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// Where a transfer takes place.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// At the file's position, which moves.
    Position,
    /// At this offset.
    Offset(u64),
}

/// read(2).
pub async fn read(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    let file = readable(cx, fd)?;
    in_reach(buf, count)?;
    let one = [IoVec { base: buf, len: count as u64 }];
    let result = transfer_in(cx, fd, &file, &one, At::Position, false).await;
    match result {
        Ok(n) if n > 0 && kernel::posting::is_stream(&file) => {
            let read = Ready { fd, file, reads: n == count as i64, open: false, asked: n as usize };
            kernel::posting::grant(cx.thread, &[read], kernel::posting::Told::Read);
        }
        Err(SysError::Errno(Errno::EAGAIN)) => kernel::posting::was_dry(cx.thread),
        _ => {}
    }
    result
}

/// write(2).
pub async fn write(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize) -> SysResult {
    let file = writable(cx, fd)?;
    in_reach(buf, count)?;
    let one = [IoVec { base: buf, len: count as u64 }];
    let n = transfer_out(cx, &file, &one, At::Position, 0).await?;
    wrote(cx, fd, &file, n);
    Ok(n)
}

/// Who has added to a log will add more; who has written much to a stream goes on with it.
fn wrote(cx: &Cx<'_>, fd: i32, file: &Arc<OpenFile>, n: i64) {
    if n > 0 && file.flags().contains(OpenFlags::APPEND) {
        kernel::posting::wrote(cx.thread, fd, file, n as usize);
    } else {
        kernel::posting::wrote_stream(cx.thread, fd, file, n as u64);
    }
}

/// pread64(2).
pub async fn pread64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, offset: i64) -> SysResult {
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let file = readable_at(cx, fd)?;
    in_reach(buf, count)?;
    crate::reads::reads_at(cx, fd, &file).await?;
    let one = [IoVec { base: buf, len: count as u64 }];
    transfer_in(cx, fd, &file, &one, At::Offset(offset), false).await
}

/// pwrite64(2).
pub async fn pwrite64(cx: &mut Cx<'_>, fd: i32, buf: u64, count: usize, offset: i64) -> SysResult {
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let file = writable_at(cx, fd)?;
    in_reach(buf, count)?;
    let one = [IoVec { base: buf, len: count as u64 }];
    transfer_out(cx, &file, &one, At::Offset(offset), 0).await
}

/// readv(2).
pub async fn readv(cx: &mut Cx<'_>, fd: i32, iov: Ptr, count: u64) -> SysResult {
    let file = readable(cx, fd)?;
    let vectors = read_iovec(cx, iov, count)?;
    transfer_in(cx, fd, &file, &vectors, At::Position, false).await
}

/// writev(2).
pub async fn writev(cx: &mut Cx<'_>, fd: i32, iov: Ptr, count: u64) -> SysResult {
    let file = writable(cx, fd)?;
    let vectors = read_iovec(cx, iov, count)?;
    let n = transfer_out(cx, &file, &vectors, At::Position, 0).await?;
    wrote(cx, fd, &file, n);
    Ok(n)
}

/// preadv(2).
pub async fn preadv(cx: &mut Cx<'_>, fd: i32, iov: Ptr, count: u64, lo: u64, _hi: u64) -> SysResult {
    check_offset(lo)?;
    preadv2(cx, fd, iov, count, lo, 0, 0).await
}

/// pwritev(2).
pub async fn pwritev(cx: &mut Cx<'_>, fd: i32, iov: Ptr, count: u64, lo: u64, _hi: u64) -> SysResult {
    check_offset(lo)?;
    pwritev2(cx, fd, iov, count, lo, 0, 0).await
}

const RWF_HIPRI: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;

/// preadv2(2). On x86-64 the low half carries the whole offset.
pub async fn preadv2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: Ptr,
    count: u64,
    lo: u64,
    _hi: u64,
    flags: u32,
) -> SysResult {
    if flags & !(RWF_HIPRI | RWF_NOWAIT) != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let at = position_arg(lo)?;
    let file = if matches!(at, At::Position) { readable(cx, fd)? } else { readable_at(cx, fd)? };
    let vectors = read_iovec(cx, iov, count)?;
    transfer_in(cx, fd, &file, &vectors, at, flags & RWF_NOWAIT != 0).await
}

/// pwritev2(2).
pub async fn pwritev2(
    cx: &mut Cx<'_>,
    fd: i32,
    iov: Ptr,
    count: u64,
    lo: u64,
    _hi: u64,
    flags: u32,
) -> SysResult {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let at = position_arg(lo)?;
    let file = if matches!(at, At::Position) { writable(cx, fd)? } else { writable_at(cx, fd)? };
    let vectors = read_iovec(cx, iov, count)?;
    transfer_out(cx, &file, &vectors, at, flags).await
}

/// Whether a buffer is in the half of the addresses that programs have; `EFAULT`.
fn in_reach(buf: u64, count: usize) -> SysResult<()> {
    match buf.checked_add(count as u64) {
        Some(end) if end.cast_signed() >= 0 => Ok(()),
        _ => Err(Errno::EFAULT.into()),
    }
}

fn check_offset(offset: u64) -> SysResult<()> {
    if offset.cast_signed() < 0 { Err(Errno::EINVAL.into()) } else { Ok(()) }
}

/// The offset of preadv2(2), -1 for the file's own position.
fn position_arg(lo: u64) -> SysResult<At> {
    if lo.cast_signed() == -1 {
        return Ok(At::Position);
    }
    check_offset(lo)?;
    Ok(At::Offset(lo))
}

/// The file, if it is open in this way; `EBADF`.
fn open_for(file: Arc<OpenFile>, way: fn(OpenFlags) -> bool) -> SysResult<Arc<OpenFile>> {
    if way(file.flags()) { Ok(file) } else { Err(Errno::EBADF.into()) }
}

fn readable(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    open_for(cx.file(fd)?, OpenFlags::readable)
}

fn writable(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    open_for(cx.file(fd)?, OpenFlags::writable)
}

/// A file to read at an offset: that it has none counts before that it may not be read.
fn readable_at(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    let file = real_file(cx, fd)?;
    seekable(&file)?;
    open_for(file, OpenFlags::readable)
}

fn writable_at(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    let file = real_file(cx, fd)?;
    seekable(&file)?;
    open_for(file, OpenFlags::writable)
}

fn seekable(file: &OpenFile) -> SysResult<()> {
    if file.ops().seekable() { Ok(()) } else { Err(Errno::ESPIPE.into()) }
}

/// Reads an iovec: at most 1,024 entries, no negative length; the total is cut at `MAX_RW_COUNT`.
pub fn read_iovec(cx: &mut Cx<'_>, iov: Ptr, count: u64) -> SysResult<Vec<IoVec>> {
    let count = usize::try_from(count).ok().filter(|c| *c <= IOV_MAX).ok_or(Errno::EINVAL)?;
    let mut vectors = vec![IoVec::default(); count];
    cx.guest.copy_in(iov.0, vectors.as_mut_bytes())?;
    let mut left = MAX_RW_COUNT as u64;
    for vector in &mut vectors {
        if vector.len > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        vector.len = vector.len.min(left);
        left -= vector.len;
    }
    Ok(vectors)
}

/// From the file to guest memory.
async fn transfer_in(
    cx: &mut Cx<'_>,
    fd: i32,
    file: &Arc<OpenFile>,
    vectors: &[IoVec],
    at: At,
    nowait: bool,
) -> SysResult {
    let nonblock = nowait || file.flags().contains(OpenFlags::NONBLOCK);
    let total: u64 = vectors.iter().map(|v| v.len).sum::<u64>().min(MAX_RW_COUNT as u64);
    if total == 0 && file.ops().seekable() {
        return Ok(0);
    }
    let want = total.min(CHUNK as u64) as usize;
    let mut done = 0u64;
    let mut pace = Pace::default();
    // SO_RCVLOWAT
    let socket = net::file::of(file).ok();
    let least = total.min(socket.map_or(1, |file| file.socket().low_water()) as u64);
    let limit = socket.map(|_| Limit::of(cx, file, Events::READABLE));
    let enough = |done: u64| done > 0 && done >= least;
    let mut patience = Patience::reading(file, nowait).await;
    loop {
        let size = (total - done).min(want.max(1) as u64) as usize;
        let at_once = patience.is_at_once();
        let step = cx
            .file_op_within(file, Events::READABLE, nonblock || enough(done), limit, |cx, file| {
                if let Some(count) = read_straight(cx, file, vectors, at, done, size, &patience) {
                    return count;
                }
                let mut scratch = std::mem::take(&mut cx.local.scratch);
                if scratch.len() < size {
                    scratch.resize(size, 0);
                }
                let buf = scratch.get_mut(..size).unwrap_or_default();
                let result = read_once(cx, file, buf, vectors, at, done, &patience);
                if scratch.len() <= CHUNK {
                    cx.local.scratch = scratch;
                }
                result
            })
            .await;
        patience.learn(file);
        let n = match step {
            Ok(n) => n,
            Err(SysError::Errno(Errno::EAGAIN)) if at_once && !nowait => {
                patience.step_aside().await;
                continue;
            }
            Err(_) if done > 0 => break,
            Err(err) => return Err(err),
        };
        done += n as u64;
        let whole = n == size || at_once && n > 0 && may_be_part(at, done);
        // Streams give what they have; only files with a position are read on.
        let goes_on = if file.ops().seekable() { whole } else { n > 0 && !enough(done) };
        if !goes_on || done >= total {
            break;
        }
        pace.keep().await;
    }
    if done > 0 {
        vfs::notify::used(file, Happening::ACCESS);
    }
    if (1..=want as u64).contains(&done) {
        let moved = matches!(at, At::Position) && file.ops().seekable();
        cx.local.undo = Undo::Read { fd, id: file.id(), count: done as usize, moved };
    }
    Ok(done as i64)
}

/// Whether a read at once that found fewer bytes than it was to may have ended where the device would have to be
/// asked, and not at the end of the file. At the position there are no parts (`Patience::whole`).
fn may_be_part(at: At, done: u64) -> bool {
    match at {
        At::Offset(offset) => offset.checked_add(done).is_none_or(|end| end.is_multiple_of(PAGE)),
        At::Position => false,
    }
}

/// One read of at most a chunk, and its copy to the guest.
fn read_once(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    buf: &mut [u8],
    vectors: &[IoVec],
    at: At,
    done: u64,
    patience: &Patience,
) -> SysResult<usize> {
    file.ops().check_caller(file, cx, false)?;
    match at {
        At::Offset(offset) => {
            let pos = offset.checked_add(done).ok_or(Errno::EINVAL)?;
            let n = patience.read(file, buf, pos)?;
            scatter(cx, vectors, done, buf.get(..n).unwrap_or_default())?;
            Ok(n)
        }
        At::Position if file.ops().seekable() && !file.shares_position() => {
            let mut pos = patience.position(file)?;
            let n = patience.read(file, buf, *pos)?;
            let n = patience.whole(file, *pos, buf.len(), n)?;
            scatter(cx, vectors, done, buf.get(..n).unwrap_or_default())?;
            *pos = pos.saturating_add(n as u64);
            Ok(n)
        }
        At::Position => {
            let pos = if file.shares_position() { vfs::AT_SHARED_POSITION } else { 0 };
            let n = file.ops().read(file, buf, pos)?;
            let data = buf.get(..n).unwrap_or_default();
            scatter(cx, vectors, done, data).inspect_err(|_| file.ops().unread(data))?;
            Ok(n)
        }
    }
}

/// Copies bytes to the guest's vectors, starting `skip` bytes into them.
pub fn scatter(cx: &mut Cx<'_>, vectors: &[IoVec], mut skip: u64, mut data: &[u8]) -> SysResult<()> {
    for vector in vectors {
        if data.is_empty() {
            break;
        }
        if skip >= vector.len {
            skip -= vector.len;
            continue;
        }
        let n = (vector.len - skip).min(data.len() as u64) as usize;
        let (now, rest) = data.split_at(n);
        cx.guest.copy_out(vector.base.checked_add(skip).ok_or(Errno::EFAULT)?, now)?;
        data = rest;
        skip = 0;
    }
    Ok(())
}

/// Copies bytes from the guest's vectors, starting `skip` bytes into them, to fill `data`.
pub fn gather(cx: &mut Cx<'_>, vectors: &[IoVec], mut skip: u64, mut data: &mut [u8]) -> SysResult<()> {
    for vector in vectors {
        if data.is_empty() {
            break;
        }
        if skip >= vector.len {
            skip -= vector.len;
            continue;
        }
        let n = (vector.len - skip).min(data.len() as u64) as usize;
        let (now, rest) = data.split_at_mut(n);
        cx.guest.copy_in(vector.base.checked_add(skip).ok_or(Errno::EFAULT)?, now)?;
        data = rest;
        skip = 0;
    }
    Ok(())
}

/// From guest memory to the file.
async fn transfer_out(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    vectors: &[IoVec],
    at: At,
    flags: u32,
) -> SysResult {
    file.tell_late_error()?;
    let nonblock = flags & RWF_NOWAIT != 0 || file.flags().contains(OpenFlags::NONBLOCK);
    let append = flags & RWF_APPEND != 0 || file.flags().contains(OpenFlags::APPEND);
    let total: u64 = vectors.iter().map(|v| v.len).sum::<u64>().min(MAX_RW_COUNT as u64);
    if let At::Offset(offset) = at
        && offset.checked_add(total).is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Errno::EINVAL.into());
    }
    let fsize = cx.process().limit(kernel::limits::resource::FSIZE);
    let mut done = 0u64;
    let mut pace = Pace::default();
    let synchronous = flags & (RWF_DSYNC | RWF_SYNC) != 0 || file.flags().contains(OpenFlags::DSYNC);
    let mut patience = Patience::writing(file, synchronous).await;
    loop {
        let at_once = patience.is_at_once();
        let size = (total - done).min(CHUNK as u64) as usize;
        let step = cx
            .file_op(file, Events::WRITABLE, nonblock, |cx, file| {
                if !append
                    && let Some(count) = write_straight(cx, file, vectors, at, done, size, (fsize, &patience))
                {
                    return count;
                }
                let mut scratch = std::mem::take(&mut cx.local.scratch);
                if scratch.len() < size {
                    scratch.resize(size, 0);
                }
                let buf = scratch.get_mut(..size).unwrap_or_default();
                let result = (file.ops().check_caller(file, cx, true).map_err(SysError::from))
                    .and_then(|()| gather(cx, vectors, done, buf))
                    .and_then(|()| write_once(cx, file, buf, at, done, append, (fsize, &patience)));
                if scratch.len() <= CHUNK {
                    cx.local.scratch = scratch;
                }
                result
            })
            .await;
        patience.learn(file);
        let n = match step {
            Ok(n) => n,
            Err(SysError::Errno(Errno::EAGAIN)) if at_once => {
                patience.step_aside().await;
                continue;
            }
            Err(_) if done > 0 => break,
            Err(SysError::Errno(Errno::EPIPE)) => {
                crate::run_loop::raise(cx, Signo::SIGPIPE);
                return Err(Errno::EPIPE.into());
            }
            Err(SysError::Errno(Errno::EFBIG)) => {
                // The file system's own limit brings no signal.
                if fsize != linux_abi::process::RLIM_INFINITY {
                    crate::run_loop::raise(cx, Signo::SIGXFSZ);
                }
                return Err(Errno::EFBIG.into());
            }
            Err(err) => return Err(err),
        };
        done += n as u64;
        if done >= total || n == 0 {
            break;
        }
        if n < size && nonblock {
            break;
        }
        pace.keep().await;
    }
    if done > 0 && file.ops().seekable() {
        vfs::ops::attributes::written(&cx.credentials, file.inode().as_ref())?;
    }
    if done > 0 {
        vfs::notify::used(file, Happening::MODIFY);
    }
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 {
        file.ops().fsync(file, flags & RWF_SYNC == 0)?;
    }
    Ok(done as i64)
}

fn write_once(
    cx: &Cx<'_>,
    file: &Arc<OpenFile>,
    buf: &[u8],
    at: At,
    done: u64,
    append: bool,
    (fsize, patience): (u64, &Patience),
) -> SysResult<usize> {
    let ops = file.ops();
    if !ops.seekable() {
        // A local socket tells who wrote.
        if let Ok(socket) = net::file::of(file) {
            return crate::socket::write(cx, socket.socket(), buf);
        }
        return Ok(ops.write(file, buf, 0)?);
    }
    let limited = |pos: u64| -> SysResult<&[u8]> {
        if fsize == u64::MAX || buf.is_empty() {
            return Ok(buf);
        }
        let room = fsize.checked_sub(pos).filter(|r| *r > 0).ok_or(Errno::EFBIG)?;
        Ok(buf.get(..buf.len().min(usize::try_from(room).unwrap_or(usize::MAX))).unwrap_or_default())
    };
    match at {
        // pwrite(2): with O_APPEND Linux appends whatever the offset.
        At::Offset(_) if append => Ok(ops.append(file, limited(end(file, fsize)?)?)?.0),
        At::Offset(offset) => {
            let pos = offset.checked_add(done).ok_or(Errno::EINVAL)?;
            Ok(ops.write(file, limited(pos)?, pos)?)
        }
        At::Position if file.shares_position() && !append => {
            let pos = if fsize == u64::MAX { 0 } else { *file.pos().lock() };
            Ok(ops.write(file, limited(pos)?, vfs::AT_SHARED_POSITION)?)
        }
        At::Position => {
            let mut pos = patience.position(file)?;
            if append {
                let (n, end) = ops.append(file, limited(end(file, fsize)?)?)?;
                *pos = end;
                return Ok(n);
            }
            let n = ops.write(file, limited(*pos)?, *pos)?;
            *pos = pos.saturating_add(n as u64);
            Ok(n)
        }
    }
}

/// Where bytes are added, if a limit makes that matter.
fn end(file: &OpenFile, limit: u64) -> SysResult<u64> {
    if limit == u64::MAX { Ok(0) } else { Ok(file.inode().metadata()?.size) }
}

/// lseek(2).
pub fn lseek(cx: &mut Cx<'_>, fd: i32, offset: i64, whence: u32) -> SysResult {
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    seekable(&file)?;
    // Another thread may be told just now that the position is 0.
    let in_use = kernel::posting::enter(&file, cx.thread);
    let mut pos = file.pos().lock();
    let new = match whence {
        0 => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
        1 => pos.checked_add_signed(offset).ok_or(Errno::EINVAL)?,
        2 => file.ops().seek(&file, offset, Whence::End)?,
        3 => file.ops().seek(&file, offset, Whence::Data)?,
        4 => file.ops().seek(&file, offset, Whence::Hole)?,
        _ => return Err(Errno::EINVAL.into()),
    };
    let value = i64::try_from(new).map_err(|_| Errno::EINVAL)?;
    *pos = new;
    drop(pos);
    drop(in_use);
    if (offset, whence) == (0, 2) {
        kernel::posting::at_end(cx.thread, fd, &file);
    }
    Ok(value)
}
