//! How a handler ends without a value: an errno, or an interruption.

use linux_abi::Errno;

/// What an interrupted call does when a handler runs; without a handler it always goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Restarted if the handler has `SA_RESTART`, else `EINTR` (Linux's ERESTARTSYS).
    IfSaRestart,
    /// `EINTR` if any handler runs (ERESTARTNOHAND): pause, sigsuspend, poll, nanosleep.
    Never,
    /// Always restarted (ERESTARTNOINTR).
    Always,
}

/// Why a handler has no value to return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SysError {
    /// The call fails.
    Errno(Errno),
    /// A signal, a stop or death came while it waited; the run loop decides what follows.
    Interrupted(Restart),
}

impl From<Errno> for SysError {
    fn from(errno: Errno) -> SysError {
        SysError::Errno(errno)
    }
}

/// What a handler returns: the value for the register.
pub type SysResult<T = i64> = Result<T, SysError>;
