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

impl Mount {
    /// A mount that is in no namespace: of anonymous files and of trees not yet attached.
    pub fn detached(file_system: Arc<dyn FileSystem>, root: Arc<Dentry>) -> Arc<Mount> {
        Arc::new(Mount { file_system, root })
    }

    /// The pseudo mount of anonymous files.
    pub fn anonymous() -> Arc<Mount> {
        crate::anonymous::mount()
    }
}
