//! Reads and writes that need no answer: see `slot::Grant`.

mod files;

use core::sync::atomic::{AtomicU32, Ordering};

use slot::layout::{COUNTS_VA, GRANTS_OFFSET, POSTED_OFFSET, POSTED_SIZE, PREFETCHED_OFFSET, PREFETCHED_SIZE};
use slot::{
    CLAIMED, COUNT_BITS, COUNTS, Count, DRY, FILE, GRANTS, Grant, INTEREST_SIZE, LOG, NONBLOCK, OPTION_SIZE, PART, POSTED_HEAD, POSTED_INTEREST, POSTED_OPTION, Slot,
    TAKEN, TCP, TCP_CORK, TCP_NODELAY, reg,
};

use crate::{control, sys};

const MSG_DONTWAIT: u64 = 0x40;
const MSG_NOSIGNAL: u64 = 0x4000;
const IPPROTO_TCP: u32 = 6;
const EAGAIN: i64 = 11;
const FIONREAD: u32 = 0x541b;
/// Longer reads may be beyond the address space, which is an error.
const MAX_RW_COUNT: u64 = 0x7fff_f000;
/// Entries of an iovec that are posted.
const PIECES: u64 = 8;

/// Answers the call in the slot's registers, if it was granted.
pub fn answer(slot: *mut Slot) -> bool {
    // SAFETY: plain reads and writes of our own slot.
    unsafe {
        if (*slot).granted.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let regs = &raw const (*slot).regs;
        let arg = |index: usize| *regs.cast::<u64>().add(index);
        let plain = |allowed: u64| arg(reg::R8) == 0 && arg(reg::R10) & !allowed == 0;
        let fd = arg(reg::RDI);
        let whole = [arg(reg::RSI), arg(reg::RDX)];
        let done = match arg(reg::RAX) {
            // read, recvfrom
            0 => take(slot, fd, whole, false),
            45 if plain(MSG_DONTWAIT) => {
                let nonblock = arg(reg::R10) & MSG_DONTWAIT != 0;
                take_from_socket(slot, fd, whole, nonblock)
            }
            // write, sendto, writev
            1 => post(slot, fd, &whole, 1),
            44 if plain(MSG_DONTWAIT | MSG_NOSIGNAL) => post_to_socket(slot, fd, &whole),
            20 if arg(reg::RDX) <= PIECES => {
                let mut pieces = [0u64; 2 * PIECES as usize];
                let bytes = arg(reg::RDX) * 16;
                if sys::shim_copy((&raw mut pieces) as u64, arg(reg::RSI), bytes) == 0 {
                    post(slot, fd, &pieces, arg(reg::RDX))
                } else {
                    None
                }
            }
            // epoll_ctl
            233 => change(slot, [fd, arg(reg::RSI), arg(reg::RDX), arg(reg::R10)]),
            // ioctl
            16 if arg(reg::RSI) as u32 == FIONREAD => waiting(slot, fd, arg(reg::RDX)),
            // setsockopt
            54 if arg(reg::RSI) as u32 == IPPROTO_TCP && arg(reg::R8) == 4 => {
                set_option(slot, fd, arg(reg::RDX), arg(reg::R10))
            }
            // mmap
            9 => files::map(slot, [fd, arg(reg::RSI), arg(reg::RDX), arg(reg::R10), arg(reg::R8), arg(reg::R9)]),
            number => files::answer(slot, number, fd, [arg(reg::RSI), arg(reg::RDX), arg(reg::R10), arg(reg::R8)]),
        };
        let Some(n) = done else { return false };
        (*slot).regs[reg::RAX] = n as u64;
        true
    }
}

/// What is granted of a descriptor.
fn grant(slot: *mut Slot, fd: u64) -> Option<&'static Grant> {
    let fd = fd as u32;
    // SAFETY: the index is within the array, which is mapped as long as the slot; all of it are atomics.
    let grant = unsafe { &*((slot as u64 + GRANTS_OFFSET) as *const Grant).add(fd as usize % GRANTS) };
    // The number of none, -1, would be found where nothing is granted.
    (fd != u32::MAX && grant.fd.load(Ordering::Relaxed) == fd + 1).then_some(grant)
}

fn take_from_socket(slot: *mut Slot, fd: u64, whole: [u64; 2], nonblock: bool) -> Option<i64> {
    if grant(slot, fd)?.file.load(Ordering::Relaxed) & FILE != 0 {
        return None;
    }
    take(slot, fd, whole, nonblock)
}

fn post_to_socket(slot: *mut Slot, fd: u64, whole: &[u64]) -> Option<i64> {
    if grant(slot, fd)?.file.load(Ordering::Relaxed) & LOG != 0 {
        return None;
    }
    post(slot, fd, whole, 1)
}

/// Reads what waits in the slot.
fn take(slot: *mut Slot, fd: u64, [buf, len]: [u64; 2], nonblock: bool) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let word = grant.prefetched.load(Ordering::Acquire);
    let mut n = u64::from(word & !TAKEN);
    if len == 0 || len > MAX_RW_COUNT {
        return None;
    }
    let file = grant.file.load(Ordering::Relaxed);
    if file & FILE != 0 {
        files::reads(grant, n, len)?;
    } else if file & PART != 0 && len > n {
        // Short reads tell that no more waits.
        return None;
    } else if n == 0 {
        if file & DRY == 0 || !nonblock && file & NONBLOCK == 0 {
            return None;
        }
        if !none_came(grant, file) {
            return None;
        }
        // Unless bytes have come meanwhile.
        return (grant.file.fetch_and(!DRY, Ordering::SeqCst) & DRY != 0).then_some(-EAGAIN);
    }
    if n > len {
        n = len;
    }
    let at = grant.at.load(Ordering::Relaxed);
    let from = slot as u64 + PREFETCHED_OFFSET + u64::from(at);
    // SAFETY: a bad address ends the copy, and the call is made as if nothing had been.
    if n > 0 && unsafe { sys::shim_copy(buf, from, n) } != 0 {
        return None;
    }
    // Somebody else may have come first.
    let left = if n > 0 { (word & !TAKEN) - n as u32 | TAKEN } else { word };
    grant.prefetched.compare_exchange(word, left, Ordering::SeqCst, Ordering::Relaxed).ok()?;
    grant.at.store(at + n as u32, Ordering::Relaxed);
    mark_taken(slot);
    Some(n as i64)
}

/// Whether the other end has posted nothing since.
fn none_came(grant: &Grant, file: u32) -> bool {
    let posted = count_of(file >> COUNT_BITS);
    posted.is_none_or(|count| count.load(Ordering::SeqCst) == grant.version.load(Ordering::Relaxed))
}

/// `FIONREAD`: how many bytes wait, if that is known.
fn waiting(slot: *mut Slot, fd: u64, to: u64) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let file = grant.file.load(Ordering::Acquire);
    if file & (FILE | LOG) != 0 || file & DRY == 0 || !none_came(grant, file) {
        return None;
    }
    let mut n = grant.prefetched.load(Ordering::Acquire) & !TAKEN;
    if file & PART != 0 {
        let end = (grant.at.load(Ordering::Relaxed).wrapping_add(n).wrapping_add(3)) & !3;
        if u64::from(end) > PREFETCHED_SIZE as u64 - 4 {
            return None;
        }
        // SAFETY: within the slot's own part, as was just seen.
        n = n.wrapping_add(unsafe { ((slot as u64 + PREFETCHED_OFFSET + u64::from(end)) as *const u32).read() });
    }
    if grant.file.load(Ordering::SeqCst) & DRY == 0 {
        // Taken back meanwhile.
        return None;
    }
    // SAFETY: a bad address ends the copy, and the call is made as if nothing had been.
    (unsafe { sys::shim_copy(to, (&raw const n) as u64, 4) } == 0).then_some(0)
}

fn mark_taken(slot: *mut Slot) {
    // SAFETY: our own slot; both are atomics.
    let taken = unsafe { &(*slot).marks.taken };
    taken.store(taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// Keeps what is written in the slot.
fn post(slot: *mut Slot, fd: u64, pieces: &[u64], count: u64) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let file = grant.file.load(Ordering::Relaxed);
    if file & FILE != 0 {
        return None;
    }
    let piece = |i: u64| {
        // SAFETY: the callers give that many pieces.
        unsafe { (*pieces.as_ptr().add(2 * i as usize), *pieces.as_ptr().add(2 * i as usize + 1)) }
    };
    let credit = u64::from(grant.credit.load(Ordering::Relaxed));
    let (mut total, mut i) = (0u64, 0);
    while i < count {
        let (_, len) = piece(i);
        // Also where the sum would wrap.
        if len > credit {
            return None;
        }
        total += len;
        i += 1;
    }
    // SAFETY: our own slot, an atomic.
    let mark = unsafe { &(*slot).marks.tail };
    let tail = u64::from(mark.load(Ordering::Relaxed));
    let end = end_of(tail, total);
    if total == 0 || total > credit || end > POSTED_SIZE as u64 || control().posting.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // Somebody else may have come first.
    let left = credit - total;
    grant.credit.compare_exchange(credit as u32, left as u32, Ordering::SeqCst, Ordering::Relaxed).ok()?;
    let mut to = slot as u64 + POSTED_OFFSET + tail;
    // SAFETY: within the records, as was just seen.
    unsafe {
        *(to as *mut u32) = fd as u32 % GRANTS as u32;
        *((to + 4) as *mut u32) = total as u32;
    }
    to += u64::from(POSTED_HEAD);
    i = 0;
    while i < count {
        let (from, len) = piece(i);
        // SAFETY: as above; a bad address ends the copy, and the call is made as if nothing had been.
        if unsafe { sys::shim_copy(to, from, len) } != 0 {
            return None;
        }
        to += len;
        i += 1;
    }
    publish(slot, end);
    // Behind it: who has seen the one sees the other.
    if let Some(count) = count_of(file) {
        count.fetch_add(1, Ordering::SeqCst);
    }
    Some(total as i64)
}

/// The count that the low bits name.
fn count_of(bits: u32) -> Option<&'static AtomicU32> {
    let index = bits as usize % COUNTS;
    // SAFETY: the index is within the array, which is mapped for the life of the stub; all of it are atomics.
    (index != 0).then(|| unsafe { &(*(COUNTS_VA as *const Count).add(index)).0 })
}

/// setsockopt(2) that cannot fail: keeps it in the slot. It costs a byte of what may be written.
fn set_option(slot: *mut Slot, fd: u64, name: u64, value: u64) -> Option<i64> {
    let grant = grant(slot, fd)?;
    let name = name as u32;
    // SAFETY: our own slot, an atomic.
    let tail = u64::from(unsafe { (*slot).marks.tail.load(Ordering::Relaxed) });
    let end = end_of(tail, OPTION_SIZE as u64);
    let known = name == TCP_NODELAY || name == TCP_CORK;
    if !known
        || grant.file.load(Ordering::Relaxed) & TCP == 0
        || end > POSTED_SIZE as u64
        || control().posting.load(Ordering::Relaxed) == 0
    {
        return None;
    }
    let to = slot as u64 + POSTED_OFFSET + tail;
    // SAFETY: within the records, as was just seen; a bad address ends the copy, and the call is made as if nothing
    // had been.
    unsafe {
        if sys::shim_copy(to + 12, value, 4) != 0 {
            return None;
        }
        *(to as *mut u32) = fd as u32 % GRANTS as u32 | POSTED_OPTION;
        *((to + 4) as *mut u32) = OPTION_SIZE as u32;
        *((to + 8) as *mut u32) = name;
    }
    let credit = grant.credit.load(Ordering::Relaxed);
    if credit == 0 {
        return None;
    }
    grant.credit.compare_exchange(credit, credit - 1, Ordering::SeqCst, Ordering::Relaxed).ok()?;
    publish(slot, end);
    Some(0)
}

/// Where a posted call of so many bytes ends.
fn end_of(tail: u64, bytes: u64) -> u64 {
    (tail + u64::from(POSTED_HEAD) + bytes + 7) & !7
}

/// What was posted counts.
fn publish(slot: *mut Slot, end: u64) {
    // SAFETY: our own slot, atomics.
    unsafe {
        (*slot).marks.tail.store(end as u32, Ordering::SeqCst);
        if control().posting.load(Ordering::SeqCst) == 0 {
            // Nobody looks by himself any more: ask for it on the way back.
            (*slot).intr.store(1, Ordering::Relaxed);
        }
    }
}

/// epoll_ctl(2) that cannot fail: keeps it in the slot.
fn change(slot: *mut Slot, [epoll, op, fd, event]: [u64; 4]) -> Option<i64> {
    const ADD: u32 = 1;
    const DEL: u32 = 2;
    const MOD: u32 = 3;
    const EXCLUSIVE: u32 = 1 << 28;
    let grant = grant(slot, fd)?;
    let op = op as u32;
    let listed = grant.listed.load(Ordering::Relaxed);
    let fits = match op {
        ADD => listed == 0,
        DEL | MOD => listed != 0,
        _ => false,
    };
    // SAFETY: our own slot, an atomic.
    let tail = u64::from(unsafe { (*slot).marks.tail.load(Ordering::Relaxed) });
    let end = end_of(tail, INTEREST_SIZE as u64);
    if !fits || end > POSTED_SIZE as u64 || control().posting.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let known = (epoll as u32).wrapping_add(1);
    if known == 0 || known >= CLAIMED {
        return None;
    }
    // Until this is undone whoever takes the grant back waits for what is posted.
    grant.epoll.compare_exchange(known, known | CLAIMED, Ordering::SeqCst, Ordering::Relaxed).ok()?;
    let to = slot as u64 + POSTED_OFFSET + tail;
    // SAFETY: within the records, as was just seen; a bad address ends the copy, and the call is made as if nothing
    // had been.
    let good = unsafe {
        *(to as *mut u32) = fd as u32 % GRANTS as u32 | POSTED_INTEREST;
        *((to + 4) as *mut u32) = INTEREST_SIZE as u32;
        *((to + 8) as *mut u64) = u64::from(op);
        let bad = if op == DEL { sys::shim_zero(to + 16, 12) } else { sys::shim_copy(to + 16, event, 12) };
        bad == 0 && *((to + 16) as *const u32) & EXCLUSIVE == 0
    };
    if good {
        grant.listed.store(u32::from(op != DEL), Ordering::Relaxed);
        publish(slot, end);
    }
    if grant.epoll.compare_exchange(known | CLAIMED, known, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        grant.epoll.store(0, Ordering::SeqCst);
    }
    good.then_some(0)
}
