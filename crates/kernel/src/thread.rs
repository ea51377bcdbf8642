//! A guest thread as others see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use executor::{Events, Observer, Waiter};
use identity::{Capability, Credentials};
use linux_abi::signal::SigInfo;
use parking_lot::{Mutex, RwLock};
use platform::ThreadHandle;

use crate::ipc::ThreadIpc;
use crate::scheduling::Scheduling;
use crate::signal::{Pending, ThreadSignals};
use crate::{FdTable, FsContext, Kernel, Mm, Process};

/// A guest thread (a task in Linux's words). What only its own task touches is not here.
pub struct Thread {
    /// Thread id as the guest sees it; changes only when a thread that is not the first one goes through exec.
    tid: AtomicI32,
    process: Arc<Process>,
    /// `None` once the thread has exited.
    files: RwLock<Option<Arc<FdTable>>>,
    fs: RwLock<Arc<FsContext>>,
    credentials: RwLock<Arc<Credentials>>,
    mm: RwLock<Arc<Mm>>,
    /// `None` once the thread has exited.
    ipc: RwLock<Option<ThreadIpc>>,
    comm: Mutex<[u8; 16]>,
    /// Pending and blocked signals of this thread alone.
    pub signals: Mutex<ThreadSignals>,
    /// The way to reach its host thread; replaced at exec.
    handle: RwLock<Option<Arc<ThreadHandle>>>,
    /// Woken by whatever it waits for in a system call, and by signals.
    waiter: Arc<Waiter>,
    /// It must end: its process dies or execs.
    dying: AtomicBool,
    /// Set when something wants it at its next exit: a signal, a stop, death.
    attention: AtomicBool,
    /// What the thread is doing, for /proc: true while it waits in a system call.
    sleeping: AtomicBool,
    /// Start time, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// How it wants to be scheduled.
    pub scheduling: Mutex<Scheduling>,
    /// Head of the list of set_robust_list(2); 0 is none.
    pub robust_list: AtomicU64,
    /// seccomp(2).
    pub seccomp: crate::guest_filter::Seccomp,
    /// ptrace(2).
    pub ptrace: crate::ptrace::Traced,
    /// `PR_SET_PDEATHSIG`.
    pub parent_death_signal: AtomicI32,
    /// What it may read and write without an answer.
    pub posting: crate::posting::Posting,
}

/// What a new thread starts with.
pub struct ThreadParts {
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// Root, cwd, umask.
    pub fs: Arc<FsContext>,
    /// Who it acts as.
    pub credentials: Arc<Credentials>,
    /// Its address space.
    pub mm: Arc<Mm>,
    /// System V IPC.
    pub ipc: ThreadIpc,
    /// Its name.
    pub comm: [u8; 16],
    /// Filters of system calls.
    pub seccomp: crate::guest_filter::Mode,
    /// Blocked signals.
    pub mask: linux_abi::signal::SigSet,
}

/// A thread's name as the kernel keeps it: at most 15 bytes, NUL padded.
pub fn padded_name(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    comm
}

impl Thread {
    /// A new thread of a process; not yet known by its id.
    pub fn new(tid: i32, process: Arc<Process>, parts: ThreadParts) -> Arc<Thread> {
        Arc::new(Thread {
            tid: AtomicI32::new(tid),
            process,
            files: RwLock::new(Some(parts.files)),
            fs: RwLock::new(parts.fs),
            credentials: RwLock::new(parts.credentials),
            mm: RwLock::new(parts.mm),
            ipc: RwLock::new(Some(parts.ipc)),
            comm: Mutex::new(parts.comm),
            signals: Mutex::new(ThreadSignals::new(parts.mask)),
            handle: RwLock::new(None),
            waiter: Waiter::new(),
            dying: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            start_ns: executor::monotonic_ns(),
            scheduling: Mutex::default(),
            robust_list: AtomicU64::new(0),
            seccomp: crate::guest_filter::Seccomp::inherited(parts.seccomp),
            ptrace: Default::default(),
            parent_death_signal: AtomicI32::new(0),
            posting: Default::default(),
        })
    }

    /// Its id; the first thread's is the process id.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    /// Gives the only thread of its process the process's id: what exec leaves is the first thread.
    pub fn become_first(self: &Arc<Thread>) {
        let (old, new) = (self.tid(), self.process.pid());
        if old == new {
            return;
        }
        let mut threads = self.process.threads.lock();
        threads.remove(&old);
        self.tid.store(new, Ordering::Relaxed);
        threads.insert(new, self.clone());
        drop(threads);
        self.kernel().pids.rename_thread(old, self);
    }
    /// Its process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
    /// Its kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        self.process.kernel()
    }
    /// Its descriptor table; an empty one once it has exited.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.read().clone().unwrap_or_default()
    }
    /// Replaces the table (unshare, exec, exit).
    pub fn set_files(&self, files: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        std::mem::replace(&mut *self.files.write(), files)
    }
    /// Root, cwd, umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.read().clone()
    }
    /// Replaces root, cwd, umask (unshare).
    pub fn set_fs(&self, fs: Arc<FsContext>) {
        *self.fs.write() = fs;
    }
    /// Who it acts as.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.read().clone()
    }
    /// Replaces the credentials.
    pub fn set_credentials(&self, credentials: Arc<Credentials>) {
        let locks = |c: &Credentials| c.capable(Capability::IPC_LOCK);
        let now = locks(&credentials);
        let old = std::mem::replace(&mut *self.credentials.write(), credentials);
        if locks(&old) != now {
            crate::limits::enforce(&self.process.limits.read(), self);
        }
    }
    /// Its address space.
    pub fn mm(&self) -> Arc<Mm> {
        self.mm.read().clone()
    }
    /// Replaces the address space (exec).
    pub fn set_mm(&self, mm: Arc<Mm>) {
        *self.mm.write() = mm;
    }
    /// What it has of System V IPC; `None` once it has exited.
    pub fn ipc(&self) -> Option<ThreadIpc> {
        self.ipc.read().clone()
    }
    /// Replaces it (exec, exit): what nobody else has is detached and undone.
    pub fn set_ipc(&self, ipc: Option<ThreadIpc>) {
        let old = std::mem::replace(&mut *self.ipc.write(), ipc);
        drop(old);
    }
    /// Its name, NUL padded.
    pub fn comm(&self) -> [u8; 16] {
        *self.comm.lock()
    }
    /// Sets its name: at most 15 bytes are kept.
    pub fn set_comm(&self, name: &[u8]) {
        *self.comm.lock() = padded_name(name);
    }
    /// Its host thread, once it has one.
    pub fn handle(&self) -> Option<Arc<ThreadHandle>> {
        self.handle.read().clone()
    }
    /// Sets or replaces its host thread.
    pub fn set_handle(&self, handle: Option<Arc<ThreadHandle>>) {
        *self.handle.write() = handle;
    }
    /// What wakes it from a wait.
    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }
    /// Whether it must end.
    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Acquire)
    }
    /// Orders it to end as soon as its task runs.
    pub fn set_dying(&self) {
        self.mark_dying();
        self.request_attention();
    }
    /// As `set_dying`, but it is not told.
    pub fn mark_dying(&self) {
        self.dying.store(true, Ordering::Release);
    }
    /// Whether it waits in a system call.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }
    /// Set around waits.
    pub fn set_sleeping(&self, sleeping: bool) {
        self.sleeping.store(sleeping, Ordering::Relaxed);
    }

    /// Makes it look at signals, stops and death soon: ends its wait or its stay in guest code.
    pub fn request_attention(&self) {
        self.attention.store(true, Ordering::Release);
        self.waiter.notify(Events::empty());
        if let Some(handle) = self.handle() {
            handle.interrupt();
        }
    }
    /// Has its calls seen that the shim would answer; without an interrupt, which could end a wait on the host.
    pub fn be_seen(&self) {
        if let Some(handle) = self.handle() {
            handle.forget_identity();
        }
        self.kernel().posting.withdraw(self, false);
    }
    /// As `request_attention`, for the thread itself: it is in the kernel already.
    pub fn note_attention(&self) {
        self.attention.store(true, Ordering::Release);
    }
    /// Whether something wants it; cheap, asked at every exit.
    pub fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }
    /// Called by the run loop before it looks.
    pub fn clear_attention(&self) {
        self.attention.store(false, Ordering::Release);
    }

    /// Whether a wait must end: it dies, its process stops, or an unblocked signal that is not ignored is pending.
    pub fn interrupted(&self) -> bool {
        self.wants_attention()
            && (self.is_dying()
                || self.process.wants_stop()
                || self.ptrace.wants_trap()
                || crate::signal::has_deliverable(self))
    }

    /// Sends a signal to this very thread (tgkill(2), faults).
    pub fn send_signal(&self, info: SigInfo) -> crate::Result<()> {
        crate::signal::send_to_thread(self, info)
    }

    /// Signals pending for this thread alone, and blocked ones.
    pub fn pending(&self) -> Pending {
        self.signals.lock().pending.clone()
    }
}
