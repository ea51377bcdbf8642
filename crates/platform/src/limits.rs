//! The host's soft limits on the memory of guest processes: they follow those of the guest, so that the host itself
//! refuses what is beyond them. Its hard limits stay, since nobody here could raise them again.

use crate::process::ProcessCore;
use crate::shim;
use crate::thread::ThreadHandle;
use crate::types::MemoryLimits;
use slot::layout::{BATCH, SLOT_SIZE};

/// RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK of getrlimit(2).
const RESOURCES: [u32; 4] = [9, 2, 3, 8];
/// The first of them.
const ADDRESS_SPACE: usize = 0;
const PAGE: u64 = 4096;

/// The limits of one host process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    hard: [u64; 4],
    /// As they are now, once that is known.
    soft: [Option<u64>; 4],
    /// As they shall be, where the hard ones allow it.
    wanted: [u64; 4],
}

impl HostLimits {
    /// Those of a host process, which it is left with.
    pub(crate) fn of(pid: i32) -> HostLimits {
        let all =
            RESOURCES.map(|resource| host::process::limit(pid, resource).unwrap_or((u64::MAX, u64::MAX)));
        let soft = all.map(|(soft, _)| soft);
        HostLimits { hard: all.map(|(_, hard)| hard), soft: soft.map(Some), wanted: soft }
    }

    /// Those of a process that it forks. Other threads may change the parent's until the host forks.
    pub(crate) fn inherited(&self, alone: bool) -> HostLimits {
        HostLimits { soft: if alone { self.soft } else { [None; 4] }, ..*self }
    }

    /// Brings the host up to date, if the process is known.
    fn follow(&mut self, pid: i32) {
        if pid == 0 {
            return;
        }
        for (i, resource) in RESOURCES.into_iter().enumerate() {
            let (soft, hard) = (self.wanted[i].min(self.hard[i]), self.hard[i]);
            if Some(soft) == self.soft[i] {
                continue;
            }
            match host::process::set_limit(pid, resource, soft, hard) {
                Ok(()) => self.soft[i] = Some(soft),
                // It has ended, or limits are not enforced.
                Err(errno) => tracing::debug!("limit {resource} of the host's process {pid}: {errno}"),
            }
        }
    }

    /// Lets the process map slots, and little else: its other threads map memory meanwhile.
    fn lift(&mut self, pid: i32) {
        let (hard, resource) = (self.hard[ADDRESS_SPACE], RESOURCES[ADDRESS_SPACE]);
        let limit = self.wanted[ADDRESS_SPACE];
        if limit >= hard && self.soft[ADDRESS_SPACE] == Some(hard) {
            return;
        }
        // What is not known to be less may be all.
        let lifted = pages_of(pid).map_or(hard, |pages| {
            let used = pages.saturating_mul(PAGE).saturating_add(2 * BATCH as u64 * SLOT_SIZE);
            limit.max(used).min(hard)
        });
        if host::process::set_limit(pid, resource, lifted, hard).is_ok() {
            self.soft[ADDRESS_SPACE] = Some(lifted);
        }
    }
}

/// How much a process has mapped: the first word of proc_pid_statm(5).
fn pages_of(pid: i32) -> Option<u64> {
    host::proc_fs::read(&format!("{pid}/statm")).ok()?.split(' ').next()?.parse().ok()
}

impl ThreadHandle {
    /// Has the host enforce these limits on the thread's process, now or as soon as it is known.
    pub fn limit_memory(&self, limits: &MemoryLimits) {
        self.core.process.limit_memory(limits);
    }
}

impl ProcessCore {
    fn limit_memory(&self, limits: &MemoryLimits) {
        let MemoryLimits { address_space, data, stack, locked } = *limits;
        // What the shim takes is not counted against the guest.
        let wanted =
            [address_space.saturating_add(shim::size()), data.saturating_add(shim::DATA), stack, locked];
        self.with_limits(|limits, pid| {
            limits.wanted = wanted;
            limits.follow(pid);
        });
    }
    /// Its host process has become known, or has mapped its slots.
    pub(crate) fn follow_limits(&self) {
        self.with_limits(HostLimits::follow);
    }
    /// It is about to map slots. That must not fail, even where the guest has more than its limit already: Linux
    /// makes processes and threads all the same.
    pub(crate) fn lift_limits(&self) {
        self.with_limits(HostLimits::lift);
    }
}
