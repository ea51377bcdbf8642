//! Tracing: ptrace(2). What tracer and tracee share; the tracee stops in its own task, the tracer looks from its.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::Events;
use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo, sa, si};
use parking_lot::Mutex;
use platform::Regs;

use crate::process::ExitStatus;
use crate::{Process, Result, Thread};

/// Options of `PTRACE_SETOPTIONS`.
pub mod option {
    #![expect(missing_docs, reason = "named in ptrace(2)")]
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEFORK: u32 = 2;
    pub const TRACEVFORK: u32 = 4;
    pub const TRACECLONE: u32 = 8;
    pub const TRACEEXEC: u32 = 0x10;
    pub const TRACEVFORKDONE: u32 = 0x20;
    pub const TRACEEXIT: u32 = 0x40;
    pub const TRACESECCOMP: u32 = 0x80;
    pub const EXITKILL: u32 = 0x10_0000;
    /// Those that are known.
    pub const ALL: u32 = 0x10_00ff;
}

/// `PTRACE_EVENT_*`.
pub mod event {
    #![expect(missing_docs, reason = "named in ptrace(2)")]
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const VFORK_DONE: i32 = 5;
    pub const EXIT: i32 = 6;
    pub const SECCOMP: i32 = 7;
    pub const STOP: i32 = 128;
}

/// How a tracee runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// To the next signal or event.
    #[default]
    Continue,
    /// To the next entry or exit of a system call as well.
    Syscall,
    /// One instruction.
    Step,
    /// Not at all: it stays in its group stop and only its end is told.
    Listen,
}

/// What kind of stop it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A signal that is about to be delivered, an event.
    Plain,
    /// A stop of the whole process: it has no siginfo unless the tracee was seized.
    Group,
    /// Before a system call.
    Entry,
    /// After it.
    Exit,
}

/// A stopped tracee as its tracer sees and changes it.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Signal and event as wait(2) tells them in the bits above 8.
    pub status: i32,
    /// Its kind.
    pub kind: Kind,
    /// `PTRACE_GETSIGINFO`.
    pub info: SigInfo,
    /// Registers.
    pub regs: Regs,
    /// The number of the system call, or -1.
    pub orig_rax: u64,
    /// FS base, 0 if it is not known.
    pub fs_base: u64,
    /// Where the extended state lies in the tracee's memory; 0 if it is nowhere.
    pub xstate: u64,
    /// wait(2) has told of it.
    pub reported: bool,
}

/// How the tracer lets it go on.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The stop with what the tracer changed.
    pub stop: Stop,
    /// To be delivered instead of the signal of the stop; 0 is none.
    pub signal: i32,
    /// How to run on.
    pub mode: Mode,
}

/// The tie between a tracee and its tracer.
pub struct Trace {
    /// Who traces.
    pub tracer: Arc<Process>,
    /// Whether who made the tie had CAP_SYS_PTRACE: only then exec gives the tracee more rights than it had.
    pub capable: bool,
    /// By `PTRACE_SEIZE`, and children of such.
    pub seized: bool,
    /// `PTRACE_SETOPTIONS`.
    pub options: u32,
    /// How it runs.
    pub mode: Mode,
    /// Stopped now.
    pub stop: Option<Stop>,
    /// `PTRACE_GETEVENTMSG`.
    pub message: u64,
    /// A stop without a signal is wanted (`PTRACE_INTERRUPT`, the first of a seized child).
    pub trap: bool,
}

/// The tracee's side in its thread.
#[derive(Default)]
pub struct Traced {
    active: AtomicBool,
    /// `None` if nobody traces it.
    pub trace: Mutex<Option<Trace>>,
    /// Left by the tracer for the stopped tracee.
    pub resume: Mutex<Option<Resume>>,
}

impl Traced {
    /// Whether it is traced; cheap, asked at every call.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
    /// How it runs.
    pub fn mode(&self) -> Mode {
        self.trace.lock().as_ref().map_or(Mode::Continue, |t| t.mode)
    }
    /// Whether an option is set.
    pub fn option(&self, option: u32) -> bool {
        self.is_active() && self.trace.lock().as_ref().is_some_and(|t| t.options & option != 0)
    }
    /// Whether it is stopped for its tracer.
    pub fn is_stopped(&self) -> bool {
        self.is_active() && self.trace.lock().as_ref().is_some_and(|t| t.stop.is_some())
    }
    /// Whether a stop without a signal is wanted.
    pub fn wants_trap(&self) -> bool {
        self.is_active() && self.trace.lock().as_ref().is_some_and(|t| t.trap)
    }
    /// Whether one traces it who may not see it gain rights by exec.
    pub fn keeps_rights_down(&self) -> bool {
        self.is_active() && self.trace.lock().as_ref().is_some_and(|t| !t.capable)
    }
    /// Who traces it, 0 if nobody does.
    pub fn tracer_pid(&self) -> i32 {
        if !self.is_active() {
            return 0;
        }
        self.trace.lock().as_ref().map_or(0, |t| t.tracer.pid())
    }
}

/// The tracer's side in its process.
#[derive(Default)]
pub struct Tracing {
    /// Whom it traces, by thread id.
    pub tracees: BTreeMap<i32, Arc<Thread>>,
    /// Ends that wait(2) has not told: thread id, how, user. Each counts as a task.
    ends: VecDeque<(i32, ExitStatus, u32)>,
    /// It has ended itself: nobody will wait.
    over: bool,
    /// Its own first thread, traced, that ended before the others.
    pub(crate) leader: Option<Arc<Thread>>,
}

impl Tracing {
    /// Ends of threads that wait(2) has not told: thread id, how, user.
    pub fn ends(&self) -> &VecDeque<(i32, ExitStatus, u32)> {
        &self.ends
    }
    /// wait(2) has told of one.
    pub fn forget_end(&mut self, at: usize, pids: &crate::kernel::Pids) {
        if self.ends.remove(at).is_some() {
            pids.unreaped.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Process {
    /// Whether its first thread is traced by `tracer`: then wait(2) tells of its stops as those of a tracee.
    pub fn is_leader_traced_by(&self, tracer: &Arc<Process>) -> bool {
        self.traced.load(Ordering::Relaxed) != 0 && tracer.tracing.lock().tracees.contains_key(&self.pid())
    }
}

/// With whose ids `may_access` asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    /// `PTRACE_MODE_REALCREDS`: system calls.
    Real,
    /// `PTRACE_MODE_FSCREDS`: files of /proc.
    FileSystem,
}

/// Whether the caller may look into another process: `PTRACE_MODE_*` of ptrace(2); `EPERM`. Its own it always may,
/// which the caller of this knows.
pub fn may_access(caller: &Credentials, ids: Ids, target: &Thread) -> Result<()> {
    let (uid, gid) = match ids {
        Ids::Real => (caller.uid, caller.gid),
        Ids::FileSystem => (caller.fsuid, caller.fsgid),
    };
    let other = target.credentials();
    let same = [other.euid, other.suid, other.uid].iter().all(|id| *id == uid)
        && [other.egid, other.sgid, other.gid].iter().all(|id| *id == gid);
    let within = other.permitted.0 & !caller.permitted.0 == 0;
    let allowed = (same && within && target.mm().dumpable.load(Ordering::Relaxed))
        || caller.capable(Capability::SYS_PTRACE);
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// How a thread is to be traced.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// By `PTRACE_SEIZE`.
    pub seized: bool,
    /// `PTRACE_SETOPTIONS`.
    pub options: u32,
    /// As [`Trace::capable`].
    pub capable: bool,
}

/// Makes a thread the tracee of a process, if `check` still allows it; `EPERM` if it has a tracer.
pub fn attach(
    thread: &Arc<Thread>,
    tracer: &Arc<Process>,
    how: How,
    check: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let How { seized, options, capable } = how;
    {
        let mut trace = thread.ptrace.trace.lock();
        if trace.is_some() || thread.is_dying() {
            return Err(Errno::EPERM);
        }
        // Under the lock that `credentials_at_exec` takes.
        check()?;
        *trace = Some(Trace {
            tracer: tracer.clone(),
            capable,
            seized,
            options,
            mode: Mode::Continue,
            stop: None,
            message: 0,
            trap: false,
        });
        thread.ptrace.active.store(true, Ordering::SeqCst);
    }
    thread.process().traced.fetch_add(1, Ordering::SeqCst);
    tracer.tracing.lock().tracees.insert(thread.tid(), thread.clone());
    Ok(())
}

/// Takes the tie away; what the stopped tracee goes on with has been left in `resume`.
pub fn release(thread: &Thread) -> Option<Trace> {
    let old = {
        let mut trace = thread.ptrace.trace.lock();
        thread.ptrace.active.store(false, Ordering::SeqCst);
        trace.take()
    }?;
    thread.process().traced.fetch_sub(1, Ordering::SeqCst);
    old.tracer.tracing.lock().tracees.remove(&thread.tid());
    Some(old)
}

/// Gives a thread that made exec the credentials of its program. A tracer that has come since they were decided, and
/// may not trace a program with these rights, loses it.
pub fn credentials_at_exec(thread: &Thread, new: Arc<Credentials>) {
    let unfit = {
        let trace = thread.ptrace.trace.lock();
        let old = thread.credentials();
        let changed = new.euid != old.uid || new.egid != old.gid;
        let gained = new.permitted.0 & !old.permitted.0 != 0;
        let more = gained || (changed && !old.capable(Capability::SETUID));
        thread.set_credentials(new);
        more && trace.as_ref().is_some_and(|trace| !trace.capable)
    };
    if unfit {
        detach(thread, 0);
    }
}

/// Ends the tracing of a thread that runs on.
pub fn detach(thread: &Thread, signal: i32) {
    if let Some(stop) = thread.ptrace.trace.lock().as_mut().and_then(|t| t.stop.take()) {
        *thread.ptrace.resume.lock() = Some(Resume { stop, signal, mode: Mode::Continue });
    }
    release(thread);
    thread.request_attention();
}

/// Tells the tracer of a stop.
pub fn tell(tracer: &Process, tid: i32, uid: u32, status: i32) {
    if tracer.actions().get(Signo::SIGCHLD).flags & sa::NOCLDSTOP == 0 {
        // A full queue loses it; the child queue does not.
        let _ = tracer.send_signal(SigInfo::child(si::CLD_TRAPPED, tid, uid, status & 0x7f, 0, 0));
    }
    tracer.child_queue.wake(Events::IN);
}

/// A thread has ended: its tracer hears of it, unless it is the parent who hears anyway.
pub(crate) fn thread_ended(thread: &Thread, status: ExitStatus) {
    if !thread.ptrace.is_active() {
        return;
    }
    let Some(trace) = release(thread) else { return };
    let tracer = trace.tracer;
    let leader = thread.tid() == thread.process().pid();
    let is_parent = thread.process().parent().is_some_and(|p| Arc::ptr_eq(&p, &tracer));
    if leader && is_parent {
        return;
    }
    let uid = thread.credentials().uid;
    {
        let mut tracing = tracer.tracing.lock();
        if tracing.over {
            return;
        }
        tracing.ends.push_back((thread.tid(), status, uid));
        tracer.kernel().pids.unreaped.fetch_add(1, Ordering::Relaxed);
    }
    let (code, value) = match status {
        ExitStatus::Exited(code) => (si::CLD_EXITED, code & 0xff),
        ExitStatus::Signaled { signal, .. } => (si::CLD_KILLED, signal.raw()),
    };
    // As above.
    let _ = tracer.send_signal(SigInfo::child(code, thread.tid(), uid, value, 0, 0));
    tracer.child_queue.wake(Events::IN);
}

/// A process has ended: as [`thread_ended`], for its first thread, which may have ended long before.
pub(crate) fn leader_ended(process: &Process, status: ExitStatus) {
    let leader = process.tracing.lock().leader.take();
    if let Some(thread) = leader {
        thread_ended(&thread, status);
    }
}

/// A process has ended: whom it traced is free, or dies with it.
pub(crate) fn tracer_ended(tracer: &Process) {
    let tracees = std::mem::take(&mut tracer.tracing.lock().tracees);
    for thread in tracees.into_values() {
        let kill = thread.ptrace.option(option::EXITKILL);
        detach(&thread, 0);
        if kill {
            thread.process().begin_exit(ExitStatus::Signaled { signal: Signo::SIGKILL, core: false });
        }
    }
    let ends = {
        let mut tracing = tracer.tracing.lock();
        tracing.over = true;
        std::mem::take(&mut tracing.ends)
    };
    tracer.kernel().pids.unreaped.fetch_sub(ends.len(), Ordering::Relaxed);
}
