//! The contents of a regular file: size, bytes, seals (fcntl(2), memfd_create(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bitflags::bitflags;
use linux_abi::Errno;
use linux_abi::fs::CacheStat;
use linux_abi::time::Timespec;
use rustix::fs::SealFlags;
use vfs::{MapSource, Result};

use crate::PAGE;
use crate::errno;
use crate::file_system::Usage;
use crate::store::{self, HostFile, Store};
use crate::table;

bitflags! {
    /// `F_SEAL_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Seals: u32 {
        const SEAL = 1;
        const SHRINK = 2;
        const GROW = 4;
        const WRITE = 8;
        const FUTURE_WRITE = 16;
        const EXEC = 32;
    }
}

impl Seals {
    const NO_WRITE: Seals = Seals::WRITE.union(Seals::FUTURE_WRITE);
}

/// Largest size of a file.
const MAX_SIZE: u64 = i64::MAX as u64;

/// A descriptor of one open file by which guests read: for that alone.
pub(crate) struct Lent {
    pub(crate) fd: Arc<OwnedFd>,
    _lent: Arc<()>,
    _permit: table::Permit,
}

/// Size, bytes and seals, behind the inode's lock.
pub(crate) struct Contents {
    pub(crate) size: u64,
    pub(crate) seals: Seals,
    store: Store,
    /// Pages this file counts for.
    charged: u64,
    /// Its memfd has all pages of its size and no more: how many follows from the size, without asking the host.
    solid: bool,
    /// fallocate(2) may have taken pages behind the end.
    beyond: bool,
}

impl Contents {
    /// Empty; files of a tmpfs cannot be sealed, which is itself a seal.
    pub(crate) fn new() -> Contents {
        Contents {
            size: 0,
            seals: Seals::SEAL,
            store: Store::Bytes(Vec::new()),
            charged: 0,
            solid: false,
            beyond: false,
        }
    }

    pub(crate) fn pages(&self) -> u64 {
        // What is mapped grows unseen; all else was counted when it changed.
        if self.store.is_mapped() { self.store.pages() } else { self.charged }
    }

    fn charge(&mut self, usage: &Usage) {
        self.solid = false;
        let now = self.store.pages();
        self.charge_pages(usage, now);
    }

    fn charge_pages(&mut self, usage: &Usage, now: u64) {
        if now != self.charged {
            usage.account(self.charged, now);
            self.charged = now;
        }
    }

    /// Counts the pages after a write at `pos` that succeeded.
    fn charge_written(&mut self, usage: &Usage, pos: u64) {
        let all = self.size.div_ceil(PAGE);
        if self.solid && pos / PAGE <= self.charged && !self.store.is_mapped() {
            return self.charge_pages(usage, all);
        }
        self.charge(usage);
        self.solid = matches!(self.store, Store::Memfd(_)) && !self.beyond && self.charged == all;
    }

    pub(crate) fn read(&self, buf: &mut [u8], pos: u64) -> Result<usize> {
        let left = self.size.saturating_sub(pos);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match buf.get_mut(..len) {
            Some(buf) if !buf.is_empty() => self.store.read(pos, buf),
            _ => Ok(0),
        }
    }

    /// Where all bytes are, to the end.
    pub(crate) fn memfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.store {
            Store::Memfd(file) => Some(file.fd.as_fd()),
            _ => None,
        }
    }

    /// The same, if a write there changes bytes that are there and nothing else.
    pub(crate) fn memfd_to_overwrite(&self, pos: u64, len: usize) -> Option<BorrowedFd<'_>> {
        let within = pos.checked_add(len as u64).is_some_and(|end| end <= self.size);
        let allowed = within && self.solid && !self.seals.intersects(Seals::NO_WRITE);
        self.memfd().filter(|_| allowed && !self.store.is_mapped())
    }

    /// Writes; the flag says that the file has a memfd now and had none before.
    pub(crate) fn write(&mut self, usage: &Usage, buf: &[u8], pos: u64) -> Result<(usize, bool)> {
        if self.seals.intersects(Seals::NO_WRITE) {
            return Err(Errno::EPERM);
        }
        if buf.is_empty() {
            return Ok((0, false));
        }
        let room = usize::try_from(MAX_SIZE.saturating_sub(pos)).unwrap_or(usize::MAX);
        let mut buf = buf.get(..room).unwrap_or(buf);
        if self.seals.contains(Seals::GROW) {
            let room = usize::try_from(self.size.saturating_sub(pos)).unwrap_or(usize::MAX);
            buf = buf.get(..room).unwrap_or(buf);
            if buf.is_empty() {
                return Err(Errno::EPERM);
            }
        }
        if buf.is_empty() {
            return Err(Errno::EFBIG);
        }
        buf = self.affordable(usage, buf, pos)?;
        let made = self.store.make_room(pos + buf.len() as u64, self.size);
        match self.store.write(pos, buf) {
            Ok(count) => {
                self.size = self.size.max(pos + count as u64);
                self.charge_written(usage, pos);
                Ok((count, made))
            }
            Err(error) => {
                self.charge(usage);
                Err(error)
            }
        }
    }

    /// As much of a write as the limit allows; `ENOSPC` if nothing.
    fn affordable<'a>(&self, usage: &Usage, buf: &'a [u8], pos: u64) -> Result<&'a [u8]> {
        let free = usage.free_pages();
        let len = buf.len() as u64;
        if len / PAGE + 2 <= free || self.store.missing(pos, len) <= free {
            return Ok(buf);
        }
        // Whole pages until the limit is met; the first may be there already.
        let mut fits = 0;
        let mut end = (PAGE - pos % PAGE).min(len);
        while self.store.missing(pos, end) <= free {
            fits = end;
            if end == len {
                break;
            }
            end = (end + PAGE).min(len);
        }
        buf.get(..fits as usize).filter(|buf| !buf.is_empty()).ok_or(Errno::ENOSPC)
    }

    pub(crate) fn truncate(&mut self, usage: &Usage, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Errno::EINVAL);
        }
        let sealed = if size < self.size { Seals::SHRINK } else { Seals::GROW };
        if size != self.size && self.seals.contains(sealed) {
            return Err(Errno::EPERM);
        }
        self.solid = false;
        // It frees what lies behind the end, too.
        self.beyond &= size > self.size;
        if size == 0 && self.size >= store::MUCH && self.seals == Seals::SEAL && self.store.is_replaceable() {
            std::mem::replace(&mut self.store, Store::Bytes(Vec::new())).free(self.size);
        }
        self.store.resize(size)?;
        self.size = size;
        self.charge(usage);
        Ok(())
    }

    /// fallocate(2); the flag as with [`Contents::write`].
    pub(crate) fn allocate(&mut self, usage: &Usage, mode: u32, pos: u64, len: u64) -> Result<bool> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 16;
        let end = pos.checked_add(len).filter(|&end| end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut made = false;
        self.solid = false;
        match mode & !KEEP_SIZE {
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => {
                if self.seals.intersects(Seals::NO_WRITE) {
                    return Err(Errno::EPERM);
                }
                self.store.punch(pos, len)?;
            }
            0 | ZERO_RANGE => {
                let zero = mode & ZERO_RANGE != 0;
                let grows = mode & KEEP_SIZE == 0 && end > self.size;
                if grows && self.seals.contains(Seals::GROW) || zero && self.seals.intersects(Seals::NO_WRITE)
                {
                    return Err(Errno::EPERM);
                }
                if len / PAGE + 2 > usage.free_pages() && self.store.missing(pos, len) > usage.free_pages() {
                    return Err(Errno::ENOSPC);
                }
                made = self.store.make_room(end, self.size);
                if zero {
                    self.store.punch(pos, len)?;
                }
                self.beyond |= end > self.size && !grows;
                self.store.allocate(pos, len)?;
                if grows {
                    self.store.resize(end)?;
                    self.size = end;
                }
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.charge(usage);
        Ok(made)
    }

    pub(crate) fn seek(&self, pos: u64, data: bool) -> Result<u64> {
        if pos >= self.size {
            return Err(Errno::ENXIO);
        }
        self.store.seek(pos, self.size, data).ok_or(Errno::ENXIO)
    }

    /// cachestat(2): all there is of such a file is its cache.
    pub(crate) fn cache_stat(&self, offset: u64, len: u64) -> Result<CacheStat> {
        self.store.cache_stat(offset, len)
    }

    /// The memfd, and whether it was made just now.
    fn host_file(&mut self) -> Result<(&mut HostFile, bool)> {
        let made = !matches!(self.store, Store::Memfd(_));
        if made {
            let permit = table::Permit::take().ok_or(Errno::ENFILE)?;
            self.store.move_to_memfd(self.size, permit)?;
        }
        let seals = self.seals;
        let Store::Memfd(file) = &mut self.store else { return Err(Errno::EIO) };
        if made {
            seal_host(&file.fd, seals)?;
        }
        Ok((file, made))
    }

    /// A descriptor by which a guest may read, and whether a memfd was made for it.
    pub(crate) fn lend(&mut self) -> Result<(Lent, bool)> {
        let permit = table::Permit::take().ok_or(Errno::ENFILE)?;
        let (file, made) = self.host_file()?;
        let fd = Arc::new(table::read_only(&file.fd)?);
        Ok((Lent { fd, _lent: Arc::clone(&file.lent), _permit: permit }, made))
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.store.is_lent()
    }

    /// When the host was asked for its bytes last, if guests may do that without a word.
    pub(crate) fn read_by_guests(&self) -> Option<Timespec> {
        let fd = self.memfd().filter(|_| self.store.is_lent())?;
        let stat = rustix::fs::fstat(fd).ok()?;
        Some(Timespec { sec: stat.st_atime, nsec: i64::try_from(stat.st_atime_nsec).ok()? })
    }

    /// What to map, and whether a memfd was made for it. `writable`: a shared mapping of a file open for writing.
    pub(crate) fn map(&mut self, writable: bool, offset: u64) -> Result<(MapSource, bool)> {
        if writable && self.seals.intersects(Seals::NO_WRITE) {
            return Err(Errno::EPERM);
        }
        let (file, made) = self.host_file()?;
        let fd = if writable {
            Arc::clone(&file.fd)
        } else if let Some(fd) = &file.read_only {
            Arc::clone(fd)
        } else {
            let fd = Arc::new(table::read_only(&file.fd)?);
            file.read_only = Some(Arc::clone(&fd));
            fd
        };
        file.mapped = true;
        Ok((MapSource::Host { fd, offset, keep: false }, made))
    }

    /// fcntl(F_ADD_SEALS) of a file with these permissions.
    pub(crate) fn add_seals(&mut self, seals: u32, mode: u32) -> Result<()> {
        let mut seals = Seals::from_bits(seals).ok_or(Errno::EINVAL)?;
        if self.seals.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        // What stays executable must stay as it is.
        if seals.contains(Seals::EXEC) && mode & 0o111 != 0 {
            seals |= Seals::SHRINK | Seals::GROW | Seals::NO_WRITE;
        }
        if let Store::Memfd(file) = &self.store {
            // The host knows whether somebody maps it for writing.
            seal_host(&file.fd, seals)?;
        }
        self.seals |= seals;
        Ok(())
    }

    /// Moves the bytes back from a memfd: true if done, false if it must stay, none if there is none.
    pub(crate) fn give_back_memfd(&mut self) -> Option<bool> {
        if !matches!(self.store, Store::Memfd(_)) {
            return None;
        }
        if !self.store.is_replaceable() {
            return Some(false);
        }
        Some(self.store.move_from_memfd(self.size).is_ok())
    }

    pub(crate) fn release(&mut self, usage: &Usage) {
        usage.account(self.charged, 0);
        self.charged = 0;
        std::mem::replace(&mut self.store, Store::Bytes(Vec::new())).free(self.size);
    }
}

/// Seals against writing are the host's matter too: mappings are made there.
fn seal_host(fd: &OwnedFd, seals: Seals) -> Result<()> {
    let host = SealFlags::from_bits_truncate((seals & Seals::NO_WRITE).bits());
    if host.is_empty() {
        return Ok(());
    }
    rustix::fs::fcntl_add_seals(fd, host).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::Contents;
    use crate::{Options, PAGE, TmpFs};

    /// What a guest reads without a word stays where it is until it has closed that.
    #[test]
    fn lent_contents_stay() {
        let fs = TmpFs::new(Options::default());
        let mut file = Contents::new();
        file.write(fs.usage(), b"old", 0).unwrap();
        let (lent, made) = file.lend().unwrap();
        assert!(made && file.is_lent() && file.read_by_guests().is_some());
        assert_eq!(file.give_back_memfd(), Some(false));
        file.truncate(fs.usage(), crate::store::MUCH).unwrap();
        file.truncate(fs.usage(), 0).unwrap();
        file.write(fs.usage(), b"new", 0).unwrap();
        let mut buf = [0; 8];
        assert_eq!(rustix::io::pread(&lent.fd, &mut buf, 0), Ok(3));
        assert!(buf.starts_with(b"new") && rustix::io::pwrite(&lent.fd, b"x", 0).is_err());
        drop(lent);
        assert!(!file.is_lent() && file.read_by_guests().is_none());
        assert_eq!(file.give_back_memfd(), Some(true));
    }

    /// What is counted without asking the host is what the host counts.
    #[test]
    fn pages_follow_from_the_size_or_are_asked_for() {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        let fs = TmpFs::new(Options::default());
        let usage = fs.usage();
        let mut file = Contents::new();
        let page = [7; PAGE as usize];
        let same = |file: &Contents, solid: bool| {
            assert_eq!((file.charged, file.solid), (file.store.pages(), solid));
        };
        let write = |file: &mut Contents, pos: u64, len: usize| {
            file.write(usage, &page[..len], pos).unwrap();
        };
        for number in 0..20 {
            write(&mut file, number * PAGE, 4096);
            same(&file, number > 15);
        }
        // Over again, at the end, and right behind the last page.
        for (pos, len) in [(5, 4096), (20 * PAGE - 1, 100), (20 * PAGE + 99, 1), (21 * PAGE + 5, 5)] {
            write(&mut file, pos, len);
            same(&file, true);
        }
        write(&mut file, 30 * PAGE, 1);
        same(&file, false);
        assert_eq!(file.charged, 23);
        for number in 22..30 {
            write(&mut file, number * PAGE, 1);
            same(&file, number == 29);
        }
        file.allocate(usage, PUNCH_HOLE | KEEP_SIZE, PAGE, PAGE).unwrap();
        same(&file, false);
        // As many pages behind the end as are missing before it.
        file.allocate(usage, KEEP_SIZE, 31 * PAGE, PAGE).unwrap();
        write(&mut file, 0, 1);
        same(&file, false);
        write(&mut file, PAGE, 1);
        same(&file, false);
        file.truncate(usage, 20 * PAGE).unwrap();
        write(&mut file, 0, 1);
        same(&file, true);
        file.truncate(usage, 25 * PAGE).unwrap();
        write(&mut file, 24 * PAGE, 1);
        same(&file, false);
    }
}
