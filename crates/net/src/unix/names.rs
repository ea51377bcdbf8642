//! Names of bound sockets: abstract ones and socket files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, SOCKADDR_UN};
use parking_lot::Mutex;
use vfs::Inode;

use super::Endpoint;
use crate::host::local::Outside;
use crate::provider::Providers;
use crate::{Address, Result};

/// What a name stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// Without the family.
    Abstract(Vec<u8>),
    /// Device and inode number of a socket file.
    Node(u64, u64),
}

/// The bound unix(7) sockets of one network namespace.
#[derive(Default)]
pub struct Names {
    bound: Mutex<BTreeMap<Key, Weak<Endpoint>>>,
    next_auto: AtomicU32,
    providers: Arc<Providers>,
    /// Connections to programs of the host, if any are granted.
    outside: OnceLock<Outside>,
}

/// The path in an address, up to its first NUL; none if abstract or unnamed.
pub fn path_of(address: &[u8]) -> Option<&[u8]> {
    let name = address.get(2..)?;
    match name.first() {
        None | Some(0) => None,
        Some(_) => Some(name.split(|b| *b == 0).next().unwrap_or(name)),
    }
}

/// The key of an address; `EINVAL` for another family, no name, or a path without its file.
pub(super) fn key_of(address: &Address) -> Result<Key> {
    if address.family()? != AF_UNIX || address.bytes.len() <= 2 || address.bytes.len() > SOCKADDR_UN {
        return Err(Errno::EINVAL);
    }
    match &address.node {
        Some(node) => node_key(node),
        None if path_of(&address.bytes).is_some() => Err(Errno::EINVAL),
        None => Ok(Key::Abstract(address.bytes.get(2..).unwrap_or_default().to_vec())),
    }
}

fn node_key(node: &Arc<dyn Inode>) -> Result<Key> {
    let meta = node.metadata()?;
    Ok(Key::Node(meta.dev, meta.ino))
}

impl Names {
    pub(crate) fn new(providers: Arc<Providers>) -> Names {
        Names { providers, ..Names::default() }
    }
    /// Who knows the network interfaces.
    pub(super) fn providers(&self) -> &Providers {
        &self.providers
    }
    /// Says how programs of the host are reached, once.
    pub(crate) fn set_outside(&self, outside: Outside) {
        let _ = self.outside.set(outside);
    }
    /// How programs of the host are reached, if any are.
    pub(super) fn outside(&self) -> Option<&Outside> {
        self.outside.get()
    }
    /// Whose name it is; `ECONNREFUSED`.
    pub(super) fn find(&self, key: &Key) -> Result<Arc<Endpoint>> {
        self.bound.lock().get(key).and_then(Weak::upgrade).ok_or(Errno::ECONNREFUSED)
    }
    /// Gives a name away; `EADDRINUSE`. A socket file is new, so that an old owner of its number is no obstacle.
    pub(super) fn add(&self, key: Key, endpoint: &Arc<Endpoint>) -> Result<()> {
        let mut bound = self.bound.lock();
        let taken = bound.get(&key).is_some_and(|e| e.strong_count() > 0);
        if taken && matches!(key, Key::Abstract(_)) {
            return Err(Errno::EADDRINUSE);
        }
        bound.insert(key, Arc::downgrade(endpoint));
        Ok(())
    }
    /// Takes a name back if it is still this socket's.
    pub(super) fn remove(&self, key: &Key, endpoint: &Arc<Endpoint>) {
        let mut bound = self.bound.lock();
        if bound.get(key).is_some_and(|e| std::ptr::eq(e.as_ptr(), Arc::as_ptr(endpoint))) {
            bound.remove(key);
        }
    }
    /// A fresh abstract name (unix(7), autobind), as address bytes.
    pub(super) fn fresh(&self) -> Vec<u8> {
        let n = self.next_auto.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        let mut bytes = AF_UNIX.to_ne_bytes().to_vec();
        bytes.push(0);
        bytes.extend_from_slice(format!("{n:05x}").as_bytes());
        bytes
    }
}
