//! rtnetlink(7): guests ask the host. Requests for changes are answered here, unless the network namespace is the
//! sandbox's own, the guest has `CAP_NET_ADMIN`, and they are on the [list](super::changes).

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use executor::{Events, WaitQueue};
use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_NETLINK, MsgFlags};
use parking_lot::Mutex;
use vfs::Caller;

use super::{HostSocket, changes};
use crate::filter::Filter;
use crate::registry::Description;
use crate::socket::{Control, Halves, Received, Socket, SocketCaller};
use crate::{Address, Result};

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Types of messages that Linux knows are below this.
const RTM_END: u16 = 128;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Size of `struct rtmsg`.
const RTMSG: usize = 12;
/// The attribute that says for whom a route was looked up.
const RTA_UID: u16 = 25;
/// Answers that wait at most; more are `ENOBUFS`, once they are read.
const MAX_ANSWERS: usize = 256;

/// A socket about interfaces, addresses and routes.
pub(super) struct RouteSocket {
    host: HostSocket,
    /// Refusals, and whether some were lost.
    answers: Mutex<(VecDeque<Vec<u8>>, bool)>,
    /// Who asked for a route last, without saying for whom: the host takes the kernel process for it.
    asker: Mutex<Option<u32>>,
}

/// A message of a datagram, and what follows it.
struct Message<'a> {
    kind: u16,
    flags: u16,
    whole: &'a [u8],
    rest: &'a [u8],
}

/// The first message; none if it is malformed: as in Linux, what follows is not looked at.
fn message(data: &[u8]) -> Option<Message<'_>> {
    let half = |at: usize| data.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
    let length = data.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))?;
    let length = usize::try_from(length).ok().filter(|n| *n >= HEADER)?;
    let rest = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(Message { kind: half(4)?, flags: half(6)?, whole: data.get(..length)?, rest })
}

/// Whether a message changes nothing: control messages are below 16, from there on each object has NEW, DEL, GET, SET.
fn asks(kind: u16) -> bool {
    kind < 16 || (kind - 16) % 4 == 2
}

/// Whether all messages of a datagram ask.
fn all_ask(mut data: &[u8]) -> bool {
    while let Some(message) = message(data) {
        if !asks(message.kind) {
            return false;
        }
        data = message.rest;
    }
    true
}

/// `struct nlmsgerr` with the request that is refused.
fn refusal(errno: Errno, request: &[u8], port: u32) -> Vec<u8> {
    let mut out = u32::try_from(HEADER + 4 + request.len()).unwrap_or(0).to_ne_bytes().to_vec();
    out.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
    out.extend_from_slice(&0_u16.to_ne_bytes());
    out.extend_from_slice(request.get(8..12).unwrap_or(&[0; 4]));
    out.extend_from_slice(&port.to_ne_bytes());
    out.extend_from_slice(&(-errno.raw()).to_ne_bytes());
    out.extend_from_slice(request);
    out
}

/// Where a message about a route says for whom it was looked up.
fn route_uid(message: &[u8]) -> Option<Range<usize>> {
    let half = |at: usize| message.get(at..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
    let mut at = HEADER + RTMSG;
    loop {
        let (length, kind) = (usize::from(half(at)?), half(at + 2)?);
        if length < 4 {
            return None;
        }
        if kind == RTA_UID && length == 8 {
            return Some(at + 4..at + 8).filter(|uid| uid.end <= message.len());
        }
        at += length.next_multiple_of(4);
    }
}

/// Tells routes as looked up for this user.
fn set_route_uid(data: &mut [u8], uid: u32) {
    let mut at = 0;
    while let Some(message) = data.get(at..).and_then(message) {
        let length = message.whole.len();
        let place = route_uid(message.whole).filter(|_| message.kind == RTM_NEWROUTE);
        if let Some(bytes) = place.and_then(|uid| data.get_mut(at + uid.start..at + uid.end)) {
            bytes.copy_from_slice(&uid.to_ne_bytes());
        }
        at += length.next_multiple_of(4);
    }
}

/// `struct sockaddr_nl`.
fn name(port: u32) -> Vec<u8> {
    let mut out = AF_NETLINK.to_ne_bytes().to_vec();
    out.resize(4, 0);
    out.extend_from_slice(&port.to_ne_bytes());
    out.resize(12, 0);
    out
}

impl RouteSocket {
    pub(super) fn new(host: HostSocket) -> RouteSocket {
        RouteSocket { host, answers: Mutex::default(), asker: Mutex::default() }
    }

    /// The port; 0 before the first message or bind(2).
    fn port(&self) -> u32 {
        let own = self.host.local_address().unwrap_or_default();
        own.get(4..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
    }

    /// Keeps in mind for whom routes are looked up.
    fn note_asker(&self, caller: &SocketCaller<'_>, message: &Message<'_>) {
        if message.kind == RTM_GETROUTE {
            let said = route_uid(message.whole).is_some();
            *self.asker.lock() = (!said).then_some(caller.credentials.uid);
        }
    }

    fn may_change(&self, caller: &SocketCaller<'_>) -> bool {
        self.host.rights().admin && caller.credentials.capable(Capability::NET_ADMIN)
    }

    fn refuse(&self, caller: &SocketCaller<'_>, message: &Message<'_>) -> Result<()> {
        if message.flags & NLM_F_REQUEST == 0 {
            return Ok(());
        }
        let errno = match message.kind {
            RTM_END.. => Errno::EOPNOTSUPP,
            // Linux would do it; this is not on the list.
            _ if self.may_change(caller) => Errno::EOPNOTSUPP,
            _ => Errno::EPERM,
        };
        if self.port() == 0 {
            self.host.bind(caller, &Address::plain(name(0)))?;
        }
        let answer = refusal(errno, message.whole, self.port());
        let mut answers = self.answers.lock();
        if answers.0.len() < MAX_ANSWERS {
            answers.0.push_back(answer);
        } else {
            answers.1 = true;
        }
        drop(answers);
        self.host.wait_queue().wake(Events::READABLE);
        Ok(())
    }

    fn take(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Option<Received>> {
        let mut answers = self.answers.lock();
        let Some(first) = answers.0.front() else {
            return if std::mem::take(&mut answers.1) { Err(Errno::ENOBUFS) } else { Ok(None) };
        };
        let (length, count) = (first.len(), first.len().min(buf.len()));
        if let (Some(to), Some(from)) = (buf.get_mut(..count), first.get(..count)) {
            to.copy_from_slice(from);
        }
        if !flags.contains(MsgFlags::PEEK) {
            answers.0.pop_front();
        }
        let mut told = MsgFlags::empty();
        told.set(MsgFlags::TRUNC, count < length);
        Ok(Some(Received { count, length, flags: told, from: Some(name(0)), control: Vec::new() }))
    }
}

impl Socket for RouteSocket {
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
        self.host.bind(caller, address)
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
        if all_ask(data) {
            if let Some(message) = message(data) {
                self.note_asker(caller, &message);
            }
            return self.host.send(caller, data, to, control, flags);
        }
        let mut rest = data;
        while let Some(message) = message(rest) {
            let body = message.whole.get(HEADER..).unwrap_or_default();
            if asks(message.kind)
                || (self.may_change(caller) && changes::may_ask(message.kind, message.flags, body))
            {
                self.note_asker(caller, &message);
                self.host.send(caller, message.whole, to, control, flags)?;
            } else {
                self.refuse(caller, &message)?;
            }
            rest = message.rest;
        }
        Ok(data.len())
    }
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received> {
        match self.host.receive(buf, control_room, flags) {
            Err(Errno::EAGAIN) if !flags.contains(MsgFlags::ERRQUEUE) => {
                self.take(buf, flags)?.ok_or(Errno::EAGAIN)
            }
            Ok(got) => {
                let asker = *self.asker.lock();
                if let Some((uid, told)) = asker.zip(buf.get_mut(..got.count.min(buf.len()))) {
                    set_route_uid(told, uid);
                }
                Ok(got)
            }
            failed => failed,
        }
    }
    fn shutdown(&self, halves: Halves) -> Result<()> {
        self.host.shutdown(halves)
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        self.host.local_address()
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        self.host.peer_address()
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        self.host.option(level, name, len)
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.host.set_option(caller, level, name, value)
    }
    fn take_error(&self) -> Option<Errno> {
        self.host.take_error()
    }
    fn poll(&self) -> Events {
        let answers = self.answers.lock();
        let own = if answers.0.is_empty() && !answers.1 { Events::empty() } else { Events::READABLE };
        drop(answers);
        self.host.poll() | own
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
}

#[cfg(test)]
mod tests {
    use super::{Errno, all_ask, refusal, set_route_uid};

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(20, 0);
        bytes
    }

    #[test]
    fn only_questions_pass() {
        // RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE.
        for kind in [18, 22, 26] {
            assert!(all_ask(&message(kind, 20)));
        }
        // RTM_NEWLINK, RTM_DELROUTE, RTM_SETLINK; also behind a question.
        for kind in [16, 25, 19] {
            assert!(!all_ask(&message(kind, 20)));
            assert!(!all_ask(&[message(18, 20), message(kind, 20)].concat()));
        }
        // Linux does not get as far as the second one either.
        assert!(all_ask(&[message(18, 4), message(16, 20)].concat()));
        assert!(all_ask(&message(16, 21)));
    }

    #[test]
    fn routes_are_told_for_the_asker() {
        let route = |kind: u16, attribute: u16| {
            let mut bytes = message(kind, 44);
            bytes.resize(28, 0);
            for word in [8 | 1 << 16, 7, 8 | u32::from(attribute) << 16, 65533] {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            bytes
        };
        let mut data = [route(24, 25), route(24, 24), route(20, 25), route(24, 25)].concat();
        set_route_uid(&mut data, 1234);
        let uids: Vec<_> =
            data.chunks(44).map(|one| u32::from_ne_bytes(one[40..44].try_into().unwrap())).collect();
        assert_eq!(uids, [1234, 65533, 65533, 1234]);
        // Attributes that are cut short, or without an end.
        for length in 0..44 {
            set_route_uid(&mut route(24, 25)[..length], 1);
        }
        let mut endless = route(24, 25);
        endless[28] = 0;
        set_route_uid(&mut endless, 1);
    }

    #[test]
    fn a_refusal_carries_the_request() {
        let request = message(16, 20);
        let answer = refusal(Errno::EPERM, &request, 7);
        assert_eq!(answer.len(), 40);
        assert_eq!((answer[0], answer[4], answer[12], &answer[20..]), (40, 2, 7, &request[..]));
        assert_eq!(answer[16..20], (-1_i32).to_ne_bytes());
    }
}
