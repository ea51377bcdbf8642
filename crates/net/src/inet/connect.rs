//! How TCP sockets of one sandbox find each other: connect(2) to a listener that is here.

use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer, WaitQueue};
use linux_abi::Errno;

use super::connection::{Side, pair};
use super::endpoint::Endpoint;
use super::listener::{Arrival, Listener};
use super::tcp::{Role, Shared};
use crate::Result;
use crate::socket::Socket;

/// The first SYN is repeated after so long, then after twice as long, and so on.
const FIRST_RETRY_NS: u64 = 1_000_000_000;
const TCP_SYNCNT: i32 = 7;

/// Ends a connect(2) that waits too long.
struct TooLate(Weak<Shared>);

impl Observer for TooLate {
    fn notify(&self, _events: Events) -> bool {
        let Some(shared) = self.0.upgrade() else { return false };
        let old = {
            let mut role = shared.role.write();
            if !matches!(*role, Role::Waiting { .. }) {
                return false;
            }
            std::mem::replace(&mut *role, Role::Failed(Errno::ETIMEDOUT))
        };
        drop(old);
        shared.queue.wake_all(Events::all());
        true
    }
}

impl Shared {
    /// The name that a connection to `to` has on this side; its port is 0 if it may be chosen.
    fn name_towards(&self, to: Endpoint) -> Endpoint {
        let bound = self.options.lock().bound;
        let own = (bound.then(|| self.host.get()).flatten())
            .and_then(|host| host.local_address().ok())
            .and_then(|bytes| Endpoint::parse(&bytes));
        let source = super::ports::Ports::source_for(to.ip);
        match own {
            Some((_, own)) if own.ip.is_unspecified() => Endpoint::new(source, own.port),
            Some((_, own)) => own,
            None => Endpoint::new(source, 0),
        }
    }

    /// Connects to a listener of the sandbox. The role is held by the caller.
    pub(super) fn establish(&self, role: &mut Role, to: Endpoint, listener: &Arc<Listener>) -> Result<()> {
        let this = self.this.upgrade().ok_or(Errno::EINVAL)?;
        if let Arrival::Full = listener.has_room(&this)? {
            if !matches!(role, Role::Waiting { .. }) {
                let retries = self.options.lock().options.number(super::options::SOL_TCP, TCP_SYNCNT);
                let steps = 2_u64.saturating_pow(retries.unsigned_abs().saturating_add(1)).saturating_sub(1);
                let late = executor::monotonic_ns().saturating_add(FIRST_RETRY_NS.saturating_mul(steps));
                *role =
                    Role::Waiting { to, _deadline: Alarm::at(late, Arc::new(TooLate(self.this.clone()))) };
            }
            return Ok(());
        }
        let server_options = listener.options().for_accepted();
        let options = self.options.lock().options.clone();
        let from = self.name_towards(to);
        let ports = &self.inet.ports;
        let from = ports.connect(from, to, options.reuses_address(), server_options.reuses_address())?;
        let client = Side { name: from, queue: self.queue.clone(), options: &options };
        let server = Side { name: to, queue: Arc::new(WaitQueue::new()), options: &server_options };
        let (client, server) = pair(&client, &server, ports);
        if let Some(server) = listener.arrive(server) {
            server.abort();
            return Err(Errno::ECONNREFUSED);
        }
        *role = Role::Local { end: client, told: false };
        Ok(())
    }

    /// A place in the backlog is free, or the listener is gone.
    pub(super) fn try_again(&self) {
        let mut role = self.role.write();
        let Role::Waiting { to, .. } = &*role else { return };
        let to = *to;
        let done = match self.inet.ports.listener(to) {
            Some(listener) => self.establish(&mut role, to, &listener),
            None => Err(Errno::ECONNREFUSED),
        };
        if let Err(errno) = done {
            *role = Role::Failed(errno);
        }
        drop(role);
        self.queue.wake_all(Events::all());
    }
}
