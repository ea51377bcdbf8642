//! Standard streams that the engine hands over: host pipes, files, sockets, /dev/null.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use executor::{Events, HostSource, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFIFO, S_IFMT, S_IFREG};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfs::anonymous::SharedOps;
use vfs::{AnonInode, Caller, FileOps, OpenFile, Result};

/// A host descriptor that others share: its flags are left alone, so that reads and writes are only made
/// when the host says they will not wait.
pub struct HostStream {
    fd: Arc<OwnedFd>,
    source: Option<HostSource>,
    regular: bool,
}

/// What a write to a pipe that is ready for writing surely takes.
const PIPE_BUF: usize = 4096;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The open file for a host stream.
pub fn open(fd: OwnedFd) -> Result<Arc<OpenFile>> {
    let stat = rustix::fs::fstat(&fd).map_err(errno)?;
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(errno)?;
    let access =
        OpenFlags::from_bits_retain(flags.bits()) & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND);
    let fd = Arc::new(fd);
    let regular = stat.st_mode & S_IFMT == S_IFREG;
    // A regular file is always ready and cannot be watched.
    let source = HostSource::new(fd.clone(), Events::IN | Events::OUT | Events::RDHUP).ok();
    let kind = if regular { S_IFREG } else { stat.st_mode & S_IFMT };
    let name: &[u8] = if kind == S_IFIFO { b"pipe:" } else { b"host:" };
    let ops: Arc<dyn FileOps> = Arc::new(HostStream { fd, source, regular });
    let file = OpenFile::anonymous(name, kind | (stat.st_mode & 0o777), ops.clone(), access);
    // Opened anew, as /dev/stderr, it stays the host's stream. (A regular file then keeps its position, which
    // on Linux would begin anew.)
    if let Some(inode) = file.inode().as_any().downcast_ref::<AnonInode>() {
        inode.set_behind(Arc::new(SharedOps(ops)));
    }
    Ok(file)
}

impl HostStream {
    fn ready(&self, wanted: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.fd, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::ERR,
        }
    }
}

impl FileOps for HostStream {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        if !self.regular && self.ready(PollFlags::IN).is_empty() {
            return Err(Errno::EAGAIN);
        }
        rustix::io::read(&*self.fd, buf).map_err(errno)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        if self.regular {
            return rustix::io::write(&*self.fd, buf).map_err(errno);
        }
        if self.ready(PollFlags::OUT).is_empty() {
            return Err(Errno::EAGAIN);
        }
        let part = buf.get(..buf.len().min(PIPE_BUF)).unwrap_or_default();
        rustix::io::write(&*self.fd, part).map_err(errno)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.regular {
            return Events::READABLE | Events::WRITABLE;
        }
        let ready = self.ready(PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::PRI);
        let mut events = Events::from_bits_truncate(u32::from(ready.bits()));
        if events.contains(Events::IN) {
            events |= Events::READABLE;
        }
        if events.contains(Events::OUT) {
            events |= Events::WRITABLE;
        }
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        self.source.as_ref().map(|s| s.queue().clone())
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        const FIONREAD: u32 = 0x541b;
        if cmd == FIONREAD {
            let n = rustix::io::ioctl_fionread(&*self.fd).map_err(errno)?;
            let n = i32::try_from(n).unwrap_or(i32::MAX);
            caller.write_memory(arg, &n.to_ne_bytes())?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }
    fn fsync(&self, _file: &OpenFile, data_only: bool) -> Result<()> {
        if data_only { rustix::fs::fdatasync(&*self.fd) } else { rustix::fs::fsync(&*self.fd) }.map_err(errno)
    }
}
