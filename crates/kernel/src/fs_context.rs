//! Root, current directory and umask: what clone(2) shares with `CLONE_FS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;
use vfs::{MountNamespace, Place};

/// The part of a thread that path walk starts from.
pub struct FsContext {
    root: RwLock<Place>,
    cwd: RwLock<Place>,
    /// That of the root: mounts know it only weakly.
    namespace: RwLock<Option<Arc<MountNamespace>>>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context at these places.
    pub fn new(root: Place, cwd: Place, umask: u32) -> Arc<FsContext> {
        Arc::new(FsContext {
            namespace: RwLock::new(root.mount.namespace()),
            root: RwLock::new(root),
            cwd: RwLock::new(cwd),
            umask: AtomicU32::new(umask & 0o777),
        })
    }
    /// A private copy, as fork makes.
    pub fn duplicate(&self) -> Arc<FsContext> {
        FsContext::new(self.root(), self.cwd(), self.umask())
    }
    /// The root directory.
    pub fn root(&self) -> Place {
        self.root.read().clone()
    }
    /// chroot(2).
    pub fn set_root(&self, place: Place) {
        *self.namespace.write() = place.mount.namespace();
        *self.root.write() = place;
    }
    /// The mount namespace.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.namespace.read().clone()
    }
    /// The current directory.
    pub fn cwd(&self) -> Place {
        self.cwd.read().clone()
    }
    /// chdir(2).
    pub fn set_cwd(&self, place: Place) {
        *self.cwd.write() = place;
    }
    /// The file mode creation mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }
    /// umask(2): sets it and returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
