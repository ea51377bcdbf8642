//! Access control lists of host files: the host keeps them and their modes in step, we ask for them when they
//! may count, and remember them while the directory is watched.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFREG};
use parking_lot::Mutex;
use vfs::{Acl, Result, acl};

use crate::inode::{HostInode, Link};
use crate::xattr;

/// The access and the default list as they were told last, each with the generation of the watch.
#[derive(Default)]
pub(crate) struct Lists(Mutex<State>);

#[derive(Default)]
struct State {
    known: [Option<(u64, Option<Arc<Acl>>)>; 2],
    /// Counts the times they were made invalid.
    changes: u64,
}

impl Lists {
    pub(crate) fn invalidate(&self) {
        let mut state = self.0.lock();
        state.changes += 1;
        state.known = [None, None];
    }
}

impl HostInode {
    /// The list of an attribute, if there is one.
    pub(crate) fn list(&self, attribute: &[u8]) -> Result<Option<Acl>> {
        let applies = match self.identity().kind {
            _ if self.node.is_some() => false,
            S_IFDIR => true,
            S_IFREG => attribute == acl::ACCESS,
            _ => false,
        };
        if !applies || self.fs().without_lists.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let index = usize::from(attribute == acl::DEFAULT);
        let generation = self.list_generation();
        let changes = {
            let state = self.lists.0.lock();
            if let (Some(generation), Some(Some((kept, list)))) = (generation, state.known.get(index))
                && *kept == generation
            {
                return Ok(list.as_deref().cloned());
            }
            state.changes
        };
        let list = self.ask_for_list(attribute)?;
        if let Some(generation) = generation {
            let mut state = self.lists.0.lock();
            if state.changes == changes
                && let Some(known) = state.known.get_mut(index)
            {
                *known = Some((generation, list.clone().map(Arc::new)));
            }
        }
        Ok(list)
    }

    /// The watch under which a change of the list would be told, if there is one.
    fn list_generation(&self) -> Option<u64> {
        if let Some(names) = &self.names {
            return names.generation();
        }
        let link = self.link.lock();
        let Link::Name(parent, _) = &*link else { return None };
        let generation = parent.names.as_ref()?.generation()?;
        drop(link);
        // The attributes are kept only where all that changes them is told.
        self.attributes.get(generation).map(|_| generation)
    }

    fn ask_for_list(&self, attribute: &[u8]) -> Result<Option<Acl>> {
        let value = match xattr::get(self, attribute) {
            Ok(value) => value,
            Err(Errno::EOPNOTSUPP) => {
                if self.is_root() {
                    self.fs().without_lists.store(true, Ordering::Relaxed);
                }
                return Ok(None);
            }
            // Not ours to open, so that the mode must do.
            Err(Errno::ENODATA | Errno::EACCES | Errno::EPERM) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Ids that are not mapped make no list of it.
        Ok(Acl::parse(&value).unwrap_or(None))
    }
}
