//! The system call table, its handlers by subject, and the run loop of a guest thread.
//!
//! To add a call: one line in [`table`], a handler in the file of its subject, a guest test.
#![forbid(unsafe_code)]

pub mod aio;
pub mod args;
pub mod attr;
pub mod capability;
pub mod clone;
pub mod context;
pub mod core_dump;
pub mod credentials;
pub mod dir;
pub mod elf;
pub mod epoll;
pub mod error;
pub mod eventfd;
pub mod exec;
pub mod exit;
pub mod fcntl;
pub mod file_io;
mod file_owner;
pub mod futex;
pub mod guest_filter;
pub mod inotify;
pub mod ipc;
pub mod limits;
pub mod link;
pub mod machine;
pub mod mm;
pub mod mm_refused;
pub mod mount;
pub mod namespaces;
mod native;
pub mod numa;
pub mod open;
pub mod path;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod prctl;
pub mod process;
pub mod process_vm;
pub mod ptrace;
pub mod run_loop;
pub mod scheduling;
mod seccomp;
pub mod select;
pub mod signal;
pub mod socket;
pub mod splice;
pub mod stack;
pub mod stat;
pub mod statfs;
pub mod strace;
pub mod sync;
pub mod system;
pub mod table;
pub mod time;
pub mod timers;
pub mod undo;
pub mod wait;
pub mod xattr;

pub use context::{Cx, ThreadLocal};
pub use error::{Restart, SysError, SysResult};
pub use run_loop::spawn;
