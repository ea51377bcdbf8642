//! renameat2(2).

use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::fs::S_IFDIR;
use parking_lot::Mutex;

use crate::ops::{plain_name, writable_dir};
use crate::walk::Parent;
use crate::{Caller, Dentry, Metadata, RenameFlags, Result, notify, permission};

/// One rename between directories at a time: otherwise two could tie a knot.
static ACROSS: Mutex<()> = Mutex::new(());

/// renameat2(2).
pub fn rename(caller: &dyn Caller, from: &Parent, to: &Parent, flags: RenameFlags) -> Result<()> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let taken = if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY };
    if from.dir.mount.id() != to.dir.mount.id() {
        return Err(Errno::EXDEV);
    }
    let name = plain_name(from, Errno::EBUSY)?;
    let new_name = plain_name(to, taken)?;
    let (dir, new_dir) = (&from.dir.dentry, &to.dir.dentry);
    let same_dir = Arc::ptr_eq(dir, new_dir);
    let _across = (!same_dir).then(|| ACROSS.lock());
    // Ancestors first, else by address; a rename across directories holds ACROSS, so that the order of two
    // unrelated directories matters to nobody else who takes two locks but rmdir, which goes downwards.
    let (_a, _b) = if same_dir {
        (dir.lock_changes(), None)
    } else if new_dir.is_within(dir) || !dir.is_within(new_dir) {
        let first = dir.lock_changes();
        (first, Some(new_dir.lock_changes()))
    } else {
        let first = new_dir.lock_changes();
        (first, Some(dir.lock_changes()))
    };
    let source = dir.child_locked(&from.dir.inode()?, name)?;
    let inode = source.inode().ok_or(Errno::ENOENT)?;
    let meta = inode.metadata()?;
    let target = new_dir.child_locked(&to.dir.inode()?, new_name)?;
    let target_meta = target.inode().map(|inode| inode.metadata()).transpose()?;
    let cred = caller.credentials();

    if flags.contains(RenameFlags::NOREPLACE) && target_meta.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange && target_meta.is_none() {
        return Err(Errno::ENOENT);
    }
    let is_dir = meta.kind() == S_IFDIR;
    if !is_dir && (from.slash || (to.slash && !exchange)) {
        return Err(Errno::ENOTDIR);
    }
    if exchange && to.slash && target_meta.is_some_and(|target| target.kind() != S_IFDIR) {
        return Err(Errno::ENOTDIR);
    }
    // A directory never goes below itself, nor over what it lies in.
    if is_dir && new_dir.is_within(&source) {
        return Err(Errno::EINVAL);
    }
    if target_meta.is_some() && dir.is_within(&target) {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    let same_file = target_meta.is_some_and(|t| (t.dev, t.ino) == (meta.dev, meta.ino));
    from.dir.mount.check_writable()?;
    // Two names of one file: nothing to do, so that nothing is asked.
    if Arc::ptr_eq(&source, &target) || same_file {
        return Ok(());
    }
    let (dir_inode, dir_meta) = writable_dir(cred, &from.dir)?;
    permission::check_remove(cred, &dir_meta, &meta)?;
    let (new_inode, new_meta) = writable_dir(cred, &to.dir)?;
    if let Some(target_meta) = &target_meta {
        check_target(cred, &new_meta, &meta, target_meta, exchange)?;
    }
    if is_dir && !same_dir {
        // Its `..` changes.
        permission::check_file(cred, &*inode, &meta, permission::WRITE)?;
    }
    if let (Some(target_meta), Some(other)) = (target_meta, target.inode())
        && exchange
        && target_meta.kind() == S_IFDIR
        && !same_dir
    {
        permission::check_file(cred, &*other, &target_meta, permission::WRITE)?;
    }
    if source.is_mountpoint() || target.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir_inode.rename(name, &new_inode, new_name, flags)?;
    finish(dir, new_dir, &source, &target, new_name, exchange);
    let over = (!exchange && target_meta.is_some()).then_some(&*target);
    notify::moved((dir, name), (new_dir, new_name), &source, over);
    if exchange {
        notify::moved((new_dir, new_name), (dir, name), &target, None);
    }
    Ok(())
}

fn check_target(
    cred: &Credentials,
    dir: &Metadata,
    source: &Metadata,
    target: &Metadata,
    exchange: bool,
) -> Result<()> {
    permission::check_remove(cred, dir, target)?;
    if exchange {
        return Ok(());
    }
    match (source.kind() == S_IFDIR, target.kind() == S_IFDIR) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

fn finish(
    dir: &Arc<Dentry>,
    new_dir: &Arc<Dentry>,
    source: &Arc<Dentry>,
    target: &Arc<Dentry>,
    new_name: &[u8],
    exchange: bool,
) {
    if exchange {
        Dentry::exchanged(source, target);
    } else {
        dir.moved(source, new_dir, new_name);
    }
}
