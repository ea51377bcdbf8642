//! How much memory there is and how much can be had, as the guest is shown it: proc_meminfo(5), sysinfo(2).
//!
//! Programs size themselves by it, so it is what they can really get: of the machine what Linux tells its own
//! programs, and where a control group limits the sandbox, what the narrowest group has left. A group's page cache
//! counts as available, since the host takes it back before it kills.

use std::os::fd::OwnedFd;

use crate::Kernel;

/// The control files of one group of the host that limits memory (cgroups(7)). Read anew each time.
#[derive(Debug)]
pub struct MemoryFiles {
    /// `memory.max`, or version 1's `memory.limit_in_bytes`.
    pub limit: OwnedFd,
    /// `memory.current`, or version 1's `memory.usage_in_bytes`.
    pub usage: OwnedFd,
    /// `memory.stat`.
    pub stat: OwnedFd,
    /// `memory.events`, or version 1's `memory.oom_control` and `memory.failcnt`; where it is the container's own.
    pub events: Vec<OwnedFd>,
    /// `memory.peak`, or version 1's `memory.max_usage_in_bytes`; likewise.
    pub peak: Option<OwnedFd>,
    /// It is the container's own, with nobody else in it.
    pub own: bool,
}

/// Where the kernel process learns of memory.
#[derive(Debug, Default)]
pub struct MemorySources {
    /// `/proc/meminfo` of the host.
    pub meminfo: Option<OwnedFd>,
    /// The groups that limit the sandbox: its own and those above.
    pub groups: Vec<MemoryFiles>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that there is.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
    /// What can be had without swapping.
    pub available: u64,
    /// In buffers of block devices.
    pub buffers: u64,
    /// In the page cache.
    pub cached: u64,
}

/// What a group of the host uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupUse {
    /// All of it.
    pub usage: u64,
    /// Memory that no file backs.
    pub anon: u64,
    /// Page cache, files in memory among it.
    pub file: u64,
    /// Of that, what the host can take back.
    pub reclaimable: u64,
}

/// What happened at a group's limit of memory, `memory.events` of cgroups(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupEvents {
    /// How often the limit was reached.
    pub max: u64,
    /// How often nothing could be taken back then.
    pub oom: u64,
    /// How many processes the host has killed for it.
    pub oom_kill: u64,
}

impl Memory {
    /// From the text of /proc/meminfo.
    fn parse(text: &str) -> Option<Memory> {
        let row = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let free = row("MemFree")?;
        let (buffers, cached) = (row("Buffers").unwrap_or(0), row("Cached").unwrap_or(0));
        let available = row("MemAvailable").unwrap_or(free);
        Some(Memory { total: row("MemTotal")?, free, available, buffers, cached })
    }

    /// What is left of it within a limit of a group.
    fn within(self, limit: u64, group: &GroupUse) -> Memory {
        if limit >= self.total {
            return self;
        }
        let left = limit.saturating_sub(group.usage);
        Memory {
            total: limit,
            free: self.free.min(left),
            available: self.available.min(left.saturating_add(group.reclaimable)),
            // Which device's they are is not told of a group.
            buffers: 0,
            cached: group.file.min(limit),
        }
    }
}

impl MemoryFiles {
    /// Bytes at most; none without a limit.
    fn limit(&self) -> Option<u64> {
        // "max" is none; version 1 says none by a number that no machine has.
        text(&self.limit).trim().parse().ok()
    }
    fn in_use(&self) -> GroupUse {
        let usage = text(&self.usage).trim().parse().unwrap_or(0);
        GroupUse { usage, ..parts(&text(&self.stat)) }
    }
}

/// What happened, from the contents of all files about that.
fn happened(files: &[String]) -> GroupEvents {
    let row = |name: &str| {
        let mut lines = files.iter().flat_map(|text| text.lines());
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    // A number alone is version 1's count of the limit, which has none of what it led to.
    let reached = files.iter().find_map(|text| text.trim().parse().ok());
    let oom_kill = row("oom_kill").unwrap_or(0);
    GroupEvents { max: row("max").or(reached).unwrap_or(0), oom: row("oom").unwrap_or(oom_kill), oom_kill }
}

/// The parts of a group's use from its `memory.stat`.
fn parts(stat: &str) -> GroupUse {
    let row = |name: &str| {
        let rest = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        rest.trim().parse::<u64>().ok()
    };
    // Version 1 counts groups below in rows of their own.
    let of = |v1: &str, v2: &str| row(v1).or_else(|| row(v2)).unwrap_or(0);
    GroupUse {
        usage: 0,
        anon: of("total_rss", "anon"),
        file: of("total_cache", "file"),
        reclaimable: of("total_inactive_file", "inactive_file")
            .saturating_add(of("total_active_file", "active_file"))
            .saturating_add(row("slab_reclaimable").unwrap_or(0)),
    }
}

/// The file as it is now, at most two pages of it.
fn text(file: &OwnedFd) -> String {
    let mut bytes = [0; 8192];
    let n = rustix::io::pread(file, &mut bytes[..], 0).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..n).unwrap_or_default()).into_owned()
}

impl Kernel {
    /// Memory as the sandbox may see it, as it is now.
    pub fn memory(&self) -> Memory {
        let sources = &self.memory_sources;
        let mut memory =
            sources.meminfo.as_ref().and_then(|file| Memory::parse(&text(file))).unwrap_or_else(of_host);
        let mut narrowest = GroupUse::default();
        for group in &sources.groups {
            if let Some(limit) = group.limit().filter(|limit| *limit < memory.total) {
                narrowest = group.in_use();
                memory = memory.within(limit, &narrowest);
            }
        }
        // What the container was given, where the host's files are out of reach.
        memory.within(self.cgroup_limits().memory.unwrap_or(u64::MAX), &narrowest)
    }

    /// What the container's own group uses, if it has one.
    pub fn group_memory(&self) -> Option<GroupUse> {
        self.own_group().map(MemoryFiles::in_use)
    }

    /// What happened at its limit.
    pub fn group_events(&self) -> GroupEvents {
        let texts = self.own_group().map(|group| group.events.iter().map(text).collect::<Vec<_>>());
        happened(&texts.unwrap_or_default())
    }

    /// The most that it has used at once, in bytes; none where the host does not tell.
    pub fn group_peak(&self) -> Option<u64> {
        text(self.own_group()?.peak.as_ref()?).trim().parse().ok()
    }

    fn own_group(&self) -> Option<&MemoryFiles> {
        self.memory_sources.groups.iter().find(|group| group.own)
    }
}

/// Of the machine, without its page cache.
fn of_host() -> Memory {
    let info = rustix::system::sysinfo();
    let bytes = |units: u64| units.saturating_mul(u64::from(info.mem_unit).max(1));
    let (free, buffers) = (bytes(info.freeram), bytes(info.bufferram));
    let available = free.saturating_add(buffers);
    Memory { total: bytes(info.totalram), free, available, buffers, cached: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "MemTotal:       1000 kB\nMemFree:         300 kB\nMemAvailable:    700 kB\n\
                        Buffers:          50 kB\nCached:          400 kB\nSwapCached:        7 kB\n";
    const KIB: u64 = 1024;

    #[test]
    fn the_host_is_shown_as_it_is() {
        let memory = Memory::parse(HOST).unwrap();
        assert_eq!((memory.total, memory.free, memory.available), (1000 * KIB, 300 * KIB, 700 * KIB));
        assert_eq!((memory.buffers, memory.cached), (50 * KIB, 400 * KIB));
        assert_eq!(memory.within(u64::MAX, &GroupUse::default()), memory);
        assert_eq!(Memory::parse("nonsense"), None);
    }

    #[test]
    fn a_limit_leaves_what_is_not_used() {
        let host = Memory::parse(HOST).unwrap();
        let group = GroupUse { usage: 150 * KIB, ..parts("total_cache 61440\ntotal_active_file 20480\n") };
        let memory = host.within(200 * KIB, &group);
        assert_eq!((memory.total, memory.free, memory.available), (200 * KIB, 50 * KIB, 70 * KIB));
        assert_eq!(memory.cached, 60 * KIB);
        // The host has less than the limit leaves.
        let group = GroupUse { usage: 100 * KIB, ..GroupUse::default() };
        let memory = host.within(900 * KIB, &group);
        assert_eq!((memory.free, memory.available), (300 * KIB, 700 * KIB));
        // More is used than there may be.
        assert_eq!(host.within(50 * KIB, &group).free, 0);
    }

    #[test]
    fn both_versions_of_events_are_read() {
        let texts =
            |texts: &[&str]| happened(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let v1 = ["oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "17\n"];
        assert_eq!(texts(&v1), GroupEvents { max: 17, oom: 2, oom_kill: 2 });
        let v2 = ["low 0\nhigh 0\nmax 9\noom 3\noom_kill 1\noom_group_kill 0\n"];
        assert_eq!(texts(&v2), GroupEvents { max: 9, oom: 3, oom_kill: 1 });
        assert_eq!(texts(&[]), GroupEvents::default());
    }

    #[test]
    fn both_versions_of_stat_are_read() {
        let v1 = "cache 1\nrss 2\ninactive_file 3\ntotal_cache 10\ntotal_rss 20\ntotal_inactive_file 5\ntotal_active_file 4\n";
        assert_eq!(parts(v1), GroupUse { usage: 0, anon: 20, file: 10, reclaimable: 9 });
        let v2 = "anon 20\nfile 10\ninactive_anon 1\ninactive_file 5\nactive_file 3\nslab_reclaimable 1\n";
        assert_eq!(parts(v2), GroupUse { usage: 0, anon: 20, file: 10, reclaimable: 9 });
    }
}
