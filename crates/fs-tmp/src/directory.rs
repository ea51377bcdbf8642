//! Directories: entries with positions that stay, and changes of names.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::{DirentType, NAME_MAX, S_IFCHR};
use vfs::{DirEntry, FileOps, Inode, NewNode, OpenFile, RenameFlags, Result, Whence};

use crate::inode::{Body, TmpInode};

/// Entries by name, and in the order of readdir by position.
pub(crate) struct Directory {
    names: HashMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, (Arc<[u8]>, Arc<TmpInode>)>,
    /// The next entry's position; 0 and 1 are `.` and `..`. Never used twice.
    next: u64,
    parent: Weak<TmpInode>,
    /// It was removed: nothing can be made in it.
    dead: bool,
}

impl Directory {
    pub(crate) fn new() -> Directory {
        Directory {
            names: HashMap::new(),
            entries: BTreeMap::new(),
            next: 2,
            parent: Weak::new(),
            dead: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        self.entries.get(self.names.get(name)?).map(|(_, inode)| inode)
    }

    fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) {
        let name: Arc<[u8]> = name.into();
        self.names.insert(Arc::clone(&name), self.next);
        self.entries.insert(self.next, (name, inode));
        self.next += 1;
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let position = self.names.remove(name)?;
        self.entries.remove(&position).map(|(_, inode)| inode)
    }

    /// All entries, leaving none.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Arc<TmpInode>> + use<> {
        self.names.clear();
        std::mem::take(&mut self.entries).into_values().map(|(_, inode)| inode)
    }

    /// Puts another inode under a name that is there; the position stays.
    fn replace(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        let (_, held) = self.entries.get_mut(self.names.get(name)?)?;
        Some(std::mem::replace(held, inode))
    }
}

impl TmpInode {
    pub(crate) fn directory(&self) -> Result<&parking_lot::Mutex<Directory>> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Arc<TmpInode>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.directory()?.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }

    fn adjust_links(&self, by: i32) {
        let mut attributes = self.attributes.lock();
        attributes.nlink = attributes.nlink.saturating_add_signed(by);
        attributes.ctime = crate::now();
        drop(attributes);
        self.shown.changed();
    }

    /// Makes a new file under a name.
    pub(crate) fn add(&self, name: &[u8], node: &NewNode, target: Option<&[u8]>) -> Result<Arc<TmpInode>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let _tree = self.usage.tree.lock();
        let mut directory = self.directory()?.lock();
        if directory.dead {
            return Err(Errno::ENOENT);
        }
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.usage.add_inode()?;
        let inode = TmpInode::new(Arc::clone(&self.usage), node, target);
        if let Body::Directory(child) = &inode.body {
            child.lock().parent = self.weak();
            self.adjust_links(1);
        }
        directory.insert(name, Arc::clone(&inode));
        drop(directory);
        self.modified();
        Ok(inode)
    }

    pub(crate) fn add_link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let target: &TmpInode = target.as_any().downcast_ref().ok_or(Errno::EXDEV)?;
        if !Arc::ptr_eq(&self.usage, &target.usage) {
            return Err(Errno::EXDEV);
        }
        if target.is_directory() {
            return Err(Errno::EPERM);
        }
        let _tree = self.usage.tree.lock();
        let mut directory = self.directory()?.lock();
        if directory.dead {
            return Err(Errno::ENOENT);
        }
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        directory.insert(name, target.shared().ok_or(Errno::ENOENT)?);
        drop(directory);
        target.adjust_links(1);
        self.modified();
        Ok(())
    }

    /// Removes a name of a directory or of anything else.
    pub(crate) fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        let tree = self.usage.tree.lock();
        let mut directory = self.directory()?.lock();
        let inode = directory.get(name).ok_or(Errno::ENOENT)?;
        match (inode.is_directory(), is_directory) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            _ => inode.bury_if_empty()?,
        }
        let removed = directory.remove(name);
        drop(directory);
        self.lost(removed.as_ref());
        self.modified();
        drop(tree);
        // Perhaps the last holder, which frees the contents.
        drop(removed);
        Ok(())
    }

    /// Marks a directory dead; `ENOTEMPTY`. Other files are left as they are.
    fn bury_if_empty(&self) -> Result<()> {
        if let Body::Directory(directory) = &self.body {
            let mut directory = directory.lock();
            if directory.len() > 0 {
                return Err(Errno::ENOTEMPTY);
            }
            directory.dead = true;
        }
        Ok(())
    }

    /// Link counts after this directory lost an entry for good.
    fn lost(&self, inode: Option<&Arc<TmpInode>>) {
        let Some(inode) = inode else { return };
        if inode.is_directory() {
            inode.adjust_links(-2);
            self.adjust_links(-1);
        } else {
            inode.adjust_links(-1);
        }
    }

    fn parent(&self) -> Option<Arc<TmpInode>> {
        self.directory().ok()?.lock().parent.upgrade()
    }

    /// Whether `other` is this directory or lies below it.
    fn is_above(&self, other: &TmpInode) -> bool {
        if other.ino == self.ino {
            return true;
        }
        let mut at = other.parent();
        while let Some(directory) = at {
            if directory.ino == self.ino {
                return true;
            }
            at = directory.parent();
        }
        false
    }

    /// renameat2(2).
    pub(crate) fn move_entry(
        &self,
        name: &[u8],
        new_dir: &TmpInode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        if new_name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if !Arc::ptr_eq(&self.usage, &new_dir.usage) {
            return Err(Errno::EXDEV);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        if exchange && (whiteout || flags.contains(RenameFlags::NOREPLACE)) {
            return Err(Errno::EINVAL);
        }
        let tree = self.usage.tree.lock();
        let moved = self.find(name)?;
        let target = match new_dir.find(new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if moved.is_directory() && moved.is_above(new_dir) {
            return Err(Errno::EINVAL);
        }
        if new_dir.directory()?.lock().dead {
            return Err(Errno::ENOENT);
        }
        if exchange {
            let target = target.ok_or(Errno::ENOENT)?;
            if target.is_directory() && target.is_above(self) {
                return Err(Errno::EINVAL);
            }
            self.put(name, new_dir, Arc::clone(&target));
            new_dir.put(new_name, self, Arc::clone(&moved));
            target.changed();
        } else {
            let mark = if whiteout { Some(self.whiteout()?) } else { None };
            if let Some(target) = &target {
                if Arc::ptr_eq(target, &moved) {
                    return Ok(());
                }
                match (moved.is_directory(), target.is_directory()) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => target.bury_if_empty()?,
                }
            }
            new_dir.put(new_name, self, Arc::clone(&moved));
            new_dir.lost(target.as_ref());
            let mut directory = self.directory()?.lock();
            match mark {
                Some(mark) => drop(directory.replace(name, mark)),
                None => drop(directory.remove(name)),
            }
            drop(directory);
            drop(tree);
            drop(target);
        }
        self.modified();
        new_dir.modified();
        moved.changed();
        Ok(())
    }

    /// Puts an inode that comes from directory `from` under a name here, new or not.
    fn put(&self, name: &[u8], from: &TmpInode, inode: Arc<TmpInode>) {
        if let Body::Directory(child) = &inode.body {
            child.lock().parent = self.weak();
            from.adjust_links(-1);
            self.adjust_links(1);
        }
        if let Ok(directory) = self.directory() {
            let mut directory = directory.lock();
            if directory.get(name).is_some() {
                drop(directory.replace(name, inode));
            } else {
                directory.insert(name, inode);
            }
        }
    }

    /// The character device 0:0 that hides a name of a lower layer.
    fn whiteout(&self) -> Result<Arc<TmpInode>> {
        self.usage.add_inode()?;
        let node = NewNode { mode: S_IFCHR, uid: 0, gid: 0, rdev: 0 };
        Ok(TmpInode::new(Arc::clone(&self.usage), &node, None))
    }
}

/// An open directory.
pub(crate) struct OpenDirectory(Arc<TmpInode>);

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<TmpInode>) -> OpenDirectory {
        OpenDirectory(inode)
    }
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let next = self.0.directory()?.lock().next;
        match whence {
            Whence::End => next.checked_add_signed(offset).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let directory = self.0.directory()?.lock();
        if directory.dead {
            return Ok(pos);
        }
        let parent = directory.parent.upgrade().map_or(self.0.ino, |parent| parent.ino);
        let dots = [(0, self.0.ino, &b"."[..]), (1, parent, &b".."[..])];
        let mut position = pos;
        for (at, ino, name) in dots {
            if at < pos {
                continue;
            }
            if !sink(DirEntry { ino, next: at + 1, kind: DirentType::Dir, name }) {
                return Ok(position);
            }
            position = at + 1;
        }
        for (&at, (name, inode)) in directory.entries.range(pos.max(2)..) {
            let kind = DirentType::from_mode(inode.mode());
            if !sink(DirEntry { ino: inode.ino, next: at + 1, kind, name }) {
                return Ok(position);
            }
            position = at + 1;
        }
        Ok(position)
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        Ok(())
    }
}
