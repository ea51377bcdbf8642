//! Open regular files in memory.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use linux_abi::Errno;
use linux_abi::fs::{CacheStat, OpenFlags};
use vfs::{AtHostFile, FileOps, Inode, MapRequest, MapSource, OpenFile, Result, Whence};

use crate::contents::Lent;
use crate::inode::TmpInode;
use crate::table;

/// `PROT_WRITE` of mmap(2).
const PROT_WRITE: u32 = 2;

/// An open regular file of a tmpfs, or a memfd.
pub struct TmpFile(Arc<TmpInode>, OnceLock<Lent>);

impl TmpFile {
    pub(crate) fn new(inode: Arc<TmpInode>) -> TmpFile {
        TmpFile(inode, OnceLock::new())
    }

    /// fcntl(F_GET_SEALS): `F_SEAL_*`.
    pub fn seals(&self) -> Result<u32> {
        Ok(self.0.contents()?.read().seals.bits())
    }

    /// fcntl(F_ADD_SEALS).
    ///
    /// # Errors
    /// `EPERM` if not open for writing or sealed against seals; `EBUSY` if `F_SEAL_WRITE` is asked
    /// for while it is mapped for writing; `EINVAL`.
    pub fn add_seals(&self, file: &OpenFile, seals: u32) -> Result<()> {
        if !file.flags().writable() {
            return Err(Errno::EPERM);
        }
        let mode = self.0.mode();
        self.0.contents()?.write().add_seals(seals, mode)
    }

    fn was_read(&self, file: &OpenFile, count: usize) {
        if count > 0 && !file.flags().contains(OpenFlags::NOATIME) {
            self.0.accessed();
        }
    }

    /// Enters a file that got a memfd into the table, and makes room there if it is full.
    fn after(&self, made: bool) {
        if made {
            self.0.made_memfd();
            if table::scarce() {
                table::evict();
            }
        }
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if self.1.get().is_some() {
            self.0.read_by_guests();
        }
    }
}

impl FileOps for TmpFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let count = self.0.contents()?.read().read(buf, pos)?;
        self.was_read(file, count);
        Ok(count)
    }
    fn read_host(
        &self,
        file: &OpenFile,
        pos: u64,
        _at_once: bool,
        read: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        let result = read(self.0.contents().ok()?.read().memfd()?, pos, false);
        if let Ok(count) = result {
            self.was_read(file, count);
        }
        Some(result)
    }
    fn write_host(
        &self,
        _file: &OpenFile,
        len: usize,
        pos: u64,
        write: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        let result = write(self.0.contents().ok()?.write().memfd_to_overwrite(pos, len)?, pos, false);
        if result.is_ok() {
            self.0.modified();
        }
        Some(result)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        let mut contents = self.0.contents()?.write();
        let (count, made) = contents.write(&self.0.usage, buf, pos)?;
        // Before anybody reads it, who could tell others.
        self.0.shown.changed();
        drop(contents);
        self.0.modified();
        self.after(made);
        Ok(count)
    }
    fn append(&self, _file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let mut contents = self.0.contents()?.write();
        let end = contents.size;
        let (count, made) = contents.write(&self.0.usage, buf, end)?;
        self.0.shown.changed();
        drop(contents);
        self.0.modified();
        self.after(made);
        Ok((count, end + count as u64))
    }
    fn read_only_host(&self, file: &OpenFile) -> Option<Arc<OwnedFd>> {
        let flags = file.flags();
        // Others set the access time.
        if !flags.readable() || flags.contains(OpenFlags::NOATIME) {
            return None;
        }
        if let Some(lent) = self.1.get() {
            return Some(Arc::clone(&lent.fd));
        }
        if table::scarce() {
            table::evict();
        }
        self.0.read_by_guests();
        let (lent, made) = self.0.contents().ok()?.write().lend().ok()?;
        self.0.lent();
        if made {
            self.0.made_memfd();
        }
        // What was told of it holds the access time of before.
        self.0.shown.changed();
        Some(Arc::clone(&self.1.get_or_init(|| lent).fd))
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let contents = self.0.contents()?.read();
        let from = || u64::try_from(offset).map_err(|_| Errno::ENXIO);
        match whence {
            Whence::End => contents.size.checked_add_signed(offset).ok_or(Errno::EINVAL),
            Whence::Data => contents.seek(from()?, true),
            Whence::Hole => contents.seek(from()?, false),
            Whence::Set | Whence::Current => Err(Errno::EINVAL),
        }
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        Ok(())
    }
    fn fallocate(&self, _file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        let made = self.0.contents()?.write().allocate(&self.0.usage, mode, offset, len)?;
        self.0.modified();
        self.after(made);
        Ok(())
    }
    fn cache_stat(&self, offset: u64, len: u64) -> Result<CacheStat> {
        self.0.contents()?.read().cache_stat(offset, len)
    }
    fn mmap(&self, file: &OpenFile, request: &MapRequest) -> Result<MapSource> {
        let flags = file.flags();
        let writes = request.shared && request.prot & PROT_WRITE != 0;
        if !flags.readable() || writes && !flags.writable() {
            return Err(Errno::EACCES);
        }
        // mprotect(2) may add PROT_WRITE to a shared mapping of a file that is open for writing.
        let sealed = self.seals()? & (8 | 16) != 0;
        let writable = request.shared && flags.writable() && (writes || !sealed);
        if table::scarce() {
            table::evict();
        }
        if writable {
            self.0.mapped.store(true, std::sync::atomic::Ordering::SeqCst);
            self.0.shown.changed();
        }
        let (source, made) = self.0.contents()?.write().map(writable, request.offset)?;
        if made {
            self.0.made_memfd();
        }
        self.0.accessed();
        Ok(source)
    }
}

/// The inode as others see it.
pub(crate) fn parts(inode: Arc<TmpInode>) -> (Arc<dyn Inode>, Arc<dyn FileOps>) {
    let ops = Arc::new(TmpFile::new(Arc::clone(&inode)));
    (inode, ops)
}
