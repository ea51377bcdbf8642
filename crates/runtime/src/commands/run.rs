//! `sallet run`

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{WaitId, WaitIdOptions};

use super::create::CreateOptions;
use crate::cli::Globals;
use crate::create::{self, Created, Terminal};
use crate::jobs::Job;
use crate::supervise;
use crate::terminal::CallersTerminal;

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    options: CreateOptions,
    /// Do not wait for the program
    #[arg(long, short)]
    detach: bool,
    /// Keep the container after its program has ended
    #[arg(long)]
    keep: bool,
    /// Accepted for runc's sake: nobody is left without a parent
    #[arg(long)]
    no_subreaper: bool,
    /// Name of the container, unique on this host
    id: String,
}

impl Run {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        if self.detach {
            let plan = self.options.detached_plan(&self.id)?;
            let mut created = create::create(globals, plan)?;
            return match created.container.start() {
                Ok(()) => Ok(ExitCode::SUCCESS),
                Err(error) => {
                    let _ = created.container.kill_process();
                    let _ = created.container.destroy();
                    Err(error)
                }
            };
        }
        if self.options.console_socket.is_some() {
            bail!("cannot use console socket if the runtime will not detach or allocate tty");
        }
        let mut plan = self.options.plan(&self.id)?;
        plan.attached = !self.keep;
        if plan.process.terminal {
            let callers = CallersTerminal::find()?;
            if plan.process.console_size.is_none() {
                plan.process.console_size = callers.size();
            }
            plan.terminal = Terminal::Ours(callers);
        }
        wait_for(create::create(globals, plan)?, self.keep, false)
    }
}

/// Starts a created container, stands in for it until it has ended, and
/// removes it. With `as_job` it stops and continues with it. Gives its exit status.
pub(crate) fn wait_for(created: Created, keep: bool, as_job: bool) -> Result<ExitCode> {
    let Created { mut container, pidfd, tie: _tie, relay } = created;
    // Before the program can end and before it can be signalled.
    let signals = supervise::signals()?;
    let result = container.start().and_then(|()| {
        // Nobody answers where the program has ended already.
        let job = if as_job { Job::watch(&container).ok() } else { None };
        supervise::run(&signals, pidfd.as_fd(), relay, job, |signal| {
            // The program may have ended meanwhile.
            let _ = container.kill(signal, false);
        })
    });
    if result.is_err() {
        let _ = container.kill_process();
    }
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context("wait for the kernel process");
    if !keep || result.is_err() {
        container.destroy()?;
    }
    result?;
    let status = status?.context("the kernel process left no status")?;
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
}
