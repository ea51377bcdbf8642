//! Epoll instances in epoll instances: no cycles, bounded depth, bounded paths.

use std::sync::{Arc, Weak};

use linux_abi::Errno;
use parking_lot::Mutex;

use super::{Epoll, of};
use crate::Result;

/// Nesting beyond this many instances is `ELOOP`.
const MAX_DEPTH: usize = 5;
/// In how many instances one may be, where nesting is no deeper than two.
const MAX_PARENTS: usize = 500;
/// The same where it is deeper: one wake-up runs over every path.
const MAX_PARENTS_DEEP: usize = 10;

/// Links are made one at a time, so that two cannot close a cycle together.
static LINKING: Mutex<()> = Mutex::new(());

/// Notes that `child` is in the interest list of `parent`; `ELOOP`, `EINVAL`.
pub(super) fn link(parent: &Arc<Epoll>, child: &Arc<Epoll>) -> Result<()> {
    let _one = LINKING.lock();
    if Arc::ptr_eq(parent, child) {
        return Err(Errno::EINVAL);
    }
    let (below, crowd_below) = walk(child, Some(parent), children)?;
    let (above, crowd_above) = walk(parent, Some(child), parents)?;
    if below + above > MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    let own = parents(child).len() + 1;
    let limit = if below + above > 2 { MAX_PARENTS_DEEP } else { MAX_PARENTS };
    if own.max(crowd_below).max(crowd_above) > limit {
        return Err(Errno::EINVAL);
    }
    let mut list = child.parents.lock();
    list.retain(|p| p.strong_count() > 0);
    list.push(Arc::downgrade(parent));
    Ok(())
}

/// Takes one link away.
pub(super) fn unlink(parent: &Arc<Epoll>, child: &Arc<Epoll>) {
    let mut list = child.parents.lock();
    if let Some(at) = list.iter().position(|p| std::ptr::eq(p.as_ptr(), Arc::as_ptr(parent))) {
        list.swap_remove(at);
    }
}

fn parents(epoll: &Arc<Epoll>) -> Vec<Arc<Epoll>> {
    epoll.parents.lock().iter().filter_map(Weak::upgrade).collect()
}

fn children(epoll: &Arc<Epoll>) -> Vec<Arc<Epoll>> {
    let files: Vec<_> = epoll.items.lock().map.values().filter_map(|item| item.file()).collect();
    files.iter().filter_map(|file| of(file)).collect()
}

/// Goes from `start` level by level; gives the number of levels and the most parents that one on the way has.
/// `ELOOP` if it meets `stranger` or gets too deep.
fn walk(
    start: &Arc<Epoll>,
    stranger: Option<&Arc<Epoll>>,
    next: fn(&Arc<Epoll>) -> Vec<Arc<Epoll>>,
) -> Result<(usize, usize)> {
    let mut level = vec![start.clone()];
    let mut depth = 0;
    let mut crowd = 0;
    while !level.is_empty() {
        depth += 1;
        if depth > MAX_DEPTH || level.iter().any(|e| stranger.is_some_and(|s| Arc::ptr_eq(s, e))) {
            return Err(Errno::ELOOP);
        }
        crowd = level.iter().map(|e| e.parents.lock().len()).max().unwrap_or(0).max(crowd);
        level = level.iter().flat_map(next).collect();
        level.sort_unstable_by_key(Arc::as_ptr);
        level.dedup_by(|a, b| Arc::ptr_eq(a, b));
    }
    Ok((depth, crowd))
}
