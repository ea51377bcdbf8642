//! Process file descriptors: pidfd_open(2).

use std::any::Any;
use std::sync::{Arc, OnceLock};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::{FileOps, OpenFile};

use crate::{Kernel, Process, Result};

/// What a pidfd refers to.
#[derive(Default)]
pub struct PidFd {
    /// None while clone(2) makes the process.
    process: OnceLock<Arc<Process>>,
}

impl PidFd {
    /// Sets the process, once.
    pub fn set(&self, process: &Arc<Process>) {
        let _ = self.process.set(process.clone());
    }
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.process.get().is_some_and(|p| p.is_zombie()) { Events::READABLE } else { Events::empty() }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        self.process.get().map(|p| p.exit_queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        // As Linux: -1 once it is reaped.
        let pid = self.process.get().map_or(-1, |p| match p.kernel().pids.process(p.pid()) {
            Ok(now) if Arc::ptr_eq(&now, p) => p.pid(),
            _ => -1,
        });
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }
}

/// The process id behind an open file, if it is a pidfd.
pub fn pid_of(file: &OpenFile) -> Option<i32> {
    process_of(file).map(|p| p.pid())
}

/// The process behind an open file, if it is a pidfd.
pub fn process_of(file: &OpenFile) -> Option<Arc<Process>> {
    file.ops_as::<PidFd>()?.process.get().cloned()
}

/// A new open pidfd.
pub fn open(process: &Arc<Process>, nonblock: bool) -> Arc<OpenFile> {
    let (file, pidfd) = reserve(nonblock);
    pidfd.set(process);
    file
}

/// A pidfd for a process that is yet to be made.
pub fn reserve(nonblock: bool) -> (Arc<OpenFile>, Arc<PidFd>) {
    let nonblock = if nonblock { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let ops = Arc::new(PidFd::default());
    let file = OpenFile::anonymous(b"anon_inode:[pidfd]", 0o600, ops.clone(), OpenFlags::RDWR | nonblock);
    (file, ops)
}

/// Finds the process whose directory of a procfs a file is.
pub type FindProcess = fn(&OpenFile) -> Option<Arc<Process>>;

impl Kernel {
    /// Sets how the process of a procfs directory is found, once.
    pub fn set_process_finder(&self, find: FindProcess) {
        // All procfs mounts set the same.
        let _ = self.find_process.set(find);
    }
    /// The process that a pidfd or a directory of a procfs refers to; `EBADF`.
    pub fn process_to_signal(&self, file: &OpenFile) -> Result<Arc<Process>> {
        let of_directory = || self.find_process.get().and_then(|find| find(file));
        process_of(file).or_else(of_directory).ok_or(Errno::EBADF)
    }
}
