//! Filters of system calls: seccomp(2), prctl(PR_SET_SECCOMP).

use std::ptr;

use libc::*;

use crate::harness::{End, cases, fails, fork, in_child, ok, sys, wait, zeroed};

cases!("seccomp": errno, data_of_errno, kill_process, kill_thread, trap, log_and_allow, by_argument, strict_mode,
    strictest_counts, inherited, no_new_privs, program_errors, flag_errors, action_available, synchronized,
    synchronized_fails, synchronized_while_others_end, modes_in_proc, modes_do_not_mix, answered_ids_are_seen, trace_without_tracer,
    trace_event, instruction_pointer);

const ALLOW: u32 = 0x7fff_0000;
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const EQUAL: u16 = 0x15;
const FILTER: c_long = 1;

fn code(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn set(program: &[sock_filter], flags: c_long) -> Result<c_long, i32> {
    let head = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    sys!(syscall(SYS_seccomp, FILTER, flags, &head))
}

/// A filter that gives one number a verdict.
fn verdict(nr: c_long, verdict: u32) -> [sock_filter; 4] {
    [
        code(LOAD, 0, 0, 0),
        code(EQUAL, 0, 1, nr as u32),
        code(RETURN, 0, 0, verdict),
        code(RETURN, 0, 0, ALLOW),
    ]
}

fn install(nr: c_long, value: u32) {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    set(&verdict(nr, value), 0).expect("a filter");
}

fn errno() {
    install(SYS_getpgid, 0x5_0000 | 33);
    fails!(33, syscall(SYS_getpgid, 0));
    ok!(syscall(SYS_getsid, 0));
}

fn data_of_errno() {
    install(SYS_getpgid, 0x5_0000);
    assert_eq!(ok!(syscall(SYS_getpgid, 0)), 0);
    install(SYS_getsid, 0x5_ffff);
    fails!(4095, syscall(SYS_getsid, 0));
}

fn kill_process() {
    let pid = fork(|| {
        install(SYS_getpgid, 0x8000_0000);
        // SAFETY: the end.
        let dies = std::thread::spawn(|| unsafe { syscall(SYS_getpgid, 0) });
        let _ = dies.join();
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGSYS));
}

fn kill_thread() {
    let pid = fork(|| {
        install(SYS_getpgid, 0);
        // SAFETY: the end.
        unsafe { syscall(SYS_getpgid, 0) };
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGSYS));
}

static SEEN: [std::sync::atomic::AtomicI64; 6] = [const { std::sync::atomic::AtomicI64::new(0) }; 6];

extern "C" fn on_sigsys(signo: i32, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's frame.
    unsafe {
        let words = info.cast::<i32>();
        let context = context.cast::<ucontext_t>();
        let values = [
            i64::from(signo),
            i64::from((*info).si_code),
            i64::from((*info).si_errno),
            i64::from(words.add(6).read()),
            i64::from(words.add(7).read() as u32),
            (*context).uc_mcontext.gregs[REG_RAX as usize],
        ];
        for (to, value) in SEEN.iter().zip(values) {
            to.store(value, std::sync::atomic::Ordering::SeqCst);
        }
        (*context).uc_mcontext.gregs[REG_RAX as usize] = 77;
    }
}

fn trap() {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = on_sigsys as *const () as usize;
    action.sa_flags = SA_SIGINFO;
    ok!(sigaction(SIGSYS, &action, ptr::null_mut()));
    install(SYS_getpgid, 0x3_0000 | 123);
    // The handler gives the result.
    assert_eq!(ok!(syscall(SYS_getpgid, 0)), 77);
    let seen: Vec<i64> = SEEN.iter().map(|v| v.load(std::sync::atomic::Ordering::SeqCst)).collect();
    assert_eq!(seen, [SIGSYS.into(), 1, 123, SYS_getpgid, 0xc000_003e, SYS_getpgid]);
    // Without a handler it kills.
    let pid = fork(|| {
        // SAFETY: default action.
        unsafe { signal(SIGSYS, SIG_DFL) };
        // SAFETY: the end.
        unsafe { syscall(SYS_getpgid, 0) };
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGSYS));
}

fn log_and_allow() {
    install(SYS_getpgid, 0x7ffc_0000);
    assert_eq!(ok!(syscall(SYS_getpgid, 0)), i64::from(ok!(getpgrp())));
}

fn by_argument() {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    // close(12345) fails with 55, other descriptors are closed.
    let program = [
        code(LOAD, 0, 0, 0),
        code(EQUAL, 0, 3, SYS_close as u32),
        code(LOAD, 0, 0, 16),
        code(EQUAL, 0, 1, 12345),
        code(RETURN, 0, 0, 0x5_0000 | 55),
        code(RETURN, 0, 0, ALLOW),
    ];
    set(&program, 0).expect("a filter");
    fails!(55, close(12345));
    fails!(EBADF, close(12346));
}

fn strict_mode() {
    let pid = fork(|| {
        let (end, other) = crate::harness::pipe();
        ok!(prctl(PR_SET_SECCOMP, 1));
        crate::harness::write(other, b"x");
        let mut byte = 0u8;
        ok!(read(end, (&raw mut byte).cast(), 1));
        // SAFETY: exit(2) is allowed, exit_group(2) is not.
        unsafe { syscall(SYS_exit, 5) };
        0
    });
    assert_eq!(wait(pid), End::Exited(5));
    let pid = fork(|| {
        ok!(prctl(PR_SET_SECCOMP, 1));
        // SAFETY: the end.
        unsafe { syscall(SYS_getpgid, 0) };
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn strictest_counts() {
    install(SYS_getpgid, 0x5_0000 | 1);
    install(SYS_getpgid, ALLOW);
    fails!(1, syscall(SYS_getpgid, 0));
    // Of equals the newest.
    install(SYS_getpgid, 0x5_0000 | 2);
    fails!(2, syscall(SYS_getpgid, 0));
}

fn inherited() {
    install(SYS_getpgid, 0x5_0000 | 44);
    in_child(|| fails!(44, syscall(SYS_getpgid, 0)));
    // SAFETY: plain call.
    let other = std::thread::spawn(|| sys!(syscall(SYS_getpgid, 0))).join().expect("joined");
    assert_eq!(other, Err(44));
    install(SYS_uname, 0x5_0000 | 45);
    let pid = fork(|| {
        let argv = [c"uname".as_ptr(), ptr::null()];
        let null = ok!(open(c"/dev/null".as_ptr(), O_RDWR));
        ok!(dup2(null, 2));
        ok!(execv(c"/bin/uname".as_ptr(), argv.as_ptr()));
        0
    });
    assert_eq!(wait(pid), End::Exited(1));
}

fn no_new_privs() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    in_child(|| {
        ok!(setresuid(1234, 1234, 1234));
        assert_eq!(set(&verdict(SYS_getpgid, ALLOW), 0), Err(EACCES));
        ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        assert_eq!(set(&verdict(SYS_getpgid, ALLOW), 0), Ok(0));
    });
}

fn program_errors() {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    let end = code(RETURN, 0, 0, ALLOW);
    for bad in [
        vec![],
        vec![code(0, 0, 0, 0)],
        vec![code(LOAD, 0, 0, 2), end],
        vec![code(LOAD, 0, 0, 64), end],
        vec![code(0x28, 0, 0, 0), end],
        vec![code(EQUAL, 1, 0, 0), end],
        vec![code(0x05, 0, 0, 1), end],
        vec![code(0x34, 0, 0, 0), end],
        vec![code(0x60, 0, 0, 0), end],
        vec![code(0xffff, 0, 0, 0), end],
    ] {
        assert_eq!(set(&bad, 0), Err(EINVAL));
    }
    let head = sock_fprog { len: 4, filter: ptr::without_provenance_mut(8) };
    fails!(EFAULT, syscall(SYS_seccomp, FILTER, 0, &head));
    fails!(EFAULT, syscall(SYS_seccomp, FILTER, 0, 8));
    fails!(EINVAL, prctl(PR_SET_SECCOMP, 7));
    assert_eq!(ok!(prctl(PR_GET_SECCOMP)), 0);
}

fn flag_errors() {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    let program = verdict(SYS_getpgid, ALLOW);
    assert_eq!(set(&program, 1 << 20), Err(EINVAL));
    assert_eq!(set(&program, 1 | 8), Err(EINVAL));
    fails!(EINVAL, syscall(SYS_seccomp, 99, 0, 0));
    fails!(EINVAL, syscall(SYS_seccomp, 0, 1, 0));
    assert_eq!(set(&program, 2 | 4), Ok(0));
}

fn action_available() {
    for action in [0, 0x8000_0000, 0x3_0000, 0x5_0000, 0x7ff0_0000, 0x7ffc_0000, ALLOW] {
        ok!(syscall(SYS_seccomp, 2, 0, &action));
    }
    let other = 0x1234_0000u32;
    fails!(EOPNOTSUPP, syscall(SYS_seccomp, 2, 0, &other));
    fails!(EFAULT, syscall(SYS_seccomp, 2, 0, 8));
}

/// A thread that waits for a byte, then makes the call.
fn waiting_thread() -> (std::thread::JoinHandle<Result<c_long, i32>>, i32) {
    let (end, tell) = crate::harness::pipe();
    let thread = std::thread::spawn(move || {
        crate::harness::read(end, 1);
        // SAFETY: plain call.
        sys!(syscall(SYS_getpgid, 0))
    });
    (thread, tell)
}

fn synchronized() {
    let (thread, tell) = waiting_thread();
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    assert_eq!(set(&verdict(SYS_getpgid, 0x5_0000 | 46), 1), Ok(0));
    crate::harness::write(tell, b"x");
    assert_eq!(thread.join().expect("joined"), Err(46));
}

fn synchronized_fails() {
    let (end, tell) = crate::harness::pipe();
    let (ready, told) = crate::harness::pipe();
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    let thread = std::thread::spawn(move || {
        set(&verdict(SYS_getsid, ALLOW), 0).expect("a filter of its own");
        // SAFETY: plain call.
        let tid = ok!(syscall(SYS_gettid));
        crate::harness::write(told, &tid.to_ne_bytes());
        crate::harness::read(end, 1);
    });
    let tid = i64::from_ne_bytes(crate::harness::read(ready, 8).try_into().expect("8 bytes"));
    assert_eq!(set(&verdict(SYS_getpgid, ALLOW), 1), Ok(tid));
    assert_eq!(set(&verdict(SYS_getpgid, ALLOW), 1 | 16), Err(ESRCH));
    crate::harness::write(tell, b"x");
    thread.join().expect("joined");
}

/// Threads that end have no say, whatever filters they have had.
fn synchronized_while_others_end() {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    for _ in 0..500 {
        let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| ())).collect();
        assert_eq!(set(&verdict(SYS_getpgid, ALLOW), 1), Ok(0));
        for thread in threads {
            thread.join().expect("joined");
        }
    }
}

fn modes_in_proc() {
    let line = |name: &str| {
        let text = std::fs::read_to_string("/proc/self/status").expect("status");
        text.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim().to_owned()))
    };
    assert_eq!(line("Seccomp:").as_deref(), Some("0"));
    install(SYS_getpgid, ALLOW);
    install(SYS_getpgid, ALLOW);
    assert_eq!(line("Seccomp:").as_deref(), Some("2"));
    assert_eq!(line("Seccomp_filters:").as_deref(), Some("2"));
    assert_eq!(ok!(prctl(PR_GET_SECCOMP)), 2);
}

fn modes_do_not_mix() {
    install(SYS_getpgid, ALLOW);
    fails!(EINVAL, prctl(PR_SET_SECCOMP, 1));
}

fn answered_ids_are_seen() {
    // Often enough that a fast path exists, if there is one.
    for _ in 0..1000 {
        ok!(syscall(SYS_getuid));
    }
    install(SYS_getuid, 0x5_0000 | 47);
    fails!(47, syscall(SYS_getuid));
}

fn trace_without_tracer() {
    install(SYS_getpgid, 0x7ff0_0000);
    fails!(ENOSYS, syscall(SYS_getpgid, 0));
}

fn trace_event() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        install(SYS_getpgid, 0x7ff0_0000 | 9);
        ok!(syscall(SYS_getpgid, 0)) as i32
    });
    let stopped = || {
        let mut status = 0;
        ok!(waitpid(pid, &mut status, 0));
        assert!(WIFSTOPPED(status), "{status:#x}");
        status >> 8
    };
    assert_eq!(stopped(), SIGSTOP);
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL));
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(stopped(), SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
    let mut message = 0u64;
    ok!(ptrace(PTRACE_GETEVENTMSG, pid, 0, &mut message));
    assert_eq!(message, 9);
    let mut regs: user_regs_struct = zeroed();
    ok!(ptrace(PTRACE_GETREGS, pid, 0, &mut regs));
    assert_eq!(regs.orig_rax, SYS_getpgid as u64);
    // The tracer answers for the kernel.
    regs.orig_rax = u64::MAX;
    regs.rax = 6;
    ok!(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(wait(pid), End::Exited(6));
}

fn instruction_pointer() {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    // Calls from low addresses would be killed: none is.
    let program = [
        code(LOAD, 0, 0, 12),
        code(EQUAL, 0, 1, 0),
        code(RETURN, 0, 0, 0x8000_0000),
        code(RETURN, 0, 0, ALLOW),
    ];
    set(&program, 0).expect("a filter");
    ok!(syscall(SYS_getpgid, 0));
}
