//! `sallet events`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use control::{Reply, Request};
use serde_json::json;

use crate::cli::Globals;
use crate::container::Container;
use crate::output::say;
use crate::state::Status;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Time between two lines, such as 5s or 500ms
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Print once and end
    #[arg(long)]
    stats: bool,
    /// Name of the container
    id: String,
}

impl Events {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let container = Container::load(&globals.root(), &self.id)?;
        if container.state.status() == Status::Stopped {
            bail!("container with id {} is not running", self.id);
        }
        loop {
            let stats = container.state.cgroup.stats();
            // Beside runc's counters, those of the kernel process.
            let kernel = match container.ask(&Request::Stats) {
                Ok(Reply::Stats(kernel)) => Some(kernel),
                _ => None,
            };
            say!("{}", json!({"type": "stats", "id": self.id, "data": stats, "kernel": kernel}))?;
            if self.stats || container.state.status() == Status::Stopped {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(self.interval);
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "a number with a unit".to_owned())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("units are ms, s and m".into()),
    };
    if duration.is_zero() {
        return Err("duration interval must be greater than 0".into());
    }
    Ok(duration)
}
