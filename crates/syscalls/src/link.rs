//! Names: link(2), symlink(2), readlink(2), unlink(2), mknod(2), rename(2).

use identity::Capability;
use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, S_IFLNK, S_IFMT};
use vfs::{RenameFlags, WalkFlags};

use crate::args::Ptr;
use crate::path::{at, check_flags, read_path_at, resolve, resolve_parent};
use crate::{Cx, SysResult};

/// link(2).
pub fn link(cx: &mut Cx<'_>, old: Ptr, new: Ptr) -> SysResult {
    linkat(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// linkat(2).
pub fn linkat(cx: &mut Cx<'_>, old_dirfd: i32, old: Ptr, new_dirfd: i32, new: Ptr, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_FOLLOW | at::EMPTY_PATH)?;
    let old = read_path_at(cx, old, flags)?;
    let new = cx.read_path(new)?;
    if old.is_empty() && flags & at::EMPTY_PATH != 0 {
        // Linux answers as if there were no such name.
        cx.require(Capability::DAC_READ_SEARCH).map_err(|_| Errno::ENOENT)?;
    }
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, flags & at::SYMLINK_FOLLOW != 0);
    walk.set(WalkFlags::EMPTY, flags & at::EMPTY_PATH != 0);
    let place = resolve(cx, old_dirfd, &old, walk)?;
    let parent = resolve_parent(cx, new_dirfd, &new)?;
    vfs::ops::create::link(cx, &place, &parent)?;
    Ok(0)
}

/// symlink(2).
pub fn symlink(cx: &mut Cx<'_>, target: Ptr, path: Ptr) -> SysResult {
    symlinkat(cx, target, AT_FDCWD, path)
}

/// symlinkat(2).
pub fn symlinkat(cx: &mut Cx<'_>, target: Ptr, dirfd: i32, path: Ptr) -> SysResult {
    let target = cx.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let path = cx.read_path(path)?;
    let parent = resolve_parent(cx, dirfd, &path)?;
    vfs::ops::create::symlink(cx, &parent, &target)?;
    Ok(0)
}

/// readlink(2).
pub fn readlink(cx: &mut Cx<'_>, path: Ptr, buf: Ptr, size: i32) -> SysResult {
    readlinkat(cx, AT_FDCWD, path, buf, size)
}

/// readlinkat(2).
pub fn readlinkat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, buf: Ptr, size: i32) -> SysResult {
    let size = usize::try_from(size).ok().filter(|s| *s > 0).ok_or(Errno::EINVAL)?;
    let path = cx.read_path(path)?;
    // An empty path names the link that an O_PATH descriptor holds.
    let place = resolve(cx, dirfd, &path, WalkFlags::EMPTY)?;
    if path.is_empty() && dirfd == AT_FDCWD {
        return Err(Errno::ENOENT.into());
    }
    let inode = place.inode()?;
    if inode.metadata()?.mode & S_IFMT != S_IFLNK {
        crate::names::asked(cx, &path);
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    let mut target = inode.readlink(cx)?;
    target.truncate(size);
    cx.write_bytes(buf, &target)?;
    Ok(target.len() as i64)
}

/// unlink(2).
pub fn unlink(cx: &mut Cx<'_>, path: Ptr) -> SysResult {
    unlinkat(cx, AT_FDCWD, path, 0)
}

/// unlinkat(2).
pub fn unlinkat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, flags: u32) -> SysResult {
    check_flags(flags, at::REMOVEDIR)?;
    let path = cx.read_path(path)?;
    let parent = resolve_parent(cx, dirfd, &path)?;
    if flags & at::REMOVEDIR != 0 {
        vfs::ops::remove::rmdir(cx, &parent)?;
    } else {
        vfs::ops::remove::unlink(cx, &parent)?;
    }
    Ok(0)
}

/// mknod(2).
pub fn mknod(cx: &mut Cx<'_>, path: Ptr, mode: u32, dev: u32) -> SysResult {
    mknodat(cx, AT_FDCWD, path, mode, dev)
}

/// mknodat(2).
pub fn mknodat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32, dev: u32) -> SysResult {
    let path = cx.read_path(path)?;
    let parent = resolve_parent(cx, dirfd, &path)?;
    vfs::ops::create::mknod(cx, &parent, mode, u64::from(dev))?;
    Ok(0)
}

/// rename(2).
pub fn rename(cx: &mut Cx<'_>, old: Ptr, new: Ptr) -> SysResult {
    renameat2(cx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// renameat(2).
pub fn renameat(cx: &mut Cx<'_>, old_dirfd: i32, old: Ptr, new_dirfd: i32, new: Ptr) -> SysResult {
    renameat2(cx, old_dirfd, old, new_dirfd, new, 0)
}

/// renameat2(2).
pub fn renameat2(
    cx: &mut Cx<'_>,
    old_dirfd: i32,
    old: Ptr,
    new_dirfd: i32,
    new: Ptr,
    flags: u32,
) -> SysResult {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    if exchange && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT) {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(RenameFlags::WHITEOUT) {
        cx.require(Capability::MKNOD)?;
    }
    let old = cx.read_path(old)?;
    let new = cx.read_path(new)?;
    let from = resolve_parent(cx, old_dirfd, &old)?;
    let to = resolve_parent(cx, new_dirfd, &new)?;
    vfs::ops::rename::rename(cx, &from, &to, flags)?;
    Ok(0)
}
