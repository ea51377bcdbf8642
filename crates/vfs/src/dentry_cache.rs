//! What keeps unused dentries alive: a bounded ring with a second chance for those used since.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::Dentry;

/// Entries kept. One costs about 300 bytes with its name, besides its inode: a directory of the host with its
/// listing 2 KiB in all (measured over the 17,000 of a /usr). A walk over more than this many finds none again.
const CAPACITY: usize = 64 << 10;

static CACHE: Mutex<Ring> = Mutex::new(Ring { slots: Vec::new(), hand: 0 });

struct Ring {
    slots: Vec<Arc<Dentry>>,
    hand: usize,
}

/// A dentry was found or made: keeps it, which may drop an old one.
pub(crate) fn touch(dentry: &Arc<Dentry>) {
    if !dentry.used.load(Ordering::Relaxed) {
        dentry.used.store(true, Ordering::Relaxed);
    }
    if dentry.slot.load(Ordering::Relaxed) != 0 {
        return;
    }
    // Dropped after the lock: a last reference frees a whole branch.
    let _old = CACHE.lock().add(dentry);
}

/// Lets go of a dentry at once: its name is gone, and its file must not outlive its last user.
pub(crate) fn remove(dentry: &Arc<Dentry>) {
    if dentry.slot.load(Ordering::Relaxed) == 0 {
        return;
    }
    let _removed = CACHE.lock().remove(dentry);
}

/// Drops what nothing else uses, such as the entries of a file system being unmounted.
pub fn shrink() {
    let mut unused = Vec::new();
    let mut ring = CACHE.lock();
    let mut index = 0;
    while let Some(dentry) = ring.slots.get(index) {
        if Arc::strong_count(dentry) == 1 {
            unused.extend(ring.take(index));
        } else {
            index += 1;
        }
    }
    drop(ring);
    drop(unused);
}

impl Ring {
    fn add(&mut self, dentry: &Arc<Dentry>) -> Option<Arc<Dentry>> {
        // Asked again under the lock, which `remove` takes after it marks a dentry as deleted.
        if dentry.is_deleted() || dentry.slot.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let old = if self.slots.len() >= CAPACITY { self.evict() } else { None };
        self.slots.push(Arc::clone(dentry));
        dentry.slot.store(self.slots.len() as u32, Ordering::Relaxed);
        old
    }

    fn remove(&mut self, dentry: &Dentry) -> Option<Arc<Dentry>> {
        let slot = dentry.slot.load(Ordering::Relaxed) as usize;
        self.take(slot.checked_sub(1)?)
    }

    /// The last entry takes the place of the one removed.
    fn take(&mut self, index: usize) -> Option<Arc<Dentry>> {
        if index >= self.slots.len() {
            return None;
        }
        let dentry = self.slots.swap_remove(index);
        dentry.slot.store(0, Ordering::Relaxed);
        if let Some(moved) = self.slots.get(index) {
            moved.slot.store(index as u32 + 1, Ordering::Relaxed);
        }
        Some(dentry)
    }

    fn evict(&mut self) -> Option<Arc<Dentry>> {
        // The first round takes every second chance away, so that two suffice.
        for _ in 0..2 * self.slots.len() {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            if !self.slots.get(self.hand)?.used.swap(false, Ordering::Relaxed) {
                break;
            }
            self.hand += 1;
        }
        self.take(self.hand.min(self.slots.len().checked_sub(1)?))
    }
}
