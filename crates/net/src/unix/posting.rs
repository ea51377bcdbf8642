//! Stream sockets as `crate::posting` needs them.

use linux_abi::socket::MsgFlags;

use super::UnixSocket;
use super::inbox::MAX_MESSAGES;
use crate::posting::{MOST, Posts};
use crate::socket::SocketCaller;

/// Room for messages that is left to sends that were promised to be taken.
const SPARE: usize = 1024;

impl UnixSocket {
    /// What the other end surely takes; none if it takes nothing any more.
    fn room(&self) -> Option<usize> {
        let (peer, sndbuf) = {
            let state = self.0.state.lock();
            let peer = state.peer.clone().filter(|_| state.error.is_none() && !state.write_closed)?;
            (peer, state.options.sndbuf)
        };
        let other = peer.state.lock();
        let open = !other.closed && !other.read_closed && other.inbox.len() + SPARE < MAX_MESSAGES;
        open.then(|| sndbuf.saturating_sub(other.inbox.bytes()))
    }
}

impl Posts for UnixSocket {
    fn credit(&self) -> usize {
        self.room().unwrap_or(0).min(MOST)
    }
    fn keeps(&self) -> bool {
        self.room().is_some()
    }
    fn peek(&self, buf: &mut [u8]) -> usize {
        let mut state = self.0.state.lock();
        let options = &state.options;
        let asks = options.tells_senders() || options.low_water > 1;
        let plain = state.error.is_none() && !asks && state.peek_offset.is_none();
        // Files come with the first byte of theirs.
        if !plain || state.inbox.is_empty() || state.inbox.files().next().is_some() {
            return 0;
        }
        state.inbox.read_stream(buf, true, false, 0).count
    }
    fn tells_behind(&self) -> bool {
        true
    }
    fn behind(&self, count: usize, _most: usize, _none_ended: bool) -> Option<usize> {
        let state = self.0.state.lock();
        let ended = state.read_closed || state.closed || state.peer.is_none();
        let special = state.error.is_some() || state.peek_offset.is_some();
        if ended || special || state.inbox.files().next().is_some() {
            return None;
        }
        state.inbox.bytes().checked_sub(count)
    }
    fn numbers(&self) -> Option<(u32, u32)> {
        let peer = self.0.state.lock().peer.as_ref()?.number;
        Some((peer, self.0.number))
    }
    fn take_peeked(&self, count: usize) {
        // They are there: nobody else has received meanwhile.
        let _ = self.take(&mut vec![0; count], MsgFlags::DONTWAIT);
    }
    fn send_promised(&self, caller: &SocketCaller<'_>, data: &[u8]) {
        // What goes wrong now goes wrong with the next call, too: the other end is gone.
        let _ = self.force(caller, data);
    }
}
