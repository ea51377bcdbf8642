//! The zygote: sets up the shim, installs the filter, then forks clean processes on demand.

use core::arch::asm;
use core::sync::atomic::Ordering;

use slot::layout::{
    CONTROL_FD, CONTROL_VA, COUNTS_OFFSET, COUNTS_SIZE, COUNTS_VA, DATA_SIZE, NAMES_OFFSET, NAMES_SIZE, NAMES_VA, NR_MEASURE, PROTECTED_HI_END, RESERVED_HI, SLOT_VA, SLOTS_FD, MAX_THREADS, STACK_SIZE, STACK_VA, TABLE_OFFSET, TABLE_SIZE, TABLE_VA,
    TRAMPOLINE_OFFSET, TRAMPOLINE_SIZE, TRAMPOLINE_VA,
};
use slot::{action, kind, via};

use crate::sys::{self, nr};
use crate::{Todo, clone, data_of, entry, serve, signal, slot_at};

/// Where the zygote reports how far it is, in `fault` of its slot before any guest code exists.
const READY: u64 = 77;

const EPERM: i64 = -1;

/// Runs on the host's initial stack.
#[unsafe(no_mangle)]
extern "C" fn stub_start(stack: *const u64) -> ! {
    let shared_ro = |at: u64, len: u64, prot: u64, offset: u64| {
        sys::syscall6(nr::MMAP, at, len, prot, 0x11, CONTROL_FD as u64, offset);
    };
    shared_ro(CONTROL_VA, 0x1000, 1, 0);
    shared_ro(TABLE_VA, TABLE_SIZE, 1, TABLE_OFFSET);
    shared_ro(TRAMPOLINE_VA, TRAMPOLINE_SIZE, 5, TRAMPOLINE_OFFSET);
    shared_ro(NAMES_VA, NAMES_SIZE, 1, NAMES_OFFSET);
    sys::syscall6(nr::MMAP, COUNTS_VA, COUNTS_SIZE, 3, 0x11, SLOTS_FD as u64, COUNTS_OFFSET);
    // Private, anonymous, fixed, no reserve.
    sys::syscall6(nr::MMAP, STACK_VA, MAX_THREADS as u64 * STACK_SIZE, 3, 0x4032, u64::MAX, 0);
    reserve_gaps();
    clone::map_slots(0, 0, 0, 0);
    let mmap_top = mmap_top();
    // SAFETY: the stack is as the host has laid it out.
    let vdso = unsafe { vdso(stack) };
    // What is as it was is no change, but for what is sealed (Linux 6.16 may do that).
    let vdso_sealed = sys::syscall3(nr::MPROTECT, vdso & !0xfff, 0x1000, 5) == EPERM;
    let slot = slot_at(0);
    // a: 4 for a host without mseal(2), where the filter alone protects all this.
    // SAFETY: plain read of our own slot.
    if unsafe { (*slot).a[4] } == 0 {
        seal(TABLE_VA, TABLE_SIZE);
        seal(u64::from(RESERVED_HI) << 32, SLOT_VA - (u64::from(RESERVED_HI) << 32));
    }
    signal::install(slot);
    // SAFETY: the slot is mapped; the kernel process has filled in its head and the filter.
    unsafe {
        asm!("wrgsbase {}", in(reg) slot);
        const PR_SET_NO_NEW_PRIVS: u64 = 38;
        const PR_SET_DUMPABLE: u64 = 4;
        sys::syscall6(nr::PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
        // a: 0 number of filter instructions, 2 undumpable.
        let a = (*slot).a;
        let program: [u64; 2] = [a[0], data_of(slot)];
        if a[0] as usize * 8 > DATA_SIZE {
            sys::exit_process();
        }
        if a[2] != 0 {
            sys::syscall6(nr::PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
        }
        // a: 1 flags of seccomp(2), 3 the same for older hosts.
        const EINVAL: i64 = -22;
        let mut listener = sys::syscall3(nr::SECCOMP, 1, a[1], program.as_ptr() as u64);
        if listener == EINVAL {
            listener = sys::syscall3(nr::SECCOMP, 1, a[3], program.as_ptr() as u64);
        }
        sys::syscall3(u64::from(NR_MEASURE), 0, 0, 0);
        (*slot).native_ret = listener;
        (*slot).fault[0] = vdso;
        (*slot).fault[4] = u64::from(vdso_sealed);
        (*slot).fault[1] = entry::shim_entry as *const () as u64;
        (*slot).fault[2] = mmap_top;
        (*slot).fault[3] = stack as u64;
        (*slot).intr.store(READY as u32, Ordering::SeqCst);
        while (*slot).intr.load(Ordering::SeqCst) == READY as u32 {
            sys::syscall3(nr::SCHED_YIELD, 0, 0, 0);
        }
        sys::syscall3(nr::CLOSE, listener as u64, 0, 0);
    }
    zygote()
}

/// Nobody unmaps, moves or protects what lies there any more; all of it is mapped.
fn seal(at: u64, len: u64) {
    const MSEAL: u64 = 462;
    sys::syscall3(MSEAL, at, len, 0);
}

/// Takes what lies between the shim's parts, so that no mapping of the guest lands there.
fn reserve_gaps() {
    // SAFETY: only addresses of labels.
    let (image_start, image_end) =
        unsafe { (core::ptr::from_ref(&entry::shim_text_start) as u64 & !0xfff, core::ptr::from_ref(&entry::shim_end) as u64) };
    let gaps = [
        (u64::from(RESERVED_HI) << 32, image_start),
        (image_end, CONTROL_VA),
        (CONTROL_VA + 0x1000, COUNTS_VA),
        (COUNTS_VA + COUNTS_SIZE, NAMES_VA),
        (NAMES_VA + NAMES_SIZE, TRAMPOLINE_VA),
        (TRAMPOLINE_VA + TRAMPOLINE_SIZE, STACK_VA),
        (STACK_VA + MAX_THREADS as u64 * STACK_SIZE, u64::from(PROTECTED_HI_END) << 32),
    ];
    for (from, to) in gaps {
        // No access; private, anonymous, no reserve, fixed but replacing nothing.
        sys::syscall6(nr::MMAP, from, to - from, 0, 0x10_4022, u64::MAX, 0);
    }
}

/// Where the host puts mappings downwards from; 0 if it puts them upwards (an unlimited stack does that).
fn mmap_top() -> u64 {
    const PAGE: u64 = 0x1000;
    let map = || sys::syscall6(nr::MMAP, 0, PAGE, 0, 0x4022, u64::MAX, 0);
    let (first, second) = (map(), map());
    let mut top = 0;
    for at in [first, second] {
        if at > 0 {
            sys::syscall3(nr::MUNMAP, at as u64, PAGE, 0);
        }
    }
    if second > 0 && first == second + PAGE as i64 {
        top = first as u64 + PAGE;
    }
    top
}

/// Address of the vDSO from the auxiliary vector on the initial stack.
unsafe fn vdso(stack: *const u64) -> u64 {
    const AT_SYSINFO_EHDR: u64 = 33;
    // SAFETY: the host lays out argc, argv, 0, envp, 0, pairs, 0.
    unsafe {
        let mut at = stack.add(*stack as usize + 2);
        while *at != 0 {
            at = at.add(1);
        }
        at = at.add(1);
        while *at != 0 {
            if *at == AT_SYSINFO_EHDR {
                return *at.add(1);
            }
            at = at.add(2);
        }
        0
    }
}

fn zygote() -> ! {
    let slot = slot_at(0);
    loop {
        // CLONE actions are answered inside `serve`; only the child comes out of it.
        let todo = serve(slot, kind::ZYGOTE, via::SHIM);
        if let Todo::Frame = todo {
            // SAFETY: plain read of our own slot.
            if unsafe { (*slot).action } == action::REGS {
                child();
            }
        }
    }
}

/// A clean process: waits for its program.
fn child() -> ! {
    let slot = slot_at(0);
    loop {
        if let Todo::Frame = serve(slot, kind::STARTED, via::SHIM) {
            entry::retrap();
        }
    }
}
