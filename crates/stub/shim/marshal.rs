//! Guest memory that travels with a request and its answer.
//!
//! Data the handler will surely want is copied into the slot by the guest itself, which saves the kernel
//! process a host call. It is a courtesy: what did not travel is read by process_vm_readv.

use slot::layout::DATA_SIZE;
use slot::{IN_RECORDS, RECORDS, Record, Slot, reg};

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
    /// An array: index of the address, index of the count, bytes of one.
    Array(usize, usize, u32),
    /// The entries of an iovec and the bytes that they name: index of the address, index of the count.
    Gather(usize, usize),
    /// A `struct msghdr` that is sent, with all that it names.
    Message(usize),
    /// A `struct msghdr` to be filled, with its iovec.
    Form(usize),
}

const ARGS: [usize; 6] = [reg::RDI, reg::RSI, reg::RDX, reg::R10, reg::R8, reg::R9];
const PATH_MAX: u64 = 4096;
/// Bytes of a `struct iovec`.
const IOVEC: u64 = 16;
/// Bytes of a `struct msghdr`.
const MSGHDR: u64 = 56;

fn shapes(nr: u64) -> [Option<Shape>; 2] {
    use Shape::{Array, Buffer, Form, Gather, Message, Path, Struct};
    let one = |shape| [Some(shape), None];
    match nr {
        // write, pwrite64, sendto, connect, bind
        1 | 18 | 44 | 42 | 49 => one(Buffer(1, 2)),
        // writev, pwritev, pwritev2; readv, preadv, preadv2
        20 | 296 | 328 => one(Gather(1, 2)),
        19 | 295 | 327 => one(Array(1, 2, IOVEC as u32)),
        // sendmsg, recvmsg
        46 => one(Message(1)),
        47 => one(Form(1)),
        // recvfrom, accept, accept4: the length of an address; setsockopt, getsockopt
        45 => one(Struct(5, 4)),
        43 | 288 => one(Struct(2, 4)),
        54 => one(Buffer(3, 4)),
        55 => one(Struct(4, 4)),
        // poll, ppoll
        7 => one(Array(0, 1, 8)),
        271 => [Some(Array(0, 1, 8)), Some(Struct(2, 16))],
        // open stat lstat access chdir mkdir rmdir creat unlink readlink chmod chown lchown truncate statfs
        2 | 4 | 6 | 21 | 80 | 83 | 84 | 85 | 87 | 89 | 90 | 92 | 94 | 76 | 137 => one(Path(0)),
        // rename link symlink, getxattr lgetxattr
        82 | 86 | 88 | 191 | 192 => [Some(Path(0)), Some(Path(1))],
        // openat mkdirat newfstatat unlinkat readlinkat faccessat faccessat2 statx fchmodat fchownat, fgetxattr
        257 | 258 | 262 | 263 | 267 | 269 | 439 | 332 | 268 | 260 | 193 => one(Path(1)),
        // renameat renameat2 linkat
        264 | 316 | 265 => [Some(Path(1)), Some(Path(3))],
        // symlinkat, utimensat
        266 => [Some(Path(0)), Some(Path(2))],
        280 => [Some(Path(1)), Some(Struct(2, 32))],
        // rt_sigaction, rt_sigprocmask
        13 => one(Struct(1, 32)),
        14 => one(Struct(1, 8)),
        // nanosleep, clock_nanosleep, epoll_ctl
        35 => one(Struct(0, 16)),
        230 => one(Struct(2, 16)),
        233 => one(Struct(3, 12)),
        // setitimer, timerfd_settime
        38 => one(Struct(1, 32)),
        286 => one(Struct(2, 32)),
        _ => [None, None],
    }
}

/// An argument register; no bounds check, whose message would bring code that uses vector registers.
#[inline(always)]
fn arg(regs: &[u64; reg::COUNT], index: usize) -> u64 {
    // SAFETY: the shapes name arguments 0 to 5.
    unsafe { *regs.as_ptr().add(*ARGS.as_ptr().add(index)) }
}

/// The pieces of one request while they are collected.
struct Pieces {
    slot: *mut Slot,
    used: u64,
    count: usize,
}

impl Pieces {
    /// Records that `len` bytes of `addr` lie behind what was there before.
    fn push(&mut self, addr: u64, len: u64) {
        let record = Record { addr, len: len as u32, offset: self.used as u32 };
        // SAFETY: the callers have seen that there is room.
        unsafe { *(&raw mut (*self.slot).in_records).cast::<Record>().add(self.count) = record };
        self.used = (self.used + len + 7) & !7;
        self.count += 1;
    }

    /// Copies `len` bytes; where they lie now, 0 if they do not travel.
    fn take(&mut self, addr: u64, len: u64) -> u64 {
        let at = data_of(self.slot) + self.used;
        let fits = self.count < IN_RECORDS && len <= (DATA_SIZE as u64).saturating_sub(self.used);
        // SAFETY: the place is within the slot's data; a bad address ends the copy.
        if addr == 0 || len == 0 || !fits || unsafe { sys::shim_copy(at, addr, len) } != 0 {
            return 0;
        }
        self.push(addr, len);
        at
    }

    fn path(&mut self, addr: u64) {
        if addr == 0 || self.count == IN_RECORDS || self.used + PATH_MAX > DATA_SIZE as u64 {
            return;
        }
        // SAFETY: as in `take`.
        let len = unsafe { sys::shim_copy_str(data_of(self.slot) + self.used, addr, PATH_MAX) };
        if len > 0 {
            self.push(addr, len as u64);
        }
    }

    /// `count` entries of `size` bytes; where they lie.
    fn array(&mut self, addr: u64, count: u64, size: u64) -> u64 {
        if count > DATA_SIZE as u64 / size { 0 } else { self.take(addr, count * size) }
    }

    /// An iovec and, while there is room, what its entries name.
    fn gather(&mut self, addr: u64, count: u64) {
        let at = self.array(addr, count, IOVEC);
        let mut i = 0;
        while at != 0 && i < count && self.count < IN_RECORDS {
            let entry = (at + i * IOVEC) as *const u64;
            // SAFETY: within the copy that was just made.
            let (base, len) = unsafe { (entry.read(), entry.add(1).read()) };
            self.take(base, len);
            i += 1;
        }
    }

    /// A `struct msghdr`, and what it names if it is sent.
    fn message(&mut self, addr: u64, sent: bool) {
        let at = self.take(addr, MSGHDR) as *const u64;
        if at.is_null() {
            return;
        }
        // SAFETY: within the copy that was just made: name, its length (32 bits), iovec, its count, control data, its
        // length.
        let field = |i: usize| unsafe { at.add(i).read() };
        if sent {
            self.take(field(0), field(1) & 0xffff_ffff);
            self.take(field(4), field(5));
            self.gather(field(2), field(3));
        } else {
            self.array(field(2), field(3), IOVEC);
        }
    }
}

/// Copies what the call's arguments name; records say what and where.
pub fn copy_in(slot: *mut Slot) {
    // SAFETY: plain reads and writes of our own slot.
    unsafe {
        let regs = (*slot).regs;
        let arg = |i| arg(&regs, i);
        let mut pieces = Pieces { slot, used: 0, count: 0 };
        for shape in shapes(regs[reg::RAX]).into_iter().flatten() {
            match shape {
                Shape::Path(i) => pieces.path(arg(i)),
                Shape::Struct(i, len) => {
                    pieces.take(arg(i), u64::from(len));
                }
                Shape::Buffer(i, l) => {
                    pieces.take(arg(i), arg(l));
                }
                Shape::Array(i, count, size) => {
                    pieces.array(arg(i), arg(count), u64::from(size));
                }
                Shape::Gather(i, count) => pieces.gather(arg(i), arg(count)),
                Shape::Message(i) => pieces.message(arg(i), true),
                Shape::Form(i) => pieces.message(arg(i), false),
            }
        }
        (*slot).pieces = pieces.count as u8;
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
