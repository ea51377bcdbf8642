//! One sandbox: boots a kernel in a jailed process and answers its control socket.
#![forbid(unsafe_code)]

pub mod boot;
mod descriptors;
mod fake;
mod jail;
mod loopback;
pub mod sandbox;
mod server;

pub use descriptors::Descriptors;
