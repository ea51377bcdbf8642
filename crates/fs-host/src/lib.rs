//! Host directories through detached mount descriptors.
//!
//! A tree is reached only through the descriptor of its root, one component at a time, and no host
//! symbolic link is ever followed. Host FIFOs, sockets and devices are never opened.
#![forbid(unsafe_code)]

mod attributes;
mod descriptors;
mod directory;
mod file;
mod file_system;
mod inode;
mod names;
mod xattr;

#[cfg(test)]
mod tests;

pub use file_system::{HostFs, Options};

use linux_abi::Errno;

/// Host error numbers are the guest's.
fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
