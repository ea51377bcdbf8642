//! Controlling terminals: what setsid(2) and the line discipline share.

use crate::{Kernel, Process};

/// Finds the device number of a process's controlling terminal and its foreground group.
pub type FindTerminal = Box<dyn Fn(&Process) -> Option<(u64, i32)> + Send + Sync>;

impl Kernel {
    /// setsid(2): the process has no controlling terminal any more.
    pub fn leave_terminal(&self, _process: &Process) {}
    /// The device number of a process's controlling terminal and its foreground group, as /proc/PID/stat
    /// shows them: (0, -1) without one.
    pub fn terminal_of(&self, process: &Process) -> (u64, i32) {
        let find = self.find_terminal.get();
        find.and_then(|find| find(process)).unwrap_or((0, -1))
    }
    /// Sets how the controlling terminal of a process is found, once.
    pub fn set_terminal_finder(&self, find: FindTerminal) {
        // A second one is a mistake of no consequence.
        let _ = self.find_terminal.set(find);
    }
}
