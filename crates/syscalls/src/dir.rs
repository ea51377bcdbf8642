//! Directories: mkdir(2), rmdir(2), getdents(2), getcwd(2), chdir(2), chroot(2).

use std::sync::Arc;

use identity::Capability;
use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, S_IFDIR};
use vfs::{DirEntry, OpenFile, Place, WalkFlags, permission};

use crate::args::Ptr;
use crate::path::{real_file, resolve, resolve_parent};
use crate::{Cx, SysResult};

/// The most bytes of entries that one call gives, whatever the guest's buffer holds.
const MAX_ENTRIES: usize = 256 << 10;
/// Bytes of a `struct linux_dirent` and a `struct linux_dirent64` before the name.
const HEADER_OLD: usize = 18;
const HEADER_64: usize = 19;

/// mkdir(2).
pub fn mkdir(cx: &mut Cx<'_>, path: Ptr, mode: u32) -> SysResult {
    mkdirat(cx, AT_FDCWD, path, mode)
}

/// mkdirat(2).
pub fn mkdirat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, mode: u32) -> SysResult {
    let path = cx.read_path(path)?;
    let parent = resolve_parent(cx, dirfd, &path)?;
    vfs::ops::create::mkdir(cx, &parent, mode)?;
    Ok(0)
}

/// rmdir(2).
pub fn rmdir(cx: &mut Cx<'_>, path: Ptr) -> SysResult {
    let path = cx.read_path(path)?;
    let parent = resolve_parent(cx, AT_FDCWD, &path)?;
    vfs::ops::remove::rmdir(cx, &parent)?;
    Ok(0)
}

/// getdents(2).
pub fn getdents(cx: &mut Cx<'_>, fd: i32, buf: Ptr, count: u32) -> SysResult {
    // d_ino, d_off, d_reclen, d_name and its NUL, padding, d_type in the last byte.
    entries(cx, fd, buf, count, |entry, out| {
        let len = (HEADER_OLD + entry.name.len() + 2).next_multiple_of(8);
        let start = out.len();
        out.extend_from_slice(&entry.ino.to_ne_bytes());
        out.extend_from_slice(&entry.next.to_ne_bytes());
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
        out.extend_from_slice(entry.name);
        out.resize(start + len - 1, 0);
        out.push(entry.kind as u8);
    })
}

/// getdents64(2).
pub fn getdents64(cx: &mut Cx<'_>, fd: i32, buf: Ptr, count: u32) -> SysResult {
    entries(cx, fd, buf, count, |entry, out| {
        let len = (HEADER_64 + entry.name.len() + 1).next_multiple_of(8);
        let start = out.len();
        out.extend_from_slice(&entry.ino.to_ne_bytes());
        out.extend_from_slice(&entry.next.to_ne_bytes());
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
        out.push(entry.kind as u8);
        out.extend_from_slice(entry.name);
        out.resize(start + len, 0);
    })
}

/// Collects entries that `put` encodes until the buffer is full; `EINVAL` if not one fits.
fn entries(
    cx: &mut Cx<'_>,
    fd: i32,
    buf: Ptr,
    count: u32,
    put: fn(&DirEntry<'_>, &mut Vec<u8>),
) -> SysResult {
    let file = real_file(cx, fd)?;
    let inode = file.inode();
    if inode.metadata()?.kind() != S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    if file.place().dentry.is_deleted() {
        return Err(Errno::ENOENT.into());
    }
    let room = (count as usize).min(MAX_ENTRIES);
    let mut out = std::mem::take(&mut cx.local.scratch);
    out.clear();
    let result = fill(cx, &file, buf, room, &mut out, put);
    cx.local.scratch = out;
    result
}

fn fill(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    buf: Ptr,
    room: usize,
    out: &mut Vec<u8>,
    put: fn(&DirEntry<'_>, &mut Vec<u8>),
) -> SysResult {
    let mut pos = file.pos().lock();
    let mut full = false;
    // The position after the last entry that fitted; file systems may return that of the refused one.
    let mut reached = *pos;
    let end = file.ops().readdir(file, *pos, &mut |entry| {
        let before = out.len();
        if entry.name.len() > 4096 {
            return true;
        }
        put(&entry, out);
        if out.len() > room {
            out.truncate(before);
            full = true;
            return false;
        }
        reached = entry.next;
        true
    })?;
    if out.is_empty() && full {
        return Err(Errno::EINVAL.into());
    }
    cx.write_bytes(buf, out)?;
    *pos = if full { reached } else { end };
    Ok(out.len() as i64)
}

/// getcwd(2): the bytes written with the NUL. `ERANGE`, `ENOENT` if it was removed.
pub fn getcwd(cx: &mut Cx<'_>, buf: Ptr, size: usize) -> SysResult {
    let fs = cx.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT.into());
    }
    let mut path = cwd.path(&fs.root());
    path.push(0);
    if path.len() > linux_abi::fs::PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if path.len() > size {
        return Err(Errno::ERANGE.into());
    }
    cx.write_bytes(buf, &path)?;
    Ok(path.len() as i64)
}

/// A directory that the caller may search; `ENOTDIR`, `EACCES`.
fn check_search(cx: &Cx<'_>, place: &Place) -> SysResult<()> {
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    if meta.kind() != S_IFDIR {
        return Err(Errno::ENOTDIR.into());
    }
    Ok(permission::check_file(&cx.credentials, &*inode, &meta, permission::EXEC)?)
}

/// chdir(2).
pub fn chdir(cx: &mut Cx<'_>, path: Ptr) -> SysResult {
    let path = cx.read_path(path)?;
    let place = resolve(cx, AT_FDCWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    check_search(cx, &place)?;
    cx.fs().set_cwd(place);
    Ok(0)
}

/// fchdir(2).
pub fn fchdir(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let place = cx.file(fd)?.place().clone();
    check_search(cx, &place)?;
    cx.fs().set_cwd(place);
    Ok(0)
}

/// chroot(2).
pub fn chroot(cx: &mut Cx<'_>, path: Ptr) -> SysResult {
    let path = cx.read_path(path)?;
    let place = resolve(cx, AT_FDCWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    check_search(cx, &place)?;
    cx.require(Capability::SYS_CHROOT)?;
    cx.fs().set_root(place);
    crate::names::root_changed(cx);
    Ok(0)
}
