//! Filters that ask a listener, with many who ask and answer, and with files that are handed over: seccomp_unotify(2).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use libc::*;

use super::seccomp_notify::{ADDFD, Add, SETFD, add, call, caller, is_valid, listen, receive, send};
use crate::harness::{End, cases, close, fails, fork, ok, pipe, sleep_ms, sys, wait, write};

cases!("seccomp_notify_files": many_at_once, answers_by_many, added, added_as_answer, add_errors, add_to_the_full, added_listener, add_to_the_dead);

const ADD_AND_SEND: u32 = 2;

/// Many wait; they are answered in the order of their ids, and each hears its own answer.
fn many_at_once() {
    let listener = listen(SYS_getsid, 0);
    let threads: Vec<_> = (0..100).map(|n| std::thread::spawn(move || call(n))).collect();
    let mut calls: Vec<_> = (0..100).map(|_| receive(listener)).collect();
    assert!(calls.windows(2).all(|two| two[1].id == two[0].id.wrapping_add(1)));
    calls.reverse();
    for notif in calls {
        assert_eq!(send(listener, notif.id, notif.args[0] as i64 + 1000, 0, 0), Ok(0));
    }
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().expect("joined"), Ok(n as i64 + 1000));
    }
}

/// Several listen to the same descriptor, and everybody tries to answer everything.
fn answers_by_many() {
    let listener = listen(SYS_getsid, 0);
    let answered = std::sync::Arc::new(AtomicI32::new(0));
    let listeners: Vec<_> = (0..4)
        .map(|_| {
            let answered = answered.clone();
            std::thread::spawn(move || {
                loop {
                    let notif = receive(listener);
                    if notif.args[0] == 9999 {
                        let _ = send(listener, notif.id, 0, 0, 0);
                        return;
                    }
                    for near in [notif.id.wrapping_sub(1), notif.id, notif.id.wrapping_add(1)] {
                        if near == notif.id {
                            // Before: the caller goes on with the answer.
                            answered.fetch_add(1, SeqCst);
                            assert_eq!(send(listener, near, notif.args[0] as i64, 0, 0), Ok(0));
                        } else {
                            assert!(send(listener, near, 0, 0, 2).is_err());
                        }
                    }
                }
            })
        })
        .collect();
    let callers: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                for round in 0..50 {
                    assert_eq!(call(n * 100 + round), Ok(n * 100 + round));
                }
            })
        })
        .collect();
    for thread in callers {
        thread.join().expect("joined");
    }
    assert_eq!(answered.load(SeqCst), 400);
    for _ in 0..4 {
        call(9999).expect("an answer");
    }
    for thread in listeners {
        thread.join().expect("joined");
    }
}

/// The end of a pipe that was handed over can be read.
fn reads_x(fd: i32) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte.
    unsafe { libc::read(fd, (&raw mut byte).cast(), 1) == 1 && byte == b'x' }
}

fn added() {
    let listener = listen(SYS_getsid, 0);
    let pid = fork(|| {
        for fd in 3..20 {
            let _ = sys!(libc::close(fd));
        }
        let first = call(0).expect("a value") as i32;
        assert_eq!(first, 3);
        assert_eq!(ok!(fcntl(3, F_GETFD)), 0);
        assert_eq!(ok!(fcntl(60, F_GETFD)), FD_CLOEXEC);
        i32::from(reads_x(3) && reads_x(60))
    });
    let notif = receive(listener);
    let (end, other) = pipe();
    write(other, b"xx");
    assert_eq!(add(listener, notif.id, end, 0, 0), Ok(3));
    let with = Add {
        id: notif.id,
        flags: SETFD,
        src: end as u32,
        new: 60,
        new_flags: O_CLOEXEC as u32,
        ..Add::default()
    };
    assert_eq!(ok!(ioctl(listener, ADDFD, &with)), 60);
    // Over what is there.
    let (wrong, _held) = pipe();
    assert_eq!(add(listener, notif.id, wrong, 61, SETFD), Ok(61));
    assert_eq!(add(listener, notif.id, end, 61, SETFD), Ok(61));
    assert!(is_valid(listener, notif.id));
    assert_eq!(send(listener, notif.id, 3, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(1));
}

fn added_as_answer() {
    let listener = listen(SYS_getsid, 0);
    let pid = fork(|| call(0).map_or(0, |fd| i32::from(fd == 50 && reads_x(50))));
    let id = receive(listener).id;
    let (end, other) = pipe();
    write(other, b"x");
    assert_eq!(add(listener, id, end, 50, SETFD | ADD_AND_SEND), Ok(50));
    assert!(matches!(send(listener, id, 1, 0, 0), Err(ENOENT | EINPROGRESS)));
    assert_eq!(wait(pid), End::Exited(1));
}

fn add_errors() {
    let listener = listen(SYS_getsid, 0);
    let pid = caller();
    let id = receive(listener).id;
    let (end, _other) = pipe();
    assert_eq!(add(listener, id, end, 0, 4), Err(EINVAL));
    assert_eq!(add(listener, id, end, 5, 0), Err(EINVAL));
    assert_eq!(add(listener, id, 12345, 0, 0), Err(EBADF));
    let path = ok!(open(c"/".as_ptr(), O_PATH));
    assert_eq!(add(listener, id, path, 0, 0), Err(EBADF));
    assert_eq!(add(listener, id, end, 1 << 30, SETFD), Err(EBADF));
    let flags = Add { id, src: end as u32, new_flags: 1, ..Add::default() };
    fails!(EINVAL, ioctl(listener, ADDFD, &flags));
    fails!(EFAULT, ioctl(listener, ADDFD, 8));
    // Of other sizes: too small, larger with nothing and with something behind.
    let sized = |size: c_ulong| (ADDFD & !(0x3fff << 16)) | size << 16;
    let mut fine = Add { id, src: end as u32, ..Add::default() };
    fails!(EINVAL, ioctl(listener, sized(23), &fine));
    fails!(EINVAL, ioctl(listener, sized(0), &fine));
    fails!(EINVAL, ioctl(listener, sized(4096), &fine));
    assert!(ok!(ioctl(listener, sized(32), &fine)) > 2);
    fine.more = 1;
    fails!(E2BIG, ioctl(listener, sized(32), &fine));
    assert_eq!(send(listener, id, 2, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(2));
}

/// Where there is no room the caller waits for another answer.
fn add_to_the_full() {
    let listener = listen(SYS_getsid, 0);
    let pid = fork(|| {
        let none = rlimit { rlim_cur: 3, rlim_max: 3 };
        for fd in 3..20 {
            let _ = sys!(libc::close(fd));
        }
        ok!(setrlimit(RLIMIT_NOFILE, &none));
        call(0).map_or(0, |value| value as i32)
    });
    let id = receive(listener).id;
    let (end, _other) = pipe();
    assert_eq!(add(listener, id, end, 0, ADD_AND_SEND), Err(EMFILE));
    assert_eq!(add(listener, id, end, 7, SETFD | ADD_AND_SEND), Err(EBADF));
    assert!(is_valid(listener, id));
    assert_eq!(send(listener, id, 15, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(15));
}

/// The caller is handed its own listener, over another descriptor of it.
fn added_listener() {
    let listener = listen(SYS_getsid, 0);
    let pid = fork(|| call(0).map_or(0, |fd| i32::from(fd == i64::from(listener))));
    let id = receive(listener).id;
    assert_eq!(add(listener, id, listener, listener as u32, SETFD | ADD_AND_SEND), Ok(listener));
    assert_eq!(wait(pid), End::Exited(1));
    // The caller has the last one, and closes it by what it is handed.
    let (end, _other) = pipe();
    let closer = fork(|| {
        let first = fork(|| {
            // Nobody else: answered when the listener goes.
            call(0).map_or_else(|errno| errno, |_| 0)
        });
        let id = receive(listener).id;
        assert_eq!(add(listener, id, end, listener as u32, SETFD), Ok(listener));
        close(listener);
        match wait(first) {
            End::Exited(code) => code,
            End::Killed(_) => 1,
        }
    });
    // Ours keeps it alive until here.
    sleep_ms(20);
    close(listener);
    assert_eq!(wait(closer), End::Exited(ENOSYS));
}

/// Files are handed to callers that are killed meanwhile.
fn add_to_the_dead() {
    let listener = listen(SYS_getsid, 0);
    let (end, _other) = pipe();
    for round in 0..50 {
        let pid = caller();
        let id = receive(listener).id;
        let killer = std::thread::spawn(move || {
            for _ in 0..round * 100 {
                std::hint::spin_loop();
            }
            ok!(kill(pid, SIGKILL));
        });
        let result = (0..20).map(|_| add(listener, id, end, 0, 0)).find(|result| result.is_err());
        assert!(matches!(result, None | Some(Err(ENOENT | ESRCH | EMFILE))), "{result:?}");
        killer.join().expect("joined");
        assert_eq!(wait(pid), End::Killed(SIGKILL));
    }
}
