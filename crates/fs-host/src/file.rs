//! Open regular files of the host.

use std::any::Any;
use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use linux_abi::Errno;
use linux_abi::fs::{CacheStat, OpenFlags};
use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom};
use rustix::io::ReadWriteFlags;
use vfs::{AtHostFile, FileOps, MapRequest, MapSource, OpenFile, Result, Whence};

use crate::asking::Asking;
use crate::attributes::Known;
use crate::errno;
use crate::inode::HostInode;

/// `PROT_WRITE` of mmap(2).
const PROT_WRITE: u32 = 2;

/// An open regular file: a host handle shared with others, positions given with each call.
pub(crate) struct OpenRegular {
    inode: Arc<HostInode>,
    fd: Arc<OwnedFd>,
    /// Read-only twin for mappings that do not write, and for what a process reads by itself.
    mapped: OnceLock<Arc<OwnedFd>>,
    was_read: AtomicBool,
    asking: Asking,
}

impl OpenRegular {
    pub(crate) fn new(inode: Arc<HostInode>, flags: OpenFlags) -> Result<OpenRegular> {
        let access = match (flags.readable(), flags.writable()) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        let fd = inode.handle(access)?;
        // Overlays do not know RWF_NOWAIT.
        let asking = Asking::new(!inode.fs().copies_up);
        Ok(OpenRegular { inode, fd, mapped: OnceLock::new(), was_read: AtomicBool::new(false), asking })
    }

    /// Handles are shared, so that synchronous writing is asked for with each write.
    fn write_flags(file: &OpenFile) -> ReadWriteFlags {
        let flags = file.flags();
        let mut rwf = ReadWriteFlags::empty();
        if flags.contains(OpenFlags::DSYNC) {
            rwf |= ReadWriteFlags::DSYNC;
        }
        if flags.contains(OpenFlags::SYNC) {
            rwf |= ReadWriteFlags::SYNC;
        }
        rwf
    }

    /// A handle of a file that is open for writing, too, for reading alone.
    fn read_only(&self) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.mapped.get() {
            return Ok(Arc::clone(fd));
        }
        let fd = self.inode.handle(OFlags::RDONLY)?;
        Ok(Arc::clone(self.mapped.get_or_init(|| fd)))
    }

    /// It was read.
    fn accessed(&self) {
        let strict = self.inode.fs().strict_access;
        if !self.was_read.swap(true, Ordering::Relaxed) || strict {
            // There is no event of the new access time.
            self.inode.attributes.accessed(strict);
        }
    }
}

impl FileOps for OpenRegular {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let read = |_| rustix::io::pread(&self.fd, &mut *buf, pos).map_err(errno);
        self.asking.read(file, false, read).inspect(|_| self.accessed())
    }
    fn read_at_once(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let read = |asks| match asks {
            true => {
                let mut to = [IoSliceMut::new(buf)];
                rustix::io::preadv2(&self.fd, &mut to, pos, ReadWriteFlags::NOWAIT).map_err(errno)
            }
            false => rustix::io::pread(&self.fd, &mut *buf, pos).map_err(errno),
        };
        self.asking.read(file, true, read).inspect(|_| self.accessed())
    }
    fn reads_at_once(&self) -> bool {
        self.asking.can_tell()
    }
    fn read_host(
        &self,
        file: &OpenFile,
        pos: u64,
        at_once: bool,
        read: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        let count = self.asking.read(file, at_once, |asks| read(self.fd.as_fd(), pos, asks));
        Some(count.inspect(|_| self.accessed()))
    }
    fn write_host(
        &self,
        file: &OpenFile,
        _len: usize,
        pos: u64,
        write: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        if !OpenRegular::write_flags(file).is_empty() {
            return None;
        }
        let written = write(self.fd.as_fd(), pos, false);
        self.inode.changed();
        Some(written)
    }
    fn write(&self, file: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        let flags = OpenRegular::write_flags(file);
        let written = if flags.is_empty() {
            rustix::io::pwrite(&self.fd, buf, pos)
        } else {
            rustix::io::pwritev2(&self.fd, &[IoSlice::new(buf)], pos, flags)
        };
        self.inode.changed();
        written.map_err(errno)
    }
    fn append(&self, file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let flags = OpenRegular::write_flags(file) | ReadWriteFlags::APPEND;
        let guard = self.inode.appending.lock();
        let count = rustix::io::pwritev2(&self.fd, &[IoSlice::new(buf)], 0, flags).map_err(errno)?;
        let end = Known::of(&*self.fd)?.metadata.size;
        self.inode.changed();
        drop(guard);
        Ok((count, end))
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let from = || u64::try_from(offset).map_err(|_| Errno::ENXIO);
        match whence {
            Whence::End => {
                let size = Known::of(&*self.fd)?.metadata.size;
                size.checked_add_signed(offset).ok_or(Errno::EINVAL)
            }
            // These move the host's position of the shared handle, which nobody uses.
            Whence::Data => rustix::fs::seek(&self.fd, SeekFrom::Data(from()?)).map_err(errno),
            Whence::Hole => rustix::fs::seek(&self.fd, SeekFrom::Hole(from()?)).map_err(errno),
            Whence::Set | Whence::Current => Err(Errno::EINVAL),
        }
    }
    fn fsync(&self, _file: &OpenFile, data_only: bool) -> Result<()> {
        if data_only { rustix::fs::fdatasync(&self.fd) } else { rustix::fs::fsync(&self.fd) }.map_err(errno)
    }
    fn fallocate(&self, _file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode);
        let done = rustix::fs::fallocate(&self.fd, mode, offset, len);
        self.inode.changed();
        done.map_err(errno)
    }
    fn advise(&self, offset: u64, len: u64, needed: bool) {
        // The memory of a tree that is the host's programs' alone is theirs to keep.
        if needed || self.inode.writable().is_ok() {
            let advice = if needed { Advice::WillNeed } else { Advice::DontNeed };
            // It is a hint.
            let _ = rustix::fs::fadvise(&self.fd, offset, NonZeroU64::new(len), advice);
        }
    }
    fn cache_stat(&self, offset: u64, len: u64) -> Result<CacheStat> {
        // What programs of the host read of a tree that is theirs alone is not the guest's to see.
        self.inode.writable().map_err(|_| Errno::EPERM)?;
        host::files::cache_stat(&self.fd, offset, len)
    }
    fn mmap(&self, file: &OpenFile, request: &MapRequest) -> Result<MapSource> {
        let flags = file.flags();
        if !flags.readable() {
            return Err(Errno::EACCES);
        }
        let fd = if !flags.writable() {
            Arc::clone(&self.fd)
        } else if request.shared {
            // mprotect(2) may add PROT_WRITE later, as the file is open for writing.
            Arc::clone(&self.fd)
        } else {
            self.read_only()?
        };
        if request.shared && request.prot & PROT_WRITE != 0 && !flags.writable() {
            return Err(Errno::EACCES);
        }
        if request.shared && flags.writable() {
            // What is written through it changes the times without any event.
            self.inode.attributes.give_up();
        }
        let keep = !(request.shared && flags.writable());
        Ok(MapSource::Host { fd, offset: request.offset, keep })
    }
    fn read_only_host(&self, file: &OpenFile) -> Option<Arc<OwnedFd>> {
        if self.inode.fs().strict_access {
            // Each read is to be heard of.
            return None;
        }
        let flags = file.flags();
        match (flags.readable(), flags.writable()) {
            (true, false) => Some(Arc::clone(&self.fd)),
            (true, true) => self.read_only().ok(),
            _ => None,
        }
    }
    fn may_sleep(&self) -> bool {
        true
    }
}
