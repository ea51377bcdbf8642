//! One sandbox: boots a kernel in a jailed process and answers its control socket.
#![forbid(unsafe_code)]

pub mod boot;
mod debug_log;
mod descriptors;
mod fake;
mod home;
mod jail;
mod jail_probe;
mod loopback;
pub mod sandbox;
mod server;
mod start;
mod start_hooks;

pub use descriptors::Descriptors;
