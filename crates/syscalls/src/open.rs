//! open(2), openat(2), openat2(2), creat(2).

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{AT_FDCWD, OpenFlags, S_IFBLK, S_IFCHR, S_IFIFO};
use vfs::ops::open::Opened;
use vfs::{Inode, OpenFile, Place, WalkFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::path::walk;
use crate::{Cx, SysResult};

/// What open(2) knows; other bits are ignored, openat2(2) refuses them.
const KNOWN: OpenFlags = OpenFlags::from_bits_retain(0o37777703);

/// open(2).
pub async fn open(cx: &mut Cx<'_>, path: Ptr, flags: u32, mode: u32) -> SysResult {
    openat(cx, AT_FDCWD, path, flags, mode).await
}

/// creat(2).
pub async fn creat(cx: &mut Cx<'_>, path: Ptr, mode: u32) -> SysResult {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    openat(cx, AT_FDCWD, path, flags.bits(), mode).await
}

/// openat(2).
pub async fn openat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, flags: u32, mode: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags) & KNOWN;
    if flags.contains(OpenFlags::TMPFILE_BIT) && !flags.contains(OpenFlags::TMPFILE) {
        return Err(Errno::EINVAL.into());
    }
    let path = cx.read_path(path)?;
    open_path(cx, dirfd, &path, flags, mode, WalkFlags::empty()).await
}

/// `struct open_how`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_CACHED: u64 = 0x20;
const RESOLVE: [(u64, WalkFlags); 5] = [
    (0x01, WalkFlags::NO_XDEV),
    (0x02, WalkFlags::NO_MAGICLINKS),
    (0x04, WalkFlags::NO_SYMLINKS.union(WalkFlags::NO_MAGICLINKS)),
    (0x08, WalkFlags::BENEATH.union(WalkFlags::NO_MAGICLINKS)),
    (0x10, WalkFlags::IN_ROOT.union(WalkFlags::NO_MAGICLINKS)),
];

/// openat2(2).
pub async fn openat2(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, how: Ptr, size: usize) -> SysResult {
    let how: OpenHow = cx.read_extensible(how, size, size_of::<OpenHow>())?;
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits_retain(flags);
    let mode = u32::try_from(how.mode).map_err(|_| Errno::EINVAL)?;
    let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    let path_only = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    let wrong = !(flags - KNOWN).is_empty()
        || mode & !0o7777 != 0
        || (mode != 0 && !creates)
        || (flags.contains(OpenFlags::PATH) && !(flags - path_only).is_empty())
        || (flags.contains(OpenFlags::TMPFILE_BIT) && !flags.contains(OpenFlags::TMPFILE))
        || how.resolve & !0x3f != 0
        || how.resolve & 0x18 == 0x18;
    if wrong {
        return Err(Errno::EINVAL.into());
    }
    let mut walk = WalkFlags::empty();
    for (bit, flag) in RESOLVE {
        if how.resolve & bit != 0 {
            walk.insert(flag);
        }
    }
    if how.resolve & RESOLVE_CACHED != 0 {
        // Nothing promises that the walk makes no host call: the caller tries again without.
        return Err(Errno::EAGAIN.into());
    }
    let path = cx.read_path(path)?;
    open_path(cx, dirfd, &path, flags, mode, walk).await
}

/// Opens a path and installs the descriptor.
async fn open_path(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
    how: WalkFlags,
) -> SysResult {
    let mode = mode & 0o7777;
    let opened = walk(cx, dirfd, path, how, |walker, path| vfs::ops::open::open(walker, path, flags, mode));
    let opened = if how.is_empty() { crate::names::found(cx, path, opened)? } else { opened? };
    let file = match opened {
        Opened::File(file) => file,
        Opened::Special { place, inode, kind } => open_special(cx, place, inode, kind, flags).await?,
    };
    let fd = cx.install(file.clone(), flags.contains(OpenFlags::CLOEXEC))?;
    kernel::posting::opened(cx.thread, fd as i32, &file, crate::stat::render);
    Ok(fd)
}

/// Opens what the kernel stands behind: FIFOs and devices. Sockets are reached by connect(2): `ENXIO`.
pub async fn open_special(
    cx: &mut Cx<'_>,
    place: Place,
    inode: Arc<dyn Inode>,
    kind: u32,
    flags: OpenFlags,
) -> SysResult<Arc<OpenFile>> {
    match kind {
        S_IFIFO => Box::pin(crate::pipe::open_fifo(cx, place, inode, flags)).await,
        S_IFCHR | S_IFBLK => {
            let rdev = inode.metadata()?.rdev;
            let device = cx.kernel().device(kind == S_IFBLK, rdev)?;
            let ops = device(&inode, flags, cx)?;
            Ok(OpenFile::new(place, inode, ops, flags))
        }
        _ => Err(Errno::ENXIO.into()),
    }
}
