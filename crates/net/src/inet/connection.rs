//! A TCP connection inside the sandbox: two byte queues, and what a program sees of TCP's states.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::MsgFlags;
use parking_lot::Mutex;

use super::endpoint::Endpoint;
use super::flow::{Flow, QUEUED, Urgent, urgent};
use super::hold::{Late, Stalled};
use super::listener::Listener;
use super::options::Options;
use super::ports::Ports;
use crate::Result;
use crate::posting::{note_end, numbers};
use crate::socket::{Halves, Received};

/// What both ends share. The client is end 0.
pub(super) struct Connection {
    flows: [Mutex<Flow>; 2],
    queues: [Arc<WaitQueue>; 2],
    names: [Endpoint; 2],
    /// An end has an error or was reset: its next call looks closely.
    trouble: [AtomicBool; 2],
    life: Mutex<Life>,
    ports: Arc<Ports>,
    reuse: [bool; 2],
    /// See [`crate::posting::Posts::numbers`].
    number: u32,
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
        flow.hold.set(other.corked(), other.user_timeout());
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
        number: numbers(2),
    });
    let end = |side, options: &Options| End {
        connection: connection.clone(),
        side,
        resets: AtomicBool::new(options.close_resets()),
    };
    (end(0, client.options), end(1, server.options))
}

impl Connection {
    pub(super) fn flow(&self, side: usize) -> &Mutex<Flow> {
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
        self.end(side, Errno::ECONNRESET);
    }

    fn end(&self, side: usize, errno: Errno) {
        {
            let mut flow = self.flow(side).lock();
            if flow.reset {
                return;
            }
            // As Linux: who has seen the end already gets a broken pipe.
            flow.error = Some(if flow.fin { Errno::EPIPE } else { errno });
            flow.reset = true;
        }
        self.trouble(side).store(true, Ordering::SeqCst);
        note_end();
        self.release(None);
        self.wake(side, Events::all());
    }

    /// The other end took nothing of what `side` has sent for too long.
    pub(super) fn time_out(&self, side: usize) {
        self.end(side, Errno::ETIMEDOUT);
        self.reset(1 - side);
    }

    /// The other end of `side` sees bytes that were held back.
    pub(super) fn shown(&self, side: usize) {
        let (deferred, gone) = {
            let mut flow = self.flow(1 - side).lock();
            (flow.deferred.take(), flow.gone)
        };
        if gone {
            return self.reset(side);
        }
        self.arrived(side, deferred);
        self.wake(1 - side, Events::READABLE);
    }

    /// The listener that holds the other end of `side` back may let it go.
    fn arrived(&self, side: usize, deferred: Option<Weak<Listener>>) {
        if let Some(listener) = deferred.as_ref().and_then(Weak::upgrade) {
            listener.undefer(|end| std::ptr::eq(self, &*end.connection) && end.side != side);
        }
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
    pub(super) fn is_client(&self) -> bool {
        self.side == 0
    }
    pub(super) fn queue(&self) -> &Arc<WaitQueue> {
        let [a, b] = &self.connection.queues;
        if self.side == 0 { a } else { b }
    }
    /// Whether it is an end of this connection.
    pub(super) fn is_of(&self, other: &Weak<Connection>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.connection), other.as_ptr())
    }
    /// The connection, held by nobody.
    pub(super) fn connection(&self) -> Weak<Connection> {
        Arc::downgrade(&self.connection)
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
        let go = {
            let mut flow = self.peer().lock();
            flow.send_room = options.send_room();
            flow.hold.set(options.corked(), options.user_timeout())
        };
        if go {
            self.connection.shown(self.side);
        }
        self.resets.store(options.close_resets(), Ordering::Relaxed);
        self.connection.wake(self.side, Events::WRITABLE);
        self.connection.wake(self.other(), Events::WRITABLE);
    }

    /// What is held back goes (`TCP_NODELAY` of tcp(7)).
    pub(super) fn push(&self) {
        let go = self.peer().lock().hold.let_go();
        if go {
            self.connection.shown(self.side);
        }
    }

    pub(super) fn send(&self, data: &[u8], flags: MsgFlags) -> Result<usize> {
        self.put(data, flags, false)
    }

    /// Sends all, also beyond the room: it was promised.
    pub(super) fn force(&self, data: &[u8]) -> Result<usize> {
        self.put(data, MsgFlags::empty(), true)
    }

    /// How many bytes a send takes for sure, see [`crate::posting`].
    pub(super) fn credit(&self) -> usize {
        if self.connection.trouble(self.side).load(Ordering::SeqCst) {
            return 0;
        }
        let flow = self.peer().lock();
        let ended = flow.fin || flow.gone || flow.reset;
        if ended || flow.deferred.is_some() {
            return 0;
        }
        // What is held back goes by a call, but the cork may be taken out.
        let most = if flow.hold.concerns(MsgFlags::empty()) { 1 } else { usize::MAX };
        flow.room().min(most)
    }

    /// See [`crate::posting::Posts::numbers`].
    pub(super) fn numbers(&self) -> (u32, u32) {
        let of = |side: usize| self.connection.number.wrapping_add(side as u32);
        (of(self.other()), of(self.side))
    }

    /// How many bytes wait behind `count`, see [`crate::posting`].
    pub(super) fn behind(&self, count: usize) -> Option<usize> {
        let flow = self.own().lock();
        let special = flow.urgent.is_some() || flow.error.is_some() || flow.deferred.is_some();
        if special || flow.ended() || flow.gone {
            return None;
        }
        // What is held back comes without a word of the other end.
        (flow.hold.bytes() == 0).then(|| flow.queue.len().checked_sub(count)).flatten()
    }

    /// Throws bytes away that are there.
    pub(super) fn discard(&self, count: usize) {
        let wake = {
            let mut flow = self.own().lock();
            let count = count.min(flow.readable());
            flow.skip(count);
            let wake = flow.writer_waits && flow.roomy();
            flow.writer_waits &= !wake;
            wake
        };
        if wake {
            self.connection.wake(self.other(), Events::WRITABLE);
        }
    }

    /// Whether all that a receive gives are plain bytes.
    pub(super) fn is_plain(&self) -> bool {
        let flow = self.own().lock();
        flow.urgent.is_none() && flow.error.is_none() && flow.queue.len() >= flow.low_water
    }

    fn put(&self, data: &[u8], flags: MsgFlags, force: bool) -> Result<usize> {
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
        let room = if force { data.len() } else { flow.room() };
        if room == 0 {
            flow.writer_waits = true;
            let position = flow.position();
            flow.hold.full(|time| Some(Stalled::at(&self.connection, self.side, position, time)));
            let go = flow.hold.let_go();
            drop(flow);
            if go {
                self.connection.shown(self.side);
            }
            return Err(Errno::EAGAIN);
        }
        let n = room.min(data.len());
        flow.queue.push(data.get(..n).unwrap_or_default());
        flow.total += n as u64;
        flow.pieces += 1;
        QUEUED.fetch_add(n, Ordering::Relaxed);
        let mut events = Events::READABLE;
        if flags.contains(MsgFlags::OOB) && n == data.len() {
            let byte = data.last().copied().unwrap_or(0);
            flow.urgent = Some(Urgent { at: flow.total - 1, byte, taken: false });
            events |= Events::PRI;
        }
        if flow.hold.concerns(flags) {
            let alarm = |time| Some(Late::at(&self.connection, self.side, time));
            if !flow.hold.sent(n, flags, n == data.len(), alarm) {
                return Ok(n);
            }
        }
        let deferred = flow.deferred.take();
        drop(flow);
        self.connection.arrived(self.side, deferred);
        self.connection.wake(self.other(), events);
        Ok(n)
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
            flow.hold.let_go();
            flow.deferred.take()
        };
        note_end();
        self.connection.arrived(self.side, deferred);
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

    /// See [`crate::Socket::restore_error`].
    pub(super) fn restore_error(&self, errno: Errno) {
        let mut flow = self.own().lock();
        if flow.reset && flow.error.is_none() {
            flow.error = Some(errno);
        }
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
        flow.queue.len().saturating_sub(flow.receive_room).max(flow.hold.bytes())
    }
    /// Bytes that were not sent at all yet (SIOCOUTQNSD).
    pub(super) fn held(&self) -> usize {
        self.peer().lock().hold.bytes()
    }
    /// Whether the next byte to read is the urgent one (SIOCATMARK).
    pub(super) fn at_mark(&self) -> bool {
        let flow = self.own().lock();
        flow.urgent.is_some_and(|u| u.at == flow.position())
    }
    /// Bytes and pieces ever sent, and received.
    pub(super) fn totals(&self) -> ((u64, u64), (u64, u64)) {
        let of = |flow: &Mutex<Flow>| {
            let flow = flow.lock();
            (flow.total, flow.pieces)
        };
        (of(self.peer()), of(self.own()))
    }
    /// What the other end's buffer still takes.
    pub(super) fn peer_room(&self) -> usize {
        let flow = self.peer().lock();
        flow.receive_room.saturating_sub(flow.queue.len())
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
            note_end();
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
