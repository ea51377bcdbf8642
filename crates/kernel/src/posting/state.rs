//! What one thread is granted, and what becomes of what it makes of that.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use net::SocketCaller;
use platform::{PostArea, What};
use vfs::OpenFile;
use vfs::shown::Appending;

use super::arrival::Arrival;
use super::files::{self, FileTrial};
use super::grants::Grants;
use super::trial::{Busy, Trial};
use super::{PostingTable, posts};
use crate::Thread;
use crate::epoll::{Epoll, Interest};
use crate::mm::FileMapping;

const TCP_CORK: u32 = 3;

#[derive(Default)]
pub(super) struct State {
    pub(super) area: Option<PostArea>,
    /// How far its records were read.
    pub(super) head: u32,
    /// How many prefetched reads were seen.
    pub(super) taken: u32,
    /// How often anything was done.
    pub(super) settled: u32,
    /// What the last tick saw that waits, as `PostArea::marks`, and `settled` then.
    pub(super) seen: Option<((u32, u32), u32)>,
    /// `net::posting::ends` when its connections were looked at last.
    pub(super) ends: u64,
    /// Some grants have ended, and what is on its way may still come.
    pub(super) leaving: bool,
    pub(super) grants: Grants,
    /// The epoll file whose interest in these may be changed.
    pub(super) epoll: Option<HeldEpoll>,
    /// Places of the streams to which something is to be sent, while records are read: in the order of the writes.
    outgoing: Vec<usize>,
    /// The counts of what was read from the records, and is not yet sent.
    counted: Vec<u16>,
    /// When its last call began to look for what was posted, see `Counts::now`.
    pub(super) looked: u64,
    /// Where the next prefetched bytes go.
    pub(super) room_at: usize,
    /// Streams that a wait has found to be read, and for whose bytes there was no room.
    pub(super) later: VecDeque<(i32, Weak<OpenFile>)>,
    pub(super) busy: Busy,
    pub(super) trial: Trial,
    pub(super) files: FileTrial,
    /// Files whose descriptors were closed: what that means is done without the lock (`unlocked`).
    pub(super) closed: Vec<Arc<OpenFile>>,
}

/// What is granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream.
    Stream,
    /// A regular file that is only read. Its credit is 1 until it was closed.
    File,
    /// A regular file whose size is known.
    Sized(u32),
    /// A regular file to whose end bytes are added.
    Log,
    /// A regular file of which nothing is known, see [`Held::reads`].
    Reads,
}

/// A descriptor that is granted.
pub(super) struct Held {
    pub(super) kind: Kind,
    pub(super) fd: i32,
    pub(super) place: usize,
    pub(super) file: Arc<OpenFile>,
    /// Bytes that may still come: for an ended grant those that are perhaps on their way.
    pub(super) credit: u32,
    /// Bytes that a read may have found.
    pub(super) prefetched: u32,
    /// The descriptor, as this epoll file knows it, while its interest may be changed; or may still come.
    pub(super) changes: Option<(i32, Arc<Epoll>)>,
    /// Changes were taken back.
    pub(super) revoked: bool,
    pub(super) ended: bool,
    /// Of a file: its bytes were used; which room they have.
    pub(super) used: bool,
    pub(super) room: usize,
    pub(super) whole: bool,
    /// Of a file: so many mappings may be told, and it stays in the process.
    pub(super) maps: u32,
    pub(super) kept: bool,
    /// Of a file: the number by which the thread reads it, or 0.
    pub(super) reads: u32,
    /// Of a stream: what is to be sent, while records are read.
    pub(super) outbox: Vec<u8>,
    /// Of a stream: which count its writes move on, 0 for none.
    pub(super) count: u16,
    /// Of a stream: `TCP_CORK` was set meanwhile.
    pub(super) corked: bool,
    /// Of a log: keeps what others are told true.
    pub(super) appending: Option<Appending>,
    /// Of a stream: what takes back that nothing waits.
    #[expect(dead_code, reason = "it acts for as long as it lives")]
    pub(super) arrival: Option<Arrival>,
}

pub(super) struct HeldEpoll {
    pub(super) file: Arc<OpenFile>,
    pub(super) epoll: Arc<Epoll>,
    pub(super) fd: i32,
}

impl State {
    /// Sends what was posted, takes what was read.
    pub(super) fn settle(&mut self, thread: &Thread, late: bool) -> u32 {
        let Some(area) = self.area.clone() else { return 0 };
        let (tail, taken) = area.marks();
        let waits = tail != self.head || taken != self.taken;
        let mut idle = false;
        if late {
            let seen = waits.then_some(((tail, taken), self.settled));
            let before = std::mem::replace(&mut self.seen, seen);
            match before {
                // Its thread does something else, or has posted so much meanwhile that others have waited long enough.
                Some((marks, settled)) if waits && settled == self.settled => idle = marks == (tail, taken),
                // Its thread is likely to call soon.
                _ if waits => return 0,
                _ => {}
            }
        }
        if !waits && !self.leaving {
            return 0;
        }
        self.settled = self.settled.wrapping_add(1);
        let mut count = 0;
        // Looked at before the records: a change that is not on its way any more is among them.
        let quiet: Vec<usize> = (self.grants.iter())
            .filter(|held| {
                (held.ended || held.revoked) && held.changes.is_some() && area.is_quiet(held.place)
            })
            .map(|held| held.place)
            .collect();
        if taken != self.taken {
            let pieces = taken.wrapping_sub(self.taken);
            self.taken = taken;
            if self.take(thread, &area) {
                self.trial.pieces = self.trial.pieces.saturating_add(pieces);
            }
        }
        if tail != self.head {
            count = self.act(thread, &area, tail);
            thread.kernel().posting.written.fetch_add(u64::from(count), Ordering::Relaxed);
            self.trial.written = self.trial.written.saturating_add(count);
            if idle && count > 0 {
                self.trial.late = self.trial.late.saturating_add(1);
            }
        }
        for held in self.grants.iter_mut().filter(|held| quiet.contains(&held.place)) {
            (held.changes, held.revoked) = (None, false);
        }
        count
    }

    /// Takes what was read; whether any of it was a stream's.
    fn take(&mut self, thread: &Thread, area: &PostArea) -> bool {
        let mut streams = false;
        for held in self.grants.iter_mut().filter(|held| held.prefetched > 0 || held.kind != Kind::Stream) {
            if held.at_end(area) {
                self.files.sized_used();
                thread.kernel().posting.read.fetch_add(1, Ordering::Relaxed);
            }
            let (left, used) = area.unread(held.place);
            let n = held.prefetched.saturating_sub(left);
            if n > 0 {
                held.prefetched = left;
                held.take(n);
            }
            match held.kind {
                Kind::Stream if n > 0 => {
                    self.trial.read = self.trial.read.saturating_add(1);
                    streams = true;
                }
                Kind::File if used => {
                    if n == 0 {
                        files::was_read(&held.file, 0);
                    }
                    if std::mem::replace(&mut held.used, true) {
                        continue;
                    }
                    self.files.used(held.whole);
                }
                _ => continue,
            }
            thread.kernel().posting.read.fetch_add(1, Ordering::Relaxed);
        }
        streams
    }

    /// Does what was posted up to `tail`; how much that was.
    fn act(&mut self, thread: &Thread, area: &PostArea, tail: u32) -> u32 {
        let credentials = thread.credentials();
        let caller = SocketCaller { pid: thread.process().pid(), credentials: &credentials };
        let mut count = 0;
        while self.head < tail {
            let Some(posted) = area.next(&mut self.head, tail) else {
                self.head = tail;
                break;
            };
            // What was not granted is the guest's own invention.
            let Some(held) = self.grants.of(posted.place) else { continue };
            match (posted.what, held.kind) {
                (What::Write(data), Kind::Stream | Kind::Log)
                    if !data.is_empty() && data.len() as u64 <= u64::from(held.credit) =>
                {
                    held.credit -= data.len() as u32;
                    if held.count != 0 {
                        self.counted.push(held.count);
                    }
                    if held.kind == Kind::Log {
                        files::append(thread, &held.file, &data);
                    } else if held.outbox.is_empty() {
                        held.outbox = data;
                        if !held.corked {
                            self.outgoing.push(posted.place);
                        }
                    } else {
                        held.outbox.extend_from_slice(&data);
                    }
                    count += 1;
                }
                (What::Option { name, value }, Kind::Stream) if held.credit > 0 => {
                    held.credit -= 1;
                    self.set_option(&caller, posted.place, name, value);
                    count += 1;
                }
                (What::Interest { op, events, data }, Kind::Stream) => {
                    if let Some((fd, epoll)) = &held.changes {
                        change(epoll, op, *fd, &held.file, Interest { events, data });
                        count += 1;
                    }
                }
                (What::Map { addr, len, offset }, Kind::File) if held.maps > 0 => {
                    held.maps -= 1;
                    // What it was told to map before comes first.
                    thread.mm().settle_of(thread.tid());
                    let end = len.checked_next_multiple_of(4096).and_then(|len| addr.checked_add(len));
                    let fits = |end: &u64| {
                        let whole = addr.is_multiple_of(4096) && offset.is_multiple_of(4096);
                        whole && addr < *end && offset.checked_add(*end - addr).is_some()
                    };
                    if let Some(end) = end.filter(fits) {
                        thread.mm().note_file(FileMapping::new(addr, end, offset, &held.file));
                    }
                    count += 1;
                }
                (What::Close, Kind::File) if held.credit > 0 => {
                    held.credit = 0;
                    if held.kept {
                        area.closed_kept(held.file.id());
                    }
                    area.forget(held.place);
                    let files = thread.files();
                    // A thread that forges may have closed it before.
                    if files.get(held.fd).is_ok_and(|now| Arc::ptr_eq(&now, &held.file)) {
                        self.closed.extend(files.remove(held.fd).ok());
                    }
                    if !held.ended {
                        held.ended = true;
                        thread.kernel().posting.let_go(&held.file);
                    }
                    self.leaving = true;
                    self.files.closed();
                    count += 1;
                }
                _ => {}
            }
        }
        self.send_outgoing(&caller);
        for held in self.grants.iter_mut().filter(|held| held.corked) {
            held.send(&caller);
        }
        // Not before it is there: who reads is told that nothing is on its way.
        for index in self.counted.drain(..) {
            thread.kernel().posting.counts.done(index);
        }
        count
    }

    /// Sends what was written, stream by stream: whoever waits for several is to find them in the order of the writes.
    /// What is written between `TCP_CORK` on and off is left.
    fn send_outgoing(&mut self, caller: &SocketCaller<'_>) {
        for place in self.outgoing.drain(..) {
            if let Some(held) = self.grants.of(place) {
                held.send(caller);
            }
        }
    }

    /// Writes between `TCP_CORK` on and off are sent in one piece, and so need neither.
    fn set_option(&mut self, caller: &SocketCaller<'_>, place: usize, name: u32, value: u32) {
        let Some(held) = self.grants.of(place) else { return };
        if name == TCP_CORK && value == 0 && std::mem::take(&mut held.corked) {
            if !held.outbox.is_empty() {
                self.outgoing.push(place);
            }
            return;
        }
        // Before anything else that was written, so that nothing is sent out of turn.
        self.send_outgoing(caller);
        let Some(held) = self.grants.of(place) else { return };
        let is_corked = posts(&held.file).is_some_and(|posts| posts.is_corked());
        if name == TCP_CORK && value != 0 && !is_corked {
            held.corked = true;
            return;
        }
        held.send(caller);
        if let Some(posts) = posts(&held.file) {
            posts.set_promised_option(caller, name.cast_signed(), value.cast_signed());
        }
    }

    /// Its thread waits for an answer, and is to be granted something.
    pub(super) fn begin(&mut self, area: &PostArea) -> Vec<Held> {
        let dropped = self.rewind();
        if !self.area.as_ref().is_some_and(|old| old.is(area)) {
            self.head = 0;
            self.taken = area.marks().1;
            self.area = Some(area.clone());
        }
        dropped
    }

    /// A new grant takes the place of an old one, also of the same file by another descriptor.
    pub(super) fn make_room(
        &mut self,
        thread: &Thread,
        fd: i32,
        file: &Arc<OpenFile>,
        table: &PostingTable,
        dropped: &mut Vec<Held>,
    ) {
        if let Some(index) = self.grants.at(PostArea::place(fd)) {
            dropped.extend(self.end(thread, index, true, table));
        }
        if file.is_held() || file.is_posted_to() {
            let index = self.grants.iter().position(|held| Arc::ptr_eq(&held.file, file));
            dropped.extend(index.and_then(|index| self.end(thread, index, true, table)));
        }
    }

    /// Its thread waits for an answer: nothing is on its way, and the records begin anew.
    pub(super) fn rewind(&mut self) -> Vec<Held> {
        if self.head > 0
            && let Some(area) = &self.area
        {
            area.rewind();
            self.head = 0;
        }
        if !std::mem::take(&mut self.leaving) {
            return Vec::new();
        }
        for held in self.grants.iter_mut().filter(|held| held.revoked) {
            (held.changes, held.revoked) = (None, false);
        }
        self.grants.take(|held| held.ended)
    }

    /// Ended grants of which nothing can come any more.
    pub(super) fn gone(&mut self) -> Vec<Held> {
        if !self.leaving {
            return Vec::new();
        }
        let gone = self.grants.take(Held::is_done);
        self.leaving = self.grants.iter().any(|held| held.ended || held.revoked);
        gone
    }

    /// Ends the grants of connections that do not keep what they have promised.
    pub(super) fn end_lost(
        &mut self,
        thread: &Thread,
        waits: bool,
        table: &PostingTable,
        dropped: &mut Vec<Held>,
    ) {
        let ends = net::posting::ends();
        if std::mem::replace(&mut self.ends, ends) == ends {
            return;
        }
        let mut index = 0;
        while let Some(held) = self.grants.get(index) {
            let lost = !held.ended
                && held.kind == Kind::Stream
                && posts(&held.file).is_none_or(|posts| !posts.keeps());
            match lost.then(|| self.end(thread, index, waits, table)).flatten() {
                Some(held) => dropped.push(held),
                None => index += 1,
            }
        }
    }

    /// No more may be read without an answer.
    pub(super) fn end_reading(&mut self, index: usize) {
        let (Some(area), Some(held)) = (&self.area, self.grants.get_mut(index)) else { return };
        if held.prefetched == 0 && held.kind == Kind::Stream {
            return;
        }
        if held.at_end(area) {
            self.files.sized_used();
        }
        let n = std::mem::take(&mut held.prefetched).saturating_sub(area.stop_reading(held.place));
        if n > 0 {
            held.take(n);
            if held.kind == Kind::Stream {
                self.trial.read = self.trial.read.saturating_add(1);
            }
        }
    }

    /// Ends a grant. What comes of it is dropped without the lock held.
    #[must_use = "files are closed outside of locks"]
    pub(super) fn end(
        &mut self,
        thread: &Thread,
        index: usize,
        waits: bool,
        table: &PostingTable,
    ) -> Option<Held> {
        let area = self.area.clone()?;
        let place = self.grants.get(index)?.place;
        let left = area.stop_posting(place);
        let changes = area.stop_changes(place);
        self.settle(thread, false);
        self.end_reading(index);
        area.forget(place);
        let held = self.grants.get_mut(index)?;
        if !held.ended {
            held.ended = true;
            if !matches!(held.kind, Kind::Log | Kind::Reads) {
                table.let_go(&held.file);
            }
            held.credit = held.credit.saturating_sub(left);
        }
        if !changes {
            held.changes = None;
        }
        // The rest of its credit is a write that is being posted, or was when its thread met a bad address.
        let done = waits || held.is_done();
        self.leaving |= !done;
        done.then(|| self.grants.remove(index)).flatten()
    }

    /// No more changes of interest are taken for any descriptor.
    pub(super) fn end_changes(&mut self, thread: &Thread, table: &PostingTable) -> Option<HeldEpoll> {
        let area = self.area.clone()?;
        for held in self.grants.iter_mut() {
            // One that is on its way still counts.
            held.revoked = held.changes.is_some() && area.stop_changes(held.place);
            self.leaving |= held.revoked;
        }
        self.settle(thread, false);
        for held in self.grants.iter_mut().filter(|held| !held.revoked) {
            held.changes = None;
        }
        let held = self.epoll.take()?;
        table.let_go(&held.file);
        Some(held)
    }
}

impl Held {
    /// Nothing of a descriptor yet.
    pub(super) fn new(kind: Kind, fd: i32, file: &Arc<OpenFile>) -> Held {
        Held {
            kind,
            fd,
            place: PostArea::place(fd),
            file: file.clone(),
            credit: 0,
            prefetched: 0,
            changes: None,
            revoked: false,
            ended: false,
            used: false,
            room: 0,
            whole: false,
            maps: 0,
            kept: false,
            reads: 0,
            outbox: Vec::new(),
            count: 0,
            corked: false,
            appending: None,
            arrival: None,
        }
    }

    /// So many of the bytes that were there have been read.
    fn take(&self, count: u32) {
        match self.kind {
            Kind::Stream => {
                if let Some(posts) = posts(&self.file) {
                    posts.take_peeked(count as usize);
                }
            }
            Kind::File => files::was_read(&self.file, count),
            Kind::Sized(_) | Kind::Log | Kind::Reads => {}
        }
    }

    /// Whether the position went to the end of a file, where it is then.
    fn at_end(&self, area: &PostArea) -> bool {
        let Kind::Sized(size) = self.kind else { return false };
        let went = area.went_to_end(self.place);
        if went {
            *self.file.pos().lock() = u64::from(size);
        }
        went
    }

    /// Sends what was written.
    fn send(&mut self, caller: &SocketCaller<'_>) {
        if self.outbox.is_empty() && !self.corked {
            return;
        }
        let data = std::mem::take(&mut self.outbox);
        let Some(posts) = posts(&self.file) else { return };
        if std::mem::take(&mut self.corked) {
            posts.set_promised_option(caller, TCP_CORK.cast_signed(), 1);
        }
        if !data.is_empty() {
            posts.send_promised(caller, &data);
            if !posts.catch_up() {
                executor::spawn(send_rest(self.file.clone()));
            }
        }
    }

    /// Whether nothing can come of it any more.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.credit == 0 && self.changes.is_none()
    }
}

/// epoll_ctl(2) that was posted. That it can be done was known, but the guest may say what it likes.
fn change(epoll: &Arc<Epoll>, op: u32, fd: i32, file: &Arc<OpenFile>, interest: Interest) {
    let done = match op {
        1 => epoll.add(fd, file, interest),
        2 => epoll.delete(fd, file),
        3 => epoll.modify(fd, file, interest),
        _ => Ok(()),
    };
    if let Err(errno) = done {
        tracing::debug!(fd, op, "a posted change of interest: {errno}");
    }
}

/// Keeps a file until the host has taken all: another thread has filled its buffer just before the grant.
async fn send_rest(file: Arc<OpenFile>) {
    while posts(&file).is_some_and(|posts| !posts.catch_up()) {
        executor::sleep(Duration::from_millis(2)).await;
    }
}
