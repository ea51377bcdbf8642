//! What the control server asks of a running kernel.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;

use control::{CgroupInfo, ConsoleSize, ErrorKind, ExitStatus, ProcessInfo, ProcessSpec, Stats};
use linux_abi::Errno;

/// A booted kernel with its prepared first process.
///
/// All methods may be called from any thread and answer promptly; only
/// [`exec`](Sandbox::exec) and [`start_init`](Sandbox::start_init) may read
/// files meanwhile.
pub trait Sandbox: Send + Sync + 'static {
    /// Lets the prepared first process run. Returns its guest process id.
    fn start_init(&self) -> Result<i32, SandboxError>;

    /// Starts another process; `preserved` become its descriptors 3, 4, …
    /// Returns its guest process id.
    fn exec(&self, process: ProcessSpec, stdio: Stdio, preserved: Vec<OwnedFd>) -> Result<i32, SandboxError>;

    /// Sends a signal.
    fn signal(&self, target: Target, signal: i32) -> Result<(), SandboxError>;

    /// Calls `notify` once when the process has ended (at once, if it has).
    /// Only processes made by `start_init` and `exec` can be awaited.
    fn on_exit(&self, pid: i32, notify: ExitNotify) -> Result<(), SandboxError>;

    /// Calls `notify` once when the first process is stopped by a signal, at once if it is; never if it ends before.
    fn on_stop(&self, notify: Box<dyn FnOnce(i32) + Send>) -> Result<(), SandboxError>;

    /// The terminal of a process made by `start_init` or `exec` has a new size.
    fn window_size(&self, target: Target, size: ConsoleSize) -> Result<(), SandboxError>;

    /// The guest's processes.
    fn processes(&self) -> Vec<ProcessInfo>;

    /// Shows these limits from now on, and allows so many tasks.
    fn set_limits(&self, limits: &CgroupInfo);

    /// Counters.
    fn stats(&self) -> Stats;
}

/// Called with the end of a process.
pub type ExitNotify = Box<dyn FnOnce(ExitStatus) + Send>;

/// Which processes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first process.
    Init,
    /// One guest process.
    Process(i32),
    /// The first process's group.
    Group,
    /// Every process of the sandbox.
    All,
}

/// Standard streams handed to a process.
#[derive(Debug)]
pub enum Stdio {
    /// A host pty slave in raw mode, above which the guest's own line discipline runs; and standard error, where
    /// that is not the terminal.
    Terminal(OwnedFd, Option<OwnedFd>),
    /// Standard input, output and error.
    Files([OwnedFd; 3]),
}

/// Why a sandbox could not do something. The message is one line for people,
/// in runc's words where engines read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxError {
    /// The sort of failure.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
}

impl SandboxError {
    /// An error with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> SandboxError {
        SandboxError { kind, message: message.into() }
    }

    /// The program of a process is not there: `docker run` exits with 127.
    pub fn not_found(program: &OsStr, errno: Errno) -> SandboxError {
        let program = program.to_string_lossy();
        let message = if program.contains('/') {
            format!("exec: \"{program}\": stat {program}: {}", words(errno))
        } else {
            format!("exec: \"{program}\": executable file not found in $PATH")
        };
        SandboxError::new(ErrorKind::Program, message)
    }

    /// The program may not be executed (a directory, no permission bit):
    /// `docker run` exits with 126.
    pub fn not_executable(program: &OsStr) -> SandboxError {
        let program = program.display();
        SandboxError::new(ErrorKind::Program, format!("exec: \"{program}\": permission denied"))
    }

    /// execve failed for another reason, such as a wrong format.
    pub fn exec_failed(program: &OsStr, reason: &str) -> SandboxError {
        SandboxError::new(ErrorKind::Program, format!("exec {}: {reason}", program.display()))
    }

    /// The working directory cannot be entered.
    pub fn no_directory(cwd: &OsStr, errno: Errno) -> SandboxError {
        let reason = words(errno);
        SandboxError::new(
            ErrorKind::Program,
            format!("chdir to cwd ({:?}) set in config.json failed: {reason}", cwd.to_string_lossy()),
        )
    }

    /// There is no such guest process.
    pub fn no_such_process() -> SandboxError {
        SandboxError::new(ErrorKind::NoSuchProcess, "no such process")
    }
}

/// strerror(3) as Go, and so runc and who reads its messages, spells it.
pub(crate) fn words(errno: Errno) -> String {
    errno.description().map_or_else(|| errno.to_string(), str::to_lowercase)
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SandboxError {}
