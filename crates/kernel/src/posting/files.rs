//! Regular files of which a thread is told more than it has asked for, and that it closes without an answer: what was
//! opened is looked at, read and closed mostly. Logs, to whose end it adds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::fs::{OpenFlags, S_IFREG};
use linux_abi::process::RLIM_INFINITY;
use platform::{FILES, Granted, MAX_CONTENTS, PostArea};
use vfs::notify::Happening;
use vfs::shown::{self, Appending};
use vfs::{Metadata, OpenFile, Place};

use super::state::{Held, Kind, State};
use super::trial::Busy;
use super::{PostingTable, finish, may};
use crate::Thread;
use crate::limits::resource;

/// After so many files it is judged what was made of them.
const TRIAL: u32 = 64;
/// How long a thread to which they brought little goes without, in nanoseconds.
const REST_NS: u64 = 1_000_000_000;
/// After so many seconds a file's access time is set anew by the next read (mount(2), `relatime`).
const DAY: i64 = 24 * 60 * 60;
/// So many bytes are told of a file of which not all can be.
const HEAD: usize = 1024;
/// Bytes that may be added to a log before the next real call.
const LOG_CREDIT: u32 = 8 << 10;
/// What has taken so long kept others waiting: its device is slow, and the next writes are calls. In nanoseconds.
const SLOW_NS: u64 = 4_000_000;
/// Only where so many bytes are free on its file system, so that it can hardly fail.
const FREE: u64 = 64 << 20;

/// What telling of files has brought.
#[derive(Default)]
pub(super) struct FileTrial {
    busy: Busy,
    logs: Busy,
    /// Whose turn it is to be known, of [`FILES`].
    turn: usize,
    told: u32,
    closed: u32,
    rest_until: u64,
    no_logs_until: u64,
    /// First bytes, whole contents, sizes.
    heads: Offers,
    wholes: Offers,
    sizes: Offers,
}

/// How often something was told, and used.
#[derive(Default)]
struct Offers {
    made: u32,
    used: u32,
    rest_until: u64,
}

impl Offers {
    /// Whether it pays.
    fn pays(&mut self, now: u64) -> bool {
        if self.made >= TRIAL {
            if self.used < self.made / 2 {
                self.rest_until = now.saturating_add(REST_NS);
            }
            (self.made, self.used) = (0, 0);
        }
        self.rest_until <= now
    }
}

impl FileTrial {
    /// A file was closed without an answer.
    pub(super) fn closed(&mut self) {
        self.closed = self.closed.saturating_add(1);
    }
    /// Bytes of a file were used, all of which were there or only the first.
    pub(super) fn used(&mut self, whole: bool) {
        let offers = if whole { &mut self.wholes } else { &mut self.heads };
        offers.used = offers.used.saturating_add(1);
    }
    /// A size was used.
    pub(super) fn sized_used(&mut self) {
        self.sizes.used = self.sizes.used.saturating_add(1);
    }

    fn judge(&mut self, now: u64) {
        if self.told < TRIAL {
            return;
        }
        if self.closed < self.told / 2 {
            self.rest_until = now.saturating_add(REST_NS);
        }
        (self.told, self.closed) = (0, 0);
    }
}

/// `struct stat` and `struct statx` of a file, as stat(2) gives them.
pub type Render = fn(&Place, &Metadata) -> ([u8; 144], [u8; 256]);

/// A thread that waits for an answer gets a descriptor of a file that it has just opened: it is told what the file is
/// and holds, and may close it.
pub fn opened(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, render: Render) {
    tell(thread, fd, file, render, false);
}

/// As [`opened`], of a file that was just sent from an offset on: it is told only if all of it can be.
pub fn sent(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, render: Render) {
    tell(thread, fd, file, render, true);
}

fn tell(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, render: Render, whole: bool) {
    let kernel = thread.kernel();
    let eager = kernel.config.eager_posting;
    let now = executor::monotonic_ns();
    let tells = {
        let mut state = thread.posting.state.lock();
        let trial = &mut state.files;
        // While calls cost little, it is cheaper to be asked.
        if (!trial.busy.is(now, 1) || kernel.platform.is_spinning()) && !eager {
            return;
        }
        trial.judge(now);
        if trial.rest_until > now && !eager {
            return;
        }
        Tells { head: trial.heads.pays(now) || eager, whole: trial.wholes.pays(now) || eager }
    };
    let flags = file.flags();
    let plain =
        flags.readable() && !flags.writable() && !flags.intersects(OpenFlags::PATH | OpenFlags::DIRECT);
    if !plain || !file.ops().seekable() || !file.inode().kind().is_ok_and(|kind| kind == S_IFREG) {
        return;
    }
    let small = |file: &OpenFile| {
        shown::look(file.inode().as_ref()).is_some_and(|known| known.size <= MAX_CONTENTS as u64)
    };
    if whole && !(tells.whole && small(file)) {
        return;
    }
    let Some(area) = begin(thread) else { return };
    let mut seen = look(thread, file, tells);
    if kernel.platform.files_version() != seen.version {
        // That was its access time, mostly.
        seen = look(thread, file, tells);
    }
    let rendered = seen.known.map(|metadata| render(file.place(), &metadata));
    let attributes = rendered.as_ref().map(|(stat, statx)| (stat.as_slice(), statx.as_slice()));
    let contents = seen.whole.map(|whole| (seen.bytes.as_slice(), whole));
    lend(thread, &area, |state, dropped| {
        if !whole {
            state.files.told = state.files.told.saturating_add(1);
        }
        state.tell(thread, &area, (fd, file), seen.version, (attributes, contents), dropped)
    });
}

/// How often a thread may map a file until it is asked again.
const MAPS: u32 = 8;

/// A thread that waits for an answer maps a file, and gets a descriptor of the host's for that: whether it may map the
/// file by that again without an answer, and close it. Only what it was told of when it was opened.
pub fn mapped(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, number: u32) -> bool {
    file.is_held() && may(thread) && thread.posting.state.lock().lend_map((fd, file), number)
}

/// What a file is and holds.
struct Seen {
    version: u64,
    known: Option<Metadata>,
    bytes: Vec<u8>,
    /// Whether that is all of it; none if nothing was read.
    whole: Option<bool>,
}

/// What bytes of a file are told.
#[derive(Clone, Copy)]
struct Tells {
    /// The first ones of a large file.
    head: bool,
    /// All of a small one.
    whole: bool,
}

fn look(thread: &Thread, file: &OpenFile, tells: Tells) -> Seen {
    // Whatever changes from here on is told.
    let version = thread.kernel().platform.files_version();
    let known = shown::look(file.inode().as_ref());
    let mut seen = Seen { version, known, bytes: Vec::new(), whole: None };
    if let Some(metadata) = &seen.known {
        let whole = metadata.size <= MAX_CONTENTS as u64;
        let wanted = if whole { tells.whole } else { tells.head };
        // The next read may set the access time: that is to be the thread's.
        if !wanted || sets_access_time(metadata) && !file.inode().keeps_access_time() {
            return seen;
        }
        seen.bytes.resize(if whole { metadata.size as usize } else { HEAD }, 0);
        let n = if seen.bytes.is_empty() { Ok(0) } else { file.ops().read(file, &mut seen.bytes, 0) };
        seen.whole = (n == Ok(seen.bytes.len())).then_some(whole);
    }
    seen
}

/// Whether the next read sets the access time.
fn sets_access_time(metadata: &Metadata) -> bool {
    let Metadata { atime, mtime, ctime, .. } = metadata;
    atime <= mtime || atime <= ctime || vfs::time::now().sec.saturating_sub(atime.sec) >= DAY
}

/// A thread that waits for an answer has gone to the end of a file, which may be there still the next time.
pub fn at_end(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>) {
    let kernel = thread.kernel();
    let eager = kernel.config.eager_posting;
    let now = executor::monotonic_ns();
    {
        let mut state = thread.posting.state.lock();
        let trial = &mut state.files;
        // While calls cost little, it is cheaper to be asked.
        if (!trial.busy.is(now, 1) || kernel.platform.is_spinning()) && !eager {
            return;
        }
        if !trial.sizes.pays(now) && !eager {
            return;
        }
    }
    if !file.inode().kind().is_ok_and(|kind| kind == S_IFREG) || file.flags().contains(OpenFlags::PATH) {
        return;
    }
    let Some(area) = begin(thread) else { return };
    let version = kernel.platform.files_version();
    let known = shown::look(file.inode().as_ref());
    let Some(Ok(size)) = known.map(|known| u32::try_from(known.size)) else { return };
    lend(thread, &area, |state, dropped| {
        state.tell_size(thread, &area, (fd, file), (version, size), dropped)
    });
}

/// A thread that waits for an answer has written to a file: if that is a log, it may go on without one.
pub fn wrote(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, count: usize) {
    let flags = file.flags();
    let log = flags.contains(OpenFlags::APPEND) && flags.writable();
    let sync = flags.intersects(OpenFlags::DIRECT | OpenFlags::DSYNC | OpenFlags::SYNC | OpenFlags::PATH);
    if !log || sync || count > LOG_CREDIT as usize / 4 || file.will_be_slow() {
        return;
    }
    let eager = thread.kernel().config.eager_posting;
    let now = executor::monotonic_ns();
    {
        let mut state = thread.posting.state.lock();
        let trial = &mut state.files;
        if (!trial.logs.is(now, 1) || trial.no_logs_until > now) && !eager {
            return;
        }
    }
    if !file.ops().seekable() || !file.inode().kind().is_ok_and(|kind| kind == S_IFREG) {
        return;
    }
    if thread.process().limit(resource::FSIZE) != RLIM_INFINITY {
        return;
    }
    let Some(area) = begin(thread) else { return };
    let free = file.inode().file_system().statfs();
    if !free.is_ok_and(|free| free.blocks_available.saturating_mul(free.block_size) >= FREE) {
        // The host is asked for that.
        thread.posting.state.lock().files.no_logs_until = now.saturating_add(REST_NS);
        return;
    }
    lend(thread, &area, |state, dropped| state.lend_log(thread, &area, (fd, file), dropped));
}

/// Whether the thread may be granted anything, and where.
pub(super) fn begin(thread: &Arc<Thread>) -> Option<PostArea> {
    if !may(thread) {
        return None;
    }
    let area = thread.handle().map(|handle| handle.post_area())?;
    thread.posting.granted.store(true, Ordering::SeqCst);
    thread.kernel().posting.list(thread);
    Some(area)
}

/// Grants something; what ends by that is dropped outside of the lock.
pub(super) fn lend(
    thread: &Arc<Thread>,
    area: &PostArea,
    grant: impl FnOnce(&mut State, &mut Vec<Held>) -> bool,
) {
    let mut dropped = Vec::new();
    let granted = {
        let mut state = thread.posting.state.lock();
        dropped.extend(state.begin(area));
        grant(&mut state, &mut dropped)
    };
    drop(dropped);
    finish(thread, u64::from(granted));
}

/// Adds to a log what was posted.
pub(super) fn append(thread: &Thread, file: &Arc<OpenFile>, mut data: &[u8]) {
    // The limit may have come meanwhile.
    let limit = thread.process().limit(resource::FSIZE);
    let begun = executor::monotonic_ns();
    while !data.is_empty() {
        let full = limit != RLIM_INFINITY && file.inode().metadata().is_ok_and(|now| now.size >= limit);
        let mut pos = file.pos().lock();
        let result = match () {
            () if full => Err(linux_abi::Errno::EFBIG),
            () if file.flags().contains(OpenFlags::APPEND) => file.ops().append(file, data),
            // It has lost the flag meanwhile.
            () => file.ops().write(file, data, *pos).map(|n| (n, pos.saturating_add(n as u64))),
        };
        match result {
            Ok((n, end)) if n > 0 => {
                *pos = end;
                data = data.get(n..).unwrap_or_default();
            }
            Ok(_) => {
                file.set_late_error(linux_abi::Errno::EIO);
                break;
            }
            Err(errno) => {
                tracing::debug!("a posted write to a file: {errno}");
                file.set_late_error(errno);
                break;
            }
        }
    }
    if let Err(errno) = vfs::ops::attributes::written(&thread.credentials(), file.inode().as_ref()) {
        file.set_late_error(errno);
    }
    vfs::notify::used(file, Happening::MODIFY);
    if executor::monotonic_ns().saturating_sub(begun) > SLOW_NS {
        file.set_slow();
        thread.kernel().posting.slow_logs.store(true, Ordering::Relaxed);
    }
}

/// So many bytes of a file were read at its position.
pub(super) fn was_read(file: &OpenFile, count: u32) {
    let mut pos = file.pos().lock();
    *pos = pos.saturating_add(u64::from(count));
    drop(pos);
    vfs::notify::used(file, Happening::ACCESS);
}

type Attributes<'a> = Option<(&'a [u8], &'a [u8])>;
type Contents<'a> = Option<(&'a [u8], bool)>;

impl State {
    /// Tells of a file; whether anything was granted.
    fn tell(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        (fd, file): (i32, &Arc<OpenFile>),
        version: u64,
        (attributes, contents): (Attributes<'_>, Contents<'_>),
        dropped: &mut Vec<Held>,
    ) -> bool {
        let table = &thread.kernel().posting;
        self.make_room(thread, fd, file, table, dropped);
        if !table.hold(thread, fd, file) {
            return false;
        }
        // Another thread that has guessed the number, or knows it, may read.
        if file.is_in_use() || file.is_posted_to() || *file.pos().lock() != 0 {
            table.let_go(file);
            return false;
        }
        // What was known of another file by the same room.
        let index = self.files.turn % FILES;
        self.files.turn = self.files.turn.wrapping_add(1);
        for at in 0..self.grants.len() {
            if self.grants.get(at).is_some_and(|held| held.kind == Kind::File && held.room == index) {
                self.end_reading(at);
                if let Some(held) = self.grants.get(at) {
                    area.stop_knowing(held.place);
                }
            }
        }
        if let Some((_, whole)) = contents {
            let offers = if whole { &mut self.files.wholes } else { &mut self.files.heads };
            offers.made = offers.made.saturating_add(1);
        }
        self.grants.push(Held {
            credit: 1,
            prefetched: contents.map_or(0, |(bytes, _)| bytes.len() as u32),
            room: index,
            whole: contents.is_some_and(|(_, whole)| whole),
            ..Held::new(Kind::File, fd, file)
        });
        area.grant(fd, &Granted::File { index, version, attributes, contents });
        true
    }

    /// Lets the thread map a file that it may close; whether it may.
    fn lend_map(&mut self, (fd, file): (i32, &Arc<OpenFile>), number: u32) -> bool {
        let place = PostArea::place(fd);
        let (Some(held), Some(area)) = (self.grants.of(place), &self.area) else { return false };
        let same = held.fd == fd && Arc::ptr_eq(&held.file, file);
        if !same || held.kind != Kind::File || held.ended || held.credit == 0 {
            return false;
        }
        (held.maps, held.kept) = (MAPS, true);
        area.set_mapped(place, number, MAPS);
        true
    }

    /// Tells how large a file is; whether that was granted.
    fn tell_size(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        (fd, file): (i32, &Arc<OpenFile>),
        (version, size): (u64, u32),
        dropped: &mut Vec<Held>,
    ) -> bool {
        let table = &thread.kernel().posting;
        let number = self.number_of(fd, file);
        self.make_room(thread, fd, file, table, dropped);
        if !table.hold(thread, fd, file) {
            return number != 0 && self.lend_reads(thread, area, (fd, file), number, dropped);
        }
        self.files.sizes.made = self.files.sizes.made.saturating_add(1);
        self.grants.push(Held::new(Kind::Sized(size), fd, file));
        area.grant(fd, &Granted::Sized { version, size });
        if number != 0 {
            self.lend_reads(thread, area, (fd, file), number, dropped);
        }
        true
    }

    /// Lets the thread add to a log; whether it may.
    fn lend_log(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        (fd, file): (i32, &Arc<OpenFile>),
        dropped: &mut Vec<Held>,
    ) -> bool {
        // Before an old grant of the same file ends, or what was told of it would have to be forgotten again.
        let Some(appending) = Appending::begin(file.inode(), thread.tid().cast_unsigned()) else {
            return false;
        };
        self.make_room(thread, fd, file, &thread.kernel().posting, dropped);
        // Whoever closes it, or sets a limit, sees that or was seen here.
        file.set_posted_to();
        let limited = thread.process().limit(resource::FSIZE) != RLIM_INFINITY;
        if limited || !thread.files().get(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
            return false;
        }
        let appending = Some(appending);
        self.grants.push(Held { credit: LOG_CREDIT, appending, ..Held::new(Kind::Log, fd, file) });
        area.grant(fd, &Granted::Log { credit: LOG_CREDIT });
        true
    }

    /// Ends grants of logs whose descriptors are others' by now, or that are in somebody's memory, and such of reads.
    pub(super) fn end_lost_logs(&mut self, thread: &Thread, table: &PostingTable, dropped: &mut Vec<Held>) {
        let limited = thread.process().limit(resource::FSIZE) != RLIM_INFINITY;
        let mut index = 0;
        while let Some(held) = self.grants.get(index) {
            let reads_no_more = !held.ended && held.reads_no_more(thread);
            let is_lost = held.kind == Kind::Log
                && !held.ended
                && (limited
                    || held.file.will_be_slow()
                    || held.appending.as_ref().is_none_or(Appending::is_mapped)
                    || !thread.files().get(held.fd).is_ok_and(|now| Arc::ptr_eq(&now, &held.file)));
            match (is_lost || reads_no_more).then(|| self.end(thread, index, false, table)).flatten() {
                Some(held) => dropped.push(held),
                None => index += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FileTrial, Offers, REST_NS, TRIAL};

    #[test]
    fn who_keeps_files_open_rests() {
        let rests = |closed| {
            let mut trial = FileTrial { told: TRIAL, closed, ..FileTrial::default() };
            trial.judge(1);
            trial.rest_until == 1 + REST_NS
        };
        assert!(!rests(TRIAL) && rests(0));
        let mut early = FileTrial { told: TRIAL - 1, ..FileTrial::default() };
        early.judge(1);
        assert_eq!((early.told, early.rest_until), (TRIAL - 1, 0));
    }

    #[test]
    fn what_is_not_used_is_not_offered() {
        let mut good = Offers { made: TRIAL, used: TRIAL, ..Offers::default() };
        assert!(good.pays(1));
        let mut bad = Offers { made: TRIAL, used: 1, ..Offers::default() };
        assert!(!bad.pays(1) && !bad.pays(REST_NS) && bad.pays(1 + REST_NS));
    }
}
