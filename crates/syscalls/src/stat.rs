//! stat(2), lstat(2), fstat(2), newfstatat(2), statx(2).

use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, S_IFDIR, S_IFREG, Stat, major, minor};
use linux_abi::time::Timespec;
use vfs::{Metadata, Place};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::path::{at, check_flags, read_path_at, resolve, walk_flags};
use crate::{Cx, SysResult};

/// stat(2).
pub fn stat(cx: &mut Cx<'_>, path: Ptr, buf: Ptr) -> SysResult {
    newfstatat(cx, AT_FDCWD, path, buf, 0)
}

/// lstat(2).
pub fn lstat(cx: &mut Cx<'_>, path: Ptr, buf: Ptr) -> SysResult {
    newfstatat(cx, AT_FDCWD, path, buf, at::SYMLINK_NOFOLLOW)
}

/// fstat(2).
pub fn fstat(cx: &mut Cx<'_>, fd: i32, buf: Ptr) -> SysResult {
    let meta = cx.file(fd)?.inode().metadata()?;
    cx.write(buf, &to_stat(&meta))?;
    Ok(0)
}

/// newfstatat(2).
pub fn newfstatat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, buf: Ptr, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::NO_AUTOMOUNT | at::EMPTY_PATH | AT_STATX_SYNC_TYPE)?;
    let path = read_path_at(cx, path, flags)?;
    if path.is_empty() && flags & at::EMPTY_PATH != 0 && dirfd != AT_FDCWD {
        return fstat(cx, dirfd, buf);
    }
    let place = resolve(cx, dirfd, &path, walk_flags(flags))?;
    let meta = place.dentry.inode_ref().ok_or(Errno::ENOENT)?.metadata()?;
    if let S_IFREG | S_IFDIR = meta.kind() {
        crate::names::asked(cx, &path);
    }
    cx.write(buf, &to_stat(&meta))?;
    Ok(0)
}

/// The guest's structure.
pub fn to_stat(meta: &Metadata) -> Stat {
    Stat {
        dev: meta.dev,
        ino: meta.ino,
        nlink: meta.nlink,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        rdev: meta.rdev,
        size: meta.size.cast_signed(),
        blksize: meta.block_size.cast_signed(),
        blocks: meta.blocks.cast_signed(),
        atime: meta.atime.sec.cast_unsigned(),
        atime_nsec: meta.atime.nsec.cast_unsigned(),
        mtime: meta.mtime.sec.cast_unsigned(),
        mtime_nsec: meta.mtime.nsec.cast_unsigned(),
        ctime: meta.ctime.sec.cast_unsigned(),
        ctime_nsec: meta.ctime.nsec.cast_unsigned(),
        ..Stat::default()
    }
}

/// Both structures of a file, as stat(2) and statx(2) give them.
pub fn render(place: &Place, meta: &Metadata) -> ([u8; 144], [u8; 256]) {
    (zerocopy::transmute!(to_stat(meta)), zerocopy::transmute!(to_statx(place, meta, 0)))
}

/// `struct statx_timestamp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: i32,
}

impl From<Timespec> for StatxTime {
    fn from(time: Timespec) -> StatxTime {
        StatxTime { sec: time.sec, nsec: u32::try_from(time.nsec).unwrap_or(0), pad: 0 }
    }
}

/// `struct statx`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad0: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev_major: u32,
    rdev_minor: u32,
    dev_major: u32,
    dev_minor: u32,
    mnt_id: u64,
    dio: [u32; 2],
    subvol: u64,
    pad: [u64; 11],
}

const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
const STATX_RESERVED: u32 = 0x8000_0000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
/// `AT_STATX_FORCE_SYNC` and `AT_STATX_DONT_SYNC`.
const AT_STATX_SYNC_TYPE: u32 = 0x6000;

/// statx(2).
pub fn statx(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, flags: u32, mask: u32, buf: Ptr) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::NO_AUTOMOUNT | at::EMPTY_PATH | AT_STATX_SYNC_TYPE)?;
    if mask & STATX_RESERVED != 0 || flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL.into());
    }
    let path = read_path_at(cx, path, flags)?;
    let (place, meta) = if path.is_empty() && flags & at::EMPTY_PATH != 0 && dirfd != AT_FDCWD {
        let file = cx.file(dirfd)?;
        (file.place().clone(), file.inode().metadata()?)
    } else {
        let place = resolve(cx, dirfd, &path, walk_flags(flags))?;
        let meta = place.inode()?.metadata()?;
        (place, meta)
    };
    cx.write(buf, &to_statx(&place, &meta, mask))?;
    Ok(0)
}

fn to_statx(place: &Place, meta: &Metadata, asked: u32) -> Statx {
    let mut mask = STATX_BASIC_STATS;
    if meta.btime.is_some() {
        mask |= STATX_BTIME;
    }
    mask |= if asked & STATX_MNT_ID_UNIQUE != 0 { STATX_MNT_ID_UNIQUE } else { STATX_MNT_ID };
    let mount_root = std::sync::Arc::ptr_eq(&place.dentry, &place.mount.root);
    Statx {
        mask,
        blksize: u32::try_from(meta.block_size).unwrap_or(4096),
        attributes: if mount_root { STATX_ATTR_MOUNT_ROOT } else { 0 },
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        nlink: u32::try_from(meta.nlink).unwrap_or(u32::MAX),
        uid: meta.uid,
        gid: meta.gid,
        // Type and permissions are 16 bits.
        mode: (meta.mode & 0xffff) as u16,
        ino: meta.ino,
        size: meta.size,
        blocks: meta.blocks,
        atime: meta.atime.into(),
        btime: meta.btime.unwrap_or_default().into(),
        ctime: meta.ctime.into(),
        mtime: meta.mtime.into(),
        rdev_major: major(meta.rdev),
        rdev_minor: minor(meta.rdev),
        dev_major: major(meta.dev),
        dev_minor: minor(meta.dev),
        mnt_id: place.mount.id(),
        ..Statx::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_abi() {
        assert_eq!(size_of::<Statx>(), 256);
        assert_eq!(size_of::<Stat>(), 144);
    }
}
