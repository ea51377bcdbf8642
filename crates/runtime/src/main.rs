//! `sallet`: an OCI runtime and a one-line sandbox.
#![forbid(unsafe_code)]

mod bind;
mod binder;
mod callers_limits;
mod cgroup;
mod cli;
mod clock;
mod commands;
mod container;
mod create;
mod dbus;
mod hooks;
mod host_mounts;
mod jobs;
mod launch;
mod log;
mod oci;
mod output;
mod rootless;
mod state;
mod supervise;
mod terminal;
mod view;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::{Cli, Command};
use crate::output::say;

fn main() -> ExitCode {
    let mut cli = match Cli::read() {
        Ok(cli) => cli,
        Err(mut error) => {
            suggest_what_help_shows(&mut error);
            let _ = error.print();
            // Two flags have this name; who limits memory means the other.
            if error.kind() == ErrorKind::InvalidValue
                && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
                && let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
                && flag.starts_with("--memory ")
                && value.starts_with(|first: char| first.is_ascii_digit())
            {
                eprintln!("\nTo limit memory: sallet do --memory {value} ...");
            }
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
    };
    cli.globals.settle();
    let globals = &cli.globals;
    if let Err(error) = log::open(globals.log.as_deref(), globals.log_format, globals.debug) {
        log::error(&format!("{error:#}"));
        return ExitCode::FAILURE;
    }
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            log::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Takes what is hidden out of the suggestions: commands and flags that nobody should type.
fn suggest_what_help_shows(error: &mut clap::Error) {
    let command = Cli::command();
    let is_hidden = |name: &String| {
        let commands =
            (command.get_subcommands()).any(|known| known.is_hide_set() && known.get_name() == name);
        let flag = name.strip_prefix("--");
        commands
            || command
                .get_arguments()
                .any(|known| known.is_hide_set() && known.get_long() == flag && flag.is_some())
    };
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg] {
        let shown = match error.remove(kind) {
            Some(ContextValue::Strings(names)) => {
                Some(names.into_iter().filter(|name| !is_hidden(name)).collect::<Vec<_>>())
                    .filter(|names| !names.is_empty())
                    .map(ContextValue::Strings)
            }
            Some(ContextValue::String(name)) => {
                Some(name).filter(|name| !is_hidden(name)).map(ContextValue::String)
            }
            other => other,
        };
        if let Some(shown) = shown {
            error.insert(kind, shown);
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let globals = &cli.globals;
    if globals.version {
        say!("sallet version {}", env!("CARGO_PKG_VERSION"))?;
        say!("spec: {}", oci::VERSION)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(command) = &cli.command else {
        anyhow::bail!("no command given; see sallet --help");
    };
    match command {
        Command::Create(command) => command.run(globals),
        Command::Start(command) => command.run(globals),
        Command::Run(command) => command.run(globals),
        Command::State(command) => command.run(globals),
        Command::Kill(command) => command.run(globals),
        Command::Delete(command) => command.run(globals),
        Command::Exec(command) => Ok(command.run(globals)),
        Command::Ps(command) => command.run(globals),
        Command::List(command) => command.run(globals),
        Command::Pause(command) => command.run(globals),
        Command::Resume(command) => command.run(globals),
        Command::Events(command) => command.run(globals),
        Command::Update(command) => command.run(globals),
        Command::Spec(command) => command.run(globals),
        Command::Features(command) => command.run(),
        Command::Do(command) => command.run(globals),
        Command::Syscalls(command) => command.run(),
        Command::Install(command) => command.run(globals),
        Command::Uninstall(command) => command.run(globals),
        Command::Checkpoint(command) | Command::Restore(command) => command.run(),
        Command::Boot(command) => command.run(),
    }
}
