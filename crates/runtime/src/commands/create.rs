//! `sallet create`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Globals;
use crate::create::{self, Plan, Terminal};

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    options: CreateOptions,
    /// Name of the container, unique on this host
    id: String,
}

/// Flags that `create` and `run` share.
#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// Folder of the bundle
    #[arg(long, short, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that gets the master of the terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File to write the kernel process's id to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Pass descriptors 3 to 2 + N on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Accepted for runc's sake
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Accepted for runc's sake
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
}

impl CreateOptions {
    /// The plan for a container that nobody waits for.
    pub(crate) fn detached_plan(&self, id: &str) -> Result<Plan> {
        let mut plan = self.plan(id)?;
        plan.terminal = match (&self.console_socket, plan.process.terminal) {
            (Some(socket), true) => Terminal::Socket(socket.clone()),
            (None, true) => {
                bail!("cannot allocate tty if the runtime will detach without setting console socket")
            }
            (Some(_), false) => {
                bail!("cannot use console socket if the runtime will not detach or allocate tty")
            }
            (None, false) => Terminal::None,
        };
        Ok(plan)
    }

    /// The plan without a terminal.
    pub(crate) fn plan(&self, id: &str) -> Result<Plan> {
        let mut plan = Plan::from_bundle(id, &self.bundle)?;
        plan.preserve_fds = self.preserve_fds;
        plan.pid_file = self.pid_file.clone();
        Ok(plan)
    }
}

impl Create {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let plan = self.options.detached_plan(&self.id)?;
        create::create(globals, plan)?;
        Ok(ExitCode::SUCCESS)
    }
}
