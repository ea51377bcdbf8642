//! The guest's processes and counters, for `ps`, `top` and `events`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use control::{ProcessInfo, Stats};
use kernel::Kernel;

/// Processes that live.
pub(crate) fn list(kernel: &Arc<Kernel>) -> Vec<ProcessInfo> {
    let mut all = Vec::new();
    for process in kernel.pids.processes() {
        let Some(thread) = process.any_thread() else { continue };
        let comm = thread.comm();
        let name = comm.split(|b| *b == 0).next().unwrap_or_default();
        let host_pid = thread.mm().space.host_pid();
        all.push(ProcessInfo {
            pid: process.pid(),
            ppid: process.parent_pid(),
            uid: thread.credentials().uid,
            threads: u32::try_from(process.threads.lock().len()).unwrap_or(u32::MAX),
            host_pid: (host_pid > 0).then_some(host_pid),
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    all
}

/// Counters.
pub(crate) fn stats(kernel: &Arc<Kernel>) -> Stats {
    let processes = kernel.pids.processes();
    let threads: Vec<_> =
        processes.iter().flat_map(|p| p.threads.lock().values().cloned().collect::<Vec<_>>()).collect();
    Stats {
        processes: processes.len() as u64,
        threads: threads.len() as u64,
        system_calls: threads.iter().map(|t| t.syscalls.load(Ordering::Relaxed)).sum(),
    }
}
