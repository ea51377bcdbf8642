//! A private layer in memory above a read-only tree.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use fs_overlay::OverlayFs;
use fs_tmp::{Options, TmpFs};
use vfs::FileSystem;

/// The tree with writes kept in memory, of which `memory` bytes are there: half of it is the layer's
/// limit, as with any tmpfs.
pub(crate) fn private(lower: Arc<dyn FileSystem>, memory: u64, device: u64) -> Result<Arc<dyn FileSystem>> {
    let layer = Options { size: Some(memory / 2), device, ..Options::default() };
    let fs = OverlayFs::new(lower, TmpFs::new(layer), device)
        .map_err(|errno| anyhow!("private layer: {errno}"))?;
    Ok(fs)
}
