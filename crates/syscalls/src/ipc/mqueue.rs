//! POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2),
//! mq_getsetattr(2).

use std::sync::Arc;

use executor::Events;
use kernel::mqueue::{MqueueFs, Notice, PRIORITIES, Queue, QueueFile, Size};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::Signo;
use linux_abi::time::Timespec;
use vfs::{Inode, OpenFile, permission};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MqAttr {
    flags: i64,
    maxmsg: i64,
    msgsize: i64,
    curmsgs: i64,
    reserved: [i64; 4],
}

/// The head of `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SigEvent {
    value: u64,
    signo: i32,
    notify: i32,
    rest: [u64; 6],
}

/// A name without its slash, as the C library passes it.
fn read_name(cx: &mut Cx<'_>, name: Ptr) -> SysResult<Vec<u8>> {
    let name = cx.read_path(name)?;
    if name.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    if name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Errno::EACCES.into());
    }
    if name.len() > 255 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    Ok(name)
}

/// mq_open(2).
pub fn mq_open(cx: &mut Cx<'_>, name: Ptr, flags: u32, mode: u32, attr: Ptr) -> SysResult {
    let size = if attr.is_null() {
        None
    } else {
        let attr: MqAttr = cx.read(attr)?;
        Some(Size { messages: attr.maxmsg, bytes: attr.msgsize })
    };
    let name = read_name(cx, name)?;
    let flags = OpenFlags::from_bits_retain(flags);
    let namespace = cx.ipc()?.namespace;
    let fs = MqueueFs::new(namespace.clone());
    let creates = flags.contains(OpenFlags::CREAT);
    let mut made = false;
    let queue = match namespace.mq.find(&name) {
        Some(_) if creates && flags.contains(OpenFlags::EXCL) => return Err(Errno::EEXIST.into()),
        Some(queue) => {
            let wanted = match flags.bits() & 3 {
                0 => 4,
                1 => 2,
                2 => 6,
                _ => return Err(Errno::EINVAL.into()),
            };
            permission::check(&cx.credentials, &fs.inode(&queue)?.metadata()?, wanted)?;
            queue
        }
        None if creates => {
            let limit = cx.process().limit(kernel::limits::resource::MSGQUEUE);
            let mode = mode & !cx.fs().umask() & 0o7777;
            let queue = namespace.mq.make(&name, mode, size, &cx.credentials, limit)?;
            made = true;
            queue
        }
        None => return Err(Errno::ENOENT.into()),
    };
    let file = fs.open(&name, &queue, flags & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::NONBLOCK))?;
    // Always closed by exec: mq_open(3).
    let installed = cx.install(file, true);
    if installed.is_err() && made {
        // Without a descriptor there is no queue; another may have taken the name away already.
        let _ = namespace.mq.unlink(&name);
    }
    installed
}

/// mq_unlink(2): for the owner of the queue, or of the folder, which is root.
pub fn mq_unlink(cx: &mut Cx<'_>, name: Ptr) -> SysResult {
    let name = read_name(cx, name)?;
    let namespace = cx.ipc()?.namespace;
    let queue = namespace.mq.find(&name).ok_or(Errno::ENOENT)?;
    let fs = MqueueFs::new(namespace.clone());
    let (folder, child) = (vfs::FileSystem::root(&*fs)?.metadata()?, fs.inode(&queue)?.metadata()?);
    permission::check(&cx.credentials, &folder, 3)?;
    permission::check_remove(&cx.credentials, &folder, &child)?;
    namespace.mq.unlink(&name)?;
    Ok(0)
}

/// The queue of a descriptor; `EBADF`.
fn queue_of(cx: &Cx<'_>, fd: i32) -> SysResult<(Arc<OpenFile>, Arc<Queue>)> {
    let file = cx.file(fd)?;
    let queue = file.ops_as::<QueueFile>().ok_or(Errno::EBADF)?.0.clone();
    Ok((file, queue))
}

/// An absolute time of the day as a time of the monotonic clock.
fn deadline(cx: &mut Cx<'_>, timeout: Ptr) -> SysResult<Option<u64>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let at = cx.read::<Timespec>(timeout)?.to_nanos()?;
    let left = at.saturating_sub(executor::realtime_ns());
    Ok(Some(executor::monotonic_ns().saturating_add(left)))
}

/// mq_timedsend(2).
pub async fn mq_timedsend(
    cx: &mut Cx<'_>,
    fd: i32,
    text: Ptr,
    len: u64,
    priority: u32,
    timeout: Ptr,
) -> SysResult {
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL.into());
    }
    let deadline = deadline(cx, timeout)?;
    let (file, queue) = queue_of(cx, fd)?;
    if !file.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let len =
        usize::try_from(len).ok().filter(|len| *len as i64 <= queue.size.bytes).ok_or(Errno::EMSGSIZE)?;
    let mut text = cx.read_bytes(text, len)?;
    let sender = (cx.process().pid(), cx.credentials.uid);
    let mut send = |_: &mut Cx<'_>| Ok(queue.send(&mut text, priority, sender)?);
    if file.flags().contains(OpenFlags::NONBLOCK) {
        send(cx)?;
        return Ok(0);
    }
    let sent = cx.wait_until(&queue.waiters, Events::WRITABLE, deadline, Restart::IfSaRestart, send).await?;
    sent.ok_or(Errno::ETIMEDOUT)?;
    Ok(0)
}

/// mq_timedreceive(2).
pub async fn mq_timedreceive(
    cx: &mut Cx<'_>,
    fd: i32,
    to: Ptr,
    len: u64,
    priority_out: Ptr,
    timeout: Ptr,
) -> SysResult {
    let deadline = deadline(cx, timeout)?;
    let (file, queue) = queue_of(cx, fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    if len < queue.size.bytes as u64 {
        return Err(Errno::EMSGSIZE.into());
    }
    let (text, priority) = match queue.receive() {
        Err(Errno::EAGAIN) if !file.flags().contains(OpenFlags::NONBLOCK) => {
            queue.count_receiver(true);
            let got = cx
                .wait_until(&queue.waiters, Events::READABLE, deadline, Restart::IfSaRestart, |_| {
                    Ok(queue.receive()?)
                })
                .await;
            queue.count_receiver(false);
            got?.ok_or(SysError::Errno(Errno::ETIMEDOUT))?
        }
        done => done?,
    };
    cx.write_bytes(to, &text)?;
    if !priority_out.is_null() {
        cx.write(priority_out, &priority)?;
    }
    Ok(text.len() as i64)
}

/// mq_notify(2).
pub fn mq_notify(cx: &mut Cx<'_>, fd: i32, event: Ptr) -> SysResult {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD: i32 = 2;
    let event: Option<SigEvent> = if event.is_null() { None } else { Some(cx.read(event)?) };
    let notice = match event {
        None => None,
        Some(SigEvent { notify: SIGEV_NONE, .. }) => Some(Notice::None),
        Some(SigEvent { notify: SIGEV_SIGNAL, signo, value, .. }) => {
            // 0 is valid, and no signal.
            let sig = if signo == 0 { None } else { Some(Signo::new(signo).ok_or(Errno::EINVAL)?) };
            Some(sig.map_or(Notice::None, |sig| Notice::Signal(sig, value)))
        }
        Some(SigEvent { notify: SIGEV_THREAD, .. }) => {
            cx.kernel().note_missing("mq_notify with SIGEV_THREAD");
            return Err(Errno::ENOSYS.into());
        }
        Some(_) => return Err(Errno::EINVAL.into()),
    };
    let (_, queue) = queue_of(cx, fd)?;
    match notice {
        None => queue.forget_notify(cx.process().pid()),
        Some(notice) => queue.notify(cx.process(), notice)?,
    }
    Ok(0)
}

/// mq_getsetattr(2).
pub fn mq_getsetattr(cx: &mut Cx<'_>, fd: i32, new: Ptr, old: Ptr) -> SysResult {
    let wanted: Option<MqAttr> = if new.is_null() { None } else { Some(cx.read(new)?) };
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    if wanted.is_some_and(|attr| attr.flags & !nonblock != 0) {
        return Err(Errno::EINVAL.into());
    }
    let (file, queue) = queue_of(cx, fd)?;
    let before = MqAttr {
        flags: i64::from(file.flags().bits()) & nonblock,
        maxmsg: queue.size.messages,
        msgsize: queue.size.bytes,
        curmsgs: queue.count() as i64,
        ..MqAttr::default()
    };
    if let Some(attr) = wanted {
        let mut flags = file.flags();
        flags.set(OpenFlags::NONBLOCK, attr.flags & nonblock != 0);
        file.set_flags(flags);
    }
    if !old.is_null() {
        cx.write(old, &before)?;
    }
    Ok(0)
}
