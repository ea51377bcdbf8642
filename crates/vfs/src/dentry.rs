//! Names in a tree: dentries, and a place (mount and dentry).
//!
//! Children point up with strong references, parents down with weak ones; what keeps an unused entry
//! alive is the bounded cache in `dentry_cache`. Lock order: `changes` of a directory (two of them by
//! address, parents first for rename), then `children`, then `link`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use linux_abi::Errno;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::{Inode, Result, dentry_cache, mount::Mount};

/// Parent and name, which change together at rename.
struct Link {
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
}

/// A name in a directory with the inode behind it, or none (a negative entry).
pub struct Dentry {
    link: RwLock<Link>,
    /// The inode and its type bits, set once: a removed name keeps them.
    inode: OnceLock<(Arc<dyn Inode>, u32)>,
    /// Cached children by name.
    children: Mutex<HashMap<Box<[u8]>, Weak<Dentry>>>,
    /// Held over a look-up that missed and over each change of the directory.
    changes: Mutex<()>,
    deleted: AtomicBool,
    /// How many mounts are on it, in any namespace.
    mounts: AtomicU32,
    /// Who watches it, once somebody did.
    pub(crate) watchers: OnceLock<Box<crate::notify::Watchers>>,
    /// Used since the cache last looked at it.
    pub(crate) used: AtomicBool,
    /// What was told of its names.
    told: crate::names::Bucket,
    /// Its position in the cache plus one, 0 if it is not there; changes under the cache's lock.
    pub(crate) slot: AtomicU32,
}

impl Dentry {
    fn new(parent: Option<Arc<Dentry>>, name: &[u8], inode: Option<Arc<dyn Inode>>) -> Arc<Dentry> {
        Arc::new(Dentry {
            link: RwLock::new(Link { parent, name: name.into() }),
            inode: inode.map_or_else(OnceLock::new, |inode| OnceLock::from(with_kind(inode))),
            children: Mutex::new(HashMap::new()),
            changes: Mutex::new(()),
            deleted: AtomicBool::new(false),
            mounts: AtomicU32::new(0),
            watchers: OnceLock::new(),
            used: AtomicBool::new(true),
            told: crate::names::Bucket::default(),
            slot: AtomicU32::new(0),
        })
    }

    /// The root of a tree.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::detached(b"/", inode)
    }

    /// A nameless dentry of a pipe, socket and the like; `name` is what /proc/PID/fd shows, such as `pipe:[7]`.
    pub fn detached(name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(None, name, Some(inode))
    }

    /// An unnamed file (`O_TMPFILE`) in a directory: known as deleted from the start.
    pub fn unnamed(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let dentry = Dentry::new(Some(parent.clone()), name, Some(inode));
        dentry.deleted.store(true, Ordering::Release);
        dentry
    }

    /// The inode, none for a negative entry.
    pub fn inode(&self) -> Option<Arc<dyn Inode>> {
        self.inode_ref().cloned()
    }
    /// The same without taking a share.
    pub fn inode_ref(&self) -> Option<&Arc<dyn Inode>> {
        self.inode.get().map(|(inode, _)| inode)
    }
    /// The type bits of its inode (`S_IF*`), none for a negative entry.
    pub fn kind(&self) -> Option<u32> {
        self.inode.get().map(|(_, kind)| *kind)
    }
    /// The parent, none for a root.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.link.read().parent.clone()
    }
    /// The last component.
    pub fn name(&self) -> Box<[u8]> {
        self.link.read().name.clone()
    }
    /// Parent and name, taken together.
    pub fn parent_and_name(&self) -> (Option<Arc<Dentry>>, Box<[u8]>) {
        let link = self.link.read();
        (link.parent.clone(), link.name.clone())
    }
    /// Whether the name has been removed.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
    /// Whether something is mounted on it in some namespace.
    pub fn is_mountpoint(&self) -> bool {
        self.mounts.load(Ordering::Acquire) > 0
    }
    pub(crate) fn add_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }
    pub(crate) fn remove_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
    }
    /// Whether `self` is `other` or below it.
    pub fn is_within(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// What was told of its names.
    pub(crate) fn bucket(&self) -> &crate::names::Bucket {
        &self.told
    }

    /// Locks the directory for a change of its entries.
    pub fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock()
    }

    /// The entry of a name, negative if there is none. `ENOTDIR`, and what the file system answers.
    pub fn child(self: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
        let dir = self.inode_ref().ok_or(Errno::ENOENT)?;
        if let Some(child) = self.valid_child(dir, name) {
            return Ok(child);
        }
        let _changes = self.changes.lock();
        self.child_locked(dir, name)
    }

    /// The same, for who holds `lock_changes`.
    pub fn child_locked(self: &Arc<Dentry>, dir: &Arc<dyn Inode>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(child) = self.valid_child(dir, name) {
            return Ok(child);
        }
        if self.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let inode = match dir.lookup(name) {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) => None,
            Err(err) => return Err(err),
        };
        let child = Dentry::new(Some(self.clone()), name, inode);
        self.children.lock().insert(name.into(), Arc::downgrade(&child));
        if dir.keeps_dentries() {
            dentry_cache::touch(&child);
        }
        Ok(child)
    }

    /// The cached entry of a name, if it still holds.
    fn valid_child(&self, dir: &Arc<dyn Inode>, name: &[u8]) -> Option<Arc<Dentry>> {
        let child = self.cached_child(name)?;
        // What is mounted on stays reachable whatever becomes of the name behind it.
        if !child.is_mountpoint() && !dir.revalidate(name, child.inode_ref()) {
            self.forget(name, &child);
            return None;
        }
        if dir.keeps_dentries() {
            dentry_cache::touch(&child);
        }
        Some(child)
    }

    fn cached_child(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        self.children.lock().get(name).and_then(Weak::upgrade)
    }

    /// Takes an entry out of the directory; who still holds it sees it as deleted.
    fn forget(&self, name: &[u8], child: &Arc<Dentry>) {
        let mut children = self.children.lock();
        if children.get(name).is_some_and(|weak| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(child))) {
            children.remove(name);
        }
        drop(children);
        child.deleted.store(true, Ordering::Release);
        self.names_changed();
        // Who walks on from it, by its name, no longer may.
        child.names_changed();
        dentry_cache::remove(child);
    }

    /// A negative entry became a file; the directory's changes are locked.
    pub fn instantiate(&self, inode: Arc<dyn Inode>) {
        let _ = self.inode.set(with_kind(inode));
        if let Some(parent) = self.parent() {
            parent.names_changed();
        }
    }

    /// An entry was removed from this directory, whose changes are locked.
    pub fn removed(&self, child: &Arc<Dentry>) {
        let name = child.name();
        self.forget(&name, child);
    }

    /// An entry moved; the changes of both directories are locked. What was at the new name is deleted.
    pub fn moved(self: &Arc<Dentry>, child: &Arc<Dentry>, new_dir: &Arc<Dentry>, new_name: &[u8]) {
        let old_name = child.name();
        if let Some(target) = new_dir.cached_child(new_name) {
            new_dir.forget(new_name, &target);
        }
        self.children.lock().remove(&old_name);
        *child.link.write() = Link { parent: Some(new_dir.clone()), name: new_name.into() };
        new_dir.children.lock().insert(new_name.into(), Arc::downgrade(child));
        self.names_changed();
        new_dir.names_changed();
    }

    /// Two entries changed places; the changes of both directories are locked.
    pub fn exchanged(a: &Arc<Dentry>, b: &Arc<Dentry>) {
        let ((Some(a_dir), a_name), (Some(b_dir), b_name)) = (a.parent_and_name(), b.parent_and_name())
        else {
            return;
        };
        a_dir.children.lock().insert(a_name.clone(), Arc::downgrade(b));
        b_dir.children.lock().insert(b_name.clone(), Arc::downgrade(a));
        *a.link.write() = Link { parent: Some(b_dir.clone()), name: b_name };
        *b.link.write() = Link { parent: Some(a_dir.clone()), name: a_name };
        a_dir.names_changed();
        b_dir.names_changed();
    }

    /// Drops the cached entry of a name (its file system knows that it changed behind our back).
    pub fn invalidate(&self, name: &[u8]) {
        if let Some(child) = self.cached_child(name) {
            self.forget(name, &child);
        }
    }

    /// Removes the parent's weak reference and gives the parent itself.
    fn take_parent(&mut self) -> Option<Arc<Dentry>> {
        let link = self.link.get_mut();
        let parent = link.parent.take()?;
        let mut children = parent.children.lock();
        if children.get(&link.name).is_some_and(|weak| weak.strong_count() == 0) {
            children.remove(&link.name);
        }
        drop(children);
        Some(parent)
    }
}

/// What fails to tell its type is no directory and no link: its own calls say why.
fn with_kind(inode: Arc<dyn Inode>) -> (Arc<dyn Inode>, u32) {
    let kind = match inode.kind() {
        Ok(kind) if kind != 0 => kind,
        _ => linux_abi::fs::S_IFMT,
    };
    (inode, kind)
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // A loop, since the guest decides how deep a tree is and the stack has an end.
        let mut next = self.take_parent();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.take_parent());
        }
    }
}

/// A place in the name space: which mount, which dentry.
#[derive(Clone)]
pub struct Place {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry within its tree.
    pub dentry: Arc<Dentry>,
}

impl Place {
    /// The inode; `ENOENT` for a negative entry.
    pub fn inode(&self) -> Result<Arc<dyn Inode>> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }
    /// Whether both are the same dentry of the same mount.
    pub fn same(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}
