//! Semaphore sets: semget(2), semop(2). Operations that must wait queue up and are done, in the order they
//! came, by whoever makes them possible.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, Observer, Waiter};
use identity::Credentials;
use linux_abi::Errno;
use linux_abi::ipc::sem::{SEM_UNDO, SEMAEM, SEMVMX};
use linux_abi::ipc::{IPC_NOWAIT, SemBuf, SemidDs};
use parking_lot::Mutex;

use super::{IpcNamespace, Perm, now};
use crate::Result;

/// A set.
pub struct Set {
    /// How many semaphores.
    pub nsems: usize,
    /// What changes.
    pub state: Mutex<State>,
}

/// One semaphore.
#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    pid: i32,
}

/// What changes of a set.
pub struct State {
    /// Owner and mode.
    pub perm: Perm,
    otime: i64,
    ctime: i64,
    sems: Vec<Semaphore>,
    /// Adjustments at exit, by undo list.
    undo: HashMap<u64, Vec<i32>>,
    pending: Vec<Arc<Pending>>,
    removed: bool,
}

/// Operations that wait.
pub struct Pending {
    ops: Vec<SemBuf>,
    pid: i32,
    undo: u64,
    waiter: Arc<Waiter>,
    result: Mutex<Option<Result<()>>>,
}

impl Pending {
    /// How it ended, once it has.
    pub fn result(&self) -> Option<Result<()>> {
        *self.result.lock()
    }
    fn finish(&self, result: Result<()>) {
        *self.result.lock() = Some(result);
        self.waiter.notify(Events::IN);
    }
}

enum Attempt {
    Done,
    Blocks(SemBuf),
    Failed(Errno),
}

/// Adjustments that the last thread of a list undoes when it ends.
pub struct UndoList {
    id: u64,
    pid: i32,
    namespace: Weak<IpcNamespace>,
    sets: Mutex<BTreeSet<i32>>,
}

static NEXT_UNDO: AtomicU64 = AtomicU64::new(1);

impl UndoList {
    /// Without adjustments.
    pub fn new(namespace: &Arc<IpcNamespace>, pid: i32) -> UndoList {
        UndoList {
            id: NEXT_UNDO.fetch_add(1, Ordering::Relaxed),
            pid,
            namespace: Arc::downgrade(namespace),
            sets: Mutex::default(),
        }
    }
}

impl Drop for UndoList {
    fn drop(&mut self) {
        let sets = std::mem::take(self.sets.get_mut());
        if sets.is_empty() {
            return;
        }
        let Some(namespace) = self.namespace.upgrade() else { return };
        for set in sets.into_iter().filter_map(|id| namespace.sem.get(id).ok()) {
            set.state.lock().undo(self.id, self.pid);
        }
    }
}

/// Who makes a set, and how.
pub struct Maker<'a> {
    /// Its key.
    pub key: i32,
    /// Semaphores.
    pub nsems: i32,
    /// `semflg`.
    pub flags: i32,
    /// The creator.
    pub creds: &'a Credentials,
}

impl IpcNamespace {
    /// semget(2).
    ///
    /// # Errors
    /// Those of the man page.
    pub fn semget(&self, maker: &Maker<'_>) -> Result<i32> {
        let limits = &self.limits;
        let nsems = usize::try_from(maker.nsems).map_err(|_| Errno::EINVAL)?;
        if maker.nsems > limits.semmsl.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        let check = |set: &Set| {
            if nsems > set.nsems {
                return Err(Errno::EINVAL);
            }
            set.state.lock().perm.check(maker.creds, maker.flags as u32)
        };
        let make = |id| {
            if nsems == 0 {
                return Err(Errno::EINVAL);
            }
            let total = self.semaphores.load(Ordering::Relaxed).saturating_add(maker.nsems);
            if total > limits.semmns.load(Ordering::Relaxed) {
                return Err(Errno::ENOSPC);
            }
            self.semaphores.store(total, Ordering::Relaxed);
            let state = State {
                perm: Perm::new(id, maker.key, maker.flags, maker.creds),
                otime: 0,
                ctime: now(),
                sems: vec![Semaphore::default(); nsems],
                undo: HashMap::new(),
                pending: Vec::new(),
                removed: false,
            };
            Ok(Set { nsems, state: Mutex::new(state) })
        };
        self.sem.get_or_make(maker.key, maker.flags, limits.semmni.load(Ordering::Relaxed), check, make)
    }

    /// `IPC_RMID`: whoever waits hears `EIDRM`.
    pub fn sem_remove(&self, id: i32) {
        let Some(set) = self.sem.remove(id) else { return };
        self.semaphores.fetch_sub(i32::try_from(set.nsems).unwrap_or(0), Ordering::Relaxed);
        let pending = {
            let mut state = set.state.lock();
            state.removed = true;
            state.undo.clear();
            std::mem::take(&mut state.pending)
        };
        for waiting in pending {
            waiting.finish(Err(Errno::EIDRM));
        }
    }

    /// Semaphores of all sets.
    pub fn semaphores(&self) -> i32 {
        self.semaphores.load(Ordering::Relaxed)
    }
}

impl Set {
    /// Does the operations, or queues them for `waiter` (`Ok(Some)`).
    ///
    /// # Errors
    /// `EIDRM`, `EACCES`, `EFBIG`, `ERANGE`, `EAGAIN` as in semop(2).
    pub fn operate(
        &self,
        ops: Vec<SemBuf>,
        creds: &Credentials,
        list: &UndoList,
        pid: i32,
        waiter: &Arc<Waiter>,
    ) -> Result<Option<Arc<Pending>>> {
        if ops.iter().any(|op| usize::from(op.num) >= self.nsems) {
            return Err(Errno::EFBIG);
        }
        let alters = ops.iter().any(|op| op.op != 0);
        let undoes = ops.iter().any(|op| op.flags & SEM_UNDO != 0);
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        state.perm.check(creds, if alters { super::perm::WRITE } else { super::perm::READ })?;
        if undoes {
            list.sets.lock().insert(state.perm.id);
        }
        match state.attempt(&ops, list.id, pid) {
            Attempt::Done => {
                state.otime = now();
                if alters {
                    state.run_pending();
                }
                Ok(None)
            }
            Attempt::Failed(errno) => Err(errno),
            Attempt::Blocks(op) if i32::from(op.flags) & IPC_NOWAIT != 0 => Err(Errno::EAGAIN),
            Attempt::Blocks(_) => {
                let result = Mutex::new(None);
                let pending = Arc::new(Pending { ops, pid, undo: list.id, waiter: waiter.clone(), result });
                state.pending.push(pending.clone());
                Ok(Some(pending))
            }
        }
    }

    /// Takes back operations that wait; their result if they were done before.
    pub fn cancel(&self, pending: &Arc<Pending>) -> Option<Result<()>> {
        let mut state = self.state.lock();
        state.pending.retain(|p| !Arc::ptr_eq(p, pending));
        pending.result()
    }

    /// As `IPC_STAT` tells it.
    pub fn stat(&self) -> SemidDs {
        let state = self.state.lock();
        SemidDs {
            perm: state.perm.to_abi(),
            otime: state.otime,
            ctime: state.ctime,
            nsems: self.nsems as u64,
            ..SemidDs::default()
        }
    }
}

impl State {
    /// All operations or none.
    fn attempt(&mut self, ops: &[SemBuf], undo: u64, pid: i32) -> Attempt {
        let mut done = 0;
        let mut outcome = Attempt::Done;
        for op in ops {
            match self.one(op, undo) {
                Ok(true) => done += 1,
                Ok(false) => {
                    outcome = Attempt::Blocks(*op);
                    break;
                }
                Err(errno) => {
                    outcome = Attempt::Failed(errno);
                    break;
                }
            }
        }
        let applied = ops.iter().take(done);
        if matches!(outcome, Attempt::Done) {
            for op in applied {
                if let Some(sem) = self.sems.get_mut(usize::from(op.num)) {
                    sem.pid = pid;
                }
            }
        } else {
            for op in applied {
                if let Some(sem) = self.sems.get_mut(usize::from(op.num)) {
                    sem.value -= i32::from(op.op);
                }
                if op.flags & SEM_UNDO != 0
                    && let Some(adjust) =
                        self.undo.get_mut(&undo).and_then(|u| u.get_mut(usize::from(op.num)))
                {
                    *adjust += i32::from(op.op);
                }
            }
        }
        outcome
    }

    /// One operation: whether it was done; false if it has to wait.
    fn one(&mut self, op: &SemBuf, undo: u64) -> Result<bool> {
        let at = usize::from(op.num);
        let count = self.sems.len();
        let sem = self.sems.get_mut(at).ok_or(Errno::EFBIG)?;
        if op.op == 0 {
            return Ok(sem.value == 0);
        }
        let value = sem.value + i32::from(op.op);
        if value < 0 {
            return Ok(false);
        }
        if value > SEMVMX {
            return Err(Errno::ERANGE);
        }
        if op.flags & SEM_UNDO != 0 {
            let adjusts = self.undo.entry(undo).or_insert_with(|| vec![0; count]);
            let adjust = adjusts.get_mut(at).ok_or(Errno::EFBIG)?;
            let next = *adjust - i32::from(op.op);
            if !(-SEMAEM - 1..=SEMAEM).contains(&next) {
                return Err(Errno::ERANGE);
            }
            *adjust = next;
        }
        sem.value = value;
        Ok(true)
    }

    /// Does what has become possible.
    fn run_pending(&mut self) {
        let mut at = 0;
        while let Some(waiting) = self.pending.get(at).cloned() {
            let result = match self.attempt(&waiting.ops, waiting.undo, waiting.pid) {
                Attempt::Blocks(_) => {
                    at += 1;
                    continue;
                }
                Attempt::Done => {
                    self.otime = now();
                    Ok(())
                }
                Attempt::Failed(errno) => Err(errno),
            };
            self.pending.remove(at);
            waiting.finish(result);
            if result.is_ok() && waiting.ops.iter().any(|op| op.op != 0) {
                // Those before it may go on now.
                at = 0;
            }
        }
    }

    fn undo(&mut self, list: u64, pid: i32) {
        let Some(adjusts) = self.undo.remove(&list) else { return };
        let mut changed = false;
        for (sem, adjust) in self.sems.iter_mut().zip(adjusts).filter(|(_, adjust)| *adjust != 0) {
            sem.value = (sem.value + adjust).clamp(0, SEMVMX);
            sem.pid = pid;
            changed = true;
        }
        if changed {
            self.otime = now();
            self.run_pending();
        }
    }

    /// `SETVAL` (one) and `SETALL` (from 0): sets values, forgets adjustments. The values are in range.
    pub fn set(&mut self, first: usize, values: &[u16], pid: i32) {
        for (sem, value) in self.sems.iter_mut().skip(first).zip(values) {
            *sem = Semaphore { value: i32::from(*value), pid };
        }
        for adjusts in self.undo.values_mut() {
            adjusts.iter_mut().skip(first).take(values.len()).for_each(|adjust| *adjust = 0);
        }
        self.ctime = now();
        self.run_pending();
    }

    /// `IPC_SET` has been.
    pub fn changed(&mut self) {
        self.ctime = now();
    }

    /// `GETVAL`; `EINVAL`.
    pub fn value(&self, at: usize) -> Result<i32> {
        self.sems.get(at).map(|sem| sem.value).ok_or(Errno::EINVAL)
    }

    /// `GETALL`.
    pub fn values(&self) -> Vec<u16> {
        self.sems.iter().map(|sem| sem.value as u16).collect()
    }

    /// `GETPID`; `EINVAL`.
    pub fn pid(&self, at: usize) -> Result<i32> {
        self.sems.get(at).map(|sem| sem.pid).ok_or(Errno::EINVAL)
    }

    /// `GETNCNT` and `GETZCNT`: who waits for an increase, or for zero; `EINVAL`.
    pub fn waiting(&mut self, at: usize, for_zero: bool) -> Result<i32> {
        if at >= self.sems.len() {
            return Err(Errno::EINVAL);
        }
        let mut count = 0;
        for waiting in self.pending.clone() {
            // Nothing pending can be done now, so that the attempt changes nothing.
            if let Attempt::Blocks(op) = self.attempt(&waiting.ops, waiting.undo, waiting.pid)
                && usize::from(op.num) == at
                && (op.op == 0) == for_zero
            {
                count += 1;
            }
        }
        Ok(count)
    }
}
