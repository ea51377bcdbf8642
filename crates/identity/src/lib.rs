//! Who acts: user and group ids, capabilities, credentials (credentials(7), capabilities(7)).
//!
//! Lies below both the file systems and the processes, so that both can ask.
#![forbid(unsafe_code)]

mod capability;
mod change;
mod credentials;
mod exec;
#[cfg(test)]
mod tests;

pub use capability::{Capability, CapabilitySet};
pub use change::{NO_ID, securebits};
pub use credentials::Credentials;
pub use exec::{ExecFile, FileCapabilities};
