//! `IPV6_ADDRFORM` of ipv6(7): a socket that is connected to an IPv4 address by way of IPv6 becomes one of IPv4.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6};

use super::connection::State;
use super::endpoint::Endpoint;
use super::tcp::{Role, Shared, TcpSocket};
use crate::Result;
use crate::host::ADDRFORM;
use crate::socket::{Socket, SocketCaller, int_option};

impl TcpSocket {
    /// setsockopt(2) of a socket of IPv6: `EINVAL`, `ENOTCONN`, `EADDRNOTAVAIL`.
    pub(super) fn change_form(&self, caller: &SocketCaller<'_>, value: &[u8]) -> Result<()> {
        if int_option(value)? != i32::from(AF_INET) {
            return Err(Errno::EINVAL);
        }
        let shared = &self.0;
        match &*shared.role.read() {
            Role::Local { end, .. } if end.state() != State::Established => return Err(Errno::ENOTCONN),
            Role::Local { end, .. } if end.remote().ip.is_ipv6() => return Err(Errno::EADDRNOTAVAIL),
            Role::Local { .. } => {}
            Role::Host => shared.host()?.set_option(caller, ADDRFORM.0, ADDRFORM.1, value)?,
            _ => return Err(Errno::ENOTCONN),
        }
        shared.family.store(AF_INET, Ordering::Relaxed);
        Ok(())
    }

    /// getsockopt(2) of a socket of IPv6: `ENOTCONN`.
    pub(super) fn form(&self) -> Result<u16> {
        let shared = &self.0;
        match &*shared.role.read() {
            Role::Local { end, .. } if end.state() == State::Established => Ok(shared.family()),
            Role::Host => {
                let value = shared.host()?.option(ADDRFORM.0, ADDRFORM.1, 4)?;
                u16::try_from(int_option(&value)?).map_err(|_| Errno::EINVAL)
            }
            _ => Err(Errno::ENOTCONN),
        }
    }
}

impl Shared {
    /// Whether a connection in the sandbox, made or on its way, has given the socket a port.
    pub(super) fn has_port_inside(&self) -> bool {
        match &*self.role.read() {
            Role::Local { end, .. } => end.state() != State::Close,
            Role::Waiting { .. } => true,
            _ => false,
        }
    }

    /// Whether the host's socket stayed one of IPv6: it only held the port of a connection that was made in the sandbox.
    fn host_differs(&self) -> bool {
        self.family() == AF_INET && self.made_host().is_some_and(|host| host.kind().0 == AF_INET6)
    }

    /// An address of the guest's for the host's socket: `EAFNOSUPPORT`.
    pub(super) fn for_host<'a>(&self, address: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        match Endpoint::parse(address) {
            Some((AF_INET, endpoint)) if self.host_differs() => Ok(Cow::Owned(endpoint.render(AF_INET6))),
            Some((AF_INET6, _)) if self.host_differs() => Err(Errno::EAFNOSUPPORT),
            _ => Ok(Cow::Borrowed(address)),
        }
    }

    /// An address of the host's socket for the guest.
    pub(super) fn for_guest(&self, address: Vec<u8>) -> Vec<u8> {
        match Endpoint::parse(&address) {
            Some((AF_INET6, endpoint)) if self.host_differs() => endpoint.render(AF_INET),
            _ => address,
        }
    }
}
