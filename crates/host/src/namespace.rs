//! Starting one program in new namespaces: clone3(2), then execveat(2).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Namespaces the new program gets for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewNamespaces {
    /// `CLONE_NEWUSER`
    pub user: bool,
    /// `CLONE_NEWNET`
    pub net: bool,
    /// Become user and group 0 of the new user namespace, where the caller's
    /// own ids are not mapped to them.
    pub take_root: bool,
}

/// A program to start by [`spawn`].
#[derive(Debug)]
pub struct Program<'a> {
    /// The executable file.
    pub executable: BorrowedFd<'a>,
    /// Its arguments.
    pub args: &'a [CString],
    /// Its environment.
    pub env: &'a [CString],
    /// Becomes descriptor 3; 0, 1 and 2 are the caller's, all others close.
    pub channel: BorrowedFd<'a>,
    /// `tasks` files of version 1 control groups, open for writing: the child
    /// moves itself. A process that another one moves costs the host a wait
    /// for all CPUs (20 ms), a thread that moves itself does not.
    pub tasks_files: &'a [BorrowedFd<'a>],
    /// Directory of a version 2 control group to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A child of [`spawn`] that has not run its program yet.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id as the caller sees it.
    pub pid: i32,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    go: OwnedFd,
    error: OwnedFd,
}

/// Clones the caller into new PID, mount, IPC and UTS namespaces and those
/// asked for. The child waits for [`Spawned::go`] before it executes the
/// program, so that the caller can write its id maps and move it to cgroups.
///
/// No other thread of the caller may run meanwhile: the child runs on with a
/// copy of its memory until it executes the program. See clone(2).
pub fn spawn(program: &Program<'_>, namespaces: NewNamespaces) -> io::Result<Spawned> {
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (error_read, error_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut argv: Vec<*const libc::c_char> = program.args.iter().map(|s| s.as_ptr()).collect();
    argv.push(ptr::null());
    let mut envp: Vec<*const libc::c_char> = program.env.iter().map(|s| s.as_ptr()).collect();
    envp.push(ptr::null());

    let mut more_flags = 0;
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if namespaces.user {
        flags |= libc::CLONE_NEWUSER;
    }
    if namespaces.net {
        flags |= libc::CLONE_NEWNET;
    }
    let tasks_files: Vec<RawFd> = program.tasks_files.iter().map(AsRawFd::as_raw_fd).collect();
    if program.cgroup.is_some() {
        more_flags |= CLONE_INTO_CGROUP;
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: (flags | libc::CLONE_PIDFD) as u64 | more_flags,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: program.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the size given, and without
    // CLONE_VM the child has its own copy of everything it touches.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let step = ChildStep {
            go: go_read.as_raw_fd(),
            go_writer: go_write.as_raw_fd(),
            error: error_write.as_raw_fd(),
            channel: program.channel.as_raw_fd(),
            tasks_files: &tasks_files,
            take_root: namespaces.take_root,
            executable: program.executable.as_raw_fd(),
        };
        // SAFETY: the child makes system calls alone, so that no lock of
        // another thread matters; argv and envp are null-terminated arrays of C strings that outlive the call.
        unsafe { child(&step, argv.as_ptr(), envp.as_ptr()) }
    }
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so this is a descriptor that
    // nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid: pid as i32, pidfd, go: go_write, error: error_read })
}

impl Spawned {
    /// Lets the child execute its program, and waits until it has.
    pub fn go(self) -> io::Result<(i32, OwnedFd)> {
        rustix::io::write(&self.go, &[1])?;
        let mut errno = [0u8; 4];
        let mut error = File::from(self.error);
        match error.read(&mut errno)? {
            0 => Ok((self.pid, self.pidfd)),
            _ => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        }
    }
}

/// Flag of clone3(2) only.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// `struct clone_args` of linux/sched.h, with the fields of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

struct ChildStep<'a> {
    take_root: bool,
    tasks_files: &'a [RawFd],
    go: RawFd,
    go_writer: RawFd,
    error: RawFd,
    channel: RawFd,
    executable: RawFd,
}

/// The child between clone3 and execveat: only system calls.
///
/// # Safety
/// Must run in a freshly cloned child; `argv` and `envp` must be valid for
/// execveat(2).
unsafe fn child(
    step: &ChildStep<'_>,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> ! {
    // SAFETY: plain system calls on descriptors the child holds copies of; the
    // pointers are valid as the caller promises.
    unsafe {
        libc::close(step.go_writer);
        let mut byte = 0u8;
        // End of file means that the parent died or gave up.
        if libc::read(step.go, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(1);
        }
        // Out of the way of descriptor 3 first.
        let error = libc::fcntl(step.error, libc::F_DUPFD_CLOEXEC, 10);
        let executable = libc::fcntl(step.executable, libc::F_DUPFD_CLOEXEC, 10);
        let mut failed = error < 0 || executable < 0;
        for tasks in step.tasks_files {
            failed |= libc::write(*tasks, c"0".as_ptr().cast(), 1) != 1;
        }
        if step.channel == 3 {
            failed |= libc::fcntl(3, libc::F_SETFD, 0) < 0;
        } else {
            failed |= libc::dup2(step.channel, 3) < 0;
        }
        if step.take_root {
            failed |= libc::setgroups(0, ptr::null()) < 0
                || libc::setresgid(0, 0, 0) < 0
                || libc::setresuid(0, 0, 0) < 0;
        }
        failed |= libc::syscall(libc::SYS_close_range, 4u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0;
        // A handler or mask of the caller's must not reach the program.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        if !failed {
            let empty: &CStr = c"";
            libc::syscall(libc::SYS_execveat, executable, empty.as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
        }
        let errno = *libc::__errno_location();
        libc::write(error, (&raw const errno).cast(), 4);
        libc::_exit(1)
    }
}

/// What [`fork`] returned.
#[derive(Debug)]
pub enum Fork {
    /// In the child.
    Child,
    /// In the parent, with the child's process id.
    Parent(i32),
}

/// fork(2) for a process with one thread; refuses when there are more, since
/// the child would inherit their locks.
pub fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("fork in a process with several threads"));
    }
    // SAFETY: the process has one thread, so the child's copy is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Moves the calling process into new namespaces of its own; with `user`, one
/// where it holds all capabilities. One thread only. See unshare(2).
pub fn unshare_mounts(user: bool) -> io::Result<()> {
    let mut flags = libc::CLONE_NEWNS;
    if user {
        flags |= libc::CLONE_NEWUSER;
    }
    // SAFETY: takes flags only; fails in a process with several threads.
    if unsafe { libc::unshare(flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes the id maps of a process: `maps` holds lines as in user_namespaces(7).
pub fn write_id_maps(pid: i32, uid_map: &str, gid_map: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/uid_map"), uid_map)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), gid_map)
}

/// Moves the calling thread into the network namespace behind a descriptor.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )?;
    Ok(())
}
/// The procfs that was set, and the line of an id map (user_namespaces(7)) that makes our own id 0 in a new user
/// namespace; none where id 0 of ours is mapped.
pub(crate) fn map_for_root() -> Option<(&'static std::os::fd::OwnedFd, String)> {
    let directory = crate::proc_fs::root()?;
    let map = crate::proc_fs::read("self/uid_map").ok()?;
    let has_root = map.lines().any(|line| line.split_whitespace().next() == Some("0"));
    (!has_root).then(|| (directory, format!("0 {} 1\n", rustix::process::geteuid().as_raw())))
}

/// The user namespace whose capabilities count in a namespace: ioctl_ns(2). `EPERM` for one that is outside of ours.
pub fn owner(namespace: impl AsFd) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: takes no argument; fails on what is no namespace.
    match unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a fresh descriptor that nobody else owns.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}
