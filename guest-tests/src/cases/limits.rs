//! Resource limits, resource use, scheduling.

use libc::*;

use crate::harness::{
    End, cases, fails, fork, in_child, ok, pipe, read, skip, sleep_ms, wait, write, zeroed,
};

cases!("limits": get_and_set, soft_above_hard, bad_resource, inherited, prlimit_of_child, open_files_limit,
    cpu_limit_kills, use_of_self, use_of_children, times_tick, nice_values, affinity, policies, priorities,
    io_priority, yield_and_cpu, processes_of_a_user, table);

fn limit(resource: __rlimit_resource_t) -> rlimit {
    let mut limit: rlimit = zeroed();
    ok!(getrlimit(resource, &mut limit));
    limit
}

fn get_and_set() {
    let before = limit(RLIMIT_CORE);
    let wanted = rlimit { rlim_cur: 0, rlim_max: before.rlim_max };
    ok!(setrlimit(RLIMIT_CORE, &wanted));
    assert_eq!((limit(RLIMIT_CORE).rlim_cur, limit(RLIMIT_CORE).rlim_max), (0, before.rlim_max));
}

fn soft_above_hard() {
    fails!(EINVAL, setrlimit(RLIMIT_CORE, &rlimit { rlim_cur: 2, rlim_max: 1 }));
}

fn bad_resource() {
    let mut out: rlimit = zeroed();
    fails!(EINVAL, syscall(SYS_getrlimit, 99, &mut out));
    fails!(EINVAL, syscall(SYS_prlimit64, 0, 99, 0, &mut out));
    fails!(ESRCH, syscall(SYS_prlimit64, 1 << 21, RLIMIT_CORE, 0, &mut out));
    fails!(EFAULT, syscall(SYS_getrlimit, RLIMIT_CORE, 8));
}

fn inherited() {
    let hard = limit(RLIMIT_NOFILE).rlim_max;
    ok!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 77, rlim_max: hard }));
    in_child(|| assert_eq!(limit(RLIMIT_NOFILE).rlim_cur, 77));
}

fn prlimit_of_child() {
    let (r, w) = pipe();
    let child = fork(|| {
        read(r, 1);
        i32::from(limit(RLIMIT_CORE).rlim_cur != 0)
    });
    let new = rlimit { rlim_cur: 0, rlim_max: 0 };
    ok!(prlimit(child, RLIMIT_CORE, &new, std::ptr::null_mut()));
    write(w, b"x");
    assert_eq!(wait(child), End::Exited(0));
}

fn open_files_limit() {
    let hard = limit(RLIMIT_NOFILE).rlim_max;
    ok!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 16, rlim_max: hard }));
    while let Ok(fd) = crate::harness::sys!(dup(0)) {
        assert!(fd < 16);
    }
    fails!(EMFILE, dup(0));
}

fn cpu_limit_kills() {
    let child = fork(|| {
        ok!(setrlimit(RLIMIT_CPU, &rlimit { rlim_cur: 1, rlim_max: 2 }));
        loop {
            std::hint::spin_loop();
        }
    });
    assert_eq!(wait(child), End::Killed(SIGXCPU));
}

/// Uses up CPU time, however busy the machine is.
fn burn(ms: i64) {
    let start = std::time::Instant::now();
    let mut used: timespec = zeroed();
    while used.tv_sec * 1000 + used.tv_nsec / 1_000_000 < ms && start.elapsed().as_secs() < 10 {
        for _ in 0..10_000 {
            std::hint::spin_loop();
        }
        ok!(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut used));
    }
}

fn ns(t: &timeval) -> i64 {
    t.tv_sec * 1_000_000_000 + t.tv_usec * 1000
}

fn use_of_self() {
    burn(60);
    let mut own: rusage = zeroed();
    ok!(getrusage(RUSAGE_SELF, &mut own));
    assert!(ns(&own.ru_utime) + ns(&own.ru_stime) > 20_000_000);
    assert!(own.ru_maxrss > 0);
    ok!(getrusage(RUSAGE_THREAD, &mut own));
    fails!(EINVAL, getrusage(7, &mut own));
}

fn use_of_children() {
    wait(fork(|| {
        burn(60);
        0
    }));
    let mut all: rusage = zeroed();
    ok!(getrusage(RUSAGE_CHILDREN, &mut all));
    assert!(ns(&all.ru_utime) + ns(&all.ru_stime) > 20_000_000);
}

fn times_tick() {
    let mut out: tms = zeroed();
    let before = ok!(times(&mut out));
    sleep_ms(50);
    let passed = ok!(times(&mut out)) - before;
    assert!((3..100).contains(&passed), "{passed} ticks in 50 ms");
}

fn nice_values() {
    in_child(|| {
        let before = 20 - ok!(syscall(SYS_getpriority, PRIO_PROCESS, 0));
        ok!(setpriority(PRIO_PROCESS, 0, before as i32 + 3));
        assert_eq!(20 - ok!(syscall(SYS_getpriority, PRIO_PROCESS, 0)), before + 3);
        in_child(|| assert_eq!(20 - ok!(syscall(SYS_getpriority, PRIO_PROCESS, 0)), before + 3));
    });
    fails!(EINVAL, syscall(SYS_getpriority, 9, 0));
    fails!(ESRCH, syscall(SYS_getpriority, PRIO_PROCESS, 1 << 21));
}

fn affinity() {
    in_child(|| {
        let mut set = [0u64; 16];
        let size = ok!(syscall(SYS_sched_getaffinity, 0, 128, set.as_mut_ptr()));
        assert!(size > 0 && size % 8 == 0, "{size} bytes");
        let word = set.iter().position(|w| *w != 0).expect("a processor");
        let mut one = [0u64; 16];
        one[word] = set[word] & set[word].wrapping_neg();
        ok!(syscall(SYS_sched_setaffinity, 0, 128, one.as_ptr()));
        set = [0; 16];
        ok!(syscall(SYS_sched_getaffinity, 0, 128, set.as_mut_ptr()));
        assert_eq!(set, one);
        fails!(EINVAL, syscall(SYS_sched_setaffinity, 0, 128, [0u64; 16].as_ptr()));
        fails!(EINVAL, syscall(SYS_sched_getaffinity, 0, 7, set.as_mut_ptr()));
        fails!(ESRCH, syscall(SYS_sched_getaffinity, -1, 128, set.as_mut_ptr()));
        fails!(ESRCH, syscall(SYS_sched_setaffinity, -1, 128, one.as_ptr()));
    });
}

fn policies() {
    assert_eq!(ok!(syscall(SYS_sched_getscheduler, 0)), i64::from(SCHED_OTHER));
    in_child(|| {
        let zero: i32 = 0;
        ok!(syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &zero));
        assert_eq!(ok!(syscall(SYS_sched_getscheduler, 0)), i64::from(SCHED_BATCH));
        let five: i32 = 5;
        fails!(EINVAL, syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &five));
        fails!(EINVAL, syscall(SYS_sched_setscheduler, 0, 99, &zero));
        let mut param = 7i32;
        ok!(syscall(SYS_sched_getparam, 0, &mut param));
        assert_eq!(param, 0);
    });
    fails!(ESRCH, syscall(SYS_sched_getscheduler, 1 << 21));
}

fn priorities() {
    assert_eq!(ok!(syscall(SYS_sched_get_priority_max, SCHED_FIFO)), 99);
    assert_eq!(ok!(syscall(SYS_sched_get_priority_min, SCHED_RR)), 1);
    assert_eq!(ok!(syscall(SYS_sched_get_priority_max, SCHED_OTHER)), 0);
    fails!(EINVAL, syscall(SYS_sched_get_priority_max, 77));
}

fn io_priority() {
    in_child(|| {
        let best_effort = 2 << 13 | 5;
        ok!(syscall(SYS_ioprio_set, 1, 0, best_effort));
        assert_eq!(ok!(syscall(SYS_ioprio_get, 1, 0)), best_effort);
        fails!(EINVAL, syscall(SYS_ioprio_set, 1, 0, 7 << 13));
        fails!(EINVAL, syscall(SYS_ioprio_get, 9, 0));
    });
}

fn yield_and_cpu() {
    ok!(sched_yield());
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    ok!(syscall(SYS_getcpu, &mut cpu, &mut node, 0));
    assert!(cpu < 4096 && node < 4096);
}

fn processes_of_a_user() {
    if ok!(geteuid()) != 0 {
        skip!("only root may become another user");
    }
    in_child(|| {
        let (r, w) = pipe();
        // A user that nobody else is.
        let user = 200_000 + ok!(getpid()) as u32;
        ok!(setresuid(user, user, user));
        ok!(setrlimit(RLIMIT_NPROC, &rlimit { rlim_cur: 3, rlim_max: 3 }));
        let waits = || {
            ok!(close(w));
            read(r, 1);
            0
        };
        let children = [fork(waits), fork(waits)];
        fails!(EAGAIN, libc::fork());
        assert!(std::thread::Builder::new().spawn(|| {}).is_err());
        ok!(close(w));
        // Those that nobody has waited for count.
        for pid in children {
            ok!(waitid(P_PID, pid as u32, &mut zeroed(), WEXITED | WNOWAIT));
        }
        fails!(EAGAIN, libc::fork());
        for pid in children {
            assert_eq!(wait(pid), End::Exited(0));
        }
        assert_eq!(wait(fork(|| 0)), End::Exited(0));
    });
}

/// Columns of fixed width; a row without a unit ends after its hard limit.
fn table() {
    let text = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 17);
    for row in rows {
        let unit = !row.starts_with("Max nice") && !row.starts_with("Max realtime priority");
        assert_eq!(row.len(), if unit { 26 + 21 + 21 + 10 } else { 26 + 21 + 21 }, "{row:?}");
    }
}
