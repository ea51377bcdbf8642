//! A mounted file system instance (superblock).

use std::any::Any;
use std::sync::Arc;

use linux_abi::Errno;

use crate::{Inode, Result};

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields of statfs(2)")]
pub struct StatFs {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub fsid: u64,
    pub name_max: u64,
}

/// One instance of a file system.
pub trait FileSystem: Any + Send + Sync {
    /// The type as in /proc/filesystems, such as `tmpfs`.
    fn type_name(&self) -> &'static str;
    /// The root directory.
    fn root(&self) -> Result<Arc<dyn Inode>>;
    /// statfs(2).
    fn statfs(&self) -> Result<StatFs>;
    /// Options of this instance as /proc/self/mountinfo shows them after `rw,`; may be empty.
    fn options(&self) -> String {
        String::new()
    }
    /// Whether it shows some files to some callers only: [`Inode::show_to`] is asked on the way to each.
    fn hides(&self) -> bool {
        false
    }
    /// `MS_REMOUNT` of mount(2) with these options.
    ///
    /// # Errors
    /// `EINVAL` for options that it does not have, or cannot change: all but those that are shown already.
    fn remount(&self, data: &[u8]) -> Result<()> {
        let shown = self.options();
        let mut options = data.split(|&b| b == b',').filter(|option| !option.is_empty());
        let known = |option: &[u8]| shown.split(',').any(|shown| shown.as_bytes() == option);
        if options.all(known) { Ok(()) } else { Err(Errno::EINVAL) }
    }
    /// syncfs(2).
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
