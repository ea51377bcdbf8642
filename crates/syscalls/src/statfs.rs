//! statfs(2), fstatfs(2), ustat(2).

use linux_abi::Errno;
use linux_abi::fs::AT_FDCWD;
use vfs::{MountFlags, Place};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::path::resolve_at;
use crate::{Cx, SysResult};

/// `struct statfs` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct StatFs {
    magic: u64,
    bsize: u64,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    files: u64,
    ffree: u64,
    fsid: u64,
    namelen: u64,
    frsize: u64,
    flags: u64,
    spare: [u64; 4],
}

/// `struct ustat` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
struct UStat {
    /// Free blocks, cut to 32 bits as Linux does.
    blocks_free: u32,
    padding: u32,
    files_free: u64,
    /// Always zeroes, with 4 bytes of padding.
    names: [u8; 16],
}

/// `ST_*` flags of the structure for flags of a mount.
const FLAGS: [(MountFlags, u64); 8] = [
    (MountFlags::RDONLY, 1),
    (MountFlags::NOSUID, 2),
    (MountFlags::NODEV, 4),
    (MountFlags::NOEXEC, 8),
    (MountFlags::NOATIME, 1024),
    (MountFlags::NODIRATIME, 2048),
    (MountFlags::RELATIME, 4096),
    (MountFlags::NOSYMFOLLOW, 8192),
];
/// The flags field is valid.
const ST_VALID: u64 = 32;

/// statfs(2).
pub fn statfs(cx: &mut Cx<'_>, path: Ptr, buf: Ptr) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    give(cx, &place, buf)
}

/// fstatfs(2).
pub fn fstatfs(cx: &mut Cx<'_>, fd: i32, buf: Ptr) -> SysResult {
    let file = cx.file(fd)?;
    give(cx, file.place(), buf)
}

/// ustat(2): of a file system that is mounted where the caller can see it. `EINVAL` if none has this number.
pub fn ustat(cx: &mut Cx<'_>, dev: u32, buf: Ptr) -> SysResult {
    let mounts = cx.fs().namespace().map(|namespace| namespace.mounts()).unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.device() == Some(u64::from(dev))).ok_or(Errno::EINVAL)?;
    let stat = mount.file_system.statfs()?;
    let out = UStat { blocks_free: stat.blocks_free as u32, files_free: stat.files_free, ..UStat::default() };
    cx.write(buf, &out)?;
    Ok(0)
}

fn give(cx: &mut Cx<'_>, place: &Place, buf: Ptr) -> SysResult {
    let stat = place.inode()?.file_system().statfs()?;
    let held = place.mount.flags();
    let flags = FLAGS.iter().filter(|(f, _)| held.contains(*f)).fold(ST_VALID, |all, (_, bit)| all | bit);
    let out = StatFs {
        magic: stat.magic,
        bsize: stat.block_size,
        blocks: stat.blocks,
        bfree: stat.blocks_free,
        bavail: stat.blocks_available,
        files: stat.files,
        ffree: stat.files_free,
        fsid: stat.fsid,
        namelen: stat.name_max,
        frsize: stat.block_size,
        flags,
        spare: [0; 4],
    };
    cx.write(buf, &out)?;
    Ok(0)
}
