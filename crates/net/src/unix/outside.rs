//! Local sockets that have been connected to programs of the host, by socket files that are granted to the guest.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer};
use linux_abi::Errno;
use linux_abi::socket::so;
use vfs::Inode;

use super::options::DEFAULT_BUFFER;
use super::{Endpoint, Identity, Kind, UnixSocket};
use crate::host::local::{LocalSocket, Outside};
use crate::socket::Socket;
use crate::{Address, Result};

/// The host tells nobody when a full backlog has room again: how long until the next try.
const PAUSE_NS: u64 = 10_000_000;

/// What a socket has outside.
#[derive(Default)]
pub(super) struct Abroad {
    /// The other end.
    peer: Option<Arc<LocalSocket>>,
    /// Where the last datagram with an address went.
    named: Option<(Arc<dyn Inode>, Arc<LocalSocket>)>,
    again: Option<Alarm>,
    /// Of the host's, which has the same name.
    own: Option<Arc<LocalSocket>>,
}

/// Wakes who waits for a full backlog.
struct Again(Weak<Endpoint>);

impl Observer for Again {
    fn notify(&self, _events: Events) -> bool {
        if let Some(end) = self.0.upgrade() {
            end.queue.wake(Events::WRITABLE);
        }
        true
    }
}

/// A socket file of the host.
pub(super) struct Target<'a> {
    outside: &'a Outside,
    node: &'a Arc<dyn Inode>,
    file: Arc<OwnedFd>,
}

impl UnixSocket {
    /// The host's socket file of an address that nobody inside has bound; none if it reaches no program of the host.
    pub(super) fn target<'a>(&'a self, address: &'a Address) -> Result<Option<Target<'a>>> {
        let (Some(outside), Some(node)) = (self.0.names.outside(), &address.node) else { return Ok(None) };
        let file = node.outside_socket().transpose()?;
        Ok(file.map(|file| Target { outside, node, file }))
    }

    /// The other end, if it is outside.
    pub(super) fn abroad(&self) -> Option<Arc<LocalSocket>> {
        self.1.get()?.lock().peer.clone()
    }

    fn dial(&self, target: &Target<'_>) -> Result<Arc<LocalSocket>> {
        let (kind, queue) = (self.kind().1, self.0.queue.clone());
        let connected = target.outside.connect(target.file.as_fd(), kind, queue);
        match connected {
            Ok(socket) => {
                let socket = Arc::new(socket);
                self.hand_options(&socket);
                Ok(socket)
            }
            Err(Errno::EAGAIN) => {
                let again = Arc::new(Again(Arc::downgrade(&self.0)));
                let alarm = Alarm::at(executor::monotonic_ns().saturating_add(PAUSE_NS), again);
                let old = self.1.get_or_init(Default::default).lock().again.replace(alarm);
                drop(old);
                Err(Errno::EAGAIN)
            }
            Err(errno) => Err(errno),
        }
    }

    /// connect(2) of a stream, or of a socket of messages that keep their bounds and order.
    pub(super) fn connect_abroad(&self, target: &Target<'_>) -> Result<()> {
        self.begin_connect()?;
        let connected = self.dial(target);
        let mut state = self.0.state.lock();
        state.connecting = false;
        let socket = connected?;
        let (cred, groups) = socket.peer();
        state.peer_identity = Some(Identity { cred, groups });
        let mut abroad = self.1.get_or_init(Default::default).lock();
        abroad.peer = Some(socket);
        let again = abroad.again.take();
        drop((abroad, state));
        drop(again);
        self.0.queue.wake_all(Events::WRITABLE);
        Ok(())
    }

    /// connect(2) of a datagram socket.
    pub(super) fn aim_abroad(&self, target: &Target<'_>) -> Result<()> {
        let socket = self.dial(target)?;
        let old = self.0.state.lock().peer.take();
        let before = self.1.get_or_init(Default::default).lock().peer.replace(socket);
        drop((old, before));
        self.0.queue.wake_all(Events::WRITABLE);
        Ok(())
    }

    /// The datagram socket is connected to something else, or to nothing.
    pub(super) fn turn_home(&self) {
        let old = self.1.get().and_then(|abroad| abroad.lock().peer.take());
        drop(old);
    }

    /// Sends a datagram to the host's socket file.
    pub(super) fn send_abroad(&self, target: &Target<'_>, data: &[u8]) -> Result<usize> {
        let known = self.1.get().and_then(|abroad| abroad.lock().named.clone());
        let socket = match known {
            Some((node, socket)) if Arc::ptr_eq(&node, target.node) => socket,
            _ => {
                let socket = self.dial(target)?;
                let named = Some((target.node.clone(), socket.clone()));
                let old = std::mem::replace(&mut self.1.get_or_init(Default::default).lock().named, named);
                drop(old);
                socket
            }
        };
        socket.send(data)
    }

    /// The host's socket that has our name, if it is bound there, too.
    pub(super) fn own(&self) -> Option<Arc<LocalSocket>> {
        self.1.get()?.lock().own.clone()
    }

    /// A name was taken: that of a host's socket, if its file has one.
    pub(super) fn adopt(&self, address: &Address) -> Result<()> {
        let (Some(outside), Some(node)) = (self.0.names.outside(), &address.node) else { return Ok(()) };
        let Some(fd) = node.take_bound() else { return Ok(()) };
        let own = Arc::new(outside.adopt(fd, self.kind().1, self.0.queue.clone())?);
        self.hand_options(&own);
        self.1.get_or_init(Default::default).lock().own = Some(own);
        Ok(())
    }

    /// accept(2) of a connection from outside.
    pub(super) fn accept_outside(&self) -> Result<Arc<UnixSocket>> {
        let own = self.own().ok_or(Errno::EAGAIN)?;
        let (identity, name, options) = {
            let state = self.0.state.lock();
            (state.own.clone(), state.local.clone(), state.options.clone())
        };
        let end = Endpoint::new(&self.0.names, self.0.kind, identity);
        let socket = own.accept(end.queue.clone())?;
        let (cred, groups) = socket.peer();
        {
            let mut state = end.state.lock();
            state.local = name;
            state.peer_identity = Some(Identity { cred, groups });
            state.options.inherit(&options);
        }
        let accepted = UnixSocket::of(end);
        accepted.hand_options(&socket);
        accepted.1.get_or_init(Default::default).lock().peer = Some(Arc::new(socket));
        Ok(accepted)
    }

    /// Options that the host's socket is to have as well.
    fn hand_options(&self, socket: &LocalSocket) {
        let state = self.0.state.lock();
        let size = |bytes: usize| i32::try_from(bytes / 2).unwrap_or(i32::MAX);
        let options = [
            (so::PASSCRED, state.options.passcred.then_some(1)),
            (so::SNDBUF, (state.options.sndbuf != DEFAULT_BUFFER).then(|| size(state.options.sndbuf))),
            (so::RCVBUF, (state.options.rcvbuf != DEFAULT_BUFFER).then(|| size(state.options.rcvbuf))),
            (so::PEEK_OFF, state.peek_offset.map(|offset| i32::try_from(offset).unwrap_or(i32::MAX))),
        ];
        drop(state);
        for (name, value) in options.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // The host's limits may be others.
            let _ = socket.set_option(name, value);
        }
    }

    /// An option was set.
    pub(super) fn pass_option_on(&self, name: i32) {
        for socket in self.abroad().into_iter().chain(self.own()) {
            self.pass_on(&socket, name);
        }
    }

    fn pass_on(&self, socket: &LocalSocket, name: i32) {
        match name {
            so::PASSCRED | so::PEEK_OFF => {
                let state = self.0.state.lock();
                let value = match name {
                    so::PASSCRED => i32::from(state.options.passcred),
                    _ => state.peek_offset.map_or(-1, |offset| i32::try_from(offset).unwrap_or(i32::MAX)),
                };
                drop(state);
                let _ = socket.set_option(name, value);
            }
            so::SNDBUF | so::SNDBUFFORCE | so::RCVBUF | so::RCVBUFFORCE => self.hand_options(socket),
            _ => {}
        }
    }

    /// A stream's or message socket's own state allows a connect(2), which begins. `EINVAL`, `EISCONN`.
    pub(super) fn begin_connect(&self) -> Result<()> {
        let mut state = self.0.state.lock();
        if state.listener.is_some() {
            return Err(Errno::EINVAL);
        }
        if state.peer.is_some() || state.connecting || self.abroad().is_some() {
            return Err(Errno::EISCONN);
        }
        state.connecting = true;
        Ok(())
    }

    /// What is ready, `inside` apart.
    pub(super) fn ready_abroad(&self, inside: Events) -> Events {
        let mut ready = match (self.abroad(), self.0.kind) {
            (None, _) => inside,
            // What comes to its name comes to another socket.
            (Some(socket), Kind::Datagram) => {
                (inside - Events::WRITABLE) | (socket.poll() & (Events::WRITABLE | Events::ERR))
            }
            (Some(socket), _) => return socket.poll(),
        };
        if let Some(own) = self.own() {
            ready |= own.poll() & Events::READABLE;
        }
        ready
    }
}
