//! What a socket can do, whatever its family: socket(7).

use std::any::Any;
use std::sync::Arc;

use executor::{Events, WaitQueue};
use identity::Credentials;
use linux_abi::Errno;
use linux_abi::socket::MsgFlags;
use vfs::{Caller, Inode, MapRequest, MapSource, OpenFile};

use crate::Result;
use crate::filter::Filter;
use crate::posting::Posts;
use crate::registry::Description;

/// Credentials that unix(7) sockets tell of the other side: `struct ucred`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the fields of struct ucred")]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Who makes a socket call.
#[derive(Clone, Copy)]
pub struct SocketCaller<'a> {
    /// Process id.
    pub pid: i32,
    /// Credentials of the thread.
    pub credentials: &'a Credentials,
}

impl SocketCaller<'_> {
    /// As the other side sees it.
    pub fn ucred(&self) -> Ucred {
        Ucred { pid: self.pid, uid: self.credentials.euid, gid: self.credentials.egid }
    }
}

/// A socket address as the guest gave it: `struct sockaddr` with its family, at most 128 bytes.
#[derive(Clone, Default)]
pub struct Address {
    /// Family and the rest.
    pub bytes: Vec<u8>,
    /// The socket file that the path of a unix(7) address leads to; resolved or made by the caller.
    pub node: Option<Arc<dyn Inode>>,
}

impl Address {
    /// Without a file.
    pub fn plain(bytes: Vec<u8>) -> Address {
        Address { bytes, node: None }
    }
    /// The family; `EINVAL` if too short.
    pub fn family(&self) -> Result<u16> {
        self.bytes.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
    }
}

/// A control message (cmsg(3)).
pub enum Control {
    /// `SCM_RIGHTS`.
    Rights(Vec<Arc<OpenFile>>),
    /// `SCM_CREDENTIALS`.
    Credentials(Ucred),
    /// `SCM_PIDFD`: the process that had this id at a time of `CLOCK_MONOTONIC`, since ids are given again.
    PidFd {
        /// Process id.
        pid: i32,
        /// Nanoseconds.
        at: u64,
    },
    /// Any other, as bytes.
    Raw {
        /// Protocol.
        level: i32,
        /// Type within the level.
        kind: i32,
        /// What follows the header.
        data: Vec<u8>,
    },
}

/// What a receive gave.
#[derive(Default)]
pub struct Received {
    /// Bytes in the buffer.
    pub count: usize,
    /// Length of the message before it was cut to the buffer.
    pub length: usize,
    /// `MSG_TRUNC`, `MSG_EOR` and the like.
    pub flags: MsgFlags,
    /// Who sent it; empty if unnamed, none if the socket does not tell.
    pub from: Option<Vec<u8>>,
    /// Control messages.
    pub control: Vec<Control>,
}

/// Which halves shutdown(2) closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Halves {
    /// `SHUT_RD`.
    pub read: bool,
    /// `SHUT_WR`.
    pub write: bool,
}

/// A socket. Operations answer at once or say `EAGAIN`; the wait queue tells when to try again.
#[expect(unused_variables, reason = "the defaults refuse")]
pub trait Socket: Any + Send + Sync {
    /// The concrete type.
    fn as_any(&self) -> &dyn Any;
    /// Family (`AF_*`), type (`SOCK_*`) and protocol.
    fn kind(&self) -> (u16, u32, i32);
    /// bind(2).
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()>;
    /// listen(2).
    fn listen(&self, caller: &SocketCaller<'_>, backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// connect(2). `EAGAIN`: try again when writable. `EINPROGRESS`: when writable, `take_error` tells how it ended.
    fn connect(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()>;
    /// connect(2) has seen the connection that it waited for: from now on it is `EISCONN`.
    fn confirm_connect(&self, address: &Address) {}
    /// connect(2) has told of the failure that it waited for: the next one may begin anew.
    fn abandon_connect(&self, address: &Address) {}
    /// accept(2).
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// sendmsg(2). The control messages are taken once something was sent.
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize>;
    /// recvmsg(2). `control_room` is the size of the guest's buffer for control messages.
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received>;
    /// shutdown(2).
    fn shutdown(&self, halves: Halves) -> Result<()>;
    /// getsockname(2).
    fn local_address(&self) -> Result<Vec<u8>>;
    /// getpeername(2).
    fn peer_address(&self) -> Result<Vec<u8>>;
    /// The other side's address for accept(2), also if it is gone already.
    fn accepted_address(&self) -> Result<Vec<u8>> {
        self.peer_address()
    }
    /// getsockopt(2): at most `len` bytes.
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>>;
    /// The same for an option that reads what the guest's buffer holds.
    fn option_about(&self, level: i32, name: i32, given: &[u8]) -> Result<Vec<u8>> {
        self.option(level, name, given.len())
    }
    /// mmap(2); `ENODEV`.
    fn mmap(&self, request: &MapRequest) -> Result<MapSource> {
        Err(Errno::ENODEV)
    }
    /// setsockopt(2).
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()>;
    /// The place for a filter of what arrives; none if the family takes none.
    fn filter(&self) -> Option<&Filter> {
        None
    }
    /// The pending error (`SO_ERROR`), taken away.
    fn take_error(&self) -> Option<Errno> {
        None
    }
    /// An error that a call met after it had moved bytes, which is all that it tells: the next call has it.
    fn restore_error(&self, errno: Errno) {}
    /// A send(2) with `MSG_ZEROCOPY` was done: the bytes were copied, and the error queue says so.
    fn sent_zerocopy(&self) {}
    /// How many bytes a receive of a stream waits for (`SO_RCVLOWAT`). Each is given out as it comes: the caller goes on
    /// until it has so many.
    fn low_water(&self) -> usize {
        1
    }
    /// A connected stream whose sends and receives may be done without the program waiting for each.
    fn posts(&self) -> Option<&dyn Posts> {
        None
    }
    /// What is ready.
    fn poll(&self) -> Events;
    /// Woken when what is ready changes.
    fn wait_queue(&self) -> Arc<WaitQueue>;
    /// What lists of sockets say of it; none if they do not name it.
    fn describe(&self) -> Option<Description> {
        None
    }
    /// ioctl(2).
    fn ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        Err(Errno::ENOTTY)
    }
}

/// An `int` option's value; `EINVAL` if shorter.
pub fn int_option(value: &[u8]) -> Result<i32> {
    value.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}
