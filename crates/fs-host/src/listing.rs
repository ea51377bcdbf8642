//! Directory listings that are kept while their directory is watched.
//!
//! All that live, kept or only held by an open directory, are bounded together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use linux_abi::fs::DirentType;
use parking_lot::Mutex;
use vfs::DirEntry;

use crate::inode::HostInode;

/// Bytes of all listings together.
const BOUND: usize = 8 << 20;
/// Bytes of the largest listing that is held; a larger directory is read from the host piece by piece.
const LARGEST: usize = 1 << 20;
/// Kept listings, more or less: as many as directories are watched.
const MOST: usize = 64 << 10;
/// Bytes of an entry besides its name: inode number, next position, type, length.
const HEAD: usize = 18;

static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Who keeps a listing, in the order of a second-chance clock.
static KEPT: Mutex<VecDeque<Weak<HostInode>>> = Mutex::new(VecDeque::new());

/// The entries of a directory as the host told them, `.` and `..` included.
#[derive(Debug)]
pub(crate) struct Listing(Vec<u8>);

impl Listing {
    /// An empty one, to be filled.
    pub(crate) fn new() -> Listing {
        Listing(Vec::new())
    }

    /// Adds an entry; false if there is no room for a listing that large.
    pub(crate) fn push(&mut self, entry: &DirEntry<'_>) -> bool {
        let Ok(length) = u8::try_from(entry.name.len()) else { return false };
        let size = HEAD + entry.name.len();
        if self.0.len() + size > LARGEST || BYTES.load(Ordering::Relaxed) + size > 2 * BOUND {
            return false;
        }
        let before = self.0.capacity();
        self.0.extend_from_slice(&entry.ino.to_ne_bytes());
        self.0.extend_from_slice(&entry.next.to_ne_bytes());
        self.0.extend_from_slice(&[entry.kind as u8, length]);
        self.0.extend_from_slice(entry.name);
        BYTES.fetch_add(self.0.capacity() - before, Ordering::Relaxed);
        true
    }

    /// All entries are in it.
    pub(crate) fn finish(mut self) -> Arc<Listing> {
        let before = self.0.capacity();
        self.0.shrink_to_fit();
        BYTES.fetch_sub(before - self.0.capacity(), Ordering::Relaxed);
        Arc::new(self)
    }

    /// The entry at an offset, and the offset of the next; none at the end.
    pub(crate) fn at(&self, offset: usize) -> Option<(DirEntry<'_>, usize)> {
        let (head, rest) = self.0.get(offset..)?.split_first_chunk::<HEAD>()?;
        let [ino @ .., _, _, _, _, _, _, _, _, _, _] = head;
        let [_, _, _, _, _, _, _, _, next @ .., kind, length] = head;
        let name = rest.get(..usize::from(*length))?;
        let entry = DirEntry {
            ino: u64::from_ne_bytes(*ino),
            next: u64::from_ne_bytes(*next),
            kind: DirentType::from_mode(u32::from(*kind) << 12),
            name,
        };
        Some((entry, offset + HEAD + name.len()))
    }

    /// The offset of the entry that comes at this position; none if no entry ended there.
    pub(crate) fn find(&self, position: u64) -> Option<usize> {
        if position == 0 {
            return Some(0);
        }
        let mut offset = 0;
        while let Some((entry, next)) = self.at(offset) {
            if entry.next == position {
                return Some(next);
            }
            offset = next;
        }
        None
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.0.capacity(), Ordering::Relaxed);
    }
}

/// A directory keeps its listing from now on: others may have to let go of theirs.
pub(crate) fn kept(directory: Weak<HostInode>) {
    let mut dropped = Vec::new();
    let mut kept = KEPT.lock();
    if directory.upgrade().is_some_and(|inode| inode.queue_listing(true)) {
        kept.push_back(directory);
    }
    for _ in 0..2 * kept.len() {
        if BYTES.load(Ordering::Relaxed) <= BOUND {
            break;
        }
        let Some(next) = kept.pop_front() else { break };
        let Some(inode) = next.upgrade() else { continue };
        if inode.listing_was_used() {
            kept.push_back(next);
        } else {
            inode.queue_listing(false);
            inode.forget_listing();
        }
        // The last holder of an inode takes locks.
        dropped.push(inode);
    }
    if kept.len() > MOST {
        kept.retain(|inode| inode.strong_count() > 0);
    }
    drop(kept);
}

#[cfg(test)]
mod tests {
    use super::Listing;
    use linux_abi::fs::DirentType;
    use vfs::DirEntry;

    #[test]
    fn entries_come_back_by_position() {
        let mut listing = Listing::new();
        for (ino, next, name) in [(7, 100, &b"a"[..]), (8, 50, b"long name"), (9, u64::MAX >> 1, b"z")] {
            assert!(listing.push(&DirEntry { ino, next, kind: DirentType::Regular, name }));
        }
        let listing = listing.finish();
        let (first, second) = listing.at(0).unwrap();
        assert_eq!((first.ino, first.next, first.name), (7, 100, &b"a"[..]));
        assert_eq!(listing.find(100), Some(second));
        let third = listing.find(50).unwrap();
        assert_eq!(listing.at(third).unwrap().0.name, b"z");
        let end = listing.find(u64::MAX >> 1).unwrap();
        assert!(listing.at(end).is_none() && listing.find(51).is_none());
    }

    #[test]
    fn a_large_directory_is_not_held() {
        let mut listing = Listing::new();
        let entry = DirEntry { ino: 1, next: 1, kind: DirentType::Dir, name: &[b'n'; 255] };
        let held = (0..1_000_000).take_while(|_| listing.push(&entry)).count();
        assert!((3000..5000).contains(&held), "{held}");
    }
}
