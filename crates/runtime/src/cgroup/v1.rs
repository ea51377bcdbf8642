//! Version 1 controllers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::files::{self, PATIENCE, entry, number, table};
use super::stats::{CpuStats, CpusetStats, HugePages, IoEntry, MemoryEntry, Stats};
use crate::oci::{Resources, translate};

type Directories = BTreeMap<String, PathBuf>;

/// Makes one directory and those above it. A cpuset is of no use before it
/// has CPUs and memory nodes, so each new one starts with its parent's.
pub(super) fn create(controller: &str, directory: &Path, root: &Path) -> io::Result<()> {
    if controller != "cpuset" {
        return fs::create_dir_all(directory);
    }
    let Ok(relative) = directory.strip_prefix(root) else {
        return fs::create_dir_all(directory);
    };
    let mut parent = root.to_path_buf();
    for part in relative.components() {
        let child = parent.join(part);
        match fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if files::read(&child, file)?.trim().is_empty() {
                files::write(&child, file, files::read(&parent, file)?.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// Sets limits; a limit whose controller is missing is an error.
pub(super) fn apply(groups: &Directories, resources: &Resources) -> Result<()> {
    let set = |controller: &str, file: &str, value: String| -> Result<()> {
        let directory = groups
            .get(controller)
            .with_context(|| format!("cannot set {file}: the host has no {controller} cgroup"))?;
        files::write(directory, file, &value).with_context(|| format!("set {file} to {value}"))
    };
    if let Some(memory) = &resources.memory {
        set_memory(groups, memory.limit, memory.swap, &set)?;
        if let Some(reservation) = memory.reservation.filter(|n| *n != 0) {
            set("memory", "memory.soft_limit_in_bytes", reservation.to_string())?;
        }
        if let Some(swappiness) = memory.swappiness {
            set("memory", "memory.swappiness", swappiness.to_string())?;
        }
        if memory.disable_oom_killer == Some(true) {
            set("memory", "memory.oom_control", "1".into())?;
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
            set("cpu", "cpu.shares", shares.to_string())?;
        }
        if let Some(period) = cpu.period.filter(|n| *n != 0) {
            set("cpu", "cpu.cfs_period_us", period.to_string())?;
        }
        if let Some(quota) = cpu.quota.filter(|n| *n != 0) {
            set("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
        if let Some(burst) = cpu.burst {
            set("cpu", "cpu.cfs_burst_us", burst.to_string())?;
        }
        if let Some(idle) = cpu.idle {
            set("cpu", "cpu.idle", idle.to_string())?;
        }
        if let Some(period) = cpu.realtime_period.filter(|n| *n != 0) {
            set("cpu", "cpu.rt_period_us", period.to_string())?;
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|n| *n != 0) {
            set("cpu", "cpu.rt_runtime_us", runtime.to_string())?;
        }
        if let Some(cpus) = cpu.cpus.as_ref().filter(|list| !list.is_empty()) {
            set("cpuset", "cpuset.cpus", cpus.clone())?;
        }
        if let Some(mems) = cpu.mems.as_ref().filter(|list| !list.is_empty()) {
            set("cpuset", "cpuset.mems", mems.clone())?;
        }
    }
    if let Some(pids) = resources.pids.filter(|pids| pids.limit != 0) {
        let limit = match pids.limit {
            n if n < 0 => "max".into(),
            n => n.saturating_add(super::OWN_TASKS).to_string(),
        };
        set("pids", "pids.max", limit)?;
    }
    if let Some(io) = &resources.block_io {
        if let Some(weight) = io.weight.filter(|n| *n != 0) {
            let file = ["blkio.weight", "blkio.bfq.weight"]
                .into_iter()
                .find(|file| groups.get("blkio").is_some_and(|directory| directory.join(file).exists()));
            // Without a proportional scheduler the host has no such file.
            if let Some(file) = file {
                set("blkio", file, weight.to_string())?;
            }
        }
        for device in &io.weight_device {
            if let Some(weight) = device.weight {
                let file = ["blkio.weight_device", "blkio.bfq.weight_device"]
                    .into_iter()
                    .find(|file| groups.get("blkio").is_some_and(|directory| directory.join(file).exists()))
                    .context("cannot set blockIO.weightDevice: the host has no such file")?;
                set("blkio", file, format!("{}:{} {weight}", device.major, device.minor))?;
            }
        }
        let throttles = [
            ("read_bps_device", &io.throttle_read_bps_device),
            ("write_bps_device", &io.throttle_write_bps_device),
            ("read_iops_device", &io.throttle_read_iops_device),
            ("write_iops_device", &io.throttle_write_iops_device),
        ];
        for (file, limits) in throttles {
            for limit in limits {
                let value = format!("{}:{} {}", limit.major, limit.minor, limit.rate);
                set("blkio", &format!("blkio.throttle.{file}"), value)?;
            }
        }
    }
    for page in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        set("hugetlb", &file, page.limit.to_string())?;
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|n| *n != 0) {
            set("net_cls", "net_cls.classid", class.to_string())?;
        }
        for priority in &network.priorities {
            let value = format!("{} {}", priority.name, priority.priority);
            set("net_prio", "net_prio.ifpriomap", value)?;
        }
    }
    if !resources.unified.is_empty() {
        bail!("invalid configuration: cannot use unified on cgroup v1");
    }
    Ok(())
}

/// Memory before memory plus swap when growing, the other way when shrinking:
/// the host refuses a state where the sum is less than its part.
fn set_memory(
    groups: &Directories,
    limit: Option<i64>,
    swap: Option<i64>,
    set: &impl Fn(&str, &str, String) -> Result<()>,
) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SUM: &str = "memory.memsw.limit_in_bytes";
    let limit = limit.filter(|n| *n != 0);
    let has_sum = groups.get("memory").is_some_and(|directory| directory.join(SUM).exists());
    // Unlimited memory cannot have a limited sum.
    if let (Some(memory), Some(sum)) = (limit, swap)
        && sum > 0
        && sum < memory
    {
        bail!("memory+swap limit should be >= memory limit");
    }
    let swap = match (limit, swap.filter(|n| *n != 0)) {
        (Some(-1), None) => Some(-1),
        (_, swap) => swap,
    }
    .filter(|_| has_sum);
    let grows = groups.get("memory").and_then(|directory| number(directory, SUM)).is_some_and(|now| {
        swap.is_some_and(|wanted| u64::try_from(wanted).map_or(true, |wanted| wanted > now))
    });
    let mut steps = [(LIMIT, limit), (SUM, swap)];
    if grows {
        steps.reverse();
    }
    for (file, value) in steps {
        if let Some(value) = value {
            set("memory", file, value.to_string()).map_err(|error| explain(error, groups, value))?;
        }
    }
    Ok(())
}

/// The host's EBUSY says that more than the new limit is in use and cannot be given back: runc's words.
fn explain(error: anyhow::Error, groups: &Directories, limit: i64) -> anyhow::Error {
    let busy =
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
    match groups.get("memory").filter(|_| busy) {
        None => error,
        Some(directory) => {
            let bytes = |file| number(directory, file).unwrap_or(0);
            anyhow!(
                "unable to set memory limit to {limit} (current usage: {}, peak usage: {})",
                bytes("memory.usage_in_bytes"),
                bytes("memory.max_usage_in_bytes")
            )
        }
    }
}

/// Writes the freezer's state until the host says that it is reached.
pub(super) fn freeze(directory: &Path, frozen: bool) -> Result<()> {
    let state = if frozen { "FROZEN" } else { "THAWED" };
    let asked = Instant::now();
    let deadline = asked + Duration::from_secs(5);
    loop {
        files::write(directory, "freezer.state", state).context("set freezer.state")?;
        if files::read(directory, "freezer.state")?.trim() == state {
            return Ok(());
        }
        if frozen && asked.elapsed() > PATIENCE && files::all_still(directory) {
            return Ok(());
        }
        if Instant::now() > deadline {
            if frozen {
                let _ = files::write(directory, "freezer.state", "THAWED");
            }
            bail!("unable to freeze: the host did not reach {state} within 5 s");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Counters.
pub(super) fn stats(groups: &Directories) -> Stats {
    let mut stats = Stats::default();
    if let Some(directory) = groups.get("memory") {
        let usage = |prefix: &str| MemoryEntry {
            limit: number(directory, &format!("{prefix}.limit_in_bytes")).unwrap_or(0),
            usage: number(directory, &format!("{prefix}.usage_in_bytes")).unwrap_or(0),
            max: number(directory, &format!("{prefix}.max_usage_in_bytes")).unwrap_or(0),
            failcnt: number(directory, &format!("{prefix}.failcnt")).unwrap_or(0),
        };
        stats.memory.usage = usage("memory");
        stats.memory.swap = usage("memory.memsw");
        stats.memory.kernel = usage("memory.kmem");
        stats.memory.kernel_tcp = usage("memory.kmem.tcp");
        let raw = table(directory, "memory.stat");
        stats.memory.cache = entry(&raw, "cache");
        stats.memory.raw = raw.into_iter().collect();
    }
    if let Some(directory) = groups.get("cpuacct") {
        stats.cpu.usage.total = number(directory, "cpuacct.usage").unwrap_or(0);
        stats.cpu.usage.percpu = files::read(directory, "cpuacct.usage_percpu")
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        // In ticks of 10 ms.
        let split = table(directory, "cpuacct.stat");
        stats.cpu.usage.user = entry(&split, "user").saturating_mul(10_000_000);
        stats.cpu.usage.kernel = entry(&split, "system").saturating_mul(10_000_000);
    }
    if let Some(directory) = groups.get("cpuset") {
        stats.cpuset = cpuset(directory, "cpuset.cpus", "cpuset.mems");
    }
    if let Some(directory) = groups.get("hugetlb") {
        stats.hugetlb = huge_pages(directory, "usage_in_bytes", "max_usage_in_bytes", |directory, size| {
            number(directory, &format!("hugetlb.{size}.failcnt")).unwrap_or(0)
        });
    }
    if let Some(directory) = groups.get("cpu") {
        let raw = table(directory, "cpu.stat");
        throttling(&mut stats.cpu, &raw, entry(&raw, "throttled_time"));
    }
    if let Some(directory) = groups.get("pids") {
        stats.pids.current = number(directory, "pids.current").unwrap_or(0);
        stats.pids.limit = number(directory, "pids.max").unwrap_or(0);
    }
    if let Some(directory) = groups.get("blkio") {
        let read = |file: &str| io_entries(&files::read(directory, file).unwrap_or_default());
        stats.blkio.bytes = read("blkio.throttle.io_service_bytes_recursive");
        stats.blkio.serviced = read("blkio.throttle.io_serviced_recursive");
    }
    stats
}

/// A cpuset: what is in use, and version 1's flags.
pub(super) fn cpuset(directory: &Path, cpus: &str, mems: &str) -> CpusetStats {
    let list =
        |file| translate::numbers(&files::read(directory, file).unwrap_or_default()).unwrap_or_default();
    let flag = |name: &str| {
        let text = files::read(directory, &format!("cpuset.{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    CpusetStats {
        cpus: list(cpus),
        cpu_exclusive: flag("cpu_exclusive"),
        mems: list(mems),
        mem_hardwall: flag("mem_hardwall"),
        mem_exclusive: flag("mem_exclusive"),
        memory_migrate: flag("memory_migrate"),
        memory_spread_page: flag("memory_spread_page"),
        memory_spread_slab: flag("memory_spread_slab"),
        memory_pressure: flag("memory_pressure"),
        sched_load_balance: flag("sched_load_balance"),
        sched_relax_domain_level: flag("sched_relax_domain_level"),
    }
}

/// Huge pages in use, by their size as the files are named (`2MB`).
pub(super) fn huge_pages(
    directory: &Path,
    usage: &str,
    max: &str,
    failures: impl Fn(&Path, &str) -> u64,
) -> BTreeMap<String, HugePages> {
    let suffix = format!(".{usage}");
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| {
            let size = name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(&suffix)?;
            // Reservations have files of their own.
            (!size.contains('.')).then(|| size.to_owned())
        })
        .map(|size| {
            let bytes = |file: &str| number(directory, &format!("hugetlb.{size}.{file}")).unwrap_or(0);
            let pages =
                HugePages { usage: bytes(usage), max: bytes(max), failcnt: failures(directory, &size) };
            (size, pages)
        })
        .collect()
}

pub(super) fn throttling(cpu: &mut CpuStats, raw: &[(String, u64)], time_ns: u64) {
    cpu.throttling.periods = entry(raw, "nr_periods");
    cpu.throttling.throttled_periods = entry(raw, "nr_throttled");
    cpu.throttling.throttled_time = time_ns;
}

fn io_entries(text: &str) -> Vec<IoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split([' ', ':']);
            Some(IoEntry {
                major: fields.next()?.parse().ok()?,
                minor: fields.next()?.parse().ok()?,
                op: fields.next()?.to_owned(),
                value: fields.next()?.parse().ok()?,
            })
        })
        .collect()
}
