//! Signals that are waited for: sigwait, sigtimedwait, signalfd.

use libc::*;

use super::signal::{alarm_ms, block, on, set, take};
use crate::harness::{cases, fails, fork, ok, read, sleep_ms, sys, wait, zeroed};

cases!("signal_wait": sigtimedwait_times_out, sigtimedwait_zero_polls, lowest_first, sigwait_wakes,
    interrupted_by_other, bad_timeout, signalfd_reads, signalfd_nonblocking, signalfd_many, signalfd_poll,
    signalfd_update, signalfd_errors);

fn sigtimedwait_times_out() {
    block(&[SIGUSR1]);
    let start = std::time::Instant::now();
    let short = timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    fails!(EAGAIN, sigtimedwait(&set(&[SIGUSR1]), std::ptr::null_mut(), &short));
    assert!(start.elapsed().as_millis() >= 30);
}

fn sigtimedwait_zero_polls() {
    block(&[SIGUSR1]);
    let none: timespec = zeroed();
    fails!(EAGAIN, sigtimedwait(&set(&[SIGUSR1]), std::ptr::null_mut(), &none));
    ok!(raise(SIGUSR1));
    assert_eq!(ok!(sigtimedwait(&set(&[SIGUSR1]), std::ptr::null_mut(), &none)), SIGUSR1);
}

fn lowest_first() {
    let (low, high) = (SIGRTMIN() + 1, SIGRTMIN() + 5);
    block(&[low, high, SIGUSR1]);
    for signal in [high, low, SIGUSR1] {
        ok!(kill(ok!(getpid()), signal));
    }
    let all = set(&[low, high, SIGUSR1]);
    let order: Vec<i32> = (0..3).map(|_| ok!(sigwaitinfo(&all, std::ptr::null_mut()))).collect();
    assert_eq!(order, [SIGUSR1, low, high]);
}

fn sigwait_wakes() {
    block(&[SIGUSR1]);
    let parent = ok!(getpid());
    let pid = fork(|| {
        sleep_ms(20);
        ok!(kill(parent, SIGUSR1));
        0
    });
    take(SIGUSR1);
    wait(pid);
}

fn interrupted_by_other() {
    on(SIGALRM, SA_RESTART);
    block(&[SIGUSR1]);
    alarm_ms(20);
    fails!(EINTR, sigwaitinfo(&set(&[SIGUSR1]), std::ptr::null_mut()));
}

fn bad_timeout() {
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    fails!(EINVAL, sigtimedwait(&set(&[SIGUSR1]), std::ptr::null_mut(), &bad));
}

fn descriptor(signals: &[i32], flags: i32) -> i32 {
    ok!(signalfd(-1, &set(signals), flags))
}

fn signalfd_reads() {
    block(&[SIGUSR1]);
    let fd = descriptor(&[SIGUSR1], SFD_CLOEXEC);
    let value = sigval { sival_ptr: 77 as *mut c_void };
    ok!(sigqueue(ok!(getpid()), SIGUSR1, value));
    let mut info: signalfd_siginfo = zeroed();
    assert_eq!(ok!(libc::read(fd, (&raw mut info).cast(), 128)), 128);
    assert_eq!((info.ssi_signo as i32, info.ssi_code, info.ssi_int), (SIGUSR1, SI_QUEUE, 77));
    assert_eq!(info.ssi_pid, ok!(getpid()) as u32);
}

fn signalfd_nonblocking() {
    block(&[SIGUSR1]);
    let fd = descriptor(&[SIGUSR1], SFD_NONBLOCK);
    let mut info: signalfd_siginfo = zeroed();
    fails!(EAGAIN, libc::read(fd, (&raw mut info).cast(), 128));
    fails!(EINVAL, libc::read(fd, (&raw mut info).cast(), 127));
}

fn signalfd_many() {
    let signal = SIGRTMIN() + 1;
    block(&[signal]);
    let fd = descriptor(&[signal], 0);
    for _ in 0..3 {
        ok!(kill(ok!(getpid()), signal));
    }
    assert_eq!(read(fd, 128 * 2).len(), 256);
    assert_eq!(read(fd, 128 * 2).len(), 128);
}

fn signalfd_poll() {
    block(&[SIGCHLD]);
    let fd = descriptor(&[SIGCHLD], 0);
    let mut entry = pollfd { fd, events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut entry, 1, 0)), 0);
    let pid = fork(|| 4);
    assert_eq!(ok!(poll(&mut entry, 1, 5000)), 1);
    let mut info: signalfd_siginfo = zeroed();
    ok!(libc::read(fd, (&raw mut info).cast(), 128));
    assert_eq!((info.ssi_pid, info.ssi_status, info.ssi_code), (pid as u32, 4, CLD_EXITED));
    wait(pid);
}

fn signalfd_update() {
    block(&[SIGUSR1, SIGUSR2]);
    let fd = descriptor(&[SIGUSR1], SFD_NONBLOCK);
    ok!(raise(SIGUSR2));
    assert_eq!(sys!(libc::read(fd, [0u8; 128].as_mut_ptr().cast(), 128)), Err(EAGAIN));
    assert_eq!(ok!(signalfd(fd, &set(&[SIGUSR2]), 0)), fd);
    assert_eq!(read(fd, 128).len(), 128);
}

fn signalfd_errors() {
    fails!(EBADF, signalfd(77, &set(&[]), 0));
    fails!(EINVAL, signalfd(0, &set(&[]), 0));
    fails!(EINVAL, signalfd(-1, &set(&[]), 1));
}
