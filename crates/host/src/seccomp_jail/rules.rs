//! Which host calls the kernel process may make, and why.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
    CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM, PROT_EXEC,
};

/// One allowed call.
#[derive(Debug)]
pub struct Rule {
    /// `SYS_*` number.
    pub number: i64,
    /// All must hold.
    pub checks: &'static [Check],
}

/// A condition on one argument (0 to 5), read as a C int.
#[derive(Debug)]
pub enum Check {
    /// The call answers ENOSYS.
    Missing,
    /// Equal to a value.
    Equals(u8, u32),
    /// Equal to one of some values.
    OneOf(u8, &'static [u32]),
    /// None of these bits.
    Without(u8, u32),
    /// All of these bits.
    With(u8, u32),
    /// Greater than 0 as a signed number.
    Positive(u8),
}

const fn any(number: i64) -> Rule {
    Rule { number, checks: &[] }
}

const fn checked(number: i64, checks: &'static [Check]) -> Rule {
    Rule { number, checks }
}

const NEW_NAMESPACES: u32 = (CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNS
    | CLONE_NEWNET
    | CLONE_NEWIPC
    | CLONE_NEWUTS
    | CLONE_NEWCGROUP) as u32;

/// No unix sockets: abstract names reach programs of the host where its network
/// namespace is shared.
const FAMILIES: [u32; 3] = [AF_INET as u32, AF_INET6 as u32, AF_NETLINK as u32];

/// The list, by subject; frequent calls stand first.
pub const RULES: &[Rule] = &[
    // Wake-ups between workers, and of stubs over shared memory.
    any(libc::SYS_futex),
    // Answers to seccomp notifications; terminal and socket settings.
    any(libc::SYS_ioctl),
    // Host files, pipes, sockets, timers and event descriptors.
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_close),
    any(libc::SYS_close_range),
    any(libc::SYS_dup),
    any(libc::SYS_dup2),
    any(libc::SYS_dup3),
    any(libc::SYS_fcntl),
    any(libc::SYS_lseek),
    any(libc::SYS_pipe2),
    // Guest memory that did not travel in a slot.
    any(libc::SYS_process_vm_readv),
    any(libc::SYS_process_vm_writev),
    // The driver thread's waiting.
    any(libc::SYS_epoll_wait),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_pwait2),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_create1),
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    any(libc::SYS_eventfd2),
    any(libc::SYS_signalfd4),
    any(libc::SYS_timerfd_create),
    any(libc::SYS_timerfd_settime),
    any(libc::SYS_timerfd_gettime),
    // Time: the vDSO falls back to these on odd clock sources.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_clock_getres),
    any(libc::SYS_gettimeofday),
    any(libc::SYS_clock_nanosleep),
    any(libc::SYS_nanosleep),
    // Its own memory: never executable.
    checked(libc::SYS_mmap, &[Check::Without(2, PROT_EXEC as u32)]),
    checked(libc::SYS_mprotect, &[Check::Without(2, PROT_EXEC as u32)]),
    any(libc::SYS_munmap),
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
    any(libc::SYS_brk),
    any(libc::SYS_membarrier),
    any(libc::SYS_mincore),
    any(libc::SYS_msync),
    any(libc::SYS_mlock),
    // Threads of its own, in the namespaces it has; no processes.
    checked(
        libc::SYS_clone,
        &[
            Check::With(0, (CLONE_THREAD | CLONE_VM | CLONE_SIGHAND) as u32),
            Check::Without(0, NEW_NAMESPACES),
        ],
    ),
    // Its flags lie in memory, out of a filter's sight: clone serves instead.
    checked(libc::SYS_clone3, &[Check::Missing]),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    any(libc::SYS_set_tid_address),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    any(libc::SYS_sched_yield),
    any(libc::SYS_sched_setaffinity),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_getcpu),
    // Names of threads.
    checked(libc::SYS_prctl, &[Check::OneOf(0, &[libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32])]),
    // Its own signals, and a stub or thread interrupted or ended: one by one.
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_restart_syscall),
    checked(libc::SYS_kill, &[Check::Positive(0)]),
    checked(libc::SYS_tgkill, &[Check::Positive(0), Check::Positive(1)]),
    any(libc::SYS_rt_tgsigqueueinfo),
    any(libc::SYS_pidfd_open),
    any(libc::SYS_pidfd_send_signal),
    any(libc::SYS_pidfd_getfd),
    // Death of stubs.
    any(libc::SYS_wait4),
    any(libc::SYS_waitid),
    // Limits, times and priorities of stubs.
    any(libc::SYS_prlimit64),
    any(libc::SYS_getrusage),
    any(libc::SYS_times),
    any(libc::SYS_setpriority),
    any(libc::SYS_getpriority),
    any(libc::SYS_sched_setscheduler),
    any(libc::SYS_sched_getscheduler),
    any(libc::SYS_sched_getparam),
    // Who it is itself.
    any(libc::SYS_getpid),
    any(libc::SYS_gettid),
    any(libc::SYS_getppid),
    any(libc::SYS_getuid),
    any(libc::SYS_geteuid),
    any(libc::SYS_getgid),
    any(libc::SYS_getegid),
    any(libc::SYS_uname),
    any(libc::SYS_sysinfo),
    // Randomness for guests and for hash tables.
    any(libc::SYS_getrandom),
    // Files below the mounts it was handed; its root is empty.
    any(libc::SYS_openat),
    any(libc::SYS_openat2),
    any(libc::SYS_fstat),
    any(libc::SYS_newfstatat),
    any(libc::SYS_statx),
    any(libc::SYS_fstatfs),
    any(libc::SYS_getdents64),
    any(libc::SYS_readlinkat),
    any(libc::SYS_faccessat),
    any(libc::SYS_faccessat2),
    any(libc::SYS_mkdirat),
    any(libc::SYS_mknodat),
    any(libc::SYS_unlinkat),
    any(libc::SYS_linkat),
    any(libc::SYS_symlinkat),
    any(libc::SYS_renameat),
    any(libc::SYS_renameat2),
    any(libc::SYS_fchmod),
    any(libc::SYS_fchmodat),
    // fchmodat2
    any(452),
    any(libc::SYS_fchown),
    any(libc::SYS_fchownat),
    any(libc::SYS_utimensat),
    any(libc::SYS_ftruncate),
    any(libc::SYS_fallocate),
    any(libc::SYS_fadvise64),
    any(libc::SYS_readahead),
    // cachestat
    any(451),
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync),
    any(libc::SYS_syncfs),
    any(libc::SYS_sync_file_range),
    any(libc::SYS_copy_file_range),
    any(libc::SYS_sendfile),
    any(libc::SYS_splice),
    any(libc::SYS_tee),
    any(libc::SYS_flock),
    any(libc::SYS_umask),
    // Watching host folders: a watch on "." after fchdir needs no name.
    any(libc::SYS_inotify_init1),
    any(libc::SYS_inotify_add_watch),
    any(libc::SYS_inotify_rm_watch),
    any(libc::SYS_fchdir),
    any(libc::SYS_chdir),
    // The watching thread has a current directory of its own.
    checked(libc::SYS_unshare, &[Check::Equals(0, libc::CLONE_FS as u32)]),
    // Extended attributes.
    any(libc::SYS_fgetxattr),
    any(libc::SYS_fsetxattr),
    any(libc::SYS_flistxattr),
    any(libc::SYS_fremovexattr),
    any(libc::SYS_getxattr),
    any(libc::SYS_setxattr),
    any(libc::SYS_listxattr),
    any(libc::SYS_removexattr),
    any(libc::SYS_lgetxattr),
    any(libc::SYS_lsetxattr),
    any(libc::SYS_llistxattr),
    any(libc::SYS_lremovexattr),
    // Slots, and files in memory that guests map.
    any(libc::SYS_memfd_create),
    // Control connections, and guests' sockets in the container's network.
    checked(libc::SYS_socket, &[Check::OneOf(0, &FAMILIES)]),
    checked(libc::SYS_socketpair, &[Check::Equals(0, AF_UNIX as u32)]),
    any(libc::SYS_bind),
    any(libc::SYS_connect),
    any(libc::SYS_listen),
    any(libc::SYS_accept),
    any(libc::SYS_accept4),
    any(libc::SYS_getsockname),
    any(libc::SYS_getpeername),
    any(libc::SYS_getsockopt),
    any(libc::SYS_setsockopt),
    any(libc::SYS_shutdown),
    any(libc::SYS_sendto),
    any(libc::SYS_sendmsg),
    any(libc::SYS_sendmmsg),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    any(libc::SYS_recvmmsg),
];
