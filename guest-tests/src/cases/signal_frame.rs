//! What a handler sees of the interrupted program, and what it may change there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use libc::*;

use super::signal::on_info;
use crate::harness::{End, Temp, cases, file, fork, ok, wait, zeroed};

cases!("signal_frame": segv_unmapped, segv_protected, sigbus_beyond_file, divide_by_zero, illegal_instruction,
    breakpoint, handler_changes_rip, handler_changes_register, handler_changes_mask, vector_registers_survive,
    registers_survive_tick, mxcsr_survives, default_segv_kills, null_jump, frame_has_xstate_magic,
    write_fault_has_error_code, frame_to_a_bad_stack_faults_as_before);

static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicU64 = AtomicU64::new(0);
static TRAP: AtomicU64 = AtomicU64::new(0);
static ERROR: AtomicU64 = AtomicU64::new(0);
static SKIP: AtomicU64 = AtomicU64::new(0);

/// Notes everything and steps over `SKIP` bytes of code.
extern "C" fn note(_: i32, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both structures to an SA_SIGINFO handler.
    unsafe {
        ADDRESS.store((*info).si_addr() as usize, Ordering::SeqCst);
        CODE.store((*info).si_code as u64, Ordering::SeqCst);
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        TRAP.store(registers[REG_TRAPNO as usize] as u64, Ordering::SeqCst);
        ERROR.store(registers[REG_ERR as usize] as u64, Ordering::SeqCst);
        registers[REG_RIP as usize] += SKIP.load(Ordering::SeqCst) as i64;
    }
}

fn seen() -> (usize, i32, u64) {
    (ADDRESS.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst) as i32, TRAP.load(Ordering::SeqCst))
}

/// A two-byte load `mov (%rdi),%al` from `address`.
fn load(address: usize) {
    SKIP.store(2, Ordering::SeqCst);
    // SAFETY: the handler steps over the faulting instruction.
    unsafe { std::arch::asm!("mov al, byte ptr [rdi]", in("rdi") address, out("al") _) }
}

/// A two-byte store `mov %al,(%rdi)` to `address`.
fn store(address: usize) {
    SKIP.store(2, Ordering::SeqCst);
    // SAFETY: the handler steps over the faulting instruction.
    unsafe { std::arch::asm!("mov byte ptr [rdi], al", in("rdi") address, in("al") 1u8) }
}

fn segv_unmapped() {
    on_info(SIGSEGV, 0, note);
    load(0x10);
    assert_eq!(seen(), (0x10, 1 /* SEGV_MAPERR */, 14));
    assert_eq!(ERROR.load(Ordering::SeqCst), 4);
}

fn segv_protected() {
    on_info(SIGSEGV, 0, note);
    let page = ok!(mmap(std::ptr::null_mut(), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) as usize;
    load(page + 8);
    assert_eq!(seen(), (page + 8, 2 /* SEGV_ACCERR */, 14));
}

fn write_fault_has_error_code() {
    on_info(SIGSEGV, 0, note);
    let page = ok!(mmap(std::ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) as usize;
    load(page);
    store(page + 16);
    assert_eq!(seen(), (page + 16, 2, 14));
    assert_eq!(ERROR.load(Ordering::SeqCst), 7, "present, write, user");
}

fn sigbus_beyond_file() {
    on_info(SIGBUS, 0, note);
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"x").as_ptr(), O_RDWR));
    let map = ok!(mmap(std::ptr::null_mut(), 8192, PROT_READ, MAP_SHARED, fd, 0)) as usize;
    load(map);
    load(map + 4096);
    assert_eq!(seen(), (map + 4096, 2 /* BUS_ADRERR */, 14));
}

fn divide_by_zero() {
    on_info(SIGFPE, 0, note);
    SKIP.store(2, Ordering::SeqCst);
    // SAFETY: the handler steps over the `div ecx` (two bytes).
    unsafe {
        std::arch::asm!("div ecx", in("ecx") 0, inout("eax") 1 => _, inout("edx") 0 => _);
    }
    assert_eq!((seen().1, seen().2), (1 /* FPE_INTDIV */, 0));
    assert_ne!(seen().0, 0);
}

fn illegal_instruction() {
    on_info(SIGILL, 0, note);
    SKIP.store(2, Ordering::SeqCst);
    // SAFETY: the handler steps over the two bytes of `ud2`.
    unsafe { std::arch::asm!("ud2") }
    assert_eq!((seen().1, seen().2), (2 /* ILL_ILLOPN */, 6));
}

fn breakpoint() {
    on_info(SIGTRAP, 0, note);
    SKIP.store(0, Ordering::SeqCst);
    // SAFETY: the trap is taken after the instruction.
    unsafe { std::arch::asm!("int3") }
    assert_eq!((seen().1, seen().2), (128 /* SI_KERNEL */, 3));
}

extern "C" fn return_elsewhere(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as in `note`; the faulting code keeps its way out in rbx, as JVMs do.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        registers[REG_RIP as usize] = registers[REG_R15 as usize];
    }
}

fn handler_changes_rip() {
    on_info(SIGSEGV, 0, return_elsewhere);
    for _ in 0..100 {
        let mut hit: u64 = 0;
        // SAFETY: the load of address 0 ends in the handler, which goes on at label 2.
        unsafe {
            std::arch::asm!(
                "lea r15, [rip + 2f]",
                "mov rax, qword ptr [0]",
                "mov {hit}, 1",
                "2:",
                hit = inout(reg) hit,
                out("rax") _,
                out("r15") _,
            );
        }
        assert_eq!(hit, 0, "the code after the fault was left out");
    }
}

extern "C" fn set_rax(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as in `note`.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        registers[REG_RAX as usize] = 0x1234_5678_9abc;
        registers[REG_RIP as usize] += 3;
    }
}

fn handler_changes_register() {
    on_info(SIGSEGV, 0, set_rax);
    let value: u64;
    // SAFETY: the handler steps over `mov rax, [rdi]` (three bytes) and answers in rax.
    unsafe { std::arch::asm!("mov rax, qword ptr [rdi]", in("rdi") 8, out("rax") value) }
    assert_eq!(value, 0x1234_5678_9abc);
}

extern "C" fn block_more(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as in `note`.
    unsafe { sigaddset(&mut (*context.cast::<ucontext_t>()).uc_sigmask, SIGUSR2) };
}

fn handler_changes_mask() {
    on_info(SIGUSR1, 0, block_more);
    ok!(raise(SIGUSR1));
    let mut mask: sigset_t = zeroed();
    ok!(pthread_sigmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    assert_eq!(ok!(sigismember(&mask, SIGUSR2)), 1);
    assert_eq!(ok!(sigismember(&mask, SIGUSR1)), 0);
}

extern "C" fn wreck_vectors(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    TRAP.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the registers are the handler's own; the kernel saved the program's.
    unsafe {
        std::arch::asm!("pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15", "fld1", "fstp st(0)",
            out("xmm0") _, out("xmm7") _, out("xmm15") _);
        if is_x86_feature_detected!("avx") {
            std::arch::asm!("vpcmpeqd xmm3, xmm3, xmm3", "vinsertf128 ymm3, ymm3, xmm3, 1", out("ymm3") _);
        }
    }
}

fn vector_registers_survive() {
    on_info(SIGALRM, SA_RESTART, wreck_vectors);
    let tick = timeval { tv_sec: 0, tv_usec: 2000 };
    ok!(setitimer(ITIMER_REAL, &itimerval { it_interval: tick, it_value: tick }, std::ptr::null_mut()));
    let avx = is_x86_feature_detected!("avx");
    while TRAP.load(Ordering::SeqCst) < 20 {
        let (a, b): (u64, u64);
        let mut high = 0x7777u64;
        // SAFETY: fills registers, spins, reads them back.
        unsafe {
            if avx {
                std::arch::asm!(
                    "vmovq xmm3, {high}", "vinsertf128 ymm3, ymm3, xmm3, 1",
                    "mov {n}, 100000", "2:", "dec {n}", "jnz 2b",
                    "vextractf128 xmm3, ymm3, 1", "vmovq {high}, xmm3",
                    high = inout(reg) high, n = out(reg) _, out("ymm3") _);
            }
            std::arch::asm!(
                "movq xmm0, {x}", "movq xmm15, {y}",
                "mov {n}, 100000", "2:", "dec {n}", "jnz 2b",
                "movq {a}, xmm0", "movq {b}, xmm15",
                x = in(reg) 0x1111u64, y = in(reg) 0x2222u64, n = out(reg) _,
                a = lateout(reg) a, b = lateout(reg) b, out("xmm0") _, out("xmm15") _);
        }
        assert_eq!((a, b, high), (0x1111, 0x2222, 0x7777));
    }
}

fn registers_survive_tick() {
    on_info(SIGALRM, SA_RESTART, wreck_vectors);
    let tick = timeval { tv_sec: 0, tv_usec: 2000 };
    ok!(setitimer(ITIMER_REAL, &itimerval { it_interval: tick, it_value: tick }, std::ptr::null_mut()));
    while TRAP.load(Ordering::SeqCst) < 20 {
        let (r8, r9, r10, r11, r12, r13, r14, rsi): (u64, u64, u64, u64, u64, u64, u64, u64);
        // SAFETY: as above, with general registers.
        unsafe {
            std::arch::asm!(
                "mov r10, 10", "mov r11, 11", "mov r12, 12", "mov r13, 13",
                "2:", "dec rcx", "jnz 2b",
                inout("rcx") 100_000u64 => _,
                inout("r8") 8u64 => r8, inout("r9") 9u64 => r9, out("r10") r10, out("r11") r11,
                out("r12") r12, out("r13") r13, inout("r14") 14u64 => r14, inout("rsi") 6u64 => rsi);
        }
        assert_eq!([r8, r9, r10, r11, r12, r13, r14, rsi], [8, 9, 10, 11, 12, 13, 14, 6]);
    }
}

fn mxcsr_survives() {
    on_info(SIGUSR1, 0, wreck_vectors);
    let round_up: u32 = 0x1f80 | 0x4000;
    let mut now: u32 = 0;
    // SAFETY: sets and reads the rounding mode around calls.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &round_up);
        raise(SIGUSR1);
        getppid();
        std::arch::asm!("stmxcsr [{}]", in(reg) &mut now);
    }
    assert_eq!(now & 0x6000, 0x4000);
}

fn default_segv_kills() {
    for address in [0usize, 0xffff_8000_0000_0000, 0x7fff_ffff_f000] {
        assert_eq!(
            wait(fork(|| {
                load(address);
                0
            })),
            End::Killed(SIGSEGV),
            "{address:#x}"
        );
    }
}

fn null_jump() {
    on_info(SIGSEGV, 0, return_elsewhere);
    // SAFETY: the handler goes on at label 2 after the jump to nowhere.
    unsafe {
        std::arch::asm!(
            "lea r15, [rip + 2f]", "xor eax, eax", "jmp rax", "2:",
            out("rax") _, out("r15") _);
    }
}

extern "C" fn find_magic(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the frame holds 512 bytes of fxsave area; its software bytes begin at 464.
    unsafe {
        let state = (*context.cast::<ucontext_t>()).uc_mcontext.fpregs.cast::<u8>();
        let word = |at: usize| state.add(at).cast::<u32>().read_unaligned();
        CODE.store(u64::from(word(464)), Ordering::SeqCst);
        let size = word(480) as usize;
        ERROR.store(u64::from(word(size)), Ordering::SeqCst);
        ADDRESS.store(state as usize, Ordering::SeqCst);
        TRAP.store((*context.cast::<ucontext_t>()).uc_flags, Ordering::SeqCst);
    }
}

fn frame_has_xstate_magic() {
    on_info(SIGUSR1, 0, find_magic);
    ok!(raise(SIGUSR1));
    assert_eq!(CODE.load(Ordering::SeqCst), 0x4650_5853, "FP_XSTATE_MAGIC1");
    assert_eq!(ERROR.load(Ordering::SeqCst), 0x4650_5845, "FP_XSTATE_MAGIC2");
    assert_eq!(ADDRESS.load(Ordering::SeqCst) % 64, 0);
    assert_eq!(TRAP.load(Ordering::SeqCst) & 1, 1, "UC_FP_XSTATE");
}

static FAULTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_fault(_: i32) {
    FAULTED.fetch_add(1, Ordering::SeqCst);
}

/// A frame that cannot be written to the alternate stack: SIGSEGV's own handler, on the normal stack, runs as if
/// the program had faulted where it was, and the program goes on after it.
fn frame_to_a_bad_stack_faults_as_before() {
    let stack = ok!(mmap(std::ptr::null_mut(), 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    let alternate = stack_t { ss_sp: stack, ss_flags: 0, ss_size: 65536 };
    ok!(sigaltstack(&alternate, std::ptr::null_mut()));
    let mut action: sigaction = zeroed();
    action.sa_sigaction = count_fault as *const () as usize;
    ok!(sigaction(SIGSEGV, &action, std::ptr::null_mut()));
    action.sa_flags = SA_ONSTACK;
    ok!(sigaction(SIGUSR1, &action, std::ptr::null_mut()));
    for round in 1..=50 {
        let value = 123.456f64;
        let after: f64;
        // SAFETY: tkill(2) with a register that must survive the signal.
        unsafe {
            std::arch::asm!("syscall", inlateout("rax") SYS_tkill => _, in("rdi") getpid(), in("rsi") SIGUSR1,
                inlateout("xmm5") value => after, lateout("rcx") _, lateout("r11") _);
        }
        assert_eq!(after, value);
        assert_eq!(FAULTED.load(Ordering::SeqCst), round);
    }
    // The mask is as before: neither signal is blocked.
    let mut mask: sigset_t = zeroed();
    ok!(sigprocmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    // SAFETY: a mask filled in above.
    assert_eq!(unsafe { (sigismember(&mask, SIGUSR1), sigismember(&mask, SIGSEGV)) }, (0, 0));
}
