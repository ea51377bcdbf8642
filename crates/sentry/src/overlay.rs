//! A private layer in memory above a read-only tree.

use std::sync::Arc;

use anyhow::Result;
use vfs::FileSystem;

/// The tree with writes kept in memory. Until `fs-overlay` has its code, the tree is read-only: writes are
/// refused, and never reach the host.
pub(crate) fn private(lower: Arc<dyn FileSystem>, _memory: u64, _device: u64) -> Result<Arc<dyn FileSystem>> {
    Ok(lower)
}
