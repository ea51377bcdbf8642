//! What a guest process is started with, whatever door it came through.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// A program to start in the sandbox: the OCI `process` object, with names
/// resolved to numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Program and arguments; `args[0]` is looked up in the `PATH` of `env`
    /// when it holds no slash.
    pub args: Vec<OsString>,
    /// `NAME=value` strings.
    pub env: Vec<OsString>,
    /// Absolute working directory inside the sandbox; made for the first process when missing.
    pub cwd: OsString,
    /// Guest user id.
    pub uid: u32,
    /// Guest group id.
    pub gid: u32,
    /// Supplementary guest group ids.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; the kernel's default (022) when absent.
    pub umask: Option<u32>,
    /// Capability sets as bit masks, bit N being capability N.
    pub capabilities: CapabilityMasks,
    /// Resource limits to set before the program starts.
    pub rlimits: Vec<Rlimit>,
    /// Whether standard input, output and error are one terminal, which is
    /// then the controlling terminal.
    pub terminal: bool,
    /// First size of that terminal.
    pub console_size: Option<ConsoleSize>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// First value of the guest's `/proc/PID/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// How its first thread is scheduled.
    pub scheduler: Option<Scheduling>,
    /// Class and level of ioprio_set(2).
    pub io_priority: Option<u32>,
}

/// The OCI scheduler object, for policies without privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// Number of sched_setscheduler(2).
    pub policy: i32,
    /// -20 (most) to 19 (least).
    pub nice: i32,
    /// `SCHED_FLAG_RESET_ON_FORK`.
    pub reset_on_fork: bool,
}

/// Five capability sets, as in capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityMasks {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

impl CapabilityMasks {
    /// The same mask in bounding, effective and permitted; nothing inherited.
    pub fn root(mask: u64) -> CapabilityMasks {
        CapabilityMasks { bounding: mask, effective: mask, permitted: mask, ..CapabilityMasks::default() }
    }
}

/// One resource limit of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is infinity.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is infinity.
    pub hard: u64,
}

/// Terminal size in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters on a line.
    pub columns: u16,
}
