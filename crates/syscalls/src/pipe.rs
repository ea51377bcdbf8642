//! Pipes and FIFOs: pipe(2), fifo(7).

use std::sync::Arc;

use executor::{Events, WaitQueue};
use kernel::pipe::{self, OutsideFifo};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::{AnonInode, Inode, OpenFile, Place};

use crate::args::Ptr;
use crate::undo::Undo;
use crate::{Cx, Restart, SysResult};

/// pipe(2).
pub fn pipe(cx: &mut Cx<'_>, fds: Ptr) -> SysResult {
    pipe2(cx, fds, 0)
}

/// pipe2(2).
pub fn pipe2(cx: &mut Cx<'_>, fds: Ptr, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - (OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT)).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let (read, write) = pipe::pair((cx.credentials.fsuid, cx.credentials.fsgid), flags);
    install_pair(cx, read, write, cloexec, fds)
}

/// Installs two files and writes their descriptors to the guest, all or nothing (pipe(2), socketpair(2)).
pub fn install_pair(
    cx: &mut Cx<'_>,
    first: Arc<OpenFile>,
    second: Arc<OpenFile>,
    cloexec: bool,
    fds: Ptr,
) -> SysResult {
    let a = cx.install(first, cloexec)? as i32;
    let b = match cx.install(second, cloexec) {
        Ok(b) => b as i32,
        Err(err) => {
            let _ = cx.files().remove(a);
            return Err(err);
        }
    };
    if let Err(err) = cx.write(fds, &[a, b]) {
        let _ = cx.files().remove(a);
        let _ = cx.files().remove(b);
        return Err(err);
    }
    cx.local.undo = Undo::Descriptors([a, b]);
    Ok(0)
}

/// Opens a FIFO: waits for the other end as fifo(7) says; `ENXIO` for a non-blocking writer without readers. A
/// pipe reached through /proc waits for nobody.
pub async fn open_fifo(
    cx: &mut Cx<'_>,
    place: Place,
    inode: Arc<dyn Inode>,
    flags: OpenFlags,
) -> SysResult<Arc<OpenFile>> {
    if let Some(fifo) = open_outside(cx, &*inode, flags).await? {
        return Ok(OpenFile::new(place, inode, Arc::new(fifo), flags));
    }
    let pipe = cx.kernel().io.fifos.get(&*inode)?;
    let (read, write) = (flags.readable(), flags.writable());
    if inode.as_any().is::<AnonInode>() {
        let end = pipe.reopen(read, write);
        return Ok(OpenFile::new(place, inode, Arc::new(end), flags));
    }
    let nonblock = flags.contains(OpenFlags::NONBLOCK);
    if write && !read && nonblock && pipe.ends().0 == 0 {
        return Err(Errno::ENXIO.into());
    }
    // Only the other end's count is compared, so that opening this one changes nothing.
    let before = pipe.seen();
    let end = pipe.open(read, write);
    let (readers, writers) = pipe.ends();
    let alone = match (read, write) {
        (true, false) => writers == 0,
        (false, true) => readers == 0,
        _ => false,
    };
    if alone && !nonblock {
        let came = |now: (u64, u64)| if read { now.1 != before.1 } else { now.0 != before.0 };
        // Both ends wake the queue with all events when they open. Dropping `end` on a signal closes it.
        cx.wait_until(&pipe.queue().clone(), Events::all(), None, Restart::IfSaRestart, |_| {
            let (readers, writers) = pipe.ends();
            let present = if read { writers > 0 } else { readers > 0 };
            if present || came(pipe.seen()) { Ok(()) } else { Err(Errno::EAGAIN.into()) }
        })
        .await?;
    }
    Ok(OpenFile::new(place, inode, Arc::new(end), flags))
}

/// Of the waits between looks for the other end of a host FIFO, the first and the longest, in nanoseconds. An open(2) of
/// our own that waited for it on the host could not be interrupted.
const FIRST_PAUSE: u64 = 1_000_000;
const LONGEST_PAUSE: u64 = 16_000_000;

/// Opens a FIFO of the host, likewise; none if it joins programs of the guest alone.
async fn open_outside(
    cx: &mut Cx<'_>,
    inode: &dyn Inode,
    flags: OpenFlags,
) -> SysResult<Option<OutsideFifo>> {
    let Some(first) = inode.open_outside(flags) else { return Ok(None) };
    let (read, write) = (flags.readable(), flags.writable());
    let nonblock = flags.contains(OpenFlags::NONBLOCK);
    let open = |opened: vfs::Result<_>| OutsideFifo::new(opened?);
    match first {
        Err(Errno::ENXIO) if write && !read && !nonblock => {
            let nobody = WaitQueue::new();
            look_out(cx, &nobody, || match inode.open_outside(flags) {
                Some(Err(Errno::ENXIO)) => Err(Errno::EAGAIN),
                Some(opened) => open(opened),
                None => Err(Errno::ENXIO),
            })
            .await
            .map(Some)
        }
        opened => {
            let fifo = open(opened)?;
            if read && !write && !nonblock {
                let queue = fifo.queue().clone();
                look_out(cx, &queue, || if fifo.has_writer() { Ok(()) } else { Err(Errno::EAGAIN) }).await?;
            }
            Ok(Some(fifo))
        }
    }
}

/// Tries again and again while it says `EAGAIN`, until a signal comes.
async fn look_out<T>(
    cx: &mut Cx<'_>,
    queue: &WaitQueue,
    mut look: impl FnMut() -> vfs::Result<T>,
) -> SysResult<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        let until = executor::monotonic_ns().saturating_add(pause);
        let seen = cx.wait_until(queue, Events::all(), Some(until), Restart::IfSaRestart, |_| Ok(look()?));
        if let Some(seen) = seen.await? {
            return Ok(seen);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
