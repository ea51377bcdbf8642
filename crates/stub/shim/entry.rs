//! The assembly between guest code and the shim.
//!
//! %gs is the slot.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use slot::layout::NR_RETRAP;
use slot::{Slot, reg};

unsafe extern "C" {
    /// Entry of the trampolines of patched sites.
    pub fn shim_entry();
    /// `sa_restorer` of the shim's handlers.
    pub fn shim_restorer();
    /// First address of the shim's text.
    pub static shim_text_start: u8;
    /// First address after it.
    pub static shim_text_end: u8;
    /// First page after the image.
    pub static shim_end: u8;
    /// The stretch in which registers are half restored: an interrupt there starts it over.
    pub static shim_exit_start: u8;
    /// Its end.
    pub static shim_exit_end: u8;
}

global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl shim_gadget, _start, shim_entry, shim_restorer, shim_exit_start, shim_exit_end",
    // The first instruction of all: the filter knows it by its address. Calls made here are announced.
    "shim_gadget: syscall",
    "ret",
    "_start: mov rdi, rsp",
    "and rsp, -16",
    "call stub_start",
    "hlt",
    "shim_restorer: mov eax, 15",
    "syscall",
    "hlt",
    // From a trampoline: rax = number, rcx = return address, r11 = the trampoline; the guest's stack untouched.
    "shim_entry:",
    "mov gs:[{trampoline}], r11",
    "mov gs:[{rsp}], rsp",
    "mov rsp, gs:[{stack}]",
    "pushfq",
    "pop r11",
    "cld",
    "mov gs:[{rax}], rax",
    "mov gs:[{rbx}], rbx",
    "mov gs:[{rcx}], rcx",
    "mov gs:[{rdx}], rdx",
    "mov gs:[{rsi}], rsi",
    "mov gs:[{rdi}], rdi",
    "mov gs:[{rbp}], rbp",
    "mov gs:[{r8}], r8",
    "mov gs:[{r9}], r9",
    "mov gs:[{r10}], r10",
    "mov gs:[{r11}], r11",
    "mov gs:[{r12}], r12",
    "mov gs:[{r13}], r13",
    "mov gs:[{r14}], r14",
    "mov gs:[{r15}], r15",
    "mov gs:[{rip}], rcx",
    "mov gs:[{flags}], r11",
    "mov rdi, gs:[{this}]",
    "call shim_patched",
    "shim_exit_start:",
    "mov rsp, gs:[{stack}]",
    "cmp dword ptr gs:[{intr}], 0",
    "jne 2f",
    "mov rbx, gs:[{rbx}]",
    "mov rbp, gs:[{rbp}]",
    "mov r12, gs:[{r12}]",
    "mov r13, gs:[{r13}]",
    "mov r14, gs:[{r14}]",
    "mov r15, gs:[{r15}]",
    "mov rax, gs:[{rax}]",
    "mov rdx, gs:[{rdx}]",
    "mov rsi, gs:[{rsi}]",
    "mov rdi, gs:[{rdi}]",
    "mov r8, gs:[{r8}]",
    "mov r9, gs:[{r9}]",
    "mov r10, gs:[{r10}]",
    "mov r11, gs:[{flags}]",
    "mov rcx, gs:[{rip}]",
    "push r11",
    "popfq",
    "mov rsp, gs:[{rsp}]",
    "jmp rcx",
    "shim_exit_end:",
    "2: mov rdi, gs:[{this}]",
    "call shim_interrupted",
    "jmp shim_exit_start",
    ".previous",
    rax = const register(reg::RAX),
    rbx = const register(reg::RBX),
    rcx = const register(reg::RCX),
    rdx = const register(reg::RDX),
    rsi = const register(reg::RSI),
    rdi = const register(reg::RDI),
    rbp = const register(reg::RBP),
    rsp = const register(reg::RSP),
    r8 = const register(reg::R8),
    r9 = const register(reg::R9),
    r10 = const register(reg::R10),
    r11 = const register(reg::R11),
    r12 = const register(reg::R12),
    r13 = const register(reg::R13),
    r14 = const register(reg::R14),
    r15 = const register(reg::R15),
    rip = const register(reg::RIP),
    flags = const register(reg::FLAGS),
    this = const offset_of!(Slot, this),
    stack = const offset_of!(Slot, stack),
    intr = const offset_of!(Slot, intr),
    trampoline = const offset_of!(Slot, trampoline),
);

/// Offset of a register in the slot.
const fn register(index: usize) -> usize {
    offset_of!(Slot, regs) + index * 8
}

/// Gets a host signal frame: the filter traps this number, and the handler finishes the answer that is
/// in the slot. Does not come back.
pub fn retrap() -> ! {
    // SAFETY: the handler loads all registers from the slot.
    unsafe {
        asm!("syscall", "hlt", in("rax") u64::from(NR_RETRAP), options(noreturn));
    }
}

/// Whether an address is the shim's own code or a trampoline.
pub fn in_shim(rip: u64) -> bool {
    use slot::layout::{TRAMPOLINE_SIZE, TRAMPOLINE_VA};
    // SAFETY: only addresses of labels.
    let (start, end) = unsafe { (core::ptr::from_ref(&shim_text_start) as u64, core::ptr::from_ref(&shim_text_end) as u64) };
    (rip >= start && rip < end) || (rip >= TRAMPOLINE_VA && rip < TRAMPOLINE_VA + TRAMPOLINE_SIZE)
}

/// Where the guest stands that is at, or right behind, the call which a trampoline makes itself: at its site, or
/// right behind it.
pub fn at_site(rip: u64) -> Option<u64> {
    use slot::layout::{TRAMPOLINE_BACK, TRAMPOLINE_STRIDE, TRAMPOLINE_SIZE, TRAMPOLINE_SYSCALL, TRAMPOLINE_VA};
    let offset = rip.wrapping_sub(TRAMPOLINE_VA);
    let done = (offset % TRAMPOLINE_STRIDE).wrapping_sub(TRAMPOLINE_SYSCALL);
    if offset >= TRAMPOLINE_SIZE || (done != 0 && done != 2) {
        return None;
    }
    let back = TRAMPOLINE_VA + offset - offset % TRAMPOLINE_STRIDE + TRAMPOLINE_BACK;
    // SAFETY: within the pages of trampolines, which the kernel process writes.
    Some(unsafe { (back as *const u64).read_unaligned() } - 2 + done)
}

/// Whether an address is in the stretch that an interrupt starts over; gives its start.
pub fn exit_stretch(rip: u64) -> Option<u64> {
    // SAFETY: only addresses of labels.
    let (start, end) = unsafe { (core::ptr::from_ref(&shim_exit_start) as u64, core::ptr::from_ref(&shim_exit_end) as u64) };
    (rip >= start && rip < end).then_some(start)
}
