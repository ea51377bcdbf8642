//! Host signal handlers of the shim: trapped calls, faults, interrupts; and going back with a frame.

use core::arch::asm;
use core::sync::atomic::Ordering;

use slot::layout::NR_RETRAP;
use slot::{Slot, action, kind, reg, via};

use crate::sys;
use crate::{Todo, announced, clone, current_by_stack, data_of, entry, posting, serve};

/// `struct ucontext` of x86-64 as the host lays it out.
#[repr(C)]
pub struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    gregs: [u64; 23],
    fpstate: u64,
    reserved: [u64; 8],
    mask: u64,
}

/// The head of `siginfo_t`.
#[repr(C)]
pub struct SigInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    addr: u64,
    /// Of SIGSYS: number and audit architecture.
    nr: i32,
    arch: u32,
}

const G_RAX: usize = 13;
const G_RCX: usize = 14;
const G_RSP: usize = 15;
const G_RIP: usize = 16;
const G_FLAGS: usize = 17;
const G_ERR: usize = 19;
const G_TRAPNO: usize = 20;
const G_CR2: usize = 22;

/// Where the host keeps each of `slot::reg` in the frame.
const ORDER: [usize; reg::COUNT] = [13, 8, 9, 12, 2, 0, 1, 11, 14, 10, 15, 3, 4, 5, 6, 7, 16, 17];

unsafe fn save(slot: *mut Slot, frame: *mut UContext) {
    // SAFETY: the frame is the host's, the slot ours.
    unsafe {
        let mut i = 0;
        while i < reg::COUNT {
            *(&raw mut (*slot).regs).cast::<u64>().add(i) = *(&raw const (*frame).gregs).cast::<u64>().add(*ORDER.as_ptr().add(i));
            i += 1;
        }
        (*slot).fpstate = (*frame).fpstate;
    }
}

unsafe fn load(slot: *mut Slot, frame: *mut UContext) {
    // SAFETY: the frame is the host's, the slot ours.
    unsafe {
        let mut i = 0;
        while i < reg::COUNT {
            *(&raw mut (*frame).gregs).cast::<u64>().add(*ORDER.as_ptr().add(i)) = *(&raw const (*slot).regs).cast::<u64>().add(i);
            i += 1;
        }
        (*frame).mask = 0;
    }
}

/// Bytes of extended state in a host frame, with its end mark.
unsafe fn xstate_size(fpstate: u64) -> u32 {
    if fpstate == 0 {
        return 0;
    }
    // SAFETY: the host wrote the software-reserved bytes at offset 464.
    let (magic, size) = unsafe { (*((fpstate + LEGACY) as *const u32), *((fpstate + 468) as *const u32)) };
    if magic == MAGIC1 { size } else { 512 }
}

/// Ends a request that came with a host frame.
unsafe fn finish(slot: *mut Slot, frame: *mut UContext, mut todo: Todo) {
    loop {
        // SAFETY: the frame is the host's, the slot ours.
        unsafe {
            match todo {
                Todo::Return(ret) => {
                    if matches!((*slot).kind, kind::SYSCALL | kind::NATIVE_DONE | kind::UNDELIVERED) {
                        (*frame).gregs[G_RAX] = ret as u64;
                    }
                    if !interrupt_waits(slot) {
                        return;
                    }
                    save(slot, frame);
                    todo = serve(slot, kind::INTERRUPTED, via::SIGNAL);
                    continue;
                }
                Todo::Frame => {}
            }
            let a = (*slot).a;
            match (*slot).action {
                action::FRAME => {
                    let mut bad = sys::shim_copy(a[0], data_of(slot), a[1]);
                    if a[2] != 0 && bad == 0 {
                        bad = sys::shim_copy(a[2], (*frame).fpstate, u64::from(xstate_size((*frame).fpstate)));
                    }
                    if bad != 0 {
                        // Tell it as a fault of the kernel's making; registers stay as the handler's.
                        (*slot).fault = KERNEL_FAULT;
                        todo = serve(slot, kind::FAULT, via::SIGNAL);
                        continue;
                    }
                }
                action::SIGRETURN => {
                    if !restore_xstate(frame, a[0]) {
                        // The registers are the restored ones already, as in Linux.
                        (*slot).fault = KERNEL_FAULT;
                        todo = serve(slot, kind::FAULT, via::SIGNAL);
                        continue;
                    }
                }
                _ => {}
            }
            load(slot, frame);
            if !interrupt_waits(slot) {
                return;
            }
            todo = serve(slot, kind::INTERRUPTED, via::SIGNAL);
        }
    }
}

/// Whether an interrupt came while the shim ran outside of a handler (within, it is blocked).
unsafe fn interrupt_waits(slot: *mut Slot) -> bool {
    // SAFETY: the slot is ours.
    let intr = unsafe { &(*slot).intr };
    intr.load(Ordering::Relaxed) != 0 && intr.swap(0, Ordering::Relaxed) != 0
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// SIGSEGV with SI_KERNEL and no address.
const KERNEL_FAULT: [u64; 6] = [11, 0x80, 0, 0, 0, 0];

/// Marks extended state in a signal frame, at its start (offset 464) and behind its end.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Bytes of the x87 and SSE state that the processor reads; software's bytes follow up to 512.
const LEGACY: u64 = 464;

/// Takes the extended state from a frame in guest memory; the host checks it at its own sigreturn. False at
/// a bad address.
unsafe fn restore_xstate(frame: *mut UContext, from: u64) -> bool {
    // SAFETY: copies survive bad addresses; the host's frame is written within its size.
    unsafe {
        if from == 0 {
            // The host's sigreturn then gives the initial state, as Linux does.
            (*frame).fpstate = 0;
            return true;
        }
        let to = (*frame).fpstate;
        let size = xstate_size(to);
        if size == 0 {
            return true;
        }
        let (mut head, mut tail) = ([0u32; 2], 0u32);
        if sys::shim_copy((&raw mut head) as u64, from + LEGACY, 8) != 0 {
            return false;
        }
        if size > 512 && head[0] == MAGIC1 && head[1] == size {
            if sys::shim_copy((&raw mut tail) as u64, from + u64::from(size) - 4, 4) != 0 {
                return false;
            }
            if tail == MAGIC2 {
                return sys::shim_copy(to, from, u64::from(size)) == 0;
            }
        }
        // Without its marks only the legacy part counts, the rest is initial.
        if size > 512 {
            *((to + 512) as *mut u64) = 3;
        }
        sys::shim_copy(to, from, LEGACY) == 0
    }
}

/// Loads the extended state that a host frame saved, so that what is cloned next inherits it.
pub fn load_xstate(fpstate: u64) {
    if fpstate == 0 {
        return;
    }
    // SAFETY: the frame is the host's; a guest that spoiled it faults, which is its own affair. The shim uses
    // none of these registers.
    unsafe {
        if xstate_size(fpstate) > 512 {
            asm!("xrstor64 [{}]", in(reg) fpstate, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) fpstate, options(nostack));
        }
    }
}

/// SIGSYS: a trapped call.
pub extern "C" fn on_sigsys(_signo: i32, info: *mut SigInfo, frame: *mut UContext) {
    let slot = current_by_stack();
    // SAFETY: frame and siginfo are the host's, the slot ours.
    unsafe {
        let mut rip = (*frame).gregs[G_RIP];
        if (*info).arch != AUDIT_ARCH_X86_64 {
            // The i386 entry, which this kernel does not have: a general protection fault at `int 0x80`.
            save(slot, frame);
            (*slot).regs[reg::RIP] = rip - 2;
            (*slot).fault = [11, 0x80, 0, 13, 0x80 << 3 | 2, 0];
            load(slot, frame);
            let todo = serve(slot, kind::FAULT, via::SIGNAL);
            finish(slot, frame, todo);
            return;
        }
        if let Some(back) = entry::at_site(rip) {
            // A call that a trampoline made itself: as if it had trapped where it stands.
            rip = back;
            (*frame).gregs[G_RIP] = back;
            (*frame).gregs[G_RCX] = back;
        }
        let number = (*frame).gregs[G_RAX];
        if number == u64::from(NR_RETRAP) && entry::in_shim(rip) {
            (*slot).kind = kind::INTERRUPTED;
            (*slot).fpstate = (*frame).fpstate;
            finish(slot, frame, Todo::Frame);
            return;
        }
        if entry::in_shim(rip) {
            if announced::is_to_be_announced(number, rip) {
                let (next, rsp) = announced::announce(rip, (*frame).gregs[G_RSP]);
                (*frame).gregs[G_RIP] = next;
                (*frame).gregs[G_RSP] = rsp;
                return;
            }
            // An operation of the shim that the filter does not let pass, or NR_MEASURE.
            (*slot).xstate_size = xstate_size((*frame).fpstate);
            (*frame).gregs[G_RAX] = -1i64 as u64;
            return;
        }
        save(slot, frame);
        // Sites of calls that run natively are not patched.
        if number == sys::nr::MMAP && posting::answer(slot) {
            (*slot).kind = kind::SYSCALL;
            let ret = (*slot).regs[reg::RAX] as i64;
            finish(slot, frame, Todo::Return(ret));
            return;
        }
        (*slot).site = rip - 2;
        let todo = serve(slot, kind::SYSCALL, via::SIGNAL);
        // A child of fork runs on with its own copy of the frame, but in another slot object.
        finish(slot, frame, todo);
    }
}

/// SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP.
pub extern "C" fn on_fault(signo: i32, info: *mut SigInfo, frame: *mut UContext) {
    // SAFETY: the frame and siginfo are the host's, the slot ours.
    unsafe {
        let rip = (*frame).gregs[G_RIP];
        if let Some(next) = sys::fixup(rip) {
            (*frame).gregs[G_RIP] = next;
            return;
        }
        if signo == 5 && entry::in_shim(rip) {
            // A step into the shim by a patched site: the call is one step, the kernel sets the flag again.
            const TRAP_FLAG: u64 = 0x100;
            (*frame).gregs[G_FLAGS] &= !TRAP_FLAG;
            return;
        }
        let slot = current_by_stack();
        // A breakpoint tells SI_KERNEL; steps and the like tell something else.
        if signo == 5 && (*info).code == 0x80 && patched_meanwhile(rip - 1) {
            (*frame).gregs[G_RIP] = rip - 1;
            return;
        }
        if signo == 4 && is_patched_call(rip) {
            // Between `mov eax, nr` and what was `syscall`.
            save(slot, frame);
            (*slot).regs[reg::RIP] = rip + 2;
            (*slot).regs[reg::RCX] = rip + 2;
            (*slot).regs[reg::R11] = (*slot).regs[reg::FLAGS];
            (*slot).site = 0;
            load(slot, frame);
            let todo = serve(slot, kind::SYSCALL, via::SIGNAL);
            finish(slot, frame, todo);
            return;
        }
        save(slot, frame);
        (*slot).fault = [
            signo as u64,
            (*info).code as u32 as u64,
            (*info).addr,
            (*frame).gregs[G_TRAPNO],
            (*frame).gregs[G_ERR],
            (*frame).gregs[G_CR2],
        ];
        let todo = serve(slot, kind::FAULT, via::SIGNAL);
        finish(slot, frame, todo);
    }
}

/// Whether a breakpoint was that of a patch under way, which is over now, or has gone again.
unsafe fn patched_meanwhile(at: u64) -> bool {
    let mut left = 1_000_000u32;
    while crate::control().patch_site.load(Ordering::Acquire) == at && left > 0 {
        core::hint::spin_loop();
        left -= 1;
        if left % 64 == 0 {
            // Who writes it may wait for this very CPU.
            sys::syscall3(sys::nr::SCHED_YIELD, 0, 0, 0);
        }
    }
    let mut byte = 0u8;
    // SAFETY: the copy survives bad addresses.
    unsafe { sys::shim_copy((&raw mut byte) as u64, at, 1) == 0 && byte != 0xcc }
}

/// Whether an invalid instruction is the end of a patched `mov eax, nr; syscall`: the high half of the
/// table's address, behind the jump's first bytes (or, while it is being written, others).
unsafe fn is_patched_call(at: u64) -> bool {
    let mut bytes = [0u8; 7];
    // SAFETY: the copy survives bad addresses.
    let bad = unsafe { sys::shim_copy((&raw mut bytes) as u64, at - 5, 7) } != 0;
    let [head, _, _, _, _, high @ ..] = bytes;
    !bad && matches!(head, 0xff | 0xcc | 0xb8) && matches!(high, [0x06, 0x00 | 0x05])
}

/// The kernel's interrupt.
pub extern "C" fn on_interrupt(_signo: i32, _info: *mut SigInfo, frame: *mut UContext) {
    let slot = current_by_stack();
    // SAFETY: the frame is the host's, the slot ours.
    unsafe {
        if let Some(at) = entry::at_site((*frame).gregs[G_RIP]) {
            (*frame).gregs[G_RIP] = at;
        }
        let rip = (*frame).gregs[G_RIP];
        if entry::in_shim(rip) {
            (*slot).intr.store(1, Ordering::Relaxed);
            if let Some(start) = entry::exit_stretch(rip) {
                (*frame).gregs[G_RIP] = start;
            }
            if let Some((next, rax)) = announced::after_interrupt(rip, (*frame).gregs[G_RSP]) {
                (*frame).gregs[G_RIP] = next;
                if let Some(rax) = rax {
                    (*frame).gregs[G_RAX] = rax;
                    (*frame).gregs[G_RSP] += 8;
                }
            }
            return;
        }
        save(slot, frame);
        let todo = serve(slot, kind::INTERRUPTED, via::SIGNAL);
        finish(slot, frame, todo);
    }
}

/// Installs the handlers and the signal stack of the first thread.
pub fn install(slot: *mut Slot) {
    clone::prepare_thread(slot);
    const SIGINFO: u64 = 4;
    const RESTORER: u64 = 0x0400_0000;
    const ONSTACK: u64 = 0x0800_0000;
    const RESTART: u64 = 0x1000_0000;
    const NODEFER: u64 = 0x4000_0000;
    let restorer = entry::shim_restorer as *const () as u64;
    // Interrupts wait while another handler runs.
    let mask = 1u64 << (slot::layout::SIG_INTERRUPT - 1);
    let set = |signo: u64, handler: u64, flags: u64| {
        let action = [handler, SIGINFO | RESTORER | ONSTACK | flags, restorer, mask];
        sys::syscall6(sys::nr::RT_SIGACTION, signo, action.as_ptr() as u64, 0, 8, 0, 0);
    };
    set(31, on_sigsys as *const () as u64, NODEFER);
    set(slot::layout::SIG_INTERRUPT as u64, on_interrupt as *const () as u64, RESTART);
    for signo in [4, 5, 7, 8, 11] {
        set(signo, on_fault as *const () as u64, NODEFER);
    }
}
