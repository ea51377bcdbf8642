//! Watching files: inotify(7).

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;
use vfs::notify::{self, Happening, Watcher};
use vfs::{Caller, Dentry, FileOps, OpenFile, Place};

use crate::Result;

/// The watch is gone.
const IN_IGNORED: u32 = 0x8000;
/// Events were lost.
const IN_Q_OVERFLOW: u32 = 0x4000;
const IN_EXCL_UNLINK: u32 = 0x0400_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_ONESHOT: u32 = 0x8000_0000;
const IN_ALL_EVENTS: u32 = 0xfff;
/// The most events that wait (/proc/sys/fs/inotify/max_queued_events).
const MAX_EVENTS: usize = 16_384;
/// The most watches of one instance (/proc/sys/fs/inotify/max_user_watches).
const MAX_WATCHES: usize = 1 << 17;
/// The most instances of one user (/proc/sys/fs/inotify/max_user_instances).
const MAX_INSTANCES: usize = 8192;
const FIONREAD: u32 = 0x541b;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// Instances by user.
static INSTANCES: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());

#[derive(Clone, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// Length of the name with its padding: a multiple of 16, or none.
    fn name_len(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(16) }
    }
    fn len(&self) -> usize {
        16 + self.name_len()
    }
}

struct Watch {
    id: u64,
    wd: i32,
    instance: Weak<Inotify>,
    /// Kept, so that the name's dentry stays the one that operations meet.
    place: Place,
    mask: Mutex<u32>,
}

impl Watcher for Watch {
    fn happened(&self, what: Happening, cookie: u32, name: Option<&[u8]>) {
        let Some(instance) = self.instance.upgrade() else { return };
        let mask = *self.mask.lock();
        let gone = what.contains(Happening::DELETE_SELF);
        let once = mask & IN_ONESHOT != 0;
        if what.contains(Happening::UNLINKED) && mask & IN_EXCL_UNLINK != 0 {
            return;
        }
        let what = what - Happening::UNLINKED;
        if mask & what.bits() & IN_ALL_EVENTS != 0 {
            // Only directories' own happenings carry the bit, but for the two that end a watch.
            instance.push(Event {
                wd: self.wd,
                mask: what.bits(),
                cookie,
                name: name.unwrap_or_default().to_vec(),
            });
            if once && !gone {
                instance.forget(self.wd);
            }
        }
        if gone {
            instance.forget(self.wd);
        }
    }
}

#[derive(Default)]
struct State {
    watches: BTreeMap<i32, Arc<Watch>>,
    by_dentry: BTreeMap<usize, i32>,
    events: VecDeque<Event>,
    last_wd: i32,
}

/// An inotify instance.
pub struct Inotify {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    _counted: Counted,
}

/// What its open file holds.
pub struct InotifyFile(Arc<Inotify>);

/// One of a user's instances.
struct Counted(u32);

impl Counted {
    fn new(uid: u32) -> Result<Counted> {
        let mut instances = INSTANCES.lock();
        let own = instances.entry(uid).or_default();
        if *own >= MAX_INSTANCES {
            return Err(Errno::EMFILE);
        }
        *own += 1;
        Ok(Counted(uid))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut instances = INSTANCES.lock();
        if let Some(own) = instances.get_mut(&self.0) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                instances.remove(&self.0);
            }
        }
    }
}

fn address(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry).addr()
}

impl Inotify {
    fn push(&self, event: Event) {
        let mut state = self.state.lock();
        if state.events.back() == Some(&event) {
            return;
        }
        if state.events.len() >= MAX_EVENTS {
            let overflow = Event { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: Vec::new() };
            if state.events.back() != Some(&overflow) {
                state.events.push_back(overflow);
            }
            return;
        }
        state.events.push_back(event);
        drop(state);
        self.queue.wake(Events::READABLE);
    }

    /// Ends a watch and says so with `IN_IGNORED`; `EINVAL` for an unknown one.
    fn end(&self, wd: i32) -> Result<()> {
        let mut state = self.state.lock();
        let watch = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
        state.by_dentry.remove(&address(&watch.place.dentry));
        drop(state);
        notify::unwatch(&watch.place.dentry, watch.id);
        self.push(Event { wd, mask: IN_IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }

    fn forget(&self, wd: i32) {
        // Ended by another happening meanwhile: nothing is left to do.
        let _ = self.end(wd);
    }

    /// inotify_add_watch(2): the watch descriptor. `EEXIST`, `ENOSPC`, `EINVAL` for no events.
    pub fn add(self: &Arc<Inotify>, place: Place, mask: u32) -> Result<i32> {
        if mask & IN_ALL_EVENTS == 0 || mask & (IN_MASK_ADD | IN_MASK_CREATE) == IN_MASK_ADD | IN_MASK_CREATE
        {
            return Err(Errno::EINVAL);
        }
        let kept = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
        let mut state = self.state.lock();
        let known = state.by_dentry.get(&address(&place.dentry)).copied();
        if let Some(watch) = known.and_then(|wd| state.watches.get(&wd)) {
            if mask & IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let mut old = watch.mask.lock();
            *old = if mask & IN_MASK_ADD != 0 { *old | kept } else { kept };
            return Ok(watch.wd);
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        let wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last_wd = wd;
        let dentry = place.dentry.clone();
        let watch = Arc::new(Watch {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            wd,
            instance: Arc::downgrade(self),
            place,
            mask: Mutex::new(kept),
        });
        state.watches.insert(wd, watch.clone());
        state.by_dentry.insert(address(&dentry), wd);
        drop(state);
        notify::watch(&dentry, watch.id, watch);
        Ok(wd)
    }

    /// inotify_rm_watch(2); `EINVAL`.
    pub fn remove(&self, wd: i32) -> Result<()> {
        self.end(wd)
    }
}

impl Drop for InotifyFile {
    fn drop(&mut self) {
        let watches = std::mem::take(&mut self.0.state.lock().watches);
        for watch in watches.values() {
            notify::unwatch(&watch.place.dentry, watch.id);
        }
    }
}

impl FileOps for InotifyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let mut state = self.0.state.lock();
        let mut done = 0;
        while let Some(event) = state.events.front() {
            let Some(out) = buf.get_mut(done..).and_then(|rest| rest.get_mut(..event.len())) else { break };
            let mut bytes = Vec::with_capacity(event.len());
            bytes.extend_from_slice(&event.wd.to_ne_bytes());
            for word in [event.mask, event.cookie, event.name_len() as u32] {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            bytes.extend_from_slice(&event.name);
            bytes.resize(event.len(), 0);
            out.copy_from_slice(&bytes);
            done += bytes.len();
            state.events.pop_front();
        }
        match done {
            0 if state.events.is_empty() => Err(Errno::EAGAIN),
            0 => Err(Errno::EINVAL),
            n => Ok(n),
        }
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.0.state.lock().events.is_empty() { Events::empty() } else { Events::READABLE }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let state = self.0.state.lock();
        let watches: Vec<_> = state.watches.values().cloned().collect();
        drop(state);
        let mut text = String::new();
        for watch in watches {
            let meta = watch.place.inode().and_then(|inode| inode.metadata()).unwrap_or_default();
            let mask = *watch.mask.lock();
            // The kernel's own form of a device number: 12 and 20 bits.
            let device = linux_abi::fs::major(meta.dev) << 20 | linux_abi::fs::minor(meta.dev);
            let _ = writeln!(
                text,
                "inotify wd:{} ino:{:x} sdev:{device:x} mask:{mask:x} ignored_mask:0",
                watch.wd, meta.ino
            );
        }
        text
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n: usize = self.0.state.lock().events.iter().map(Event::len).sum();
        caller.write_memory(arg, &i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }
}

/// The inotify instance behind an open file, if it is one.
pub fn of(file: &OpenFile) -> Option<Arc<Inotify>> {
    file.ops_as::<InotifyFile>().map(|f| f.0.clone())
}

/// A new inotify instance of a user; `EMFILE` if there are too many.
pub fn open(nonblock: bool, uid: u32) -> Result<Arc<OpenFile>> {
    let _counted = Counted::new(uid)?;
    let queue = Arc::new(WaitQueue::new());
    let instance = Arc::new(Inotify { state: Mutex::default(), queue, _counted });
    let flags = if nonblock { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    Ok(OpenFile::anonymous(b"anon_inode:inotify", 0o600, Arc::new(InotifyFile(instance)), flags))
}
