//! Calls that look for a path of which it is known where it leads: see `slot::names`.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use slot::layout::NAMES_VA;
use slot::names::{ABSENT, KNOWN, MAX_PATH, NO_LINK, NOT_DIRECTORY, Name, STAT_WORDS, Table, WORDS, mix, place};
use slot::{Slot, reg};

use crate::{control, sys};

const ENOENT: i64 = 2;
const ENOTDIR: i64 = 20;
const EINVAL: i64 = 22;

const O_CREAT: u64 = 0o100;
const TMPFILE_BIT: u64 = 0o2000_0000;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_EACCESS: u64 = 0x200;
const AT_NO_AUTOMOUNT: u64 = 0x800;
const AT_EMPTY_PATH: u64 = 0x1000;
const AT_STATX_SYNC_TYPE: u64 = 0x6000;
/// Of newfstatat(2).
const AT: u64 = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;

/// Answers the call in the slot's registers, if that is known.
pub fn answer(slot: *mut Slot) -> bool {
    // SAFETY: plain reads and writes of our own slot.
    unsafe {
        if *(&raw const (*slot).identity).cast::<u64>().add(slot::identity::NAMES) == 0 {
            return false;
        }
        let regs = (&raw const (*slot).regs).cast::<u64>();
        let arg = |index: usize| *regs.add(index);
        let low = |index: usize| arg(index) & 0xffff_ffff;
        let only = |index: usize, flags: u64| low(index) & !flags == 0;
        // Whether the arguments are as usual, where the path is, what is told of a path that leads somewhere.
        let (fits, path, tells) = match arg(reg::RAX) {
            // open, openat
            2 => (low(reg::RSI) & (O_CREAT | TMPFILE_BIT) == 0, reg::RDI, Tells::Nothing),
            257 => (low(reg::RDX) & (O_CREAT | TMPFILE_BIT) == 0, reg::RSI, Tells::Nothing),
            // stat, lstat, newfstatat
            4 | 6 => (true, reg::RDI, Tells::Attributes(arg(reg::RSI))),
            262 => (only(reg::R10, AT), reg::RSI, Tells::Attributes(arg(reg::RDX))),
            // access, faccessat, faccessat2
            21 => (only(reg::RSI, 7), reg::RDI, Tells::access(low(reg::RSI))),
            269 => (only(reg::RDX, 7), reg::RSI, Tells::access(low(reg::RDX))),
            439 => (only(reg::RDX, 7) && only(reg::R10, AT_EACCESS), reg::RSI, Tells::access(low(reg::RDX))),
            // readlink, readlinkat
            89 => (low(reg::RDX) as i32 > 0, reg::RDI, Tells::NoLink),
            267 => (low(reg::R10) as i32 > 0, reg::RSI, Tells::NoLink),
            _ => return false,
        };
        if !fits {
            return false;
        }
        let mut stat = [0u64; STAT_WORDS];
        let what = known(arg(path), if let Tells::Attributes(_) = tells { Some(&mut stat) } else { None });
        let result = match tells {
            _ if what & ABSENT != 0 => -ENOENT,
            _ if what & NOT_DIRECTORY != 0 => -ENOTDIR,
            _ if what & NO_LINK == 0 => return false,
            Tells::NoLink => -EINVAL,
            Tells::Existence => 0,
            Tells::Attributes(to) => {
                // A bad address ends the copy, and the call is made as if nothing had been.
                let from = stat.as_ptr() as u64;
                if what & KNOWN == 0 || sys::shim_copy(to, from, 8 * STAT_WORDS as u64) != 0 {
                    return false;
                }
                0
            }
            Tells::Nothing => return false,
        };
        (*slot).regs[reg::RAX] = result as u64;
        true
    }
}

/// What a call tells of a path that leads somewhere.
#[derive(Clone, Copy)]
enum Tells {
    Nothing,
    NoLink,
    Existence,
    /// At this address.
    Attributes(u64),
}

impl Tells {
    fn access(mode: u64) -> Tells {
        if mode == 0 { Tells::Existence } else { Tells::Nothing }
    }
}

/// What is known of the path at an address; 0 if nothing is. With a place for them, a file's attributes go there.
fn known(at: u64, stat: Option<&mut [u64; STAT_WORDS]>) -> u32 {
    let mut words = [0u64; WORDS + 1];
    let path = (&raw mut words) as u64;
    // SAFETY: the buffer has room for one byte more than that, and a bad address ends the copy.
    let copied = unsafe { sys::shim_copy_str(path, at, MAX_PATH as u64 + 1) };
    // With its NUL; longer ones have none.
    if copied < 2 || copied > MAX_PATH as i64 || words[0] as u8 != b'/' {
        return 0;
    }
    let length = copied as u32 - 1;
    let count = (length as usize).div_ceil(8);
    // SAFETY: `count` is within the words.
    let word = |i: usize| unsafe { *words.as_ptr().add(i) };
    let (mut hash, mut i) = (0, 0);
    while i < count {
        hash = mix(hash, word(i));
        i += 1;
    }
    // SAFETY: the table is mapped for the life of the stub, `place` is within it, and all of it are atomics.
    let (table, name) = unsafe {
        let table = NAMES_VA as *const Table;
        (&*table, &*(&raw const (*table).names).cast::<Name>().add(place(hash)))
    };
    let sequence = name.sequence.load(Ordering::Acquire);
    let mut what = name.what.load(Ordering::Relaxed);
    if sequence & 1 != 0 || what & slot::names::LENGTH != length {
        return 0;
    }
    i = 0;
    while i < count {
        // SAFETY: as above.
        if unsafe { &*(&raw const name.path).cast::<AtomicU64>().add(i) }.load(Ordering::Relaxed) != word(i) {
            return 0;
        }
        i += 1;
    }
    let (mut mask, mut sum) = (name.mask.load(Ordering::Relaxed), name.sum.load(Ordering::Relaxed));
    if let Some(stat) = stat.filter(|_| what & KNOWN != 0) {
        i = 0;
        while i < STAT_WORDS {
            // SAFETY: both have that many words.
            unsafe {
                let from = &*(&raw const name.stat).cast::<AtomicU64>().add(i);
                *stat.as_mut_ptr().add(i) = from.load(Ordering::Relaxed);
            }
            i += 1;
        }
        if control().files.load(Ordering::SeqCst) != name.files.load(Ordering::Relaxed) {
            what &= !KNOWN;
        }
    }
    fence(Ordering::Acquire);
    if name.sequence.load(Ordering::Relaxed) != sequence {
        return 0;
    }
    while mask != 0 {
        let bucket = mask.trailing_zeros() as usize;
        // SAFETY: there are as many versions as bits.
        let version = unsafe { &*(&raw const table.versions).cast::<AtomicU64>().add(bucket) };
        sum = sum.wrapping_sub(version.load(Ordering::SeqCst));
        mask &= mask - 1;
    }
    if sum == 0 { what } else { 0 }
}
