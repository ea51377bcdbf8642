//! Files: open flags, modes, `struct stat`, directory entries (open(2), inode(7), stat(2), getdents(2)).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest path with its terminating NUL.
pub const PATH_MAX: usize = 4096;
/// Longest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// `dirfd` that means the current directory.
pub const AT_FDCWD: i32 = -100;

bitflags! {
    /// Flags of open(2) and of the open file description. Unknown bits are kept: open ignores them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// Write only (`O_RDONLY` is 0).
        const WRONLY = 0o1;
        /// Read and write.
        const RDWR = 0o2;
        /// Create if missing.
        const CREAT = 0o100;
        /// Fail if it exists.
        const EXCL = 0o200;
        /// Do not become the controlling terminal.
        const NOCTTY = 0o400;
        /// Truncate.
        const TRUNC = 0o1000;
        /// Writes go to the end.
        const APPEND = 0o2000;
        /// Never block.
        const NONBLOCK = 0o4000;
        /// Data reaches the disk before write returns.
        const DSYNC = 0o10000;
        /// Signal-driven I/O.
        const ASYNC = 0o20000;
        /// Bypass the page cache.
        const DIRECT = 0o40000;
        /// Large files; always on in the 64-bit ABI.
        const LARGEFILE = 0o100000;
        /// Must be a directory.
        const DIRECTORY = 0o200000;
        /// Fail on a final symbolic link.
        const NOFOLLOW = 0o400000;
        /// Leave the access time.
        const NOATIME = 0o1000000;
        /// Close on exec; a flag of the descriptor, not of the description.
        const CLOEXEC = 0o2000000;
        /// `DSYNC` and metadata (the bit of `O_SYNC` beyond `O_DSYNC`).
        const SYNC_BIT = 0o4000000;
        /// A place, not an open file.
        const PATH = 0o10000000;
        /// An unnamed file (the bit beyond `O_DIRECTORY`).
        const TMPFILE_BIT = 0o20000000;
        const _ = !0;
    }
}

impl OpenFlags {
    /// `O_TMPFILE`.
    pub const TMPFILE: OpenFlags = OpenFlags::TMPFILE_BIT.union(OpenFlags::DIRECTORY);
    /// `O_SYNC`.
    pub const SYNC: OpenFlags = OpenFlags::SYNC_BIT.union(OpenFlags::DSYNC);
    /// What fcntl(F_SETFL) may change.
    pub const SETFL_MASK: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME);

    /// May be read.
    pub fn readable(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 0 | 2)
    }

    /// May be written.
    pub fn writable(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 1 | 2)
    }
}

/// Mask of the file type in a mode.
pub const S_IFMT: u32 = 0o170000;
/// Socket.
pub const S_IFSOCK: u32 = 0o140000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120000;
/// Regular file.
pub const S_IFREG: u32 = 0o100000;
/// Block device.
pub const S_IFBLK: u32 = 0o060000;
/// Directory.
pub const S_IFDIR: u32 = 0o040000;
/// Character device.
pub const S_IFCHR: u32 = 0o020000;
/// FIFO.
pub const S_IFIFO: u32 = 0o010000;
/// Set user id on exec.
pub const S_ISUID: u32 = 0o4000;
/// Set group id on exec.
pub const S_ISGID: u32 = 0o2000;
/// Restricted deletion.
pub const S_ISVTX: u32 = 0o1000;

/// `struct stat` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "the fields of stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad0: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: u64,
    pub atime_nsec: u64,
    pub mtime: u64,
    pub mtime_nsec: u64,
    pub ctime: u64,
    pub ctime_nsec: u64,
    pub unused: [i64; 3],
}

/// Device number as user space sees it, from major and minor (makedev(3)).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (ma, mi) = (major as u64, minor as u64);
    (mi & 0xff) | ((ma & 0xfff) << 8) | ((mi & !0xff) << 12) | ((ma & !0xfff) << 32)
}

/// Major number of a device (major(3)).
pub const fn major(dev: u64) -> u32 {
    (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)) as u32
}

/// Minor number of a device (minor(3)).
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | ((dev >> 12) & !0xff)) as u32
}

/// Directory entry types of getdents64(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the d_type values of getdents(2)")]
#[repr(u8)]
pub enum DirentType {
    Unknown = 0,
    Fifo = 1,
    Char = 2,
    Dir = 4,
    Block = 6,
    Regular = 8,
    Symlink = 10,
    Socket = 12,
}

impl DirentType {
    /// From the type bits of a mode.
    pub fn from_mode(mode: u32) -> DirentType {
        match mode & S_IFMT {
            S_IFIFO => DirentType::Fifo,
            S_IFCHR => DirentType::Char,
            S_IFDIR => DirentType::Dir,
            S_IFBLK => DirentType::Block,
            S_IFREG => DirentType::Regular,
            S_IFLNK => DirentType::Symlink,
            S_IFSOCK => DirentType::Socket,
            _ => DirentType::Unknown,
        }
    }
}

/// `struct cachestat` of cachestat(2): pages of a range.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CacheStat {
    /// In the page cache.
    pub cache: u64,
    /// Of these, to be written.
    pub dirty: u64,
    /// Of these, being written.
    pub writeback: u64,
    /// No longer there.
    pub evicted: u64,
    /// Of these, until lately.
    pub recently_evicted: u64,
}
