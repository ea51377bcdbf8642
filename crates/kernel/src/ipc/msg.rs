//! Message queues: msgget(2), msgop(2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::{Events, WaitQueue};
use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::ipc::msg::{MSG_COPY, MSG_EXCEPT, MSG_NOERROR};
use linux_abi::ipc::{IPC_NOWAIT, MsqidDs};
use parking_lot::Mutex;

use super::{IpcNamespace, Perm, now, perm};
use crate::Result;

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its type, positive.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// A queue.
pub struct Queue {
    /// Woken when a message comes (`IN`), when there is room (`OUT`), and at the end of the queue.
    pub waiters: Arc<WaitQueue>,
    /// What changes.
    pub state: Mutex<State>,
}

/// What changes of a queue.
pub struct State {
    /// Owner and mode.
    pub perm: Perm,
    messages: VecDeque<Message>,
    bytes: u64,
    most_bytes: u64,
    stime: i64,
    rtime: i64,
    ctime: i64,
    lspid: i32,
    lrpid: i32,
    removed: bool,
}

/// Which message msgrcv(2) wants.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Any,
    Equal(i64),
    Except(i64),
    AtMost(i64),
    Nth(i64),
}

impl IpcNamespace {
    /// msgget(2).
    ///
    /// # Errors
    /// Those of the man page.
    pub fn msgget(&self, key: i32, flags: i32, creds: &Credentials) -> Result<i32> {
        let check = |queue: &Queue| queue.state.lock().perm.check(creds, flags as u32);
        let make = |id| {
            let most = self.limits.msgmnb.load(Ordering::Relaxed);
            let state = State {
                perm: Perm::new(id, key, flags, creds),
                messages: VecDeque::new(),
                bytes: 0,
                most_bytes: u64::try_from(most).unwrap_or(0),
                stime: 0,
                rtime: 0,
                ctime: now(),
                lspid: 0,
                lrpid: 0,
                removed: false,
            };
            Ok(Queue { waiters: Arc::new(WaitQueue::new()), state: Mutex::new(state) })
        };
        self.msg.get_or_make(key, flags, self.limits.msgmni.load(Ordering::Relaxed), check, make)
    }

    /// `IPC_RMID`: whoever waits hears `EIDRM`.
    pub fn msg_remove(&self, id: i32) {
        let Some(queue) = self.msg.remove(id) else { return };
        {
            let mut state = queue.state.lock();
            state.removed = true;
            state.messages.clear();
        }
        queue.waiters.wake_all(Events::all());
    }
}

impl Queue {
    /// Puts a message at the end, taking it from `message`.
    ///
    /// # Errors
    /// `EIDRM`, `EACCES`; `EAGAIN` while it is full.
    pub fn send(&self, message: &mut Option<Message>, creds: &Credentials, pid: i32) -> Result<()> {
        let mut state = self.state.lock();
        state.check(creds, perm::WRITE)?;
        let size = message.as_ref().map_or(0, |m| m.text.len() as u64);
        let fits = size.saturating_add(state.bytes) <= state.most_bytes
            && (state.messages.len() as u64) < state.most_bytes;
        if !fits {
            return Err(Errno::EAGAIN);
        }
        state.bytes += size;
        state.messages.extend(message.take());
        state.stime = now();
        state.lspid = pid;
        drop(state);
        self.waiters.wake_all(Events::IN);
        Ok(())
    }

    /// Takes a message as msgrcv(2) chooses it.
    ///
    /// # Errors
    /// `EIDRM`, `EACCES`, `E2BIG`; `EAGAIN` while there is none (`ENOMSG` with `IPC_NOWAIT`).
    pub fn receive(
        &self,
        size: u64,
        kind: i64,
        flags: i32,
        creds: &Credentials,
        pid: i32,
    ) -> Result<Message> {
        let copies = flags & MSG_COPY != 0;
        let wanted = match kind {
            n if copies => Wanted::Nth(n),
            0 => Wanted::Any,
            n if n < 0 => Wanted::AtMost(n.checked_neg().unwrap_or(i64::MAX)),
            n if flags & MSG_EXCEPT != 0 => Wanted::Except(n),
            n => Wanted::Equal(n),
        };
        let mut state = self.state.lock();
        state.check(creds, perm::READ)?;
        let Some(at) = state.find(wanted) else {
            return Err(if flags & IPC_NOWAIT != 0 { Errno::ENOMSG } else { Errno::EAGAIN });
        };
        let long = state.messages.get(at).map_or(0, |m| m.text.len() as u64);
        if long > size && flags & MSG_NOERROR == 0 {
            return Err(Errno::E2BIG);
        }
        if copies {
            return state.messages.get(at).cloned().ok_or(Errno::ENOMSG);
        }
        let message = state.messages.remove(at).ok_or(Errno::ENOMSG)?;
        state.bytes = state.bytes.saturating_sub(long);
        state.rtime = now();
        state.lrpid = pid;
        drop(state);
        self.waiters.wake_all(Events::OUT);
        Ok(message)
    }

    /// `IPC_SET`: owner, mode and the most bytes it holds.
    ///
    /// # Errors
    /// `EPERM`, `EINVAL`.
    pub fn set(&self, to: &MsqidDs, creds: &Credentials, msgmnb: i32) -> Result<()> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        state.perm.check_owner(creds)?;
        if to.qbytes > u64::try_from(msgmnb).unwrap_or(0) && !creds.capable(Capability::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        state.perm.set(&to.perm)?;
        state.most_bytes = to.qbytes.min(i32::MAX as u64);
        state.ctime = now();
        drop(state);
        self.waiters.wake_all(Events::all());
        Ok(())
    }

    /// As `IPC_STAT` tells it.
    pub fn stat(&self) -> MsqidDs {
        let state = self.state.lock();
        MsqidDs {
            perm: state.perm.to_abi(),
            stime: state.stime,
            rtime: state.rtime,
            ctime: state.ctime,
            cbytes: state.bytes,
            qnum: state.messages.len() as u64,
            qbytes: state.most_bytes,
            lspid: state.lspid,
            lrpid: state.lrpid,
            ..MsqidDs::default()
        }
    }
}

impl State {
    fn check(&self, creds: &Credentials, wanted: u32) -> Result<()> {
        if self.removed {
            return Err(Errno::EIDRM);
        }
        self.perm.check(creds, wanted)
    }

    fn find(&self, wanted: Wanted) -> Option<usize> {
        let first = |test: &dyn Fn(i64) -> bool| self.messages.iter().position(|m| test(m.kind));
        match wanted {
            Wanted::Any => first(&|_| true),
            Wanted::Equal(n) => first(&|kind| kind == n),
            Wanted::Except(n) => first(&|kind| kind != n),
            Wanted::AtMost(n) => {
                let least = self.messages.iter().map(|m| m.kind).filter(|kind| *kind <= n).min()?;
                first(&|kind| kind == least)
            }
            Wanted::Nth(n) => usize::try_from(n).ok().filter(|n| *n < self.messages.len()),
        }
    }
}
