//! The file system instance: its root descriptor, options and table of live inodes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};

use host::connector::Connector;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{OFlags, StatVfsMountFlags};
use vfs::{FileSystem, Inode, Result, StatFs};

use crate::attributes::{Identity, Known};
use crate::descriptors::Reopener;
use crate::errno;
use crate::inode::{HostInode, Link, open_beneath};
use crate::node::{self, Node};

/// All instances: the same host file may be in several (two bind mounts of one folder).
static INSTANCES: RwLock<Vec<Weak<HostFs>>> = RwLock::new(Vec::new());

/// `OVERLAYFS_SUPER_MAGIC` of statfs(2).
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// How a host directory is shown.
#[derive(Default)]
pub struct Options {
    /// Nothing is written: changes are `EROFS`.
    pub read_only: bool,
    /// The device number that files on the root's host device show as `st_dev`; the host's if none.
    pub device: Option<u64>,
    /// `/proc/self/fd` of the calling process, through which descriptors are opened anew. Without it
    /// they are opened by name again and checked, and some changes of unnamed files are refused.
    pub proc_self_fd: Option<Arc<OwnedFd>>,
    /// Sockets and FIFOs there are the host's, so that they join programs of the guest with those of the host.
    pub outside: bool,
    /// Who binds sockets there that are the host's, too.
    pub binder: Option<Arc<Connector>>,
}

/// A host directory tree.
pub struct HostFs {
    this: Weak<HostFs>,
    root: Arc<OwnedFd>,
    root_device: u64,
    pub(crate) read_only: bool,
    /// Sockets and FIFOs are the host's.
    pub(crate) outside: bool,
    pub(crate) binder: Option<Arc<Connector>>,
    /// The tree is an overlay of the host.
    pub(crate) copies_up: bool,
    /// Each access is stored (mount(2), `strictatime`).
    pub(crate) strict_access: bool,
    device: Option<u64>,
    pub(crate) reopener: Reopener,
    /// The host keeps no access control lists there.
    pub(crate) without_lists: AtomicBool,
    /// User and group that the host gives to what we make, as far as is known (`u64::MAX`: not yet).
    pub(crate) given_owner: AtomicU64,
    /// Live inodes, so that hard links meet in one.
    inodes: Mutex<HashMap<(u64, u64), Weak<HostInode>>>,
}

impl HostFs {
    /// The tree below `root`: an `O_PATH` descriptor of a directory, such as a detached mount; or a
    /// single file, which is then all there is.
    ///
    /// The process's umask must be 0, which it is made: modes are the guest's.
    ///
    /// # Errors
    /// What statx(2) says of the descriptor; `ELOOP` for a symbolic link.
    pub fn new(root: OwnedFd, options: Options) -> Result<Arc<HostFs>> {
        rustix::process::umask(rustix::fs::Mode::empty());
        let known = Known::of(&root)?;
        if known.metadata.kind() == linux_abi::fs::S_IFLNK {
            return Err(linux_abi::Errno::ELOOP);
        }
        let copies_up = rustix::fs::fstatfs(&root).is_ok_and(|stat| stat.f_type == OVERLAY);
        let rules = StatVfsMountFlags::NOATIME | StatVfsMountFlags::RELATIME;
        let strict_access = rustix::fs::fstatvfs(&root).is_ok_and(|stat| !stat.f_flag.intersects(rules));
        let fs = Arc::new_cyclic(|this| HostFs {
            this: this.clone(),
            root: Arc::new(root),
            root_device: known.identity.dev,
            read_only: options.read_only,
            outside: options.outside,
            binder: options.binder,
            copies_up,
            strict_access,
            device: options.device,
            reopener: Reopener::new(options.proc_self_fd),
            without_lists: AtomicBool::new(false),
            given_owner: AtomicU64::new(u64::MAX),
            inodes: Mutex::default(),
        });
        let mut instances = INSTANCES.write();
        instances.retain(|instance| instance.strong_count() > 0);
        instances.push(Arc::downgrade(&fs));
        drop(instances);
        Ok(fs)
    }

    pub(crate) fn shared(&self) -> Arc<HostFs> {
        // `self` lives inside its own Arc: upgrade cannot fail while it is borrowed.
        self.this.upgrade().unwrap_or_else(|| unreachable!("borrowed file system was dropped"))
    }

    /// The device number to show for a host one.
    pub(crate) fn shown_device(&self, dev: u64) -> u64 {
        match self.device {
            Some(shown) if dev == self.root_device => shown,
            _ => dev,
        }
    }

    /// The inode of an open descriptor: the living one if there is one, else a new one.
    pub(crate) fn inode_of(&self, fd: Arc<OwnedFd>, known: Known, link: Link) -> Arc<HostInode> {
        let key = (known.identity.dev, known.identity.ino);
        let node = if node::is_marked(&known.metadata) { self.node_of(&fd, &link) } else { None };
        let mut inodes = self.inodes.lock();
        let living = inodes.get(&key).and_then(Weak::upgrade);
        if let Some(inode) = living.as_ref().filter(|inode| inode.is(&known.identity)) {
            let inode = Arc::clone(inode);
            drop(inodes);
            inode.found_again(fd, &known, link);
            return inode;
        }
        let inode = HostInode::new(self.shared(), fd, known, node, link);
        inodes.insert(key, Arc::downgrade(&inode));
        // Before `living`, which may be the last holder of a file whose number is used again.
        drop(inodes);
        inode
    }

    /// The device that a marked file stands for.
    fn node_of(&self, fd: &OwnedFd, link: &Link) -> Option<Node> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = match self.reopener.reopen(fd, flags) {
            Some(opened) => opened.ok()?,
            None => match link {
                Link::Name(parent, name) => {
                    open_beneath(&*parent.fd().ok()?, name, flags | OFlags::NOFOLLOW).ok()?
                }
                Link::Root | Link::None => return None,
            },
        };
        Node::read(opened)
    }

    /// The living inode with this identity, if any.
    pub(crate) fn living(&self, identity: &Identity) -> Option<Arc<HostInode>> {
        let inode = self.inodes.lock().get(&(identity.dev, identity.ino)).and_then(Weak::upgrade)?;
        inode.is(identity).then_some(inode)
    }

    /// The living inode with this device and inode number, if any.
    pub(crate) fn living_by_key(&self, key: (u64, u64)) -> Option<Arc<HostInode>> {
        self.inodes.lock().get(&key).and_then(Weak::upgrade)
    }

    pub(crate) fn root_inode(&self) -> Result<Arc<HostInode>> {
        let known = Known::of(&*self.root)?;
        Ok(self.inode_of(Arc::clone(&self.root), known, Link::Root))
    }

    /// Calls for the living inodes of the same host file in other instances.
    pub(crate) fn for_peers(&self, key: (u64, u64), call: impl Fn(&HostInode)) {
        let instances = INSTANCES.read();
        if instances.len() < 2 {
            return;
        }
        let twins: Vec<_> = instances
            .iter()
            .filter(|instance| !std::ptr::eq(instance.as_ptr(), self))
            .filter_map(Weak::upgrade)
            .filter(|instance| instance.root_device == self.root_device)
            .filter_map(|instance| instance.living_by_key(key))
            .collect();
        // Dropping one may be the end of an instance.
        drop(instances);
        for twin in twins {
            call(&twin);
        }
    }

    /// Forgets an inode that is being dropped, unless another took its place.
    pub(crate) fn forget(&self, identity: &Identity) {
        let key = (identity.dev, identity.ino);
        let mut inodes = self.inodes.lock();
        if inodes.get(&key).is_some_and(|inode| inode.strong_count() == 0) {
            inodes.remove(&key);
        }
    }
}

impl FileSystem for HostFs {
    fn type_name(&self) -> &'static str {
        // What a container on Docker sees, and what tools take for "a disk, not memory".
        "overlay"
    }

    fn root(&self) -> Result<Arc<dyn Inode>> {
        Ok(self.root_inode()?)
    }

    fn statfs(&self) -> Result<StatFs> {
        let host = rustix::fs::fstatvfs(&*self.root).map_err(errno)?;
        let magic = rustix::fs::fstatfs(&*self.root).map_err(errno)?.f_type;
        Ok(StatFs {
            magic: magic as u64,
            block_size: host.f_bsize,
            blocks: host.f_blocks,
            blocks_free: host.f_bfree,
            blocks_available: host.f_bavail,
            files: host.f_files,
            files_free: host.f_ffree,
            fsid: host.f_fsid,
            name_max: host.f_namemax,
        })
    }

    fn sync(&self) -> Result<()> {
        // syncfs refuses O_PATH descriptors.
        let fd = self.root_inode()?.open_handle(OFlags::RDONLY)?;
        rustix::fs::syncfs(fd).map_err(errno)
    }
}
