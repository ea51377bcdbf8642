//! Extended attributes of host files, passed through (xattr(7)).

use std::borrow::Cow;

use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFREG};
use rustix::fs::{OFlags, XattrFlags};
use vfs::Result;

use crate::errno;
use crate::inode::HostInode;

/// The largest value or list that Linux allows.
const LARGEST: usize = 65536;
/// What we keep ourselves in a file's attributes; the guest does not see it.
const OURS: &[u8] = b"user.sallet.";
const TRUSTED: &[u8] = b"trusted.";

/// Only these have a handle: attributes of symbolic links and special files cannot be reached by descriptor.
fn reachable(inode: &HostInode) -> bool {
    matches!(inode.identity().kind, S_IFREG | S_IFDIR)
}

/// `trusted.*`, which only host root may write, is kept among our own.
fn stored(name: &[u8]) -> Cow<'_, [u8]> {
    if name.starts_with(TRUSTED) { [OURS, name].concat().into() } else { name.into() }
}

/// What the guest sees of a name on the host.
fn shown(name: &[u8]) -> Option<&[u8]> {
    match name.strip_prefix(OURS) {
        None => Some(name),
        Some(ours) => ours.starts_with(TRUSTED).then_some(ours),
    }
}

/// An access control list would change the mode by which a device node is known.
fn check(inode: &HostInode, name: &[u8]) -> Result<()> {
    if inode.node.is_some() && name.starts_with(b"system.") { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

pub(crate) fn get(inode: &HostInode, name: &[u8]) -> Result<Vec<u8>> {
    check(inode, name)?;
    if !reachable(inode) || name.starts_with(OURS) {
        return Err(Errno::ENODATA);
    }
    let fd = inode.handle(OFlags::RDONLY)?;
    let name = stored(name);
    let mut value = vec![0; 256];
    let length = match rustix::fs::fgetxattr(&fd, &*name, &mut value[..]) {
        Err(rustix::io::Errno::RANGE) => {
            value.resize(LARGEST, 0);
            rustix::fs::fgetxattr(&fd, &*name, &mut value[..])
        }
        result => result,
    }
    .map_err(errno)?;
    value.truncate(length);
    Ok(value)
}

pub(crate) fn set(inode: &HostInode, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    check(inode, name)?;
    if !reachable(inode) || name.starts_with(OURS) {
        return Err(Errno::EPERM);
    }
    let fd = inode.handle(OFlags::RDONLY)?;
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let done = rustix::fs::fsetxattr(&fd, &*stored(name), value, flags);
    inode.changed();
    done.map_err(errno)
}

pub(crate) fn list(inode: &HostInode) -> Result<Vec<Vec<u8>>> {
    if !reachable(inode) {
        return Ok(Vec::new());
    }
    let fd = inode.handle(OFlags::RDONLY)?;
    let mut names = vec![0; LARGEST];
    let length = rustix::fs::flistxattr(&fd, &mut names[..]).map_err(errno)?;
    names.truncate(length);
    Ok(names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(shown)
        .map(<[u8]>::to_vec)
        .collect())
}

pub(crate) fn remove(inode: &HostInode, name: &[u8]) -> Result<()> {
    check(inode, name)?;
    if !reachable(inode) || name.starts_with(OURS) {
        return Err(Errno::ENODATA);
    }
    let fd = inode.handle(OFlags::RDONLY)?;
    let done = rustix::fs::fremovexattr(&fd, &*stored(name));
    inode.changed();
    done.map_err(errno)
}
