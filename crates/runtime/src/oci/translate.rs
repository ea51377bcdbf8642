//! From OCI's words to what a kernel process is told.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use control::{
    CapabilityMasks, CgroupInfo, ConsoleSize, DeviceKind, DeviceSpec, IdMapping, MemoryPolicy, ProcessSpec,
    Rlimit, Scheduling,
};

use super::config::{self, Linux, Process, Resources};
use super::{capability, rlimit};

/// More memory nodes than any host has.
const MAX_NODES: u16 = 1024;

/// The `process` object with names resolved to numbers.
pub(crate) fn process(process: &Process) -> Result<ProcessSpec> {
    if process.args.is_empty() {
        bail!("args must not be empty");
    }
    if process.cwd.is_empty() {
        bail!("Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        bail!("Cwd must be an absolute path");
    }
    let mut rlimits = Vec::new();
    for limit in &process.rlimits {
        let Some(resource) = rlimit::number(&limit.kind) else {
            bail!("invalid rlimit type {}", limit.kind);
        };
        if rlimits.iter().any(|known: &Rlimit| known.resource == resource) {
            bail!("rlimit {} is given twice", limit.kind);
        }
        // The answers setrlimit(2) would give to the guest's root.
        if limit.soft > limit.hard {
            bail!("error setting rlimit type {resource}: invalid argument");
        }
        if limit.kind == "RLIMIT_NOFILE" && limit.hard > most_files() {
            bail!("error setting rlimit type {resource}: operation not permitted");
        }
        rlimits.push(Rlimit { resource, soft: limit.soft, hard: limit.hard });
    }
    let capabilities = process
        .capabilities
        .as_ref()
        .map(|sets| CapabilityMasks {
            bounding: capability::mask(&sets.bounding),
            effective: capability::mask(&sets.effective),
            inheritable: capability::mask(&sets.inheritable),
            permitted: capability::mask(&sets.permitted),
            ambient: capability::mask(&sets.ambient),
        })
        .unwrap_or_default();
    // As capset(2) would say to a process that has given its bounding set up.
    if capabilities.inheritable & !capabilities.bounding != 0 {
        bail!("unable to apply caps: operation not permitted");
    }
    check_environment(&process.env)?;
    Ok(ProcessSpec {
        args: process.args.iter().map(OsString::from).collect(),
        env: last_values(process.env.iter().map(OsString::from)),
        cwd: process.cwd.clone().into(),
        uid: process.user.uid,
        gid: process.user.gid,
        // Each once, as with runc.
        additional_gids: process
            .user
            .additional_gids
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        umask: process.user.umask,
        capabilities,
        rlimits,
        terminal: process.terminal,
        console_size: process.console_size.map(console_size),
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
    })
}

/// The policies that need no privilege; the host schedules guests beside others.
fn scheduler(scheduler: &config::Scheduler) -> Result<Scheduling> {
    let policy = match scheduler.policy.as_str() {
        "" | "SCHED_OTHER" => 0,
        "SCHED_BATCH" => 3,
        "SCHED_IDLE" => 5,
        other @ ("SCHED_FIFO" | "SCHED_RR" | "SCHED_DEADLINE" | "SCHED_ISO") => {
            bail!("process.scheduler.policy {other} is not supported: the host's time is shared")
        }
        other => bail!("invalid process.scheduler.policy {other:?}"),
    };
    let nice = scheduler.nice.unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        bail!("invalid process.scheduler.nice {nice}");
    }
    let times = [scheduler.runtime, scheduler.deadline, scheduler.period];
    if scheduler.priority.unwrap_or(0) != 0 || times.iter().flatten().any(|n| *n != 0) {
        bail!(
            "process.scheduler: priority, runtime, deadline and period are for policies that are not supported"
        );
    }
    let mut reset_on_fork = false;
    for flag in &scheduler.flags {
        match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => reset_on_fork = true,
            other => bail!("process.scheduler.flags: {other} is not supported"),
        }
    }
    Ok(Scheduling { policy, nice, reset_on_fork })
}

/// The number of ioprio_set(2).
fn io_priority(wanted: &config::IoPriority) -> Result<u32> {
    let class = match wanted.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => bail!("invalid process.ioPriority.class {other:?}"),
    };
    match u32::try_from(wanted.priority) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => bail!("invalid process.ioPriority.priority {}", wanted.priority),
    }
}

/// Where memory comes from, in set_mempolicy(2)'s numbers.
pub(crate) fn memory_policy(wanted: &config::MemoryPolicy) -> Result<MemoryPolicy> {
    let mode = match wanted.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        other => bail!("invalid linux.memoryPolicy.mode {other:?}"),
    };
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= match flag.as_str() {
            "MPOL_F_STATIC_NODES" => 1 << 15,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            other => bail!("invalid linux.memoryPolicy.flags {other:?}"),
        };
    }
    let nodes = numbers(&wanted.nodes)
        .filter(|nodes| nodes.iter().all(|node| *node < MAX_NODES))
        .with_context(|| format!("invalid linux.memoryPolicy.nodes {:?}", wanted.nodes))?;
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// Numbers of a list such as `0-2,5`, as cpuset(7) writes CPUs and memory nodes; none if it is no list.
pub(crate) fn numbers(list: &str) -> Option<Vec<u16>> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let mut all = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)?..=number(last)?);
    }
    Some(all)
}

/// Refuses what is no variable, in runc's words.
pub(crate) fn check_environment(env: &[impl AsRef<OsStr>]) -> Result<()> {
    match env.iter().map(AsRef::as_ref).find(|entry| !entry.as_bytes().contains(&b'=')) {
        Some(entry) => {
            bail!("unable to start container process: invalid environment variable: {:?}", entry.display())
        }
        None => Ok(()),
    }
}

/// Of variables that are set twice, the last value counts.
pub(crate) fn last_values(env: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    fn name(entry: &OsStr) -> Option<&[u8]> {
        entry.as_bytes().split(|byte| *byte == b'=').next()
    }
    let mut kept: Vec<OsString> = Vec::new();
    for entry in env {
        match kept.iter_mut().find(|old| name(old) == name(&entry)) {
            Some(old) => *old = entry,
            None => kept.push(entry),
        }
    }
    kept
}

/// The greatest RLIMIT_NOFILE: /proc/sys/fs/nr_open.
fn most_files() -> u64 {
    fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1 << 20)
}

/// Names of capabilities in the configuration that do not exist.
pub(crate) fn unknown_capabilities(process: &Process) -> Vec<&str> {
    let Some(sets) = &process.capabilities else {
        return Vec::new();
    };
    let mut unknown: Vec<&str> =
        [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| capability::bit(name).is_none())
            .collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

fn console_size(size: config::ConsoleSize) -> ConsoleSize {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    ConsoleSize { rows: cells(size.height), columns: cells(size.width) }
}

/// Device nodes of the bundle.
pub(crate) fn devices(linux: &Linux) -> Result<Vec<DeviceSpec>> {
    let mut devices = Vec::new();
    for device in &linux.devices {
        let kind = match device.kind.as_str() {
            "c" | "u" => DeviceKind::Character,
            "b" => DeviceKind::Block,
            "p" => DeviceKind::Fifo,
            other => bail!("invalid device type {other:?} of {}", device.path),
        };
        let (Ok(major), Ok(minor)) = (u32::try_from(device.major), u32::try_from(device.minor)) else {
            bail!("invalid device number of {}", device.path);
        };
        devices.push(DeviceSpec {
            path: device.path.clone(),
            kind,
            major,
            minor,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    Ok(devices)
}

/// Id ranges of a user namespace that the bundle asks for.
pub(crate) fn id_mappings(mappings: &[config::IdMapping]) -> Vec<IdMapping> {
    mappings
        .iter()
        .map(|mapping| IdMapping {
            inside: mapping.container_id,
            outside: mapping.host_id,
            length: mapping.size,
        })
        .collect()
}

/// The limits the guest is shown.
pub(crate) fn cgroup_info(resources: Option<&Resources>) -> CgroupInfo {
    let Some(resources) = resources else {
        return CgroupInfo::default();
    };
    let positive = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let memory = resources.memory.unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    CgroupInfo {
        memory_limit: positive(memory.limit),
        memory_swap_limit: positive(memory.swap),
        cpu_quota_us: positive(cpu.quota),
        cpu_period_us: cpu.period.filter(|period| *period > 0),
        cpu_weight: cpu.shares.filter(|shares| *shares > 0).map(crate::cgroup::weight),
        pids_limit: positive(resources.pids.map(|pids| pids.limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_needs_program_and_folder() {
        let mut spec = Process { args: vec!["true".into()], cwd: "/".into(), ..Process::default() };
        assert!(process(&spec).is_ok());
        spec.cwd = "relative".into();
        assert!(process(&spec).is_err());
        spec.cwd = "/".into();
        spec.args.clear();
        assert!(process(&spec).is_err());
    }

    #[test]
    fn memory_nodes_are_listed() {
        let policy = |mode: &str, nodes: &str, flag: &[&str]| {
            memory_policy(&config::MemoryPolicy {
                mode: mode.into(),
                nodes: nodes.into(),
                flags: flag.iter().map(ToString::to_string).collect(),
            })
        };
        let bound = policy("MPOL_BIND", "0-2, 5", &["MPOL_F_STATIC_NODES"]).unwrap();
        assert_eq!((bound.mode, bound.nodes), (2 | 1 << 15, vec![0, 1, 2, 5]));
        assert!(policy("MPOL_DEFAULT", "", &[]).unwrap().nodes.is_empty());
        for (mode, nodes, flags) in [
            ("INTERLEAVE", "0", &[][..]),
            ("", "0-7", &[]),
            ("MPOL_BIND", "0-9876543210", &[]),
            ("MPOL_BIND", "x", &[]),
            ("MPOL_BIND", "0", &["badflag"]),
        ] {
            assert!(policy(mode, nodes, flags).is_err(), "{mode} {nodes}");
        }
    }

    #[test]
    fn lists_become_numbers() {
        assert_eq!(numbers("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(
            (numbers("\n"), numbers("3-1"), numbers(" 5 ,")),
            (Some(vec![]), Some(vec![]), Some(vec![5]))
        );
        assert_eq!((numbers("x"), numbers("1-"), numbers("65536")), (None, None, None));
    }

    #[test]
    fn priorities_are_numbers() {
        let io = |class: &str, priority| io_priority(&config::IoPriority { class: class.into(), priority });
        assert_eq!(io("IOPRIO_CLASS_BE", 4).unwrap(), 2 << 13 | 4);
        assert!(io("IOPRIO_CLASS_BE", 8).is_err());
        assert!(io("best", 1).is_err());
        let wanted = |policy: &str, nice| config::Scheduler {
            policy: policy.into(),
            nice: Some(nice),
            ..config::Scheduler::default()
        };
        assert_eq!(scheduler(&wanted("SCHED_BATCH", 5)).unwrap().nice, 5);
        assert!(scheduler(&wanted("SCHED_FIFO", 0)).unwrap_err().to_string().contains("SCHED_FIFO"));
        assert!(scheduler(&wanted("SCHED_OTHER", 20)).is_err());
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let env = ["A=1", "AB=2", "A=3", "C"].map(OsString::from);
        assert_eq!(last_values(env), ["A=3", "AB=2", "C"]);
    }

    #[test]
    fn unlimited_is_not_shown_as_a_limit() {
        let resources: Resources = serde_json::from_str(
            r#"{"memory":{"limit":-1},"cpu":{"quota":50000,"period":100000},"pids":{"limit":0}}"#,
        )
        .unwrap();
        let info = cgroup_info(Some(&resources));
        assert_eq!(info.memory_limit, None);
        assert_eq!(info.cpu_quota_us, Some(50_000));
        assert_eq!(info.pids_limit, None);
    }
}
