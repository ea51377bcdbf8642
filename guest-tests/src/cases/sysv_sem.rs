//! System V semaphores.

use std::ptr;
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{End, cases, errno_name, fails, fork, in_child, ok, sleep_ms, sys, wait, zeroed};

cases!("sysv_sem": get_errors, values, operations, atomic_arrays, waits_for_increase, waits_for_zero, order_of_waiters,
    timeout, counts_of_waiters, undo_at_exit, undo_at_kill, undo_after_exec, undo_of_threads, undo_cleared_by_setval,
    removal_wakes, interrupted, errors, permissions, stat_and_info, lists_in_proc, mutex_of_processes, hand_over);

const UNDO: i16 = 0x1000;
const NOWAIT: i16 = IPC_NOWAIT as i16;

fn set(n: i32) -> i32 {
    ok!(semget(IPC_PRIVATE, n, 0o600))
}
fn remove(id: i32) {
    ok!(semctl(id, 0, IPC_RMID));
}
fn op(num: u16, op: i16, flags: i16) -> sembuf {
    sembuf { sem_num: num, sem_op: op, sem_flg: flags }
}
fn run(id: i32, ops: &mut [sembuf]) -> Result<i32, i32> {
    sys!(semop(id, ops.as_mut_ptr(), ops.len()))
}
fn value(id: i32, num: i32) -> i32 {
    ok!(semctl(id, num, GETVAL))
}
fn put(id: i32, num: i32, value: i32) {
    ok!(semctl(id, num, SETVAL, value));
}
/// Waits until so many wait for an increase (or zero).
fn until_waiting(id: i32, cmd: i32, count: i32) {
    while ok!(semctl(id, 0, cmd)) != count {
        sleep_ms(1);
    }
}
fn started(body: impl FnOnce() -> i32) -> pid_t {
    fork(body)
}

fn get_errors() {
    fails!(EINVAL, semget(IPC_PRIVATE, 0, 0o600));
    fails!(EINVAL, semget(IPC_PRIVATE, -1, 0o600));
    fails!(EINVAL, semget(IPC_PRIVATE, 40000, 0o600));
    let key = (ok!(getpid()) << 8) | 0x4000_0001;
    fails!(ENOENT, semget(key, 1, 0));
    let id = ok!(semget(key, 3, IPC_CREAT | IPC_EXCL | 0o600));
    assert_eq!(ok!(semget(key, 0, 0)), id);
    assert_eq!(ok!(semget(key, 3, 0)), id);
    fails!(EINVAL, semget(key, 4, 0));
    fails!(EEXIST, semget(key, 3, IPC_CREAT | IPC_EXCL));
    remove(id);
    fails!(EINVAL, semctl(id, 0, GETVAL));
}

fn values() {
    let id = set(3);
    let mut all = [1u16, 32767, 3];
    ok!(semctl(id, 0, SETALL, all.as_mut_ptr()));
    let mut back = [9u16; 3];
    ok!(semctl(id, 0, GETALL, back.as_mut_ptr()));
    assert_eq!(back, all);
    put(id, 1, 5);
    assert_eq!([value(id, 0), value(id, 1), value(id, 2)], [1, 5, 3]);
    fails!(EINVAL, semctl(id, 3, GETVAL));
    fails!(EINVAL, semctl(id, -1, SETVAL, 0));
    fails!(ERANGE, semctl(id, 0, SETVAL, 32768));
    fails!(ERANGE, semctl(id, 0, SETVAL, -1));
    all[2] = 40000;
    fails!(ERANGE, semctl(id, 0, SETALL, all.as_mut_ptr()));
    fails!(EFAULT, semctl(id, 0, GETALL, 8usize));
    remove(id);
}

fn operations() {
    let id = set(1);
    assert_eq!(run(id, &mut [op(0, 3, 0)]), Ok(0));
    assert_eq!(run(id, &mut [op(0, -2, 0)]), Ok(0));
    assert_eq!(value(id, 0), 1);
    assert_eq!(ok!(semctl(id, 0, GETPID)), ok!(getpid()));
    assert_eq!(run(id, &mut [op(0, -2, NOWAIT)]), Err(EAGAIN));
    assert_eq!(run(id, &mut [op(0, 0, NOWAIT)]), Err(EAGAIN));
    assert_eq!(run(id, &mut [op(0, -1, 0), op(0, 0, 0)]), Ok(0));
    assert_eq!(run(id, &mut [op(0, 32767, 0)]), Ok(0));
    assert_eq!(run(id, &mut [op(0, 1, 0)]), Err(ERANGE));
    remove(id);
}

fn atomic_arrays() {
    let id = set(2);
    put(id, 0, 1);
    assert_eq!(run(id, &mut [op(0, -1, 0), op(1, -1, NOWAIT)]), Err(EAGAIN));
    assert_eq!(value(id, 0), 1);
    // One wait for both.
    let pid = started(|| run(id, &mut [op(0, -1, 0), op(1, -1, 0)]).unwrap_or(9));
    while ok!(semctl(id, 1, GETNCNT)) != 1 {
        sleep_ms(1);
    }
    assert_eq!(value(id, 0), 1);
    assert_eq!(run(id, &mut [op(1, 1, 0)]), Ok(0));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!([value(id, 0), value(id, 1)], [0, 0]);
    remove(id);
}

fn waits_for_increase() {
    let id = set(1);
    let pid = started(|| run(id, &mut [op(0, -2, 0)]).unwrap_or(9));
    until_waiting(id, GETNCNT, 1);
    put(id, 0, 1);
    sleep_ms(10);
    assert_eq!(ok!(semctl(id, 0, GETNCNT)), 1);
    assert_eq!(run(id, &mut [op(0, 1, 0)]), Ok(0));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(value(id, 0), 0);
    remove(id);
}

fn waits_for_zero() {
    let id = set(1);
    put(id, 0, 2);
    let pid = started(|| run(id, &mut [op(0, 0, 0), op(0, 7, 0)]).unwrap_or(9));
    until_waiting(id, GETZCNT, 1);
    assert_eq!(run(id, &mut [op(0, -2, 0)]), Ok(0));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(value(id, 0), 7);
    remove(id);
}

fn order_of_waiters() {
    let id = set(1);
    // The first cannot be satisfied by one, the second can.
    let first = started(|| run(id, &mut [op(0, -2, 0)]).unwrap_or(9));
    until_waiting(id, GETNCNT, 1);
    let second = started(|| run(id, &mut [op(0, -1, 0)]).unwrap_or(9));
    until_waiting(id, GETNCNT, 2);
    assert_eq!(run(id, &mut [op(0, 1, 0)]), Ok(0));
    assert_eq!(wait(second), End::Exited(0));
    assert_eq!(run(id, &mut [op(0, 2, 0)]), Ok(0));
    assert_eq!(wait(first), End::Exited(0));
    remove(id);
}

fn timeout() {
    let id = set(1);
    let begin = Instant::now();
    let time = timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    fails!(EAGAIN, syscall(SYS_semtimedop, id, &mut op(0, -1, 0), 1, &time));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    let wrong = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    fails!(EINVAL, syscall(SYS_semtimedop, id, &mut op(0, -1, 0), 1, &wrong));
    put(id, 0, 1);
    ok!(syscall(SYS_semtimedop, id, &mut op(0, -1, 0), 1, &time));
    remove(id);
}

fn counts_of_waiters() {
    let id = set(2);
    put(id, 0, 1);
    put(id, 1, 1);
    let zero = started(|| run(id, &mut [op(0, 0, 0)]).map_or(1, |_| 0));
    let more = started(|| run(id, &mut [op(0, -5, 0)]).map_or(1, |_| 0));
    until_waiting(id, GETZCNT, 1);
    until_waiting(id, GETNCNT, 1);
    assert_eq!([ok!(semctl(id, 1, GETNCNT)), ok!(semctl(id, 1, GETZCNT))], [0, 0]);
    remove(id);
    assert_eq!([wait(zero), wait(more)], [End::Exited(1), End::Exited(1)]);
}

fn undo_at_exit() {
    let id = set(2);
    put(id, 0, 3);
    in_child(|| {
        assert_eq!(run(id, &mut [op(0, -2, UNDO), op(1, 4, UNDO)]), Ok(0));
        assert_eq!([value(id, 0), value(id, 1)], [1, 4]);
    });
    assert_eq!([value(id, 0), value(id, 1)], [3, 0]);
    remove(id);
}

fn undo_at_kill() {
    let id = set(1);
    put(id, 0, 1);
    let pid = started(|| {
        run(id, &mut [op(0, -1, UNDO)]).expect("taken");
        ok!(pause());
        0
    });
    while value(id, 0) != 0 {
        sleep_ms(1);
    }
    ok!(kill(pid, SIGKILL));
    // The lock of a dead process is free.
    assert_eq!(run(id, &mut [op(0, -1, 0)]), Ok(0));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    remove(id);
}

fn undo_after_exec() {
    let id = set(1);
    let (lives, end) = crate::harness::pipe();
    let pid = started(|| {
        run(id, &mut [op(0, 2, UNDO)]).expect("done");
        ok!(dup2(lives, 0));
        ok!(close(end));
        let argv = [c"cat".as_ptr(), ptr::null()];
        ok!(execv(c"/bin/cat".as_ptr(), argv.as_ptr()));
        1
    });
    while value(id, 0) != 2 {
        sleep_ms(1);
    }
    sleep_ms(20);
    assert_eq!(value(id, 0), 2);
    ok!(close(end));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(value(id, 0), 0);
    remove(id);
}

fn undo_of_threads() {
    let id = set(1);
    in_child(|| {
        let done = std::thread::spawn(move || run(id, &mut [op(0, 5, UNDO)])).join();
        assert_eq!(done.expect("joined"), Ok(0));
        // Threads share their adjustments: the end of one undoes nothing.
        assert_eq!(value(id, 0), 5);
    });
    assert_eq!(value(id, 0), 0);
    remove(id);
}

fn undo_cleared_by_setval() {
    let id = set(1);
    in_child(|| {
        run(id, &mut [op(0, 5, UNDO)]).expect("done");
        put(id, 0, 9);
    });
    assert_eq!(value(id, 0), 9);
    remove(id);
}

fn removal_wakes() {
    let id = set(1);
    let pid = started(|| run(id, &mut [op(0, -1, 0)]).map_or_else(|errno| errno, |_| 0));
    until_waiting(id, GETNCNT, 1);
    remove(id);
    assert_eq!(wait(pid), End::Exited(EIDRM));
}

extern "C" fn nothing(_: i32) {}

fn interrupted() {
    let id = set(1);
    let pid = started(|| {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = SA_RESTART;
        ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
        // Never restarted (signal(7)).
        run(id, &mut [op(0, -1, 0)]).map_or_else(|errno| errno, |_| 0)
    });
    until_waiting(id, GETNCNT, 1);
    ok!(kill(pid, SIGUSR1));
    assert_eq!(wait(pid), End::Exited(EINTR));
    assert_eq!(ok!(semctl(id, 0, GETNCNT)), 0);
    remove(id);
}

fn errors() {
    let id = set(2);
    assert_eq!(run(id, &mut [op(2, 1, 0)]), Err(EFBIG));
    fails!(EINVAL, semop(id, [op(0, 1, 0)].as_mut_ptr(), 0));
    fails!(EINVAL, semop(-1, [op(0, 1, 0)].as_mut_ptr(), 1));
    fails!(EFAULT, semop(id, ptr::without_provenance_mut(8), 1));
    let mut many = vec![op(0, 1, 0); 501];
    assert_eq!(run(id, &mut many), Err(E2BIG));
    assert_eq!(run(id, &mut many[..500]), Ok(0));
    assert_eq!(value(id, 0), 500);
    fails!(EINVAL, semctl(id, 0, 99));
    remove(id);
    assert_eq!(run(id, &mut [op(0, 1, 0)]), Err(EINVAL));
}

fn permissions() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    let id = ok!(semget(IPC_PRIVATE, 1, 0o604));
    in_child(|| {
        ok!(setresgid(1234, 1234, 1234));
        ok!(setgroups(0, ptr::null()));
        ok!(setresuid(1234, 1234, 1234));
        assert_eq!(value(id, 0), 0);
        assert_eq!(run(id, &mut [op(0, 0, 0)]), Ok(0));
        assert_eq!(run(id, &mut [op(0, 1, 0)]), Err(EACCES));
        fails!(EACCES, semctl(id, 0, SETVAL, 1));
        fails!(EPERM, semctl(id, 0, IPC_RMID));
    });
    remove(id);
}

fn stat_and_info() {
    const SEM_INFO: i32 = 19;
    let id = set(4);
    let mut ds: semid_ds = zeroed();
    ok!(semctl(id, 0, IPC_STAT, &mut ds as *mut semid_ds));
    assert_eq!((ds.sem_nsems, ds.sem_otime, ds.sem_perm.mode), (4, 0, 0o600));
    assert!(ds.sem_ctime > 1_500_000_000);
    run(id, &mut [op(0, 1, 0)]).expect("done");
    ds.sem_perm.mode = 0o644;
    ok!(semctl(id, 0, IPC_SET, &mut ds as *mut semid_ds));
    ok!(semctl(id, 0, IPC_STAT, &mut ds as *mut semid_ds));
    assert!(ds.sem_otime > 0);
    assert_eq!(ds.sem_perm.mode, 0o644);
    let mut info = [0i32; 10];
    ok!(semctl(0, 0, SEM_INFO, info.as_mut_ptr()));
    assert!(info[7] >= 1 && info[9] >= 4);
    ok!(semctl(0, 0, IPC_INFO, info.as_mut_ptr()));
    assert_eq!((info[1], info[4], info[5], info[8]), (32000, 32000, 500, 32767), "{}", errno_name(0));
    remove(id);
}

fn lists_in_proc() {
    let id = set(7);
    let text = std::fs::read_to_string("/proc/sysvipc/sem").expect("/proc/sysvipc/sem");
    let line =
        text.lines().find(|l| l.split_ascii_whitespace().nth(1) == Some(&id.to_string())).expect("a line");
    let fields: Vec<_> = line.split_ascii_whitespace().take(4).collect();
    assert_eq!(fields, ["0", &id.to_string(), "600", "7"]);
    let limits = std::fs::read_to_string("/proc/sys/kernel/sem").expect("sem");
    let limits: Vec<_> = limits.split_ascii_whitespace().collect();
    assert_eq!((limits[0], limits[2], limits[3]), ("32000", "500", "32000"));
    remove(id);
}

fn mutex_of_processes() {
    let id = set(1);
    put(id, 0, 1);
    let flags = MAP_SHARED | MAP_ANONYMOUS;
    let at = ok!(mmap(ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, flags, -1, 0)).cast::<u64>();
    let children: Vec<_> = (0..4)
        .map(|_| {
            started(|| {
                for _ in 0..200 {
                    run(id, &mut [op(0, -1, UNDO)]).expect("locked");
                    // SAFETY: the shared page, under the lock.
                    unsafe { at.write_volatile(at.read_volatile() + 1) };
                    run(id, &mut [op(0, 1, UNDO)]).expect("unlocked");
                }
                0
            })
        })
        .collect();
    for child in children {
        assert_eq!(wait(child), End::Exited(0));
    }
    // SAFETY: the shared page.
    assert_eq!(unsafe { at.read_volatile() }, 800);
    remove(id);
}

fn hand_over() {
    let id = set(1);
    let pid = started(|| run(id, &mut [op(0, -1, 0)]).unwrap_or(9));
    until_waiting(id, GETNCNT, 1);
    // Who waits gets it, though the giver wants it back at once.
    run(id, &mut [op(0, 1, 0)]).expect("given");
    assert_eq!(run(id, &mut [op(0, -1, NOWAIT)]), Err(EAGAIN));
    assert_eq!(wait(pid), End::Exited(0));
    remove(id);
}
