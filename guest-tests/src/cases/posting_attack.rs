//! Attacks on calls that are done without an answer: see `posting`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::posting::{epoll_of, pairs, ready, shared_words, warm};
use super::posting_files::{open, pread, stat, until};
use super::tcp::{recv, send};
use crate::harness::{
    End, Temp, cases, close, errno, fails, file, fork, ok, read, sleep_ms, sys, wait, write, zeroed,
};

cases!("posting": two_readers, number_changes_hands, filtered, traced, little_by_little, too_long,
    crowd, no_descriptor, access_times, access_events, own_answer, told_natively, counts_forged);

/// Two threads read one connection, one waits in the call and one by epoll: each byte comes once.
fn two_readers() {
    for (a, b) in pairs() {
        const COUNT: u32 = 20_000;
        let done = Arc::new(AtomicBool::new(false));
        let epoll = epoll_of(&[a]);
        let blocked = std::thread::spawn(move || {
            let mut got = Vec::new();
            loop {
                let data = recv(a, 4, 0).expect("recv");
                if data.is_empty() {
                    return got;
                }
                got.push(u32::from_ne_bytes(data.try_into().expect("whole words")));
            }
        });
        let of_poller = done.clone();
        let poller = std::thread::spawn(move || {
            let mut got = Vec::new();
            while !of_poller.load(Ordering::SeqCst) {
                if ready(epoll, 20).is_empty() {
                    continue;
                }
                match recv(a, 4, libc::MSG_DONTWAIT) {
                    Ok(data) if data.is_empty() => break,
                    Ok(data) => got.push(u32::from_ne_bytes(data.try_into().expect("whole words"))),
                    Err(errno) => assert_eq!(errno, libc::EAGAIN),
                }
            }
            got
        });
        for i in 0..COUNT {
            write(b, &i.to_ne_bytes());
            if i % 3 == 0 {
                std::thread::yield_now();
            }
            if i % 100 == 0 {
                sleep_ms(1);
            }
        }
        ok!(libc::shutdown(b, libc::SHUT_WR));
        let mut all = blocked.join().expect("who waits");
        done.store(true, Ordering::SeqCst);
        all.extend(poller.join().expect("who polls"));
        all.sort_unstable();
        let wrong = all.iter().zip(0..).find(|(got, wanted)| **got != *wanted);
        assert!(all.len() == COUNT as usize && wrong.is_none(), "{} of {COUNT}, {wrong:?}", all.len());
        close(epoll);
    }
}

/// While a thread waits in a read its descriptor becomes another connection's.
fn number_changes_hands() {
    for pair in pairs() {
        let (a, b) = pair;
        let (c, d) = pairs()[1];
        let reader = std::thread::spawn(move || {
            warm(pair);
            for _ in 0..20 {
                write(b, b"go");
                assert_eq!(read(a, 2), b"go");
            }
            // Waits for what comes when its number is another's.
            assert_eq!(read(a, 4), b"last");
            write(a, b"mine");
            assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Ok(b"for c".to_vec()));
        });
        sleep_ms(300);
        write(d, b"for c");
        ok!(libc::dup2(c, a));
        let _ = send(b, b"last", 0);
        reader.join().expect("the reader");
        assert_eq!(recv(d, 10, libc::MSG_DONTWAIT), Ok(b"mine".to_vec()));
        assert_ne!(recv(b, 10, libc::MSG_DONTWAIT), Ok(b"mine".to_vec()));
    }
}

/// Has a call fail with `EPERM` from now on, in this thread or in all.
pub(super) fn refuse(calls: &[libc::c_long], flags: libc::c_ulong) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(statement(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    }
    program.push(statement(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    assert_eq!(
        ok!(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)),
        0
    );
}

/// A thread is granted reads and writes when a filter comes that refuses them.
fn filtered() {
    for (a, b) in pairs() {
        for by_other in [false, true] {
            let child = fork(|| {
                warm((a, b));
                write(b, b"go");
                let epoll = epoll_of(&[a]);
                assert_eq!(ready(epoll, 5000), [a]);
                let calls = [libc::SYS_write, libc::SYS_read, libc::SYS_epoll_ctl];
                if by_other {
                    let done = Arc::new(AtomicU32::new(0));
                    let of_other = done.clone();
                    std::thread::spawn(move || {
                        refuse(&calls, libc::SECCOMP_FILTER_FLAG_TSYNC);
                        of_other.store(1, Ordering::SeqCst);
                        sleep_ms(10_000);
                    });
                    while done.load(Ordering::SeqCst) == 0 {
                        std::hint::spin_loop();
                    }
                } else {
                    refuse(&calls, 0);
                }
                let mut buf = [0_u8; 10];
                // SAFETY: buffers of those lengths.
                unsafe {
                    if libc::write(a, buf.as_ptr().cast(), 3) != -1 || errno() != libc::EPERM {
                        libc::_exit(2);
                    }
                    if libc::read(a, buf.as_mut_ptr().cast(), 10) != -1 || errno() != libc::EPERM {
                        libc::_exit(3);
                    }
                    let mut event: libc::epoll_event = zeroed();
                    if libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, a, &raw mut event) != -1 {
                        libc::_exit(4);
                    }
                    libc::_exit(0)
                }
            });
            assert_eq!(wait(child), End::Exited(0), "by another: {by_other}");
            assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Ok(b"go".to_vec()));
            assert_eq!(recv(b, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        }
    }
}

/// A tracer sees the calls of a thread that was granted them before.
fn traced() {
    for (a, b) in pairs() {
        let child = fork(|| {
            warm((a, b));
            write(b, b"go");
            let epoll = epoll_of(&[a]);
            assert_eq!(ready(epoll, 5000), [a]);
            ok!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0));
            ok!(libc::raise(libc::SIGSTOP));
            write(a, b"x");
            0
        });
        let mut status = 0;
        ok!(libc::waitpid(child, &raw mut status, 0));
        let mut seen = Vec::new();
        while libc::WIFSTOPPED(status) {
            // SAFETY: plain registers.
            let mut regs: libc::user_regs_struct = zeroed();
            ok!(libc::ptrace(libc::PTRACE_GETREGS, child, 0, &raw mut regs));
            seen.push(regs.orig_rax);
            ok!(libc::ptrace(libc::PTRACE_SYSCALL, child, 0, 0));
            ok!(libc::waitpid(child, &raw mut status, 0));
        }
        assert!(seen.contains(&(libc::SYS_write as u64)), "{seen:?}");
        assert_eq!(recv(b, 10, 0), Ok(b"x".to_vec()));
        assert_eq!(recv(a, 10, 0), Ok(b"go".to_vec()));
    }
}

/// Microseconds of the monotonic clock.
fn now() -> u32 {
    let mut time: libc::timespec = zeroed();
    ok!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time));
    (time.tv_sec as u32).wrapping_mul(1_000_000).wrapping_add(time.tv_nsec as u32 / 1000)
}

/// Who writes a byte now and then, and goes on with that, is heard soon.
fn little_by_little() {
    const ROUNDS: usize = 20;
    const BYTES: usize = 400;
    for (a, b) in pairs() {
        // TCP would put them together until the first is acknowledged.
        let _ = super::tcp::set(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        let shared = shared_words();
        let child = fork(|| {
            warm((a, b));
            let epoll = epoll_of(&[a]);
            write(b, b"warm");
            for _ in 0..ROUNDS {
                assert_eq!(ready(epoll, 5000), [a]);
                assert_eq!(read(a, 10).len(), 4);
                // The other is asleep by then.
                let start = now();
                while now().wrapping_sub(start) < 4000 {
                    std::hint::spin_loop();
                }
                let start = now();
                shared[0].store(1, Ordering::SeqCst);
                for i in 0..BYTES as u32 {
                    write(a, b"x");
                    while now().wrapping_sub(start) < 100 * i {
                        std::hint::spin_loop();
                    }
                }
            }
            0
        });
        while shared[0].load(Ordering::SeqCst) == 0 {
            sleep_ms(1);
        }
        let mut pieces = [0; ROUNDS];
        for pieces in &mut pieces {
            let mut got = 0;
            while got < BYTES {
                got += read(b, 4096).len();
                *pieces += 1;
            }
            let _ = send(b, b"next", libc::MSG_NOSIGNAL);
        }
        // In 40 ms. On a busy machine who reads has to wait for a CPU most of the time.
        assert!(pieces.iter().any(|pieces| *pieces >= 12), "{pieces:?}");
        assert_eq!(wait(child), End::Exited(0));
    }
}

/// Lengths beyond the address space.
fn too_long() {
    for (a, b) in pairs() {
        warm((a, b));
        let epoll = epoll_of(&[a]);
        write(b, b"go");
        assert_eq!(ready(epoll, 5000), [a]);
        let mut buf = [0_u8; 10];
        // SAFETY: no length that fits: refused.
        let result = unsafe { (libc::read(a, buf.as_mut_ptr().cast(), usize::MAX), errno()) };
        assert_eq!(result, (-1, libc::EFAULT));
        assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Ok(b"go".to_vec()));
    }
}

/// Many threads that were granted something and sleep cost the others nothing.
fn crowd() {
    const THREADS: usize = 300;
    let ends: Vec<_> = (0..THREADS).map(|_| pairs()[1]).collect();
    let threads: Vec<_> = ends
        .iter()
        .map(|(a, b)| {
            let (a, b) = (*a, *b);
            std::thread::spawn(move || {
                let epoll = epoll_of(&[a]);
                for _ in 0..20 {
                    write(b, b"go");
                    assert_eq!(ready(epoll, 20_000), [a]);
                    assert_eq!(read(a, 10), b"go");
                    write(a, b"x");
                }
                while !read(a, 10).is_empty() {
                    write(a, b"y");
                }
                close(epoll);
            })
        })
        .collect();
    for (_, b) in &ends {
        let mut got = 0;
        while got < 20 {
            got += read(*b, 100).len();
        }
        write(*b, b"go");
        assert_eq!(read(*b, 10), b"y");
    }
    ends.iter().for_each(|(_, b)| close(*b));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    ends.iter().for_each(|(a, _)| close(*a));
}

/// So many times until calls on files are done without an answer.
const FILES: usize = 200;

/// -1 is no descriptor, whatever was told of others before.
fn no_descriptor() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"content");
    let child = fork(|| {
        // Of this one -1 has the place.
        let other = open(&path, libc::O_RDONLY);
        while ok!(libc::dup(other)) < 510 {}
        for i in 0..FILES {
            let fd = open(&path, libc::O_RDONLY);
            assert_eq!(fd, 511);
            assert_eq!(stat(fd).st_size, 7);
            if i % 2 == 0 {
                assert_eq!(read(fd, 3), b"con");
            }
            close(fd);
            let mut buf = [0u8; 256];
            fails!(libc::EBADF, libc::close(-1));
            fails!(libc::EBADF, libc::fstat(-1, buf.as_mut_ptr().cast()));
            fails!(libc::EBADF, libc::ioctl(-1, libc::TCGETS, buf.as_mut_ptr()));
            fails!(libc::EBADF, libc::read(-1, buf.as_mut_ptr().cast(), 2));
            fails!(libc::EBADF, libc::pread(-1, buf.as_mut_ptr().cast(), 2, 0));
            fails!(libc::EBADF, libc::lseek(-1, 0, libc::SEEK_CUR));
            fails!(libc::EBADF, libc::write(-1, buf.as_ptr().cast(), 2));
        }
        0
    });
    assert_eq!(wait(child), End::Exited(0));
}

/// Who opens a file has not read it: mail that was not read yet is known by that.
fn access_times() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"mail");
    let times = [1_000, 2_000].map(|tv_sec| libc::timespec { tv_sec, tv_nsec: 0 });
    ok!(libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0));
    for _ in 0..FILES {
        let fd = open(&path, libc::O_RDONLY);
        assert_eq!(stat(fd).st_atime, 1_000);
        close(fd);
    }
    let fd = open(&path, libc::O_RDONLY);
    assert_eq!(read(fd, 10), b"mail");
    assert!(stat(fd).st_atime > 1_000);
    close(fd);
}

/// Each way to read a file is told to who watches it.
fn access_events() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"content");
    let watcher = ok!(libc::inotify_init1(libc::IN_NONBLOCK));
    for way in 0..3 {
        for i in 0..FILES {
            if i == FILES - 1 {
                ok!(libc::inotify_add_watch(watcher, path.as_ptr(), libc::IN_ACCESS | libc::IN_CLOSE));
            }
            let fd = open(&path, libc::O_RDONLY);
            match way {
                0 => assert_eq!(read(fd, 3), b"con"),
                1 => assert_eq!(pread(fd, 3, 1), b"ont"),
                _ => assert_eq!(stat(fd).st_size, 7),
            }
            close(fd);
        }
        let events: Vec<u32> = read(watcher, 16_384)
            .chunks_exact(16)
            .map(|event| u32::from_ne_bytes(event[4..8].try_into().expect("a mask")))
            .collect();
        let wanted = [libc::IN_ACCESS, libc::IN_CLOSE_NOWRITE];
        assert_eq!(events, wanted[usize::from(way == 2)..], "way {way}");
        ok!(libc::inotify_rm_watch(watcher, way + 1));
        let _ = read(watcher, 1000);
    }
    close(watcher);
}

/// Who holds both ends of a connection finds at one what it has just written to the other.
fn own_answer() {
    for (a, b) in pairs() {
        for fd in [a, b] {
            let _ = super::tcp::set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        }
        let epoll = epoll_of(&[a, b]);
        for i in 0..FILES {
            for (from, to) in [(a, b), (b, a)] {
                write(from, b"1");
                if i % 2 == 0 {
                    assert_eq!(ready(epoll, 5000), [to]);
                }
                assert_eq!(recv(to, 10, libc::MSG_DONTWAIT), Ok(b"1".to_vec()));
                if i % 3 == 0 {
                    assert_eq!(recv(to, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
                }
                write(from, b"2");
                assert_eq!(recv(to, 10, libc::MSG_DONTWAIT), Ok(b"2".to_vec()), "round {i}");
                assert_eq!(recv(to, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
            }
        }
        close(epoll);
        close(a);
        close(b);
    }
}

/// What another process has sent is there for who learns of it without any system call.
fn told_natively() {
    let word = &shared_words()[0];
    for (a, b) in pairs() {
        let _ = super::tcp::set(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        word.store(0, Ordering::SeqCst);
        const STEPS: u32 = 5 * FILES as u32;
        let child = fork(|| {
            let epoll = epoll_of(&[a]);
            for step in 1..=STEPS {
                write(a, b"ping");
                assert_eq!(ready(epoll, 5000), [a]);
                assert_eq!(read(a, 100), b"pong");
                write(a, b"more");
                word.store(step, Ordering::SeqCst);
            }
            0
        });
        let epoll = epoll_of(&[b]);
        for step in 1..=STEPS {
            assert_eq!(ready(epoll, 5000), [b]);
            assert_eq!(read(b, 4), b"ping");
            if step % 2 == 0 {
                assert_eq!(recv(b, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
            }
            write(b, b"pong");
            until(word, step);
            assert_eq!(recv(b, 4, libc::MSG_DONTWAIT), Ok(b"more".to_vec()), "step {step}");
        }
        assert_eq!(wait(child), End::Exited(0));
        assert_eq!(recv(b, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        for fd in [epoll, a, b] {
            close(fd);
        }
    }
}

/// Where what processes have posted to each other is counted, for all of them, in the sandbox's own memory.
const COUNTS: std::ops::Range<usize> = 0x7e00_1800_0000..0x7e00_1800_4000;

/// A process that forges these counts keeps nobody from hearing of what others have sent.
fn counts_forged() {
    let forger = fork(|| {
        ok!(libc::setrlimit(libc::RLIMIT_CORE, &zeroed()));
        ok!(libc::alarm(5));
        for value in (0..=u32::MAX).step_by(0x10_0001).cycle() {
            for at in COUNTS.step_by(16) {
                // SAFETY: on purpose: the sandbox's own memory, if there is any.
                unsafe { (at as *mut u32).write_volatile(value & 0xff) };
            }
        }
        0
    });
    for (a, b) in pairs() {
        super::tcp::nonblocking(b);
        let child = fork(|| {
            let epoll = epoll_of(&[a]);
            for _ in 0..10 * FILES {
                assert_eq!(ready(epoll, 5000), [a]);
                assert_eq!(read(a, 100), b"ping");
                write(a, b"pong");
            }
            0
        });
        let epoll = epoll_of(&[b]);
        for step in 0..10 * FILES {
            write(b, b"ping");
            if step % 2 == 0 {
                assert_eq!(ready(epoll, 5000), [b]);
            }
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while recv(b, 100, 0) == Err(libc::EAGAIN) {
                assert!(std::time::Instant::now() < end, "step {step}");
            }
        }
        assert_eq!(wait(child), End::Exited(0));
        for fd in [epoll, a, b] {
            close(fd);
        }
    }
    let _ = sys!(libc::kill(forger, libc::SIGKILL));
    wait(forger);
}
