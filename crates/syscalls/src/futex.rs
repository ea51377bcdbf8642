//! futex(2): the priority-inheritance operations. All others run on the host; the filter traps these, since
//! their words hold thread ids, which are the guest's.
//!
//! What is not there: the holder is not scheduled with its waiters' priority, which the host decides; and
//! `FUTEX_WAKE` of a thread in `FUTEX_WAIT_REQUEUE_PI` answers 0 where Linux answers `EINVAL`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::Events;
use kernel::clock::{Clock, id};
use kernel::pi_futex::{Claim, Key, OWNER_DIED, TID_MASK, WAITERS, Wait, Waiting};
use linux_abi::Errno;
use linux_abi::time::Timespec;
use platform::NativeOp;

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

const FUTEX_LOCK_PI: u32 = 6;
const FUTEX_UNLOCK_PI: u32 = 7;
const FUTEX_TRYLOCK_PI: u32 = 8;
const FUTEX_WAIT_REQUEUE_PI: u32 = 11;
const FUTEX_CMP_REQUEUE_PI: u32 = 12;
const FUTEX_LOCK_PI2: u32 = 13;
const FUTEX_PRIVATE_FLAG: u32 = 128;
const FUTEX_CLOCK_REALTIME: u32 = 256;

/// How often a lock looks again for the mark of a holder that has just ended, one millisecond apart.
const LOOKS_FOR_MARK: u32 = 50;

/// futex(2).
pub async fn futex(
    cx: &mut Cx<'_>,
    word: u64,
    operation: u32,
    value: u32,
    timeout: u64,
    word2: u64,
    value3: u32,
) -> SysResult {
    let command = operation & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let private = operation & FUTEX_PRIVATE_FLAG != 0;
    let realtime = operation & FUTEX_CLOCK_REALTIME != 0;
    if realtime && !matches!(command, FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    match command {
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            // The older one always means the date.
            let end = end(cx, Ptr(timeout), realtime || command == FUTEX_LOCK_PI)?;
            let key = key(cx, word, private)?;
            lock(cx, word, key, end, false).await
        }
        FUTEX_TRYLOCK_PI => {
            let key = key(cx, word, private)?;
            lock(cx, word, key, None, true).await
        }
        FUTEX_UNLOCK_PI => {
            let key = key(cx, word, private)?;
            unlock(cx, word, key).await
        }
        FUTEX_WAIT_REQUEUE_PI => {
            let end = end(cx, Ptr(timeout), realtime)?;
            let keys = (key(cx, word, private)?, key(cx, word2, private)?);
            wait_requeue(cx, (word, word2), keys, value, end).await
        }
        FUTEX_CMP_REQUEUE_PI => {
            let keys = (key(cx, word, private)?, key(cx, word2, private)?);
            requeue(cx, (word, word2), keys, (value, timeout as u32), value3).await
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// The end of a wait, CLOCK_MONOTONIC nanoseconds.
fn end(cx: &mut Cx<'_>, timeout: Ptr, realtime: bool) -> SysResult<Option<u64>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let time: Timespec = cx.read(timeout)?;
    let clock = Clock::from_id(if realtime { id::REALTIME } else { id::MONOTONIC }, cx.thread)?;
    Ok(Some(clock.monotonic_deadline(time.to_nanos()?)))
}

fn key(cx: &Cx<'_>, word: u64, private: bool) -> SysResult<Key> {
    if !word.is_multiple_of(4) {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let shared = if private { None } else { mm.space.shared_place(word) };
    Ok(match shared {
        Some((device, inode, offset)) => Key::Shared(device, inode, offset),
        None => Key::Private(Arc::as_ptr(&mm) as usize, word),
    })
}

async fn claim(cx: &mut Cx<'_>, key: Key) -> SysResult<Claim> {
    let kernel = cx.kernel().clone();
    let claim = cx
        .wait_until(&kernel.pi_futexes.claims, Events::IN, None, Restart::Always, |cx| {
            Ok(cx.kernel().claim_futex(key)?)
        })
        .await?;
    claim.ok_or(Errno::EAGAIN.into())
}

/// Changes the word from `guess`, or from what it turns out to be, to what `change` makes of it; the old value.
async fn exchange(
    cx: &mut Cx<'_>,
    word: u64,
    guess: u32,
    mut change: impl FnMut(u32) -> SysResult<u32>,
) -> SysResult<u32> {
    let mut expected = guess;
    loop {
        let new = change(expected)?;
        let old = cx.native(NativeOp::CompareExchange { addr: word, expected, new }).await? as u32;
        if old == expected {
            return Ok(old);
        }
        expected = old;
    }
}

/// What an attempt to lock did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Locked,
    /// This thread holds it, and the word says that somebody waits.
    HeldBy(i32),
}

/// Takes the word for thread `tid`, or marks it as waited for. `dead` may be named by it without a right.
/// `more` says that others will wait even if it can be taken.
async fn attempt(
    cx: &mut Cx<'_>,
    claim: &Claim,
    word: u64,
    tid: i32,
    dead: Option<i32>,
    more: bool,
) -> SysResult<Attempt> {
    let kernel = cx.kernel().clone();
    let waiters = if more || claim.waited_holder().is_some() { WAITERS } else { 0 };
    let free = |value: u32| {
        let holder = value & TID_MASK;
        holder == 0 || dead.is_some_and(|dead| dead as u32 == holder)
    };
    let old = exchange(cx, word, 0, |value| {
        let holder = value & TID_MASK;
        if free(value) {
            let died = if dead.is_some() { OWNER_DIED } else { value & OWNER_DIED };
            return Ok(tid as u32 | died | waiters);
        }
        if holder == tid as u32 {
            return Err(Errno::EDEADLK.into());
        }
        match claim.waited_holder() {
            // User code has written somebody else there.
            Some(known) if known as u32 != holder => return Err(Errno::EINVAL.into()),
            Some(_) => {}
            None => {
                kernel.pids.thread(holder as i32)?;
            }
        }
        Ok(value | WAITERS)
    })
    .await?;
    Ok(if free(old) { Attempt::Locked } else { Attempt::HeldBy((old & TID_MASK) as i32) })
}

/// Removes a waiter whose task ends at any point of its wait.
struct Queued {
    kernel: Arc<kernel::Kernel>,
    waiting: Arc<Waiting>,
    /// The word that it waits on to be moved from.
    on: Option<Key>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(key) = self.on {
            self.kernel.pi_futexes.remove_movable(key, &self.waiting);
        }
        self.kernel.pi_futexes.forget(&self.waiting);
    }
}

async fn lock(cx: &mut Cx<'_>, word: u64, key: Key, end: Option<u64>, only_try: bool) -> SysResult {
    let tid = cx.thread.tid();
    let mut dead = None;
    let mut looks = 0;
    loop {
        let waiting = Waiting::new(tid, key, Wait::Queued);
        let queued = {
            let claim = claim(cx, key).await?;
            let holder = match attempt(cx, &claim, word, tid, dead, false).await {
                Ok(Attempt::Locked) => {
                    claim.set_holder(tid);
                    return Ok(0);
                }
                Ok(Attempt::HeldBy(holder)) => holder,
                // A holder that has just ended is about to be marked by its shim.
                Err(SysError::Errno(Errno::ESRCH)) if looks < LOOKS_FOR_MARK => {
                    drop(claim);
                    looks += 1;
                    pause(cx).await?;
                    continue;
                }
                Err(err) => return Err(err),
            };
            if only_try {
                return Err(Errno::EAGAIN.into());
            }
            claim.add(&waiting, holder);
            let queued = Queued { kernel: cx.kernel().clone(), waiting: waiting.clone(), on: None };
            // It may have ended before it could be told that somebody waits.
            if cx.kernel().pids.thread(holder).is_err() && waiting.wait() == Wait::Queued {
                cx.kernel().pi_futexes.holder_ended(holder);
            }
            queued
        };
        match wait_for_grant(cx, &queued, end).await? {
            Wait::Inherits(who) => dead = Some(who),
            Wait::Granted => return Ok(0),
            _ => return Err(Errno::ETIMEDOUT.into()),
        }
    }
}

/// Waits a millisecond, or for a signal.
async fn pause(cx: &mut Cx<'_>) -> SysResult<()> {
    let queue = executor::WaitQueue::new();
    let end = executor::monotonic_ns() + 1_000_000;
    cx.wait_until(&queue, Events::IN, Some(end), Restart::Always, |_| -> SysResult<()> {
        Err(Errno::EAGAIN.into())
    })
    .await?;
    Ok(())
}

/// Waits until the word is handed over; `Queued` at the end of the time.
async fn wait_for_grant(cx: &mut Cx<'_>, queued: &Queued, end: Option<u64>) -> SysResult<Wait> {
    let waiting = &queued.waiting;
    let result = cx
        .wait_until(&waiting.queue, Events::IN, end, Restart::Always, |_| match waiting.wait() {
            Wait::Queued | Wait::ToBeMoved => Err(Errno::EAGAIN.into()),
            done => Ok(done),
        })
        .await;
    match result {
        Ok(Some(done)) => Ok(done),
        ended => give_up(cx, queued, ended.map(|_| Wait::Queued)).await,
    }
}

/// A wait has ended without a grant: none may be under way.
async fn give_up(cx: &mut Cx<'_>, queued: &Queued, ended: SysResult<Wait>) -> SysResult<Wait> {
    let waiting = &queued.waiting;
    let kernel = cx.kernel().clone();
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        let listener = kernel.pi_futexes.claims.listen(&waiter, Events::IN, false);
        if let Ok(claim) = kernel.claim_futex(waiting.wanted) {
            claim.remove(waiting);
            break;
        }
        // A dying thread is forgotten; who grants it the word sees that.
        if cx.thread.is_dying() {
            break;
        }
        // Signals have been noted already.
        cx.sleep_on(&waiter).await;
        drop(listener);
    }
    match waiting.wait() {
        Wait::Queued | Wait::ToBeMoved => ended,
        done => Ok(done),
    }
}

async fn unlock(cx: &mut Cx<'_>, word: u64, key: Key) -> SysResult {
    let claim = claim(cx, key).await?;
    let mut holder = cx.thread.tid();
    let mut guess = holder as u32 | claim.waited_holder().map_or(0, |_| WAITERS);
    loop {
        let next = claim.next();
        let new = next.as_ref().map_or(0, |next| next.tid as u32 | WAITERS);
        exchange(cx, word, guess, |value| {
            if value & TID_MASK == holder as u32 { Ok(new) } else { Err(Errno::EPERM.into()) }
        })
        .await?;
        match next {
            // It died meanwhile: the one behind it is next.
            Some(next) if !claim.grant(&next) => {
                holder = next.tid;
                guess = new;
            }
            _ => return Ok(0),
        }
    }
}

async fn wait_requeue(
    cx: &mut Cx<'_>,
    words: (u64, u64),
    keys: (Key, Key),
    value: u32,
    end: Option<u64>,
) -> SysResult {
    if keys.0 == keys.1 {
        return Err(Errno::EINVAL.into());
    }
    let tid = cx.thread.tid();
    let waiting = Waiting::new(tid, keys.1, Wait::ToBeMoved);
    let futexes = cx.kernel().clone();
    futexes.pi_futexes.add_movable(keys.0, &waiting);
    let queued = Queued { kernel: cx.kernel().clone(), waiting: waiting.clone(), on: Some(keys.0) };
    // Read by the shim, after the thread can be found.
    let now = cx.native(NativeOp::CompareExchange { addr: words.0, expected: value, new: value }).await?;
    if now as u32 != value && futexes.pi_futexes.remove_movable(keys.0, &waiting) {
        return Err(Errno::EAGAIN.into());
    }
    let done = match wait_for_grant(cx, &queued, end).await {
        Ok(done) => done,
        Err(SysError::Interrupted(_)) if !futexes.pi_futexes.remove_movable(keys.0, &waiting) => {
            // Moved already: it cannot start over, since the first word has changed.
            return Err(Errno::EAGAIN.into());
        }
        Err(err) => return Err(err),
    };
    match done {
        Wait::Granted => Ok(0),
        Wait::Inherits(_) => lock(cx, words.1, keys.1, end, false).await,
        _ => Err(Errno::ETIMEDOUT.into()),
    }
}

async fn requeue(
    cx: &mut Cx<'_>,
    words: (u64, u64),
    keys: (Key, Key),
    (wake, move_most): (u32, u32),
    value: u32,
) -> SysResult {
    if wake != 1 || keys.0 == keys.1 || (move_most as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let claim = claim(cx, keys.1).await?;
    let now = cx.native(NativeOp::CompareExchange { addr: words.0, expected: value, new: value }).await?;
    if now as u32 != value {
        return Err(Errno::EAGAIN.into());
    }
    let most = usize::try_from(move_most).unwrap_or(usize::MAX).saturating_add(1);
    let kernel = cx.kernel().clone();
    let mut moved = kernel.pi_futexes.take_movable(keys.0, keys.1, most)?.into_iter();
    let Some(first) = moved.next() else { return Ok(0) };
    let mut count = 1;
    let more = moved.len() > 0;
    let holder = match attempt(cx, &claim, words.1, first.tid, None, more).await {
        Ok(Attempt::Locked) => {
            claim.grant_moved(&first);
            first.tid
        }
        Ok(Attempt::HeldBy(holder)) => {
            claim.add_moved(&first, holder);
            holder
        }
        Err(err) => {
            // They wait on where they were.
            for waiting in std::iter::once(first).chain(moved) {
                kernel.pi_futexes.add_movable(keys.0, &waiting);
            }
            return Err(err);
        }
    };
    for waiting in moved {
        claim.add_moved(&waiting, holder);
        count += 1;
    }
    Ok(count)
}

/// set_robust_list(2).
pub fn set_robust_list(cx: &mut Cx<'_>, head: u64, len: u64) -> SysResult {
    if len != ROBUST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    cx.thread.robust_list.store(head, Ordering::Relaxed);
    Ok(0)
}

/// Bytes of `struct robust_list_head`.
const ROBUST_HEAD: u64 = 24;

/// get_robust_list(2).
pub fn get_robust_list(cx: &mut Cx<'_>, pid: i32, head: Ptr, len: Ptr) -> SysResult {
    let thread = match pid {
        0 => cx.thread.clone(),
        pid => cx.kernel().pids.thread(pid)?,
    };
    if !crate::process_vm::may_access(cx, &thread) {
        return Err(Errno::EPERM.into());
    }
    let list = thread.robust_list.load(Ordering::Relaxed);
    cx.write(len, &ROBUST_HEAD)?;
    cx.write(head, &list)?;
    Ok(0)
}
