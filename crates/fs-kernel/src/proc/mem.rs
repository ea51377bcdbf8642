//! /proc/PID/mem: the memory of a process as a file whose positions are its addresses; proc_pid_mem(5).

use std::any::Any;
use std::sync::{Arc, Weak};

use executor::WaitQueue;
use kernel::Thread;
use kernel::mm::Mm;
use linux_abi::Errno;
use vfs::{FileOps, OpenFile, Result, Whence};

/// Memory that was opened: after an exec or the end of the process there is nothing in it.
struct Memory {
    mm: Weak<Mm>,
    /// It was opened before a forked process came up: to wait for that.
    early: Option<Arc<WaitQueue>>,
}

impl Memory {
    /// The memory and how many of these bytes are the program's; none if it is gone. `EAGAIN` if it comes up.
    fn reach(&self, addr: u64, len: usize) -> Result<Option<(Arc<Mm>, usize)>> {
        let Some(mm) = self.mm.upgrade() else { return Ok(None) };
        if self.early.is_some() && mm.space.coming_up().is_some() {
            return Err(Errno::EAGAIN);
        }
        if mm.space.host_pid() == 0 {
            return Ok(None);
        }
        match platform::before_reserved(addr, len) {
            0 => Err(Errno::EIO),
            len => Ok(Some((mm, len))),
        }
    }
}

/// Opens the memory that a thread has now.
pub(super) fn open(thread: Option<Arc<Thread>>) -> Result<Arc<dyn FileOps>> {
    let thread = thread.ok_or(Errno::ESRCH)?;
    let mm = thread.mm();
    Ok(Arc::new(Memory { mm: Arc::downgrade(&mm), early: mm.space.coming_up() }))
}

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: Whence) -> Result<u64> {
        Err(Errno::EINVAL)
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let Some((mm, len)) = self.reach(pos, buf.len())? else { return Ok(0) };
        mm.space.peek(pos, buf.get_mut(..len).unwrap_or_default()).map_err(|_| Errno::EIO)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let Some((mm, len)) = self.reach(pos, buf.len())? else { return Ok(0) };
        mm.space.poke(pos, buf.get(..len).unwrap_or_default()).map_err(|_| Errno::EIO)
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        self.early.clone()
    }
    fn append(&self, file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        // Only ever at the position, which a file without a size begins at 0.
        self.write(file, buf, 0).map(|n| (n, n as u64))
    }
}
