//! The version 2 hierarchy.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::files::{self, PATIENCE, entry, number, table};
use super::stats::{IoEntry, MemoryEntry, Stats};
use super::v1::{cpuset, huge_pages, throttling};
use crate::oci::Resources;

const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Makes the directory and those above it, with the controllers enabled in
/// each parent where the host lets us.
pub(super) fn create(directory: &Path, root: &Path) -> Result<()> {
    let relative = directory.strip_prefix(root).unwrap_or(directory);
    let mut parent = root.to_path_buf();
    for part in relative.components() {
        enable(&parent, parent == root);
        parent.push(part);
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make cgroup {}", parent.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Hands controllers down to the groups below.
///
/// A group with members of its own refuses most of them; those that it takes
/// (`cpu`, `pids`) would make it the root of a threaded subtree, where no
/// process can be put. Limits are then reported missing when they are set.
fn enable(group: &Path, is_root: bool) {
    let has_members = files::read(group, "cgroup.procs").is_ok_and(|members| !members.is_empty());
    if has_members && !is_root {
        return;
    }
    let enabled = files::read(group, "cgroup.subtree_control").unwrap_or_default();
    let available = files::read(group, "cgroup.controllers").unwrap_or_default();
    for controller in available.split_whitespace() {
        if CONTROLLERS.contains(&controller) && !enabled.split_whitespace().any(|name| name == controller) {
            let _ = files::write(group, "cgroup.subtree_control", format!("+{controller}"));
        }
    }
}

/// Sets limits, translated from version 1's words.
pub(super) fn apply(directory: &Path, resources: &Resources) -> Result<()> {
    let set = |file: &str, value: String| -> Result<()> {
        files::write(directory, file, &value).with_context(|| format!("set {file} to {value}"))
    };
    if let Some(memory) = &resources.memory {
        if let Some(swap) = swap_only(memory.swap, memory.limit)? {
            // A host without swap has no such file, and nothing to limit.
            if directory.join("memory.swap.max").exists() {
                set("memory.swap.max", or_max(swap))?;
            }
        }
        if let Some(limit) = memory.limit.filter(|n| *n != 0) {
            set("memory.max", or_max(limit))?;
        }
        if let Some(low) = memory.reservation.filter(|n| *n != 0) {
            set("memory.low", or_max(low))?;
        }
    }
    if let Some(cpu) = &resources.cpu {
        if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
            set("cpu.weight", weight(shares).to_string())?;
        }
        if cpu.quota.is_some() || cpu.period.is_some() {
            let quota = cpu.quota.filter(|n| *n != 0).unwrap_or(-1);
            let period = cpu.period.filter(|n| *n != 0).unwrap_or(100_000);
            set("cpu.max", format!("{} {period}", or_max(quota)))?;
        }
        if let Some(burst) = cpu.burst {
            set("cpu.max.burst", burst.to_string())?;
        }
        if cpu.realtime_period.is_some_and(|n| n != 0) || cpu.realtime_runtime.is_some_and(|n| n != 0) {
            bail!("limits of real-time tasks are not in cgroup v2");
        }
        if let Some(idle) = cpu.idle {
            set("cpu.idle", idle.to_string())?;
        }
        if let Some(cpus) = cpu.cpus.as_ref().filter(|list| !list.is_empty()) {
            set("cpuset.cpus", cpus.clone())?;
        }
        if let Some(mems) = cpu.mems.as_ref().filter(|list| !list.is_empty()) {
            set("cpuset.mems", mems.clone())?;
        }
    }
    if let Some(pids) = resources.pids.filter(|pids| pids.limit != 0) {
        let limit = match pids.limit {
            n if n < 0 => n,
            n => n.saturating_add(super::OWN_TASKS),
        };
        set("pids.max", or_max(limit))?;
    }
    if let Some(io) = &resources.block_io {
        if let Some(weight) = io.weight.filter(|n| *n != 0) {
            // blkio 10..1000 to io 1..10000.
            let weight = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
            if directory.join("io.weight").exists() {
                set("io.weight", weight.to_string())?;
            }
        }
        let throttles = [
            ("rbps", &io.throttle_read_bps_device),
            ("wbps", &io.throttle_write_bps_device),
            ("riops", &io.throttle_read_iops_device),
            ("wiops", &io.throttle_write_iops_device),
        ];
        for (key, limits) in throttles {
            for limit in limits {
                let value = format!("{}:{} {key}={}", limit.major, limit.minor, limit.rate);
                set("io.max", value)?;
            }
        }
    }
    if let Some(io) = &resources.block_io {
        for device in &io.weight_device {
            if let Some(weight) = device.weight {
                set("io.bfq.weight", format!("{}:{} {weight}", device.major, device.minor))?;
            }
        }
    }
    if resources.network.as_ref().is_some_and(|n| n.class_id.is_some() || !n.priorities.is_empty()) {
        bail!("linux.resources.network is not in cgroup v2");
    }
    for page in &resources.hugepage_limits {
        set(&format!("hugetlb.{}.max", page.page_size), page.limit.to_string())?;
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || file.starts_with('.') {
            bail!("unified resource {file:?} must be a file name");
        }
        set(file, value.clone())?;
    }
    Ok(())
}

/// Writes cgroup.freeze and waits for the event.
pub(super) fn freeze(directory: &Path, frozen: bool) -> Result<()> {
    files::write(directory, "cgroup.freeze", i32::from(frozen)).context("set cgroup.freeze")?;
    let asked = Instant::now();
    let deadline = asked + Duration::from_secs(5);
    loop {
        let events = table(directory, "cgroup.events");
        if (entry(&events, "frozen") == 1) == frozen {
            return Ok(());
        }
        if frozen && asked.elapsed() > PATIENCE && files::all_still(directory) {
            return Ok(());
        }
        if Instant::now() > deadline {
            if frozen {
                let _ = files::write(directory, "cgroup.freeze", 0);
            }
            bail!("unable to freeze: the host did not do so within 5 s");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Counters.
pub(super) fn stats(directory: &Path) -> Stats {
    let mut stats = Stats::default();
    stats.memory.usage = MemoryEntry {
        limit: number(directory, "memory.max").unwrap_or(u64::MAX),
        usage: number(directory, "memory.current").unwrap_or(0),
        max: number(directory, "memory.peak").unwrap_or(0),
        failcnt: entry(&table(directory, "memory.events"), "max"),
    };
    let raw = table(directory, "memory.stat");
    stats.memory.cache = entry(&raw, "file");
    stats.memory.raw = raw.into_iter().collect();
    stats.memory.swap.usage = number(directory, "memory.swap.current").unwrap_or(0);
    stats.memory.swap.limit = number(directory, "memory.swap.max").unwrap_or(u64::MAX);
    let cpu = table(directory, "cpu.stat");
    let ns = |key: &str| entry(&cpu, key).saturating_mul(1000);
    stats.cpu.usage.total = ns("usage_usec");
    stats.cpu.usage.user = ns("user_usec");
    stats.cpu.usage.kernel = ns("system_usec");
    throttling(&mut stats.cpu, &cpu, ns("throttled_usec"));
    stats.pids.current = number(directory, "pids.current").unwrap_or(0);
    stats.pids.limit = number(directory, "pids.max").unwrap_or(0);
    stats.cpuset = cpuset(directory, "cpuset.cpus.effective", "cpuset.mems.effective");
    // Version 2 keeps no peak.
    stats.hugetlb = huge_pages(directory, "current", "current", |directory, size| {
        entry(&table(directory, &format!("hugetlb.{size}.events")), "max")
    });
    for line in files::read(directory, "io.stat").unwrap_or_default().lines() {
        add_io(&mut stats, line);
    }
    stats
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn add_io(stats: &mut Stats, line: &str) -> Option<()> {
    let (device, fields) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    for field in fields.split(' ') {
        let (key, value) = field.split_once('=')?;
        let value = value.parse().ok()?;
        let (list, op) = match key {
            "rbytes" => (&mut stats.blkio.bytes, "Read"),
            "wbytes" => (&mut stats.blkio.bytes, "Write"),
            "rios" => (&mut stats.blkio.serviced, "Read"),
            "wios" => (&mut stats.blkio.serviced, "Write"),
            _ => continue,
        };
        list.push(IoEntry { major, minor, op: op.into(), value });
    }
    Some(())
}

/// `cpu.shares` 2..262144 to `cpu.weight` 1..10000.
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Version 1 limits memory and swap together, version 2 swap alone.
pub(super) fn swap_only(sum: Option<i64>, memory: Option<i64>) -> Result<Option<i64>> {
    match (sum, memory) {
        (None | Some(0), _) => Ok(None),
        (Some(n), _) if n < 0 => Ok(Some(-1)),
        (Some(_), None | Some(0)) => {
            bail!("unable to set swap limit without memory limit")
        }
        (Some(sum), Some(memory)) if memory < 0 || sum < memory => {
            bail!("memory+swap limit should be >= memory limit")
        }
        (Some(sum), Some(memory)) => Ok(Some(sum - memory)),
    }
}

fn or_max(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }

    #[test]
    fn swap_is_the_difference() {
        assert_eq!(swap_only(Some(300), Some(100)).unwrap(), Some(200));
        assert_eq!(swap_only(Some(-1), Some(100)).unwrap(), Some(-1));
        assert_eq!(swap_only(None, Some(100)).unwrap(), None);
        assert!(swap_only(Some(50), Some(100)).is_err());
        assert!(swap_only(Some(50), None).is_err());
    }
}
