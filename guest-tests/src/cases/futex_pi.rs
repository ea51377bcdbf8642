//! Priority-inheritance and robust futexes: what the kernel writes into words that hold thread ids.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use crate::harness::{End, Temp, cases, fails, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("futex_pi": lock_and_unlock, lock_waits, lock_times_out, lock_of_nobody, lock_twice, lock_try, unlock_of_others, handed_on_in_order,
    many_lockers, shared_between_processes, holder_ends, robust_holder_ends, interrupted_lock_goes_on, requeue, requeue_errors,
    requeue_times_out, bad_arguments, robust_killed_holder_wakes, robust_exit_group_wakes, robust_in_a_file, robust_exec, robust_list_of_others);

const LOCK_PI: i32 = 6;
const UNLOCK_PI: i32 = 7;
const TRYLOCK_PI: i32 = 8;
const WAIT_REQUEUE_PI: i32 = 11;
const CMP_REQUEUE_PI: i32 = 12;
const LOCK_PI2: i32 = 13;
const PRIVATE: i32 = 128;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;

fn futex(
    word: &AtomicU32,
    op: i32,
    value: u32,
    time: *const libc::timespec,
    other: Option<&AtomicU32>,
    value3: u32,
) -> Result<i64, i32> {
    let other = other.map_or(std::ptr::null_mut(), AtomicU32::as_ptr);
    sys!(libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, time, other, value3))
}

fn lock(word: &AtomicU32) -> Result<i64, i32> {
    futex(word, LOCK_PI | PRIVATE, 0, std::ptr::null(), None, 0)
}

fn unlock(word: &AtomicU32) -> Result<i64, i32> {
    futex(word, UNLOCK_PI | PRIVATE, 0, std::ptr::null(), None, 0)
}

fn gettid() -> u32 {
    ok!(libc::syscall(libc::SYS_gettid)) as u32
}

/// A time from now on a clock.
fn from_now(clock: i32, ms: i64) -> libc::timespec {
    let mut now: libc::timespec = zeroed();
    ok!(libc::clock_gettime(clock, &mut now));
    let nanoseconds = now.tv_nsec + ms * 1_000_000;
    libc::timespec { tv_sec: now.tv_sec + nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000 }
}

/// Words in memory that children share.
fn shared<T>(fd: i32) -> &'static T {
    let flags = if fd < 0 { libc::MAP_SHARED | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    let at = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0));
    // SAFETY: a fresh page of zeroes, mapped for the rest of the case, holds atomics.
    unsafe { &*at.cast() }
}

fn lock_and_unlock() {
    let word = AtomicU32::new(0);
    assert_eq!(lock(&word), Ok(0));
    assert_eq!(word.load(SeqCst), gettid());
    assert_eq!(unlock(&word), Ok(0));
    assert_eq!(word.load(SeqCst), 0);
}

fn lock_waits() {
    let word = AtomicU32::new(gettid());
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(lock(&word), Ok(0));
            let value = word.load(SeqCst);
            assert_eq!(value & !WAITERS, gettid());
            assert_eq!(unlock(&word), Ok(0));
        });
        while word.load(SeqCst) & WAITERS == 0 {
            sleep_ms(1);
        }
        assert_eq!(word.load(SeqCst), gettid() | WAITERS);
        assert_eq!(unlock(&word), Ok(0));
        other.join().expect("joined");
    });
    assert_eq!(word.load(SeqCst), 0);
}

fn lock_times_out() {
    let word = AtomicU32::new(gettid());
    thread::scope(|scope| {
        scope.spawn(|| {
            let date = from_now(libc::CLOCK_REALTIME, 30);
            assert_eq!(futex(&word, LOCK_PI | PRIVATE, 0, &date, None, 0), Err(libc::ETIMEDOUT));
            let time = from_now(libc::CLOCK_MONOTONIC, 30);
            assert_eq!(futex(&word, LOCK_PI2 | PRIVATE, 0, &time, None, 0), Err(libc::ETIMEDOUT));
            let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            assert_eq!(futex(&word, LOCK_PI | PRIVATE, 0, &past, None, 0), Err(libc::ETIMEDOUT));
            let wrong = libc::timespec { tv_sec: 1, tv_nsec: 1_000_000_000 };
            assert_eq!(futex(&word, LOCK_PI | PRIVATE, 0, &wrong, None, 0), Err(libc::EINVAL));
        });
    });
    // Nobody waits any more, whatever the word says.
    assert_eq!(unlock(&word), Ok(0));
    assert_eq!(word.load(SeqCst), 0);
}

fn lock_of_nobody() {
    let word = AtomicU32::new(0x3fff_fff0);
    assert_eq!(lock(&word), Err(libc::ESRCH));
    assert_eq!(word.load(SeqCst) & !WAITERS, 0x3fff_fff0);
}

fn lock_twice() {
    let word = AtomicU32::new(gettid());
    assert_eq!(lock(&word), Err(libc::EDEADLK));
    assert_eq!(futex(&word, TRYLOCK_PI | PRIVATE, 0, std::ptr::null(), None, 0), Err(libc::EDEADLK));
}

fn lock_try() {
    let word = AtomicU32::new(0);
    let try_lock = |word| futex(word, TRYLOCK_PI | PRIVATE, 0, std::ptr::null(), None, 0);
    assert_eq!(try_lock(&word), Ok(0));
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(try_lock(&word), Err(libc::EAGAIN)));
    });
    assert_eq!(unlock(&word), Ok(0));
    // Left behind by a dead holder.
    word.store(OWNER_DIED, SeqCst);
    assert_eq!(try_lock(&word), Ok(0));
    assert_eq!(word.load(SeqCst) & !WAITERS, gettid() | OWNER_DIED);
}

fn unlock_of_others() {
    let word = AtomicU32::new(0);
    assert_eq!(unlock(&word), Err(libc::EPERM));
    word.store(gettid() + 1, SeqCst);
    assert_eq!(unlock(&word), Err(libc::EPERM));
    assert_eq!(word.load(SeqCst), gettid() + 1);
}

fn handed_on_in_order() {
    let word = AtomicU32::new(gettid());
    let order = std::sync::Mutex::new(Vec::new());
    let waiting = AtomicU32::new(0);
    thread::scope(|scope| {
        for i in 0..5 {
            let (word, order, waiting) = (&word, &order, &waiting);
            scope.spawn(move || {
                waiting.fetch_add(1, SeqCst);
                assert_eq!(lock(word), Ok(0));
                order.lock().expect("lock").push(i);
                assert_eq!(unlock(word), Ok(0));
            });
            while waiting.load(SeqCst) != i + 1 {
                sleep_ms(1);
            }
            sleep_ms(20);
        }
        assert_eq!(unlock(&word), Ok(0));
    });
    assert_eq!(*order.lock().expect("lock"), [0, 1, 2, 3, 4]);
    assert_eq!(word.load(SeqCst), 0);
}

/// As a C library locks: by an exchange first.
fn lock_quickly(word: &AtomicU32) {
    if word.compare_exchange(0, gettid(), SeqCst, SeqCst).is_err() {
        assert_eq!(lock(word), Ok(0));
    }
}

fn unlock_quickly(word: &AtomicU32) {
    if word.compare_exchange(gettid(), 0, SeqCst, SeqCst).is_err() {
        assert_eq!(unlock(word), Ok(0));
    }
}

fn many_lockers() {
    let word = AtomicU32::new(0);
    let inside = AtomicU32::new(0);
    let mut count = 0u32;
    let at = &raw mut count as usize;
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..300 {
                    lock_quickly(&word);
                    assert_eq!(inside.fetch_add(1, SeqCst), 0);
                    // SAFETY: only the holder of the lock is here, as the assertion checks.
                    unsafe { *(at as *mut u32) += 1 };
                    inside.fetch_sub(1, SeqCst);
                    unlock_quickly(&word);
                }
            });
        }
    });
    assert_eq!(count, 1800);
    assert_eq!(word.load(SeqCst), 0);
}

fn shared_between_processes() {
    for fd in [-1, ok!(libc::memfd_create(c"lock".as_ptr(), 0))] {
        if fd >= 0 {
            ok!(libc::ftruncate(fd, 4096));
        }
        let words: &[AtomicU32; 2] = shared(fd);
        let children: Vec<_> = (0..3)
            .map(|_| {
                fork(|| {
                    // Each has it at another address.
                    let words: &[AtomicU32; 2] = if fd >= 0 { shared(fd) } else { words };
                    for _ in 0..50 {
                        assert_eq!(futex(&words[0], LOCK_PI, 0, std::ptr::null(), None, 0), Ok(0));
                        let value = words[1].load(SeqCst);
                        thread::yield_now();
                        words[1].store(value + 1, SeqCst);
                        assert_eq!(futex(&words[0], UNLOCK_PI, 0, std::ptr::null(), None, 0), Ok(0));
                    }
                    0
                })
            })
            .collect();
        for child in children {
            assert_eq!(wait(child), End::Exited(0));
        }
        assert_eq!(words[1].load(SeqCst), 150);
    }
}

/// The holder ends without a robust list: who waits gets the lock, and the word tells.
fn holder_ends() {
    let word: &AtomicU32 = shared(-1);
    let (ready, go) = pipe();
    let holder = fork(|| {
        assert_eq!(futex(word, LOCK_PI, 0, std::ptr::null(), None, 0), Ok(0));
        write(go, b"x");
        while word.load(SeqCst) & WAITERS == 0 {
            sleep_ms(1);
        }
        sleep_ms(20);
        0
    });
    read(ready, 1);
    assert_eq!(futex(word, LOCK_PI, 0, std::ptr::null(), None, 0), Ok(0));
    assert_eq!(word.load(SeqCst) & !WAITERS, gettid() | OWNER_DIED);
    assert_eq!(wait(holder), End::Exited(0));
}

/// A mutex of the C library in shared memory.
fn mutex(fd: i32, robust: bool, inherit: bool) -> *mut libc::pthread_mutex_t {
    let at = ok!(libc::mmap(
        std::ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        if fd < 0 { libc::MAP_SHARED | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED },
        fd,
        0
    ))
    .cast();
    let mut attributes: libc::pthread_mutexattr_t = zeroed();
    let a = &raw mut attributes;
    assert_eq!(ok!(libc::pthread_mutexattr_init(a)), 0);
    assert_eq!(ok!(libc::pthread_mutexattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED)), 0);
    if robust {
        assert_eq!(ok!(libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST)), 0);
    }
    if inherit {
        assert_eq!(ok!(libc::pthread_mutexattr_setprotocol(a, libc::PTHREAD_PRIO_INHERIT)), 0);
    }
    assert_eq!(ok!(libc::pthread_mutex_init(at, a)), 0);
    at
}

/// A child locks the mutex and ends in some way while this process waits for it.
fn holder_of_mutex_ends(mutex: *mut libc::pthread_mutex_t, end: End, how: impl FnOnce()) {
    let (ready, go) = pipe();
    let holder = fork(|| {
        assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), 0);
        write(go, b"x");
        sleep_ms(60);
        how();
        loop {
            sleep_ms(1000);
        }
    });
    read(ready, 1);
    let killer = (end == End::Killed(libc::SIGKILL)).then(|| {
        fork(|| {
            sleep_ms(60);
            ok!(libc::kill(holder, libc::SIGKILL));
            0
        })
    });
    // It waits in the kernel when the holder ends.
    assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), libc::EOWNERDEAD);
    assert_eq!(ok!(libc::pthread_mutex_consistent(mutex)), 0);
    assert_eq!(ok!(libc::pthread_mutex_unlock(mutex)), 0);
    assert_eq!(wait(holder), end);
    if let Some(killer) = killer {
        assert_eq!(wait(killer), End::Exited(0));
    }
    assert_eq!(ok!(libc::pthread_mutex_lock(mutex)), 0);
    assert_eq!(ok!(libc::pthread_mutex_unlock(mutex)), 0);
}

fn robust_holder_ends() {
    let mutex = mutex(-1, true, true);
    holder_of_mutex_ends(mutex, End::Exited(3), || {
        ok!(libc::syscall(libc::SYS_exit_group, 3)).to_string().clear()
    });
    holder_of_mutex_ends(mutex, End::Killed(libc::SIGKILL), || {});
}

fn robust_killed_holder_wakes() {
    let mutex = mutex(-1, true, false);
    for _ in 0..3 {
        holder_of_mutex_ends(mutex, End::Killed(libc::SIGKILL), || {});
    }
    // By a signal of its own, and one that is computing when it is killed.
    holder_of_mutex_ends(mutex, End::Killed(libc::SIGTERM), || {
        ok!(libc::raise(libc::SIGTERM));
    });
    holder_of_mutex_ends(mutex, End::Killed(libc::SIGKILL), || {
        loop {
            std::hint::spin_loop();
        }
    });
}

fn robust_exit_group_wakes() {
    let mutex = mutex(-1, true, false);
    holder_of_mutex_ends(mutex, End::Exited(4), || {
        ok!(libc::syscall(libc::SYS_exit_group, 4));
    });
    // By another thread than the holder.
    holder_of_mutex_ends(mutex, End::Exited(5), || {
        thread::spawn(|| ok!(libc::syscall(libc::SYS_exit_group, 5)));
    });
    // The only thread ends.
    holder_of_mutex_ends(mutex, End::Exited(6), || {
        ok!(libc::syscall(libc::SYS_exit, 6));
    });
}

fn robust_in_a_file() {
    let temp = Temp::new();
    let path = temp.join("lock");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
    ok!(libc::ftruncate(fd, 4096));
    holder_of_mutex_ends(mutex(fd, true, false), End::Killed(libc::SIGKILL), || {});
}

fn robust_exec() {
    let mutex = mutex(-1, true, false);
    holder_of_mutex_ends(mutex, End::Exited(0), || {
        let program = c"/bin/true".as_ptr();
        let (args, env) = ([program, std::ptr::null()], [std::ptr::null()]);
        ok!(libc::execve(program, args.as_ptr(), env.as_ptr()));
    });
}

fn robust_list_of_others() {
    let get = |pid: i32| {
        let (mut head, mut len) = (0u64, 0u64);
        sys!(libc::syscall(libc::SYS_get_robust_list, pid, &mut head, &mut len)).map(|_| (head, len))
    };
    let (own, len) = get(0).expect("the own list");
    assert_eq!(len, 24);
    assert_eq!(get(gettid() as i32), Ok((own, 24)));
    let (tid, given) = thread::spawn(move || {
        let tid = gettid() as i32;
        (tid, get(tid))
    })
    .join()
    .expect("joined");
    assert_ne!(given.expect("the list of the thread").0, own);
    assert_eq!(get(0x3fff_fff0), Err(libc::ESRCH));
    let _ = tid;
}

extern "C" fn nothing(_: i32) {}

fn interrupted_lock_goes_on() {
    let mut action: libc::sigaction = zeroed();
    action.sa_sigaction = nothing as *const () as usize;
    ok!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()));
    let word = AtomicU32::new(gettid());
    let tid = AtomicU32::new(0);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            tid.store(gettid(), SeqCst);
            // Without SA_RESTART, too.
            assert_eq!(lock(&word), Ok(0));
            assert_eq!(unlock(&word), Ok(0));
        });
        while word.load(SeqCst) & WAITERS == 0 {
            sleep_ms(1);
        }
        for _ in 0..3 {
            ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), tid.load(SeqCst), libc::SIGUSR1));
            sleep_ms(10);
        }
        assert_eq!(unlock(&word), Ok(0));
        other.join().expect("joined");
    });
}

fn requeue() {
    let (condition, word) = (AtomicU32::new(7), AtomicU32::new(0));
    thread::scope(|scope| {
        let all: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let done =
                        futex(&condition, WAIT_REQUEUE_PI | PRIVATE, 7, std::ptr::null(), Some(&word), 0);
                    assert_eq!(done, Ok(0));
                    assert_eq!(word.load(SeqCst) & !WAITERS, gettid());
                    assert_eq!(unlock(&word), Ok(0));
                })
            })
            .collect();
        sleep_ms(100);
        assert_eq!(lock(&word), Ok(0));
        // One would get the lock, but it is held: all three are moved.
        let most = 10usize as *const libc::timespec;
        assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, most, Some(&word), 7), Ok(3));
        assert_eq!(word.load(SeqCst), gettid() | WAITERS);
        assert_eq!(unlock(&word), Ok(0));
        all.into_iter().for_each(|t| t.join().expect("joined"));
    });
    assert_eq!(word.load(SeqCst), 0);
    // To a free lock: the first one has it at once.
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(
                futex(&condition, WAIT_REQUEUE_PI | PRIVATE, 7, std::ptr::null(), Some(&word), 0),
                Ok(0)
            );
            assert_eq!(unlock(&word), Ok(0));
        });
        sleep_ms(60);
        assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, std::ptr::null(), Some(&word), 7), Ok(1));
        other.join().expect("joined");
    });
}

fn requeue_errors() {
    let (condition, word) = (AtomicU32::new(7), AtomicU32::new(0));
    let none = std::ptr::null();
    assert_eq!(futex(&condition, WAIT_REQUEUE_PI | PRIVATE, 8, none, Some(&word), 0), Err(libc::EAGAIN));
    assert_eq!(futex(&condition, WAIT_REQUEUE_PI | PRIVATE, 7, none, Some(&condition), 0), Err(libc::EINVAL));
    assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, none, Some(&word), 8), Err(libc::EAGAIN));
    assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 2, none, Some(&word), 7), Err(libc::EINVAL));
    assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, none, Some(&condition), 7), Err(libc::EINVAL));
    assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, none, Some(&word), 7), Ok(0));
}

fn requeue_times_out() {
    let (condition, word) = (AtomicU32::new(7), AtomicU32::new(0));
    let time = from_now(libc::CLOCK_MONOTONIC, 30);
    assert_eq!(futex(&condition, WAIT_REQUEUE_PI | PRIVATE, 7, &time, Some(&word), 0), Err(libc::ETIMEDOUT));
    let date = from_now(libc::CLOCK_REALTIME, 30);
    let done = futex(&condition, WAIT_REQUEUE_PI | PRIVATE | 256, 7, &date, Some(&word), 0);
    assert_eq!(done, Err(libc::ETIMEDOUT));
    assert_eq!(futex(&condition, CMP_REQUEUE_PI | PRIVATE, 1, std::ptr::null(), Some(&word), 7), Ok(0));
}

fn bad_arguments() {
    let call = |at: usize, op: i32| sys!(libc::syscall(libc::SYS_futex, at, op, 0, 0, 0, 0)).map(|_| ());
    assert_eq!(call(8, LOCK_PI | PRIVATE), Err(libc::EFAULT));
    assert_eq!(call(8, LOCK_PI), Err(libc::EFAULT));
    assert_eq!(call(9, LOCK_PI | PRIVATE), Err(libc::EINVAL));
    assert_eq!(call(8, UNLOCK_PI | PRIVATE), Err(libc::EFAULT));
    assert_eq!(call(8, 2), Err(libc::ENOSYS));
    assert_eq!(call(8, 14), Err(libc::ENOSYS));
    assert_eq!(call(8, UNLOCK_PI | PRIVATE | 256), Err(libc::ENOSYS));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_set_robust_list, 0, 23));
}
