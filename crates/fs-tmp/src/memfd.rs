//! memfd_create(2).

use std::sync::{Arc, OnceLock};

use linux_abi::Errno;
use linux_abi::fs::S_IFREG;
use vfs::{FileOps, Inode, NewNode, Result};

use crate::contents::Seals;
use crate::file::parts;
use crate::inode::TmpInode;
use crate::{Options, TmpFs};

const CLOEXEC: u32 = 1;
const ALLOW_SEALING: u32 = 2;
const HUGETLB: u32 = 4;
const NOEXEC_SEAL: u32 = 8;
const EXEC: u32 = 16;
/// Longest name, so that `memfd:NAME` is one component.
const LONGEST: usize = 249;

/// The instance that memfds belong to; it has no limit but the sandbox's memory.
fn instance() -> &'static Arc<TmpFs> {
    static INSTANCE: OnceLock<Arc<TmpFs>> = OnceLock::new();
    INSTANCE.get_or_init(|| TmpFs::new(Options { device: 1, ..Options::default() }))
}

/// An anonymous file and its operations, with the caller's ids; the caller shows it as
/// `/memfd:NAME (deleted)`.
///
/// # Errors
/// `EINVAL` for unknown flags or too long a name; `ENOSYS` for huge pages, as on a Linux without them.
pub fn memfd(name: &[u8], flags: u32, uid: u32, gid: u32) -> Result<(Arc<dyn Inode>, Arc<dyn FileOps>)> {
    if flags & HUGETLB != 0 {
        return Err(Errno::ENOSYS);
    }
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0
        || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC
        || name.len() > LONGEST
    {
        return Err(Errno::EINVAL);
    }
    let permissions = if flags & NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let usage = instance().usage();
    usage.add_inode()?;
    let node = NewNode { mode: S_IFREG | permissions, uid, gid, rdev: 0 };
    let inode = TmpInode::new(Arc::clone(usage), &node, None);
    inode.attributes.lock().nlink = 0;
    inode.contents()?.write().seals = match flags & (NOEXEC_SEAL | ALLOW_SEALING) {
        0 => Seals::SEAL,
        ALLOW_SEALING => Seals::empty(),
        _ => Seals::EXEC,
    };
    Ok(parts(inode))
}
