//! Stands between a guest process and the caller: signals in, terminal bytes
//! both ways, until the process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use host::signal_fd::SignalFd;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::terminal::{CallersTerminal, RawMode};

const SIGPIPE: i32 = 13;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
pub(crate) const SIGWINCH: i32 = 28;

/// Signals a waiter collects: blocked from now on.
pub(crate) fn signals() -> Result<SignalFd> {
    let wanted: Vec<i32> = SignalFd::catchable()
        .into_iter()
        .filter(|signal| ![SIGPIPE, SIGCHLD, SIGURG].contains(signal))
        .collect();
    SignalFd::new(&wanted).context("collect signals")
}

/// Copies between standard input/output and a pty master.
#[derive(Debug)]
pub(crate) struct Relay {
    master: OwnedFd,
    callers: CallersTerminal,
    input_open: bool,
}

impl Relay {
    pub(crate) fn new(master: OwnedFd, callers: CallersTerminal) -> Relay {
        Relay { master, callers, input_open: true }
    }

    /// Puts the caller's terminal into raw mode until the answer is dropped.
    pub(crate) fn raw(&self) -> Result<RawMode> {
        self.callers.raw().context("the caller's terminal")
    }
}

/// Runs until `done` is readable. `on_signal` gets every signal but SIGWINCH
/// of a relayed terminal, which becomes a new size of it.
pub(crate) fn run(
    signals: &SignalFd,
    done: BorrowedFd<'_>,
    mut relay: Option<Relay>,
    mut on_signal: impl FnMut(i32),
) -> Result<()> {
    loop {
        let mut fds =
            vec![PollFd::from_borrowed_fd(done, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(relay) = &relay {
            fds.push(PollFd::new(&relay.master, PollFlags::IN));
            if relay.input_open {
                fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
        if let Some(relay) = &mut relay {
            if is_ready(3) && !copy(rustix::stdio::stdin(), relay.master.as_fd()) {
                relay.input_open = false;
            }
            if is_ready(2) {
                copy(relay.master.as_fd(), rustix::stdio::stdout());
            }
        }
        if is_ready(1) {
            while let Some(signal) = signals.read()? {
                match &relay {
                    Some(relay) if signal == SIGWINCH => relay.callers.copy_size(&relay.master),
                    _ => on_signal(signal),
                }
            }
        }
        if is_ready(0) {
            if let Some(relay) = relay {
                drain(relay);
            }
            return Ok(());
        }
        // A master whose slaves are all closed reports an error for ever.
        if is_ready(2) && relay.as_ref().is_some_and(hung_up) {
            relay = None;
        }
    }
}

/// Moves what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    let read = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(read) => read,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..read).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = rustix::event::poll(&mut fds, None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// The last output of a process that has ended.
fn drain(relay: Relay) {
    loop {
        let mut fds = [PollFd::new(&relay.master, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut fds, Some(&now)).unwrap_or(0) > 0
            && fds[0].revents().contains(PollFlags::IN);
        if !ready || !copy(relay.master.as_fd(), rustix::stdio::stdout()) {
            return;
        }
    }
}

fn hung_up(relay: &Relay) -> bool {
    let mut fds = [PollFd::new(&relay.master, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok()
        && fds[0].revents().contains(PollFlags::HUP)
        && !fds[0].revents().contains(PollFlags::IN)
}
