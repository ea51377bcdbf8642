//! Host descriptors whose readiness is passed on to wait queues.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use linux_abi::poll::Events;
use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::io::Errno;
use slab::Slab;

use crate::driver::Executor;
use crate::wait_queue::WaitQueue;

#[derive(Default)]
struct Table {
    entries: Slab<(u32, Arc<WaitQueue>)>,
    /// Counts insertions, so that an event for a removed source misses its successor.
    generation: u32,
}

pub(crate) struct Sources(Mutex<Table>);

impl Sources {
    pub(crate) fn new() -> Sources {
        Sources(Mutex::default())
    }

    fn insert(&self, queue: Arc<WaitQueue>) -> u64 {
        let mut sources = self.0.lock();
        sources.generation = sources.generation.wrapping_add(1) & 0x7fff_ffff;
        let generation = sources.generation;
        let index = sources.entries.insert((generation, queue));
        u64::from(generation) << 32 | (index as u64 & 0xffff_ffff)
    }

    fn get(&self, key: u64) -> Option<Arc<WaitQueue>> {
        let sources = self.0.lock();
        let (generation, queue) = sources.entries.get(index(key))?;
        (u64::from(*generation) == key >> 32).then(|| Arc::clone(queue))
    }

    fn remove(&self, key: u64) {
        let removed = self.0.lock().entries.try_remove(index(key));
        drop(removed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().entries.is_empty()
    }

    pub(crate) fn wake(&self, key: u64, events: Events) {
        if let Some(queue) = self.get(key) {
            queue.wake(events);
        }
    }
}

fn index(key: u64) -> usize {
    (key & 0xffff_ffff) as usize
}

/// A host descriptor in the driver's epoll set, edge-triggered: each change of readiness wakes the
/// queue once with the new events. The holder asks the descriptor itself what is ready now.
pub struct HostSource {
    fd: Arc<OwnedFd>,
    key: u64,
    queue: Arc<WaitQueue>,
}

impl HostSource {
    /// Watches `fd` for `interest` (`ERR` and `HUP` come unasked).
    ///
    /// # Errors
    /// `EPERM` for a descriptor that cannot be polled, such as a regular file; else epoll_ctl(2).
    pub fn new(fd: Arc<OwnedFd>, interest: Events) -> Result<HostSource, Errno> {
        HostSource::with_queue(fd, interest, Arc::new(WaitQueue::new()))
    }

    /// As [`HostSource::new`], waking a queue that the caller has already.
    ///
    /// # Errors
    /// As [`HostSource::new`].
    pub fn with_queue(
        fd: Arc<OwnedFd>,
        interest: Events,
        queue: Arc<WaitQueue>,
    ) -> Result<HostSource, Errno> {
        let executor = Executor::get();
        let key = executor.sources.insert(Arc::clone(&queue));
        let flags = epoll::EventFlags::from_bits_truncate(interest.bits()) | epoll::EventFlags::ET;
        if let Err(error) = epoll::add(&executor.epoll, &*fd, epoll::EventData::new_u64(key), flags) {
            executor.sources.remove(key);
            return Err(error);
        }
        Ok(HostSource { fd, key, queue })
    }

    /// The queue that is woken.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// The watched descriptor.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

impl Drop for HostSource {
    fn drop(&mut self) {
        let executor = Executor::get();
        let _ = epoll::delete(&executor.epoll, &*self.fd);
        executor.sources.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::HostSource;
    use crate::{Events, Waiter, block_on};
    use std::sync::Arc;

    #[test]
    fn a_readable_pipe_wakes_its_queue() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let source = HostSource::new(Arc::new(reader), Events::IN).unwrap();
        let waiter = Waiter::new();
        let listener = source.queue().listen(&waiter, Events::IN, false);
        rustix::io::write(&writer, b"x").unwrap();
        assert!(block_on(waiter.wait()).contains(Events::IN));
        drop(listener);
    }
}
