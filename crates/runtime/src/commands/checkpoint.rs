//! `sallet checkpoint` and `sallet restore`: refused with a sentence.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<String>,
}

impl Checkpoint {
    #[expect(clippy::unused_self, reason = "commands have one shape")]
    pub(crate) fn run(&self) -> Result<ExitCode> {
        bail!("checkpoint and restore are not supported")
    }
}
