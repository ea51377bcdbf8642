//! Filters of system calls that the guest sets: seccomp(2). The container's own one is in `seccomp`.

mod listener;
mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linux_abi::Errno;
use parking_lot::RwLock;

use crate::{Process, Result, Thread};

pub use listener::{Answer, Asked, Handed, Listener, Progress, Received, listener_of};
pub use program::{Data, Instruction, Program};

/// What a filter says, in the high half; the low half is its data.
pub mod action {
    #![expect(missing_docs, reason = "named in seccomp(2)")]
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x3_0000;
    pub const ERRNO: u32 = 0x5_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The bits that are the action.
    pub const MASK: u32 = 0xffff_0000;
}

/// Numbers whose verdict is known without a run, if it looks at nothing else.
const CACHED: usize = 512;
/// Most instructions of a chain, each filter counted with four more.
const MOST_INSTRUCTIONS: usize = 32768;

/// One filter and those set before it.
pub struct Filter {
    program: Program,
    before: Option<Arc<Filter>>,
    /// Filters in the chain.
    count: u32,
    instructions: usize,
    /// The chain's verdict by number; `None` where it must run.
    verdicts: Vec<Option<u32>>,
    /// Who is asked where this filter says `USER_NOTIF`.
    listener: Option<Arc<Listener>>,
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abandon();
        }
        // A long chain must not go down by recursion.
        let mut next = self.before.take();
        while let Some(filter) = next {
            next = Arc::into_inner(filter).and_then(|mut filter| filter.before.take());
        }
    }
}

/// Of two verdicts the one that counts: actions are ordered as signed numbers.
fn stricter(one: u32, other: u32) -> u32 {
    let rank = |verdict: u32| (verdict & action::MASK) as i32;
    if rank(other) < rank(one) { other } else { one }
}

impl Filter {
    /// A filter on top of others; `ENOMEM` if the chain becomes too long, `EBUSY` if it has a listener and one of the
    /// others has, too.
    pub fn new(
        program: Program,
        before: Option<Arc<Filter>>,
        listener: Option<Arc<Listener>>,
    ) -> Result<Arc<Filter>> {
        let instructions = program.len() + 4 + before.as_ref().map_or(0, |b| b.instructions);
        if instructions > MOST_INSTRUCTIONS {
            return Err(Errno::ENOMEM);
        }
        let heard = |filter: &Arc<Filter>| filter.listener.as_ref().is_some_and(|l| l.is_open());
        if listener.is_some() && chain(before.as_ref()).any(heard) {
            return Err(Errno::EBUSY);
        }
        let verdict = |nr: usize| {
            let own = program.constant(nr as u32)?;
            match &before {
                None => Some(own),
                Some(before) => Some(stricter(own, before.verdicts.get(nr).copied().flatten()?)),
            }
        };
        let verdicts = (0..CACHED).map(verdict).collect();
        let count = 1 + before.as_ref().map_or(0, |b| b.count);
        Ok(Arc::new(Filter { program, before, count, instructions, verdicts, listener }))
    }

    /// The chain's verdict on a call. Of equal actions the newest filter's data counts.
    pub fn run(&self, data: &Data) -> u32 {
        let known = usize::try_from(data.nr).ok().and_then(|nr| self.verdicts.get(nr).copied().flatten());
        if let Some(verdict) = known {
            return verdict;
        }
        let words = data.words();
        let mut verdict = self.program.run(&words);
        let mut next = &self.before;
        while let Some(filter) = next {
            verdict = stricter(verdict, filter.program.run(&words));
            next = &filter.before;
        }
        verdict
    }

    /// Who is to be asked about a call whose verdict is `USER_NOTIF`: the listener of the newest filter that says so.
    pub fn listener(self: &Arc<Filter>, data: &Data) -> Option<Arc<Listener>> {
        let words = data.words();
        let asks = |filter: &&Arc<Filter>| filter.program.run(&words) & action::MASK == action::USER_NOTIF;
        chain(Some(self)).find(asks)?.listener.clone()
    }

    /// Whether every call of this number passes, whatever its arguments.
    pub fn always_allows(&self, nr: u32) -> bool {
        let verdict = self.verdicts.get(nr as usize).copied().flatten();
        verdict.is_some_and(|verdict| verdict & action::MASK == action::ALLOW)
    }

    fn descends_from(self: &Arc<Filter>, other: &Arc<Filter>) -> bool {
        chain(Some(self)).any(|filter| Arc::ptr_eq(filter, other))
    }
}

/// A filter and those set before it, the newest first.
fn chain(newest: Option<&Arc<Filter>>) -> impl Iterator<Item = &Arc<Filter>> {
    std::iter::successors(newest, |filter| filter.before.as_ref())
}

/// What a thread's calls go through.
#[derive(Clone, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Disabled,
    /// read, write, exit and rt_sigreturn only.
    Strict,
    /// A chain of filters.
    Filter(Arc<Filter>),
    /// The thread has ended; it had so many filters.
    Ended(u32),
}

/// A thread's mode.
#[derive(Default)]
pub struct Seccomp {
    active: AtomicBool,
    mode: RwLock<Mode>,
}

impl Seccomp {
    /// With the mode of the parent.
    pub fn inherited(mode: Mode) -> Seccomp {
        Seccomp { active: AtomicBool::new(!matches!(mode, Mode::Disabled)), mode: RwLock::new(mode) }
    }
    /// Whether calls must be looked at; cheap, asked at every call.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode.read().clone()
    }
    /// The mode as a number, and how many filters there are, as /proc tells them.
    pub fn status(&self) -> (u32, u32) {
        match &*self.mode.read() {
            Mode::Disabled => (0, 0),
            Mode::Strict => (1, 0),
            Mode::Filter(filter) => (2, filter.count),
            Mode::Ended(filters) => (2, *filters),
        }
    }
    /// The thread has ended: its filters are free.
    pub fn release(&self) {
        let mut now = self.mode.write();
        if let Mode::Filter(filter) = &*now {
            let ended = Mode::Ended(filter.count);
            let filters = std::mem::replace(&mut *now, ended);
            drop(now);
            // Who listens to the last one is told.
            drop(filters);
        }
    }
    /// Sets the mode, which never becomes weaker; `EINVAL` between strict and filters.
    pub fn set(&self, mode: Mode) -> Result<()> {
        let mut now = self.mode.write();
        let fits = matches!(
            (&*now, &mode),
            (Mode::Disabled, _) | (Mode::Strict, Mode::Strict) | (Mode::Filter(_), Mode::Filter(_))
        );
        if !fits {
            return Err(Errno::EINVAL);
        }
        *now = mode;
        self.active.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// `SECCOMP_FILTER_FLAG_TSYNC`: gives the caller's new filter to all threads of its process. `Err` names one whose
/// filters the caller's do not descend from.
pub fn synchronize(
    process: &Process,
    caller: &Thread,
    old: &Mode,
    filter: &Arc<Filter>,
) -> core::result::Result<(), i32> {
    let threads: Vec<_> =
        process.threads.lock().values().filter(|t| t.tid() != caller.tid()).cloned().collect();
    for thread in &threads {
        let fits = match (thread.seccomp.mode(), old) {
            // One that ends has no say.
            (Mode::Disabled | Mode::Ended(_), _) => true,
            (Mode::Filter(theirs), Mode::Filter(own)) => own.descends_from(&theirs),
            _ => false,
        };
        if !fits {
            return Err(thread.tid());
        }
    }
    for thread in threads {
        // Checked above; one that has changed since keeps what it has, which is stricter than nothing.
        if thread.seccomp.set(Mode::Filter(filter.clone())).is_ok() && caller.credentials().no_new_privs {
            let new = identity::Credentials { no_new_privs: true, ..thread.credentials().as_ref().clone() };
            thread.set_credentials(Arc::new(new));
        }
        thread.be_seen();
    }
    Ok(())
}
