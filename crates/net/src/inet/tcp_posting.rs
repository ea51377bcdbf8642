//! TCP sockets as `crate::posting` needs them.

use linux_abi::Errno;
use linux_abi::socket::MsgFlags;

use super::options::{SOL_TCP, TCP_CORK, TCP_NODELAY};
use super::tcp::{Role, TcpSocket};
use crate::host::HostSocket;
use crate::posting::{MOST, Posts};
use crate::socket::{Socket, SocketCaller};

impl Posts for TcpSocket {
    fn credit(&self) -> usize {
        match &*self.0.role.read() {
            Role::Local { end, .. } => end.credit().min(MOST),
            Role::Host => self.0.made_host().map_or(0, |host| if host.is_drained() { MOST } else { 0 }),
            _ => 0,
        }
    }
    fn is_of_host(&self) -> bool {
        matches!(&*self.0.role.read(), Role::Host)
    }
    fn keeps(&self) -> bool {
        match &*self.0.role.read() {
            Role::Local { end, .. } => end.credit() > 0,
            Role::Host => self.0.made_host().is_some_and(|host| !host.is_shut()),
            _ => false,
        }
    }
    fn peek(&self, buf: &mut [u8]) -> usize {
        let peek = MsgFlags::PEEK | MsgFlags::DONTWAIT;
        match &*self.0.role.read() {
            Role::Local { end, .. } if end.is_plain() => end.receive(buf, peek).map_or(0, |got| got.count),
            Role::Host => match self.0.made_host().map(|host| host.peek(buf)) {
                Some(Ok(n)) => n,
                Some(Err(errno)) if errno != Errno::EAGAIN => {
                    // The next call tells.
                    self.0.set_untold(errno);
                    0
                }
                _ => 0,
            },
            _ => 0,
        }
    }
    fn tells_behind(&self) -> bool {
        match &*self.0.role.read() {
            Role::Local { .. } => true,
            Role::Host => self.0.made_host().is_some_and(|host| !host.is_among_own()),
            _ => false,
        }
    }
    fn behind(&self, count: usize, most: usize, none_ended: bool) -> Option<usize> {
        match &*self.0.role.read() {
            Role::Local { end, .. } => end.behind(count),
            Role::Host => {
                // The host was asked a moment ago; what comes later is told later.
                let answers = count > 0 && count < most && none_ended;
                let host = self.0.made_host().filter(|host| answers && !host.is_among_own());
                host.map(|_| 0)
            }
            _ => None,
        }
    }
    fn numbers(&self) -> Option<(u32, u32)> {
        match &*self.0.role.read() {
            Role::Local { end, .. } => Some(end.numbers()),
            _ => None,
        }
    }
    fn take_peeked(&self, count: usize) {
        // They are there: nobody else has received meanwhile.
        match &*self.0.role.read() {
            Role::Local { end, .. } => end.discard(count),
            Role::Host => {
                if let Some(host) = self.0.made_host() {
                    host.discard(count);
                }
            }
            _ => {}
        }
    }
    fn send_promised(&self, caller: &SocketCaller<'_>, data: &[u8]) {
        let result = match &*self.0.role.read() {
            Role::Local { end, .. } => end.force(data),
            Role::Host => match self.0.made_host() {
                Some(host) => host.send_all(data).map(|()| data.len()),
                None => Ok(0),
            },
            _ => self.send(caller, data, None, &mut Vec::new(), MsgFlags::NOSIGNAL),
        };
        if let Err(errno) = result {
            // Told by the next call: this one seemed to come first.
            self.restore_error(errno);
        }
    }
    fn is_tcp(&self) -> bool {
        true
    }
    fn is_corked(&self) -> bool {
        self.0.options.lock().options.corked()
    }
    fn set_promised_option(&self, caller: &SocketCaller<'_>, name: i32, value: i32) {
        // What a program may not set there the guest has invented.
        if let TCP_NODELAY | TCP_CORK = name {
            // It cannot fail, as there is such a connection; if that has ended, nobody minds.
            let _ = self.set_option(caller, SOL_TCP, name, &value.to_ne_bytes());
        }
    }
    fn catch_up(&self) -> bool {
        self.0.made_host().is_none_or(HostSocket::catch_up)
    }
}
