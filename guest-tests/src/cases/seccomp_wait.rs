//! Waits in futex(2) under filters that have a say in it: they end, are interrupted and go on as without.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libc::*;

use super::seccomp_native::{ERRNO, install, refuse_futex, wait_on, wake};
use crate::harness::{End, cases, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("seccomp_wait": synchronized_waiters, mutexes_contended, timed_waits, wait_interrupted, wait_restarted,
    wait_stopped_and_continued);

/// A thread that waits already is not disturbed; what it does next is judged.
fn synchronized_waiters() {
    let word = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for timed in [false, true] {
        let word = word.clone();
        let (told, tell) = pipe();
        let thread = std::thread::spawn(move || {
            let long = timespec { tv_sec: 10, tv_nsec: 0 };
            write(tell, b"x");
            let waited = wait_on(&word, 0, if timed { &raw const long } else { ptr::null() });
            let next = sys!(syscall(SYS_futex, word.as_ptr(), FUTEX_WAKE | 128, 55));
            (waited, next)
        });
        read(told, 1);
        threads.push(thread);
    }
    sleep_ms(50);
    refuse_futex(55, 1);
    word.store(1, SeqCst);
    // Both wait, or have looked at the word again.
    let woken = wake(&word, 2).expect("a wake");
    for thread in threads {
        let (waited, next) = thread.join().expect("joined");
        assert_eq!(next, Err(61));
        assert!(matches!(waited, Ok(0) | Err(EAGAIN)), "{waited:?}, {woken} woken");
    }
}

fn mutexes_contended() {
    install(SYS_msync, ERRNO | 61);
    let count = Arc::new(Mutex::new(0u32));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let count = count.clone();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let mut count = count.lock().expect("a lock");
                    *count += 1;
                    if count.is_multiple_of(50) {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("joined"));
    assert_eq!(*count.lock().expect("a lock"), 4000);
}

fn timed_waits() {
    install(SYS_msync, ERRNO | 61);
    let word = AtomicU32::new(0);
    let short = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let begin = Instant::now();
    assert_eq!(wait_on(&word, 0, &short), Err(ETIMEDOUT));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    let wrong = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    assert_eq!(wait_on(&word, 0, &wrong), Err(EINVAL));
    assert_eq!(wait_on(&word, 0, ptr::without_provenance(8)), Err(EFAULT));
    assert_eq!(wait_on(&word, 1, &short), Err(EAGAIN));
    // The end as a date of CLOCK_MONOTONIC.
    let mut date: timespec = zeroed();
    ok!(clock_gettime(CLOCK_MONOTONIC, &mut date));
    date.tv_sec += 1;
    let begin = Instant::now();
    let result = sys!(syscall(SYS_futex, word.as_ptr(), FUTEX_WAIT_BITSET | 128, 0, &date, 0, u32::MAX));
    assert_eq!(result, Err(ETIMEDOUT));
    assert!(begin.elapsed() >= Duration::from_millis(900));
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_usr1(_signo: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

fn handle_usr1(flags: i32) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = on_usr1 as *const () as usize;
    action.sa_flags = flags;
    ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
}

/// Sends the calling thread SIGUSR1 after a while, then wakes the word if it is to be woken.
fn disturb(word: &'static AtomicU32, then: bool) -> std::thread::JoinHandle<()> {
    // SAFETY: plain calls.
    let (pid, tid) = unsafe { (getpid(), syscall(SYS_gettid)) };
    std::thread::spawn(move || {
        sleep_ms(50);
        ok!(syscall(SYS_tgkill, pid, tid, SIGUSR1));
        if then {
            sleep_ms(50);
            word.store(1, SeqCst);
            wake(word, 1).expect("a wake");
        }
    })
}

fn wait_interrupted() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    install(SYS_msync, ERRNO | 61);
    handle_usr1(0);
    let other = disturb(&WORD, false);
    assert_eq!(wait_on(&WORD, 0, ptr::null()), Err(EINTR));
    other.join().expect("joined");
    assert_eq!(HANDLED.load(SeqCst), 1);
    // One with an end is not restarted in any case.
    for flags in [0, SA_RESTART] {
        handle_usr1(flags);
        let long = timespec { tv_sec: 10, tv_nsec: 0 };
        let other = disturb(&WORD, false);
        assert_eq!(wait_on(&WORD, 0, &long), Err(EINTR));
        other.join().expect("joined");
    }
    assert_eq!(HANDLED.load(SeqCst), 3);
}

fn wait_restarted() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    install(SYS_msync, ERRNO | 61);
    handle_usr1(SA_RESTART);
    let other = disturb(&WORD, true);
    let result = wait_on(&WORD, 0, ptr::null());
    other.join().expect("joined");
    assert!(matches!(result, Ok(0) | Err(EAGAIN)), "{result:?}");
    assert_eq!((WORD.load(SeqCst), HANDLED.load(SeqCst)), (1, 1));
}

/// A stop is not an interruption: the wait goes on, and ends when it would have ended.
fn wait_stopped_and_continued() {
    let pid = fork(|| {
        install(SYS_msync, ERRNO | 61);
        let word = AtomicU32::new(0);
        let time = timespec { tv_sec: 0, tv_nsec: 900_000_000 };
        let begin = Instant::now();
        assert_eq!(wait_on(&word, 0, &time), Err(ETIMEDOUT));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_millis(1200), "{took:?}");
        0
    });
    sleep_ms(100);
    for _ in 0..4 {
        ok!(kill(pid, SIGSTOP));
        let mut status = 0;
        ok!(waitpid(pid, &mut status, WUNTRACED));
        assert!(WIFSTOPPED(status), "{status:#x}");
        sleep_ms(100);
        ok!(kill(pid, SIGCONT));
        sleep_ms(20);
    }
    assert_eq!(wait(pid), End::Exited(0));
}
