//! `sallet ps`

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::cli::Globals;
use crate::container::Container;
use crate::output::say;
use crate::state::Status;

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Shape of the list
    #[arg(long, short, value_enum, default_value = "table")]
    format: Format,
    /// Name of the container
    id: String,
    /// Options for ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Ps {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let container = Container::load(&globals.root(), &self.id)?;
        if container.state.status() == Status::Stopped {
            bail!("container not running");
        }
        let pids = container.host_processes();
        if self.format == Format::Json {
            say!("{}", serde_json::to_string(&pids)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let options =
            if self.ps_options.is_empty() { vec!["-ef".to_owned()] } else { self.ps_options.clone() };
        // What ps shows by default are its caller's; a guest's processes belong to somebody else.
        let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut output = Command::new("ps").args(&options).args(["-p", &list]).output().context("run ps")?;
        if !output.status.success() {
            output = Command::new("ps").args(&options).output().context("run ps")?;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let complaint = || format!("ps printed nothing: {}", String::from_utf8_lossy(&output.stderr).trim());
        let title = lines.next().with_context(complaint)?;
        let column = title
            .split_whitespace()
            .position(|word| word == "PID")
            .context("couldn't find PID field in ps output")?;
        say!("{title}")?;
        for line in lines {
            let pid = line.split_whitespace().nth(column);
            if pid.and_then(|p| p.parse().ok()).is_some_and(|p: i32| pids.contains(&p)) {
                say!("{line}")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
