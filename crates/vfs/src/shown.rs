//! Attributes and contents of files that were told for later use.
//!
//! Who hands them out notes the version first, marks the file ([`Shown::mark`]), and looks at it only then. A file
//! that is marked says so before a change of it is told to anybody. Writes through shared mappings are not seen: files
//! that may be mapped so are not to be marked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Inode, Metadata};

type Hook = Box<dyn Fn() + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Calls this whenever what was handed out may not be true any more. Only the first one counts.
pub fn on_change(hook: Hook) {
    // A second sandbox in one process is a unit test's.
    let _ = HOOK.set(hook);
}

/// Whatever was handed out of any file may not be true any more.
pub fn all_changed() {
    if let Some(hook) = HOOK.get() {
        hook();
    }
}

/// Whether what a file has told is in use somewhere.
#[derive(Default)]
pub struct Shown(AtomicBool);

impl Shown {
    /// From now on changes are told.
    pub fn mark(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    /// The file has changed.
    pub fn changed(&self) {
        if self.0.load(Ordering::SeqCst) {
            self.0.store(false, Ordering::SeqCst);
            all_changed();
        }
    }
}

/// In [`Appends::lent`].
const COUNT: u64 = 0xffff_ffff;

/// Of one file: whether it may be longer by now than its file system knows.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// Who may add to it, and by how many descriptors (32 bits each).
    lent: AtomicU64,
    /// Something of it was told before that.
    told: AtomicBool,
    /// Its pages are in somebody's memory, where all is seen at once.
    mapped: AtomicBool,
}

/// Somebody may add bytes to the end of a file that it hears of later. While this lives nothing of it is told, and
/// nobody else may, or what one has added before another would come behind that.
pub struct Appending(Arc<dyn Inode>);

impl Appending {
    /// Of a regular file, for a thread; none if it is to hear of everything at once, or somebody else adds to it.
    pub fn begin(inode: &Arc<dyn Inode>, tid: u32) -> Option<Appending> {
        let appends = &inode.writers()?.1;
        let owner = u64::from(tid) << 32;
        let one_more = |lent: u64| match lent {
            0 => Some(owner | 1),
            _ if lent & !COUNT == owner => Some(lent + 1),
            _ => None,
        };
        appends.lent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        // From here on its end undoes that.
        let appending = Appending(inode.clone());
        if appends.mapped.load(Ordering::SeqCst) {
            return None;
        }
        if appends.told.swap(false, Ordering::SeqCst) {
            all_changed();
        }
        Some(appending)
    }

    /// Whether its file is in somebody's memory by now.
    pub fn is_mapped(&self) -> bool {
        self.0.writers().is_some_and(|writers| writers.1.mapped.load(Ordering::SeqCst))
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        if let Some(writers) = self.0.writers() {
            let one_less = |lent: u64| Some(if lent & COUNT > 1 { lent - 1 } else { 0 });
            let _ = writers.1.lent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        }
    }
}

/// [`Inode::show`], unless the file may be longer by now.
pub fn look(inode: &dyn Inode) -> Option<Metadata> {
    if let Some(writers) = inode.writers() {
        // Before: whoever begins to add to it sees that, or is seen here.
        writers.1.told.store(true, Ordering::SeqCst);
        if writers.1.lent.load(Ordering::SeqCst) != 0 {
            return None;
        }
    }
    inode.show()
}

/// A file is being mapped: from now on it hears of everything at once. Whether that was different, so that what
/// is lent is to be taken back.
pub fn map(inode: &dyn Inode) -> bool {
    inode.writers().is_some_and(|writers| {
        writers.1.mapped.store(true, Ordering::SeqCst);
        writers.1.lent.load(Ordering::SeqCst) != 0
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{Shown, on_change};

    static TOLD: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn who_was_marked_tells_once() {
        on_change(Box::new(|| {
            TOLD.fetch_add(1, Ordering::Relaxed);
        }));
        let shown = Shown::default();
        shown.changed();
        assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        shown.mark();
        shown.changed();
        shown.changed();
        assert_eq!(TOLD.load(Ordering::Relaxed), 1);
        shown.mark();
        shown.changed();
        assert_eq!(TOLD.load(Ordering::Relaxed), 2);
    }
}
