//! What the container's control group on the host allows, as the guest is shown it (cgroups(7)). The host enforces it.

use crate::Kernel;

/// Limits of the container's control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap space beside them.
    pub swap: Option<u64>,
    /// CPU time and the period that it is for, in microseconds.
    pub cpu_quota: Option<(u64, u64)>,
    /// Its part of the CPUs beside other groups: 1 to 10000.
    pub cpu_weight: Option<u64>,
}

impl Kernel {
    /// The limits of now: whoever runs the container may change them.
    pub fn cgroup_limits(&self) -> CgroupLimits {
        *self.cgroup_limits.read()
    }

    /// Other limits.
    pub fn set_cgroup_limits(&self, limits: CgroupLimits) {
        *self.cgroup_limits.write() = limits;
    }
}
