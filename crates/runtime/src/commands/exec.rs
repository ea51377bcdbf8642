//! `sallet exec`
//!
//! A process stays as a waiter for the guest's: signals it can catch go to
//! the guest process, its death by SIGKILL kills the guest process (the kernel
//! process sees the connection end), and it ends as the guest process does. In
//! the foreground that is this program; else it is `host::waiter`'s.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use control::{Channel, ErrorKind, ExitStatus, ProcessSpec, Reply, Request};
use host::namespace::Fork;
use host::signal_fd::SignalFd;

use crate::cli::Globals;
use crate::container::Container;
use crate::create::{preserved, write_pid_file};
use crate::launch::FdList;
use crate::oci::{Config, Process, config, support, translate};
use crate::state::Status;
use crate::supervise::{self, Relay};
use crate::terminal::{CallersTerminal, Pty};
use crate::{callers_limits, log};

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Unix socket that gets the master of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Folder to start in
    #[arg(long)]
    cwd: Option<OsString>,
    /// NAME=VALUE; may be repeated
    #[arg(long, short)]
    env: Vec<OsString>,
    /// Give the program a terminal
    #[arg(long, short)]
    tty: bool,
    /// UID or UID:GID
    #[arg(long, short)]
    user: Option<String>,
    /// Further group; may be repeated
    #[arg(long, short = 'g')]
    additional_gids: Vec<u32>,
    /// File with the process object of a configuration
    #[arg(long, short)]
    process: Option<PathBuf>,
    /// Do not wait for the program
    #[arg(long, short)]
    detach: bool,
    /// File to write the waiter's process id to
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Refused: SELinux does not judge guests
    #[arg(long, hide = true)]
    process_label: Option<String>,
    /// Refused: AppArmor does not judge guests
    #[arg(long, hide = true)]
    apparmor: Option<String>,
    /// Accepted for runc's sake
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// runc's: a control group below the container's; here all processes share that of the container
    #[arg(long, hide = true)]
    cgroup: Vec<String>,
    /// Set PR_SET_NO_NEW_PRIVS
    #[arg(long)]
    no_new_privs: bool,
    /// Further capability; may be repeated
    #[arg(long, short)]
    cap: Vec<String>,
    /// Pass descriptors 3 to 2 + N on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Run in a paused container, once it is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// Name of the container
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Nothing was started: no program's own status, and runc's.
const NOTHING_STARTED: u8 = 255;

impl Exec {
    pub(crate) fn run(&self, globals: &Globals) -> ExitCode {
        self.execute(globals).unwrap_or_else(|error| {
            log::error(&format!("exec failed: {error:#}"));
            ExitCode::from(NOTHING_STARTED)
        })
    }

    fn execute(&self, globals: &Globals) -> Result<ExitCode> {
        if let Some(cgroup) = self.cgroup.iter().find(|path| !matches!(path.as_str(), "" | "/" | ".")) {
            bail!("--cgroup {cgroup} is not supported: all processes share the container's control group");
        }
        for (flag, profile) in [("--apparmor", &self.apparmor), ("--process-label", &self.process_label)] {
            if let Some(profile) = profile.as_ref().filter(|profile| !profile.is_empty()) {
                bail!("{flag} {profile} is not supported: the host's security modules do not judge guests");
            }
        }
        let container = Container::load(&globals.root(), &self.id)?;
        match container.state.status() {
            Status::Stopped => bail!("cannot exec in a stopped container ({})", self.id),
            Status::Paused if !self.ignore_paused => {
                bail!("cannot exec in a paused container (use --ignore-paused to override)")
            }
            _ => {}
        }
        let mut process = self.process(&container)?;
        if process.terminal && self.detach && self.console_socket.is_none() {
            bail!("cannot allocate tty if the runtime will detach without setting console socket");
        }
        if (!process.terminal || !self.detach) && self.console_socket.is_some() {
            bail!("cannot use console socket if the runtime will not detach or allocate tty");
        }
        let callers = (process.terminal && !self.detach).then(CallersTerminal::find).transpose()?;
        if process.console_size.is_none() {
            process.console_size = callers.as_ref().and_then(CallersTerminal::size);
        }
        let mut fds = FdList::default();
        let mut terminal = None;
        if process.terminal {
            let pty = Pty::open(process.console_size)?;
            if let Some(socket) = &self.console_socket {
                pty.send_master(socket)?;
            }
            fds.add(pty.slave.try_clone()?);
            terminal = Some(pty);
        } else {
            for fd in 0..3 {
                fds.add(host::inherited::duplicate(fd).context("standard streams")?);
            }
        }
        let preserved = preserved(self.preserve_fds, &globals.inherited, &mut fds)?.len();

        let channel = container.connect()?;
        let request = Request::Exec { process: Box::new(process), preserved };
        channel.send(&request, &fds.borrow())?;
        let pid = match channel.receive::<Reply>()? {
            (Reply::Started { pid }, _) => pid,
            (Reply::Error { kind: ErrorKind::Program, message }, _) => {
                bail!("unable to start container process: {message}")
            }
            (Reply::Error { message, .. }, _) => bail!("{message}"),
            (other, _) => bail!("unexpected answer {other:?}"),
        };
        let waiter = Waiter { channel, container, pid };
        // What only the start needed goes, in the waiter above all.
        drop(request);
        drop(fds);
        if self.detach {
            return self.wait_apart(&waiter, terminal);
        }
        let relay = terminal.zip(callers).map(|(pty, callers)| Relay::new(pty.master, callers));
        self.wait_here(&waiter, relay)
    }

    /// The process object, from the file or from flags over the container's.
    fn process(&self, container: &Container) -> Result<ProcessSpec> {
        if let Some(path) = &self.process {
            let text = fs::read(path).with_context(|| path.display().to_string())?;
            let process: Process = config::parse(&text).with_context(|| path.display().to_string())?;
            support::refuse_process(&process)?;
            return translated(&process);
        }
        if self.command.is_empty() {
            bail!("process args cannot be empty");
        }
        let mut process = Config::load(&container.state.bundle)?.process.unwrap_or_default();
        process.terminal = self.tty;
        process.console_size = None;
        if self.no_new_privs {
            process.no_new_privileges = true;
        }
        if let Some(user) = &self.user {
            let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
            process.user.uid = uid.parse().with_context(|| format!("parsing {uid:?} as a user id"))?;
            if !gid.is_empty() {
                process.user.gid = gid.parse().with_context(|| format!("parsing {gid:?} as a group id"))?;
            }
        }
        process.user.additional_gids.extend(&self.additional_gids);
        if !self.cap.is_empty() {
            let sets = process.capabilities.get_or_insert_default();
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.extend(self.cap.iter().cloned());
            }
        }
        let mut process = translated(&process)?;
        process.args.clone_from(&self.command);
        if let Some(cwd) = &self.cwd {
            ensure!(Path::new(cwd).is_absolute(), "Cwd must be an absolute path");
            process.cwd.clone_from(cwd);
        }
        translate::check_environment(&self.env)?;
        process.env = translate::last_values(process.env.into_iter().chain(self.env.iter().cloned()));
        Ok(process)
    }

    fn wait_here(&self, waiter: &Waiter, relay: Option<Relay>) -> Result<ExitCode> {
        if let Some(path) = &self.pid_file {
            write_pid_file(path, rustix::process::getpid().as_raw_nonzero().get())?;
        }
        let signals = supervise::signals(false)?;
        waiter.wait(&signals, relay)
    }

    /// Leaves a child that waits; we end at once.
    fn wait_apart(&self, waiter: &Waiter, terminal: Option<Pty>) -> Result<ExitCode> {
        // The child must lose no signal before it collects them.
        host::waiter::block_signals().context("block signals")?;
        match host::namespace::fork().context("fork the waiter")? {
            Fork::Parent(pid) => {
                if let Some(path) = &self.pid_file {
                    write_pid_file(path, pid)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Fork::Child => {
                // A session leader with the terminal as its own gets SIGWINCH
                // when the engine sets another size, and SIGHUP at its end.
                rustix::process::setsid().context("start a session")?;
                let slave = terminal.map(|pty| pty.slave);
                if let Some(slave) = &slave {
                    rustix::process::ioctl_tiocsctty(slave).context("take the terminal")?;
                }
                close_streams()?;
                let slave = slave.as_ref().map(AsFd::as_fd);
                Err(host::waiter::replace(waiter.channel.as_fd(), slave, waiter.pid))
                    .context("start the waiter")
            }
        }
    }
}

/// In numbers; says what is left out.
fn translated(process: &Process) -> Result<ProcessSpec> {
    for (for_users, text) in support::left_out_of(process) {
        if for_users { log::warning(&text) } else { log::debug(&text) }
    }
    let mut translated = translate::process(process)?;
    callers_limits::inherit(&mut translated.rlimits)?;
    Ok(translated)
}

/// Stands in for one guest process.
struct Waiter {
    channel: Channel,
    container: Container,
    pid: i32,
}

impl Waiter {
    fn wait(&self, signals: &SignalFd, relay: Option<Relay>) -> Result<ExitCode> {
        supervise::run(signals, self.channel.as_fd(), relay, None, None, |signal| {
            // Over a connection of its own, so that answers do not mix. The
            // guest process, or the sandbox, may be gone by now.
            let _ = self.container.ask(&Request::Signal { pid: Some(self.pid), signal, all: false });
        })?;
        let status = match self.channel.receive::<Reply>() {
            Ok((Reply::Exited(status), _)) => status,
            Ok((other, _)) => bail!("unexpected answer {other:?}"),
            // The sandbox is gone, and everything in it was killed.
            Err(_) => ExitStatus::Signaled(9),
        };
        Ok(ExitCode::from(status.code()))
    }
}

/// The waiter must not hold the caller's pipes open.
fn close_streams() -> Result<()> {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
