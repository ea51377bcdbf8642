//! The cases, one file per subject.

use crate::harness::Case;

mod directory;
mod epoll;
mod eventfd;
mod file;
mod pipe;
mod poll;
mod process;
mod signal;
mod signal_frame;
mod signal_wait;
mod time;
mod timer;
mod wait;

/// Every case, subject by subject.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    let subjects: [&[Case]; 13] = [
        process::CASES,
        wait::CASES,
        signal::CASES,
        signal_frame::CASES,
        signal_wait::CASES,
        pipe::CASES,
        poll::CASES,
        epoll::CASES,
        eventfd::CASES,
        timer::CASES,
        time::CASES,
        file::CASES,
        directory::CASES,
    ];
    subjects.into_iter().flatten().copied()
}
