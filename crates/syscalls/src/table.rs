//! The system call table: number, name, how it is called, handler, how many arguments, support level, note.
//!
//! `sync` handlers are plain functions, `wait` handlers are async, `boxed` ones are async and big (kept
//! off the dispatch future). What has no line answers `ENOSYS` and is logged once.

use std::pin::pin;

use linux_abi::Errno;

use crate::args::FromArg;
use crate::{Cx, SysResult};

/// How far a call is supported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// As Linux does.
    Full,
    /// Some flags or commands are missing; the note says which.
    Partial,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Number.
    pub nr: u32,
    /// Name.
    pub name: &'static str,
    /// How many arguments its handler takes.
    pub args: u8,
    /// How far it is supported.
    pub level: Level,
    /// What is missing.
    pub note: &'static str,
}

macro_rules! call {
    (sync $h:path, $cx:ident, $a:ident, $n:tt) => {
        args!($h, $cx, $a, $n)
    };
    (wait $h:path, $cx:ident, $a:ident, $n:tt) => {
        pin!(args!($h, $cx, $a, $n)).await
    };
    (boxed $h:path, $cx:ident, $a:ident, $n:tt) => {
        Box::pin(args!($h, $cx, $a, $n)).await
    };
}

macro_rules! args {
    ($h:path, $cx:ident, $a:ident, 0) => {
        $h($cx)
    };
    ($h:path, $cx:ident, $a:ident, 1) => {
        $h($cx, FromArg::from_arg($a[0]))
    };
    ($h:path, $cx:ident, $a:ident, 2) => {
        $h($cx, FromArg::from_arg($a[0]), FromArg::from_arg($a[1]))
    };
    ($h:path, $cx:ident, $a:ident, 3) => {
        $h($cx, FromArg::from_arg($a[0]), FromArg::from_arg($a[1]), FromArg::from_arg($a[2]))
    };
    ($h:path, $cx:ident, $a:ident, 4) => {
        $h(
            $cx,
            FromArg::from_arg($a[0]),
            FromArg::from_arg($a[1]),
            FromArg::from_arg($a[2]),
            FromArg::from_arg($a[3]),
        )
    };
    ($h:path, $cx:ident, $a:ident, 5) => {
        $h(
            $cx,
            FromArg::from_arg($a[0]),
            FromArg::from_arg($a[1]),
            FromArg::from_arg($a[2]),
            FromArg::from_arg($a[3]),
            FromArg::from_arg($a[4]),
        )
    };
    ($h:path, $cx:ident, $a:ident, 6) => {
        $h(
            $cx,
            FromArg::from_arg($a[0]),
            FromArg::from_arg($a[1]),
            FromArg::from_arg($a[2]),
            FromArg::from_arg($a[3]),
            FromArg::from_arg($a[4]),
            FromArg::from_arg($a[5]),
        )
    };
}

macro_rules! syscalls {
    ($($nr:literal $name:ident $kind:tt $handler:path, $n:tt, $level:ident, $note:literal;)*) => {
        /// Calls the handler of a number.
        pub async fn dispatch(cx: &mut Cx<'_>, nr: u32, a: &[u64; 6]) -> SysResult {
            cx.kernel().calls.count(nr);
            match nr {
                $($nr => call!($kind $handler, cx, a, $n),)*
                _ => missing(cx, nr),
            }
        }

        /// Every supported call, in ascending order.
        pub const TABLE: &[Row] = &[$(Row { nr: $nr, name: stringify!($name), args: $n, level: Level::$level, note: $note },)*];
    };
}

/// A number without a handler: `ENOSYS`, logged once with its name.
fn missing(cx: &mut Cx<'_>, nr: u32) -> SysResult {
    match linux_abi::sysno::name(nr) {
        Some(name) => cx.kernel().note_missing(name),
        None => cx.kernel().note_missing("system call number outside the table"),
    }
    Err(Errno::ENOSYS.into())
}

syscalls! {
    0 read wait crate::file_io::read, 3, Full, "";
    1 write wait crate::file_io::write, 3, Full, "";
    2 open wait crate::open::open, 3, Full, "";
    3 close sync crate::fd::close, 1, Full, "";
    4 stat sync crate::stat::stat, 2, Full, "";
    5 fstat sync crate::stat::fstat, 2, Full, "";
    6 lstat sync crate::stat::lstat, 2, Full, "";
    7 poll wait crate::poll::poll, 3, Full, "";
    8 lseek sync crate::file_io::lseek, 3, Full, "";
    9 mmap wait crate::mm::mmap, 6, Full, "";
    10 mprotect sync crate::mm_refused::not_mapped, 2, Full, "native where the arguments are right";
    11 munmap sync crate::mm_refused::munmap, 2, Full, "native where the arguments are right";
    12 brk wait crate::mm::brk, 1, Full, "";
    13 rt_sigaction sync crate::signal::action::rt_sigaction, 4, Full, "";
    14 rt_sigprocmask sync crate::signal::mask::rt_sigprocmask, 4, Full, "";
    15 rt_sigreturn sync crate::signal::action::rt_sigreturn, 0, Full, "";
    16 ioctl wait crate::ioctl::ioctl, 3, Full, "";
    17 pread64 wait crate::file_io::pread64, 4, Full, "";
    18 pwrite64 wait crate::file_io::pwrite64, 4, Full, "";
    19 readv wait crate::file_io::readv, 3, Full, "";
    20 writev wait crate::file_io::writev, 3, Full, "";
    21 access sync crate::attr::access, 2, Full, "";
    22 pipe sync crate::pipe::pipe, 1, Full, "";
    23 select wait crate::select::select, 5, Full, "";
    24 sched_yield wait crate::scheduling::sched_yield, 0, Full, "";
    25 mremap sync crate::mm_refused::mremap, 3, Full, "native where the arguments are right";
    26 msync sync crate::mm_refused::not_mapped, 2, Full, "native where the arguments are right";
    27 mincore sync crate::mm_refused::not_mapped, 2, Full, "native where the arguments are right";
    28 madvise sync crate::mm_refused::madvise, 3, Full, "native where the arguments are right";
    29 shmget sync crate::ipc::shm::shmget, 3, Partial, "SHM_HUGETLB: no huge pages";
    30 shmat boxed crate::ipc::shm::shmat, 3, Full, "";
    31 shmctl sync crate::ipc::shm::shmctl, 3, Partial, "SHM_LOCK: ENOMEM";
    32 dup sync crate::fd::dup, 1, Full, "";
    33 dup2 sync crate::fd::dup2, 2, Full, "";
    34 pause wait crate::signal::mask::pause, 0, Full, "";
    35 nanosleep wait crate::time::nanosleep, 2, Full, "";
    36 getitimer sync crate::timers::getitimer, 2, Full, "";
    37 alarm sync crate::timers::alarm, 1, Full, "";
    38 setitimer sync crate::timers::setitimer, 3, Full, "";
    39 getpid sync crate::process::getpid, 0, Full, "";
    40 sendfile boxed crate::splice::sendfile, 4, Full, "";
    41 socket sync crate::socket::socket, 3, Full, "";
    42 connect boxed crate::socket::connect, 3, Full, "";
    43 accept boxed crate::socket::accept, 3, Full, "";
    44 sendto boxed crate::socket::sendto, 6, Full, "";
    45 recvfrom boxed crate::socket::recvfrom, 6, Full, "";
    46 sendmsg boxed crate::socket::sendmsg, 3, Full, "";
    47 recvmsg boxed crate::socket::recvmsg, 3, Full, "";
    48 shutdown sync crate::socket::shutdown, 2, Full, "";
    49 bind sync crate::socket::bind, 3, Full, "";
    50 listen sync crate::socket::listen, 2, Full, "";
    51 getsockname sync crate::socket::getsockname, 3, Full, "";
    52 getpeername sync crate::socket::getpeername, 3, Full, "";
    53 socketpair sync crate::socket::socketpair, 4, Full, "";
    54 setsockopt sync crate::socket::setsockopt, 5, Full, "";
    55 getsockopt sync crate::socket::getsockopt, 5, Full, "";
    56 clone boxed crate::clone::clone, 5, Full, "";
    57 fork boxed crate::clone::fork, 0, Full, "";
    58 vfork boxed crate::clone::vfork, 0, Full, "";
    59 execve boxed crate::exec::execve, 3, Full, "";
    60 exit sync crate::exit::exit, 1, Full, "";
    61 wait4 wait crate::wait::wait4, 4, Full, "";
    62 kill sync crate::signal::send::kill, 2, Full, "";
    63 uname sync crate::system::uname, 1, Full, "";
    64 semget sync crate::ipc::sem::semget, 3, Full, "";
    65 semop boxed crate::ipc::sem::semop, 3, Full, "";
    66 semctl sync crate::ipc::sem::semctl, 4, Full, "";
    67 shmdt boxed crate::ipc::shm::shmdt, 1, Full, "";
    68 msgget sync crate::ipc::msg::msgget, 2, Full, "";
    69 msgsnd boxed crate::ipc::msg::msgsnd, 4, Full, "";
    70 msgrcv boxed crate::ipc::msg::msgrcv, 5, Full, "";
    71 msgctl sync crate::ipc::msg::msgctl, 3, Full, "";
    72 fcntl wait crate::fcntl::fcntl, 3, Partial, "F_NOTIFY and leases are missing";
    73 flock wait crate::fcntl::flock, 2, Full, "";
    74 fsync wait crate::sync::fsync, 1, Full, "";
    75 fdatasync wait crate::sync::fdatasync, 1, Full, "";
    76 truncate sync crate::attr::truncate, 2, Full, "";
    77 ftruncate sync crate::attr::ftruncate, 2, Full, "";
    78 getdents sync crate::dir::getdents, 3, Full, "";
    79 getcwd sync crate::dir::getcwd, 2, Full, "";
    80 chdir sync crate::dir::chdir, 1, Full, "";
    81 fchdir sync crate::dir::fchdir, 1, Full, "";
    82 rename sync crate::link::rename, 2, Full, "";
    83 mkdir sync crate::dir::mkdir, 2, Full, "";
    84 rmdir sync crate::dir::rmdir, 1, Full, "";
    85 creat wait crate::open::creat, 2, Full, "";
    86 link sync crate::link::link, 2, Full, "";
    87 unlink sync crate::link::unlink, 1, Full, "";
    88 symlink sync crate::link::symlink, 2, Full, "";
    89 readlink sync crate::link::readlink, 3, Full, "";
    90 chmod sync crate::attr::chmod, 2, Full, "";
    91 fchmod sync crate::attr::fchmod, 2, Full, "";
    92 chown sync crate::attr::chown, 3, Full, "";
    93 fchown sync crate::attr::fchown, 3, Full, "";
    94 lchown sync crate::attr::lchown, 3, Full, "";
    95 umask sync crate::process::umask, 1, Full, "";
    96 gettimeofday sync crate::time::gettimeofday, 2, Full, "";
    97 getrlimit sync crate::limits::getrlimit, 2, Full, "";
    98 getrusage sync crate::limits::getrusage, 2, Full, "";
    99 sysinfo sync crate::system::sysinfo, 1, Full, "";
    100 times sync crate::limits::times, 1, Full, "";
    101 ptrace sync crate::ptrace::ptrace, 4, Partial, "no debug registers, FS and GS base cannot be set";
    102 getuid sync crate::credentials::getuid, 0, Full, "";
    103 syslog sync crate::machine::syslog, 3, Full, "";
    104 getgid sync crate::credentials::getgid, 0, Full, "";
    105 setuid sync crate::credentials::setuid, 1, Full, "";
    106 setgid sync crate::credentials::setgid, 1, Full, "";
    107 geteuid sync crate::credentials::geteuid, 0, Full, "";
    108 getegid sync crate::credentials::getegid, 0, Full, "";
    109 setpgid sync crate::process::setpgid, 2, Full, "";
    110 getppid sync crate::process::getppid, 0, Full, "";
    111 getpgrp sync crate::process::getpgrp, 0, Full, "";
    112 setsid sync crate::process::setsid, 0, Full, "";
    113 setreuid sync crate::credentials::setreuid, 2, Full, "";
    114 setregid sync crate::credentials::setregid, 2, Full, "";
    115 getgroups sync crate::credentials::getgroups, 2, Full, "";
    116 setgroups sync crate::credentials::setgroups, 2, Full, "";
    117 setresuid sync crate::credentials::setresuid, 3, Full, "";
    118 getresuid sync crate::credentials::getresuid, 3, Full, "";
    119 setresgid sync crate::credentials::setresgid, 3, Full, "";
    120 getresgid sync crate::credentials::getresgid, 3, Full, "";
    121 getpgid sync crate::process::getpgid, 1, Full, "";
    122 setfsuid sync crate::credentials::setfsuid, 1, Full, "";
    123 setfsgid sync crate::credentials::setfsgid, 1, Full, "";
    124 getsid sync crate::process::getsid, 1, Full, "";
    125 capget sync crate::capability::capget, 2, Full, "";
    126 capset sync crate::capability::capset, 2, Full, "";
    127 rt_sigpending sync crate::signal::mask::rt_sigpending, 2, Full, "";
    128 rt_sigtimedwait wait crate::signal::receive::rt_sigtimedwait, 4, Full, "";
    129 rt_sigqueueinfo sync crate::signal::send::rt_sigqueueinfo, 3, Full, "";
    130 rt_sigsuspend wait crate::signal::mask::rt_sigsuspend, 2, Full, "";
    131 sigaltstack sync crate::signal::action::sigaltstack, 2, Full, "";
    132 utime sync crate::attr::utime, 2, Full, "";
    133 mknod sync crate::link::mknod, 3, Partial, "device nodes in host directories are empty files on the host";
    135 personality sync crate::prctl::personality, 1, Partial, "of the bits only STICKY_TIMEOUTS and ADDR_NO_RANDOMIZE have an effect";
    136 ustat sync crate::statfs::ustat, 2, Partial, "file systems mounted in the caller's namespace only";
    137 statfs sync crate::statfs::statfs, 2, Full, "";
    138 fstatfs sync crate::statfs::fstatfs, 2, Full, "";
    140 getpriority sync crate::scheduling::getpriority, 2, Full, "";
    141 setpriority sync crate::scheduling::setpriority, 3, Full, "";
    142 sched_setparam sync crate::scheduling::sched_setparam, 2, Full, "";
    143 sched_getparam sync crate::scheduling::sched_getparam, 2, Full, "";
    144 sched_setscheduler sync crate::scheduling::sched_setscheduler, 3, Partial, "real-time policies are refused";
    145 sched_getscheduler sync crate::scheduling::sched_getscheduler, 1, Full, "";
    146 sched_get_priority_max sync crate::scheduling::sched_get_priority_max, 1, Full, "";
    147 sched_get_priority_min sync crate::scheduling::sched_get_priority_min, 1, Full, "";
    148 sched_rr_get_interval sync crate::scheduling::sched_rr_get_interval, 2, Full, "";
    149 mlock sync crate::mm_refused::lock, 2, Full, "native where the arguments are right";
    150 munlock sync crate::mm_refused::lock, 2, Full, "native where the arguments are right";
    151 mlockall sync crate::machine::mlockall, 1, Partial, "ENOMEM: the host may swap";
    153 vhangup sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    155 pivot_root sync crate::mount::pivot_root, 2, Full, "";
    157 prctl wait crate::prctl::prctl, 5, Partial, "PR_SET_MM, PR_SET_VMA are missing";
    158 arch_prctl wait crate::prctl::arch_prctl, 2, Partial, "GS base is missing";
    159 adjtimex sync crate::machine::adjtimex, 1, Partial, "reads only";
    160 setrlimit sync crate::limits::setrlimit, 2, Full, "";
    161 chroot sync crate::dir::chroot, 1, Full, "";
    162 sync wait crate::sync::sync, 0, Full, "";
    163 acct sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    164 settimeofday sync crate::time::settimeofday, 2, Full, "the date is the host's: EPERM";
    165 mount sync crate::mount::mount, 5, Partial, "mount events do not travel between namespaces";
    166 umount2 sync crate::mount::umount2, 2, Partial, "MNT_EXPIRE always answers EAGAIN";
    167 swapon sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    168 swapoff sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    169 reboot sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    170 sethostname sync crate::namespaces::sethostname, 2, Full, "";
    171 setdomainname sync crate::namespaces::setdomainname, 2, Full, "";
    172 iopl sync crate::machine::iopl, 1, Full, "";
    173 ioperm sync crate::machine::ioperm, 3, Full, "";
    175 init_module sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    176 delete_module sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    186 gettid sync crate::process::gettid, 0, Full, "";
    187 readahead wait crate::sync::readahead, 3, Full, "";
    188 setxattr sync crate::xattr::setxattr, 5, Partial, "in host directories user.* and trusted.* only, and what else the host lets us";
    189 lsetxattr sync crate::xattr::lsetxattr, 5, Partial, "in host directories user.* and trusted.* only, and what else the host lets us";
    190 fsetxattr sync crate::xattr::fsetxattr, 5, Partial, "in host directories user.* and trusted.* only, and what else the host lets us";
    191 getxattr sync crate::xattr::getxattr, 4, Full, "";
    192 lgetxattr sync crate::xattr::lgetxattr, 4, Full, "";
    193 fgetxattr sync crate::xattr::fgetxattr, 4, Full, "";
    194 listxattr sync crate::xattr::listxattr, 3, Full, "";
    195 llistxattr sync crate::xattr::llistxattr, 3, Full, "";
    196 flistxattr sync crate::xattr::flistxattr, 3, Full, "";
    197 removexattr sync crate::xattr::removexattr, 2, Full, "";
    198 lremovexattr sync crate::xattr::lremovexattr, 2, Full, "";
    199 fremovexattr sync crate::xattr::fremovexattr, 2, Full, "";
    200 tkill sync crate::signal::send::tkill, 2, Full, "";
    201 time sync crate::time::time, 1, Full, "";
    202 futex boxed crate::futex::futex, 6, Full, "native but for priority inheritance, which does not raise the holder's priority";
    203 sched_setaffinity sync crate::scheduling::sched_setaffinity, 3, Full, "";
    204 sched_getaffinity sync crate::scheduling::sched_getaffinity, 3, Full, "";
    206 io_setup boxed crate::aio::io_setup, 2, Full, "";
    207 io_destroy boxed crate::aio::io_destroy, 1, Full, "";
    208 io_getevents boxed crate::aio::io_getevents, 5, Full, "";
    209 io_submit boxed crate::aio::io_submit, 3, Full, "";
    210 io_cancel sync crate::aio::io_cancel, 3, Full, "";
    213 epoll_create sync crate::epoll::epoll_create, 1, Full, "";
    217 getdents64 sync crate::dir::getdents64, 3, Full, "";
    218 set_tid_address sync crate::process::set_tid_address, 1, Full, "";
    219 restart_syscall sync crate::native::restart_syscall, 0, Full, "native";
    220 semtimedop boxed crate::ipc::sem::semtimedop, 4, Full, "";
    221 fadvise64 wait crate::sync::fadvise64, 4, Full, "";
    222 timer_create sync crate::timers::timer_create, 3, Full, "";
    223 timer_settime sync crate::timers::timer_settime, 4, Full, "";
    224 timer_gettime sync crate::timers::timer_gettime, 2, Full, "";
    225 timer_getoverrun sync crate::timers::timer_getoverrun, 1, Full, "";
    226 timer_delete sync crate::timers::timer_delete, 1, Full, "";
    227 clock_settime sync crate::time::clock_settime, 2, Full, "the date is the host's: EPERM";
    228 clock_gettime sync crate::time::clock_gettime, 2, Full, "";
    229 clock_getres sync crate::time::clock_getres, 2, Full, "";
    230 clock_nanosleep wait crate::time::clock_nanosleep, 4, Full, "";
    231 exit_group sync crate::exit::exit_group, 1, Full, "";
    232 epoll_wait wait crate::epoll::epoll_wait, 4, Full, "";
    233 epoll_ctl sync crate::epoll::epoll_ctl, 4, Full, "";
    234 tgkill sync crate::signal::send::tgkill, 3, Full, "";
    235 utimes sync crate::attr::utimes, 2, Full, "";
    237 mbind sync crate::numa::mbind, 6, Full, "";
    238 set_mempolicy sync crate::numa::set_mempolicy, 3, Full, "";
    239 get_mempolicy sync crate::numa::get_mempolicy, 5, Full, "";
    240 mq_open sync crate::ipc::mqueue::mq_open, 4, Full, "";
    241 mq_unlink sync crate::ipc::mqueue::mq_unlink, 1, Full, "";
    242 mq_timedsend boxed crate::ipc::mqueue::mq_timedsend, 5, Full, "";
    243 mq_timedreceive boxed crate::ipc::mqueue::mq_timedreceive, 5, Full, "";
    244 mq_notify sync crate::ipc::mqueue::mq_notify, 2, Partial, "SIGEV_THREAD is missing";
    245 mq_getsetattr sync crate::ipc::mqueue::mq_getsetattr, 3, Full, "";
    246 kexec_load sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    247 waitid wait crate::wait::waitid, 5, Full, "";
    251 ioprio_set sync crate::scheduling::ioprio_set, 3, Partial, "the host's I/O scheduler is not told";
    252 ioprio_get sync crate::scheduling::ioprio_get, 2, Full, "";
    253 inotify_init sync crate::inotify::inotify_init, 0, Full, "";
    254 inotify_add_watch sync crate::inotify::inotify_add_watch, 3, Partial, "changes by another hard link are not seen";
    255 inotify_rm_watch sync crate::inotify::inotify_rm_watch, 2, Full, "";
    256 migrate_pages sync crate::numa::migrate_pages, 4, Full, "";
    257 openat wait crate::open::openat, 4, Full, "";
    258 mkdirat sync crate::dir::mkdirat, 3, Full, "";
    259 mknodat sync crate::link::mknodat, 4, Partial, "device nodes in host directories are empty files on the host";
    260 fchownat sync crate::attr::fchownat, 5, Full, "";
    261 futimesat sync crate::attr::futimesat, 3, Full, "";
    262 newfstatat sync crate::stat::newfstatat, 4, Full, "";
    263 unlinkat sync crate::link::unlinkat, 3, Full, "";
    264 renameat sync crate::link::renameat, 4, Full, "";
    265 linkat sync crate::link::linkat, 5, Full, "";
    266 symlinkat sync crate::link::symlinkat, 3, Full, "";
    267 readlinkat sync crate::link::readlinkat, 4, Full, "";
    268 fchmodat sync crate::attr::fchmodat, 3, Full, "";
    269 faccessat sync crate::attr::faccessat, 3, Full, "";
    270 pselect6 wait crate::select::pselect6, 6, Full, "";
    271 ppoll wait crate::poll::ppoll, 5, Full, "";
    272 unshare sync crate::namespaces::unshare, 1, Partial, "mount namespaces only, others: EPERM";
    273 set_robust_list sync crate::futex::set_robust_list, 2, Full, "";
    274 get_robust_list sync crate::futex::get_robust_list, 3, Full, "";
    275 splice boxed crate::splice::splice, 6, Full, "";
    276 tee boxed crate::splice::tee, 4, Full, "";
    277 sync_file_range wait crate::sync::sync_file_range, 4, Full, "the whole file is written";
    278 vmsplice boxed crate::splice::vmsplice, 4, Full, "";
    279 move_pages boxed crate::numa::move_pages, 6, Full, "";
    280 utimensat sync crate::attr::utimensat, 4, Full, "";
    281 epoll_pwait wait crate::epoll::epoll_pwait, 6, Full, "";
    282 signalfd sync crate::signal::receive::signalfd, 3, Full, "";
    283 timerfd_create sync crate::eventfd::timerfd_create, 2, Full, "";
    284 eventfd sync crate::eventfd::eventfd, 1, Full, "";
    285 fallocate wait crate::sync::fallocate, 4, Full, "";
    286 timerfd_settime sync crate::eventfd::timerfd_settime, 4, Partial, "TFD_TIMER_CANCEL_ON_SET never cancels: the clock is the host's";
    287 timerfd_gettime sync crate::eventfd::timerfd_gettime, 2, Full, "";
    288 accept4 boxed crate::socket::accept4, 4, Full, "";
    289 signalfd4 sync crate::signal::receive::signalfd4, 4, Full, "";
    290 eventfd2 sync crate::eventfd::eventfd2, 2, Full, "";
    291 epoll_create1 sync crate::epoll::epoll_create1, 1, Full, "";
    292 dup3 sync crate::fd::dup3, 3, Full, "";
    293 pipe2 sync crate::pipe::pipe2, 2, Partial, "O_NOTIFICATION_PIPE is missing";
    294 inotify_init1 sync crate::inotify::inotify_init1, 1, Full, "";
    295 preadv wait crate::file_io::preadv, 5, Full, "";
    296 pwritev wait crate::file_io::pwritev, 5, Full, "";
    297 rt_tgsigqueueinfo sync crate::signal::send::rt_tgsigqueueinfo, 4, Full, "";
    298 perf_event_open sync crate::machine::perf_event_open, 0, Partial, "not there: as a kernel that was told to refuse it";
    299 recvmmsg boxed crate::socket::recvmmsg, 5, Full, "";
    300 fanotify_init sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    302 prlimit64 sync crate::limits::prlimit64, 4, Full, "";
    303 name_to_handle_at sync crate::machine::no_handles, 0, Partial, "not there: as a kernel that was told to refuse it";
    304 open_by_handle_at sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    305 clock_adjtime sync crate::machine::clock_adjtime, 2, Partial, "reads only";
    306 syncfs wait crate::sync::syncfs, 1, Full, "";
    307 sendmmsg boxed crate::socket::sendmmsg, 4, Full, "";
    308 setns sync crate::namespaces::setns, 2, Partial, "always EPERM";
    309 getcpu sync crate::namespaces::getcpu, 2, Full, "";
    310 process_vm_readv boxed crate::process_vm::process_vm_readv, 6, Full, "";
    311 process_vm_writev boxed crate::process_vm::process_vm_writev, 6, Full, "";
    312 kcmp sync crate::process_vm::kcmp, 5, Partial, "KCMP_IO, KCMP_SYSVSEM, KCMP_EPOLL_TFD are missing";
    313 finit_module sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    314 sched_setattr sync crate::scheduling::sched_setattr, 3, Partial, "real-time policies are refused";
    315 sched_getattr sync crate::scheduling::sched_getattr, 4, Full, "";
    316 renameat2 sync crate::link::renameat2, 5, Full, "";
    317 seccomp boxed crate::guest_filter::seccomp, 3, Full, "";
    318 getrandom sync crate::system::getrandom, 3, Full, "";
    319 memfd_create sync crate::fcntl::memfd_create, 2, Partial, "MFD_HUGETLB is missing";
    320 kexec_file_load sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    321 bpf sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    322 execveat boxed crate::exec::execveat, 5, Full, "";
    325 mlock2 sync crate::mm_refused::lock, 2, Full, "native where the arguments are right";
    326 copy_file_range boxed crate::splice::copy_file_range, 6, Full, "";
    327 preadv2 wait crate::file_io::preadv2, 6, Partial, "RWF_ATOMIC is missing";
    328 pwritev2 wait crate::file_io::pwritev2, 6, Partial, "RWF_ATOMIC is missing";
    329 pkey_mprotect sync crate::mm_refused::not_mapped, 2, Full, "native where the arguments are right";
    332 statx sync crate::stat::statx, 5, Full, "";
    333 io_pgetevents boxed crate::aio::io_pgetevents, 6, Full, "";
    424 pidfd_send_signal sync crate::signal::send::pidfd_send_signal, 4, Full, "";
    425 io_uring_setup sync crate::machine::not_permitted, 0, Partial, "the machine is the host's: EPERM";
    426 io_uring_enter sync crate::machine::io_uring, 1, Partial, "not there: as a kernel that was told to refuse it";
    427 io_uring_register sync crate::machine::io_uring, 1, Partial, "not there: as a kernel that was told to refuse it";
    434 pidfd_open sync crate::pidfd::pidfd_open, 2, Partial, "PIDFD_THREAD only of the first thread";
    435 clone3 boxed crate::clone::clone3, 2, Full, "";
    436 close_range sync crate::fd::close_range, 3, Full, "";
    437 openat2 wait crate::open::openat2, 4, Full, "RESOLVE_CACHED answers EAGAIN";
    438 pidfd_getfd sync crate::pidfd::pidfd_getfd, 3, Full, "";
    439 faccessat2 sync crate::attr::faccessat2, 4, Full, "";
    441 epoll_pwait2 wait crate::epoll::epoll_pwait2, 6, Full, "";
    442 mount_setattr sync crate::mount::mount_setattr, 5, Partial, "MOUNT_ATTR_IDMAP: EINVAL; MOUNT_ATTR_RDONLY does not ask for files that are open for writing";
    448 process_mrelease sync crate::pidfd::process_mrelease, 2, Full, "";
    451 cachestat sync crate::sync::cachestat, 4, Partial, "needs a host that has it, but for small files in memory; EPERM for trees that are read-only or only copied on write";
    452 fchmodat2 sync crate::attr::fchmodat2, 4, Full, "";
    462 mseal sync crate::mm_refused::not_mapped, 2, Full, "native where the arguments are right";
    463 setxattrat sync crate::xattr::setxattrat, 6, Partial, "in host directories user.* and trusted.* only, and what else the host lets us";
    464 getxattrat sync crate::xattr::getxattrat, 6, Full, "";
    465 listxattrat sync crate::xattr::listxattrat, 5, Full, "";
    466 removexattrat sync crate::xattr::removexattrat, 4, Full, "";
}
