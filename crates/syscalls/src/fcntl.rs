//! fcntl(2) beyond descriptors and flags: locks, pipe sizes, seals, leases.

use std::sync::Arc;

use linux_abi::Errno;
use vfs::OpenFile;

use crate::{Cx, SysResult};

/// Commands that are not about descriptors and status flags.
pub async fn other(cx: &mut Cx<'_>, file: &Arc<OpenFile>, cmd: u32, arg: u64) -> SysResult {
    let _ = (file, arg);
    cx.kernel().note_missing(&format!("fcntl command {cmd}"));
    Err(Errno::EINVAL.into())
}
