//! Open host directories: getdents(2) with the host's own positions.

use std::any::Any;
use std::mem::MaybeUninit;
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
    fd: Mutex<OwnedFd>,
}

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<HostInode>) -> Result<OpenDirectory> {
        let fd = inode.open_handle(OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(OpenDirectory { inode, fd: Mutex::new(fd) })
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
        let fd = self.fd.lock();
        let to = match whence {
            Whence::End => SeekFrom::End(offset),
            _ => return Err(linux_abi::Errno::EINVAL),
        };
        rustix::fs::seek(&*fd, to).map_err(errno)
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let fd = self.fd.lock();
        rustix::fs::seek(&*fd, SeekFrom::Start(pos)).map_err(errno)?;
        let is_root = self.inode.is_root();
        let mut position = pos;
        let mut buffer = Vec::with_capacity(BUFFER);
        buffer.resize(BUFFER, MaybeUninit::uninit());
        let mut entries = RawDir::new(&*fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            let next = entry.next_entry_cookie();
            // What lies above the root is not the guest's to know.
            let ino = if is_root && name == b".." { self.inode.identity().ino } else { entry.ino() };
            if !sink(DirEntry { ino, next, kind: kind(entry.file_type()), name }) {
                break;
            }
            position = next;
        }
        Ok(position)
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        rustix::fs::fsync(&*self.fd.lock()).map_err(errno)
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
