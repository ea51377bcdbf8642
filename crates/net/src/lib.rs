//! Sockets: what each family can do, and unix(7) sockets.
//!
//! [`socket::Socket`] is the seam between system calls and families.
#![forbid(unsafe_code)]

pub mod file;
pub mod filter;
pub mod host;
pub mod inet;
pub mod links;
pub mod netlink;
pub mod posting;
pub mod provider;
pub mod registry;
pub mod socket;
pub mod tables;
pub mod unix;
mod zerocopy;

pub use file::SocketFile;
pub use provider::{Network, Provider};
pub use socket::{Address, Control, Halves, Received, Socket, SocketCaller, Ucred};

/// Results of this floor carry Linux's own error number.
pub type Result<T> = core::result::Result<T, linux_abi::Errno>;
