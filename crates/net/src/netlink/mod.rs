//! netlink(7) sockets whose other end is this kernel, not the host's: sock_diag(7), and uevents, of which there are none.

mod diag;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{AF_NETLINK, AF_UNSPEC, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET, so};
use parking_lot::Mutex;
use vfs::Caller;

use crate::filter::{Bare, Filter};
use crate::provider::Provider;
use crate::socket::{Control, Halves, Received, Socket, SocketCaller, int_option};
use crate::{Address, Result};

const NETLINK_SOCK_DIAG: i32 = 4;
const NETLINK_KOBJECT_UEVENT: i32 = 15;
const SOL_NETLINK: i32 = 270;

/// Bytes of answers that wait at most, unless SO_RCVBUF says otherwise.
const DEFAULT_BUFFER: usize = 212_992;
/// An answer to one question may be longer than that: all sockets there are.
const MAX_BUFFER: usize = 32 << 20;
/// Bytes of one datagram of an answer.
const DATAGRAM: usize = 16 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// Ports of sockets whose process has one already.
static NEXT_PORT: AtomicU32 = AtomicU32::new(0xffff_f000);

/// Makes these sockets.
#[derive(Default)]
pub struct NetlinkProvider;

#[derive(Default)]
struct State {
    port: u32,
    groups: u32,
    inbox: VecDeque<Vec<u8>>,
    bytes: usize,
    buffer: Option<usize>,
    /// Answers were lost.
    overrun: bool,
}

struct NetlinkSocket {
    kind: u32,
    protocol: i32,
    queue: Arc<WaitQueue>,
    filter: Filter,
    state: Mutex<State>,
}

/// A request, its header taken apart.
struct Request<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// Messages on their way, put together into datagrams.
struct Answer {
    port: u32,
    sequence: u32,
    datagrams: Vec<Vec<u8>>,
}

impl Answer {
    fn push(&mut self, kind: u16, flags: u16, body: &[u8]) {
        let length = 16 + body.len();
        if self.datagrams.last().is_none_or(|d| d.len() + length > DATAGRAM) {
            self.datagrams.push(Vec::new());
        }
        let Some(out) = self.datagrams.last_mut() else { return };
        out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&self.sequence.to_ne_bytes());
        out.extend_from_slice(&self.port.to_ne_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    /// `struct nlmsgerr`: an error number or 0, and the request's header.
    fn error(&mut self, errno: Option<Errno>, header: &[u8]) {
        let mut body = errno.map_or(0, |e| -e.raw()).to_ne_bytes().to_vec();
        body.extend_from_slice(header);
        body.resize(20, 0);
        self.push(NLMSG_ERROR, 0, &body);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))
}

/// `struct sockaddr_nl`.
fn address(port: u32, groups: u32) -> Vec<u8> {
    let mut out = AF_NETLINK.to_ne_bytes().to_vec();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&port.to_ne_bytes());
    out.extend_from_slice(&groups.to_ne_bytes());
    out
}

impl Provider for NetlinkProvider {
    fn socket(
        &self,
        _caller: &SocketCaller<'_>,
        family: u16,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<dyn Socket>> {
        match (family, kind, protocol) {
            (AF_NETLINK, SOCK_DGRAM | SOCK_RAW, NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT) => {
                let queue = Arc::new(WaitQueue::new());
                Ok(Arc::new(NetlinkSocket {
                    kind,
                    protocol,
                    queue,
                    filter: Filter::default(),
                    state: Mutex::default(),
                }))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
    fn interface_ioctl(&self, _caller: &mut dyn Caller, _cmd: u32, _arg: u64) -> Result<i64> {
        Err(Errno::ENOTTY)
    }
}

impl NetlinkSocket {
    /// The port, given by the kernel if bind(2) did not.
    fn port(&self, caller: &SocketCaller<'_>) -> u32 {
        let mut state = self.state.lock();
        if state.port == 0 {
            state.port = match u32::try_from(caller.pid) {
                Ok(pid) if pid != 0 && pid < 0x7fff_ffff => pid,
                _ => NEXT_PORT.fetch_add(1, Ordering::Relaxed),
            };
        }
        state.port
    }

    /// Answers the messages of one datagram; a malformed one ends it.
    fn answer(&self, mut data: &[u8], port: u32) {
        while let (Some(length), Some(kind), Some(flags), Some(sequence)) =
            (u32_at(data, 0), u16_at(data, 4), u16_at(data, 6), u32_at(data, 8))
        {
            let length = length as usize;
            let (Some(body), Some(header)) = (data.get(16..length), data.get(..16)) else { return };
            let request = Request { kind, flags, body };
            let mut answer = Answer { port, sequence, datagrams: Vec::new() };
            if flags & NLM_F_REQUEST != 0 && kind >= 16 {
                match diag::answer(&request, &mut answer) {
                    Err(errno) => answer.error(Some(errno), header),
                    Ok(()) if flags & NLM_F_DUMP == NLM_F_DUMP => {
                        answer.push(NLMSG_DONE, NLM_F_MULTI, &0_i32.to_ne_bytes());
                    }
                    Ok(()) if flags & NLM_F_ACK != 0 => answer.error(None, header),
                    Ok(()) => {}
                }
            }
            self.deliver(answer.datagrams);
            data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn deliver(&self, datagrams: Vec<Vec<u8>>) {
        if datagrams.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        let program = self.filter.get();
        for mut datagram in datagrams {
            if let Some(program) = &program {
                match program.run(&Bare(&datagram)) as usize {
                    0 => continue,
                    keep => datagram.truncate(keep),
                }
            }
            if state.bytes + datagram.len() > MAX_BUFFER {
                state.overrun = true;
                break;
            }
            state.bytes += datagram.len();
            state.inbox.push_back(datagram);
        }
        drop(state);
        self.queue.wake(Events::READABLE);
    }
}

impl Socket for NetlinkSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn filter(&self) -> Option<&Filter> {
        Some(&self.filter)
    }
    fn kind(&self) -> (u16, u32, i32) {
        (AF_NETLINK, self.kind, self.protocol)
    }
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        let (Some(port), Some(groups)) = (u32_at(&address.bytes, 4), u32_at(&address.bytes, 8)) else {
            return Err(Errno::EINVAL);
        };
        if address.family()? != AF_NETLINK {
            return Err(Errno::EINVAL);
        }
        let own = self.state.lock().port;
        match (own, port) {
            (0, 0) => {
                self.port(caller);
            }
            (0, port) => self.state.lock().port = port,
            (_, 0) => {}
            (own, port) if own == port => {}
            _ => return Err(Errno::EINVAL),
        }
        self.state.lock().groups = groups;
        Ok(())
    }
    fn connect(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        match address.family()? {
            AF_UNSPEC => Ok(()),
            // Only the kernel is at the other end.
            AF_NETLINK if u32_at(&address.bytes, 4) == Some(0) => {
                self.port(caller);
                Ok(())
            }
            AF_NETLINK => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(to) = to {
            if to.family()? != AF_NETLINK {
                return Err(Errno::EINVAL);
            }
            match u32_at(&to.bytes, 4) {
                Some(0) => {}
                Some(_) => return Err(Errno::ECONNREFUSED),
                None => return Err(Errno::EINVAL),
            }
        }
        control.clear();
        let port = self.port(caller);
        // Nobody asks of uevents; what is sent there is lost.
        if self.protocol == NETLINK_SOCK_DIAG {
            let waiting = self.state.lock().bytes;
            if waiting > MAX_BUFFER / 2 {
                return Err(Errno::EAGAIN);
            }
            self.answer(data, port);
        }
        Ok(data.len())
    }
    fn receive(&self, buf: &mut [u8], _control_room: usize, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if std::mem::take(&mut state.overrun) {
            return Err(Errno::ENOBUFS);
        }
        let datagram = state.inbox.pop_front().ok_or(Errno::EAGAIN)?;
        let n = datagram.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), datagram.get(..n)) {
            to.copy_from_slice(from);
        }
        let length = datagram.len();
        if flags.contains(MsgFlags::PEEK) {
            state.inbox.push_front(datagram);
        } else {
            state.bytes -= length;
        }
        let mut told = MsgFlags::empty();
        told.set(MsgFlags::TRUNC, n < length);
        Ok(Received { count: n, length, flags: told, from: Some(address(0, 0)), control: Vec::new() })
    }
    fn shutdown(&self, _halves: Halves) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        let state = self.state.lock();
        Ok(address(state.port, state.groups))
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        Ok(address(0, 0))
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        let value = match (level, name) {
            (SOL_SOCKET, so::TYPE) => self.kind.cast_signed(),
            (SOL_SOCKET, so::DOMAIN) => i32::from(AF_NETLINK),
            (SOL_SOCKET, so::PROTOCOL) => self.protocol,
            (SOL_SOCKET, so::ERROR | so::ACCEPTCONN | so::PASSCRED) => 0,
            (SOL_SOCKET, so::RCVBUF | so::SNDBUF) => {
                let size = self.state.lock().buffer.unwrap_or(DEFAULT_BUFFER);
                i32::try_from(size).unwrap_or(i32::MAX)
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().into_iter().take(len).collect())
    }
    fn set_option(&self, _caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_SOCKET, so::RCVBUF | so::SNDBUF | so::RCVBUFFORCE | so::SNDBUFFORCE) => {
                let size = usize::try_from(int_option(value)?).unwrap_or(DEFAULT_BUFFER);
                self.state.lock().buffer = Some(size.min(DEFAULT_BUFFER) * 2);
                Ok(())
            }
            // Nothing here is sent by anybody but the kernel.
            (SOL_SOCKET, so::PASSCRED) => int_option(value).map(|_| ()),
            // They shape events and errors that do not occur here: ADD_MEMBERSHIP, DROP_MEMBERSHIP, NO_ENOBUFS, CAP_ACK, EXT_ACK, GET_STRICT_CHK
            (SOL_NETLINK, 1 | 2 | 5 | 10 | 11 | 12) => int_option(value).map(|_| ()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
    fn poll(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::WRITABLE;
        events.set(Events::READABLE, !state.inbox.is_empty());
        events.set(Events::ERR, state.overrun);
        events
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.queue.clone()
    }
}

#[cfg(test)]
mod tests;
