//! Sending, receiving and readiness of local sockets.

use std::sync::Arc;

use executor::Events;
use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{MsgFlags, SOL_SOCKET, so};
use vfs::Caller;

use super::inbox::{MAX_MESSAGES, Message, Taken};
use super::rights::Rights;
use super::{Endpoint, Kind, State, UnixSocket, names, wake_blocked};
use crate::filter::Bare;
use crate::socket::{Control, Received, SocketCaller, Ucred};
use crate::{Address, Result};

/// ioctl(2): bytes to read; bytes sent and not yet read.
const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;
/// How many datagrams one socket holds (/proc/sys/net/unix/max_dgram_qlen).
const MAX_DATAGRAMS: usize = 512;

/// What a message carries besides bytes.
struct Cargo {
    rights: Rights,
    sender: Ucred,
}

/// Checks control messages: credentials that the caller may not claim are `EPERM`.
fn cargo(caller: &SocketCaller<'_>, control: &[Control]) -> Result<Cargo> {
    let mut files = Vec::new();
    let mut sender = caller.ucred();
    for message in control {
        match message {
            Control::Rights(more) => files.extend(more.iter().cloned()),
            Control::Credentials(claimed) => {
                let c = caller.credentials;
                let pid = claimed.pid == caller.pid || c.capable(Capability::SYS_ADMIN);
                let uid = [c.uid, c.euid, c.suid].contains(&claimed.uid) || c.capable(Capability::SETUID);
                let gid = [c.gid, c.egid, c.sgid].contains(&claimed.gid) || c.capable(Capability::SETGID);
                if !(pid && uid && gid) {
                    return Err(Errno::EPERM);
                }
                sender = *claimed;
            }
            Control::PidFd { .. } | Control::Raw { .. } => return Err(Errno::EINVAL),
        }
    }
    Ok(Cargo { rights: Rights::new(files)?, sender })
}

/// Whether poll calls it writable: as Linux, from a quarter of the buffer down.
fn roomy(bytes: usize, sndbuf: usize) -> bool {
    bytes.saturating_mul(4) <= sndbuf
}

impl UnixSocket {
    pub(super) fn transmit(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let cargo = cargo(caller, control)?;
        let n = match self.0.kind {
            Kind::Stream | Kind::SeqPacket => {
                if to.is_some() {
                    let connected = self.0.state.lock().peer.is_some() || self.abroad().is_some();
                    return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
                }
                match self.abroad() {
                    Some(socket) => {
                        self.keep_files(&cargo)?;
                        socket.send(data)?
                    }
                    None => self.send_connected(data, cargo, false)?,
                }
            }
            Kind::Datagram => self.send_datagram(data, to, cargo)?,
        };
        control.clear();
        Ok(n)
    }

    /// Sends what was promised to be taken, see `posting`.
    pub(super) fn force(&self, caller: &SocketCaller<'_>, data: &[u8]) -> Result<usize> {
        self.send_connected(data, cargo(caller, &[])?, true)
    }

    /// Files are not handed to programs of the host: `EPERM`.
    fn keep_files(&self, cargo: &Cargo) -> Result<()> {
        match self.0.names.outside() {
            Some(outside) if !cargo.rights.is_empty() => Err(outside.refuse_files()),
            _ => Ok(()),
        }
    }

    fn send_connected(&self, data: &[u8], cargo: Cargo, force: bool) -> Result<usize> {
        let (peer, sndbuf, from) = {
            let mut state = self.0.state.lock();
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            if state.peer.is_some() && state.write_closed {
                return Err(Errno::EPIPE);
            }
            let peer = state.peer.clone().ok_or(Errno::ENOTCONN)?;
            (peer, state.options.sndbuf, state.local.clone())
        };
        let whole = self.0.kind == Kind::SeqPacket;
        if whole && data.len() > sndbuf {
            return Err(Errno::EMSGSIZE);
        }
        let mut other = peer.state.lock();
        if other.closed || other.read_closed {
            return Err(Errno::EPIPE);
        }
        if data.is_empty() && !whole {
            return Ok(0);
        }
        let room = if force { data.len() } else { sndbuf.saturating_sub(other.inbox.bytes()) };
        let full = if whole { room < data.len().max(1) } else { room == 0 };
        if full || (other.inbox.len() >= MAX_MESSAGES && !force) {
            return Err(Errno::EAGAIN);
        }
        let n = room.min(data.len());
        let passed = if whole { passed(&peer, data) } else { data.get(..n) };
        let Some(passed) = passed else { return Ok(n) };
        let sent = sent(&other);
        let message = Message {
            data: passed.to_vec(),
            taken: 0,
            rights: cargo.rights,
            sender: cargo.sender,
            sent,
            from,
        };
        if whole {
            other.inbox.push(message);
        } else {
            other.inbox.push_stream(message);
        }
        drop(other);
        peer.queue.wake(Events::READABLE);
        Ok(n)
    }

    fn send_datagram(&self, data: &[u8], to: Option<&Address>, cargo: Cargo) -> Result<usize> {
        self.name_if_passing()?;
        let named = to.map(|address| self.0.names.find(&names::key_of(address)?)).transpose();
        let named = match (named, to) {
            (Err(errno), Some(address)) => match self.target(address)? {
                Some(target) => {
                    self.keep_files(&cargo)?;
                    return self.send_abroad(&target, data);
                }
                None => return Err(errno),
            },
            (named, _) => named?,
        };
        if let Some(socket) = self.abroad().filter(|_| named.is_none()) {
            self.keep_files(&cargo)?;
            return socket.send(data);
        }
        let (target, sndbuf, from) = {
            let mut state = self.0.state.lock();
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            if state.write_closed {
                return Err(Errno::EPIPE);
            }
            let target = named.or_else(|| state.peer.clone()).ok_or(Errno::ENOTCONN)?;
            (target, state.options.sndbuf, state.local.clone())
        };
        if target.kind != Kind::Datagram {
            return Err(Errno::EPROTOTYPE);
        }
        if data.len() > sndbuf {
            return Err(Errno::EMSGSIZE);
        }
        let mut other = target.state.lock();
        if other.closed {
            drop(other);
            if to.is_none() {
                let gone = self.0.state.lock().peer.take();
                drop(gone);
            }
            return Err(Errno::ECONNREFUSED);
        }
        if other.read_closed {
            return Err(Errno::EPIPE);
        }
        if other.peer.as_ref().is_some_and(|p| !Arc::ptr_eq(p, &self.0)) {
            return Err(Errno::EPERM);
        }
        if !takes_datagram(&other, data.len()) {
            Endpoint::block(&mut other, &self.0);
            return Err(Errno::EAGAIN);
        }
        let Some(passed) = passed(&target, data) else { return Ok(data.len()) };
        let sent = sent(&other);
        other.inbox.push(Message {
            data: passed.to_vec(),
            taken: 0,
            rights: cargo.rights,
            sender: cargo.sender,
            sent,
            from,
        });
        drop(other);
        target.queue.wake(Events::READABLE);
        Ok(data.len())
    }

    pub(super) fn take(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        if let Some(socket) = self.abroad().filter(|_| self.0.kind.connected()) {
            let passcred = self.0.state.lock().options.passcred;
            return socket.receive(buf, passcred, flags);
        }
        let mut state = self.0.state.lock();
        if self.0.kind.connected() && state.peer.is_none() {
            return Err(if self.0.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        let (passcred, passpidfd) = (state.options.passcred, state.options.passpidfd);
        if state.inbox.is_empty() {
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            let closed = state.read_closed;
            drop(state);
            return match self.own().filter(|_| self.0.kind == Kind::Datagram) {
                Some(own) => own.receive(buf, passcred, flags),
                None if closed => Ok(Received::default()),
                None => Err(Errno::EAGAIN),
            };
        }
        let stream = self.0.kind == Kind::Stream;
        let skip = if peek { state.peek_offset.unwrap_or(0) } else { 0 };
        let read = if stream {
            let taken = state.inbox.read_stream(buf, peek, passcred || passpidfd, skip);
            // All was seen before: a peek waits for more.
            (taken.sender.is_some()).then_some(taken)
        } else {
            state.inbox.read_message(buf, peek, skip)
        };
        let Some(taken) = read else {
            return if state.read_closed { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
        };
        if let Some(offset) = &mut state.peek_offset {
            // What is read moves to the front of what was peeked at.
            let gone = if stream { taken.count } else { taken.length };
            *offset = if peek { offset.saturating_add(taken.count) } else { offset.saturating_sub(gone) };
        }
        let stamps = state.options.stamps.filter(|_| !stream);
        let blocked = if peek { Vec::new() } else { std::mem::take(&mut state.blocked) };
        let peer = if peek { None } else { state.peer.clone().filter(|_| self.0.kind.connected()) };
        let left = state.inbox.bytes();
        drop(state);
        wake_blocked(blocked);
        if let Some(peer) = peer {
            let sndbuf = peer.state.lock().options.sndbuf;
            if roomy(left, sndbuf) {
                peer.queue.wake(Events::WRITABLE);
            }
        }
        let mut got = received(taken, (passcred, passpidfd), stream);
        got.control.extend(stamps.map(stamp));
        Ok(got)
    }

    pub(super) fn ready(&self) -> Events {
        let mut state = self.0.state.lock();
        let mut events = Events::empty();
        if let Some(listener) = &state.listener {
            events.set(Events::READABLE, !listener.pending.is_empty() || state.read_closed);
            return events;
        }
        events.set(Events::ERR, state.error.is_some());
        events.set(Events::READABLE, !state.inbox.is_empty() || state.read_closed);
        events.set(Events::RDHUP, state.read_closed);
        let unconnected = self.0.kind.connected() && state.peer.is_none();
        events.set(Events::HUP, unconnected || (state.read_closed && state.write_closed));
        let sndbuf = state.options.sndbuf;
        let Some(peer) = state.peer.clone() else {
            return events | Events::WRITABLE;
        };
        if Arc::ptr_eq(&peer, &self.0) {
            events.set(Events::WRITABLE, takes_datagram(&state, 1));
            Endpoint::block(&mut state, &self.0);
            return events;
        }
        drop(state);
        let mut other = peer.state.lock();
        let writable = match self.0.kind {
            Kind::Datagram => other.closed || takes_datagram(&other, 1),
            Kind::Stream | Kind::SeqPacket => other.closed || roomy(other.inbox.bytes(), sndbuf),
        };
        if !writable && self.0.kind == Kind::Datagram {
            Endpoint::block(&mut other, &self.0);
        }
        events.set(Events::WRITABLE, writable);
        events
    }

    pub(super) fn control(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        let abroad = self.abroad().filter(|_| self.0.kind.connected() || cmd == SIOCOUTQ);
        let n = match cmd {
            FIONREAD | SIOCOUTQ if let Some(socket) = abroad => socket.count(cmd)?,
            FIONREAD => {
                let state = self.0.state.lock();
                if state.listener.is_some() {
                    return Err(Errno::EINVAL);
                }
                if self.0.kind == Kind::Datagram { state.inbox.first_len() } else { state.inbox.bytes() }
            }
            SIOCOUTQ => {
                let peer = self.0.state.lock().peer.clone();
                peer.map_or(0, |p| p.state.lock().inbox.bytes())
            }
            _ => return self.0.names.providers().interface_ioctl(caller, cmd, arg),
        };
        caller.write_memory(arg, &i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }
}

/// What the receiver's filter leaves of a message; none if it throws it away, which the sender is not told.
fn passed<'a>(to: &Endpoint, data: &'a [u8]) -> Option<&'a [u8]> {
    let Some(program) = to.filter.get() else { return Some(data) };
    let keep = program.run(&Bare(data)) as usize;
    if keep == 0 { None } else { data.get(..keep.min(data.len())) }
}

/// The time of a message to a socket with `SO_PASSPIDFD`: no other needs it.
fn sent(to: &State) -> Option<u64> {
    to.options.passpidfd.then(executor::monotonic_ns)
}

/// Whether a datagram of this size is taken: one always is, more as far as the receive buffer goes.
fn takes_datagram(state: &State, len: usize) -> bool {
    let fits = state.inbox.bytes().saturating_add(len) <= state.options.rcvbuf;
    state.inbox.len() < MAX_DATAGRAMS && (fits || state.inbox.is_empty())
}

/// The time now, as a control message of `SO_TIMESTAMP` or `SO_TIMESTAMPNS`.
fn stamp(name: i32) -> Control {
    let now = executor::realtime_ns();
    let rest = now % 1_000_000_000;
    let rest = if name == so::TIMESTAMP { rest / 1000 } else { rest };
    let data = [(now / 1_000_000_000).to_ne_bytes(), rest.to_ne_bytes()].concat();
    Control::Raw { level: SOL_SOCKET, kind: name, data }
}

fn received(taken: Taken, (passcred, passpidfd): (bool, bool), stream: bool) -> Received {
    let mut control = Vec::new();
    if passcred && let Some(sender) = taken.sender {
        control.push(Control::Credentials(sender));
    }
    if !taken.files.is_empty() {
        control.push(Control::Rights(taken.files));
    }
    if passpidfd && let (Some(sender), Some(at)) = (taken.sender, taken.sent) {
        control.push(Control::PidFd { pid: sender.pid, at });
    }
    let mut flags = MsgFlags::empty();
    flags.set(MsgFlags::TRUNC, taken.length > taken.count);
    let from = if stream { None } else { Some(taken.from) };
    Received { count: taken.count, length: taken.length, flags, from, control }
}
