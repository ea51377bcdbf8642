//! Attributes of host files: statx(2), chown(2), chmod(2), truncate(2), utimensat(2).

use std::os::fd::AsFd;

use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG, makedev};
use linux_abi::time::Timespec;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timestamps, Uid};
use vfs::{Metadata, Result, SetAttr, SetTime};

use crate::errno;
use crate::inode::HostInode;

/// What tells one host file from another, even if an inode number is used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) kind: u32,
    btime: Option<Timespec>,
}

impl Identity {
    /// Whether both are of one file. A file that was copied to an overlay's upper layer in between has a new
    /// time of birth (`copies_up`).
    pub(crate) fn same(&self, other: &Identity, copies_up: bool) -> bool {
        (self.dev, self.ino, self.kind) == (other.dev, other.ino, other.kind)
            && (copies_up || self.btime == other.btime)
    }
}

/// A host file's identity and its attributes a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    pub(crate) metadata: Metadata,
}

impl Known {
    /// Of an open descriptor.
    pub(crate) fn of(fd: impl AsFd) -> Result<Known> {
        Known::statx(fd, "", AtFlags::EMPTY_PATH)
    }

    /// Of a name in a directory, symbolic links not followed.
    pub(crate) fn at(directory: impl AsFd, name: &[u8]) -> Result<Known> {
        Known::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn statx(fd: impl AsFd, path: impl rustix::path::Arg, flags: AtFlags) -> Result<Known> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let statx = rustix::fs::statx(fd, path, flags | AtFlags::NO_AUTOMOUNT, mask).map_err(errno)?;
        let metadata = metadata(&statx);
        let identity =
            Identity { dev: metadata.dev, ino: metadata.ino, kind: metadata.kind(), btime: metadata.btime };
        Ok(Known { identity, metadata })
    }
}

fn metadata(statx: &Statx) -> Metadata {
    let time = |t: StatxTimestamp| Timespec { sec: t.tv_sec, nsec: i64::from(t.tv_nsec) };
    let has_btime = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    Metadata {
        dev: makedev(statx.stx_dev_major, statx.stx_dev_minor),
        ino: statx.stx_ino,
        nlink: u64::from(statx.stx_nlink),
        mode: u32::from(statx.stx_mode),
        uid: statx.stx_uid,
        gid: statx.stx_gid,
        rdev: makedev(statx.stx_rdev_major, statx.stx_rdev_minor),
        size: statx.stx_size,
        block_size: u64::from(statx.stx_blksize),
        blocks: statx.stx_blocks,
        atime: time(statx.stx_atime),
        mtime: time(statx.stx_mtime),
        ctime: time(statx.stx_ctime),
        btime: has_btime.then(|| time(statx.stx_btime)),
    }
}

impl HostInode {
    /// The attributes, with the device number to show.
    pub(crate) fn stat(&self) -> Result<Metadata> {
        let mut metadata = self.known_metadata()?;
        metadata.dev = self.fs().shown_device(metadata.dev);
        if let Some(node) = &self.node {
            node.show(&mut metadata);
        }
        Ok(metadata)
    }

    pub(crate) fn change(&self, attr: &SetAttr) -> Result<()> {
        let changed = self.change_host(attr);
        self.changed();
        changed
    }

    fn change_host(&self, attr: &SetAttr) -> Result<()> {
        if let Some(size) = attr.size {
            self.truncate(size)?;
        }
        if attr.uid.is_some() || attr.gid.is_some() {
            self.chown(attr.uid, attr.gid)?;
            if self.node.is_some() {
                self.mark_again()?;
            }
        }
        // After chown, which clears the set-id bits.
        if let Some(mode) = attr.mode {
            self.chmod(mode)?;
        }
        if attr.atime.is_some() || attr.mtime.is_some() {
            let times =
                Timestamps { last_access: set_time(attr.atime), last_modification: set_time(attr.mtime) };
            rustix::fs::utimensat(&*self.fd()?, "", &times, AtFlags::EMPTY_PATH).map_err(errno)?;
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        match self.identity().kind {
            _ if self.node.is_some() => return Err(Errno::EINVAL),
            S_IFREG => {}
            S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        if i64::try_from(size).is_err() {
            return Err(Errno::EINVAL);
        }
        rustix::fs::ftruncate(&*self.handle(OFlags::WRONLY)?, size).map_err(errno)
    }

    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        chown(&*self.fd()?, uid, gid)
    }

    pub(crate) fn chmod(&self, mode: u32) -> Result<()> {
        if let Some(node) = &self.node {
            return self.chmod_node(node, mode);
        }
        let mode = Mode::from_raw_mode(mode & 0o7777);
        if self.identity().kind == S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        let fd = self.fd()?;
        if let Some(result) = self.fs().reopener.through_proc(&fd, |directory, number| {
            rustix::fs::chmodat(directory, number, mode, AtFlags::empty())
        }) {
            return result.map_err(errno);
        }
        match self.identity().kind {
            S_IFREG | S_IFDIR => rustix::fs::fchmod(&*self.handle(OFlags::RDONLY)?, mode).map_err(errno),
            _ => Err(Errno::EPERM),
        }
    }
}

/// chown(2) of what is open.
pub(crate) fn chown(fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    // The id -1 means "leave it", so no file can have it.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)
}

fn set_time(time: Option<SetTime>) -> rustix::fs::Timespec {
    let special = |nsec| rustix::fs::Timespec { tv_sec: 0, tv_nsec: nsec };
    match time {
        None => special(rustix::fs::UTIME_OMIT),
        Some(SetTime::Now) => special(rustix::fs::UTIME_NOW),
        Some(SetTime::At(at)) => rustix::fs::Timespec { tv_sec: at.sec, tv_nsec: at.nsec },
    }
}
