//! A socket that is a socket of the host.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use bpf::Program;
use executor::{Events, HostSource, WaitQueue};
use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{
    AF_INET, AF_INET6, AF_PACKET, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, SOMAXCONN, so,
};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use vfs::Caller;

use super::{Hearing, Place, Rights, Room, ioctls, options};
use crate::filter::{Bare, Datagram, Filter, Frame};
use crate::inet::endpoint::Endpoint;
use crate::posting::note_end;
use crate::registry::Description;
use crate::socket::{Control, Halves, Received, Socket, SocketCaller, int_option};
use crate::{Address, Result};

/// The longest message that a filter looks at, and how many it throws away at a time.
const LONGEST: usize = 64 << 10;
const MOST_LOOKED_AT: usize = 64;
/// The most bytes of control messages from the host at once.
const MAX_CONTROL: usize = 4096;

/// A host socket, watched by the driver.
pub struct HostSocket {
    source: HostSource,
    /// Type and protocol.
    kind: (u32, i32),
    /// `IPV6_ADDRFORM` changes it.
    family: AtomicU16,
    _place: Place,
    room: Arc<Room>,
    /// Its close(2) would wait: SO_LINGER with a time.
    lingers: AtomicBool,
    /// Options are set with which sends or receives are not plain ones.
    special: AtomicBool,
    /// What is left to send before anything else, see `crate::posting`.
    behind: Mutex<Vec<u8>>,
    is_behind: AtomicBool,
    /// Nothing is sent any more.
    shut: AtomicBool,
    /// Sending ends after that.
    then_shut: Mutex<bool>,
    filter: Filter,
    hearing: OnceLock<Hearing>,
    /// Of a connected one: the other end is perhaps of the same network namespace.
    own: OnceLock<bool>,
}

impl Drop for HostSocket {
    /// What was sent goes out after the close as well, but no worker waits for that.
    fn drop(&mut self) {
        if self.lingers.load(Ordering::Relaxed) {
            let _ = host::socket::set_option(self.fd(), SOL_SOCKET, so::LINGER, &[0; 8]);
        }
    }
}

impl HostSocket {
    pub(super) fn new(
        fd: OwnedFd,
        kind: (u16, u32, i32),
        place: Place,
        room: Arc<Room>,
        queue: Arc<WaitQueue>,
    ) -> Result<HostSocket> {
        let interest = Events::IN | Events::OUT | Events::PRI | Events::RDHUP;
        let source = HostSource::with_queue(Arc::new(fd), interest, queue)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
        Ok(HostSocket {
            source,
            kind: (kind.1, kind.2),
            family: AtomicU16::new(kind.0),
            _place: place,
            room,
            lingers: AtomicBool::new(false),
            special: AtomicBool::new(false),
            behind: Mutex::default(),
            is_behind: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            then_shut: Mutex::default(),
            filter: Filter::default(),
            hearing: OnceLock::new(),
            own: OnceLock::new(),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.source.fd().as_fd()
    }

    /// connect(2) to an address as it is.
    pub(crate) fn connect_to(&self, address: &[u8]) -> Result<()> {
        host::socket::connect(self.fd(), address)
    }

    /// accept(2), as a host socket that wakes `queue`.
    pub(crate) fn accept_host(&self, queue: Arc<WaitQueue>) -> Result<HostSocket> {
        let place = self.room.take()?;
        let fd = host::socket::accept(self.fd())?;
        let socket = HostSocket::new(fd, self.kind(), place, self.room.clone(), queue)?;
        socket.lingers.store(self.lingers.load(Ordering::Relaxed), Ordering::Relaxed);
        socket.special.store(self.special.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(socket)
    }

    /// setsockopt(2) of what a provider kept for later, and has checked.
    pub(crate) fn force_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        host::socket::set_option(self.fd(), level, name, value)?;
        if (level, name) == (SOL_SOCKET, so::LINGER) {
            // No time at all resets the connection, at once.
            self.lingers.store(value.get(4..8).is_some_and(|time| time != [0; 4]), Ordering::Relaxed);
        }
        const SPECIAL: [i32; 4] = [so::SNDBUF, so::SNDBUFFORCE, so::PEEK_OFF, so::RCVLOWAT];
        if level == SOL_SOCKET && SPECIAL.contains(&name) {
            self.special.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether a stream has nothing to send any more, so that the host is sure to take a few pages.
    pub(crate) fn is_drained(&self) -> bool {
        const SIOCOUTQ: u32 = 0x5411;
        let mut left = [1; 4];
        !self.special.load(Ordering::Relaxed)
            && !self.is_shut()
            && !self.is_behind.load(Ordering::Relaxed)
            && host::socket::ioctl(self.fd(), SIOCOUTQ, &mut left).is_ok()
            && left == [0; 4]
    }

    /// Whether shutdown(2) has ended sending.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// Whether the other end of a connection may be the guest's own, too: it has the same address, or one of loopback.
    pub(crate) fn is_among_own(&self) -> bool {
        *self.own.get_or_init(|| {
            let ip = |peer| {
                let name = host::socket::name(self.fd(), peer).ok()?;
                Endpoint::parse(&name).map(|(_, endpoint)| endpoint.ip.to_canonical())
            };
            match (ip(false), ip(true)) {
                (Some(here), Some(there)) => here == there || there.is_loopback(),
                _ => true,
            }
        })
    }

    /// The bytes that wait in a stream, without taking them; 0 at its end.
    pub(crate) fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        if self.special.load(Ordering::Relaxed) {
            return Ok(0);
        }
        host::socket::peek(self.fd(), buf)
    }

    /// Throws bytes of a stream away that are there.
    pub(crate) fn discard(&self, count: usize) {
        // An error that came meanwhile is there for the next call, too.
        let _ = host::socket::discard(self.fd(), count);
    }

    /// Sends all: what the host does not take now goes first of all later.
    pub(crate) fn send_all(&self, data: &[u8]) -> Result<()> {
        let mut behind = self.behind.lock();
        let n = if behind.is_empty() {
            match host::socket::send(self.fd(), data, None, &[], 0) {
                Err(Errno::EAGAIN) => 0,
                sent => sent?,
            }
        } else {
            // Not before what waits already.
            0
        };
        let rest = data.get(n..).unwrap_or_default();
        if !rest.is_empty() {
            behind.extend_from_slice(rest);
            self.is_behind.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether all went that [`HostSocket::send_all`] was given; sends the rest if it can.
    pub(crate) fn catch_up(&self) -> bool {
        if !self.is_behind.load(Ordering::SeqCst) {
            return true;
        }
        let mut behind = self.behind.lock();
        match host::socket::send(self.fd(), &behind, None, &[], 0) {
            Ok(n) => {
                let n = n.min(behind.len());
                behind.drain(..n);
            }
            Err(Errno::EAGAIN) => {}
            // Nobody takes it any more.
            Err(_) => behind.clear(),
        }
        if behind.is_empty() {
            self.is_behind.store(false, Ordering::SeqCst);
            if std::mem::take(&mut *self.then_shut.lock()) {
                let _ = host::socket::shutdown(self.fd(), 1);
            }
            self.source.queue().wake_all(Events::WRITABLE);
        }
        behind.is_empty()
    }

    /// `IPV6_V6ONLY`.
    pub(crate) fn is_v6_only(&self) -> bool {
        const IPV6: i32 = 41;
        const V6ONLY: i32 = 26;
        host::socket::option(self.fd(), IPV6, V6ONLY, 4).is_ok_and(|v| int_option(&v).is_ok_and(|v| v != 0))
    }

    /// The filter of what arrives, for the socket that this one carries.
    pub(crate) fn filter_place(&self) -> &Filter {
        &self.filter
    }

    /// How much of the message to read next the filter leaves; what it throws away is gone then. The filter runs here:
    /// the host is never handed a guest's program. `EAGAIN`.
    fn look(&self, program: &Program) -> Result<usize> {
        let udp = self.kind.0 == SOCK_DGRAM && matches!(self.kind.1, 0 | 17 | 136);
        let own = if udp { host::socket::name(self.fd(), false).ok() } else { None };
        let mut buf = vec![0; LONGEST];
        // What a flood leaves is looked at the next time.
        for _ in 0..MOST_LOOKED_AT {
            let flags = (MsgFlags::PEEK | MsgFlags::TRUNC).bits();
            let message = host::socket::receive(self.fd(), &mut buf, 0, flags)?;
            let data = buf.get(..message.length.min(LONGEST)).unwrap_or_default();
            let end = |bytes: &[u8]| Endpoint::parse(bytes).map(|(_, end)| end);
            let keep = match (end(&message.from), own.as_deref().and_then(end)) {
                (Some(from), Some(own)) if udp => Datagram::new(from, own, data).judge(program),
                _ if self.kind().0 == AF_PACKET => {
                    let frame = Frame::new(data, &message.from, self.kind.0 == SOCK_RAW);
                    Some(program.run(&frame) as usize).filter(|keep| *keep > 0)
                }
                _ => Some(program.run(&Bare(data)) as usize).filter(|keep| *keep > 0),
            };
            if let Some(keep) = keep {
                return Ok(keep);
            }
            host::socket::receive(self.fd(), &mut [], 0, 0)?;
        }
        // There may be more, of which the host tells only once.
        self.source.queue().wake(Events::READABLE);
        Err(Errno::EAGAIN)
    }

    /// Which capabilities count in its network namespace.
    pub(super) fn rights(&self) -> Rights {
        self.room.rights
    }

    /// From now on it hears what goes over lo.
    pub(super) fn hears(&self) {
        self.hearing.get_or_init(|| {
            self.room.hearing.fetch_add(1, Ordering::Relaxed);
            Hearing(self.room.clone())
        });
    }

    fn is_stream(&self) -> bool {
        self.kind.0 == SOCK_STREAM
    }
}

/// The port of an internet address.
fn port(address: &[u8]) -> Option<u16> {
    let family = address.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))?;
    let port = address.get(2..4)?.first_chunk::<2>()?;
    matches!(family, AF_INET | AF_INET6).then(|| u16::from_be_bytes(*port))
}

/// Control messages as the host takes them; those that are not on the list are `EINVAL`.
fn encode(control: &[Control]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for message in control {
        // As Linux, files and credentials mean nothing to internet sockets.
        let Control::Raw { level, kind, data } = message else { continue };
        if !options::may_send(*level, *kind) {
            return Err(Errno::EINVAL);
        }
        out.extend_from_slice(&((16 + data.len()) as u64).to_ne_bytes());
        out.extend_from_slice(&level.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    Ok(out)
}

/// The host's control messages, one by one.
fn decode(mut bytes: &[u8]) -> Vec<Control> {
    let mut out = Vec::new();
    while let (Some(size), Some(level), Some(kind)) =
        (word(bytes, 0), word(bytes, 8).map(u32::cast_signed), word(bytes, 12).map(u32::cast_signed))
    {
        let size = size as usize;
        let Some(data) = bytes.get(16..size) else { break };
        // Descriptors cannot come over these families, and would be the host's.
        if (level, kind) != (SOL_SOCKET, linux_abi::socket::SCM_RIGHTS) {
            out.push(Control::Raw { level, kind, data: data.to_vec() });
        }
        bytes = bytes.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    out
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

impl Socket for HostSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn kind(&self) -> (u16, u32, i32) {
        (self.family.load(Ordering::Relaxed), self.kind.0, self.kind.1)
    }
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        // Raw sockets have no port.
        let privileged = self.kind.0 != SOCK_RAW
            && port(&address.bytes).is_some_and(|p| p != 0 && u32::from(p) < self.room.first_free_port);
        if privileged && !caller.credentials.capable(Capability::NET_BIND_SERVICE) {
            return Err(Errno::EACCES);
        }
        match host::socket::bind(self.fd(), &address.bytes) {
            Err(Errno::EACCES) if privileged && let Some(binder) = &self.room.binder => {
                binder.bind(self.fd(), &address.bytes)
            }
            bound => bound,
        }
    }
    fn listen(&self, _caller: &SocketCaller<'_>, backlog: i32) -> Result<()> {
        let backlog = if backlog < 0 { SOMAXCONN } else { backlog.min(SOMAXCONN) };
        host::socket::listen(self.fd(), backlog)
    }
    fn connect(&self, _caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        host::socket::connect(self.fd(), &address.bytes)
    }
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(Arc::new(self.accept_host(Arc::default())?))
    }
    fn send(
        &self,
        _caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let known = MsgFlags::OOB
            | MsgFlags::DONTROUTE
            | MsgFlags::EOR
            | MsgFlags::CONFIRM
            | MsgFlags::MORE
            | MsgFlags::FASTOPEN;
        if self.is_behind.load(Ordering::Relaxed) && !self.catch_up() {
            return Err(Errno::EAGAIN);
        }
        let encoded = encode(control)?;
        let to = to.map(|a| a.bytes.as_slice());
        let n = host::socket::send(self.fd(), data, to, &encoded, (flags & known).bits())?;
        control.clear();
        Ok(n)
    }
    fn filter(&self) -> Option<&Filter> {
        (!self.is_stream()).then_some(&self.filter)
    }
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received> {
        let program = self.filter.get().filter(|_| !flags.contains(MsgFlags::ERRQUEUE));
        let _looking = program.as_ref().map(|_| self.filter.looking.lock());
        let keep = match &program {
            Some(program) => self.look(program)?,
            None => usize::MAX,
        };
        let mut known = flags & (MsgFlags::OOB | MsgFlags::PEEK | MsgFlags::ERRQUEUE);
        // A datagram tells its whole length; a stream would throw the bytes away.
        known.set(MsgFlags::TRUNC, !self.is_stream());
        let message = host::socket::receive(self.fd(), buf, control_room.min(MAX_CONTROL), known.bits())?;
        let told = MsgFlags::TRUNC | MsgFlags::CTRUNC | MsgFlags::EOR | MsgFlags::OOB | MsgFlags::ERRQUEUE;
        Ok(Received {
            count: message.length.min(buf.len()).min(keep),
            length: message.length.min(keep),
            flags: MsgFlags::from_bits_retain(message.flags) & told,
            from: if message.from.is_empty() { None } else { Some(message.from) },
            control: decode(&message.control),
        })
    }
    fn shutdown(&self, halves: Halves) -> Result<()> {
        let how = match (halves.read, halves.write) {
            (true, false) => 0,
            (false, true) => 1,
            _ => 2,
        };
        if how != 0 {
            self.shut.store(true, Ordering::SeqCst);
            note_end();
        }
        if how != 0 && !self.catch_up() {
            *self.then_shut.lock() = true;
            return if how == 2 { host::socket::shutdown(self.fd(), 0) } else { Ok(()) };
        }
        let done = host::socket::shutdown(self.fd(), how);
        self.source.queue().wake_all(Events::all());
        done
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        host::socket::name(self.fd(), false)
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        host::socket::name(self.fd(), true)
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        match (level, name) {
            // Nobody passes credentials here.
            (SOL_SOCKET, so::PASSCRED) => return Ok(0_i32.to_ne_bytes().into_iter().take(len).collect()),
            _ if options::may_get(self.kind(), level, name) => {}
            _ => return Err(options::unknown(self.kind(), level)),
        }
        host::socket::option(self.fd(), level, name, len)
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let name = match (level, name) {
            (SOL_SOCKET, so::PASSCRED) => return int_option(value).map(|_| ()),
            (SOL_SOCKET, so::SNDBUFFORCE | so::RCVBUFFORCE) => {
                if !caller.credentials.capable(Capability::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                // Beyond the host's limits only the host's administrator may go.
                if name == so::SNDBUFFORCE { so::SNDBUF } else { so::RCVBUF }
            }
            _ => name,
        };
        if !options::may_set(self.kind(), level, name) {
            return Err(Errno::ENOPROTOOPT);
        }
        let raw = caller.credentials.capable(Capability::NET_RAW);
        let admin = caller.credentials.capable(Capability::NET_ADMIN);
        if options::is_privileged(self.kind().0, level, name, value)? && !raw && !admin {
            return Err(Errno::EPERM);
        }
        if (level, name) == options::IP_OPTIONS && !raw {
            options::check_ip_options(value)?;
        }
        // The first one may choose an interface, and who is privileged another one.
        if level == SOL_SOCKET && matches!(name, so::BINDTODEVICE | so::BINDTOIFINDEX) && !raw {
            let bound = host::socket::option(self.fd(), SOL_SOCKET, so::BINDTOIFINDEX, 4)?;
            if bound != [0; 4] {
                return Err(Errno::EPERM);
            }
        }
        self.force_option(level, name, value)?;
        if (level, name) == options::ADDRFORM {
            // There is no other way than to IPv4.
            self.family.store(AF_INET, Ordering::Relaxed);
        }
        Ok(())
    }
    fn take_error(&self) -> Option<Errno> {
        let value = host::socket::option(self.fd(), SOL_SOCKET, so::ERROR, 4).ok()?;
        let raw = int_option(&value).ok()?;
        (raw != 0).then(|| Errno::from_raw(raw))
    }
    fn poll(&self) -> Events {
        let all = PollFlags::IN
            | PollFlags::OUT
            | PollFlags::PRI
            | PollFlags::RDNORM
            | PollFlags::WRNORM
            | PollFlags::RDBAND
            | PollFlags::RDHUP;
        let fd = self.fd();
        let ready = || {
            let mut fds = [PollFd::new(&fd, all)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
                return Events::empty();
            }
            let [ready] = &fds;
            Events::from_bits_truncate(u32::from(ready.revents().bits()))
        };
        let found = ready();
        if found.contains(Events::IN)
            && let Some(program) = self.filter.get()
        {
            let _looking = self.filter.looking.lock();
            let _ = self.look(&program);
            return ready();
        }
        if self.is_behind.load(Ordering::Relaxed) && !self.catch_up() {
            found - Events::WRITABLE
        } else {
            found
        }
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.source.queue().clone()
    }
    fn describe(&self) -> Option<Description> {
        Some(Description::Host(rustix::fs::fstat(self.fd()).ok()?.st_ino))
    }
    fn ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        ioctls::ask(self.fd(), self.room.rights, caller, cmd, arg)
    }
}

#[cfg(test)]
mod tests;
