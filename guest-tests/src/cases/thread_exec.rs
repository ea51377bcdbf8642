//! execve(2) by one thread of several: the others end.

use std::sync::{Arc, Barrier};
use std::thread;

use crate::harness::{End, cases, fork, ok, pipe, read, sleep_ms, wait};

cases!("thread": exec_ends_threads, exec_while_threads_begin, exec_gives_the_first_id, exec_ends_busy_threads);

fn exec_ends_threads() {
    let (r, w) = pipe();
    let pid = fork(|| {
        let leader = ok!(libc::getpid());
        ok!(libc::dup2(w, 1));
        // Exec from a second thread: it takes the leader's id.
        thread::spawn(|| {
            let argv = [c"sh".as_ptr(), c"-c".as_ptr(), c"echo $$".as_ptr(), std::ptr::null()];
            ok!(libc::execv(c"/bin/sh".as_ptr(), argv.as_ptr()));
        });
        sleep_ms(10_000);
        leader
    });
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(read(r, 32), format!("{pid}\n").as_bytes());
}

/// What exec leaves is the first thread of the process, whichever called it.
fn exec_gives_the_first_id() {
    let (r, w) = pipe();
    for leader_lives in [true, false] {
        let pid = fork(|| {
            ok!(libc::dup2(w, 1));
            let others = if leader_lives { 4 } else { 1 };
            for _ in 0..others {
                thread::spawn(move || {
                    if !leader_lives {
                        sleep_ms(50);
                    }
                    // Several at once: one of them wins.
                    let argv = [c"readlink".as_ptr(), c"/proc/thread-self".as_ptr(), std::ptr::null()];
                    ok!(libc::execv(c"/usr/bin/readlink".as_ptr(), argv.as_ptr()));
                });
            }
            if !leader_lives {
                ok!(libc::syscall(libc::SYS_exit, 0));
            }
            sleep_ms(10_000);
            1
        });
        assert_eq!(wait(pid), End::Exited(0));
        assert_eq!(String::from_utf8(read(r, 64)).expect("text"), format!("{pid}/task/{pid}\n"));
    }
}

/// Threads that call all the time hear at once that they end, before the last of them has been told.
fn exec_ends_busy_threads() {
    for round in 0..30 {
        let pid = fork(|| {
            let begun = Arc::new(Barrier::new(9));
            for _ in 0..8 {
                let begun = Arc::clone(&begun);
                thread::spawn(move || {
                    begun.wait();
                    loop {
                        ok!(libc::getppid());
                    }
                });
            }
            begun.wait();
            let execute = || {
                let argv = [c"true".as_ptr(), std::ptr::null()];
                ok!(libc::execv(c"/usr/bin/true".as_ptr(), argv.as_ptr()));
            };
            // By the first thread, or by another.
            if round % 2 == 0 {
                execute();
            }
            thread::spawn(execute).join().expect("joined");
            1
        });
        assert_eq!(wait(pid), End::Exited(0), "round {round}");
    }
}

/// A program that is executed while another thread makes threads is not killed with what it replaces.
fn exec_while_threads_begin() {
    for _ in 0..40 {
        let pid = fork(|| {
            thread::spawn(|| {
                let argv = [c"true".as_ptr(), std::ptr::null()];
                ok!(libc::execv(c"/usr/bin/true".as_ptr(), argv.as_ptr()));
            });
            loop {
                // Refused in the middle of the other's exec.
                let _ = thread::Builder::new().spawn(|| {});
            }
        });
        assert_eq!(wait(pid), End::Exited(0));
    }
}
