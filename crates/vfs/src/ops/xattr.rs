//! Extended attributes: xattr(7).

use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG, S_ISVTX};

use crate::notify::{self, Happening};
use crate::{Caller, Inode, Metadata, Place, Result, SetAttr, acl, permission};

/// The longest name (`XATTR_NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The longest value (`XATTR_SIZE_MAX`).
pub const SIZE_MAX: usize = 64 << 10;
/// The longest list (`XATTR_LIST_MAX`).
pub const LIST_MAX: usize = 64 << 10;

/// What the caller may do with an attribute of this name; `None` for what it does not even see.
fn check(cred: &Credentials, inode: &dyn Inode, meta: &Metadata, name: &[u8], write: bool) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    if matches!(name, b"user." | b"trusted." | b"security.") {
        return Err(Errno::EINVAL);
    }
    if name.starts_with(b"trusted.") {
        let refused = if write { Errno::EPERM } else { Errno::ENODATA };
        return if cred.capable(Capability::SYS_ADMIN) { Ok(()) } else { Err(refused) };
    }
    if name.starts_with(b"user.") {
        if !matches!(meta.kind(), S_IFREG | S_IFDIR) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        let sticky = meta.kind() == S_IFDIR && meta.mode & S_ISVTX != 0;
        if write && sticky && !permission::is_owner(cred, meta) {
            return Err(Errno::EPERM);
        }
        let want = if write { permission::WRITE } else { permission::READ };
        return permission::check_file(cred, inode, meta, want);
    }
    if name == b"security.capability" {
        return if !write || cred.capable(Capability::SETFCAP) { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"security.") {
        return if !write || cred.capable(Capability::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        if meta.kind() == S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        return if !write || permission::is_owner(cred, meta) { Ok(()) } else { Err(Errno::EPERM) };
    }
    Err(Errno::EOPNOTSUPP)
}

/// getxattr(2): the whole value.
pub fn get(caller: &dyn Caller, place: &Place, name: &[u8]) -> Result<Vec<u8>> {
    let inode = place.inode()?;
    check(caller.credentials(), &*inode, &inode.metadata()?, name, false)?;
    inode.get_xattr(name)
}

/// setxattr(2).
pub fn set(caller: &dyn Caller, place: &Place, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    if flags & !3 != 0 || flags == 3 {
        return Err(Errno::EINVAL);
    }
    if value.len() > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let inode = place.inode()?;
    place.mount.check_writable()?;
    check(caller.credentials(), &*inode, &inode.metadata()?, name, true)?;
    inode.set_xattr(name, value, flags)?;
    if name == acl::ACCESS {
        // The list changed the mode, as chmod(2) does.
        let meta = inode.metadata()?;
        let mode = permission::chmod_mode(caller.credentials(), &meta, meta.mode);
        if mode != meta.mode & 0o7777 {
            inode.set_attributes(&SetAttr { mode: Some(mode), ..SetAttr::default() })?;
        }
        place.dentry.names_changed();
    }
    notify::file(&place.dentry, Happening::ATTRIB);
    Ok(())
}

/// listxattr(2): names with their NULs; those of `trusted.` only for who may read them.
pub fn list(caller: &dyn Caller, place: &Place) -> Result<Vec<u8>> {
    let admin = caller.credentials().capable(Capability::SYS_ADMIN);
    let mut out = Vec::new();
    for name in place.inode()?.list_xattr()? {
        if admin || !name.starts_with(b"trusted.") {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    Ok(out)
}

/// removexattr(2).
pub fn remove(caller: &dyn Caller, place: &Place, name: &[u8]) -> Result<()> {
    let inode = place.inode()?;
    place.mount.check_writable()?;
    check(caller.credentials(), &*inode, &inode.metadata()?, name, true)?;
    inode.remove_xattr(name)?;
    if name == acl::ACCESS {
        place.dentry.names_changed();
    }
    notify::file(&place.dentry, Happening::ATTRIB);
    Ok(())
}
