//! Resource limits: getrlimit(2).

use identity::Capability;
use linux_abi::process::{RLIM_INFINITY, RLIM_NLIMITS, Rlimit};

/// Resource numbers.
#[expect(missing_docs, reason = "named in getrlimit(2)")]
pub mod resource {
    pub const CPU: usize = 0;
    pub const FSIZE: usize = 1;
    pub const DATA: usize = 2;
    pub const STACK: usize = 3;
    pub const CORE: usize = 4;
    pub const RSS: usize = 5;
    pub const NPROC: usize = 6;
    pub const NOFILE: usize = 7;
    pub const MEMLOCK: usize = 8;
    pub const AS: usize = 9;
    pub const LOCKS: usize = 10;
    pub const SIGPENDING: usize = 11;
    pub const MSGQUEUE: usize = 12;
    pub const NICE: usize = 13;
    pub const RTPRIO: usize = 14;
    pub const RTTIME: usize = 15;
}

/// The limits of a process.
#[derive(Clone, Copy, Debug)]
pub struct Limits(pub [Rlimit; RLIM_NLIMITS]);

impl Default for Limits {
    /// What Linux gives the first process.
    fn default() -> Limits {
        let mut all = [Rlimit { cur: RLIM_INFINITY, max: RLIM_INFINITY }; RLIM_NLIMITS];
        all[resource::STACK] = Rlimit { cur: 8 << 20, max: RLIM_INFINITY };
        all[resource::CORE] = Rlimit { cur: 0, max: RLIM_INFINITY };
        all[resource::NOFILE] = Rlimit { cur: 1 << 20, max: 1 << 20 };
        all[resource::MEMLOCK] = Rlimit { cur: 8 << 20, max: 8 << 20 };
        all[resource::MSGQUEUE] = Rlimit { cur: 819_200, max: 819_200 };
        all[resource::NICE] = Rlimit { cur: 0, max: 0 };
        all[resource::RTPRIO] = Rlimit { cur: 0, max: 0 };
        all[resource::SIGPENDING] = Rlimit { cur: 62_000, max: 62_000 };
        all[resource::NPROC] = Rlimit { cur: 62_000, max: 62_000 };
        Limits(all)
    }
}

impl Limits {
    /// The soft limit of a resource.
    pub fn soft(&self, resource: usize) -> u64 {
        self.0.get(resource).map_or(RLIM_INFINITY, |l| l.cur)
    }
}

/// What the host is to enforce: for a process with these capabilities, in whose memory exec has reserved `gap` bytes.
pub fn of_memory(limits: &Limits, credentials: &identity::Credentials, gap: u64) -> platform::MemoryLimits {
    let data = limits.0[resource::DATA];
    let exempt = credentials.capable(Capability::IPC_LOCK);
    platform::MemoryLimits {
        address_space: limits.soft(resource::AS).saturating_add(gap),
        // Of a soft limit of 0 Linux takes the hard one, but for brk(2).
        data: if data.cur == 0 { data.max } else { data.cur },
        stack: limits.soft(resource::STACK),
        locked: if exempt { RLIM_INFINITY } else { limits.soft(resource::MEMLOCK) },
    }
}

/// Has the host enforce the limits of a process, which the caller keeps from changing, on its memory as it is now.
pub fn enforce(limits: &Limits, thread: &crate::Thread) {
    if let Some(handle) = thread.handle() {
        let gap = thread.mm().gap.clone();
        handle.limit_memory(&of_memory(limits, &thread.credentials(), gap.end - gap.start));
    }
}
