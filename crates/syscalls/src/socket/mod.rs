//! Sockets: socket(2), bind(2), connect(2), accept(2) and their like.

mod address;
mod control;
mod message;
mod options;

use std::sync::Arc;

use executor::Events;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::socket::{AF_UNIX, MsgFlags, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_TYPE_MASK};
use net::unix::UnixSocket;
use net::{Halves, Socket, SocketCaller};
use vfs::OpenFile;

use crate::args::Ptr;
use crate::context::Limit;
use crate::{Cx, SysError, SysResult};

pub use message::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};
pub use options::{getsockopt, setsockopt};

/// Who calls, as sockets see it.
fn caller<'a>(cx: &'a Cx<'_>) -> SocketCaller<'a> {
    SocketCaller { pid: cx.process().pid(), credentials: &cx.credentials }
}

/// The socket of a descriptor, with its file; `EBADF`, `ENOTSOCK`.
fn socket_of(cx: &Cx<'_>, fd: i32) -> SysResult<(Arc<OpenFile>, Arc<dyn Socket>)> {
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    let socket = net::file::of(&file)?.socket().clone();
    Ok((file, socket))
}

/// write(2) on a socket.
pub(crate) fn write(cx: &Cx<'_>, socket: &Arc<dyn Socket>, data: &[u8]) -> SysResult<usize> {
    Ok(socket.send(&caller(cx), data, None, &mut Vec::new(), MsgFlags::empty())?)
}

/// The type without its flags; `EINVAL` for unknown flags.
fn split_type(kind: u32) -> SysResult<(u32, bool, bool)> {
    let flags = kind & !SOCK_TYPE_MASK;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok((kind & SOCK_TYPE_MASK, flags & SOCK_NONBLOCK != 0, flags & SOCK_CLOEXEC != 0))
}

/// socket(2).
pub fn socket(cx: &mut Cx<'_>, family: u32, kind: u32, protocol: i32) -> SysResult {
    let (kind, nonblock, cloexec) = split_type(kind)?;
    let family = u16::try_from(family).map_err(|_| Errno::EAFNOSUPPORT)?;
    let socket = cx.kernel().io.network.socket(&caller(cx), family, kind, protocol);
    if matches!(socket, Err(Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT)) {
        cx.kernel().note_missing(&format!("socket of family {family}, type {kind}, protocol {protocol}"));
    }
    let file = net::file::open(&caller(cx), socket?, nonblock);
    cx.install(file, cloexec)
}

/// socketpair(2): local sockets only.
pub fn socketpair(cx: &mut Cx<'_>, family: u32, kind: u32, protocol: i32, fds: Ptr) -> SysResult {
    let (kind, nonblock, cloexec) = split_type(kind)?;
    if family != u32::from(AF_UNIX) {
        let family = u16::try_from(family).map_err(|_| Errno::EAFNOSUPPORT)?;
        // As in Linux the sockets are made before their family is asked for a pair of them.
        cx.kernel().io.network.socket(&caller(cx), family, kind, protocol)?;
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (a, b) = UnixSocket::pair(&cx.kernel().io.network.names, &caller(cx), kind, protocol)?;
    let (a, b) = (net::file::open(&caller(cx), a, nonblock), net::file::open(&caller(cx), b, nonblock));
    crate::pipe::install_pair(cx, a, b, cloexec, fds)
}

/// bind(2).
pub fn bind(cx: &mut Cx<'_>, fd: i32, at: Ptr, len: i32) -> SysResult {
    let (_file, socket) = socket_of(cx, fd)?;
    let mut address = address::read(cx, at, len)?;
    if socket.kind().0 == AF_UNIX {
        // Before the file is made, which would stay.
        if socket.local_address()?.len() > 2 || address.family()? != AF_UNIX {
            return Err(Errno::EINVAL.into());
        }
        address::create(cx, &mut address, socket.kind().1)?;
    }
    socket.bind(&caller(cx), &address)?;
    Ok(0)
}

/// listen(2).
pub fn listen(cx: &mut Cx<'_>, fd: i32, backlog: i32) -> SysResult {
    let (_file, socket) = socket_of(cx, fd)?;
    socket.listen(&caller(cx), backlog)?;
    Ok(0)
}

/// accept(2).
pub async fn accept(cx: &mut Cx<'_>, fd: i32, at: Ptr, len_at: Ptr) -> SysResult {
    accept4(cx, fd, at, len_at, 0).await
}

/// accept4(2).
pub async fn accept4(cx: &mut Cx<'_>, fd: i32, at: Ptr, len_at: Ptr, flags: u32) -> SysResult {
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (file, socket) = socket_of(cx, fd)?;
    let accepted =
        wait(cx, &file, &socket, Events::READABLE, false, None, |_, socket| Ok(socket.accept()?)).await?;
    if !at.is_null() {
        let peer = match accepted.accepted_address() {
            Ok(peer) => peer,
            Err(_) => return Err(Errno::ECONNABORTED.into()),
        };
        address::write(cx, &peer, at, len_at)?;
    }
    let file = net::file::open(&caller(cx), accepted, flags & SOCK_NONBLOCK != 0);
    cx.install(file, flags & SOCK_CLOEXEC != 0)
}

/// connect(2).
pub async fn connect(cx: &mut Cx<'_>, fd: i32, at: Ptr, len: i32) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let mut address = address::read(cx, at, len)?;
    if socket.kind().0 == AF_UNIX {
        address::resolve(cx, &mut address)?;
    }
    let nonblock = file.flags().contains(OpenFlags::NONBLOCK);
    let begun = wait(cx, &file, &socket, Events::WRITABLE, false, None, |cx, socket| {
        Ok(socket.connect(&caller(cx), &address)?)
    })
    .await;
    let under_way = match begun {
        // An interrupted connect that starts over finds itself under way.
        Err(SysError::Errno(errno @ (Errno::EINPROGRESS | Errno::EALREADY))) if !nonblock => errno,
        done => return done.map(|()| 0),
    };
    let done = wait(cx, &file, &socket, Events::WRITABLE, false, None, |_, socket| {
        if socket.poll().intersects(Events::OUT | Events::ALWAYS) {
            Ok(())
        } else {
            Err(Errno::EAGAIN.into())
        }
    })
    .await;
    match done {
        // SO_SNDTIMEO passed: it goes on by itself.
        Err(SysError::Errno(Errno::EAGAIN)) => Err(under_way.into()),
        Err(err) => Err(err),
        Ok(()) => match socket.take_error() {
            Some(errno) => {
                socket.abandon_connect(&address);
                Err(errno.into())
            }
            None => {
                socket.confirm_connect(&address);
                Ok(0)
            }
        },
    }
}

/// shutdown(2).
pub fn shutdown(cx: &mut Cx<'_>, fd: i32, how: u32) -> SysResult {
    let (_file, socket) = socket_of(cx, fd)?;
    let halves = match how {
        0 => Halves { read: true, write: false },
        1 => Halves { read: false, write: true },
        2 => Halves { read: true, write: true },
        _ => return Err(Errno::EINVAL.into()),
    };
    socket.shutdown(halves)?;
    Ok(0)
}

/// getsockname(2).
pub fn getsockname(cx: &mut Cx<'_>, fd: i32, at: Ptr, len_at: Ptr) -> SysResult {
    let (_file, socket) = socket_of(cx, fd)?;
    let local = socket.local_address()?;
    address::write(cx, &local, at, len_at)?;
    Ok(0)
}

/// getpeername(2).
pub fn getpeername(cx: &mut Cx<'_>, fd: i32, at: Ptr, len_at: Ptr) -> SysResult {
    let (_file, socket) = socket_of(cx, fd)?;
    let peer = socket.peer_address()?;
    address::write(cx, &peer, at, len_at)?;
    Ok(0)
}

/// Does one operation of a socket, waiting while it says `EAGAIN` unless it must not; `EAGAIN` past the time-out.
async fn wait<T>(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    socket: &Arc<dyn Socket>,
    events: Events,
    dontwait: bool,
    limit: Option<Limit>,
    mut op: impl FnMut(&mut Cx<'_>, &Arc<dyn Socket>) -> SysResult<T>,
) -> SysResult<T> {
    let nonblock = dontwait || file.flags().contains(OpenFlags::NONBLOCK);
    cx.file_op_within(file, events | Events::RDHUP, nonblock, limit, |cx, _| op(cx, socket)).await
}
