//! Process file descriptors: pidfd_open(2).

use std::any::Any;
use std::sync::Arc;

use executor::{Events, WaitQueue};
use linux_abi::fs::OpenFlags;
use vfs::{FileOps, OpenFile};

use crate::{Kernel, Process, Result};

/// What a pidfd refers to.
pub struct PidFd {
    process: Arc<Process>,
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.process.is_zombie() { Events::READABLE } else { Events::empty() }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.process.exit_queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        format!("Pid:\t{}\nNSpid:\t{}\n", self.process.pid(), self.process.pid())
    }
}

/// The process id behind an open file, if it is a pidfd.
pub fn pid_of(file: &OpenFile) -> Option<i32> {
    process_of(file).map(|p| p.pid())
}

/// The process behind an open file, if it is a pidfd.
pub fn process_of(file: &OpenFile) -> Option<Arc<Process>> {
    file.ops_as::<PidFd>().map(|p| p.process.clone())
}

/// A new open pidfd.
pub fn open(_kernel: &Arc<Kernel>, process: &Arc<Process>, nonblock: bool) -> Result<Arc<OpenFile>> {
    let nonblock = if nonblock { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    let ops = Arc::new(PidFd { process: process.clone() });
    Ok(OpenFile::anonymous(b"anon_inode:[pidfd]", 0o600, ops, OpenFlags::RDWR | nonblock))
}
