//! New host threads and processes, and the end of threads.

use core::arch::asm;

use slot::layout::{BATCH, SLOT_SIZE, SLOTS_FD, STACK_SIZE, STACK_VA};
use slot::{Slot, action};

use crate::sys::{self, nr};
use crate::{entry, slot_at};

/// Which side of a clone this is.
pub enum Outcome {
    /// The caller, with the host's result.
    Parent(i64),
    /// The new process; its slot holds its registers.
    Child,
}

/// Values of `a[7]` of the CLONE action: a thread, a process; 2 is a process that shares its memory (vfork).
const THREAD: u64 = 0;
const FORK: u64 = 1;

/// Maps the slots of one batch of this process.
///
/// `nonce` or the caller's index says who maps, `index` who does so afterwards.
pub fn map_slots(first_index: u64, file_index: u64, nonce: u64, index: u64) -> i64 {
    let at = slot_at(first_index) as u64;
    let len = BATCH as u64 * SLOT_SIZE;
    let fd = SLOTS_FD as u64 | nonce << 32;
    let ret = sys::uninterrupted(|| sys::syscall6(nr::MMAP, at, len, 3, 0x11, fd, file_index * SLOT_SIZE));
    if ret > 0 {
        // MADV_DONTFORK: a child must not see its parent's slots.
        sys::syscall6(nr::MADVISE, at, len, 10, index, 0, 0);
    }
    ret
}

/// Carries out the CLONE action in the slot.
///
/// a: 0 host flags, 1 index of the child's slot in its process, 2 nonce, 3 tls, 4 set_child_tid,
/// 5 guest tid, 6 file index of the batch to map (or -1), 7 kind.
pub fn clone(slot: *mut Slot) -> Outcome {
    // SAFETY: plain reads of our own slot.
    let (a, fpstate) = unsafe { ((*slot).a, (*slot).fpstate) };
    // The host reset the vector registers for the handler; the child inherits those of the guest.
    crate::signal::load_xstate(fpstate);
    if a[7] != FORK {
        let batch = BATCH as u64;
        // SAFETY: plain read of our own slot.
        let own = u64::from(unsafe { (*slot).index });
        if a[6] != u64::MAX && map_slots(a[1] / batch * batch, a[6], own, own) < 0 {
            return Outcome::Parent(-12);
        }
        return Outcome::Parent(sys::uninterrupted(|| thread(slot, a[0], slot_at(a[1]), a[3])));
    }
    fork(slot, &a)
}

fn fork(slot: *mut Slot, a: &[u64; 8]) -> Outcome {
    // SAFETY: plain read of our own slot.
    let own = u64::from(unsafe { (*slot).index });
    let ret = sys::uninterrupted(|| sys::syscall6(nr::CLONE, a[0], 0, 0, 0, 0, own));
    if ret != 0 {
        return Outcome::Parent(ret);
    }
    // The child: no slot is mapped here until this call.
    let batch = BATCH as u64;
    if map_slots(a[1] / batch * batch, a[6], a[2], a[6] + a[1] % batch) < 0 {
        sys::exit_process();
    }
    set_child_tid(a[4], a[5]);
    Outcome::Child
}

fn set_child_tid(at: u64, tid: u64) {
    if at != 0 {
        // SAFETY: the store survives bad addresses, as Linux's does.
        unsafe { sys::shim_store32(at, tid as u32) };
    }
}

/// The host's clone of a thread (or a vfork child) that starts on its own shim stack.
fn thread(slot: *mut Slot, flags: u64, child: *mut Slot, tls: u64) -> i64 {
    // SAFETY: plain read of our own slot.
    let own = u64::from(unsafe { (*slot).index });
    let ret: i64;
    // SAFETY: the child's slot and stack were prepared by the kernel process; nobody else uses them.
    unsafe {
        let stack = (*child).stack;
        let tid_word = (&raw mut (*child).host_tid) as u64;
        let gs: u64;
        asm!("rdgsbase {}", out(reg) gs, options(nomem, nostack));
        let foreign = u64::from(gs != slot as u64);
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // A %gs of the guest's own is inherited.
            "test r13, r13",
            "jnz 3f",
            "wrgsbase r12",
            "3:",
            "mov rdi, r12",
            "xor ebp, ebp",
            "call {start}",
            "hlt",
            "2:",
            start = sym thread_start,
            inlateout("rax") nr::CLONE as i64 => ret,
            in("rdi") flags,
            in("rsi") stack,
            in("rdx") 0u64,
            in("r10") tid_word,
            in("r8") tls,
            in("r9") own,
            in("r12") child,
            in("r13") foreign,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    ret
}

/// The first thing a new thread does.
extern "C" fn thread_start(slot: *mut Slot) -> ! {
    prepare_thread(slot);
    // SAFETY: plain reads of our own slot.
    unsafe {
        set_child_tid((*slot).a[4], (*slot).a[5]);
        if (*slot).a[7] != THREAD {
            // A vfork child rings once, so that the kernel process knows its host process.
            sys::syscall3(u64::from(slot::layout::NR_DOORBELL), u64::from((*slot).index), crate::nonce(slot), 1);
        }
        (*slot).action = action::REGS;
    }
    entry::retrap()
}

/// Signal stack and mask of a thread: handlers inherit a blocked mask to threads they make.
pub fn prepare_thread(slot: *mut Slot) {
    let index = (slot as u64 - slot::layout::SLOT_VA) / SLOT_SIZE;
    let stack: [u64; 3] = [STACK_VA + index * STACK_SIZE, 0, STACK_SIZE];
    sys::syscall3(nr::SIGALTSTACK, stack.as_ptr() as u64, 0, 0);
    let mask = 0u64;
    sys::syscall6(nr::RT_SIGPROCMASK, 2, core::ptr::from_ref(&mask) as u64, 0, 8, 0, 0);
}

/// Carries out the EXIT action: robust futexes, the tid word, the end.
pub fn exit(slot: *mut Slot) -> ! {
    // SAFETY: plain reads of our own slot.
    let a = unsafe { (*slot).a };
    if a[1] != 0 {
        robust_list(a[1], a[2] as u32);
    }
    if a[4] != 0 {
        if a[0] != 0 {
            set_zero_and_wake(a[0]);
        }
        // The host's leader stays: the memory of its threads is reached through it. Never answered.
        crate::request(slot);
    } else if a[0] != 0 {
        leave_word_to_host(slot, a[0]);
    }
    loop {
        sys::syscall3(nr::EXIT, a[3], 0, 0);
    }
}

/// Has the host clear the guest's tid word once no user code of the thread runs: who waits for the word frees
/// the thread's memory, which the host still writes to until then (rseq(2)). Our own word, which the host would
/// have cleared instead, becomes the only entry of a robust list: the host marks its owner as dead.
fn leave_word_to_host(slot: *mut Slot, word: u64) {
    // SAFETY: plain writes to our own slot, whose answer has been read; the host reads the list at the exit.
    unsafe {
        let list = &raw mut (*slot).a;
        let head = list as u64;
        let entry = head + 32;
        // struct robust_list_head, and the entry's link back to it.
        (*slot).a[0] = entry;
        (*slot).a[1] = ((&raw const (*slot).host_tid) as u64).wrapping_sub(entry);
        (*slot).a[2] = 0;
        (*slot).a[4] = head;
        sys::syscall3(nr::SET_ROBUST_LIST, head, 24, 0);
    }
    sys::syscall3(nr::SET_TID_ADDRESS, word, 0, 0);
}

fn set_zero_and_wake(at: u64) {
    // SAFETY: the store survives bad addresses.
    if unsafe { sys::shim_store32(at, 0) } == 0 {
        sys::syscall3(nr::FUTEX, at, 1, 1);
    }
}

fn load64(at: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the copy survives bad addresses.
    (unsafe { sys::shim_copy((&raw mut value) as u64, at, 8) } == 0).then_some(value)
}

/// Most entries of a robust list that are looked at, as Linux's `ROBUST_LIST_LIMIT`.
const ROBUST_LIST_LIMIT: u32 = 2048;
/// In a link of a robust list: the entry is a priority-inheritance futex, whose waiters the kernel process wakes.
const PI: u64 = 1;

/// Marks the futexes that a dying thread holds: set_robust_list(2).
pub fn robust_list(head: u64, tid: u32) {
    let Some(mut entry) = load64(head) else { return };
    let Some(offset) = load64(head.wrapping_add(8)) else { return };
    let pending = load64(head.wrapping_add(16)).unwrap_or(0);
    let mut left = ROBUST_LIST_LIMIT;
    while entry & !PI != head && left > 0 {
        let next = load64(entry & !PI);
        if entry & !PI != pending & !PI {
            owner_died((entry & !PI).wrapping_add(offset), tid, entry & PI != 0, false);
        }
        let Some(next) = next else { return };
        entry = next;
        left -= 1;
    }
    if pending & !PI != 0 {
        owner_died((pending & !PI).wrapping_add(offset), tid, pending & PI != 0, true);
    }
}

fn owner_died(futex: u64, tid: u32, pi: bool, pending: bool) {
    const WAITERS: u32 = 0x8000_0000;
    const OWNER_DIED: u32 = 0x4000_0000;
    const TID_MASK: u32 = 0x3fff_ffff;
    let mut value = 0u32;
    // SAFETY: the copy survives bad addresses.
    if futex % 4 != 0 || unsafe { sys::shim_copy((&raw mut value) as u64, futex, 4) } != 0 {
        return;
    }
    loop {
        // Unlocked already, but the wake-up did not come any more.
        if pending && !pi && value == 0 {
            sys::syscall3(nr::FUTEX, futex, 1, 1);
            return;
        }
        if value & TID_MASK != tid {
            return;
        }
        // SAFETY: the exchange survives bad addresses.
        let old = unsafe { sys::shim_compare_exchange(futex, value, (value & WAITERS) | OWNER_DIED) };
        if old < 0 {
            return;
        }
        if old as u32 == value {
            break;
        }
        value = old as u32;
    }
    if !pi && value & WAITERS != 0 {
        sys::syscall3(nr::FUTEX, futex, 1, 1);
    }
}
