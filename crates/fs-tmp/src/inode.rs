//! The inode of a file in memory.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use linux_abi::time::Timespec;
use parking_lot::{Mutex, RwLock};
use vfs::shown::Shown;
use vfs::{
    Caller, FileOps, FileSystem, Inode, Metadata, NewNode, RenameFlags, Result, SetAttr, SetTime, Writers,
};

use crate::contents::{Contents, Seals};
use crate::directory::{Directory, OpenDirectory};
use crate::file_system::{TmpFs, Usage};
use crate::xattr::Xattrs;
use crate::{PAGE, TmpFile, now, table};

/// Bytes that a directory's size grows by with each entry, as on Linux.
const DIRENT_SIZE: u64 = 20;
/// Seconds after which relatime stores an access time anyway.
const DAY: i64 = 24 * 60 * 60;

/// What changes about a file besides its contents.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) atime: Timespec,
    pub(crate) mtime: Timespec,
    pub(crate) ctime: Timespec,
    /// The access time that the host had when it was asked last, of contents that guests read without a word.
    pub(crate) host_atime: Timespec,
}

impl Attributes {
    /// Whether relatime stores the time of a read.
    fn is_access_due(&self, time: Timespec) -> bool {
        let stale = time.sec.saturating_sub(self.atime.sec) >= DAY;
        self.atime <= self.mtime || self.atime <= self.ctime || stale
    }
}

/// By type.
pub(crate) enum Body {
    Regular(RwLock<Contents>),
    Directory(Mutex<Directory>),
    Symlink(Box<[u8]>),
    /// FIFO, socket, device.
    Special,
}

/// A file in memory.
pub(crate) struct TmpInode {
    this: Weak<TmpInode>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) ino: u64,
    rdev: u64,
    btime: Timespec,
    pub(crate) attributes: Mutex<Attributes>,
    pub(crate) xattrs: Mutex<Option<Box<Xattrs>>>,
    pub(crate) body: Body,
    writers: Writers,
    pub(crate) shown: Shown,
    /// It may be mapped so that its bytes change without a word.
    pub(crate) mapped: AtomicBool,
}

impl TmpInode {
    /// A new one, counted already.
    pub(crate) fn new(usage: Arc<Usage>, node: &NewNode, target: Option<&[u8]>) -> Arc<TmpInode> {
        let time = now();
        let ino = usage.take_inode();
        let (body, nlink) = match node.mode & S_IFMT {
            S_IFDIR => (Body::Directory(Mutex::new(Directory::new())), 2),
            S_IFLNK => (Body::Symlink(target.unwrap_or_default().into()), 1),
            S_IFREG => (Body::Regular(RwLock::new(Contents::new())), 1),
            _ => (Body::Special, 1),
        };
        Arc::new_cyclic(|this| TmpInode {
            this: this.clone(),
            usage,
            ino,
            rdev: node.rdev,
            btime: time,
            attributes: Mutex::new(Attributes {
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                nlink,
                atime: time,
                mtime: time,
                ctime: time,
                host_atime: Timespec::default(),
            }),
            xattrs: Mutex::new(None),
            body,
            writers: Writers::default(),
            shown: Shown::default(),
            mapped: AtomicBool::new(false),
        })
    }

    pub(crate) fn shared(&self) -> Option<Arc<TmpInode>> {
        self.this.upgrade()
    }

    pub(crate) fn weak(&self) -> Weak<TmpInode> {
        self.this.clone()
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(crate) fn mode(&self) -> u32 {
        self.attributes.lock().mode
    }

    /// The contents' lock; `EINVAL` unless a regular file.
    pub(crate) fn contents(&self) -> Result<&RwLock<Contents>> {
        match &self.body {
            Body::Regular(contents) => Ok(contents),
            Body::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Contents changed. Set-id bits are the caller's matter, who knows who writes.
    pub(crate) fn modified(&self) {
        let time = now();
        let mut attributes = self.attributes.lock();
        attributes.mtime = time;
        attributes.ctime = time;
        drop(attributes);
        self.shown.changed();
    }

    /// Metadata changed.
    pub(crate) fn changed(&self) {
        self.attributes.lock().ctime = now();
        self.shown.changed();
    }

    /// Contents were read: the access time as relatime keeps it.
    pub(crate) fn accessed(&self) {
        self.accessed_at(now());
    }

    /// Learns from the host when guests have read without a word.
    pub(crate) fn read_by_guests(&self) {
        let Body::Regular(contents) = &self.body else { return };
        let read = contents.read().read_by_guests();
        let Some(time) = read else { return };
        // Not what was read before the last change. The host's times may be ahead of ours by a tick (Linux 6.13): only that it
        // is another one tells that it was read.
        let mut attributes = self.attributes.lock();
        let is_new = std::mem::replace(&mut attributes.host_atime, time) != time;
        let ctime = attributes.ctime;
        drop(attributes);
        if is_new && time >= ctime {
            self.accessed_at(time);
        }
    }

    /// Guests read its contents without a word from now on.
    pub(crate) fn lent(&self) {
        let Body::Regular(contents) = &self.body else { return };
        if let Some(time) = contents.read().read_by_guests() {
            self.attributes.lock().host_atime = time;
        }
    }

    /// Whether the next read sets the access time, and may be a guest's without a word.
    fn is_accessed_unseen(&self) -> bool {
        let Body::Regular(contents) = &self.body else { return false };
        contents.read().is_lent() && self.attributes.lock().is_access_due(now())
    }

    fn accessed_at(&self, time: Timespec) {
        let mut attributes = self.attributes.lock();
        if attributes.is_access_due(time) && attributes.atime != time {
            attributes.atime = time;
            drop(attributes);
            self.shown.changed();
        }
    }

    /// The host gave or may take a descriptor: see [`table`].
    pub(crate) fn made_memfd(&self) {
        if let Some(this) = self.shared() {
            table::add(&this);
        }
    }

    pub(crate) fn give_back_memfd(&self) -> Option<bool> {
        // Who holds the lock is using the file.
        let Some(mut contents) = self.contents().ok()?.try_write() else { return Some(false) };
        contents.give_back_memfd()
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.usage.remove_inode();
        match &mut self.body {
            Body::Regular(contents) => contents.get_mut().release(&self.usage),
            // Deep trees must not be deep recursion.
            Body::Directory(directory) => {
                let mut left: Vec<Arc<TmpInode>> = directory.get_mut().take().collect();
                while let Some(inode) = left.pop() {
                    if let Some(mut inode) = Arc::into_inner(inode)
                        && let Body::Directory(directory) = &mut inode.body
                    {
                        left.extend(directory.get_mut().take());
                    }
                }
            }
            _ => {}
        }
    }
}

impl Inode for TmpInode {
    fn metadata(&self) -> Result<Metadata> {
        self.read_by_guests();
        let (size, pages) = match &self.body {
            Body::Regular(contents) => {
                let contents = contents.read();
                (contents.size, contents.pages())
            }
            Body::Directory(directory) => (DIRENT_SIZE * (directory.lock().len() as u64 + 2), 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Special => (0, 0),
        };
        let attributes = *self.attributes.lock();
        Ok(Metadata {
            dev: self.usage.options.read().device,
            ino: self.ino,
            nlink: u64::from(attributes.nlink),
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            rdev: self.rdev,
            size,
            block_size: PAGE,
            blocks: pages * (PAGE / 512),
            atime: attributes.atime,
            mtime: attributes.mtime,
            ctime: attributes.ctime,
            btime: Some(self.btime),
        })
    }

    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        // What was read before that is not to count afterwards.
        self.read_by_guests();
        if let Some(size) = attr.size {
            let mut contents = self.contents()?.write();
            contents.truncate(&self.usage, size)?;
            drop(contents);
            self.modified();
        }
        let time = now();
        let at = |set: SetTime| match set {
            SetTime::Now => time,
            SetTime::At(at) => at,
        };
        let sealed = match &self.body {
            Body::Regular(contents) => contents.read().seals.contains(Seals::EXEC),
            _ => false,
        };
        let mut attributes = self.attributes.lock();
        if let Some(mode) = attr.mode {
            if sealed && (attributes.mode ^ mode) & 0o111 != 0 {
                return Err(Errno::EPERM);
            }
            attributes.mode = attributes.mode & S_IFMT | mode & 0o7777;
            self.follow_mode(mode)?;
        }
        attributes.uid = attr.uid.unwrap_or(attributes.uid);
        attributes.gid = attr.gid.unwrap_or(attributes.gid);
        attributes.atime = attr.atime.map_or(attributes.atime, at);
        attributes.mtime = attr.mtime.map_or(attributes.mtime, at);
        attributes.ctime = time;
        drop(attributes);
        self.shown.changed();
        Ok(())
    }
    fn names_told(&self) -> Option<u64> {
        Some(0)
    }
    fn show(&self) -> Option<Metadata> {
        if self.directory().is_ok() {
            return None;
        }
        self.shown.mark();
        if self.mapped.load(Ordering::SeqCst) {
            return None;
        }
        let known = self.metadata().ok();
        known.filter(|_| !self.is_accessed_unseen())
    }

    fn file_system(&self) -> Arc<dyn FileSystem> {
        match self.usage.instance.get().and_then(Weak::upgrade) {
            Some(fs) => fs,
            None => TmpFs::remains(&self.usage),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
    fn writers(&self) -> Option<&Writers> {
        Some(&self.writers)
    }

    fn open(self: Arc<Self>, flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        match &self.body {
            Body::Regular(_) => Ok(Arc::new(TmpFile::new(self))),
            Body::Directory(_) if flags.writable() => Err(Errno::EISDIR),
            Body::Directory(_) => Ok(Arc::new(OpenDirectory::new(self))),
            Body::Symlink(_) => Err(Errno::ELOOP),
            Body::Special => Err(Errno::ENXIO),
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let mode = if node.mode & S_IFMT == 0 { node.mode | S_IFREG } else { node.mode };
        if matches!(mode & S_IFMT, S_IFDIR | S_IFLNK) {
            return Err(Errno::EINVAL);
        }
        Ok(self.add(name, &NewNode { mode, ..*node }, None)?)
    }
    fn mkdir(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        Ok(self.add(name, &NewNode { mode: S_IFDIR | node.mode & 0o7777, ..*node }, None)?)
    }
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        Ok(self.add(name, &NewNode { mode: S_IFLNK | 0o777, ..*node }, Some(target))?)
    }
    fn tmpfile(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        if !self.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        self.usage.add_inode()?;
        let node = NewNode { mode: S_IFREG | node.mode & 0o7777, ..*node };
        let inode = TmpInode::new(Arc::clone(&self.usage), &node, None);
        inode.attributes.lock().nlink = 0;
        Ok(inode)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.add_link(name, target)
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove(name, false)
    }
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove(name, true)
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let new_dir: &TmpInode = new_dir.as_any().downcast_ref().ok_or(Errno::EXDEV)?;
        self.move_entry(name, new_dir, new_name, flags)
    }
    fn readlink(&self, _caller: &mut dyn Caller) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.read_xattr(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.write_xattr(name, value, flags)
    }
    fn acl(&self, attribute: &[u8]) -> Result<Option<vfs::Acl>> {
        self.list(attribute)
    }
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattr_names())
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.drop_xattr(name)
    }
}
