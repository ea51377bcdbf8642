//! FIFOs of the host, whose other end may be a program outside.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use executor::{Events, HostSource, WaitQueue};
use linux_abi::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfs::{Caller, FileOps, OpenFile};

use super::FIONREAD;
use crate::Result;

/// An end of a FIFO of the host.
pub struct OutsideFifo(HostSource);

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

impl OutsideFifo {
    /// By a descriptor that is non-blocking.
    pub fn new(fd: OwnedFd) -> Result<OutsideFifo> {
        let interest = Events::IN | Events::OUT | Events::RDHUP;
        Ok(OutsideFifo(HostSource::new(Arc::new(fd), interest).map_err(errno)?))
    }
    /// Of an end that only reads: whether somebody writes, or has since it was opened.
    pub fn has_writer(&self) -> bool {
        host::files::has_writer(self.0.fd().as_fd())
    }
    /// Woken when it becomes ready.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        self.0.queue()
    }
    /// fcntl(F_GETPIPE_SZ).
    pub fn capacity(&self) -> Result<usize> {
        rustix::pipe::fcntl_getpipe_size(self.0.fd()).map_err(errno)
    }
    /// fcntl(F_SETPIPE_SZ), as far as the host lets an ordinary user.
    pub fn set_capacity(&self, size: usize) -> Result<usize> {
        rustix::pipe::fcntl_setpipe_size(self.0.fd(), size).map_err(errno)
    }
}

impl FileOps for OutsideFifo {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        rustix::io::read(self.0.fd(), buf).map_err(errno)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        rustix::io::write(self.0.fd(), buf).map_err(errno)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDNORM | PollFlags::WRNORM;
        let mut fds = [PollFd::new(self.0.fd(), all)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => Events::from_bits_truncate(u32::from(fds[0].revents().bits())),
            Err(_) => Events::ERR,
        }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue().clone())
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = rustix::io::ioctl_fionread(self.0.fd()).map_err(errno)?;
        caller.write_memory(arg, &i32::try_from(count).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }
}
