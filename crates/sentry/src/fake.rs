//! A sandbox that runs nothing, for tests of the doors before it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use control::{ConsoleSize, ExitStatus, ProcessInfo, ProcessSpec, Stats};

use crate::sandbox::{ExitNotify, Sandbox, SandboxError, Stdio, Target};
use crate::start::Boot;

/// Programs named `sleep` live until they get a signal; programs named
/// `missing` are not found; all others end at once with status 0.
pub(crate) struct FakeSandbox {
    init: ProcessSpec,
    _boot: Mutex<Boot>,
    processes: Mutex<HashMap<i32, FakeProcess>>,
}

#[derive(Default)]
struct FakeProcess {
    ended: Option<ExitStatus>,
    notify: Vec<ExitNotify>,
}

impl FakeSandbox {
    pub(crate) fn start(boot: Boot) -> Result<Arc<FakeSandbox>, SandboxError> {
        check(&boot.spec.process)?;
        Ok(Arc::new(FakeSandbox {
            init: boot.spec.process.clone(),
            _boot: Mutex::new(boot),
            processes: Mutex::default(),
        }))
    }

    fn run(&self, pid: i32, process: &ProcessSpec) {
        let sleeps = process.args.first().is_some_and(|a| a.ends_with("sleep"));
        let fake = FakeProcess { ended: (!sleeps).then_some(ExitStatus::Exited(0)), notify: Vec::new() };
        if let Ok(mut processes) = self.processes.lock() {
            processes.insert(pid, fake);
        }
    }
}

fn check(process: &ProcessSpec) -> Result<(), SandboxError> {
    match process.args.first() {
        Some(program) if program.ends_with("missing") => Err(SandboxError::not_found(program)),
        _ => Ok(()),
    }
}

impl Sandbox for FakeSandbox {
    fn start_init(&self) -> Result<i32, SandboxError> {
        self.run(1, &self.init);
        Ok(1)
    }

    fn exec(
        &self,
        process: ProcessSpec,
        _stdio: Stdio,
        _preserved: Vec<OwnedFd>,
    ) -> Result<i32, SandboxError> {
        check(&process)?;
        let pid = self.processes.lock().map_or(2, |p| p.len() as i32 + 1);
        self.run(pid, &process);
        Ok(pid)
    }

    fn signal(&self, target: Target, signal: i32) -> Result<(), SandboxError> {
        let pid = match target {
            Target::Init | Target::All => 1,
            Target::Process(pid) => pid,
        };
        let status = ExitStatus::Signaled(u8::try_from(signal).unwrap_or(0));
        let notify = {
            let mut processes = self.processes.lock().map_err(|_| SandboxError::no_such_process())?;
            let process = processes
                .get_mut(&pid)
                .filter(|process| process.ended.is_none())
                .ok_or_else(SandboxError::no_such_process)?;
            process.ended = Some(status);
            std::mem::take(&mut process.notify)
        };
        for notify in notify {
            notify(status);
        }
        Ok(())
    }

    fn on_exit(&self, pid: i32, notify: ExitNotify) -> Result<(), SandboxError> {
        let ended = {
            let mut processes = self.processes.lock().map_err(|_| SandboxError::no_such_process())?;
            let process = processes.get_mut(&pid).ok_or_else(SandboxError::no_such_process)?;
            match process.ended {
                Some(status) => status,
                None => {
                    process.notify.push(notify);
                    return Ok(());
                }
            }
        };
        notify(ended);
        Ok(())
    }

    fn window_size(&self, _target: Target, _size: ConsoleSize) -> Result<(), SandboxError> {
        Ok(())
    }

    fn processes(&self) -> Vec<ProcessInfo> {
        Vec::new()
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}
