//! Stream sockets whose sends may be done a little later than the program was told, and whose bytes it may find
//! without asking: what `kernel::posting` needs of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::socket::SocketCaller;

static ENDED: AtomicU64 = AtomicU64::new(0);

/// A connection inside the sandbox has lost an end or a direction: sends that were sure to be taken may not be.
pub(crate) fn note_end() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Changes with each connection that ends inside the sandbox.
pub fn ends() -> u64 {
    ENDED.load(Ordering::SeqCst)
}

/// Numbers for ends of connections inside the sandbox, see [`Posts::numbers`]; so many.
pub(crate) fn numbers(count: u32) -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(count, Ordering::Relaxed)
}

/// The most bytes that are promised to be taken.
pub(crate) const MOST: usize = 12 << 10;

/// A connected stream that takes part. What goes wrong later the next call tells, as where the other end ends the
/// connection behind the caller's back.
pub trait Posts {
    /// How many bytes a send takes for sure, as long as nobody else sends; 0 where the next one should be made by a
    /// real call.
    fn credit(&self) -> usize;
    /// Whether the host carries the connection: then a send that is done later is done by whoever waits for the next
    /// bytes, and the other end answers later.
    fn is_of_host(&self) -> bool {
        false
    }
    /// Whether the connection still takes what it has promised. Makes no host call.
    fn keeps(&self) -> bool;
    /// Copies the bytes that a plain receive would give, without taking them; 0 where it would do anything else.
    fn peek(&self, buf: &mut [u8]) -> usize;
    /// Whether [`Posts::behind`] is ever known.
    fn tells_behind(&self) -> bool {
        false
    }
    /// How many bytes wait behind the `count` that `peek` gave, of `most`, if that is known, and there is no end or error
    /// either; `none_ended`: the connection had not ended when it was found to be ready. Where the other end is the
    /// sandbox's own, too, and may have posted what nobody has looked at yet, [`Posts::numbers`] tell.
    fn behind(&self, count: usize, most: usize, none_ended: bool) -> Option<usize> {
        let _ = (count, most, none_ended);
        None
    }
    /// Of a connection inside the sandbox: a number of the other end, and the own one.
    fn numbers(&self) -> Option<(u32, u32)> {
        None
    }
    /// Takes bytes that `peek` gave.
    fn take_peeked(&self, count: usize);
    /// Sends all of what was promised to be taken.
    fn send_promised(&self, caller: &SocketCaller<'_>, data: &[u8]);
    /// Whether it is TCP, and what else has options that can be set without an answer.
    fn is_tcp(&self) -> bool {
        false
    }
    /// Whether `TCP_CORK` is set.
    fn is_corked(&self) -> bool {
        false
    }
    /// Sets an option of `IPPROTO_TCP`.
    fn set_promised_option(&self, caller: &SocketCaller<'_>, name: i32, value: i32) {
        let _ = (caller, name, value);
    }
    /// Whether nothing of it is left to send. Until then everybody else's sends wait.
    fn catch_up(&self) -> bool {
        true
    }
}
