//! Who listens where in this sandbox, and which ports its connections hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use linux_abi::Errno;
use parking_lot::Mutex;

use super::endpoint::Endpoint;
use super::interfaces::Interfaces;
use super::listener::Listener;
use crate::Result;

/// Ports of connections whose socket is not bound (/proc/sys/net/ipv4/ip_local_port_range).
const FIRST_PORT: u32 = 32_768;
const PORTS: u32 = 28_232;
/// How many even ports are tried before the odd ones, and odd ones for bind(2).
const EVEN_TRIES: u32 = 64;
/// How long a port stays taken after its connection was ended from this side: TIME_WAIT.
const TIME_WAIT_NS: u64 = 60_000_000_000;
/// Docker's name server: reached by address translation in the namespace, even on ports where the sandbox listens.
const DOCKER_DNS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const LO_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// What connections hold of one local port and address.
#[derive(Default)]
struct Use {
    /// Connections of sockets without SO_REUSEADDR, and with it.
    rigid: u32,
    shared: u32,
    /// TIME_WAIT of each kind lasts until then.
    rigid_until: u64,
    shared_until: u64,
}

#[derive(Default)]
struct Inner {
    listeners: HashMap<u16, Vec<Arc<Listener>>>,
    /// Local and remote end of each connection, as its client sees it.
    pairs: HashSet<(Endpoint, Endpoint)>,
    uses: BTreeMap<(u16, IpAddr), Use>,
    /// Uses are looked through for ended ones when there are as many.
    prune_at: usize,
}

/// The ports of a network namespace, as far as this sandbox uses them.
pub(super) struct Ports {
    inner: Mutex<Inner>,
    next: AtomicU32,
    /// Whose turn it is among equal listeners.
    turn: AtomicU32,
    interfaces: Interfaces,
}

impl Ports {
    pub(super) fn new() -> Ports {
        // Not the same first port in each sandbox.
        let seed = (executor::monotonic_ns() / 1000) as u32;
        Ports {
            inner: Mutex::default(),
            next: AtomicU32::new(seed),
            turn: AtomicU32::new(0),
            interfaces: Interfaces::new(),
        }
    }

    /// Whether connections to this address stay in the sandbox if somebody listens there.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) if ip.is_loopback() => ip != DOCKER_DNS && ip != LO_BROADCAST,
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => false,
            // Which interface is meant says the scope; that is left to the host.
            IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast() => false,
            ip => ip.is_loopback() || self.interfaces.have(ip),
        }
    }

    /// The address that a connection to a local one comes from.
    pub(super) fn source_for(ip: IpAddr) -> IpAddr {
        if ip.is_loopback() && ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { ip }
    }

    pub(super) fn add_listener(&self, listener: &Arc<Listener>) {
        let mut inner = self.inner.lock();
        inner.listeners.entry(listener.name().port).or_default().push(listener.clone());
    }

    pub(super) fn remove_listener(&self, listener: &Arc<Listener>) {
        let mut inner = self.inner.lock();
        let port = listener.name().port;
        if let Some(list) = inner.listeners.get_mut(&port) {
            list.retain(|l| !Arc::ptr_eq(l, listener));
            if list.is_empty() {
                inner.listeners.remove(&port);
            }
        }
    }

    /// The listener that a connection to this address comes to: the most exact one; of several equal ones
    /// (SO_REUSEPORT) one after the other.
    pub(super) fn listener(&self, to: Endpoint) -> Option<Arc<Listener>> {
        let inner = self.inner.lock();
        let list = inner.listeners.get(&to.port)?;
        let best = list.iter().filter_map(|l| l.exactness(to.ip)).max()?;
        let equal = || list.iter().filter(|l| l.exactness(to.ip) == Some(best));
        let count = equal().count();
        let turn = if count > 1 { self.turn.fetch_add(1, Ordering::Relaxed) as usize % count } else { 0 };
        equal().nth(turn).cloned()
    }

    /// Whether a socket may be bound here as far as our own connections go; `EADDRINUSE`.
    pub(super) fn check_bind(&self, name: Endpoint, reuse: bool) -> Result<()> {
        if name.port == 0 {
            return Ok(());
        }
        let now = executor::monotonic_ns();
        let inner = self.inner.lock();
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for ((port, ip), held) in inner.uses.range((name.port, lowest)..) {
            if *port != name.port {
                break;
            }
            if *ip != name.ip && !name.ip.is_unspecified() {
                continue;
            }
            let rigid = held.rigid > 0 || held.rigid_until > now;
            let shared = held.shared > 0 || held.shared_until > now;
            if rigid || (shared && !reuse) {
                return Err(Errno::EADDRINUSE);
            }
        }
        Ok(())
    }

    /// A port for bind(2) to port 0 that no connection or listener of ours holds: the host knows only of its own.
    pub(super) fn choose_port(&self, name: Endpoint) -> Option<u16> {
        let half = PORTS / 2;
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        (0..EVEN_TRIES).map(|i| (FIRST_PORT + start.wrapping_add(i) % half * 2 + 1) as u16).find(|port| {
            let name = Endpoint { port: *port, ..name };
            self.check_bind(name, false).is_ok() && !self.inner.lock().listeners.contains_key(port)
        })
    }

    /// Takes the pair of ends for a new connection. A client's port of 0 is chosen here, even ones first, as Linux
    /// does: the odd ones are for bind(2). `EADDRNOTAVAIL` if none is free or the pair exists.
    pub(super) fn connect(
        &self,
        mut from: Endpoint,
        to: Endpoint,
        reuse: bool,
        server_reuse: bool,
    ) -> Result<Endpoint> {
        let mut inner = self.inner.lock();
        if from.port == 0 {
            let start = self.next.fetch_add(1, Ordering::Relaxed);
            let half = PORTS / 2;
            let port = |i: u32, odd: u32| (FIRST_PORT + start.wrapping_add(i) % half * 2 + odd) as u16;
            // A few even ones, any odd one, then the other even ones: a crowded table is not searched in vain each time.
            let mut ports = (0..EVEN_TRIES.min(half))
                .map(|i| port(i, 0))
                .chain((0..half).map(|i| port(i, 1)))
                .chain((EVEN_TRIES..half).map(|i| port(i, 0)));
            let free = |port: &u16| {
                let pair = (Endpoint { port: *port, ..from }, to);
                !inner.pairs.contains(&pair) && !inner.listeners.contains_key(port)
            };
            from.port = ports.find(free).ok_or(Errno::EADDRNOTAVAIL)?;
        }
        if !inner.pairs.insert((from, to)) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        inner.hold(from, reuse);
        inner.hold(to, server_reuse);
        Ok(from)
    }

    /// Gives the ends of a connection back. `waits` is the end that closed first, which stays in TIME_WAIT.
    pub(super) fn release(&self, from: Endpoint, to: Endpoint, reuse: [bool; 2], waits: Option<usize>) {
        let now = executor::monotonic_ns();
        let mut inner = self.inner.lock();
        inner.pairs.remove(&(from, to));
        for (index, (name, reuse)) in [from, to].into_iter().zip(reuse).enumerate() {
            let Some(held) = inner.uses.get_mut(&(name.port, name.ip)) else { continue };
            let count = if reuse { &mut held.shared } else { &mut held.rigid };
            *count = count.saturating_sub(1);
            if waits == Some(index) {
                let until = if reuse { &mut held.shared_until } else { &mut held.rigid_until };
                *until = now.saturating_add(TIME_WAIT_NS);
            } else if held.is_free(now) {
                inner.uses.remove(&(name.port, name.ip));
            }
        }
        if inner.uses.len() > inner.prune_at.max(1024) {
            inner.uses.retain(|_, held| !held.is_free(now));
            inner.prune_at = inner.uses.len() * 2;
        }
    }
}

impl Use {
    fn is_free(&self, now: u64) -> bool {
        self.rigid == 0 && self.shared == 0 && self.rigid_until <= now && self.shared_until <= now
    }
}

impl Inner {
    fn hold(&mut self, name: Endpoint, reuse: bool) {
        let held = self.uses.entry((name.port, name.ip)).or_default();
        let count = if reuse { &mut held.shared } else { &mut held.rigid };
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Ports};
    use linux_abi::Errno;
    use std::net::{IpAddr, Ipv4Addr};

    fn local(port: u16) -> Endpoint {
        Endpoint::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    #[test]
    fn a_port_is_held_until_its_connections_ended() {
        let ports = Ports::new();
        let client = ports.connect(local(0), local(80), false, true).unwrap();
        assert!(client.port >= 32_768 && client.port.is_multiple_of(2));
        let any = Endpoint::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
        assert_eq!(ports.check_bind(any, false), Err(Errno::EADDRINUSE));
        assert_eq!(ports.check_bind(any, true), Ok(()));
        assert_eq!(ports.check_bind(local(client.port), true), Err(Errno::EADDRINUSE));
        assert_eq!(ports.connect(client, local(80), false, true).err(), Some(Errno::EADDRNOTAVAIL));
        // The client closed first.
        ports.release(client, local(80), [false, true], Some(0));
        assert_eq!(ports.check_bind(any, false), Ok(()));
        assert_eq!(ports.check_bind(local(client.port), true), Err(Errno::EADDRINUSE));
        assert!(ports.connect(client, local(80), false, true).is_ok());
    }

    #[test]
    fn a_port_that_is_held_is_not_chosen() {
        let ports = Ports::new();
        let chosen = ports.choose_port(local(0)).unwrap();
        assert!(chosen > 32_768 && !chosen.is_multiple_of(2));
        // The next ones are taken.
        for i in 1..20 {
            ports.connect(local(chosen + 2 * i), local(80), true, true).unwrap();
        }
        assert!(ports.choose_port(local(0)).unwrap() >= chosen + 40);
    }

    #[test]
    fn all_ports_can_be_used_at_once() {
        let ports = Ports::new();
        for _ in 0..super::PORTS {
            ports.connect(local(0), local(80), true, true).unwrap();
        }
        assert_eq!(ports.connect(local(0), local(80), true, true).err(), Some(Errno::EADDRNOTAVAIL));
    }

    #[test]
    fn dockers_name_server_is_not_ours() {
        let ports = Ports::new();
        assert!(ports.is_local(Ipv4Addr::LOCALHOST.into()) && !ports.is_local([127, 0, 0, 11].into()));
        assert!(!ports.is_local([127, 255, 255, 255].into()));
        assert!(!ports.is_local([192, 0, 2, 1].into()) && !ports.is_local([224, 0, 0, 1].into()));
    }
}
