//! The open files that a process from outside starts with.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use control::ErrorKind;
use fs_kernel::tty::{Terminal, Terminals};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFCHR};
use vfs::{OpenFile, Place, WalkFlags, Walker};

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
            Stdio::Terminal(slave) => {
                let terminal = terminals.adopt(slave).map_err(failed)?;
                let file = open_terminal(&terminal, root);
                streams.files.extend([file.clone(), file.clone(), file]);
                streams.terminal = Some(terminal);
            }
            Stdio::Files(fds) => {
                for fd in fds {
                    streams.files.push(fs_kernel::stdio::open(fd).map_err(failed)?);
                }
            }
        }
        for fd in preserved {
            streams.files.push(fs_kernel::stdio::open(fd).map_err(failed)?);
        }
        Ok(streams)
    }
}

/// Under its name in /dev/pts, by which ttyname(3) finds it, where that is mounted.
fn open_terminal(terminal: &Arc<Terminal>, root: &Place) -> Arc<OpenFile> {
    let ops = Terminals::slave(terminal);
    let mut booter = Booter::root();
    let path = format!("/dev/pts/{}", terminal.index());
    let found = Walker::new(root.clone(), root.clone(), &mut booter, WalkFlags::empty())
        .resolve(path.as_bytes())
        .and_then(|place| Ok((place.inode()?, place)));
    match found {
        Ok((inode, place)) => OpenFile::new(place, inode, ops, OpenFlags::RDWR),
        Err(_) => OpenFile::anonymous(b"tty:", S_IFCHR | 0o620, ops, OpenFlags::RDWR),
    }
}
