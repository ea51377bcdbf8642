//! Writes that are done later and reads that were done before: what a thread does without an answer.
//!
//! The kernel process grants them to one thread, for a descriptor: so many bytes that a write is sure to take, bytes
//! that wait to be read, the attributes of a file that was just opened, and that it may be closed. The shim keeps what
//! is to be done in the slot (a posted call) and finds the rest there; the kernel process does what was posted before
//! anything that could tell the difference. It counts for itself what it has granted.

use core::sync::atomic::AtomicU32;

/// Descriptors that are granted to one thread at a time, by the low bits of their number.
pub const GRANTS: usize = 512;
/// Bytes before the data of a posted call: index of its grant, length (32 bits each). The next one begins at a
/// multiple of 8.
pub const POSTED_HEAD: u32 = 8;
/// In the index of a posted call: it is no write but an epoll_ctl(2). Operation (64 bits) and `struct epoll_event` are
/// its data.
pub const POSTED_INTEREST: u32 = 1 << 31;
/// Bytes of those.
pub const INTEREST_SIZE: usize = 20;
/// In the index of a posted call: close(2); no data.
pub const POSTED_CLOSE: u32 = 1 << 30;
/// In the index of a posted call: setsockopt(2) of TCP. Name and value (32 bits each) are its data.
pub const POSTED_OPTION: u32 = 1 << 29;
/// Bytes of those.
pub const OPTION_SIZE: usize = 8;
/// In the index of a posted call: mmap(2). Address, length and offset (64 bits each) are its data.
pub const POSTED_MAP: u32 = 1 << 28;
/// Bytes of those.
pub const MAP_SIZE: usize = 24;
/// Flags in the index of a posted call.
pub const POSTED_KINDS: u32 = POSTED_INTEREST | POSTED_CLOSE | POSTED_OPTION | POSTED_MAP;
/// In [`Grant::prefetched`]: some of the bytes that were there have been read.
pub const TAKEN: u32 = 1 << 31;

/// In [`Grant::file`]: a regular file that is only read. Its [`Grant::credit`] is not 0 while it may be closed. From
/// `layout::KEPT_FD` on it is the host's descriptor, by which the file may be mapped, [`Grant::listed`] times, and which
/// is closed with it.
pub const FILE: u32 = 1 << 31;
/// In [`Grant::file`]: its attributes are known while [`Grant::version`] is the control page's.
pub const KNOWN: u32 = 1 << 30;
/// In [`Grant::file`]: so are its first bytes, and the position.
pub const CONTENTS: u32 = 1 << 29;
/// In [`Grant::file`]: so are all bytes.
pub const WHOLE: u32 = 1 << 28;
/// In [`Grant::file`]: a file to whose end bytes are added.
pub const LOG: u32 = 1 << 27;
/// In [`Grant::file`]: a TCP socket, whose options `TCP_NODELAY` and `TCP_CORK` may be set.
pub const TCP: u32 = 1 << 26;
/// In [`Grant::file`]: behind the bytes that wait there are none: once, a read that does not wait gives `EAGAIN`.
pub const DRY: u32 = 1 << 25;
/// In [`Grant::file`]: no read waits (`O_NONBLOCK`).
pub const NONBLOCK: u32 = 1 << 24;
/// In [`Grant::file`]: of a file only the size is known, which is [`Grant::at`], while [`Grant::version`] is the
/// control page's.
pub const SIZED: u32 = 1 << 23;
/// In [`Grant::file`]: the position went to the end. The shim sets it.
pub const AT_END: u32 = 1 << 22;
/// In [`Grant::file`]: behind the bytes of a stream that wait there are more, which only a call gives. How many there were
/// stands behind those bytes (32 bits), at the next multiple of 4; with [`DRY`] none have come since.
pub const PART: u32 = 1 << 21;
/// In [`Grant::file`]: a file that pread64(2) reads by the host's descriptor [`Grant::listed`].
pub const READS: u32 = 1 << 20;
/// The rest of [`Grant::file`].
pub const FILE_AT: u32 = 0xf_ffff;
/// The rest of [`Grant::file`] of a stream: which [`Count`] a write moves on, then, from this bit on, which one the other
/// end's writes do; 0 for none.
pub const COUNT_BITS: u32 = 10;
/// So many [`Count`]s there are.
pub const COUNTS: usize = 1 << COUNT_BITS;

/// Bytes of a file's attributes: `struct stat`, `struct statx`, some room.
pub const ATTRIBUTES_SIZE: usize = 448;
/// Where `struct statx` lies in them.
pub const STATX_AT: usize = 144;
/// `TCP_NODELAY`
pub const TCP_NODELAY: u32 = 1;
/// `TCP_CORK`
pub const TCP_CORK: u32 = 3;

/// In [`Grant::epoll`]: the shim is about to post a change.
pub const CLAIMED: u32 = 1 << 31;
/// [`Grant::epoll`] that was taken back while it was claimed: the shim makes it 0 when it has posted.
pub const REVOKED: u32 = 1 << 30;

/// How often something was posted to a few connections within the sandbox. All its shims count; who reads there tells
/// by it that something is on its way which the kernel process has not seen yet. A guest that forges it makes others
/// ask, or miss for a moment what was sent to them.
#[repr(C, align(16))]
pub struct Count(pub AtomicU32);

/// What a thread may do with one descriptor.
#[repr(C, align(32))]
pub struct Grant {
    /// The descriptor plus one; 0 for none.
    pub fd: AtomicU32,
    /// How many bytes may be posted.
    pub credit: AtomicU32,
    /// How many bytes wait to be read; [`TAKEN`].
    pub prefetched: AtomicU32,
    /// Where they lie, from `layout::PREFETCHED_OFFSET` on; the shim moves it on.
    pub at: AtomicU32,
    /// The descriptor, plus one, of an epoll file whose interest in the descriptor may be changed; 0 for none;
    /// [`CLAIMED`], [`REVOKED`].
    pub epoll: AtomicU32,
    /// Whether it is in the interest list: the shim keeps this up to date. Of a file see [`FILE`], [`READS`].
    pub listed: AtomicU32,
    /// [`FILE`] and its like; for a file where its attributes lie (as `at`), behind which its bytes begin.
    pub file: AtomicU32,
    /// `Control::files` when those were true; of a stream with [`DRY`] its [`Count`], if it has one.
    pub version: AtomicU32,
}

/// What a thread has posted and read. The shim writes it.
#[repr(C, align(64))]
pub struct Marks {
    /// Bytes of records at `layout::POSTED_OFFSET`; the kernel process begins anew while it works for the thread.
    pub tail: AtomicU32,
    /// How often prefetched bytes were read.
    pub taken: AtomicU32,
}

const _: () = {
    assert!(core::mem::size_of::<Grant>() * GRANTS == crate::layout::GRANTS_SIZE);
    assert!(
        crate::layout::PREFETCHED_OFFSET + crate::layout::PREFETCHED_SIZE as u64 == crate::layout::SLOT_SIZE
    );
    assert!(crate::layout::PREFETCHED_SIZE <= FILE_AT as usize);
    assert!(core::mem::size_of::<Count>() * COUNTS == crate::layout::COUNTS_SIZE as usize);
    assert!(1 << (2 * COUNT_BITS) == FILE_AT + 1);
};
