//! The open files that a process from outside starts with.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use control::ErrorKind;
use fs_kernel::tty::{Terminal, Terminals};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFCHR, makedev};
use vfs::{Inode, OpenFile, Place, WalkFlags, Walker};

use crate::launch::Booter;
use crate::sandbox::{SandboxError, Stdio};

/// Standard streams, then preserved descriptors; and the terminal, if there is one.
pub(crate) struct Streams {
    pub(crate) files: Vec<Arc<OpenFile>>,
    pub(crate) terminal: Option<Arc<Terminal>>,
}

impl Streams {
    /// Opens what came from outside.
    pub(crate) fn open(
        stdio: Stdio,
        preserved: Vec<OwnedFd>,
        terminals: &Arc<Terminals>,
        root: &Place,
    ) -> Result<Streams, SandboxError> {
        let failed = |e: Errno| SandboxError::new(ErrorKind::Other, format!("standard streams: {e}"));
        let mut streams = Streams { files: Vec::new(), terminal: None };
        match stdio {
            Stdio::Terminal(slave, error) => {
                let terminal = terminals.adopt(slave).map_err(failed)?;
                let file = open_terminal(&terminal, root);
                let error = error.map(|fd| open_stream(fd, root).map_err(failed)).transpose()?;
                streams.files.extend([file.clone(), file.clone(), error.unwrap_or(file)]);
                streams.terminal = Some(terminal);
            }
            Stdio::Files(fds) => {
                for fd in fds {
                    streams.files.push(open_stream(fd, root).map_err(failed)?);
                }
            }
        }
        for fd in preserved {
            streams.files.push(open_stream(fd, root).map_err(failed)?);
        }
        Ok(streams)
    }
}

/// A descriptor from outside; the host's null(4) is the one inside, by which tar(1) and others know that nobody reads.
fn open_stream(fd: OwnedFd, root: &Place) -> Result<Arc<OpenFile>, Errno> {
    if fs_kernel::stdio::is_null(&fd)
        && let Some((place, inode)) = look_up("/dev/null", root)
        && inode.metadata().is_ok_and(|now| now.kind() == S_IFCHR && now.rdev == makedev(1, 3))
    {
        let access = fs_kernel::stdio::access(&fd)?;
        return Ok(OpenFile::new(place, inode, fs_kernel::mem_devices::null(), access));
    }
    fs_kernel::stdio::open(fd)
}

fn look_up(path: &str, root: &Place) -> Option<(Place, Arc<dyn Inode>)> {
    let mut booter = Booter::root();
    let mut walker = Walker::new(root.clone(), root.clone(), &mut booter, WalkFlags::empty());
    let place = walker.resolve(path.as_bytes()).ok()?;
    let inode = place.inode().ok()?;
    Some((place, inode))
}

/// Under its name in /dev/pts, by which ttyname(3) finds it, where that is mounted.
fn open_terminal(terminal: &Arc<Terminal>, root: &Place) -> Arc<OpenFile> {
    let ops = Terminals::slave(terminal);
    match look_up(&format!("/dev/pts/{}", terminal.index()), root) {
        Some((place, inode)) => OpenFile::new(place, inode, ops, OpenFlags::RDWR),
        None => OpenFile::anonymous(b"tty:", S_IFCHR | 0o620, ops, OpenFlags::RDWR),
    }
}
