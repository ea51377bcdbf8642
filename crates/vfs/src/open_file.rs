//! The open file description (open(2)): offset, status flags and what is behind them.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;

use crate::owner::{FileOwner, Ownership};
use crate::{FileOps, Inode, Place};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An open file description, shared by the descriptors that dup(2) and fork(2) make.
pub struct OpenFile {
    id: u64,
    place: Place,
    inode: Arc<dyn Inode>,
    ops: Arc<dyn FileOps>,
    flags: AtomicU32,
    /// Held over a read or write that uses the position, so that two threads do not read the same bytes.
    pos: Mutex<u64>,
    /// open(2) made the file.
    created: AtomicBool,
    /// It is one of the file's writers.
    writes: AtomicBool,
    owner: Mutex<Ownership>,
    attachment: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        crate::notify::closed(self);
        if *self.writes.get_mut()
            && let Some(writers) = self.inode.writers()
        {
            writers.leave();
        }
    }
}

impl OpenFile {
    /// An open file at a place of the name space (or an anonymous one).
    pub fn new(
        place: Place,
        inode: Arc<dyn Inode>,
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
    ) -> Arc<OpenFile> {
        let kept = flags
            - (OpenFlags::CREAT
                | OpenFlags::EXCL
                | OpenFlags::NOCTTY
                | OpenFlags::TRUNC
                | OpenFlags::CLOEXEC);
        Arc::new(OpenFile {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            place,
            inode,
            ops,
            flags: AtomicU32::new(kept.bits()),
            pos: Mutex::new(0),
            created: AtomicBool::new(false),
            writes: AtomicBool::new(false),
            owner: Mutex::default(),
            attachment: OnceLock::new(),
        })
    }

    /// Unique for the life of the sandbox: the owner of OFD and flock locks.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Where it was opened.
    pub fn place(&self) -> &Place {
        &self.place
    }
    /// Its inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }
    /// Its operations.
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }
    /// Its operations as a concrete type, such as a socket.
    pub fn ops_as<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
    /// Status flags and access mode.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// fcntl(F_SETFL): only the bits of `SETFL_MASK` change.
    pub fn set_flags(&self, flags: OpenFlags) {
        let old = self.flags();
        let new = (old - OpenFlags::SETFL_MASK) | (flags & OpenFlags::SETFL_MASK);
        self.flags.store(new.bits(), Ordering::Relaxed);
        self.ops.flags_changed(self);
    }
    /// The position.
    pub fn pos(&self) -> &Mutex<u64> {
        &self.pos
    }
    /// Ties something to the life of the open file (its locks); only the first one is kept.
    pub fn attach(&self, make: impl FnOnce() -> Box<dyn Any + Send + Sync>) {
        self.attachment.get_or_init(make);
    }
    /// fcntl(F_CREATED_QUERY): whether the open(2) that gave it made the file.
    pub fn created(&self) -> bool {
        self.created.load(Ordering::Relaxed)
    }
    pub(crate) fn set_created(&self) {
        self.created.store(true, Ordering::Relaxed);
    }
    /// It was counted among the file's writers, and leaves them at its end.
    pub(crate) fn set_writes(&self) {
        self.writes.store(true, Ordering::Relaxed);
    }
    /// fcntl(F_GETOWN_EX).
    pub fn owner(&self) -> FileOwner {
        self.owner.lock().owner
    }
    /// fcntl(F_SETOWN_EX).
    pub fn set_owner(&self, owner: FileOwner) {
        self.owner.lock().owner = owner;
    }
    /// fcntl(F_GETSIG).
    pub fn owner_signal(&self) -> i32 {
        self.owner.lock().signal
    }
    /// fcntl(F_SETSIG).
    pub fn set_owner_signal(&self, sig: i32) {
        self.owner.lock().signal = sig;
    }
    /// Keeps what watches the file for its owner as long as the file lives: made if there is none for this
    /// descriptor yet, dropped for none.
    pub fn watch_for_owner(
        &self,
        fd: Option<i32>,
        make: impl FnOnce() -> Option<Box<dyn Any + Send + Sync>>,
    ) {
        let Some(fd) = fd else {
            let old = self.owner.lock().watch.take();
            drop(old);
            return;
        };
        if self.owner.lock().watch.as_ref().is_some_and(|(old, _)| *old == fd) {
            return;
        }
        // Made and dropped without the lock: both go to the file's wait queue.
        let new = make().map(|watch| (fd, watch));
        let old = std::mem::replace(&mut self.owner.lock().watch, new);
        drop(old);
    }
}
