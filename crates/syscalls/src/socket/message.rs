//! send(2), recv(2), sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2).

use std::sync::Arc;

use executor::{Events, Pace};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::Signo;
use linux_abi::socket::{AF_UNIX, MsgFlags, SOCK_DGRAM, SOCK_STREAM};
use linux_abi::time::Timespec;
use net::{Address, Control, Received, Socket};
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{address, caller, control, socket_of, wait};
use crate::args::Ptr;
use crate::context::Limit;
use crate::file_io::{IoVec, gather, read_iovec, scatter};
use crate::{Cx, SysError, SysResult};

/// Stream bytes moved at a time.
const CHUNK: u64 = 256 << 10;
/// The longest datagram.
const MAX_DATAGRAM: u64 = 512 << 10;
/// The most messages of one sendmmsg(2) or recvmmsg(2).
const MAX_MESSAGES: u32 = 1024;

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MsgHdr {
    name: u64,
    name_len: i32,
    pad0: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad1: u32,
}

/// sendto(2).
pub async fn sendto(
    cx: &mut Cx<'_>,
    fd: i32,
    buf: u64,
    len: u64,
    flags: u32,
    to: Ptr,
    to_len: i32,
) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let to = destination(cx, &socket, to, to_len)?;
    let vectors = [IoVec { base: buf, len: len.min(0x7fff_f000) }];
    send(cx, &file, &socket, &vectors, to, Vec::new(), MsgFlags::from_bits_retain(flags)).await
}

/// sendmsg(2).
pub async fn sendmsg(cx: &mut Cx<'_>, fd: i32, at: Ptr, flags: u32) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    send_one(cx, &file, &socket, at, MsgFlags::from_bits_retain(flags)).await
}

/// sendmmsg(2).
pub async fn sendmmsg(cx: &mut Cx<'_>, fd: i32, at: Ptr, count: u32, flags: u32) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let mut done = 0;
    let mut pace = Pace::default();
    while done < count.min(MAX_MESSAGES) {
        pace.keep().await;
        let one = at.add(u64::from(done) * 64)?;
        let sent = send_one(cx, &file, &socket, one, MsgFlags::from_bits_retain(flags)).await;
        match sent {
            Ok(n) => cx.write(one.add(56)?, &(n as u32))?,
            Err(_) if done > 0 => break,
            Err(err) => return Err(err),
        }
        done += 1;
    }
    Ok(i64::from(done))
}

async fn send_one(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    socket: &Arc<dyn Socket>,
    at: Ptr,
    flags: MsgFlags,
) -> SysResult {
    let header: MsgHdr = cx.read(at)?;
    let to = destination(cx, socket, Ptr(header.name), header.name_len)?;
    let vectors = iovec(cx, &header)?;
    let control = control::read(cx, Ptr(header.control), header.control_len)?;
    send(cx, file, socket, &vectors, to, control, flags).await
}

fn iovec(cx: &mut Cx<'_>, header: &MsgHdr) -> SysResult<Vec<IoVec>> {
    if header.iov_len > 1024 {
        return Err(Errno::EMSGSIZE.into());
    }
    read_iovec(cx, Ptr(header.iov), header.iov_len)
}

fn destination(cx: &mut Cx<'_>, socket: &Arc<dyn Socket>, at: Ptr, len: i32) -> SysResult<Option<Address>> {
    if at.is_null() || len == 0 {
        return Ok(None);
    }
    let mut to = address::read(cx, at, len)?;
    // Connected kinds refuse or ignore it without a look.
    if socket.kind().1 == SOCK_DGRAM {
        address::resolve(cx, &mut to)?;
    }
    Ok(Some(to))
}

async fn send(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    socket: &Arc<dyn Socket>,
    vectors: &[IoVec],
    to: Option<Address>,
    mut control: Vec<Control>,
    flags: MsgFlags,
) -> SysResult {
    let stream = socket.kind().1 == SOCK_STREAM;
    let dontwait = flags.contains(MsgFlags::DONTWAIT);
    let total: u64 = vectors.iter().map(|v| v.len).sum();
    if !stream && total > MAX_DATAGRAM {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut done = 0;
    let mut pace = Pace::default();
    loop {
        let size = (total - done).min(if stream { CHUNK } else { MAX_DATAGRAM }) as usize;
        let sent = wait(cx, file, socket, Events::WRITABLE, dontwait, None, |cx, socket| {
            let mut scratch = std::mem::take(&mut cx.local.scratch);
            if scratch.len() < size {
                scratch.resize(size, 0);
            }
            let buf = scratch.get_mut(..size).unwrap_or_default();
            let result = gather(cx, vectors, done, buf)
                .and_then(|()| Ok(socket.send(&caller(cx), buf, to.as_ref(), &mut control, flags)?));
            keep(cx, scratch);
            result
        })
        .await;
        match sent {
            Ok(n) => done += n as u64,
            Err(err) if done > 0 => {
                restore(socket, &err);
                break;
            }
            Err(SysError::Errno(Errno::EPIPE)) => {
                if !flags.contains(MsgFlags::NOSIGNAL) && socket.kind().1 != SOCK_DGRAM {
                    crate::run_loop::raise(cx, Signo::SIGPIPE);
                }
                return Err(Errno::EPIPE.into());
            }
            Err(err) => return Err(err),
        }
        let nonblock = dontwait || file.flags().contains(OpenFlags::NONBLOCK);
        if !stream || done >= total || nonblock {
            break;
        }
        pace.keep().await;
    }
    if flags.contains(MsgFlags::ZEROCOPY) && total > 0 {
        socket.sent_zerocopy();
    }
    Ok(done as i64)
}

/// An error after bytes were moved is the next call's, as far as it was the socket's.
fn restore(socket: &Arc<dyn Socket>, err: &SysError) {
    if let SysError::Errno(errno) = err
        && matches!(*errno, Errno::ECONNRESET | Errno::ETIMEDOUT | Errno::EHOSTUNREACH | Errno::ENETUNREACH)
    {
        socket.restore_error(*errno);
    }
}

/// Gives the scratch buffer back unless it grew beyond its usual size.
fn keep(cx: &mut Cx<'_>, scratch: Vec<u8>) {
    if scratch.len() as u64 <= CHUNK {
        cx.local.scratch = scratch;
    }
}

/// recvfrom(2).
pub async fn recvfrom(
    cx: &mut Cx<'_>,
    fd: i32,
    buf: u64,
    len: u64,
    flags: u32,
    from: Ptr,
    from_len: Ptr,
) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let flags = MsgFlags::from_bits_retain(flags);
    let vectors = [IoVec { base: buf, len: len.min(0x7fff_f000) }];
    let received = receive(cx, &file, &socket, &vectors, 0, flags).await;
    if matches!(received, Err(SysError::Errno(Errno::EAGAIN))) {
        kernel::posting::was_dry(cx.thread);
    }
    let received = received?;
    if received.count > 0 && (flags - MsgFlags::DONTWAIT).is_empty() && socket.posts().is_some() {
        let reads = received.count as u64 == len;
        let read = kernel::posting::Ready { fd, file, reads, open: false, asked: received.count };
        kernel::posting::grant(cx.thread, &[read], kernel::posting::Told::Read);
    }
    if !from.is_null() {
        // Connected sockets tell no sender: the length becomes 0.
        address::write(cx, received.from.as_deref().unwrap_or_default(), from, from_len)?;
    }
    Ok(returned(&received, flags))
}

/// What the call returns: the bytes, or with `MSG_TRUNC` the length of the whole message.
fn returned(received: &Received, flags: MsgFlags) -> i64 {
    if flags.contains(MsgFlags::TRUNC) { received.length as i64 } else { received.count as i64 }
}

/// recvmsg(2).
pub async fn recvmsg(cx: &mut Cx<'_>, fd: i32, at: Ptr, flags: u32) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    receive_one(cx, &file, &socket, at, MsgFlags::from_bits_retain(flags)).await
}

/// recvmmsg(2). As in Linux the time-out is looked at after each message only.
pub async fn recvmmsg(cx: &mut Cx<'_>, fd: i32, at: Ptr, count: u32, flags: u32, timeout: Ptr) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let deadline = if timeout.is_null() {
        None
    } else {
        Some(executor::monotonic_ns().saturating_add(cx.read::<Timespec>(timeout)?.to_nanos()?))
    };
    let mut flags = MsgFlags::from_bits_retain(flags);
    let mut done = 0;
    let mut pace = Pace::default();
    while done < count.min(MAX_MESSAGES) {
        pace.keep().await;
        let one = at.add(u64::from(done) * 64)?;
        match receive_one(cx, &file, &socket, one, flags - MsgFlags::WAITFORONE).await {
            Ok(n) => cx.write(one.add(56)?, &(n as u32))?,
            Err(_) if done > 0 => break,
            Err(err) => return Err(err),
        }
        done += 1;
        if flags.contains(MsgFlags::WAITFORONE) {
            flags |= MsgFlags::DONTWAIT;
        }
        if let Some(at) = deadline {
            let left = at.saturating_sub(executor::monotonic_ns());
            cx.write(timeout, &Timespec::from_nanos(left))?;
            if left == 0 {
                break;
            }
        }
    }
    Ok(i64::from(done))
}

async fn receive_one(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    socket: &Arc<dyn Socket>,
    at: Ptr,
    flags: MsgFlags,
) -> SysResult {
    let header: MsgHdr = cx.read(at)?;
    if header.name != 0 && header.name_len < 0 {
        return Err(Errno::EINVAL.into());
    }
    let vectors = iovec(cx, &header)?;
    let room = if header.control == 0 { 0 } else { header.control_len };
    let mut received =
        receive(cx, file, socket, &vectors, usize::try_from(room).unwrap_or(usize::MAX), flags).await?;
    if header.name != 0 {
        let name = received.from.take().unwrap_or_default();
        let n = name.len().min(usize::try_from(header.name_len).unwrap_or(0));
        cx.write_bytes(Ptr(header.name), name.get(..n).unwrap_or_default())?;
        cx.write(at.add(8)?, &(name.len() as u32))?;
    }
    let mut out = received.flags;
    let messages = std::mem::take(&mut received.control);
    let used = control::write(cx, messages, Ptr(header.control), room, flags, &mut out)?;
    out |= flags & MsgFlags::CMSG_CLOEXEC;
    cx.write(at.add(48)?, &out.bits())?;
    cx.write(at.add(40)?, &used)?;
    Ok(returned(&received, flags))
}

/// Receives into the guest's vectors; a stream goes on until there are as many bytes as `SO_RCVLOWAT` says, or with
/// `MSG_WAITALL` until they are full.
async fn receive(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    socket: &Arc<dyn Socket>,
    vectors: &[IoVec],
    control_room: usize,
    flags: MsgFlags,
) -> SysResult<Received> {
    let stream = socket.kind().1 == SOCK_STREAM;
    let total: u64 = vectors.iter().map(|v| v.len).sum();
    let least = if flags.contains(MsgFlags::WAITALL) { total } else { total.min(socket.low_water() as u64) };
    // Errors are there or not: nobody waits for them.
    let dontwait = flags.intersects(MsgFlags::DONTWAIT | MsgFlags::ERRQUEUE);
    // tcp(7): the bytes are thrown away.
    let discards = stream && flags.contains(MsgFlags::TRUNC) && socket.kind().0 != AF_UNIX;
    // The socket itself never waits, so that it must not see this flag.
    let mut inner = flags - MsgFlags::WAITALL;
    inner.set(MsgFlags::DONTWAIT, dontwait || file.flags().contains(OpenFlags::NONBLOCK));
    let mut all = Received::default();
    let mut pace = Pace::default();
    let limit = Limit::of(cx, file, Events::READABLE);
    loop {
        let done = all.count as u64;
        let size = (total - done).min(if stream { CHUNK } else { MAX_DATAGRAM }) as usize;
        let nowait = dontwait || (done > 0 && done >= least);
        let step = wait(cx, file, socket, Events::READABLE, nowait, Some(limit), |cx, socket| {
            let mut scratch = std::mem::take(&mut cx.local.scratch);
            if scratch.len() < size {
                scratch.resize(size, 0);
            }
            let buf = scratch.get_mut(..size).unwrap_or_default();
            let result = socket.receive(buf, control_room, inner).map_err(SysError::from).and_then(|got| {
                if !discards {
                    scatter(cx, vectors, done, buf.get(..got.count).unwrap_or_default())?;
                }
                Ok(got)
            });
            keep(cx, scratch);
            result
        })
        .await;
        let got = match step {
            Ok(got) => got,
            Err(err) if done > 0 => {
                restore(socket, &err);
                break;
            }
            Err(err) => return Err(err),
        };
        let n = got.count;
        all.count += n;
        all.length += got.length;
        all.flags |= got.flags;
        all.from = got.from;
        let carried = !got.control.is_empty();
        all.control.extend(got.control);
        let go_on = stream
            && n > 0
            && !carried
            && (all.count as u64) < total
            && !flags.contains(MsgFlags::PEEK)
            && ((all.count as u64) < least || n == size);
        // Beyond the least, what a chunk left over is taken without waiting.
        if !go_on {
            break;
        }
        pace.keep().await;
    }
    Ok(all)
}
