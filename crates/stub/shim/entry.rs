//! The assembly between guest code and the shim.
//!
//! Offsets in the slot: 4 intr, 16 this, 24 stack, 32 + 8n register n.

use core::arch::{asm, global_asm};

use slot::layout::NR_RETRAP;

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
    ".globl _start, shim_entry, shim_restorer, shim_exit_start, shim_exit_end",
    "_start: mov rdi, rsp",
    "and rsp, -16",
    "call stub_start",
    "hlt",
    "shim_restorer: mov eax, 15",
    "syscall",
    "hlt",
    // From a trampoline: rax = number, rcx = return address, the guest's stack untouched.
    "shim_entry:",
    "mov gs:[32 + 7*8], rsp",
    "mov rsp, gs:[24]",
    "pushfq",
    "pop r11",
    "cld",
    "mov gs:[32 + 0*8], rax",
    "mov gs:[32 + 1*8], rbx",
    "mov gs:[32 + 2*8], rcx",
    "mov gs:[32 + 3*8], rdx",
    "mov gs:[32 + 4*8], rsi",
    "mov gs:[32 + 5*8], rdi",
    "mov gs:[32 + 6*8], rbp",
    "mov gs:[32 + 8*8], r8",
    "mov gs:[32 + 9*8], r9",
    "mov gs:[32 + 10*8], r10",
    "mov gs:[32 + 11*8], r11",
    "mov gs:[32 + 12*8], r12",
    "mov gs:[32 + 13*8], r13",
    "mov gs:[32 + 14*8], r14",
    "mov gs:[32 + 15*8], r15",
    "mov gs:[32 + 16*8], rcx",
    "mov gs:[32 + 17*8], r11",
    "mov rdi, gs:[16]",
    "call shim_patched",
    "shim_exit_start:",
    "mov rsp, gs:[24]",
    "cmp dword ptr gs:[4], 0",
    "jne 2f",
    "mov rbx, gs:[32 + 1*8]",
    "mov rbp, gs:[32 + 6*8]",
    "mov r12, gs:[32 + 12*8]",
    "mov r13, gs:[32 + 13*8]",
    "mov r14, gs:[32 + 14*8]",
    "mov r15, gs:[32 + 15*8]",
    "mov rax, gs:[32 + 0*8]",
    "mov rdx, gs:[32 + 3*8]",
    "mov rsi, gs:[32 + 4*8]",
    "mov rdi, gs:[32 + 5*8]",
    "mov r8, gs:[32 + 8*8]",
    "mov r9, gs:[32 + 9*8]",
    "mov r10, gs:[32 + 10*8]",
    "mov r11, gs:[32 + 17*8]",
    "mov rcx, gs:[32 + 16*8]",
    "push r11",
    "popfq",
    "mov rsp, gs:[32 + 7*8]",
    "jmp rcx",
    "shim_exit_end:",
    "2: mov rdi, gs:[16]",
    "call shim_interrupted",
    "jmp shim_exit_start",
    ".previous",
);

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

/// Where the guest goes on if the address is that of a trampoline which found a foreign %gs and made the call.
pub fn foreign_gs(rip: u64) -> Option<u64> {
    use slot::layout::{TRAMPOLINE_BACK, TRAMPOLINE_STRIDE, TRAMPOLINE_SIZE, TRAMPOLINE_SYSCALL, TRAMPOLINE_VA};
    let offset = rip.wrapping_sub(TRAMPOLINE_VA);
    if offset >= TRAMPOLINE_SIZE || offset % TRAMPOLINE_STRIDE != TRAMPOLINE_SYSCALL + 2 {
        return None;
    }
    let back = TRAMPOLINE_VA + offset - offset % TRAMPOLINE_STRIDE + TRAMPOLINE_BACK;
    // SAFETY: within the pages of trampolines, which the kernel process writes.
    Some(unsafe { (back as *const u64).read_unaligned() })
}

/// Whether an address is in the stretch that an interrupt starts over; gives its start.
pub fn exit_stretch(rip: u64) -> Option<u64> {
    // SAFETY: only addresses of labels.
    let (start, end) = unsafe { (core::ptr::from_ref(&shim_exit_start) as u64, core::ptr::from_ref(&shim_exit_end) as u64) };
    (rip >= start && rip < end).then_some(start)
}
