//! Tracing: ptrace(2).

use std::ffi::CString;
use std::ptr;

use libc::*;

use crate::harness::{
    End, cases, end_of, fails, fork, ok, pipe, read, skip, sleep_ms, sys, wait, write, zeroed,
};

cases!("ptrace": traceme_and_continue, signal_is_seen_and_dropped, signal_is_injected, system_calls, call_is_changed,
    call_is_skipped, result_is_changed, memory, registers, single_steps, breakpoint, fork_event, exec_event, exit_event,
    attach_and_detach, seize_and_interrupt, syscall_info, options, kill_request, errors, tracer_in_proc,
    tracer_dies, exit_kill, group_stop, read_only_text, extended_state, waitid_tells, thread_event, set_id_program);

const SYSCALL_STOP: i32 = SIGTRAP | 0x80;

fn request(request: u32, pid: pid_t, addr: usize, data: usize) -> Result<c_long, i32> {
    sys!(ptrace(request, pid, addr, data))
}

fn go(how: u32, pid: pid_t, signal: i32) {
    request(how, pid, 0, signal as usize).expect("goes on");
}

/// Waits for a stop; signal and event.
fn stopped(pid: pid_t) -> i32 {
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, __WALL)), pid);
    assert!(WIFSTOPPED(status), "status {status:#x} is no stop");
    status >> 8
}

/// A child that is traced and has stopped itself once.
fn traced(body: impl FnOnce() -> i32) -> pid_t {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        body()
    });
    assert_eq!(stopped(pid), SIGSTOP);
    request(PTRACE_SETOPTIONS, pid, 0, (PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) as usize)
        .expect("options");
    pid
}

fn regs(pid: pid_t) -> user_regs_struct {
    let mut regs: user_regs_struct = zeroed();
    request(PTRACE_GETREGS, pid, 0, (&raw mut regs).addr()).expect("registers");
    regs
}

fn set_regs(pid: pid_t, regs: &user_regs_struct) {
    request(PTRACE_SETREGS, pid, 0, ptr::from_ref(regs).addr()).expect("set registers");
}

fn peek(pid: pid_t, addr: usize) -> u64 {
    let mut word = 0u64;
    // The system call itself stores the word.
    ok!(syscall(SYS_ptrace, PTRACE_PEEKDATA as c_long, pid, addr, &mut word));
    word
}

/// Runs to the entry of this system call.
fn until_entry(pid: pid_t, nr: c_long) {
    loop {
        go(PTRACE_SYSCALL, pid, 0);
        assert_eq!(stopped(pid), SYSCALL_STOP);
        let now = regs(pid);
        if now.orig_rax == nr as u64 && now.rax as i64 == -i64::from(ENOSYS) {
            return;
        }
    }
}

fn traceme_and_continue() {
    let pid = traced(|| 7);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(7));
}

fn signal_is_seen_and_dropped() {
    let pid = traced(|| {
        ok!(raise(SIGTERM));
        // Ignored ones are seen as well.
        ok!(raise(SIGCHLD));
        3
    });
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTERM);
    let mut info: siginfo_t = zeroed();
    request(PTRACE_GETSIGINFO, pid, 0, (&raw mut info).addr()).expect("siginfo");
    // SAFETY: a signal from a process has a pid.
    assert_eq!((info.si_signo, unsafe { info.si_pid() }), (SIGTERM, pid));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGCHLD);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(3));
}

fn signal_is_injected() {
    let pid = traced(|| 0);
    go(PTRACE_CONT, pid, SIGUSR1);
    assert_eq!(wait(pid), End::Killed(SIGUSR1));
}

fn system_calls() {
    let pid = traced(|| {
        ok!(getpgid(0));
        // SAFETY: no arguments.
        unsafe { syscall(SYS_close, 12345) };
        0
    });
    until_entry(pid, SYS_getpgid);
    go(PTRACE_SYSCALL, pid, 0);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    assert_eq!(regs(pid).rax, ok!(getpgid(0)) as u64);
    until_entry(pid, SYS_close);
    assert_eq!(regs(pid).rdi, 12345);
    go(PTRACE_SYSCALL, pid, 0);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    assert_eq!(regs(pid).rax as i64, -i64::from(EBADF));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

fn call_is_changed() {
    let pid = traced(|| ok!(syscall(SYS_umask, 0o22)) as i32);
    until_entry(pid, SYS_umask);
    let mut now = regs(pid);
    now.orig_rax = SYS_getpid as u64;
    set_regs(pid, &now);
    go(PTRACE_SYSCALL, pid, 0);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    assert_eq!(regs(pid).rax, pid as u64);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(pid & 0xff));
}

fn call_is_skipped() {
    let pid = traced(|| {
        // SAFETY: not made.
        let made = unsafe { syscall(SYS_kill, getpid(), SIGKILL) };
        made as i32
    });
    until_entry(pid, SYS_kill);
    let mut now = regs(pid);
    now.orig_rax = u64::MAX;
    now.rax = 42;
    set_regs(pid, &now);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(42));
}

fn result_is_changed() {
    let pid = traced(|| ok!(syscall(SYS_getpgid, 0)) as i32);
    until_entry(pid, SYS_getpgid);
    go(PTRACE_SYSCALL, pid, 0);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    let mut now = regs(pid);
    now.rax = 11;
    set_regs(pid, &now);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(11));
}

fn memory() {
    let word = Box::new(5u64);
    let at = (&raw const *word).addr();
    let pid = traced(|| {
        // SAFETY: the box lives.
        (unsafe { ptr::with_exposed_provenance::<u64>(at).read_volatile() } & 0xff) as i32
    });
    let _ = word;
    assert_eq!(peek(pid, at), 5);
    request(PTRACE_POKEDATA, pid, at, 9).expect("poke");
    assert_eq!(peek(pid, at), 9);
    fails!(EIO, syscall(SYS_ptrace, PTRACE_PEEKDATA as c_long, pid, 8, &mut 0u64));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(9));
}

fn registers() {
    let pid = traced(|| 0);
    let now = regs(pid);
    assert_eq!((now.cs, now.ss), (0x33, 0x2b));
    let mut word = 0u64;
    ok!(syscall(SYS_ptrace, PTRACE_PEEKUSER as c_long, pid, 16 * 8, &mut word));
    assert_eq!(word, now.rip);
    let mut again: user_regs_struct = zeroed();
    let mut vector = iovec { iov_base: (&raw mut again).cast(), iov_len: 4096 };
    request(PTRACE_GETREGSET, pid, 1, (&raw mut vector).addr()).expect("regset");
    assert_eq!((vector.iov_len, again.rsp), (size_of::<user_regs_struct>(), now.rsp));
    fails!(EIO, syscall(SYS_ptrace, PTRACE_PEEKUSER as c_long, pid, 3, &mut word));
    fails!(EINVAL, ptrace(PTRACE_GETREGSET, pid, 77usize, &mut vector));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

fn single_steps() {
    let pid = traced(|| {
        std::hint::black_box((0..1000).map(std::hint::black_box).sum::<i32>());
        0
    });
    until_entry(pid, SYS_exit_group);
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    let pid = traced(|| {
        std::hint::black_box((0..100_000).map(std::hint::black_box).fold(0, i32::wrapping_add));
        0
    });
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..30 {
        go(PTRACE_SINGLESTEP, pid, 0);
        assert_eq!(stopped(pid), SIGTRAP);
        places.insert(regs(pid).rip);
    }
    assert!(places.len() > 10, "{places:x?}");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

#[inline(never)]
extern "C" fn landmark() -> i32 {
    std::hint::black_box(21)
}

fn breakpoint() {
    let pid = traced(|| landmark() * 2);
    let at = landmark as *const () as usize;
    let old = peek(pid, at);
    // Text is private and read-only.
    request(PTRACE_POKETEXT, pid, at, (old & !0xff | 0xcc) as usize).expect("poke");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTRAP);
    let mut now = regs(pid);
    assert_eq!(now.rip, at as u64 + 1);
    request(PTRACE_POKETEXT, pid, at, old as usize).expect("poke");
    now.rip = at as u64;
    set_regs(pid, &now);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(42));
}

fn message(pid: pid_t) -> u64 {
    let mut message = 0u64;
    request(PTRACE_GETEVENTMSG, pid, 0, (&raw mut message).addr()).expect("message");
    message
}

fn fork_event() {
    let pid = traced(|| {
        let child = fork(|| 5);
        match wait(child) {
            End::Exited(code) => code,
            End::Killed(_) => 99,
        }
    });
    request(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK as usize).expect("options");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_FORK << 8);
    let child = message(pid) as pid_t;
    assert_eq!(stopped(child), SIGSTOP);
    go(PTRACE_CONT, pid, 0);
    go(PTRACE_CONT, child, 0);
    assert_eq!(wait(child), End::Exited(5));
    let mut status = 0;
    loop {
        assert_eq!(ok!(waitpid(pid, &mut status, 0)), pid);
        if !WIFSTOPPED(status) {
            break;
        }
        go(PTRACE_CONT, pid, WSTOPSIG(status));
    }
    assert_eq!(end_of(status), End::Exited(5));
}

fn exec_event() {
    for option in [0, PTRACE_O_TRACEEXEC] {
        let pid = traced(|| {
            let argv = [c"true".as_ptr(), ptr::null()];
            ok!(execv(c"/bin/true".as_ptr(), argv.as_ptr()));
            1
        });
        request(PTRACE_SETOPTIONS, pid, 0, option as usize).expect("options");
        go(PTRACE_CONT, pid, 0);
        let event = if option == 0 { 0 } else { PTRACE_EVENT_EXEC << 8 };
        assert_eq!(stopped(pid), SIGTRAP | event);
        go(PTRACE_CONT, pid, 0);
        assert_eq!(wait(pid), End::Exited(0));
    }
}

fn exit_event() {
    let pid = traced(|| 3);
    request(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXIT as usize).expect("options");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_EXIT << 8);
    assert_eq!(message(pid), 0x300);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(3));
}

fn attach_and_detach() {
    let (end, tell) = crate::harness::pipe();
    let pid = fork(|| {
        // Waits in a call that goes on after the detach.
        i32::from(crate::harness::read(end, 1) != b"x")
    });
    sleep_ms(20);
    request(PTRACE_ATTACH, pid, 0, 0).expect("attach");
    assert_eq!(stopped(pid), SIGSTOP);
    fails!(EPERM, ptrace(PTRACE_ATTACH, pid, 0, 0));
    request(PTRACE_DETACH, pid, 0, 0).expect("detach");
    fails!(ESRCH, ptrace(PTRACE_CONT, pid, 0, 0));
    crate::harness::write(tell, b"x");
    assert_eq!(wait(pid), End::Exited(0));
}

fn seize_and_interrupt() {
    let pid = fork(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    request(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL as usize).expect("seize");
    request(PTRACE_INTERRUPT, pid, 0, 0).expect("interrupt");
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_STOP << 8);
    go(PTRACE_CONT, pid, 0);
    sleep_ms(5);
    fails!(ESRCH, ptrace(PTRACE_GETREGS, pid, 0, &mut zeroed::<user_regs_struct>()));
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn syscall_info() {
    const GET_SYSCALL_INFO: u32 = 0x420e;
    let pid = traced(|| {
        // SAFETY: the call fails.
        unsafe { syscall(SYS_close, 54321) };
        0
    });
    let mut info = [0u64; 11];
    let at = info.as_mut_ptr().addr();
    let look = || request(GET_SYSCALL_INFO, pid, 88, at);
    assert_eq!(look(), Ok(24));
    until_entry(pid, SYS_close);
    assert_eq!(look(), Ok(80));
    assert_eq!((info[0], info[2], info[3], info[4]), (0xc000_003e << 32 | 1, regs(pid).rsp, 3, 54321));
    go(PTRACE_SYSCALL, pid, 0);
    assert_eq!(stopped(pid), SYSCALL_STOP);
    assert_eq!(look(), Ok(33));
    assert_eq!((info[0] & 0xff, info[3] as i64, info[4] & 0xff), (2, -i64::from(EBADF), 1));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

fn options() {
    let pid = traced(|| 0);
    fails!(EINVAL, ptrace(PTRACE_SETOPTIONS, pid, 0, 1usize << 30));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
    // Seize checks as well.
    let pid = fork(|| {
        ok!(pause());
        0
    });
    fails!(EIO, ptrace(PTRACE_SEIZE, pid, 8, 0));
    fails!(EIO, ptrace(PTRACE_SEIZE, pid, 0, 1usize << 30));
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn kill_request() {
    let pid = traced(|| 0);
    request(PTRACE_KILL, pid, 0, 0).expect("kill");
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn errors() {
    fails!(ESRCH, ptrace(PTRACE_ATTACH, 0x03ff_ffff, 0, 0));
    fails!(EPERM, ptrace(PTRACE_ATTACH, getpid(), 0, 0));
    fails!(ESRCH, ptrace(PTRACE_CONT, getppid(), 0, 0));
    let pid = traced(|| 0);
    fails!(EIO, ptrace(PTRACE_CONT, pid, 0, 999usize));
    fails!(EIO, ptrace(0x7777, pid, 0, 0));
    fails!(EIO, ptrace(PTRACE_LISTEN, pid, 0, 0));
    fails!(EIO, ptrace(PTRACE_INTERRUPT, pid, 0, 0));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
    if ok!(geteuid()) == 0 {
        let own = fork(|| {
            ok!(pause());
            0
        });
        crate::harness::in_child(|| {
            ok!(setresgid(1234, 1234, 1234));
            ok!(setresuid(1234, 1234, 1234));
            fails!(EPERM, ptrace(PTRACE_ATTACH, own, 0, 0));
        });
        ok!(kill(own, SIGKILL));
        wait(own);
    }
}

fn tracer_in_proc() {
    let tracer = |pid: pid_t| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let line =
            text.lines().find_map(|l| l.strip_prefix("TracerPid:\t").map(str::to_owned)).expect("a line");
        line.parse::<i32>().expect("a number")
    };
    let pid = traced(|| 0);
    assert_eq!((tracer(pid), tracer(ok!(getpid()))), (ok!(getpid()), 0));
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

fn tracer_dies() {
    let (end, tell) = crate::harness::pipe();
    let pid = fork(|| i32::from(crate::harness::read(end, 1) != b"x"));
    crate::harness::in_child(|| {
        request(PTRACE_ATTACH, pid, 0, 0).expect("attach");
        assert_eq!(stopped(pid), SIGSTOP);
    });
    // It runs on as if nothing had been.
    crate::harness::write(tell, b"x");
    assert_eq!(wait(pid), End::Exited(0));
}

fn exit_kill() {
    let pid = fork(|| {
        ok!(pause());
        0
    });
    crate::harness::in_child(|| {
        request(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL as usize).expect("seize");
    });
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn group_stop() {
    let pid = fork(|| {
        ok!(pause());
        0
    });
    request(PTRACE_SEIZE, pid, 0, 0).expect("seize");
    ok!(kill(pid, SIGSTOP));
    assert_eq!(stopped(pid), SIGSTOP);
    go(PTRACE_CONT, pid, SIGSTOP);
    assert_eq!(stopped(pid), SIGSTOP | PTRACE_EVENT_STOP << 8);
    request(PTRACE_LISTEN, pid, 0, 0).expect("listen");
    ok!(kill(pid, SIGCONT));
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_STOP << 8);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGCONT);
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn read_only_text() {
    // The tracee's page becomes its own: others do not see what was written.
    let pid = traced(|| 0);
    let at = landmark as *const () as usize;
    let old = peek(pid, at);
    request(PTRACE_POKETEXT, pid, at, !old as usize).expect("poke");
    assert_eq!(landmark(), 21);
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn extended_state() {
    let pid = traced(|| {
        std::hint::black_box(landmark());
        0
    });
    // A stop by a fault saves the vector registers.
    let at = landmark as *const () as usize;
    let old = peek(pid, at);
    request(PTRACE_POKETEXT, pid, at, (old & !0xff | 0xcc) as usize).expect("poke");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTRAP);
    let mut fp: user_fpregs_struct = zeroed();
    request(PTRACE_GETFPREGS, pid, 0, (&raw mut fp).addr()).expect("fpregs");
    assert_eq!((fp.cwd, fp.mxcsr & 0x1f80), (0x37f, 0x1f80));
    let mut state = vec![0u8; 16384];
    let mut vector = iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    request(PTRACE_GETREGSET, pid, 0x202, (&raw mut vector).addr()).expect("xstate");
    assert!(vector.iov_len >= 576);
    let features = u64::from_ne_bytes(state[464..472].try_into().expect("8 bytes"));
    assert_eq!(features & 3, 3);
    fp.xmm_space[4] = 0x1234_5678;
    request(PTRACE_SETFPREGS, pid, 0, (&raw const fp).addr()).expect("set fpregs");
    let mut again: user_fpregs_struct = zeroed();
    request(PTRACE_GETFPREGS, pid, 0, (&raw mut again).addr()).expect("fpregs");
    assert_eq!(again.xmm_space[4], 0x1234_5678);
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

fn waitid_tells() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        0
    });
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PID, pid as u32, &mut info, WSTOPPED | WNOWAIT));
    // SAFETY: a siginfo of SIGCHLD.
    assert_eq!((info.si_code, unsafe { info.si_status() }), (CLD_TRAPPED, SIGSTOP));
    assert_eq!(stopped(pid), SIGSTOP);
    go(PTRACE_CONT, pid, 0);
    assert_eq!(wait(pid), End::Exited(0));
}

fn thread_event() {
    let pid = traced(|| {
        std::thread::spawn(|| landmark()).join().expect("joined");
        sleep_ms(50);
        4
    });
    request(PTRACE_SETOPTIONS, pid, 0, (PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) as usize).expect("options");
    go(PTRACE_CONT, pid, 0);
    assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_CLONE << 8);
    let thread = message(pid) as pid_t;
    assert_eq!(stopped(thread), SIGSTOP);
    [pid, thread].into_iter().for_each(|tid| go(PTRACE_CONT, tid, 0));
    // The end of a traced thread is told.
    let mut status = 0;
    assert_eq!(ok!(waitpid(thread, &mut status, __WALL)), thread);
    assert_eq!(end_of(status), End::Exited(0));
    assert_eq!(wait(pid), End::Exited(4));
}

/// The effective user of a process.
fn effective_user(pid: pid_t) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("its users");
    line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("a number")
}

/// A set-id program gives its rights to nobody whose tracer could not have them.
fn set_id_program() {
    if ok!(geteuid()) != 0 {
        skip!("needs root");
    }
    let path = CString::new(format!("/guest-test-set-id-{}", ok!(getpid()))).expect("no NUL");
    let name = path.to_str().expect("ASCII");
    if std::fs::copy("/proc/self/exe", name).is_err() {
        skip!("needs a folder of root's that can be written");
    }
    ok!(chmod(path.as_ptr(), 0o4755));
    let mut fs: statvfs = zeroed();
    ok!(statvfs(path.as_ptr(), &mut fs));
    let leave_root = || {
        ok!(setresgid(1000, 1000, 1000));
        ok!(setresuid(1000, 1000, 1000));
    };
    let run = || {
        ok!(execl(path.as_ptr(), path.as_ptr(), ptr::null::<c_char>()));
        1
    };
    let seen_by_user = fork(|| {
        leave_root();
        let pid = fork(|| {
            ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
            run()
        });
        assert_eq!(stopped(pid), SIGTRAP);
        let user = effective_user(pid);
        ok!(kill(pid, SIGKILL));
        assert_eq!(wait(pid), End::Killed(SIGKILL));
        i32::from(user != 1000)
    });
    // Who may trace everything sees it run with its rights.
    let (read_end, write_end) = pipe();
    let pid = fork(|| {
        leave_root();
        read(read_end, 1);
        run()
    });
    let attached = request(PTRACE_ATTACH, pid, 0, 0);
    let mut user = 0;
    if attached.is_ok() {
        assert_eq!(stopped(pid), SIGSTOP);
        go(PTRACE_CONT, pid, 0);
        write(write_end, b"x");
        assert_eq!(stopped(pid), SIGTRAP);
        user = effective_user(pid);
    }
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    assert_eq!(wait(seen_by_user), End::Exited(0));
    ok!(unlink(path.as_ptr()));
    if attached.is_ok() && fs.f_flag & ST_NOSUID == 0 {
        assert_eq!(user, 0);
    }
}
