//! File locks: POSIX (fcntl), open file description, flock(2).

use std::sync::Arc;

use vfs::OpenFile;

use crate::Process;

/// A descriptor of the process was closed: its POSIX locks on the file go (fcntl(2)).
pub fn descriptor_closed(_process: &Process, _file: &Arc<OpenFile>) {}
