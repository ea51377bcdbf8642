//! The open file description (open(2)): offset, status flags and what is behind them.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;

use crate::owner::{FileOwner, Ownership};
use crate::{FileOps, Inode, Place, Position};

/// So many calls do not try anew whether a device is fast again.
const SLOW_CALLS: u32 = 16;

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
    held: AtomicBool,
    users: AtomicU32,
    /// It was mapped in a way that may leave it in host processes.
    kept: AtomicBool,
    /// Threads may add to its end without a system call.
    posted_to: AtomicBool,
    /// What went wrong then, until a call tells.
    late_error: AtomicU32,
    /// So many calls are to expect that its device is slow.
    slow: AtomicU32,
    /// How often it was read at an offset of late.
    reads_at: AtomicU32,
    /// Others outside of the sandbox move its position too.
    shares_position: AtomicBool,
}

/// A call that is about to take what waits in an open file, see [`OpenFile::enter`].
pub struct InUse<'a>(&'a OpenFile);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::SeqCst);
    }
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
            held: AtomicBool::new(false),
            users: AtomicU32::new(0),
            kept: AtomicBool::new(false),
            posted_to: AtomicBool::new(false),
            late_error: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            reads_at: AtomicU32::new(0),
            shares_position: AtomicBool::new(false),
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
    pub fn pos(&self) -> Position<'_> {
        Position(self)
    }
    pub(crate) fn own_position(&self) -> &Mutex<u64> {
        &self.pos
    }
    /// Whether others outside of the sandbox have the position in common: what is read and written there is read and
    /// written at [`crate::AT_SHARED_POSITION`].
    pub fn shares_position(&self) -> bool {
        self.shares_position.load(Ordering::Relaxed)
    }
    /// See [`OpenFile::shares_position`]; its operations know the position.
    pub fn share_position(&self) {
        self.shares_position.store(true, Ordering::Relaxed);
    }
    /// Ties something to the life of the open file (its locks); only the first one is kept.
    pub fn attach(&self, make: impl FnOnce() -> Box<dyn Any + Send + Sync>) {
        self.attachment.get_or_init(make);
    }
    /// Whether a thread is granted to use it without a system call: who uses it otherwise ends that first.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }
    /// Holds it for a thread, see [`OpenFile::is_held`]; false if it is held already.
    pub fn hold(&self) -> bool {
        !self.held.swap(true, Ordering::SeqCst)
    }
    /// For as long as a call takes what waits in it. Who holds it looks for such calls afterwards, and such a call looks
    /// whether it is held after this: one of them sees the other.
    pub fn enter(&self) -> InUse<'_> {
        self.users.fetch_add(1, Ordering::SeqCst);
        InUse(self)
    }
    /// Whether a call takes something just now.
    pub fn is_in_use(&self) -> bool {
        self.users.load(Ordering::SeqCst) != 0
    }
    /// Lets it go.
    pub fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
    }
    /// Whether it may stay in the host process of who has mapped it: that is told when a descriptor of it is closed.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst)
    }
    /// See [`OpenFile::is_kept`].
    pub fn set_kept(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }
    /// Whether threads were ever granted to add to its end without a system call. Each descriptor of it that is closed
    /// is told to them.
    pub fn is_posted_to(&self) -> bool {
        self.posted_to.load(Ordering::SeqCst)
    }
    /// See [`OpenFile::is_posted_to`].
    pub fn set_posted_to(&self) {
        self.posted_to.store(true, Ordering::SeqCst);
    }
    /// It is read at an offset; how often that was since [`OpenFile::forget_reads_at`], this time included.
    pub fn count_read_at(&self) -> u32 {
        self.reads_at.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
    /// See [`OpenFile::count_read_at`].
    pub fn forget_reads_at(&self) {
        self.reads_at.store(0, Ordering::Relaxed);
    }
    /// A write that seemed to be done has failed: the next write, fsync or close tells, as with delayed writing in
    /// network file systems (close(2)).
    pub fn set_late_error(&self, errno: Errno) {
        self.late_error.store(errno.raw().unsigned_abs(), Ordering::SeqCst);
    }
    /// Tells it once.
    pub fn tell_late_error(&self) -> crate::Result<()> {
        if !self.is_posted_to() {
            return Ok(());
        }
        match self.late_error.swap(0, Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno.cast_signed())),
        }
    }
    /// A call of it has kept a worker waiting for long: some of the next ones are to expect that.
    pub fn set_slow(&self) {
        self.slow.store(SLOW_CALLS, Ordering::Relaxed);
    }
    /// Whether a call of it, which this is, is to expect a slow device.
    pub fn is_slow(&self) -> bool {
        let left = self.slow.load(Ordering::Relaxed);
        if left > 0 {
            self.slow.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }
    /// The same of a call that is yet to come.
    pub fn will_be_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) > 0
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

#[cfg(test)]
mod tests {
    use super::{OpenFile, OpenFlags, SLOW_CALLS};
    use crate::FileOps;

    struct Nothing;

    impl FileOps for Nothing {
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }

    #[test]
    fn calls_alone_count_as_slow_ones() {
        let file = OpenFile::anonymous(b"x", 0o100_600, std::sync::Arc::new(Nothing), OpenFlags::empty());
        assert!(!file.will_be_slow() && !file.is_slow());
        file.set_slow();
        assert!((0..100).all(|_| file.will_be_slow()));
        assert_eq!((0..100).filter(|_| file.is_slow()).count(), SLOW_CALLS as usize);
        assert!(!file.will_be_slow());
    }
}
