//! Bytes from file to file: sendfile(2), splice(2), tee(2), vmsplice(2), copy_file_range(2).

use std::cell::Cell;
use std::sync::Arc;

use executor::Events;
use kernel::pipe::{Pipe, PipeEnd};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFREG};
use linux_abi::signal::Signo;
use vfs::OpenFile;
use vfs::notify::Happening;

use crate::args::Ptr;
use crate::file_io::{gather, read_iovec};
use crate::patience::Patience;
use crate::{Cx, SysError, SysResult};

/// Bytes moved at a time.
const CHUNK: usize = 128 << 10;
/// The most that one call moves; more is left to the next call, as Linux may do too.
const MAX: u64 = 0x7fff_f000;
const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_ALL: u32 = 0xf;

thread_local! {
    /// What a call moves; none while one does.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Where in a file: at an offset of the call, else at its position.
type At = Option<u64>;

fn readable(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    let file = cx.file(fd)?;
    if file.flags().readable() { Ok(file) } else { Err(Errno::EBADF.into()) }
}

fn writable(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    let file = cx.file(fd)?;
    if file.flags().writable() { Ok(file) } else { Err(Errno::EBADF.into()) }
}

fn pipe_of(file: &OpenFile) -> Option<&Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(PipeEnd::pipe)
}

/// Reads without moving the position; streams give their next bytes.
fn get(file: &OpenFile, buf: &mut [u8], at: At, patience: &Patience) -> SysResult<usize> {
    if !file.ops().seekable() {
        return Ok(file.ops().read(file, buf, 0)?);
    }
    let pos = match at {
        Some(pos) => pos,
        None => *patience.position(file)?,
    };
    patience.read(file, buf, pos)
}

/// Writes; the position moves unless an offset is given.
fn put(file: &OpenFile, buf: &[u8], at: At) -> SysResult<usize> {
    let ops = file.ops();
    match at {
        _ if !ops.seekable() => Ok(ops.write(file, buf, 0)?),
        Some(pos) => Ok(ops.write(file, buf, pos)?),
        None => {
            let mut pos = file.pos().lock();
            let n = ops.write(file, buf, *pos)?;
            *pos = pos.saturating_add(n as u64);
            Ok(n)
        }
    }
}

/// Moves an offset of the call or, without one, the position of a file that has one.
fn advance(file: &OpenFile, at: &mut At, n: usize) {
    match at {
        Some(pos) => *pos = pos.saturating_add(n as u64),
        None if file.ops().seekable() => {
            let mut pos = file.pos().lock();
            *pos = pos.saturating_add(n as u64);
        }
        None => {}
    }
}

/// An optional offset in guest memory; `EINVAL` if negative, `ESPIPE` for a file without positions.
fn offset(cx: &mut Cx<'_>, file: &OpenFile, at: Ptr) -> SysResult<At> {
    if at.is_null() {
        return Ok(None);
    }
    if !file.ops().seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let raw: i64 = cx.read(at)?;
    Ok(Some(u64::try_from(raw).map_err(|_| Errno::EINVAL)?))
}

fn write_back(cx: &mut Cx<'_>, at: Ptr, offset: At) -> SysResult<()> {
    match offset {
        Some(pos) => cx.write(at, &pos),
        None => Ok(()),
    }
}

/// Writes all of `data`, waiting for room; how much went, and why not all.
async fn put_all(
    cx: &mut Cx<'_>,
    to: &Arc<OpenFile>,
    data: &[u8],
    at: &mut At,
    nonblock: bool,
) -> (usize, Option<SysError>) {
    let mut done = 0;
    while done < data.len() {
        let rest = data.get(done..).unwrap_or_default();
        let step = cx.file_op(to, Events::WRITABLE, nonblock, |_, to| put(to, rest, *at)).await;
        match step {
            Ok(0) => break,
            Ok(n) => {
                if let Some(pos) = at {
                    *pos = pos.saturating_add(n as u64);
                }
                done += n;
            }
            Err(err) => return (done, Some(err)),
        }
    }
    (done, None)
}

/// The value of a call that moved `done` bytes and then met an error: the error counts only if nothing moved.
fn outcome(cx: &Cx<'_>, done: u64, err: Option<SysError>) -> SysResult {
    match err {
        Some(err) if done == 0 => {
            if err == SysError::Errno(Errno::EPIPE) {
                crate::run_loop::raise(cx, Signo::SIGPIPE);
            }
            Err(err)
        }
        _ => Ok(done as i64),
    }
}

/// Copies from a file with positions until `count`, its end, or an error.
async fn copy(
    cx: &mut Cx<'_>,
    from: &Arc<OpenFile>,
    from_at: &mut At,
    to: &Arc<OpenFile>,
    to_at: &mut At,
    count: u64,
) -> (u64, Option<SysError>) {
    // New memory for each call would cost more than a copy.
    let mut buf = BUFFER.take();
    buf.resize(CHUNK, 0);
    let result = copy_by(cx, (from, from_at), (to, to_at), count, &mut buf).await;
    BUFFER.set(buf);
    result
}

async fn copy_by(
    cx: &mut Cx<'_>,
    (from, from_at): (&Arc<OpenFile>, &mut At),
    (to, to_at): (&Arc<OpenFile>, &mut At),
    count: u64,
    buf: &mut [u8],
) -> (u64, Option<SysError>) {
    let nonblock = to.flags().contains(OpenFlags::NONBLOCK);
    let mut done = 0;
    let mut pace = executor::Pace::default();
    let mut patience = Patience::reading(from, false).await;
    while done < count {
        let size = buf.len().min(usize::try_from(count - done).unwrap_or(CHUNK));
        let got = {
            let _in_use = kernel::posting::enter(from, cx.thread);
            get(from, buf.get_mut(..size).unwrap_or_default(), *from_at, &patience)
        };
        patience.learn(from);
        let n = match got {
            Ok(0) => break,
            Ok(n) => n,
            Err(SysError::Errno(Errno::EAGAIN)) if patience.is_at_once() => {
                patience.step_aside().await;
                continue;
            }
            Err(err) => return (done, Some(err)),
        };
        let (put, err) = put_all(cx, to, buf.get(..n).unwrap_or_default(), to_at, nonblock).await;
        advance(from, from_at, put);
        done += put as u64;
        if err.is_some() || put < n {
            return (done, err);
        }
        if cx.thread.interrupted() {
            break;
        }
        vfs::notify::used(to, Happening::MODIFY);
        // Files are always ready: others have their turn between chunks.
        pace.keep().await;
    }
    (done, None)
}

/// sendfile(2).
pub async fn sendfile(cx: &mut Cx<'_>, out_fd: i32, in_fd: i32, offset_at: Ptr, count: u64) -> SysResult {
    let from = readable(cx, in_fd)?;
    let mut from_at = offset(cx, &from, offset_at)?;
    let to = writable(cx, out_fd)?;
    if !from.ops().seekable() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    let (done, err) = copy(cx, &from, &mut from_at, &to, &mut None, count.min(MAX)).await;
    write_back(cx, offset_at, from_at)?;
    if done > 0 && from_at.is_some() {
        // Who keeps a file open to send it will send it again.
        kernel::posting::sent(cx.thread, in_fd, &from, crate::stat::render);
    }
    if done > 0 && done == count {
        kernel::posting::wrote_stream(cx.thread, out_fd, &to, done);
    }
    outcome(cx, done, err)
}

/// copy_file_range(2).
pub async fn copy_file_range(
    cx: &mut Cx<'_>,
    in_fd: i32,
    in_at: Ptr,
    out_fd: i32,
    out_at: Ptr,
    count: u64,
    flags: u32,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (from, to) = (readable(cx, in_fd)?, writable(cx, out_fd)?);
    let (a, b) = (from.inode().metadata()?, to.inode().metadata()?);
    if a.kind() == S_IFDIR || b.kind() == S_IFDIR {
        return Err(Errno::EISDIR.into());
    }
    if a.kind() != S_IFREG || b.kind() != S_IFREG {
        return Err(Errno::EINVAL.into());
    }
    if to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    let mut from_at = offset(cx, &from, in_at)?;
    let mut to_at = offset(cx, &to, out_at)?;
    let count = count.min(MAX);
    if (a.dev, a.ino) == (b.dev, b.ino) {
        let x = from_at.unwrap_or_else(|| *from.pos().lock());
        let y = to_at.unwrap_or_else(|| *to.pos().lock());
        if x.abs_diff(y) < count {
            return Err(Errno::EINVAL.into());
        }
    }
    let (done, err) = copy(cx, &from, &mut from_at, &to, &mut to_at, count).await;
    write_back(cx, in_at, from_at)?;
    write_back(cx, out_at, to_at)?;
    outcome(cx, done, err)
}

/// splice(2): one side at least is a pipe.
pub async fn splice(
    cx: &mut Cx<'_>,
    in_fd: i32,
    in_at: Ptr,
    out_fd: i32,
    out_at: Ptr,
    len: u64,
    flags: u32,
) -> SysResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (readable(cx, in_fd)?, writable(cx, out_fd)?);
    let mut from_at = offset(cx, &from, in_at)?;
    let mut to_at = offset(cx, &to, out_at)?;
    for file in [&from, &to] {
        // Directories, and what has no type: epoll, eventfd, signalfd, inotify...
        if matches!(file.inode().metadata()?.kind(), 0 | S_IFDIR) {
            return Err(Errno::EINVAL.into());
        }
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let len = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
    let (done, err) = match (pipe_of(&from), pipe_of(&to)) {
        (Some(a), Some(b)) if Arc::ptr_eq(a, b) => return Err(Errno::EINVAL.into()),
        (Some(pipe), _) => {
            if to.flags().contains(OpenFlags::APPEND) {
                return Err(Errno::EINVAL.into());
            }
            from_pipe(cx, &from, pipe, &to, &mut to_at, len, nonblock).await
        }
        (None, Some(pipe)) => to_pipe(cx, &from, &mut from_at, &to, pipe, len, nonblock).await,
        (None, None) => return Err(Errno::EINVAL.into()),
    };
    write_back(cx, in_at, from_at)?;
    write_back(cx, out_at, to_at)?;
    outcome(cx, done, err)
}

/// What a pipe has now goes to a file; what the file does not take goes back.
async fn from_pipe(
    cx: &mut Cx<'_>,
    from: &Arc<OpenFile>,
    pipe: &Arc<Pipe>,
    to: &Arc<OpenFile>,
    to_at: &mut At,
    len: usize,
    nonblock: bool,
) -> (u64, Option<SysError>) {
    let mut buf = vec![0; len];
    let read_nonblock = nonblock || from.flags().contains(OpenFlags::NONBLOCK);
    let n = match cx.file_op(from, Events::READABLE, read_nonblock, |_, _| Ok(pipe.read(&mut buf)?)).await {
        Ok(n) => n,
        Err(err) => return (0, Some(err)),
    };
    let nonblock = (nonblock && pipe_of(to).is_some()) || to.flags().contains(OpenFlags::NONBLOCK);
    let data = buf.get(..n).unwrap_or_default();
    let (done, err) = put_all(cx, to, data, to_at, nonblock).await;
    pipe.unread(data.get(done..).unwrap_or_default());
    (done as u64, err)
}

/// What a file gives and a pipe has room for.
async fn to_pipe(
    cx: &mut Cx<'_>,
    from: &Arc<OpenFile>,
    from_at: &mut At,
    to: &Arc<OpenFile>,
    pipe: &Arc<Pipe>,
    len: usize,
    nonblock: bool,
) -> (u64, Option<SysError>) {
    let write_nonblock = nonblock || to.flags().contains(OpenFlags::NONBLOCK);
    let room = match cx.file_op(to, Events::WRITABLE, write_nonblock, |_, _| Ok(pipe.room()?)).await {
        Ok(room) => room,
        Err(err) => return (0, Some(err)),
    };
    let mut buf = vec![0; len.min(room)];
    let at = *from_at;
    let read_nonblock = from.flags().contains(OpenFlags::NONBLOCK);
    let mut patience = Patience::reading(from, false).await;
    let step = loop {
        let at_once = patience.is_at_once();
        let get = |_: &mut Cx<'_>, from: &Arc<OpenFile>| get(from, &mut buf, at, &patience);
        let step = cx.file_op(from, Events::READABLE, read_nonblock, get).await;
        patience.learn(from);
        match step {
            Err(SysError::Errno(Errno::EAGAIN)) if at_once => patience.step_aside().await,
            step => break step,
        }
    };
    let n = match step {
        Ok(n) => n,
        Err(err) => return (0, Some(err)),
    };
    // A stream's bytes are gone from it: they wait for room if another writer was faster.
    let keep = !from.ops().seekable();
    let data = buf.get(..n).unwrap_or_default();
    let (done, err) = put_all(cx, to, data, &mut None, write_nonblock && !keep).await;
    advance(from, from_at, done);
    (done as u64, err)
}

/// tee(2): copies from pipe to pipe; the bytes stay.
pub async fn tee(cx: &mut Cx<'_>, in_fd: i32, out_fd: i32, len: u64, flags: u32) -> SysResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = (readable(cx, in_fd)?, writable(cx, out_fd)?);
    let (Some(a), Some(b)) = (pipe_of(&from), pipe_of(&to)) else { return Err(Errno::EINVAL.into()) };
    if Arc::ptr_eq(a, b) {
        return Err(Errno::EINVAL.into());
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let from_nonblock = nonblock || from.flags().contains(OpenFlags::NONBLOCK);
    let to_nonblock = nonblock || to.flags().contains(OpenFlags::NONBLOCK);
    let len = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
    let mut buf = vec![0; len];
    let step = cx.file_op(&from, Events::READABLE, from_nonblock, |_, _| Ok(a.peek(&mut buf)?)).await;
    let n = step?;
    if n == 0 {
        return Ok(0);
    }
    let room = cx.file_op(&to, Events::WRITABLE, to_nonblock, |_, _| Ok(b.room()?)).await;
    let n = match room {
        Ok(room) => n.min(room),
        Err(err) => return outcome(cx, 0, Some(err)),
    };
    let done = b.write(buf.get(..n).unwrap_or_default(), false).map_err(SysError::from);
    match done {
        Ok(n) => Ok(n as i64),
        Err(err) => outcome(cx, 0, Some(err)),
    }
}

/// vmsplice(2): as much as a pipe has room for, once it has some; or as readv(2) from one. Pages are never gifts
/// here.
pub async fn vmsplice(cx: &mut Cx<'_>, fd: i32, iov: Ptr, count: u64, flags: u32) -> SysResult {
    const RWF_NOWAIT: u32 = 8;
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.file(fd)?;
    let pipe = pipe_of(&file).ok_or(Errno::EBADF)?.clone();
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    if !file.flags().writable() {
        // The offset -1 is "at the position".
        let rwf = if nonblock { RWF_NOWAIT } else { 0 };
        return crate::file_io::preadv2(cx, fd, iov, count, u64::MAX, 0, rwf).await;
    }
    let vectors = read_iovec(cx, iov, count)?;
    let total: u64 = vectors.iter().map(|vector| vector.len).sum::<u64>().min(CHUNK as u64);
    if total == 0 {
        return Ok(0);
    }
    let nonblock = nonblock || file.flags().contains(OpenFlags::NONBLOCK);
    let step = cx.file_op(&file, Events::WRITABLE, nonblock, |cx, _| {
        let mut buf = vec![0; pipe.room()?.min(usize::try_from(total).unwrap_or(CHUNK))];
        gather(cx, &vectors, 0, &mut buf)?;
        Ok(pipe.write(&buf, false)?)
    });
    match step.await {
        Ok(n) => Ok(n as i64),
        Err(err) => outcome(cx, 0, Some(err)),
    }
}
