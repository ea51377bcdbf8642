//! What the path calls do, with their checks: permission, read-only mounts, sticky and setgid directories.
//!
//! The walk has found the place (or the directory and last name); the inode only stores and finds.

pub mod attributes;
pub mod create;
pub mod open;
pub mod remove;
pub mod rename;
pub mod xattr;

use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_ISGID};

use crate::walk::{Last, Parent};
use crate::{Inode, Metadata, NewNode, Place, Result, permission};

/// The name of a parent that creates or removes; the errno says what the call answers for `/`, `.` and `..`.
pub(crate) fn plain_name(parent: &Parent, otherwise: Errno) -> Result<&[u8]> {
    if parent.last == Last::Name { Ok(&parent.name) } else { Err(otherwise) }
}

/// The directory's inode with write and search permission on a writable mount.
pub(crate) fn writable_dir(cred: &Credentials, dir: &Place) -> Result<(Arc<dyn Inode>, Metadata)> {
    let inode = dir.inode()?;
    let meta = inode.metadata()?;
    dir.mount.check_writable()?;
    permission::check(cred, &meta, permission::WRITE | permission::EXEC)?;
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    Ok((inode, meta))
}

/// Owner and mode of a new file: in a setgid directory the group comes from it, and so does the bit for
/// directories; the umask has been taken off.
pub(crate) fn new_node(cred: &Credentials, dir: &Metadata, mode: u32, rdev: u64) -> NewNode {
    let mut node = NewNode { mode, uid: cred.fsuid, gid: cred.fsgid, rdev };
    if dir.mode & S_ISGID != 0 {
        node.gid = dir.gid;
        if mode & linux_abi::fs::S_IFMT == S_IFDIR {
            node.mode |= S_ISGID;
        } else if mode & 0o010 != 0 && !cred.in_group(dir.gid) && !cred.capable(identity::Capability::FSETID)
        {
            node.mode &= !S_ISGID;
        }
    }
    node
}
