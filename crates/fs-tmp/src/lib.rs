//! Files in memory: tmpfs, memfds, private layers.
//!
//! Small contents live in this process until the first mmap(2) or until they grow, then in a host
//! memfd, so that mapping one is an ordinary host mapping, coherent with read and write. The number
//! of host descriptors is bounded: files that are not mapped give theirs back.
#![forbid(unsafe_code)]

mod contents;
mod directory;
mod file;
mod file_system;
mod inode;
mod memfd;
mod options;
mod pages;
mod store;
mod table;
mod xattr;

#[cfg(test)]
mod tests;

pub use file::TmpFile;
pub use file_system::TmpFs;
pub use memfd::memfd;
pub use options::Options;
pub use table::set_proc_self_fd;

use linux_abi::Errno;
use linux_abi::time::Timespec;

/// Bytes in a page, the unit of accounting.
pub(crate) const PAGE: u64 = 4096;

/// Host error numbers are the guest's.
fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The time for file stamps, of a tick's precision as on Linux.
fn now() -> Timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Timespec { sec: now.tv_sec, nsec: now.tv_nsec }
}
