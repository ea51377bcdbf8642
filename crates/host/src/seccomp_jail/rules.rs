//! Which host calls the kernel process may make, and why.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS,
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
    /// Where the condition holds, another argument equals one of some values.
    IfOneOf(If, u8, &'static [u32]),
    /// Where the condition holds, another argument equals none of some values.
    IfNoneOf(If, u8, &'static [u32]),
    /// Where the condition holds, another argument is less than a value, unsigned.
    IfBelow(If, u8, u32),
}

/// Whether an argument, as far as a mask goes, equals a value.
#[derive(Clone, Copy, Debug)]
pub struct If {
    /// The argument, 0 to 5.
    pub argument: u8,
    /// Its bits that count.
    pub mask: u32,
    /// What they must be.
    pub equals: u32,
}

const fn when(argument: u8, equals: u32) -> If {
    If { argument, mask: u32::MAX, equals }
}

pub(super) const fn any(number: i64) -> Rule {
    Rule { number, checks: &[] }
}

pub(super) const fn checked(number: i64, checks: &'static [Check]) -> Rule {
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
/// With the packets of its own network.
const FAMILIES_WITH_PACKETS: [u32; 4] =
    [AF_INET as u32, AF_INET6 as u32, AF_NETLINK as u32, AF_PACKET as u32];

/// rtnetlink(7) alone, whatever capability the process holds: not the tables of netfilter, nor the many others.
const ROUTES_ALONE: Check = Check::IfOneOf(when(0, AF_NETLINK as u32), 2, &[libc::NETLINK_ROUTE as u32]);

/// Takes the place of the rule with the same number where the guest may have packet(7) sockets, which needs a network
/// namespace that belongs to the kernel process's own user namespace.
pub(super) const SOCKETS_WITH_PACKETS: Rule =
    checked(libc::SYS_socket, &[Check::OneOf(0, &FAMILIES_WITH_PACKETS), ROUTES_ALONE]);

/// Options by level and name. What the capabilities over the container's network would open in the host is closed here.
const OPTIONS: &[Check] = &[
    // The tables of iptables, arptables, ebtables and IPVS, and multicast routing, begin at 64.
    Check::IfBelow(when(1, libc::IPPROTO_IP as u32), 2, 64),
    // The same of IPv6, whose own options go on above.
    Check::IfNoneOf(when(1, libc::IPPROTO_IPV6 as u32), 2, &[64, 65]),
    Check::IfBelow(when(1, libc::IPPROTO_IPV6 as u32), 2, 80),
    // What the administrator of a network may besides: IPSEC_POLICY, XFRM_POLICY.
    Check::IfNoneOf(when(1, libc::IPPROTO_IP as u32), 2, &[16, 17]),
    Check::IfNoneOf(when(1, libc::IPPROTO_IPV6 as u32), 2, &[34, 35]),
    // REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, REPAIR_WINDOW; ULP names a module.
    Check::IfNoneOf(when(1, libc::IPPROTO_TCP as u32), 2, &[19, 20, 21, 22, 29, 31]),
    // No programs for the host: ATTACH_FILTER, ATTACH_BPF, ATTACH_REUSEPORT_CBPF, ATTACH_REUSEPORT_EBPF.
    Check::IfNoneOf(when(1, libc::SOL_SOCKET as u32), 2, &[26, 50, 51, 52]),
    // Packet sockets without rings, fan-out and virtual headers: ADD_MEMBERSHIP, DROP_MEMBERSHIP, RECV_OUTPUT,
    // STATISTICS, AUXDATA, ORIGDEV, TX_TIMESTAMP, IGNORE_OUTGOING.
    Check::IfOneOf(when(1, libc::SOL_PACKET as u32), 2, &[1, 2, 3, 6, 8, 9, 16, 23]),
];

/// What begins with 0x89 is about sockets and interfaces: no bridges, tunnels, VLANs, bonds, nor what a driver has of
/// its own.
const INTERFACES: &[Check] = &[Check::IfOneOf(
    If { argument: 1, mask: 0xffff_ff00, equals: 0x8900 },
    1,
    &[
        // SIOCATMARK; SIOCGIFNAME, -CONF, -FLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MTU, -HWADDR, -INDEX,
        // -TXQLEN
        0x8905, 0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933,
        0x8942,
        // The same set: -FLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MTU, -NAME, -HWADDR, -TXQLEN;
        // SIOCADDRT, SIOCDELRT; SIOCDIFADDR
        0x890b, 0x890c, 0x8936, 0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x891e, 0x8922, 0x8923, 0x8924,
        0x8943, // SIOCETHTOOL: our kernel lets questions through.
        0x8946,
    ],
)];

/// The list, by subject; frequent calls stand first. Beside each: what for, and why it is safe.
pub const RULES: &[Rule] = &[
    // Wake-ups between workers, and of stubs over shared memory.
    // Wakes workers and guest threads; on memory that is mapped already.
    any(libc::SYS_futex),
    // Answers to seccomp notifications; terminal and socket settings.
    // Answers notifications, terminals, sockets; on descriptors it holds.
    checked(libc::SYS_ioctl, INTERFACES),
    // Host files, pipes, sockets, timers and event descriptors.
    // Files, timers, event counters; a descriptor it holds.
    any(libc::SYS_read),
    // Files, doorbells, the debug log; a descriptor it holds.
    any(libc::SYS_write),
    // Reads of host files at an offset; a descriptor it holds.
    any(libc::SYS_pread64),
    // Writes of host files at an offset; a descriptor opened for writing.
    any(libc::SYS_pwrite64),
    // Reads that must not wait (RWF_NOWAIT); a descriptor it holds.
    any(libc::SYS_preadv2),
    // Appends and synchronous writes; a descriptor opened for writing.
    any(libc::SYS_pwritev2),
    // Guests close files; only its own descriptors.
    any(libc::SYS_close),
    // The same of many at once.
    any(libc::SYS_close_range),
    // Copies of descriptors, flags, locks, seals; a descriptor it holds.
    any(libc::SYS_fcntl),
    // Holes and ends of host files; a descriptor it holds.
    any(libc::SYS_lseek),
    // Pipes for its own threads; they reach nobody else.
    any(libc::SYS_pipe2),
    // Guest memory that did not travel in a slot.
    // Guest memory that did not travel in a slot; the host's ptrace check lets it at its own stubs alone.
    any(libc::SYS_process_vm_readv),
    // The same, into guest memory: never into what the host keeps.
    any(libc::SYS_process_vm_writev),
    // The driver thread's waiting.
    // The driver thread waits for readiness; changes nothing.
    any(libc::SYS_epoll_wait),
    // The same, as the C library calls it.
    any(libc::SYS_epoll_pwait),
    // The same with nanoseconds.
    any(libc::SYS_epoll_pwait2),
    // Which descriptors it waits for; those it holds.
    any(libc::SYS_epoll_ctl),
    // One set of them for each driver.
    any(libc::SYS_epoll_create1),
    // Whether a descriptor is ready; changes nothing.
    any(libc::SYS_poll),
    // The same, as the C library calls it.
    any(libc::SYS_ppoll),
    // Wakes of its own threads; private.
    any(libc::SYS_eventfd2),
    // SIGWINCH of the terminal; its own signals alone.
    any(libc::SYS_signalfd4),
    // Deadlines of guests; private.
    any(libc::SYS_timerfd_create),
    // Sets those.
    any(libc::SYS_timerfd_settime),
    // Time: the vDSO falls back to these on odd clock sources.
    // The vDSO falls back to it on odd clock sources; read-only.
    any(libc::SYS_clock_gettime),
    // Guests ask it; read-only.
    any(libc::SYS_clock_getres),
    // Short rests of its threads; affects nobody else.
    any(libc::SYS_clock_nanosleep),
    // Its own memory: never executable.
    // Stacks, heaps and slots; without a file that it could not read anyway.
    checked(libc::SYS_mmap, &[Check::Without(2, PROT_EXEC as u32)]),
    // Guard pages of new stacks.
    checked(libc::SYS_mprotect, &[Check::Without(2, PROT_EXEC as u32)]),
    // Gives its own memory back.
    any(libc::SYS_munmap),
    // The allocator grows blocks; keeps their protection, so nothing becomes executable.
    any(libc::SYS_mremap),
    // Gives stacks and free blocks back; its own memory.
    any(libc::SYS_madvise),
    // The allocator; memory that is not executable.
    any(libc::SYS_brk),
    // Orders slots with guest threads; no data passes.
    any(libc::SYS_membarrier),
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
    // The C library registers each thread; the thread itself alone.
    any(libc::SYS_set_robust_list),
    // The same.
    any(libc::SYS_rseq),
    // The same.
    any(libc::SYS_set_tid_address),
    // A thread ends; itself alone.
    any(libc::SYS_exit),
    // The sandbox ends; itself alone.
    any(libc::SYS_exit_group),
    // A spinning worker gives way; harmless.
    any(libc::SYS_sched_yield),
    // Workers and guest threads on CPUs that the cpuset allows; processes of our namespace.
    any(libc::SYS_sched_setaffinity),
    // Which CPUs there are; read-only.
    any(libc::SYS_sched_getaffinity),
    // Which CPU a worker runs on; read-only.
    any(libc::SYS_getcpu),
    // Names of threads.
    checked(libc::SYS_prctl, &[Check::OneOf(0, &[libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32])]),
    // Its own signals, and a stub or thread interrupted or ended: one by one.
    // Handlers of its own.
    any(libc::SYS_rt_sigaction),
    // Threads are born with signals blocked; itself alone.
    any(libc::SYS_rt_sigprocmask),
    // The end of a handler; itself alone.
    any(libc::SYS_rt_sigreturn),
    // A stack for overflows, per thread; itself alone.
    any(libc::SYS_sigaltstack),
    // The host goes on with a wait after a stop.
    any(libc::SYS_restart_syscall),
    // One stub; the PID namespace holds stubs alone.
    checked(libc::SYS_kill, &[Check::Positive(0)]),
    // One thread of a stub, or of itself.
    checked(libc::SYS_tgkill, &[Check::Positive(0), Check::Positive(1)]),
    // Faults and signals with a value for a guest thread; the PID namespace holds stubs alone.
    any(libc::SYS_rt_tgsigqueueinfo),
    // Ends of stubs become readable; the PID namespace holds stubs alone.
    any(libc::SYS_pidfd_open),
    // Signals by such a descriptor; likewise.
    any(libc::SYS_pidfd_send_signal),
    // The notification descriptor of a new stub; from its own children alone.
    any(libc::SYS_pidfd_getfd),
    // Death of stubs.
    // Collects stubs that have ended; its own children.
    any(libc::SYS_wait4),
    // The same by pidfd.
    any(libc::SYS_waitid),
    // Limits, times and priorities of stubs.
    // Limits of stubs; raises none without CAP_SYS_RESOURCE, which it lacks.
    any(libc::SYS_prlimit64),
    // CPU time of its threads and stubs; read-only.
    any(libc::SYS_getrusage),
    // Nice values that guests set; raises none without CAP_SYS_NICE, which it lacks.
    any(libc::SYS_setpriority),
    // Who it is itself.
    // Its own number.
    any(libc::SYS_getpid),
    // Its own number.
    any(libc::SYS_gettid),
    // Its own id.
    any(libc::SYS_getuid),
    // Its own id.
    any(libc::SYS_geteuid),
    // Its own id.
    any(libc::SYS_getgid),
    // Its own id.
    any(libc::SYS_getegid),
    // Names and version of the host for guests; read-only.
    any(libc::SYS_uname),
    // Memory of the machine, for /proc/meminfo; read-only.
    any(libc::SYS_sysinfo),
    // Randomness for guests and for hash tables.
    // Guests and hash tables; read-only.
    any(libc::SYS_getrandom),
    // Files below the mounts it was handed; its root is empty.
    // Files below the mounts it was handed; its root is empty, and beside them it holds its own namespace's procfs.
    any(libc::SYS_openat),
    // The same, held below a folder and without links.
    any(libc::SYS_openat2),
    // Metadata of a descriptor; read-only.
    any(libc::SYS_fstat),
    // Metadata of a name below such a folder; read-only.
    any(libc::SYS_newfstatat),
    // The same, with the time of birth.
    any(libc::SYS_statx),
    // Free space, for guests; read-only.
    any(libc::SYS_fstatfs),
    // Lists a folder; read-only.
    any(libc::SYS_getdents64),
    // Reads a link below such a folder; read-only.
    any(libc::SYS_readlinkat),
    // Whether a file may be used; read-only.
    any(libc::SYS_faccessat),
    // The same with flags.
    any(libc::SYS_faccessat2),
    // Guests make folders; read-only mounts refuse it, here and below.
    any(libc::SYS_mkdirat),
    // FIFOs and empty files; devices want CAP_MKNOD, which it lacks.
    any(libc::SYS_mknodat),
    // Guests remove files.
    any(libc::SYS_unlinkat),
    // Guests link files; both names lie below such folders.
    any(libc::SYS_linkat),
    // Guests make links; the host follows none of them for it.
    any(libc::SYS_symlinkat),
    // Guests rename; both names lie below such folders.
    any(libc::SYS_renameat),
    // The same, without replacing or by exchange.
    any(libc::SYS_renameat2),
    // Guests set modes; files of the mounts it was handed.
    any(libc::SYS_fchmod),
    // The same by name.
    any(libc::SYS_fchmodat),
    // fchmodat2: chmod that follows no link.
    any(452),
    // Guests give files away; to ids of its user namespace alone.
    any(libc::SYS_fchown),
    // The same by name.
    any(libc::SYS_fchownat),
    // Guests set times.
    any(libc::SYS_utimensat),
    // Guests shorten files; a descriptor opened for writing.
    any(libc::SYS_ftruncate),
    // Guests reserve or punch; a descriptor opened for writing.
    any(libc::SYS_fallocate),
    // What a guest will read; a hint.
    any(libc::SYS_fadvise64),
    // cachestat: guests ask how much of a file is in memory; read-only.
    any(451),
    // Guests wait for the disk.
    any(libc::SYS_fsync),
    // The same without metadata.
    any(libc::SYS_fdatasync),
    // The same for a file system that it holds.
    any(libc::SYS_syncfs),
    // Guests lock host files against others' processes, as a program of the host may.
    any(libc::SYS_flock),
    // Modes come from guests whole; itself alone.
    any(libc::SYS_umask),
    // Watching host folders: a watch on "." after fchdir needs no name.
    // Guests watch host folders; sees what it may read.
    any(libc::SYS_inotify_init1),
    // A watch on "." after fchdir, without a name.
    any(libc::SYS_inotify_add_watch),
    // Ends one.
    any(libc::SYS_inotify_rm_watch),
    // The watching thread enters a folder that it holds.
    any(libc::SYS_fchdir),
    // The watching thread has a current directory of its own.
    checked(libc::SYS_unshare, &[Check::Equals(0, libc::CLONE_FS as u32)]),
    // Extended attributes.
    // Attributes of a descriptor; read-only.
    any(libc::SYS_fgetxattr),
    // Guests set them; the host's privileged ones want capabilities, which count in its own user namespace.
    any(libc::SYS_fsetxattr),
    // Their names; read-only.
    any(libc::SYS_flistxattr),
    // Guests remove them.
    any(libc::SYS_fremovexattr),
    // Slots, and files in memory that guests map.
    // Slots, and files in memory that guests map; private until handed on.
    any(libc::SYS_memfd_create),
    // Control connections, and guests' sockets in the container's network.
    // Guests' sockets and netlink questions, in the container's network.
    checked(libc::SYS_socket, &[Check::OneOf(0, &FAMILIES), ROUTES_ALONE]),
    // A guest's server; ports of the container's network.
    any(libc::SYS_bind),
    // A guest's client; the container's network.
    any(libc::SYS_connect),
    // A guest's server.
    any(libc::SYS_listen),
    // A guest's server.
    any(libc::SYS_accept),
    // The same, and control connections.
    any(libc::SYS_accept4),
    // A socket's own address; read-only.
    any(libc::SYS_getsockname),
    // The other side's address; read-only.
    any(libc::SYS_getpeername),
    // Options that guests ask; read-only, but netfilter's tables are asked for in this way, too.
    checked(libc::SYS_getsockopt, OPTIONS),
    // Options that guests set and our kernel lets through; those that a right over the network opens are refused.
    checked(libc::SYS_setsockopt, OPTIONS),
    // Guests end a direction.
    any(libc::SYS_shutdown),
    // Guests' data, answers of the control socket.
    any(libc::SYS_sendto),
    // The same with descriptors or addresses.
    any(libc::SYS_sendmsg),
    // Data for guests.
    any(libc::SYS_recvfrom),
    // The same; descriptors of the runtime's requests.
    any(libc::SYS_recvmsg),
];
