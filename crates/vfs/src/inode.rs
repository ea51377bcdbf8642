//! What a file-system author writes for each file: the inode.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bitflags::bitflags;
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFMT};
use linux_abi::time::Timespec;

use crate::{Caller, FileOps, FileSystem, Result};

/// What stat(2) tells of a file.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields of stat(2) and statx(2)")]
pub struct Metadata {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub block_size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// Creation time where the file system has one.
    pub btime: Option<Timespec>,
}

impl Metadata {
    /// The type bits of the mode (`S_IF*`).
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
}

/// A time to set, as in utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The current time.
    Now,
    /// This time.
    At(Timespec),
}

/// Attributes to change; `None` leaves one as it is. Permission has been checked by the caller,
/// and suid/sgid clearing decided.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "one per attribute")]
pub struct SetAttr {
    /// Permission bits only (`07777`).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// A new node: `mode` holds type and permissions (umask applied); `rdev` counts for devices.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "as in mknod(2)")]
pub struct NewNode {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a socket the type (`SOCK_*`) of the host's that is bound by that name, if any is.
    pub rdev: u64,
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        /// Fail if the target exists.
        const NOREPLACE = 1;
        /// Exchange both.
        const EXCHANGE = 2;
        /// Leave a whiteout behind.
        const WHITEOUT = 4;
    }
}

/// A file of a file system. Methods answer at once or by a bounded host call; names are single
/// components, never empty, `.`, `..`, or with `/` or NUL. Permission checks are the caller's
/// (`permission`), so that a file system only stores and finds.
#[expect(unused_variables, reason = "the defaults refuse")]
pub trait Inode: Any + Send + Sync {
    /// stat(2).
    fn metadata(&self) -> Result<Metadata>;
    /// The type bits of its mode, which never change.
    fn kind(&self) -> Result<u32> {
        Ok(self.metadata()?.kind())
    }
    /// chmod(2), chown(2), truncate(2), utimensat(2).
    fn set_attributes(&self, attr: &SetAttr) -> Result<()>;
    /// The file system it belongs to.
    fn file_system(&self) -> Arc<dyn FileSystem>;
    /// stat(2), if each change from now on is told by [`crate::shown`].
    fn show(&self) -> Option<Metadata> {
        None
    }
    /// Whether reading it never sets its access time, wherever that lies.
    fn keeps_access_time(&self) -> bool {
        false
    }
    /// The concrete type.
    fn as_any(&self) -> &dyn Any;
    /// Who writes and who executes it; none for what cannot be a program.
    fn writers(&self) -> Option<&crate::Writers> {
        None
    }

    /// Opens it. Only files with contents or directories; FIFOs, devices and sockets are the kernel's.
    fn open(self: Arc<Self>, flags: OpenFlags, caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>>;

    /// The host's socket that programs beyond the sandbox may have bound, by an `O_PATH` descriptor; none for what joins
    /// programs of the sandbox alone.
    fn outside_socket(&self) -> Option<Result<Arc<OwnedFd>>> {
        None
    }
    /// Whether sockets that are bound in this directory are the host's, too.
    fn binds_outside(&self) -> bool {
        false
    }
    /// The host's socket that was bound as this file was made, once.
    fn take_bound(&self) -> Option<OwnedFd> {
        None
    }
    /// Opens the host's FIFO that programs beyond the sandbox may have open, without waiting for them; none for what
    /// joins programs of the sandbox alone. `ENXIO` for a writer without readers.
    fn open_outside(&self, flags: OpenFlags) -> Option<Result<OwnedFd>> {
        None
    }

    /// Finds a child; `ENOENT`.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }
    /// Creates a regular file, FIFO, socket node or device node; `EEXIST`.
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    /// mkdir(2).
    fn mkdir(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    /// symlink(2).
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    /// An unnamed file (`O_TMPFILE`) that `link` may name later.
    fn tmpfile(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// link(2): `target` is an inode of the same file system.
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// unlink(2) of anything but a directory.
    fn unlink(&self, name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// rmdir(2).
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// renameat2(2) within one file system.
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Whether a caller sees it, or (`within`) what is in this directory, where the file system hides something;
    /// `ENOENT`, `EPERM`.
    fn show_to(&self, caller: &dyn Caller, within: bool) -> Result<()> {
        Ok(())
    }
    /// readlink(2).
    fn readlink(&self, caller: &mut dyn Caller) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }
    /// Where a magic link of /proc leads, if it is one.
    fn follow(&self, caller: &mut dyn Caller) -> Option<Result<crate::Place>> {
        None
    }
    /// Whether a dentry for `name` (with its inode, or negative) found earlier still holds.
    /// Called on the directory at each use; file systems that nobody else writes say yes.
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        true
    }
    /// Whether each change of a name in this directory, and of who may search it, is told: those that are not made
    /// by way of its dentry as changes of these buckets (see [`crate::names`]).
    fn names_told(&self) -> Option<u64> {
        None
    }
    /// Whether dentries of this directory are worth keeping when nobody uses them. Not where names go without
    /// a word, as those of processes do.
    fn keeps_dentries(&self) -> bool {
        true
    }
    /// getxattr(2): the value; `ENODATA`.
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// setxattr(2) with `XATTR_CREATE` (1), `XATTR_REPLACE` (2).
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The access control list of this attribute ([`crate::acl::ACCESS`], [`crate::acl::DEFAULT`]), if the
    /// file has one that says more than its mode. An access list is in step with the mode.
    fn acl(&self, attribute: &[u8]) -> Result<Option<crate::Acl>> {
        Ok(None)
    }
    /// listxattr(2): the names.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
    /// removexattr(2).
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}
