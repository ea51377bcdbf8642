//! `sallet do`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::run::wait_for;
use crate::cli::Globals;
use crate::create::{self, Plan, Terminal};
use crate::oci::config::{Capabilities, Config, ConsoleSize, Linux, Namespace, Process, Root, User};
use crate::oci::{VERSION, capability};
use crate::rootless;
use crate::terminal::CallersTerminal;
use crate::view::{self, Wanted};

const HELP: &str = "\
The program sees /usr, /opt, a part of /etc without secrets, and the current folder unless that is a home, /tmp \
or /. What it writes is thrown away at its end, but for --rw. Its environment is PATH, HOME, TERM, COLORTERM, LANG, \
LC_ALL and TZ.

Exit status: the program's; 128+N if signal N ended it; 126 or 127 if it cannot be run or is not there; 1 if the \
sandbox cannot be made.

Examples:
  sallet do -- python3 untrusted.py
  sallet do -- make -j2
  sallet do --rw out --net host -e TOKEN -- python3 fetch.py
  sallet --debug-log calls.txt --strace do -- ls";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Do {
    /// Show this file or folder, read-only; may be repeated
    #[arg(long, value_name = "PATH")]
    ro: Vec<PathBuf>,
    /// Show this file or folder; writes reach the host; may be repeated
    #[arg(long, value_name = "PATH")]
    rw: Vec<PathBuf>,
    /// Network of the sandbox
    #[arg(long, value_enum, default_value = "none")]
    net: Net,
    /// Show all files of this machine; writes stay in the sandbox
    #[arg(long)]
    all_files: bool,
    /// Folder to show and to start in [default: the current one]
    #[arg(long, value_name = "FOLDER")]
    cwd: Option<PathBuf>,
    /// NAME=VALUE, or NAME to pass ours on; may be repeated
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Net {
    /// The host's
    Host,
    /// Loopback alone
    None,
}

/// Variables that describe the caller's terminal and language, not the caller.
const PASSED_ON: [&str; 6] = ["PATH", "TERM", "COLORTERM", "LANG", "LC_ALL", "TZ"];

impl Do {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let error = match self.sandboxed(globals) {
            Err(error) if globals.log.is_none() => format!("{error:#}"),
            other => return other,
        };
        // A person reads it, no engine.
        eprintln!("sallet do: {error}");
        Ok(ExitCode::from(shell_status(&error).unwrap_or(1)))
    }

    fn sandboxed(&self, globals: &Globals) -> Result<ExitCode> {
        if let Some(flag) = self.command.first().filter(|word| word.starts_with('-')) {
            bail!("unknown option {flag}; see sallet do --help");
        }
        let cwd = match &self.cwd {
            Some(cwd) => std::path::absolute(cwd)?,
            None => std::env::current_dir().context("the current folder is not there any more")?,
        };
        let kind = std::fs::metadata(&cwd).with_context(|| format!("--cwd {}", cwd.display()))?;
        ensure!(kind.is_dir(), "--cwd {}: not a folder", cwd.display());
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let wanted = Wanted {
            command: self.command[0].clone(),
            cwd: cwd.clone(),
            readonly: self.ro.clone(),
            writable: self.rw.clone(),
            all_files: self.all_files,
            uid,
        };
        let view = view::choose(&wanted)?;
        // A program without a slash comes from PATH.
        let named = |(at, word): &(usize, &String)| *at > 0 || word.contains('/');
        if let Some(hidden) = &view.hidden
            && let Some((_, file)) = (self.command.iter().enumerate().filter(named))
                .find(|(_, word)| !word.is_empty() && !word.starts_with('/') && hidden.join(word).exists())
        {
            eprintln!(
                "sallet do: note: {} is a home or a shared folder and is not shown, so {file} is not there: \
                 add --ro . or --rw .",
                hidden.display()
            );
        }
        let with_terminal = [0, 1].iter().all(|fd| is_terminal(*fd));
        let callers = with_terminal.then(CallersTerminal::find).transpose()?;
        let plan = Plan {
            id: format!("do-{}", rustix::process::getpid().as_raw_nonzero()),
            bundle: cwd.clone(),
            rootfs: "/".into(),
            config: self.config(&view, uid, gid, callers.as_ref())?,
            preserve_fds: 0,
            terminal: callers.map_or(Terminal::None, Terminal::Ours),
            pid_file: None,
            attached: true,
            ordinary_init: true,
        };
        let created = create::create_with(globals, plan, |fds| view.open(fds))?;
        wait_for(created, false)
    }

    fn config(
        &self,
        view: &view::Chosen,
        uid: u32,
        gid: u32,
        callers: Option<&CallersTerminal>,
    ) -> Result<Config> {
        let mut env: Vec<String> = PASSED_ON
            .iter()
            .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
            .collect();
        env.push(format!("HOME={}", view.home));
        for entry in &self.env {
            match (entry.contains('='), std::env::var(entry)) {
                (true, _) => env.push(entry.clone()),
                (false, Ok(value)) => env.push(format!("{entry}={value}")),
                (false, Err(_)) => bail!("environment variable {entry} is not set"),
            }
        }
        let capabilities: Vec<String> = if uid == 0 { capability::names().collect() } else { Vec::new() };
        let size = callers
            .and_then(CallersTerminal::size)
            .map(|size| ConsoleSize { height: size.rows.into(), width: size.columns.into() });
        let network =
            (self.net == Net::None).then(|| Namespace { kind: "network".into(), path: String::new() });
        // What is written to the host can belong to others than the caller.
        let (uid_mappings, gid_mappings) = if !self.rw.is_empty() && rootless::is_needed() {
            rootless::with_subordinates(uid, gid)
        } else {
            Default::default()
        };
        Ok(Config {
            oci_version: VERSION.into(),
            process: Some(Process {
                terminal: callers.is_some(),
                console_size: size,
                user: User { uid, gid, ..User::default() },
                args: self.command.clone(),
                env,
                cwd: view.cwd.clone(),
                capabilities: Some(Capabilities {
                    bounding: capabilities.clone(),
                    effective: capabilities.clone(),
                    permitted: capabilities,
                    ..Capabilities::default()
                }),
                ..Process::default()
            }),
            root: Some(Root { path: "/".into(), readonly: false }),
            hostname: "sallet".into(),
            linux: Some(Linux {
                namespaces: network.into_iter().collect(),
                uid_mappings,
                gid_mappings,
                ..Linux::default()
            }),
            ..Config::default()
        })
    }
}

/// What a shell exits with when a program is not there or may not run.
fn shell_status(message: &str) -> Option<u8> {
    let (_, reason) = message.split_once("unable to start container process: exec")?;
    if reason.contains("not found") || reason.contains("no such file") {
        Some(127)
    } else if reason.contains("permission denied") || reason.contains("exec format error") {
        Some(126)
    } else {
        None
    }
}

fn is_terminal(fd: i32) -> bool {
    match fd {
        0 => rustix::termios::isatty(rustix::stdio::stdin()),
        _ => rustix::termios::isatty(rustix::stdio::stdout()),
    }
}
