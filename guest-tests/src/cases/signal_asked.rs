//! rt_sigaction(2) that only asks, often: signals that nobody has touched have no action.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{End, cases, fails, fork, ok, sys, wait};

cases!("signal": asked_for_all, asked_beside_another, asked_of_handlers);

/// rt_sigaction(2) that only asks: handler, flags, restorer, mask.
fn asked(sig: i32) -> [u64; 4] {
    let mut action = [u64::MAX; 4];
    ok!(libc::syscall(libc::SYS_rt_sigaction, sig, 0, &raw mut action, 8));
    action
}

/// Sets the action of a signal to this handler and flags.
fn set_plainly(sig: i32, handler: u64, flags: u64) {
    let action = [handler, flags, 0, 0];
    ok!(libc::syscall(libc::SYS_rt_sigaction, sig, &raw const action, 0, 8));
}

/// As posix_spawn(3) asks in each child.
fn asked_for_all() {
    const RESTART: u64 = 0x1000_0000;
    let child = fork(|| {
        for sig in
            (1..=64).filter(|sig| *sig != libc::SIGPIPE && *sig != libc::SIGSEGV && *sig != libc::SIGBUS)
        {
            set_plainly_if_possible(sig);
        }
        for round in 0..20 {
            for sig in 20..=64 {
                assert_eq!(asked(sig), [0; 4], "{round}: {sig}");
            }
            set_plainly(libc::SIGUSR1 + 20, 1, RESTART);
            assert_eq!(asked(libc::SIGUSR1 + 20), [1, RESTART, 0, 0]);
            set_plainly(libc::SIGUSR1 + 20, 0, RESTART);
            assert_eq!(asked(libc::SIGUSR1 + 20), [0, RESTART, 0, 0]);
            assert_eq!(
                wait(fork(|| i32::from(asked(libc::SIGUSR1 + 20) != [0, RESTART, 0, 0]))),
                End::Exited(0)
            );
            set_plainly(libc::SIGUSR1 + 20, 0, 0);
            for (sig, size) in [(0, 8), (65, 8), (-1, 8), (40, 4), (40, 16)] {
                fails!(libc::EINVAL, libc::syscall(libc::SYS_rt_sigaction, sig, 0, 0, size));
            }
            fails!(libc::EFAULT, libc::syscall(libc::SYS_rt_sigaction, 40, 0, 8, 8));
            ok!(libc::syscall(libc::SYS_rt_sigaction, 40, 0, 0, 8));
        }
        0
    });
    assert_eq!(wait(child), End::Exited(0));
}

fn set_plainly_if_possible(sig: i32) {
    let action = [0u64; 4];
    // SIGKILL and SIGSTOP have none.
    let _ = sys!(libc::syscall(libc::SYS_rt_sigaction, sig, &raw const action, 0, 8));
}

/// What one thread sets the other is told, though it has asked often before.
fn asked_beside_another() {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    const SIG: i32 = 50;
    for _ in 0..20 {
        assert_eq!(asked(SIG), [0; 4]);
    }
    let other = std::thread::spawn(|| {
        for turn in 1..=200 {
            set_plainly(SIG, (turn % 2) as u64, 0);
            TURN.store(turn, Ordering::SeqCst);
            while TURN.load(Ordering::SeqCst) == turn {
                std::thread::yield_now();
            }
        }
    });
    for turn in 1..=200 {
        while TURN.load(Ordering::SeqCst) != turn {
            std::thread::yield_now();
        }
        assert_eq!(asked(SIG), [(turn % 2) as u64, 0, 0, 0]);
        TURN.store(0, Ordering::SeqCst);
    }
    other.join().expect("joined");
    for _ in 0..20 {
        assert_eq!(asked(SIG), [0; 4]);
    }
    set_plainly(SIG, 1, 0);
    assert_eq!(asked(SIG), [1, 0, 0, 0]);
}

/// Whose handler is taken away by its first signal has none, however often it was asked for before.
fn asked_of_handlers() {
    static CAME: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn came(_: i32) {
        CAME.fetch_add(1, Ordering::SeqCst);
    }
    let handler = came as *const () as u64;
    for (round, flags) in
        [0, libc::SA_RESETHAND | libc::SA_NODEFER, libc::SA_RESTART].into_iter().cycle().take(9).enumerate()
    {
        let mut action: libc::sigaction = crate::harness::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler as usize, flags);
        ok!(libc::sigaddset(&raw mut action.sa_mask, libc::SIGTERM));
        ok!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()));
        let set = asked(libc::SIGUSR2);
        assert_eq!((set[0], set[3]), (handler, 1 << (libc::SIGTERM - 1)));
        for _ in 0..5 {
            assert_eq!(asked(libc::SIGUSR2), set);
        }
        ok!(libc::raise(libc::SIGUSR2));
        assert_eq!(CAME.load(Ordering::SeqCst), round + 1);
        let left = if flags & libc::SA_RESETHAND != 0 { 0 } else { handler };
        assert_eq!(asked(libc::SIGUSR2), [left, set[1], set[2], set[3]]);
        let child = fork(|| i32::from(asked(libc::SIGUSR2) != [left, set[1], set[2], set[3]]));
        assert_eq!(wait(child), End::Exited(0));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_rt_sigaction, libc::SIGUSR2, 0, 8, 8));
    }
}
