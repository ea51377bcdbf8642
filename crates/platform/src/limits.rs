//! The host's soft limits on the memory of guest processes: they follow those of the guest, so that the host itself
//! refuses what is beyond them. Its hard limits stay, since nobody here could raise them again.

use crate::process::ProcessCore;
use crate::shim;
use crate::thread::ThreadHandle;
use crate::types::MemoryLimits;

/// RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK of getrlimit(2).
const RESOURCES: [u32; 4] = [9, 2, 3, 8];
/// The first of them.
const ADDRESS_SPACE: usize = 0;

/// The limits of one host process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    hard: [u64; 4],
    /// As they are now.
    soft: [u64; 4],
    /// As they shall be, where the hard ones allow it.
    wanted: [u64; 4],
}

impl HostLimits {
    /// Those of a host process, which it is left with.
    pub(crate) fn of(pid: i32) -> HostLimits {
        let all =
            RESOURCES.map(|resource| host::process::limit(pid, resource).unwrap_or((u64::MAX, u64::MAX)));
        let soft = all.map(|(soft, _)| soft);
        HostLimits { hard: all.map(|(_, hard)| hard), soft, wanted: soft }
    }

    /// Brings the host up to date, if the process is known.
    fn follow(&mut self, pid: i32) {
        if pid == 0 {
            return;
        }
        for (i, resource) in RESOURCES.into_iter().enumerate() {
            let (soft, hard) = (self.wanted[i].min(self.hard[i]), self.hard[i]);
            if soft == self.soft[i] {
                continue;
            }
            match host::process::set_limit(pid, resource, soft, hard) {
                Ok(()) => self.soft[i] = soft,
                // It has ended, or limits are not enforced.
                Err(errno) => tracing::debug!("limit {resource} of the host's process {pid}: {errno}"),
            }
        }
    }

    /// Lets the process map whatever it wants for a while.
    fn lift(&mut self, pid: i32) {
        let hard = self.hard[ADDRESS_SPACE];
        let resource = RESOURCES[ADDRESS_SPACE];
        if self.soft[ADDRESS_SPACE] != hard && host::process::set_limit(pid, resource, hard, hard).is_ok() {
            self.soft[ADDRESS_SPACE] = hard;
        }
    }
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
