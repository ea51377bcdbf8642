//! One terminal: a line discipline between guest processes and a back (a host pty, or the master side
//! of a guest's own pty), with the session it controls.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, HostSource, WaitQueue, Waiter};
use kernel::{Kernel, Process};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo, si};
use parking_lot::Mutex;
use vfs::{Fasync, OtherwiseOwner, Result};

use super::Terminals;
use super::discipline::{Discipline, Effects};

/// Output that waits for its reader; more makes writers wait.
const OUTPUT_BYTES: usize = 16 * 1024;
/// Written bytes taken at once.
const CHUNK: usize = 4096;

/// A terminal.
pub struct Terminal {
    /// Its number in /dev/pts.
    pub(super) index: u32,
    pub(super) terminals: Arc<Terminals>,
    state: Mutex<State>,
    job: Mutex<JobControl>,
    /// Woken for slaves.
    pub(super) queue: Arc<WaitQueue>,
    /// Woken for the master.
    pub(super) master_queue: Arc<WaitQueue>,
    /// Woken when the owners of slaves with `O_ASYNC` are to be told, which is more seldom.
    pub(super) fasync: Arc<WaitQueue>,
    /// The same for the master's.
    pub(super) master_fasync: Arc<WaitQueue>,
    /// The host pty's slave in raw mode; none for a guest's own pty.
    host: Option<Arc<OwnedFd>>,
    hung_up: AtomicBool,
    /// Slaves cannot be opened yet (`TIOCSPTLCK`).
    pub(super) locked: AtomicBool,
    /// User of the slave's node until chown(2): who opened the master.
    opener: AtomicU32,
    /// Mode, user and group of the slave's node once they were changed.
    pub(super) attributes: Mutex<Option<(u32, u32, u32)>>,
    slaves: AtomicUsize,
    had_slaves: AtomicBool,
}

#[derive(Default)]
struct State {
    discipline: Discipline,
    /// Output on its way to the host, or to the master's reader.
    output: VecDeque<u8>,
    /// The last one that the foreground was told of.
    size: [u16; 4],
    /// When a read that waits as VTIME says gives up, CLOCK_MONOTONIC nanoseconds.
    read_deadline: Option<u64>,
    /// Packet mode, and what the master is to be told in it.
    packet: Option<u8>,
    /// A slave without waiting has found no room: owners are told when there is some.
    wants_room: bool,
    /// The same of the master.
    master_wants_room: bool,
}

impl State {
    /// Shows what was typed. Whoever types and never reads loses the echo beyond a bound.
    fn show(&mut self, effects: &Effects) {
        let room = (2 * OUTPUT_BYTES).saturating_sub(self.output.len());
        self.output.extend(effects.echo.get(..room.min(effects.echo.len())).unwrap_or_default());
    }
}

/// The session a terminal controls, and its foreground process group; 0 is none.
#[derive(Clone, Copy, Default)]
pub(super) struct JobControl {
    pub(super) session: i32,
    pub(super) foreground: i32,
}

impl Terminal {
    pub(super) fn new(index: u32, terminals: Arc<Terminals>, host: Option<Arc<OwnedFd>>) -> Arc<Terminal> {
        let locked = AtomicBool::new(host.is_none());
        let terminal = Terminal {
            index,
            terminals,
            state: Mutex::default(),
            job: Mutex::default(),
            queue: Arc::new(WaitQueue::new()),
            master_queue: Arc::new(WaitQueue::new()),
            fasync: Arc::new(WaitQueue::new()),
            master_fasync: Arc::new(WaitQueue::new()),
            host,
            hung_up: AtomicBool::new(false),
            locked,
            opener: AtomicU32::new(0),
            attributes: Mutex::default(),
            slaves: AtomicUsize::new(0),
            had_slaves: AtomicBool::new(false),
        };
        let size = terminal.size();
        terminal.state.lock().size = size;
        Arc::new(terminal)
    }

    /// The user whom its node in /dev/pts belongs to at first.
    pub fn opener(&self) -> u32 {
        self.opener.load(Ordering::Relaxed)
    }
    /// Sets [`Terminal::opener`].
    pub fn set_opener(&self, uid: u32) {
        self.opener.store(uid, Ordering::Relaxed);
    }

    /// Its number in /dev/pts.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Moves bytes between the host and the discipline whenever the host says so, as long as somebody
    /// holds the terminal.
    pub(super) fn serve_host(self: &Arc<Terminal>, source: HostSource) {
        let terminal = Arc::downgrade(self);
        executor::spawn(async move {
            let waiter = Waiter::new();
            loop {
                waiter.reset();
                let listener = source.queue().listen(&waiter, Events::all(), false);
                let open = Weak::upgrade(&terminal).is_some_and(|terminal| terminal.pump());
                if !open {
                    return;
                }
                waiter.wait().await;
                drop(listener);
            }
        });
    }

    /// One round of moving bytes; false once the host side is closed.
    fn pump(&self) -> bool {
        let Some(host) = &self.host else { return true };
        let mut buf = [0u8; 1024];
        loop {
            let mut effects = Effects::default();
            {
                let mut state = self.state.lock();
                self.flush(&mut state);
                // What the host has beyond this waits there until somebody reads.
                if state.discipline.available() >= CHUNK / 2 && !state.discipline.termios_canonical() {
                    break;
                }
                match rustix::io::read(&**host, &mut buf) {
                    Ok(0) | Err(rustix::io::Errno::IO) => {
                        drop(state);
                        self.hang_up();
                        return false;
                    }
                    Ok(n) => {
                        state.discipline.receive(buf.get(..n).unwrap_or_default(), &mut effects);
                        state.show(&effects);
                        self.flush(&mut state);
                    }
                    Err(_) => break,
                }
            }
            self.raise(&effects.signals);
            self.queue.wake(Events::READABLE);
            self.tell_input(&effects);
        }
        self.queue.wake(Events::WRITABLE | Events::READABLE);
        self.tell_room();
        true
    }

    /// Tells owners of slaves of what was typed.
    fn tell_input(&self, effects: &Effects) {
        if effects.arrived {
            self.fasync.wake(Events::READABLE);
        }
    }

    /// Tells them of room where one has missed it.
    fn tell_room(&self) {
        let mut state = self.state.lock();
        let roomy = state.output.len() < OUTPUT_BYTES && !state.discipline.stopped;
        if roomy && std::mem::take(&mut state.wants_room) {
            drop(state);
            self.fasync.wake(Events::WRITABLE);
        }
    }

    /// Sends waiting output to the host as far as it takes it.
    fn flush(&self, state: &mut State) {
        let Some(host) = &self.host else {
            if !state.output.is_empty() {
                self.master_queue.wake(Events::READABLE);
            }
            return;
        };
        if state.discipline.stopped {
            return;
        }
        while !state.output.is_empty() {
            let (front, _) = state.output.as_slices();
            match rustix::io::write(&**host, front) {
                Ok(n) => drop(state.output.drain(..n)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                // Nobody will ever see it.
                Err(_) => state.output.clear(),
            }
        }
    }

    /// Waits until the host has taken all output; gives up after two seconds.
    pub async fn drain(&self) {
        const STEP: std::time::Duration = std::time::Duration::from_millis(10);
        for _ in 0..200 {
            {
                let mut state = self.state.lock();
                self.flush(&mut state);
                if state.output.is_empty() || state.discipline.stopped {
                    return;
                }
            }
            executor::sleep(STEP).await;
        }
    }

    /// A slave reads.
    pub(super) fn read(&self, buf: &mut [u8]) -> Result<usize> {
        let now = executor::monotonic_ns();
        let (read, wait) = {
            let mut state = self.state.lock();
            let expired = state.read_deadline.is_some_and(|at| now >= at);
            let read = state.discipline.read(buf, expired);
            let wait = state.discipline.patience().filter(|_| read.is_none());
            if read.is_some() {
                state.read_deadline = None;
            }
            (read, wait)
        };
        if let Some(wait) = wait {
            self.start_clock(now.saturating_add(wait));
        }
        match read {
            Some(n) => {
                if self.host.is_some() {
                    self.pump();
                } else {
                    self.master_queue.wake(Events::WRITABLE);
                    if std::mem::take(&mut self.state.lock().master_wants_room) {
                        self.master_fasync.wake(Events::WRITABLE);
                    }
                }
                Ok(n)
            }
            None if self.is_hung_up() => Ok(0),
            None => Err(Errno::EAGAIN),
        }
    }

    /// Has a read that VTIME limits look again in time.
    fn start_clock(&self, at: u64) {
        {
            let mut state = self.state.lock();
            if state.read_deadline.is_some() {
                return;
            }
            state.read_deadline = Some(at);
        }
        let queue = self.queue.clone();
        executor::spawn(async move {
            executor::sleep_until(at).await;
            queue.wake(Events::READABLE);
        });
    }

    /// A slave writes, and waits for room or does not.
    pub(super) fn write(&self, buf: &[u8], nonblock: bool) -> Result<usize> {
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        let mut state = self.state.lock();
        self.flush(&mut state);
        if state.discipline.stopped || state.output.len() >= OUTPUT_BYTES {
            state.wants_room |= nonblock;
            return Err(Errno::EAGAIN);
        }
        let part = buf.get(..buf.len().min(CHUNK)).unwrap_or_default();
        let mut out = Vec::with_capacity(part.len() + 16);
        state.discipline.write(part, &mut out);
        state.output.extend(out);
        self.flush(&mut state);
        let told = !state.output.is_empty();
        drop(state);
        if told {
            self.master_fasync.wake(Events::READABLE);
        }
        Ok(part.len())
    }

    /// The master reads what slaves wrote.
    pub(super) fn master_read(&self, buf: &mut [u8]) -> Result<usize> {
        let mut state = self.state.lock();
        let mut buf = buf;
        if let Some(news) = state.packet
            && let Some((head, rest)) = std::mem::take(&mut buf).split_first_mut()
        {
            *head = news;
            if news != 0 {
                state.packet = Some(0);
                return Ok(1);
            }
            buf = rest;
        }
        if state.output.is_empty() || state.discipline.stopped {
            let closed = self.slaves.load(Ordering::Relaxed) == 0 && self.had_slaves.load(Ordering::Relaxed);
            return Err(if closed { Errno::EIO } else { Errno::EAGAIN });
        }
        let n = state.output.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(state.output.drain(..n)) {
            *to = from;
        }
        let head = usize::from(state.packet.is_some());
        drop(state);
        self.queue.wake(Events::WRITABLE);
        self.tell_room();
        Ok(n + head)
    }

    /// Packet mode on or off (`TIOCPKT`).
    pub(super) fn set_packets(&self, on: bool) {
        self.state.lock().packet = on.then_some(0);
    }
    /// Whether packet mode is on.
    pub(super) fn packets(&self) -> bool {
        self.state.lock().packet.is_some()
    }
    /// Tells the master in packet mode that queues were flushed: 1 input, 2 output.
    pub(super) fn note_flush(&self, what: u8) {
        if let Some(news) = &mut self.state.lock().packet {
            *news |= what;
        }
        self.master_queue.wake(Events::READABLE | Events::PRI);
    }

    /// The master types.
    pub(super) fn master_write(&self, buf: &[u8], nonblock: bool) -> Result<usize> {
        let mut effects = Effects::default();
        let part = buf.get(..buf.len().min(CHUNK)).unwrap_or_default();
        {
            let mut state = self.state.lock();
            if !state.discipline.termios_canonical() && state.discipline.available() >= CHUNK {
                state.master_wants_room |= nonblock;
                return Err(Errno::EAGAIN);
            }
            state.discipline.receive(part, &mut effects);
            state.show(&effects);
            self.flush(&mut state);
        }
        self.raise(&effects.signals);
        self.queue.wake(Events::READABLE | Events::WRITABLE);
        self.tell_input(&effects);
        if !effects.echo.is_empty() {
            self.master_fasync.wake(Events::READABLE);
        }
        Ok(part.len())
    }

    pub(super) fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if state.discipline.readable() {
            events |= Events::READABLE;
        }
        if !state.discipline.stopped && state.output.len() < OUTPUT_BYTES {
            events |= Events::WRITABLE;
        }
        drop(state);
        if self.is_hung_up() {
            events |= Events::HUP | Events::READABLE | Events::WRITABLE;
        }
        events
    }

    pub(super) fn master_poll(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::WRITABLE;
        if !state.output.is_empty() && !state.discipline.stopped {
            events |= Events::READABLE;
        }
        if state.packet.is_some_and(|news| news != 0) {
            events |= Events::READABLE | Events::PRI;
        }
        if self.slaves.load(Ordering::Relaxed) == 0 && self.had_slaves.load(Ordering::Relaxed) {
            events |= Events::HUP;
        }
        events
    }

    /// Runs with the discipline; wakes whoever the change may concern.
    pub(super) fn with_discipline<T>(&self, change: impl FnOnce(&mut Discipline) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.discipline);
        self.flush(&mut state);
        drop(state);
        self.queue.wake(Events::READABLE | Events::WRITABLE);
        result
    }

    /// Bytes of output that wait (`TIOCOUTQ`).
    pub(super) fn output_length(&self) -> usize {
        self.state.lock().output.len()
    }

    pub(super) fn flush_output(&self) {
        self.state.lock().output.clear();
        self.queue.wake(Events::WRITABLE);
        self.tell_room();
    }

    /// Rows, columns, and the two in pixels: `struct winsize`.
    pub(super) fn size(&self) -> [u16; 4] {
        if let Some(host) = &self.host
            && let Ok(size) = rustix::termios::tcgetwinsize(host)
        {
            return [size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel];
        }
        self.state.lock().size
    }

    /// Sets it and tells the foreground when it is another one.
    pub(super) fn set_size(&self, size: [u16; 4]) {
        let before = self.size();
        if let Some(host) = &self.host {
            let [ws_row, ws_col, ws_xpixel, ws_ypixel] = size;
            let host_size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel };
            let _ = rustix::termios::tcsetwinsize(host, host_size);
        }
        self.state.lock().size = size;
        if before != size {
            self.raise(&[Signo::SIGWINCH]);
        }
    }

    /// The host's side may have another size.
    pub fn size_changed(&self) {
        let now = self.size();
        let before = std::mem::replace(&mut self.state.lock().size, now);
        if before != now {
            self.raise(&[Signo::SIGWINCH]);
        }
    }

    /// `O_ASYNC` of a slave: the foreground owns what nobody owns.
    pub(super) fn slave_fasync(&self) -> Fasync {
        let otherwise = match self.job().foreground {
            0 => OtherwiseOwner::Caller,
            group => OtherwiseOwner::Group(group),
        };
        Fasync { queue: self.fasync.clone(), otherwise }
    }

    pub(super) fn job(&self) -> JobControl {
        *self.job.lock()
    }

    /// Becomes the controlling terminal of a session; `EPERM` if it controls another.
    pub fn control(&self, session: i32, foreground: i32) -> Result<()> {
        let mut job = self.job.lock();
        if job.session != 0 && job.session != session {
            return Err(Errno::EPERM);
        }
        *job = JobControl { session, foreground };
        Ok(())
    }

    /// Takes it from whatever session it controls (`TIOCSCTTY` with 1, by root).
    pub(super) fn steal(&self, session: i32, foreground: i32) {
        *self.job.lock() = JobControl { session, foreground };
    }

    pub(super) fn set_foreground(&self, group: i32) {
        self.job.lock().foreground = group;
    }

    /// The session gives it up: its foreground is told.
    pub(super) fn release(&self) {
        self.raise(&[Signo::SIGHUP, Signo::SIGCONT]);
        *self.job.lock() = JobControl::default();
    }

    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.terminals.kernel.upgrade()
    }

    /// Signals the foreground process group.
    pub(super) fn raise(&self, signals: &[Signo]) {
        let group = self.job().foreground;
        let Some(kernel) = self.kernel().filter(|_| group != 0 && !signals.is_empty()) else { return };
        for process in kernel.pids.group(group) {
            for signal in signals {
                // A full queue loses it, as on Linux.
                let _ = process.send_signal(SigInfo::new(*signal, si::KERNEL));
            }
        }
    }

    /// Whether its other side is gone.
    pub(super) fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Acquire)
    }

    /// The other side is closed: the session leader gets SIGHUP, reads end, writes fail.
    pub(super) fn hang_up(&self) {
        if self.hung_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.job().session;
        if let Some(leader) = self.kernel().and_then(|kernel| kernel.pids.process(session).ok()) {
            let _ = leader.send_signal(SigInfo::new(Signo::SIGHUP, si::KERNEL));
            let _ = leader.send_signal(SigInfo::new(Signo::SIGCONT, si::KERNEL));
        }
        self.raise(&[Signo::SIGHUP, Signo::SIGCONT]);
        self.queue.wake_all(Events::all());
    }

    pub(super) fn add_slave(&self) {
        self.slaves.fetch_add(1, Ordering::Relaxed);
        self.had_slaves.store(true, Ordering::Relaxed);
    }

    pub(super) fn remove_slave(&self) {
        if self.slaves.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.master_queue.wake_all(Events::all());
        }
    }

    /// Whether a process of this terminal's session is not in the foreground.
    pub(super) fn is_background(&self, process: &Process) -> bool {
        let (ours, theirs) = (self.job(), process.job());
        ours.session != 0 && ours.session == theirs.sid && ours.foreground != theirs.pgid
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.terminals.forget(self.index);
    }
}
