//! One direction of a TCP connection inside the sandbox.

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use linux_abi::Errno;
use linux_abi::socket::MsgFlags;

use super::bytes::Bytes;
use super::hold::Hold;
use super::listener::Listener;
use crate::Result;
use crate::socket::Received;

/// Bytes in all queues. Above this much, queues are short (compare tcp_mem).
const PRESSURE: usize = 256 << 20;
const ROOM_UNDER_PRESSURE: usize = 32 << 10;

pub(super) static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// One direction: what one end receives, with that end's own state.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) queue: Bytes,
    /// Bytes that ever came.
    pub(super) total: u64,
    /// In so many pieces.
    pub(super) pieces: u64,
    /// How many may wait: what the sender's buffer adds, and the receiver's.
    pub(super) send_room: usize,
    pub(super) receive_room: usize,
    /// The sender found it full.
    pub(super) writer_waits: bool,
    /// The other end sends no more (FIN).
    pub(super) fin: bool,
    /// This end sends no more (FIN).
    pub(super) sent_fin: bool,
    /// This end wants no more (SHUT_RD).
    pub(super) read_shut: bool,
    /// This end's socket is closed.
    pub(super) gone: bool,
    /// The connection was reset for this end.
    pub(super) reset: bool,
    /// This end's pending error (SO_ERROR).
    pub(super) error: Option<Errno>,
    pub(super) low_water: usize,
    pub(super) urgent: Option<Urgent>,
    pub(super) urgent_inline: bool,
    /// What the sender holds back, and how long it waits.
    pub(super) hold: Hold,
    /// Who is told of the first bytes (TCP_DEFER_ACCEPT).
    pub(super) deferred: Option<Weak<Listener>>,
}

/// The last urgent byte (MSG_OOB).
#[derive(Clone, Copy)]
pub(super) struct Urgent {
    /// Its place among all bytes.
    pub(super) at: u64,
    pub(super) byte: u8,
    /// Read by MSG_OOB.
    pub(super) taken: bool,
}

impl Flow {
    /// Place of the next byte to read.
    pub(super) fn position(&self) -> u64 {
        self.total - self.queue.len() as u64
    }
    pub(super) fn room(&self) -> usize {
        let mut most = self.send_room.saturating_add(self.receive_room);
        if QUEUED.load(Ordering::Relaxed) > PRESSURE {
            most = most.min(ROOM_UNDER_PRESSURE);
        }
        most.saturating_sub(self.queue.len())
    }
    /// Whether poll calls it writable: as Linux, when a third is free.
    pub(super) fn roomy(&self) -> bool {
        self.room().saturating_mul(2) >= self.queue.len() && self.room() > 0
    }
    /// How many bytes can be read at once: not beyond the urgent one.
    pub(super) fn readable(&self) -> usize {
        let len = self.queue.len().saturating_sub(self.hold.bytes());
        match self.urgent {
            Some(u) if u.at > self.position() => {
                len.min(usize::try_from(u.at - self.position()).unwrap_or(len))
            }
            Some(u) if u.at == self.position() && !self.urgent_inline => len.saturating_sub(1),
            _ => len,
        }
    }
    /// No more comes.
    pub(super) fn ended(&self) -> bool {
        self.fin || self.read_shut || self.reset
    }
    pub(super) fn skip(&mut self, n: usize) {
        self.queue.skip(n);
        QUEUED.fetch_sub(n, Ordering::Relaxed);
        if self.urgent.is_some_and(|u| u.at < self.position()) {
            self.urgent = None;
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.queue.len(), Ordering::Relaxed);
    }
}

/// MSG_OOB of recv(2).
pub(super) fn urgent(flow: &mut Flow, buf: &mut [u8], peek: bool) -> Result<Received> {
    let Some(urgent) = flow.urgent.as_mut().filter(|u| !u.taken && !flow.urgent_inline) else {
        return Err(Errno::EINVAL);
    };
    urgent.taken |= !peek;
    let mut flags = MsgFlags::OOB;
    let count = match buf.first_mut() {
        Some(first) => {
            *first = urgent.byte;
            1
        }
        None => {
            flags |= MsgFlags::TRUNC;
            0
        }
    };
    Ok(Received { count, length: 1, flags, ..Received::default() })
}
