//! Calls on regular files that need no answer.

use core::sync::atomic::Ordering;

use slot::layout::{
    KEPT_FD, MAP_FIXED_ANY, MAP_KEPT, POSTED_OFFSET, POSTED_SIZE, PREFETCHED_OFFSET, PROTECTED_HI_END, PROTECTED_LOW, RESERVED_HI,
};
use slot::{
    AT_END, ATTRIBUTES_SIZE, CONTENTS, FILE, FILE_AT, GRANTS, Grant, KNOWN, LOG, MAP_SIZE, POSTED_CLOSE, POSTED_MAP, READS, SIZED, STATX_AT, Slot, TAKEN, WHOLE,
};

use super::{MAX_RW_COUNT, end_of, grant, mark_taken, post, publish};
use crate::{control, sys};

const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_NO_AUTOMOUNT: u64 = 0x800;
const AT_EMPTY_PATH: u64 = 0x1000;
/// statx(2): all that there is, but no unique mount id.
const STATX_MASK: u64 = 0x1fff;
const TCGETS: u32 = 0x5401;
const POSIX_FADV_NORMAL: u32 = 0;
const POSIX_FADV_SEQUENTIAL: u32 = 2;
const POSIX_FADV_NOREUSE: u32 = 5;
const SEEK_CUR: u32 = 1;
const SEEK_END: u32 = 2;
const STAT_SIZE: u64 = 144;
const STATX_SIZE: u64 = 256;
const ENOTTY: i64 = 25;
const EFAULT: i64 = 14;

/// Answers a call by its number, first argument and the four behind it.
pub fn answer(slot: *mut Slot, number: u64, fd: u64, args: [u64; 4]) -> Option<i64> {
    match number {
        // close
        3 => close(slot, fd),
        // fstat, newfstatat, statx
        5 => tell(slot, fd, 0, args[0], STAT_SIZE),
        262 if names_itself(args[0], args[2]) => tell(slot, fd, 0, args[1], STAT_SIZE),
        332 if args[2] & !STATX_MASK == 0 && names_itself(args[0], args[1]) => {
            tell(slot, fd, STATX_AT as u64, args[3], STATX_SIZE)
        }
        // lseek, ioctl
        8 if args[0] == 0 && args[1] as u32 == SEEK_CUR => position(grant(slot, fd)?).map(i64::from),
        8 if args[0] == 0 && args[1] as u32 == SEEK_END => to_end(slot, grant(slot, fd)?),
        16 if args[0] as u32 == TCGETS => {
            (grant(slot, fd)?.file.load(Ordering::Relaxed) & FILE != 0).then_some(-ENOTTY)
        }
        // fadvise64: what the kernel process makes of it, too, but that bytes are needed or not
        221 if args[1] as i64 >= 0 && matches!(args[2] as u32, POSIX_FADV_NORMAL..=POSIX_FADV_SEQUENTIAL | POSIX_FADV_NOREUSE) => {
            (grant(slot, fd)?.file.load(Ordering::Relaxed) & FILE != 0).then_some(0)
        }
        // pread64, sendfile
        17 => {
            let args = [args[0], args[1], args[2]];
            if grant(slot, fd)?.file.load(Ordering::Acquire) & READS != 0 { read_kept(slot, fd, args) } else { read_at(slot, fd, args) }
        }
        40 => send(slot, fd, args),
        _ => None,
    }
}

/// Whether the path is empty and that means the descriptor.
fn names_itself(path: u64, flags: u64) -> bool {
    let mut first = [1u8];
    // SAFETY: a bad address ends the copy.
    flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == AT_EMPTY_PATH
        && unsafe { sys::shim_copy((&raw mut first) as u64, path, 1) } == 0
        && first[0] == 0
}

/// Whether nothing has changed since.
fn holds(grant: &Grant) -> bool {
    grant.version.load(Ordering::Relaxed) == control().files.load(Ordering::SeqCst) as u32
}

/// Where a file's attributes lie.
fn place(slot: *mut Slot, file: u32) -> u64 {
    slot as u64 + PREFETCHED_OFFSET + u64::from(file & FILE_AT)
}

fn tell(slot: *mut Slot, fd: u64, at: u64, to: u64, size: u64) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let file = grant.file.load(Ordering::Acquire);
    if file & KNOWN == 0 || !holds(grant) {
        return None;
    }
    // SAFETY: a bad address ends the copy, and the call is made as if nothing had been.
    (unsafe { sys::shim_copy(to, place(slot, file) + at, size) } == 0).then_some(0)
}

/// The size of a file, to which the position goes.
fn to_end(slot: *mut Slot, grant: &Grant) -> Option<i64> {
    let file = grant.file.load(Ordering::Acquire);
    let size = grant.at.load(Ordering::Relaxed);
    if file & SIZED == 0 || !holds(grant) {
        return None;
    }
    if file & AT_END == 0 {
        grant.file.fetch_or(AT_END, Ordering::SeqCst);
        mark_taken(slot);
    }
    Some(i64::from(size))
}

/// How far the file was read.
fn position(grant: &Grant) -> Option<u32> {
    let file = grant.file.load(Ordering::Acquire);
    let begin = (file & FILE_AT) + ATTRIBUTES_SIZE as u32;
    (file & CONTENTS != 0).then(|| grant.at.load(Ordering::Relaxed).wrapping_sub(begin))
}

/// Whether a read of `len` bytes finds what it should where `n` are left.
pub fn reads(grant: &Grant, n: u64, len: u64) -> Option<()> {
    let file = grant.file.load(Ordering::Acquire);
    let enough = len <= n || file & WHOLE != 0;
    (file & CONTENTS != 0 && enough && holds(grant)).then_some(())
}

/// Bytes of the file from an offset on: where they lie and how many, at most `len`.
fn bytes(slot: *mut Slot, grant: &Grant, offset: u64, len: u64) -> Option<(u64, u64)> {
    let file = grant.file.load(Ordering::Acquire);
    let size = u64::from(position(grant)?.wrapping_add(grant.prefetched.load(Ordering::Acquire) & !TAKEN));
    if len == 0 || len > MAX_RW_COUNT || offset > size {
        return None;
    }
    let mut n = size - offset;
    if n >= len {
        n = len;
    } else if file & WHOLE == 0 {
        return None;
    }
    holds(grant).then_some((place(slot, file) + ATTRIBUTES_SIZE as u64 + offset, n))
}

/// The contents were used, which stay.
fn note(slot: *mut Slot, grant: &Grant) {
    grant.prefetched.fetch_or(TAKEN, Ordering::SeqCst);
    mark_taken(slot);
}

/// Reads a file that stays in this process. While this thread may do so its number is no other file's.
fn read_kept(slot: *mut Slot, fd: u64, [buf, len, offset]: [u64; 3]) -> Option<i64> {
    let number = grant(slot, fd)?.listed.load(Ordering::Relaxed);
    let ret = sys::syscall6(sys::nr::PREAD64, u64::from(number), buf, len, offset, 0, 0);
    // The kernel process says what is wrong. It may have been closed by another thread meanwhile, or be too late for it.
    (ret >= 0).then_some(ret)
}

fn read_at(slot: *mut Slot, fd: u64, [buf, len, offset]: [u64; 3]) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let (from, n) = bytes(slot, grant, offset, len)?;
    // SAFETY: a bad address ends the copy, and the call is made as if nothing had been.
    if n > 0 && unsafe { sys::shim_copy(buf, from, n) } != 0 {
        return None;
    }
    if n > 0 {
        note(slot, grant);
    }
    Some(n as i64)
}

/// sendfile(2) of bytes that are here to a socket that takes them.
fn send(slot: *mut Slot, out: u64, [fd, offset_at, count, _]: [u64; 4]) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let mut offset = 0u64;
    // SAFETY: a bad address ends the copy, and the call is made as if nothing had been.
    if unsafe { sys::shim_copy((&raw mut offset) as u64, offset_at, 8) } != 0 {
        return None;
    }
    let (from, n) = bytes(slot, grant, offset, count)?;
    if self::grant(slot, out)?.file.load(Ordering::Relaxed) & LOG != 0 {
        return None;
    }
    let sent = post(slot, out, &[from, n], 1)?;
    note(slot, grant);
    offset += n;
    // SAFETY: as above; as on Linux, the bytes are sent by then.
    if unsafe { sys::shim_copy(offset_at, (&raw const offset) as u64, 8) } != 0 {
        return Some(-EFAULT);
    }
    Some(sent)
}

/// Maps a file that stays in this process, and keeps in the slot where.
pub fn map(slot: *mut Slot, [addr, len, prot, flags, fd, offset]: [u64; 6]) -> Option<i64> {
    const MAP_ANONYMOUS: u64 = 0x20;
    const MAP_DENYWRITE_EXECUTABLE: u64 = 0x1800;
    if flags & MAP_ANONYMOUS != 0 {
        return None;
    }
    let grant = grant(slot, fd)?;
    let number = grant.credit.load(Ordering::Relaxed);
    let times = grant.listed.load(Ordering::Relaxed);
    // SAFETY: our own slot, an atomic.
    let tail = u64::from(unsafe { (*slot).marks.tail.load(Ordering::Relaxed) });
    let end = end_of(tail, MAP_SIZE as u64);
    if grant.file.load(Ordering::Relaxed) & FILE == 0
        || number < KEPT_FD as u32
        || times == 0
        || end > POSTED_SIZE as u64
        || control().posting.load(Ordering::Relaxed) == 0
    {
        return None;
    }
    // What the filter traps is for the kernel process to refuse, or to put elsewhere.
    let last = addr.checked_add(len)?;
    let lowest = addr == 0 && flags & MAP_FIXED_ANY == 0 || addr >= PROTECTED_LOW;
    let reserved = addr >> 32 < u64::from(PROTECTED_HI_END) && last >> 32 >= u64::from(RESERVED_HI);
    if !lowest || reserved || last >> 47 != 0 || flags & !(MAP_KEPT | MAP_DENYWRITE_EXECUTABLE) != 0 {
        return None;
    }
    let flags = flags & !MAP_DENYWRITE_EXECUTABLE;
    let ret = sys::syscall6(sys::nr::MMAP, addr, len, prot, flags, u64::from(number), offset);
    if ret < 0 && ret > -4096 {
        // The kernel process says so, if it does not know better.
        return None;
    }
    grant.listed.store(times - 1, Ordering::Relaxed);
    let to = slot as u64 + POSTED_OFFSET + tail;
    // SAFETY: within the records, as was just seen.
    unsafe {
        *(to as *mut u32) = fd as u32 % GRANTS as u32 | POSTED_MAP;
        *((to + 4) as *mut u32) = MAP_SIZE as u32;
        *((to + 8) as *mut u64) = ret as u64;
        *((to + 16) as *mut u64) = len;
        *((to + 24) as *mut u64) = offset;
    }
    publish(slot, end);
    Some(ret)
}

fn close(slot: *mut Slot, fd: u64) -> Option<i64> {
    let grant = grant(slot, fd)?;
    // SAFETY: our own slot, an atomic.
    let tail = u64::from(unsafe { (*slot).marks.tail.load(Ordering::Relaxed) });
    let end = end_of(tail, 0);
    if grant.file.load(Ordering::Relaxed) & FILE == 0
        || end > POSTED_SIZE as u64
        || control().posting.load(Ordering::Relaxed) == 0
    {
        return None;
    }
    // Somebody else may have come first.
    let credit = grant.credit.swap(0, Ordering::SeqCst);
    if credit == 0 {
        return None;
    }
    if credit >= KEPT_FD as u32 {
        sys::syscall3(sys::nr::CLOSE, u64::from(credit), 0, 0);
    }
    // The number may be another file's as soon as the call was made.
    grant.fd.store(0, Ordering::SeqCst);
    let to = slot as u64 + POSTED_OFFSET + tail;
    // SAFETY: within the records, as was just seen.
    unsafe {
        *(to as *mut u32) = fd as u32 % GRANTS as u32 | POSTED_CLOSE;
        *((to + 4) as *mut u32) = 0;
    }
    publish(slot, end);
    Some(0)
}
