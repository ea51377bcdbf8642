//! Names in a tree: dentries, and a place (mount and dentry).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use crate::{Inode, mount::Mount};

/// A name in a directory with the inode behind it, or none (a negative entry).
pub struct Dentry {
    /// Parent and name change together at rename.
    link: RwLock<(Option<Arc<Dentry>>, Box<[u8]>)>,
    inode: RwLock<Option<Arc<dyn Inode>>>,
    /// Cached children by name.
    pub(crate) children: Mutex<HashMap<Box<[u8]>, Weak<Dentry>>>,
}

impl Dentry {
    /// The root of a tree.
    pub fn root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::detached(b"/", inode)
    }

    /// A nameless dentry of a pipe, socket and the like; `name` is what /proc/PID/fd shows, such as `pipe:[7]`.
    pub fn detached(name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Arc::new(Dentry {
            link: RwLock::new((None, name.into())),
            inode: RwLock::new(Some(inode)),
            children: Mutex::new(HashMap::new()),
        })
    }

    /// The inode, none for a negative entry.
    pub fn inode(&self) -> Option<Arc<dyn Inode>> {
        self.inode.read().clone()
    }
    /// The parent, none for a root.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.link.read().0.clone()
    }
    /// The last component.
    pub fn name(&self) -> Box<[u8]> {
        self.link.read().1.clone()
    }
}

/// A place in the name space: which mount, which dentry.
#[derive(Clone)]
pub struct Place {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry within its tree.
    pub dentry: Arc<Dentry>,
}
