//! Guest memory that travels with a request and its answer.
//!
//! Data the handler will surely want is copied into the slot by the guest itself, which saves the kernel
//! process a host call. It is a courtesy: what did not travel is read by process_vm_readv.

use slot::layout::DATA_SIZE;
use slot::{RECORDS, Record, Slot, reg};

use crate::{data_of, sys};

/// What of an argument travels.
#[derive(Clone, Copy)]
enum Shape {
    /// A path in the argument of this index.
    Path(usize),
    /// A structure: index, bytes.
    Struct(usize, u32),
    /// A buffer: index of the address, index of the length.
    Buffer(usize, usize),
}

const ARGS: [usize; 6] = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9];
const PATH_MAX: u64 = 4096;

fn shapes(nr: u64) -> [Option<Shape>; 2] {
    use Shape::{Buffer, Path, Struct};
    let one = |shape| [Some(shape), None];
    match nr {
        // write, pwrite64, sendto
        1 | 18 | 44 => one(Buffer(1, 2)),
        // open stat lstat access chdir mkdir rmdir creat unlink readlink chmod chown lchown truncate statfs
        2 | 4 | 6 | 21 | 80 | 83 | 84 | 85 | 87 | 89 | 90 | 92 | 94 | 76 | 137 => one(Path(0)),
        // rename link symlink
        82 | 86 | 88 => [Some(Path(0)), Some(Path(1))],
        // openat mkdirat newfstatat unlinkat readlinkat faccessat faccessat2 statx fchmodat fchownat
        257 | 258 | 262 | 263 | 267 | 269 | 439 | 332 | 268 | 260 => one(Path(1)),
        // renameat renameat2 linkat
        264 | 316 | 265 => [Some(Path(1)), Some(Path(3))],
        // rt_sigaction, rt_sigprocmask
        13 => one(Struct(1, 32)),
        14 => one(Struct(1, 8)),
        // nanosleep, clock_nanosleep, epoll_ctl
        35 => one(Struct(0, 16)),
        230 => one(Struct(2, 16)),
        233 => one(Struct(3, 12)),
        _ => [None, None],
    }
}

/// An argument register; no bounds check, whose message would bring code that uses vector registers.
#[inline(always)]
fn arg(regs: &[u64; reg::COUNT], index: usize) -> u64 {
    // SAFETY: the shapes name arguments 0 to 5.
    unsafe { *regs.as_ptr().add(*ARGS.as_ptr().add(index)) }
}

/// Copies what the call's arguments name; records say what and where.
pub fn copy_in(slot: *mut Slot) {
    // SAFETY: the slot and its data area are mapped; copies survive bad addresses.
    unsafe {
        let regs = (*slot).regs;
        let data = data_of(slot);
        let mut used = 0u64;
        let mut count = 0usize;
        for shape in shapes(regs[reg::RAX]).into_iter().flatten() {
            let room = DATA_SIZE as u64 - used;
            let (addr, len) = match shape {
                Shape::Path(i) => {
                    let addr = arg(&regs, i);
                    if addr == 0 || room < PATH_MAX {
                        continue;
                    }
                    let n = sys::shim_copy_str(data + used, addr, PATH_MAX);
                    if n <= 0 {
                        continue;
                    }
                    (addr, n as u64)
                }
                Shape::Struct(i, len) => {
                    let addr = arg(&regs, i);
                    if addr == 0 || sys::shim_copy(data + used, addr, u64::from(len)) != 0 {
                        continue;
                    }
                    (addr, u64::from(len))
                }
                Shape::Buffer(i, l) => {
                    let (addr, len) = (arg(&regs, i), arg(&regs, l));
                    if len == 0 || len > room || sys::shim_copy(data + used, addr, len) != 0 {
                        continue;
                    }
                    (addr, len)
                }
            };
            *(&raw mut (*slot).in_records).cast::<Record>().add(count) = Record { addr, len: len as u32, offset: used as u32 };
            used = (used + len + 7) & !7;
            count += 1;
        }
        (*slot).pieces = count as u8;
    }
}

/// Copies what the answer brings; false at a bad address.
pub fn copy_out(slot: *mut Slot) -> bool {
    // SAFETY: the slot and its data area are mapped; copies survive bad addresses.
    unsafe {
        let count = (*slot).pieces as usize;
        let mut ok = true;
        let mut i = 0;
        while i < count && i < RECORDS {
            let record = *(&raw const (*slot).out_records).cast::<Record>().add(i);
            ok &= sys::shim_copy(record.addr, data_of(slot) + u64::from(record.offset), u64::from(record.len)) == 0;
            i += 1;
        }
        ok
    }
}
