//! Host directories through detached mount descriptors.
//!
//! A tree is reached only through the descriptor of its root, one component at a time, and no host
//! symbolic link is ever followed. Host FIFOs, sockets and devices are never opened.
#![forbid(unsafe_code)]

mod acl;
mod asking;
mod attributes;
mod cache;
mod descriptors;
mod directory;
mod file;
mod file_system;
mod inode;
mod listing;
mod names;
mod node;
mod watch;
mod watched;
mod xattr;

#[cfg(test)]
mod overlay_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod tests;

pub use file_system::{HostFs, Options};

use linux_abi::Errno;

/// Makes sure that changes by others on the host until now are seen by whoever asks from now on.
/// Without it they are seen a few milliseconds later.
pub fn catch_up() {
    watch::catch_up();
}

/// Host error numbers are the guest's, but that our descriptors are not its own.
fn errno(error: rustix::io::Errno) -> Errno {
    if error == rustix::io::Errno::MFILE {
        return Errno::ENFILE;
    }
    Errno::from_raw(error.raw_os_error())
}
