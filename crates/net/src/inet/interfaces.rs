//! The addresses of the network namespace's interfaces, as rtnetlink(7) tells them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, HostSource, Observer, WaitQueue};
use linux_abi::socket::{AF_INET, AF_INET6, AF_NETLINK, SOCK_RAW};
use parking_lot::Mutex;

use crate::Result;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 1 | 0x300;
/// `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// A set of addresses, read anew after each change that the host tells of.
pub(super) struct Interfaces {
    known: Mutex<Known>,
    stale: Arc<Stale>,
}

#[derive(Default)]
struct Known {
    addresses: BTreeSet<IpAddr>,
    /// Told of changes; made with the first question.
    monitor: Option<HostSource>,
}

/// Set by the driver thread when a change was told.
struct Stale(AtomicBool);

impl Observer for Stale {
    fn notify(&self, _events: Events) -> bool {
        self.0.store(true, Ordering::SeqCst);
        false
    }
}

impl Interfaces {
    pub(super) fn new() -> Interfaces {
        Interfaces { known: Mutex::default(), stale: Arc::new(Stale(AtomicBool::new(true))) }
    }

    /// Whether an interface other than `lo` has this address.
    pub(super) fn have(&self, ip: IpAddr) -> bool {
        let mut known = self.known.lock();
        if known.monitor.is_none() {
            known.monitor = self.monitor().ok();
        }
        // Without a monitor nothing tells of changes: each question asks the host.
        if self.stale.0.swap(false, Ordering::SeqCst) || known.monitor.is_none() {
            if let Some(monitor) = &known.monitor {
                drain(monitor);
            }
            known.addresses = read().unwrap_or_default();
        }
        known.addresses.contains(&ip)
    }

    fn monitor(&self) -> Result<HostSource> {
        let fd = host::socket::open(AF_NETLINK, SOCK_RAW, 0)?;
        // struct sockaddr_nl: family, padding, port (chosen by the kernel), groups.
        let mut name = AF_NETLINK.to_ne_bytes().to_vec();
        name.extend_from_slice(&[0; 6]);
        name.extend_from_slice(&ADDRESS_GROUPS.to_ne_bytes());
        host::socket::bind(fd.as_fd(), &name)?;
        let queue = Arc::new(WaitQueue::new());
        queue.add(self.stale.clone(), Events::IN, false);
        HostSource::with_queue(Arc::new(fd), Events::IN, queue)
            .map_err(|errno| linux_abi::Errno::from_raw(errno.raw_os_error()))
    }
}

/// Takes all messages away: an edge is told only for new ones, and not once the buffer is full.
fn drain(monitor: &HostSource) {
    let mut buf = [0; 4096];
    for _ in 0..10_000 {
        match host::socket::receive(monitor.fd().as_fd(), &mut buf, 0, 0) {
            Ok(_) | Err(linux_abi::Errno::ENOBUFS) => {}
            Err(_) => break,
        }
    }
}

/// All addresses, by a dump of RTM_GETADDR.
fn read() -> Result<BTreeSet<IpAddr>> {
    let mut all = BTreeSet::new();
    dump(RTM_GETADDR, RTM_NEWADDR, 8, |body| all.extend(address_of(body)))?;
    Ok(all)
}

/// Asks the host for all objects of a kind: `header` bytes of zeros follow the request's own. `each` has the bodies.
pub(crate) fn dump(ask: u16, answer: u16, header: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
    let fd = host::socket::open(AF_NETLINK, SOCK_RAW, 0)?;
    let length = 16 + header;
    let mut request = u32::try_from(length).unwrap_or(0).to_ne_bytes().to_vec();
    request.extend_from_slice(&ask.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(length, 0);
    host::socket::send(fd.as_fd(), &request, None, &[], 0)?;
    let mut buf = vec![0; 64 << 10];
    // A dump is made as it is read: each receive has an answer at once.
    while let Ok(message) = host::socket::receive(fd.as_fd(), &mut buf, 0, 0) {
        let mut rest = buf.get(..message.length).unwrap_or_default();
        while let Some((kind, body, next)) = message_of(rest) {
            if kind == NLMSG_DONE {
                return Ok(());
            }
            if kind == answer {
                each(body);
            }
            rest = next;
        }
    }
    Ok(())
}

/// The attributes (`struct rtattr`) of a message: type and value of each.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let found = (u16_at(rest, 2)?, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))
}

/// Type and body of the first `struct nlmsghdr`, and what follows it.
fn message_of(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))? as usize;
    let body = bytes.get(16..length)?;
    Some((u16_at(bytes, 4)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The local address of a `struct ifaddrmsg` with its attributes.
fn address_of(body: &[u8]) -> Option<IpAddr> {
    let family = u16::from(*body.first()?);
    let mut found = None;
    for (kind, data) in attributes(body.get(8..)?) {
        // IFA_LOCAL is ours; on a point-to-point link IFA_ADDRESS is the other end's.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none()) {
            found = match family {
                AF_INET => data.first_chunk::<4>().map(|b| IpAddr::from(*b)),
                AF_INET6 => data.first_chunk::<16>().map(|b| IpAddr::from(*b)),
                _ => None,
            };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Interfaces, address_of};
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn loopback_is_among_the_addresses() {
        let interfaces = Interfaces::new();
        assert!(!interfaces.have(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert!(interfaces.have(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn the_own_end_of_a_link_counts() {
        let mut body = vec![2, 8, 0, 0, 1, 0, 0, 0];
        for (kind, last) in [(1_u8, 9), (2, 7)] {
            body.extend_from_slice(&[8, 0, kind, 0, 10, 0, 0, last]);
        }
        assert_eq!(address_of(&body), Some(IpAddr::from([10, 0, 0, 7])));
        assert_eq!(address_of(&body[..8]), None);
    }
}
