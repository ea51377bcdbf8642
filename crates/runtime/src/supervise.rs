//! Stands between a guest process and the caller: signals in, terminal bytes
//! both ways, until the process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use host::signal_fd::{self, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::jobs::{Job, SIGSTOP};
use crate::terminal::{CallersTerminal, RawMode};

pub(crate) const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
pub(crate) const SIGWINCH: i32 = 28;

/// Signals a waiter collects: blocked from now on. With `as_job` not those that the caller ignores, as for nohup(1): it
/// is none of the program's business that they come.
pub(crate) fn signals(as_job: bool) -> Result<SignalFd> {
    let wanted: Vec<i32> = SignalFd::catchable()
        .into_iter()
        .filter(|signal| ![SIGPIPE, SIGCHLD, SIGURG].contains(signal))
        .filter(|signal| !(as_job && signal_fd::is_ignored(*signal)))
        .collect();
    SignalFd::new(&wanted).context("collect signals")
}

/// How often a program in the background looks whether a shell has given it the terminal: nothing tells it.
const FOREGROUND_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What Ctrl-C sends to a terminal.
const INTERRUPT_KEY: u8 = 3;

/// Whether somebody pressed Ctrl-C, and who was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Nobody did.
    #[default]
    None,
    /// The terminal told our whole process group.
    Told,
    /// In raw mode we alone have seen it: not the script that called us, nor others in its pipeline.
    Seen,
}

impl Interrupt {
    /// Ends us as the program was ended, so that a shell that runs us in a loop leaves that, as it would without us.
    pub(crate) fn end(self) {
        if self != Interrupt::None {
            signal_fd::die_by(SIGINT, self == Interrupt::Seen);
        }
    }
}

/// Copies between standard input/output and a pty master.
#[derive(Debug)]
pub(crate) struct Relay {
    master: OwnedFd,
    callers: CallersTerminal,
    input_open: bool,
    /// While the caller's terminal is in raw mode; not in the background, where a shell has it.
    raw: Option<RawMode>,
}

impl Relay {
    pub(crate) fn new(master: OwnedFd, callers: CallersTerminal) -> Relay {
        Relay { master, callers, input_open: true, raw: None }
    }

    /// Puts the caller's terminal into raw mode once it is ours.
    fn take_terminal(&mut self) -> Result<()> {
        if self.raw.is_none() && self.callers.is_foreground() {
            self.raw = Some(self.callers.raw().context("the caller's terminal")?);
            self.callers.copy_size(&self.master);
        }
        Ok(())
    }

    /// What the program has written, without waiting for more.
    fn drain(&self) {
        while self.events().contains(PollFlags::IN) && copy(self.master.as_fd(), rustix::stdio::stdout()) {}
    }

    /// Whether all slaves are closed and everything was read.
    fn hung_up(&self) -> bool {
        let events = self.events();
        events.contains(PollFlags::HUP) && !events.contains(PollFlags::IN)
    }

    fn events(&self) -> PollFlags {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&NOW)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }
}

/// The time that a program has, and how often it was told that it is up.
#[derive(Debug)]
pub(crate) struct Timer {
    file: OwnedFd,
    told: bool,
}

/// From the first word to the last.
const GRACE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl Timer {
    pub(crate) fn new(time: Duration) -> Result<Timer> {
        let file = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let it_value = Timespec::try_from(time)?;
        timerfd_settime(&file, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: GRACE, it_value })?;
        Ok(Timer { file, told: false })
    }

    /// Whether the time was up before the end.
    pub(crate) fn is_over(&self) -> bool {
        self.told
    }

    /// What is to be sent now.
    fn signal(&mut self) -> Option<i32> {
        rustix::io::read(&self.file, &mut [0; 8]).ok()?;
        Some(if std::mem::replace(&mut self.told, true) { SIGKILL } else { SIGTERM })
    }
}

/// Runs until `done` is readable. `on_signal` gets every signal but SIGWINCH
/// of a relayed terminal, which becomes a new size of it, and those that stop
/// and continue a job.
pub(crate) fn run(
    signals: &SignalFd,
    done: BorrowedFd<'_>,
    mut relay: Option<Relay>,
    mut job: Option<Job<'_>>,
    mut timer: Option<&mut Timer>,
    mut on_signal: impl FnMut(i32),
) -> Result<Interrupt> {
    let mut started = true;
    let mut interrupt = Interrupt::None;
    loop {
        if let Some(relay) = &mut relay {
            relay.take_terminal()?;
        }
        let Ready { ended, signalled, stopped, time_up, output, input } =
            wait(signals, done, relay.as_ref(), job.as_ref(), timer.as_deref(), &mut started)?;
        if let Some(relay) = &mut relay {
            if input {
                let mut look = |bytes: &[u8]| {
                    if bytes.contains(&INTERRUPT_KEY) {
                        interrupt = Interrupt::Seen;
                    }
                };
                relay.input_open = copy_and_look(rustix::stdio::stdin(), relay.master.as_fd(), &mut look);
            }
            if output {
                copy(relay.master.as_fd(), rustix::stdio::stdout());
            }
        }
        while signalled && let Some(caught) = signals.read()? {
            if caught.signal == SIGINT && caught.by_kernel {
                interrupt = Interrupt::Told;
            }
            match (&relay, &job) {
                (Some(relay), _) if caught.signal == SIGWINCH => relay.callers.copy_size(&relay.master),
                (_, Some(job)) if Job::takes(caught) => job.signal(caught.signal),
                _ => on_signal(caught.signal),
            }
        }
        if time_up
            && !ended
            && let Some(signal) = timer.as_mut().and_then(|timer| timer.signal())
        {
            on_signal(signal);
        }
        if ended {
            if let Some(relay) = relay {
                relay.drain();
            }
            return Ok(interrupt);
        }
        if let Some(known) = job.take_if(|_| stopped)
            && let Some(signal) = known.stopped()
        {
            suspend(signal, relay.as_mut());
            known.go_on();
            job = Some(known);
        }
        // A master whose slaves are all closed reports an error for ever.
        if output && relay.as_ref().is_some_and(Relay::hung_up) {
            relay = None;
        }
    }
}

/// What can be read.
struct Ready {
    ended: bool,
    signalled: bool,
    stopped: bool,
    time_up: bool,
    output: bool,
    input: bool,
}

/// When nothing happens for so long there is little to do from then on: what starting needed of memory is given back.
const QUIET: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

fn wait(
    signals: &SignalFd,
    done: BorrowedFd<'_>,
    relay: Option<&Relay>,
    job: Option<&Job<'_>>,
    timer: Option<&Timer>,
    started: &mut bool,
) -> Result<Ready> {
    let in_background = relay.is_some_and(|relay| relay.raw.is_none());
    let input = relay.filter(|relay| relay.input_open && !in_background).map(|_| rustix::stdio::stdin());
    let sources = [
        Some(done),
        Some(signals.as_fd()),
        job.map(AsFd::as_fd),
        timer.map(|timer| timer.file.as_fd()),
        relay.map(|relay| relay.master.as_fd()),
        input,
    ];
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = if in_background { Some(&FOREGROUND_CHECK) } else { started.then_some(&QUIET) };
    match rustix::event::poll(&mut fds, timeout) {
        Ok(0) if std::mem::take(started) => host::process::forget_program(),
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("wait for events"),
    }
    let mut polled = fds.iter().map(|fd| !fd.revents().is_empty());
    let [ended, signalled, stopped, time_up, output, input] =
        sources.map(|source| source.is_some() && polled.next().unwrap_or(false));
    Ok(Ready { ended, signalled, stopped, time_up, output, input })
}

/// Stops as the program was stopped, until a shell continues us.
fn suspend(signal: i32, relay: Option<&mut Relay>) {
    let mut group = false;
    if let Some(relay) = relay {
        relay.drain();
        // The key that was pressed is for the whole job; in raw mode we alone have seen it.
        group = relay.raw.take().is_some() && signal != SIGSTOP;
    }
    host::signal_fd::stop_by(signal, group);
}

/// Moves what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    copy_and_look(from, to, &mut |_| {})
}

fn copy_and_look(from: BorrowedFd<'_>, to: BorrowedFd<'_>, look: &mut dyn FnMut(&[u8])) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    let read = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(read) => read,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = buffer.get(..read).unwrap_or_default();
    look(rest);
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
