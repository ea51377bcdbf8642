//! Safe wrappers of host calls that rustix lacks.

pub mod caps;
pub mod cpu_clock;
pub mod inherited;
pub mod jail;
pub mod mount;
pub mod namespace;
pub mod proc_fs;
pub mod seccomp_jail;
pub mod notify;
pub mod process;
pub mod shared;
pub mod signal_fd;
