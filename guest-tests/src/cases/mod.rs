//! The cases, one file per subject.

use crate::harness::Case;

mod directory;
mod epoll;
mod eventfd;
mod exec;
mod fd;
mod file;
mod memory;
mod pipe;
mod poll;
mod process;
mod signal;
mod signal_frame;
mod signal_wait;
mod thread;
mod time;
mod timer;
mod wait;

/// Every case, subject by subject.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    let subjects: [&[Case]; 17] = [
        directory::CASES,
        epoll::CASES,
        eventfd::CASES,
        exec::CASES,
        fd::CASES,
        file::CASES,
        memory::CASES,
        pipe::CASES,
        poll::CASES,
        process::CASES,
        signal::CASES,
        signal_frame::CASES,
        signal_wait::CASES,
        thread::CASES,
        time::CASES,
        timer::CASES,
        wait::CASES,
    ];
    subjects.into_iter().flatten().copied()
}
