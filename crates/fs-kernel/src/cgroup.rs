//! cgroup2: the container's own group as it sees it, read-only (cgroups(7)).

use std::sync::Arc;

use kernel::Kernel;
use kernel::memory::GroupUse;
use rustix::thread::{CpuSet, sched_getaffinity};
use vfs::FileSystem;

use crate::synthetic::{Fixed, Kind, Node, Synthetic};

const CGROUP2_MAGIC: u64 = 0x6367_7270;

fn limit(value: Option<u64>) -> String {
    value.map_or("max\n".into(), |n| format!("{n}\n"))
}

/// What the container's group on the host uses; where it has none, what its processes have in memory.
fn memory(kernel: &Kernel) -> GroupUse {
    kernel.group_memory().unwrap_or_else(|| {
        let anon = resident(kernel);
        GroupUse { usage: anon, anon, ..GroupUse::default() }
    })
}

fn memory_stat(kernel: &Kernel) -> String {
    let GroupUse { anon, file, reclaimable, .. } = memory(kernel);
    format!(
        "anon {anon}\nfile {file}\ninactive_anon 0\nactive_anon {anon}\ninactive_file {}\nactive_file 0\n",
        reclaimable.min(file)
    )
}

fn memory_events(kernel: &Kernel) -> String {
    let kernel::memory::GroupEvents { max, oom, oom_kill } = kernel.group_events();
    format!("low 0\nhigh 0\nmax {max}\noom {oom}\noom_kill {oom_kill}\noom_group_kill 0\n")
}

/// Bytes that all guest processes have in memory.
fn resident(kernel: &Kernel) -> u64 {
    let processes = kernel.pids.processes();
    let threads = processes.iter().filter_map(|p| p.any_thread());
    // Per process: threads share one address space.
    threads.filter_map(|t| resident_of(&t)).fold(0, u64::saturating_add)
}

fn resident_of(thread: &kernel::Thread) -> Option<u64> {
    let pid = thread.mm().space.host_pid();
    let statm = host::proc_fs::read(&format!("{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(4096)
}

/// CPUs of the group: those of the kernel process, which is in it. Its first thread never chooses among them.
fn cpus(kernel: &Kernel) -> String {
    let all = match sched_getaffinity(Some(rustix::process::getpid())) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => (0..kernel.config.cpus).collect::<Vec<_>>(),
    };
    format!("{}\n", crate::cpus::list(&all))
}

/// A cgroup2 of this kernel.
pub fn mount(kernel: &Arc<Kernel>, device: u64) -> Arc<dyn FileSystem> {
    let with = |make: fn(&Kernel) -> String| {
        let kernel = kernel.clone();
        move || make(&kernel).into_bytes()
    };
    let processes =
        with(|kernel| kernel.pids.processes().iter().map(|p| format!("{}\n", p.pid())).collect::<String>());
    let cpu = with(|kernel| {
        let (mut user, mut system) = (0u64, 0u64);
        for process in kernel.pids.processes() {
            let own = kernel::cpu_time::process_usage(&process);
            // Those that were waited for are counted nowhere else.
            let children = process.usage.lock().1;
            user = user.saturating_add(own.user_ns).saturating_add(children.user_ns);
            system = system.saturating_add(own.system_ns).saturating_add(children.system_ns);
        }
        let (user, system) = (user / 1000, system / 1000);
        format!("usage_usec {}\nuser_usec {user}\nsystem_usec {system}\n", user.saturating_add(system))
    });
    let cpu_max = with(|kernel| match kernel.cgroup_limits().cpu_quota {
        Some((quota, period)) => format!("{quota} {period}\n"),
        None => "max 100000\n".into(),
    });
    let root = Fixed::default()
        .with_text("cgroup.controllers", "cpuset cpu memory pids\n")
        .with_text("cgroup.subtree_control", "\n")
        .with_text("cgroup.type", "domain\n")
        .with_made("cgroup.procs", processes)
        .with_made("cgroup.events", with(|_| "populated 1\nfrozen 0\n".into()))
        .with_made("cpu.max", cpu_max)
        .with_made("cpu.stat", cpu)
        .with_made(
            "cpu.weight",
            with(|kernel| format!("{}\n", kernel.cgroup_limits().cpu_weight.unwrap_or(100))),
        )
        .with_made("cpuset.cpus.effective", with(cpus))
        .with_made("memory.max", with(|kernel| limit(kernel.cgroup_limits().memory)))
        .with_text("memory.high", "max\n")
        .with_text("memory.low", "0\n")
        .with_text("memory.min", "0\n")
        .with_made("memory.swap.max", with(|kernel| limit(kernel.cgroup_limits().swap)))
        .with_made("memory.current", with(|kernel| format!("{}\n", memory(kernel).usage)))
        .with_made("memory.stat", with(memory_stat))
        .with_made("memory.events", with(memory_events))
        .with_made("memory.events.local", with(memory_events))
        .with_made(
            "memory.peak",
            with(|kernel| format!("{}\n", kernel.group_peak().unwrap_or(0).max(memory(kernel).usage))),
        )
        .with_made("pids.current", with(|kernel| format!("{}\n", kernel.pids.thread_count())))
        .with_made("pids.max", with(|kernel| limit(kernel.pids.limit())));
    let node = Node::new(1, 0o555, None, Kind::Directory(Box::new(root)));
    Synthetic::new("cgroup2", CGROUP2_MAGIC, device, node)
}
