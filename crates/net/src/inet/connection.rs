//! A TCP connection inside the sandbox: two byte queues, and what a program sees of TCP's states.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::MsgFlags;
use parking_lot::Mutex;

use super::bytes::Bytes;
use super::endpoint::Endpoint;
use super::listener::Listener;
use super::options::Options;
use super::ports::Ports;
use crate::Result;
use crate::socket::{Halves, Received};

/// Bytes in all queues. Above this much, queues are short (compare tcp_mem).
const PRESSURE: usize = 256 << 20;
const ROOM_UNDER_PRESSURE: usize = 32 << 10;

static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// One direction: what one end receives, with that end's own state.
#[derive(Default)]
struct Flow {
    queue: Bytes,
    /// Bytes that ever came.
    total: u64,
    /// How many may wait: what the sender's buffer adds, and the receiver's.
    send_room: usize,
    receive_room: usize,
    /// The sender found it full.
    writer_waits: bool,
    /// The other end sends no more (FIN).
    fin: bool,
    /// This end sends no more (FIN).
    sent_fin: bool,
    /// This end wants no more (SHUT_RD).
    read_shut: bool,
    /// This end's socket is closed.
    gone: bool,
    /// The connection was reset for this end.
    reset: bool,
    /// This end's pending error (SO_ERROR).
    error: Option<Errno>,
    low_water: usize,
    urgent: Option<Urgent>,
    urgent_inline: bool,
    /// Who is told of the first bytes (TCP_DEFER_ACCEPT).
    deferred: Option<Weak<Listener>>,
}

/// The last urgent byte (MSG_OOB).
#[derive(Clone, Copy)]
struct Urgent {
    /// Its place among all bytes.
    at: u64,
    byte: u8,
    /// Read by MSG_OOB.
    taken: bool,
}

impl Flow {
    /// Place of the next byte to read.
    fn position(&self) -> u64 {
        self.total - self.queue.len() as u64
    }
    fn room(&self) -> usize {
        let mut most = self.send_room.saturating_add(self.receive_room);
        if QUEUED.load(Ordering::Relaxed) > PRESSURE {
            most = most.min(ROOM_UNDER_PRESSURE);
        }
        most.saturating_sub(self.queue.len())
    }
    /// Whether poll calls it writable: as Linux, when a third is free.
    fn roomy(&self) -> bool {
        self.room().saturating_mul(2) >= self.queue.len() && self.room() > 0
    }
    /// How many bytes can be read at once: not beyond the urgent one.
    fn readable(&self) -> usize {
        let len = self.queue.len();
        match self.urgent {
            Some(u) if u.at > self.position() => {
                len.min(usize::try_from(u.at - self.position()).unwrap_or(len))
            }
            Some(u) if u.at == self.position() && !self.urgent_inline => len.saturating_sub(1),
            _ => len,
        }
    }
    /// No more comes.
    fn ended(&self) -> bool {
        self.fin || self.read_shut || self.reset
    }
    fn skip(&mut self, n: usize) {
        self.queue.skip(n);
        QUEUED.fetch_sub(n, Ordering::Relaxed);
        if self.urgent.is_some_and(|u| u.at < self.position()) {
            self.urgent = None;
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.queue.len(), Ordering::Relaxed);
    }
}

/// What both ends share. The client is end 0.
struct Connection {
    flows: [Mutex<Flow>; 2],
    queues: [Arc<WaitQueue>; 2],
    names: [Endpoint; 2],
    /// An end has an error or was reset: its next call looks closely.
    trouble: [AtomicBool; 2],
    life: Mutex<Life>,
    ports: Arc<Ports>,
    reuse: [bool; 2],
}

#[derive(Default)]
struct Life {
    /// The end that closed first.
    first: Option<usize>,
    released: bool,
}

/// One end of a connection; dropping it is close(2).
pub(super) struct End {
    connection: Arc<Connection>,
    side: usize,
    resets: AtomicBool,
}

/// TCP's states as far as ends show them (tcp_states.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Established = 1,
    FinWait2 = 5,
    Close = 7,
    CloseWait = 8,
}

/// Name and options of one end, for [`pair`].
pub(super) struct Side<'a> {
    pub(super) name: Endpoint,
    pub(super) queue: Arc<WaitQueue>,
    pub(super) options: &'a Options,
}

/// A connection whose ends hold their ports already: the client's end, and the server's.
pub(super) fn pair(client: &Side<'_>, server: &Side<'_>, ports: &Arc<Ports>) -> (End, End) {
    let flow = |own: &Options, other: &Options| {
        let mut flow = Flow::default();
        flow.send_room = other.send_room();
        flow.receive_room = own.receive_room();
        flow.low_water = own.low_water();
        flow.urgent_inline = own.urgent_inline();
        Mutex::new(flow)
    };
    let connection = Arc::new(Connection {
        flows: [flow(client.options, server.options), flow(server.options, client.options)],
        queues: [client.queue.clone(), server.queue.clone()],
        names: [client.name, server.name],
        trouble: [AtomicBool::new(false), AtomicBool::new(false)],
        life: Mutex::default(),
        ports: ports.clone(),
        reuse: [client.options.reuses_address(), server.options.reuses_address()],
    });
    let end = |side, options: &Options| End {
        connection: connection.clone(),
        side,
        resets: AtomicBool::new(options.close_resets()),
    };
    (end(0, client.options), end(1, server.options))
}

impl Connection {
    fn flow(&self, side: usize) -> &Mutex<Flow> {
        let [a, b] = &self.flows;
        if side == 0 { a } else { b }
    }
    fn wake(&self, side: usize, events: Events) {
        let [a, b] = &self.queues;
        if side == 0 { a } else { b }.wake(events);
    }
    fn trouble(&self, side: usize) -> &AtomicBool {
        let [a, b] = &self.trouble;
        if side == 0 { a } else { b }
    }

    /// `side` is told that the connection is no more.
    fn reset(&self, side: usize) {
        {
            let mut flow = self.flow(side).lock();
            if flow.reset {
                return;
            }
            // As Linux: who has seen the end already gets a broken pipe.
            flow.error = Some(if flow.fin { Errno::EPIPE } else { Errno::ECONNRESET });
            flow.reset = true;
        }
        self.trouble(side).store(true, Ordering::SeqCst);
        self.release(None);
        self.wake(side, Events::all());
    }

    /// Notes that `side` sends no more.
    fn finish(&self, side: usize) {
        let mut life = self.life.lock();
        match life.first {
            None => life.first = Some(side),
            Some(first) if first != side => {
                drop(life);
                self.release(Some(first));
            }
            Some(_) => {}
        }
    }

    /// Gives the ports back, once.
    fn release(&self, waits: Option<usize>) {
        let released = std::mem::replace(&mut self.life.lock().released, true);
        if !released {
            let [client, server] = self.names;
            self.ports.release(client, server, self.reuse, waits);
        }
    }
}

impl End {
    fn own(&self) -> &Mutex<Flow> {
        self.connection.flow(self.side)
    }
    fn other(&self) -> usize {
        1 - self.side
    }
    fn peer(&self) -> &Mutex<Flow> {
        self.connection.flow(self.other())
    }

    pub(super) fn local(&self) -> Endpoint {
        let [client, server] = self.connection.names;
        if self.side == 0 { client } else { server }
    }
    pub(super) fn remote(&self) -> Endpoint {
        let [client, server] = self.connection.names;
        if self.side == 0 { server } else { client }
    }
    pub(super) fn queue(&self) -> &Arc<WaitQueue> {
        let [a, b] = &self.connection.queues;
        if self.side == 0 { a } else { b }
    }
    /// Whether both are ends of one connection.
    pub(super) fn is_other_end_of(&self, other: &End) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// The server's end is accepted when something came.
    pub(super) fn defer(&self, listener: &Arc<Listener>) {
        self.own().lock().deferred = Some(Arc::downgrade(listener));
    }

    /// Takes changed options.
    pub(super) fn set_options(&self, options: &Options) {
        {
            let mut flow = self.own().lock();
            flow.receive_room = options.receive_room();
            flow.low_water = options.low_water();
            flow.urgent_inline = options.urgent_inline();
        }
        self.peer().lock().send_room = options.send_room();
        self.resets.store(options.close_resets(), Ordering::Relaxed);
        self.connection.wake(self.side, Events::WRITABLE);
        self.connection.wake(self.other(), Events::WRITABLE);
    }

    pub(super) fn send(&self, data: &[u8], flags: MsgFlags) -> Result<usize> {
        if self.connection.trouble(self.side).load(Ordering::SeqCst) {
            let mut flow = self.own().lock();
            if let Some(errno) = flow.error.take() {
                return Err(errno);
            }
            if flow.reset {
                return Err(Errno::EPIPE);
            }
        }
        let mut flow = self.peer().lock();
        if flow.fin {
            return Err(Errno::EPIPE);
        }
        if data.is_empty() {
            return Ok(0);
        }
        if flow.gone || flow.reset {
            drop(flow);
            // It goes, and the answer is a reset.
            self.connection.reset(self.side);
            return Ok(data.len());
        }
        let room = flow.room();
        if room == 0 {
            flow.writer_waits = true;
            return Err(Errno::EAGAIN);
        }
        let n = room.min(data.len());
        flow.queue.push(data.get(..n).unwrap_or_default());
        flow.total += n as u64;
        QUEUED.fetch_add(n, Ordering::Relaxed);
        let mut events = Events::READABLE;
        if flags.contains(MsgFlags::OOB) && n == data.len() {
            let byte = data.last().copied().unwrap_or(0);
            flow.urgent = Some(Urgent { at: flow.total - 1, byte, taken: false });
            events |= Events::PRI;
        }
        let deferred = flow.deferred.take();
        drop(flow);
        self.arrived(deferred);
        self.connection.wake(self.other(), events);
        Ok(n)
    }

    /// The listener that holds the other end back may let it go.
    fn arrived(&self, deferred: Option<Weak<Listener>>) {
        if let Some(listener) = deferred.as_ref().and_then(Weak::upgrade) {
            listener.undefer(|end| self.is_other_end_of(end));
        }
    }

    pub(super) fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received> {
        let peek = flags.contains(MsgFlags::PEEK);
        let mut flow = self.own().lock();
        if flags.contains(MsgFlags::OOB) {
            return urgent(&mut flow, buf, peek);
        }
        // The urgent byte itself is no part of the stream.
        if flow.urgent.is_some_and(|u| u.at == flow.position()) && !flow.urgent_inline && flow.readable() > 0
        {
            flow.skip(1);
        }
        let most = flow.readable().min(buf.len());
        if flow.readable() == 0 {
            if flow.fin {
                return Ok(Received::default());
            }
            if let Some(errno) = flow.error.take() {
                return Err(errno);
            }
            return if flow.ended() { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        }
        let n = if flags.contains(MsgFlags::TRUNC) {
            most
        } else {
            flow.queue.peek(0, buf.get_mut(..most).unwrap_or_default())
        };
        let mut wake = false;
        if !peek {
            flow.skip(n);
            wake = flow.writer_waits && flow.roomy();
            if wake {
                flow.writer_waits = false;
            }
        }
        drop(flow);
        if wake {
            self.connection.wake(self.other(), Events::WRITABLE);
        }
        Ok(Received { count: n, length: n, ..Received::default() })
    }

    pub(super) fn shutdown(&self, halves: Halves) -> Result<()> {
        if self.state() == State::Close {
            return Err(Errno::ENOTCONN);
        }
        if halves.read {
            self.own().lock().read_shut = true;
        }
        if halves.write {
            self.send_fin();
        }
        self.connection.wake(self.side, Events::all());
        Ok(())
    }

    fn send_fin(&self) {
        if std::mem::replace(&mut self.own().lock().sent_fin, true) {
            return;
        }
        let deferred = {
            let mut flow = self.peer().lock();
            flow.fin = true;
            flow.deferred.take()
        };
        self.arrived(deferred);
        self.connection.finish(self.side);
        self.connection.wake(self.other(), Events::all());
    }

    pub(super) fn poll(&self) -> Events {
        let mut events = Events::empty();
        let sent_fin = {
            let flow = self.own().lock();
            let ended = flow.ended();
            events.set(Events::READABLE, ended || flow.readable() >= flow.low_water.max(1));
            events.set(Events::RDHUP, ended);
            events.set(Events::PRI, flow.urgent.is_some_and(|u| !u.taken));
            events.set(Events::ERR, flow.error.is_some());
            let sent_fin = flow.sent_fin || flow.reset;
            events.set(Events::HUP, ended && sent_fin);
            sent_fin
        };
        if sent_fin {
            return events | Events::WRITABLE;
        }
        let mut flow = self.peer().lock();
        let writable = flow.roomy() || flow.gone || flow.reset;
        flow.writer_waits |= !writable;
        events.set(Events::WRITABLE, writable);
        events
    }

    pub(super) fn take_error(&self) -> Option<Errno> {
        self.own().lock().error.take()
    }

    pub(super) fn state(&self) -> State {
        let flow = self.own().lock();
        match (flow.sent_fin, flow.fin) {
            _ if flow.reset => State::Close,
            (false, false) => State::Established,
            (true, false) => State::FinWait2,
            (false, true) => State::CloseWait,
            (true, true) => State::Close,
        }
    }

    /// Bytes to read (FIONREAD): up to the urgent one.
    pub(super) fn unread(&self) -> usize {
        self.own().lock().readable()
    }
    /// Bytes that the other end's buffer did not take yet (SIOCOUTQ).
    pub(super) fn unsent(&self) -> usize {
        let flow = self.peer().lock();
        flow.queue.len().saturating_sub(flow.receive_room)
    }
    /// Whether the next byte to read is the urgent one (SIOCATMARK).
    pub(super) fn at_mark(&self) -> bool {
        let flow = self.own().lock();
        flow.urgent.is_some_and(|u| u.at == flow.position())
    }
    /// Bytes ever sent and received.
    pub(super) fn totals(&self) -> (u64, u64) {
        let sent = self.peer().lock().total;
        (sent, self.own().lock().total)
    }

    /// Ends the connection with a reset of the other end.
    pub(super) fn abort(self) {
        self.resets.store(true, Ordering::Relaxed);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let (unread, was_reset) = {
            let mut flow = self.own().lock();
            flow.gone = true;
            // Bytes in the queue are data that nobody read, but for an urgent one that was.
            let unread = flow.readable() > 0 || flow.urgent.is_some_and(|u| !u.taken);
            let len = flow.queue.len();
            flow.skip(len);
            (unread, flow.reset)
        };
        if was_reset {
            return;
        }
        if unread || self.resets.load(Ordering::Relaxed) {
            self.own().lock().reset = true;
            self.connection.reset(self.other());
            self.connection.release(None);
            return;
        }
        self.send_fin();
        // Who waits for room waits no more.
        self.connection.wake(self.other(), Events::WRITABLE);
    }
}

/// MSG_OOB of recv(2).
fn urgent(flow: &mut Flow, buf: &mut [u8], peek: bool) -> Result<Received> {
    let Some(urgent) = flow.urgent.as_mut().filter(|u| !u.taken && !flow.urgent_inline) else {
        return Err(Errno::EINVAL);
    };
    urgent.taken |= !peek;
    let mut flags = MsgFlags::OOB;
    let count = match buf.first_mut() {
        Some(first) => {
            *first = urgent.byte;
            1
        }
        None => {
            flags |= MsgFlags::TRUNC;
            0
        }
    };
    Ok(Received { count, length: 1, flags, ..Received::default() })
}
