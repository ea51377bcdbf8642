//! `sallet do` as a job of a shell: it stops when its program is stopped, and continues it, so that Ctrl-Z, `fg`
//! and `bg` do what they do without a sandbox.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use control::{Channel, Reply, Request};
use host::signal_fd::Caught;

use crate::container::Container;
use crate::state::process_stat;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGCONT: i32 = 18;
pub(crate) const SIGSTOP: i32 = 19;
const SIGTSTP: i32 = 20;
const SIGWINCH: i32 = 28;

/// Our process group may hold a script that called us, and that one another.
const MOST_ANCESTORS: usize = 100;

/// Whether a shell can continue our process group: whether it is not orphaned (setpgid(2)).
pub(crate) fn is_job() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Some(own) = process_stat(own) else { return false };
    let mut parent = own.parent;
    for _ in 0..MOST_ANCESTORS {
        match process_stat(parent) {
            Some(stat) if stat.session != own.session => return false,
            Some(stat) if stat.group != own.group => return true,
            Some(stat) => parent = stat.parent,
            None => return false,
        }
    }
    false
}

/// The first program of a container, as a job.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    container: &'a Container,
    /// Becomes readable when the program has stopped, and when the sandbox ends.
    stops: Channel,
}

impl Job<'_> {
    /// Asks to hear of stops.
    pub(crate) fn watch(container: &Container) -> Result<Job<'_>> {
        let job = Job { container, stops: container.connect()? };
        job.stops.send(&Request::AwaitStop, &[])?;
        Ok(job)
    }

    /// The signal that has stopped the program; none at the end of the sandbox.
    pub(crate) fn stopped(&self) -> Option<i32> {
        match self.stops.receive::<Reply>() {
            Ok((Reply::Stopped(signal), _)) => Some(signal),
            _ => None,
        }
    }

    /// Continues the program.
    pub(crate) fn go_on(&self) {
        self.signal(SIGCONT);
        let _ = self.stops.send(&Request::AwaitStop, &[]);
    }

    /// Whether this signal is one for the whole job: what a terminal sends to all who run in its foreground.
    pub(crate) fn takes(caught: Caught) -> bool {
        let from_terminal = caught.by_kernel && [SIGHUP, SIGINT, SIGQUIT, SIGWINCH].contains(&caught.signal);
        from_terminal || [SIGCONT, SIGTSTP].contains(&caught.signal)
    }

    /// Signals the program's group. The sandbox may have ended meanwhile.
    pub(crate) fn signal(&self, signal: i32) {
        let _ = self.container.ask(&Request::SignalGroup { signal });
    }
}

impl AsFd for Job<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stops.as_fd()
    }
}
