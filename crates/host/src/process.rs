//! Other processes: their memory, signals to their threads, starting a program from a descriptor.

use rustix::thread::CapabilitySet;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_abi::Errno;

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Reads another process's memory: process_vm_readv(2). The bytes before a fault; `EFAULT`, `ESRCH`, `EPERM`.
pub fn read_memory(pid: i32, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: buf.len() };
    // SAFETY: the local vector is our buffer; the remote one is checked by the host.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// Writes another process's memory: process_vm_writev(2), as `read_memory`.
pub fn write_memory(pid: i32, addr: u64, buf: &[u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: buf.len() };
    // SAFETY: the local vector is only read; the remote one is checked by the host.
    let n = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(n).map_err(|_| last_errno())
}

/// tgkill(2); signal 0 asks whether the thread is of the process.
pub fn signal_thread(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let ret = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    if ret == 0 { Ok(()) } else { Err(last_errno()) }
}

/// A limit of a process: soft, then hard. prlimit(2), `RLIM_INFINITY` being `u64::MAX`.
pub fn limit(pid: i32, resource: u32) -> Result<(u64, u64), Errno> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the host writes one structure, which outlives the call.
    let ret = unsafe { libc::prlimit64(pid, resource, std::ptr::null(), &raw mut old) };
    if ret == 0 { Ok((old.rlim_cur, old.rlim_max)) } else { Err(last_errno()) }
}

/// Sets a limit of a process: prlimit(2); `EPERM`, `ESRCH`.
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the host reads one structure, which outlives the call.
    let ret = unsafe { libc::prlimit64(pid, resource, &raw const new, std::ptr::null_mut()) };
    if ret == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets where the calling thread, and whom it starts, gets memory from: set_mempolicy(2). `mode` holds the flags.
pub fn set_memory_policy(mode: u32, nodes: &[u16]) -> std::io::Result<()> {
    let mut mask = [0u64; 16];
    for node in nodes {
        if let Some(word) = mask.get_mut(usize::from(*node) / 64) {
            *word |= 1 << (node % 64);
        }
    }
    // The kernel reads one bit less than it is told.
    let (pointer, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), 1024 + 1) };
    // SAFETY: the mask is of at least the length given, or absent.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// ioprio_set(2) for one process: class and level of its input and output.
pub fn set_io_priority(pid: i32, priority: u32) -> std::io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes numbers only.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, priority) };
    if ret == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Starts the program behind `image` with `fds` at descriptors 3, 4 and so on, nothing else open, an empty
/// environment. Returns its process id. (A stub dies with its listener, so no PDEATHSIG is needed.)
///
/// The files of a non-dumpable process in proc(5) belong to id 0 of its user namespace. Where that is nobody's, as
/// for an ordinary user, the program gets a user namespace in which it is ours, or the call sites of such a process
/// could not be patched. The host may refuse that.
pub fn spawn_image(image: BorrowedFd<'_>, name: &CStr, fds: &[BorrowedFd<'_>]) -> Result<i32, Errno> {
    let map = crate::namespace::map_for_root();
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // Above all targets, so that no dup2 overwrites a source.
    let base = 64;
    // SAFETY: between fork and execveat the child makes only async-signal-safe calls on memory made before.
    unsafe {
        let pid = libc::fork();
        if pid != 0 {
            return if pid > 0 { Ok(pid) } else { Err(last_errno()) };
        }
        if let Some((directory, line)) = &map
            && libc::unshare(libc::CLONE_NEWUSER) == 0
        {
            // Until it is executed its files are ours then.
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            let file = libc::openat(
                directory.as_raw_fd(),
                c"self/uid_map".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            let mapped = libc::write(file, line.as_ptr().cast(), line.len()) > 0;
            if !mapped || crate::caps::limit_to(CapabilitySet::empty()).is_err() {
                libc::_exit(126);
            }
        }
        let mut raw = [0i32; 8];
        for (slot, fd) in raw.iter_mut().zip(fds) {
            *slot = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, base);
        }
        let image = libc::fcntl(image.as_raw_fd(), libc::F_DUPFD, base + 16);
        for (target, fd) in (3..).zip(raw.iter().take(fds.len())) {
            libc::dup2(*fd, target);
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for target in 0..3 {
            if null >= 0 {
                libc::dup2(null, target);
            } else {
                libc::close(target);
            }
        }
        let first = 3 + fds.len() as libc::c_uint;
        libc::syscall(libc::SYS_close_range, first, image as libc::c_uint - 1, 0);
        libc::syscall(libc::SYS_close_range, image as libc::c_uint + 1, libc::c_uint::MAX, 0);
        libc::fcntl(image, libc::F_SETFD, libc::FD_CLOEXEC);
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::syscall(
            libc::SYS_execveat,
            image,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        libc::_exit(126)
    }
}

/// pidfd_getfd(2): takes a copy of another process's descriptor.
pub fn take_fd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the result is a new descriptor of ours.
    unsafe {
        let ret = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0);
        if ret >= 0 { Ok(OwnedFd::from_raw_fd(ret as i32)) } else { Err(last_errno()) }
    }
}

/// The auxiliary vector entry of our own process: getauxval(3).
pub fn auxiliary(key: u64) -> u64 {
    // SAFETY: reads our own vector.
    unsafe { libc::getauxval(key) }
}

/// Waits until any child has ended, without reaping it; its process id. `ECHILD`, `EINTR`.
pub fn wait_any() -> Result<i32, Errno> {
    // SAFETY: siginfo is plain data that the host fills in.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        let ret = libc::waitid(libc::P_ALL, 0, &raw mut info, flags);
        if ret == 0 { Ok(info.si_pid()) } else { Err(last_errno()) }
    }
}

/// Reaps an ended child; its status word, as wait(2). `EAGAIN` if it has not ended: who was reaped may have had its id.
pub fn reap(pid: i32) -> Result<i32, Errno> {
    // SAFETY: the status word is ours.
    unsafe {
        let mut status = 0;
        match libc::wait4(pid, &raw mut status, libc::WNOHANG, std::ptr::null_mut()) {
            0 => Err(Errno::EAGAIN),
            ended if ended > 0 => Ok(status),
            _ => Err(last_errno()),
        }
    }
}

/// How often this thread was taken off its CPU for another: getrusage(2).
pub fn involuntary_switches() -> i64 {
    // SAFETY: rusage is plain data that the host fills in.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw
    }
}

/// Gives the host back what is in memory of the program's own code and constants: starting takes most of it, going on
/// little, and that comes again from the file. What was relocated stays.
pub fn forget_program() {
    unsafe extern "C" {
        /// Where the program begins, and where its code ends: both by the linker.
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize / PAGE * PAGE);
    if let Some(len) = end.checked_sub(start).filter(|_| start.is_multiple_of(PAGE)) {
        // SAFETY: the read-only segments of the program, which are mapped from its file and never written: the same
        // bytes are read again.
        unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}
