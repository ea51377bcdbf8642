//! Host system calls of the shim, and copies that survive bad addresses.

use core::arch::{asm, global_asm};

/// Numbers of the host calls that the shim makes.
pub mod nr {
    pub const MMAP: u64 = 9;
    pub const MPROTECT: u64 = 10;
    pub const MUNMAP: u64 = 11;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const SCHED_YIELD: u64 = 24;
    pub const MREMAP: u64 = 25;
    pub const MADVISE: u64 = 28;
    pub const CLOSE: u64 = 3;
    pub const PREAD64: u64 = 17;
    pub const CLONE: u64 = 56;
    pub const EXIT: u64 = 60;
    pub const SET_TID_ADDRESS: u64 = 218;
    pub const SET_ROBUST_LIST: u64 = 273;
    pub const EXIT_GROUP: u64 = 231;
    pub const SIGALTSTACK: u64 = 131;
    pub const PRCTL: u64 = 157;
    pub const FUTEX: u64 = 202;
    pub const SECCOMP: u64 = 317;
}

/// A host system call.
#[inline(always)]
pub fn syscall6(nr: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
    let ret: i64;
    // SAFETY: the filter decides what the call may do; memory named by the arguments is the guest's own.
    unsafe {
        asm!("syscall", inlateout("rax") nr as i64 => ret, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _);
    }
    ret
}

/// A host system call with three arguments.
#[inline(always)]
pub fn syscall3(nr: u64, a: u64, b: u64, c: u64) -> i64 {
    syscall6(nr, a, b, c, 0, 0, 0)
}

/// Makes an announced call with interrupts held back. An interrupt between the kernel process's answer and the
/// caller's waking makes the host start such a call over, though it was announced for once (seccomp_unotify(2)).
#[inline(always)]
pub fn uninterrupted(call: impl FnOnce() -> i64) -> i64 {
    const SIG_BLOCK: u64 = 0;
    with_interrupts(SIG_BLOCK, call)
}

/// Makes a call that interrupts may end, also where a handler runs, which holds them back.
#[inline(always)]
pub fn interruptible(call: impl FnOnce() -> i64) -> i64 {
    const SIG_UNBLOCK: u64 = 1;
    with_interrupts(SIG_UNBLOCK, call)
}

#[inline(always)]
fn with_interrupts(how: u64, call: impl FnOnce() -> i64) -> i64 {
    const SIG_SETMASK: u64 = 2;
    let interrupt = 1u64 << (slot::layout::SIG_INTERRUPT - 1);
    let mut old = 0u64;
    let (set, was) = (core::ptr::from_ref(&interrupt) as u64, (&raw mut old) as u64);
    syscall6(nr::RT_SIGPROCMASK, how, set, was, 8, 0, 0);
    let ret = call();
    syscall6(nr::RT_SIGPROCMASK, SIG_SETMASK, was, 0, 8, 0, 0);
    ret
}

/// Ends the process.
pub fn exit_process() -> ! {
    loop {
        syscall3(nr::EXIT_GROUP, 127, 0, 0);
    }
}

unsafe extern "C" {
    /// Copies; returns the bytes left over if an address is bad.
    pub fn shim_copy(to: u64, from: u64, len: u64) -> u64;
    /// Copies up to and with a NUL, at most `max` bytes; returns the bytes copied, or -1 at a bad address.
    pub fn shim_copy_str(to: u64, from: u64, max: u64) -> i64;
    /// Stores a word; 0, or 1 if the address is bad.
    pub fn shim_store32(to: u64, value: u32) -> u64;
    /// Stores `new` if the word is `expected`, as one step; the word's old value, or -14 if the address is bad.
    pub fn shim_compare_exchange(at: u64, expected: u32, new: u32) -> i64;
    /// Zeroes; returns the bytes left over.
    pub fn shim_zero(to: u64, len: u64) -> u64;
}

global_asm!(
    ".globl shim_copy, shim_copy_str, shim_store32, shim_zero, shim_compare_exchange",
    ".globl shim_fix_copy, shim_fix_str, shim_fix_store, shim_fix_zero, shim_fix_exchange",
    ".globl shim_fixed_copy, shim_fixed_str, shim_fixed_store, shim_fixed_exchange",
    "shim_copy: mov rcx, rdx",
    "cld",
    "shim_fix_copy: rep movsb",
    "shim_fixed_copy: mov rax, rcx",
    "ret",
    "shim_zero: mov rcx, rsi",
    "xor eax, eax",
    "cld",
    "shim_fix_zero: rep stosb",
    "mov rax, rcx",
    "ret",
    "shim_copy_str: xor eax, eax",
    "2: cmp rax, rdx",
    "jae 3f",
    "shim_fix_str: mov cl, byte ptr [rsi + rax]",
    "mov byte ptr [rdi + rax], cl",
    "inc rax",
    "test cl, cl",
    "jnz 2b",
    "3: ret",
    "shim_fixed_str: mov rax, -1",
    "ret",
    "shim_fix_store: mov dword ptr [rdi], esi",
    "xor eax, eax",
    "ret",
    "shim_fixed_store: mov eax, 1",
    "ret",
    "shim_compare_exchange: mov eax, esi",
    "shim_fix_exchange: lock cmpxchg dword ptr [rdi], edx",
    // Clears the high half.
    "mov eax, eax",
    "ret",
    "shim_fixed_exchange: mov rax, -14",
    "ret",
    ".set shim_store32, shim_fix_store",
    // Named by core's unwind tables, never called.
    ".globl rust_eh_personality",
    "rust_eh_personality: ud2",
    // The compiler calls these; its own may use vector registers.
    ".globl memcpy, memmove, memset, memcmp, bcmp",
    "memcpy: mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memmove: mov rax, rdi",
    "mov rcx, rdx",
    "cmp rdi, rsi",
    "jbe 4f",
    "lea rdi, [rdi + rcx - 1]",
    "lea rsi, [rsi + rcx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "4: rep movsb",
    "ret",
    "memset: mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "memcmp:",
    "bcmp: xor ecx, ecx",
    "5: cmp rcx, rdx",
    "je 6f",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx r8d, byte ptr [rsi + rcx]",
    "inc rcx",
    "sub eax, r8d",
    "je 5b",
    "ret",
    "6: xor eax, eax",
    "ret",
);

unsafe extern "C" {
    static shim_fix_copy: u8;
    static shim_fix_str: u8;
    static shim_fix_store: u8;
    static shim_fix_zero: u8;
    static shim_fixed_copy: u8;
    static shim_fixed_str: u8;
    static shim_fixed_store: u8;
    static shim_fix_exchange: u8;
    static shim_fixed_exchange: u8;
}

/// Where to go on after a fault at `rip`, if it is one of the copies above.
pub fn fixup(rip: u64) -> Option<u64> {
    // SAFETY: only the addresses of the labels are taken.
    unsafe {
        let at = |label: &u8| core::ptr::from_ref(label) as u64;
        if rip == at(&shim_fix_copy) || rip == at(&shim_fix_zero) {
            Some(at(&shim_fixed_copy))
        } else if rip == at(&shim_fix_str) {
            Some(at(&shim_fixed_str))
        } else if rip == at(&shim_fix_store) {
            Some(at(&shim_fixed_store))
        } else if rip == at(&shim_fix_exchange) {
            Some(at(&shim_fixed_exchange))
        } else {
            None
        }
    }
}
