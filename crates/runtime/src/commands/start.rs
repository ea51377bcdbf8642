//! `sallet start`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::cli::Globals;
use crate::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Name of the container
    id: String,
}

impl Start {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        Container::load(&globals.root(), &self.id)?.start()?;
        Ok(ExitCode::SUCCESS)
    }
}
