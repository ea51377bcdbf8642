//! The files that tell the kernel process how much CPU time and memory its groups leave it.

use std::fs::File;
use std::path::{Path, PathBuf};

use control::{MemoryFds, QuotaFds};

use super::{Cgroup, Hierarchy};
use crate::launch::FdList;
use crate::oci::translate;

/// More groups above each other than any engine makes.
const MAX_DEPTH: usize = 16;

/// Opens the control files of the group and of all above it, for reading. What is not there limits nothing.
pub(crate) fn open(cgroup: &Cgroup, hierarchy: &Hierarchy, fds: &mut FdList) -> Vec<QuotaFds> {
    let mut found = Vec::new();
    for directory in levels(cgroup, hierarchy, "cpu") {
        let mut add = |name: &str| File::open(directory.join(name)).ok().map(|file| fds.add(file));
        let (v2, v1) = (add("cpu.max"), add("cpu.cfs_quota_us"));
        let Some(quota) = v2.or(v1) else { continue };
        let period = v1.and_then(|_| add("cpu.cfs_period_us"));
        found.push(QuotaFds { quota, period, stat: add("cpu.stat") });
    }
    found
}

/// As [`open`], of memory: of the container's own group, and of those above that limit it now.
pub(crate) fn open_memory(cgroup: &Cgroup, hierarchy: &Hierarchy, fds: &mut FdList) -> Vec<MemoryFds> {
    let mut found = Vec::new();
    for directory in levels(cgroup, hierarchy, "memory") {
        let own = cgroup.v1.get("memory").or(cgroup.v2.as_ref()) == Some(&directory);
        let open = |v2: &str, v1: &str| {
            File::open(directory.join(v2)).or_else(|_| File::open(directory.join(v1))).ok()
        };
        let limits = |file: &File| {
            let text = std::io::read_to_string(file).unwrap_or_default();
            text.trim().parse::<u64>().is_ok_and(|limit| limit < UNLIMITED)
        };
        let limit = open("memory.max", "memory.limit_in_bytes").filter(|file| own || limits(file));
        let usage = open("memory.current", "memory.usage_in_bytes");
        let stat = File::open(directory.join("memory.stat")).ok();
        if let (Some(limit), Some(usage), Some(stat)) = (limit, usage, stat) {
            let (limit, usage, stat) = (fds.add(limit), fds.add(usage), fds.add(stat));
            // What happened above is not the container's to know.
            let mut told = |name: &str| {
                let file = File::open(directory.join(name)).ok().filter(|_| own);
                file.map(|file| fds.add(file))
            };
            let events = ["memory.events", "memory.oom_control", "memory.failcnt"].map(&mut told);
            let peak = told("memory.peak").or_else(|| told("memory.max_usage_in_bytes"));
            let events = events.into_iter().flatten().collect();
            found.push(MemoryFds { limit, usage, stat, events, peak, own });
        }
    }
    found
}

/// Version 1 has a number of this size where there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// CPUs that the host has and uses, whichever of them the container may use.
pub(crate) fn online_cpus() -> usize {
    let listed = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let listed = listed.and_then(|text| Some(translate::numbers(&text)?.len()));
    let own = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    listed.filter(|count| *count > 0).unwrap_or_else(own)
}

/// The container's group with a controller (the caller's where it has none) and those above.
fn levels(cgroup: &Cgroup, hierarchy: &Hierarchy, controller: &str) -> Vec<PathBuf> {
    let mounted = hierarchy
        .v1
        .iter()
        .find(|mounted| mounted.controllers.iter().any(|name| name == controller))
        .or(hierarchy.v2.as_ref());
    let own = |root: &Path, own: &str| root.join(own.trim_start_matches('/'));
    let planned = cgroup.v1.get(controller).or(cgroup.v2.as_ref());
    let Some(root) = mounted.map(|mounted| mounted.root.as_path()) else { return Vec::new() };
    let directory = planned.cloned().or_else(|| mounted.map(|mounted| own(&mounted.root, &mounted.own)));
    let above = directory.as_deref().into_iter().flat_map(Path::ancestors);
    above.take_while(|path| path.starts_with(root)).take(MAX_DEPTH).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::Mounted;
    use super::*;

    #[test]
    fn all_groups_above_count() {
        let mounted = |root: &str, controllers: &[&str], own: &str| Mounted {
            root: root.into(),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            own: own.into(),
        };
        let hierarchy = Hierarchy {
            v1: vec![mounted("/c/memory", &["memory"], "/x"), mounted("/c/cpu", &["cpu", "cpuacct"], "/x")],
            v2: None,
        };
        let paths = |cgroup: &Cgroup, hierarchy: &Hierarchy| {
            levels(cgroup, hierarchy, "cpu").iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        let planned = Cgroup::plan(&hierarchy, "/docker/box", "box");
        assert_eq!(paths(&planned, &hierarchy), ["/c/cpu/docker/box", "/c/cpu/docker", "/c/cpu"]);
        // Rootless: the caller's.
        assert_eq!(paths(&Cgroup::default(), &hierarchy), ["/c/cpu/x", "/c/cpu"]);
        assert!(paths(&Cgroup::default(), &Hierarchy::default()).is_empty());
    }
}
