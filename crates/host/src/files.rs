//! Threads and their view of the file system; the page cache.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use linux_abi::Errno;
use linux_abi::fs::CacheStat;
use rustix::fs::{MemfdFlags, SealFlags};
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

/// A file in memory that nobody can write any more.
pub(crate) fn sealed(name: &str, mut bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    while !bytes.is_empty() {
        let written = rustix::io::write(&file, bytes)?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

/// pread(2) to memory that others may look at and change meanwhile; `at_once` what is in memory alone (`RWF_NOWAIT` of
/// preadv2(2)): `EAGAIN` where that is nothing, `EOPNOTSUPP` where the file system cannot tell.
///
/// # Safety
/// `len` bytes at `to` are mapped for writing as long as the call lasts, and nobody here has a reference to them.
pub unsafe fn read_at(
    fd: BorrowedFd<'_>,
    to: *mut u8,
    len: usize,
    offset: u64,
    at_once: bool,
) -> Result<usize, Errno> {
    let (fd, offset) = (fd.as_raw_fd(), offset.cast_signed());
    let count = if at_once {
        let one = libc::iovec { iov_base: to.cast(), iov_len: len };
        // SAFETY: the host writes where the caller allows it.
        unsafe { libc::preadv2(fd, &raw const one, 1, offset, libc::RWF_NOWAIT) }
    } else {
        // SAFETY: as above.
        unsafe { libc::pread(fd, to.cast(), len, offset) }
    };
    usize::try_from(count).map_err(|_| last_error())
}

/// pwrite(2) from memory that others may look at and change meanwhile.
///
/// # Safety
/// `len` bytes at `from` are mapped for reading as long as the call lasts.
pub unsafe fn write_at(fd: BorrowedFd<'_>, from: *const u8, len: usize, offset: u64) -> Result<usize, Errno> {
    // SAFETY: the host reads where the caller allows it.
    let count = unsafe { libc::pwrite(fd.as_raw_fd(), from.cast(), len, offset.cast_signed()) };
    usize::try_from(count).map_err(|_| last_error())
}

/// Whether a FIFO that is open for reading and non-blocking has, or since it was opened has had, somebody who writes.
/// Takes no bytes.
pub fn has_writer(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && !fds[0].revents().is_empty() {
        // Bytes, or a hang-up, which nobody sees before the first writer.
        return true;
    }
    // SAFETY: the host writes nothing to the address 0, where there never is memory: EFAULT if there are bytes, which
    // stay then. Without any it does not look at the address: EAGAIN with a writer, 0 without.
    let count = unsafe { libc::read(fd.as_raw_fd(), std::ptr::null_mut(), 1) };
    count != 0
}

fn last_error() -> Errno {
    Errno::from_raw(io::Error::last_os_error().raw_os_error().unwrap_or(0))
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
    if ret == 0 { Ok(stat) } else { Err(last_error()) }
}

#[cfg(test)]
mod tests {
    use super::has_writer;
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    use std::os::fd::AsFd;

    #[test]
    fn a_writer_is_seen_and_no_byte_taken() {
        let path = std::env::temp_dir().join(format!("sallet-fifo-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert!(!has_writer(reader.as_fd()));
        let writer = open(&path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(has_writer(reader.as_fd()));
        rustix::io::write(&writer, b"x").unwrap();
        assert!(has_writer(reader.as_fd()));
        assert_eq!(rustix::io::read(&reader, &mut [0; 8]), Ok(1));
        drop(writer);
        assert!(has_writer(reader.as_fd()));
    }
}
