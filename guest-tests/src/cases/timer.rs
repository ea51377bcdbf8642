//! timerfd and POSIX timers.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use libc::*;

use super::signal::{block, take};
use crate::harness::{cases, fails, in_child, ok, sleep_ms, sys, zeroed};

cases!("timer": timerfd_fires, timerfd_interval, timerfd_absolute, timerfd_gettime, timerfd_disarm, timerfd_polls,
    timerfd_errors, timer_signal, timer_overrun, timer_to_thread, timer_none, timer_errors, timers_not_inherited,
    itimer_virtual, the_thread_that_runs_is_profiled, cpu_limit_stops_the_thread_that_runs);

fn at(ms: i64, interval: i64) -> itimerspec {
    let spec = |ms: i64| timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    itimerspec { it_interval: spec(interval), it_value: spec(ms) }
}

fn timerfd(flags: i32) -> i32 {
    ok!(timerfd_create(CLOCK_MONOTONIC, flags))
}

fn arm(fd: i32, ms: i64, interval: i64) {
    ok!(timerfd_settime(fd, 0, &at(ms, interval), std::ptr::null_mut()));
}

fn expirations(fd: i32) -> Result<u64, i32> {
    let mut n = 0u64;
    sys!(libc::read(fd, (&raw mut n).cast(), 8)).map(|_| n)
}

fn timerfd_fires() {
    let fd = timerfd(0);
    let start = Instant::now();
    arm(fd, 30, 0);
    assert_eq!(expirations(fd), Ok(1));
    assert!(start.elapsed().as_millis() >= 30);
}

fn timerfd_interval() {
    let fd = timerfd(0);
    arm(fd, 5, 5);
    sleep_ms(52);
    let n = expirations(fd).expect("expirations");
    assert!((5..=60).contains(&n), "{n} expirations in 52 ms at 5 ms");
}

fn timerfd_absolute() {
    let fd = timerfd(TFD_NONBLOCK);
    let mut now: timespec = zeroed();
    ok!(clock_gettime(CLOCK_MONOTONIC, &mut now));
    let past =
        itimerspec { it_interval: zeroed(), it_value: timespec { tv_sec: now.tv_sec - 1, tv_nsec: 0 } };
    ok!(timerfd_settime(fd, TFD_TIMER_ABSTIME, &past, std::ptr::null_mut()));
    sleep_ms(5);
    assert_eq!(expirations(fd), Ok(1));
}

fn timerfd_gettime() {
    let fd = timerfd(0);
    arm(fd, 5000, 700);
    let mut now: itimerspec = zeroed();
    ok!(libc::timerfd_gettime(fd, &mut now));
    assert_eq!(now.it_value.tv_sec, 4);
    assert_eq!(now.it_interval.tv_nsec, 700_000_000);
    let mut old: itimerspec = zeroed();
    ok!(timerfd_settime(fd, 0, &at(0, 0), &mut old));
    assert_eq!(old.it_value.tv_sec, 4);
}

fn timerfd_disarm() {
    let fd = timerfd(TFD_NONBLOCK);
    arm(fd, 10, 0);
    arm(fd, 0, 0);
    sleep_ms(20);
    assert_eq!(expirations(fd), Err(EAGAIN));
}

fn timerfd_polls() {
    let fd = timerfd(0);
    let mut entry = pollfd { fd, events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut entry, 1, 10)), 0);
    arm(fd, 20, 0);
    assert_eq!(ok!(poll(&mut entry, 1, 5000)), 1);
}

fn timerfd_errors() {
    fails!(EINVAL, timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
    fails!(EINVAL, timerfd_create(CLOCK_MONOTONIC, 1));
    let fd = timerfd(0);
    let bad = itimerspec { it_interval: zeroed(), it_value: timespec { tv_sec: 0, tv_nsec: 1_000_000_000 } };
    fails!(EINVAL, timerfd_settime(fd, 0, &bad, std::ptr::null_mut()));
    fails!(EINVAL, timerfd_settime(fd, 8, &at(1, 0), std::ptr::null_mut()));
    fails!(EINVAL, libc::read(fd, [0u8; 7].as_mut_ptr().cast(), 7));
}

fn posix_timer(signal: i32) -> timer_t {
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = signal;
    event.sigev_value = sigval { sival_ptr: 99 as *mut c_void };
    let mut timer: timer_t = std::ptr::null_mut();
    ok!(timer_create(CLOCK_MONOTONIC, &mut event, &mut timer));
    timer
}

fn timer_signal() {
    block(&[SIGUSR1]);
    let timer = posix_timer(SIGUSR1);
    ok!(timer_settime(timer, 0, &at(10, 0), std::ptr::null_mut()));
    let info = take(SIGUSR1);
    assert_eq!(info.si_code, SI_TIMER);
    // SAFETY: a timer's signal carries the value given at its creation.
    assert_eq!(unsafe { info.si_value().sival_ptr } as usize, 99);
    ok!(timer_delete(timer));
}

fn timer_overrun() {
    block(&[SIGUSR1]);
    let timer = posix_timer(SIGUSR1);
    ok!(timer_settime(timer, 0, &at(2, 2), std::ptr::null_mut()));
    sleep_ms(30);
    take(SIGUSR1);
    let missed = ok!(timer_getoverrun(timer));
    assert!((3..=30).contains(&missed), "{missed} missed");
}

fn timer_to_thread() {
    block(&[SIGUSR1]);
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR1;
    event.sigev_notify_thread_id = ok!(gettid());
    let mut timer: timer_t = std::ptr::null_mut();
    ok!(timer_create(CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer));
    ok!(timer_settime(timer, 0, &at(10, 0), std::ptr::null_mut()));
    let start = Instant::now();
    while start.elapsed().as_millis() < 500 {
        let mut pending: sigset_t = zeroed();
        ok!(sigpending(&mut pending));
        if ok!(sigismember(&pending, SIGUSR1)) == 1 {
            return;
        }
    }
    panic!("no signal after 500 ms of work");
}

fn timer_none() {
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_NONE;
    let mut timer: timer_t = std::ptr::null_mut();
    ok!(timer_create(CLOCK_REALTIME, &mut event, &mut timer));
    ok!(timer_settime(timer, 0, &at(5000, 0), std::ptr::null_mut()));
    let mut now: itimerspec = zeroed();
    ok!(timer_gettime(timer, &mut now));
    assert_eq!(now.it_value.tv_sec, 4);
}

fn timer_errors() {
    fails!(EINVAL, syscall(SYS_timer_delete, 12345));
    fails!(EINVAL, syscall(SYS_timer_gettime, 12345, &mut at(0, 0)));
    let mut id = 0;
    fails!(EINVAL, syscall(SYS_timer_create, 77, 0, &mut id));
}

fn timers_not_inherited() {
    in_child(|| {
        super::signal::alarm_ms(30);
        in_child(|| {
            let mut now: itimerval = zeroed();
            ok!(getitimer(ITIMER_REAL, &mut now));
            assert_eq!((now.it_value.tv_sec, now.it_value.tv_usec), (0, 0));
        });
        super::signal::alarm_ms(0);
    });
}

fn itimer_virtual() {
    super::signal::on(SIGVTALRM, 0);
    let value = itimerval { it_interval: zeroed(), it_value: timeval { tv_sec: 0, tv_usec: 10_000 } };
    ok!(setitimer(ITIMER_VIRTUAL, &value, std::ptr::null_mut()));
    let start = Instant::now();
    while super::signal::COUNT.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(start.elapsed().as_secs() < 5, "no SIGVTALRM");
    }
}

/// Threads that took a signal: the first, and any other.
static TAKEN: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

extern "C" fn note_thread(_: i32) {
    // SAFETY: both calls have no arguments and cannot fail.
    let first = unsafe { syscall(SYS_gettid) == i64::from(getpid()) };
    TAKEN[usize::from(!first)].fetch_add(1, SeqCst);
}

/// Runs a thread that only uses up CPU time, while the first one sleeps, until it has taken `wanted` signals.
fn spin_beside_a_sleeper(signal: i32, wanted: u32) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = note_thread as *const () as usize;
    action.sa_flags = SA_RESTART;
    ok!(sigaction(signal, &action, std::ptr::null_mut()));
    let start = Instant::now();
    let spinner =
        std::thread::spawn(move || while TAKEN[1].load(SeqCst) < wanted && start.elapsed().as_secs() < 10 {});
    spinner.join().expect("a thread");
}

/// A profiler must see the thread that uses the CPU time, not one that sleeps.
fn the_thread_that_runs_is_profiled() {
    let value = timeval { tv_sec: 0, tv_usec: 10_000 };
    let value = itimerval { it_interval: value, it_value: value };
    ok!(setitimer(ITIMER_PROF, &value, std::ptr::null_mut()));
    spin_beside_a_sleeper(SIGPROF, 20);
    ok!(setitimer(ITIMER_PROF, &zeroed(), std::ptr::null_mut()));
    let [sleeper, spinner] = [TAKEN[0].load(SeqCst), TAKEN[1].load(SeqCst)];
    assert!(
        spinner >= 20 && sleeper <= 5,
        "{sleeper} taken by the thread that sleeps, {spinner} by the other"
    );
}

fn cpu_limit_stops_the_thread_that_runs() {
    let limit = rlimit { rlim_cur: 1, rlim_max: 60 };
    ok!(setrlimit(RLIMIT_CPU, &limit));
    spin_beside_a_sleeper(SIGXCPU, 1);
    assert_eq!([TAKEN[0].load(SeqCst), TAKEN[1].load(SeqCst)], [0, 1]);
}
