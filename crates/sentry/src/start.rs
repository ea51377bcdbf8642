//! Makes the kernel of one sandbox from its specification.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Result;
use control::BootSpec;

use crate::descriptors::Descriptors;
use crate::fake::FakeSandbox;
use crate::sandbox::{Sandbox, Stdio};

/// What a kernel is made from, once the process is jailed.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The specification.
    pub(crate) spec: BootSpec,
    /// Its descriptors, those of the control server taken out.
    pub(crate) descriptors: Descriptors,
    /// The first process's standard streams.
    pub(crate) stdio: Stdio,
    /// A procfs of our own PID namespace, processes only.
    pub(crate) proc: OwnedFd,
}

/// Makes the kernel, its mounts and the first process, which must stand ready
/// to run: a missing program is an error here, as with runc.
pub(crate) fn start_sandbox(boot: Boot) -> Result<Arc<dyn Sandbox>> {
    Ok(FakeSandbox::start(boot)?)
}
