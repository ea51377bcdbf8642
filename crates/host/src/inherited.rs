//! Descriptors that came with the process.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A close-on-exec copy of an inherited descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl checks the number; a success is a new descriptor.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Takes over an inherited descriptor that nothing else in the process uses:
/// the number is free afterwards.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    let copy = duplicate(fd)?;
    // SAFETY: takes a number; the caller's contract is that it has no owner.
    unsafe { libc::close(fd) };
    Ok(copy)
}

/// The descriptors above standard error that are open now. Called first thing
/// in a program, these are what its parent left open.
pub fn list() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut open: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    // The descriptor that listed them is closed by now.
    open.retain(|fd| {
        // SAFETY: asks about a number.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) >= 0 }
    });
    open
}

/// Closes descriptors that nothing in the process uses, as [`list`] gave them.
pub fn close(inherited: &[RawFd]) {
    for fd in inherited {
        // SAFETY: the caller's contract is that they have no owner.
        unsafe { libc::close(*fd) };
    }
}
