//! Event counters: eventfd(2).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;
use vfs::{FileOps, OpenFile};

use crate::Result;

/// The counter's largest value.
const MAX: u64 = u64::MAX - 1;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A counter that reads as 8 bytes.
pub struct EventFd {
    id: u64,
    count: Mutex<u64>,
    semaphore: bool,
    queue: Arc<WaitQueue>,
}

impl EventFd {
    /// Adds to the counter from inside the kernel, stopping at its largest value.
    pub fn signal(&self, n: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(n).min(MAX);
        drop(count);
        self.queue.wake(Events::READABLE);
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = if self.semaphore { 1 } else { *count };
        *count -= taken;
        drop(count);
        out.copy_from_slice(&taken.to_ne_bytes());
        self.queue.wake(Events::WRITABLE);
        Ok(8)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let bytes = buf.first_chunk::<8>().ok_or(Errno::EINVAL)?;
        let add = u64::from_ne_bytes(*bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        *count = count.checked_add(add).filter(|n| *n <= MAX).ok_or(Errno::EAGAIN)?;
        drop(count);
        self.queue.wake(Events::READABLE);
        Ok(8)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        events.set(Events::READABLE, count > 0);
        events.set(Events::WRITABLE, count < MAX);
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let count = *self.count.lock();
        let semaphore = u8::from(self.semaphore);
        format!("eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n", self.id)
    }
}

/// A new event counter.
pub fn open(initial: u32, semaphore: bool, nonblock: bool) -> Arc<OpenFile> {
    let ops = Arc::new(EventFd {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        count: Mutex::new(u64::from(initial)),
        semaphore,
        queue: Arc::new(WaitQueue::new()),
    });
    let flags = if nonblock { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    OpenFile::anonymous(b"anon_inode:[eventfd]", 0o600, ops, flags)
}

#[cfg(test)]
mod tests {
    use super::open;
    use linux_abi::Errno;

    #[test]
    fn counts_and_is_a_semaphore_if_asked() {
        let mut buf = [0; 8];
        for (semaphore, value) in [(false, 5), (true, 1)] {
            let file = open(2, semaphore, true);
            file.ops().write(&file, &3_u64.to_ne_bytes(), 0).unwrap();
            file.ops().read(&file, &mut buf, 0).unwrap();
            assert_eq!(u64::from_ne_bytes(buf), value);
        }
        let file = open(0, false, true);
        assert_eq!(file.ops().read(&file, &mut buf, 0), Err(Errno::EAGAIN));
        assert_eq!(file.ops().write(&file, &u64::MAX.to_ne_bytes(), 0), Err(Errno::EINVAL));
        file.ops().write(&file, &(u64::MAX - 1).to_ne_bytes(), 0).unwrap();
        assert_eq!(file.ops().write(&file, &1_u64.to_ne_bytes(), 0), Err(Errno::EAGAIN));
    }
}
