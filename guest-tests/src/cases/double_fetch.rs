//! Arguments that change while the kernel reads them: another thread writes over them without end. What a call makes
//! of it is open; it answers, and nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{End, Temp, cases, fork, in_child, ok, pipe, read, sys, wait, write, zeroed};

cases!("double_fetch": vectors, messages, received_messages, control_messages, paths, program_arguments, clone_arguments,
    signal_frames, polls, times, addresses, options, filters, asynchronous_io, semaphores_and_queues, other_memory, slots);

const ROUND: Duration = Duration::from_millis(80);
/// Words of the block that is written over.
const WORDS: usize = 512;

/// A block of memory that a thread writes over.
struct Block {
    at: *mut u64,
}

impl Block {
    /// The address of a word.
    fn word(&self, index: usize) -> *mut u64 {
        assert!(index < WORDS);
        // SAFETY: within the block.
        unsafe { self.at.add(index) }
    }
    fn set(&self, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            // SAFETY: `word` checks; the block lives for ever, and is raced for on purpose.
            unsafe { self.word(i).write_volatile(*word) };
        }
    }
}

/// Runs `call` again and again while the block changes between the versions; a process of its own, which must end
/// well. Whatever the calls answer is well.
fn race(versions: &[Vec<u64>], mut call: impl FnMut(&Block)) {
    let pid = fork(|| {
        let at = ok!(mmap(
            std::ptr::null_mut(),
            WORDS * 8,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0
        ));
        let block = Block { at: at.cast() };
        block.set(&versions[0]);
        let stop = AtomicBool::new(false);
        let address = at as usize;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let block = Block { at: address as *mut u64 };
                while !stop.load(Ordering::Relaxed) {
                    for version in versions {
                        block.set(version);
                    }
                }
            });
            let end = Instant::now() + ROUND;
            while Instant::now() < end {
                for _ in 0..20 {
                    call(&block);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        0
    });
    assert_eq!(wait(pid), End::Exited(0));
    witness();
}

/// Calls, children and pipes still work.
fn witness() {
    let (r, w) = pipe();
    in_child(|| write(w, b"fine"));
    assert_eq!(read(r, 10), b"fine");
    ok!(close(r));
    ok!(close(w));
}

const BUFFER: usize = 8192;
static mut SPACE: [u8; BUFFER] = [0; BUFFER];

/// Memory that calls may read and write.
fn space() -> u64 {
    (&raw mut SPACE) as u64
}

fn nonblocking_pipe() -> (i32, i32) {
    let mut ends = [0; 2];
    ok!(pipe2(ends.as_mut_ptr(), O_NONBLOCK));
    (ends[0], ends[1])
}

fn sockets(kind: i32) -> (i32, i32) {
    let mut ends = [0; 2];
    ok!(socketpair(AF_UNIX, kind | SOCK_NONBLOCK, 0, ends.as_mut_ptr()));
    (ends[0], ends[1])
}

fn vectors() {
    let s = space();
    let versions = [
        vec![s, 16, s, 4096, s, 1],
        vec![0, u64::MAX, 8, 1 << 62, s, 1 << 31],
        vec![s, i64::MAX as u64, u64::MAX, 0, 1 << 47, 4096],
    ];
    let (r, w) = nonblocking_pipe();
    let temp = Temp::new();
    let path = temp.join("file");
    let file = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o600));
    race(&versions, |b| {
        let list = b.at;
        let _ = sys!(syscall(SYS_writev, w, list, 3));
        let _ = sys!(syscall(SYS_readv, r, list, 3));
        let _ = sys!(syscall(SYS_preadv, file, list, 3, 0, 0));
        let _ = sys!(syscall(SYS_preadv2, file, list, 3, 0, 0, 0));
        let _ = sys!(syscall(SYS_vmsplice, w, list, 3, SPLICE_F_NONBLOCK));
        let _ = sys!(syscall(SYS_process_vm_readv, getpid_raw(), list, 3, list, 3, 0));
    });
    // Small writes only: what is written to the file stays small.
    let versions = [vec![s, 16, s, 96], vec![0, u64::MAX, 8, 64]];
    race(&versions, |b| {
        let _ = sys!(syscall(SYS_pwritev, file, b.at, 2, 0, 0));
    });
}

fn getpid_raw() -> i32 {
    ok!(syscall(SYS_getpid)) as i32
}

/// A header at word 0, a vector at word 16, control data at word 32, a name at word 64.
fn header(b: &Block) -> *mut msghdr {
    b.at.cast()
}

/// Words of a `struct msghdr` and what it points to; `at` is not known before the block is made.
fn message(name: u64, name_len: u64, vector: u64, count: u64, control: u64, control_len: u64) -> Vec<u64> {
    vec![name, name_len, vector, count, control, control_len, 0]
}

fn messages() {
    let s = space();
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = sockets(kind);
        let versions = [
            message(0, 0, s, 1, 0, 0),
            message(s, 110, s, 2, s, 64),
            message(s, 0xffff_ffff, s, 1024, s, 1 << 62),
            message(8, 16, 8, u64::MAX, 8, 16),
            message(s, 3, s, 1025, s, 15),
        ];
        // The vector and the control data are zeroes: empty pieces, or malformed.
        race(&versions, |block| {
            let _ = sys!(sendmsg(a, header(block), MSG_NOSIGNAL | MSG_DONTWAIT));
            let _ = sys!(syscall(SYS_sendmmsg, a, block.at, 4, MSG_NOSIGNAL | MSG_DONTWAIT));
            let mut sink = [0u8; 256];
            let _ = sys!(recv(b, sink.as_mut_ptr().cast(), sink.len(), MSG_DONTWAIT));
        });
    }
}

fn received_messages() {
    let s = space();
    let vector = [iovec { iov_base: s as *mut _, iov_len: 64 }, iovec { iov_base: s as *mut _, iov_len: 64 }];
    let v = vector.as_ptr() as u64;
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let (a, b) = sockets(kind);
        let on = 1;
        ok!(setsockopt(b, SOL_SOCKET, SO_PASSCRED, (&raw const on).cast(), 4));
        let versions = [
            message(0, 0, v, 1, s, 128),
            message(s, 128, v, 2, s, 17),
            message(8, 0xffff_ffff, 8, 1, 8, u64::MAX),
            message(s, 1, v, 0, 0, 1 << 40),
        ];
        race(&versions, |block| {
            let _ = sys!(send(a, s as *const _, 32, MSG_DONTWAIT | MSG_NOSIGNAL));
            let _ = sys!(recvmsg(b, header(block), MSG_DONTWAIT));
            let none = std::ptr::null::<timespec>();
            let _ = sys!(syscall(SYS_recvmmsg, b, block.at, 3, MSG_DONTWAIT, none));
        });
    }
}

fn control_messages() {
    let s = space();
    let (a, b) = sockets(SOCK_STREAM);
    let rights = u64::from(SOL_SOCKET as u32) | (SCM_RIGHTS as u64) << 32;
    let credentials = u64::from(SOL_SOCKET as u32) | 2 << 32;
    let fd = a as u64;
    let versions = [
        vec![20, rights, fd, 0],
        vec![16 + 4 * 253, rights, fd, 0],
        vec![16 + 4 * 254, rights, fd | fd << 32, 0],
        vec![28, credentials, 0, 0],
        vec![u64::MAX, rights, u64::MAX, 17],
        vec![0, 0, 0, 0],
        vec![16, u64::MAX, 1, 1 << 63],
        vec![24, 3 << 32, fd, 24],
    ];
    race(&versions, |block| {
        let mut vector = iovec { iov_base: s as *mut _, iov_len: 8 };
        for len in [24, 1040, 4096] {
            let mut m: msghdr = zeroed();
            (m.msg_iov, m.msg_iovlen) = (&raw mut vector, 1);
            (m.msg_control, m.msg_controllen) = (block.at.cast(), len);
            let _ = sys!(sendmsg(a, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
        }
        // Received without room for descriptors: they are closed again.
        let mut sink = [0u8; 64];
        while sys!(recv(b, sink.as_mut_ptr().cast(), sink.len(), MSG_DONTWAIT)).is_ok_and(|n| n > 0) {}
    });
}

/// Bytes as words, the rest of `len` words filled.
fn text(bytes: &[u8], fill: u8, words: usize) -> Vec<u64> {
    let mut all = bytes.to_vec();
    all.resize(words * 8, fill);
    all.chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().expect("eight"))).collect()
}

fn paths() {
    let temp = Temp::new();
    ok!(chdir(temp.join(".").as_ptr()));
    // From a short name to one without an end within PATH_MAX.
    let versions = [
        text(b"a\0", 0, WORDS),
        text(b"dir/../a", 0, WORDS),
        text(b"dir/b", b'b', WORDS),
        text(b"./", b'/', WORDS),
        text(b"", 0, WORDS),
        text(b"..", b'.', WORDS),
    ];
    race(&versions, |b| {
        let path = b.at;
        if let Ok(fd) = sys!(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0)) {
            ok!(close(fd as i32));
        }
        let (mut stat, mut statx): (stat, statx) = (zeroed(), zeroed());
        let _ = sys!(syscall(SYS_stat, path, &raw mut stat));
        let _ = sys!(syscall(SYS_statx, AT_FDCWD, path, 0, 0x7ff, &raw mut statx));
        let _ = sys!(syscall(SYS_access, path, R_OK));
        let _ = sys!(syscall(SYS_readlink, path, space(), 64));
        let _ = sys!(syscall(SYS_symlink, path, c"link".as_ptr()));
        let _ = sys!(syscall(SYS_readlink, c"link".as_ptr(), space(), 64));
        let _ = sys!(syscall(SYS_unlink, c"link".as_ptr()));
        let _ = sys!(syscall(SYS_getxattr, path, path, space(), 64));
        let _ = sys!(syscall(SYS_inotify_add_watch, -1, path, 1));
    });
}

fn program_arguments() {
    let s = space();
    let long = "x".repeat(100_000);
    let long = std::ffi::CString::new(long).expect("no NUL");
    let l = long.as_ptr() as u64;
    let versions = [vec![s, s, 0, 0], vec![l; 64], vec![s, 8, l, u64::MAX, l, l, 0], vec![l, l, l, l, l, 0]];
    // No such program, so that the process goes on.
    race(&versions, |b| {
        let _ = sys!(syscall(SYS_execve, c"/nowhere/at/all".as_ptr(), b.at, b.at));
        let _ = sys!(syscall(SYS_execveat, -1, c"x".as_ptr(), b.at, b.at, 0));
    });
    // The strings themselves: their ends come and go.
    let versions = [text(b"a\0b", 0, WORDS - 1), text(b"a", b'a', WORDS - 1)];
    race(&versions, |b| {
        let list = [b.at as u64, b.at as u64, 0];
        let _ = sys!(syscall(SYS_execve, c"/nowhere/at/all".as_ptr(), list.as_ptr(), list.as_ptr()));
    });
}

fn clone_arguments() {
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup: all
    // of them are refused, whichever way they are put together.
    let versions = [
        vec![CLONE_SIGHAND as u64, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0],
        vec![CLONE_THREAD as u64, 8, 8, 8, 1 << 40, 0, 1, u64::MAX, 8, 33, 0],
        vec![u64::MAX, 0, 0, 0, 65, 8, 0, 0, 0, 0, u64::MAX],
        vec![CLONE_SIGHAND as u64 | 0x2_0000_0000, 0, 0, 0, 0, 0, 0, 0, 8, 1, 9],
    ];
    race(&versions, |b| {
        for size in [64, 80, 88, 4096, 0] {
            assert!(sys!(syscall(SYS_clone3, b.at, size)).is_err());
        }
    });
}

/// A handler whose frame another thread writes over until the very return.
fn signal_frames() {
    static FRAME: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    extern "C" fn handler(_: i32, _: *mut siginfo_t, frame: *mut c_void) {
        FRAME.store(frame as usize, Ordering::SeqCst);
        for _ in 0..200 {
            std::hint::spin_loop();
        }
    }
    const VALUES: [u64; 8] =
        [0, 8, u64::MAX, 0x8000_0000_0000, 0xffff_8000_0000_0000, 0x7e02_0000_0000, 0x2b, 0x46_5058_5354];
    for part in [0..5usize, 5..28, 28..32, 22..24, 21..22, 29..160] {
        for value in VALUES {
            let pid = fork(|| {
                ok!(setrlimit(RLIMIT_CORE, &zeroed()));
                ok!(alarm(2));
                let mut action: sigaction = zeroed();
                action.sa_sigaction = handler as extern "C" fn(i32, *mut siginfo_t, *mut c_void) as usize;
                action.sa_flags = SA_SIGINFO;
                ok!(sigaction(SIGUSR1, &action, std::ptr::null_mut()));
                let part = part.clone();
                std::thread::spawn(move || {
                    loop {
                        let frame = FRAME.load(Ordering::SeqCst) as *mut u64;
                        if !frame.is_null() {
                            for i in part.clone() {
                                // SAFETY: on purpose: a word of a frame that may be in use.
                                unsafe {
                                    let old = frame.add(i).read_volatile();
                                    frame.add(i).write_volatile(value);
                                    frame.add(i).write_volatile(old);
                                }
                            }
                        }
                    }
                });
                let end = Instant::now() + Duration::from_millis(8);
                while Instant::now() < end {
                    ok!(raise(SIGUSR1));
                }
                // SAFETY: ends the process with its thread.
                unsafe { _exit(0) }
            });
            // As likely as not it dies of it.
            wait(pid);
        }
    }
    witness();
}

fn polls() {
    let (r, w) = nonblocking_pipe();
    let epoll = ok!(epoll_create1(0));
    let versions = [
        vec![r as u64 | 1 << 32, w as u64 | 4 << 32, 0],
        vec![u64::MAX, 0x7fff_ffff, u64::MAX],
        vec![0x1fff_ffff << 8, epoll as u64 | 1 << 32, 1 << 63],
    ];
    race(&versions, |b| {
        let zero = timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = sys!(syscall(SYS_poll, b.at, 3, 0));
        let _ = sys!(syscall(SYS_ppoll, b.at, 3, &raw const zero, 0, 8));
        // An event may name flags, data and nothing.
        for op in [EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL] {
            let _ = sys!(syscall(SYS_epoll_ctl, epoll, op, r, b.at));
        }
        let _ = sys!(syscall(SYS_epoll_wait, epoll, b.at, 4, 0));
        let mut zero = timeval { tv_sec: 0, tv_usec: 0 };
        let _ = sys!(syscall(SYS_select, 1024, b.at, b.word(32), b.word(64), &raw mut zero));
    });
}

fn times() {
    ok!(signal(SIGALRM, SIG_IGN) as isize);
    let versions = [
        vec![0, 1, 0, 1],
        vec![0, 999_999_999, 0, 1000],
        vec![u64::MAX, u64::MAX, 1 << 63, 1 << 62],
        vec![0, 1_000_000_000, 0, 1_000_000],
    ];
    race(&versions, |b| {
        let mut id = 0i32;
        if sys!(syscall(SYS_timer_create, CLOCK_MONOTONIC, std::ptr::null::<u8>(), &raw mut id)).is_ok() {
            let _ = sys!(syscall(SYS_timer_settime, id, 1, b.at, b.word(8)));
            let _ = sys!(syscall(SYS_timer_delete, id));
        }
        let fd = ok!(timerfd_create(CLOCK_MONOTONIC, 0));
        let _ = sys!(syscall(SYS_timerfd_settime, fd, 0, b.at, b.word(8)));
        ok!(close(fd));
        let _ = sys!(syscall(SYS_utimensat, AT_FDCWD, c"/nowhere".as_ptr(), b.at, 0));
        let _ = sys!(syscall(SYS_getitimer, ITIMER_REAL, b.at));
        let _ = sys!(syscall(SYS_futex, b.word(100), 0x80, 1, b.at, 0, 0));
        let _ = sys!(syscall(SYS_rt_sigtimedwait, b.word(100), 0, b.word(101), 8));
        let _ = sys!(syscall(SYS_prlimit64, 0, 99, b.at, b.word(8)));
        let _ = sys!(syscall(SYS_sched_setattr, 0, b.at, 0));
    });
}

fn addresses() {
    let udp = ok!(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    let unix = ok!(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    let loopback = u64::from_ne_bytes([2, 0, 0, 9, 127, 0, 0, 1]);
    let versions = [
        vec![loopback, 0, 16],
        vec![1 | 0x6161 << 16, u64::MAX, 0xffff_ffff],
        vec![0xffff, 0, 0],
        vec![10, 1 << 56, 28],
    ];
    race(&versions, |b| {
        for (fd, len) in [(udp, 16), (udp, 28), (unix, 12), (unix, 110)] {
            let _ = sys!(syscall(SYS_sendto, fd, space(), 4, MSG_DONTWAIT | MSG_NOSIGNAL, b.at, len));
            let _ = sys!(syscall(SYS_connect, fd, b.at, len));
        }
        // The length itself changes.
        let _ = sys!(syscall(SYS_getsockname, udp, space(), b.word(2)));
        let _ = sys!(syscall(SYS_getpeername, unix, space(), b.word(2)));
        let _ = sys!(syscall(SYS_recvfrom, udp, space(), 64, MSG_DONTWAIT, space(), b.word(2)));
        let _ = sys!(syscall(SYS_getsockopt, udp, SOL_SOCKET, SO_RCVBUF, space(), b.word(2)));
    });
}

fn options() {
    let udp = ok!(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    let (tty, _) = (sys!(open(c"/dev/ptmx".as_ptr(), O_RDWR | O_NOCTTY)), ());
    let versions =
        [vec![0, 16, 1, space()], vec![u64::MAX; 16], vec![1 << 31, 1 << 40, 0x6f6c, 8], vec![4096, space()]];
    race(&versions, |b| {
        for option in 1..80 {
            let _ = sys!(syscall(SYS_setsockopt, udp, SOL_SOCKET, option, b.at, 16));
        }
        for option in 1..60 {
            let _ = sys!(syscall(SYS_setsockopt, udp, IPPROTO_IP, option, b.at, 64));
        }
        // SIOCGIFCONF and requests about one interface.
        for request in [0x8912u64, 0x8913, 0x8915, 0x8921, 0x8927] {
            let _ = sys!(syscall(SYS_ioctl, udp, request, b.at));
        }
        if let Ok(tty) = tty {
            for request in [TIOCGPTN, TCGETS, TIOCGWINSZ, TIOCSWINSZ, TIOCSPTLCK, FIONREAD] {
                let _ = sys!(syscall(SYS_ioctl, tty, request, b.at));
            }
        }
    });
}

fn filters() {
    // struct sock_fprog at word 0, a filter at word 8 (its address is told to the block when it is known). All are
    // refused without no_new_privs or as bad filters: the process stays free.
    let good = 0x7fff_0000_0000_0006u64;
    let versions = [
        vec![1, space()],
        vec![0xffff, space()],
        vec![4096, 8],
        vec![2, u64::MAX],
        vec![0, 0],
        vec![4097, good],
    ];
    race(&versions, |b| {
        let _ = sys!(syscall(SYS_seccomp, 1, 2, b.at));
        let _ = sys!(syscall(SYS_prctl, PR_SET_SECCOMP, 2, b.at, 0, 0));
        let _ = sys!(syscall(SYS_seccomp, 2, 0, b.at));
        let _ = sys!(syscall(SYS_capget, b.at, b.word(8)));
        let _ = sys!(syscall(SYS_getgroups, 100_000, b.at));
    });
}

fn asynchronous_io() {
    let temp = Temp::new();
    let path = temp.join("file");
    let file = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o600)) as u64;
    // struct iocb: data, key, opcode and priority, fd, buffer, bytes, offset, reserved, flags and resfd.
    let s = space();
    let versions = [
        vec![1, 0, file << 32, s, 64, 0, 0, 0],
        vec![2, u64::MAX, 7 | file << 32, s, 1 << 40, u64::MAX, u64::MAX, u64::MAX],
        vec![3, 0, 8 | file << 32, 8, 1025, 0, 0, 1],
        vec![4, 0, 2 | 0xffff << 32, 0, 0, 1 << 63, 0, 1 | 0xffff << 32],
    ];
    race(&versions, |b| {
        let mut context = 0u64;
        if sys!(syscall(SYS_io_setup, 8, &raw mut context)).is_err() {
            return;
        }
        let list = [b.at as u64, b.at as u64, 8];
        let _ = sys!(syscall(SYS_io_submit, context, 3, list.as_ptr()));
        let mut events = [0u64; 32];
        let zero = timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = sys!(syscall(SYS_io_getevents, context, 0, 8, events.as_mut_ptr(), &raw const zero));
        let _ = sys!(syscall(SYS_io_cancel, context, b.at, events.as_mut_ptr()));
        let _ = sys!(syscall(SYS_io_destroy, context));
    });
}

fn semaphores_and_queues() {
    let versions = [
        vec![0x0800_0001_0000, 0, 16, 16, 0, 0, 0, 0],
        vec![u64::MAX; 12],
        vec![0x0800_ffff_0001, 1 << 63, 0, 1 << 40, 3, 0],
        vec![1, 0, 10, 128],
    ];
    race(&versions, |b| {
        let sems = ok!(semget(IPC_PRIVATE, 2, 0o600));
        for count in [1, 2, 500, 501] {
            let zero = timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = sys!(syscall(SYS_semtimedop, sems, b.at, count, &raw const zero));
        }
        let _ = sys!(syscall(SYS_semctl, sems, 0, 17, b.at));
        let _ = sys!(syscall(SYS_semctl, sems, 0, 1, b.at));
        ok!(semctl(sems, 0, IPC_RMID));
        let queue = ok!(msgget(IPC_PRIVATE, 0o600));
        for len in [0, 8, 8000] {
            let _ = sys!(syscall(SYS_msgsnd, queue, b.at, len, IPC_NOWAIT));
        }
        let _ = sys!(syscall(SYS_msgrcv, queue, b.at, 64, 0, IPC_NOWAIT));
        let _ = sys!(syscall(SYS_msgctl, queue, 1, b.at));
        ok!(msgctl(queue, IPC_RMID, std::ptr::null_mut()));
        // struct mq_attr: flags, messages, size.
        if let Ok(queue) =
            sys!(syscall(SYS_mq_open, c"double-fetch".as_ptr(), O_CREAT | O_RDWR | O_NONBLOCK, 0o600, b.at))
        {
            let _ = sys!(syscall(SYS_mq_getsetattr, queue, b.at, b.word(16)));
            ok!(close(queue as i32));
            ok!(syscall(SYS_mq_unlink, c"double-fetch".as_ptr()));
        }
    });
}

fn other_memory() {
    let s = space();
    let versions = [
        vec![s, 64, s, 64],
        vec![0x7e02_0000_0000, 4096, 0x7e00_0000_0000, 4096],
        vec![u64::MAX, u64::MAX, 8, 1 << 63],
    ];
    let own = getpid_raw();
    race(&versions, |b| {
        let local = iovec { iov_base: s as *mut _, iov_len: 128 };
        let _ = sys!(syscall(SYS_process_vm_readv, own, &raw const local, 1, b.at, 2, 0));
        let _ = sys!(syscall(SYS_process_vm_readv, own, b.at, 2, b.at, 2, 0));
        let _ = sys!(syscall(SYS_mincore, s & !4095, 4096, b.at));
        let _ = sys!(syscall(SYS_move_pages, 0, 2, b.at, 0, b.word(32), 0));
        // struct futex_waitv, never as it is there.
        let past = timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = sys!(syscall(SYS_futex_waitv, b.at, 2, 0, &raw const past, CLOCK_MONOTONIC));
    });
}

/// Where the sandbox keeps what a thread's calls travel in; nothing is there on Linux, and the attacker dies of it.
const SLOTS: usize = 0x7e02_0000_0000;
const SLOT_SIZE: usize = 0x3_9000;

fn slots() {
    let temp = Temp::new();
    let path = temp.join("file");
    // All but the call's number: pieces, action; arguments; answer; pieces; who and where; data; the next slot.
    let parts: [(usize, usize); 7] =
        [(0, 8), (16, 64), (64, 192), (192, 1024), (1024, 4096), (4096, 8192), (SLOT_SIZE, SLOT_SIZE + 4096)];
    for (from, to) in parts {
        for seed in 1..4u64 {
            let pid = fork(|| {
                ok!(setrlimit(RLIMIT_CORE, &zeroed()));
                ok!(alarm(2));
                // What goes out of these is no report of the case.
                let null = ok!(libc::open(c"/dev/null".as_ptr(), O_RDWR));
                (0..3).for_each(|fd| assert_eq!(ok!(dup2(null, fd)), fd));
                let (r, w) = nonblocking_pipe();
                std::thread::spawn(move || {
                    let mut random = seed;
                    loop {
                        for at in (SLOTS + from..SLOTS + to).step_by(8) {
                            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                            let value = match random >> 61 {
                                0 => 0,
                                1 => u64::MAX,
                                2 => random >> 40 & 0xff,
                                3 => SLOTS as u64 + (random >> 40 & 0xfff8),
                                4 => 1 << (random >> 40 & 63),
                                _ => random,
                            };
                            // SAFETY: on purpose: the sandbox's own memory, if there is any.
                            unsafe { (at as *mut u64).write_volatile(value) };
                        }
                    }
                });
                let end = Instant::now() + Duration::from_millis(60);
                let mut stat: stat = zeroed();
                while Instant::now() < end {
                    let _ = sys!(write_raw(w));
                    let _ = sys!(libc::read(r, space() as *mut _, 100));
                    let _ = sys!(libc::stat(path.as_ptr(), &mut stat));
                    let _ = sys!(libc::getpgid(0));
                    let _ = sys!(syscall(SYS_rt_sigprocmask, SIG_BLOCK, space(), space(), 8));
                }
                // SAFETY: ends the process with its thread.
                unsafe { _exit(0) }
            });
            wait(pid);
        }
        witness();
    }
}

/// write(2) of what is surely there.
unsafe fn write_raw(fd: i32) -> isize {
    // SAFETY: the space is larger.
    unsafe { libc::write(fd, space() as *const _, 100) }
}
