//! What is remembered of host files while their directory is watched.
//!
//! An event bumps the directory's `events` before it is passed on, and is passed on by the names that
//! are remembered. So an answer of the host is kept only if no event came since before it was asked
//! for, and its name is remembered before it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use vfs::Metadata;
use vfs::names::Bucket;
use vfs::shown::{self, Shown};

use crate::listing::Listing;
use crate::node::Devices;

/// Uses of an unwatched directory after which a watch is asked for.
const WORTH_A_WATCH: u32 = 3;
/// Seconds after which an access time is stored anyway.
const DAY: i64 = 24 * 60 * 60;
/// Most names remembered of a directory.
const MOST_NAMES: usize = 1 << 16;

/// Numbers watches, so that what was kept under an earlier one does not count.
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// Device and inode number of what a name leads to; none if it leads nowhere.
pub(crate) type Target = Option<(u64, u64)>;

/// A file's attributes as they were told last.
#[derive(Default)]
pub(crate) struct Attributes(Mutex<State>, Shown);

#[derive(Default)]
struct State {
    known: Option<(Metadata, u64)>,
    /// Counts the times they were made invalid.
    changes: u64,
    /// They change without events (a shared mapping that is written).
    never: bool,
}

impl Attributes {
    /// What was kept under this generation of the watch.
    pub(crate) fn get(&self, generation: u64) -> Option<Metadata> {
        let state = self.0.lock();
        state.known.as_ref().filter(|(_, kept)| *kept == generation).map(|(metadata, _)| *metadata)
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Keeps what the host said, unless something was changed since `changes` was asked for.
    pub(crate) fn keep(&self, metadata: &Metadata, generation: u64, changes: u64) {
        let mut state = self.0.lock();
        if state.changes == changes && !state.never {
            state.known = Some((*metadata, generation));
        }
    }

    pub(crate) fn invalidate(&self) {
        let mut state = self.0.lock();
        state.changes += 1;
        state.known = None;
        drop(state);
        self.1.changed();
    }

    /// As [`Attributes::get`], if each change from now on is told.
    pub(crate) fn show(&self, generation: u64) -> Option<Metadata> {
        self.1.mark();
        self.get(generation)
    }

    /// The file was read: forgets the access time if the host stores a new one (mount(2), `relatime`; `strict`: each).
    pub(crate) fn accessed(&self, strict: bool) {
        let mut state = self.0.lock();
        let Some((metadata, _)) = &state.known else {
            state.changes += 1;
            return;
        };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec;
        let old = now.saturating_sub(metadata.atime.sec) >= DAY;
        if strict || old || metadata.atime <= metadata.mtime || metadata.atime <= metadata.ctime {
            state.changes += 1;
            state.known = None;
            drop(state);
            self.1.changed();
        }
    }

    /// Nothing is kept any more.
    pub(crate) fn give_up(&self) {
        // First: what is kept meanwhile would stay.
        self.0.lock().never = true;
        self.invalidate();
    }
}

/// A directory's names.
#[derive(Default)]
pub(crate) struct Names {
    /// The watch, 0 while there is none.
    generation: AtomicU64,
    events: AtomicU64,
    slow: AtomicU32,
    used: AtomicBool,
    listing_used: AtomicBool,
    listing_queued: AtomicBool,
    /// The host opened it once, so that it will again.
    pub(crate) opened: AtomicBool,
    pub(crate) devices: Devices,
    told: Bucket,
    state: Mutex<NamesState>,
}

#[derive(Default)]
struct NamesState {
    targets: HashMap<Box<[u8]>, Target>,
    listing: Option<Arc<Listing>>,
    /// Counts what may have changed the listing.
    name_changes: u64,
    watch: i32,
    requested: bool,
}

impl NamesState {
    fn forget_listing(&mut self) {
        self.name_changes += 1;
        self.listing = None;
    }
}

impl Names {
    /// The watch's generation, none while it is not watched.
    pub(crate) fn generation(&self) -> Option<u64> {
        match self.generation.load(Ordering::Acquire) {
            0 => None,
            generation => {
                if !self.used.load(Ordering::Relaxed) {
                    self.used.store(true, Ordering::Relaxed);
                }
                Some(generation)
            }
        }
    }

    /// See `vfs::Inode::names_told`: while it is watched, changes are told.
    pub(crate) fn tell(&self) -> Option<u64> {
        // Before: an end of the watch that this does not see is told.
        let bucket = self.told.mark();
        self.generation().map(|_| bucket)
    }

    /// Who may search it has changed.
    pub(crate) fn search_changed(&self) {
        self.told.changed();
    }

    /// A question was answered by the host; true if a watch should be asked for.
    pub(crate) fn slow(&self) -> bool {
        if self.slow.fetch_add(1, Ordering::Relaxed) + 1 < WORTH_A_WATCH {
            return false;
        }
        let mut state = self.state.lock();
        !std::mem::replace(&mut state.requested, true)
    }

    /// How many events there were; asked before the host is.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Whether the name is known to lead there.
    pub(crate) fn leads(&self, name: &[u8], target: Target) -> bool {
        self.state.lock().targets.get(name) == Some(&target)
    }

    /// Remembers where a name leads if there was no event since `events`; true if so.
    pub(crate) fn remember(&self, name: &[u8], target: Target, events: u64) -> bool {
        let mut state = self.state.lock();
        if self.events.load(Ordering::Acquire) != events || self.generation.load(Ordering::Acquire) == 0 {
            return false;
        }
        if state.targets.len() >= MOST_NAMES {
            state.targets.clear();
            // Events no longer reach the files by these names.
            self.generation.store(NEXT_GENERATION.fetch_add(1, Ordering::Relaxed), Ordering::Release);
            shown::all_changed();
            self.told.changed();
        }
        state.targets.insert(name.into(), target);
        true
    }

    /// We changed a name ourselves.
    pub(crate) fn forget(&self, name: &[u8]) {
        self.events.fetch_add(1, Ordering::AcqRel);
        let mut state = self.state.lock();
        state.targets.remove(name);
        state.forget_listing();
        self.told.changed();
    }

    /// The listing, if it is known.
    pub(crate) fn listing(&self) -> Option<Arc<Listing>> {
        self.generation()?;
        let listing = self.state.lock().listing.clone()?;
        self.listing_used.store(true, Ordering::Relaxed);
        Some(listing)
    }

    /// How often the listing may have changed; asked before the host is.
    pub(crate) fn name_changes(&self) -> u64 {
        self.state.lock().name_changes
    }

    /// Keeps what the host listed if nothing was changed since `changes`; true if so.
    pub(crate) fn keep_listing(&self, listing: &Arc<Listing>, changes: u64) -> bool {
        let mut state = self.state.lock();
        if state.name_changes != changes || self.generation.load(Ordering::Acquire) == 0 {
            return false;
        }
        state.listing = Some(Arc::clone(listing));
        true
    }

    pub(crate) fn drop_listing(&self) {
        let listing = self.state.lock().listing.take();
        drop(listing);
    }

    pub(crate) fn take_listing_used(&self) -> bool {
        self.listing_used.swap(false, Ordering::Relaxed)
    }

    /// Whether this is news.
    pub(crate) fn queue_listing(&self, queued: bool) -> bool {
        self.listing_queued.swap(queued, Ordering::Relaxed) != queued
    }

    /// An event about a name (none: about the directory itself); what the name led to, if remembered.
    pub(crate) fn event(&self, name: Option<&[u8]>, names_changed: bool) -> Target {
        self.events.fetch_add(1, Ordering::AcqRel);
        let Some(name) = name else {
            self.told.changed();
            return None;
        };
        let mut state = self.state.lock();
        if !names_changed {
            return *state.targets.get(name)?;
        }
        state.forget_listing();
        let target = state.targets.remove(name);
        self.told.changed();
        target?
    }

    /// A watch is set, or everything known under it is doubtful.
    pub(crate) fn began(&self, watch: i32) {
        let mut state = self.state.lock();
        self.events.fetch_add(1, Ordering::AcqRel);
        state.targets.clear();
        state.forget_listing();
        state.watch = watch;
        self.generation.store(NEXT_GENERATION.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        shown::all_changed();
        self.told.changed();
    }

    pub(crate) fn ended(&self) {
        let mut state = self.state.lock();
        self.generation.store(0, Ordering::Release);
        shown::all_changed();
        self.events.fetch_add(1, Ordering::AcqRel);
        state.targets = HashMap::new();
        state.forget_listing();
        state.requested = false;
        self.slow.store(0, Ordering::Relaxed);
        self.told.changed();
    }

    pub(crate) fn watch(&self) -> i32 {
        self.state.lock().watch
    }

    /// Whether it was used since this was asked last.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Attributes, Names};
    use vfs::Metadata;

    #[test]
    fn an_event_in_between_forbids_keeping() {
        let names = Names::default();
        assert!(!names.remember(b"a", None, names.events()));
        names.began(1);
        let before = names.events();
        assert_eq!(names.event(Some(b"a"), false), None);
        assert!(!names.remember(b"a", Some((1, 2)), before));
        assert!(names.remember(b"a", Some((1, 2)), names.events()));
        assert!(names.leads(b"a", Some((1, 2))) && !names.leads(b"a", None));
        assert_eq!(names.event(Some(b"a"), false), Some((1, 2)));
        assert_eq!(names.event(Some(b"a"), true), Some((1, 2)));
        assert!(!names.leads(b"a", Some((1, 2))));
        names.ended();
        assert!(names.generation().is_none());
    }

    #[test]
    fn attributes_count_under_their_watch_only() {
        let attributes = Attributes::default();
        let changes = attributes.changes();
        attributes.keep(&Metadata::default(), 5, changes);
        assert!(attributes.get(5).is_some() && attributes.get(6).is_none());
        attributes.invalidate();
        attributes.keep(&Metadata::default(), 5, changes);
        assert!(attributes.get(5).is_none());
        attributes.give_up();
        attributes.keep(&Metadata::default(), 5, attributes.changes());
        assert!(attributes.get(5).is_none());
    }
}
