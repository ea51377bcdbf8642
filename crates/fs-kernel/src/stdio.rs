//! Standard streams that the engine hands over: host pipes, files, sockets, /dev/null.

use std::any::Any;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use executor::{Events, HostSource, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, makedev};
use linux_abi::time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, SeekFrom, Timestamps};
use rustix::io::ReadWriteFlags;
use vfs::anonymous::{Contents, SharedOps};
use vfs::{
    AT_SHARED_POSITION, AnonInode, Caller, FileOps, MapRequest, MapSource, Metadata, OpenFile, Result,
    SetTime, Whence,
};

/// A host descriptor that others share: its flags are left alone, so that reads and writes are only made
/// when the host says they will not wait.
pub struct HostStream {
    fd: Arc<OwnedFd>,
    source: Option<HostSource>,
    /// It has a position, which programs of the host share: who reads a part leaves the rest to the next one.
    regular: bool,
    /// It was opened for reading alone.
    readonly: bool,
}

/// A regular file of the host, by the descriptor that came: what that may not do, nobody here may.
struct HostContents {
    fd: Arc<OwnedFd>,
    access: OpenFlags,
}

impl Contents for HostContents {
    fn metadata(&self, own: Metadata) -> Result<Metadata> {
        let now = rustix::fs::fstat(&*self.fd).map_err(errno)?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let time = |sec, nsec| time::Timespec { sec, nsec: i64::try_from(nsec).unwrap_or(0) };
        Ok(Metadata {
            dev: now.st_dev,
            ino: now.st_ino,
            nlink: now.st_nlink,
            size: count(now.st_size),
            blocks: count(now.st_blocks),
            atime: time(now.st_atime, now.st_atime_nsec),
            mtime: time(now.st_mtime, now.st_mtime_nsec),
            ctime: time(now.st_ctime, now.st_ctime_nsec),
            ..own
        })
    }
    fn set_times(&self, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
        // What came for reading alone nobody here changes, though its owner might.
        if !self.access.writable() {
            return Err(Errno::EPERM);
        }
        let times = Timestamps { last_access: host_time(atime), last_modification: host_time(mtime) };
        rustix::fs::futimens(&*self.fd, &times).map_err(errno)
    }
    fn set_size(&self, size: u64) -> Result<()> {
        rustix::fs::ftruncate(&*self.fd, size).map_err(errno)
    }
    fn check_access(&self, flags: OpenFlags) -> Result<()> {
        let more = flags.readable() && !self.access.readable() || flags.writable() && !self.access.writable();
        if more || flags.contains(OpenFlags::TRUNC) && !self.access.writable() {
            return Err(Errno::EACCES);
        }
        Ok(())
    }
}

/// What a write to a pipe that is ready for writing surely takes.
const PIPE_BUF: usize = 4096;
/// `PROT_WRITE` of mmap(2).
const PROT_WRITE: u32 = 2;

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn host_time(time: Option<SetTime>) -> rustix::fs::Timespec {
    let special = |nsec| rustix::fs::Timespec { tv_sec: 0, tv_nsec: nsec };
    match time {
        None => special(rustix::fs::UTIME_OMIT),
        Some(SetTime::Now) => special(rustix::fs::UTIME_NOW),
        Some(SetTime::At(at)) => rustix::fs::Timespec { tv_sec: at.sec, tv_nsec: at.nsec },
    }
}

/// The open file for a host stream.
pub fn open(fd: OwnedFd) -> Result<Arc<OpenFile>> {
    let stat = rustix::fs::fstat(&fd).map_err(errno)?;
    let access = access(&fd)?;
    let readonly = !access.writable();
    let fd = Arc::new(fd);
    let regular = stat.st_mode & S_IFMT == S_IFREG;
    // A regular file is always ready and cannot be watched.
    let source = HostSource::new(fd.clone(), Events::IN | Events::OUT | Events::RDHUP).ok();
    let kind = if regular { S_IFREG } else { stat.st_mode & S_IFMT };
    let name: &[u8] = match kind {
        S_IFIFO => b"pipe:",
        S_IFSOCK => b"socket:",
        _ => b"host:",
    };
    let contents = regular.then(|| Arc::new(HostContents { fd: fd.clone(), access }));
    let ops: Arc<dyn FileOps> = Arc::new(HostStream { fd, source, regular, readonly });
    let file = OpenFile::anonymous(name, kind | (stat.st_mode & 0o777), ops.clone(), access);
    // Opened anew, as /dev/stderr, it stays the host's stream; a regular file has a position of its own then.
    if let Some(inode) = file.inode().as_any().downcast_ref::<AnonInode>() {
        inode.set_behind(Arc::new(SharedOps(ops)));
        inode.set_identity(stat.st_rdev, stat.st_uid, stat.st_gid);
        if let Some(contents) = contents {
            inode.set_contents(contents);
            file.share_position();
        }
    }
    Ok(file)
}

/// Whether it is the host's null(4).
pub fn is_null(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & S_IFMT == S_IFCHR && stat.st_rdev == makedev(1, 3))
}

/// Flags of the open file that came.
pub fn access(fd: &OwnedFd) -> Result<OpenFlags> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(errno)?;
    Ok(OpenFlags::from_bits_retain(flags.bits()) & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND))
}

impl HostStream {
    fn ready(&self, wanted: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.fd, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::ERR,
        }
    }

    /// Writes at most `PIPE_BUF` to what has no position; `EAGAIN` where that would wait.
    fn write_part(&self, part: &[u8]) -> Result<usize> {
        if self.ready(PollFlags::OUT).is_empty() {
            return Err(Errno::EAGAIN);
        }
        rustix::io::write(&*self.fd, part).map_err(errno)
    }
}

impl FileOps for HostStream {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        self.regular
    }
    fn shared_position(&self) -> Result<u64> {
        rustix::fs::tell(&*self.fd).map_err(errno)
    }
    fn move_shared_position(&self, position: u64) {
        // A position that the host refuses is one that no call gives.
        let _ = rustix::fs::seek(&*self.fd, SeekFrom::Start(position));
    }
    fn seek(&self, file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let from = || u64::try_from(offset).map_err(|_| Errno::ENXIO);
        let size = file.inode().metadata()?.size;
        let to = match whence {
            Whence::Data => SeekFrom::Data(from()?),
            Whence::Hole => SeekFrom::Hole(from()?),
            _ => return size.checked_add_signed(offset).ok_or(Errno::EINVAL),
        };
        if file.shares_position() {
            return rustix::fs::seek(&*self.fd, to).map_err(errno);
        }
        // The host would move what others read at meanwhile: to who has a position of its own all is data.
        match to {
            SeekFrom::Data(from) if from < size => Ok(from),
            SeekFrom::Hole(from) if from < size => Ok(size),
            _ => Err(Errno::ENXIO),
        }
    }
    fn unread(&self, data: &[u8]) {
        if self.regular
            && let Ok(back) = i64::try_from(data.len())
        {
            let _ = rustix::fs::seek(&*self.fd, SeekFrom::Current(-back));
        }
    }
    fn append(&self, file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        // Whether or not the one who opened it asked for that.
        let count = rustix::io::pwritev2(&*self.fd, &[IoSlice::new(buf)], 0, ReadWriteFlags::APPEND);
        let count = count.map_err(errno)?;
        Ok((count, file.inode().metadata()?.size))
    }
    fn fallocate(&self, _file: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        if !self.regular {
            return Err(Errno::ESPIPE);
        }
        rustix::fs::fallocate(&*self.fd, FallocateFlags::from_bits_retain(mode), offset, len).map_err(errno)
    }
    fn mmap(&self, file: &OpenFile, request: &MapRequest) -> Result<MapSource> {
        let flags = file.flags();
        if self.regular
            && (!flags.readable() || request.shared && request.prot & PROT_WRITE != 0 && self.readonly)
        {
            return Err(Errno::EACCES);
        }
        // A descriptor for writing is not handed on for a mapping that never writes.
        if !self.regular || !self.readonly && !request.shared {
            return Err(Errno::ENODEV);
        }
        Ok(MapSource::Host { fd: self.fd.clone(), offset: request.offset, keep: false })
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        if self.regular && pos != AT_SHARED_POSITION {
            return rustix::io::pread(&*self.fd, buf, pos).map_err(errno);
        }
        if !self.regular && self.ready(PollFlags::IN).is_empty() {
            return Err(Errno::EAGAIN);
        }
        rustix::io::read(&*self.fd, buf).map_err(errno)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        if self.regular && pos != AT_SHARED_POSITION {
            return rustix::io::pwrite(&*self.fd, buf, pos).map_err(errno);
        }
        if self.regular {
            return rustix::io::write(&*self.fd, buf).map_err(errno);
        }
        // As much as there is room for: what is left was copied from the guest for nothing.
        let (first, rest) = buf.split_at(buf.len().min(PIPE_BUF));
        let mut count = self.write_part(first)?;
        for part in rest.chunks(PIPE_BUF) {
            // An error is told to the next call.
            if count % PIPE_BUF != 0 {
                break;
            }
            match self.write_part(part) {
                Ok(more) => count += more,
                Err(_) => break,
            }
        }
        Ok(count)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.regular {
            return Events::READABLE | Events::WRITABLE;
        }
        let ready = self.ready(PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::PRI);
        let mut events = Events::from_bits_truncate(u32::from(ready.bits()));
        if events.contains(Events::IN) {
            events |= Events::READABLE;
        }
        if events.contains(Events::OUT) {
            events |= Events::WRITABLE;
        }
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        self.source.as_ref().map(|s| s.queue().clone())
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        const FIONREAD: u32 = 0x541b;
        if cmd == FIONREAD {
            let n = rustix::io::ioctl_fionread(&*self.fd).map_err(errno)?;
            let n = i32::try_from(n).unwrap_or(i32::MAX);
            caller.write_memory(arg, &n.to_ne_bytes())?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }
    fn fsync(&self, _file: &OpenFile, data_only: bool) -> Result<()> {
        if data_only { rustix::fs::fdatasync(&*self.fd) } else { rustix::fs::fsync(&*self.fd) }.map_err(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write larger than a pipe is not copied anew for each page of it.
    #[test]
    fn a_write_takes_all_the_room_there_is() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        let file = open(writer).unwrap();
        assert_eq!(file.ops().write(&file, &vec![1; 2 * room], 0), Ok(room));
        assert_eq!(file.ops().write(&file, b"more", 0), Err(Errno::EAGAIN));
    }
}
