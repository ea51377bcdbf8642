//! Filters of sockets (`SO_ATTACH_FILTER` of socket(7)): programs of the guest, run here over what arrives.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bpf::{Packet, Program};
use linux_abi::Errno;
use parking_lot::Mutex;

use crate::Result;
use crate::inet::endpoint::Endpoint;
use crate::socket::int_option;

/// What a socket keeps of it.
#[derive(Default)]
pub struct Filter {
    program: Mutex<Option<Arc<Program>>>,
    attached: AtomicBool,
    locked: AtomicBool,
    /// Held while a host's socket is looked through.
    pub(crate) looking: Mutex<()>,
}

impl Filter {
    /// `SO_ATTACH_FILTER` with an array of `struct sock_filter`: `EPERM` once locked, `EINVAL` for a bad program.
    pub fn attach(&self, code: &[u8]) -> Result<()> {
        self.may_change()?;
        let program = Program::new(code)?;
        *self.program.lock() = Some(Arc::new(program));
        self.attached.store(true, Ordering::Release);
        Ok(())
    }
    /// `EPERM` once locked.
    pub fn may_change(&self) -> Result<()> {
        if self.is_locked() { Err(Errno::EPERM) } else { Ok(()) }
    }
    /// `SO_DETACH_FILTER`: `EPERM`, `ENOENT`.
    pub fn detach(&self) -> Result<()> {
        self.may_change()?;
        self.attached.store(false, Ordering::Release);
        self.program.lock().take().map(|_| ()).ok_or(Errno::ENOENT)
    }
    /// `SO_LOCK_FILTER`, which is never taken back: `EPERM`.
    pub fn lock(&self, value: &[u8]) -> Result<()> {
        let on = int_option(value)? != 0;
        if !on && self.is_locked() {
            return Err(Errno::EPERM);
        }
        self.locked.store(on, Ordering::Relaxed);
        Ok(())
    }
    /// `SO_LOCK_FILTER` of getsockopt(2).
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
    /// `SO_GET_FILTER`: the array; empty without a filter.
    pub fn code(&self) -> Vec<u8> {
        self.get().map_or_else(Vec::new, |program| program.to_bytes())
    }
    /// The program, if there is one.
    pub(crate) fn get(&self) -> Option<Arc<Program>> {
        if !self.attached.load(Ordering::Acquire) {
            return None;
        }
        self.program.lock().clone()
    }
}

/// `SKF_AD_*`, and what they are worth for lo.
const PROTOCOL: u32 = 0;
const IFINDEX: u32 = 8;
const HATYPE: u32 = 28;
const PAY_OFFSET: u32 = 52;
const RANDOM: u32 = 56;
const ARPHRD_LOOPBACK: u32 = 772;
const IPPROTO_UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A message without headers: of netlink(7), unix(7), or a raw socket, whose headers belong to the message.
pub(crate) struct Bare<'a>(pub(crate) &'a [u8]);

impl Packet for Bare<'_> {
    fn bytes(&self) -> &[u8] {
        self.0
    }
    fn network(&self) -> &[u8] {
        self.0
    }
    fn about(&self, what: u32) -> u32 {
        if what == RANDOM { random() } else { 0 }
    }
}

/// A UDP datagram with the headers that it has on Linux.
pub(crate) struct Datagram {
    bytes: Vec<u8>,
    /// Where the header of UDP begins.
    at: usize,
    six: bool,
}

impl Datagram {
    pub(crate) fn new(from: Endpoint, to: Endpoint, data: &[u8]) -> Datagram {
        let length = u16::try_from(data.len() + UDP_HEADER).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(data.len() + 48);
        let six = match (from.ip, to.ip) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend_from_slice(&[0x60, 0, 0, 0]);
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&[IPPROTO_UDP, 64]);
                bytes.extend_from_slice(&from.octets());
                bytes.extend_from_slice(&to.octets());
                true
            }
            (from, to) => {
                let octets = |ip: IpAddr| if let IpAddr::V4(ip) = ip { ip.octets() } else { [0; 4] };
                bytes.extend_from_slice(&[0x45, 0]);
                bytes.extend_from_slice(&length.saturating_add(20).to_be_bytes());
                bytes.extend_from_slice(&[0, 0, 0x40, 0, 64, IPPROTO_UDP, 0, 0]);
                bytes.extend_from_slice(&octets(from));
                bytes.extend_from_slice(&octets(to));
                false
            }
        };
        let at = bytes.len();
        bytes.extend_from_slice(&from.port.to_be_bytes());
        bytes.extend_from_slice(&to.port.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(data);
        Datagram { bytes, at, six }
    }
    /// How many bytes of the data stay; none to throw it away.
    pub(crate) fn judge(&self, program: &Program) -> Option<usize> {
        let verdict = program.run(self) as usize;
        // As Linux: the header stays whatever the program says.
        (verdict > 0).then(|| verdict.saturating_sub(UDP_HEADER))
    }
}

impl Packet for Datagram {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
    fn network(&self) -> &[u8] {
        &self.bytes
    }
    fn about(&self, what: u32) -> u32 {
        match what {
            PROTOCOL if self.six => 0x86dd,
            PROTOCOL => 0x0800,
            IFINDEX => 1,
            HATYPE => ARPHRD_LOOPBACK,
            PAY_OFFSET => u32::try_from(self.at + UDP_HEADER).unwrap_or(0),
            RANDOM => random(),
            _ => 0,
        }
    }
}

/// What a packet(7) socket has received.
pub(crate) struct Frame<'a> {
    pub(crate) data: &'a [u8],
    /// Bytes of the link's header in there; none for `SOCK_DGRAM`, whose data begin behind it.
    pub(crate) link: Option<usize>,
    /// Its `struct sockaddr_ll`.
    pub(crate) name: &'a [u8],
    /// The VLAN's tag and kind, which the host takes out of the frame.
    pub(crate) vlan: Option<(u16, u16)>,
}

/// `SKF_AD_*` of frames.
const PKTTYPE: u32 = 4;
const VLAN_TAG: u32 = 44;
const VLAN_TAG_PRESENT: u32 = 48;
const VLAN_TPID: u32 = 60;

impl<'a> Frame<'a> {
    /// A frame whose link's header is as long as the kind of its interface says.
    pub(crate) fn new(data: &'a [u8], name: &'a [u8], raw: bool) -> Frame<'a> {
        /// `struct ethhdr`, which lo has as well.
        const ETHERNET: usize = 14;
        let hardware = name.get(8..10).and_then(|b| b.first_chunk::<2>()).map(|b| u16::from_ne_bytes(*b));
        // ARPHRD_ETHER, ARPHRD_LOOPBACK
        let length = if matches!(hardware, Some(1 | 772)) { ETHERNET } else { 0 };
        Frame { data, link: raw.then_some(length), name, vlan: None }
    }
}

impl Packet for Frame<'_> {
    fn bytes(&self) -> &[u8] {
        self.data
    }
    fn network(&self) -> &[u8] {
        self.data.get(self.link.unwrap_or(0)..).unwrap_or_default()
    }
    fn link(&self) -> Option<&[u8]> {
        self.link.map(|_| self.data)
    }
    fn about(&self, what: u32) -> u32 {
        let byte = |at: usize| u32::from(self.name.get(at).copied().unwrap_or(0));
        match what {
            PROTOCOL => byte(2) << 8 | byte(3),
            PKTTYPE => byte(10),
            IFINDEX => byte(4) | byte(5) << 8 | byte(6) << 16 | byte(7) << 24,
            HATYPE => byte(8) | byte(9) << 8,
            VLAN_TAG => self.vlan.map_or(0, |(tag, _)| tag.into()),
            VLAN_TAG_PRESENT => self.vlan.is_some().into(),
            VLAN_TPID => self.vlan.map_or(0, |(_, kind)| kind.into()),
            RANDOM => random(),
            _ => 0,
        }
    }
}

/// Not for secrets: a sample of packets.
fn random() -> u32 {
    let time = executor::monotonic_ns();
    (time.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}
