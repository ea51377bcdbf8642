//! inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2).

use kernel::inotify;
use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, OpenFlags};
use vfs::{WalkFlags, permission};

use crate::args::Ptr;
use crate::path;
use crate::{Cx, SysResult};

const ONLYDIR: u32 = 0x0100_0000;
const DONT_FOLLOW: u32 = 0x0200_0000;

/// inotify_init(2).
pub fn inotify_init(cx: &mut Cx<'_>) -> SysResult {
    inotify_init1(cx, 0)
}

/// inotify_init1(2).
pub fn inotify_init1(cx: &mut Cx<'_>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - (OpenFlags::CLOEXEC | OpenFlags::NONBLOCK)).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let instance = inotify::open(flags.contains(OpenFlags::NONBLOCK), cx.credentials.uid)?;
    cx.install(instance, flags.contains(OpenFlags::CLOEXEC))
}

/// inotify_add_watch(2).
pub fn inotify_add_watch(cx: &mut Cx<'_>, fd: i32, path: Ptr, mask: u32) -> SysResult {
    let instance = inotify::of(&*cx.file(fd)?).ok_or(Errno::EINVAL)?;
    let path = cx.read_path(path)?;
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, mask & DONT_FOLLOW == 0);
    flags.set(WalkFlags::DIRECTORY, mask & ONLYDIR != 0);
    let place = path::resolve(cx, AT_FDCWD, &path, flags)?;
    permission::check_inode(&cx.credentials, &*place.inode()?, permission::READ)?;
    let wd = instance.add(place, mask)?;
    cx.kernel().posting.watched();
    Ok(i64::from(wd))
}

/// inotify_rm_watch(2).
pub fn inotify_rm_watch(cx: &mut Cx<'_>, fd: i32, wd: i32) -> SysResult {
    let instance = inotify::of(&*cx.file(fd)?).ok_or(Errno::EINVAL)?;
    instance.remove(wd)?;
    Ok(0)
}
