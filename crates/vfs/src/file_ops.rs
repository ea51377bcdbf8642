//! What an open file can do. Operations never block: they answer, or say `EAGAIN` and the file's
//! wait queue tells when to try again.

use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use executor::WaitQueue;
use linux_abi::fs::{CacheStat, DirentType};
use linux_abi::{Errno, Events};

use crate::{Caller, Fasync, OpenFile, Result};

/// Where lseek(2) counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "named in lseek(2)")]
pub enum Whence {
    Set,
    Current,
    End,
    Data,
    Hole,
}

/// One entry that `readdir` gives.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Position after this entry (`d_off`).
    pub next: u64,
    /// Type, `Unknown` if it costs a look-up.
    pub kind: DirentType,
    /// Name.
    pub name: &'a [u8],
}

/// What mmap(2) asks of a file.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest {
    /// Offset in the file, page aligned.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_SHARED` rather than private.
    pub shared: bool,
}

/// What the platform maps for a file.
#[derive(Clone, Debug)]
pub enum MapSource {
    /// This host file at this offset.
    Host {
        /// Opened with the access that the mapping needs, and no more.
        fd: Arc<OwnedFd>,
        /// Offset in the host file.
        offset: u64,
        /// Opened for reading alone, and nothing changes by a mapping of it: a process that has it open may map it again
        /// without asking.
        keep: bool,
    },
    /// Anonymous memory (a mapping of /dev/zero).
    Anonymous,
}

/// For `read` and `write`: where the position is that is shared with others, which they move in the same step
/// ([`OpenFile::shares_position`]).
pub const AT_SHARED_POSITION: u64 = u64::MAX;

/// Reads from a host file, or writes to it, at a position there; how many bytes is known to who made it. A read may be
/// of what is there at once (`RWF_NOWAIT` of preadv2(2)).
pub type AtHostFile<'a> = dyn FnMut(BorrowedFd<'_>, u64, bool) -> Result<usize> + 'a;

/// The operations of an open file. `&self`: its own locks inside.
#[expect(unused_variables, reason = "the defaults refuse")]
pub trait FileOps: Any + Send + Sync {
    /// The concrete type.
    fn as_any(&self) -> &dyn Any;

    /// Whether it has a position (regular files, directories); otherwise lseek is `ESPIPE`.
    fn seekable(&self) -> bool {
        false
    }
    /// Whether the caller may read, or write, now: job control of terminals. `EAGAIN` makes it wait.
    fn check_caller(&self, file: &OpenFile, caller: &mut dyn Caller, writes: bool) -> Result<()> {
        Ok(())
    }
    /// Reads at a position (streams ignore it). 0 is end of file; `EAGAIN`: not yet.
    fn read(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// The host's file, opened for reading alone, whose bytes are this one's at all times: what a process reads there by
    /// itself is what [`FileOps::read`] gives. None for all others.
    fn read_only_host(&self, _file: &OpenFile) -> Option<Arc<OwnedFd>> {
        None
    }
    /// As `read` of a file whose bytes are those of a host file: `read` is given that and the place there, and brings
    /// what it finds to where it belongs, without a copy on the way. None if `read` is to be asked. `at_once`: as
    /// `read_at_once`.
    fn read_host(
        &self,
        file: &OpenFile,
        pos: u64,
        at_once: bool,
        read: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        None
    }
    /// These bytes, to the end with length 0, will be `needed` soon, or not (posix_fadvise(2)); only of files that may sleep.
    fn advise(&self, offset: u64, len: u64, needed: bool) {}
    /// As `read`, but where a device would have to be waited for it gives less, or `EAGAIN`, if the file can tell
    /// (`reads_at_once`).
    fn read_at_once(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        self.read(file, buf, pos)
    }
    /// Whether reads at once do not sleep, as far as is known.
    fn reads_at_once(&self) -> bool {
        !self.may_sleep()
    }
    /// As `write` of `len` bytes, in the way of `read_host`.
    fn write_host(
        &self,
        file: &OpenFile,
        len: usize,
        pos: u64,
        write: &mut AtHostFile<'_>,
    ) -> Option<Result<usize>> {
        None
    }
    /// Takes back what was just read from a stream and could not be handed on (a bad address), where Linux
    /// copies before it takes: pipes.
    fn unread(&self, data: &[u8]) {}
    /// Writes at a position (streams ignore it); `EAGAIN`: not yet.
    fn write(&self, file: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes at the end (`O_APPEND`); returns the count and the position after it.
    fn append(&self, file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let end = file.inode().metadata()?.size;
        let n = self.write(file, buf, end)?;
        Ok((n, end.saturating_add(n as u64)))
    }
    /// The new position for `SEEK_END`, `SEEK_DATA`, `SEEK_HOLE`; `Set` and `Current` are done by the caller.
    fn seek(&self, file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let size = file.inode().metadata()?.size;
        match whence {
            Whence::End => size.checked_add_signed(offset).ok_or(Errno::EINVAL),
            Whence::Data | Whence::Hole => {
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if from >= size {
                    return Err(Errno::ENXIO);
                }
                Ok(if whence == Whence::Data { from } else { size })
            }
            Whence::Set | Whence::Current => Err(Errno::EINVAL),
        }
    }
    /// Where the position is that is shared with others ([`OpenFile::shares_position`]).
    fn shared_position(&self) -> Result<u64> {
        Err(Errno::ESPIPE)
    }
    /// Moves it.
    fn move_shared_position(&self, position: u64) {}
    /// What is ready now.
    fn poll(&self, file: &OpenFile) -> Events {
        Events::READABLE | Events::WRITABLE
    }
    /// Woken when what is ready changes; none means always ready (and epoll refuses it with `EPERM`).
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        None
    }
    /// What `O_ASYNC` does; none where it stays off.
    fn fasync(&self) -> Option<Fasync> {
        None
    }
    /// ioctl(2).
    fn ioctl(&self, file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        Err(Errno::ENOTTY)
    }
    /// Gives entries from position `pos` on until `sink` says false; returns the position to go on from.
    /// `.` and `..` included.
    fn readdir(&self, file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        Err(Errno::ENOTDIR)
    }
    /// fsync(2), fdatasync(2).
    fn fsync(&self, file: &OpenFile, data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// fallocate(2) with its mode bits.
    fn fallocate(&self, file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// cachestat(2) of `len` bytes from `offset` on, to the end with length 0. What has no page cache holds nothing.
    fn cache_stat(&self, offset: u64, len: u64) -> Result<CacheStat> {
        Ok(CacheStat::default())
    }
    /// What to map for mmap(2).
    fn mmap(&self, file: &OpenFile, request: &MapRequest) -> Result<MapSource> {
        Err(Errno::ENODEV)
    }
    /// fcntl(F_SETFL) changed the flags to these.
    fn flags_changed(&self, file: &OpenFile) {}
    /// A descriptor of it was closed (each close(2)).
    fn flush(&self, file: &OpenFile) -> Result<()> {
        Ok(())
    }
    /// A host call of it may sleep on a device, so that it goes to the blocking pool.
    fn may_sleep(&self) -> bool {
        false
    }
    /// Lines of /proc/PID/fdinfo beyond pos, flags, mnt_id, ino.
    fn fdinfo(&self, file: &OpenFile) -> String {
        String::new()
    }
}
