//! OCI startContainer hooks: programs of the guest that run before its first.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use control::{ErrorKind, ExitStatus, StartHook};
use rustix::pipe::PipeFlags;

use crate::sandbox::{Sandbox, SandboxError, Stdio, Target};

const SIGKILL: i32 = 9;

/// What the hooks need, kept from boot to start.
pub(crate) struct StartHooks {
    pub(crate) hooks: Vec<StartHook>,
    /// The OCI state for their standard input.
    pub(crate) state: String,
    /// Becomes their standard output and error.
    pub(crate) null: OwnedFd,
}

impl StartHooks {
    /// Runs them one after the other; the first that fails ends the row.
    pub(crate) fn run(&self, sandbox: &dyn Sandbox) -> Result<(), SandboxError> {
        for (index, hook) in self.hooks.iter().enumerate() {
            self.run_one(sandbox, hook).map_err(|error| {
                SandboxError::new(
                    error.kind,
                    format!("error running startContainer hook #{index}: {}", error.message),
                )
            })?;
        }
        Ok(())
    }

    fn run_one(&self, sandbox: &dyn Sandbox, hook: &StartHook) -> Result<(), SandboxError> {
        let stdio = self
            .stdio()
            .map_err(|errno| SandboxError::new(ErrorKind::Other, format!("standard streams: {errno}")))?;
        let pid = sandbox.exec(hook.process.clone(), stdio, Vec::new())?;
        let (send, receive) = mpsc::channel();
        sandbox.on_exit(
            pid,
            Box::new(move |status| {
                let _ = send.send(status);
            }),
        )?;
        let status = match hook.timeout_seconds {
            None => receive.recv().ok(),
            Some(seconds) => receive.recv_timeout(Duration::from_secs(seconds)).ok(),
        };
        match status {
            Some(ExitStatus::Exited(0)) => Ok(()),
            Some(status) => Err(SandboxError::new(ErrorKind::Program, status.to_string())),
            None => {
                let _ = sandbox.signal(Target::Process(pid), SIGKILL);
                Err(SandboxError::new(ErrorKind::Program, "it ran past its timeout"))
            }
        }
    }

    fn stdio(&self) -> rustix::io::Result<Stdio> {
        let (input, feed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The state is far smaller than a pipe; a hook need not read it.
        rustix::io::write(&feed, self.state.as_bytes())?;
        Ok(Stdio::Files([
            input,
            rustix::io::fcntl_dupfd_cloexec(&self.null, 3)?,
            rustix::io::fcntl_dupfd_cloexec(&self.null, 3)?,
        ]))
    }
}
