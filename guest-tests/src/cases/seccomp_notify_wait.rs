//! What ends the wait for a listener: signals, death, its own end; seccomp_unotify(2).

use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use libc::*;

use super::seccomp_notify::{
    Notif, RECV, WAIT_KILLABLE, add, asleep, call, caller, is_valid, listen, ready, receive, send,
};
use crate::harness::{End, cases, close, end_of, fails, fork, ok, sleep_ms, wait, zeroed};

cases!("seccomp_notify_wait": interrupted, restarted, waits_killable, killed_while_waiting, all_killed, only_itself);

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

fn handle(signo: i32, flags: i32) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = flags;
    ok!(sigaction(signo, &action, ptr::null_mut()));
}

fn interrupted() {
    let listener = listen(SYS_getsid, 0);
    handle(SIGUSR1, 0);
    // Before it is received: what was announced is counted, and gone.
    let pid = caller();
    while ready(listener) == 0 {
        sleep_ms(1);
    }
    ok!(kill(pid, SIGUSR1));
    assert_eq!(wait(pid), End::Exited(100 + EINTR));
    let mut notif = Notif::default();
    assert_eq!(ready(listener), 0);
    fails!(ENOENT, ioctl(listener, RECV, &mut notif));
    // After.
    let pid = caller();
    let id = receive(listener).id;
    ok!(kill(pid, SIGUSR1));
    assert_eq!(wait(pid), End::Exited(100 + EINTR));
    assert!(!is_valid(listener, id));
    assert_eq!(send(listener, id, 1, 0, 0), Err(ENOENT));
    // A listener that waits.
    let pid = fork(|| {
        let mut notif = Notif::default();
        fails!(EINTR, ioctl(listener, RECV, &mut notif));
        0
    });
    asleep(pid);
    // It may have slept before it came there: until one ends it.
    let mut status = 0;
    while ok!(waitpid(pid, &mut status, WNOHANG)) == 0 {
        ok!(kill(pid, SIGUSR1));
        sleep_ms(5);
    }
    assert_eq!(end_of(status), End::Exited(0));
}

fn restarted() {
    let listener = listen(SYS_getsid, 0);
    handle(SIGUSR1, SA_RESTART);
    let pid = fork(|| call(0).map_or(0, |value| value as i32 + HANDLED.load(SeqCst)));
    let id = receive(listener).id;
    ok!(kill(pid, SIGUSR1));
    let next = receive(listener);
    assert_eq!(next.id, id.wrapping_add(1));
    assert!(!is_valid(listener, id));
    // A stop, too, has it asked anew.
    ok!(kill(pid, SIGSTOP));
    let mut status = 0;
    ok!(waitpid(pid, &mut status, WUNTRACED));
    assert!(WIFSTOPPED(status));
    ok!(kill(pid, SIGCONT));
    let last = receive(listener).id;
    assert_eq!(last, id.wrapping_add(2));
    assert_eq!(send(listener, last, 40, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(41));
}

/// Once received, nothing but death interrupts.
fn waits_killable() {
    let listener = listen(SYS_getsid, WAIT_KILLABLE);
    handle(SIGUSR1, 0);
    let pid = caller();
    while ready(listener) == 0 {
        sleep_ms(1);
    }
    ok!(kill(pid, SIGUSR1));
    assert_eq!(wait(pid), End::Exited(100 + EINTR));
    let mut notif = Notif::default();
    fails!(ENOENT, ioctl(listener, RECV, &mut notif));
    let pid = fork(|| call(0).map_or(0, |value| value as i32 + HANDLED.load(SeqCst)));
    let id = receive(listener).id;
    ok!(kill(pid, SIGUSR1));
    sleep_ms(50);
    assert!(is_valid(listener, id));
    assert_eq!(send(listener, id, 20, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(21));
    for signo in [SIGKILL, SIGTERM] {
        let pid = caller();
        let id = receive(listener).id;
        ok!(kill(pid, signo));
        assert_eq!(wait(pid), End::Killed(signo));
        assert!(!is_valid(listener, id));
    }
}

fn killed_while_waiting() {
    let listener = listen(SYS_getsid, 0);
    let pid = caller();
    while ready(listener) == 0 {
        sleep_ms(1);
    }
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    let mut notif = Notif::default();
    fails!(ENOENT, ioctl(listener, RECV, &mut notif));
    let pid = caller();
    let id = receive(listener).id;
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    assert_eq!(send(listener, id, 1, 0, 0), Err(ENOENT));
    assert_eq!(add(listener, id, 0, 0, 0), Err(ENOENT));
}

/// The listener and all who wait for it end at once.
fn all_killed() {
    for _ in 0..20 {
        let pid = fork(|| {
            listen(SYS_getsid, WAIT_KILLABLE);
            for _ in 0..8 {
                std::thread::spawn(|| call(0));
            }
            sleep_ms(5);
            // SAFETY: the end.
            unsafe { libc::kill(getpid(), SIGKILL) };
            0
        });
        assert_eq!(wait(pid), End::Killed(SIGKILL));
    }
}

/// Nobody but the caller itself could answer: it waits until a signal comes.
fn only_itself() {
    let listener = listen(SYS_getsid, 0);
    handle(SIGALRM, 0);
    ok!(alarm(1) as i32);
    assert_eq!(call(0), Err(EINTR));
    // Asked about receiving itself.
    let listener = {
        close(listener);
        listen(SYS_ioctl, 0)
    };
    ok!(alarm(1) as i32);
    let mut notif = Notif::default();
    fails!(EINTR, ioctl(listener, RECV, &mut notif));
    close(listener);
    fails!(ENOSYS, ioctl(1, TCGETS, 8));
}
