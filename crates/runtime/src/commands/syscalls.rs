//! `sallet syscalls`

use std::process::ExitCode;

use crate::output::say;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use syscalls::table::{Level, TABLE};

#[derive(Debug, Args)]
pub(crate) struct Syscalls {
    /// Shape of the list
    #[arg(long, short, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Syscalls {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut rows: Vec<_> = TABLE.iter().collect();
        rows.sort_by_key(|row| row.nr);
        if self.format == Format::Json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({"number": row.nr, "name": row.name, "support": word(row.level),
                           "note": row.note})
                })
                .collect();
            say!("{}", json!(rows))?;
            return Ok(ExitCode::SUCCESS);
        }
        say!("{:>6}  {:<24} {:<8} NOTE", "NUMBER", "NAME", "SUPPORT")?;
        for row in rows {
            let line = format!("{:>6}  {:<24} {:<8} {}", row.nr, row.name, word(row.level), row.note);
            say!("{}", line.trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Full => "full",
        Level::Partial => "partial",
    }
}
