//! What absolute paths lead to, told for later use: that there is nothing, or no symbolic link.
//!
//! Directories share 64 buckets; whoever hands such an answer out notes which buckets it goes by. A directory of which
//! something was handed out says so when its names or its permissions change, after the change and before anybody
//! is told of it. Only what is the same for every caller is handed out: directories on the way that anybody may search,
//! and list, since everybody can read what was handed out, names included.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use linux_abi::Errno;
use linux_abi::fs::{NAME_MAX, S_IFDIR, S_IFLNK};

use crate::{Caller, Dentry, MountFlags, Place, acl};

/// The most symbolic links on the way.
const MAX_LINKS: u32 = 8;
/// In a mode: everybody may search, and list.
const ANYBODY: u32 = 0o555;
/// The bucket of all that is mounted; it is every answer's.
const MOUNTS: u64 = 1;

type Hook = Box<dyn Fn(u64) + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Calls this with the buckets (bits) that no longer are what they were. Only the first one counts.
pub fn on_change(hook: Hook) {
    // A second sandbox in one process is a unit test's.
    let _ = HOOK.set(hook);
}

fn changed(buckets: u64) {
    if let Some(hook) = HOOK.get() {
        hook(buckets);
    }
}

/// Something was mounted or unmounted, or options of a mount have changed.
pub fn mounts_changed() {
    changed(MOUNTS);
}

/// A directory's bucket, once something of it was handed out. When it goes nobody tells of it any more, and so it has
/// changed.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU32);

impl Bucket {
    /// From now on changes are told; the bucket, as a bit.
    pub fn mark(&self) -> u64 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut number = self.0.load(Ordering::SeqCst);
        if number == 0 {
            let new = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (u64::BITS - 1);
            number = match self.0.compare_exchange(0, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => new,
                Err(other) => other,
            };
        }
        1 << number
    }
    /// Names in the directory, or who may search it, have changed.
    pub fn changed(&self) {
        let number = self.0.load(Ordering::SeqCst);
        if number != 0 {
            changed(1 << number);
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.changed();
    }
}

/// What a path leads to, for every caller.
pub enum Leads {
    /// To nothing.
    Nowhere,
    /// Through something that is no directory.
    NotDirectory,
    /// To something that is no symbolic link.
    To(Place),
}

/// Where an absolute path leads from a root directory, and the buckets that this goes by; none if that is not known, or
/// not the same for everybody. All of it is looked up after the buckets were marked only if it is asked twice.
pub fn trace(root: &Place, path: &[u8], caller: &mut dyn Caller) -> Option<(Leads, u64)> {
    let mut trace = Trace { root, caller, buckets: MOUNTS, links: 0 };
    if path.first() != Some(&b'/') || path.last() == Some(&b'/') {
        return None;
    }
    let leads = trace.walk(root.clone(), path)?;
    // A link at the end may be followed or not.
    if matches!(&leads, Leads::To(place) if place.dentry.kind()? == S_IFLNK) {
        return None;
    }
    Some((leads, trace.buckets))
}

struct Trace<'a> {
    root: &'a Place,
    caller: &'a mut dyn Caller,
    buckets: u64,
    links: u32,
}

impl Trace<'_> {
    /// Where the path leads. The last component is not followed.
    fn walk(&mut self, start: Place, path: &[u8]) -> Option<Leads> {
        let mut dir = if path.first() == Some(&b'/') { self.root.clone() } else { start };
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            if name == b"." {
                self.search(&dir)?;
                continue;
            }
            let Some(mut place) = self.step(&dir, name)? else { return Some(Leads::Nowhere) };
            if names.peek().is_some() {
                if place.dentry.kind()? == S_IFLNK {
                    place = match self.follow(&dir, place)? {
                        Leads::To(end) => end,
                        nowhere => return Some(nowhere),
                    };
                }
                if place.dentry.kind()? != S_IFDIR {
                    return Some(Leads::NotDirectory);
                }
            }
            dir = place;
        }
        Some(Leads::To(dir))
    }

    /// One name; none inside if it is missing.
    fn step(&mut self, dir: &Place, name: &[u8]) -> Option<Option<Place>> {
        self.search(dir)?;
        if name == b".." {
            return Some(Some(if dir.same(self.root) { dir.clone() } else { dir.parent() }));
        }
        if name.len() > NAME_MAX {
            return None;
        }
        let dentry = match dir.dentry.child(name) {
            Ok(dentry) => dentry,
            Err(Errno::ENOENT) => return Some(None),
            Err(_) => return None,
        };
        if dentry.kind().is_none() && !dentry.is_mountpoint() {
            return Some(None);
        }
        let place = Place { mount: dir.mount.clone(), dentry };
        Some(Some(if place.dentry.is_mountpoint() { place.cross_down() } else { place }))
    }

    /// To the end of a link in the middle of a path.
    fn follow(&mut self, dir: &Place, link: Place) -> Option<Leads> {
        self.links += 1;
        if self.links > MAX_LINKS || link.mount.has(MountFlags::NOSYMFOLLOW) {
            return None;
        }
        let inode = link.inode().ok()?;
        if inode.follow(self.caller).is_some() {
            return None;
        }
        let text = inode.readlink(self.caller).ok().filter(|text| !text.is_empty())?;
        // At most MAX_LINKS deep.
        let end = match self.walk(dir.clone(), &text)? {
            Leads::To(end) => end,
            nowhere => return Some(nowhere),
        };
        if end.dentry.kind()? == S_IFLNK {
            let above = end.parent();
            return self.follow(&above, end);
        }
        Some(Leads::To(end))
    }

    /// A directory is searched: only one that anybody may search and list, and that tells of changes.
    fn search(&mut self, dir: &Place) -> Option<()> {
        if dir.mount.hides() || dir.dentry.kind()? != S_IFDIR || dir.dentry.is_deleted() {
            return None;
        }
        let inode = dir.dentry.inode_ref()?;
        self.buckets |= dir.dentry.bucket().mark() | inode.names_told()?;
        let anybody = inode.metadata().ok()?.mode & ANYBODY == ANYBODY;
        (anybody && matches!(inode.acl(acl::ACCESS), Ok(None))).then_some(())
    }
}

impl Dentry {
    /// Names in this directory, or who may search it, have changed.
    pub(crate) fn names_changed(&self) {
        self.bucket().changed();
    }
}
