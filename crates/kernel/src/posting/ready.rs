//! What a thread was told that can be granted to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::Events;
use platform::PostArea;
use vfs::OpenFile;

use super::state::{Held, Kind, State};
use super::{PIECE, PIECES, Told, grant, is_stream, posts};
use crate::Thread;

const FIONREAD: u32 = 0x541b;

/// A stream that was found ready, or was just read.
pub struct Ready {
    /// By this descriptor.
    pub fd: i32,
    /// The stream.
    pub file: Arc<OpenFile>,
    /// It is to be read.
    pub reads: bool,
    /// It had not ended, or its end will be told for as long as nobody has read it.
    pub open: bool,
    /// Bytes that were just asked for, and came; 0 if nobody has read.
    pub asked: usize,
}

impl Ready {
    /// What a wait has found at a descriptor; none if it is no stream, or one that tells of an end.
    pub fn found(fd: i32, file: &Arc<OpenFile>, events: Events, open: bool) -> Option<Ready> {
        let ends = Events::ERR | Events::HUP | Events::RDHUP;
        let fits = events.intersects(Events::IN | Events::OUT) && !events.intersects(ends) && is_stream(file);
        fits.then(|| Ready { fd, file: file.clone(), reads: events.contains(Events::IN), open, asked: 0 })
    }
}

impl State {
    /// All that was offered after a wait has been read, but for which there was no room then: the next ones are offered,
    /// but for `current`, which has just been read. How many; they are dropped without the lock held.
    pub(super) fn offer_later(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        (current, dries): (i32, bool),
        dropped: &mut Vec<Held>,
        offered: &mut Vec<Ready>,
    ) -> u64 {
        let unread = |held: &Held| held.kind == Kind::Stream && held.prefetched > 0;
        if self.later.is_empty() || self.grants.iter().any(unread) {
            return 0;
        }
        self.room_at = 0;
        let mut granted = 0;
        let mut left = std::mem::take(&mut self.later);
        // What finds no room goes back there.
        while self.later.is_empty()
            && let Some((fd, file)) = left.pop_front()
        {
            if let Some(file) = file.upgrade().filter(|_| fd != current) {
                // It may have ended since.
                let ready = Ready { fd, file, reads: true, open: false, asked: 0 };
                granted += u64::from(self.grant(thread, area, &ready, (true, dries), dropped));
                offered.push(ready);
            }
        }
        self.later.append(&mut left);
        granted
    }
}

/// A read of a stream that does not wait has found nothing: the thread reads until it does.
pub fn was_dry(thread: &Thread) {
    if thread.posting.granted.load(Ordering::Relaxed) {
        thread.posting.state.lock().trial.was_dry(executor::monotonic_ns());
    }
}

/// A thread has done this ioctl(2). If it has asked how many bytes wait in a stream, it will read them, and ask again.
pub fn asked(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, cmd: u32) {
    if cmd != FIONREAD || !thread.posting.granted.load(Ordering::Relaxed) {
        return;
    }
    let Some(posts) = posts(file) else { return };
    thread.posting.state.lock().trial.asked(executor::monotonic_ns());
    let waiting = posts.behind(0, 1, false).unwrap_or(0);
    let asked = waiting.min(PIECES / 2);
    let ready = Ready { fd, file: file.clone(), reads: waiting > 0, open: false, asked };
    grant(thread, &[ready], Told::Read);
}

/// A thread has written more to a stream than could be posted, which has ended what it was granted there: it is
/// granted that anew.
pub fn wrote_stream(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, bytes: u64) {
    let much = bytes > PIECE as u64;
    if much && thread.posting.granted.load(Ordering::Relaxed) && is_stream(file) {
        let wrote = Ready { fd, file: file.clone(), reads: false, open: false, asked: 0 };
        grant(thread, &[wrote], Told::Read);
    }
}
