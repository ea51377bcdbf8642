//! Processes, threads, signals, descriptors and everything they share.
//!
//! `process` and `thread` hold what others may see of a guest process and its threads; what only the
//! running thread touches is in `syscalls::Cx`. Handlers of system calls live in `syscalls`.
#![forbid(unsafe_code)]

pub mod aio;
pub mod cgroup_limits;
pub mod clock;
pub mod cpu_time;
pub mod epoll;
pub mod eventfd;
pub mod exit;
pub mod fd_table;
pub mod file_systems;
pub mod fs_context;
pub mod guest_filter;
pub mod inotify;
pub mod io_tables;
pub mod ipc;
pub mod kernel;
pub mod limits;
pub mod locks;
pub mod memory;
pub mod mm;
pub mod mqueue;
pub mod names;
pub mod pi_futex;
pub mod pidfd;
pub mod pipe;
pub mod posting;
pub mod process;
pub mod ptrace;
pub mod robust;
pub mod scheduling;
pub mod seccomp;
pub mod sigio;
pub mod signal;
pub mod signalfd;
pub mod terminal;
pub mod thread;
pub mod timerfd;
pub mod timers;
pub mod wait;

pub use fd_table::{FdFlags, FdTable};
pub use fs_context::FsContext;
pub use kernel::{Kernel, KernelConfig};
pub use mm::Mm;
pub use process::Process;
pub use thread::Thread;

/// Results of this floor carry Linux's own error number.
pub type Result<T> = core::result::Result<T, linux_abi::Errno>;
