//! Becoming the waiter, a program of a few pages that stands in for one guest process: `waiter/main.rs`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A static ELF program.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/waiter"));

/// Blocks every signal of the calling thread: none may be lost before the waiter collects them.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set is filled before it is read.
    let failed = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces the calling process by the waiter of guest process `pid`, which was started over `channel`.
/// Descriptors 0 to 2 stay, all others close. Returns only to say why not.
pub fn replace(channel: BorrowedFd<'_>, terminal: Option<BorrowedFd<'_>>, pid: i32) -> io::Error {
    match try_replace(channel, terminal, pid) {
        Ok(()) => io::Error::other("the waiter did not start"),
        Err(error) => error,
    }
}

fn try_replace(channel: BorrowedFd<'_>, terminal: Option<BorrowedFd<'_>>, pid: i32) -> io::Result<()> {
    let image = crate::files::sealed("sallet-waiter", IMAGE)?;
    let number = CString::new(pid.to_string()).map_err(io::Error::other)?;
    let argv = [c"sallet".as_ptr(), number.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: plain system calls on descriptors that live; the arrays of C strings end with null.
    unsafe {
        // Out of the way of 3 and 4 first.
        let above = |fd: i32| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10);
        let image = above(image.as_raw_fd());
        let channel = above(channel.as_raw_fd());
        let terminal = terminal.map(|fd| above(fd.as_raw_fd()));
        let mut failed = image < 0 || channel < 0 || terminal.is_some_and(|fd| fd < 0);
        failed |= libc::dup2(channel, 3) < 0;
        failed |= match terminal {
            Some(fd) => libc::dup2(fd, 4) < 0,
            None => {
                libc::close(4);
                false
            }
        };
        failed |= libc::syscall(libc::SYS_close_range, 5u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0;
        if !failed {
            libc::syscall(
                libc::SYS_execveat,
                image,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
    }
    Err(io::Error::last_os_error())
}
