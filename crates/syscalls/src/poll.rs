//! Waiting for several files: poll(2), ppoll(2), and what select(2) shares with them.

use std::sync::Arc;

use executor::{Alarm, Events, Key, WaitQueue, Waiter};
use kernel::posting::{self, Ready};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::SigSet;
use linux_abi::time::Timespec;
use smallvec::SmallVec;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

/// A file that is waited for, and the events asked of it.
pub type Watched = (Arc<OpenFile>, Events);

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

/// What is ready of a file, out of the events asked for and the ones always told.
pub fn ready(file: &OpenFile, events: Events) -> Events {
    if file.flags().contains(OpenFlags::PATH) {
        return Events::NVAL;
    }
    file.ops().poll(file) & (events | Events::ALWAYS)
}

/// A poll of more files takes its time.
const MANY: u32 = 16 << 10;

/// A waiter's places in the queues of several files, given up on drop.
struct Listening(SmallVec<[(Arc<WaitQueue>, Key); 8]>);

impl Listening {
    fn on<'a>(files: impl Iterator<Item = &'a Watched>, waiter: &Arc<Waiter>) -> Listening {
        let mut all = SmallVec::new();
        for (file, events) in files {
            if let Some(queue) = file.ops().wait_queue() {
                let key = queue.add(waiter.clone(), *events, false);
                all.push((queue, key));
            }
        }
        Listening(all)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for (queue, key) in &self.0 {
            queue.remove(*key);
        }
    }
}

/// Waits until `scan` counts something, `deadline` (CLOCK_MONOTONIC nanoseconds) passes (0), or a signal comes.
/// `scan` has been tried once by the caller.
pub async fn wait_for_files(
    cx: &mut Cx<'_>,
    files: &[Option<Watched>],
    deadline: Option<u64>,
    mut scan: impl FnMut() -> usize,
) -> SysResult<usize> {
    let waiter = cx.thread.waiter().clone();
    let alarm = deadline.map(|at| Alarm::at(at, waiter.clone()));
    let listening = Listening::on(files.iter().flatten(), &waiter);
    let result = loop {
        waiter.reset();
        let n = scan();
        if n > 0 {
            break Ok(n);
        }
        if cx.thread.interrupted() {
            cx.local.restart_deadline = deadline;
            break Err(SysError::Interrupted(Restart::Never));
        }
        if deadline.is_some_and(|at| executor::monotonic_ns() >= at) {
            break Ok(0);
        }
        cx.sleep_on(&waiter).await;
    };
    drop(listening);
    drop(alarm);
    result
}

/// When a wait of this many nanoseconds from now ends; a wait that goes on after an interruption keeps its end.
pub fn deadline_after(cx: &mut Cx<'_>, timeout: Option<u64>) -> Option<u64> {
    let timeout = timeout?;
    Some(cx.local.restart_deadline.take().unwrap_or_else(|| executor::monotonic_ns().saturating_add(timeout)))
}

/// Reads an optional time-out.
pub fn read_timeout(cx: &mut Cx<'_>, ptr: Ptr) -> SysResult<Option<u64>> {
    if ptr.is_null() {
        return Ok(None);
    }
    Ok(Some(cx.read::<Timespec>(ptr)?.to_nanos()?))
}

/// Writes back what is left of a time-out. Linux ignores a failure.
pub fn write_left(cx: &mut Cx<'_>, ptr: Ptr, deadline: Option<u64>) {
    if let Some(at) = deadline.filter(|_| !cx.process().keeps_timeouts()) {
        let left = at.saturating_sub(executor::monotonic_ns());
        let _ = cx.write(ptr, &Timespec::from_nanos(left));
    }
}

/// Puts the mask of ppoll(2) and its like in place, if there is one.
pub fn wait_mask(cx: &mut Cx<'_>, mask: Ptr, size: u64) -> SysResult<()> {
    if mask.is_null() {
        return Ok(());
    }
    crate::signal::mask::check_size(usize::try_from(size).unwrap_or(0))?;
    let mask: SigSet = cx.read(mask)?;
    crate::signal::mask::set_for_wait(cx, mask);
    Ok(())
}

/// poll(2).
pub async fn poll(cx: &mut Cx<'_>, fds: Ptr, count: u32, timeout: i32) -> SysResult {
    let timeout = u64::try_from(timeout).ok().map(|ms| ms.saturating_mul(1_000_000));
    let deadline = deadline_after(cx, timeout);
    poll_until(cx, fds, count, timeout == Some(0), deadline).await
}

/// ppoll(2).
pub async fn ppoll(
    cx: &mut Cx<'_>,
    fds: Ptr,
    count: u32,
    timeout_at: Ptr,
    mask: Ptr,
    mask_size: u64,
) -> SysResult {
    let timeout = read_timeout(cx, timeout_at)?;
    wait_mask(cx, mask, mask_size)?;
    let deadline = deadline_after(cx, timeout);
    let result = poll_until(cx, fds, count, timeout == Some(0), deadline).await;
    write_left(cx, timeout_at, deadline);
    result
}

async fn poll_until(cx: &mut Cx<'_>, at: Ptr, count: u32, at_once: bool, deadline: Option<u64>) -> SysResult {
    if u64::from(count) > cx.process().limit(kernel::limits::resource::NOFILE)
        || count as usize > kernel::fd_table::NR_OPEN
    {
        return Err(Errno::EINVAL.into());
    }
    if count > MANY {
        executor::step_aside().await;
    }
    let mut fds: SmallVec<[PollFd; 16]> = SmallVec::from_elem(PollFd::default(), count as usize);
    cx.guest.copy_in(at.0, fds.as_mut_slice().as_mut_bytes())?;
    let old: SmallVec<[u16; 16]> = fds.iter().map(|p| p.revents).collect();
    let table = cx.files();
    let mut n = 0;
    let mut files: SmallVec<[Option<Watched>; 16]> = SmallVec::new();
    for entry in &mut fds {
        entry.revents = 0;
        let file = if entry.fd < 0 { None } else { Some(table.get(entry.fd)) };
        let watched = match file {
            None => None,
            Some(Err(_)) => {
                entry.revents = Events::NVAL.bits() as u16;
                None
            }
            Some(Ok(file)) => {
                let events = Events::from_bits_truncate(u32::from(entry.events)) - Events::NVAL;
                entry.revents = ready(&file, events).bits() as u16;
                Some((file, events))
            }
        };
        n += usize::from(entry.revents != 0);
        files.push(watched);
    }
    if n == 0 && !at_once {
        n = wait_for_files(cx, &files, deadline, || {
            let mut n = 0;
            for (entry, watched) in fds.iter_mut().zip(&files) {
                if let Some((file, events)) = watched {
                    entry.revents = ready(file, *events).bits() as u16;
                    n += usize::from(entry.revents != 0);
                }
            }
            n
        })
        .await?;
    }
    if n > 0 {
        let mut streams: SmallVec<[Ready; 16]> = SmallVec::new();
        for (entry, watched) in fds.iter().zip(&files) {
            let ready = Events::from_bits_truncate(u32::from(entry.revents));
            if let Some((file, _)) = watched
                && streams.len() < posting::MOST
            {
                streams.extend(Ready::found(entry.fd, file, ready, true));
            }
        }
        if !streams.is_empty() {
            // After a wait, a descriptor may be another file's.
            streams.retain(|one| table.get(one.fd).is_ok_and(|now| Arc::ptr_eq(&now, &one.file)));
            posting::grant(cx.thread, &streams, posting::Told::Poll);
        }
    }
    // Only `revents` is the kernel's to write, and only where it is not what it was.
    let mut pace = executor::Pace::default();
    for (index, (entry, old)) in fds.iter().zip(&old).enumerate() {
        if index.is_multiple_of(1024) && index > 0 {
            pace.keep().await;
        }
        if entry.revents != *old {
            cx.write(at.add(index as u64 * 8 + 6)?, &entry.revents)?;
        }
    }
    Ok(n as i64)
}
