//! Calls that the kernel process has announced: made by the one instruction whose calls it is told of, whatever
//! they are, and lets run only as announced.

use core::arch::global_asm;
use core::mem::offset_of;

use slot::{NOT_MADE, Slot};

use crate::sys::nr;

unsafe extern "C" {
    static shim_gadget: u8;
    static shim_call_check: u8;
    static shim_call_made: u8;
    /// Makes the call of these registers (number, arguments), unless an interrupt waits: `NOT_MADE` then.
    fn shim_call(slot: *mut Slot, call: *const u64) -> i64;
}

global_asm!(
    ".globl shim_call, shim_call_check, shim_call_made",
    "shim_call: push rbx",
    "mov rbx, rdi",
    "mov rax, [rsi]",
    "mov rdi, [rsi + 8]",
    "mov rdx, [rsi + 24]",
    "mov r10, [rsi + 32]",
    "mov r8, [rsi + 40]",
    "mov r9, [rsi + 48]",
    "mov rsi, [rsi + 16]",
    "shim_call_check: cmp dword ptr [rbx + {intr}], 0",
    "jne 2f",
    "call shim_gadget",
    "shim_call_made: pop rbx",
    "ret",
    "2: mov rax, {not_made}",
    "jmp shim_call_made",
    intr = const offset_of!(Slot, intr),
    not_made = const NOT_MADE,
);

fn gadget() -> u64 {
    // SAFETY: only the address of the label.
    core::ptr::from_ref(unsafe { &shim_gadget }) as u64
}

/// Makes a call that an interrupt keeps from being made, or ends as if it had been.
pub fn call(slot: *mut Slot, number: u64, args: &[u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = *args;
    let call = [number, a, b, c, d, e, f];
    // SAFETY: the slot is this thread's; what the call may do is for filter and kernel process to say.
    unsafe { shim_call(slot, call.as_ptr()) }
}

/// Where to go on after an interrupt in the shim, and with which rax, if that is not where it came.
///
/// A wait must not begin, or begin again, before the interrupt was told.
pub unsafe fn after_interrupt(rip: u64, rsp: u64) -> Option<(u64, Option<u64>)> {
    // SAFETY: only addresses of labels.
    let (check, made) = unsafe {
        (core::ptr::from_ref(&shim_call_check) as u64, core::ptr::from_ref(&shim_call_made) as u64)
    };
    if rip > check && rip < made {
        return Some((check, None));
    }
    // SAFETY: on the way to the instruction the stack holds where it returns to.
    if rip == gadget() && unsafe { *(rsp as *const u64) } == made {
        return Some((made, Some(NOT_MADE as u64)));
    }
    None
}

/// Whether a call that was trapped is one of the shim's to the guest's memory, which another filter wants
/// announced.
pub fn is_to_be_announced(number: u64, rip: u64) -> bool {
    rip != gadget() + 2 && matches!(number, nr::MMAP | nr::MPROTECT | nr::MUNMAP | nr::MREMAP | nr::MADVISE)
}

/// Has a trapped call made as an announced one: where to go on, and with which stack.
pub unsafe fn announce(rip: u64, rsp: u64) -> (u64, u64) {
    // SAFETY: below the stack of the interrupted function, which has no red zone.
    unsafe { *((rsp - 8) as *mut u64) = rip };
    (gadget(), rsp - 8)
}
