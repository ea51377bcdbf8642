//! Files without a name in any tree: pipes, sockets, eventfds, memfds.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::time::Timespec;
use parking_lot::Mutex;

use crate::{Caller, Dentry, FileOps, FileSystem, Inode, Metadata, Mount, OpenFile, Place, Result, SetAttr};
use crate::{SetTime, StatFs};

/// Device number that anonymous files report.
const ANON_DEV: u64 = 9;
/// `ANON_INODE_FS_MAGIC` of statfs(2).
const ANON_MAGIC: u64 = 0x0904_1934;

static NEXT_INO: AtomicU64 = AtomicU64::new(1);

/// The file system of all anonymous files.
pub(crate) struct AnonFs;

/// The one instance.
fn instance() -> &'static Arc<AnonFs> {
    static FS: OnceLock<Arc<AnonFs>> = OnceLock::new();
    FS.get_or_init(|| Arc::new(AnonFs))
}

impl FileSystem for AnonFs {
    fn type_name(&self) -> &'static str {
        "anon_inodefs"
    }
    fn root(&self) -> Result<Arc<dyn Inode>> {
        Ok(AnonInode::new(0o600, 0, 0))
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: ANON_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
}

/// The pseudo mount that anonymous files live on; it is in no namespace.
pub(crate) fn mount() -> Arc<Mount> {
    static MOUNT: OnceLock<Arc<Mount>> = OnceLock::new();
    MOUNT
        .get_or_init(|| {
            let root = Dentry::detached(b"/", AnonInode::new(0o600, 0, 0));
            Mount::detached(instance().clone(), root)
        })
        .clone()
}

/// What opening an anonymous file anew gives where all its open files share one state ([`AnonInode::set_behind`]).
pub struct SharedOps(pub Arc<dyn FileOps>);

/// What stands behind an anonymous file with contents of its own: a file of the host.
pub trait Contents: Send + Sync {
    /// The attributes as they are now; type, permissions and owner stay those of `own`.
    fn metadata(&self, own: Metadata) -> Result<Metadata>;
    /// utimensat(2); none leaves a time.
    fn set_times(&self, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()>;
    /// truncate(2), with its times.
    fn set_size(&self, size: u64) -> Result<()>;
    /// Whether it may be opened anew with this access: `EACCES`.
    fn check_access(&self, flags: OpenFlags) -> Result<()>;
}

/// The inode of an anonymous file: attributes and a number; contents seldom ([`AnonInode::set_contents`]).
pub struct AnonInode {
    attributes: Mutex<Metadata>,
    behind: OnceLock<Arc<dyn Any + Send + Sync>>,
    contents: OnceLock<Arc<dyn Contents>>,
}

impl AnonInode {
    /// With type and permission bits, and an owner. The inode number is fresh.
    pub fn new(mode: u32, uid: u32, gid: u32) -> Arc<AnonInode> {
        let now = crate::time::now();
        Arc::new(AnonInode {
            attributes: Mutex::new(Metadata {
                dev: ANON_DEV,
                ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
                nlink: 1,
                mode,
                uid,
                gid,
                block_size: 4096,
                atime: now,
                mtime: now,
                ctime: now,
                ..Metadata::default()
            }),
            behind: OnceLock::new(),
            contents: OnceLock::new(),
        })
    }

    /// Notes what a file opened anew through /proc/PID/fd shares with this one, such as the pipe. Once.
    pub fn set_behind(&self, what: Arc<dyn Any + Send + Sync>) {
        // A second one is a mistake of no consequence.
        let _ = self.behind.set(what);
    }
    /// Notes where the contents are. Once.
    pub fn set_contents(&self, contents: Arc<dyn Contents>) {
        // As above.
        let _ = self.contents.set(contents);
    }
    /// Takes over what another file is: device, owner.
    pub fn set_identity(&self, rdev: u64, uid: u32, gid: u32) {
        let mut own = self.attributes.lock();
        (own.rdev, own.uid, own.gid) = (rdev, uid, gid);
    }
    /// What was noted.
    pub fn behind(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.behind.get().cloned()
    }

    /// Where the contents are, if that was noted.
    pub(crate) fn contents(&self) -> Option<&Arc<dyn Contents>> {
        self.contents.get()
    }

    /// The operations that its open files share, if [`SharedOps`] were noted.
    pub fn shared_ops(&self) -> Option<Arc<dyn FileOps>> {
        let behind = self.behind.get()?.downcast_ref::<SharedOps>()?;
        Some(behind.0.clone())
    }

    /// Its number, as in `pipe:[7]`.
    pub fn ino(&self) -> u64 {
        self.attributes.lock().ino
    }
}

fn stamp(time: SetTime, now: Timespec) -> Timespec {
    match time {
        SetTime::Now => now,
        SetTime::At(at) => at,
    }
}

impl Inode for AnonInode {
    fn metadata(&self) -> Result<Metadata> {
        let own = *self.attributes.lock();
        match self.contents.get() {
            Some(contents) => contents.metadata(own),
            None => Ok(own),
        }
    }
    fn kind(&self) -> Result<u32> {
        Ok(self.attributes.lock().kind())
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        match (attr.size, self.contents.get()) {
            (Some(size), Some(contents)) => contents.set_size(size)?,
            (Some(_), None) => return Err(Errno::EINVAL),
            (None, Some(contents)) if attr.atime.is_some() || attr.mtime.is_some() => {
                contents.set_times(attr.atime, attr.mtime)?;
            }
            (None, _) => {}
        }
        let now = crate::time::now();
        let mut meta = self.attributes.lock();
        if let Some(mode) = attr.mode {
            meta.mode = meta.kind() | (mode & 0o7777);
        }
        meta.uid = attr.uid.unwrap_or(meta.uid);
        meta.gid = attr.gid.unwrap_or(meta.gid);
        if let Some(time) = attr.atime {
            meta.atime = stamp(time, now);
        }
        if let Some(time) = attr.mtime {
            meta.mtime = stamp(time, now);
        }
        meta.ctime = now;
        Ok(())
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        instance().clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
}

impl Place {
    /// A place in no tree: what pipes, sockets and memfds are opened at. /proc/PID/fd shows `name` as it is.
    pub fn anonymous(name: &[u8], inode: Arc<dyn Inode>) -> Place {
        Place { mount: mount(), dentry: Dentry::detached(name, inode) }
    }
}

impl OpenFile {
    /// An open file without a name in any tree, root's. `name` is what /proc/PID/fd shows, such as
    /// `anon_inode:[eventfd]`; one that ends in `:` (`pipe:`, `socket:`) gets the inode's number in brackets.
    pub fn anonymous(name: &[u8], mode: u32, ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        OpenFile::anonymous_of((0, 0), name, mode, ops, flags)
    }

    /// As [`OpenFile::anonymous`], but a file of a user and group: pipes and sockets are their maker's.
    pub fn anonymous_of(
        (uid, gid): (u32, u32),
        name: &[u8],
        mode: u32,
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
    ) -> Arc<OpenFile> {
        let inode = AnonInode::new(mode, uid, gid);
        let mut shown = name.to_vec();
        if name.last() == Some(&b':') {
            shown.extend_from_slice(format!("[{}]", inode.ino()).as_bytes());
        }
        let place = Place::anonymous(&shown, inode.clone());
        OpenFile::new(place, inode, ops, flags)
    }
}
