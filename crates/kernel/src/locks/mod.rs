//! File locks: POSIX and open-file-description locks (fcntl(2)), flock(2).

mod ranges;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use parking_lot::Mutex;
use vfs::OpenFile;

pub use ranges::{Owner, RangeLock, Ranges};

use crate::{Process, Result};

/// The most range locks of one file.
const MAX_RANGES: usize = 65_536;

/// A file, by device and inode number.
type Key = (u64, u64);

#[derive(Default)]
struct FileLocks {
    ranges: Ranges,
    whole: Vec<Whole>,
}

/// A flock(2) lock.
#[derive(Clone, Copy)]
struct Whole {
    /// `OpenFile::id`.
    id: u64,
    exclusive: bool,
    /// The process that took it.
    pid: i32,
}

/// A lock as /proc/locks tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Device and inode number of the file.
    pub file: (u64, u64),
    /// First and last byte; none for all of the file, as flock(2) has it.
    pub range: Option<(u64, u64)>,
    /// Exclusive.
    pub write: bool,
    /// The process; none where an open file description holds it.
    pub pid: Option<i32>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<Key, FileLocks>,
    /// Who waits for whom, for `EDEADLK`.
    waiting: Vec<(Owner, Owner)>,
}

/// The locks of one kernel.
#[derive(Default)]
pub struct Locks {
    state: Mutex<State>,
    /// Woken at every release. One for all files: few wait for locks.
    queue: Arc<WaitQueue>,
    /// Range locks of processes: without any, close(2) need not look.
    by_process: AtomicUsize,
}

/// Ends the locks of an open file when it goes.
struct Release {
    locks: Arc<Locks>,
    key: Key,
    id: u64,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.locks.change(self.key, |file| {
            let before = file.whole.len();
            file.whole.retain(|whole| whole.id != self.id);
            file.ranges.release(Owner::Open(self.id)) | (file.whole.len() != before)
        });
    }
}

/// The key of a file.
fn key_of(file: &OpenFile) -> Result<Key> {
    let meta = file.inode().metadata()?;
    Ok((meta.dev, meta.ino))
}

impl Locks {
    /// Woken at every release.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// Changes the locks of a file; wakes who waits if `change` says that something went.
    fn change(&self, key: Key, change: impl FnOnce(&mut FileLocks) -> bool) {
        let mut state = self.state.lock();
        let Some(file) = state.files.get_mut(&key) else { return };
        let gone = change(file);
        if file.ranges.is_empty() && file.whole.is_empty() {
            state.files.remove(&key);
        }
        self.count(&state);
        drop(state);
        if gone {
            self.queue.wake_all(Events::IN);
        }
    }

    fn count(&self, state: &State) {
        let of_processes = |f: &FileLocks| f.ranges.iter().any(|l| matches!(l.owner, Owner::Process(_)));
        self.by_process.store(state.files.values().filter(|f| of_processes(f)).count(), Ordering::SeqCst);
    }

    /// Ties the locks of an open file to its life.
    fn tie(self: &Arc<Locks>, file: &Arc<OpenFile>, key: Key) {
        let id = file.id();
        file.attach(|| Box::new(Release { locks: self.clone(), key, id }));
    }

    /// The locks that are held, at most so many.
    pub fn list(&self, most: usize) -> Vec<Shown> {
        let state = self.state.lock();
        let of_file = |(key, held): (&Key, &FileLocks)| {
            let file = *key;
            let whole = held.whole.iter().map(|whole| (None, whole.exclusive, Some(whole.pid)));
            let ranges = held.ranges.iter().map(|lock| {
                let pid = match lock.owner {
                    Owner::Process(pid) => Some(pid),
                    Owner::Open(_) => None,
                };
                (Some((lock.start, lock.end)), lock.write, pid)
            });
            let all = whole.chain(ranges).take(most);
            all.map(|(range, write, pid)| Shown { file, range, write, pid }).collect::<Vec<_>>()
        };
        state.files.iter().flat_map(of_file).take(most).collect()
    }

    /// The lock that keeps another out, if any (F_GETLK).
    pub fn test(&self, file: &Arc<OpenFile>, wanted: &RangeLock) -> Result<Option<RangeLock>> {
        let key = key_of(file)?;
        Ok(self.state.lock().files.get(&key).and_then(|f| f.ranges.conflict(wanted)))
    }

    /// Takes a range lock (F_SETLK). `EAGAIN` if another is in the way; with `wait` the caller will wait, unless that
    /// could never end: `EDEADLK`. `ENOLCK` for too many.
    pub fn lock(self: &Arc<Locks>, file: &Arc<OpenFile>, wanted: RangeLock, wait: bool) -> Result<()> {
        let key = key_of(file)?;
        let mut state = self.state.lock();
        state.waiting.retain(|(who, _)| *who != wanted.owner);
        let locks = state.files.entry(key).or_default();
        if let Some(other) = locks.ranges.conflict(&wanted) {
            if wait {
                if state.waits_for(other.owner, wanted.owner) {
                    return Err(Errno::EDEADLK);
                }
                state.waiting.push((wanted.owner, other.owner));
            }
            return Err(Errno::EAGAIN);
        }
        let full = locks.ranges.len() >= MAX_RANGES;
        if !full {
            locks.ranges.lock(wanted);
        } else if locks.ranges.is_empty() && locks.whole.is_empty() {
            state.files.remove(&key);
        }
        self.count(&state);
        drop(state);
        if full {
            return Err(Errno::ENOLCK);
        }
        // A write lock may have become a read lock, which lets others in.
        self.queue.wake_all(Events::IN);
        if matches!(wanted.owner, Owner::Open(_)) {
            self.tie(file, key);
        }
        Ok(())
    }

    /// A wait has ended without the lock.
    pub fn stop_waiting(&self, owner: Owner) {
        self.state.lock().waiting.retain(|(who, _)| *who != owner);
    }

    /// Gives a range back (F_UNLCK).
    pub fn unlock(&self, file: &Arc<OpenFile>, owner: Owner, start: u64, end: u64) -> Result<()> {
        self.change(key_of(file)?, |f| f.ranges.unlock(owner, start, end));
        Ok(())
    }

    /// flock(2): takes the lock, `EAGAIN` if another is in the way. A lock of the other kind is given up first.
    /// `pid` is told by /proc/locks.
    pub fn flock(self: &Arc<Locks>, file: &Arc<OpenFile>, exclusive: bool, pid: i32) -> Result<()> {
        let key = key_of(file)?;
        let id = file.id();
        let mut state = self.state.lock();
        let locks = state.files.entry(key).or_default();
        if locks.whole.iter().any(|whole| (whole.id, whole.exclusive) == (id, exclusive)) {
            return Ok(());
        }
        let before = locks.whole.len();
        locks.whole.retain(|other| other.id != id);
        let gave_up = locks.whole.len() != before;
        let blocked = locks.whole.iter().any(|other| exclusive || other.exclusive);
        if !blocked {
            locks.whole.push(Whole { id, exclusive, pid });
        }
        drop(state);
        if gave_up {
            self.queue.wake_all(Events::IN);
        }
        if blocked {
            return Err(Errno::EAGAIN);
        }
        self.tie(file, key);
        Ok(())
    }

    /// flock(2): `LOCK_UN`.
    pub fn unflock(&self, file: &Arc<OpenFile>) -> Result<()> {
        let id = file.id();
        self.change(key_of(file)?, |f| {
            let before = f.whole.len();
            f.whole.retain(|other| other.id != id);
            f.whole.len() != before
        });
        Ok(())
    }

    /// A process has ended: its locks go.
    pub fn process_ended(&self, pid: i32) {
        let owner = Owner::Process(pid);
        self.stop_waiting(owner);
        if self.by_process.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.files.retain(|_, f| {
            f.ranges.release(owner);
            !(f.ranges.is_empty() && f.whole.is_empty())
        });
        self.count(&state);
        drop(state);
        self.queue.wake_all(Events::IN);
    }
}

impl State {
    /// Whether `from` waits, over others, for `to`.
    fn waits_for(&self, from: Owner, to: Owner) -> bool {
        let mut seen = vec![from];
        let mut next = 0;
        while let Some(who) = seen.get(next).copied() {
            if who == to {
                return true;
            }
            next += 1;
            for (_, blocker) in self.waiting.iter().filter(|(w, _)| *w == who) {
                if !seen.contains(blocker) {
                    seen.push(*blocker);
                }
            }
        }
        false
    }
}

/// A descriptor of the process was closed: its POSIX locks on the file go (fcntl(2)).
pub fn descriptor_closed(process: &Process, file: &Arc<OpenFile>) {
    let locks = &process.kernel().io.locks;
    if locks.by_process.load(Ordering::SeqCst) == 0 {
        return;
    }
    if let Ok(key) = key_of(file) {
        locks.change(key, |f| f.ranges.release(Owner::Process(process.pid())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use linux_abi::Errno;
    use linux_abi::fs::OpenFlags;

    use super::{Locks, Owner, RangeLock};
    use crate::{eventfd, pipe};

    fn wanted(pid: i32, start: u64) -> RangeLock {
        RangeLock { start, end: start, write: true, owner: Owner::Process(pid) }
    }

    #[test]
    fn two_who_wait_for_each_other_are_a_deadlock() {
        let locks = Arc::new(Locks::default());
        let (file, _) = pipe::pair((0, 0), OpenFlags::empty());
        for (pid, at) in [(1, 1), (2, 2), (3, 3)] {
            locks.lock(&file, wanted(pid, at), false).unwrap();
        }
        assert_eq!(locks.lock(&file, wanted(1, 2), true), Err(Errno::EAGAIN));
        assert_eq!(locks.lock(&file, wanted(2, 3), true), Err(Errno::EAGAIN));
        assert_eq!(locks.lock(&file, wanted(3, 1), true), Err(Errno::EDEADLK));
        locks.process_ended(1);
        assert_eq!(locks.lock(&file, wanted(3, 1), true), Ok(()));
    }

    #[test]
    fn flock_goes_with_the_open_file() {
        let locks = Arc::new(Locks::default());
        let (a, b) = pipe::pair((0, 0), OpenFlags::empty());
        locks.flock(&a, true, 1).unwrap();
        assert_eq!(locks.flock(&b, false, 1), Err(Errno::EAGAIN));
        locks.flock(&a, false, 1).unwrap();
        locks.flock(&b, false, 1).unwrap();
        assert_eq!(locks.flock(&b, true, 1), Err(Errno::EAGAIN));
        // The failed change gave the shared lock up.
        locks.flock(&a, true, 1).unwrap();
        drop(a);
        locks.flock(&b, true, 1).unwrap();
        assert_eq!(locks.flock(&eventfd::open(0, false, false), true, 1), Ok(()));
    }
}
