//! Mounts.

use std::sync::Arc;

use crate::{Dentry, FileSystem};

/// A file system's tree (or a part of it) at a place of the name space.
pub struct Mount {
    /// The file system.
    pub file_system: Arc<dyn FileSystem>,
    /// The root of what is mounted.
    pub root: Arc<Dentry>,
}
