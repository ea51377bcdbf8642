//! What is known of absolute paths: that there is nothing, or no symbolic link, or the attributes of a file. All shims
//! read it, the kernel process writes it.
//!
//! An answer counts as long as no directory on its way has changed: directories share [`BUCKETS`] versions, of which an
//! answer names those that it goes by, and what their sum was. Versions only grow: of 64 bits, so that nobody can count
//! them round to what they were.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// How many versions directories share. The first one is every answer's.
pub const BUCKETS: usize = 64;
/// How many answers there are room for.
pub const NAMES: usize = 2048;
/// The longest path, in words of 8 bytes.
pub const WORDS: usize = 20;
/// The longest path, in bytes.
pub const MAX_PATH: usize = 8 * WORDS;

/// In [`Name::what`]: nothing has this name; of some directory on the way neither.
pub const ABSENT: u32 = 1 << 16;
/// In [`Name::what`]: something that is no symbolic link.
pub const NO_LINK: u32 = 1 << 17;
/// In [`Name::what`]: a file or directory whose attributes are known while [`Name::files`] is the control page's.
pub const KNOWN: u32 = 1 << 18;
/// In [`Name::what`]: a name on the way is that of something that is no directory.
pub const NOT_DIRECTORY: u32 = 1 << 19;
/// Words of `struct stat`.
pub const STAT_WORDS: usize = 18;
/// The rest of [`Name::what`]: bytes of the path.
pub const LENGTH: u32 = 0xffff;

/// One answer.
#[repr(C, align(64))]
pub struct Name {
    /// Odd while it is being written, 0 if it never was.
    pub sequence: AtomicU32,
    /// [`ABSENT`] and its like.
    pub what: AtomicU32,
    /// The buckets that it goes by.
    pub mask: AtomicU64,
    /// The sum of their versions, as it was before the answer was looked for.
    pub sum: AtomicU64,
    /// With [`KNOWN`]: `Control::files`, as it was before the file was looked at.
    pub files: AtomicU64,
    /// The path, filled up with zeros.
    pub path: [AtomicU64; WORDS],
    /// With [`KNOWN`]: `struct stat`.
    pub stat: [AtomicU64; STAT_WORDS],
}

/// All of it.
#[repr(C)]
pub struct Table {
    /// Grow with each change of a directory of theirs.
    pub versions: [AtomicU64; BUCKETS],
    /// By [`place`].
    pub names: [Name; NAMES],
}

/// Where the answer for a path is: the next state of a hash (0 at first), for each word of it.
pub const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// The index in the table for the hash of all words.
pub const fn place(hash: u64) -> usize {
    (hash >> 20) as usize % NAMES
}

const _: () = {
    assert!(core::mem::size_of::<Name>() == 384);
    assert!(core::mem::size_of::<Table>() as u64 <= crate::layout::NAMES_SIZE);
    assert!(MAX_PATH <= LENGTH as usize);
};
