//! The OCI runtime configuration, as far as this runtime reads it.
//!
//! The structures follow config.json field by field; what they leave out is
//! ignored, which is told in the debug log; what they hold and a sandbox cannot
//! give is refused or told in [`support`].

pub(crate) mod capability;
pub(crate) mod config;
pub(crate) mod mounts;
pub(crate) mod rlimit;
pub(crate) mod seccomp;
pub(crate) mod support;
pub(crate) mod template;
pub(crate) mod translate;

pub(crate) use config::{Config, Hook, Hooks, Process, Resources};

/// The version of the runtime specification this runtime implements.
pub(crate) const VERSION: &str = "1.2.0";
