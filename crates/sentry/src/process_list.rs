//! The guest's processes and counters, for `ps`, `top` and `events`.

use std::sync::Arc;

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

fn name(number: u32) -> String {
    linux_abi::sysno::name(number).map_or_else(|| format!("syscall_{number:#x}"), str::to_owned)
}

/// Counters.
pub(crate) fn stats(kernel: &Arc<Kernel>) -> Stats {
    let processes = kernel.pids.processes();
    let (posted, prefetched) = kernel.posting.calls();
    let threads: usize = processes.iter().map(|process| process.threads.lock().len()).sum();
    Stats {
        processes: processes.len() as u64,
        threads: threads as u64,
        system_calls: kernel.platform.system_calls(),
        spun: kernel.platform.spun(),
        slot_batches: kernel.platform.usage().batches as u64,
        spins: kernel.platform.spins(),
        patched: kernel.platform.patched(),
        posted,
        prefetched,
        calls: kernel.calls.list().map(|(number, count)| (name(number), count)).collect(),
    }
}
