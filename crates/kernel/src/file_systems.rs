//! File system types that mount(2) of a guest may make: /proc/filesystems.

use std::collections::BTreeMap;
use std::sync::Arc;

use linux_abi::Errno;
use parking_lot::RwLock;
use vfs::FileSystem;

use crate::Result;

/// Makes an instance from the source and the options (`data`) of mount(2).
pub type MakeFileSystem = Arc<dyn Fn(&[u8], &[u8]) -> Result<Arc<dyn FileSystem>> + Send + Sync>;

/// The types by name.
#[derive(Default)]
pub struct FileSystems {
    types: RwLock<BTreeMap<&'static str, MakeFileSystem>>,
}

impl FileSystems {
    /// Makes a type known.
    pub fn register(&self, name: &'static str, make: MakeFileSystem) {
        self.types.write().insert(name, make);
    }
    /// How a type is made; `ENODEV`.
    pub fn get(&self, name: &[u8]) -> Result<MakeFileSystem> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
        self.types.read().get(name).cloned().ok_or(Errno::ENODEV)
    }
    /// The names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.types.read().keys().copied().collect()
    }
}
