//! The host's procfs of our own pid namespace: what the host knows of the processes that run guest code.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};

static ROOT: OnceLock<OwnedFd> = OnceLock::new();

/// Says where the procfs is; before that (and without a jail) it is /proc. The first call counts.
pub fn set_root(root: OwnedFd) {
    let _ = ROOT.set(root);
}

/// Opens a file of it, such as `7/stat`, for reading. `path` is relative and never the guest's.
pub fn open(path: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = match ROOT.get() {
        Some(root) => openat(root, path, flags, Mode::empty())?,
        None => openat(rustix::fs::CWD, format!("/proc/{path}"), flags, Mode::empty())?,
    };
    Ok(File::from(fd))
}

/// Opens a process's memory for reading and writing; writes ignore the protection of private pages. `dir` is a
/// procfs of our pid namespace if it is not the one that was set.
pub fn open_memory(dir: Option<&OwnedFd>, pid: i32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let fd = match dir.or_else(|| ROOT.get()) {
        Some(root) => openat(root, format!("{pid}/mem"), flags, Mode::empty())?,
        None => openat(rustix::fs::CWD, format!("/proc/{pid}/mem"), flags, Mode::empty())?,
    };
    Ok(File::from(fd))
}

/// Reads a whole file of it.
pub fn read(path: &str) -> io::Result<String> {
    io::read_to_string(open(path)?)
}
