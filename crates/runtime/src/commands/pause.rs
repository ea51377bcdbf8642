//! `sallet pause` and `sallet resume`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Globals;
use crate::container::Container;
use crate::state::Status;

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Name of the container
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Name of the container
    id: String,
}

impl Pause {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let container = Container::load(&globals.root(), &self.id)?;
        match container.state.status() {
            Status::Running | Status::Created => container.state.cgroup.freeze(true)?,
            other => bail!("container not running: it is {}", other.word()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Resume {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let container = Container::load(&globals.root(), &self.id)?;
        match container.state.status() {
            Status::Paused => container.state.cgroup.freeze(false)?,
            _ => bail!("container not paused"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
