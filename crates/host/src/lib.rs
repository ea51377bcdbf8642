//! Safe wrappers of host calls that rustix lacks.

pub mod binder;
pub mod caps;
pub mod connector;
pub mod cpu_clock;
pub mod files;
pub mod inherited;
pub mod jail;
pub mod mount;
pub mod namespace;
pub mod notify;
pub mod proc_fs;
pub mod process;
pub mod seccomp_jail;
pub mod shared;
pub mod signal_fd;
pub mod socket;
pub mod waiter;
