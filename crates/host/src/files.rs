//! Threads and their view of the file system.

use std::io;

use rustix::thread::UnshareFlags;

/// Gives the calling thread a current directory (and umask) of its own, so that fchdir(2) in it
/// moves nobody else. See unshare(2), `CLONE_FS`.
pub fn private_cwd() -> io::Result<()> {
    // SAFETY: descriptors stay shared, which is what the call could break.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    Ok(())
}
