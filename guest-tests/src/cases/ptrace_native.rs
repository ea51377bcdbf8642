//! Tracing of calls that a sandbox may leave to its host, or answer without the kernel: ptrace(2).

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::harness::{End, cases, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("ptrace_native": all_calls_are_seen, calls_are_changed, results_are_changed, seized_while_waiting,
    attached_while_waiting, seizing_disturbs_nobody, threads_are_seen, child_is_seen, program_is_seen, detached_goes_on,
    steps_over_calls, continued_runs_on, handler_returns, exit_event_follows_its_call);

const SYSCALL_STOP: i32 = SIGTRAP | 0x80;

fn request(request: u32, pid: pid_t, data: usize) -> Result<c_long, i32> {
    sys!(ptrace(request, pid, 0, data))
}

fn go(how: u32, pid: pid_t) {
    request(how, pid, 0).expect("goes on");
}

/// The status of the next stop of this thread: signal and event.
fn stopped(pid: pid_t) -> i32 {
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, __WALL)), pid);
    assert!(WIFSTOPPED(status), "status {status:#x} is no stop");
    status >> 8
}

fn regs(pid: pid_t) -> user_regs_struct {
    let mut regs: user_regs_struct = zeroed();
    request(PTRACE_GETREGS, pid, (&raw mut regs).addr()).expect("registers");
    regs
}

fn set_regs(pid: pid_t, regs: &user_regs_struct) {
    request(PTRACE_SETREGS, pid, ptr::from_ref(regs).addr()).expect("set registers");
}

/// A child that is traced and has stopped itself once.
fn traced(options: i32, body: impl FnOnce() -> i32) -> pid_t {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        body()
    });
    assert_eq!(stopped(pid), SIGSTOP);
    let options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | options;
    request(PTRACE_SETOPTIONS, pid, options as usize).expect("options");
    pid
}

/// Runs to the next entry of a call, and gives its number.
fn entry(pid: pid_t) -> c_long {
    loop {
        go(PTRACE_SYSCALL, pid);
        if stopped(pid) == SYSCALL_STOP && regs(pid).rax as i64 == -i64::from(ENOSYS) {
            return regs(pid).orig_rax as c_long;
        }
    }
}

fn until_entry(pid: pid_t, nr: c_long) {
    while entry(pid) != nr {}
}

/// From the entry to the exit of a call; its result.
fn result(pid: pid_t) -> i64 {
    go(PTRACE_SYSCALL, pid);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    regs(pid).rax as i64
}

fn anonymous(length: usize) -> *mut c_void {
    let prot = PROT_READ | PROT_WRITE;
    ok!(mmap(ptr::null_mut(), length, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
}

fn wake(word: &AtomicU32) -> c_long {
    ok!(syscall(SYS_futex, word.as_ptr(), FUTEX_WAKE, 1))
}

fn all_calls_are_seen() {
    let pid = traced(0, || {
        ok!(syscall(SYS_getpgid, 0));
        let at = anonymous(8192);
        ok!(mprotect(at, 4096, PROT_READ));
        ok!(madvise(at, 8192, MADV_DONTNEED));
        ok!(munmap(at, 8192));
        wake(&AtomicU32::new(0));
        ok!(sched_yield());
        ok!(syscall(SYS_getpid));
        ok!(syscall(SYS_getuid));
        ok!(syscall(SYS_getpgid, 0));
        0
    });
    until_entry(pid, SYS_getpgid);
    let mut seen = Vec::new();
    loop {
        let nr = entry(pid);
        if nr == SYS_getpgid {
            break;
        }
        seen.push(nr);
    }
    let made =
        [SYS_mmap, SYS_mprotect, SYS_madvise, SYS_munmap, SYS_futex, SYS_sched_yield, SYS_getpid, SYS_getuid];
    assert_eq!(seen, made);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(0));
}

fn calls_are_changed() {
    let pid = traced(0, || {
        let at = anonymous(3 * 4096);
        i32::from(sys!(mincore(at.wrapping_add(8192), 4096, [0u8; 1].as_mut_ptr())).is_ok())
    });
    until_entry(pid, SYS_mmap);
    let mut now = regs(pid);
    assert_eq!(now.rsi, 3 * 4096);
    now.rsi = 4096;
    // Where nothing else is mapped behind it.
    now.rdi = 0x10_0000_0000;
    set_regs(pid, &now);
    assert_eq!(result(pid), 0x10_0000_0000);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(0));
}

fn results_are_changed() {
    let pid = traced(0, || {
        let result = wake(&AtomicU32::new(0));
        let skipped = ok!(syscall(SYS_sched_yield));
        (result * 10 + skipped) as i32
    });
    until_entry(pid, SYS_futex);
    assert_eq!(result(pid), 0);
    let mut now = regs(pid);
    now.rax = 4;
    set_regs(pid, &now);
    until_entry(pid, SYS_sched_yield);
    // Not made at all.
    let mut now = regs(pid);
    now.orig_rax = u64::MAX;
    set_regs(pid, &now);
    result(pid);
    let mut now = regs(pid);
    now.rax = 2;
    set_regs(pid, &now);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(42));
}

/// A page that a child shares with us.
fn shared() -> &'static [AtomicU32; 4] {
    let prot = PROT_READ | PROT_WRITE;
    let at = ok!(mmap(ptr::null_mut(), 4096, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    // SAFETY: a page of zeroes that stays.
    unsafe { &*at.cast() }
}

/// A child that waits in a futex for the second word to become 1, and ends with the wait's result.
fn waiter(words: &'static [AtomicU32; 4], timeout: Option<timespec>) -> pid_t {
    let pid = fork(|| {
        words[0].store(1, SeqCst);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        match sys!(syscall(SYS_futex, words[1].as_ptr(), FUTEX_WAIT, 0, timeout)) {
            Ok(0) => 40,
            Ok(_) => 41,
            Err(errno) => errno,
        }
    });
    while words[0].load(SeqCst) == 0 {
        sleep_ms(1);
    }
    sleep_ms(30);
    pid
}

fn seized_while_waiting() {
    let words = shared();
    let pid = waiter(words, None);
    request(PTRACE_SEIZE, pid, (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) as usize).expect("seized");
    request(PTRACE_INTERRUPT, pid, 0).expect("interrupted");
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_STOP << 8);
    // The wait begins again, and is seen now.
    assert_eq!(entry(pid), SYS_futex);
    go(PTRACE_SYSCALL, pid);
    sleep_ms(30);
    while wake(&words[1]) == 0 {
        sleep_ms(1);
    }
    assert_eq!(stopped(pid), SYSCALL_STOP);
    assert_eq!(regs(pid).rax, 0);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(40));
}

fn attached_while_waiting() {
    let words = shared();
    let pid = waiter(words, None);
    request(PTRACE_ATTACH, pid, 0).expect("attached");
    assert_eq!(stopped(pid), SIGSTOP);
    request(PTRACE_DETACH, pid, 0).expect("detached");
    sleep_ms(30);
    while wake(&words[1]) == 0 {
        sleep_ms(1);
    }
    assert_eq!(wait(pid), End::Exited(40));
}

fn seizing_disturbs_nobody() {
    let words = shared();
    let pid = waiter(words, Some(timespec { tv_sec: 10, tv_nsec: 0 }));
    request(PTRACE_SEIZE, pid, PTRACE_O_EXITKILL as usize).expect("seized");
    sleep_ms(30);
    while wake(&words[1]) == 0 {
        sleep_ms(1);
    }
    assert_eq!(wait(pid), End::Exited(40));
}

fn threads_are_seen() {
    let pid = traced(PTRACE_O_TRACECLONE, || {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(|| {
                    ok!(munmap(anonymous(12345), 12345));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("joined"));
        5
    });
    go(PTRACE_SYSCALL, pid);
    let (mut unmapped, mut waits) = (Vec::new(), 0);
    let end = loop {
        let mut status = 0;
        let tid = ok!(waitpid(-1, &mut status, __WALL));
        if !WIFSTOPPED(status) {
            if tid == pid {
                break crate::harness::end_of(status);
            }
            continue;
        }
        if status >> 8 == SYSCALL_STOP {
            let now = regs(tid);
            if now.rax as i64 == -i64::from(ENOSYS) {
                let nr = now.orig_rax as c_long;
                if nr == SYS_munmap && now.rsi == 12345 {
                    unmapped.push(tid);
                }
                waits += u32::from(nr == SYS_futex);
            }
        }
        go(PTRACE_SYSCALL, tid);
    };
    assert_eq!(end, End::Exited(5));
    unmapped.sort_unstable();
    unmapped.dedup();
    assert_eq!(unmapped.len(), 3);
    assert!(!unmapped.contains(&pid));
    // How many depends on who comes first; the first thread waits for the last one at least.
    assert!(waits > 0);
}

fn child_is_seen() {
    let pid = traced(PTRACE_O_TRACEFORK, || {
        let child = fork(|| {
            ok!(munmap(anonymous(12345), 12345));
            3
        });
        assert_eq!(wait(child), End::Exited(3));
        4
    });
    go(PTRACE_CONT, pid);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_FORK << 8);
    let mut message = 0u64;
    ok!(ptrace(PTRACE_GETEVENTMSG, pid, 0, &mut message));
    let child = message as pid_t;
    go(PTRACE_CONT, pid);
    assert_eq!(stopped(child), SIGSTOP);
    until_entry(child, SYS_mmap);
    until_entry(child, SYS_munmap);
    assert_eq!(result(child), 0);
    go(PTRACE_CONT, child);
    let mut status = 0;
    // The tracer hears of its end before its parent does; of the parent's SIGCHLD, too.
    assert_eq!(ok!(waitpid(child, &mut status, __WALL)), child);
    assert_eq!(crate::harness::end_of(status), End::Exited(3));
    assert_eq!(stopped(pid), SIGCHLD);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(4));
}

fn program_is_seen() {
    let pid = traced(PTRACE_O_TRACEEXEC, || {
        let argv = [c"true".as_ptr(), ptr::null()];
        ok!(execv(c"/bin/true".as_ptr(), argv.as_ptr()));
        0
    });
    go(PTRACE_CONT, pid);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_EXEC << 8);
    until_entry(pid, SYS_mprotect);
    assert_eq!(result(pid), 0);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(0));
}

/// Once it was traced, its calls may take another way for good; they work as ever.
fn detached_goes_on() {
    let (end, tell) = pipe();
    let pid = traced(0, || {
        ok!(syscall(SYS_getpgid, 0));
        read(end, 1);
        for _ in 0..50 {
            ok!(munmap(anonymous(4096), 4096));
            wake(&AtomicU32::new(0));
        }
        let thread = std::thread::spawn(|| sleep_ms(20));
        thread.join().expect("joined");
        let child = fork(|| {
            ok!(munmap(anonymous(4096), 4096));
            6
        });
        assert_eq!(wait(child), End::Exited(6));
        7
    });
    until_entry(pid, SYS_getpgid);
    request(PTRACE_DETACH, pid, 0).expect("detached");
    write(tell, b"x");
    assert_eq!(wait(pid), End::Exited(7));
}

fn steps_over_calls() {
    let pid = traced(0, || {
        ok!(syscall(SYS_getpgid, 0));
        ok!(munmap(anonymous(4096), 4096));
        8
    });
    // Once with its calls seen, so that they take the way that tracers cause.
    until_entry(pid, SYS_mmap);
    let mut at = 0;
    for _ in 0..40 {
        go(PTRACE_SINGLESTEP, pid);
        let status = stopped(pid);
        assert_eq!(status, SIGTRAP);
        let now = regs(pid).rip;
        assert_ne!(now, at, "no step");
        at = now;
    }
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(8));
}

fn continued_runs_on() {
    let pid = traced(0, || {
        for _ in 0..100 {
            ok!(munmap(anonymous(4096), 4096));
        }
        9
    });
    until_entry(pid, SYS_munmap);
    go(PTRACE_CONT, pid);
    assert_eq!(wait(pid), End::Exited(9));
}

/// Each entry has its exit, that of rt_sigreturn(2), too: strace(1) would take all that follows for the other.
fn handler_returns() {
    const GET_SYSCALL_INFO: u32 = 0x420e;
    let pid = traced(0, || {
        super::signal::on(SIGUSR1, 0);
        ok!(raise(SIGUSR1));
        ok!(getpgid(0));
        0
    });
    let (mut signal, mut stops) = (0, Vec::new());
    loop {
        ok!(ptrace(PTRACE_SYSCALL, pid, 0, signal));
        let mut status = 0;
        assert_eq!(ok!(waitpid(pid, &mut status, __WALL)), pid);
        if WIFEXITED(status) {
            break;
        }
        signal = 0;
        if status >> 8 == SYSCALL_STOP {
            let mut info = [0u64; 11];
            ok!(ptrace(GET_SYSCALL_INFO, pid, 88usize, info.as_mut_ptr()));
            stops.push((info[0] & 0xff, info[3] as i64));
        } else {
            signal = status >> 8;
            assert_eq!(signal, SIGUSR1);
        }
    }
    for (at, (kind, _)) in stops.iter().enumerate() {
        assert_eq!(*kind, 1 + at as u64 % 2, "{stops:?}");
    }
    let returned = stops.iter().position(|stop| *stop == (1, SYS_rt_sigreturn)).expect("a return");
    // What raise(3) gave is there again.
    assert_eq!(stops[returned + 1], (2, 0));
}

fn exit_event_follows_its_call() {
    let pid = traced(PTRACE_O_TRACEEXIT, || 3);
    until_entry(pid, SYS_exit_group);
    go(PTRACE_SYSCALL, pid);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_EXIT << 8);
    go(PTRACE_SYSCALL, pid);
    assert_eq!(wait(pid), End::Exited(3));
}
