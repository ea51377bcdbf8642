//! Filters of calls that a sandbox may leave to its host, or answer without the kernel: futex(2), memory, getpid(2).

use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::harness::{End, cases, fails, fork, in_child, ok, pipe, read, sys, wait, write, zeroed};

cases!("seccomp_native": each_number, allowed_calls_work, strict_mode, killed, trapped, logged, by_argument,
    writable_or_executable, ids, threads_share_nothing, threads_inherit, forked, vforked, spawned, after_exec,
    no_way_around, traced, set_by_many, many_filters);

const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x5_0000;
const TRAP: u32 = 0x3_0000;
const KILL: u32 = 0x8000_0000;
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const EQUAL: u16 = 0x15;
const BITS: u16 = 0x45;
const AND: u16 = 0x54;
const PRIVATE: i32 = FUTEX_WAIT | 128;

fn code(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn set(program: &[sock_filter], flags: c_long) {
    let head = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    assert_eq!(ok!(syscall(SYS_seccomp, 1, flags, &head)), 0);
}

fn verdict(nr: c_long, verdict: u32) -> [sock_filter; 4] {
    [
        code(LOAD, 0, 0, 0),
        code(EQUAL, 0, 1, nr as u32),
        code(RETURN, 0, 0, verdict),
        code(RETURN, 0, 0, ALLOW),
    ]
}

pub(super) fn install(nr: c_long, value: u32) {
    set(&verdict(nr, value), 0);
}

pub(super) fn wake(word: &AtomicU32, count: i32) -> Result<c_long, i32> {
    sys!(syscall(SYS_futex, word.as_ptr(), FUTEX_WAKE | 128, count))
}

pub(super) fn wait_on(word: &AtomicU32, value: u32, timeout: *const timespec) -> Result<c_long, i32> {
    sys!(syscall(SYS_futex, word.as_ptr(), PRIVATE, value, timeout))
}

fn page() -> *mut u8 {
    let prot = PROT_READ | PROT_WRITE;
    ok!(mmap(ptr::null_mut(), 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)).cast()
}

/// Everything that the host may run, with arguments that it would run.
fn each_number() {
    let page = page() as c_long;
    let word = AtomicU32::new(0);
    let at = word.as_ptr() as c_long;
    let anonymous = c_long::from(MAP_PRIVATE | MAP_ANONYMOUS);
    let calls: [(c_long, [c_long; 6]); 26] = [
        (SYS_futex, [at, FUTEX_WAKE.into(), 1, 0, 0, 0]),
        (SYS_mmap, [0, 4096, 1, anonymous, -1, 0]),
        (SYS_munmap, [page, 4096, 0, 0, 0, 0]),
        (SYS_mprotect, [page, 4096, 1, 0, 0, 0]),
        (SYS_pkey_mprotect, [page, 4096, 1, -1, 0, 0]),
        (SYS_mremap, [page, 4096, 8192, 1, 0, 0]),
        (SYS_madvise, [page, 4096, 4, 0, 0, 0]),
        (SYS_mincore, [page, 4096, page, 0, 0, 0]),
        (SYS_msync, [page, 4096, 4, 0, 0, 0]),
        (SYS_mlock, [page, 4096, 0, 0, 0, 0]),
        (SYS_mlock2, [page, 4096, 0, 0, 0, 0]),
        (SYS_munlock, [page, 4096, 0, 0, 0, 0]),
        (SYS_munlockall, [0; 6]),
        (SYS_sched_yield, [0; 6]),
        (SYS_restart_syscall, [0; 6]),
        (SYS_membarrier, [0; 6]),
        (SYS_rseq, [0; 6]),
        (SYS_arch_prctl, [0x1003, page, 0, 0, 0, 0]),
        (SYS_pkey_alloc, [0; 6]),
        (SYS_pkey_free, [15, 0, 0, 0, 0, 0]),
        (SYS_futex_waitv, [0; 6]),
        (454, [at, -1, 1, 2, 0, 0]),
        (455, [at, 1, -1, 2, 0, 0]),
        (456, [0; 6]),
        (462, [page, 0, 0, 0, 0, 0]),
        (SYS_getpid, [0; 6]),
    ];
    for (nr, [a, b, c, d, e, f]) in calls {
        in_child(|| {
            install(nr, ERRNO | 61);
            let result = sys!(syscall(nr, a, b, c, d, e, f));
            assert_eq!(result, Err(61), "{nr}");
        });
    }
}

/// A filter that has a say in them lets them run as ever.
fn allowed_calls_work() {
    install(SYS_mincore, ERRNO | 61);
    let at = page();
    // SAFETY: the new page, and what becomes of it.
    unsafe {
        at.write(7);
        ok!(mprotect(at.cast(), 4096, PROT_READ));
        assert_eq!(at.read(), 7);
        fails!(EINVAL, mprotect(at.add(1).cast(), 4096, PROT_READ));
        let moved: *mut u8 = ok!(mremap(at.cast(), 4096, 16384, MREMAP_MAYMOVE)).cast();
        assert_eq!(moved.read(), 7);
        ok!(mprotect(moved.cast(), 16384, PROT_READ | PROT_WRITE));
        moved.add(16383).write(1);
        ok!(madvise(moved.cast(), 16384, MADV_DONTNEED));
        assert_eq!(moved.read(), 0);
        fails!(EINVAL, madvise(moved.cast(), 4096, 12345));
        ok!(munmap(moved.cast(), 16384));
        fails!(ENOMEM, mprotect(moved.cast(), 4096, PROT_READ));
    }
    let fixed = ok!(mmap(
        ptr::without_provenance_mut(0x10_0000_0000),
        4096,
        PROT_READ,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
        -1,
        0
    ));
    assert_eq!(fixed.addr(), 0x10_0000_0000);
    let before = ok!(sbrk(0)).addr();
    ok!(sbrk(1 << 20));
    assert_eq!(ok!(sbrk(0)).addr(), before + (1 << 20));
    let file = std::fs::read("/proc/self/exe").expect("our program");
    assert_eq!(file.get(..4), Some(&b"\x7fELF"[..]));
    ok!(sched_yield());
    fails!(EINTR, syscall(SYS_restart_syscall));
    assert_eq!(sys!(syscall(SYS_mincore, at, 4096, at)), Err(61));
}

fn strict_mode() {
    let calls: [(c_long, c_long); 4] =
        [(SYS_futex, FUTEX_WAKE.into()), (SYS_munmap, 4096), (SYS_getpid, 0), (SYS_sched_yield, 0)];
    for (nr, second) in calls {
        let at = page();
        let pid = fork(|| {
            for _ in 0..100 {
                ok!(syscall(SYS_getpid));
            }
            ok!(prctl(PR_SET_SECCOMP, 1));
            // SAFETY: the end.
            unsafe { syscall(nr, at, second, 1) };
            // SAFETY: exit_group(2) is not allowed.
            unsafe { syscall(SYS_exit, 0) };
            0
        });
        assert_eq!(wait(pid), End::Killed(SIGKILL), "{nr}");
    }
}

fn killed() {
    for nr in [SYS_futex, SYS_mmap, SYS_getpid] {
        let pid = fork(|| {
            install(nr, KILL);
            // SAFETY: the end.
            unsafe { syscall(nr, 0, 4096, 1, 0x22, -1, 0) };
            0
        });
        assert_eq!(wait(pid), End::Killed(SIGSYS), "{nr}");
    }
}

static TRAPPED: AtomicI64 = AtomicI64::new(0);

extern "C" fn on_sigsys(_signo: i32, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's frame.
    unsafe {
        TRAPPED.store(info.cast::<i32>().add(6).read().into(), SeqCst);
        let gregs = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        // The length that was asked for.
        gregs[REG_RAX as usize] = gregs[REG_RSI as usize] + 1;
    }
}

fn trapped() {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = on_sigsys as *const () as usize;
    action.sa_flags = SA_SIGINFO;
    ok!(sigaction(SIGSYS, &action, ptr::null_mut()));
    install(SYS_munmap, TRAP);
    for length in [4096, 8192, 12288] {
        assert_eq!(ok!(syscall(SYS_munmap, page(), length)), length + 1);
        assert_eq!(TRAPPED.swap(0, SeqCst), SYS_munmap);
    }
}

fn logged() {
    install(SYS_futex, 0x7ffc_0000);
    assert_eq!(wake(&AtomicU32::new(0), 1), Ok(0));
}

fn by_argument() {
    // FUTEX_WAKE of 77 fails with 61.
    set(
        &[
            code(LOAD, 0, 0, 0),
            code(EQUAL, 0, 6, SYS_futex as u32),
            code(LOAD, 0, 0, 24),
            code(AND, 0, 0, 127),
            code(EQUAL, 0, 3, FUTEX_WAKE as u32),
            code(LOAD, 0, 0, 32),
            code(EQUAL, 0, 1, 77),
            code(RETURN, 0, 0, ERRNO | 61),
            code(RETURN, 0, 0, ALLOW),
        ],
        0,
    );
    let word = AtomicU32::new(0);
    assert_eq!(wake(&word, 1), Ok(0));
    assert_eq!(wake(&word, 77), Err(61));
    assert_eq!(wait_on(&word, 1, ptr::null()), Err(EAGAIN));
}

/// As systemd's `MemoryDenyWriteExecute=`.
fn writable_or_executable() {
    let deny = |nr: c_long| {
        [
            code(LOAD, 0, 0, 0),
            code(EQUAL, 0, 4, nr as u32),
            code(LOAD, 0, 0, 32),
            code(AND, 0, 0, 6),
            code(EQUAL, 0, 1, 6),
            code(RETURN, 0, 0, ERRNO | EPERM as u32),
            code(RETURN, 0, 0, ALLOW),
        ]
    };
    set(&deny(SYS_mmap), 0);
    let executable = [
        code(LOAD, 0, 0, 0),
        code(EQUAL, 0, 3, SYS_mprotect as u32),
        code(LOAD, 0, 0, 32),
        code(BITS, 0, 1, PROT_EXEC as u32),
        code(RETURN, 0, 0, ERRNO | EPERM as u32),
        code(RETURN, 0, 0, ALLOW),
    ];
    set(&executable, 0);
    let map = |prot: i32| sys!(syscall(SYS_mmap, 0, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    assert_eq!(map(7), Err(EPERM));
    assert!(map(5).is_ok());
    let at = map(3).expect("a page");
    assert_eq!(sys!(syscall(SYS_mprotect, at, 4096, 5)), Err(EPERM));
    assert_eq!(sys!(syscall(SYS_mprotect, at, 4096, 1)), Ok(0));
}

fn ids() {
    for nr in [SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getppid] {
        in_child(|| {
            for _ in 0..200 {
                ok!(syscall(nr));
            }
            install(nr, ERRNO | 62);
            fails!(62, syscall(nr));
        });
    }
}

/// A filter under which futex(2) with this value fails with 61; others are the C library's.
pub(super) fn refuse_futex(value: u32, flags: c_long) {
    let program = [
        code(LOAD, 0, 0, 0),
        code(EQUAL, 0, 3, SYS_futex as u32),
        code(LOAD, 0, 0, 32),
        code(EQUAL, 0, 1, value),
        code(RETURN, 0, 0, ERRNO | 61),
        code(RETURN, 0, 0, ALLOW),
    ];
    set(&program, flags);
}

/// A filter is its thread's alone; the others' calls go on.
fn threads_share_nothing() {
    let (end, tell) = pipe();
    let thread = std::thread::spawn(move || {
        read(end, 1);
        let word = AtomicU32::new(0);
        (0..200).map(|_| wake(&word, 55)).collect::<Result<Vec<_>, _>>().map(|all| all.len())
    });
    refuse_futex(55, 0);
    assert_eq!(wake(&AtomicU32::new(0), 55), Err(61));
    write(tell, b"x");
    assert_eq!(thread.join().expect("joined"), Ok(200));
}

fn threads_inherit() {
    install(SYS_msync, ERRNO | 61);
    for _ in 0..5 {
        let at = page() as usize;
        let thread = std::thread::spawn(move || sys!(syscall(SYS_msync, at, 4096, 4)));
        assert_eq!(thread.join().expect("joined"), Err(61));
    }
}

fn forked() {
    install(SYS_msync, ERRNO | 61);
    let at = page();
    in_child(|| {
        fails!(61, syscall(SYS_msync, at, 4096, 4));
        in_child(|| {
            fails!(61, syscall(SYS_msync, at, 4096, 4));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let at = page() as usize;
                    std::thread::spawn(move || sys!(syscall(SYS_msync, at, 4096, 4)))
                })
                .collect();
            for thread in threads {
                assert_eq!(thread.join().expect("joined"), Err(61));
            }
        });
    });
}

static WORD: AtomicU32 = AtomicU32::new(0);
static RESULT: AtomicI64 = AtomicI64::new(0);

extern "C" fn with_a_filter(_: *mut c_void) -> i32 {
    let program = verdict(SYS_futex, ERRNO | 61);
    let head = sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
    // SAFETY: plain calls.
    unsafe {
        let mut result = i64::from(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) << 8;
        result |= syscall(SYS_seccomp, 1, 0, &raw const head);
        let woken = syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAKE, 1);
        RESULT.store(result << 16 | (woken & 0xffff), SeqCst);
    }
    0
}

/// A filter that a child sets while it has its parent's memory is not its parent's.
fn vforked() {
    let mut stack = vec![0u128; 4096];
    let top = stack.as_mut_ptr_range().end.cast();
    let pid = ok!(clone(with_a_filter, top, CLONE_VM | CLONE_VFORK | SIGCHLD, ptr::null_mut()));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(RESULT.load(SeqCst), 0xffff);
    assert_eq!(wake(&WORD, 1), Ok(0));
}

fn spawned() {
    install(SYS_msync, ERRNO | 61);
    for _ in 0..3 {
        let status = std::process::Command::new("/bin/true").status().expect("spawned");
        assert!(status.success());
    }
}

/// The program itself, once more, under the filter.
fn after_exec() {
    const MARK: &str = "GUEST_TESTS_FILTERED";
    if std::env::var_os(MARK).is_some() {
        let at = page();
        fails!(61, syscall(SYS_msync, at, 4096, 4));
        fails!(62, syscall(SYS_getppid));
        let at = page() as usize;
        let thread = std::thread::spawn(move || sys!(syscall(SYS_msync, at, 4096, 4)));
        assert_eq!(thread.join().expect("joined"), Err(61));
        return;
    }
    install(SYS_msync, ERRNO | 61);
    install(SYS_getppid, ERRNO | 62);
    let program = std::env::current_exe().expect("the path of this program");
    let status = std::process::Command::new(program)
        .args(["run", "seccomp_native/after_exec"])
        .env(MARK, "1")
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("spawned").success());
}

/// Whatever lies in the address space besides the program: a call by an instruction of it is judged as well.
fn no_way_around() {
    const ELSEWHERE: usize = 0x7e00_0000_1000;
    let at = page();
    for (nr, args) in [(SYS_mprotect, [at.addr(), 4096, 1]), (SYS_munmap, [at.addr(), 4096, 0])] {
        let pid = fork(|| {
            ok!(mprotect(at.cast(), 4096, PROT_READ | PROT_WRITE));
            install(nr, ERRNO | 61);
            // SAFETY: the C library's own.
            unsafe { signal(SIGSEGV, SIG_DFL) };
            // SAFETY: on Linux nothing is there; else it is a system call instruction and a return.
            unsafe {
                std::arch::asm!("call {}", in(reg) ELSEWHERE, inlateout("rax") nr => _, in("rdi") args[0],
                    in("rsi") args[1], in("rdx") args[2], lateout("rcx") _, lateout("r11") _);
                // Still writable.
                at.write_volatile(1);
                // What Linux does at once.
                raise(SIGSEGV);
            }
            0
        });
        assert_eq!(wait(pid), End::Killed(SIGSEGV));
    }
}

fn traced() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        install(SYS_munmap, 0x7ff0_0000 | 9);
        ok!(syscall(SYS_munmap, page(), 4096)) as i32
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
    let mut regs: user_regs_struct = zeroed();
    ok!(ptrace(PTRACE_GETREGS, pid, 0, &mut regs));
    assert_eq!((regs.orig_rax, regs.rsi), (SYS_munmap as u64, 4096));
    regs.orig_rax = u64::MAX;
    regs.rax = 6;
    ok!(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(wait(pid), End::Exited(6));
}

/// Threads that all set filters at the same time, while others map and wait.
fn set_by_many() {
    let threads: Vec<_> = (0..12)
        .map(|i| {
            std::thread::spawn(move || {
                for _ in 0..20 {
                    ok!(munmap(page().cast(), 4096));
                }
                if i % 2 == 0 {
                    install(SYS_msync, ERRNO | (60 + i));
                    let at = page();
                    fails!(60 + i as i32, syscall(SYS_msync, at, 4096, 4));
                }
                for _ in 0..20 {
                    ok!(munmap(page().cast(), 4096));
                    ok!(sbrk(0));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("joined"));
}

fn many_filters() {
    for i in 0..50 {
        install(SYS_msync, ERRNO | (i + 1));
        let at = page();
        fails!(i as i32 + 1, syscall(SYS_msync, at, 4096, 4));
        in_child(|| fails!(i as i32 + 1, syscall(SYS_msync, at, 4096, 4)));
    }
}
