//! Mounts: a file system's tree at a place of the name space (mount(2), mount_namespaces(7)).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use linux_abi::Errno;
use parking_lot::RwLock;

use crate::{Dentry, FileSystem, MountNamespace, Place, Result};

bitflags! {
    /// Flags of one mount, with the values of mount(2)'s `MS_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// No changes.
        const RDONLY = 1;
        /// No set-user-id programs.
        const NOSUID = 2;
        /// No devices.
        const NODEV = 4;
        /// No programs.
        const NOEXEC = 8;
        /// No symbolic links are followed.
        const NOSYMFOLLOW = 256;
        /// Access times stay.
        const NOATIME = 1 << 10;
        /// Access times of directories stay.
        const NODIRATIME = 1 << 11;
        /// Access times change once a day or after a modification.
        const RELATIME = 1 << 21;
    }
}

/// How mount events travel to and from a mount (mount_namespaces(7)). The number is a peer group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "named in mount_namespaces(7)")]
pub enum Propagation {
    #[default]
    Private,
    Shared(u64),
    Slave(u64),
    Unbindable,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A file system's tree (or a part of it) at a place of the name space.
pub struct Mount {
    id: u64,
    /// The file system.
    pub file_system: Arc<dyn FileSystem>,
    /// The root of what is mounted.
    pub root: Arc<Dentry>,
    source: Vec<u8>,
    hides: bool,
    flags: AtomicU32,
    propagation: RwLock<Propagation>,
    /// The mount point; none for the root of a namespace and for detached mounts.
    at: RwLock<Option<Place>>,
    namespace: RwLock<Weak<MountNamespace>>,
}

impl Mount {
    /// A mount that is in no namespace: of anonymous files and of trees not yet attached.
    pub fn detached(file_system: Arc<dyn FileSystem>, root: Arc<Dentry>) -> Arc<Mount> {
        Mount::new(file_system, root, MountFlags::empty(), b"none")
    }

    /// A mount with flags and a source, not yet in a namespace.
    pub fn new(
        file_system: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        flags: MountFlags,
        source: &[u8],
    ) -> Arc<Mount> {
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            hides: file_system.hides(),
            file_system,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            propagation: RwLock::default(),
            at: RwLock::new(None),
            namespace: RwLock::default(),
        })
    }

    /// Whether its file system shows some files to some callers only.
    pub(crate) fn hides(&self) -> bool {
        self.hides
    }

    /// A copy with another root in the same file system, in no namespace.
    pub(crate) fn copy(&self, root: Arc<Dentry>) -> Arc<Mount> {
        let copy = Mount::new(self.file_system.clone(), root, self.flags(), &self.source);
        copy.set_propagation(self.propagation());
        copy
    }

    /// The pseudo mount of anonymous files.
    pub fn anonymous() -> Arc<Mount> {
        crate::anonymous::mount()
    }

    /// The mount id of /proc/PID/mountinfo and statx(2); unique.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The device number (`st_dev`) of its root; none if the root cannot be looked at.
    pub fn device(&self) -> Option<u64> {
        Some(self.root.inode()?.metadata().ok()?.dev)
    }
    /// What mount(2) was given as source.
    pub fn source(&self) -> &[u8] {
        &self.source
    }
    /// Its flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Replaces its flags (`MS_REMOUNT`).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }
    /// Whether a flag is set.
    pub fn has(&self, flags: MountFlags) -> bool {
        self.flags().contains(flags)
    }
    /// `EROFS` if nothing may be changed through it.
    pub fn check_writable(&self) -> Result<()> {
        if self.has(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }
    /// How mount events travel.
    pub fn propagation(&self) -> Propagation {
        *self.propagation.read()
    }
    /// `MS_PRIVATE` and its siblings.
    pub fn set_propagation(&self, propagation: Propagation) {
        *self.propagation.write() = propagation;
    }
    /// The mount point.
    pub fn at(&self) -> Option<Place> {
        self.at.read().clone()
    }
    /// Changes the mount point, and gives the old one. The namespace's lock is held.
    pub(crate) fn set_at(&self, at: Option<Place>) -> Option<Place> {
        std::mem::replace(&mut *self.at.write(), at)
    }
    /// The namespace it is in.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.namespace.read().upgrade()
    }
    pub(crate) fn set_namespace(&self, namespace: Weak<MountNamespace>) {
        *self.namespace.write() = namespace;
    }
    /// Its root as a place.
    pub fn root_place(self: &Arc<Mount>) -> Place {
        Place { mount: self.clone(), dentry: self.root.clone() }
    }
}

impl Place {
    /// Goes to the root of what is mounted here, if anything is, up to the topmost.
    pub fn cross_down(mut self) -> Place {
        while self.dentry.is_mountpoint() {
            let Some(over) = self.mount.namespace().and_then(|ns| ns.mounted_at(&self)) else { break };
            self = over.root_place();
        }
        self
    }
    /// At the root of a mount, goes to its mount point, down to the lowest.
    pub fn cross_up(mut self) -> Place {
        while Arc::ptr_eq(&self.dentry, &self.mount.root) {
            let Some(at) = self.mount.at() else { break };
            self = at;
        }
        self
    }
    /// The directory above: over mount points; itself at the top of all.
    pub fn parent(&self) -> Place {
        let low = self.clone().cross_up();
        match low.dentry.parent() {
            Some(dentry) => Place { mount: low.mount, dentry }.cross_down(),
            None => self.clone(),
        }
    }
}
