//! packet(7) sockets: the frames of an interface, on a network namespace of the sandbox's own.

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use executor::{Events, Observer, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{MsgFlags, SOCK_RAW, SOL_SOCKET, so};
use parking_lot::Mutex;
use vfs::{Caller, MapRequest, MapSource};

use super::HostSocket;
use super::options::PACKET;
use super::ring::{Asked, Frame, Ring, Version};
use crate::filter::{self, Filter};
use crate::registry::Description;
use crate::socket::{Control, Halves, Received, Socket, SocketCaller, int_option};
use crate::{Address, Result};

/// `PACKET_*` options that are answered here.
const RX_RING: i32 = 5;
const STATISTICS: i32 = 6;
const AUXDATA: i32 = 8;
const VERSION: i32 = 10;
const HDRLEN: i32 = 11;
const RESERVE: i32 = 12;
/// The longest frame that goes into a ring, as an interface may put them together.
const LONGEST: usize = 128 << 10;
/// So many frames are moved at a time.
const AT_ONCE: usize = 64;
/// Room for a time stamp, `struct tpacket_auxdata` and their headers.
const CONTROL: usize = 256;

#[derive(Default)]
struct State {
    version: Version,
    reserve: usize,
    ring: Option<Box<Ring>>,
    /// Whether the guest asked for `PACKET_AUXDATA`, which a ring needs anyway.
    auxiliary: bool,
}

pub(super) struct PacketSocket {
    host: HostSocket,
    state: Mutex<State>,
    /// Frames that the filter let through since `PACKET_STATISTICS` was last asked for.
    accepted: AtomicU32,
    this: Weak<PacketSocket>,
}

/// Fills the ring of a guest that looks at nothing but the ring.
struct Arrival(Weak<PacketSocket>);

impl Observer for Arrival {
    fn notify(&self, events: Events) -> bool {
        let socket = self.0.clone();
        if events.intersects(Events::READABLE) && self.0.strong_count() > 0 {
            executor::spawn(async move {
                if let Some(socket) = socket.upgrade() {
                    socket.fill();
                }
            });
        }
        false
    }
}

impl PacketSocket {
    pub(super) fn open(host: HostSocket) -> Arc<PacketSocket> {
        let socket = Arc::new_cyclic(|this| PacketSocket {
            host,
            state: Mutex::default(),
            accepted: AtomicU32::new(0),
            this: this.clone(),
        });
        socket.listens();
        socket
    }

    /// Takes note where it listens to lo, or to all interfaces: to IP, or to everything.
    fn listens(&self) {
        const LO: [u8; 4] = 1_i32.to_ne_bytes();
        let name = self.host.local_address().unwrap_or_default();
        let protocol = name.get(2..4).and_then(|b| b.first_chunk::<2>()).map(|b| u16::from_be_bytes(*b));
        let index = name.get(4..8).unwrap_or_default();
        // ETH_P_ALL, ETH_P_IP, ETH_P_IPV6
        if matches!(protocol, Some(3 | 0x0800 | 0x86dd)) && (index == [0; 4] || index == LO) {
            self.host.hears();
        }
    }

    fn raw(&self) -> bool {
        self.host.kind().1 == SOCK_RAW
    }

    /// `PACKET_RX_RING`.
    fn set_ring(&self, request: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        match Ring::ask(state.version, state.reserve, self.raw(), request)? {
            Asked::None => {
                let auxiliary = i32::from(state.auxiliary);
                let _ = self.host.force_option(PACKET, AUXDATA, &auxiliary.to_ne_bytes());
                state.ring = None;
            }
            Asked::Ring(_) if state.ring.is_some() => return Err(Errno::EBUSY),
            Asked::Ring(ring) => {
                self.host.force_option(PACKET, AUXDATA, &1_i32.to_ne_bytes())?;
                self.host.force_option(SOL_SOCKET, so::TIMESTAMPNS, &1_i32.to_ne_bytes())?;
                state.ring = Some(ring);
                drop(state);
                let arrival = Arc::new(Arrival(self.this.clone()));
                self.host.wait_queue().add(arrival, Events::READABLE, false);
            }
        }
        Ok(())
    }

    /// Moves what has come into the ring; whether the guest has something to read there. None without a ring.
    fn fill(&self) -> Option<bool> {
        let mut state = self.state.lock();
        let ring = state.ring.as_mut()?;
        let before = ring.open_block();
        let was_readable = ring.is_readable();
        let program = self.host.filter_place().get();
        let mut buf = Vec::new();
        let mut left = AT_ONCE;
        while left > 0 && ring.has_room() {
            buf.resize(LONGEST, 0);
            let flags = MsgFlags::TRUNC.bits();
            let Ok(message) = host::socket::receive(self.host.fd(), &mut buf, CONTROL, flags) else { break };
            left -= 1;
            let told = Told::read(&message.control);
            let data = buf.get(..message.length.min(LONGEST)).unwrap_or_default();
            let link = self.raw().then_some(usize::from(told.network).min(data.len()));
            let keep = match &program {
                None => usize::MAX,
                Some(program) => {
                    let vlan = told.vlan;
                    program.run(&filter::Frame { data, link, name: &message.from, vlan }) as usize
                }
            };
            if keep == 0 {
                continue;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            ring.put(&Frame {
                data: data.get(..keep.min(data.len())).unwrap_or_default(),
                length: message.length,
                link,
                name: &message.from,
                status: told.status,
                vlan: told.vlan.unwrap_or_default(),
                time: told.time.unwrap_or_else(executor::realtime_ns),
            });
        }
        let (open, readable, timeout) = (ring.open_block(), ring.is_readable(), ring.timeout());
        drop(state);
        if let Some(number) = open.filter(|_| open != before) {
            self.close_later(number, timeout);
        }
        // What is left comes with the next turn; a guest that waits is told.
        if left == 0 || (readable && !was_readable) {
            self.host.wait_queue().wake(Events::READABLE);
        }
        Some(readable)
    }

    /// A block is handed over after its time whether it is full or not.
    fn close_later(&self, number: u64, timeout: u64) {
        let this = self.this.clone();
        executor::spawn(async move {
            executor::sleep(Duration::from_nanos(timeout)).await;
            let Some(socket) = this.upgrade() else { return };
            let closed = socket.state.lock().ring.as_mut().is_some_and(|ring| ring.close_block(number));
            if closed {
                socket.host.wait_queue().wake(Events::READABLE);
            }
        });
    }

    /// `struct tpacket_stats` or `struct tpacket_stats_v3`, and counts from 0 again.
    fn statistics(&self, len: usize) -> Result<Vec<u8>> {
        let host = host::socket::option(self.host.fd(), PACKET, STATISTICS, 8)?;
        let word = |at: usize| host.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
        let accepted = self.accepted.swap(0, Ordering::Relaxed);
        let mut state = self.state.lock();
        let three = state.version == Version::Three;
        let mut drops = word(4).unwrap_or(0);
        let mut frozen = 0;
        let judged_here = state.ring.is_some() || self.host.filter_place().get().is_some();
        if let Some(ring) = &mut state.ring {
            drops = drops.wrapping_add(std::mem::take(&mut ring.lost));
            frozen = std::mem::take(&mut ring.frozen);
        }
        // The host has counted before our filter.
        let packets = if judged_here { accepted.wrapping_add(drops) } else { word(0).unwrap_or(0) };
        let mut out = [packets.to_ne_bytes(), drops.to_ne_bytes()].concat();
        if three {
            out.extend_from_slice(&frozen.to_ne_bytes());
        }
        out.truncate(len);
        Ok(out)
    }
}

/// What the host tells of a frame beside it.
#[derive(Default)]
struct Told {
    status: u32,
    network: u16,
    vlan: Option<(u16, u16)>,
    time: Option<u64>,
}

impl Told {
    fn read(mut control: &[u8]) -> Told {
        const VLAN_VALID: u32 = 0x10;
        let mut told = Told::default();
        while let Some((header, _)) = control.split_first_chunk::<16>() {
            let [l0, l1, l2, l3, _, _, _, _, level @ .., k0, k1, k2, k3] = *header;
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let Some(data) = control.get(16..length) else { break };
            let word = |at: usize| data.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
            let half = |at: usize| data.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
            let long = |at: usize| data.get(at..)?.first_chunk::<8>().map(|b| u64::from_ne_bytes(*b));
            match (i32::from_ne_bytes(level), i32::from_ne_bytes([k0, k1, k2, k3])) {
                (SOL_SOCKET, so::TIMESTAMPNS) => {
                    told.time =
                        long(0).zip(long(8)).and_then(|(s, n)| s.checked_mul(1_000_000_000)?.checked_add(n));
                }
                // tp_status, tp_len, tp_snaplen, tp_mac, tp_net, tp_vlan_tci, tp_vlan_tpid
                (PACKET, AUXDATA) => {
                    told.status = word(0).unwrap_or(0);
                    told.network = half(14).unwrap_or(0);
                    told.vlan = half(16).zip(half(18)).filter(|_| told.status & VLAN_VALID != 0);
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
        told
    }
}

impl Socket for PacketSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn filter(&self) -> Option<&Filter> {
        Some(self.host.filter_place())
    }
    fn kind(&self) -> (u16, u32, i32) {
        self.host.kind()
    }
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        self.host.bind(caller, address)?;
        self.listens();
        Ok(())
    }
    fn connect(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        self.host.connect(caller, address)
    }
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        self.host.send(caller, data, to, control, flags)
    }
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received> {
        // All frames go into the ring.
        if !flags.contains(MsgFlags::ERRQUEUE) && self.state.lock().ring.is_some() {
            return Err(Errno::EAGAIN);
        }
        let received = self.host.receive(buf, control_room, flags)?;
        if !flags.intersects(MsgFlags::PEEK | MsgFlags::ERRQUEUE) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(received)
    }
    fn shutdown(&self, _halves: Halves) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        self.host.local_address()
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        self.host.peer_address()
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        let state = self.state.lock();
        let value = match (level, name) {
            (PACKET, STATISTICS) => {
                drop(state);
                return self.statistics(len);
            }
            (PACKET, VERSION) => state.version.raw(),
            (PACKET, RESERVE) => i32::try_from(state.reserve).unwrap_or(0),
            (PACKET, AUXDATA) => state.auxiliary.into(),
            _ => return self.host.option(level, name, len),
        };
        Ok(value.to_ne_bytes().into_iter().take(len).collect())
    }
    fn option_about(&self, level: i32, name: i32, given: &[u8]) -> Result<Vec<u8>> {
        if (level, name) != (PACKET, HDRLEN) {
            return self.option(level, name, given.len());
        }
        let length = Version::from_raw(int_option(given)?)?.header();
        Ok(i32::try_from(length).unwrap_or(0).to_ne_bytes().to_vec())
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (PACKET, RX_RING) => self.set_ring(value),
            (PACKET, VERSION | RESERVE) => {
                if value.len() != 4 {
                    return Err(Errno::EINVAL);
                }
                let value = int_option(value)?;
                let mut state = self.state.lock();
                if name == VERSION {
                    let version = Version::from_raw(value)?;
                    if state.ring.is_some() {
                        return Err(Errno::EBUSY);
                    }
                    state.version = version;
                } else {
                    let reserve = usize::try_from(value).map_err(|_| Errno::EINVAL)?;
                    if state.ring.is_some() {
                        return Err(Errno::EBUSY);
                    }
                    state.reserve = reserve;
                }
                Ok(())
            }
            (PACKET, AUXDATA) => {
                let on = int_option(value)? != 0;
                let mut state = self.state.lock();
                if state.ring.is_none() {
                    self.host.set_option(caller, level, name, value)?;
                }
                state.auxiliary = on;
                Ok(())
            }
            _ => self.host.set_option(caller, level, name, value),
        }
    }
    fn take_error(&self) -> Option<Errno> {
        self.host.take_error()
    }
    fn poll(&self) -> Events {
        match self.fill() {
            None => self.host.poll(),
            Some(readable) => {
                let mut events = self.host.poll() - Events::READABLE;
                events.set(Events::READABLE, readable);
                events
            }
        }
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.host.wait_queue()
    }
    fn describe(&self) -> Option<Description> {
        self.host.describe()
    }
    fn ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        self.host.ioctl(caller, cmd, arg)
    }
    fn mmap(&self, request: &MapRequest) -> Result<MapSource> {
        let state = self.state.lock();
        let ring = state.ring.as_ref().ok_or(Errno::EINVAL)?;
        if request.offset != 0 || request.length != ring.size() as u64 {
            return Err(Errno::EINVAL);
        }
        Ok(MapSource::Host { fd: ring.file().clone(), offset: 0, keep: false })
    }
}
