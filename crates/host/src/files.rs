//! Threads and their view of the file system; the page cache.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use linux_abi::Errno;
use linux_abi::fs::CacheStat;
use rustix::thread::UnshareFlags;

/// `SYS_cachestat`, which libc does not name.
const CACHESTAT: libc::c_long = 451;

/// Gives the calling thread a current directory (and umask) of its own, so that fchdir(2) in it
/// moves nobody else. See unshare(2), `CLONE_FS`.
pub fn private_cwd() -> io::Result<()> {
    // SAFETY: descriptors stay shared, which is what the call could break.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    Ok(())
}

/// What the page cache holds of a file's `len` bytes from `offset` on; to its end with length 0. cachestat(2).
///
/// # Errors
/// `EPERM` for files that we could neither write nor own; `ENOSYS` before Linux 6.5.
pub fn cache_stat(fd: &OwnedFd, offset: u64, len: u64) -> Result<CacheStat, Errno> {
    let range = [offset, len];
    let mut stat = CacheStat::default();
    // SAFETY: the host reads a structure of two words and writes one of five, which outlive the call.
    let ret = unsafe { libc::syscall(CACHESTAT, fd.as_raw_fd(), range.as_ptr(), &raw mut stat, 0) };
    if ret == 0 {
        Ok(stat)
    } else {
        Err(Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    }
}
