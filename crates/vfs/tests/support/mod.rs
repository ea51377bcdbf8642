//! A caller and a name space on tmpfs.
#![expect(dead_code, reason = "each test file uses some of it")]

use std::any::Any;
use std::sync::Arc;

use fs_tmp::{Options, TmpFs};
use identity::{CapabilitySet, Credentials};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::ops::open::Opened;
use vfs::walk::Parent;
use vfs::{Caller, FileSystem, MountNamespace, OpenFile, Place, Result, WalkFlags, Walker};

pub(crate) struct User(pub(crate) Credentials);

impl Caller for User {
    fn credentials(&self) -> &Credentials {
        &self.0
    }
    fn pid(&self) -> i32 {
        1
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A name space, a current directory, a user.
pub(crate) struct World {
    pub(crate) namespace: Arc<MountNamespace>,
    pub(crate) root: Place,
    pub(crate) cwd: Place,
    pub(crate) user: User,
}

pub(crate) fn tmpfs() -> Arc<TmpFs> {
    TmpFs::new(Options { mode: 0o755, ..Options::default() })
}

impl World {
    pub(crate) fn new() -> World {
        World::on(tmpfs())
    }
    pub(crate) fn on(fs: Arc<dyn FileSystem>) -> World {
        let namespace = MountNamespace::new(fs).expect("a fresh file system");
        let root = namespace.root().expect("a fresh file system");
        World { namespace, cwd: root.clone(), root, user: User(Credentials::root()) }
    }
    pub(crate) fn become_user(&mut self, uid: u32) {
        let root = Credentials::root();
        self.user.0 = Credentials {
            uid,
            euid: uid,
            fsuid: uid,
            gid: uid,
            egid: uid,
            fsgid: uid,
            effective: CapabilitySet::EMPTY,
            permitted: CapabilitySet::EMPTY,
            ..root
        };
    }
    pub(crate) fn walker(&mut self, flags: WalkFlags) -> Walker<'_> {
        Walker::new(self.root.clone(), self.cwd.clone(), &mut self.user, flags)
    }
    pub(crate) fn resolve_with(&mut self, path: &str, flags: WalkFlags) -> Result<Place> {
        self.walker(flags).resolve(path.as_bytes())
    }
    pub(crate) fn resolve(&mut self, path: &str) -> Result<Place> {
        self.resolve_with(path, WalkFlags::FOLLOW)
    }
    pub(crate) fn parent(&mut self, path: &str) -> Result<Parent> {
        self.walker(WalkFlags::empty()).resolve_parent(path.as_bytes())
    }
    pub(crate) fn mkdir(&mut self, path: &str) -> Result<Place> {
        let parent = self.parent(path)?;
        vfs::ops::create::mkdir(&self.user, &parent, 0o755)
    }
    pub(crate) fn symlink(&mut self, target: &str, path: &str) -> Result<Place> {
        let parent = self.parent(path)?;
        vfs::ops::create::symlink(&self.user, &parent, target.as_bytes())
    }
    pub(crate) fn unlink(&mut self, path: &str) -> Result<()> {
        let parent = self.parent(path)?;
        vfs::ops::remove::unlink(&self.user, &parent)
    }
    pub(crate) fn rmdir(&mut self, path: &str) -> Result<()> {
        let parent = self.parent(path)?;
        vfs::ops::remove::rmdir(&self.user, &parent)
    }
    pub(crate) fn rename(&mut self, old: &str, new: &str) -> Result<()> {
        let (from, to) = (self.parent(old)?, self.parent(new)?);
        vfs::ops::rename::rename(&self.user, &from, &to, vfs::RenameFlags::empty())
    }
    pub(crate) fn open(&mut self, path: &str, flags: OpenFlags, mode: u32) -> Result<Arc<OpenFile>> {
        let opened =
            vfs::ops::open::open(&mut self.walker(WalkFlags::empty()), path.as_bytes(), flags, mode)?;
        match opened {
            Opened::File(file) => Ok(file),
            Opened::Special { .. } => Err(Errno::ENXIO),
        }
    }
    pub(crate) fn create(&mut self, path: &str) -> Result<Arc<OpenFile>> {
        self.open(path, OpenFlags::CREAT | OpenFlags::RDWR, 0o644)
    }
    pub(crate) fn path(&mut self, path: &str) -> String {
        let place = self.resolve(path).expect("a fresh tmpfs");
        String::from_utf8(place.path(&self.root)).expect("a fresh tmpfs")
    }
}
