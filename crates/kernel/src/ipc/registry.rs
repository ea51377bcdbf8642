//! Objects of one kind by id and key.

use std::collections::HashMap;
use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE};
use parking_lot::RwLock;
use slab::Slab;

use crate::Result;

struct Inner<T> {
    objects: Slab<(i32, Arc<T>)>,
    keys: HashMap<i32, usize>,
    /// Differs between objects that one place had: it goes on when places are used again.
    sequence: u16,
    last: usize,
    used: bool,
}

/// Objects of one kind. An id is a place and a sequence number.
pub struct Registry<T> {
    inner: RwLock<Inner<T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Registry<T> {
        Registry {
            inner: RwLock::new(Inner {
                objects: Slab::new(),
                keys: HashMap::new(),
                sequence: 0,
                last: 0,
                used: false,
            }),
        }
    }
}

/// Bits of an id that are its place.
const PLACE: i32 = 0x7fff;

impl<T> Registry<T> {
    /// The object of a key, or a new one, as the `*get` calls say. `check` looks at one that exists, `make`
    /// makes one of an id.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `ENOSPC` past `limit` objects, and those of `check` and `make`.
    pub fn get_or_make(
        &self,
        key: i32,
        flags: i32,
        limit: i32,
        check: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(i32) -> Result<T>,
    ) -> Result<i32> {
        let mut inner = self.inner.write();
        if key != IPC_PRIVATE {
            if let Some((id, object)) = inner.keys.get(&key).and_then(|at| inner.objects.get(*at)) {
                if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                    return Err(Errno::EEXIST);
                }
                check(object)?;
                return Ok(*id);
            }
            if flags & IPC_CREAT == 0 {
                return Err(Errno::ENOENT);
            }
        }
        let place = inner.objects.vacant_key();
        let small = i32::try_from(place).ok().filter(|p| *p <= PLACE).ok_or(Errno::ENOSPC)?;
        if inner.objects.len() >= usize::try_from(limit).unwrap_or(0) {
            return Err(Errno::ENOSPC);
        }
        let again = inner.used && place <= inner.last;
        let sequence = inner.sequence.wrapping_add(u16::from(again));
        let id = i32::from(sequence) << 15 | small;
        let object = Arc::new(make(id)?);
        (inner.sequence, inner.last, inner.used) = (sequence, place, true);
        inner.objects.insert((id, object));
        if key != IPC_PRIVATE {
            inner.keys.insert(key, place);
        }
        Ok(id)
    }

    /// The object of an id; `EINVAL`.
    pub fn get(&self, id: i32) -> Result<Arc<T>> {
        let inner = self.inner.read();
        let found = usize::try_from(id & PLACE).ok().and_then(|place| inner.objects.get(place));
        found.filter(|(own, _)| *own == id).map(|(_, object)| object.clone()).ok_or(Errno::EINVAL)
    }

    /// The object at a place, for `*_STAT` (an id will do); `EINVAL`.
    pub fn at(&self, place: i32) -> Result<(i32, Arc<T>)> {
        let place = usize::try_from(place & PLACE).map_err(|_| Errno::EINVAL)?;
        self.inner.read().objects.get(place).cloned().ok_or(Errno::EINVAL)
    }

    /// Takes an object out; it may be in use still.
    pub fn remove(&self, id: i32) -> Option<Arc<T>> {
        let mut inner = self.inner.write();
        let place = usize::try_from(id & PLACE).ok()?;
        if inner.objects.get(place)?.0 != id {
            return None;
        }
        inner.keys.retain(|_, at| *at != place);
        Some(inner.objects.remove(place).1)
    }

    /// Makes the object found by its id only.
    pub fn forget_key(&self, key: i32) {
        self.inner.write().keys.remove(&key);
    }

    /// All objects, by place.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.inner.read().objects.iter().map(|(_, (_, object))| object.clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest place in use, 0 if none is.
    pub fn highest(&self) -> i32 {
        let inner = self.inner.read();
        inner.objects.iter().map(|(place, _)| place).max().and_then(|p| i32::try_from(p).ok()).unwrap_or(0)
    }
}
