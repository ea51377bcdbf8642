//! Mount namespaces: which mount lies on which place (mount_namespaces(7), pivot_root(2)).
//!
//! A mount points at its namespace weakly; the namespace lives as long as somebody's root does
//! (`kernel::FsContext` holds it). Lock order: the table, then a mount's own locks.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::S_IFDIR;
use parking_lot::RwLock;

use crate::{Dentry, FileSystem, Mount, MountFlags, Place, Propagation, Result, names};

/// The most mounts of all namespaces together, as many as fs.mount-max of Linux lets one have.
const MAX_MOUNTS: usize = 100_000;

/// Mounts that are in a namespace.
static MOUNTS: AtomicUsize = AtomicUsize::new(0);

static NEXT_ID: AtomicU64 = AtomicU64::new(0xf000_0000);
static NEXT_PEER_GROUP: AtomicU64 = AtomicU64::new(1);

/// A mount point as a key: mount id and the dentry's address, which the mount upon it keeps alive.
type Key = (u64, usize);

fn key(place: &Place) -> Key {
    (place.mount.id(), Arc::as_ptr(&place.dentry) as usize)
}

#[derive(Default)]
struct Table {
    mounts: BTreeMap<u64, Arc<Mount>>,
    by_place: HashMap<Key, Weak<Mount>>,
    root: Option<Arc<Mount>>,
}

impl Table {
    fn add(&mut self, mount: &Arc<Mount>) {
        if self.mounts.insert(mount.id(), mount.clone()).is_none() {
            MOUNTS.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn take_out(&mut self, mount: &Mount) {
        if self.mounts.remove(&mount.id()).is_some() {
            MOUNTS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// `ENOSPC` unless there is room for so many more mounts.
fn check_room(more: usize) -> Result<()> {
    let room = MAX_MOUNTS.saturating_sub(MOUNTS.load(Ordering::Relaxed));
    if more <= room { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// The mounts that a set of processes sees.
pub struct MountNamespace {
    id: u64,
    this: Weak<MountNamespace>,
    table: RwLock<Table>,
    /// Counts changes: a poll of /proc/PID/mounts tells that it grew.
    generation: AtomicU64,
}

impl MountNamespace {
    /// A namespace with this file system as its root.
    pub fn new(fs: Arc<dyn FileSystem>) -> Result<Arc<MountNamespace>> {
        let source = fs.type_name();
        MountNamespace::with_root(fs, MountFlags::RELATIME, source.as_bytes())
    }

    /// The same with mount flags and a source for mountinfo.
    pub fn with_root(
        fs: Arc<dyn FileSystem>,
        flags: MountFlags,
        source: &[u8],
    ) -> Result<Arc<MountNamespace>> {
        let root = Dentry::root(fs.root()?);
        Ok(MountNamespace::of(Mount::new(fs, root, flags, source)))
    }

    fn of(root: Arc<Mount>) -> Arc<MountNamespace> {
        let namespace = Arc::new_cyclic(|this| MountNamespace {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            this: this.clone(),
            table: RwLock::default(),
            generation: AtomicU64::new(0),
        });
        root.set_namespace(namespace.this.clone());
        let mut table = namespace.table.write();
        table.add(&root);
        table.root = Some(root);
        drop(table);
        namespace
    }

    /// Its number, as `mnt:[4026531841]` shows it.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The root place.
    pub fn root(&self) -> Result<Place> {
        self.table.read().root.as_ref().map(Mount::root_place).ok_or(Errno::ENOENT)
    }
    /// All mounts by id.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.table.read().mounts.values().cloned().collect()
    }
    /// A number that changes with the mounts.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    /// What is mounted on exactly this place.
    pub fn mounted_at(&self, place: &Place) -> Option<Arc<Mount>> {
        self.table.read().by_place.get(&key(place)).and_then(Weak::upgrade)
    }

    /// Mounts a file system at a place. `EBUSY`, `ENOTDIR`, `ENOSPC`.
    pub fn mount(
        &self,
        fs: Arc<dyn FileSystem>,
        place: &Place,
        flags: MountFlags,
        source: &[u8],
    ) -> Result<Arc<Mount>> {
        let root = Dentry::root(fs.root()?);
        let mount = Mount::new(fs, root, flags, source);
        self.attach(&mount, place)?;
        Ok(mount)
    }

    /// `MS_BIND`: shows the tree at `from` also at `to`; with `recursive` the mounts below it too.
    pub fn bind(&self, from: &Place, to: &Place, recursive: bool) -> Result<Arc<Mount>> {
        // What another namespace shows (reached by /proc/PID/root) or nobody any more is not to be had.
        let ours = self.table.read().mounts.contains_key(&from.mount.id());
        if !ours || from.mount.propagation() == Propagation::Unbindable {
            return Err(Errno::EINVAL);
        }
        let top = from.mount.copy(from.dentry.clone());
        let below = if recursive { self.tree_below(from) } else { Vec::new() };
        check_room(below.len() + 1)?;
        self.attach(&top, to)?;
        let mut copies = HashMap::from([(from.mount.id(), top.clone())]);
        for mount in below {
            let (Some(at), false) = (mount.at(), mount.propagation() == Propagation::Unbindable) else {
                continue;
            };
            let Some(parent) = copies.get(&at.mount.id()).cloned() else { continue };
            let copy = mount.copy(mount.root.clone());
            if let Err(errno) = self.attach(&copy, &Place { mount: parent, dentry: at.dentry }) {
                // Others took the room, or the place went: all or nothing.
                let _ = self.umount(&top, true, 0);
                return Err(errno);
            }
            copies.insert(mount.id(), copy);
        }
        Ok(top)
    }

    /// Mounts below a place, parents first.
    fn tree_below(&self, from: &Place) -> Vec<Arc<Mount>> {
        let mut children: HashMap<u64, Vec<(Arc<Mount>, Place)>> = HashMap::new();
        for mount in self.mounts() {
            if let Some(at) = mount.at() {
                children.entry(at.mount.id()).or_default().push((mount, at));
            }
        }
        let mut found: Vec<Arc<Mount>> = Vec::new();
        let direct = children.remove(&from.mount.id()).unwrap_or_default();
        found.extend(direct.into_iter().filter(|(_, at)| at.dentry.is_within(&from.dentry)).map(|(m, _)| m));
        let mut next = 0;
        while let Some(id) = found.get(next).map(|mount| mount.id()) {
            next += 1;
            found.extend(children.remove(&id).unwrap_or_default().into_iter().map(|(m, _)| m));
        }
        found
    }

    /// Puts a mount that is in no namespace at a place.
    pub fn attach(&self, mount: &Arc<Mount>, place: &Place) -> Result<()> {
        let place = place.clone().cross_down();
        let is_dir = |dentry: &Dentry| -> Result<bool> {
            Ok(dentry.inode().ok_or(Errno::ENOENT)?.metadata()?.kind() == S_IFDIR)
        };
        if is_dir(&mount.root)? != is_dir(&place.dentry)? {
            return Err(Errno::ENOTDIR);
        }
        if place.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let mut table = self.table.write();
        check_room(1)?;
        if !table.mounts.contains_key(&place.mount.id()) {
            return Err(Errno::EINVAL);
        }
        mount.set_namespace(self.this.clone());
        self.insert(&mut table, mount, place);
        Ok(())
    }

    fn insert(&self, table: &mut Table, mount: &Arc<Mount>, at: Place) {
        at.dentry.add_mount();
        table.by_place.insert(key(&at), Arc::downgrade(mount));
        mount.set_at(Some(at));
        table.add(mount);
        self.generation.fetch_add(1, Ordering::AcqRel);
        names::mounts_changed();
    }

    /// Takes a mount off its place; what it was on is given.
    fn remove(&self, table: &mut Table, mount: &Arc<Mount>) -> Option<Place> {
        let at = mount.set_at(None)?;
        table.by_place.remove(&key(&at));
        table.take_out(mount);
        at.dentry.remove_mount();
        self.generation.fetch_add(1, Ordering::AcqRel);
        names::mounts_changed();
        Some(at)
    }

    fn has_children(table: &Table, mount: &Arc<Mount>) -> bool {
        table.mounts.values().any(|m| m.at().is_some_and(|at| Arc::ptr_eq(&at.mount, mount)))
    }

    /// umount2(2): `EBUSY` with mounts below or files open (`holders` references are the caller's own);
    /// `lazy` takes the whole tree off at once, `EINVAL` for what is not mounted here.
    pub fn umount(&self, mount: &Arc<Mount>, lazy: bool, holders: usize) -> Result<()> {
        let removed = {
            let mut table = self.table.write();
            if !table.mounts.contains_key(&mount.id()) || mount.at().is_none() {
                return Err(Errno::EINVAL);
            }
            if lazy {
                drop(table);
                let below = self.tree_below(&mount.root_place());
                table = self.table.write();
                for child in below.iter().rev() {
                    self.remove(&mut table, child);
                }
            } else if MountNamespace::has_children(&table, mount)
                || Arc::strong_count(mount) > holders.saturating_add(1)
            {
                return Err(Errno::EBUSY);
            }
            let at = self.remove(&mut table, mount);
            mount.set_namespace(Weak::new());
            at
        };
        drop(removed);
        crate::dentry_cache::shrink();
        Ok(())
    }

    /// `MS_MOVE`: puts a mount elsewhere. `EINVAL` for a root, `ELOOP` into itself.
    pub fn move_mount(&self, mount: &Arc<Mount>, to: &Place) -> Result<()> {
        let to = to.clone().cross_down();
        // Under the lock: two moves at once could tie a knot.
        let mut table = self.table.write();
        let mut up = Some(to.mount.clone());
        while let Some(at) = up {
            if Arc::ptr_eq(&at, mount) {
                return Err(Errno::ELOOP);
            }
            up = at.at().map(|place| place.mount);
        }
        if !table.mounts.contains_key(&mount.id()) || !table.mounts.contains_key(&to.mount.id()) {
            return Err(Errno::EINVAL);
        }
        let old = self.remove(&mut table, mount).ok_or(Errno::EINVAL)?;
        self.insert(&mut table, mount, to);
        drop(table);
        drop(old);
        Ok(())
    }

    /// `MS_REMOUNT | MS_BIND`: replaces a mount's flags.
    pub fn remount(&self, mount: &Arc<Mount>, flags: MountFlags) -> Result<()> {
        self.set_attributes(mount, MountFlags::all(), flags, false)
    }

    /// mount_setattr(2): clears and then sets flags of a mount, with `recursive` of those below it, too.
    /// `EINVAL` for what is not mounted here.
    pub fn set_attributes(
        &self,
        mount: &Arc<Mount>,
        clear: MountFlags,
        set: MountFlags,
        recursive: bool,
    ) -> Result<()> {
        let all = self.with_below(mount, recursive);
        // Under the lock: two changes at once would lose one.
        let table = self.table.write();
        if !table.mounts.contains_key(&mount.id()) {
            return Err(Errno::EINVAL);
        }
        for mount in &all {
            mount.set_flags((mount.flags() - clear) | set);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        names::mounts_changed();
        Ok(())
    }

    /// A mount, and with `recursive` those below it.
    fn with_below(&self, mount: &Arc<Mount>, recursive: bool) -> Vec<Arc<Mount>> {
        let mut all = if recursive { self.tree_below(&mount.root_place()) } else { Vec::new() };
        all.push(mount.clone());
        all
    }

    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`. The type is kept and shown; events
    /// travel nowhere, since each namespace of a sandbox starts as a private copy.
    pub fn set_propagation(&self, mount: &Arc<Mount>, kind: Propagation, recursive: bool) {
        for mount in self.with_below(mount, recursive) {
            mount.set_propagation(match (kind, mount.propagation()) {
                (Propagation::Shared(_), shared @ Propagation::Shared(_)) => shared,
                (Propagation::Shared(_), _) => {
                    Propagation::Shared(NEXT_PEER_GROUP.fetch_add(1, Ordering::Relaxed))
                }
                (Propagation::Slave(_), Propagation::Shared(group)) => Propagation::Slave(group),
                (Propagation::Slave(_), other) => other,
                (other, _) => other,
            });
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// pivot_root(2): `new_root` becomes the root mount and the old one goes to `put_old` below it.
    /// Both are the tops of their stacks. `EINVAL`, `EBUSY`.
    pub fn pivot_root(&self, new_root: &Place, put_old: &Place) -> Result<()> {
        let old = self.root()?.mount;
        let new = &new_root.mount;
        if !self.table.read().mounts.contains_key(&new.id()) {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(new, &old) || Arc::ptr_eq(&put_old.mount, &old) {
            return Err(Errno::EBUSY);
        }
        if !Arc::ptr_eq(&new_root.dentry, &new.root) || !Arc::ptr_eq(&put_old.mount, new) {
            return Err(Errno::EINVAL);
        }
        let mut table = self.table.write();
        // Taken off meanwhile, it has no place.
        let at = self.remove(&mut table, new).ok_or(Errno::EINVAL)?;
        table.add(new);
        table.root = Some(new.clone());
        // pivot_root(".", ".") stacks the old root over the new one.
        self.insert(&mut table, &old, put_old.clone());
        drop(table);
        drop(at);
        Ok(())
    }

    /// A copy for unshare(CLONE_NEWNS), and the place in it that each given place became.
    pub fn duplicate(&self, places: &mut [Place]) -> Result<Arc<MountNamespace>> {
        let root = self.root()?.mount;
        let below = self.tree_below(&root.root_place());
        check_room(below.len() + 1)?;
        let top = root.copy(root.root.clone());
        let namespace = MountNamespace::of(top.clone());
        let mut copies = HashMap::from([(root.id(), top)]);
        for mount in below {
            let Some(at) = mount.at() else { continue };
            let Some(parent) = copies.get(&at.mount.id()).cloned() else { continue };
            let copy = mount.copy(mount.root.clone());
            copy.set_namespace(namespace.this.clone());
            let mut table = namespace.table.write();
            namespace.insert(&mut table, &copy, Place { mount: parent, dentry: at.dentry });
            drop(table);
            copies.insert(mount.id(), copy);
        }
        for place in places {
            if let Some(mount) = copies.get(&place.mount.id()) {
                place.mount = mount.clone();
            }
        }
        Ok(namespace)
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // Mount points of a dead namespace no longer count.
        let mounts = std::mem::take(&mut self.table.get_mut().mounts);
        MOUNTS.fetch_sub(mounts.len(), Ordering::Relaxed);
        for mount in mounts.values() {
            if let Some(at) = mount.set_at(None) {
                at.dentry.remove_mount();
            }
        }
    }
}
