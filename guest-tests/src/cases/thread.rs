//! Threads and futexes.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{End, cases, fails, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("thread": join_value, ids, many_threads, mutex_contended, condition_variable, channel_ping_pong, exit_group_ends_all,
    main_exits_first, fork_from_thread, thread_directed_signal, futex_mismatch, futex_timeout, futex_wake_count,
    futex_bitset, futex_requeue, futex_shared_between_processes, futex_interrupted, futex_bad_address, robust_mutex,
    priority_inheritance_mutex, thread_local_storage, comm_of_thread, task_directory, futex_by_the_site_of_other_calls, interrupts_at_the_site_of_all_calls, read_in_thread_write_in_main, tgkill_errors,
    set_tid_address_clear, calls_side_by_side, sched_affinity, membarrier_query, set_robust_list_size, stack_attributes);

fn futex(
    word: &AtomicU32,
    op: i32,
    value: u32,
    timeout: Option<&libc::timespec>,
    bits: u32,
) -> Result<i64, i32> {
    let timeout = timeout.map_or(std::ptr::null(), |t| t as *const libc::timespec);
    sys!(libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, timeout, std::ptr::null::<u32>(), bits))
}

fn ms(ms: i64) -> libc::timespec {
    libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

fn gettid() -> i32 {
    ok!(libc::syscall(libc::SYS_gettid)) as i32
}

fn join_value() {
    assert_eq!(thread::spawn(|| 42).join().expect("joined"), 42);
}

fn ids() {
    let (pid, tid) = (ok!(libc::getpid()), gettid());
    assert_eq!(pid, tid);
    let (p, t) = thread::spawn(|| (ok!(libc::getpid()), gettid())).join().expect("joined");
    assert_eq!(p, pid);
    assert_ne!(t, tid);
}

fn many_threads() {
    let sum = Arc::new(AtomicUsize::new(0));
    for _ in 0..5 {
        let all: Vec<_> = (0..50)
            .map(|i| {
                let sum = Arc::clone(&sum);
                thread::spawn(move || sum.fetch_add(i, SeqCst))
            })
            .collect();
        for one in all {
            one.join().expect("joined");
        }
    }
    assert_eq!(sum.load(SeqCst), 5 * 1225);
}

fn mutex_contended() {
    let count = Arc::new(Mutex::new(0));
    let all: Vec<_> = (0..4)
        .map(|_| {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                for _ in 0..5000 {
                    *count.lock().expect("lock") += 1;
                }
            })
        })
        .collect();
    all.into_iter().for_each(|t| t.join().expect("joined"));
    assert_eq!(*count.lock().expect("lock"), 20_000);
}

fn condition_variable() {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let other = Arc::clone(&pair);
    let worker = thread::spawn(move || {
        for i in 0..100 {
            let mut value = other.0.lock().expect("lock");
            while *value != 2 * i + 1 {
                value = other.1.wait(value).expect("wait");
            }
            *value += 1;
            other.1.notify_all();
        }
    });
    for i in 0..100 {
        let mut value = pair.0.lock().expect("lock");
        *value += 1;
        pair.1.notify_all();
        while *value != 2 * i + 2 {
            value = pair.1.wait(value).expect("wait");
        }
    }
    worker.join().expect("joined");
}

fn channel_ping_pong() {
    let (to, inbox) = mpsc::channel::<i32>();
    let (back, answers) = mpsc::channel();
    let worker = thread::spawn(move || inbox.iter().for_each(|v| back.send(v + 1).expect("send")));
    for i in 0..500 {
        to.send(i).expect("send");
        assert_eq!(answers.recv().expect("receive"), i + 1);
    }
    drop(to);
    worker.join().expect("joined");
}

fn exit_group_ends_all() {
    let pid = fork(|| {
        thread::spawn(|| {
            loop {
                sleep_ms(1000);
            }
        });
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        sleep_ms(20);
        7
    });
    assert_eq!(wait(pid), End::Exited(7));
    let pid = fork(|| {
        thread::spawn(|| ok!(libc::syscall(libc::SYS_exit_group, 9)));
        loop {
            sleep_ms(1000);
        }
    });
    assert_eq!(wait(pid), End::Exited(9));
}

fn main_exits_first() {
    let pid = fork(|| {
        thread::spawn(|| {
            sleep_ms(60);
            ok!(libc::syscall(libc::SYS_exit_group, 4));
        });
        ok!(libc::syscall(libc::SYS_exit, 1)) as i32
    });
    assert_eq!(wait(pid), End::Exited(4));
}

fn fork_from_thread() {
    thread::spawn(|| {
        let pid = fork(|| {
            assert_eq!(ok!(libc::getpid()), gettid());
            let tasks = std::fs::read_dir("/proc/self/task").expect("task").count();
            assert_eq!(tasks, 1);
            3
        });
        assert_eq!(wait(pid), End::Exited(3));
    })
    .join()
    .expect("joined");
    // Another thread may wait for it.
    let pid = thread::spawn(|| fork(|| 5)).join().expect("joined");
    assert_eq!(wait(pid), End::Exited(5));
}

static HIT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_thread(_: i32) {
    // SAFETY: gettid has no precondition.
    HIT.store(unsafe { libc::syscall(libc::SYS_gettid) } as i32, SeqCst);
}

fn thread_directed_signal() {
    ok!(libc::signal(libc::SIGUSR1, note_thread as extern "C" fn(i32) as usize) as isize);
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || {
        send.send(gettid()).expect("send");
        while HIT.load(SeqCst) == 0 {
            sleep_ms(1);
        }
    });
    let tid = receive.recv().expect("receive");
    ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1));
    worker.join().expect("joined");
    assert_eq!(HIT.load(SeqCst), tid);
}

fn futex_mismatch() {
    let word = AtomicU32::new(1);
    assert_eq!(futex(&word, libc::FUTEX_WAIT, 2, None, 0), Err(libc::EAGAIN));
    assert_eq!(futex(&word, libc::FUTEX_WAKE, 1, None, 0), Ok(0));
    assert_eq!(futex(&word, 99, 1, None, 0), Err(libc::ENOSYS));
}

fn futex_timeout() {
    let word = AtomicU32::new(1);
    let start = Instant::now();
    assert_eq!(futex(&word, libc::FUTEX_WAIT, 1, Some(&ms(30)), 0), Err(libc::ETIMEDOUT));
    assert!(start.elapsed() >= Duration::from_millis(30) && start.elapsed() < Duration::from_secs(5));
    let wrong = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
    assert_eq!(futex(&word, libc::FUTEX_WAIT, 1, Some(&wrong), 0), Err(libc::EINVAL));
}

fn futex_wake_count() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let all: Vec<_> = (0..3).map(|_| thread::spawn(|| futex(&WORD, libc::FUTEX_WAIT, 0, None, 0))).collect();
    let mut woken = 0;
    while woken < 3 {
        woken += futex(&WORD, libc::FUTEX_WAKE, 1, None, 0).expect("wake");
        sleep_ms(2);
    }
    assert!(all.into_iter().all(|t| t.join().expect("joined") == Ok(0)));
}

fn futex_bitset() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let waiter = thread::spawn(|| futex(&WORD, libc::FUTEX_WAIT_BITSET, 0, None, 2));
    sleep_ms(50);
    assert_eq!(futex(&WORD, libc::FUTEX_WAKE_BITSET, 9, None, 1), Ok(0));
    while futex(&WORD, libc::FUTEX_WAKE_BITSET, 9, None, 2) == Ok(0) {
        sleep_ms(1);
    }
    assert_eq!(waiter.join().expect("joined"), Ok(0));
    assert_eq!(futex(&WORD, libc::FUTEX_WAIT_BITSET, 0, None, 0), Err(libc::EINVAL));
}

fn futex_requeue() {
    static FROM: AtomicU32 = AtomicU32::new(0);
    static TO: AtomicU32 = AtomicU32::new(0);
    let all: Vec<_> = (0..2).map(|_| thread::spawn(|| futex(&FROM, libc::FUTEX_WAIT, 0, None, 0))).collect();
    let mut moved = 0;
    while moved < 2 {
        let call = libc::SYS_futex;
        moved += ok!(libc::syscall(call, FROM.as_ptr(), libc::FUTEX_CMP_REQUEUE, 0, 9usize, TO.as_ptr(), 0));
        sleep_ms(1);
    }
    assert_eq!(futex(&FROM, libc::FUTEX_WAKE, 9, None, 0), Ok(0));
    assert_eq!(futex(&TO, libc::FUTEX_WAKE, 9, None, 0), Ok(2));
    assert!(all.into_iter().all(|t| t.join().expect("joined") == Ok(0)));
}

fn shared_page() -> *mut u8 {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)).cast()
}

fn futex_shared_between_processes() {
    // SAFETY: the page lives as long as the process and is zeroed.
    let word: &AtomicU32 = unsafe { &*shared_page().cast() };
    let pid = fork(|| {
        while word.load(SeqCst) == 0 {
            let _ = futex(word, libc::FUTEX_WAIT, 0, None, 0);
        }
        6
    });
    sleep_ms(20);
    word.store(1, SeqCst);
    let _ = futex(word, libc::FUTEX_WAKE, 1, None, 0);
    assert_eq!(wait(pid), End::Exited(6));
}

extern "C" fn nothing(_: i32) {}

fn futex_interrupted() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    ok!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()));
    // Also by a site that serves all calls, and often.
    for calls in [0, 100] {
        for _ in 0..calls {
            ok!(libc::syscall(libc::SYS_getpgid, 0));
        }
        let me = (ok!(libc::getpid()), gettid());
        let sender = thread::spawn(move || {
            sleep_ms(40);
            ok!(libc::syscall(libc::SYS_tgkill, me.0, me.1, libc::SIGUSR2));
        });
        assert_eq!(futex(&WORD, libc::FUTEX_WAIT, 0, None, 0), Err(libc::EINTR));
        sender.join().expect("joined");
    }
    action.sa_flags = libc::SA_RESTART;
    ok!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()));
    let me = (ok!(libc::getpid()), gettid());
    let sender = thread::spawn(move || {
        sleep_ms(40);
        ok!(libc::syscall(libc::SYS_tgkill, me.0, me.1, libc::SIGUSR2));
        sleep_ms(40);
        WORD.store(1, SeqCst);
        futex(&WORD, libc::FUTEX_WAKE, 1, None, 0)
    });
    assert_eq!(futex(&WORD, libc::FUTEX_WAIT, 0, None, 0), Ok(0));
    assert_eq!(sender.join().expect("joined"), Ok(1));
}

fn interrupts_at_the_site_of_all_calls() {
    static TICKS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn tick(_: i32) {
        TICKS.fetch_add(1, SeqCst);
    }
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = tick as extern "C" fn(i32) as usize;
    action.sa_flags = libc::SA_RESTART;
    ok!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()));
    let every = libc::timeval { tv_sec: 0, tv_usec: 150 };
    ok!(libc::setitimer(
        libc::ITIMER_REAL,
        &libc::itimerval { it_interval: every, it_value: every },
        std::ptr::null_mut()
    ));
    let (word, group) = (AtomicU32::new(0), ok!(libc::getpgrp()));
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until || TICKS.load(SeqCst) < 100 {
        assert_eq!(ok!(libc::syscall(libc::SYS_getpgid, 0)), i64::from(group));
        assert_eq!(futex(&word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, None, 0), Ok(0));
        assert_eq!(futex(&word, libc::FUTEX_WAIT, 1, None, 0), Err(libc::EAGAIN));
        let page = ok!(libc::syscall(
            libc::SYS_mmap,
            0,
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0
        ));
        assert_eq!(ok!(libc::syscall(libc::SYS_munmap, page, 4096)), 0);
    }
}

fn futex_by_the_site_of_other_calls() {
    // syscall(3) makes every call with one and the same instruction.
    let word = AtomicU32::new(0);
    for _ in 0..2000 {
        ok!(libc::syscall(libc::SYS_getpgid, 0));
        assert_eq!(futex(&word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1, None, 0), Ok(0));
        assert_eq!(futex(&word, libc::FUTEX_WAIT, 1, None, 0), Err(libc::EAGAIN));
        ok!(libc::syscall(libc::SYS_madvise, 0, 0, 0));
    }
}

fn futex_bad_address() {
    fails!(libc::EFAULT, libc::syscall(libc::SYS_futex, 8, libc::FUTEX_WAIT, 0, 0));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_futex, 9, libc::FUTEX_WAIT, 0, 0));
}

fn mutex_with(set: impl FnOnce(*mut libc::pthread_mutexattr_t)) -> *mut libc::pthread_mutex_t {
    let mutex = shared_page().cast::<libc::pthread_mutex_t>();
    let mut attributes: libc::pthread_mutexattr_t = zeroed();
    assert_eq!(ok!(libc::pthread_mutexattr_init(&mut attributes)), 0);
    set(&mut attributes);
    ok!(libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED));
    assert_eq!(ok!(libc::pthread_mutex_init(mutex, &attributes)), 0);
    mutex
}

fn robust_mutex() {
    let mutex = mutex_with(|a| {
        ok!(libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST));
    });
    let pid = fork(|| {
        assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), 0);
        0
    });
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), libc::EOWNERDEAD);
    assert_eq!(ok!(libc::pthread_mutex_consistent(mutex)), 0);
    assert_eq!(ok!(libc::pthread_mutex_unlock(mutex)), 0);
    // Killed while it holds the lock.
    let pid = fork(|| {
        ok!(libc::pthread_mutex_lock(mutex));
        ok!(libc::raise(libc::SIGKILL))
    });
    assert_eq!(wait(pid), End::Killed(libc::SIGKILL));
    assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), libc::EOWNERDEAD);
}

fn priority_inheritance_mutex() {
    let mutex = mutex_with(|a| {
        ok!(libc::pthread_mutexattr_setprotocol(a, libc::PTHREAD_PRIO_INHERIT));
    });
    let at = mutex as usize;
    assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), 0);
    let other = thread::spawn(move || {
        let mutex = at as *mut libc::pthread_mutex_t;
        assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), 0);
        assert_eq!(ok!(libc::pthread_mutex_unlock(mutex)), 0);
    });
    sleep_ms(30);
    assert_eq!(ok!(libc::pthread_mutex_unlock(mutex)), 0);
    other.join().expect("joined");
}

fn thread_local_storage() {
    thread_local!(static VALUE: std::cell::Cell<i32> = const { std::cell::Cell::new(1) });
    VALUE.set(5);
    thread::spawn(|| assert_eq!(VALUE.get(), 1)).join().expect("joined");
    assert_eq!(VALUE.get(), 5);
}

fn comm_of_thread() {
    let name = thread::Builder::new().name("worker-7".into());
    name.spawn(|| {
        let comm = std::fs::read_to_string(format!("/proc/self/task/{}/comm", gettid())).expect("comm");
        assert_eq!(comm, "worker-7\n");
    })
    .expect("spawned")
    .join()
    .expect("joined");
    assert_ne!(std::fs::read_to_string("/proc/self/comm").expect("comm"), "worker-7\n");
}

fn task_directory() {
    let (gate, other) = (Arc::new(Barrier::new(2)), ());
    let inner = Arc::clone(&gate);
    let worker = thread::spawn(move || {
        inner.wait();
        inner.wait();
        other
    });
    gate.wait();
    let count = || std::fs::read_dir("/proc/self/task").expect("task").count();
    assert_eq!(count(), 2);
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    assert!(status.contains("Threads:\t2\n"), "{status}");
    gate.wait();
    worker.join().expect("joined");
    while count() != 1 {
        sleep_ms(1);
    }
}

fn read_in_thread_write_in_main() {
    let (r, w) = pipe();
    let reader = thread::spawn(move || read(r, 10));
    sleep_ms(20);
    write(w, b"late");
    assert_eq!(reader.join().expect("joined"), b"late");
}

fn tgkill_errors() {
    let pid = ok!(libc::getpid());
    fails!(libc::ESRCH, libc::syscall(libc::SYS_tgkill, pid, 0x3fff_ffff, 0));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_tgkill, pid, -1, 0));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_tgkill, pid, pid, 65));
    fails!(libc::ESRCH, libc::syscall(libc::SYS_tgkill, pid + 1, pid, 0));
}

fn set_tid_address_clear() {
    assert_eq!(ok!(libc::syscall(libc::SYS_set_tid_address, 0)), i64::from(gettid()));
}

fn sched_affinity() {
    let mut set: libc::cpu_set_t = zeroed();
    ok!(libc::sched_getaffinity(0, size_of_val(&set), &mut set));
    // SAFETY: reads the set.
    let count = (0..1024).filter(|i| unsafe { libc::CPU_ISSET(*i, &set) }).count();
    assert!(count >= 1 && count as i64 <= ok!(libc::sysconf(libc::_SC_NPROCESSORS_CONF)));
    ok!(libc::sched_setaffinity(0, size_of_val(&set), &set));
    let empty: libc::cpu_set_t = zeroed();
    fails!(libc::EINVAL, libc::sched_setaffinity(0, size_of_val(&empty), &empty));
    ok!(libc::sched_yield());
}

fn membarrier_query() {
    assert!(ok!(libc::syscall(libc::SYS_membarrier, 0, 0, 0)) > 0);
}

fn set_robust_list_size() {
    fails!(libc::EINVAL, libc::syscall(libc::SYS_set_robust_list, 0, 7));
}

fn stack_attributes() {
    let big = thread::Builder::new().stack_size(64 << 20);
    big.spawn(|| ()).expect("spawned").join().expect("joined");
}

/// Threads that make calls at sites next to each other, which become frequent at the same moment.
fn calls_side_by_side() {
    const THREADS: usize = 4;
    const CODE: usize = 10;
    const ROUNDS: usize = 500;
    let group = ok!(libc::getpgid(0)) as usize;
    let barrier = Barrier::new(THREADS);
    let page = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (barrier, page) = (&barrier, &page);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    if number == 0 {
                        page.store(fresh_sites(THREADS, CODE), SeqCst);
                    }
                    barrier.wait();
                    let site = page.load(SeqCst) + number * CODE;
                    for _ in 0..6 {
                        let (result, which): (usize, usize);
                        // SAFETY: the code there makes getpgid(0), tells its number and returns.
                        unsafe {
                            std::arch::asm!("call {site}", site = in(reg) site, in("rdi") 0, in("rsi") libc::SYS_getpgid,
                                out("rax") result, out("rdx") which, out("rcx") _, out("r11") _);
                        }
                        assert_eq!((result, which), (group, number));
                    }
                    barrier.wait();
                }
            });
        }
    });
}

/// A page with a function per thread: `mov eax, esi; syscall; mov edx, number; ret`. Behind them is padding.
fn fresh_sites(threads: usize, size: usize) -> usize {
    let rwx = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let page =
        ok!(libc::mmap(std::ptr::null_mut(), 4096, rwx, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0));
    let mut code = vec![0xcc_u8; 4096];
    for (number, function) in (0_u8..).zip(code.chunks_mut(size).take(threads)) {
        function.copy_from_slice(&[0x89, 0xf0, 0x0f, 0x05, 0xba, number, 0, 0, 0, 0xc3]);
    }
    // SAFETY: the page was just mapped and is as long.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len()) };
    page as usize
}
