//! Writing through, advice and the page cache: fsync(2), sync(2), sync_file_range(2), fallocate(2), posix_fadvise(2),
//! cachestat(2).

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFBLK, S_IFDIR, S_IFIFO, S_IFREG};
use linux_abi::signal::Signo;
use vfs::{OpenFile, permission};

use crate::args::Ptr;
use crate::path::real_file;
use crate::{Cx, SysResult};

/// Bytes that fallocate(2) makes at once, so that others wait for them.
const AT_ONCE: u64 = 1 << 20;

/// fsync(2).
pub async fn fsync(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    flush(real_file(cx, fd)?, false).await
}

/// fdatasync(2).
pub async fn fdatasync(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    flush(real_file(cx, fd)?, true).await
}

async fn flush(file: Arc<OpenFile>, data_only: bool) -> SysResult {
    file.tell_late_error()?;
    if file.ops().may_sleep() {
        executor::blocking(move || file.ops().fsync(&file, data_only)).await?;
    } else {
        file.ops().fsync(&file, data_only)?;
    }
    Ok(0)
}

/// sync(2): all mounts; errors are nobody's.
pub async fn sync(cx: &mut Cx<'_>) -> SysResult {
    if let Some(namespace) = cx.fs().root().mount.namespace() {
        executor::blocking(move || {
            for mount in namespace.mounts() {
                let _ = mount.file_system.sync();
            }
        })
        .await;
    }
    Ok(0)
}

/// syncfs(2).
pub async fn syncfs(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    let file = real_file(cx, fd)?;
    executor::blocking(move || file.inode().file_system().sync()).await?;
    Ok(0)
}

/// sync_file_range(2): the whole file's data is written, which is more than was asked.
pub async fn sync_file_range(cx: &mut Cx<'_>, fd: i32, offset: i64, length: i64, flags: u32) -> SysResult {
    let file = real_file(cx, fd)?;
    if flags & !7 != 0 || offset < 0 || length < 0 || offset.checked_add(length).is_none() {
        return Err(Errno::EINVAL.into());
    }
    if file.inode().metadata()?.kind() == S_IFIFO || !file.ops().seekable() {
        return Err(Errno::ESPIPE.into());
    }
    flush(file, true).await
}

/// fallocate(2).
pub async fn fallocate(cx: &mut Cx<'_>, fd: i32, mode: u32, offset: i64, length: i64) -> SysResult {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    let file = real_file(cx, fd)?;
    let (Ok(start), Ok(len)) = (u64::try_from(offset), u64::try_from(length)) else {
        return Err(Errno::EINVAL.into());
    };
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    if mode & !0x7f != 0 || (mode & PUNCH_HOLE != 0 && mode & KEEP_SIZE == 0) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !file.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    match file.inode().metadata()?.kind() {
        S_IFREG | S_IFBLK => {}
        S_IFDIR => return Err(Errno::EISDIR.into()),
        S_IFIFO => return Err(Errno::ESPIPE.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let end = start.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)?;
    if mode & (KEEP_SIZE | PUNCH_HOLE) == 0 && end > cx.process().limit(kernel::limits::resource::FSIZE) {
        crate::run_loop::raise(cx, Signo::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    if len > AT_ONCE || file.ops().may_sleep() {
        executor::blocking(move || file.ops().fallocate(&file, mode, start, len)).await?;
    } else {
        file.ops().fallocate(&file, mode, start, len)?;
    }
    Ok(0)
}

/// posix_fadvise(2). Of a position from which descriptors read ahead the host's handles, which others share, are not told.
pub async fn fadvise64(cx: &mut Cx<'_>, fd: i32, offset: i64, length: i64, advice: u32) -> SysResult {
    const WILLNEED: u32 = 3;
    const DONTNEED: u32 = 4;
    let file = real_file(cx, fd)?;
    if file.inode().metadata()?.kind() == S_IFIFO {
        return Err(Errno::ESPIPE.into());
    }
    if length < 0 || advice > 5 {
        return Err(Errno::EINVAL.into());
    }
    if matches!(advice, WILLNEED | DONTNEED) {
        advise(file, offset.cast_unsigned(), length.cast_unsigned(), advice == WILLNEED).await;
    }
    Ok(0)
}

/// Tells the host whether bytes are needed, to the end with length 0. It may have to write them first, or to wait for room
/// in its queues.
async fn advise(file: Arc<OpenFile>, offset: u64, len: u64, needed: bool) {
    if file.ops().may_sleep() {
        executor::blocking(move || file.ops().advise(offset, len, needed)).await;
    }
}

/// readahead(2).
pub async fn readahead(cx: &mut Cx<'_>, fd: i32, offset: i64, count: usize) -> SysResult {
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) || !file.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    match file.inode().metadata()?.kind() {
        // To Linux a length is signed.
        _ if i64::try_from(count).is_err() => return Err(Errno::EINVAL.into()),
        S_IFREG if count > 0 => advise(file, offset.cast_unsigned(), count as u64, true).await,
        S_IFREG | S_IFBLK => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// cachestat(2).
pub fn cachestat(cx: &mut Cx<'_>, fd: i32, range: Ptr, stat: Ptr, flags: u32) -> SysResult {
    let file = real_file(cx, fd)?;
    let [offset, len]: [u64; 2] = cx.read(range)?;
    // What others read of a file is told only to those who could change it.
    if !file.flags().writable() {
        let meta = file.inode().metadata()?;
        let cred = &cx.credentials;
        if !permission::is_owner(cred, &meta) {
            permission::check_file(cred, &**file.inode(), &meta, permission::WRITE)
                .map_err(|_| Errno::EPERM)?;
        }
    }
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = file.ops().cache_stat(offset, len)?;
    cx.write(stat, &found)?;
    Ok(0)
}
