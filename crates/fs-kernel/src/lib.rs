//! File systems that show the kernel: proc, sys, dev, devpts, cgroup.
#![forbid(unsafe_code)]

pub mod cgroup;
mod cpus;
pub mod mem_devices;
pub mod proc;
mod proc_net;
pub mod stdio;
pub mod synthetic;
pub mod sys;
mod sys_net;
pub mod tty;
