//! Job control and what ends waits: stops, orphaned groups, native waits, nested stacks.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use libc::*;

use super::signal::{COUNT, action, alarm_ms, block, on, unblock};
use crate::harness::{End, cases, fails, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("job": stop_waits_for_continue, continue_drops_stops, kill_ends_a_stop, handler_of_cont,
    orphaned_group_does_not_stop, orphaned_group_is_hung_up, stop_does_not_end_sleep, futex_wait_fails_with_eintr,
    futex_wait_restarts, autodisarm, stack_overflow_of_alternate_stack, handlers_run_before_the_mask_call_returns,
    sigreturn_of_nothing, bad_stack_kills, two_signals_nest,
    pipelines_of_a_shell, getpid_after_fork, group_of_a_zombie);

/// Waits for a stop of the child.
fn stopped(pid: pid_t) -> i32 {
    let mut status = 0;
    ok!(waitpid(pid, &mut status, WUNTRACED));
    assert!(WIFSTOPPED(status), "{status:#x}");
    WSTOPSIG(status)
}

fn stop_waits_for_continue() {
    let (r, w) = pipe();
    let pid = fork(|| {
        for _ in 0..1000 {
            write(w, b"x");
            sleep_ms(1);
        }
        0
    });
    read(r, 1);
    ok!(kill(pid, SIGSTOP));
    assert_eq!(stopped(pid), SIGSTOP);
    sleep_ms(20);
    ok!(fcntl(r, F_SETFL, O_NONBLOCK));
    let mut buf = [0u8; 4096];
    while sys!(libc::read(r, buf.as_mut_ptr().cast(), buf.len())).is_ok() {}
    sleep_ms(50);
    fails!(EAGAIN, libc::read(r, buf.as_mut_ptr().cast(), 1));
    ok!(fcntl(r, F_SETFL, 0));
    ok!(kill(pid, SIGCONT));
    read(r, 1);
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn continue_drops_stops() {
    let pid = fork(|| {
        ok!(setpgid(0, 0));
        block(&[SIGTSTP]);
        ok!(raise(SIGTSTP));
        ok!(raise(SIGCONT));
        unblock(&[SIGTSTP]);
        5
    });
    assert_eq!(wait(pid), End::Exited(5));
}

fn kill_ends_a_stop() {
    let pid = fork(|| {
        ok!(raise(SIGSTOP));
        0
    });
    assert_eq!(stopped(pid), SIGSTOP);
    ok!(kill(pid, SIGTERM));
    sleep_ms(20);
    assert_eq!(ok!(waitpid(pid, std::ptr::null_mut(), WNOHANG)), 0, "SIGTERM waits for the continue");
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn handler_of_cont() {
    let pid = fork(|| {
        on(SIGCONT, 0);
        ok!(raise(SIGSTOP));
        COUNT.load(Ordering::SeqCst) as i32
    });
    stopped(pid);
    ok!(kill(pid, SIGCONT));
    assert_eq!(wait(pid), End::Exited(1));
}

fn orphaned_group_does_not_stop() {
    let pid = fork(|| {
        // A session of its own has no parent that could continue it.
        ok!(setsid());
        ok!(raise(SIGTSTP));
        6
    });
    assert_eq!(wait(pid), End::Exited(6));
}

fn orphaned_group_is_hung_up() {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(setsid());
        let member = fork(|| {
            ok!(setpgid(0, 0));
            on(SIGHUP, 0);
            ok!(raise(SIGSTOP));
            while COUNT.load(Ordering::SeqCst) == 0 {
                sleep_ms(1);
            }
            write(w, b"hung up");
            0
        });
        stopped(member);
        0
    });
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(read(r, 10), b"hung up");
}

fn stop_does_not_end_sleep() {
    let pid = fork(|| {
        let start = std::time::Instant::now();
        let long = timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        ok!(nanosleep(&long, std::ptr::null_mut()));
        i32::from(start.elapsed().as_millis() < 200)
    });
    sleep_ms(30);
    ok!(kill(pid, SIGSTOP));
    stopped(pid);
    ok!(kill(pid, SIGCONT));
    assert_eq!(wait(pid), End::Exited(0));
}

static WORD: AtomicU32 = AtomicU32::new(0);

fn futex_wait_fails_with_eintr() {
    on(SIGALRM, 0);
    alarm_ms(30);
    fails!(EINTR, syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAIT, 0, 0));
    assert_eq!(COUNT.load(Ordering::SeqCst), 1);
}

fn futex_wait_restarts() {
    on(SIGALRM, SA_RESTART);
    alarm_ms(30);
    let waker = std::thread::spawn(|| {
        block(&[SIGALRM]);
        sleep_ms(120);
        WORD.store(1, Ordering::SeqCst);
        ok!(syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAKE, 1));
    });
    ok!(syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAIT, 0, 0));
    assert_eq!(WORD.load(Ordering::SeqCst), 1);
    waker.join().expect("the thread ends");
}

static FLAGS: AtomicUsize = AtomicUsize::new(99);

extern "C" fn note_flags(_: i32) {
    let mut now: stack_t = zeroed();
    ok!(sigaltstack(std::ptr::null(), &mut now));
    FLAGS.store(now.ss_flags as usize, Ordering::SeqCst);
}

fn alternate(size: usize, flags: i32) {
    let memory = vec![0u8; size].leak();
    let stack = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: flags, ss_size: size };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
}

fn autodisarm() {
    alternate(65_536, 1 << 31);
    let handler = note_flags as extern "C" fn(i32);
    ok!(sigaction(SIGUSR1, &action(handler as sighandler_t, SA_ONSTACK), std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    assert_eq!(FLAGS.load(Ordering::SeqCst), SS_DISABLE as usize, "taken away in the handler");
    let mut now: stack_t = zeroed();
    ok!(sigaltstack(std::ptr::null(), &mut now));
    assert_eq!((now.ss_flags, now.ss_size), (1 << 31, 65_536), "and back after it");
}

fn stack_overflow_of_alternate_stack() {
    let pid = fork(|| {
        alternate(2048, 0);
        on(SIGUSR1, SA_ONSTACK);
        ok!(raise(SIGUSR1));
        0
    });
    // The frame with the extended state does not fit, unless the processor has next to none.
    match wait(pid) {
        End::Killed(SIGSEGV) | End::Exited(0) => {}
        other => panic!("{other:?}"),
    }
}

fn handlers_run_before_the_mask_call_returns() {
    for signal in [SIGUSR1, SIGUSR2, SIGHUP] {
        on(signal, 0);
    }
    for round in 1..=200 {
        block(&[SIGUSR1, SIGUSR2, SIGHUP]);
        for signal in [SIGUSR1, SIGUSR2, SIGHUP] {
            ok!(raise(signal));
        }
        unblock(&[SIGUSR1, SIGUSR2, SIGHUP]);
        assert_eq!(COUNT.load(Ordering::SeqCst), 3 * round);
    }
}

fn sigreturn_of_nothing() {
    let pid = fork(|| {
        // The runtime of Rust has a handler.
        ok!(sigaction(SIGSEGV, &action(SIG_DFL, 0), std::ptr::null_mut()));
        // SAFETY: ends the child: whatever lies on the stack is no frame.
        unsafe {
            std::arch::asm!("xor esp, esp", "mov eax, 15", "syscall", "ud2", options(noreturn));
        }
    });
    assert_eq!(wait(pid), End::Killed(SIGSEGV));
}

fn bad_stack_kills() {
    let pid = fork(|| {
        on(SIGALRM, 0);
        // Again and again: the first may come before the stack is gone.
        let often = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        ok!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
        // SAFETY: the child spins without a stack until the signal finds none.
        unsafe {
            std::arch::asm!("mov rsp, 0x1000", "2: pause", "jmp 2b", options(noreturn));
        }
    });
    assert_eq!(wait(pid), End::Killed(SIGSEGV));
}

fn two_signals_nest() {
    on(SIGUSR1, 0);
    on(SIGUSR2, 0);
    block(&[SIGUSR1, SIGUSR2]);
    ok!(raise(SIGUSR2));
    ok!(raise(SIGUSR1));
    unblock(&[SIGUSR1, SIGUSR2]);
    assert_eq!(COUNT.load(Ordering::SeqCst), 2);
}

/// As a shell starts pipelines: parent and child both set the group, the leader ends soon, SIGCHLD comes at any time.
fn pipelines_of_a_shell() {
    on(SIGCHLD, SA_RESTART);
    for round in 0..300 {
        let mut leader = 0;
        let mut all = Vec::new();
        block(&[SIGCHLD]);
        for member in 0..3 {
            let pid = ok!(libc::fork());
            if pid == 0 {
                let me = ok!(getpid());
                let group = if member == 0 { me } else { leader };
                let done = sys!(setpgid(me, group)).err().unwrap_or(0);
                let ok = done == 0 && ok!(getpgrp()) == group;
                // SAFETY: ends the child.
                unsafe { _exit(if ok { 0 } else { 10 + done }) };
            }
            if member == 0 {
                leader = pid;
            }
            // It may have gone through exec or ended already.
            let _ = sys!(setpgid(pid, leader));
            all.push(pid);
        }
        unblock(&[SIGCHLD]);
        for pid in all {
            assert_eq!(wait(pid), End::Exited(0), "round {round}");
        }
    }
}

/// The ids that the C library asks for are those of this process, also right after a fork.
fn getpid_after_fork() {
    for round in 0..300 {
        for _ in 0..5 {
            ok!(getpid());
        }
        let (r, w) = pipe();
        let pid = fork(|| {
            let mut ids = [0u8; 4];
            assert_eq!(ok!(libc::read(r, ids.as_mut_ptr().cast(), 4)), 4);
            for _ in 0..5 {
                assert_eq!(ok!(getpid()), i32::from_ne_bytes(ids));
            }
            0
        });
        write(w, &pid.to_ne_bytes());
        assert_eq!(wait(pid), End::Exited(0), "round {round}");
        ok!(close(r));
        ok!(close(w));
    }
}

/// A group exists while its last member is a zombie.
fn group_of_a_zombie() {
    let leader = fork(|| {
        ok!(setpgid(0, 0));
        0
    });
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PID, leader as u32, &mut info, WEXITED | WNOWAIT));
    let member = fork(|| {
        ok!(setpgid(0, leader));
        0
    });
    assert_eq!(wait(member), End::Exited(0));
    assert_eq!(wait(leader), End::Exited(0));
    let late = fork(|| {
        fails!(EPERM, setpgid(0, leader));
        0
    });
    assert_eq!(wait(late), End::Exited(0));
}
