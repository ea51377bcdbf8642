//! The file system instance: both layers and the inodes that join them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use linux_abi::Errno;
use parking_lot::Mutex;
use vfs::{FileSystem, Inode, Result, StatFs};

use crate::inode::{Names, OverlayInode};

/// `OVERLAYFS_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x794c_7630;

/// Two layers shown as one tree.
pub struct OverlayFs {
    this: Weak<OverlayFs>,
    upper: Arc<dyn FileSystem>,
    /// The device number that its files show.
    device: u64,
    /// The device number of the lower root: files of mounts below it show their own.
    lower_device: u64,
    /// Held over each change of names and each copy up. It comes before every inode's lock.
    pub(crate) changes: Mutex<()>,
    root: OnceLock<Arc<OverlayInode>>,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// By inode number in the upper layer, while it has a name there or below.
    by_upper: HashMap<u64, Arc<OverlayInode>>,
    /// By device and inode number in the lower layer.
    by_lower: HashMap<(u64, u64), Weak<OverlayInode>>,
    /// Lower files that lost some of their names here.
    kept: HashMap<(u64, u64), Arc<OverlayInode>>,
}

impl OverlayFs {
    /// `upper` (empty, writable, nobody else's) above `lower`, which nobody writes through this.
    ///
    /// # Errors
    /// What the roots of the layers answer; `ENOTDIR`.
    pub fn new(
        lower: Arc<dyn FileSystem>,
        upper: Arc<dyn FileSystem>,
        device: u64,
    ) -> Result<Arc<OverlayFs>> {
        let (lower_root, upper_root) = (lower.root()?, upper.root()?);
        let metadata = lower_root.metadata()?;
        if metadata.kind() != linux_abi::fs::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        // The upper root is what the lower one is.
        let attr = vfs::SetAttr {
            mode: Some(metadata.mode & 0o7777),
            uid: Some(metadata.uid),
            gid: Some(metadata.gid),
            ..vfs::SetAttr::default()
        };
        upper_root.set_attributes(&attr)?;
        let upper_ino = upper_root.metadata()?.ino;
        let fs = Arc::new_cyclic(|this| OverlayFs {
            this: this.clone(),
            upper,
            device,
            lower_device: metadata.dev,
            changes: Mutex::new(()),
            root: OnceLock::new(),
            tables: Mutex::default(),
        });
        let root = OverlayInode::new(
            &fs,
            (device, metadata.ino),
            metadata.kind(),
            Some(upper_root),
            Some(lower_root),
            Names::Root,
        );
        fs.tables.lock().by_upper.insert(upper_ino, Arc::clone(&root));
        let _ = fs.root.set(root);
        Ok(fs)
    }

    pub(crate) fn weak(&self) -> Weak<OverlayFs> {
        self.this.clone()
    }

    /// The upper root, in which unnamed files are made.
    pub(crate) fn upper_root(&self) -> Result<Arc<dyn Inode>> {
        self.upper.root()
    }

    /// Device and inode number to show for a file of the lower layer.
    fn shown_lower(&self, dev: u64, ino: u64) -> (u64, u64) {
        (if dev == self.lower_device { self.device } else { dev }, ino)
    }

    /// Device and inode number to show for a file made in the upper layer. The numbers of the lower
    /// layer are the host's and small, so these lie far above.
    fn shown_upper(&self, ino: u64) -> (u64, u64) {
        (self.device, ino | 1 << 52)
    }

    /// The joined inode of a lower file, found under a name.
    pub(crate) fn join_lower(&self, lower: Arc<dyn Inode>, names: Names) -> Result<Arc<OverlayInode>> {
        let metadata = lower.metadata()?;
        let key = (metadata.dev, metadata.ino);
        let mut tables = self.tables.lock();
        let known = tables.by_lower.get(&key).and_then(Weak::upgrade);
        if let Some(inode) = known.as_ref().filter(|inode| inode.kind() == metadata.kind()) {
            let inode = Arc::clone(inode);
            drop(tables);
            inode.found_again(names);
            return Ok(inode);
        }
        let shown = self.shown_lower(metadata.dev, metadata.ino);
        let fs = self.this.upgrade().ok_or(Errno::EIO)?;
        let inode = OverlayInode::new(&fs, shown, metadata.kind(), None, Some(lower), names);
        inode.set_lower_names(metadata.nlink);
        tables.by_lower.insert(key, Arc::downgrade(&inode));
        if tables.by_lower.len().is_power_of_two() {
            tables.by_lower.retain(|_, inode| inode.strong_count() > 0);
        }
        drop(tables);
        Ok(inode)
    }

    /// The joined inode of an upper file.
    pub(crate) fn join_upper(&self, upper: Arc<dyn Inode>, names: Names) -> Result<Arc<OverlayInode>> {
        let metadata = upper.metadata()?;
        if let Some(inode) = self.tables.lock().by_upper.get(&metadata.ino) {
            return Ok(Arc::clone(inode));
        }
        let fs = self.this.upgrade().ok_or(Errno::EIO)?;
        let shown = self.shown_upper(metadata.ino);
        let inode = OverlayInode::new(&fs, shown, metadata.kind(), Some(upper), None, names);
        self.tables.lock().by_upper.insert(metadata.ino, Arc::clone(&inode));
        Ok(inode)
    }

    /// The inode number that a directory listing shows for an upper file.
    pub(crate) fn shown_ino(&self, upper_ino: u64) -> u64 {
        match self.tables.lock().by_upper.get(&upper_ino) {
            Some(inode) => inode.shown().1,
            None => self.shown_upper(upper_ino).1,
        }
    }

    /// A file has an upper inode from now on.
    pub(crate) fn copied_up(&self, upper_ino: u64, inode: &OverlayInode) {
        if let Some(inode) = inode.shared() {
            self.tables.lock().by_upper.insert(upper_ino, inode);
        }
    }

    /// Remembers a lower file that lost a name and has others, or forgets it.
    pub(crate) fn keep_lower(&self, inode: &OverlayInode, keep: bool) {
        let (Some(lower), Some(shared)) = (inode.lower(), inode.shared()) else { return };
        let Ok(metadata) = lower.metadata() else { return };
        let key = (metadata.dev, metadata.ino);
        let mut tables = self.tables.lock();
        if keep {
            tables.kept.insert(key, shared);
        } else {
            // `shared` outlives the lock.
            tables.kept.remove(&key);
        }
    }

    /// A file lost its last name: nobody will look it up again.
    pub(crate) fn forget_upper(&self, upper_ino: u64) {
        let forgotten = self.tables.lock().by_upper.remove(&upper_ino);
        // Outside the lock: it may be the last holder of much.
        drop(forgotten);
    }
}

impl FileSystem for OverlayFs {
    fn type_name(&self) -> &'static str {
        "overlay"
    }
    fn root(&self) -> Result<Arc<dyn Inode>> {
        self.root.get().map(|root| Arc::clone(root) as Arc<dyn Inode>).ok_or(Errno::EIO)
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: MAGIC, ..self.upper.statfs()? })
    }
    fn sync(&self) -> Result<()> {
        self.upper.sync()
    }
}
