//! The descriptor table: what clone(2) shares with `CLONE_FILES`.

use std::sync::Arc;

use linux_abi::Errno;
use parking_lot::RwLock;
use vfs::OpenFile;

use crate::Result;

/// Never more descriptors than this, whatever `RLIMIT_NOFILE` says (`/proc/sys/fs/nr_open`).
pub const NR_OPEN: usize = 1 << 20;

/// Flags of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FdFlags {
    /// `FD_CLOEXEC`.
    pub cloexec: bool,
}

#[derive(Clone)]
struct Entry {
    file: Arc<OpenFile>,
    flags: FdFlags,
}

#[derive(Clone, Default)]
struct Slots {
    entries: Vec<Option<Entry>>,
    /// No free slot lies below.
    first_free: usize,
}

/// Descriptors of one or more processes.
#[derive(Default)]
pub struct FdTable {
    slots: RwLock<Slots>,
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<FdTable> {
        Arc::new(FdTable::default())
    }

    /// A private copy, as fork makes.
    pub fn duplicate(&self) -> Arc<FdTable> {
        Arc::new(FdTable { slots: RwLock::new(self.slots.read().clone()) })
    }

    /// The open file of a descriptor; `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.read();
        slots.entries.get(index).and_then(Option::as_ref).map(|e| e.file.clone()).ok_or(Errno::EBADF)
    }

    /// The flags of a descriptor; `EBADF`.
    pub fn flags(&self, fd: i32) -> Result<FdFlags> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.read();
        slots.entries.get(index).and_then(Option::as_ref).map(|e| e.flags).ok_or(Errno::EBADF)
    }

    /// Sets the flags of a descriptor; `EBADF`.
    pub fn set_flags(&self, fd: i32, flags: FdFlags) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        slots.entries.get_mut(index).and_then(Option::as_mut).ok_or(Errno::EBADF)?.flags = flags;
        Ok(())
    }

    /// Puts a file at the lowest free descriptor from `min` on, below `limit` (`RLIMIT_NOFILE`); `EMFILE`.
    pub fn insert(&self, file: Arc<OpenFile>, flags: FdFlags, min: usize, limit: u64) -> Result<i32> {
        let limit = usize::try_from(limit).unwrap_or(NR_OPEN).min(NR_OPEN);
        let mut slots = self.slots.write();
        let mut index = min.max(slots.first_free);
        while slots.entries.get(index).is_some_and(Option::is_some) {
            index += 1;
        }
        if index >= limit {
            return Err(Errno::EMFILE);
        }
        slots.put(index, Entry { file, flags });
        i32::try_from(index).map_err(|_| Errno::EMFILE)
    }

    /// Puts a file at exactly this descriptor; returns what was there (dup2(2)); `EBADF` beyond the limit.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<OpenFile>,
        flags: FdFlags,
        limit: u64,
    ) -> Result<Option<Arc<OpenFile>>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index >= NR_OPEN || index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.write();
        let old = slots.entries.get_mut(index).and_then(Option::take);
        slots.put(index, Entry { file, flags });
        Ok(old.map(|e| e.file))
    }

    /// Takes a descriptor out; `EBADF`.
    pub fn remove(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let entry = slots.entries.get_mut(index).and_then(Option::take).ok_or(Errno::EBADF)?;
        slots.first_free = slots.first_free.min(index);
        Ok(entry.file)
    }

    /// Takes out all from `first` to `last` inclusive (close_range(2)).
    pub fn remove_range(&self, first: u32, last: u32) -> Vec<Arc<OpenFile>> {
        self.take_if(|index, _| index >= first as usize && index <= last as usize)
    }

    /// Marks all from `first` to `last` inclusive close-on-exec.
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.write();
        for entry in slots
            .entries
            .iter_mut()
            .skip(first as usize)
            .take((last as usize).saturating_sub(first as usize).saturating_add(1))
            .flatten()
        {
            entry.flags.cloexec = true;
        }
    }

    /// Takes out what exec closes.
    pub fn remove_cloexec(&self) -> Vec<Arc<OpenFile>> {
        self.take_if(|_, entry| entry.flags.cloexec)
    }

    /// Descriptors in use, with their files and flags, in ascending order.
    pub fn list(&self) -> Vec<(i32, Arc<OpenFile>, FdFlags)> {
        let slots = self.slots.read();
        slots
            .entries
            .iter()
            .enumerate()
            .filter_map(|(i, e)| e.as_ref().map(|e| (i as i32, e.file.clone(), e.flags)))
            .collect()
    }

    /// How many slots the table has (`FDSize` of /proc/PID/status).
    pub fn capacity(&self) -> usize {
        self.slots.read().entries.len().next_multiple_of(64)
    }

    fn take_if(&self, take: impl Fn(usize, &Entry) -> bool) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.write();
        let mut taken = Vec::new();
        let mut lowest = slots.first_free;
        for (index, slot) in slots.entries.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|e| take(index, e)) {
                taken.extend(slot.take().map(|e| e.file));
                lowest = lowest.min(index);
            }
        }
        slots.first_free = lowest;
        taken
    }
}

impl Slots {
    fn put(&mut self, index: usize, entry: Entry) {
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.entries.get_mut(index) {
            *slot = Some(entry);
        }
        if index == self.first_free {
            self.first_free += 1;
        }
    }
}
