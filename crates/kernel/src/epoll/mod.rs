//! epoll(7): interest lists and ready lists.

mod item;
mod nesting;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;
use vfs::{FileOps, OpenFile};

pub use item::Interest;
use item::Item;

use crate::Result;

/// Edge-triggered.
pub const EPOLLET: u32 = 1 << 31;
/// Told once, then disabled until modified.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// Keeps the machine awake; without meaning here.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// One of several epoll files is woken.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;

/// The most files in one interest list (/proc/sys/fs/epoll/max_user_watches is per user).
const MAX_ITEMS: usize = 1 << 20;

#[derive(Default)]
struct Items {
    /// By descriptor and open file: a descriptor used anew is another item.
    map: BTreeMap<(i32, u64), Arc<Item>>,
    /// When as many are there, those whose file is gone are dropped.
    prune_at: usize,
}

/// An epoll instance.
pub struct Epoll {
    items: Mutex<Items>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    queue: Arc<WaitQueue>,
    /// Instances that have this one in their interest list.
    parents: Mutex<Vec<Weak<Epoll>>>,
}

/// What an open epoll file holds.
pub struct EpollFile(Arc<Epoll>);

impl Epoll {
    /// Woken when something becomes ready.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }
    /// Whether something may be ready; cheap.
    pub fn may_be_ready(&self) -> bool {
        !self.ready.lock().is_empty()
    }

    /// Puts an item into the ready list and wakes a waiter. True if somebody waited.
    fn list(&self, item: Arc<Item>) -> bool {
        if !item.listed.swap(true, Ordering::SeqCst) {
            self.ready.lock().push_back(item);
        }
        let waited = !self.queue.is_empty();
        self.queue.wake(Events::READABLE);
        waited
    }

    /// EPOLL_CTL_ADD. `EPERM` for files that cannot be polled, `EEXIST`, `ELOOP`, `ENOSPC`.
    pub fn add(self: &Arc<Epoll>, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        let queue = file.ops().wait_queue().ok_or(Errno::EPERM)?;
        let nested = of(file);
        if let Some(nested) = &nested {
            if interest.events & EPOLLEXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            nesting::link(self, nested)?;
        }
        let mut items = self.items.lock();
        if items.map.len() >= items.prune_at.max(64) {
            items.map.retain(|_, item| {
                let lives = item.file().is_some();
                if !lives {
                    item.remove();
                }
                lives
            });
            items.prune_at = items.map.len() * 2;
        }
        let key = (fd, file.id());
        let refused = if items.map.contains_key(&key) {
            Some(Errno::EEXIST)
        } else if items.map.len() >= MAX_ITEMS {
            Some(Errno::ENOSPC)
        } else {
            None
        };
        if let Some(errno) = refused {
            drop(items);
            if let Some(nested) = &nested {
                nesting::unlink(self, nested);
            }
            return Err(errno);
        }
        let item = Item::new(self, fd, file, queue, interest);
        items.map.insert(key, item.clone());
        drop(items);
        self.list_if_ready(item);
        Ok(())
    }

    /// EPOLL_CTL_MOD. `ENOENT`, `EINVAL` for exclusive items.
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<()> {
        let item = self.items.lock().map.get(&(fd, file.id())).cloned().ok_or(Errno::ENOENT)?;
        if item.is_exclusive() || interest.events & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        item.modify(interest);
        self.list_if_ready(item);
        Ok(())
    }

    /// EPOLL_CTL_DEL. `ENOENT`.
    pub fn delete(self: &Arc<Epoll>, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        let item = self.items.lock().map.remove(&(fd, file.id())).ok_or(Errno::ENOENT)?;
        item.remove();
        if let Some(nested) = of(file) {
            nesting::unlink(self, &nested);
        }
        Ok(())
    }

    /// Whether a descriptor is in the interest list; none where its interest cannot be changed.
    pub fn lists(&self, fd: i32, file: &OpenFile) -> Option<bool> {
        match self.items.lock().map.get(&(fd, file.id())) {
            Some(item) if item.is_exclusive() => None,
            item => Some(item.is_some()),
        }
    }

    fn list_if_ready(&self, item: Arc<Item>) {
        if !item.ready().is_empty() {
            self.list(item);
        }
    }

    /// Gives up to `max` ready files to `tell` (events, data, descriptor and file); returns how many.
    pub fn harvest(
        &self,
        max: usize,
        mut tell: impl FnMut(Events, Interest, i32, Option<Arc<OpenFile>>),
    ) -> usize {
        // No more than are listed now: a level-triggered item goes back to the end and is told once.
        let mut left = self.ready.lock().len();
        let mut told = 0;
        while left > 0 && told < max {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            // Before the look: what happens after it lists the item again.
            item.listed.store(false, Ordering::SeqCst);
            let events = item.ready();
            if events.is_empty() {
                continue;
            }
            tell(events, item.interest(), item.fd, item.file());
            told += 1;
            if item.told() && !item.listed.swap(true, Ordering::SeqCst) {
                self.ready.lock().push_back(item);
            }
        }
        told
    }

    /// Whether something is ready: looks at each listed item, and drops from the list what is not.
    fn any_ready(&self) -> bool {
        let mut left = self.ready.lock().len();
        while left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            item.listed.store(false, Ordering::SeqCst);
            if !item.ready().is_empty() {
                if !item.listed.swap(true, Ordering::SeqCst) {
                    self.ready.lock().push_front(item);
                }
                return true;
            }
        }
        false
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in self.items.get_mut().map.values() {
            item.remove();
        }
    }
}

impl FileOps for EpollFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.0.any_ready() { Events::READABLE } else { Events::empty() }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let mut out = String::new();
        for item in self.0.items.lock().map.values() {
            let interest = item.interest();
            let Some(file) = item.file() else { continue };
            let meta = file.inode().metadata().unwrap_or_default();
            let _ = writeln!(
                out,
                "tfd: {:8} events: {:8x} data: {:16x}  pos:{} ino:{:x} sdev:{:x}",
                item.fd,
                interest.events,
                interest.data,
                *file.pos().lock(),
                meta.ino,
                meta.dev
            );
        }
        out
    }
}

/// The epoll instance behind an open file, if it is one.
pub fn of(file: &OpenFile) -> Option<Arc<Epoll>> {
    file.ops_as::<EpollFile>().map(|f| f.0.clone())
}

/// A new epoll instance.
pub fn open() -> Arc<OpenFile> {
    let epoll = Arc::new(Epoll {
        items: Mutex::default(),
        ready: Mutex::default(),
        queue: Arc::new(WaitQueue::new()),
        parents: Mutex::default(),
    });
    OpenFile::anonymous(b"anon_inode:[eventpoll]", 0o600, Arc::new(EpollFile(epoll)), OpenFlags::RDWR)
}

#[cfg(test)]
mod tests;
