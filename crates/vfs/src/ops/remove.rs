//! unlink(2), rmdir(2).

use linux_abi::Errno;
use linux_abi::fs::S_IFDIR;

use crate::ops::{plain_name, writable_dir};
use crate::walk::{Last, Parent};
use crate::{Caller, Result, notify, permission};

/// unlink(2).
pub fn unlink(caller: &dyn Caller, parent: &Parent) -> Result<()> {
    let name = plain_name(parent, Errno::EISDIR)?;
    let dir = &parent.dir.dentry;
    let dir_inode = parent.dir.inode()?;
    let _changes = dir.lock_changes();
    let dentry = dir.child_locked(&dir_inode, name)?;
    let inode = dentry.inode().ok_or(Errno::ENOENT)?;
    parent.dir.mount.check_writable()?;
    if parent.slash {
        let directory = inode.metadata()?.kind() == S_IFDIR;
        return Err(if directory { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    let (dir_inode, dir_meta) = writable_dir(caller.credentials(), &parent.dir)?;
    let meta = inode.metadata()?;
    permission::check_remove(caller.credentials(), &dir_meta, &meta)?;
    if meta.kind() == S_IFDIR {
        return Err(Errno::EISDIR);
    }
    if dentry.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir_inode.unlink(name)?;
    dir.removed(&dentry);
    notify::removed(dir, &dentry, name, meta.nlink <= 1);
    Ok(())
}

/// rmdir(2).
pub fn rmdir(caller: &dyn Caller, parent: &Parent) -> Result<()> {
    match parent.last {
        Last::Name => {}
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    }
    let name = plain_name(parent, Errno::EBUSY)?;
    let dir = &parent.dir.dentry;
    let dir_inode = parent.dir.inode()?;
    let _changes = dir.lock_changes();
    let dentry = dir.child_locked(&dir_inode, name)?;
    let inode = dentry.inode().ok_or(Errno::ENOENT)?;
    let (dir_inode, dir_meta) = writable_dir(caller.credentials(), &parent.dir)?;
    let meta = inode.metadata()?;
    permission::check_remove(caller.credentials(), &dir_meta, &meta)?;
    if meta.kind() != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if dentry.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    // Nothing may be created in it meanwhile.
    let _inner = dentry.lock_changes();
    dir_inode.rmdir(name)?;
    dir.removed(&dentry);
    notify::removed(dir, &dentry, name, true);
    Ok(())
}
