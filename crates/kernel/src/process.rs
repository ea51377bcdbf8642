//! A guest process (thread group) as others see it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo};
use parking_lot::{Mutex, RwLock};
use vfs::DenyWrite;

use crate::limits::Limits;
use crate::robust::Mending;
use crate::signal::{Actions, Pending};
use crate::timers::Timers;
use crate::wait::ChildState;
use crate::{Kernel, Result, Thread};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// By exit_group(2) with this code (low 8 bits).
    Exited(i32),
    /// By a signal, perhaps with a core dump.
    Signaled {
        /// Which.
        signal: Signo,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl ExitStatus {
    /// The status word of wait(2).
    pub fn wait_status(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => (code & 0xff) << 8,
            ExitStatus::Signaled { signal, core } => signal.raw() | if core { 0x80 } else { 0 },
        }
    }
}

/// Process group and session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// Process group id.
    pub pgid: i32,
    /// Session id.
    pub sid: i32,
}

/// CPU times of ended threads and waited-for children, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named as in getrusage(2)")]
pub struct Usage {
    pub user_ns: u64,
    pub system_ns: u64,
    pub max_rss_kib: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
}

/// A guest process.
pub struct Process {
    pid: i32,
    kernel: Arc<Kernel>,
    parent: RwLock<Weak<Process>>,
    /// Which of the parent's threads made it; 0 and those that have ended stand for its first one.
    maker: AtomicI32,
    /// Children, alive or zombie. Lock order: a parent's before a child's.
    pub children: Mutex<BTreeMap<i32, Arc<Process>>>,
    /// Live threads by id.
    pub threads: Mutex<BTreeMap<i32, Arc<Thread>>>,
    job: RwLock<Job>,
    /// Signals for any of its threads.
    pub shared_pending: Mutex<Pending>,
    /// What to do on each signal; shared by `CLONE_SIGHAND`.
    actions: RwLock<Arc<Actions>>,
    /// Resource limits.
    pub limits: RwLock<Limits>,
    /// Alive, stopped, zombie: what wait(2) of the parent sees.
    pub state: Mutex<ChildState>,
    /// Set while threads are to stop (job control).
    stop_requested: AtomicBool,
    /// Woken when it stops, continues or ends its stop; its threads wait here while stopped.
    pub stop_queue: Arc<WaitQueue>,
    /// Woken when a child changes state.
    pub child_queue: Arc<WaitQueue>,
    /// Woken when this process has ended (pidfd, waiters of the sandbox).
    pub exit_queue: Arc<WaitQueue>,
    /// Sent to the parent when it ends; 0 is none.
    pub exit_signal: AtomicI32,
    /// Ordered to end with this status; the first order wins.
    exit_status: Mutex<Option<ExitStatus>>,
    /// Robust futexes to be marked before the host process may go.
    mending: Mutex<Mending>,
    /// A thread writes its core dump.
    pub dumps_core: AtomicBool,
    /// It has run execve since fork (setpgid's `EACCES`).
    pub did_exec: AtomicBool,
    /// `PR_SET_CHILD_SUBREAPER`.
    pub child_subreaper: AtomicBool,
    /// personality(2); kept over fork and exec.
    pub personality: AtomicU32,
    /// CPU use of ended threads and of waited-for children.
    pub usage: Mutex<(Usage, Usage)>,
    /// oom_score_adj as /proc shows it.
    pub oom_score_adj: AtomicI32,
    /// What it may be lowered to without privilege.
    pub oom_score_adj_min: AtomicI32,
    /// The user that logged in, and which login it was: /proc/PID/loginuid and sessionid; `u32::MAX` is none.
    pub login: Mutex<(u32, u32)>,
    /// Its timers.
    pub timers: Mutex<Timers>,
    /// How many of its threads are traced.
    pub traced: std::sync::atomic::AtomicUsize,
    /// Whom it traces.
    pub tracing: Mutex<crate::ptrace::Tracing>,
    /// Keeps writers from its program until it ends.
    executing: Mutex<Option<Arc<DenyWrite>>>,
    /// Start time, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
}

impl Process {
    /// A new process; not yet known by its id.
    pub fn new(
        pid: i32,
        kernel: Arc<Kernel>,
        parent: Option<&Arc<Process>>,
        job: Job,
        limits: Limits,
        actions: Arc<Actions>,
    ) -> Arc<Process> {
        Arc::new(Process {
            pid,
            kernel,
            parent: RwLock::new(parent.map(Arc::downgrade).unwrap_or_default()),
            maker: AtomicI32::new(0),
            children: Mutex::default(),
            threads: Mutex::default(),
            job: RwLock::new(job),
            shared_pending: Mutex::default(),
            actions: RwLock::new(actions),
            limits: RwLock::new(limits),
            state: Mutex::default(),
            stop_requested: AtomicBool::new(false),
            stop_queue: Arc::new(WaitQueue::new()),
            child_queue: Arc::new(WaitQueue::new()),
            exit_queue: Arc::new(WaitQueue::new()),
            exit_signal: AtomicI32::new(Signo::SIGCHLD.raw()),
            exit_status: Mutex::new(None),
            mending: Mutex::default(),
            dumps_core: AtomicBool::new(false),
            did_exec: AtomicBool::new(false),
            child_subreaper: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            usage: Mutex::default(),
            oom_score_adj: AtomicI32::new(0),
            oom_score_adj_min: AtomicI32::new(0),
            login: Mutex::new((u32::MAX, u32::MAX)),
            timers: Mutex::default(),
            traced: Default::default(),
            tracing: Mutex::default(),
            executing: Mutex::default(),
            start_ns: executor::monotonic_ns(),
        })
    }

    /// What keeps writers from its program, for a fork of it.
    pub fn executing(&self) -> Option<Arc<DenyWrite>> {
        self.executing.lock().clone()
    }
    /// It executes another program, or none any more.
    pub fn set_executing(&self, program: Option<Arc<DenyWrite>>) {
        let old = std::mem::replace(&mut *self.executing.lock(), program);
        drop(old);
    }

    /// Whether select(2) and its like leave the timeout as it was: `STICKY_TIMEOUTS` of personality(2).
    pub fn keeps_timeouts(&self) -> bool {
        self.personality.load(Ordering::Relaxed) & 0x400_0000 != 0
    }
    /// Its id.
    pub fn pid(&self) -> i32 {
        self.pid
    }
    /// Its kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
    /// Its parent; none for init.
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.parent.read().upgrade()
    }
    /// The parent's id, 0 if there is none.
    pub fn parent_pid(&self) -> i32 {
        self.parent().map_or(0, |p| p.pid)
    }
    /// Gives it another parent.
    pub fn set_parent(&self, parent: Option<&Arc<Process>>) {
        *self.parent.write() = parent.map(Arc::downgrade).unwrap_or_default();
        self.maker.store(0, Ordering::Relaxed);
    }
    /// Which of the parent's threads made it, as clone(2) was told.
    pub fn maker(&self) -> i32 {
        self.maker.load(Ordering::Relaxed)
    }
    /// Says which of the parent's threads made it.
    pub fn set_maker(&self, tid: i32) {
        self.maker.store(tid, Ordering::Relaxed);
    }
    /// The children that one of its threads made; the first thread has those of threads that have ended as well.
    pub fn children_of(&self, tid: i32) -> Vec<i32> {
        let threads: Vec<i32> = self.threads.lock().keys().copied().collect();
        let is_first = threads.first() == Some(&tid);
        let all = self.children.lock();
        let of_thread = all.values().filter(|child| {
            let maker = child.maker();
            maker == tid || is_first && threads.binary_search(&maker).is_err()
        });
        of_thread.map(|child| child.pid()).collect()
    }
    /// Process group and session.
    pub fn job(&self) -> Job {
        *self.job.read()
    }
    /// setpgid(2), setsid(2).
    pub fn set_job(&self, job: Job) {
        *self.job.write() = job;
    }
    /// What to do on each signal.
    pub fn actions(&self) -> Arc<Actions> {
        self.actions.read().clone()
    }
    /// Whether another process may have the same actions (`CLONE_SIGHAND`), or another thread uses them just now.
    pub fn shares_actions(&self) -> bool {
        Arc::strong_count(&self.actions.read()) > 1
    }
    /// Replaces the actions (exec).
    pub fn set_actions(&self, actions: Arc<Actions>) {
        *self.actions.write() = actions;
    }
    /// Some live thread, the leader if it lives.
    pub fn any_thread(&self) -> Option<Arc<Thread>> {
        self.threads.lock().values().next().cloned()
    }
    /// The soft limit of a resource.
    pub fn limit(&self, resource: usize) -> u64 {
        self.limits.read().soft(resource)
    }

    /// Sends a signal to the process (kill(2)).
    pub fn send_signal(&self, info: SigInfo) -> Result<()> {
        crate::signal::send_to_process(self, info)
    }

    /// Whether its threads are to stop.
    pub fn wants_stop(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }
    /// Set by SIGSTOP and friends, cleared by SIGCONT.
    pub fn set_wants_stop(&self, stop: bool) {
        self.stop_requested.store(stop, Ordering::Release);
    }

    /// Orders all threads to end with this status (exit_group(2), fatal signals) and kills the host
    /// process, once a thread of it has marked the robust futexes that it holds. The first order wins.
    pub fn begin_exit(&self, status: ExitStatus) {
        self.end(status, true);
    }

    /// As [`Process::begin_exit`], at once: nobody is left to whom its futexes could matter, or the host process
    /// cannot be trusted to do anything any more.
    pub fn kill_now(&self, status: ExitStatus) {
        self.end(status, false);
    }

    fn end(&self, status: ExitStatus, mend: bool) {
        {
            let mut slot = self.exit_status.lock();
            if slot.is_some() {
                return;
            }
            *slot = Some(status);
        }
        crate::cpu_time::keep(self);
        let threads: Vec<_> = self.threads.lock().values().cloned().collect();
        let handle = threads.iter().find_map(|t| t.handle());
        let lists = if mend { crate::robust::held(&threads) } else { Vec::new() };
        let waits = !lists.is_empty() && handle.is_some();
        if waits {
            *self.mending.lock() = Mending::wanted(lists, handle.clone());
        }
        for thread in &threads {
            thread.set_dying();
        }
        if let Some(handle) = handle.filter(|_| !waits) {
            handle.kill_process();
        }
        self.stop_queue.wake(Events::all());
    }
    /// What is to be marked before the host process is killed: once, for one thread.
    pub fn take_mending(&self) -> Mending {
        let mut mending = self.mending.lock();
        match &*mending {
            Mending::Wanted { .. } => std::mem::replace(&mut mending, Mending::UnderWay),
            Mending::UnderWay => Mending::UnderWay,
            Mending::None => Mending::None,
        }
    }
    /// The status it was ordered to end with.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit_status.lock()
    }
    /// Sets the status of an end that nobody ordered (last thread's exit, the host killed it); the first wins.
    pub fn note_exit_status(&self, status: ExitStatus) -> ExitStatus {
        *self.exit_status.lock().get_or_insert(status)
    }
    /// A live thread of this id; `ESRCH`.
    pub fn thread(&self, tid: i32) -> Result<Arc<Thread>> {
        self.threads.lock().get(&tid).cloned().ok_or(Errno::ESRCH)
    }
}
