//! The open file of a socket.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use executor::{Events, WaitQueue};
use identity::Credentials;
use linux_abi::fs::{OpenFlags, S_IFSOCK};
use linux_abi::socket::MsgFlags;
use parking_lot::Mutex;
use vfs::{Caller, Fasync, FileOps, MapRequest, MapSource, OpenFile};

use crate::registry::Listed;
use crate::socket::{Socket, SocketCaller};
use crate::{Result, socket};

/// How long receives and sends wait at most, nanoseconds (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "one for each direction")]
pub struct Timeouts {
    pub receive: Option<u64>,
    pub send: Option<u64>,
}

/// The operations of an open socket.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    timeouts: Mutex<Timeouts>,
    /// write(2) has no caller at hand: unix(7) tells who made the socket.
    creator: (i32, Credentials),
    /// Its place in the list of all sockets.
    listed: OnceLock<Listed>,
}

impl SocketFile {
    /// The socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }
    /// `SO_RCVTIMEO`, `SO_SNDTIMEO`.
    pub fn timeouts(&self) -> &Mutex<Timeouts> {
        &self.timeouts
    }
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let nonblock = file.flags().contains(OpenFlags::NONBLOCK);
        let flags = if nonblock { MsgFlags::DONTWAIT } else { MsgFlags::empty() };
        Ok(self.socket.receive(buf, 0, flags)?.count)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let caller = SocketCaller { pid: self.creator.0, credentials: &self.creator.1 };
        self.socket.send(&caller, buf, None, &mut Vec::new(), MsgFlags::empty())
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        self.socket.poll()
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.socket.wait_queue())
    }
    fn fasync(&self) -> Option<Fasync> {
        Some(Fasync::of(self.socket.wait_queue()))
    }
    fn mmap(&self, _file: &OpenFile, request: &MapRequest) -> Result<MapSource> {
        self.socket.mmap(request)
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        self.socket.ioctl(caller, cmd, arg)
    }
}

/// The open file of a socket that `caller` made or accepted.
pub fn open(caller: &SocketCaller<'_>, socket: Arc<dyn Socket>, nonblock: bool) -> Arc<OpenFile> {
    let ops = Arc::new(SocketFile {
        socket: socket.clone(),
        listed: OnceLock::new(),
        timeouts: Mutex::default(),
        creator: (caller.pid, caller.credentials.clone()),
    });
    let flags = if nonblock { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    let owner = (caller.credentials.fsuid, caller.credentials.fsgid);
    let file = OpenFile::anonymous_of(owner, b"socket:", S_IFSOCK | 0o777, ops.clone(), flags);
    let ino = file.inode().metadata().map_or(0, |meta| meta.ino);
    let _ = ops.listed.set(Listed::new(ino, caller.credentials.euid, &socket));
    file
}

/// The socket behind an open file; `ENOTSOCK`.
pub fn of(file: &OpenFile) -> Result<&SocketFile> {
    file.ops_as::<SocketFile>().ok_or(linux_abi::Errno::ENOTSOCK)
}

/// As [`socket::int_option`], for options that are on or off.
pub fn bool_option(value: &[u8]) -> Result<bool> {
    Ok(socket::int_option(value)? != 0)
}
