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
use linux_abi::fs::{S_IFDIR, S_IFMT, S_ISGID};

use crate::walk::{Last, Parent};
use crate::{Acl, Caller, Inode, Metadata, NewNode, Place, Result, acl, permission};

/// The name of a parent that creates or removes; the errno says what the call answers for `/`, `.` and `..`.
pub(crate) fn plain_name(parent: &Parent, otherwise: Errno) -> Result<&[u8]> {
    if parent.last == Last::Name { Ok(&parent.name) } else { Err(otherwise) }
}

/// The directory's inode with write and search permission on a writable mount.
pub(crate) fn writable_dir(cred: &Credentials, dir: &Place) -> Result<(Arc<dyn Inode>, Metadata)> {
    let inode = dir.inode()?;
    let meta = inode.metadata()?;
    dir.mount.check_writable()?;
    permission::check_file(cred, &*inode, &meta, permission::WRITE | permission::EXEC)?;
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    Ok((inode, meta))
}

/// The access control lists that a new file gets from its directory.
#[derive(Default)]
pub(crate) struct Inherited {
    access: Option<Acl>,
    default: Option<Acl>,
}

impl Inherited {
    /// Gives them to the file.
    pub(crate) fn give(self, inode: &dyn Inode) -> Result<()> {
        for (name, list) in [(acl::ACCESS, self.access), (acl::DEFAULT, self.default)] {
            if let Some(list) = list {
                inode.set_xattr(name, &list.to_value(), 0)?;
            }
        }
        Ok(())
    }
}

/// Owner and mode of a new file, and what else it gets: of a directory with a default access control list
/// that, else what the umask leaves; in a setgid directory the group comes from it, and so does the bit for
/// directories.
pub(crate) fn new_node(
    caller: &dyn Caller,
    dir: &dyn Inode,
    meta: &Metadata,
    mode: u32,
    rdev: u64,
) -> Result<(NewNode, Inherited)> {
    let mut inherited = Inherited::default();
    let mode = match dir.acl(acl::DEFAULT)? {
        Some(list) => {
            let (mode, access) = list.inherit(mode);
            let default = (mode & S_IFMT == S_IFDIR).then_some(list);
            inherited = Inherited { access, default };
            mode
        }
        None => mode & !caller.umask(),
    };
    Ok((owned_node(caller.credentials(), meta, mode, rdev), inherited))
}

fn owned_node(cred: &Credentials, dir: &Metadata, mode: u32, rdev: u64) -> NewNode {
    let mut node = NewNode { mode, uid: cred.fsuid, gid: cred.fsgid, rdev };
    if dir.mode & S_ISGID != 0 {
        node.gid = dir.gid;
        if mode & S_IFMT == S_IFDIR {
            node.mode |= S_ISGID;
        } else if mode & 0o010 != 0 && !cred.in_group(dir.gid) && !cred.capable(identity::Capability::FSETID)
        {
            node.mode &= !S_ISGID;
        }
    }
    node
}
