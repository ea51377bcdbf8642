//! epoll_create(2), epoll_ctl(2), epoll_wait(2).

use std::sync::Arc;

use executor::{Alarm, Events};
use kernel::epoll::{self, EPOLLET, EPOLLEXCLUSIVE, EPOLLWAKEUP, Epoll, Interest};
use kernel::posting::{self, Ready};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use smallvec::SmallVec;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::poll::{deadline_after, read_timeout, wait_mask};
use crate::{Cx, Restart, SysError, SysResult};

/// `struct epoll_event`, packed on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct EpollEvent {
    events: u32,
    data: [u32; 2],
}

/// The most events that one wait asks for (`EP_MAX_EVENTS`).
const MAX_EVENTS: i32 = i32::MAX / 12;
/// The most events that one wait hands out.
const CHUNK: usize = 65536;

/// epoll_create(2).
pub fn epoll_create(cx: &mut Cx<'_>, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    cx.install(epoll::open(), false)
}

/// epoll_create1(2).
pub fn epoll_create1(cx: &mut Cx<'_>, flags: u32) -> SysResult {
    let flags = OpenFlags::from_bits_retain(flags);
    if !(flags - OpenFlags::CLOEXEC).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    cx.install(epoll::open(), flags.contains(OpenFlags::CLOEXEC))
}

/// epoll_ctl(2).
pub fn epoll_ctl(cx: &mut Cx<'_>, epfd: i32, op: u32, fd: i32, event: Ptr) -> SysResult {
    const ADD: u32 = 1;
    const DEL: u32 = 2;
    const MOD: u32 = 3;
    let interest = if op == DEL {
        Interest { events: 0, data: 0 }
    } else {
        let event: EpollEvent = cx.read(event)?;
        let [low, high] = event.data.map(u64::from);
        Interest { events: event.events, data: low | high << 32 }
    };
    let outer = cx.file_to_watch(epfd)?;
    let file = cx.file_to_watch(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    if file.ops().wait_queue().is_none() {
        return Err(Errno::EPERM.into());
    }
    let epoll = epoll::of(&outer).ok_or(Errno::EINVAL)?;
    if interest.events & EPOLLEXCLUSIVE != 0 {
        let allowed = (Events::IN | Events::OUT | Events::ERR | Events::HUP).bits()
            | EPOLLWAKEUP
            | EPOLLET
            | EPOLLEXCLUSIVE;
        if op == MOD || interest.events & !allowed != 0 {
            return Err(Errno::EINVAL.into());
        }
    }
    match op {
        ADD => epoll.add(fd, &file, interest)?,
        DEL => epoll.delete(fd, &file)?,
        MOD => epoll.modify(fd, &file, interest)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    if file.is_held() {
        cx.kernel().posting.interest_changed(&epoll, &file, cx.thread, op != DEL);
    }
    Ok(0)
}

/// epoll_wait(2).
pub async fn epoll_wait(cx: &mut Cx<'_>, epfd: i32, events: Ptr, max: i32, timeout: i32) -> SysResult {
    let timeout = u64::try_from(timeout).ok().map(|ms| ms.saturating_mul(1_000_000));
    wait(cx, epfd, events, max, timeout).await
}

/// epoll_pwait(2).
pub async fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: i32,
    events: Ptr,
    max: i32,
    timeout: i32,
    mask: Ptr,
    mask_size: u64,
) -> SysResult {
    wait_mask(cx, mask, mask_size)?;
    epoll_wait(cx, epfd, events, max, timeout).await
}

/// epoll_pwait2(2).
pub async fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: i32,
    events: Ptr,
    max: i32,
    timeout: Ptr,
    mask: Ptr,
    mask_size: u64,
) -> SysResult {
    let timeout = read_timeout(cx, timeout)?;
    wait_mask(cx, mask, mask_size)?;
    wait(cx, epfd, events, max, timeout).await
}

/// Writes what is ready to the guest.
fn harvest(
    cx: &mut Cx<'_>,
    (epfd, outer): (i32, &Arc<OpenFile>),
    epoll: &Epoll,
    at: Ptr,
    max: usize,
) -> SysResult<usize> {
    let mut events: SmallVec<[EpollEvent; 32]> = SmallVec::new();
    let mut streams: SmallVec<[Ready; 32]> = SmallVec::new();
    let n = epoll.harvest(max.min(CHUNK), |ready, interest, fd, file| {
        let data = interest.data;
        events.push(EpollEvent { events: ready.bits(), data: [data as u32, (data >> 32) as u32] });
        if let Some(file) = file
            && streams.len() < posting::MOST
        {
            // Who is told of changes alone must be told of the end.
            let open = interest.events & EPOLLET == 0 || interest.events & Events::RDHUP.bits() != 0;
            streams.extend(Ready::found(fd, &file, ready, open));
        }
    });
    if n > 0 {
        cx.write_bytes(at, events.as_slice().as_bytes())?;
        if !streams.is_empty() {
            // The descriptor may be another file's by now.
            let files = cx.files();
            streams.retain(|one| files.get(one.fd).is_ok_and(|now| Arc::ptr_eq(&now, &one.file)));
            posting::grant(cx.thread, &streams, posting::Told::Epoll(epfd, outer));
        }
    }
    Ok(n)
}

async fn wait(cx: &mut Cx<'_>, epfd: i32, at: Ptr, max: i32, timeout: Option<u64>) -> SysResult {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    let max = max as usize;
    let file = cx.file_to_watch(epfd)?;
    let epoll: Arc<Epoll> = epoll::of(&file).ok_or(Errno::EINVAL)?;
    // What has happened before this call must be seen by it, also if the driver has not come to it yet; and the more
    // one call tells, the fewer there are.
    executor::look_at_host();
    let n = harvest(cx, (epfd, &file), &epoll, at, max)?;
    if n > 0 || timeout == Some(0) {
        return Ok(n as i64);
    }
    let deadline = deadline_after(cx, timeout);
    let waiter = cx.thread.waiter().clone();
    let alarm = deadline.map(|at| Alarm::at(at, waiter.clone()));
    // Exclusive: of several waiting threads one takes the event.
    let listener = epoll.queue().listen(&waiter, Events::READABLE, true);
    let result = loop {
        waiter.reset();
        match harvest(cx, (epfd, &file), &epoll, at, max) {
            Ok(0) => {}
            done => break done.map(|n| n as i64),
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
    drop(listener);
    drop(alarm);
    // A wake-up that came to this thread while it gave up, or more than it took, is the next one's.
    if epoll.may_be_ready() {
        epoll.queue().wake(Events::READABLE);
    }
    result
}
