//! Sockets of the host's network stack, in the network namespace that the kernel process lives in.

mod changes;
mod ioctls;
pub mod local;
mod netlink;
mod options;
mod packet;
mod ring;
mod socket;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor::WaitQueue;
use host::binder::Binder;
use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use vfs::Caller;

use rustix::process::{Resource, getrlimit};

pub(crate) use options::ADDRFORM;
pub use socket::HostSocket;

use crate::Result;
use crate::provider::Provider;
use crate::socket::{Socket, SocketCaller};
use netlink::RouteSocket;
use packet::PacketSocket;

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_ICMPV6: i32 = 58;
const IPPROTO_UDPLITE: i32 = 136;
/// From here on there are no protocols.
const IPPROTO_MAX: i32 = 263;
const NETLINK_ROUTE: i32 = 0;

/// Which capabilities count in the network namespace; the guest needs its own besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights {
    /// `CAP_NET_RAW`: raw and packet sockets. Where the process does not hold it the binder opens them.
    pub raw: bool,
    /// `CAP_NET_ADMIN`: changes of interfaces, addresses and routes.
    pub admin: bool,
}

/// Makes host sockets, and counts them.
pub struct Maker {
    room: Arc<Room>,
}

/// Makes internet sockets, packet(7) sockets and rtnetlink(7) sockets from host sockets.
pub struct HostProvider(Arc<Maker>);

/// How many host sockets there may be: half of the descriptors of the kernel process.
struct Room {
    used: AtomicUsize,
    max: usize,
    first_free_port: u32,
    rights: Rights,
    /// Who binds ports below 1024 and opens raw sockets where we may not.
    binder: Option<Binder>,
    /// Sockets that hear what goes over lo.
    hearing: AtomicUsize,
}

/// One of those sockets.
struct Hearing(Arc<Room>);

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.hearing.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// `CAP_NET_BIND_SERVICE`: `ip_unprivileged_port_start` of ip(7). `binder` binds those that the host does not let us
    /// bind ourselves, and opens what we cannot open.
    pub fn new(first_free_port: u32, rights: Rights, binder: Option<Binder>) -> Maker {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) / 2;
        let max = usize::try_from(limit).unwrap_or(usize::MAX);
        Maker {
            room: Arc::new(Room {
                used: AtomicUsize::new(0),
                max,
                first_free_port,
                rights,
                binder,
                hearing: AtomicUsize::new(0),
            }),
        }
    }

    /// A socket of family, type and protocol, which wakes `queue` or one of its own.
    pub(crate) fn open(&self, kind: (u16, u32, i32), queue: Option<Arc<WaitQueue>>) -> Result<HostSocket> {
        let place = self.room.take()?;
        let (family, class, protocol) = kind;
        let raw = family == AF_PACKET || (family != AF_NETLINK && class == SOCK_RAW);
        let fd = match &self.room.binder {
            Some(binder) if raw && binder.opens() => binder.open(family, class, protocol)?,
            _ => host::socket::open(family, class, protocol)?,
        };
        HostSocket::new(fd, kind, place, self.room.clone(), queue.unwrap_or_default())
    }

    /// Whether a program listens to what goes over lo: what begins meanwhile goes there, so that it is heard.
    pub(crate) fn is_heard(&self) -> bool {
        self.room.hearing.load(Ordering::Relaxed) > 0
    }

    /// An ioctl about interfaces, made on a socket for it alone.
    pub(crate) fn interface_ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        // Only what is about interfaces: the rest would be about the socket made here.
        let known = matches!(cmd, ioctls::SIOCGIFCONF | ioctls::SIOCETHTOOL)
            || host::socket::changes(cmd)
            || host::socket::changes_routes(cmd);
        if !known && host::socket::ioctl_size(cmd) != Some(host::socket::IFREQ) {
            return Err(Errno::ENOTTY);
        }
        let _place = self.room.take()?;
        let fd = host::socket::open(AF_INET, SOCK_DGRAM, 0)?;
        ioctls::ask(fd.as_fd(), self.room.rights, caller, cmd, arg)
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
        // Without the right the host would refuse them as well.
        let raw = self.0.room.rights.raw && caller.credentials.capable(Capability::NET_RAW);
        match (family, kind, protocol) {
            (AF_INET | AF_INET6, SOCK_STREAM, 0 | IPPROTO_TCP)
            | (AF_INET | AF_INET6, SOCK_DGRAM, 0 | IPPROTO_UDP | IPPROTO_UDPLITE)
            // Echo requests, as far as the host's net.ipv4.ping_group_range lets us.
            | (AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
            | (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)
            | (AF_NETLINK, SOCK_DGRAM | SOCK_RAW, NETLINK_ROUTE) => {}
            (AF_INET | AF_INET6, SOCK_RAW, 0) => return Err(Errno::EPROTONOSUPPORT),
            (AF_INET | AF_INET6, SOCK_RAW, ..0 | IPPROTO_MAX..) => return Err(Errno::EINVAL),
            (AF_INET | AF_INET6, SOCK_RAW, _) | (AF_PACKET, SOCK_RAW | SOCK_DGRAM, _) if raw => {}
            // Linux asks for the capability before it looks at the type of a packet socket.
            (AF_INET | AF_INET6, SOCK_RAW, _) | (AF_PACKET, SOCK_RAW | SOCK_DGRAM, _) => return Err(Errno::EPERM),
            (AF_PACKET, ..) if !raw => return Err(Errno::EPERM),
            (AF_NETLINK, SOCK_STREAM, _) => return Err(Errno::ESOCKTNOSUPPORT),
            (AF_INET | AF_INET6 | AF_NETLINK, SOCK_STREAM | SOCK_DGRAM | SOCK_RAW, _) => {
                return Err(Errno::EPROTONOSUPPORT);
            }
            (AF_INET | AF_INET6 | AF_NETLINK | AF_PACKET, ..) => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EAFNOSUPPORT),
        }
        let socket = self.0.open((family, kind, protocol), None)?;
        if family != AF_PACKET && kind == SOCK_RAW && matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) {
            socket.hears();
        }
        Ok(match family {
            AF_NETLINK => Arc::new(RouteSocket::new(socket)),
            AF_PACKET => PacketSocket::open(socket),
            _ => Arc::new(socket),
        })
    }
}
