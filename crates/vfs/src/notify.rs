//! Who watches files change: the hook of inotify(7).
//!
//! Watches are kept at dentries: the operations of `ops` and open files tell here what happened.
//! A change by another hard link or behind our back is not seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bitflags::bitflags;
use linux_abi::fs::{OpenFlags, S_IFDIR};
use parking_lot::Mutex;

use crate::{Dentry, OpenFile};

bitflags! {
    /// What happened, as in inotify(7). Unknown bits are kept: inotify has more of its own.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Happening: u32 {
        const ACCESS = 0x1;
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        /// Of a directory's entry: its name is gone already (what `IN_EXCL_UNLINK` does not want to see).
        const UNLINKED = 0x400_0000;
        const ISDIR = 0x4000_0000;
        const _ = !0;
    }
}

/// Somebody who watches a dentry. Must not block and not call into file systems.
pub trait Watcher: Send + Sync {
    /// What happened to the watched file, or to the entry `name` of the watched directory. `cookie` joins the two
    /// halves of a rename.
    fn happened(&self, what: Happening, cookie: u32, name: Option<&[u8]>);
}

/// The watchers of one dentry.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<(u64, Arc<dyn Watcher>)>>);

/// How many watches there are: without any, nobody pays more than a look at this.
static WATCHES: AtomicUsize = AtomicUsize::new(0);
static NEXT_COOKIE: AtomicU32 = AtomicU32::new(1);

/// Adds a watcher under an id of its own.
pub fn watch(dentry: &Dentry, id: u64, watcher: Arc<dyn Watcher>) {
    WATCHES.fetch_add(1, Ordering::SeqCst);
    dentry.watchers.get_or_init(Box::default).0.lock().push((id, watcher));
}

/// Takes a watcher away.
pub fn unwatch(dentry: &Dentry, id: u64) {
    let Some(watchers) = dentry.watchers.get() else { return };
    let mut list = watchers.0.lock();
    if let Some(at) = list.iter().position(|(other, _)| *other == id) {
        let gone = list.swap_remove(at);
        drop(list);
        WATCHES.fetch_sub(1, Ordering::SeqCst);
        drop(gone);
    }
}

fn tell(dentry: &Dentry, what: Happening, cookie: u32, name: Option<&[u8]>) {
    let Some(watchers) = dentry.watchers.get() else { return };
    // From a copy: a watcher may take itself away.
    let list: Vec<_> = watchers.0.lock().iter().map(|(_, w)| w.clone()).collect();
    for watcher in list {
        watcher.happened(what, cookie, name);
    }
}

/// Whether anybody watches anything.
pub fn is_watched() -> bool {
    WATCHES.load(Ordering::SeqCst) != 0
}

fn idle() -> bool {
    WATCHES.load(Ordering::Relaxed) == 0
}

fn kind(dentry: &Dentry) -> Happening {
    if dentry.kind() == Some(S_IFDIR) { Happening::ISDIR } else { Happening::empty() }
}

/// Something happened to a file: told to its watchers and to its directory's.
pub fn file(dentry: &Dentry, what: Happening) {
    if idle() {
        return;
    }
    let what = what | kind(dentry);
    // The name is copied only for a directory that is watched.
    if let Some(parent) = dentry.parent().filter(|parent| parent.watchers.get().is_some()) {
        let gone = if dentry.is_deleted() { Happening::UNLINKED } else { Happening::empty() };
        tell(&parent, what | gone, 0, Some(&dentry.name()));
    }
    tell(dentry, what, 0, None);
}

/// A name was made in a directory.
pub(crate) fn created(dentry: &Dentry) {
    if !idle()
        && let (Some(parent), name) = dentry.parent_and_name()
    {
        tell(&parent, Happening::CREATE | kind(dentry), 0, Some(&name));
    }
}

/// A name was removed; `last` if the file went with it.
pub(crate) fn removed(dir: &Dentry, dentry: &Dentry, name: &[u8], last: bool) {
    if idle() {
        return;
    }
    let kind = kind(dentry);
    if kind.is_empty() {
        tell(dentry, Happening::ATTRIB, 0, None);
    }
    if last {
        tell(dentry, Happening::DELETE_SELF, 0, None);
    }
    tell(dir, Happening::DELETE | kind, 0, Some(name));
}

/// A name was moved, over `target` if that was one.
pub(crate) fn moved(
    (from, name): (&Dentry, &[u8]),
    (to, new_name): (&Dentry, &[u8]),
    source: &Dentry,
    target: Option<&Dentry>,
) {
    if idle() {
        return;
    }
    let kind = kind(source);
    let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed).max(1);
    tell(from, Happening::MOVED_FROM | kind, cookie, Some(name));
    tell(to, Happening::MOVED_TO | kind, cookie, Some(new_name));
    if let Some(target) = target {
        tell(target, Happening::ATTRIB, 0, None);
        tell(target, Happening::DELETE_SELF, 0, None);
    }
    tell(source, Happening::MOVE_SELF, 0, None);
}

/// Bytes of an open file were read or written, or its size was set.
pub fn used(open: &OpenFile, what: Happening) {
    if !idle() {
        file(&open.place().dentry, what);
    }
}

/// The last descriptor of an open file was closed.
pub(crate) fn closed(open: &OpenFile) {
    if idle() || open.flags().contains(OpenFlags::PATH) {
        return;
    }
    let writes = open.flags().writable();
    let what = if writes { Happening::CLOSE_WRITE } else { Happening::CLOSE_NOWRITE };
    file(&open.place().dentry, what);
}
