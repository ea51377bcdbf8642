//! Writes to the end of files, sizes that are asked for, options of connections and reads that find nothing, all done
//! without waiting for the kernel process.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::posting::{epoll_of, pairs, ready, shared_words};
use super::posting_files::{WARM, open, position, pread, stat, until};
use super::tcp::{connected, recv};
use crate::harness::{End, Temp, cases, close, fails, file, fork, ok, read, sleep_ms, wait, write, zeroed};

cases!("posting": size_is_asked, read_until_dry, sent_is_there, end_is_not_missed, logs, log_is_seen,
    log_is_mapped, log_keeps_order, log_number_changes_hands, log_loses_append, options, limited_log, sealed_log);

/// lseek(2) to the end tells a size that others have just changed, and moves the position that others share.
fn size_is_asked() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"0123456789");
    let fd = open(&path, libc::O_RDWR);
    let end = |fd: RawFd| ok!(libc::lseek(fd, 0, libc::SEEK_END));
    let words = shared_words();
    words[0].store(0, Ordering::SeqCst);
    words[1].store(0, Ordering::SeqCst);
    let of_child = path.clone();
    let pid = fork(|| {
        let fd = open(&of_child, libc::O_RDWR);
        for step in 1..=WARM as u32 {
            until(&words[0], step);
            if step % 3 == 0 {
                ok!(libc::ftruncate(fd, i64::from(step)));
            } else {
                assert_eq!(ok!(libc::pwrite(fd, c"x".as_ptr().cast(), 1, i64::from(step) + 99)), 1);
            }
            words[1].store(step, Ordering::SeqCst);
        }
        0
    });
    let mut size = 10;
    for step in 1..=WARM as u32 {
        for _ in 0..5 {
            assert_eq!(end(fd), size);
        }
        words[0].store(step, Ordering::SeqCst);
        until(&words[1], step);
        size = if step % 3 == 0 { i64::from(step) } else { size.max(i64::from(step) + 100) };
        assert_eq!(end(fd), size);
        assert!(read(fd, 10).is_empty());
        if step % 7 == 0 {
            ok!(libc::lseek(fd, 1, libc::SEEK_SET));
            assert_eq!(read(fd, 1).len(), 1);
            assert_eq!((position(fd), end(fd), position(fd)), (2, size, size));
            let copy = ok!(libc::dup(fd));
            assert_eq!(position(copy), size);
            close(copy);
        }
    }
    assert_eq!(wait(pid), End::Exited(0));
    for _ in 0..10 {
        assert_eq!(end(fd), size);
    }
    assert_eq!(wait(fork(|| i32::from(position(fd) != size))), End::Exited(0));
    write(fd, b"behind");
    assert_eq!(end(fd), size + 6);
    close(fd);
    fails!(libc::EBADF, libc::lseek(fd, 0, libc::SEEK_END));
}

fn set_nonblocking(fd: RawFd, on: bool) {
    ok!(libc::fcntl(fd, libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 }));
}

/// Who reads until nothing is there finds what has come meanwhile, if it was told; and waits where it should.
fn read_until_dry() {
    let words = shared_words();
    for (unix, (a, b)) in [false, true].into_iter().zip(pairs()) {
        if !unix {
            // Or the second of two writes waits for the answer to the first.
            let on = 1i32;
            let at = (&raw const on).cast();
            ok!(libc::setsockopt(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, at, 4));
        }
        for flag in [false, true] {
            words[0].store(0, Ordering::SeqCst);
            words[1].store(0, Ordering::SeqCst);
            set_nonblocking(b, flag);
            let dontwait = if flag { 0 } else { libc::MSG_DONTWAIT };
            let epoll = epoll_of(&[b]);
            let thread = std::thread::spawn(move || {
                for step in 1..=WARM as u32 {
                    until(&words[0], step);
                    if step % 3 != 0 {
                        write(a, b"more");
                    }
                    words[1].store(step, Ordering::SeqCst);
                }
            });
            for step in 1..=WARM as u32 {
                write(a, b"first");
                assert_eq!(ready(epoll, 5000), [b]);
                assert_eq!(recv(b, 100, dontwait), Ok(b"first".to_vec()));
                if step % 5 == 0 {
                    assert_eq!(recv(b, 100, dontwait), Err(libc::EAGAIN));
                }
                words[0].store(step, Ordering::SeqCst);
                until(&words[1], step);
                if step % 3 != 0 {
                    assert_eq!(recv(b, 100, dontwait), Ok(b"more".to_vec()), "step {step}");
                }
                assert_eq!(recv(b, 100, dontwait), Err(libc::EAGAIN));
                assert_eq!(recv(b, 100, dontwait), Err(libc::EAGAIN));
                write(b, b"answer");
                assert_eq!(recv(b, 100, dontwait), Err(libc::EAGAIN));
                assert_eq!(recv(a, 100, 0), Ok(b"answer".to_vec()));
            }
            thread.join().expect("the thread");
            close(epoll);
        }
        // Who may wait does.
        set_nonblocking(b, false);
        let thread = std::thread::spawn(move || {
            sleep_ms(20);
            write(a, b"late");
        });
        assert_eq!(recv(b, 100, 0), Ok(b"late".to_vec()));
        thread.join().expect("the thread");
        close(a);
        close(b);
    }
}

/// What a thread has sent at one end waits at the other at once, whoever has just found nothing there.
fn sent_is_there() {
    for (unix, (a, b)) in [false, true].into_iter().zip(pairs()) {
        if !unix {
            for end in [a, b] {
                let on = 1i32;
                ok!(libc::setsockopt(end, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), 4));
            }
        }
        let epoll = epoll_of(&[a, b]);
        for step in 0..2 * WARM {
            write(a, b"to b");
            write(b, b"to a");
            while ready(epoll, 5000).len() < 2 {}
            for (end, sent) in [(a, b"to a"), (b, b"to b")] {
                assert_eq!(recv(end, 100, libc::MSG_DONTWAIT), Ok(sent.to_vec()));
            }
            if step % 2 == 1 {
                assert_eq!(recv(b, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
            }
            write(a, b"more");
            assert_eq!(recv(b, 100, libc::MSG_DONTWAIT), Ok(b"more".to_vec()), "step {step}, unix {unix}");
        }
        for fd in [epoll, a, b] {
            close(fd);
        }
    }
}

/// The end of a connection is seen by who reads until nothing is there, by each kind of epoll.
fn end_is_not_missed() {
    for flags in
        [libc::EPOLLIN, libc::EPOLLIN | libc::EPOLLET, libc::EPOLLIN | libc::EPOLLET | libc::EPOLLRDHUP]
    {
        for unix in [false, true] {
            let epoll = ok!(libc::epoll_create1(0));
            for round in 0..60 {
                let (a, b) = pairs()[usize::from(unix)];
                set_nonblocking(b, true);
                let mut event = libc::epoll_event { events: flags as u32, u64: b as u64 };
                ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, b, &raw mut event));
                for _ in 0..10 {
                    write(a, b"?");
                    assert_eq!(ready(epoll, 5000), [b]);
                    assert_eq!(recv(b, 100, 0), Ok(b"?".to_vec()));
                    assert_eq!(recv(b, 100, 0), Err(libc::EAGAIN));
                }
                write(a, b"last");
                if round % 2 == 0 {
                    ok!(libc::shutdown(a, libc::SHUT_WR));
                }
                assert_eq!(ready(epoll, 5000), [b]);
                assert_eq!(recv(b, 100, 0), Ok(b"last".to_vec()));
                if round % 2 == 0 {
                    assert_eq!(recv(b, 100, 0), Ok(Vec::new()));
                    close(a);
                } else {
                    assert_eq!(recv(b, 100, 0), Err(libc::EAGAIN));
                    close(a);
                    assert_eq!(ready(epoll, 5000), [b]);
                    assert_eq!(recv(b, 100, 0), Ok(Vec::new()));
                }
                close(b);
            }
            close(epoll);
        }
    }
}

/// What was added to a log is seen by every other descriptor of it, whatever was asked there before.
fn log_is_seen() {
    let temp = Temp::new();
    let path = temp.join("log");
    let log = open(&path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT);
    let kept = open(&path, libc::O_RDWR);
    let end = |fd: RawFd| ok!(libc::lseek(fd, 0, libc::SEEK_END));
    let mut size = 0;
    for step in 0..2 * WARM {
        let fd = open(&path, libc::O_RDONLY);
        for line in [b"first".as_slice(), b"other"] {
            assert_eq!(stat(fd).st_size, size, "step {step}");
            write(log, line);
            size += 5;
            assert_eq!(stat(fd).st_size, size, "step {step}");
            assert_eq!(pread(fd, 10, size - 5), line);
            if step % 2 == 0 {
                assert_eq!((end(kept), end(fd)), (size, size));
            }
        }
        assert_eq!(end(kept), size);
        write(log, b"last\n");
        size += 5;
        assert_eq!((end(kept), end(kept)), (size, size));
        close(fd);
    }
    for fd in [log, kept] {
        close(fd);
    }
}

/// What was added to a log is in memory to which the log is mapped.
fn log_is_mapped() {
    let temp = Temp::new();
    for (shared, early) in [(true, true), (true, false), (false, false)] {
        let path = file(&temp, if early { "early" } else { "late" }, b"");
        let log = open(&path, libc::O_RDWR | libc::O_APPEND);
        let fd = open(&path, libc::O_RDONLY);
        let mut at = 0;
        if !early {
            for _ in 0..WARM {
                write(log, b"x");
                at += 1;
            }
        }
        let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let map = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, kind, fd, 0)).cast::<u8>();
        for _ in 0..WARM {
            write(log, b"y");
            // SAFETY: within the page, of which the file has this byte by now.
            assert_eq!(unsafe { map.add(at).read_volatile() }, b'y', "at {at}");
            at += 1;
        }
        ok!(libc::munmap(map.cast(), 4096));
        for fd in [log, fd] {
            close(fd);
        }
        ok!(libc::unlink(path.as_ptr()));
    }
}

/// Threads that add to a log by turns find their lines in that order, whoever's descriptors those are.
fn log_keeps_order() {
    const THREADS: u32 = 3;
    const LINES: u32 = 9_000;
    let temp = Temp::new();
    for shared in [false, true] {
        let path = temp.join(if shared { "shared" } else { "log" });
        let log = || open(&path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT);
        let logs = [log(), log(), log()];
        let next = &AtomicU32::new(0);
        std::thread::scope(|scope| {
            for (id, log) in (0..THREADS).zip(logs) {
                let log = if shared { logs[0] } else { log };
                scope.spawn(move || {
                    for number in (id..LINES).step_by(THREADS as usize) {
                        while next.load(Ordering::SeqCst) != number {
                            std::thread::yield_now();
                        }
                        write(log, format!("{number}\n").as_bytes());
                        next.store(number + 1, Ordering::SeqCst);
                    }
                });
            }
        });
        let fd = open(&path, libc::O_RDONLY);
        let text = read(fd, 20 * LINES as usize);
        let mut lines = text.split(|byte| *byte == b'\n');
        for number in 0..LINES {
            let line = String::from_utf8_lossy(lines.next().unwrap_or_default());
            assert_eq!(line, number.to_string(), "shared {shared}");
        }
        for fd in logs {
            close(fd);
        }
        close(fd);
    }
}

/// Two processes add to one log by a descriptor that they share, two threads by others: each line is whole, in its
/// writer's order, and there as soon as it is told.
fn logs() {
    const LINES: u32 = 2_000;
    let temp = Temp::new();
    let path = temp.join("log");
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT;
    let shared = open(&path, flags);
    let words = shared_words();
    words[0].store(0, Ordering::SeqCst);
    let add = |fd: RawFd, name: char| {
        for i in 0..LINES {
            let line = format!("{name} {i} {}\n", "x".repeat(i as usize % 70));
            if i % 5 == 0 {
                let (head, tail) = line.split_at(3);
                let pieces = [head, tail].map(|part| libc::iovec {
                    iov_base: part.as_ptr().cast_mut().cast(),
                    iov_len: part.len(),
                });
                assert_eq!(ok!(libc::writev(fd, pieces.as_ptr(), 2)), line.len() as isize);
            } else {
                write(fd, line.as_bytes());
            }
            if name == 'a' {
                words[0].store(i + 1, Ordering::SeqCst);
            }
        }
    };
    let children = [
        fork(|| {
            add(shared, 'a');
            0
        }),
        fork(|| {
            add(shared, 'b');
            0
        }),
    ];
    let threads = ['c', 'd'].map(|name| {
        let fd = open(&path, flags);
        std::thread::spawn(move || {
            add(fd, name);
            close(fd);
        })
    });
    // What was told is there.
    loop {
        let told = words[0].load(Ordering::SeqCst);
        let text = std::fs::read_to_string(temp.path().join("log")).expect("the log");
        let seen = text.lines().filter(|line| line.starts_with("a ")).count() as u32;
        assert!(seen >= told, "{seen} of {told}");
        if told == LINES {
            break;
        }
    }
    for pid in children {
        assert_eq!(wait(pid), End::Exited(0));
    }
    for thread in threads {
        thread.join().expect("a thread");
    }
    let text = std::fs::read_to_string(temp.path().join("log")).expect("the log");
    for name in ['a', 'b', 'c', 'd'] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(lines.len(), LINES as usize);
        for (i, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("{name} {i} {}", "x".repeat(i % 70)));
        }
    }
    close(shared);
}

/// Another thread gives the number of a log to another file: what is written then goes there.
fn log_number_changes_hands() {
    let temp = Temp::new();
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT;
    for round in 0..30 {
        let (first, second) = (temp.join(&format!("a{round}")), temp.join(&format!("b{round}")));
        let log = open(&first, flags);
        let other = open(&second, flags);
        let step = Arc::new(AtomicU32::new(0));
        let of_thread = step.clone();
        let thread = std::thread::spawn(move || {
            until(&of_thread, 1);
            ok!(libc::dup2(other, log));
            of_thread.store(2, Ordering::SeqCst);
        });
        for _ in 0..WARM {
            write(log, b"1\n");
        }
        step.store(1, Ordering::SeqCst);
        until(&step, 2);
        for _ in 0..WARM {
            write(log, b"22\n");
        }
        thread.join().expect("the thread");
        let size = |path: &CStr| {
            let mut stat = zeroed::<libc::stat>();
            ok!(libc::stat(path.as_ptr(), &raw mut stat));
            stat.st_size as usize
        };
        assert_eq!((size(&first), size(&second)), (2 * WARM, 3 * WARM));
        close(log);
        close(other);
    }
}

/// Without `O_APPEND` writes go where the position is.
fn log_loses_append() {
    let temp = Temp::new();
    let path = temp.join("log");
    let fd = open(&path, libc::O_RDWR | libc::O_APPEND | libc::O_CREAT);
    for _ in 0..WARM {
        write(fd, b"0123");
    }
    ok!(libc::fcntl(fd, libc::F_SETFL, 0));
    ok!(libc::lseek(fd, 2, libc::SEEK_SET));
    write(fd, b"ABCD");
    assert_eq!(pread(fd, 8, 0), b"01ABCD23");
    assert_eq!((position(fd), stat(fd).st_size as usize), (6, 4 * WARM));
    ok!(libc::ftruncate(fd, 0));
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_APPEND));
    for _ in 0..WARM {
        write(fd, b"x");
    }
    assert_eq!(stat(fd).st_size as usize, WARM);
    close(fd);
}

/// setsockopt(2) of TCP between writes.
fn options() {
    let option = |fd: RawFd, name: i32| {
        let (mut value, mut len) = (0i32, 4u32);
        ok!(libc::getsockopt(fd, libc::IPPROTO_TCP, name, (&raw mut value).cast(), &raw mut len));
        value
    };
    let set = |fd: RawFd, name: i32, value: i32| {
        ok!(libc::setsockopt(fd, libc::IPPROTO_TCP, name, (&raw const value).cast(), 4));
    };
    let (a, b) = connected();
    let epoll = epoll_of(&[b]);
    for i in 0..WARM {
        write(a, b"?");
        assert_eq!(ready(epoll, 5000), [b]);
        assert_eq!(read(b, 10), b"?");
        set(b, libc::TCP_CORK, 1);
        write(b, b"head ");
        write(b, b"body");
        if i % 7 == 0 {
            assert_eq!(option(b, libc::TCP_CORK), 1);
            assert_eq!(recv(a, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN), "it is corked");
        }
        set(b, libc::TCP_CORK, 0);
        set(b, libc::TCP_NODELAY, i as i32 % 2);
        assert_eq!(recv(a, 100, 0), Ok(b"head body".to_vec()));
        if i % 5 == 0 {
            assert_eq!((option(b, libc::TCP_CORK), option(b, libc::TCP_NODELAY)), (0, i as i32 % 2));
        }
    }
    let value = 1i32;
    let tcp = libc::IPPROTO_TCP;
    fails!(libc::EFAULT, libc::setsockopt(b, tcp, libc::TCP_CORK, 8 as *const libc::c_void, 4));
    fails!(libc::EINVAL, libc::setsockopt(b, tcp, libc::TCP_CORK, (&raw const value).cast(), 3));
    fails!(libc::ENOPROTOOPT, libc::setsockopt(b, tcp, 999, (&raw const value).cast(), 4));
    close(a);
    close(b);
    close(epoll);
}

/// A limit to the size of files holds from the call on that sets it.
fn limited_log() {
    let temp = Temp::new();
    let path = temp.join("log");
    for other in [false, true] {
        let log = open(&path, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_TRUNC);
        let child = fork(|| {
            ok!(libc::signal(libc::SIGXFSZ, libc::SIG_IGN) as isize);
            for _ in 0..WARM {
                write(log, b"line");
            }
            let set = || {
                let limit = libc::rlimit { rlim_cur: 4 * WARM as u64 + 5, rlim_max: libc::RLIM_INFINITY };
                ok!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit));
            };
            if other {
                let words = shared_words();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        set();
                        words[0].store(1, Ordering::SeqCst);
                    });
                    until(&words[0], 1);
                });
            } else {
                set();
            }
            let mut written = [c"line".as_ptr().cast(); 3].map(|line| {
                // SAFETY: four bytes.
                let n = unsafe { libc::write(log, line, 4) };
                if n < 0 { -crate::harness::errno() as isize } else { n }
            });
            written[2] += libc::EFBIG as isize;
            assert_eq!(written, [4, 1, 0]);
            0
        });
        assert_eq!(wait(child), End::Exited(0));
        assert_eq!(stat(log).st_size as usize, 4 * WARM + 5);
        close(log);
    }
}

/// What may not be written any more is not.
fn sealed_log() {
    let log = ok!(libc::memfd_create(c"log".as_ptr(), libc::MFD_ALLOW_SEALING));
    ok!(libc::fcntl(log, libc::F_SETFL, libc::O_APPEND));
    for _ in 0..WARM {
        write(log, b"line");
    }
    ok!(libc::fcntl(log, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    fails!(libc::EPERM, libc::write(log, c"line".as_ptr().cast(), 4));
    assert_eq!(stat(log).st_size as usize, 4 * WARM);
    close(log);
}
