//! The listener of a filter of system calls: what waits for it, and what it says. seccomp_unotify(2).

use std::sync::Arc;

use executor::Events;
use kernel::guest_filter::{Answer, Asked, Data, Handed, Listener, Progress};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::guest_filter::Verdict;
use crate::path::real_file;
use crate::undo::Undo;
use crate::{Cx, Restart, SysError, SysResult, fd};

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    nr: u32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

/// `struct seccomp_notif_sizes`.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
pub(crate) struct Sizes {
    notif: u16,
    response: u16,
    data: u16,
}

/// What `SECCOMP_GET_NOTIF_SIZES` tells.
pub(crate) const SIZES: Sizes =
    Sizes { notif: size_of::<Notif>() as u16, response: size_of::<Response>() as u16, data: 64 };

/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;

/// Asks the listener what becomes of a call, and waits for the answer.
pub(crate) async fn ask(cx: &mut Cx<'_>, listener: &Arc<Listener>, call: Data) -> Verdict {
    let Some(asked) = listener.ask(cx.thread.tid(), call) else {
        return Verdict::Return(Err(Errno::ENOSYS.into()));
    };
    match answer(cx, &asked).await {
        Ok(Answer::Made) => Verdict::Call(call.nr, call.args),
        Ok(Answer::Value(value)) => Verdict::Return(Ok(value)),
        Err(err) => Verdict::Return(Err(err)),
    }
}

async fn answer(cx: &mut Cx<'_>, asked: &Asked) -> SysResult<Answer> {
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        let listening = asked.queue().listen(&waiter, Events::all(), false);
        match asked.progress() {
            Progress::Answered(answer) => return Ok(answer),
            Progress::Install(handed) => {
                let result = install(cx, &handed);
                asked.installed(&handed, result);
                continue;
            }
            Progress::Wait { fatal_only } => {
                let interrupted = match fatal_only {
                    true => cx.thread.is_dying() || kernel::signal::has_fatal(cx.thread),
                    false => cx.thread.interrupted(),
                };
                if interrupted {
                    return Err(SysError::Interrupted(Restart::IfSaRestart));
                }
            }
        }
        cx.sleep_on(&waiter).await;
        drop(listening);
    }
}

/// Puts what the listener hands over among the caller's descriptors.
fn install(cx: &mut Cx<'_>, handed: &Handed) -> Result<i32, Errno> {
    let installed = match handed.at {
        Some(at) => fd::dup_to(cx, handed.file.clone(), at, handed.cloexec),
        None => cx.install(handed.file.clone(), handed.cloexec),
    };
    match installed {
        Ok(fd) => Ok(fd as i32),
        Err(SysError::Errno(errno)) => Err(errno),
        Err(SysError::Interrupted(_)) => Err(Errno::EINTR),
    }
}

const IOCTL_RECV: u32 = 0xc050_2100;
const IOCTL_SEND: u32 = 0xc018_2101;
const IOCTL_ID_VALID: u32 = 0x4008_2102;
/// With the direction that Linux took it for at first.
const IOCTL_ID_VALID_WRONG_DIR: u32 = 0x8008_2102;
const IOCTL_ADDFD: u32 = 0x4018_2103;
const IOCTL_SET_FLAGS: u32 = 0x4008_2104;
/// The bits of a request that tell direction and size.
const IOCTL_EXTENSIBLE: u32 = 0xffff_0000;

/// ioctl(2) of a listener.
pub(crate) async fn ioctl(
    cx: &mut Cx<'_>,
    listener: &Listener,
    file: &OpenFile,
    fd: i32,
    cmd: u32,
    arg: u64,
) -> SysResult {
    match cmd {
        IOCTL_RECV => receive(cx, listener, file, fd, Ptr(arg)).await,
        IOCTL_SEND => send(cx, listener, Ptr(arg)),
        IOCTL_ID_VALID | IOCTL_ID_VALID_WRONG_DIR => {
            let id: u64 = cx.read(Ptr(arg))?;
            if listener.is_valid(id) { Ok(0) } else { Err(Errno::ENOENT.into()) }
        }
        IOCTL_SET_FLAGS => {
            // On which CPU the listener is woken is the host's affair.
            const SYNC_WAKE_UP: u64 = 1;
            if arg & !SYNC_WAKE_UP == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
        }
        _ if cmd & !IOCTL_EXTENSIBLE == IOCTL_ADDFD & !IOCTL_EXTENSIBLE => {
            let size = (cmd >> 16) & 0x3fff;
            add_fd(cx, listener, Ptr(arg), size as usize).await
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

async fn receive(cx: &mut Cx<'_>, listener: &Listener, file: &OpenFile, fd: i32, out: Ptr) -> SysResult {
    let garbage = cx.read_bytes(out, size_of::<Notif>())?;
    if garbage.iter().any(|byte| *byte != 0) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = Events::READABLE | Events::ALWAYS;
    let received = cx
        .wait_until(listener.queue(), wanted, None, Restart::IfSaRestart, |_| Ok(listener.receive()?))
        .await?
        .ok_or(Errno::ENOENT)?;
    let Data { nr, ip, args } = received.data;
    let notif = Notif { id: received.id, pid: received.tid as u32, flags: 0, nr, arch: ARCH, ip, args };
    if let Err(err) = cx.write(out, &notif) {
        listener.announce_again(received.id);
        return Err(err);
    }
    cx.local.undo = Undo::Notification { fd, id: file.id(), call: received.id };
    Ok(0)
}

fn send(cx: &mut Cx<'_>, listener: &Listener, response: Ptr) -> SysResult {
    const CONTINUE: u32 = 1;
    let response: Response = cx.read(response)?;
    let answer = match response {
        Response { flags: 0, error: 0, val, .. } => Answer::Value(val),
        Response { flags: 0, error, .. } => Answer::Value(i64::from(error)),
        Response { flags: CONTINUE, error: 0, val: 0, .. } => Answer::Made,
        _ => return Err(Errno::EINVAL.into()),
    };
    listener.answer(response.id, answer)?;
    Ok(0)
}

async fn add_fd(cx: &mut Cx<'_>, listener: &Listener, args: Ptr, size: usize) -> SysResult {
    const SETFD: u32 = 1;
    const SEND: u32 = 2;
    if size >= 4096 {
        return Err(Errno::EINVAL.into());
    }
    let args: AddFd = cx.read_extensible(args, size, size_of::<AddFd>())?;
    let cloexec = OpenFlags::CLOEXEC.bits();
    let at = (args.flags & SETFD != 0).then_some(args.newfd as i32);
    if args.newfd_flags & !cloexec != 0
        || args.flags & !(SETFD | SEND) != 0
        || (args.newfd != 0 && at.is_none())
    {
        return Err(Errno::EINVAL.into());
    }
    let file = real_file(cx, args.srcfd as i32)?;
    let handed = Handed::new(file, at, args.newfd_flags & cloexec != 0, args.flags & SEND != 0);
    let queue = listener.hand(args.id, &handed)?;
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        let listening = queue.listen(&waiter, Events::all(), false);
        if let Some(done) = handed.done() {
            return Ok(i64::from(done?));
        }
        if cx.thread.interrupted() && listener.take_back(args.id, &handed) {
            return Err(SysError::Interrupted(Restart::IfSaRestart));
        }
        cx.sleep_on(&waiter).await;
        drop(listening);
    }
}
