//! All open sockets by inode number: what /proc/net and sock_diag(7) list.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::Socket;

/// What a socket tells of itself.
#[derive(Clone, Debug)]
pub enum Description {
    /// The host lists it, under this inode number of its own.
    Host(u64),
    /// A TCP socket that listens: the host lists it, without what waits here.
    Listener(ListenerDescription),
    /// An end of a TCP connection inside the sandbox.
    Tcp(TcpDescription),
    /// A UDP socket: the host lists it, without what is kept here.
    Udp(UdpDescription),
    /// A unix(7) socket.
    Unix(UnixDescription),
}

/// What the host does not know of a TCP socket that listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerDescription {
    /// The host's inode number.
    pub host: u64,
    /// Connections from inside that are to be accepted.
    pub pending: usize,
    /// How many there may be.
    pub backlog: usize,
    /// It takes no connections of IPv4.
    pub v6_only: bool,
}

/// A TCP socket that the host does not know.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns of /proc/net/tcp")]
pub struct TcpDescription {
    pub family: u16,
    /// tcp_states.h.
    pub state: u8,
    /// Addresses as getsockname(2) and getpeername(2) give them.
    pub local: Vec<u8>,
    pub remote: Vec<u8>,
    pub unread: usize,
    pub unsent: usize,
}

/// What the host does not know of a UDP socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpDescription {
    /// The host's inode number.
    pub host: u64,
    /// What waits here, as it counts against `SO_RCVBUF`.
    pub unread: usize,
    /// Datagrams for which there was no room.
    pub lost: u64,
}

/// A unix(7) socket.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns of /proc/net/unix")]
pub struct UnixDescription {
    pub kind: u32,
    pub listening: bool,
    pub connected: bool,
    /// The name without the family; abstract ones begin with NUL.
    pub name: Vec<u8>,
    /// Tells ends apart; the other end's.
    pub id: usize,
    pub peer: Option<usize>,
    /// Bytes to read, or connections to accept.
    pub queued: usize,
    /// The backlog of a listener.
    pub limit: usize,
}

struct Entry {
    uid: u32,
    socket: Weak<dyn Socket>,
}

/// A kernel process holds one sandbox.
static SOCKETS: Mutex<BTreeMap<u64, Entry>> = Mutex::new(BTreeMap::new());

/// A socket's place in the list, left on drop.
pub(crate) struct Listed(u64);

impl Listed {
    pub(crate) fn new(ino: u64, uid: u32, socket: &Arc<dyn Socket>) -> Listed {
        SOCKETS.lock().insert(ino, Entry { uid, socket: Arc::downgrade(socket) });
        Listed(ino)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        SOCKETS.lock().remove(&self.0);
    }
}

/// One open socket.
pub(crate) struct Open {
    pub(crate) ino: u64,
    pub(crate) uid: u32,
    pub(crate) what: Description,
}

/// All that tell something of themselves.
pub(crate) fn list() -> Vec<Open> {
    // Sockets are asked without the lock: the last reference may go here.
    let all: Vec<_> = {
        let sockets = SOCKETS.lock();
        sockets.iter().filter_map(|(ino, e)| Some((*ino, e.uid, e.socket.upgrade()?))).collect()
    };
    all.into_iter()
        .filter_map(|(ino, uid, socket)| Some(Open { ino, uid, what: socket.describe()? }))
        .collect()
}
