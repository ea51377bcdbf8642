//! UDP sockets: sockets of the host, with a short cut to each other.
//!
//! Names, ports, options and errors are the host's. A datagram to another socket of the sandbox goes straight into
//! its inbox where nobody can tell the difference: to an address of the sandbox, to the one socket that the host
//! would choose, and with no option set on either side whose effect only the host's sockets have. All else (other
//! receivers, groups, broadcasts, control messages, timestamps, port sharing) the host carries.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, MsgFlags, SOCK_DGRAM, SOL_SOCKET, so};
use parking_lot::{Mutex, RwLock};
use vfs::Caller;

use super::Inet;
use super::endpoint::Endpoint;
use super::ports::Ports;
use super::udp_counts::counts;
use crate::filter::{Datagram, Filter};
use crate::host::{ADDRFORM, HostSocket};
use crate::registry::{Description, UdpDescription};
use crate::socket::{Control, Halves, Received, Socket, SocketCaller, int_option};
use crate::zerocopy::Completions;
use crate::{Address, Result};

pub(super) const IPPROTO_UDP: i32 = 17;
const IP: i32 = 0;
const IPV6: i32 = 41;
const FIONREAD: u32 = 0x541b;
/// The longest datagram over lo in one packet: 65,536 without the headers of IPv4 and UDP, or fewer of IPv6.
const LONGEST: usize = 65_487;
/// What Linux counts for a datagram beside its bytes.
const OVERHEAD: usize = 768;
/// Bytes that wait in all sockets of the sandbox together, as `udp_mem` of udp(7) bounds them: they are this process's.
const ALL_INBOXES: usize = 64 << 20;
/// SO_RCVBUF if the host does not tell.
const RECEIVE_BUFFER: usize = 212_992;
/// So many datagrams in a row come from the inbox at most while the host may have some.
const IN_A_ROW: u8 = 16;

/// The bound sockets of the sandbox, by port.
#[derive(Default)]
pub(super) struct Bound(RwLock<HashMap<u16, Vec<Weak<Shared>>>>);

struct Mail {
    from: Endpoint,
    data: Box<[u8]>,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Mail>,
    /// What they count against SO_RCVBUF.
    used: usize,
    /// Datagrams for which there was no room.
    lost: u64,
}

/// What the host said last of the socket's names.
#[derive(Clone, Copy, Default)]
struct Names {
    local: Option<Endpoint>,
    peer: Option<Endpoint>,
    v6_only: bool,
}

pub(super) struct Shared {
    this: Weak<Shared>,
    /// `IPV6_ADDRFORM` changes it.
    family: AtomicU16,
    inet: Arc<Inet>,
    host: HostSocket,
    queue: Arc<WaitQueue>,
    names: Mutex<Names>,
    /// Held while the names are asked for.
    learning: Mutex<()>,
    inbox: Mutex<Inbox>,
    /// An option is set whose effect only the host's sockets have.
    host_only: AtomicBool,
    /// The host has carried a datagram since its error was last asked for: there may be one.
    suspect: AtomicBool,
    /// SHUT_RD: who would wait for a datagram has the end of it. Who would not is told `EAGAIN` all the same.
    read_shut: AtomicBool,
    /// SO_RCVBUF; 0 if not known.
    room: AtomicUsize,
    in_a_row: AtomicU8,
    zerocopy: Completions,
}

/// A UDP socket.
pub(super) struct UdpSocket(Arc<Shared>);

/// Options that change nothing about datagrams between two sockets of the sandbox, neither for the one that has set
/// them nor for a receiver without options of its own.
fn harmless(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => matches!(
            name,
            so::DEBUG
                | so::BROADCAST
                | so::KEEPALIVE
                | so::LINGER
                | so::OOBINLINE
                | so::PRIORITY
                | so::NO_CHECK
                | so::SNDBUF
                | so::RCVBUF
                | so::SNDBUFFORCE
                | so::RCVBUFFORCE
                | so::PASSCRED
        ),
        // TOS, TTL, MTU_DISCOVER, RECVERR, FREEBIND; MULTICAST_IF, -TTL, -LOOP, memberships and sources of groups
        IP => matches!(name, 1 | 2 | 10 | 11 | 15 | 32..=49),
        // ADDRFORM, UNICAST_HOPS, MULTICAST_IF, -HOPS, -LOOP, JOIN_GROUP, LEAVE_GROUP, MTU_DISCOVER, RECVERR, V6ONLY,
        // MULTICAST_ALL, groups, TCLASS
        IPV6 => matches!(name, 1 | 16..=21 | 23 | 25 | 26 | 29 | 42..=48 | 67),
        _ => false,
    }
}

impl Bound {
    fn add(&self, port: u16, socket: Weak<Shared>) {
        self.0.write().entry(port).or_default().push(socket);
    }

    fn remove(&self, port: u16, socket: &Weak<Shared>) {
        let mut bound = self.0.write();
        if let Some(list) = bound.get_mut(&port) {
            list.retain(|s| !s.ptr_eq(socket));
            if list.is_empty() {
                bound.remove(&port);
            }
        }
    }

    /// The one socket that this datagram belongs to; none if there is no such one, or more.
    fn receiver(&self, from: Endpoint, to: Endpoint) -> Option<Arc<Shared>> {
        let bound = self.0.read();
        let mut best: Option<(u8, Arc<Shared>)> = None;
        let mut alone = true;
        for socket in bound.get(&to.port)?.iter().filter_map(Weak::upgrade) {
            let names = *socket.names.lock();
            let Some(score) = names.score(socket.family(), from, to) else { continue };
            match &best {
                Some((most, _)) if *most > score => {}
                Some((most, _)) if *most == score => alone = false,
                _ => {
                    best = Some((score, socket));
                    alone = true;
                }
            }
        }
        best.filter(|_| alone).map(|(_, socket)| socket)
    }
}

impl Names {
    /// How well a datagram fits, as Linux weighs it; none if it does not.
    fn score(&self, family: u16, from: Endpoint, to: Endpoint) -> Option<u8> {
        let local = self.local?;
        let own = match (local.ip, to.ip) {
            (mine, ip) if mine == ip => 4,
            (IpAddr::V4(mine), IpAddr::V4(_)) if mine.is_unspecified() => 0,
            (IpAddr::V6(mine), IpAddr::V6(_)) if mine.is_unspecified() => 0,
            (IpAddr::V6(mine), IpAddr::V4(_)) if mine.is_unspecified() && !self.v6_only => 0,
            _ => return None,
        };
        let other = match self.peer {
            Some(peer) if peer == from => 8,
            Some(_) => return None,
            None => 0,
        };
        Some(own + other + u8::from(family == AF_INET))
    }
}

impl Shared {
    fn family(&self) -> u16 {
        self.family.load(Ordering::Relaxed)
    }

    /// Asks the host for the names after a call that may have changed them.
    fn learn(&self) {
        let _learning = self.learning.lock();
        let endpoint = |bytes: Result<Vec<u8>>| Some(Endpoint::parse(&bytes.ok()?)?.1);
        let local = endpoint(self.host.local_address()).filter(|name| name.port != 0);
        let peer = endpoint(self.host.peer_address());
        let v6_only = self.family() == AF_INET6 && self.host.is_v6_only();
        let old = std::mem::replace(&mut *self.names.lock(), Names { local, peer, v6_only });
        let (old, new) = (old.local.map(|n| n.port), local.map(|n| n.port));
        if old != new {
            if let Some(port) = old {
                self.inet.bound.remove(port, &self.this);
            }
            if let Some(port) = new {
                self.inet.bound.add(port, self.this.clone());
            }
        }
    }

    /// The error that the host keeps for this socket, if one is possible.
    fn pending(&self) -> Result<()> {
        if self.suspect.load(Ordering::Relaxed) {
            self.suspect.store(false, Ordering::Relaxed);
            if let Some(errno) = self.host.take_error() {
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Sends to a socket of the sandbox; false if the datagram is the host's affair.
    fn send_inside(&self, caller: &SocketCaller<'_>, data: &[u8], to: Option<&Address>) -> Result<bool> {
        if self.host_only.load(Ordering::Relaxed) || data.len() > LONGEST || self.inet.maker.is_heard() {
            return Ok(false);
        }
        let names = *self.names.lock();
        let to = match to {
            Some(to) => match Endpoint::parse(&to.bytes) {
                Some((family, to)) if family == self.family() => to,
                _ => return Ok(false),
            },
            None => match names.peer {
                Some(peer) => peer,
                None => return Ok(false),
            },
        };
        if to.port == 0 || to.ip.is_unspecified() || !self.inet.ports.is_local(to.ip) {
            return Ok(false);
        }
        let source = match names.local {
            Some(local) if !local.ip.is_unspecified() => local,
            local => Endpoint::new(Ports::source_for(to.ip), local.map_or(0, |name| name.port)),
        };
        if source.ip.is_ipv4() != to.ip.is_ipv4()
            || (self.family() == AF_INET6 && to.ip.is_ipv4() && names.v6_only)
        {
            return Ok(false);
        }
        let Some(receiver) = self.inet.bound.receiver(source, to) else { return Ok(false) };
        if receiver.host_only.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if source.port == 0 {
            // The first datagram gives the sender a port.
            let any = Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).render(self.family());
            self.host.bind(caller, &Address::plain(any))?;
            self.learn();
            return self.send_inside(caller, data, Some(&Address::plain(to.render(self.family()))));
        }
        self.pending()?;
        counts(to.ip.is_ipv6()).add_sent();
        receiver.deliver(source, to, data);
        Ok(true)
    }

    /// Puts a datagram into the inbox; as in Linux it is lost if the buffer is full.
    fn deliver(&self, from: Endpoint, to: Endpoint, data: &[u8]) {
        let mut keep = data.len();
        if let Some(program) = self.host.filter_place().get() {
            match Datagram::new(from, to, data).judge(&program) {
                Some(left) => keep = keep.min(left),
                None => return,
            }
        }
        let data = data.get(..keep).unwrap_or_default();
        let mut room = self.room.load(Ordering::Relaxed);
        if room == 0 {
            let told = self.host.option(SOL_SOCKET, so::RCVBUF, 4).and_then(|v| int_option(&v));
            room = told.ok().and_then(|v| usize::try_from(v).ok()).unwrap_or(RECEIVE_BUFFER).max(1);
            self.room.store(room, Ordering::Relaxed);
        }
        let size = data.len() + OVERHEAD;
        let mut inbox = self.inbox.lock();
        if inbox.used > room {
            inbox.lost += 1;
            counts(to.ip.is_ipv6()).add_lost();
            return;
        }
        if self.inet.in_inboxes.fetch_add(size, Ordering::Relaxed) > ALL_INBOXES {
            self.inet.in_inboxes.fetch_sub(size, Ordering::Relaxed);
            inbox.lost += 1;
            counts(to.ip.is_ipv6()).add_lost();
            return;
        }
        inbox.used += size;
        inbox.waiting.push_back(Mail { from, data: data.into() });
        drop(inbox);
        self.queue.wake(Events::READABLE);
    }

    fn take(&self, buf: &mut [u8], flags: MsgFlags) -> Option<Received> {
        let mut inbox = self.inbox.lock();
        let first = inbox.waiting.front()?;
        let length = first.data.len();
        let count = length.min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), first.data.get(..count)) {
            to.copy_from_slice(from);
        }
        let from = Some(first.from.render(self.family()));
        if !flags.contains(MsgFlags::PEEK) {
            counts(first.from.ip.is_ipv6()).add_read();
            inbox.waiting.pop_front();
            inbox.used = inbox.used.saturating_sub(length + OVERHEAD);
            self.inet.in_inboxes.fetch_sub(length + OVERHEAD, Ordering::Relaxed);
        }
        let mut told = MsgFlags::empty();
        told.set(MsgFlags::TRUNC, count < length);
        Some(Received { count, length, flags: told, from, control: Vec::new() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inet.in_inboxes.fetch_sub(self.inbox.get_mut().used, Ordering::Relaxed);
    }
}

impl UdpSocket {
    /// `EAFNOSUPPORT`, `ENFILE`, `EMFILE`: as the host.
    pub(super) fn new(inet: &Arc<Inet>, family: u16, protocol: i32) -> Result<UdpSocket> {
        let host = inet.maker.open((family, SOCK_DGRAM, protocol), None)?;
        let queue = host.wait_queue();
        Ok(UdpSocket(Arc::new_cyclic(|this| Shared {
            this: this.clone(),
            family: AtomicU16::new(family),
            inet: inet.clone(),
            host,
            queue,
            names: Mutex::default(),
            learning: Mutex::default(),
            inbox: Mutex::default(),
            host_only: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            read_shut: AtomicBool::new(false),
            room: AtomicUsize::new(0),
            in_a_row: AtomicU8::new(0),
            zerocopy: Completions::default(),
        })))
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        // Taken out, so that no late sender finds it while the last reference goes.
        let names = std::mem::take(&mut *self.0.names.lock());
        if let Some(name) = names.local {
            self.0.inet.bound.remove(name.port, &self.0.this);
        }
    }
}

impl Socket for UdpSocket {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn filter(&self) -> Option<&Filter> {
        Some(self.0.host.filter_place())
    }
    fn kind(&self) -> (u16, u32, i32) {
        self.0.host.kind()
    }
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        self.0.host.bind(caller, address)?;
        self.0.learn();
        Ok(())
    }
    fn connect(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        let done = self.0.host.connect(caller, address);
        self.0.learn();
        done
    }
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let plain = MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL | MsgFlags::CONFIRM | MsgFlags::ZEROCOPY;
        let shared = &self.0;
        if control.is_empty() && (flags - plain).is_empty() && shared.send_inside(caller, data, to)? {
            return Ok(data.len());
        }
        if flags.contains(MsgFlags::MORE) {
            // What follows belongs to the same datagram, which the host keeps.
            shared.host_only.store(true, Ordering::Relaxed);
        }
        let sent = shared.host.send(caller, data, to, control, flags);
        shared.suspect.store(true, Ordering::Relaxed);
        if shared.names.lock().local.is_none() {
            shared.learn();
        }
        sent
    }
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received> {
        let shared = &self.0;
        if flags.contains(MsgFlags::ERRQUEUE)
            && let Some(told) = shared.zerocopy.take(shared.family())
        {
            return Ok(told);
        }
        let told = flags.intersects(MsgFlags::ERRQUEUE | MsgFlags::OOB);
        if told || shared.inbox.lock().waiting.is_empty() {
            return match shared.host.receive(buf, control_room, flags) {
                Err(Errno::EAGAIN)
                    if !flags.contains(MsgFlags::DONTWAIT) && shared.read_shut.load(Ordering::Relaxed) =>
                {
                    Ok(Received::default())
                }
                got => got,
            };
        }
        shared.pending()?;
        let row = shared.in_a_row.load(Ordering::Relaxed);
        if row >= IN_A_ROW {
            shared.in_a_row.store(0, Ordering::Relaxed);
            match shared.host.receive(buf, control_room, flags) {
                Err(Errno::EAGAIN) => {}
                got => return got,
            }
        }
        if !flags.contains(MsgFlags::PEEK) {
            shared.in_a_row.store(row.saturating_add(1), Ordering::Relaxed);
        }
        match shared.take(buf, flags) {
            Some(got) => Ok(got),
            None => shared.host.receive(buf, control_room, flags),
        }
    }
    fn shutdown(&self, halves: Halves) -> Result<()> {
        // The host's sockets know from now on whether they may send.
        self.0.host_only.store(true, Ordering::Relaxed);
        self.0.host.shutdown(halves)?;
        self.0.read_shut.fetch_or(halves.read, Ordering::Relaxed);
        Ok(())
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        self.0.host.local_address()
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        self.0.host.peer_address()
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        if (level, name) == (SOL_SOCKET, so::ZEROCOPY) {
            let on = i32::from(self.0.zerocopy.is_enabled());
            return Ok(on.to_ne_bytes().into_iter().take(len).collect());
        }
        self.0.host.option(level, name, len)
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let shared = &self.0;
        if (level, name) == (SOL_SOCKET, so::ZEROCOPY) {
            return shared.zerocopy.set(value);
        }
        shared.host.set_option(caller, level, name, value)?;
        let off = value.iter().all(|byte| *byte == 0);
        if !harmless(level, name) && !off {
            shared.host_only.store(true, Ordering::Relaxed);
        }
        shared.room.store(0, Ordering::Relaxed);
        if (level, name) == ADDRFORM {
            shared.family.store(shared.host.kind().0, Ordering::Relaxed);
        }
        if matches!((level, name), ADDRFORM | (IPV6, 26)) {
            shared.learn();
        }
        Ok(())
    }
    fn take_error(&self) -> Option<Errno> {
        self.0.host.take_error()
    }
    fn sent_zerocopy(&self) {
        self.0.zerocopy.note(&self.0.queue);
    }
    fn poll(&self) -> Events {
        let ready = self.0.host.poll() | self.0.zerocopy.events();
        if self.0.inbox.lock().waiting.is_empty() { ready } else { ready | Events::READABLE }
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.0.queue.clone()
    }
    fn describe(&self) -> Option<Description> {
        let Some(Description::Host(host)) = self.0.host.describe() else { return None };
        let inbox = self.0.inbox.lock();
        Some(Description::Udp(UdpDescription { host, unread: inbox.used, lost: inbox.lost }))
    }
    fn ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        if cmd == FIONREAD {
            let first = self.0.inbox.lock().waiting.front().map(|first| first.data.len());
            if let Some(length) = first {
                caller.write_memory(arg, &i32::try_from(length).unwrap_or(i32::MAX).to_ne_bytes())?;
                return Ok(0);
            }
        }
        self.0.host.ioctl(caller, cmd, arg)
    }
}
