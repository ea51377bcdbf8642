//! Socket addresses between guest and sockets.

use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, S_IFMT, S_IFSOCK};
use linux_abi::socket::{AF_UNIX, SOCKADDR_MAX, SOCKADDR_UN};
use net::Address;
use net::unix::path_of;
use vfs::{WalkFlags, ops, permission};

use crate::args::Ptr;
use crate::path;
use crate::{Cx, SysError, SysResult};

/// Reads an address; `EINVAL` for a bad length, `EFAULT`.
pub(super) fn read(cx: &mut Cx<'_>, at: Ptr, len: i32) -> SysResult<Address> {
    let len = usize::try_from(len).ok().filter(|n| *n <= SOCKADDR_MAX).ok_or(Errno::EINVAL)?;
    Ok(Address::plain(cx.read_bytes(at, len)?))
}

/// Writes an address and its whole length, cut to the length that the guest gave: accept(2), getsockname(2).
/// `EINVAL` for a negative length, `EFAULT`.
pub(super) fn write(cx: &mut Cx<'_>, address: &[u8], at: Ptr, len_at: Ptr) -> SysResult<()> {
    let room: i32 = cx.read(len_at)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    cx.write_bytes(at, address.get(..room.min(address.len())).unwrap_or_default())?;
    cx.write(len_at, &u32::try_from(address.len()).unwrap_or(0))
}

/// Whether this is a local address with a path.
fn local_path(address: &Address) -> Option<Vec<u8>> {
    if address.family().ok()? != AF_UNIX || address.bytes.len() > SOCKADDR_UN {
        return None;
    }
    path_of(&address.bytes).map(<[u8]>::to_vec)
}

/// Finds the socket file of a local address, for connect(2) and sendto(2): write permission is needed, and what is no
/// socket is `ECONNREFUSED`.
pub(super) fn resolve(cx: &mut Cx<'_>, address: &mut Address) -> SysResult<()> {
    let Some(name) = local_path(address) else { return Ok(()) };
    let place = path::resolve(cx, AT_FDCWD, &name, WalkFlags::FOLLOW)?;
    let inode = place.inode()?;
    permission::check_inode(&cx.credentials, &*inode, permission::WRITE)?;
    if inode.metadata()?.mode & S_IFMT != S_IFSOCK {
        return Err(Errno::ECONNREFUSED.into());
    }
    address.node = Some(inode);
    Ok(())
}

/// Makes the socket file of a local address, for bind(2); `EADDRINUSE` if the name exists.
pub(super) fn create(cx: &mut Cx<'_>, address: &mut Address, kind: u32) -> SysResult<()> {
    let Some(name) = local_path(address) else { return Ok(()) };
    let parent = path::resolve_parent(cx, AT_FDCWD, &name)?;
    let kind = if parent.dir.inode()?.binds_outside() { kind } else { 0 };
    let place = match ops::create::socket(cx, &parent, 0o777, kind) {
        Err(Errno::EEXIST) => return Err(SysError::Errno(Errno::EADDRINUSE)),
        made => made?,
    };
    address.node = Some(place.inode()?);
    Ok(())
}
