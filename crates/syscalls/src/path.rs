//! From a call's directory descriptor and path to a place (openat(2), path_resolution(7)).

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, OpenFlags};
use vfs::walk::Parent;
use vfs::{OpenFile, Place, WalkFlags, Walker};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `AT_*` flags of the path calls.
#[expect(missing_docs, reason = "named in openat(2), linkat(2), faccessat(2)")]
pub mod at {
    pub const SYMLINK_NOFOLLOW: u32 = 0x100;
    /// faccessat2(2).
    pub const EACCESS: u32 = 0x200;
    /// unlinkat(2).
    pub const REMOVEDIR: u32 = 0x200;
    pub const SYMLINK_FOLLOW: u32 = 0x400;
    pub const NO_AUTOMOUNT: u32 = 0x800;
    pub const EMPTY_PATH: u32 = 0x1000;
}

/// How to walk for a call that follows a last symbolic link unless `AT_SYMLINK_NOFOLLOW` says otherwise.
pub fn walk_flags(at_flags: u32) -> WalkFlags {
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, at_flags & at::SYMLINK_NOFOLLOW == 0);
    flags.set(WalkFlags::EMPTY, at_flags & at::EMPTY_PATH != 0);
    flags
}

/// Runs a walk that starts at a directory descriptor; `EBADF`, `ENOTDIR`.
pub fn walk<T>(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: &[u8],
    flags: WalkFlags,
    run: impl FnOnce(&mut Walker<'_>, &[u8]) -> vfs::Result<T>,
) -> SysResult<T> {
    let fs = cx.fs();
    let absolute = path.first() == Some(&b'/');
    let start = if dirfd == AT_FDCWD || (absolute && !flags.contains(WalkFlags::IN_ROOT)) {
        fs.cwd()
    } else {
        cx.file(dirfd)?.place().clone()
    };
    let root = fs.root();
    Ok(run(&mut Walker::new(root, start, cx, flags), path)?)
}

/// The place that a path names.
pub fn resolve(cx: &mut Cx<'_>, dirfd: i32, path: &[u8], flags: WalkFlags) -> SysResult<Place> {
    let result = walk(cx, dirfd, path, flags, |walker, path| walker.resolve(path));
    crate::names::found(cx, path, result)
}

/// The same for a path in guest memory, with `AT_*` flags already checked; a null path with
/// `AT_EMPTY_PATH` is an empty one.
pub fn resolve_at(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, at_flags: u32) -> SysResult<Place> {
    let path = read_path_at(cx, path, at_flags)?;
    resolve(cx, dirfd, &path, walk_flags(at_flags))
}

/// Reads a path, where null is an empty one under `AT_EMPTY_PATH` (Linux 6.11).
pub fn read_path_at(cx: &mut Cx<'_>, path: Ptr, at_flags: u32) -> SysResult<Vec<u8>> {
    if path.is_null() && at_flags & at::EMPTY_PATH != 0 {
        return Ok(Vec::new());
    }
    cx.read_path(path)
}

/// The directory and last name of a path that is to be created or removed.
pub fn resolve_parent(cx: &mut Cx<'_>, dirfd: i32, path: &[u8]) -> SysResult<Parent> {
    walk(cx, dirfd, path, WalkFlags::empty(), |walker, path| walker.resolve_parent(path))
}

/// `EINVAL` for `AT_*` flags that a call does not know.
pub fn check_flags(flags: u32, known: u32) -> SysResult<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// An open file that is not `O_PATH`; `EBADF`.
pub fn real_file(cx: &Cx<'_>, fd: i32) -> SysResult<Arc<OpenFile>> {
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    Ok(file)
}
