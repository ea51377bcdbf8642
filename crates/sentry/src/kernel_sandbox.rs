//! The sandbox of the control server, over a kernel.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use control::{CgroupInfo, ConsoleSize, ErrorKind, ExitStatus, ProcessInfo, ProcessSpec, Stats};
use fs_kernel::tty::Terminals;
use kernel::cgroup_limits::CgroupLimits;
use kernel::process::ExitStatus as GuestStatus;
use kernel::{Kernel, Process};
use linux_abi::signal::{SigInfo, Signo, si};
use parking_lot::Mutex;
use vfs::Place;

use crate::launch::{self, Ready};
use crate::sandbox::{ExitNotify, Sandbox, SandboxError, Stdio, Target};
use crate::streams::Streams;

/// A kernel with its prepared first process.
pub(crate) struct KernelSandbox {
    kernel: Arc<Kernel>,
    root: Place,
    terminals: Arc<Terminals>,
    init: Mutex<Option<Ready>>,
}

impl KernelSandbox {
    pub(crate) fn new(
        kernel: Arc<Kernel>,
        root: Place,
        terminals: Arc<Terminals>,
        init: Ready,
    ) -> Arc<KernelSandbox> {
        executor::spawn(async {
            executor::sleep(STARTED).await;
            host::process::forget_program();
        });
        Arc::new(KernelSandbox { kernel, root, terminals, init: Mutex::new(Some(init)) })
    }

    fn process(&self, pid: i32) -> Result<Arc<Process>, SandboxError> {
        self.kernel.pids.process(pid).map_err(|_| SandboxError::no_such_process())
    }
}

/// What starting needed is not needed any more after this time.
const STARTED: Duration = Duration::from_secs(1);

/// Tells a kernel of the container's limits.
pub(crate) fn set_limits(kernel: &Kernel, limits: &CgroupInfo) {
    let swap = |memory| limits.memory_swap_limit.map(|both| both.saturating_sub(memory));
    kernel.set_cgroup_limits(CgroupLimits {
        memory: limits.memory_limit,
        swap: limits.memory_limit.and_then(swap),
        cpu_quota: limits.cpu_quota_us.map(|quota| (quota, limits.cpu_period_us.unwrap_or(100_000))),
        cpu_weight: limits.cpu_weight,
    });
    kernel.pids.set_limit(limits.pids_limit);
}

fn status(status: GuestStatus) -> ExitStatus {
    match status {
        GuestStatus::Exited(code) => ExitStatus::Exited(u8::try_from(code & 0xff).unwrap_or(0)),
        GuestStatus::Signaled { signal, .. } => ExitStatus::Signaled(u8::try_from(signal.raw()).unwrap_or(0)),
    }
}

impl Sandbox for KernelSandbox {
    fn start_init(&self) -> Result<i32, SandboxError> {
        let init = self.init.lock().take();
        let init =
            init.ok_or_else(|| SandboxError::new(ErrorKind::Other, "the first process runs already"))?;
        Ok(init.start())
    }

    fn exec(&self, process: ProcessSpec, stdio: Stdio, preserved: Vec<OwnedFd>) -> Result<i32, SandboxError> {
        // What an engine copied in before must be there for the new process.
        fs_host::catch_up();
        let streams = Streams::open(stdio, preserved, &self.terminals, &self.root)?;
        let ready = launch::prepare(&self.kernel, &self.root, &process, streams)?;
        Ok(ready.start())
    }

    fn signal(&self, target: Target, signal: i32) -> Result<(), SandboxError> {
        let Some(sig) = Signo::new(signal) else {
            return if signal == 0 {
                Ok(())
            } else {
                Err(SandboxError::new(ErrorKind::Other, "no such signal"))
            };
        };
        let send = |process: &Process| {
            // A full queue loses it, as kill(2) would tell.
            let _ = process.send_signal(SigInfo::from_user(sig, si::USER, 0, 0));
        };
        match target {
            Target::All => self.kernel.pids.processes().iter().for_each(|p| send(p)),
            Target::Init => send(&*self.process(1)?),
            Target::Group => self.kernel.pids.group(1).iter().for_each(|p| send(p)),
            Target::Process(pid) => send(&*self.process(pid)?),
        }
        Ok(())
    }

    fn on_exit(&self, pid: i32, notify: ExitNotify) -> Result<(), SandboxError> {
        let process = self.process(pid)?;
        let kernel = self.kernel.clone();
        let terminal = self.terminals.controlling(process.job().sid);
        executor::spawn(async move {
            let waiter = executor::Waiter::new();
            loop {
                waiter.reset();
                let listener = process.exit_queue.listen(&waiter, executor::Events::all(), false);
                let ended = process.state.lock().zombie;
                if let Some(end) = ended {
                    // Nobody inside waits for a process from outside.
                    if process.parent().is_none() {
                        kernel.pids.remove_process(pid);
                    }
                    // The engine closes its side of the terminal once it knows.
                    if let Some(terminal) = &terminal {
                        terminal.drain().await;
                    }
                    notify(status(end));
                    return;
                }
                waiter.wait().await;
                drop(listener);
            }
        });
        Ok(())
    }

    fn on_stop(&self, notify: Box<dyn FnOnce(i32) + Send>) -> Result<(), SandboxError> {
        let process = self.process(1)?;
        executor::spawn(async move {
            let waiter = executor::Waiter::new();
            loop {
                waiter.reset();
                let stops = process.stop_queue.listen(&waiter, executor::Events::all(), false);
                let end = process.exit_queue.listen(&waiter, executor::Events::all(), false);
                let (ended, stopped) = {
                    let state = process.state.lock();
                    (state.zombie.is_some(), state.stopped)
                };
                match stopped {
                    _ if ended => return,
                    Some(signal) => return notify(signal.raw()),
                    None => drop(waiter.wait().await),
                }
                drop((stops, end));
            }
        });
        Ok(())
    }

    fn window_size(&self, target: Target, _size: ConsoleSize) -> Result<(), SandboxError> {
        let session = match target {
            Target::Init | Target::Group | Target::All => 1,
            Target::Process(pid) => pid,
        };
        let terminal = self.terminals.controlling(session);
        // The host's terminal has the new size already.
        terminal.map(|terminal| terminal.size_changed()).ok_or_else(SandboxError::no_such_process)
    }

    fn processes(&self) -> Vec<ProcessInfo> {
        crate::process_list::list(&self.kernel)
    }

    fn set_limits(&self, limits: &CgroupInfo) {
        set_limits(&self.kernel, limits);
    }

    fn stats(&self) -> Stats {
        crate::process_list::stats(&self.kernel)
    }
}
