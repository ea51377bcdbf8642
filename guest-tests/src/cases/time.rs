//! Clocks and sleeps.

use std::time::Instant;

use libc::*;

use crate::harness::{cases, fails, in_child, is_root, ok, sleep_ms, zeroed};

cases!("time": clocks_advance, realtime_is_now, resolution, nanosleep_takes_time, clock_nanosleep_absolute,
    cpu_clock_counts_work, gettimeofday_agrees, bad_clock, bad_timespec, times_ticks, vdso_is_there, set_needs_right,
    clock_of_other_process, errors_of_raw_sleeps);

fn now(clock: clockid_t) -> f64 {
    let mut now: timespec = zeroed();
    ok!(clock_gettime(clock, &mut now));
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn clocks_advance() {
    for clock in [
        CLOCK_REALTIME,
        CLOCK_MONOTONIC,
        CLOCK_BOOTTIME,
        CLOCK_MONOTONIC_RAW,
        CLOCK_REALTIME_COARSE,
        CLOCK_MONOTONIC_COARSE,
        CLOCK_TAI,
    ] {
        let before = now(clock);
        sleep_ms(15);
        let passed = now(clock) - before;
        assert!((0.005..2.0).contains(&passed), "clock {clock}: {passed} s");
    }
}

fn realtime_is_now() {
    let raw: timespec = zeroed();
    let mut direct = raw;
    ok!(syscall(SYS_clock_gettime, CLOCK_REALTIME, &mut direct));
    assert!((now(CLOCK_REALTIME) - direct.tv_sec as f64).abs() < 2.0);
    assert!(direct.tv_sec > 1_700_000_000);
}

fn resolution() {
    let mut step: timespec = zeroed();
    ok!(clock_getres(CLOCK_MONOTONIC, &mut step));
    assert_eq!((step.tv_sec, step.tv_nsec), (0, 1));
    ok!(clock_getres(CLOCK_MONOTONIC_COARSE, &mut step));
    assert!(step.tv_nsec >= 1_000_000);
}

fn nanosleep_takes_time() {
    let start = Instant::now();
    ok!(nanosleep(&timespec { tv_sec: 0, tv_nsec: 20_000_000 }, std::ptr::null_mut()));
    let took = start.elapsed().as_millis();
    assert!((20..2000).contains(&took), "{took} ms");
}

fn clock_nanosleep_absolute() {
    let mut until: timespec = zeroed();
    ok!(clock_gettime(CLOCK_MONOTONIC, &mut until));
    until.tv_nsec += 30_000_000;
    if until.tv_nsec >= 1_000_000_000 {
        until.tv_nsec -= 1_000_000_000;
        until.tv_sec += 1;
    }
    let start = Instant::now();
    ok!(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0));
    assert!(start.elapsed().as_millis() >= 29);
    // The moment has passed: no sleep at all.
    ok!(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0));
}

fn cpu_clock_counts_work() {
    let before = (now(CLOCK_PROCESS_CPUTIME_ID), now(CLOCK_THREAD_CPUTIME_ID));
    let start = Instant::now();
    while start.elapsed().as_millis() < 40 {
        std::hint::spin_loop();
    }
    let after = (now(CLOCK_PROCESS_CPUTIME_ID), now(CLOCK_THREAD_CPUTIME_ID));
    assert!(after.0 - before.0 > 0.005, "process: {}", after.0 - before.0);
    assert!(after.1 - before.1 > 0.005, "thread: {}", after.1 - before.1);
}

fn gettimeofday_agrees() {
    let mut day: timeval = zeroed();
    ok!(gettimeofday(&mut day, std::ptr::null_mut()));
    assert!((day.tv_sec as f64 - now(CLOCK_REALTIME)).abs() < 2.0);
    assert!((ok!(time(std::ptr::null_mut())) - day.tv_sec).abs() <= 1);
}

fn bad_clock() {
    let mut out: timespec = zeroed();
    fails!(EINVAL, syscall(SYS_clock_gettime, 99, &mut out));
    fails!(EFAULT, syscall(SYS_clock_gettime, CLOCK_REALTIME, 8));
}

fn bad_timespec() {
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    fails!(EINVAL, nanosleep(&bad, std::ptr::null_mut()));
    let bad = timespec { tv_sec: -1, tv_nsec: 0 };
    fails!(EINVAL, nanosleep(&bad, std::ptr::null_mut()));
    fails!(EFAULT, syscall(SYS_nanosleep, 8, 0));
}

fn times_ticks() {
    let mut used: tms = zeroed();
    let a = ok!(times(&mut used));
    sleep_ms(30);
    let b = ok!(times(&mut used));
    assert!(b - a >= 2, "{a} {b}");
    assert_eq!(ok!(sysconf(_SC_CLK_TCK)), 100);
}

fn vdso_is_there() {
    assert_ne!(ok!(getauxval(AT_SYSINFO_EHDR)), 0);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(maps.contains("[vdso]"));
    // A call takes tens of nanoseconds through the vDSO, microseconds without.
    let thousand = || {
        let start = Instant::now();
        for _ in 0..1000 {
            now(CLOCK_MONOTONIC);
        }
        start.elapsed().as_micros()
    };
    let quickest = (0..50).map(|_| thousand()).min();
    assert!(quickest < Some(1000), "{quickest:?} us for 1000 calls");
}

fn set_needs_right() {
    in_child(|| {
        if is_root() {
            ok!(setuid(65534));
        }
        let when: timespec = zeroed();
        fails!(EPERM, clock_settime(CLOCK_REALTIME, &when));
        fails!(EINVAL, clock_settime(CLOCK_MONOTONIC, &when));
    });
}

fn clock_of_other_process() {
    let mut clock: clockid_t = 0;
    assert_eq!(ok!(clock_getcpuclockid(ok!(getpid()), &mut clock)), 0);
    let mut out: timespec = zeroed();
    ok!(clock_gettime(clock, &mut out));
    assert!(out.tv_sec >= 0);
    assert_eq!(ok!(clock_getcpuclockid(1 << 21, &mut clock)), ESRCH);
}

/// Past the C library: what the kernel itself answers.
fn errors_of_raw_sleeps() {
    let short = timespec { tv_sec: 0, tv_nsec: 1000 };
    fails!(EOPNOTSUPP, syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &short, 0));
    in_child(|| {
        extern "C" fn nothing(_: i32) {}
        let mut action: sigaction = zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        ok!(sigaction(SIGALRM, &action, std::ptr::null_mut()));
        let soon = itimerval { it_interval: zeroed(), it_value: timeval { tv_sec: 0, tv_usec: 20_000 } };
        ok!(setitimer(ITIMER_REAL, &soon, std::ptr::null_mut()));
        let long = timespec { tv_sec: 5, tv_nsec: 0 };
        // What is left cannot be told.
        fails!(EFAULT, syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &long, 8));
    });
}
