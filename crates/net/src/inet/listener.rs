//! Listening sockets, as connections from inside the sandbox see them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer, WaitQueue};
use linux_abi::Errno;
use parking_lot::Mutex;

use super::connection::{Connection, End};
use super::endpoint::Endpoint;
use super::options::Options;
use super::tcp::Shared;
use crate::Result;
use crate::registry::ListenerDescription;

const SECOND_NS: u64 = 1_000_000_000;

/// A place where connections arrive.
pub(super) struct Listener {
    name: Endpoint,
    /// An IPv6 wildcard that takes IPv4 too.
    dual: bool,
    queue: Arc<WaitQueue>,
    state: Mutex<State>,
}

struct State {
    backlog: usize,
    /// What accepted sockets begin with.
    options: Options,
    /// Server ends not yet accepted.
    pending: VecDeque<End>,
    /// Those that wait for the first bytes (TCP_DEFER_ACCEPT).
    deferred: Vec<(End, Alarm)>,
    /// Clients that found the backlog full.
    waiting: VecDeque<Weak<Shared>>,
    closed: bool,
}

/// A connection was kept back for as long as it may be.
struct Undefer {
    listener: Weak<Listener>,
    connection: Weak<Connection>,
}

impl Observer for Undefer {
    fn notify(&self, _events: Events) -> bool {
        let Some(listener) = self.listener.upgrade() else { return false };
        listener.undefer(|end| end.is_of(&self.connection));
        true
    }
}

/// What became of a new connection.
pub(super) enum Arrival {
    /// It may be accepted.
    Queued,
    /// It waits for a place.
    Full,
}

impl Listener {
    pub(super) fn new(
        name: Endpoint,
        dual: bool,
        queue: Arc<WaitQueue>,
        backlog: usize,
        options: Options,
    ) -> Arc<Listener> {
        let state = State {
            backlog,
            options,
            pending: VecDeque::new(),
            deferred: Vec::new(),
            waiting: VecDeque::new(),
            closed: false,
        };
        Arc::new(Listener { name, dual, queue, state: Mutex::new(state) })
    }

    /// Where it listens.
    pub(super) fn name(&self) -> Endpoint {
        self.name
    }

    /// How exactly it listens for this address, none if not at all.
    pub(super) fn exactness(&self, ip: IpAddr) -> Option<u8> {
        match (self.name.ip, ip) {
            (mine, ip) if mine == ip => Some(3),
            (IpAddr::V4(mine), IpAddr::V4(_)) if mine.is_unspecified() => Some(2),
            (IpAddr::V6(mine), IpAddr::V6(_)) if mine.is_unspecified() => Some(2),
            (IpAddr::V6(mine), IpAddr::V4(_)) if mine.is_unspecified() && self.dual => Some(1),
            _ => None,
        }
    }

    /// listen(2) again.
    pub(super) fn set_backlog(&self, backlog: usize) {
        self.state.lock().backlog = backlog;
        self.admit();
    }

    /// As sock_diag(7) tells of it; `host` is its inode number there.
    pub(super) fn describe(&self, host: u64) -> ListenerDescription {
        let state = self.state.lock();
        let v6_only = self.name.ip.is_ipv6() && !self.dual;
        ListenerDescription { host, pending: state.pending.len(), backlog: state.backlog, v6_only }
    }

    pub(super) fn set_options(&self, options: Options) {
        self.state.lock().options = options;
    }

    /// What accepted sockets begin with.
    pub(super) fn options(&self) -> Options {
        self.state.lock().options.clone()
    }

    /// Whether there is a place for one more; else the client is noted. `ECONNREFUSED` once closed.
    pub(super) fn has_room(&self, client: &Arc<Shared>) -> Result<Arrival> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::ECONNREFUSED);
        }
        // As Linux, one more than the backlog.
        if state.pending.len() > state.backlog {
            state.waiting.retain(|w| w.strong_count() > 0);
            state.waiting.push_back(Arc::downgrade(client));
            return Ok(Arrival::Full);
        }
        Ok(Arrival::Queued)
    }

    /// Puts the server end of a connection into the queue; given back once closed.
    pub(super) fn arrive(self: &Arc<Listener>, end: End) -> Option<End> {
        let mut state = self.state.lock();
        if state.closed {
            return Some(end);
        }
        let seconds = state.options.deferral();
        if seconds > 0 {
            end.defer(self);
            let late = Undefer { listener: Arc::downgrade(self), connection: end.connection() };
            let time = executor::monotonic_ns().saturating_add(u64::from(seconds).saturating_mul(SECOND_NS));
            state.deferred.push((end, Alarm::at(time, Arc::new(late))));
            return None;
        }
        state.pending.push_back(end);
        drop(state);
        self.queue.wake(Events::READABLE);
        None
    }

    /// The first bytes of a deferred connection came.
    pub(super) fn undefer(&self, which: impl Fn(&End) -> bool) {
        let mut state = self.state.lock();
        let Some(at) = state.deferred.iter().position(|(end, _)| which(end)) else { return };
        let (end, _alarm) = state.deferred.swap_remove(at);
        state.pending.push_back(end);
        drop(state);
        self.queue.wake(Events::READABLE);
    }

    /// The first connection that waits; `EAGAIN`, `EINVAL` once closed.
    pub(super) fn accept(&self) -> Result<End> {
        let mut state = self.state.lock();
        let Some(end) = state.pending.pop_front() else {
            return Err(if state.closed { Errno::EINVAL } else { Errno::EAGAIN });
        };
        let waits = !state.waiting.is_empty();
        drop(state);
        if waits {
            self.admit();
        }
        Ok(end)
    }

    /// Lets clients go on that found the backlog full, as far as there is room now.
    fn admit(&self) {
        loop {
            let client = {
                let mut state = self.state.lock();
                if state.pending.len() > state.backlog {
                    return;
                }
                let Some(client) = state.waiting.pop_front() else { return };
                client
            };
            // Outside the lock: it comes back to `arrive`.
            if let Some(client) = client.upgrade() {
                client.try_again();
            }
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }

    /// No more connections: those that wait are reset.
    pub(super) fn close(&self) {
        let (pending, deferred, waiting) = {
            let mut state = self.state.lock();
            state.closed = true;
            let state = &mut *state;
            (
                std::mem::take(&mut state.pending),
                std::mem::take(&mut state.deferred),
                std::mem::take(&mut state.waiting),
            )
        };
        for end in pending.into_iter().chain(deferred.into_iter().map(|(end, _)| end)) {
            end.abort();
        }
        for client in waiting.iter().filter_map(Weak::upgrade) {
            client.try_again();
        }
    }
}
