//! unix(7) sockets of the host, for sockets of the guest that have been connected to its programs.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, WaitQueue};
use host::connector::Connector;
use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, MsgFlags, SOCK_STREAM, SOL_SOCKET, so};

use super::{HostSocket, Maker};
use crate::Result;
use crate::socket::{Control, Halves, Received, Socket, Ucred};

/// Where connections to the host's sockets come from.
pub struct Outside {
    connector: Arc<Connector>,
    maker: Arc<Maker>,
    /// Somebody has tried to hand a file to the host.
    has_refused: AtomicBool,
}

/// A connection to a socket of the host. No descriptors pass, in either direction.
pub struct LocalSocket(HostSocket);

impl Outside {
    /// Connections by the connector, counted with the maker's sockets.
    pub fn new(connector: Arc<Connector>, maker: Arc<Maker>) -> Outside {
        Outside { connector, maker, has_refused: AtomicBool::new(false) }
    }

    /// Connects a new socket of type `SOCK_*` to the host's socket file; it wakes `queue`.
    pub(crate) fn connect(
        &self,
        file: BorrowedFd<'_>,
        kind: u32,
        queue: Arc<WaitQueue>,
    ) -> Result<LocalSocket> {
        let place = self.maker.room.take()?;
        let fd = self.connector.connect(file, kind)?;
        let socket = HostSocket::new(fd, (AF_UNIX, kind, 0), place, self.maker.room.clone(), queue)?;
        Ok(LocalSocket(socket))
    }

    /// Takes over a socket of the host that was bound for the guest.
    pub(crate) fn adopt(&self, fd: OwnedFd, kind: u32, queue: Arc<WaitQueue>) -> Result<LocalSocket> {
        let place = self.maker.room.take()?;
        let socket = HostSocket::new(fd, (AF_UNIX, kind, 0), place, self.maker.room.clone(), queue)?;
        Ok(LocalSocket(socket))
    }

    /// The guest's files stay inside: what a send that carries some is answered.
    pub(crate) fn refuse_files(&self) -> Errno {
        if !self.has_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!("descriptors (SCM_RIGHTS) are not passed to programs of the host: EPERM");
        }
        Errno::EPERM
    }
}

impl LocalSocket {
    pub(crate) fn send(&self, data: &[u8]) -> Result<usize> {
        host::socket::send(self.0.fd(), data, None, &[], 0)
    }

    /// recvmsg(2); descriptors are dropped, which `MSG_CTRUNC` tells. `credentials`: `SO_PASSCRED` is on.
    pub(crate) fn receive(&self, buf: &mut [u8], credentials: bool, flags: MsgFlags) -> Result<Received> {
        let stream = self.0.kind().1 == SOCK_STREAM;
        let mut known = flags & MsgFlags::PEEK;
        known.set(MsgFlags::TRUNC, !stream);
        let (message, sender) = host::socket::receive_local(self.0.fd(), buf, credentials, known.bits())?;
        let told = MsgFlags::TRUNC | MsgFlags::CTRUNC | MsgFlags::EOR;
        let sender = sender.map(|[_, uid, gid]| Control::Credentials(Ucred { pid: 0, uid, gid }));
        Ok(Received {
            count: message.length.min(buf.len()),
            length: message.length,
            flags: MsgFlags::from_bits_retain(message.flags) & told,
            from: (!stream).then_some(message.from),
            control: sender.into_iter().collect(),
        })
    }

    pub(crate) fn listen(&self, backlog: usize) -> Result<()> {
        host::socket::listen(self.0.fd(), i32::try_from(backlog).unwrap_or(i32::MAX))
    }

    /// accept(2): a connection from outside, which wakes `queue`.
    pub(crate) fn accept(&self, queue: Arc<WaitQueue>) -> Result<LocalSocket> {
        self.0.accept_host(queue).map(LocalSocket)
    }

    pub(crate) fn shutdown(&self, halves: Halves) -> Result<()> {
        self.0.shutdown(halves)
    }

    pub(crate) fn peer_address(&self) -> Result<Vec<u8>> {
        host::socket::name(self.0.fd(), true)
    }

    pub(crate) fn take_error(&self) -> Option<Errno> {
        self.0.take_error()
    }

    pub(crate) fn poll(&self) -> Events {
        self.0.poll()
    }

    /// FIONREAD or SIOCOUTQ.
    pub(crate) fn count(&self, cmd: u32) -> Result<usize> {
        let mut count = [0; 4];
        host::socket::ioctl(self.0.fd(), cmd, &mut count)?;
        Ok(usize::try_from(i32::from_ne_bytes(count)).unwrap_or(0))
    }

    /// setsockopt(2) of an `int` of socket(7) that is kept inside, too.
    pub(crate) fn set_option(&self, name: i32, value: i32) -> Result<()> {
        host::socket::set_option(self.0.fd(), SOL_SOCKET, name, &value.to_ne_bytes())
    }

    /// Who is at the other end, and in which groups: ids of our user namespace. Processes beyond the sandbox have no
    /// number in it.
    pub(crate) fn peer(&self) -> (Ucred, Arc<[u32]>) {
        let words = |bytes: Vec<u8>| -> Vec<u32> {
            bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
        };
        let option = |name, len| host::socket::option(self.0.fd(), SOL_SOCKET, name, len).map(words);
        let cred = match option(so::PEERCRED, 12).as_deref() {
            Ok([_, uid, gid]) => Ucred { pid: 0, uid: *uid, gid: *gid },
            _ => Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX },
        };
        // NGROUPS_MAX is 65536; who is in more than a thousand groups is shown in none.
        let groups = option(so::PEERGROUPS, 4096).unwrap_or_default();
        (cred, groups.into())
    }
}
