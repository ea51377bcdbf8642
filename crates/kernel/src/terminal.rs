//! Controlling terminals: what setsid(2) and the line discipline share.

use crate::{Kernel, Process};

impl Kernel {
    /// setsid(2): the process has no controlling terminal any more.
    pub fn leave_terminal(&self, _process: &Process) {}
}
