//! From a process specification to a guest process.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use control::ProcessSpec;
use identity::{CapabilitySet, Credentials};
use kernel::limits::Limits;
use kernel::process::Job;
use kernel::scheduling::Policy;
use kernel::signal::Actions;
use kernel::thread::ThreadParts;
use kernel::{FdFlags, FdTable, FsContext, Kernel, Process, Thread};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR};
use linux_abi::process::Rlimit;
use linux_abi::signal::SigSet;
use platform::GuestThread;
use vfs::ops::open::{Opened, open};
use vfs::{AnonInode, Caller, Place, SetAttr, WalkFlags, Walker};

use crate::sandbox::{SandboxError, words};
use crate::streams::Streams;

/// Acts for a process that does not run yet.
pub(crate) struct Booter {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) pid: i32,
}

impl Booter {
    /// With every right, as the runtime that prepares a root file system.
    pub(crate) fn root() -> Booter {
        Booter { credentials: Arc::new(Credentials::root()), pid: 0 }
    }
}

impl Caller for Booter {
    fn credentials(&self) -> &Credentials {
        &self.credentials
    }
    fn pid(&self) -> i32 {
        self.pid
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn Any {
        &self.pid
    }
}

/// A process whose program is loaded but does not run yet.
pub(crate) struct Ready {
    pub(crate) thread: Arc<Thread>,
    guest: GuestThread,
}

impl Ready {
    /// Lets it run; its process id.
    pub(crate) fn start(mut self) -> i32 {
        let pid = self.thread.tid();
        let nice = self.thread.scheduling.lock().nice;
        if nice != 0
            && let Some(host) = rustix::process::Pid::from_raw(self.guest.handle().host_tid())
            && let Err(error) = rustix::process::setpriority_process(Some(host), nice)
        {
            // As with the guest's own setpriority(2): the wish is kept.
            tracing::debug!(%error, nice, "the host does not let us set the nice value");
        }
        self.guest.resume_regs();
        self.thread.kernel().start_thread(self.thread.clone(), self.guest);
        pid
    }
}

/// Loads the program of a specification as a new process; errors are in runc's words.
pub(crate) fn prepare(
    kernel: &Arc<Kernel>,
    root: &Place,
    spec: &ProcessSpec,
    streams: Streams,
) -> Result<Ready, SandboxError> {
    let program = spec.args.first().cloned().unwrap_or_default();
    let internal = |errno: Errno| SandboxError::exec_failed(&program, &words(errno));
    let credentials = Arc::new(credentials(spec));
    let cwd = working_directory(root, &spec.cwd, &credentials)
        .map_err(|errno| SandboxError::no_directory(&spec.cwd, errno))?;
    kernel.names.set_root(root);
    let fs = FsContext::new(root.clone(), cwd, spec.umask.unwrap_or(0o022));
    let table = FdTable::new();
    if let Some(terminal) = &streams.terminal {
        terminal.set_opener(spec.uid);
    }
    for file in streams.files {
        // Its own streams can be opened again, as /dev/stderr, by a user other than root too.
        if file.inode().as_any().is::<AnonInode>() {
            let owner = SetAttr { uid: Some(spec.uid), gid: Some(spec.gid), ..SetAttr::default() };
            file.inode().set_attributes(&owner).map_err(internal)?;
        }
        table.insert(file, FdFlags::default(), 0, u64::MAX).map_err(internal)?;
    }
    let pid = kernel.pids.allocate().map_err(internal)?;
    let mut caller = Booter { credentials: credentials.clone(), pid };
    let bytes = |list: &[OsString]| list.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>();
    let path = find_program(&fs, &mut caller, spec)?;
    let loaded = executor::block_on(syscalls::exec::load_first(
        kernel,
        &fs,
        &mut caller,
        &path,
        bytes(&spec.args),
        bytes(&spec.env),
        &limits(spec),
    ));
    let loaded = loaded.map_err(|errno| {
        // The program is there: what fails may be what it needs.
        match syscalls::exec::failing_interpreter(&fs, &mut caller, &path) {
            Some(name) => {
                let name = String::from_utf8_lossy(&name);
                SandboxError::exec_failed(&program, &format!("{} (its interpreter {name:?})", words(errno)))
            }
            None => internal(errno),
        }
    })?;

    let job = Job { pgid: pid, sid: pid };
    if let Some(terminal) = &streams.terminal {
        terminal.control(pid, pid).map_err(internal)?;
    }
    let process = Process::new(pid, kernel.clone(), None, job, limits(spec), Arc::new(Actions::default()));
    process.set_executing(Some(loaded.executing));
    if let Some(adj) = spec.oom_score_adj {
        process.oom_score_adj.store(adj, std::sync::atomic::Ordering::Relaxed);
        process.oom_score_adj_min.store(adj, std::sync::atomic::Ordering::Relaxed);
    }
    let thread = Thread::new(
        pid,
        process.clone(),
        ThreadParts {
            files: table,
            fs,
            credentials: loaded.credentials,
            mm: Arc::new(loaded.mm),
            ipc: kernel::ipc::ThreadIpc::new(kernel.ipc.clone(), pid),
            comm: [0; 16],
            seccomp: kernel::guest_filter::Mode::Disabled,
            mask: SigSet::EMPTY,
        },
    );
    thread.set_comm(&loaded.comm);
    schedule(&thread, spec);
    process.threads.lock().insert(pid, thread.clone());
    kernel.pids.add(&thread);
    Ok(Ready { thread, guest: loaded.guest })
}

/// Wishes for the host's scheduler, as the guest's own calls leave them.
fn schedule(thread: &Thread, spec: &ProcessSpec) {
    let mut wishes = thread.scheduling.lock();
    if let Some(scheduler) = spec.scheduler {
        wishes.policy = Policy::from_raw(scheduler.policy).unwrap_or_default();
        wishes.nice = scheduler.nice;
        wishes.reset_on_fork = scheduler.reset_on_fork;
    }
    if let Some(priority) = spec.io_priority {
        wishes.io_priority = priority;
    }
}

fn credentials(spec: &ProcessSpec) -> Credentials {
    let (uid, gid) = (spec.uid, spec.gid);
    let set = |bits: u64| CapabilitySet(bits).and(CapabilitySet::FULL);
    let mut groups = spec.additional_gids.clone();
    groups.sort_unstable();
    Credentials {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups,
        effective: set(spec.capabilities.effective),
        permitted: set(spec.capabilities.permitted),
        inheritable: set(spec.capabilities.inheritable),
        bounding: set(spec.capabilities.bounding),
        ambient: set(spec.capabilities.ambient),
        no_new_privs: spec.no_new_privileges,
        ..Credentials::root()
    }
}

fn limits(spec: &ProcessSpec) -> Limits {
    let mut limits = Limits::default();
    for limit in &spec.rlimits {
        if let Some(slot) = limits.0.get_mut(limit.resource as usize) {
            *slot = Rlimit { cur: limit.soft, max: limit.hard };
        }
    }
    limits
}

/// The working directory: entered by root, as runc does, else with the process's own rights.
fn working_directory(root: &Place, cwd: &OsStr, credentials: &Arc<Credentials>) -> Result<Place, Errno> {
    let cwd = if cwd.is_empty() { b"/" } else { cwd.as_bytes() };
    let enter = |mut caller: Booter| {
        let flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
        Walker::new(root.clone(), root.clone(), &mut caller, flags).resolve(cwd)
    };
    match enter(Booter::root()) {
        Err(Errno::EACCES) => enter(Booter { credentials: credentials.clone(), pid: 0 }),
        entered => entered,
    }
}

/// Looks the program up in the `PATH` of its environment.
fn find_program(fs: &FsContext, caller: &mut Booter, spec: &ProcessSpec) -> Result<Vec<u8>, SandboxError> {
    let Some(program) = spec.args.first().map(OsString::as_os_str) else {
        let reason = "no program to run: the list of arguments is empty";
        return Err(SandboxError::exec_failed(OsStr::new(""), reason));
    };
    if program.is_empty() {
        return Err(SandboxError::not_found(program, Errno::ENOENT));
    }
    let name = program.as_bytes();
    if name.contains(&b'/') {
        return match look(fs, caller, name) {
            Ok(()) => Ok(name.to_owned()),
            Err(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => Err(SandboxError::not_found(program, errno)),
            Err(_) => Err(SandboxError::not_executable(program)),
        };
    }
    let path = spec.env.iter().rev().find_map(|v| v.as_bytes().strip_prefix(b"PATH="));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = false;
    for dir in path.split(|byte| *byte == b':') {
        let candidate = [if dir.is_empty() { b"." } else { dir }, name].join(&b'/');
        match look(fs, caller, &candidate) {
            Ok(()) => return Ok(candidate),
            // A folder that may not be searched is not known to hold it.
            Err(Errno::EACCES) => denied |= reach(fs, caller, &candidate).is_ok(),
            Err(_) => {}
        }
    }
    Err(if denied {
        SandboxError::not_executable(program)
    } else {
        SandboxError::not_found(program, Errno::ENOENT)
    })
}

/// What a path names, whatever it is.
fn reach(fs: &FsContext, caller: &mut Booter, path: &[u8]) -> Result<Place, Errno> {
    let mut walker = Walker::new(fs.root(), fs.cwd(), caller, WalkFlags::FOLLOW);
    Ok(match open(&mut walker, path, OpenFlags::PATH, 0)? {
        Opened::File(file) => file.place().clone(),
        Opened::Special { place, .. } => place,
    })
}

/// Whether a path is a file that may be executed.
fn look(fs: &FsContext, caller: &mut Booter, path: &[u8]) -> Result<(), Errno> {
    let place = reach(fs, caller, path)?;
    let inode = place.dentry.inode().ok_or(Errno::ENOENT)?;
    let meta = inode.metadata()?;
    if meta.kind() == S_IFDIR || meta.mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    vfs::permission::check_file(&caller.credentials, &*inode, &meta, vfs::permission::EXEC)
}
