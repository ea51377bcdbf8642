//! Sockets of the host's network stack, in the network namespace that the kernel process lives in.

mod netlink;
mod options;
mod socket;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::WaitQueue;
use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use vfs::Caller;

use rustix::process::{Resource, getrlimit};

pub use socket::HostSocket;

use crate::Result;
use crate::provider::Provider;
use crate::socket::{Socket, SocketCaller};
use netlink::RouteSocket;

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_ICMPV6: i32 = 58;
const IPPROTO_UDPLITE: i32 = 136;
const NETLINK_ROUTE: i32 = 0;

/// Makes host sockets, and counts them.
pub struct Maker {
    room: Arc<Room>,
}

/// Makes internet sockets, and netlink sockets that only ask, from host sockets.
pub struct HostProvider(Arc<Maker>);

/// How many host sockets there may be: half of the descriptors of the kernel process.
struct Room {
    used: AtomicUsize,
    max: usize,
    first_free_port: u32,
}

/// One taken place, given back on drop.
struct Place(Arc<Room>);

impl Room {
    fn take(self: &Arc<Room>) -> Result<Place> {
        let before = self.used.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        if before >= self.max { Err(Errno::ENFILE) } else { Ok(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Maker {
    /// Uses at most half of the descriptors that the process may have. Ports below `first_free_port` are for
    /// `CAP_NET_BIND_SERVICE`: `ip_unprivileged_port_start` of ip(7).
    pub fn new(first_free_port: u32) -> Maker {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) / 2;
        let max = usize::try_from(limit).unwrap_or(usize::MAX);
        Maker { room: Arc::new(Room { used: AtomicUsize::new(0), max, first_free_port }) }
    }

    /// A socket of family, type and protocol, which wakes `queue` or one of its own.
    pub(crate) fn open(&self, kind: (u16, u32, i32), queue: Option<Arc<WaitQueue>>) -> Result<HostSocket> {
        let place = self.room.take()?;
        let fd = host::socket::open(kind.0, kind.1, kind.2)?;
        HostSocket::new(fd, kind, place, self.room.clone(), queue.unwrap_or_default())
    }

    /// An ioctl about interfaces, made on a socket for it alone.
    pub(crate) fn interface_ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        // Only what is about interfaces: the rest would be about the socket made here.
        let known = cmd == socket::SIOCGIFCONF || socket::changes(cmd);
        if !known && host::socket::ioctl_size(cmd) != Some(host::socket::IFREQ) {
            return Err(Errno::ENOTTY);
        }
        let _place = self.room.take()?;
        let fd = host::socket::open(AF_INET, SOCK_DGRAM, 0)?;
        socket::ask(fd.as_fd(), caller, cmd, arg)
    }
}

impl HostProvider {
    /// A provider of sockets that `maker` makes.
    pub fn new(maker: Arc<Maker>) -> HostProvider {
        HostProvider(maker)
    }
}

impl Provider for HostProvider {
    fn interface_ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        self.0.interface_ioctl(caller, cmd, arg)
    }
    fn socket(
        &self,
        caller: &SocketCaller<'_>,
        family: u16,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<dyn Socket>> {
        if family == AF_PACKET && !caller.credentials.capable(Capability::NET_RAW) {
            return Err(Errno::EPERM);
        }
        if !matches!(family, AF_INET | AF_INET6 | AF_NETLINK) {
            return Err(Errno::EAFNOSUPPORT);
        }
        match (family, kind, protocol) {
            (AF_INET | AF_INET6, SOCK_STREAM, 0 | IPPROTO_TCP)
            | (AF_INET | AF_INET6, SOCK_DGRAM, 0 | IPPROTO_UDP | IPPROTO_UDPLITE)
            // Echo requests, as far as the host's net.ipv4.ping_group_range lets us.
            | (AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
            | (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)
            | (AF_NETLINK, SOCK_DGRAM | SOCK_RAW, NETLINK_ROUTE) => {}
            (AF_INET, SOCK_RAW, IPPROTO_ICMP) | (AF_INET6, SOCK_RAW, IPPROTO_ICMPV6) => {
                if !caller.credentials.capable(Capability::NET_RAW) {
                    return Err(Errno::EPERM);
                }
            }
            (AF_INET | AF_INET6, SOCK_RAW, 0) => return Err(Errno::EPROTONOSUPPORT),
            (AF_INET | AF_INET6, SOCK_RAW, _) => return Err(Errno::EPERM),
            (AF_NETLINK, SOCK_STREAM, _) => return Err(Errno::ESOCKTNOSUPPORT),
            (_, SOCK_STREAM | SOCK_DGRAM | SOCK_RAW, _) => return Err(Errno::EPROTONOSUPPORT),
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        }
        let socket = self.0.open((family, kind, protocol), None)?;
        if family == AF_NETLINK {
            return Ok(Arc::new(RouteSocket::new(socket)));
        }
        Ok(Arc::new(socket))
    }
}
