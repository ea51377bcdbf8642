//! Signals as readable events: signalfd(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub signal: i32,
    /// Whether the host's kernel itself has sent it, as a terminal does to its foreground process group.
    pub by_kernel: bool,
}

/// A set of signals, blocked in the calling thread and those it starts later.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Every signal that can be caught, except those a fault raises.
    pub fn catchable() -> Vec<i32> {
        let faults = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
        ];
        // 32 and 33 belong to the C library.
        (1..=64).filter(|signal| !faults.contains(signal) && !(32..=33).contains(signal)).collect()
    }

    /// Blocks `signals` and collects them here. Reads do not block.
    pub fn new(signals: &[i32]) -> io::Result<SignalFd> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset fills the set before anything else reads it; the
        // numbers come from the caller and bad ones are refused by sigaddset.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(SignalFd { fd })
    }

    /// The next signal that has come, if any.
    pub fn read(&self) -> io::Result<Option<Caught>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is as large as the length says.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        if read as usize != size {
            return Ok(None);
        }
        // SAFETY: the host filled the whole structure.
        let info = unsafe { info.assume_init() };
        Ok(Some(Caught { signal: info.ssi_signo as i32, by_kernel: info.ssi_code == libc::SI_KERNEL }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the caller was told to ignore this signal, as nohup(1) tells its program.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no new action is given; the host fills the old one where it answers 0.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Restores a signal's default action and lets it through.
pub fn reset(signal: i32) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled before it is read; SIG_DFL is a valid action.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Stops the caller, or with `group` its whole process group, by `signal`, which it has blocked, until somebody
/// continues it. Answers at once where nobody could: a group that is orphaned is stopped by `SIGSTOP` alone.
pub fn stop_by(signal: i32, group: bool) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is filled before it is read; SIG_DFL is a valid action; kill takes numbers only.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        // What continues us is not to be met again later.
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCONT);
        libc::kill(if group { 0 } else { libc::getpid() }, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Ends the caller by `signal`, so that its parent sees the same death; with `group` its whole process group gets it.
pub fn die_by(signal: i32, group: bool) {
    reset(signal);
    // SAFETY: takes numbers only.
    unsafe {
        libc::kill(if group { 0 } else { libc::getpid() }, signal);
    }
}
