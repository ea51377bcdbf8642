//! The file system instance and what it has used of its limits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use linux_abi::Errno;
use linux_abi::fs::S_IFDIR;
use parking_lot::{Mutex, RwLock};
use vfs::{FileSystem, Inode, NewNode, Result, StatFs};

use crate::inode::TmpInode;
use crate::{Options, PAGE};

/// `TMPFS_MAGIC` of statfs(2).
const MAGIC: u64 = 0x0102_1994;

/// A tmpfs.
pub struct TmpFs {
    usage: Arc<Usage>,
    root: OnceLock<Arc<TmpInode>>,
}

/// Limits and use, which outlive the instance while a file is open.
pub(crate) struct Usage {
    pub(crate) options: RwLock<Options>,
    pages: AtomicU64,
    inodes: AtomicU64,
    next_inode: AtomicU64,
    /// Held over every change of names, so that a rename sees two directories at once.
    pub(crate) tree: Mutex<()>,
    /// The instance, for its inodes.
    pub(crate) instance: OnceLock<Weak<TmpFs>>,
}

impl TmpFs {
    /// An empty one.
    pub fn new(options: Options) -> Arc<TmpFs> {
        let node = NewNode { mode: S_IFDIR | options.mode, uid: options.uid, gid: options.gid, rdev: 0 };
        let usage = Arc::new(Usage {
            options: RwLock::new(options),
            pages: AtomicU64::new(0),
            inodes: AtomicU64::new(1),
            next_inode: AtomicU64::new(1),
            tree: Mutex::new(()),
            instance: OnceLock::new(),
        });
        let fs = Arc::new(TmpFs { usage: Arc::clone(&usage), root: OnceLock::new() });
        let _ = usage.instance.set(Arc::downgrade(&fs));
        let _ = fs.root.set(TmpInode::new(Arc::clone(&usage), &node, None));
        fs
    }

    /// A stand-in for an instance that is gone while a file of it is still in use.
    pub(crate) fn remains(usage: &Arc<Usage>) -> Arc<TmpFs> {
        Arc::new(TmpFs { usage: Arc::clone(usage), root: OnceLock::new() })
    }

    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }
}

impl Usage {
    /// Takes an inode number.
    pub(crate) fn take_inode(&self) -> u64 {
        self.next_inode.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts one more inode; `ENOSPC`.
    pub(crate) fn add_inode(&self) -> Result<()> {
        let limit = self.options.read().inodes.unwrap_or(u64::MAX);
        self.inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < limit).then(|| used + 1))
            .map(drop)
            .map_err(|_| Errno::ENOSPC)
    }

    pub(crate) fn remove_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Pages that may still be used.
    pub(crate) fn free_pages(&self) -> u64 {
        let limit = self.options.read().size.map_or(u64::MAX, |size| size.div_ceil(PAGE));
        limit.saturating_sub(self.pages.load(Ordering::Relaxed))
    }

    /// A file's pages went from `old` to `new`.
    pub(crate) fn account(&self, old: u64, new: u64) {
        if new >= old {
            self.pages.fetch_add(new - old, Ordering::Relaxed);
        } else {
            let less = old - new;
            let _ = self
                .pages
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(less)));
        }
    }
}

impl FileSystem for TmpFs {
    fn type_name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Result<Arc<dyn Inode>> {
        self.root.get().map(|root| Arc::clone(root) as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }

    fn statfs(&self) -> Result<StatFs> {
        let options = self.usage.options.read();
        let blocks = options.size.map_or(0, |size| size.div_ceil(PAGE));
        let files = options.inodes.unwrap_or(0);
        let free = blocks.saturating_sub(self.usage.pages.load(Ordering::Relaxed));
        Ok(StatFs {
            magic: MAGIC,
            block_size: PAGE,
            blocks,
            blocks_free: free,
            blocks_available: free,
            files,
            files_free: files.saturating_sub(self.usage.inodes.load(Ordering::Relaxed)),
            fsid: options.device,
            name_max: linux_abi::fs::NAME_MAX as u64,
        })
    }

    fn options(&self) -> String {
        self.usage.options.read().shown()
    }

    fn remount(&self, data: &[u8]) -> Result<()> {
        let bytes = self.usage.pages.load(Ordering::Relaxed).saturating_mul(PAGE);
        let inodes = self.usage.inodes.load(Ordering::Relaxed);
        let mut options = self.usage.options.write();
        *options = options.remounted(data, bytes, inodes)?;
        Ok(())
    }
}
