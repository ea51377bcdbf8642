//! Asynchronous input and output: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, Pace, Waiter};
use identity::Credentials;
use kernel::Mm;
use kernel::aio::{Context, IoEvent};
use kernel::eventfd::EventFd;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::time::Timespec;
use platform::NativeOp;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::file_io::{IoVec, read_iovec};
use crate::mm::{PAGE, flag};
use crate::patience::Patience;
use crate::{Cx, Restart, SysError, SysResult};

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;
const FLAG_RESFD: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;
/// Bytes that one step of a transfer moves.
const CHUNK: usize = 256 << 10;
/// Bytes that take a while.
const MUCH: u64 = 4 << 20;
/// Bytes that one request moves at most, as one read(2).
const MAX_RW_COUNT: u64 = 0x7fff_f000;

/// io_setup(2). The id is the address of a page without the magic of Linux's ring: the C libraries look there
/// whether they may take events by themselves, and then always ask the kernel.
pub async fn io_setup(cx: &mut Cx<'_>, count: u32, out: Ptr) -> SysResult {
    if cx.read::<u64>(out)? != 0 || count == 0 || count > 0x40_0000 {
        return Err(Errno::EINVAL.into());
    }
    let context = Context::new(count, &cx.kernel().io.aio)?;
    let flags = flag::MAP_PRIVATE | flag::MAP_ANONYMOUS;
    let op = NativeOp::Mmap { addr: 0, len: PAGE, prot: flag::PROT_READ, flags, file: None };
    let id = cx.native(op).await? as u64;
    cx.mm().aio.add(id, context)?;
    // Now, so that a bad address takes the context back.
    if let Err(errno) = cx.guest.copy_out_now(out.0, id.as_bytes()) {
        cx.mm().aio.remove(id)?;
        cx.native(NativeOp::Munmap { addr: id, len: PAGE }).await?;
        return Err(errno.into());
    }
    Ok(0)
}

/// io_destroy(2): waits for what is under way.
pub async fn io_destroy(cx: &mut Cx<'_>, id: u64) -> SysResult {
    let context = cx.mm().aio.remove(id)?;
    context.destroy();
    // Not to be interrupted: the context is gone already.
    let idle = cx
        .wait_until(&context.queue, Events::READABLE, None, Restart::Never, |_| {
            if context.is_idle() { Ok(()) } else { Err(Errno::EAGAIN.into()) }
        })
        .await;
    if idle.is_err() && cx.thread.is_dying() {
        return Err(SysError::Interrupted(Restart::Never));
    }
    // The guest may have unmapped the page by itself.
    match cx.native(NativeOp::Munmap { addr: id, len: PAGE }).await {
        Err(SysError::Interrupted(restart)) => Err(SysError::Interrupted(restart)),
        _ => Ok(0),
    }
}

/// io_submit(2): how many were begun; an error only if the first was not.
pub async fn io_submit(cx: &mut Cx<'_>, id: u64, count: i64, list: Ptr) -> SysResult {
    let context = cx.mm().aio.get(id)?;
    let count = u64::try_from(count).map_err(|_| Errno::EINVAL)?;
    let mut begun = 0;
    let mut pace = Pace::default();
    while begun < count {
        pace.keep().await;
        match submit(cx, &context, list, begun).await {
            Ok(()) => begun += 1,
            Err(err) if begun == 0 => return Err(err),
            Err(_) => break,
        }
    }
    Ok(begun as i64)
}

/// One request, checked.
struct Request {
    context: Arc<Context>,
    /// Its number in the context.
    number: u64,
    event: IoEvent,
    tell: Option<Arc<OpenFile>>,
    file: Arc<OpenFile>,
    /// What is read and written; a request that does neither keeps no memory of a process that ends.
    mm: Option<Arc<Mm>>,
    opcode: u16,
    vectors: Vec<IoVec>,
    offset: u64,
    credentials: Arc<Credentials>,
    /// `RLIMIT_FSIZE`.
    limit: u64,
    /// `RWF_*`.
    flags: u32,
}

async fn submit(cx: &mut Cx<'_>, context: &Arc<Context>, list: Ptr, index: u64) -> SysResult<()> {
    let at: u64 = cx.read(list.add(index.checked_mul(8).ok_or(Errno::EFAULT)?)?)?;
    let iocb: Iocb = cx.read(Ptr(at))?;
    if iocb.reserved != 0 || i64::try_from(iocb.nbytes).is_err() {
        return Err(Errno::EINVAL.into());
    }
    let number = context.begin()?;
    match prepare(cx, context, number, at, &iocb) {
        Ok(request) => {
            start(cx, request, iocb.buf).await;
            Ok(())
        }
        Err(err) => {
            context.abandon();
            Err(err)
        }
    }
}

fn prepare(cx: &mut Cx<'_>, context: &Arc<Context>, number: u64, at: u64, iocb: &Iocb) -> SysResult<Request> {
    let file = cx.file(iocb.fd as i32)?;
    let tell = if iocb.flags & FLAG_RESFD != 0 {
        let counter = cx.file(iocb.resfd as i32)?;
        counter.ops_as::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(counter)
    } else {
        None
    };
    // The key that io_cancel(2) is to find.
    cx.guest.copy_out_now(at.checked_add(8).ok_or(Errno::EFAULT)?, &0u32.to_ne_bytes())?;
    let one = || vec![IoVec { base: iocb.buf, len: iocb.nbytes.min(MAX_RW_COUNT) }];
    let reads = matches!(iocb.opcode, PREAD | PREADV);
    let vectors = match iocb.opcode {
        PREAD | PWRITE => one(),
        PREADV | PWRITEV => read_iovec(cx, Ptr(iocb.buf), iocb.nbytes)?,
        FSYNC | FDSYNC | POLL => {
            let mask_only = iocb.opcode == POLL && iocb.buf <= u64::from(u16::MAX);
            if (iocb.buf != 0 && !mask_only) || iocb.offset != 0 || iocb.nbytes != 0 || iocb.rw_flags != 0 {
                return Err(Errno::EINVAL.into());
            }
            Vec::new()
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if !vectors.is_empty() || matches!(iocb.opcode, PREADV | PWRITEV) {
        const KNOWN: u32 = 0x1f;
        if iocb.rw_flags & !KNOWN != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let allowed = if reads { file.flags().readable() } else { file.flags().writable() };
        if !allowed {
            return Err(Errno::EBADF.into());
        }
        if file.ops().seekable() && iocb.offset < 0 {
            return Err(Errno::EINVAL.into());
        }
    }
    if iocb.opcode == FSYNC || iocb.opcode == FDSYNC {
        // What cannot be synced says so at once.
        if file.ops().wait_queue().is_some() {
            return Err(Errno::EINVAL.into());
        }
    }
    Ok(Request {
        context: context.clone(),
        number,
        event: IoEvent { data: iocb.data, obj: at, res: 0, res2: 0 },
        tell,
        file,
        mm: (!vectors.is_empty()).then(|| cx.mm()),
        opcode: iocb.opcode,
        vectors,
        offset: u64::try_from(iocb.offset).unwrap_or(0),
        credentials: cx.credentials.clone(),
        limit: cx.process().limit(kernel::limits::resource::FSIZE),
        flags: iocb.rw_flags,
    })
}

/// Begins a request: what may sleep works on a thread of its own, all else is done at once.
async fn start(cx: &mut Cx<'_>, request: Request, buf: u64) {
    if request.opcode == POLL {
        poll(request, Events::from_bits_truncate(buf as u32));
    } else if request.file.ops().may_sleep() {
        if let Some(result) = request.run_at_once() {
            return request.finish(result);
        }
        executor::spawn(async move {
            executor::blocking(move || request.finish(request.run())).await;
        });
    } else if request.file.ops().seekable() {
        if request.vectors.iter().map(|vector| vector.len).sum::<u64>() > MUCH {
            executor::step_aside().await;
        }
        request.finish(request.run());
    } else {
        // A pipe or socket blocks the submitter, as on Linux.
        let nonblock = request.file.flags().contains(OpenFlags::NONBLOCK) || request.flags & RWF_NOWAIT != 0;
        let events =
            if matches!(request.opcode, PREAD | PREADV) { Events::READABLE } else { Events::WRITABLE };
        let file = request.file.clone();
        let result = cx
            .file_op(&file, events, nonblock, |_, _| match request.run() {
                Err(Errno::EAGAIN) => Err(Errno::EAGAIN.into()),
                done => Ok(done),
            })
            .await;
        let result = match result {
            Ok(done) => done,
            Err(SysError::Errno(errno)) => Err(errno),
            Err(SysError::Interrupted(_)) => Err(Errno::EINTR),
        };
        request.finish(result);
    }
}

/// `IOCB_CMD_POLL`: one event when the file is ready.
fn poll(request: Request, wanted: Events) {
    let waiter = Waiter::new();
    let cancelled = Arc::new(AtomicBool::new(false));
    let (end, alarm) = (cancelled.clone(), waiter.clone());
    request.context.cancellable(
        request.number,
        request.event.obj,
        Box::new(move || {
            end.store(true, Ordering::SeqCst);
            executor::Observer::notify(&*alarm, Events::IN);
        }),
    );
    executor::spawn(async move {
        let wanted = wanted | Events::ALWAYS;
        let queue = request.file.ops().wait_queue();
        let ready = loop {
            waiter.reset();
            let _listener = queue.as_ref().map(|queue| queue.listen(&waiter, wanted, false));
            let ready = request.file.ops().poll(&request.file) & wanted;
            if !ready.is_empty() || cancelled.load(Ordering::SeqCst) || queue.is_none() {
                break ready;
            }
            waiter.wait().await;
        };
        request.finish(Ok(i64::from(ready.bits())));
    });
}

impl Request {
    fn finish(&self, result: Result<i64, Errno>) {
        let res = result.unwrap_or_else(Errno::to_ret);
        self.context.finish(self.number, IoEvent { res, ..self.event }, self.tell.as_ref());
    }

    /// The work itself; it may sleep.
    fn run(&self) -> Result<i64, Errno> {
        match self.opcode {
            FSYNC | FDSYNC => {
                self.file.ops().fsync(&self.file, self.opcode == FDSYNC)?;
                Ok(0)
            }
            PREAD | PREADV => self.transfer(|pos, addr, len| self.read(pos, addr, len, false)),
            _ => {
                let done = self.transfer(|pos, addr, len| self.write(pos, addr, len))?;
                if done > 0 && self.file.ops().seekable() {
                    vfs::ops::attributes::written(&self.credentials, self.file.inode().as_ref())?;
                }
                if self.flags & (RWF_DSYNC | RWF_SYNC) != 0 {
                    self.file.ops().fsync(&self.file, self.flags & RWF_SYNC == 0)?;
                }
                Ok(done)
            }
        }
    }

    /// What needs no device, as far as is known, as read(2) and write(2) do: Linux, too, moves what goes through the page
    /// cache before it answers the submitter.
    fn run_at_once(&self) -> Option<Result<i64, Errno>> {
        let reads = matches!(self.opcode, PREAD | PREADV);
        let waits = self.flags & (RWF_DSYNC | RWF_SYNC) != 0 || self.file.flags().contains(OpenFlags::DSYNC);
        let total = self.vectors.iter().map(|vector| vector.len).sum::<u64>();
        if self.vectors.is_empty() || !reads && waits || total > CHUNK as u64 {
            return None;
        }
        let patience =
            if reads { Patience::that_reads(&self.file) } else { Patience::that_writes(&self.file) }?;
        let result = match reads {
            true => self.transfer(|pos, addr, len| self.read(pos, addr, len, true)),
            false => self.run(),
        };
        patience.learn(&self.file);
        // The rest of a part is the device's, or there is none.
        let whole = !reads || result.is_ok_and(|done| done.cast_unsigned() == total);
        whole.then_some(result)
    }

    /// Moves piece after piece until one is short; an error only if nothing was moved.
    fn transfer(&self, step: impl Fn(u64, u64, usize) -> Result<usize, Errno>) -> Result<i64, Errno> {
        let mut done = 0u64;
        for vector in &self.vectors {
            let mut at = 0;
            while at < vector.len {
                let len = (vector.len - at).min(CHUNK as u64) as usize;
                let pos = self.offset.checked_add(done).ok_or(Errno::EINVAL)?;
                let addr = vector.base.checked_add(at).ok_or(Errno::EFAULT)?;
                let n = match step(pos, addr, len) {
                    Ok(n) => n,
                    Err(_) if done > 0 => return Ok(done as i64),
                    Err(errno) => return Err(errno),
                };
                done += n as u64;
                at += n as u64;
                if n < len {
                    return Ok(done as i64);
                }
            }
        }
        Ok(done as i64)
    }

    fn mm(&self) -> Result<&Arc<Mm>, Errno> {
        self.mm.as_ref().ok_or(Errno::EFAULT)
    }

    fn read(&self, pos: u64, addr: u64, len: usize, at_once: bool) -> Result<usize, Errno> {
        let mut buf = vec![0; len];
        let ops = self.file.ops();
        let n = if at_once {
            ops.read_at_once(&self.file, &mut buf, pos)
        } else {
            ops.read(&self.file, &mut buf, pos)
        }?;
        let data = buf.get(..n).unwrap_or_default();
        if self.mm()?.space.write(addr, data)? == n { Ok(n) } else { Err(Errno::EFAULT) }
    }

    fn write(&self, pos: u64, addr: u64, len: usize) -> Result<usize, Errno> {
        let mut buf = vec![0; len];
        if self.mm()?.space.read(addr, &mut buf)? != len {
            return Err(Errno::EFAULT);
        }
        let ops = self.file.ops();
        if !ops.seekable() {
            return ops.write(&self.file, &buf, 0);
        }
        if self.file.flags().contains(OpenFlags::APPEND) || self.flags & RWF_APPEND != 0 {
            return Ok(ops.append(&self.file, &buf)?.0);
        }
        let room = self.limit.checked_sub(pos).filter(|room| *room > 0).ok_or(Errno::EFBIG)?;
        buf.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        ops.write(&self.file, &buf, pos)
    }
}

/// io_getevents(2).
pub async fn io_getevents(
    cx: &mut Cx<'_>,
    id: u64,
    least: i64,
    most: i64,
    out: Ptr,
    timeout: Ptr,
) -> SysResult {
    match events(cx, id, least, most, out, timeout).await {
        // Never restarted.
        Err(SysError::Interrupted(_)) if !cx.thread.is_dying() => Err(Errno::EINTR.into()),
        done => done,
    }
}

/// `struct __aio_sigset`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct AioSigset {
    mask: u64,
    size: u64,
}

/// io_pgetevents(2).
pub async fn io_pgetevents(
    cx: &mut Cx<'_>,
    id: u64,
    least: i64,
    most: i64,
    out: Ptr,
    timeout: Ptr,
    mask: Ptr,
) -> SysResult {
    if !mask.is_null() {
        let mask: AioSigset = cx.read(mask)?;
        crate::poll::wait_mask(cx, Ptr(mask.mask), mask.size)?;
    }
    events(cx, id, least, most, out, timeout).await
}

async fn events(cx: &mut Cx<'_>, id: u64, least: i64, most: i64, out: Ptr, timeout: Ptr) -> SysResult {
    let timeout = if timeout.is_null() { None } else { Some(cx.read::<Timespec>(timeout)?.to_nanos()?) };
    let context = cx.mm().aio.get(id)?;
    if least < 0 || most < least {
        return Err(Errno::EINVAL.into());
    }
    // No more than a context can ever hold.
    let (least, most) = (least as usize, usize::try_from(most).unwrap_or(0).min(1 << 16));
    let least = least.min(most);
    let mut got: Vec<IoEvent> = Vec::new();
    context.take(most, &mut got);
    let mut interrupted = None;
    if got.len() < least && timeout != Some(0) {
        let deadline = timeout.map(|ns| executor::monotonic_ns().saturating_add(ns));
        let waited = cx
            .wait_until(&context.queue, Events::READABLE, deadline, Restart::Never, |_| {
                context.take(most, &mut got);
                if context.is_destroyed() && got.is_empty() {
                    return Err(Errno::EINVAL.into());
                }
                if got.len() >= least { Ok(()) } else { Err(Errno::EAGAIN.into()) }
            })
            .await;
        interrupted = waited.err();
    }
    match interrupted {
        Some(err) if got.is_empty() => return Err(err),
        _ => {}
    }
    // Taken already: a bad address loses them, as on Linux.
    cx.write_bytes(out, got.as_bytes())?;
    Ok(got.len() as i64)
}

/// io_cancel(2): only polls can be; the event comes all the same.
pub fn io_cancel(cx: &mut Cx<'_>, id: u64, iocb: Ptr, _result: Ptr) -> SysResult {
    let key: u32 = cx.read(iocb.add(8)?)?;
    let context = cx.mm().aio.get(id)?;
    if key != 0 {
        return Err(Errno::EINVAL.into());
    }
    Err(if context.cancel(iocb.0) { Errno::EINPROGRESS } else { Errno::EINVAL }.into())
}
