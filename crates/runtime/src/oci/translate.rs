//! From OCI's words to what a kernel process is told.

use std::fs;

use anyhow::{Result, bail};
use control::{
    CapabilityMasks, CgroupInfo, ConsoleSize, DeviceKind, DeviceSpec, IdMapping, ProcessSpec, Rlimit,
};

use super::config::{self, Config, Linux, Process, Resources};
use super::{capability, rlimit};

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
    Ok(ProcessSpec {
        args: process.args.clone(),
        env: last_values(&process.env),
        cwd: process.cwd.clone(),
        uid: process.user.uid,
        gid: process.user.gid,
        additional_gids: process.user.additional_gids.clone(),
        umask: process.user.umask,
        capabilities,
        rlimits,
        terminal: process.terminal,
        console_size: process.console_size.map(console_size),
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        nice: process.scheduler.as_ref().and_then(|s| s.nice),
    })
}

/// Of variables that are set twice, the last value counts.
fn last_values(env: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.len(), |(name, _)| name.len());
    let mut kept: Vec<String> = Vec::with_capacity(env.len());
    for entry in env {
        let length = name(entry);
        let same = kept.iter_mut().find(|old| {
            name(old) == length && old.as_bytes().get(..length) == entry.as_bytes().get(..length)
        });
        match same {
            Some(old) => old.clone_from(entry),
            None => kept.push(entry.clone()),
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
        cpu_shares: cpu.shares.filter(|shares| *shares > 0),
        cpuset_cpus: cpu.cpus.filter(|cpus| !cpus.is_empty()),
        pids_limit: positive(resources.pids.map(|pids| pids.limit)),
    }
}

/// What the bundle asks for and this runtime cannot give: refused by name.
pub(crate) fn refuse_unsupported(config: &Config) -> Result<()> {
    let Some(linux) = &config.linux else {
        return Ok(());
    };
    for namespace in &linux.namespaces {
        match (namespace.kind.as_str(), namespace.path.is_empty()) {
            ("pid" | "mount" | "ipc" | "uts" | "user" | "cgroup" | "network", true) | ("network", false) => {}
            ("time", _) => bail!("linux.namespaces: the time namespace is not supported"),
            (kind @ ("pid" | "mount" | "ipc" | "uts" | "user" | "cgroup"), false) => {
                bail!("linux.namespaces: joining a {kind} namespace by path is not supported")
            }
            (other, _) => bail!("invalid namespace type {other:?}"),
        }
    }
    let mut kinds: Vec<&str> = linux.namespaces.iter().map(|n| n.kind.as_str()).collect();
    kinds.sort_unstable();
    if let Some(pair) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("malformed spec file: duplicated ns {:?}", pair[0]);
    }
    if linux.intel_rdt.is_some() {
        bail!("linux.intelRdt is not supported");
    }
    if let Some(domain) = linux.personality.as_ref().map(|personality| &personality["domain"])
        && domain != "LINUX"
    {
        bail!("linux.personality.domain {domain} is not supported");
    }
    for name in linux.sysctl.keys() {
        let ours = ["net.", "fs.mqueue.", "kernel.msg", "kernel.shm", "kernel.sem"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == "kernel.domainname"
            || name == "kernel.hostname";
        if !ours {
            bail!("sysctl \"{name}\" is not in a separate kernel namespace");
        }
    }
    Ok(())
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
    fn the_last_value_of_a_variable_counts() {
        let env: Vec<String> = ["A=1", "AB=2", "A=3", "C"].map(str::to_owned).into();
        assert_eq!(last_values(&env), ["A=3", "AB=2", "C"]);
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
