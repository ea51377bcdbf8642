//! How a thread wants to be scheduled: sched(7), ioprio_set(2), `PR_SET_TIMERSLACK`.

use linux_abi::Errno;
use rustix::thread::CpuSet;

use crate::Thread;

/// `SCHED_OTHER`, `SCHED_BATCH`, `SCHED_IDLE`: the policies that ask for no privilege.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "named in sched(7)")]
pub enum Policy {
    #[default]
    Other,
    Batch,
    Idle,
}

impl Policy {
    /// The number of sched_setscheduler(2).
    pub fn raw(self) -> i32 {
        match self {
            Policy::Other => 0,
            Policy::Batch => 3,
            Policy::Idle => 5,
        }
    }
    /// The policy of a number, if it is one of these.
    pub fn from_raw(raw: i32) -> Option<Policy> {
        [Policy::Other, Policy::Batch, Policy::Idle].into_iter().find(|p| p.raw() == raw)
    }
}

/// The CPUs that a thread may run on, as sched_getaffinity(2) of the host says: the container's, while it has no
/// thread there.
pub fn affinity(thread: &Thread) -> Result<CpuSet, Errno> {
    let host = thread.handle().and_then(|handle| rustix::process::Pid::from_raw(handle.host_tid()));
    rustix::thread::sched_getaffinity(host)
        .or_else(|_| rustix::thread::sched_getaffinity(None))
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// What `PR_GET_TIMERSLACK` shows by default, nanoseconds.
pub const DEFAULT_SLACK_NS: u64 = 50_000;

/// The wishes of one thread; a new thread inherits them.
#[derive(Clone, Copy, Debug)]
pub struct Scheduling {
    /// -20 (most) to 19 (least).
    pub nice: i32,
    /// Policy.
    pub policy: Policy,
    /// New threads start with the default: `SCHED_RESET_ON_FORK`.
    pub reset_on_fork: bool,
    /// Class and level of ioprio_set(2).
    pub io_priority: u32,
    /// `PR_SET_TIMERSLACK`, nanoseconds. The host's timers have their own.
    pub timer_slack_ns: u64,
    /// What 0 sets it to: that of the thread that made this one.
    default_slack_ns: u64,
}

impl Default for Scheduling {
    fn default() -> Scheduling {
        Scheduling {
            nice: 0,
            policy: Policy::Other,
            reset_on_fork: false,
            io_priority: 0,
            timer_slack_ns: DEFAULT_SLACK_NS,
            default_slack_ns: DEFAULT_SLACK_NS,
        }
    }
}

impl Scheduling {
    /// `PR_SET_TIMERSLACK`: nanoseconds, 0 for the default.
    pub fn set_timer_slack(&mut self, slack_ns: u64) {
        self.timer_slack_ns = if slack_ns == 0 { self.default_slack_ns } else { slack_ns };
    }
    /// What a thread made by this one starts with.
    pub fn inherited(&self) -> Scheduling {
        let new = Scheduling { default_slack_ns: self.timer_slack_ns, ..*self };
        if self.reset_on_fork {
            Scheduling { nice: self.nice.max(0), policy: Policy::Other, reset_on_fork: false, ..new }
        } else {
            new
        }
    }
}
