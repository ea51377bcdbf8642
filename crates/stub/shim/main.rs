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
mod names;
mod native;
mod posting;
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

/// Posts the request in the slot and waits for the answer; the descriptor of a file that came with it, or 0.
pub fn request(slot: *mut Slot) -> i64 {
    // SAFETY: the slot is mapped; both sides use atomics for the state.
    let word: &AtomicU32 = unsafe { &(*slot).state };
    word.store(state::REQUEST, Ordering::SeqCst);
    // SAFETY: plain read of our own field.
    let index = u64::from(unsafe { (*slot).index });
    let mut came = 0;
    if control().spinning.load(Ordering::SeqCst) != 0 {
        came = wait_spinning(word, index, slot);
    } else if control().awake.load(Ordering::SeqCst) != 0 {
        came = wait_parked(word, index, slot);
    } else {
        while word.load(Ordering::Acquire) != state::DONE {
            came = ring(NR_DOORBELL, index, slot);
        }
    }
    word.store(state::IDLE, Ordering::Relaxed);
    came
}

/// Rings; if nobody hears (any more), the process ends. A thread that is told to end is forgotten at once: its
/// bell may come later than that answer.
fn ring(bell: u32, index: u64, slot: *mut Slot) -> i64 {
    const ENOSYS: i64 = -38;
    let ret = sys::syscall3(u64::from(bell), index, nonce(slot), 0);
    // SAFETY: the slot is mapped; both sides use atomics for the state.
    if ret == ENOSYS && unsafe { (*slot).state.load(Ordering::Acquire) } != state::DONE {
        sys::exit_process();
    }
    ret
}

/// What proves to the kernel process who rings first.
pub fn nonce(slot: *mut Slot) -> u64 {
    // SAFETY: plain read of our own field.
    u64::from(unsafe { (*slot).nonce })
}

fn wait_spinning(word: &AtomicU32, index: u64, slot: *mut Slot) -> i64 {
    let limit = control().guest_spin.load(Ordering::Relaxed);
    let mut i = 0;
    while i < limit {
        if word.load(Ordering::Acquire) == state::DONE {
            return 0;
        }
        core::hint::spin_loop();
        i += 1;
        if i % 100 == 0 {
            sys::syscall3(sys::nr::SCHED_YIELD, 0, 0, 0);
        }
    }
    let mut came = 0;
    while word.load(Ordering::SeqCst) != state::DONE {
        came = ring(NR_PARK, index, slot);
    }
    came
}

/// Waits in futex(2) for the answer of a worker that looks at the slots. Not for long: if that worker is no more, who
/// rings hears of it.
fn wait_parked(word: &AtomicU32, index: u64, slot: *mut Slot) -> i64 {
    const LOOKS: u32 = 30;
    static TIMEOUT: [u64; 2] = [0, 20_000_000];
    const FUTEX_WAIT: u64 = 0;
    for _ in 0..LOOKS {
        if word.load(Ordering::Acquire) == state::DONE {
            return 0;
        }
        core::hint::spin_loop();
    }
    // Perhaps it waits for this CPU.
    sys::syscall3(sys::nr::SCHED_YIELD, 0, 0, 0);
    if word.compare_exchange(state::REQUEST, state::PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        let (address, timeout) = (word.as_ptr() as u64, TIMEOUT.as_ptr() as u64);
        sys::syscall6(sys::nr::FUTEX, address, FUTEX_WAIT, u64::from(state::PARKED), timeout, 0, 0);
    }
    let mut came = 0;
    while word.load(Ordering::SeqCst) != state::DONE {
        came = ring(NR_PARK, index, slot);
    }
    came
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
            let came = request(slot);
            if !marshal::copy_out(slot) {
                // What the call took is given back; its result is an error then.
                (*slot).kind = kind::UNDELIVERED;
                (*slot).pieces = 0;
                continue;
            }
            let ret = match (*slot).action {
                action::RETURN => return Todo::Return((*slot).regs[reg::RAX] as i64),
                action::NATIVE => native::batch(slot, came),
                action::NATIVE_RETURN => {
                    let ret = native::batch(slot, came);
                    (*slot).native_ret = ret;
                    return Todo::Return(ret);
                }
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
        let file = (*slot).regs[reg::RAX] == sys::nr::MMAP && (*slot).regs[reg::R10] & native::MAP_ANONYMOUS == 0;
        if slot::may_run_natively((*slot).regs[reg::RAX]) && !file {
            // The trampoline makes it, with all registers as they were: interrupts, faults and restarts are then
            // those of a call of the guest's.
            (*slot).regs[reg::RIP] = (*slot).trampoline + slot::layout::TRAMPOLINE_SYSCALL;
            return;
        }
        if signal_action(slot) || names::answer(slot) || posting::answer(slot) {
            return;
        }
        (*slot).site = 0;
        (*slot).fpstate = 0;
    }
    finish_without_frame(slot, serve(slot, kind::SYSCALL, via::PATCH));
}

/// Answers rt_sigaction(2) that only asks for the action of a signal of which that is known.
fn signal_action(slot: *mut Slot) -> bool {
    const RT_SIGACTION: u64 = 13;
    const SIZE: u64 = 32;
    // SAFETY: plain reads and writes of our own slot; a bad address ends the stores, and the call is made as if
    // nothing had been.
    unsafe {
        let regs = &raw mut (*slot).regs;
        let arg = |index: usize| *regs.cast::<u64>().add(index);
        let signal = (arg(reg::RDI) as u32).wrapping_sub(1);
        if arg(reg::RAX) != RT_SIGACTION || arg(reg::RSI) != 0 || arg(reg::R10) != 8 || signal >= 64 {
            return false;
        }
        let known = |index: usize| *(&raw const (*slot).identity).cast::<u64>().add(index) >> signal & 1 != 0;
        let to = arg(reg::RDX);
        let filled = if known(slot::identity::UNTOUCHED_SIGNALS) {
            to == 0 || sys::shim_zero(to, SIZE) == 0
        } else if known(slot::identity::TOLD_SIGNALS) {
            let action = (&raw const (*slot).actions).cast::<[u64; slot::ACTION_WORDS]>().add(signal as usize);
            to == 0 || sys::shim_copy(to, action as u64, SIZE) == 0
        } else {
            false
        };
        if !filled {
            return false;
        }
        *regs.cast::<u64>().add(reg::RAX) = 0;
        true
    }
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
