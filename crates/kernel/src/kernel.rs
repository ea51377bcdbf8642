//! The kernel of one sandbox: what all its processes share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use parking_lot::{Mutex, RwLock};
use platform::{GuestThread, Platform};
use vfs::{Caller, FileOps, Inode};

use crate::process::{ExitStatus, Process};
use crate::{Result, Thread};

/// Highest process id plus one, as /proc/sys/kernel/pid_max.
pub const PID_MAX: i32 = 4_194_304;
/// Most tasks at once, those counted that only a tracer still waits for.
const MAX_TASKS: usize = 1 << 20;

/// What the runtime decides.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// gethostname(2).
    pub hostname: String,
    /// getdomainname(2).
    pub domainname: String,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Signals without a handler end the first process too.
    pub ordinary_init: bool,
    /// A shell outside can continue the first process's group.
    pub job_control: bool,
    /// Log every system call to standard error or this file.
    pub strace: bool,
    /// Every read and write comes here.
    pub no_posting: bool,
    /// Threads are granted reads and writes whether that pays or not: for tests.
    pub eager_posting: bool,
    /// The container's filter of system calls.
    pub seccomp: Option<Arc<crate::seccomp::Filter>>,
    /// Values of /proc/sys by dotted name that differ from Linux's defaults.
    pub sysctl: BTreeMap<String, String>,
    /// Lines of the first user namespace's /proc/PID/uid_map: first id inside, outside, length.
    pub uid_map: Vec<[u32; 3]>,
    /// The same of gid_map.
    pub gid_map: Vec<[u32; 3]>,
}

impl Default for KernelConfig {
    fn default() -> KernelConfig {
        KernelConfig {
            hostname: "sallet".into(),
            domainname: "(none)".into(),
            ordinary_init: false,
            job_control: false,
            cpus: 1,
            strace: false,
            no_posting: false,
            eager_posting: false,
            seccomp: None,
            sysctl: BTreeMap::new(),
            uid_map: vec![[0, 0, u32::MAX]],
            gid_map: vec![[0, 0, u32::MAX]],
        }
    }
}

impl KernelConfig {
    /// Whether calls of this number are to be seen in every process, or judged.
    pub fn sees(&self, number: u32) -> bool {
        self.strace || self.seccomp.as_ref().is_some_and(|filter| !filter.always_allows(number))
    }
}

/// Starts the task that runs a new guest thread; set once by `syscalls`.
pub type SpawnThread = fn(Arc<Thread>, GuestThread);
/// Opens a device node.
pub type OpenDevice = Arc<
    dyn Fn(&Arc<dyn Inode>, linux_abi::fs::OpenFlags, &mut dyn Caller) -> Result<Arc<dyn FileOps>>
        + Send
        + Sync,
>;
/// Called when a process has ended, before its parent is told (locks, semaphores).
pub type ExitHook = Arc<dyn Fn(&Arc<Process>) + Send + Sync>;

/// Ids in use.
#[derive(Default)]
pub struct Pids {
    threads: Mutex<BTreeMap<i32, Arc<Thread>>>,
    processes: Mutex<BTreeMap<i32, Arc<Process>>>,
    next: AtomicI32,
    /// Most tasks at once, zombies included; 0 is no limit.
    limit: AtomicUsize,
    /// Threads that ended and whose tracer, not their parent, has yet to wait for them.
    pub(crate) unreaped: AtomicUsize,
}

impl Pids {
    /// Allows at most so many tasks, as `pids.max` of a control group.
    pub fn set_limit(&self, limit: Option<u64>) {
        let limit = limit.map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX).max(1));
        self.limit.store(limit, Ordering::Relaxed);
    }
    /// The limit.
    pub fn limit(&self) -> Option<u64> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != 0).then_some(limit as u64)
    }
    /// A fresh id.
    pub fn allocate(&self) -> Result<i32> {
        let threads = self.threads.lock();
        let processes = self.processes.lock();
        let unreaped = self.unreaped.load(Ordering::Relaxed);
        if threads.len() + unreaped >= MAX_TASKS {
            return Err(Errno::EAGAIN);
        }
        let limit = self.limit.load(Ordering::Relaxed);
        if limit != 0 {
            // A task counts until it is reaped.
            let zombies = processes.keys().filter(|pid| !threads.contains_key(pid)).count();
            if threads.len() + zombies + unreaped >= limit {
                return Err(Errno::EAGAIN);
            }
        }
        for _ in 0..PID_MAX {
            let raw = self.next.fetch_add(1, Ordering::Relaxed);
            // As Linux: after a wrap, ids below 300 are left to early processes.
            let pid = if raw <= 0 || raw >= PID_MAX {
                self.next.store(300, Ordering::Relaxed);
                continue;
            } else {
                raw
            };
            // An id in use as process group or session must not be taken either.
            let used = threads.contains_key(&pid)
                || processes.contains_key(&pid)
                || processes.values().any(|p| {
                    let job = p.job();
                    (job.pgid == pid || job.sid == pid) && pid != p.pid()
                });
            if !used {
                return Ok(pid);
            }
        }
        Err(Errno::EAGAIN)
    }
    /// Makes a thread (and, if it is the leader, its process) known.
    pub fn add(&self, thread: &Arc<Thread>) {
        let process = thread.process();
        if thread.tid() == process.pid() {
            self.processes.lock().insert(process.pid(), process.clone());
        }
        self.threads.lock().insert(thread.tid(), thread.clone());
    }
    /// Forgets a thread.
    pub fn remove_thread(&self, tid: i32) {
        self.threads.lock().remove(&tid);
    }
    /// A thread has another id now.
    pub(crate) fn rename_thread(&self, old: i32, thread: &Arc<Thread>) {
        let mut threads = self.threads.lock();
        threads.remove(&old);
        threads.insert(thread.tid(), thread.clone());
    }
    /// Forgets a process (when it is reaped).
    pub fn remove_process(&self, pid: i32) {
        self.processes.lock().remove(&pid);
    }
    /// A live thread; `ESRCH`.
    pub fn thread(&self, tid: i32) -> Result<Arc<Thread>> {
        self.threads.lock().get(&tid).cloned().ok_or(Errno::ESRCH)
    }
    /// A process, alive or zombie; `ESRCH`.
    pub fn process(&self, pid: i32) -> Result<Arc<Process>> {
        self.processes.lock().get(&pid).cloned().ok_or(Errno::ESRCH)
    }
    /// All processes, zombies included, by id.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.processes.lock().values().cloned().collect()
    }
    /// The members of a process group.
    pub fn group(&self, pgid: i32) -> Vec<Arc<Process>> {
        self.processes.lock().values().filter(|p| p.job().pgid == pgid).cloned().collect()
    }
    /// How many threads live.
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }
    /// At least as many tasks as there are: live threads, and those that nobody has waited for.
    pub fn tasks_at_most(&self) -> usize {
        let threads = self.threads.lock().len();
        threads + self.processes.lock().len() + self.unreaped.load(Ordering::Relaxed)
    }
    /// How many tasks belong to a real user id, as RLIMIT_NPROC counts them: until they are reaped.
    pub fn owned_by(&self, uid: u32) -> usize {
        let threads: Vec<_> = self.threads.lock().values().cloned().collect();
        let processes = self.processes();
        let live = threads.iter().filter(|thread| thread.credentials().uid == uid).count();
        let zombie = |process: &Process| {
            let state = process.state.lock();
            state.zombie.is_some() && state.uid == uid
        };
        let zombies = processes.iter().filter(|process| zombie(process)).count();
        if self.unreaped.load(Ordering::Relaxed) == 0 {
            return live + zombies;
        }
        let of_tracer =
            |p: &Arc<Process>| p.tracing.lock().ends().iter().filter(|(.., owner)| *owner == uid).count();
        live + zombies + processes.iter().map(of_tracer).sum::<usize>()
    }
    /// The last id given.
    pub fn last(&self) -> i32 {
        self.next.load(Ordering::Relaxed) - 1
    }
}

/// Host and domain name: uname(2).
#[derive(Clone, Debug)]
pub struct UtsName {
    /// `nodename`.
    pub hostname: Vec<u8>,
    /// `domainname`.
    pub domainname: Vec<u8>,
}

/// Numbers that are counted: all that there are, and some.
const CALL_NUMBERS: u32 = 512;

/// The kernel of one sandbox.
pub struct Kernel {
    /// Guest processes as a machine.
    pub platform: Arc<Platform>,
    /// What the runtime decided.
    pub config: KernelConfig,
    /// Threads and processes by id.
    pub pids: Pids,
    /// Host name.
    pub uts: RwLock<UtsName>,
    /// When the sandbox started, CLOCK_MONOTONIC nanoseconds.
    pub boot_ns: u64,
    /// Woken at every signal sent: signalfd(2) readers look again.
    pub signal_queue: Arc<WaitQueue>,
    /// Char and block devices by (is_block, number).
    devices: RwLock<BTreeMap<(bool, u64), OpenDevice>>,
    pub(crate) cgroup_limits: RwLock<crate::cgroup_limits::CgroupLimits>,
    pub(crate) memory_sources: crate::memory::MemorySources,
    exit_hooks: RwLock<Arc<Vec<ExitHook>>>,
    spawn_thread: SpawnThread,
    /// Calls and flags that were asked for and are missing: each logged once.
    missing: Mutex<BTreeMap<String, u64>>,
    init_status: Mutex<Option<ExitStatus>>,
    /// Woken when init has ended.
    pub init_queue: Arc<WaitQueue>,
    /// System V IPC of the first namespace.
    pub ipc: Arc<crate::ipc::IpcNamespace>,
    /// Priority-inheritance futexes.
    pub pi_futexes: crate::pi_futex::PiFutexes,
    /// What open files of the sandbox share.
    pub io: crate::io_tables::IoTables,
    /// Who may read and write without an answer.
    pub posting: crate::posting::PostingTable,
    /// What shims know of paths.
    pub names: crate::names::NameTable,
    /// How often each system call was handled, by number.
    pub calls: CallCounts,
    pub(crate) find_process: std::sync::OnceLock<crate::pidfd::FindProcess>,
    pub(crate) find_terminal: std::sync::OnceLock<crate::terminal::FindTerminal>,
    /// Made processes and context switches, for /proc/stat.
    pub forks: AtomicU64,
    /// Number of the next login (/proc/PID/sessionid).
    pub logins: AtomicU32,
}

/// Counters by number of a system call.
pub struct CallCounts(Box<[AtomicU64]>);

impl Default for CallCounts {
    fn default() -> CallCounts {
        CallCounts((0..CALL_NUMBERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl CallCounts {
    /// One more.
    pub fn count(&self, number: u32) {
        if let Some(counter) = self.0.get(number as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
    /// Those that were made at all, with how often.
    pub fn list(&self) -> impl Iterator<Item = (u32, u64)> {
        (0..)
            .zip(&self.0)
            .map(|(number, count)| (number, count.load(Ordering::Relaxed)))
            .filter(|one| one.1 > 0)
    }
}

impl Kernel {
    /// A kernel over a platform. `spawn_thread` is `syscalls::spawn`.
    pub fn new(
        platform: Arc<Platform>,
        config: KernelConfig,
        memory_sources: crate::memory::MemorySources,
        spawn_thread: SpawnThread,
    ) -> Arc<Kernel> {
        let uts = UtsName {
            hostname: config.hostname.clone().into_bytes(),
            domainname: config.domainname.clone().into_bytes(),
        };
        let pids = Pids::default();
        pids.next.store(1, Ordering::Relaxed);
        let told = platform.clone();
        vfs::shown::on_change(Box::new(move || told.files_changed()));
        let told = platform.clone();
        vfs::names::on_change(Box::new(move |buckets| told.names_changed(buckets)));
        Arc::new(Kernel {
            platform,
            config,
            pids,
            uts: RwLock::new(uts),
            boot_ns: executor::monotonic_ns(),
            signal_queue: Arc::new(WaitQueue::new()),
            devices: RwLock::default(),
            cgroup_limits: RwLock::default(),
            memory_sources,
            exit_hooks: RwLock::default(),
            spawn_thread,
            missing: Mutex::default(),
            init_status: Mutex::new(None),
            init_queue: Arc::new(WaitQueue::new()),
            ipc: Arc::default(),
            pi_futexes: crate::pi_futex::PiFutexes::default(),
            io: crate::io_tables::IoTables::default(),
            posting: crate::posting::PostingTable::default(),
            names: crate::names::NameTable::default(),
            calls: CallCounts::default(),
            find_process: std::sync::OnceLock::new(),
            find_terminal: std::sync::OnceLock::new(),
            forks: AtomicU64::new(0),
            logins: AtomicU32::new(1),
        })
    }

    /// Makes a thread known and starts its task.
    pub fn start_thread(&self, thread: Arc<Thread>, guest: GuestThread) {
        (self.spawn_thread)(thread, guest);
    }

    /// Registers how a device opens.
    pub fn register_device(&self, block: bool, rdev: u64, open: OpenDevice) {
        self.devices.write().insert((block, rdev), open);
    }
    /// How a device opens; `ENXIO`.
    pub fn device(&self, block: bool, rdev: u64) -> Result<OpenDevice> {
        self.devices.read().get(&(block, rdev)).cloned().ok_or(Errno::ENXIO)
    }
    /// Adds something to do when a process ends.
    pub fn on_process_exit(&self, hook: ExitHook) {
        let mut hooks = self.exit_hooks.write();
        let mut all = hooks.as_ref().clone();
        all.push(hook);
        *hooks = Arc::new(all);
    }
    pub(crate) fn exit_hooks(&self) -> Arc<Vec<ExitHook>> {
        self.exit_hooks.read().clone()
    }

    /// Notes a missing call or flag; logs the first time.
    pub fn note_missing(&self, what: &str) {
        let mut missing = self.missing.lock();
        // Bounded: flags come from the guest.
        if missing.len() >= 4096 && !missing.contains_key(what) {
            return;
        }
        let count = missing.entry(what.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 {
            tracing::warn!("not implemented: {what}");
        }
    }
    /// What was asked for and is missing, with how often.
    pub fn missing(&self) -> Vec<(String, u64)> {
        self.missing.lock().iter().map(|(k, v)| (k.clone(), *v)).collect()
    }

    /// Gives the children of an ended process to its nearest subreaper, or to init.
    pub fn reparent_children(&self, process: &Arc<Process>) {
        let orphans = std::mem::take(&mut *process.children.lock());
        if orphans.is_empty() {
            return;
        }
        let mut reaper = process.parent();
        while let Some(candidate) = &reaper {
            if candidate.child_subreaper.load(Ordering::Relaxed) && !candidate.is_zombie() {
                break;
            }
            reaper = candidate.parent();
        }
        let reaper = reaper.or_else(|| self.pids.process(1).ok()).filter(|r| r.pid() != process.pid());
        for (pid, orphan) in orphans {
            let threads: Vec<_> = orphan.threads.lock().values().cloned().collect();
            for thread in threads {
                let sig = thread.parent_death_signal.load(Ordering::Relaxed);
                if let Some(sig) = linux_abi::signal::Signo::new(sig) {
                    let info = linux_abi::signal::SigInfo::from_user(sig, 0, process.pid(), 0);
                    let _ = orphan.send_signal(info);
                }
            }
            match &reaper {
                Some(reaper) => {
                    orphan.set_parent(Some(reaper));
                    let zombie = orphan.is_zombie();
                    reaper.children.lock().insert(pid, orphan);
                    if zombie {
                        let _ = reaper.send_signal(linux_abi::signal::SigInfo::child(1, pid, 0, 0, 0, 0));
                        reaper.child_queue.wake(Events::IN);
                    }
                }
                None => {
                    orphan.set_parent(None);
                    if orphan.is_zombie() {
                        self.pids.remove_process(pid);
                    }
                }
            }
        }
    }

    /// Init has ended: the sandbox ends, all other processes with it.
    pub(crate) fn init_exited(&self, process: &Process, status: ExitStatus) {
        if process.pid() != 1 {
            return;
        }
        for other in self.pids.processes() {
            if other.pid() != 1 {
                other.kill_now(ExitStatus::Signaled {
                    signal: linux_abi::signal::Signo::SIGKILL,
                    core: false,
                });
            }
        }
        *self.init_status.lock() = Some(status);
        self.init_queue.wake(Events::all());
    }
    /// How init ended, once it has.
    pub fn init_status(&self) -> Option<ExitStatus> {
        *self.init_status.lock()
    }
}
