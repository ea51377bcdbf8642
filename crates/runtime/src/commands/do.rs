//! `sallet do`

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use control::{CapabilityMasks, ProcessSpec, Scheduling};

use super::do_limits::Limits;
use super::run::wait_for;
use crate::callers_limits;
use crate::cli::Globals;
use crate::container;
use crate::create::{self, Plan, Terminal};
use crate::jobs;
use crate::oci::config::{Config, IdMapping, Linux, Namespace, Root};
use crate::oci::{Resources, VERSION, capability, translate};
use crate::rootless;
use crate::terminal::CallersTerminal;
use crate::view::{self, Wanted};

const HELP: &str = "\
The program sees /usr, /opt, a part of /etc without secrets, and the current folder unless that is a home or a folder \
of many (/, /tmp, /var...). What it writes is thrown away at its end, but for --rw. Where paths of --ro and --rw lie in one another the \
innermost decides. Of open files it gets standard input, output and error. Its environment is PATH, HOME, TERM, COLORTERM, LANG, LC_ALL and TZ.

--memory, --cpus and --pids limit all its processes together, by a control group: as root, or where the caller's \
own group is delegated to it (version 2). --timeout works everywhere.

Exit status: the program's; 128+N if signal N ended it; 124 if its time was up; 126 or 127 if it cannot be run or is \
not there; 1 if the sandbox cannot be made.

Examples:
  sallet do -- python3 untrusted.py
  sallet do --memory 1g --cpus 2 --pids 100 --timeout 30s -- ./judged
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
    env: Vec<OsString>,
    #[command(flatten)]
    limits: Limits,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
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
        if let Some(flag) = self.command.first().filter(|word| word.as_bytes().starts_with(b"-")) {
            bail!("unknown option {}; {}", flag.display(), remedy(flag));
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
        let timeout = self.limits.timeout()?;
        let view = view::choose(&wanted)?;
        // A program without a slash comes from PATH.
        let named = |(at, word): &(usize, &OsString)| *at > 0 || word.as_bytes().contains(&b'/');
        if let Some(hidden) = &view.hidden
            && let Some((_, file)) = (self.command.iter().enumerate().filter(named)).find(|(_, word)| {
                !word.is_empty() && !word.as_bytes().starts_with(b"/") && hidden.join(word).exists()
            })
        {
            eprintln!(
                "sallet do: note: {} is a home or a shared folder and is not shown, so {} is not there: \
                 add --ro . or --rw .",
                hidden.display(),
                file.display()
            );
        }
        let with_terminal = [0, 1].iter().all(|fd| is_terminal(*fd));
        let callers = with_terminal.then(CallersTerminal::find).transpose()?;
        // What is written to the host can belong to others than the caller.
        let ids = if !self.rw.is_empty() && rootless::is_needed() {
            rootless::with_subordinates(uid, gid)
        } else {
            Default::default()
        };
        let limits = callers_limits::take()?;
        let process = ProcessSpec {
            args: self.command.clone(),
            env: self.environment(&view.home)?,
            cwd: view.cwd.clone().into(),
            terminal: callers.is_some(),
            console_size: callers.as_ref().and_then(CallersTerminal::size),
            uid,
            gid,
            umask: Some(umask()),
            rlimits: limits.rlimits.clone(),
            scheduler: callers_niceness(),
            capabilities: CapabilityMasks::root(if uid == 0 { capability::ALL } else { 0 }),
            ..ProcessSpec::default()
        };
        let plan = Plan {
            id: format!("{}{}", container::DO, rustix::process::getpid().as_raw_nonzero()),
            bundle: cwd.clone(),
            rootfs: "/".into(),
            config: config(self.net, ids, self.limits.resources()?),
            process,
            preserve_fds: 0,
            error_elsewhere: with_terminal && !is_terminal(2),
            terminal: callers.map_or(Terminal::None, Terminal::Ours),
            pid_file: None,
            attached: true,
            ordinary_init: true,
            job_control: jobs::is_job(),
        };
        let created = create::create_with(globals, plan, |fds| view.open(fds)).map_err(|error| {
            match shell_status(&format!("{error:#}")) {
                Some(_) => error,
                None => limits.explain(error),
            }
        })?;
        wait_for(created, false, true, timeout)
    }

    /// Variables of the program: ours that say nothing about us, then what `--env` asks for.
    fn environment(&self, home: &str) -> Result<Vec<OsString>> {
        let assign = |name: &OsStr, value: &OsStr| [name, value].join(OsStr::new("="));
        let ours = |name: &&str| Some(assign(OsStr::new(name), &std::env::var_os(name)?));
        let mut env: Vec<OsString> = PASSED_ON.iter().filter_map(ours).collect();
        env.push(assign(OsStr::new("HOME"), OsStr::new(home)));
        for entry in &self.env {
            ensure!(
                !entry.as_bytes().starts_with(b"="),
                "--env {}: a variable needs a name",
                entry.display()
            );
            match (entry.as_bytes().contains(&b'='), std::env::var_os(entry)) {
                (true, _) => env.push(entry.clone()),
                (false, Some(value)) => env.push(assign(entry, &value)),
                (false, None) => bail!("--env {entry:?}: there is no such variable to pass on"),
            }
        }
        Ok(translate::last_values(env))
    }
}

/// Everything but the program.
fn config(network: Net, ids: (Vec<IdMapping>, Vec<IdMapping>), resources: Option<Resources>) -> Config {
    let own = Namespace { kind: "network".into(), path: String::new() };
    let (uid_mappings, gid_mappings) = ids;
    Config {
        oci_version: VERSION.into(),
        root: Some(Root { path: "/".into(), readonly: false }),
        hostname: "sallet".into(),
        linux: Some(Linux {
            namespaces: (network == Net::None).then_some(own).into_iter().collect(),
            uid_mappings,
            gid_mappings,
            resources,
            ..Linux::default()
        }),
        ..Config::default()
    }
}

/// What to do about an option that `do` does not know.
fn remedy(flag: &OsStr) -> String {
    let name = flag.to_string_lossy();
    let name = name.split_once('=').map_or(&*name, |(name, _)| name);
    let is_flag = |arg: &clap::Arg| arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
    if Globals::augment_args(clap::Command::new("")).get_arguments().any(is_flag) {
        format!("it goes before do: sallet {name} ... do ...")
    } else {
        "see sallet do --help".into()
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

/// The kernel process and all it starts inherit it of the host; the program shall see it.
fn callers_niceness() -> Option<Scheduling> {
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    (nice != 0).then_some(Scheduling { policy: 0, nice, reset_on_fork: false })
}

/// The caller's mask; it can be asked for by setting one alone (umask(2)).
fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}

fn is_terminal(fd: i32) -> bool {
    match fd {
        0 => rustix::termios::isatty(rustix::stdio::stdin()),
        1 => rustix::termios::isatty(rustix::stdio::stdout()),
        _ => rustix::termios::isatty(rustix::stdio::stderr()),
    }
}
