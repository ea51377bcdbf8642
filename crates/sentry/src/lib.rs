//! One sandbox: boots a kernel in a jailed process and answers its control socket.
#![forbid(unsafe_code)]

pub mod boot;
mod copy_up;
mod debug_log;
mod descriptors;
mod guest_mounts;
mod home;
mod jail;
mod jail_probe;
mod kernel_sandbox;
mod launch;
mod loopback;
mod maker;
mod outside;
mod overlay;
mod process_list;
mod rootfs;
pub mod sandbox;
mod seccomp;
mod server;
mod start;
mod start_hooks;
mod streams;

pub use descriptors::Descriptors;
