//! Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2), and setxattrat(2) and its like
//! (Linux 6.13), which take a directory descriptor.

use linux_abi::Errno;
use linux_abi::fs::AT_FDCWD;
use vfs::Place;
use vfs::ops::xattr;
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Ptr;
use crate::path::{at, check_flags, read_path_at, real_file, resolve, resolve_at, walk_flags};
use crate::{Cx, SysResult};

/// `struct xattr_args` of setxattrat(2) and getxattrat(2).
#[derive(Clone, Copy, Default, FromBytes, IntoBytes)]
#[repr(C)]
struct XattrArgs {
    /// Address of the value.
    value: u64,
    /// Bytes of it.
    size: u32,
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    flags: u32,
}

/// The file of a call that takes `AT_*` flags. An empty path under `AT_EMPTY_PATH` is the descriptor's own file,
/// which may then not be `O_PATH`: `EBADF`, as for fsetxattr(2).
fn place_at(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, at_flags: u32) -> SysResult<Place> {
    check_flags(at_flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH)?;
    let path = read_path_at(cx, path, at_flags)?;
    if path.is_empty() && at_flags & at::EMPTY_PATH != 0 && dirfd != AT_FDCWD {
        return Ok(real_file(cx, dirfd)?.place().clone());
    }
    resolve(cx, dirfd, &path, walk_flags(at_flags))
}

fn read_name(cx: &mut Cx<'_>, name: Ptr) -> SysResult<Vec<u8>> {
    let name = cx.read_cstr(name, xattr::NAME_MAX + 1)?.ok_or(Errno::ERANGE)?;
    if name.is_empty() {
        return Err(Errno::ERANGE.into());
    }
    Ok(name)
}

/// setxattr(2).
pub fn setxattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr, value: Ptr, size: usize, flags: u32) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    set(cx, &place, name, value, size, flags)
}

/// lsetxattr(2).
pub fn lsetxattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr, value: Ptr, size: usize, flags: u32) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, at::SYMLINK_NOFOLLOW)?;
    set(cx, &place, name, value, size, flags)
}

/// fsetxattr(2).
pub fn fsetxattr(cx: &mut Cx<'_>, fd: i32, name: Ptr, value: Ptr, size: usize, flags: u32) -> SysResult {
    let file = real_file(cx, fd)?;
    set(cx, file.place(), name, value, size, flags)
}

/// setxattrat(2).
pub fn setxattrat(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: Ptr,
    at_flags: u32,
    name: Ptr,
    args: Ptr,
    size: usize,
) -> SysResult {
    let args: XattrArgs = cx.read_extensible(args, size, size_of::<XattrArgs>())?;
    let place = place_at(cx, dirfd, path, at_flags)?;
    set(cx, &place, name, Ptr(args.value), args.size as usize, args.flags)
}

fn set(cx: &mut Cx<'_>, place: &Place, name: Ptr, value: Ptr, size: usize, flags: u32) -> SysResult {
    if flags & !3 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = read_name(cx, name)?;
    if size > xattr::SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let value = cx.read_bytes(value, size)?;
    xattr::set(cx, place, &name, &value, flags)?;
    Ok(0)
}

/// getxattr(2).
pub fn getxattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr, value: Ptr, size: usize) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    get(cx, &place, name, value, size)
}

/// lgetxattr(2).
pub fn lgetxattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr, value: Ptr, size: usize) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, at::SYMLINK_NOFOLLOW)?;
    get(cx, &place, name, value, size)
}

/// fgetxattr(2).
pub fn fgetxattr(cx: &mut Cx<'_>, fd: i32, name: Ptr, value: Ptr, size: usize) -> SysResult {
    let file = real_file(cx, fd)?;
    get(cx, file.place(), name, value, size)
}

/// getxattrat(2).
pub fn getxattrat(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: Ptr,
    at_flags: u32,
    name: Ptr,
    args: Ptr,
    size: usize,
) -> SysResult {
    let args: XattrArgs = cx.read_extensible(args, size, size_of::<XattrArgs>())?;
    if args.flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let place = place_at(cx, dirfd, path, at_flags)?;
    get(cx, &place, name, Ptr(args.value), args.size as usize)
}

fn get(cx: &mut Cx<'_>, place: &Place, name: Ptr, value: Ptr, size: usize) -> SysResult {
    let name = read_name(cx, name)?;
    let bytes = xattr::get(cx, place, &name)?;
    give(cx, &bytes, value, size)
}

/// Size 0 asks for the length; a buffer too small is `ERANGE`.
fn give(cx: &mut Cx<'_>, bytes: &[u8], buf: Ptr, size: usize) -> SysResult {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE.into());
        }
        cx.write_bytes(buf, bytes)?;
    }
    Ok(bytes.len() as i64)
}

/// listxattr(2).
pub fn listxattr(cx: &mut Cx<'_>, path: Ptr, list: Ptr, size: usize) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    give_list(cx, &place, list, size)
}

/// llistxattr(2).
pub fn llistxattr(cx: &mut Cx<'_>, path: Ptr, list: Ptr, size: usize) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, at::SYMLINK_NOFOLLOW)?;
    give_list(cx, &place, list, size)
}

/// flistxattr(2).
pub fn flistxattr(cx: &mut Cx<'_>, fd: i32, list: Ptr, size: usize) -> SysResult {
    let file = real_file(cx, fd)?;
    give_list(cx, file.place(), list, size)
}

/// listxattrat(2).
pub fn listxattrat(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: Ptr,
    at_flags: u32,
    list: Ptr,
    size: usize,
) -> SysResult {
    let place = place_at(cx, dirfd, path, at_flags)?;
    give_list(cx, &place, list, size)
}

fn give_list(cx: &mut Cx<'_>, place: &Place, list: Ptr, size: usize) -> SysResult {
    let names = xattr::list(cx, place)?;
    if names.len() > xattr::LIST_MAX {
        return Err(Errno::E2BIG.into());
    }
    give(cx, &names, list, size)
}

/// removexattr(2).
pub fn removexattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, 0)?;
    remove(cx, &place, name)
}

/// lremovexattr(2).
pub fn lremovexattr(cx: &mut Cx<'_>, path: Ptr, name: Ptr) -> SysResult {
    let place = resolve_at(cx, AT_FDCWD, path, at::SYMLINK_NOFOLLOW)?;
    remove(cx, &place, name)
}

/// fremovexattr(2).
pub fn fremovexattr(cx: &mut Cx<'_>, fd: i32, name: Ptr) -> SysResult {
    let file = real_file(cx, fd)?;
    remove(cx, file.place(), name)
}

/// removexattrat(2).
pub fn removexattrat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, at_flags: u32, name: Ptr) -> SysResult {
    let place = place_at(cx, dirfd, path, at_flags)?;
    remove(cx, &place, name)
}

fn remove(cx: &mut Cx<'_>, place: &Place, name: Ptr) -> SysResult {
    let name = read_name(cx, name)?;
    xattr::remove(cx, place, &name)?;
    Ok(0)
}
