//! `sallet boot`: the program the runtime starts as the kernel process.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

/// The socket to the runtime is descriptor 3.
const CHANNEL: i32 = 3;

#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// Container id, for people who read process lists
    id: String,
}

impl Boot {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let channel = host::inherited::take(CHANNEL)
            .with_context(|| format!("container {}: no socket to the runtime", self.id))?;
        Ok(sentry::boot::run(channel))
    }
}
