//! `sallet list`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::Globals;
use crate::container::{Container, user_name};
use crate::output::say;
use crate::state::Status;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Shape of the list
    #[arg(long, short, value_enum, default_value = "table")]
    format: Format,
    /// Print names only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl List {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let containers = Container::all(&globals.root())?;
        if self.quiet {
            for container in &containers {
                say!("{}", container.state.id)?;
            }
        } else if self.format == Format::Json {
            let all: Vec<_> = containers.iter().map(Container::oci_state).collect();
            say!("{}", json!(all))?;
        } else {
            print_table(&containers)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_table(containers: &[Container]) -> Result<()> {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for container in containers {
        let state = &container.state;
        let status = state.status();
        let pid = if status == Status::Stopped { 0 } else { state.pid };
        rows.push([
            state.id.clone(),
            pid.to_string(),
            status.word().to_owned(),
            state.bundle.display().to_string(),
            state.created.clone(),
            user_name(state.owner_uid),
        ]);
    }
    let mut widths = [0usize; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say!("{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}
