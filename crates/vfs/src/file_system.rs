//! A mounted file system instance (superblock).

use std::any::Any;
use std::sync::Arc;

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
    /// syncfs(2).
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
