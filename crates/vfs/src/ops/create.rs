//! mkdir(2), mknod(2), symlink(2), link(2).

use std::sync::Arc;

use identity::Capability;
use linux_abi::Errno;
use linux_abi::fs::{PATH_MAX, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use crate::ops::{new_node, owned_node, plain_name, writable_dir};
use crate::walk::Parent;
use crate::{Caller, Inode, Metadata, Place, Result, notify, permission};

/// Makes an entry under the directory's lock by `make`; `EEXIST` if the name is taken. Slashes may only
/// follow the name of a new `directory`. `before` is asked before permission.
fn make_entry(
    caller: &dyn Caller,
    parent: &Parent,
    directory: bool,
    before: impl FnOnce() -> Result<()>,
    make: impl FnOnce(&Arc<dyn Inode>, &Metadata, &[u8]) -> Result<Arc<dyn Inode>>,
) -> Result<Place> {
    let name = plain_name(parent, Errno::EEXIST)?;
    let dir = &parent.dir.dentry;
    let dir_inode = parent.dir.inode()?;
    let _changes = dir.lock_changes();
    let dentry = dir.child_locked(&dir_inode, name)?;
    if dentry.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if parent.slash && !directory {
        return Err(Errno::ENOENT);
    }
    parent.dir.mount.check_writable()?;
    before()?;
    let (inode, meta) = writable_dir(caller.credentials(), &parent.dir)?;
    match make(&inode, &meta, name) {
        Ok(child) => dentry.instantiate(child),
        Err(err) => {
            if err == Errno::EEXIST {
                dir.invalidate(name);
            }
            return Err(err);
        }
    }
    notify::created(&dentry);
    Ok(Place { mount: parent.dir.mount.clone(), dentry })
}

/// mkdir(2).
pub fn mkdir(caller: &dyn Caller, parent: &Parent, mode: u32) -> Result<Place> {
    make_entry(
        caller,
        parent,
        true,
        || Ok(()),
        |dir, meta, name| {
            let (node, inherited) = new_node(caller, &**dir, meta, S_IFDIR | (mode & 0o1777), 0)?;
            let made = dir.mkdir(name, &node)?;
            inherited.give(&*made)?;
            Ok(made)
        },
    )
}

/// mknod(2); `mode` has type (0 is a regular file) and permissions.
pub fn mknod(caller: &dyn Caller, parent: &Parent, mode: u32, rdev: u64) -> Result<Place> {
    let kind = match mode & S_IFMT {
        0 => S_IFREG,
        kind @ (S_IFREG | S_IFIFO) => kind,
        S_IFSOCK => return socket(caller, parent, mode, 0),
        // A whiteout is a device that holds nothing: everybody may make one.
        S_IFCHR if rdev == 0 => S_IFCHR,
        kind @ (S_IFCHR | S_IFBLK) if caller.credentials().capable(Capability::MKNOD) => kind,
        S_IFCHR | S_IFBLK | S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make_node(caller, parent, kind | (mode & 0o7777), rdev)
}

/// The socket file of bind(2). `kind` is the type (`SOCK_*`) of the host's socket to be bound there, where the directory
/// says that it binds such ([`crate::Inode::binds_outside`]), else 0.
pub fn socket(caller: &dyn Caller, parent: &Parent, mode: u32, kind: u32) -> Result<Place> {
    make_node(caller, parent, S_IFSOCK | (mode & 0o7777), kind.into())
}

fn make_node(caller: &dyn Caller, parent: &Parent, mode: u32, rdev: u64) -> Result<Place> {
    make_entry(
        caller,
        parent,
        false,
        || Ok(()),
        |dir, meta, name| {
            let (node, inherited) = new_node(caller, &**dir, meta, mode, rdev)?;
            let made = dir.create(name, &node)?;
            inherited.give(&*made)?;
            Ok(made)
        },
    )
}

/// symlink(2).
pub fn symlink(caller: &dyn Caller, parent: &Parent, target: &[u8]) -> Result<Place> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let cred = caller.credentials();
    make_entry(
        caller,
        parent,
        false,
        || Ok(()),
        |dir, meta, name| dir.symlink(name, target, &owned_node(cred, meta, S_IFLNK | 0o777, 0)),
    )
}

/// link(2): a new name for what is at `old`.
pub fn link(caller: &dyn Caller, old: &Place, parent: &Parent) -> Result<Place> {
    let inode = old.inode()?;
    let meta = inode.metadata()?;
    let cred = caller.credentials();
    let before = || {
        if old.mount.id() != parent.dir.mount.id() {
            return Err(Errno::EXDEV);
        }
        // fs.protected_hardlinks (1): only one's own, or what one may read and write and is no privileged
        // program.
        let plain = meta.kind() == S_IFREG
            && !permission::is_set_id(&meta)
            && permission::check_file(cred, &*inode, &meta, permission::READ | permission::WRITE).is_ok();
        if plain || permission::is_owner(cred, &meta) { Ok(()) } else { Err(Errno::EPERM) }
    };
    make_entry(caller, parent, false, before, |dir, _, name| {
        if meta.kind() == S_IFDIR {
            return Err(Errno::EPERM);
        }
        dir.link(name, &inode)?;
        Ok(inode.clone())
    })
}
