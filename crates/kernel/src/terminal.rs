//! Controlling terminals: what setsid(2) and the line discipline share.

use crate::{Kernel, Process};

impl Kernel {
    /// setsid(2): the process has no controlling terminal any more.
    pub fn leave_terminal(&self, _process: &Process) {}
    /// The device number of a process's controlling terminal and its foreground group, as /proc/PID/stat
    /// shows them: (0, -1) without one.
    pub fn terminal_of(&self, _process: &Process) -> (u64, i32) {
        (0, -1)
    }
}
