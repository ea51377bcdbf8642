//! Host descriptors: a bounded number of `O_PATH` ones, and opening one anew with access.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Opens `O_PATH` descriptors anew through `/proc/self/fd`, if it was given.
pub(crate) struct Reopener {
    proc_self_fd: Option<Arc<OwnedFd>>,
}

impl Reopener {
    pub(crate) fn new(proc_self_fd: Option<Arc<OwnedFd>>) -> Reopener {
        Reopener { proc_self_fd }
    }

    /// Runs a host call with the directory and name under which `fd` is found in procfs;
    /// none without procfs.
    pub(crate) fn through_proc<T>(
        &self,
        fd: &OwnedFd,
        call: impl FnOnce(BorrowedFd<'_>, &str) -> T,
    ) -> Option<T> {
        use std::os::fd::AsFd;
        let directory = self.proc_self_fd.as_ref()?;
        Some(call(directory.as_fd(), &fd.as_raw_fd().to_string()))
    }

    /// Opens `fd`'s file with access flags; none without procfs.
    pub(crate) fn reopen(&self, fd: &OwnedFd, flags: OFlags) -> Option<rustix::io::Result<OwnedFd>> {
        self.through_proc(fd, |directory, number| {
            with_room(|| rustix::fs::openat(directory, number, flags | OFlags::CLOEXEC, Mode::empty()))
        })
    }
}

/// A cached descriptor: of a file's place, or better one to read its contents.
#[derive(Clone)]
enum Held {
    Place(Arc<OwnedFd>),
    Reader(Arc<OwnedFd>),
}

/// A place for one cached descriptor; its owner can open it again.
#[derive(Default)]
pub(crate) struct Slot {
    fd: Mutex<Option<Held>>,
    used: AtomicBool,
    pinned: AtomicBool,
}

impl Slot {
    /// The cached descriptor.
    pub(crate) fn get(&self) -> Option<Arc<OwnedFd>> {
        let held = self.fd.lock();
        let (Held::Place(fd) | Held::Reader(fd)) = held.as_ref()?;
        self.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(fd))
    }

    /// The cached descriptor if it is opened with `O_RDONLY`.
    pub(crate) fn reader(&self) -> Option<Arc<OwnedFd>> {
        match self.fd.lock().as_ref()? {
            Held::Reader(fd) => {
                self.used.store(true, Ordering::Relaxed);
                Some(Arc::clone(fd))
            }
            Held::Place(_) => None,
        }
    }

    /// Keeps a descriptor if there is none yet, which may drop that of another slot.
    pub(crate) fn put(self: &Arc<Slot>, fd: Arc<OwnedFd>) {
        self.hold(Held::Place(fd));
    }

    /// Keeps a descriptor opened with `O_RDONLY`, so that opening the file again is no host call.
    pub(crate) fn put_reader(self: &Arc<Slot>, fd: Arc<OwnedFd>) {
        self.hold(Held::Reader(fd));
    }

    fn hold(self: &Arc<Slot>, new: Held) {
        let mut held = self.fd.lock();
        let old = match (&*held, &new) {
            (None, _) | (Some(Held::Place(_)), Held::Reader(_)) => held.replace(new),
            _ => Some(new),
        };
        let first = old.is_none();
        drop(held);
        // Closing may take a while.
        drop(old);
        self.used.store(true, Ordering::Relaxed);
        if first {
            Cache::get().insert(self);
        }
    }

    /// Drops the descriptor, as the cache does when there are too many.
    #[cfg(test)]
    pub(crate) fn clear(&self) {
        if self.fd.lock().take().is_some() {
            Cache::get().count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The descriptor cannot be opened again (its last name is going): it stays.
    pub(crate) fn pin(&self) {
        self.pinned.store(true, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.fd.get_mut().is_some() {
            Cache::get().count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// All slots with a descriptor, in the order of a second-chance clock.
struct Cache {
    slots: Mutex<VecDeque<Weak<Slot>>>,
    count: AtomicUsize,
    bound: usize,
}

impl Cache {
    fn get() -> &'static Cache {
        static CACHE: OnceLock<Cache> = OnceLock::new();
        CACHE.get_or_init(|| Cache {
            slots: Mutex::default(),
            count: AtomicUsize::new(0),
            bound: raise_limit() / 2,
        })
    }

    fn insert(&self, slot: &Arc<Slot>) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut slots = self.slots.lock();
        slots.push_back(Arc::downgrade(slot));
        if count > self.bound {
            self.evict(&mut slots, self.bound - self.bound / 8);
        } else if slots.len() > 2 * self.bound {
            slots.retain(|slot| slot.strong_count() > 0);
        }
    }

    /// Drops descriptors until there are so many, or each slot had its turns.
    fn evict(&self, slots: &mut VecDeque<Weak<Slot>>, goal: usize) {
        for _ in 0..2 * slots.len() {
            if self.count.load(Ordering::Relaxed) <= goal {
                return;
            }
            let Some(weak) = slots.pop_front() else { return };
            let Some(slot) = weak.upgrade() else { continue };
            if slot.pinned.load(Ordering::Relaxed) || slot.used.swap(false, Ordering::Relaxed) {
                slots.push_back(weak);
                continue;
            }
            if slot.fd.lock().take().is_some() {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Opens something, with fewer cached descriptors if there were too many.
pub(crate) fn with_room(open: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    match open() {
        Err(rustix::io::Errno::MFILE) => {
            let cache = Cache::get();
            let goal = cache.count.load(Ordering::Relaxed) / 2;
            cache.evict(&mut cache.slots.lock(), goal);
            open()
        }
        result => result,
    }
}

/// Raises the soft limit of descriptors to the hard one and returns it.
fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    // No limit at all still means a table of some size.
    limit.current.and_then(|n| usize::try_from(n).ok()).unwrap_or(1 << 20).clamp(64, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::{Cache, Held, Slot};
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn descriptor() -> Arc<std::os::fd::OwnedFd> {
        Arc::new(rustix::pipe::pipe().unwrap().0)
    }

    #[test]
    fn eviction_spares_the_pinned() {
        let cache = Cache { slots: Default::default(), count: AtomicUsize::new(0), bound: 16 };
        let slots: Vec<Arc<Slot>> = (0..17).map(|_| Arc::new(Slot::default())).collect();
        let mut queue = VecDeque::new();
        for slot in &slots {
            *slot.fd.lock() = Some(Held::Place(descriptor()));
            cache.count.fetch_add(1, Ordering::Relaxed);
            queue.push_back(Arc::downgrade(slot));
        }
        slots[0].pin();
        cache.evict(&mut queue, 14);
        assert_eq!(cache.count.load(Ordering::Relaxed), 14);
        assert!(slots[0].get().is_some());
        assert!(slots[1].get().is_none());
        // The global count knows nothing of these.
        for slot in &slots {
            slot.fd.lock().take();
        }
    }
}
