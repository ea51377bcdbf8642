//! Where the bytes of a file are: here, or in a host memfd.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use linux_abi::fs::CacheStat;
use rustix::fs::{FallocateFlags, SeekFrom};
use vfs::Result;

use crate::pages::Pages;
use crate::{PAGE, errno, table};

/// Contents up to this many bytes are a plain vector.
pub(crate) const SMALL: usize = 64 * 1024;
/// Bytes moved at once between pages and a memfd.
const CHUNK: usize = 256 * 1024;

/// The bytes of a file. The file's size is kept beside it; what is missing here is zero.
pub(crate) enum Store {
    /// All bytes up to the end of the vector, at most [`SMALL`].
    Bytes(Vec<u8>),
    /// Larger contents of a file that has no host descriptor.
    Pages(Pages),
    /// A host memfd of exactly the file's size.
    Memfd(HostFile),
}

/// A host memfd that holds a file's contents.
pub(crate) struct HostFile {
    pub(crate) fd: Arc<OwnedFd>,
    /// The same, opened for reading only, once a mapping needed it.
    pub(crate) read_only: Option<Arc<OwnedFd>>,
    /// A guest may have it mapped: it stays where it is.
    pub(crate) mapped: bool,
    /// Open files that guests read by descriptors of their own have this, too: it stays where it is so long.
    pub(crate) lent: Arc<()>,
    /// Gives the place in the table of descriptors back.
    pub(crate) _permit: table::Permit,
}

/// Bytes whose freeing would keep others waiting.
pub(crate) const MUCH: u64 = 16 << 20;

impl Store {
    /// Gives the memory back, later where that takes long. `size`: the file's.
    pub(crate) fn free(self, size: u64) {
        if size >= MUCH {
            executor::defer(move || drop(self));
        }
    }

    /// Whether a guest may change it, or have pages made in it, without a word.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Store::Memfd(file) if file.mapped)
    }

    /// Whether guests may read it without a word.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self, Store::Memfd(file) if Arc::strong_count(&file.lent) > 1)
    }

    /// Whether another store may take its place: no guest sees this one.
    pub(crate) fn is_replaceable(&self) -> bool {
        !self.is_mapped() && !self.is_lent()
    }

    /// Pages in use.
    pub(crate) fn pages(&self) -> u64 {
        match self {
            Store::Bytes(bytes) => (bytes.len() as u64).div_ceil(PAGE),
            Store::Pages(pages) => pages.count(),
            Store::Memfd(file) => rustix::fs::fstat(&file.fd)
                .map_or(0, |stat| (stat.st_blocks as u64).saturating_mul(512) / PAGE),
        }
    }

    /// Pages that writing this range would add at most.
    pub(crate) fn missing(&self, pos: u64, len: u64) -> u64 {
        let (first, end) = (pos / PAGE, pos.saturating_add(len).div_ceil(PAGE));
        let all = end - first;
        match self {
            Store::Bytes(bytes) => end.saturating_sub(((bytes.len() as u64).div_ceil(PAGE)).max(first)),
            Store::Pages(pages) => all - pages.present(first..end),
            Store::Memfd(file) => {
                let mut missing = all;
                let mut at = first * PAGE;
                while let Ok(data) = rustix::fs::seek(&file.fd, SeekFrom::Data(at)) {
                    if data >= end * PAGE {
                        break;
                    }
                    let Ok(hole) = rustix::fs::seek(&file.fd, SeekFrom::Hole(data)) else { break };
                    let upto = hole.min(end * PAGE);
                    missing = missing.saturating_sub(upto.div_ceil(PAGE) - data / PAGE);
                    if hole <= at {
                        break;
                    }
                    at = hole;
                }
                missing
            }
        }
    }

    /// cachestat(2): the pages in memory among those that the range touches, to the end with length 0.
    pub(crate) fn cache_stat(&self, offset: u64, len: u64) -> Result<CacheStat> {
        let first = offset / PAGE;
        // Linux, too, lets the end go round.
        let last = if len == 0 { u64::MAX / PAGE } else { offset.wrapping_add(len).wrapping_sub(1) / PAGE };
        let numbers = first..last.saturating_add(1).max(first);
        let cache = match self {
            Store::Bytes(bytes) => numbers.end.min((bytes.len() as u64).div_ceil(PAGE)).saturating_sub(first),
            Store::Pages(pages) => pages.present(numbers),
            Store::Memfd(file) => return host::files::cache_stat(&file.fd, offset, len),
        };
        Ok(CacheStat { cache, ..CacheStat::default() })
    }

    /// Fills `buf`, which ends before the file does.
    pub(crate) fn read(&self, pos: u64, buf: &mut [u8]) -> Result<usize> {
        match self {
            Store::Bytes(bytes) => {
                let start = usize::try_from(pos).unwrap_or(usize::MAX).min(bytes.len());
                let have = (bytes.len() - start).min(buf.len());
                let (data, zero) = buf.split_at_mut(have);
                data.copy_from_slice(&bytes[start..start + have]);
                zero.fill(0);
                Ok(buf.len())
            }
            Store::Pages(pages) => {
                pages.read(pos, buf);
                Ok(buf.len())
            }
            Store::Memfd(file) => rustix::io::pread(&file.fd, buf, pos).map_err(errno),
        }
    }

    /// Writes where there is room for it: [`Store::make_room`] was called.
    pub(crate) fn write(&mut self, pos: u64, buf: &[u8]) -> Result<usize> {
        match self {
            Store::Bytes(bytes) => {
                let start = usize::try_from(pos).map_err(|_| linux_abi::Errno::EFBIG)?;
                let end = start + buf.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(buf);
                Ok(buf.len())
            }
            Store::Pages(pages) => {
                pages.write(pos, buf);
                Ok(buf.len())
            }
            Store::Memfd(file) => rustix::io::pwrite(&file.fd, buf, pos).map_err(errno),
        }
    }

    /// The file's size changes to this.
    pub(crate) fn resize(&mut self, size: u64) -> Result<()> {
        match self {
            Store::Bytes(bytes) => {
                if let Ok(size) = usize::try_from(size) {
                    bytes.truncate(size);
                }
                if bytes.is_empty() {
                    *bytes = Vec::new();
                }
            }
            Store::Pages(pages) => pages.punch(size, u64::MAX - size),
            Store::Memfd(file) => rustix::fs::ftruncate(&file.fd, size).map_err(errno)?,
        }
        Ok(())
    }

    /// Makes a range zero and frees what it can.
    pub(crate) fn punch(&mut self, pos: u64, len: u64) -> Result<()> {
        match self {
            Store::Bytes(bytes) => {
                let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let (start, end) = (clamp(pos), clamp(pos.saturating_add(len)));
                bytes[start..end].fill(0);
            }
            Store::Pages(pages) => pages.punch(pos, len),
            Store::Memfd(file) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file.fd, flags, pos, len).map_err(errno)?;
            }
        }
        Ok(())
    }

    /// Takes memory for a range.
    pub(crate) fn allocate(&mut self, pos: u64, len: u64) -> Result<()> {
        match self {
            // Of so little nothing is taken ahead.
            Store::Bytes(_) => {}
            Store::Pages(pages) => pages.allocate(pos / PAGE..pos.saturating_add(len).div_ceil(PAGE)),
            Store::Memfd(file) => {
                rustix::fs::fallocate(&file.fd, FallocateFlags::KEEP_SIZE, pos, len).map_err(errno)?;
            }
        }
        Ok(())
    }

    /// Data or a hole at or after `pos` (which is before the end).
    pub(crate) fn seek(&self, pos: u64, size: u64, data: bool) -> Option<u64> {
        match self {
            Store::Bytes(bytes) => {
                let len = bytes.len() as u64;
                if data { (pos < len).then_some(pos) } else { Some(pos.max(len)) }
            }
            Store::Pages(pages) => {
                if data {
                    pages.next_data(pos)
                } else {
                    Some(pages.next_hole(pos))
                }
            }
            Store::Memfd(file) => {
                let to = if data { SeekFrom::Data(pos) } else { SeekFrom::Hole(pos) };
                rustix::fs::seek(&file.fd, to).ok()
            }
        }
        .filter(|&found| !data || found < size)
        .map(|found| found.min(size))
    }

    /// Moves a vector that would grow beyond [`SMALL`] elsewhere; `end` is where a write will end.
    /// True if a memfd was made.
    pub(crate) fn make_room(&mut self, end: u64, size: u64) -> bool {
        if !matches!(self, Store::Bytes(_)) || end <= SMALL as u64 {
            return false;
        }
        // Without a descriptor it goes on in pages.
        if let Some(permit) = table::Permit::take()
            && self.move_to_memfd(size, permit).is_ok()
        {
            return true;
        }
        if let Store::Bytes(bytes) = self {
            let mut pages = Pages::default();
            pages.write(0, bytes);
            *self = Store::Pages(pages);
        }
        false
    }

    /// Moves the contents to a memfd.
    pub(crate) fn move_to_memfd(&mut self, size: u64, permit: table::Permit) -> Result<()> {
        let fd = table::create()?;
        rustix::fs::ftruncate(&fd, size).map_err(errno)?;
        match &*self {
            Store::Bytes(bytes) => write_all(&fd, 0, bytes)?,
            Store::Pages(pages) => {
                for (pos, page) in pages.iter() {
                    let len = page.len().min(usize::try_from(size.saturating_sub(pos)).unwrap_or(usize::MAX));
                    write_all(&fd, pos, &page[..len])?;
                }
            }
            Store::Memfd(_) => return Ok(()),
        }
        let file = HostFile {
            fd: Arc::new(fd),
            read_only: None,
            mapped: false,
            lent: Arc::default(),
            _permit: permit,
        };
        *self = Store::Memfd(file);
        Ok(())
    }

    /// Moves the contents of an unmapped memfd back here, which frees its descriptor.
    pub(crate) fn move_from_memfd(&mut self, size: u64) -> Result<()> {
        let Store::Memfd(file) = &*self else { return Ok(()) };
        let mut pages = Pages::default();
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(&file.fd, SeekFrom::Data(at)) {
            let hole = rustix::fs::seek(&file.fd, SeekFrom::Hole(data)).map_err(errno)?.min(size);
            let mut pos = data;
            while pos < hole {
                let want = usize::try_from(hole - pos).unwrap_or(CHUNK).min(CHUNK);
                let got = rustix::io::pread(&file.fd, &mut buf[..want], pos).map_err(errno)?;
                if got == 0 {
                    break;
                }
                pages.write(pos, &buf[..got]);
                pos += got as u64;
            }
            if hole <= at {
                break;
            }
            at = hole;
        }
        *self = Store::Pages(pages);
        Ok(())
    }
}

fn write_all(fd: &OwnedFd, mut pos: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(fd, bytes, pos).map_err(errno)?;
        pos += count as u64;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}
