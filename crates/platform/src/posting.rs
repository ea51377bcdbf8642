//! The kernel process's side of what a thread does without an answer: see `slot::Grant`.
//!
//! All that is read here is the guest's word: the caller counts what it has granted, and believes no more than that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::Errno;
use slot::layout::{POSTED_SIZE, PREFETCHED_SIZE};
use slot::{
    AT_END, ATTRIBUTES_SIZE, CLAIMED, CONTENTS, COUNT_BITS, COUNTS, DRY, FILE, GRANTS, INTEREST_SIZE, KNOWN,
    LOG, MAP_SIZE, NONBLOCK, OPTION_SIZE, PART, POSTED_CLOSE, POSTED_HEAD, POSTED_INTEREST, POSTED_KINDS,
    POSTED_MAP, POSTED_OPTION, READS, REVOKED, SIZED, STATX_AT, TAKEN, TCP, WHOLE,
};

use crate::machine::Core;

/// Descriptors that can be granted to a thread at a time.
pub const MAX_GRANTS: usize = GRANTS;
/// The most bytes that can be granted for reading at a time, of streams.
pub const MAX_PREFETCHED: usize = PREFETCHED_SIZE - FILES * FILE_SIZE;
/// Counts of what was posted have an index below this.
pub const MAX_COUNTS: usize = COUNTS;
/// Of so many files attributes and bytes can be known at a time.
pub const FILES: usize = 2;
/// Bytes that those of one file take.
const FILE_SIZE: usize = 0x4000;
/// The most bytes that can be known of a file.
pub const MAX_CONTENTS: usize = FILE_SIZE - ATTRIBUTES_SIZE;
/// The most bytes that can be granted for writing at a time.
pub const MAX_POSTED: usize = POSTED_SIZE - POSTED_HEAD as usize;

/// A posted call: the place of its grant, and what is to be done.
pub struct Posted {
    /// See [`PostArea::place`].
    pub place: usize,
    /// It.
    pub what: What,
}

/// What is to be done.
pub enum What {
    /// These bytes were written.
    Write(Vec<u8>),
    /// epoll_ctl(2) of the granted epoll file.
    Interest {
        /// `EPOLL_CTL_ADD` and its like.
        op: u32,
        /// `struct epoll_event`.
        events: u32,
        /// Its other half.
        data: u64,
    },
    /// close(2).
    Close,
    /// mmap(2), which was made.
    Map {
        /// Where the guest says it is.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Of the file.
        offset: u64,
    },
    /// setsockopt(2) of `IPPROTO_TCP`.
    Option {
        /// `TCP_NODELAY` or `TCP_CORK`, or what the guest has invented.
        name: u32,
        /// What to set it to.
        value: u32,
    },
}

/// What is granted of a descriptor.
#[derive(Clone, Copy)]
pub enum Granted<'a> {
    /// A stream.
    Stream {
        /// Bytes that may be written.
        credit: u32,
        /// Bytes that may be read, and where they lie.
        prefetched: (u32, u32),
        /// The descriptor of an epoll file whose interest in it may be changed, and whether it is listed there.
        epoll: Option<(i32, bool)>,
        /// It is TCP, with options.
        tcp: bool,
        /// Behind those bytes nothing has come since: a read that does not wait may say so, once, if there are none.
        dry: bool,
        /// Behind those bytes there are more, which a read that wants more than is left is to get; how many, for the four
        /// bytes behind those that wait.
        part: Option<u32>,
        /// No read waits.
        nonblock: bool,
        /// Which count a write moves on, and which one the other end's do; 0 for none. See [`MAX_COUNTS`].
        counts: (u16, u16),
        /// The second one if nothing is on its way.
        version: u32,
    },
    /// A regular file that was just opened for reading: it may be closed.
    File {
        /// [`FILES`]: where what is known of it goes.
        index: usize,
        /// [`crate::Platform::files_version`] from before it was looked at.
        version: u64,
        /// `struct stat` and `struct statx`.
        attributes: Option<(&'a [u8], &'a [u8])>,
        /// The first bytes, and whether these are all.
        contents: Option<(&'a [u8], bool)>,
    },
    /// A regular file whose size is known.
    Sized {
        /// See [`Granted::File`].
        version: u64,
        /// It.
        size: u32,
    },
    /// A regular file that stays in the process, to be read at offsets.
    Reads {
        /// The host's descriptor there, see [`crate::GuestThread::keep_reading`].
        number: u32,
    },
    /// A regular file to whose end bytes may be added.
    Log {
        /// So many.
        credit: u32,
    },
}

/// The part of a thread's slot in which it posts. It outlives the thread: then nothing is found there.
#[derive(Clone)]
pub struct PostArea {
    pub(crate) core: Arc<Core>,
}

impl PostArea {
    /// The place of a descriptor's grant: few descriptors share one.
    pub fn place(fd: i32) -> usize {
        fd.cast_unsigned() as usize % GRANTS
    }
    /// Whether both are of the same thread of the host.
    pub fn is(&self, other: &PostArea) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// Something that changes with each write posted and each prefetched read: to tell at a glance whether there is
    /// anything new.
    pub fn marks(&self) -> (u32, u32) {
        (self.core.slot.tail().load(Ordering::Acquire), self.core.slot.taken().load(Ordering::Acquire))
    }

    /// The next posted call behind `head`, which moves behind it; none if it makes no sense.
    pub fn next(&self, head: &mut u32, tail: u32) -> Option<Posted> {
        let tail = tail.min(POSTED_SIZE as u32);
        let data_at = head.checked_add(POSTED_HEAD).filter(|at| *at <= tail)?;
        let mut words = [0; POSTED_HEAD as usize];
        self.core.slot.read_posted(*head, &mut words).ok()?;
        let (place, len) = words.split_first_chunk::<4>()?;
        let len = u32::from_ne_bytes(*len.first_chunk::<4>()?);
        let end = data_at.checked_add(len).filter(|end| *end <= tail)?;
        *head = end.next_multiple_of(8).min(tail);
        let index = u32::from_ne_bytes(*place);
        let what = if index & POSTED_CLOSE != 0 {
            What::Close
        } else if index & POSTED_OPTION != 0 {
            let mut bytes = [0; OPTION_SIZE];
            self.core.slot.read_posted(data_at, &mut bytes).ok()?;
            let (name, value) = bytes.split_first_chunk::<4>()?;
            What::Option {
                name: u32::from_ne_bytes(*name),
                value: u32::from_ne_bytes(*value.first_chunk::<4>()?),
            }
        } else if index & POSTED_MAP != 0 {
            let mut bytes = [0; MAP_SIZE];
            self.core.slot.read_posted(data_at, &mut bytes).ok()?;
            let word = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
            What::Map { addr: word(0)?, len: word(8)?, offset: word(16)? }
        } else if index & POSTED_INTEREST != 0 {
            let mut bytes = [0; INTEREST_SIZE];
            self.core.slot.read_posted(data_at, &mut bytes).ok()?;
            let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
            What::Interest {
                op: word(0)?,
                events: word(8)?,
                data: u64::from(word(12)?) | u64::from(word(16)?) << 32,
            }
        } else {
            let mut data = vec![0; len as usize];
            self.core.slot.read_posted(data_at, &mut data).ok()?;
            What::Write(data)
        };
        Some(Posted { place: (index & !POSTED_KINDS) as usize, what })
    }

    /// Records begin at the start again. Only while the thread waits for an answer.
    pub fn rewind(&self) {
        self.core.slot.tail().store(0, Ordering::Relaxed);
    }

    /// Puts bytes where a read will find them, of files behind [`MAX_PREFETCHED`]; `EFAULT` outside of the slot's room.
    pub fn prefetch(&self, at: usize, data: &[u8]) -> Result<(), Errno> {
        self.core.slot.write_prefetched(at, data)
    }

    /// Grants. Only while the thread waits for an answer.
    pub fn grant(&self, fd: i32, granted: &Granted<'_>) {
        let Some(grant) = self.core.slot.grants().get(PostArea::place(fd)) else { return };
        let (mut prefetched, mut at, mut epoll, mut listed, mut version) = (0, 0, 0, 0, 0);
        let credit;
        let file = match *granted {
            Granted::Stream {
                credit: bytes,
                prefetched: wait,
                epoll: known,
                tcp,
                dry,
                part,
                nonblock,
                counts,
                version: seen,
            } => {
                (credit, version) = (bytes, seen);
                (prefetched, at) = (wait.0 & !TAKEN, wait.1);
                if let Some((fd, is)) = known {
                    (epoll, listed) = (fd.cast_unsigned().wrapping_add(1), u32::from(is));
                }
                let flag = |is: bool, flag: u32| if is { flag } else { 0 };
                let counts = [counts.0, counts.1].map(|count| u32::from(count) % COUNTS as u32);
                let flags = flag(tcp, TCP) | flag(dry, DRY) | flag(nonblock, NONBLOCK);
                let behind = (at as usize + prefetched as usize).next_multiple_of(4);
                let told = part.is_some_and(|more| self.prefetch(behind, &more.to_ne_bytes()).is_ok());
                flags | flag(told, PART) | counts[0] | counts[1] << COUNT_BITS
            }
            Granted::File { index, version: seen, attributes, contents } => {
                // Half of it is enough for the life of an open file.
                (credit, version) = (1, seen as u32);
                let begin = MAX_PREFETCHED + index.min(FILES - 1) * FILE_SIZE;
                at = (begin + ATTRIBUTES_SIZE) as u32;
                let mut flags = FILE | begin as u32;
                if let Some((stat, statx)) = attributes
                    && stat.len() <= STATX_AT
                    && statx.len() <= ATTRIBUTES_SIZE - STATX_AT
                    && self.prefetch(begin, stat).is_ok()
                    && self.prefetch(begin + STATX_AT, statx).is_ok()
                {
                    flags |= KNOWN;
                }
                if let Some((bytes, whole)) = contents
                    && bytes.len() <= MAX_CONTENTS
                    && self.prefetch(begin + ATTRIBUTES_SIZE, bytes).is_ok()
                {
                    prefetched = bytes.len() as u32;
                    flags |= CONTENTS | if whole { WHOLE } else { 0 };
                }
                flags
            }
            Granted::Sized { version: seen, size } => {
                (credit, version, at) = (0, seen as u32, size);
                FILE | SIZED
            }
            Granted::Reads { number } => {
                (credit, listed) = (0, number);
                FILE | READS
            }
            Granted::Log { credit: bytes } => {
                credit = bytes;
                LOG
            }
        };
        grant.epoll.store(epoll, Ordering::Relaxed);
        grant.listed.store(listed, Ordering::Relaxed);
        grant.at.store(at, Ordering::Relaxed);
        grant.version.store(version, Ordering::Relaxed);
        grant.file.store(file, Ordering::Release);
        grant.credit.store(credit, Ordering::Release);
        grant.prefetched.store(prefetched, Ordering::Release);
        grant.fd.store(fd.cast_unsigned().wrapping_add(1), Ordering::Release);
        self.core.slot.granted().store(1, Ordering::Release);
    }
    /// A granted file may be mapped by this descriptor, so many times. Only while the thread waits for an answer.
    pub fn set_mapped(&self, place: usize, number: u32, times: u32) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.listed.store(times, Ordering::Relaxed);
            grant.credit.store(number, Ordering::Release);
        }
    }
    /// A file whose size is known may be read as [`Granted::Reads`], too. Only while the thread waits for an answer.
    pub fn set_reads(&self, place: usize, number: u32) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.listed.store(number, Ordering::Relaxed);
            grant.file.fetch_or(READS, Ordering::Release);
        }
    }
    /// Whether a thread still reads a descriptor by itself, as its slot says.
    pub fn reads(&self, fd: i32) -> bool {
        self.core.slot.grants().get(PostArea::place(fd)).is_some_and(|grant| {
            let same = grant.fd.load(Ordering::Relaxed) == fd.cast_unsigned().wrapping_add(1);
            same && grant.file.load(Ordering::Relaxed) & READS != 0
        })
    }
    /// The shim has closed the host's descriptor of an open file along with the guest's.
    pub fn closed_kept(&self, id: u64) {
        self.core.process.kept.lock().gone(id);
    }
    /// Ends a grant of writing; the bytes that are left of it.
    pub fn stop_posting(&self, place: usize) -> u32 {
        let grants = self.core.slot.grants();
        grants.get(place).map_or(0, |grant| grant.credit.swap(0, Ordering::SeqCst))
    }
    /// Ends a grant of reading; the bytes that are left of it, as the guest says.
    pub fn stop_reading(&self, place: usize) -> u32 {
        let Some(grant) = self.core.slot.grants().get(place) else { return 0 };
        // First: what is left waits again, and is no longer told.
        grant.file.fetch_and(!(CONTENTS | WHOLE | DRY | PART), Ordering::SeqCst);
        grant.prefetched.swap(0, Ordering::SeqCst) & !TAKEN
    }
    /// The bytes that are left to be read, as the guest says, and whether any were since this was asked last.
    pub fn unread(&self, place: usize) -> (u32, bool) {
        let Some(grant) = self.core.slot.grants().get(place) else { return (0, false) };
        let mut word = grant.prefetched.load(Ordering::Acquire);
        // Written only if need be: the guest's CPU has the line.
        if word & TAKEN != 0 {
            word = grant.prefetched.fetch_and(!TAKEN, Ordering::SeqCst);
        }
        (word & !TAKEN, word & TAKEN != 0)
    }
    /// Whether the position went to the end since this was asked last.
    pub fn went_to_end(&self, place: usize) -> bool {
        let grants = self.core.slot.grants();
        grants.get(place).is_some_and(|grant| grant.file.fetch_and(!AT_END, Ordering::SeqCst) & AT_END != 0)
    }
    /// Bytes have come that were not granted.
    pub fn not_dry(&self, place: usize) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.file.fetch_and(!DRY, Ordering::SeqCst);
        }
    }
    /// Nothing is known of a file any more.
    pub fn stop_knowing(&self, place: usize) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.file.fetch_and(!KNOWN, Ordering::SeqCst);
        }
    }
    /// Ends a grant of changes; whether one may be on its way, until [`PostArea::is_quiet`].
    pub fn stop_changes(&self, place: usize) -> bool {
        let Some(grant) = self.core.slot.grants().get(place) else { return false };
        let claimed = grant.epoll.swap(REVOKED, Ordering::SeqCst) & (CLAIMED | REVOKED) != 0;
        if !claimed {
            grant.epoll.store(0, Ordering::SeqCst);
        }
        claimed
    }
    /// Whether no change is on its way any more that was when its grant ended.
    pub fn is_quiet(&self, place: usize) -> bool {
        self.core.slot.grants().get(place).is_none_or(|grant| grant.epoll.load(Ordering::SeqCst) == 0)
    }
    /// Notes whether a granted descriptor is in the interest list. Only while the thread waits for an answer.
    pub fn set_listed(&self, place: usize, listed: bool) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.listed.store(u32::from(listed), Ordering::SeqCst);
        }
    }
    /// Nothing is granted any more.
    pub fn stop(&self) {
        self.core.slot.granted().store(0, Ordering::SeqCst);
    }
    /// Ends what is left of a grant: nobody looks at it.
    pub fn forget(&self, place: usize) {
        if let Some(grant) = self.core.slot.grants().get(place) {
            grant.fd.store(0, Ordering::SeqCst);
        }
    }
}

impl crate::machine::Platform {
    /// Tells all shims whether posted writes are looked after: if not, who posts asks for it.
    pub fn look_after_posting(&self, on: bool) {
        self.slots.control().posting.store(u32::from(on), Ordering::SeqCst);
    }
    /// How often something was posted to the streams whose writes move this count on, as the shims say.
    pub fn posted_count(&self, index: u16) -> u32 {
        self.slots.count(index)
    }
    /// Whether a worker looks at slots just now, so that calls cost little.
    pub fn is_spinning(&self) -> bool {
        self.slots.control().spinning.load(Ordering::Relaxed) != 0
    }
    /// Changes with [`crate::Platform::files_changed`].
    pub fn files_version(&self) -> u64 {
        self.slots.control().files.load(Ordering::SeqCst)
    }
    /// Whatever shims know of files may not be true any more.
    pub fn files_changed(&self) {
        self.slots.control().files.fetch_add(1, Ordering::SeqCst);
    }
}
