//! `sallet run`

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::create::CreateOptions;
use crate::cli::Globals;
use crate::create::{self, Created, Terminal};
use crate::jobs::Job;
use crate::supervise::{self, SIGINT, Timer};
use crate::terminal::CallersTerminal;

/// What timeout(1) exits with when the time was up.
const TIMED_OUT: u8 = 124;

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
        wait_for(create::create(globals, plan)?, self.keep, false, None)
    }
}

/// Starts a created container, stands in for it until it has ended, and
/// removes it. With `as_job` it stops and continues with it. When its time is up it is told to end, and killed.
/// Gives its exit status.
pub(crate) fn wait_for(
    created: Created,
    keep: bool,
    as_job: bool,
    timeout: Option<Duration>,
) -> Result<ExitCode> {
    let Created { mut container, pidfd, tie: _tie, relay } = created;
    // Before the program can end and before it can be signalled.
    let signals = supervise::signals(as_job)?;
    let mut timer = timeout.map(Timer::new).transpose()?;
    let result = container.start().and_then(|()| {
        // Nobody answers where the program has ended already.
        let job = if as_job { Job::watch(&container).ok() } else { None };
        supervise::run(&signals, pidfd.as_fd(), relay, job, timer.as_mut(), |signal| {
            // The program may have ended meanwhile.
            let _ = container.kill(signal, false);
        })
    });
    if result.is_err() {
        let _ = container.kill_process();
    }
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context("wait for the kernel process");
    // An engine asks the group itself.
    let starved = as_job && container.state.cgroup.killed_for_memory() > 0;
    if !keep || result.is_err() {
        container.destroy()?;
    }
    let interrupt = result?;
    let status = status?.context("the kernel process left no status")?;
    if timer.is_some_and(|timer| timer.is_over()) {
        return Ok(ExitCode::from(TIMED_OUT));
    }
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    if as_job && code == 128 + SIGINT {
        interrupt.end();
    }
    if starved && code == 128 + Signal::KILL.as_raw() {
        eprintln!(
            "sallet do: killed: more memory was asked for than there may be (--memory, or a limit above it)"
        );
    }
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
}
