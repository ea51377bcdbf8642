//! Calls that a thread does without an answer (see `slot::Grant`): on connected streams, and on files (`files`).
//!
//! After a wait or a receive that is followed by many of its kind, a thread is granted to write so many bytes to the
//! connection, and given the bytes that wait in it. What it writes (a posted write) is sent
//! - before any system call of any thread is handled, so that no guest can tell the difference;
//! - within two [`TICK`]s if none comes.
//!
//! A grant ends when anybody else touches the open file, a descriptor of it is closed, or the connection ends inside
//! the sandbox. What the host ends meanwhile the next call tells, as for bytes that are under way.
//!
//! The thread may forge all that it says here. What it was granted is counted on this side.

mod arrival;
mod counts;
mod files;
mod grants;
mod reads;
mod ready;
mod state;
mod trial;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use linux_abi::fs::OpenFlags;
use net::posting::Posts;
use parking_lot::{Mutex, MutexGuard};
use platform::{Granted, MAX_PREFETCHED, PostArea};
use smallvec::SmallVec;
use vfs::{InUse, OpenFile};

use crate::epoll::Epoll;
use crate::{Kernel, Thread};
use arrival::Arrival;
use counts::Counts;
use state::{Held, HeldEpoll, Kind, State};

pub use files::{Render, at_end, mapped, opened, sent, wrote};
pub use reads::{reads_by, reads_often};
pub use ready::{Ready, asked, was_dry, wrote_stream};

/// Posted writes wait for a system call until one that was there at the last tick is there at the next, too.
const TICK: Duration = Duration::from_micros(300);
/// After so many ticks without anything granted or posted nobody looks any more.
const QUIET_TICKS: u32 = 24;
/// The most bytes that one read finds; where more wait, a call takes them all.
const PIECE: usize = 4096;
thread_local! {
    /// What is being prefetched, on its way into a slot.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The most bytes that small reads find, one after the other.
const PIECES: usize = 48 << 10;
/// From so many descriptors of the host on that are ready at a time, sending together pays.
const MANY: usize = 3;

/// Calls that a thread may do without an answer: read, write, close, fstat, lseek, ioctl, pread64, writev, sendfile,
/// sendto, recvfrom, setsockopt, fadvise64, epoll_ctl, newfstatat, statx.
const CALLS: [u32; 16] = [0, 1, 3, 5, 8, 16, 17, 20, 40, 44, 45, 54, 221, 233, 262, 332];

/// What the threads of a sandbox are granted.
#[derive(Default)]
pub struct PostingTable {
    threads: Mutex<Vec<Weak<Thread>>>,
    /// How many are in the list.
    count: AtomicUsize,
    /// Who may write to an open file, by the file's id.
    holders: Mutex<HashMap<u64, Weak<Thread>>>,
    /// Whether somebody looks after each tick.
    watched: Mutex<bool>,
    /// Grants and posted writes so far.
    activity: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
    /// `net::posting::ends` when it was looked at last.
    ends: AtomicU64,
    counts: Counts,
    /// What was posted to the end of a file has taken long.
    slow_logs: AtomicBool,
}

/// What one thread is granted.
#[derive(Default)]
pub struct Posting {
    state: Mutex<State>,
    /// It may post: it was granted something, and does not sleep.
    listed: AtomicBool,
    /// It was granted something.
    granted: AtomicBool,
}

/// As many descriptors can be granted at once.
pub const MOST: usize = platform::MAX_GRANTS;

/// Whether a file is a stream that can be granted.
pub fn is_stream(file: &OpenFile) -> bool {
    posts(file).is_some()
}

fn posts(file: &OpenFile) -> Option<&dyn Posts> {
    net::file::of(file).ok()?.socket().posts()
}

impl PostingTable {
    /// How many calls were done without an answer: writes, and reads.
    pub fn calls(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed))
    }
    /// Whether anything is granted; cheap.
    pub fn is_in_use(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }
    /// Whether a connection has ended inside the sandbox since the last [`PostingTable::settle`].
    pub fn has_ends(&self) -> bool {
        net::posting::ends() != self.ends.load(Ordering::Relaxed)
    }

    /// Sends all that was posted. `current` is a thread that waits for an answer.
    pub fn settle(&self, current: Option<&Arc<Thread>>) {
        self.ends.store(net::posting::ends(), Ordering::Relaxed);
        let mut count = 0;
        let mut dropped = Vec::new();
        if let Some(thread) = current {
            let mut state = thread.posting.state.lock();
            state.looked = self.counts.now();
            count += state.settle(thread, false);
            dropped.extend(state.rewind());
            state.end_lost(thread, true, self, &mut dropped);
            unlocked(thread, state);
        }
        let mut closed = Vec::new();
        // One of them may keep this one waiting, but not those who want the list.
        let threads: SmallVec<[_; 16]> = self.threads.lock().iter().filter_map(Weak::upgrade).collect();
        for thread in threads {
            if current.is_some_and(|current| Arc::ptr_eq(current, &thread)) {
                continue;
            }
            let mut state = thread.posting.state.lock();
            count += state.settle(&thread, current.is_none());
            state.end_lost(&thread, false, self, &mut dropped);
            dropped.extend(state.gone());
            if !state.closed.is_empty() {
                let files = std::mem::take(&mut state.closed);
                drop(state);
                closed.push((thread, files));
            }
        }
        for (thread, files) in closed {
            close(&thread, files);
        }
        if count > 0 {
            self.activity.fetch_add(u64::from(count), Ordering::Relaxed);
        }
        drop(dropped);
        if self.slow_logs.load(Ordering::Relaxed) && self.slow_logs.swap(false, Ordering::Relaxed) {
            self.end_lost_logs();
        }
    }

    /// A thread goes to sleep in a call: it posts nothing until [`PostingTable::wake`]. However many there are, nobody
    /// looks after those.
    pub fn sleep(&self, thread: &Arc<Thread>) {
        self.unlist(thread);
    }

    /// See [`PostingTable::sleep`].
    pub fn wake(&self, thread: &Arc<Thread>) {
        if !thread.posting.granted.load(Ordering::Relaxed) || thread.posting.state.lock().grants.is_empty() {
            return;
        }
        self.list(thread);
        let mut dropped = Vec::new();
        let mut state = thread.posting.state.lock();
        state.end_lost(thread, true, self, &mut dropped);
        state.end_lost_logs(thread, self, &mut dropped);
        unlocked(thread, state);
        drop(dropped);
    }

    /// Somebody uses an open file for which something is granted: that ends.
    pub fn touch(&self, file: &OpenFile, current: &Thread) {
        self.end_for(file, current, false);
    }

    fn end_for(&self, file: &OpenFile, current: &Thread, closes: bool) {
        let Some(thread) = self.holders.lock().get(&file.id()).and_then(Weak::upgrade) else { return };
        let own = std::ptr::eq(current, &raw const *thread);
        let mut state = thread.posting.state.lock();
        if state.epoll.as_ref().is_some_and(|held| held.file.id() == file.id()) {
            let dropped = state.end_changes(&thread, self);
            unlocked(&thread, state);
            drop(dropped);
            return;
        }
        let index = state.grants.iter().position(|held| !held.ended && held.file.id() == file.id());
        let dropped = index.and_then(|index| match state.grants.get(index) {
            // Only the position, and so the bytes from there on, are anybody's.
            Some(held) if matches!(held.kind, Kind::File | Kind::Sized(_)) && !closes => {
                state.settle(&thread, false);
                state.end_reading(index);
                None
            }
            _ => state.end(&thread, index, own, self),
        });
        unlocked(&thread, state);
        drop(dropped);
    }

    /// A descriptor of an open file is being closed for which something is granted.
    pub fn descriptor_closed(&self, file: &OpenFile, current: &Arc<Thread>) {
        if file.is_held() {
            self.end_for(file, current, true);
        }
        if file.is_posted_to() {
            self.end_lost_logs();
        }
    }

    /// A file is being mapped: what is added to it from now on is to be seen there at once.
    pub fn mapping(&self, file: &OpenFile) {
        if vfs::shown::map(file.inode().as_ref()) {
            self.end_lost_logs();
        }
    }

    /// Ends grants of logs that no longer are what they were: descriptors were closed, a limit was set.
    pub fn end_lost_logs(&self) {
        let mut dropped = Vec::new();
        let threads: Vec<_> = self.threads.lock().iter().filter_map(Weak::upgrade).collect();
        for thread in threads {
            let mut state = thread.posting.state.lock();
            state.end_lost_logs(&thread, self, &mut dropped);
            unlocked(&thread, state);
        }
        drop(dropped);
    }

    /// `current` has changed the interest of an epoll file in a file for which something is granted.
    pub fn interest_changed(&self, epoll: &Arc<Epoll>, file: &OpenFile, current: &Thread, listed: bool) {
        let holder = self.holders.lock().get(&file.id()).and_then(Weak::upgrade);
        if !holder.is_some_and(|thread| std::ptr::eq(current, &raw const *thread)) {
            return self.touch(file, current);
        }
        let state = current.posting.state.lock();
        let held = state.grants.iter().find(|held| !held.ended && held.file.id() == file.id());
        if let (Some(held), Some(area), Some(known)) = (held, &state.area, &state.epoll)
            && Arc::ptr_eq(&known.epoll, epoll)
        {
            area.set_listed(held.place, listed);
        }
    }

    /// The thread ends, or runs another program: all that it was granted ends. Before its slot is another's.
    pub fn release(&self, thread: &Arc<Thread>) {
        self.unlist(thread);
        self.withdraw(thread, true);
        thread.posting.granted.store(false, Ordering::SeqCst);
        let old = std::mem::take(&mut *thread.posting.state.lock());
        drop(old);
    }

    /// Somebody wants to see or to refuse its calls: all that it was granted ends. `waits`: it waits for an answer.
    pub fn withdraw(&self, thread: &Thread, waits: bool) {
        if !thread.posting.granted.load(Ordering::SeqCst) {
            return;
        }
        let mut dropped = Vec::new();
        let mut state = thread.posting.state.lock();
        state.settle(thread, false);
        let mut index = 0;
        while index < state.grants.len() {
            match state.end(thread, index, waits, self) {
                Some(held) => dropped.push(held),
                None => index += 1,
            }
        }
        let epoll = state.end_changes(thread, self);
        if let Some(area) = &state.area {
            area.stop();
        }
        unlocked(thread, state);
        drop((dropped, epoll));
    }

    /// From now on everybody else tells us of the file; false if it is another thread's, or the descriptor another file's.
    fn hold(&self, thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>) -> bool {
        if !file.hold() {
            return false;
        }
        self.holders.lock().insert(file.id(), Arc::downgrade(thread));
        // Before the descriptor is another file's, or a call takes what waits, somebody has looked whether it is held.
        let same = thread.files().get(fd).is_ok_and(|now| Arc::ptr_eq(&now, file));
        if !same {
            self.let_go(file);
        }
        same
    }

    /// See [`PostingTable::hold`].
    fn let_go(&self, file: &OpenFile) {
        // First: who holds it next is not to be forgotten.
        self.holders.lock().remove(&file.id());
        file.let_go();
    }

    fn list(&self, thread: &Arc<Thread>) {
        if thread.posting.listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut threads = self.threads.lock();
        threads.push(Arc::downgrade(thread));
        self.count.store(threads.len(), Ordering::SeqCst);
    }

    fn unlist(&self, thread: &Arc<Thread>) {
        if !thread.posting.listed.swap(false, Ordering::SeqCst) {
            return;
        }
        let mut threads = self.threads.lock();
        if let Some(index) =
            threads.iter().position(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(thread)))
        {
            threads.swap_remove(index);
        }
        self.count.store(threads.len(), Ordering::SeqCst);
    }
}

/// Lets go of a thread's state, and closes what it has closed.
fn unlocked(thread: &Thread, mut state: MutexGuard<'_, State>) {
    let closed = std::mem::take(&mut state.closed);
    drop(state);
    close(thread, closed);
}

/// What closing descriptors means beyond dropping them, as in close(2).
fn close(thread: &Thread, files: Vec<Arc<OpenFile>>) {
    for file in files {
        crate::locks::descriptor_closed(thread.process(), &file);
        if file.is_posted_to() {
            thread.kernel().posting.end_lost_logs();
        }
        // It was only read: nothing is left to be written.
        let _ = file.ops().flush(&file);
    }
}

/// For as long as the guard lives the thread takes what waits in a file, and nobody is granted it.
pub fn enter<'a>(file: &'a OpenFile, thread: &Thread) -> InUse<'a> {
    let in_use = file.enter();
    if file.is_held() {
        thread.kernel().posting.touch(file, thread);
    }
    in_use
}

/// Whether a thread may do calls without an answer at all.
fn may(thread: &Thread) -> bool {
    let config = &thread.kernel().config;
    let seen = config.no_posting || CALLS.iter().any(|number| config.sees(*number));
    !(seen || thread.ptrace.is_active() || thread.seccomp.is_active())
}

/// How a thread has come to know that streams are ready.
#[derive(Clone, Copy)]
pub enum Told<'a> {
    /// It has read from one.
    Read,
    /// By poll(2) and its like: it goes by this answer from now on.
    Poll,
    /// By this epoll file, at this descriptor: so it does.
    Epoll(i32, &'a Arc<OpenFile>),
}

/// A thread that waits for an answer gets one about these descriptors, which were found readable or were just read:
/// it is granted to write to them, and given what waits in those that are to be read.
pub fn grant(thread: &Arc<Thread>, ready: &[Ready], told: Told<'_>) {
    let kernel = thread.kernel();
    let now = executor::monotonic_ns();
    let eager = kernel.config.eager_posting;
    {
        let mut state = thread.posting.state.lock();
        if !state.busy.is(now, ready.len()) && !eager {
            return;
        }
        state.trial.judge(now);
        if !state.trial.rest.is_over(now) && !eager {
            return;
        }
    }
    if !may(thread) {
        return;
    }
    let Some(area) = thread.handle().map(|handle| handle.post_area()) else { return };
    let table = &kernel.posting;
    thread.posting.granted.store(true, Ordering::SeqCst);
    table.list(thread);
    let mut dropped = Vec::new();
    let (mut old_epoll, mut offered) = (None, Vec::new());
    let mut granted = 0;
    {
        let mut state = thread.posting.state.lock();
        dropped.extend(state.begin(&area));
        if let Told::Epoll(fd, file) = told {
            let known =
                state.epoll.as_ref().is_some_and(|held| held.fd == fd && Arc::ptr_eq(&held.file, file));
            if !known {
                old_epoll = state.end_changes(thread, table);
                if let Some(epoll) = crate::epoll::of(file).filter(|_| file.hold()) {
                    table.holders.lock().insert(file.id(), Arc::downgrade(thread));
                    state.epoll = Some(HeldEpoll { file: file.clone(), epoll, fd });
                }
            }
        }
        if !matches!(told, Told::Read) {
            // What was offered and not read begins anew.
            for index in 0..state.grants.len() {
                if state.grants.get(index).is_some_and(|held| held.kind == Kind::Stream) {
                    state.end_reading(index);
                }
            }
            state.room_at = 0;
            state.later.clear();
        }
        let reads = state.trial.no_reads.is_over(now) || eager;
        let cheap = kernel.platform.is_spinning();
        let dries = state.trial.dries_until > now || eager;
        for one in ready {
            // While calls cost little, one answer of the host at a time is sent sooner than it could be posted.
            let waits = !matches!(told, Told::Read) || one.file.flags().contains(OpenFlags::NONBLOCK);
            let alone = waits && cheap && ready.len() < MANY && !eager;
            if alone && posts(&one.file).is_some_and(|posts| posts.is_of_host()) {
                continue;
            }
            granted += u64::from(state.grant(thread, &area, one, (reads, dries), &mut dropped));
            if reads && matches!(told, Told::Read) {
                granted += state.offer_later(thread, &area, (one.fd, dries), &mut dropped, &mut offered);
            }
        }
    }
    drop((dropped, offered, old_epoll));
    finish(thread, granted);
}

/// So many were granted: whoever wants to see its calls withdraws them, or is seen here.
fn finish(thread: &Arc<Thread>, granted: u64) {
    // Whoever attaches, or sets a filter for all threads, makes that known before it has the shim forget.
    std::sync::atomic::fence(Ordering::SeqCst);
    let kernel = thread.kernel();
    if !may(thread) {
        kernel.posting.withdraw(thread, true);
    }
    if granted > 0 {
        kernel.posting.activity.fetch_add(granted, Ordering::Relaxed);
        watch(kernel);
    }
}

impl State {
    /// Whether anything was granted.
    fn grant(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        ready: &Ready,
        (reads, dries): (bool, bool),
        dropped: &mut Vec<Held>,
    ) -> bool {
        let (fd, file, read) = (ready.fd, &ready.file, ready.reads && reads);
        let Some(posts) = posts(file) else { return false };
        let table = &thread.kernel().posting;
        self.make_room(thread, fd, file, table, dropped);
        if !table.hold(thread, fd, file) {
            return false;
        }
        if file.is_in_use() {
            table.let_go(file);
            return false;
        }
        let credit = posts.credit();
        let (mut prefetched, mut part) = (0, false);
        // Who has read little of much will read on.
        let small = ready.asked > 0 && ready.asked <= PIECES / 2;
        let most = if small { PIECES } else { PIECE };
        // With what tells how many there are behind them.
        if self.room_at + most + 8 > MAX_PREFETCHED && self.grants.iter().all(|held| held.prefetched == 0) {
            self.room_at = 0;
        }
        let at = self.room_at;
        if read && at + most + 8 <= MAX_PREFETCHED {
            let mut buffer = BUFFER.take();
            buffer.resize(buffer.len().max(most), 0);
            let piece = buffer.get_mut(..most).unwrap_or_default();
            let n = posts.peek(piece);
            part = n == most;
            if (small || !part) && area.prefetch(at, piece.get(..n).unwrap_or_default()).is_ok() {
                prefetched = n;
                self.room_at = (at + n + 8).next_multiple_of(64);
            }
            BUFFER.set(buffer);
        }
        if read && at + most + 8 > MAX_PREFETCHED && ready.asked == 0 {
            self.later.push_back((fd, Arc::downgrade(file)));
        }
        part &= prefetched > 0;
        if credit == 0 && prefetched == 0 {
            table.let_go(file);
            return false;
        }
        // Unless it rests from reading, and would have had just that.
        self.trial.grants = self.trial.grants.saturating_add(u32::from(reads || !ready.reads));
        self.trial.offered = self.trial.offered.saturating_add(u32::from(prefetched > 0));
        let epoll = self.epoll.as_ref().map(|held| (held.fd, held.epoll.lists(fd, file)));
        let epoll = epoll.and_then(|(epoll, listed)| Some((epoll, listed?)));
        let changes = epoll.and(self.epoll.as_ref()).map(|held| (fd, held.epoll.clone()));
        let place = PostArea::place(fd);
        // A thread to which all that waits was not given reads by a call first.
        let tells = (dries || part) && (prefetched > 0 || !ready.reads) && posts.tells_behind();
        let arrival = if tells { Arrival::of(file, &area.clone(), place) } else { None };
        let counts = posts.numbers().map_or((0, 0), |(out, own)| (counts::index(out), counts::index(own)));
        let version = thread.kernel().platform.posted_count(counts.1);
        let settled =
            arrival.is_some() && (counts.1 == 0 || table.counts.is_all(counts.1, version, self.looked));
        let behind = if settled { posts.behind(prefetched, most, ready.open) } else { None };
        let (credit, prefetched) = (credit as u32, prefetched as u32);
        let given = Granted::Stream {
            credit,
            prefetched: (prefetched, at as u32),
            epoll,
            tcp: posts.is_tcp(),
            dry: behind.is_some_and(|more| part || more == 0),
            part: part.then(|| behind.unwrap_or(0) as u32),
            nonblock: file.flags().contains(OpenFlags::NONBLOCK),
            counts,
            version,
        };
        area.grant(fd, &given);
        if arrival.as_ref().is_some_and(Arrival::came) {
            area.not_dry(place);
        }
        let count = counts.0;
        self.grants.push(Held {
            credit,
            prefetched,
            changes,
            arrival,
            count,
            ..Held::new(Kind::Stream, fd, file)
        });
        true
    }
}

/// Looks after each tick, until nothing happens any more.
fn watch(kernel: &Arc<Kernel>) {
    let mut watched = kernel.posting.watched.lock();
    if std::mem::replace(&mut *watched, true) {
        return;
    }
    kernel.platform.look_after_posting(true);
    drop(watched);
    let kernel = kernel.clone();
    executor::spawn(async move {
        let table = &kernel.posting;
        let mut seen = table.activity.load(Ordering::Relaxed);
        let mut quiet = 0;
        while quiet < QUIET_TICKS {
            executor::sleep(TICK).await;
            table.settle(None);
            let now = table.activity.load(Ordering::Relaxed);
            quiet = if now == seen { quiet + 1 } else { 0 };
            seen = now;
        }
        {
            let mut watched = table.watched.lock();
            kernel.platform.look_after_posting(false);
            *watched = false;
        }
        // Posted before its thread could see that.
        table.settle(None);
        table.settle(None);
    });
}
