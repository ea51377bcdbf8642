//! Regular files that stay in a thread's host process and that it reads there at offsets (pread64(2)), without a word.
//!
//! They are the host's, or in memory (`fs_tmp`). What it reads is what the host has: bytes of others that are added
//! later (`Kind::Log`) are not, and so are no longer once somebody reads a file in this way, as if it was mapped.
//! Nobody hears of these reads: there are none while anybody watches files (inotify(7)). They end before a descriptor
//! of the file is closed for anybody ([`PostingTable::descriptor_closed`]).

use std::sync::{Arc, Weak};

use linux_abi::fs::{OpenFlags, S_IFREG};
use platform::{Granted, PostArea};
use vfs::{OpenFile, notify, shown};

use super::files::{begin, lend};
use super::state::{Held, Kind, State};
use super::{PostingTable, may};
use crate::Thread;

/// After so many reads of an open file the next ones are the threads' own.
const READS: u32 = 16;

/// Whether a thread that reads a file at an offset is to do that by itself from now on.
pub fn reads_often(thread: &Thread, fd: i32, file: &OpenFile) -> bool {
    let kernel = thread.kernel();
    if file.count_read_at() < READS && !kernel.config.eager_posting {
        return false;
    }
    let flags = file.flags();
    flags.readable()
        && !flags.contains(OpenFlags::PATH)
        && !notify::is_watched()
        && file.inode().kind().is_ok_and(|kind| kind == S_IFREG)
        && may(thread)
        && !thread.posting.state.lock().reads(fd, file)
}

/// A thread that waits for an answer may read a file by this number of the host's (`GuestThread::keep_reading`).
pub fn reads_by(thread: &Arc<Thread>, fd: i32, file: &Arc<OpenFile>, number: u32) -> bool {
    // Whoever closes it sees that, or was seen below.
    file.set_posted_to();
    let table = &thread.kernel().posting;
    table.mapping(file);
    // Another thread might close it without a word.
    if table.end_closing(file, thread) {
        return false;
    }
    // What others are just adding to it is still to come.
    if shown::map(file.inode().as_ref()) {
        return false;
    }
    let Some(area) = begin(thread) else { return false };
    let mut granted = false;
    lend(thread, &area, |state, dropped| {
        granted = state.lend_reads(thread, &area, (fd, file), number, dropped);
        granted
    });
    granted
}

impl State {
    /// Whether a thread reads a file by itself.
    fn reads(&mut self, fd: i32, file: &OpenFile) -> bool {
        let place = PostArea::place(fd);
        let held = self.grants.of(place);
        let known = held.is_some_and(|held| held.fd == fd && held.file.id() == file.id() && held.reads != 0);
        known && self.area.as_ref().is_some_and(|area| area.reads(fd))
    }

    /// The number by which a thread reads a file, or 0.
    pub(super) fn number_of(&mut self, fd: i32, file: &OpenFile) -> u32 {
        if !self.reads(fd, file) {
            return 0;
        }
        self.grants.of(PostArea::place(fd)).filter(|held| !held.ended).map_or(0, |held| held.reads)
    }

    /// Lets the thread read a file; whether it may.
    pub(super) fn lend_reads(
        &mut self,
        thread: &Arc<Thread>,
        area: &PostArea,
        (fd, file): (i32, &Arc<OpenFile>),
        number: u32,
        dropped: &mut Vec<Held>,
    ) -> bool {
        let place = PostArea::place(fd);
        let sized = self.grants.of(place).filter(|held| {
            let same = held.fd == fd && Arc::ptr_eq(&held.file, file);
            same && !held.ended && matches!(held.kind, Kind::Sized(_))
        });
        let known = match sized {
            Some(held) => {
                held.reads = number;
                true
            }
            None => {
                self.make_room(thread, fd, file, &thread.kernel().posting, dropped);
                self.grants.push(Held { reads: number, ..Held::new(Kind::Reads, fd, file) });
                false
            }
        };
        // Who watches from now on, or closes it, ends what is listed here.
        if notify::is_watched() || !thread.files().get(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
            self.end_lost_logs(thread, &thread.kernel().posting, dropped);
            return false;
        }
        if known {
            area.set_reads(place, number);
        } else {
            area.grant(fd, &Granted::Reads { number });
        }
        true
    }
}

impl Held {
    /// Whether what a thread reads by itself is to be a call's again.
    pub(super) fn reads_no_more(&self, thread: &Thread) -> bool {
        self.reads != 0
            && (notify::is_watched()
                || !thread.files().get(self.fd).is_ok_and(|now| Arc::ptr_eq(&now, &self.file)))
    }
}

impl PostingTable {
    /// Ends that another thread may close a file without an answer; whether one could.
    fn end_closing(&self, file: &OpenFile, current: &Thread) -> bool {
        let Some(thread) = self.holders.lock().get(&file.id()).and_then(Weak::upgrade) else { return false };
        let closes = !std::ptr::eq(current, &raw const *thread) && {
            let state = thread.posting.state.lock();
            state.grants.iter().any(|held| held.kind == Kind::File && held.file.id() == file.id())
        };
        if closes {
            self.end_for(file, current, true);
        }
        closes
    }

    /// Somebody watches files from now on.
    pub fn watched(&self) {
        self.end_lost_logs();
    }
}
