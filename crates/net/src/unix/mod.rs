//! Local sockets: unix(7).

mod garbage;
mod inbox;
mod names;
mod options;
mod outside;
mod posting;
mod rights;
mod transfer;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, AF_UNSPEC, MsgFlags, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, SOMAXCONN};
use parking_lot::Mutex;
use vfs::{Caller, Inode};

pub use names::{Names, path_of};

use crate::filter::Filter;
use crate::posting::{Posts, note_end};
use crate::registry::{Description, UnixDescription};
use crate::socket::{Control, Halves, Received, Socket, SocketCaller, Ucred};
use crate::{Address, Result};
use inbox::Inbox;
use names::Key;
use options::Options;
use outside::Abroad;

/// `SOCK_STREAM` and its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Stream,
    Datagram,
    SeqPacket,
}

impl Kind {
    fn connected(self) -> bool {
        self != Kind::Datagram
    }
}

struct Listener {
    backlog: usize,
    /// Server ends of connections not yet accepted.
    pending: VecDeque<Arc<Endpoint>>,
}

#[derive(Default)]
struct State {
    /// The address with its family; empty if unbound.
    local: Vec<u8>,
    key: Option<Key>,
    /// Held so that the inode's number is not given to another file.
    node: Option<Arc<dyn Inode>>,
    peer: Option<Arc<Endpoint>>,
    connecting: bool,
    listener: Option<Listener>,
    inbox: Inbox,
    /// No more comes: own `SHUT_RD`, or the other side ended.
    read_closed: bool,
    /// No more goes.
    write_closed: bool,
    closed: bool,
    error: Option<Errno>,
    options: Options,
    own: Identity,
    peer_identity: Option<Identity>,
    /// Bytes that a peek leaves out (SO_PEEK_OFF), if that is on.
    peek_offset: Option<usize>,
    /// Whoever waits for room here.
    blocked: Vec<Weak<Endpoint>>,
}

/// Who an end belongs to, as the other one is told (SO_PEERCRED, SO_PEERGROUPS).
#[derive(Clone, Default)]
struct Identity {
    cred: Ucred,
    groups: Arc<[u32]>,
}

impl Identity {
    fn of(caller: &SocketCaller<'_>) -> Identity {
        Identity { cred: caller.ucred(), groups: caller.credentials.groups.as_slice().into() }
    }
}

/// One end: lives while its socket or the other end does.
struct Endpoint {
    kind: Kind,
    names: Arc<Names>,
    queue: Arc<WaitQueue>,
    filter: Filter,
    /// See [`crate::posting::Posts::numbers`].
    number: u32,
    state: Mutex<State>,
}

/// A unix(7) socket.
pub struct UnixSocket(Arc<Endpoint>, OnceLock<Mutex<Abroad>>);

impl Endpoint {
    fn new(names: &Arc<Names>, kind: Kind, own: Identity) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            kind,
            names: names.clone(),
            queue: Arc::new(WaitQueue::new()),
            filter: Filter::default(),
            number: crate::posting::numbers(1),
            state: Mutex::new(State { own, ..State::default() }),
        })
    }

    /// Notes that `who` waits for room here. The caller holds the state's lock.
    fn block(state: &mut State, who: &Arc<Endpoint>) {
        if !state.blocked.iter().any(|b| std::ptr::eq(b.as_ptr(), Arc::as_ptr(who))) {
            state.blocked.retain(|b| b.strong_count() > 0);
            state.blocked.push(Arc::downgrade(who));
        }
    }

    /// The socket was closed: tells everybody who knows this end.
    fn close(self: &Arc<Endpoint>) {
        let mut state = self.state.lock();
        state.closed = true;
        state.read_closed = true;
        state.write_closed = true;
        let peer = state.peer.take();
        let pending = state.listener.take().map(|l| l.pending).unwrap_or_default();
        let inbox = std::mem::take(&mut state.inbox);
        let blocked = std::mem::take(&mut state.blocked);
        let key = state.key.take();
        state.node = None;
        drop(state);
        if let Some(key) = key {
            self.names.remove(&key, self);
        }
        if let Some(peer) = peer.filter(|_| self.kind.connected()) {
            {
                let mut other = peer.state.lock();
                other.read_closed = true;
                other.write_closed = true;
                if !inbox.is_empty() {
                    other.error = Some(Errno::ECONNRESET);
                }
            }
            note_end();
            peer.queue.wake_all(Events::all());
        }
        for end in pending {
            end.close();
        }
        wake_blocked(blocked);
        // Outside all locks: it may hold descriptors of other sockets.
        drop(inbox);
        self.queue.wake_all(Events::all());
    }
}

fn wake_blocked(blocked: Vec<Weak<Endpoint>>) {
    for end in blocked.iter().filter_map(Weak::upgrade) {
        end.queue.wake_all(Events::WRITABLE);
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.0.close();
        garbage::collect();
    }
}

fn kind_of(kind: u32, protocol: i32) -> Result<Kind> {
    if protocol != 0 && protocol != i32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        SOCK_STREAM => Ok(Kind::Stream),
        // As Linux: a raw local socket is a datagram one.
        SOCK_DGRAM | linux_abi::socket::SOCK_RAW => Ok(Kind::Datagram),
        SOCK_SEQPACKET => Ok(Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

impl UnixSocket {
    /// socket(2). `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`.
    pub fn new(
        names: &Arc<Names>,
        caller: &SocketCaller<'_>,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<UnixSocket>> {
        let kind = kind_of(kind, protocol)?;
        Ok(UnixSocket::of(Endpoint::new(names, kind, Identity::of(caller))))
    }

    /// socketpair(2).
    pub fn pair(
        names: &Arc<Names>,
        caller: &SocketCaller<'_>,
        kind: u32,
        protocol: i32,
    ) -> Result<(Arc<UnixSocket>, Arc<UnixSocket>)> {
        let kind = kind_of(kind, protocol)?;
        let own = Identity::of(caller);
        let (a, b) = (Endpoint::new(names, kind, own.clone()), Endpoint::new(names, kind, own.clone()));
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut state = from.state.lock();
            state.peer = Some(to.clone());
            state.peer_identity = Some(own.clone());
        }
        Ok((UnixSocket::of(a), UnixSocket::of(b)))
    }

    fn of(end: Arc<Endpoint>) -> Arc<UnixSocket> {
        Arc::new(UnixSocket(end, OnceLock::new()))
    }

    fn connect_stream(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        let target = match self.0.names.find(&names::key_of(address)?) {
            Err(errno) => match self.target(address)? {
                Some(target) => return self.connect_abroad(&target),
                None => return Err(errno),
            },
            Ok(target) => target,
        };
        if target.kind != self.0.kind {
            return Err(Errno::EPROTOTYPE);
        }
        self.begin_connect()?;
        let result = self.queue_at(&target, Identity::of(caller));
        let mut state = self.0.state.lock();
        state.connecting = false;
        let (server, identity) = result?;
        state.peer = Some(server);
        state.peer_identity = Some(identity);
        drop(state);
        target.queue.wake(Events::READABLE);
        self.0.queue.wake_all(Events::WRITABLE);
        Ok(())
    }

    /// Takes a fresh abstract name. The caller holds the state's lock.
    fn autobind(&self, state: &mut State) -> Result<()> {
        let bytes = self.0.names.fresh();
        let key = names::key_of(&Address::plain(bytes.clone()))?;
        self.0.names.add(key.clone(), &self.0)?;
        state.local = bytes;
        state.key = Some(key);
        Ok(())
    }

    /// Who passes credentials has a name to be answered at (unix(7), autobind).
    fn name_if_passing(&self) -> Result<()> {
        let mut state = self.0.state.lock();
        if state.options.tells_senders() && state.local.is_empty() {
            self.autobind(&mut state)
        } else {
            Ok(())
        }
    }

    /// Puts the server end of a new connection into the listener's queue.
    fn queue_at(&self, target: &Arc<Endpoint>, own: Identity) -> Result<(Arc<Endpoint>, Identity)> {
        let mut listening = target.state.lock();
        let (identity, name) = (listening.own.clone(), listening.local.clone());
        if listening.read_closed {
            return Err(Errno::ECONNREFUSED);
        }
        let options = listening.options.clone();
        let listener = listening.listener.as_mut().ok_or(Errno::ECONNREFUSED)?;
        if listener.pending.len() > listener.backlog {
            Endpoint::block(&mut listening, &self.0);
            return Err(Errno::EAGAIN);
        }
        let server = Endpoint::new(&self.0.names, self.0.kind, identity.clone());
        {
            let mut state = server.state.lock();
            state.local = name;
            state.peer = Some(self.0.clone());
            state.peer_identity = Some(own);
            state.options.inherit(&options);
        }
        listener.pending.push_back(server.clone());
        Ok((server, identity))
    }

    fn connect_datagram(&self, address: &Address) -> Result<()> {
        let target = match self.0.names.find(&names::key_of(address)?) {
            Err(errno) => match self.target(address)? {
                Some(target) => return self.aim_abroad(&target),
                None => return Err(errno),
            },
            Ok(target) => target,
        };
        if target.kind != Kind::Datagram {
            return Err(Errno::EPROTOTYPE);
        }
        let taken = target.state.lock().peer.as_ref().is_some_and(|p| !Arc::ptr_eq(p, &self.0));
        if taken {
            return Err(Errno::EPERM);
        }
        let old = self.0.state.lock().peer.replace(target);
        drop(old);
        self.turn_home();
        self.0.queue.wake_all(Events::WRITABLE);
        Ok(())
    }
}

impl Socket for UnixSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn filter(&self) -> Option<&Filter> {
        Some(&self.0.filter)
    }
    fn kind(&self) -> (u16, u32, i32) {
        let kind = match self.0.kind {
            Kind::Stream => SOCK_STREAM,
            Kind::Datagram => SOCK_DGRAM,
            Kind::SeqPacket => SOCK_SEQPACKET,
        };
        (AF_UNIX, kind, 0)
    }
    fn bind(&self, _caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        if address.family()? != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        let mut state = self.0.state.lock();
        if !state.local.is_empty() {
            return Err(Errno::EINVAL);
        }
        if address.bytes.len() == 2 {
            return self.autobind(&mut state);
        }
        let key = names::key_of(address)?;
        self.0.names.add(key.clone(), &self.0)?;
        state.local = match path_of(&address.bytes) {
            // getsockname(2) gives the path with its NUL.
            Some(path) => [&AF_UNIX.to_ne_bytes(), path, &[0]].concat(),
            None => address.bytes.clone(),
        };
        state.node.clone_from(&address.node);
        state.key = Some(key);
        drop(state);
        self.adopt(address)
    }
    fn listen(&self, caller: &SocketCaller<'_>, backlog: i32) -> Result<()> {
        if !self.0.kind.connected() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.0.state.lock();
        if state.local.is_empty() || state.peer.is_some() || self.abroad().is_some() {
            return Err(Errno::EINVAL);
        }
        // Beyond the limit, and below 0, Linux takes the limit.
        let backlog = usize::try_from(backlog.min(SOMAXCONN)).unwrap_or(SOMAXCONN as usize);
        state.own = Identity::of(caller);
        match &mut state.listener {
            Some(listener) => listener.backlog = backlog,
            none => *none = Some(Listener { backlog, pending: VecDeque::new() }),
        }
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        wake_blocked(blocked);
        self.own().map_or(Ok(()), |own| own.listen(backlog))
    }
    fn connect(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        match self.0.kind {
            Kind::Datagram if address.family()? == AF_UNSPEC => {
                let old = self.0.state.lock().peer.take();
                drop(old);
                self.turn_home();
                Ok(())
            }
            Kind::Datagram => {
                self.name_if_passing()?;
                self.connect_datagram(address)
            }
            Kind::Stream | Kind::SeqPacket => {
                self.name_if_passing()?;
                self.connect_stream(caller, address)
            }
        }
    }
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        let mut state = self.0.state.lock();
        if !self.0.kind.connected() {
            return Err(Errno::EOPNOTSUPP);
        }
        let closed = state.read_closed;
        let listener = state.listener.as_mut().ok_or(Errno::EINVAL)?;
        let Some(end) = listener.pending.pop_front() else {
            drop(state);
            return if closed { Err(Errno::EINVAL) } else { Ok(self.accept_outside()?) };
        };
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        wake_blocked(blocked);
        Ok(UnixSocket::of(end))
    }
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        self.transmit(caller, data, to, control, flags)
    }
    fn receive(&self, buf: &mut [u8], _control_room: usize, flags: MsgFlags) -> Result<Received> {
        self.take(buf, flags)
    }
    fn shutdown(&self, halves: Halves) -> Result<()> {
        if let Some(socket) = self.abroad().filter(|_| self.0.kind.connected()) {
            return socket.shutdown(halves);
        }
        let mut state = self.0.state.lock();
        if self.0.kind.connected() && state.peer.is_none() && state.listener.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.read_closed |= halves.read;
        state.write_closed |= halves.write;
        let peer = state.peer.clone().filter(|_| self.0.kind.connected());
        drop(state);
        if let Some(own) = self.own() {
            let _ = own.shutdown(halves);
        }
        if let Some(peer) = peer {
            {
                let mut other = peer.state.lock();
                other.read_closed |= halves.write;
                other.write_closed |= halves.read;
            }
            note_end();
            peer.queue.wake_all(Events::all());
        }
        self.0.queue.wake_all(Events::all());
        Ok(())
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        let local = self.0.state.lock().local.clone();
        Ok(if local.is_empty() { AF_UNIX.to_ne_bytes().to_vec() } else { local })
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        if let Some(socket) = self.abroad() {
            return socket.peer_address();
        }
        let peer = self.0.state.lock().peer.clone().ok_or(Errno::ENOTCONN)?;
        let address = peer.state.lock().local.clone();
        Ok(if address.is_empty() { AF_UNIX.to_ne_bytes().to_vec() } else { address })
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        self.get_option(level, name, len)
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.put_option(caller, level, name, value)
    }
    fn take_error(&self) -> Option<Errno> {
        let own = self.0.state.lock().error.take();
        own.or_else(|| self.abroad()?.take_error())
    }
    fn low_water(&self) -> usize {
        let stream = self.0.kind == Kind::Stream;
        if stream { usize::try_from(self.0.state.lock().options.low_water).unwrap_or(1) } else { 1 }
    }
    fn posts(&self) -> Option<&dyn Posts> {
        (self.0.kind == Kind::Stream && self.abroad().is_none()).then_some(self)
    }
    fn poll(&self) -> Events {
        let inside = self.ready();
        if self.1.get().is_some() { self.ready_abroad(inside) } else { inside }
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.0.queue.clone()
    }
    fn describe(&self) -> Option<Description> {
        let id = |end: &Arc<Endpoint>| Arc::as_ptr(end) as usize;
        let state = self.0.state.lock();
        let (queued, limit) = match &state.listener {
            Some(listener) => (listener.pending.len(), listener.backlog),
            None => (state.inbox.bytes(), 0),
        };
        Some(Description::Unix(UnixDescription {
            kind: self.kind().1,
            listening: state.listener.is_some(),
            connected: state.peer.is_some() || self.abroad().is_some(),
            name: state.local.get(2..).unwrap_or_default().to_vec(),
            id: id(&self.0),
            peer: state.peer.as_ref().map(id),
            queued,
            limit,
        }))
    }
    fn ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        self.control(caller, cmd, arg)
    }
}

#[cfg(test)]
mod tests;
