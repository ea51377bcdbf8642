//! Open host directories: getdents(2) with the host's own positions.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use linux_abi::fs::DirentType;
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use vfs::{DirEntry, FileOps, OpenFile, Result, Whence};

use crate::errno;
use crate::inode::HostInode;

/// Bytes asked of the host at once.
const BUFFER: usize = 32 * 1024;

/// An open directory with its own host descriptor, as the host keeps the position in it.
pub(crate) struct OpenDirectory {
    inode: Arc<HostInode>,
    host: Mutex<HostDirectory>,
}

struct HostDirectory {
    fd: OwnedFd,
    /// Where the host stands.
    position: u64,
}

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<HostInode>) -> Result<OpenDirectory> {
        let fd = inode.open_handle(OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(OpenDirectory { inode, host: Mutex::new(HostDirectory { fd, position: 0 }) })
    }
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(linux_abi::Errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let to = match whence {
            Whence::End => SeekFrom::End(offset),
            _ => return Err(linux_abi::Errno::EINVAL),
        };
        let mut host = self.host.lock();
        host.position = rustix::fs::seek(&host.fd, to).map_err(errno)?;
        Ok(host.position)
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let mut host = self.host.lock();
        let HostDirectory { fd, position: stands } = &mut *host;
        // To the start it is a rewinddir(3), which sees what is new.
        if pos != *stands || pos == 0 {
            *stands = rustix::fs::seek(&*fd, SeekFrom::Start(pos)).map_err(errno)?;
        }
        let is_root = self.inode.is_root();
        let mut position = pos;
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(&*fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            let next = entry.next_entry_cookie();
            // Right once all that the host gave at once is used up.
            *stands = next;
            // What lies above the root is not the guest's to know.
            let ino = if is_root && name == b".." { self.inode.identity().ino } else { entry.ino() };
            if !sink(DirEntry { ino, next, kind: kind(entry.file_type()), name }) {
                *stands = u64::MAX;
                break;
            }
            position = next;
        }
        Ok(position)
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        rustix::fs::fsync(&self.host.lock().fd).map_err(errno)
    }
}

fn kind(kind: FileType) -> DirentType {
    match kind {
        FileType::RegularFile => DirentType::Regular,
        FileType::Directory => DirentType::Dir,
        FileType::Symlink => DirentType::Symlink,
        FileType::Fifo => DirentType::Fifo,
        FileType::Socket => DirentType::Socket,
        FileType::CharacterDevice => DirentType::Char,
        FileType::BlockDevice => DirentType::Block,
        _ => DirentType::Unknown,
    }
}
