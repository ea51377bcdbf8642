//! Linux's own numbers: errno, system call numbers, flags and C structures of x86-64.
//!
//! One file per subject of the Linux headers; plain data only. Guest-visible numbers come from
//! here and from nowhere else.
#![no_std]
#![forbid(unsafe_code)]

pub mod errno;
pub mod fs;
#[expect(missing_docs, reason = "named in sysvipc(7) and the man pages it names")]
pub mod ipc;
pub mod poll;
#[expect(missing_docs, reason = "the flags are named in their man pages")]
pub mod process;
pub mod sigframe;
pub mod signal;
#[expect(missing_docs, reason = "the message flags are named in send(2) and recv(2)")]
pub mod socket;
pub mod sysno;
pub mod time;

pub use errno::Errno;
pub use poll::Events;
