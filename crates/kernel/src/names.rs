//! What the shims are told of absolute paths (see `vfs::names`): that there is nothing, or no symbolic link, or what a
//! file is.
//!
//! Told are paths that were asked for twice, as they lead from the root directory that the first program has. Whoever
//! has another one asks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use platform::{NameKind, Platform};
use vfs::Place;

/// How many paths are remembered as asked for, by a hash.
const ASKED: usize = 4096;

/// What was told, and to whom it may be.
pub struct NameTable {
    root: OnceLock<Place>,
    asked: Box<[AtomicU64]>,
    stopped: AtomicBool,
    /// One writes at a time.
    writing: Mutex<()>,
}

impl Default for NameTable {
    fn default() -> NameTable {
        NameTable {
            root: OnceLock::new(),
            asked: std::iter::repeat_with(AtomicU64::default).take(ASKED).collect(),
            stopped: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }
}

impl NameTable {
    /// The root directory of the first program; the first one counts.
    pub fn set_root(&self, root: &Place) {
        let _ = self.root.set(root.clone());
    }

    /// Whether a thread with this root directory may go by what is told.
    pub fn counts_for(&self, root: &Place) -> bool {
        !self.stopped.load(Ordering::SeqCst) && self.root.get().is_some_and(|own| own.same(root))
    }

    /// Notes that a path was asked for; whether it was before, of late.
    pub fn is_asked_again(&self, path: &[u8]) -> bool {
        let hash = platform::name_hash(path);
        let place = self.asked.get(hash as usize % ASKED);
        place.is_some_and(|place| place.swap(hash, Ordering::Relaxed) == hash)
    }

    /// Tells where a path leads, going by these buckets, whose sum was taken before that was looked for.
    pub fn tell(&self, platform: &Platform, path: &[u8], kind: NameKind<'_>, buckets: u64, sum: u64) {
        let _writing = self.writing.lock();
        // Behind the sum: who stops this later changes that.
        if self.stopped.load(Ordering::SeqCst) {
            return;
        }
        platform.tell_name(path, kind, buckets, sum);
    }

    /// Nothing is told any more: threads that go by it have another root directory from now on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        vfs::names::mounts_changed();
    }
}
