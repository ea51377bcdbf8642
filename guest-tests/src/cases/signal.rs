//! Signals: actions, masks, queues, restarts, stacks.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use libc::*;

use crate::harness::{
    End, cases, close, end_of, fails, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write, zeroed,
};

cases!("signal": handler_runs, old_action_is_told, mask_holds_back, standard_signals_merge, realtime_signals_queue,
    sigqueue_value, kill_siginfo, tgkill_siginfo, raise_in_handler_nests, mask_during_handler, no_defer, reset_hand,
    ignored_is_dropped, kill_and_stop_cannot_be_caught, pause_returns_eintr, sigsuspend_swaps_mask,
    read_restarts, read_without_restart, sleep_is_never_restarted, poll_is_never_restarted, alternate_stack,
    alternate_stack_errors, handler_may_siglongjmp, mask_is_inherited, actions_survive_fork, busy_loop_is_interrupted,
    group_kill, broken_pipe, to_thread, bad_arguments, default_actions, alarm_and_itimer, abort_dies_by_sigabrt,
    flood_of_signals);

pub(super) static COUNT: AtomicUsize = AtomicUsize::new(0);
pub(super) static LAST: AtomicI32 = AtomicI32::new(0);

pub(super) extern "C" fn count(signal: i32) {
    COUNT.fetch_add(1, Ordering::SeqCst);
    LAST.store(signal, Ordering::SeqCst);
}

/// An action with this handler and these flags, blocking nothing.
pub(super) fn action(handler: sighandler_t, flags: i32) -> sigaction {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action
}

/// Counts `signal` from now on.
pub(super) fn on(signal: i32, flags: i32) {
    let handler = count as extern "C" fn(i32);
    ok!(sigaction(signal, &action(handler as sighandler_t, flags), std::ptr::null_mut()));
}

/// Installs a three-argument handler.
pub(super) fn on_info(signal: i32, flags: i32, handler: extern "C" fn(i32, *mut siginfo_t, *mut c_void)) {
    ok!(sigaction(signal, &action(handler as sighandler_t, flags | SA_SIGINFO), std::ptr::null_mut()));
}

pub(super) fn set(signals: &[i32]) -> sigset_t {
    let mut set: sigset_t = zeroed();
    for signal in signals {
        ok!(sigaddset(&mut set, *signal));
    }
    set
}

pub(super) fn block(signals: &[i32]) {
    ok!(pthread_sigmask(SIG_BLOCK, &set(signals), std::ptr::null_mut()));
}

pub(super) fn unblock(signals: &[i32]) {
    ok!(pthread_sigmask(SIG_UNBLOCK, &set(signals), std::ptr::null_mut()));
}

/// Takes a blocked, pending signal; waits 5 s at most.
pub(super) fn take(signal: i32) -> siginfo_t {
    let mut info: siginfo_t = zeroed();
    let patience = timespec { tv_sec: 5, tv_nsec: 0 };
    // The C library would turn SI_TKILL into SI_USER.
    let taken = ok!(syscall(SYS_rt_sigtimedwait, &set(&[signal]), &mut info, &patience, 8));
    assert_eq!(taken as i32, signal);
    info
}

pub(super) fn alarm_ms(ms: i64) {
    let value = timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    let timer = itimerval { it_interval: zeroed(), it_value: value };
    ok!(setitimer(ITIMER_REAL, &timer, std::ptr::null_mut()));
}

fn counted() -> usize {
    COUNT.load(Ordering::SeqCst)
}

fn me() -> pid_t {
    ok!(getpid())
}

fn handler_runs() {
    on(SIGUSR1, 0);
    ok!(kill(me(), SIGUSR1));
    assert_eq!(counted(), 1);
    assert_eq!(LAST.load(Ordering::SeqCst), SIGUSR1);
}

fn old_action_is_told() {
    on(SIGUSR1, SA_RESTART);
    let mut old: sigaction = zeroed();
    ok!(sigaction(SIGUSR1, &action(SIG_IGN, 0), &mut old));
    assert_eq!(old.sa_sigaction, count as extern "C" fn(i32) as sighandler_t);
    assert_ne!(old.sa_flags & SA_RESTART, 0);
    ok!(sigaction(SIGUSR1, std::ptr::null(), &mut old));
    assert_eq!(old.sa_sigaction, SIG_IGN);
}

fn mask_holds_back() {
    on(SIGUSR1, 0);
    block(&[SIGUSR1]);
    ok!(kill(me(), SIGUSR1));
    assert_eq!(counted(), 0);
    let mut pending: sigset_t = zeroed();
    ok!(sigpending(&mut pending));
    assert_eq!(ok!(sigismember(&pending, SIGUSR1)), 1);
    assert_eq!(ok!(sigismember(&pending, SIGUSR2)), 0);
    unblock(&[SIGUSR1]);
    assert_eq!(counted(), 1);
}

fn standard_signals_merge() {
    on(SIGUSR1, 0);
    block(&[SIGUSR1]);
    for _ in 0..5 {
        ok!(kill(me(), SIGUSR1));
    }
    unblock(&[SIGUSR1]);
    assert_eq!(counted(), 1);
}

fn realtime_signals_queue() {
    let signal = SIGRTMIN() + 2;
    on(signal, 0);
    block(&[signal]);
    for _ in 0..5 {
        ok!(kill(me(), signal));
    }
    unblock(&[signal]);
    assert_eq!(counted(), 5);
}

fn sigqueue_value() {
    let signal = SIGRTMIN() + 1;
    block(&[signal]);
    for value in [11usize, 22, 33] {
        ok!(sigqueue(me(), signal, sigval { sival_ptr: value as *mut c_void }));
    }
    for value in [11usize, 22, 33] {
        let info = take(signal);
        assert_eq!(info.si_code, SI_QUEUE);
        // SAFETY: a queued signal carries pid and value.
        let (pid, got) = unsafe { (info.si_pid(), info.si_value().sival_ptr as usize) };
        assert_eq!((pid, got), (me(), value));
    }
}

fn kill_siginfo() {
    block(&[SIGUSR2]);
    let sender = fork(|| {
        ok!(kill(getppid(), SIGUSR2));
        0
    });
    let info = take(SIGUSR2);
    assert_eq!((info.si_signo, info.si_code), (SIGUSR2, SI_USER));
    // SAFETY: a signal by kill carries the sender.
    assert_eq!(unsafe { (info.si_pid(), info.si_uid()) }, (sender, ok!(getuid())));
    wait(sender);
}

fn tgkill_siginfo() {
    block(&[SIGUSR2]);
    ok!(syscall(SYS_tgkill, me(), ok!(gettid()), SIGUSR2));
    assert_eq!(take(SIGUSR2).si_code, SI_TKILL);
    fails!(ESRCH, syscall(SYS_tgkill, me(), 1 << 21, SIGUSR2));
    fails!(EINVAL, syscall(SYS_tgkill, me(), ok!(gettid()), 99));
}

extern "C" fn raise_other(_: i32) {
    ok!(raise(SIGUSR2));
    // Nested: the other handler has run before this one goes on.
    LAST.fetch_add(100, Ordering::SeqCst);
}

fn raise_in_handler_nests() {
    on(SIGUSR2, 0);
    let handler = raise_other as extern "C" fn(i32);
    ok!(sigaction(SIGUSR1, &action(handler as sighandler_t, 0), std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    assert_eq!(counted(), 1);
    assert_eq!(LAST.load(Ordering::SeqCst), SIGUSR2 + 100);
}

extern "C" fn raise_same(_: i32) {
    if COUNT.fetch_add(1, Ordering::SeqCst) < 3 {
        ok!(raise(SIGUSR1));
        LAST.store(COUNT.load(Ordering::SeqCst) as i32, Ordering::SeqCst);
    }
}

extern "C" fn note_mask(_: i32) {
    let mut mask: sigset_t = zeroed();
    ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    let bits = [SIGUSR1, SIGUSR2, SIGHUP].map(|s| ok!(sigismember(&mask, s)));
    LAST.store(bits[0] | bits[1] << 1 | bits[2] << 2, Ordering::SeqCst);
}

fn mask_during_handler() {
    let handler = note_mask as extern "C" fn(i32);
    let mut act = action(handler as sighandler_t, 0);
    act.sa_mask = set(&[SIGUSR2]);
    ok!(sigaction(SIGUSR1, &act, std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    assert_eq!(LAST.load(Ordering::SeqCst), 0b011);
    LAST.store(0, Ordering::SeqCst);
    note_mask(0);
    assert_eq!(LAST.load(Ordering::SeqCst), 0, "the mask is restored");
}

fn no_defer() {
    let handler = raise_same as extern "C" fn(i32);
    ok!(sigaction(SIGUSR1, &action(handler as sighandler_t, SA_NODEFER), std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    // All four had begun before the innermost raise returned.
    assert_eq!(counted(), 4);
    assert_eq!(LAST.load(Ordering::SeqCst), 4);
}

fn reset_hand() {
    on(SIGUSR1, SA_RESETHAND);
    ok!(raise(SIGUSR1));
    let mut now: sigaction = zeroed();
    ok!(sigaction(SIGUSR1, std::ptr::null(), &mut now));
    assert_eq!(now.sa_sigaction, SIG_DFL);
}

fn ignored_is_dropped() {
    block(&[SIGUSR1]);
    ok!(raise(SIGUSR1));
    ok!(sigaction(SIGUSR1, &action(SIG_IGN, 0), std::ptr::null_mut()));
    let mut pending: sigset_t = zeroed();
    ok!(sigpending(&mut pending));
    assert_eq!(ok!(sigismember(&pending, SIGUSR1)), 0);
}

fn kill_and_stop_cannot_be_caught() {
    for signal in [SIGKILL, SIGSTOP] {
        fails!(EINVAL, sigaction(signal, &action(SIG_IGN, 0), std::ptr::null_mut()));
    }
    block(&[SIGKILL, SIGSTOP, SIGUSR1]);
    let mut mask: sigset_t = zeroed();
    ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    assert_eq!(ok!(sigismember(&mask, SIGKILL)), 0);
    assert_eq!(ok!(sigismember(&mask, SIGSTOP)), 0);
    assert_eq!(ok!(sigismember(&mask, SIGUSR1)), 1);
}

fn pause_returns_eintr() {
    on(SIGALRM, SA_RESTART);
    alarm_ms(20);
    fails!(EINTR, pause());
    assert_eq!(counted(), 1);
}

fn sigsuspend_swaps_mask() {
    on(SIGUSR1, 0);
    block(&[SIGUSR1]);
    ok!(raise(SIGUSR1));
    fails!(EINTR, sigsuspend(&set(&[])));
    assert_eq!(counted(), 1);
    let mut mask: sigset_t = zeroed();
    ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    assert_eq!(ok!(sigismember(&mask, SIGUSR1)), 1, "the old mask is back");
}

fn read_restarts() {
    on(SIGALRM, SA_RESTART);
    let (r, w) = pipe();
    let pid = fork(|| {
        sleep_ms(80);
        write(w, b"late");
        0
    });
    alarm_ms(20);
    assert_eq!(read(r, 10), b"late");
    assert_eq!(counted(), 1);
    wait(pid);
}

fn read_without_restart() {
    on(SIGALRM, 0);
    let (r, _w) = pipe();
    alarm_ms(20);
    let mut byte = 0u8;
    fails!(EINTR, libc::read(r, (&raw mut byte).cast(), 1));
    assert_eq!(counted(), 1);
}

fn sleep_is_never_restarted() {
    on(SIGALRM, SA_RESTART);
    alarm_ms(30);
    let long = timespec { tv_sec: 3, tv_nsec: 0 };
    let mut left: timespec = zeroed();
    fails!(EINTR, nanosleep(&long, &mut left));
    assert!(left.tv_sec == 2 && left.tv_nsec > 0, "{} s {} ns left", left.tv_sec, left.tv_nsec);
}

fn poll_is_never_restarted() {
    on(SIGALRM, SA_RESTART);
    let (r, _w) = pipe();
    let mut entry = pollfd { fd: r, events: POLLIN, revents: 0 };
    alarm_ms(20);
    fails!(EINTR, poll(&mut entry, 1, 3000));
}

static STACK_AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stack(_: i32) {
    let local = 0u8;
    STACK_AT.store(&raw const local as usize, Ordering::SeqCst);
    let mut now: stack_t = zeroed();
    ok!(sigaltstack(std::ptr::null(), &mut now));
    LAST.store(now.ss_flags, Ordering::SeqCst);
    // Changing the stack one stands on is refused.
    let other = stack_t { ss_sp: std::ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: 0 };
    COUNT
        .store(sys!(sigaltstack(&other, std::ptr::null_mut())).err().unwrap_or(0) as usize, Ordering::SeqCst);
}

fn alternate_stack() {
    let mut memory = vec![0u8; 64 * 1024];
    let start = memory.as_mut_ptr() as usize;
    let stack = stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
    let handler = note_stack as extern "C" fn(i32);
    ok!(sigaction(SIGUSR1, &action(handler as sighandler_t, SA_ONSTACK), std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    let at = STACK_AT.load(Ordering::SeqCst);
    assert!(at >= start && at < start + memory.len(), "{at:#x} is not in the alternate stack");
    assert_eq!(LAST.load(Ordering::SeqCst), SS_ONSTACK);
    assert_eq!(counted() as i32, EPERM);
    let mut now: stack_t = zeroed();
    ok!(sigaltstack(std::ptr::null(), &mut now));
    assert_eq!((now.ss_sp as usize, now.ss_flags, now.ss_size), (start, 0, memory.len()));
    // A process made by fork keeps it, and so may use it.
    in_child(|| {
        let mut now: stack_t = zeroed();
        ok!(sigaltstack(std::ptr::null(), &mut now));
        assert_eq!(now.ss_sp as usize, start);
    });
}

fn alternate_stack_errors() {
    let mut byte = [0u8; 64];
    let small = stack_t { ss_sp: byte.as_mut_ptr().cast(), ss_flags: 0, ss_size: 64 };
    fails!(ENOMEM, sigaltstack(&small, std::ptr::null_mut()));
    let odd = stack_t { ss_sp: byte.as_mut_ptr().cast(), ss_flags: 0x10, ss_size: 65536 };
    fails!(EINVAL, sigaltstack(&odd, std::ptr::null_mut()));
}

unsafe extern "C" {
    fn __sigsetjmp(buffer: *mut u64, save_mask: i32) -> i32;
    fn siglongjmp(buffer: *mut u64, value: i32) -> !;
}

static mut JUMP: [u64; 64] = [0; 64];

extern "C" fn jump_away(_: i32) {
    // SAFETY: the buffer was filled by the frame that is still alive below this handler.
    unsafe { siglongjmp((&raw mut JUMP).cast(), 1) }
}

fn handler_may_siglongjmp() {
    let handler = jump_away as extern "C" fn(i32);
    ok!(sigaction(SIGUSR1, &action(handler as sighandler_t, 0), std::ptr::null_mut()));
    for _ in 0..3 {
        // SAFETY: no Rust frame with destructors lies between here and the handler.
        unsafe {
            if __sigsetjmp((&raw mut JUMP).cast(), 1) == 0 {
                raise(SIGUSR1);
                unreachable!("the handler jumped");
            }
        }
    }
    let mut mask: sigset_t = zeroed();
    ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    assert_eq!(ok!(sigismember(&mask, SIGUSR1)), 0);
}

fn mask_is_inherited() {
    block(&[SIGUSR1]);
    in_child(|| {
        let mut mask: sigset_t = zeroed();
        ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
        assert_eq!(ok!(sigismember(&mask, SIGUSR1)), 1);
        ok!(raise(SIGUSR1));
        // Pending signals are not.
        in_child(|| {
            let mut pending: sigset_t = zeroed();
            ok!(sigpending(&mut pending));
            assert_eq!(ok!(sigismember(&pending, SIGUSR1)), 0);
        });
    });
}

fn actions_survive_fork() {
    on(SIGUSR1, 0);
    in_child(|| {
        ok!(raise(SIGUSR1));
        assert_eq!(counted(), 1);
    });
    assert_eq!(counted(), 0);
}

fn busy_loop_is_interrupted() {
    on(SIGALRM, 0);
    alarm_ms(20);
    while counted() == 0 {
        std::hint::spin_loop();
    }
}

fn group_kill() {
    let (r, w) = pipe();
    let leader = fork(|| {
        ok!(setpgid(0, 0));
        let other = fork(|| {
            loop {
                sleep_ms(1000);
            }
        });
        write(w, &other.to_le_bytes());
        loop {
            sleep_ms(1000);
        }
    });
    assert_eq!(read(r, 4).len(), 4);
    // While there is such a group: afterwards it is ESRCH.
    fails!(EINVAL, killpg(leader, 99));
    ok!(killpg(leader, SIGTERM));
    assert_eq!(wait(leader), End::Killed(SIGTERM));
}

fn broken_pipe() {
    let pid = fork(|| {
        ok!(sigaction(SIGPIPE, &action(SIG_DFL, 0), std::ptr::null_mut()));
        let (r, w) = pipe();
        close(r);
        write(w, b"x");
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGPIPE));
    let (r, w) = pipe();
    close(r);
    ok!(sigaction(SIGPIPE, &action(SIG_IGN, 0), std::ptr::null_mut()));
    fails!(EPIPE, libc::write(w, b"x".as_ptr().cast(), 1));
}

fn to_thread() {
    on(SIGUSR1, 0);
    static TID: AtomicI32 = AtomicI32::new(0);
    let thread = std::thread::spawn(|| {
        TID.store(ok!(gettid()), Ordering::SeqCst);
        sys!(pause())
    });
    while TID.load(Ordering::SeqCst) == 0 {
        sleep_ms(1);
    }
    block(&[SIGUSR1]);
    while !thread.is_finished() {
        ok!(syscall(SYS_tgkill, me(), TID.load(Ordering::SeqCst), SIGUSR1));
        sleep_ms(5);
    }
    assert_eq!(thread.join().expect("the thread ended"), Err(EINTR));
    assert!(counted() >= 1);
}

fn bad_arguments() {
    fails!(EINVAL, syscall(SYS_rt_sigaction, 0, 0, 0, 8));
    fails!(EINVAL, syscall(SYS_rt_sigaction, 65, 0, 0, 8));
    fails!(EINVAL, syscall(SYS_rt_sigaction, SIGUSR1, 0, 0, 4));
    fails!(EFAULT, syscall(SYS_rt_sigaction, SIGUSR1, 8, 0, 8));
    fails!(EINVAL, syscall(SYS_rt_sigprocmask, 77, &set(&[]), 0, 8));
    fails!(EINVAL, syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set(&[]), 0, 16));
    fails!(EFAULT, syscall(SYS_rt_sigprocmask, SIG_BLOCK, 16, 0, 8));
}

fn default_actions() {
    for signal in [SIGCHLD, SIGURG, SIGWINCH, SIGCONT] {
        let pid = fork(move || {
            ok!(raise(signal));
            0
        });
        assert_eq!(wait(pid), End::Exited(0), "signal {signal} is ignored by default");
    }
    for signal in [SIGHUP, SIGINT, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT, SIGPWR, SIGSYS, SIGTRAP] {
        let pid = fork(move || {
            ok!(raise(signal));
            0
        });
        assert_eq!(wait(pid), End::Killed(signal));
    }
}

fn alarm_and_itimer() {
    on(SIGALRM, 0);
    assert_eq!(ok!(alarm(100)), 0);
    let left = ok!(alarm(0));
    assert!((99..=100).contains(&left), "{left} s left");
    let tick = timeval { tv_sec: 0, tv_usec: 10_000 };
    ok!(setitimer(ITIMER_REAL, &itimerval { it_interval: tick, it_value: tick }, std::ptr::null_mut()));
    while counted() < 3 {
        let _ = sys!(pause());
    }
    let mut now: itimerval = zeroed();
    ok!(getitimer(ITIMER_REAL, &mut now));
    assert_eq!(now.it_interval.tv_usec, 10_000);
    assert!(now.it_value.tv_usec <= 10_000);
    alarm_ms(0);
}

fn abort_dies_by_sigabrt() {
    let pid = fork(|| {
        // SAFETY: ends the child.
        unsafe { abort() }
    });
    assert_eq!(wait(pid), End::Killed(SIGABRT));
}

fn flood_of_signals() {
    let signal = SIGRTMIN() + 3;
    on(signal, SA_RESTART);
    let parent = me();
    let pid = fork(move || {
        for _ in 0..2000 {
            let _ = sys!(kill(parent, signal));
        }
        0
    });
    let mut status = 0;
    while sys!(waitpid(pid, &mut status, 0)) != Ok(pid) {}
    assert_eq!(end_of(status), End::Exited(0));
    // Everything sent before the child ended has been delivered by now.
    ok!(getppid());
    assert_eq!(counted(), 2000);
}
