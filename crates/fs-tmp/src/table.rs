//! The bounded number of host memfds.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use vfs::Result;

use crate::errno;
use crate::inode::TmpInode;

static PROC_SELF_FD: OnceLock<Arc<OwnedFd>> = OnceLock::new();

/// Says where `/proc/self/fd` of this process is when it has no `/proc`: read-only mappings need a
/// descriptor opened through it. The first one counts.
pub fn set_proc_self_fd(directory: Arc<OwnedFd>) {
    let _ = PROC_SELF_FD.set(directory);
}

/// The same file, opened for reading only.
pub(crate) fn read_only(fd: &OwnedFd) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let number = fd.as_raw_fd();
    match PROC_SELF_FD.get() {
        Some(directory) => rustix::fs::openat(directory, number.to_string(), flags, Mode::empty()),
        None => rustix::fs::openat(CWD, format!("/proc/self/fd/{number}"), flags, Mode::empty()),
    }
    .map_err(errno)
}

/// A new host memfd that may be mapped for execution.
pub(crate) fn create() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(c"file", flags | MemfdFlags::EXEC) {
        // Hosts before 6.3 do not know `MFD_EXEC`, and allow it anyway.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"file", flags),
        result => result,
    }
    .map_err(errno)
}

/// Files that have a memfd, oldest first; mapped ones are passed over.
struct Table {
    files: Mutex<VecDeque<Weak<TmpInode>>>,
    count: AtomicUsize,
    bound: usize,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok());
        // A mapped file has up to two descriptors.
        Table {
            files: Mutex::default(),
            count: AtomicUsize::new(0),
            bound: (limit.unwrap_or(1 << 16) / 6).clamp(16, 1 << 16),
        }
    })
}

/// The right to one memfd, given back when dropped.
pub(crate) struct Permit(());

impl Permit {
    /// None if the bound is reached; [`evict`] may help then.
    pub(crate) fn take() -> Option<Permit> {
        let table = table();
        table
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < table.bound).then_some(count + 1)
            })
            .ok()
            .map(|_| Permit(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        table().count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file has a memfd from now on.
pub(crate) fn add(file: &Arc<TmpInode>) {
    let mut files = table().files.lock();
    files.push_back(Arc::downgrade(file));
    if files.len() > 4 * table().bound {
        files.retain(|file| file.strong_count() > 0);
    }
}

/// Whether few are left, so that somebody should call [`evict`] while holding no file's lock.
pub(crate) fn scarce() -> bool {
    table().count.load(Ordering::Relaxed) >= table().bound
}

/// Takes the memfds of some unmapped files, oldest first. Call it with no file's lock held.
pub(crate) fn evict() {
    let table = table();
    let wanted = (table.bound / 16).max(1);
    let turns = table.files.lock().len();
    let mut freed = 0;
    for _ in 0..turns {
        let Some(weak) = table.files.lock().pop_front() else { return };
        let Some(file) = weak.upgrade() else { continue };
        match file.give_back_memfd() {
            Some(true) => freed += 1,
            // Mapped or in use: it keeps its place.
            Some(false) => table.files.lock().push_back(weak),
            None => {}
        }
        if freed >= wanted {
            return;
        }
    }
}
