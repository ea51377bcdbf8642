//! `sallet delete`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::cli::Globals;
use crate::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill the container first if it runs; no error if there is none
    #[arg(long, short)]
    force: bool,
    /// Name of the container
    id: String,
}

impl Delete {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let root = globals.root();
        match Container::find(&root, &self.id) {
            Ok(container) => container.delete(self.force)?,
            Err(_) if self.force && !root.join(&self.id).exists() => {}
            Err(error) => return Err(error),
        }
        Ok(ExitCode::SUCCESS)
    }
}
