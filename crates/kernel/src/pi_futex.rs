//! Priority-inheritance futexes: who holds and who waits (futex(2), the operations `*_PI`).
//!
//! Their words hold thread ids of the guest, so the host cannot answer for them. A word is only changed by a
//! thread that has it mapped, in its shim and with an atomic exchange, while it holds the [`Claim`] of the word:
//! claims put the changes of the kernel's own accounts in order, user code still exchanges freely.

use std::collections::HashMap;
use std::sync::Arc;

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use parking_lot::Mutex;

use crate::{Kernel, Result};

/// The holder's id in a word.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// Its holder has died.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Somebody waits in the kernel.
pub const WAITERS: u32 = 0x8000_0000;

/// Names a word: by its address space and address, or by what backs it if it is shared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Address of the `Mm` here, address of the word there.
    Private(usize, u64),
    /// Device, inode, offset.
    Shared(u64, u64, u64),
}

/// What became of a waiter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// On a word that it shall be moved from by `FUTEX_CMP_REQUEUE_PI`.
    ToBeMoved,
    /// For the holder of its word.
    Queued,
    /// The word names it as the holder.
    Granted,
    /// This holder has died without handing on: the waiter takes the word itself.
    Inherits(i32),
}

/// A thread that waits for a word.
pub struct Waiting {
    /// Its id, as words hold it.
    pub tid: i32,
    /// The word it wants in the end.
    pub wanted: Key,
    wait: Mutex<Wait>,
    /// Woken when `wait` changes.
    pub queue: WaitQueue,
}

impl Waiting {
    /// A thread that will wait.
    pub fn new(tid: i32, wanted: Key, wait: Wait) -> Arc<Waiting> {
        Arc::new(Waiting { tid, wanted, wait: Mutex::new(wait), queue: WaitQueue::new() })
    }
    /// What became of it.
    pub fn wait(&self) -> Wait {
        *self.wait.lock()
    }
    fn set(&self, wait: Wait) {
        *self.wait.lock() = wait;
        self.queue.wake_all(Events::IN);
    }
}

#[derive(Default)]
struct State {
    claimed: bool,
    holder: i32,
    /// In the order of coming: all have the same priority, since real-time policies are not there.
    waiting: Vec<Arc<Waiting>>,
}

/// All such futexes with a waiter.
#[derive(Default)]
pub struct PiFutexes {
    states: Mutex<HashMap<Key, State>>,
    /// Threads in `FUTEX_WAIT_REQUEUE_PI`, by the word they wait on.
    movable: Mutex<HashMap<Key, Vec<Arc<Waiting>>>>,
    /// Woken when a claim ends.
    pub claims: WaitQueue,
}

/// The right to change one word and its account; given up on drop.
pub struct Claim {
    kernel: Arc<Kernel>,
    key: Key,
}

impl Kernel {
    /// Claims a word; `EAGAIN` while another thread has it.
    pub fn claim_futex(self: &Arc<Kernel>, key: Key) -> Result<Claim> {
        let mut states = self.pi_futexes.states.lock();
        let state = states.entry(key).or_default();
        if state.claimed {
            return Err(Errno::EAGAIN);
        }
        state.claimed = true;
        Ok(Claim { kernel: self.clone(), key })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let futexes = &self.kernel.pi_futexes;
        let mut states = futexes.states.lock();
        if let Some(state) = states.get_mut(&self.key) {
            state.claimed = false;
            if state.waiting.is_empty() {
                states.remove(&self.key);
            }
        }
        drop(states);
        futexes.claims.wake_all(Events::IN);
    }
}

impl Claim {
    fn with<T: Default>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        self.kernel.pi_futexes.states.lock().get_mut(&self.key).map(body).unwrap_or_default()
    }
    /// The holder, if somebody waits for it.
    pub fn waited_holder(&self) -> Option<i32> {
        self.with(|s| (!s.waiting.is_empty()).then_some(s.holder))
    }
    /// Who is next.
    pub fn next(&self) -> Option<Arc<Waiting>> {
        self.with(|s| s.waiting.first().cloned())
    }
    /// Sets whom the word names.
    pub fn set_holder(&self, tid: i32) {
        self.with(|s| s.holder = tid);
    }
    /// Adds a waiter for this holder.
    pub fn add(&self, waiting: &Arc<Waiting>, holder: i32) {
        self.with(|s| {
            s.holder = holder;
            s.waiting.push(waiting.clone());
        });
    }
    /// Takes a waiter away: whether it waited.
    pub fn remove(&self, waiting: &Arc<Waiting>) -> bool {
        self.with(|s| take(&mut s.waiting, waiting))
    }
    /// Makes a waiter the holder, as the word says already; false if it has gone meanwhile.
    pub fn grant(&self, waiting: &Arc<Waiting>) -> bool {
        self.with(|s| {
            s.holder = waiting.tid;
            let waited = take(&mut s.waiting, waiting);
            if waited {
                waiting.set(Wait::Granted);
            }
            waited
        })
    }
    /// Makes a thread that waits for its removal from another word the holder here.
    pub fn grant_moved(&self, waiting: &Arc<Waiting>) {
        self.with(|s| s.holder = waiting.tid);
        waiting.set(Wait::Granted);
    }
    /// As `add`, for a thread that waited on another word.
    pub fn add_moved(&self, waiting: &Arc<Waiting>, holder: i32) {
        self.add(waiting, holder);
        // It sleeps on: only its account changes.
        *waiting.wait.lock() = Wait::Queued;
    }
}

fn take(list: &mut Vec<Arc<Waiting>>, waiting: &Arc<Waiting>) -> bool {
    let at = list.iter().position(|w| Arc::ptr_eq(w, waiting));
    at.map(|at| list.remove(at)).is_some()
}

impl PiFutexes {
    /// A thread begins to wait on `key` to be moved.
    pub fn add_movable(&self, key: Key, waiting: &Arc<Waiting>) {
        self.movable.lock().entry(key).or_default().push(waiting.clone());
    }
    /// Takes a waiter out of the list of those to be moved: whether it was there.
    pub fn remove_movable(&self, key: Key, waiting: &Arc<Waiting>) -> bool {
        let mut movable = self.movable.lock();
        let Some(list) = movable.get_mut(&key) else { return false };
        let found = take(list, waiting);
        if list.is_empty() {
            movable.remove(&key);
        }
        found
    }
    /// Takes up to `count` threads that wait on `key` to be moved to `wanted`; `EINVAL` if the first of them
    /// wants another word.
    pub fn take_movable(&self, key: Key, wanted: Key, count: usize) -> Result<Vec<Arc<Waiting>>> {
        let mut movable = self.movable.lock();
        let Some(list) = movable.get_mut(&key) else { return Ok(Vec::new()) };
        if list.iter().take(count).any(|w| w.wanted != wanted) {
            return Err(Errno::EINVAL);
        }
        let taken = list.drain(..count.min(list.len())).collect();
        if list.is_empty() {
            movable.remove(&key);
        }
        Ok(taken)
    }
    /// A thread that waits ends: nothing may be granted to it any more.
    pub fn forget(&self, waiting: &Arc<Waiting>) {
        let mut states = self.states.lock();
        let Some(state) = states.get_mut(&waiting.wanted) else { return };
        take(&mut state.waiting, waiting);
        if state.waiting.is_empty() && !state.claimed {
            states.remove(&waiting.wanted);
        }
    }
    /// A thread has ended: the first waiter of each word that it held takes it over.
    pub fn holder_ended(&self, tid: i32) {
        let mut states = self.states.lock();
        states.retain(|_, state| {
            if state.holder == tid && !state.waiting.is_empty() {
                let first = state.waiting.remove(0);
                first.set(Wait::Inherits(tid));
            }
            state.claimed || !state.waiting.is_empty()
        });
    }
}
