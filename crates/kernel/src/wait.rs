//! What a parent sees of a child: wait(2), waitid(2).

use crate::process::{ExitStatus, Process};
use linux_abi::signal::Signo;

/// The state of a process in the eyes of its parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildState {
    /// Ended, not yet waited for.
    pub zombie: Option<ExitStatus>,
    /// Stopped by this signal and not yet continued.
    pub stopped: Option<Signo>,
    /// A stop or continue that no wait has reported yet.
    pub report: Option<Report>,
    /// Real user id of one that has ended.
    pub uid: u32,
    /// Name of one that has ended, NUL padded.
    pub comm: [u8; 16],
}

/// A change that wait(2) reports once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// `WUNTRACED`.
    Stopped(Signo),
    /// `WCONTINUED`.
    Continued,
}

impl Process {
    /// Whether it has ended and waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        self.state.lock().zombie.is_some()
    }
    /// The letter of /proc/PID/stat: R, S, T, t, Z.
    pub fn state_letter(&self) -> char {
        let state = *self.state.lock();
        if state.zombie.is_some() {
            'Z'
        } else if self.thread(self.pid()).is_ok_and(|first| first.ptrace.is_stopped()) {
            't'
        } else if state.stopped.is_some() {
            'T'
        } else {
            // That of the first thread, which may have ended before the others.
            match self.thread(self.pid()) {
                Ok(first) if crate::cpu_time::sleeps(&first) => 'S',
                Ok(_) => 'R',
                Err(_) => 'Z',
            }
        }
    }
}
