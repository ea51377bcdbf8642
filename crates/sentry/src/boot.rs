//! From a boot specification to a running sandbox.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use control::{BootReply, BootSpec, Channel, ConsoleSize, Detach, ExitStatus, JailMode, RootSpec};
use host::signal_fd::SignalFd;
use rustix::event::{PollFd, PollFlags};

use crate::descriptors::Descriptors;
use crate::sandbox::{Sandbox, Stdio, Target};
use crate::start::{Boot, start_sandbox};
use crate::start_hooks::StartHooks;
use crate::{debug_log, home, jail, jail_probe, server};

/// SIGWINCH, from the host pty that is our controlling terminal.
const SIGWINCH: i32 = 28;
const SIGKILL: u8 = 9;

/// The life of a kernel process: `channel` is the socket over which the
/// runtime sends the [`BootSpec`]. Returns the exit status of the container.
pub fn run(channel: OwnedFd) -> ExitCode {
    let channel = Channel::new(channel);
    let (spec, fds) = match channel.receive::<BootSpec>() {
        Ok(received) => received,
        // Nobody is there to be told.
        Err(_) => return ExitCode::FAILURE,
    };
    match boot(spec, Descriptors::new(fds)) {
        Ok(running) => {
            if channel.send(&BootReply::Ready, &[]).is_err() {
                return ExitCode::FAILURE;
            }
            running.wait(channel)
        }
        Err(error) => {
            let message = format!("{error:#}");
            let _ = channel.send(&BootReply::Failed { message }, &[]);
            ExitCode::FAILURE
        }
    }
}

/// A sandbox that answers its control socket.
struct Running {
    sandbox: Arc<dyn Sandbox>,
    listener: OwnedFd,
    signals: SignalFd,
    start_hooks: Option<StartHooks>,
    /// The root file system, to look `HOME` up.
    root: Option<OwnedFd>,
    /// A copy of the terminal, to ask its size.
    terminal: Option<OwnedFd>,
}

fn boot(mut spec: BootSpec, mut descriptors: Descriptors) -> Result<Running> {
    let listener = descriptors.take(spec.control)?;
    let stdio = descriptors.take_stdio(spec.stdio)?;
    let terminal = match &stdio {
        Stdio::Terminal(slave, _) => Some(slave.try_clone()?),
        Stdio::Files(_) => None,
    };
    rustix::process::setsid().context("start a session")?;
    // Blocked here, before any thread is made, so that all inherit the mask, and before a signal can come.
    let signals = SignalFd::new(&[SIGWINCH])?;
    if let Some(terminal) = &terminal {
        rustix::process::ioctl_tiocsctty(terminal).context("take the terminal")?;
    }
    let null = detach_streams(&spec, &mut descriptors).context("let go of the runtime's streams")?;
    if spec.tracing.debug_log.is_some() {
        let level = if spec.tracing.debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
        debug_log::install(level);
    }
    let root = match spec.root {
        RootSpec::Host { fd, .. } => Some(descriptors.copy(fd)?),
        RootSpec::Scratch => None,
    };
    let start_hooks = Some(StartHooks {
        hooks: std::mem::take(&mut spec.start_container_hooks),
        state: spec.hook_state.clone(),
        null,
    });
    let (proc, connector) = jail::enter(&spec, &descriptors)?;
    host::proc_fs::set_root(proc.try_clone()?);
    // Inside the jail: what lies at /etc/passwd is the image's choice.
    home::ensure(&mut spec.process, root.as_ref());
    let (mode, rights) = (spec.jail, spec.network_rights);
    let probed = (mode == JailMode::Probe).then(|| proc.try_clone()).transpose()?;
    let sandbox = start_sandbox(Boot { spec, descriptors, stdio, proc, connector })?;
    if matches!(mode, JailMode::On | JailMode::Probe) {
        // After the zygote was started: stubs have a filter of their own.
        host::seccomp_jail::install(rights.raw).context("install the seccomp filter")?;
    }
    if let Some(proc) = probed {
        let escapes = jail_probe::escapes(&proc, root.as_ref(), rights);
        anyhow::bail!("jail: {} escapes: {escapes:?}", escapes.len());
    }
    Ok(Running { sandbox, listener, signals, start_hooks, root, terminal })
}

/// Descriptors 0 to 2 were the runtime's. The kernel process must not keep
/// an engine's pipes open, and has a message for standard error only when
/// somebody asked for a debug log.
fn detach_streams(spec: &BootSpec, descriptors: &mut Descriptors) -> Result<OwnedFd> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    match spec.tracing.debug_log {
        Some(index) => rustix::stdio::dup2_stderr(descriptors.take(index)?)?,
        None => rustix::stdio::dup2_stderr(&null)?,
    }
    Ok(null)
}

impl Running {
    /// Answers the control socket until the first process has ended.
    fn wait(self, runtime: Channel) -> ExitCode {
        match self.serve(runtime) {
            Ok(status) => ExitCode::from(status.code()),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "sallet: kernel process: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(mut self, runtime: Channel) -> Result<ExitStatus> {
        let mut runtime = Some(runtime);
        let (ended, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let status = Arc::new(Mutex::new(None));
        let init_ended: server::InitEnded = Box::new({
            let status = Arc::clone(&status);
            move |exit| {
                if let Ok(mut status) = status.lock() {
                    *status = Some(exit);
                }
                let _ = rustix::io::write(&end, &[1]);
            }
        });
        let root = self.root.take();
        let hooks = std::mem::take(&mut self.start_hooks);
        let server = server::Server::new(Arc::clone(&self.sandbox), hooks, root, init_ended);
        rustix::io::ioctl_fionbio(&self.listener, true)?;
        loop {
            let mut fds = vec![
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&ended, PollFlags::IN),
            ];
            fds.extend(runtime.as_ref().map(|runtime| PollFd::new(runtime, PollFlags::IN)));
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for events"),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let ready = |index: usize| ready.get(index).copied().unwrap_or(false);
            if ready(2) {
                server.let_clients_go();
                let status = status.lock().ok().and_then(|status| *status);
                return status.context("the first process ended without a status");
            }
            if ready(1) && self.signals.read()?.is_some_and(|caught| caught.signal == SIGWINCH) {
                self.resize();
            }
            if ready(3)
                && let Some(channel) = runtime.take()
                && channel.receive::<Detach>().is_err()
            {
                // The runtime has died before it could let go of us.
                return Ok(ExitStatus::Signaled(SIGKILL));
            }
            if ready(0) {
                server.accept(self.listener.as_fd());
            }
        }
    }

    fn resize(&self) {
        let Some(size) =
            self.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetwinsize(terminal).ok())
        else {
            return;
        };
        let size = ConsoleSize { rows: size.ws_row, columns: size.ws_col };
        if let Err(error) = self.sandbox.window_size(Target::Init, size) {
            tracing::debug!(%error, "window size");
        }
    }
}
