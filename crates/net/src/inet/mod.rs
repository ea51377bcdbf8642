//! Internet sockets. Those that talk to each other inside the sandbox never leave the kernel process; the others are
//! sockets of the host. Which it is is decided for each connection.

mod address_form;
mod bytes;
mod connect;
mod connection;
pub(crate) mod endpoint;
mod flow;
mod hold;
pub(crate) mod interfaces;
mod listener;
mod options;
mod ports;
mod tcp;
mod tcp_options;
mod tcp_posting;
mod udp;
pub(crate) mod udp_counts;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM};
use vfs::Caller;

use crate::Result;
use crate::host::Maker;
use crate::provider::Provider;
use crate::socket::{Socket, SocketCaller};
use ports::Ports;
use tcp::{IPPROTO_TCP, TcpSocket};
use udp::{IPPROTO_UDP, UdpSocket};

/// What the internet sockets of a namespace share.
struct Inet {
    ports: Arc<Ports>,
    bound: udp::Bound,
    /// What all UDP sockets hold.
    in_inboxes: AtomicUsize,
    maker: Arc<Maker>,
}

/// Makes TCP and UDP sockets.
pub struct InetProvider(Arc<Inet>);

impl InetProvider {
    /// A provider whose host sockets come from `maker`.
    pub fn new(maker: Arc<Maker>) -> InetProvider {
        InetProvider(Arc::new(Inet {
            ports: Arc::new(Ports::new()),
            bound: udp::Bound::default(),
            in_inboxes: AtomicUsize::new(0),
            maker,
        }))
    }
}

impl Provider for InetProvider {
    fn socket(
        &self,
        _caller: &SocketCaller<'_>,
        family: u16,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<dyn Socket>> {
        match (family, kind, protocol) {
            (AF_INET | AF_INET6, SOCK_STREAM, 0 | IPPROTO_TCP) => {
                Ok(Arc::new(TcpSocket::new(&self.0, family)))
            }
            (AF_INET | AF_INET6, SOCK_DGRAM, 0 | IPPROTO_UDP) => {
                Ok(Arc::new(UdpSocket::new(&self.0, family, protocol)?))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
    fn interface_ioctl(&self, _caller: &mut dyn Caller, _cmd: u32, _arg: u64) -> Result<i64> {
        Err(Errno::ENOTTY)
    }
}

#[cfg(test)]
mod tests;
