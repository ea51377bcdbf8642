//! `sallet state`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::cli::Globals;
use crate::container::Container;
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct State {
    /// Name of the container
    id: String,
}

impl State {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let container = Container::load(&globals.root(), &self.id)?;
        say!("{}", serde_json::to_string_pretty(&container.oci_state())?)?;
        Ok(ExitCode::SUCCESS)
    }
}
