//! chmod(2), chown(2), utimensat(2), truncate(2), access(2).

use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG};

use crate::notify::{self, Happening};
use crate::writers::Writing;
use crate::{Caller, Inode, Metadata, MountFlags, Place, Result, SetAttr, SetTime, permission};

/// chmod(2).
pub fn chmod(caller: &dyn Caller, place: &Place, mode: u32) -> Result<()> {
    place.mount.check_writable()?;
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    if meta.kind() == S_IFLNK {
        return Err(Errno::EOPNOTSUPP);
    }
    let cred = caller.credentials();
    if !permission::is_owner(cred, &meta) {
        return Err(Errno::EPERM);
    }
    let mode = permission::chmod_mode(cred, &meta, mode);
    inode.set_attributes(&SetAttr { mode: Some(mode), ..SetAttr::default() })?;
    place.dentry.names_changed();
    notify::file(&place.dentry, Happening::ATTRIB);
    Ok(())
}

/// chown(2); `None` leaves an id.
pub fn chown(caller: &dyn Caller, place: &Place, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    place.mount.check_writable()?;
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    let cred = caller.credentials();
    permission::check_chown(cred, &meta, uid, gid)?;
    // Linux clears the set-id bits for root too, and even if no id is given.
    let mode = permission::after_chown(cred, &meta);
    if mode.is_some() && !permission::is_owner(cred, &meta) {
        return Err(Errno::EPERM);
    }
    inode.set_attributes(&SetAttr { uid, gid, mode, ..SetAttr::default() })?;
    place.dentry.names_changed();
    notify::file(&place.dentry, Happening::ATTRIB);
    Ok(())
}

/// utimensat(2); `None` leaves a time.
pub fn utimens(
    caller: &dyn Caller,
    place: &Place,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> Result<()> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    place.mount.check_writable()?;
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    let cred = caller.credentials();
    if !permission::is_owner(cred, &meta) {
        let both_now = atime == Some(SetTime::Now) && mtime == Some(SetTime::Now);
        if !both_now {
            return Err(Errno::EPERM);
        }
        permission::check_file(cred, &*inode, &meta, permission::WRITE)?;
    }
    inode.set_attributes(&SetAttr { atime, mtime, ..SetAttr::default() })?;
    notify::file(&place.dentry, Happening::ATTRIB);
    Ok(())
}

/// truncate(2).
pub fn truncate(caller: &dyn Caller, place: &Place, size: u64) -> Result<()> {
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    match meta.kind() {
        S_IFREG => {}
        S_IFDIR => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    place.mount.check_writable()?;
    permission::check_file(caller.credentials(), &*inode, &meta, permission::WRITE)?;
    let _writing = Writing::begin(&*inode)?;
    set_size(caller.credentials(), place, &meta, size)
}

/// ftruncate(2), for a file open for writing: no permission is asked again.
pub fn set_size(cred: &Credentials, place: &Place, meta: &Metadata, size: u64) -> Result<()> {
    let mode = permission::without_suid(cred, meta);
    let mtime = Some(SetTime::Now);
    place.inode()?.set_attributes(&SetAttr { size: Some(size), mode, mtime, ..SetAttr::default() })?;
    notify::file(&place.dentry, Happening::MODIFY);
    Ok(())
}

/// access(2) as `cred` (for access the real ids, see `real_credentials`); `want` of `permission`'s bits,
/// 0 asks for existence.
pub fn access(cred: &Credentials, place: &Place, want: u32) -> Result<()> {
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    if want == 0 {
        return Ok(());
    }
    if want & permission::EXEC != 0 && meta.kind() == S_IFREG && place.mount.has(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    permission::check_file(cred, &*inode, &meta, want)?;
    if want & permission::WRITE != 0 && matches!(meta.kind(), S_IFREG | S_IFDIR | S_IFLNK) {
        place.mount.check_writable()?;
    }
    Ok(())
}

/// The credentials that access(2) asks with: real ids, and the capabilities that they stand for.
pub fn real_credentials(cred: &Credentials) -> Credentials {
    let mut real = cred.clone();
    real.fsuid = cred.uid;
    real.fsgid = cred.gid;
    real.effective = if cred.uid == 0 { cred.permitted } else { identity::CapabilitySet::EMPTY };
    real
}

/// A file was written by `cred`, which takes its set-id bits; `CAP_FSETID` keeps them.
pub fn written(cred: &Credentials, inode: &dyn Inode) -> Result<()> {
    if cred.capable(Capability::FSETID) {
        return Ok(());
    }
    if let Some(mode) = permission::without_suid(cred, &inode.metadata()?) {
        inode.set_attributes(&SetAttr { mode: Some(mode), ..SetAttr::default() })?;
    }
    Ok(())
}
