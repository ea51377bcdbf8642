//! The stub: zygote and shim. Runs inside guest processes, on its own stacks, under the filter.
//!
//! Convenience, never security: the guest may overwrite it, jump into it, forge its slots, and harms
//! only itself. The kernel process believes nothing that is written here.
#![no_std]
#![no_main]

mod announced;
mod clone;
mod entry;
mod marshal;
mod native;
mod signal;
mod start;
mod sys;

use core::sync::atomic::{AtomicU32, Ordering};

use slot::layout::{CONTROL_VA, NR_DOORBELL, NR_PARK, SLOT_SIZE, SLOT_VA, STACK_SIZE, STACK_VA};
use slot::{Control, Slot, action, kind, reg, state, via};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        sys::syscall3(sys::nr::EXIT, 127, 0, 0);
    }
}

/// The slot of a thread by its index in the process.
pub fn slot_at(index: u64) -> *mut Slot {
    (SLOT_VA + index * SLOT_SIZE) as *mut Slot
}

/// The slot of the thread that runs on a shim stack.
#[inline(always)]
pub fn current_by_stack() -> *mut Slot {
    let here = 0u8;
    let address = core::ptr::from_ref(&here) as u64;
    slot_at((address - STACK_VA) / STACK_SIZE)
}

/// The data area of a slot.
pub fn data_of(slot: *mut Slot) -> u64 {
    slot as u64 + slot::layout::DATA_OFFSET
}

pub fn control() -> &'static Control {
    // SAFETY: the page is mapped for the life of the stub.
    unsafe { &*(CONTROL_VA as *const Control) }
}

/// Posts the request in the slot and waits for the answer.
pub fn request(slot: *mut Slot) {
    // SAFETY: the slot is mapped; both sides use atomics for the state.
    let word: &AtomicU32 = unsafe { &(*slot).state };
    word.store(state::REQUEST, Ordering::SeqCst);
    // SAFETY: plain read of our own field.
    let index = u64::from(unsafe { (*slot).index });
    if control().spinning.load(Ordering::SeqCst) == 0 {
        while word.load(Ordering::Acquire) != state::DONE {
            ring(NR_DOORBELL, index, slot);
        }
    } else {
        wait_spinning(word, index, slot);
    }
    word.store(state::IDLE, Ordering::Relaxed);
}

/// Rings; if nobody hears (any more), the process ends. A thread that is told to end is forgotten at once: its
/// bell may come later than that answer.
fn ring(bell: u32, index: u64, slot: *mut Slot) {
    const ENOSYS: i64 = -38;
    let ret = sys::syscall3(u64::from(bell), index, nonce(slot), 0);
    // SAFETY: the slot is mapped; both sides use atomics for the state.
    if ret == ENOSYS && unsafe { (*slot).state.load(Ordering::Acquire) } != state::DONE {
        sys::exit_process();
    }
}

/// What proves to the kernel process who rings first.
pub fn nonce(slot: *mut Slot) -> u64 {
    // SAFETY: plain read of our own field.
    u64::from(unsafe { (*slot).nonce })
}

fn wait_spinning(word: &AtomicU32, index: u64, slot: *mut Slot) {
    let limit = control().guest_spin.load(Ordering::Relaxed);
    let mut i = 0;
    while i < limit {
        if word.load(Ordering::Acquire) == state::DONE {
            return;
        }
        core::hint::spin_loop();
        i += 1;
        if i % 100 == 0 {
            sys::syscall3(sys::nr::SCHED_YIELD, 0, 0, 0);
        }
    }
    while word.load(Ordering::SeqCst) != state::DONE {
        ring(NR_PARK, index, slot);
    }
}

/// What remains to be done with an answer.
pub enum Todo {
    /// Put this into rax.
    Return(i64),
    /// Load all registers, for which a host signal frame is needed: see `signal`.
    Frame,
}

/// Handles a request of the given kind until the guest can go on.
pub fn serve(slot: *mut Slot, kind: u8, via: u8) -> Todo {
    // SAFETY: the slot is this thread's; the kernel process reads what is written before `request`.
    unsafe {
        (*slot).kind = kind;
        (*slot).via = via;
        (*slot).pieces = 0;
        if kind == kind::SYSCALL {
            marshal::copy_in(slot);
        }
        loop {
            request(slot);
            if !marshal::copy_out(slot) {
                // What the call took is given back; its result is an error then.
                (*slot).kind = kind::UNDELIVERED;
                (*slot).pieces = 0;
                continue;
            }
            let ret = match (*slot).action {
                action::RETURN => return Todo::Return((*slot).regs[reg::RAX] as i64),
                action::NATIVE => native::batch(slot),
                action::NATIVE_RETURN => return Todo::Return(native::one(slot)),
                action::CLONE => match clone::clone(slot) {
                    clone::Outcome::Parent(ret) => ret,
                    clone::Outcome::Child => return Todo::Frame,
                },
                action::EXIT => clone::exit(slot),
                _ => return Todo::Frame,
            };
            (*slot).native_ret = ret;
            (*slot).kind = kind::NATIVE_DONE;
            (*slot).pieces = 0;
        }
    }
}

/// A patched site's call: registers are in the slot. Called by the entry's assembly.
#[unsafe(no_mangle)]
extern "C" fn shim_patched(slot: *mut Slot) {
    // SAFETY: plain writes to our own slot.
    unsafe {
        if let Some(index) = slot::identity::of_call((*slot).regs[reg::RAX]) {
            // No bounds check: its message would bring code that uses vector registers.
            let known = *(&raw const (*slot).identity).cast::<u64>().add(index);
            if known != 0 {
                (*slot).regs[reg::RAX] = known - 1;
                return;
            }
        }
        if slot::may_run_natively((*slot).regs[reg::RAX]) {
            // The trampoline makes it, with all registers as they were: interrupts, faults and restarts are then
            // those of a call of the guest's.
            (*slot).regs[reg::RIP] = (*slot).trampoline + slot::layout::TRAMPOLINE_SYSCALL;
            return;
        }
        (*slot).site = 0;
        (*slot).fpstate = 0;
    }
    finish_without_frame(slot, serve(slot, kind::SYSCALL, via::PATCH));
}

/// Ends a call that came without a host signal frame.
pub fn finish_without_frame(slot: *mut Slot, todo: Todo) {
    match todo {
        // SAFETY: plain writes to our own slot.
        Todo::Return(ret) => unsafe {
            (*slot).regs[reg::RAX] = ret as u64;
        },
        Todo::Frame => entry::retrap(),
    }
}

/// An interrupt came while the shim ran: tell it before going back.
#[unsafe(no_mangle)]
extern "C" fn shim_interrupted(slot: *mut Slot) {
    // SAFETY: plain writes to our own slot.
    unsafe {
        (*slot).intr.store(0, Ordering::Relaxed);
        if let Some(at) = entry::at_site((*slot).regs[reg::RIP]) {
            (*slot).regs[reg::RIP] = at;
        }
        // After a patched call the guest goes on behind its site.
        (*slot).regs[reg::RCX] = (*slot).regs[reg::RIP];
        (*slot).fpstate = 0;
    }
    match serve(slot, kind::INTERRUPTED, via::PATCH) {
        Todo::Return(_) => {}
        Todo::Frame => entry::retrap(),
    }
}
