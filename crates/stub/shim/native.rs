//! Native operations: what only the stub itself can do to its memory.

use core::arch::asm;
use core::sync::atomic::Ordering;

use slot::layout::{CONTROL_VA, DATA_SIZE, FILE_FD, KEPT_FD, NR_FETCH, SHOWING_OFFSET, SLOT_SIZE, SLOT_VA};
use slot::{Op, Slot, op};

use crate::data_of;
use crate::sys::{self, nr};

pub const MAP_ANONYMOUS: u64 = 0x20;
const PR_SET_NAME: u64 = 15;
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
/// Bytes of `struct prctl_mm_map`.
const MM_MAP_SIZE: u64 = 104;

/// Does the operations in the slot's data up to the first failure; the last result. `came` is the descriptor of a
/// file that came with them.
pub fn batch(slot: *mut Slot, came: i64) -> i64 {
    // SAFETY: plain read of our own slot.
    let count = unsafe { (*slot).count } as usize;
    let mut ret = 0;
    let mut i = 0;
    while i < count && i < DATA_SIZE / core::mem::size_of::<Op>() {
        // SAFETY: within the data area of the mapped slot.
        let op = unsafe { *(data_of(slot) as *const Op).add(i) };
        ret = run(slot, &op, came);
        if ret < 0 && ret > -4096 {
            return ret;
        }
        i += 1;
    }
    ret
}

/// Takes a file that is to stay, unless it is there or came along.
fn fetch(own: u64, fd: u64, came: i64) {
    let number = fd & 0xffff_ffff;
    if fd >> 32 != 0 && came != number as i64 {
        // Made twice it does no harm.
        sys::syscall3(u64::from(NR_FETCH), own, number, 0);
    }
}

/// Maps a file.
fn map(slot: *mut Slot, a: &[u64; 6], came: i64) -> i64 {
    const EBADF: i64 = -9;
    // SAFETY: plain read of our own slot.
    let own = u64::from(unsafe { (*slot).index });
    let mut fd = a[4] & 0xffff_ffff;
    if fd >= KEPT_FD as u64 && fd < FILE_FD as u64 {
        fetch(own, a[4], came);
        let ret = sys::syscall6(nr::MMAP, a[0], a[1], a[2], a[3], fd, a[5]);
        if ret != EBADF {
            return ret;
        }
        // Another thread has closed it.
        fd = FILE_FD as u64 + (slot as u64 - SLOT_VA) / SLOT_SIZE;
    }
    let ret = sys::uninterrupted(|| sys::syscall6(nr::MMAP, a[0], a[1], a[2], a[3], own << 32 | fd, a[5]));
    // The kernel process put the file in for this one mapping.
    if fd >= FILE_FD as u64 {
        sys::syscall3(nr::CLOSE, fd, 0, 0);
    }
    ret
}

fn run(slot: *mut Slot, op: &Op, came: i64) -> i64 {
    let a = &op.args;
    match op.kind {
        op::MMAP => {
            if a[3] & MAP_ANONYMOUS != 0 {
                return sys::syscall6(nr::MMAP, a[0], a[1], a[2], a[3], a[4], a[5]);
            }
            map(slot, a, came)
        }
        op::CLOSE => {
            sys::syscall3(nr::CLOSE, a[0], 0, 0);
            0
        }
        op::FETCH => {
            // SAFETY: plain read of our own slot.
            fetch(u64::from(unsafe { (*slot).index }), a[0], came);
            0
        }
        op::MUNMAP => sys::syscall3(nr::MUNMAP, a[0], a[1], 0),
        op::MPROTECT => sys::syscall3(nr::MPROTECT, a[0], a[1], a[2]),
        op::MREMAP => sys::syscall6(nr::MREMAP, a[0], a[1], a[2], a[3], a[4], 0),
        op::MADVISE => sys::syscall3(nr::MADVISE, a[0], a[1], a[2]),
        op::COPY => {
            // SAFETY: the copy survives bad addresses.
            if unsafe { sys::shim_copy(a[0], data_of(slot) + a[2], a[1]) } == 0 { 0 } else { -14 }
        }
        op::ZERO => {
            // SAFETY: the store survives bad addresses.
            if unsafe { sys::shim_zero(a[0], a[1]) } == 0 { 0 } else { -14 }
        }
        op::SET_FS => {
            // SAFETY: the FS base is the guest's; the shim does not use it.
            unsafe { asm!("wrfsbase {}", in(reg) a[0]) };
            0
        }
        op::GET_FS => {
            let base: i64;
            // SAFETY: reads a register.
            unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack)) };
            base
        }
        op::SET_GS => {
            // The shim finds its slot by the stack where %gs is not its own; 0 is what a program starts with.
            let base = if a[0] == 0 { slot as u64 } else { a[0] };
            // SAFETY: as above.
            unsafe { asm!("wrgsbase {}", in(reg) base) };
            0
        }
        op::GET_GS => {
            let mut base: u64;
            // SAFETY: reads a register.
            unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack)) };
            if base == slot as u64 {
                base = 0;
            }
            // SAFETY: the copy survives bad addresses.
            if unsafe { sys::shim_copy(a[0], (&raw const base) as u64, 8) } == 0 { 0 } else { -14 }
        }
        op::SET_NAME => sys::syscall3(nr::PRCTL, PR_SET_NAME, data_of(slot) + a[0], 0),
        op::SET_MM => {
            sys::syscall6(nr::PRCTL, PR_SET_MM, PR_SET_MM_MAP, data_of(slot) + a[0], MM_MAP_SIZE, 0, 0);
            0
        }
        op::FUTEX_WAKE => sys::syscall3(nr::FUTEX, a[0], 1, a[1]),
        // SAFETY: the exchange survives bad addresses.
        op::COMPARE_EXCHANGE => unsafe { sys::shim_compare_exchange(a[0], a[1] as u32, a[2] as u32) },
        op::ROBUST_LIST => {
            crate::clone::robust_list(a[0], a[1] as u32);
            0
        }
        op::CALL => {
            let ret = sys::interruptible(|| crate::announced::call(slot, u64::from(op.number), a));
            // The kernel process hears of this thread now, and looks for what it was interrupted for.
            // SAFETY: plain write to our own slot.
            unsafe { (*slot).intr.store(0, Ordering::Relaxed) };
            ret
        }
        op::SHOW_CALLS => {
            const SET_MODE_FILTER: u64 = 1;
            const TSYNC: u64 = 1;
            // SAFETY: plain read of our own slot.
            let own = u64::from(unsafe { (*slot).index });
            let program = CONTROL_VA + SHOWING_OFFSET;
            sys::uninterrupted(|| sys::syscall6(nr::SECCOMP, SET_MODE_FILTER, TSYNC, program, own, 0, 0))
        }
        _ => -38,
    }
}
