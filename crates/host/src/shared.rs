//! Memory shared with processes that are not trusted. Never handed out as references to plain data.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux_abi::Errno;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// A sealed memfd, mapped for reading and writing for the life of our process.
pub struct SharedFile {
    fd: OwnedFd,
    base: *mut u8,
    size: usize,
}

// SAFETY: the mapping lives as long as the process; all access goes through raw pointers and atomics.
unsafe impl Send for SharedFile {}
// SAFETY: as above.
unsafe impl Sync for SharedFile {}

impl SharedFile {
    /// A file of zeroes. With `read_only`, nobody can map it for writing from now on but us.
    pub fn new(name: &str, size: usize, read_only: bool) -> Result<SharedFile, Errno> {
        let errno = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(errno)?;
        ftruncate(&fd, size as u64).map_err(errno)?;
        // SAFETY: a new mapping at an address of the host's choice.
        let base = unsafe {
            mmap(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)
        }
        .map_err(errno)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        if read_only {
            seals |= SealFlags::FUTURE_WRITE;
        }
        fcntl_add_seals(&fd, seals | SealFlags::SEAL).map_err(errno)?;
        Ok(SharedFile { fd, base: base.cast(), size })
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The address of `len` bytes at an offset, if within the file.
    pub fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: within the mapping.
        (end <= self.size).then(|| unsafe { self.base.add(offset) })
    }

    /// Gives pages back to the host; they read as zeroes again.
    pub fn discard(&self, offset: usize, len: usize) {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        // Best effort: the memory comes back when the slot is used again.
        let _ = rustix::fs::fallocate(&self.fd, mode, offset as u64, len as u64);
    }
}
