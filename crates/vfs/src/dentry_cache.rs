//! What keeps unused dentries alive: a bounded list with a second chance for those used since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::Dentry;

/// Entries kept. One costs about 300 bytes with its name, besides its inode.
const CAPACITY: usize = 16 << 10;
/// How many used entries one insertion spares before it drops one all the same.
const CHANCES: usize = 16;

static CACHE: Mutex<VecDeque<Arc<Dentry>>> = Mutex::new(VecDeque::new());

/// Adds a new dentry, which may drop an old one.
pub(crate) fn add(dentry: Arc<Dentry>) {
    // Dropped after the lock: a last reference frees a whole branch.
    let _old = {
        let mut cache = CACHE.lock();
        cache.push_back(dentry);
        if cache.len() > CAPACITY { evict(&mut cache) } else { None }
    };
}

fn evict(cache: &mut VecDeque<Arc<Dentry>>) -> Option<Arc<Dentry>> {
    for _ in 0..CHANCES {
        let old = cache.pop_front()?;
        if old.is_deleted() || !old.used.swap(false, Ordering::Relaxed) {
            return Some(old);
        }
        cache.push_back(old);
    }
    cache.pop_front()
}

/// Drops what nothing else uses, such as the entries of a file system being unmounted.
pub fn shrink() {
    let unused: Vec<_> = {
        let mut cache = CACHE.lock();
        let (keep, unused) = cache.drain(..).partition(|dentry| Arc::strong_count(dentry) > 1);
        *cache = keep;
        let unused: VecDeque<Arc<Dentry>> = unused;
        unused.into()
    };
    drop(unused);
}
