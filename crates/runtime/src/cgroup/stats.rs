//! Counters in the shape of runc's `events --stats`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counters of one container.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Stats {
    pub(super) cpu: CpuStats,
    pub(super) cpuset: CpusetStats,
    pub(super) memory: MemoryStats,
    pub(super) pids: PidsStats,
    pub(super) blkio: IoStats,
    pub(super) hugetlb: BTreeMap<String, HugePages>,
    pub(super) intel_rdt: Nothing,
}

/// A group of counters that is never filled.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Nothing {}

/// cpuset(7).
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CpusetStats {
    pub(super) cpus: Vec<u16>,
    pub(super) cpu_exclusive: i64,
    pub(super) mems: Vec<u16>,
    pub(super) mem_hardwall: i64,
    pub(super) mem_exclusive: i64,
    pub(super) memory_migrate: i64,
    pub(super) memory_spread_page: i64,
    pub(super) memory_spread_slab: i64,
    pub(super) memory_pressure: i64,
    pub(super) sched_load_balance: i64,
    pub(super) sched_relax_domain_level: i64,
}

/// Bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct HugePages {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) max: u64,
    pub(super) failcnt: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CpuStats {
    pub(super) usage: CpuUsage,
    pub(super) throttling: Throttling,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CpuUsage {
    pub(super) total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) percpu: Vec<u64>,
    pub(super) kernel: u64,
    pub(super) user: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Throttling {
    pub(super) periods: u64,
    pub(super) throttled_periods: u64,
    pub(super) throttled_time: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MemoryStats {
    pub(super) cache: u64,
    pub(super) usage: MemoryEntry,
    pub(super) swap: MemoryEntry,
    pub(super) kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub(super) kernel_tcp: MemoryEntry,
    pub(super) raw: BTreeMap<String, u64>,
}

/// Bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MemoryEntry {
    pub(super) limit: u64,
    pub(super) usage: u64,
    pub(super) max: u64,
    pub(super) failcnt: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PidsStats {
    pub(super) current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) limit: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IoStats {
    #[serde(rename = "ioServiceBytesRecursive", skip_serializing_if = "Vec::is_empty")]
    pub(super) bytes: Vec<IoEntry>,
    #[serde(rename = "ioServicedRecursive", skip_serializing_if = "Vec::is_empty")]
    pub(super) serviced: Vec<IoEntry>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct IoEntry {
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) op: String,
    pub(super) value: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
