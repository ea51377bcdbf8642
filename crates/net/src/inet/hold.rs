//! What a sender's end makes wait: bytes that more shall join (`MSG_MORE`, `TCP_CORK`), and how long a reader may
//! take nothing at all (`TCP_USER_TIMEOUT`): tcp(7).

use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer};
use linux_abi::socket::MsgFlags;

use super::connection::Connection;

/// What both ends of a connection over `lo` agree on: half of its packet size.
pub(super) const SEGMENT: usize = 32_741;
/// Bytes are held back for so long at most.
const HELD_NS: u64 = 200_000_000;

/// The sender's side of one direction.
#[derive(Default)]
pub(super) struct Hold {
    /// Bytes at the end of the queue that the reader does not see yet.
    bytes: usize,
    since: u64,
    /// Stays armed when the bytes are let go, so that a sender that corks each answer arms it rarely.
    alarm: Option<Alarm>,
    /// `TCP_CORK`.
    corked: bool,
    /// `TCP_USER_TIMEOUT` in milliseconds, 0 for none.
    user_timeout: u32,
    stalled: Option<Alarm>,
}

impl Hold {
    /// How many bytes are held back.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    /// Whether a send with these flags has anything to do with it.
    pub(super) fn concerns(&self, flags: MsgFlags) -> bool {
        self.corked || self.bytes > 0 || flags.contains(MsgFlags::MORE)
    }
    /// All bytes go; whether there were some.
    pub(super) fn let_go(&mut self) -> bool {
        std::mem::take(&mut self.bytes) > 0
    }
    /// Takes changed options; whether bytes go now.
    pub(super) fn set(&mut self, corked: bool, user_timeout: u32) -> bool {
        self.user_timeout = user_timeout;
        let was = std::mem::replace(&mut self.corked, corked);
        was && !corked && self.let_go()
    }
    /// `n` bytes were sent, all that the program gave if `all`. Returns whether the reader sees something new.
    pub(super) fn sent(
        &mut self,
        n: usize,
        flags: MsgFlags,
        all: bool,
        alarm: impl FnOnce(u64) -> Option<Alarm>,
    ) -> bool {
        let before = self.bytes;
        let waiting = before.saturating_add(n);
        // What fills the buffer goes, and so does what is urgent. Full segments go; behind them only a cork holds.
        self.bytes = if !all || flags.contains(MsgFlags::OOB) {
            0
        } else if self.corked {
            waiting % SEGMENT
        } else if flags.contains(MsgFlags::MORE) && waiting < SEGMENT {
            waiting
        } else {
            0
        };
        if self.bytes > 0 && (before == 0 || self.bytes != waiting) {
            self.since = executor::monotonic_ns();
            if self.alarm.is_none() {
                self.alarm = alarm(self.since.saturating_add(HELD_NS));
            }
        }
        self.bytes < waiting
    }
    /// The reader's buffer is full: from now on its patience counts.
    pub(super) fn full(&mut self, alarm: impl FnOnce(u64) -> Option<Alarm>) {
        if self.user_timeout > 0 && self.stalled.is_none() {
            let time = u64::from(self.user_timeout).saturating_mul(1_000_000);
            self.stalled = alarm(executor::monotonic_ns().saturating_add(time));
        }
    }
    /// The alarm for held bytes rang: whether they go now.
    fn rang(&mut self, again: impl FnOnce(u64) -> Option<Alarm>) -> bool {
        self.alarm = None;
        if self.bytes == 0 {
            return false;
        }
        let until = self.since.saturating_add(HELD_NS);
        if executor::monotonic_ns() >= until {
            return self.let_go();
        }
        self.alarm = again(until);
        false
    }
    /// The alarm for a reader that takes nothing rang.
    fn stall_ended(&mut self) {
        self.stalled = None;
    }
}

/// Rings when bytes of `side` were held back for long enough.
pub(super) struct Late {
    pub(super) connection: Weak<Connection>,
    pub(super) side: usize,
}

impl Late {
    pub(super) fn at(connection: &Arc<Connection>, side: usize, time: u64) -> Alarm {
        Alarm::at(time, Arc::new(Late { connection: Arc::downgrade(connection), side }))
    }
}

impl Observer for Late {
    fn notify(&self, _events: Events) -> bool {
        let Some(connection) = self.connection.upgrade() else { return false };
        let go = {
            let mut flow = connection.flow(1 - self.side).lock();
            flow.hold.rang(|time| Some(Late::at(&connection, self.side, time)))
        };
        if go {
            connection.shown(self.side);
        }
        true
    }
}

/// Rings when the reader of what `side` sends has taken nothing since byte `position` for too long.
pub(super) struct Stalled {
    connection: Weak<Connection>,
    side: usize,
    position: u64,
}

impl Stalled {
    pub(super) fn at(connection: &Arc<Connection>, side: usize, position: u64, time: u64) -> Alarm {
        Alarm::at(time, Arc::new(Stalled { connection: Arc::downgrade(connection), side, position }))
    }
}

impl Observer for Stalled {
    fn notify(&self, _events: Events) -> bool {
        let Some(connection) = self.connection.upgrade() else { return false };
        let dead = {
            let mut flow = connection.flow(1 - self.side).lock();
            flow.hold.stall_ended();
            let position = flow.position();
            let full = flow.room() == 0;
            if full && position != self.position {
                let again = |time| Some(Stalled::at(&connection, self.side, position, time));
                flow.hold.full(again);
            }
            full && position == self.position
        };
        if dead {
            connection.time_out(self.side);
        }
        true
    }
}
