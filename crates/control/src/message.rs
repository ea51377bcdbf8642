//! The control conversation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CgroupInfo, ConsoleSize, ProcessSpec};

/// What a client asks of a sandbox. Each request gets one [`Reply`]; an
/// `Exec` is later followed by one `Exited` on the same connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How far the sandbox has come.
    State,
    /// Run the prepared first process.
    Start,
    /// Start another process. One descriptor (a pty slave) or three travel
    /// with the message, then the preserved ones. When this connection ends
    /// before the process does, the process is killed.
    Exec {
        /// The program.
        process: Box<ProcessSpec>,
        /// How many descriptors after the standard streams are preserved.
        preserved: usize,
    },
    /// Send a signal.
    Signal {
        /// Guest process id; absent is the first process.
        pid: Option<i32>,
        /// Signal number, 1 to 64.
        signal: i32,
        /// Every process of the sandbox.
        all: bool,
    },
    /// Send a signal to the first process's group.
    SignalGroup {
        /// Signal number, 1 to 64.
        signal: i32,
    },
    /// Reply with `Stopped` once the first process is stopped by a signal, at once if it is.
    AwaitStop,
    /// The terminal of a process has another size.
    WindowSize {
        /// Guest process id; absent is the first process.
        pid: Option<i32>,
        /// The new size.
        size: ConsoleSize,
    },
    /// The guest's processes.
    Processes,
    /// Counters.
    Stats,
    /// Other limits, all of them, to show to the guest; that of tasks is kept exactly.
    Limits(CgroupInfo),
    /// Reply with `Exited` when a process ends.
    Wait {
        /// Guest process id; absent is the first process.
        pid: Option<i32>,
    },
}

/// Answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// A process runs.
    Started {
        /// Guest process id.
        pid: i32,
    },
    /// A process has ended.
    Exited(ExitStatus),
    /// Answer to `AwaitStop`: the signal.
    Stopped(i32),
    /// Answer to `State`.
    State(SandboxState),
    /// Answer to `Processes`.
    Processes(Vec<ProcessInfo>),
    /// Answer to `Stats`.
    Stats(Stats),
    /// It could not be done.
    Error {
        /// The sort of failure.
        kind: ErrorKind,
        /// One line for people and engines.
        message: String,
    },
}

/// Sorts of failure that a client treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// No such process.
    NoSuchProcess,
    /// The program cannot be found or run.
    Program,
    /// The request does not fit the state of the sandbox.
    State,
    /// Anything else.
    Other,
}

/// How far a sandbox has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// The first process waits for `Start`.
    Created,
    /// The first process runs.
    Running,
    /// The first process has ended.
    Stopped,
}

/// How a guest process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By exit(2), with the low eight bits of its argument.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
}

impl ExitStatus {
    /// The status a shell would show: 128 + N after signal N.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::Signaled(signal) => 128u8.saturating_add(signal),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited(code) => write!(f, "exit status {code}"),
            ExitStatus::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One guest process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Guest process id.
    pub pid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Guest user id.
    pub uid: u32,
    /// Number of threads.
    pub threads: u32,
    /// Host process id of its stub, in the kernel process's PID namespace.
    pub host_pid: Option<i32>,
    /// Short name.
    pub name: String,
}

/// Counters of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Guest processes now.
    pub processes: u64,
    /// Guest threads now.
    pub threads: u64,
    /// System calls that came to the kernel process since boot; those that a shim or the host answered are not
    /// among them.
    pub system_calls: u64,
    /// Requests (system calls, faults, interrupts) that a spinning worker took, without a doorbell.
    pub spun: u64,
    /// How often a worker began to spin.
    pub spins: u64,
    /// System call sites that were rewritten to jump into the shim.
    pub patched: u64,
    /// Writes, and reads, of streams that were done without an answer.
    #[serde(default)]
    pub posted: u64,
    /// See `posted`.
    #[serde(default)]
    pub prefetched: u64,
    /// How often each system call was answered by its handler, by name.
    #[serde(default)]
    pub calls: std::collections::BTreeMap<String, u64>,
    /// Batches of slots in use: at least one per address space.
    pub slot_batches: u64,
}

#[cfg(test)]
mod tests {
    use super::{ConsoleSize, ExitStatus, Reply, Request};

    /// The waiter of the host crate writes and reads these without a library.
    #[test]
    fn what_the_waiter_says_and_hears() {
        fn json(value: &impl serde::Serialize) -> String {
            serde_json::to_string(value).unwrap()
        }
        let signal = Request::Signal { pid: Some(7), signal: 15, all: false };
        assert_eq!(json(&signal), r#"{"Signal":{"pid":7,"signal":15,"all":false}}"#);
        let size = Request::WindowSize { pid: Some(7), size: ConsoleSize { rows: 24, columns: 80 } };
        assert_eq!(json(&size), r#"{"WindowSize":{"pid":7,"size":{"rows":24,"columns":80}}}"#);
        assert_eq!(json(&Reply::Exited(ExitStatus::Exited(3))), r#"{"Exited":{"Exited":3}}"#);
        assert_eq!(json(&Reply::Exited(ExitStatus::Signaled(9))), r#"{"Exited":{"Signaled":9}}"#);
    }

    #[test]
    fn a_signal_shows_as_128_and_more() {
        assert_eq!(ExitStatus::Exited(3).code(), 3);
        assert_eq!(ExitStatus::Signaled(9).code(), 137);
    }
}
