//! What a handler may touch: this thread, its process, the kernel, guest memory; and how it waits.

use std::any::Any;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Poll;

use executor::{Alarm, Events, WaitQueue, Waiter};
use identity::{Capability, Credentials};
use kernel::{FdFlags, FdTable, FsContext, Kernel, Mm, Process, Thread};
use linux_abi::Errno;
use linux_abi::signal::{SigAction, SigInfo, SigSet, Signo};
use linux_abi::sysno::nr;
use platform::{Exit, GuestThread, Identity, NativeOp, Regs};
use vfs::{Caller, OpenFile};

use crate::undo::Undo;
use crate::{Restart, SysError, SysResult};

/// How the run loop goes back to the guest after a handler, when not by the plain value.
#[derive(Debug, Default)]
pub enum Resume {
    /// The handler's value goes to rax.
    #[default]
    Value,
    /// All registers as in `guest.regs()` (exec).
    Regs,
    /// The handler has resumed the guest by itself (sigreturn, an announced mapping).
    Done,
    /// The thread has ended.
    Exited,
}

/// What only the thread's own task touches.
#[derive(Default)]
pub struct ThreadLocal {
    /// How to go back to the guest; reset at each call.
    pub resume: Resume,
    /// sigaltstack(2).
    pub alt_stack: AltStack,
    /// The present exit is an interrupt of guest code, perhaps within a native wait.
    pub in_guest_code: bool,
    /// The shim knows the thread's ids and answers for them.
    pub identity_told: bool,
    /// The shim goes by what it was told of paths.
    pub names_told: bool,
    /// Signals whose actions the shim knows.
    pub signals: SignalsTold,
    /// A sigreturn is under way: the extended state to go back with is at this address.
    pub return_fpstate: Option<u64>,
    /// The last fault, as signal frames tell it.
    pub fault: platform::Fault,
    /// A signal that the process dies of as soon as signals are delivered: it was forced and has no handler.
    pub fatal: Option<SigInfo>,
    /// The frame pushed last, to be undone if it could not be written.
    pub pushed: Option<Pushed>,
    /// The mask to restore after a handler that interrupted sigsuspend, ppoll and the like.
    pub saved_mask: Option<SigSet>,
    /// Address that the thread clears and wakes at its end: set_tid_address(2).
    pub clear_child_tid: u64,
    /// The number of the present call, for stops within it, and what the tracer made of it.
    pub call: u64,
    /// See `call`.
    pub call_after_stop: Option<u64>,
    /// set_mempolicy(2): mode, and whether node 0 is named.
    pub memory_policy: (u32, bool),
    /// FS base as a tracer is told it.
    pub fs_base: u64,
    /// The tracer lets it run on although its process is stopped.
    pub runs_in_stop: bool,
    /// Deadline of an interrupted timed wait that goes on (Linux's restart block).
    pub restart_deadline: Option<u64>,
    /// The present answer maps a file, see `Mm::note_later`.
    pub unsettled: bool,
    /// What to take back if the answer does not reach the guest.
    pub undo: Undo,
    /// Reusable buffer for data between guest and files.
    pub scratch: Vec<u8>,
}

/// Which signals' actions the shim of a thread knows, a bit for each from the lowest on for 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalsTold {
    /// As a program starts with, all zero.
    pub untouched: u64,
    /// By their words.
    pub told: u64,
}

fn bit(sig: Signo) -> u64 {
    SigSet::EMPTY.with(sig).0
}

/// What a signal frame that is being pushed has replaced.
#[derive(Clone, Copy)]
pub struct Pushed {
    /// Which signal it is for.
    pub sig: Signo,
    /// Registers before, and as the handler would have them.
    pub before: Regs,
    /// They.
    pub handler: Regs,
    /// The mask before, and what was to be restored after the handler instead.
    pub mask: SigSet,
    /// It.
    pub saved_mask: SigSet,
    /// The alternate stack before.
    pub alt_stack: AltStack,
}

/// `stack_t` of sigaltstack(2).
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields of sigaltstack(2)")]
pub struct AltStack {
    pub sp: u64,
    pub flags: i32,
    pub size: u64,
}

impl Default for AltStack {
    fn default() -> AltStack {
        AltStack { sp: 0, flags: 2, size: 0 }
    }
}

/// Calls that the shim answers once it knows the thread's ids.
const IDENTITY_CALLS: [u32; 6] = [nr::getpid, nr::gettid, nr::getuid, nr::geteuid, nr::getgid, nr::getegid];

/// The context of a system call.
pub struct Cx<'a> {
    /// The calling thread.
    pub thread: &'a Arc<Thread>,
    /// The platform's side of it: registers and memory.
    pub guest: &'a mut GuestThread,
    /// What only this task touches.
    pub local: &'a mut ThreadLocal,
    /// Credentials at the start of the call, for the `Caller` that files see.
    pub credentials: Arc<Credentials>,
}

impl Cx<'_> {
    /// The calling process.
    pub fn process(&self) -> &Arc<Process> {
        self.thread.process()
    }
    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        self.thread.kernel()
    }
    /// The descriptor table.
    pub fn files(&self) -> Arc<FdTable> {
        self.thread.files()
    }
    /// The open file of a descriptor; `EBADF`.
    pub fn file(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        let file = self.thread.files().get(fd)?;
        if file.is_held() {
            self.kernel().posting.touch(&file, self.thread);
        }
        Ok(file)
    }
    /// As `file`, for calls that only look what is ready: a thread may go on using it without an answer.
    pub fn file_to_watch(&self, fd: i32) -> SysResult<Arc<OpenFile>> {
        Ok(self.thread.files().get(fd)?)
    }
    /// Puts a file at the lowest free descriptor; `EMFILE`.
    pub fn install(&self, file: Arc<OpenFile>, cloexec: bool) -> SysResult<i64> {
        let limit = self.process().limit(kernel::limits::resource::NOFILE);
        Ok(i64::from(self.files().insert(file, FdFlags { cloexec }, 0, limit)?))
    }
    /// Root, cwd, umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.thread.fs()
    }
    /// The address space.
    pub fn mm(&self) -> Arc<Mm> {
        self.thread.mm()
    }
    /// `EPERM` without this capability.
    pub fn require(&self, cap: Capability) -> SysResult<()> {
        if self.credentials.capable(cap) { Ok(()) } else { Err(Errno::EPERM.into()) }
    }

    /// Tells the shim the ids of the thread, so that the next such call need not come here. The parent's id is
    /// not among them: it changes from outside.
    pub fn tell_identity(&mut self) {
        let config = &self.kernel().config;
        let seen = IDENTITY_CALLS.iter().any(|number| config.sees(*number));
        if seen || self.thread.ptrace.is_active() || self.thread.seccomp.is_active() {
            return;
        }
        let creds = &self.credentials;
        let identity = Identity {
            pid: u32::try_from(self.process().pid()).ok(),
            tid: u32::try_from(self.thread.tid()).ok(),
            ppid: None,
            uid: Some(creds.uid),
            euid: Some(creds.euid),
            gid: Some(creds.gid),
            egid: Some(creds.egid),
            untouched_signals: 0,
            told_signals: 0,
            names: self.local.names_told,
        };
        self.local.signals = SignalsTold::default();
        self.guest.set_identity(&identity);
        // Who attaches, or sets a filter for all threads, makes that known before it has the shim forget.
        fence(Ordering::SeqCst);
        if self.thread.ptrace.is_active() || self.thread.seccomp.is_active() {
            self.guest.set_identity(&Identity::default());
            self.local.names_told = false;
            return;
        }
        self.local.identity_told = true;
    }

    /// Tells the shim the actions of all signals, so that it answers rt_sigaction(2) that asks for one. Only while
    /// nobody but this thread can touch them.
    pub fn tell_signals(&mut self) {
        let seen = |cx: &Cx<'_>| cx.thread.ptrace.is_active() || cx.thread.seccomp.is_active();
        let alone = self.process().threads.lock().len() == 1 && !self.process().shares_actions();
        if !alone || seen(self) || self.kernel().config.sees(nr::rt_sigaction) {
            return;
        }
        let mut known = SignalsTold::default();
        for sig in (1..=64).filter_map(Signo::new) {
            let action = self.process().actions().get(sig);
            if action == SigAction::default() {
                known.untouched |= bit(sig);
            } else {
                known.told |= bit(sig);
                self.guest.set_action(sig, action.words());
            }
        }
        self.set_signals(known);
        // Who attaches, or sets a filter for all threads, makes that known before it has the shim forget.
        fence(Ordering::SeqCst);
        if seen(self) {
            self.forget_signals();
        }
    }
    /// Sets the action of a signal; the one before.
    pub fn set_action(&mut self, sig: Signo, action: SigAction) -> SigAction {
        let before = self.process().actions().set(sig, action);
        let SignalsTold { untouched, told } = self.local.signals;
        if self.local.signals == SignalsTold::default() {
            return before;
        }
        // To a tracer all calls are shown.
        if self.thread.ptrace.is_active() || self.thread.seccomp.is_active() {
            self.forget_signals();
            return before;
        }
        self.guest.set_action(sig, action.words());
        self.set_signals(SignalsTold { untouched: untouched & !bit(sig), told: told | bit(sig) });
        before
    }
    /// The shim asks again: others may touch the signals from now on.
    pub fn forget_signals(&mut self) {
        if self.local.signals != SignalsTold::default() {
            self.set_signals(SignalsTold::default());
        }
    }
    fn set_signals(&mut self, known: SignalsTold) {
        self.local.signals = known;
        self.guest.set_signals(known.untouched, known.told);
    }

    /// Has the shim do one native operation; its result, an errno if negative.
    pub async fn native(&mut self, op: NativeOp) -> SysResult {
        self.guest.native(op);
        self.native_done().await
    }
    /// Awaits the result of a native operation already handed over.
    pub async fn native_done(&mut self) -> SysResult {
        match self.guest.next_exit().await {
            Exit::NativeDone(ret) if (-4095..0).contains(&ret) => Err(Errno::from_raw(-(ret as i32)).into()),
            Exit::NativeDone(ret) => Ok(ret),
            // The stub died: the run loop ends the thread.
            Exit::Gone(_) => {
                self.thread.set_dying();
                Err(SysError::Interrupted(Restart::Never))
            }
            // Forged by the guest: nothing to lose.
            other => {
                tracing::debug!(?other, tid = self.thread.tid(), "no result of a native operation");
                self.thread.process().begin_exit(kernel::process::ExitStatus::Signaled {
                    signal: linux_abi::signal::Signo::SIGKILL,
                    core: false,
                });
                Err(SysError::Interrupted(Restart::Never))
            }
        }
    }

    /// Runs `op` until it gives something else than `EAGAIN`, waiting on the queue between tries.
    /// `deadline` is CLOCK_MONOTONIC nanoseconds; past it the result is `Ok(None)`.
    pub async fn wait_until<T>(
        &mut self,
        queue: &WaitQueue,
        events: Events,
        deadline: Option<u64>,
        restart: Restart,
        mut op: impl FnMut(&mut Cx<'_>) -> SysResult<T>,
    ) -> SysResult<Option<T>> {
        // Most calls never wait.
        match op(self) {
            Err(SysError::Errno(Errno::EAGAIN)) => {}
            done => return done.map(Some),
        }
        let waiter = self.thread.waiter().clone();
        let alarm = deadline.map(|at| Alarm::at(at, waiter.clone()));
        let result = loop {
            waiter.reset();
            let listener = queue.listen(&waiter, events, false);
            match op(self) {
                Err(SysError::Errno(Errno::EAGAIN)) => {}
                done => break done.map(Some),
            }
            if self.thread.interrupted() {
                break Err(SysError::Interrupted(restart));
            }
            if deadline.is_some_and(|at| executor::monotonic_ns() >= at) {
                break Ok(None);
            }
            self.sleep_on(&waiter).await;
            drop(listener);
        };
        drop(alarm);
        result
    }

    /// Sleeps until the waiter (already listening) is notified, by its queue or by a signal.
    pub async fn sleep_on(&mut self, waiter: &Arc<Waiter>) {
        self.thread.set_sleeping(true);
        executor::leave_host();
        self.kernel().posting.sleep(self.thread);
        poll_fn(|task| match waiter.poll_wait(task) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.kernel().posting.wake(self.thread);
        self.thread.set_sleeping(false);
    }

    /// One operation on a file that may say `EAGAIN`: blocks unless the file is non-blocking, or until the time-out of
    /// a socket has passed, which is `EAGAIN`, too.
    pub async fn file_op<T>(
        &mut self,
        file: &Arc<OpenFile>,
        events: Events,
        nonblock: bool,
        op: impl FnMut(&mut Cx<'_>, &Arc<OpenFile>) -> SysResult<T>,
    ) -> SysResult<T> {
        self.file_op_within(file, events, nonblock, None, op).await
    }

    /// The same as one of several operations that have their time together.
    pub async fn file_op_within<T>(
        &mut self,
        file: &Arc<OpenFile>,
        events: Events,
        nonblock: bool,
        limit: Option<Limit>,
        mut op: impl FnMut(&mut Cx<'_>, &Arc<OpenFile>) -> SysResult<T>,
    ) -> SysResult<T> {
        // Another thread may have been granted it while this one slept.
        let mut op = |cx: &mut Cx<'_>, file: &Arc<OpenFile>| {
            let _in_use = kernel::posting::enter(file, cx.thread);
            op(cx, file)
        };
        match op(self, file) {
            Err(SysError::Errno(Errno::EAGAIN)) if !nonblock => {}
            done => return done,
        }
        let Some(queue) = file.ops().wait_queue() else { return Err(Errno::EAGAIN.into()) };
        let Limit { deadline, restart } = limit.unwrap_or_else(|| Limit::of(self, file, events));
        let done =
            self.wait_until(&queue, events | Events::ALWAYS, deadline, restart, |cx| op(cx, file)).await;
        if deadline.is_some() && matches!(done, Err(SysError::Interrupted(_))) {
            self.local.restart_deadline = deadline;
        }
        done?.ok_or(Errno::EAGAIN.into())
    }
}

/// How long a call waits for a file.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// CLOCK_MONOTONIC nanoseconds.
    deadline: Option<u64>,
    restart: Restart,
}

impl Limit {
    /// From now on: as long as `SO_RCVTIMEO` or `SO_SNDTIMEO` says, else for ever.
    pub fn of(cx: &mut Cx<'_>, file: &OpenFile, events: Events) -> Limit {
        let timeout = net::file::of(file).ok().and_then(|socket| {
            let timeouts = *socket.timeouts().lock();
            if events.intersects(Events::READABLE) { timeouts.receive } else { timeouts.send }
        });
        // socket(7): with a time-out, a call that a handler interrupted is not restarted.
        let restart = if timeout.is_some() { Restart::Never } else { Restart::IfSaRestart };
        Limit { deadline: crate::poll::deadline_after(cx, timeout), restart }
    }
}

impl Caller for Cx<'_> {
    fn credentials(&self) -> &Credentials {
        &self.credentials
    }
    fn umask(&self) -> u32 {
        self.fs().umask()
    }
    fn pid(&self) -> i32 {
        self.process().pid()
    }
    fn read_memory(&mut self, addr: u64, buf: &mut [u8]) -> vfs::Result<()> {
        self.guest.copy_in(addr, buf)
    }
    fn write_memory(&mut self, addr: u64, buf: &[u8]) -> vfs::Result<()> {
        self.guest.copy_out(addr, buf)
    }
    fn as_any(&self) -> &dyn Any {
        // The kernel's thread is what file systems above it ask for.
        self.thread
    }
}
