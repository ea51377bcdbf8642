//! Memory calls that the kernel answers: mmap(2) of files, brk(2). The rest is native, see `platform`.

use kernel::mm::FileMapping;
use linux_abi::Errno;
use platform::NativeOp;
use vfs::{MapRequest, MapSource, MountFlags};

use crate::context::Resume;
use crate::{Cx, SysError, SysResult};

/// `MAP_*` and `PROT_*` of mmap(2).
#[expect(missing_docs, reason = "named in mmap(2)")]
pub mod flag {
    pub const PROT_READ: u32 = 1;
    pub const PROT_WRITE: u32 = 2;
    pub const PROT_EXEC: u32 = 4;
    pub const MAP_SHARED: u32 = 1;
    pub const MAP_PRIVATE: u32 = 2;
    pub const MAP_SHARED_VALIDATE: u32 = 3;
    pub const MAP_FIXED: u32 = 0x10;
    pub const MAP_ANONYMOUS: u32 = 0x20;
    pub const MAP_GROWSDOWN: u32 = 0x100;
    pub const MAP_DENYWRITE: u32 = 0x800;
    pub const MAP_EXECUTABLE: u32 = 0x1000;
    pub const MAP_LOCKED: u32 = 0x2000;
    pub const MAP_NORESERVE: u32 = 0x4000;
    pub const MAP_POPULATE: u32 = 0x8000;
    pub const MAP_NONBLOCK: u32 = 0x1_0000;
    pub const MAP_STACK: u32 = 0x2_0000;
    pub const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;
}

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// mmap(2): anonymous mappings that the filter did not let through, and files.
pub async fn mmap(
    cx: &mut Cx<'_>,
    addr: u64,
    len: u64,
    prot: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> SysResult {
    use flag::{MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE};
    let file = if flags & MAP_ANONYMOUS == 0 { Some(crate::path::real_file(cx, fd)?) } else { None };
    if len == 0 || !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    let length = len.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    offset.checked_add(length).ok_or(Errno::EOVERFLOW)?;
    let fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
    let addr = if fixed || addr == 0 { addr } else { addr.max(platform::LOWEST_ADDRESS) };
    let shared = match flags & 0xf {
        MAP_SHARED | MAP_SHARED_VALIDATE => true,
        MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    let Some(file) = file else {
        let op = NativeOp::Mmap { addr, len: length, prot, flags, file: None };
        if cx.thread.ptrace.is_active() || cx.kernel().config.strace {
            return cx.native(op).await;
        }
        cx.guest.resume_native(op);
        cx.local.resume = Resume::Done;
        return Ok(0);
    };
    let access = file.flags();
    if !access.readable() || (shared && prot & flag::PROT_WRITE != 0 && !access.writable()) {
        return Err(Errno::EACCES.into());
    }
    if prot & flag::PROT_EXEC != 0 && file.place().mount.has(MountFlags::NOEXEC) {
        return Err(Errno::EPERM.into());
    }
    cx.kernel().posting.mapping(&file);
    let request = MapRequest { offset, length, prot, shared };
    // Old and harmless bits that Linux ignores.
    let flags = flags & !(flag::MAP_DENYWRITE | flag::MAP_EXECUTABLE);
    let (op, named) = match file.ops().mmap(&file, &request)? {
        MapSource::Anonymous => {
            (NativeOp::Mmap { addr, len: length, prot, flags: flags | MAP_ANONYMOUS, file: None }, false)
        }
        // What is on a mount without programs is not mapped as one without asking.
        MapSource::Host { fd, offset, keep: true } if !file.place().mount.has(MountFlags::NOEXEC) => {
            file.set_kept();
            let (file, id) = ((fd, offset), file.id());
            (NativeOp::MmapKept { addr, len: length, prot, flags, file, id }, true)
        }
        MapSource::Host { fd, offset, .. } => {
            (NativeOp::Mmap { addr, len: length, prot, flags, file: Some((fd, offset)) }, true)
        }
    };
    let seen = cx.thread.ptrace.is_active() || cx.kernel().config.strace;
    if let Some(handle) = cx.thread.handle().filter(|_| !seen) {
        if named {
            cx.mm().note_later(cx.thread.tid(), handle, length, offset, &file);
            cx.local.unsettled = true;
        }
        let thread = cx.thread;
        cx.guest.resume_mapping(op, |number| kernel::posting::mapped(thread, fd, &file, number));
        cx.local.resume = Resume::Done;
        return Ok(0);
    }
    let start = cx.native(op).await? as u64;
    if named && (!fixed || start == addr) {
        let end = start.saturating_add(length);
        cx.mm().note_file(FileMapping::new(start, end, offset, &file));
    }
    Ok(start as i64)
}

/// brk(2): returns the new end, or the old one if it cannot be had.
pub async fn brk(cx: &mut Cx<'_>, want: u64) -> SysResult {
    let mm = cx.mm();
    let old = *mm.brk.lock();
    if want < old.start {
        return Ok(old.current as i64);
    }
    let limit = cx.process().limit(kernel::limits::resource::DATA);
    let data = || {
        let layout = mm.layout.read();
        layout.end_data.saturating_sub(layout.start_data)
    };
    if limit != u64::MAX && (want - old.start).saturating_add(data()) > limit {
        return Ok(old.current as i64);
    }
    let from = old.current.next_multiple_of(PAGE);
    let Some(to) = want.checked_next_multiple_of(PAGE) else { return Ok(old.current as i64) };
    let result = if to > from {
        let flags = flag::MAP_PRIVATE | flag::MAP_ANONYMOUS | flag::MAP_FIXED_NOREPLACE;
        let prot = flag::PROT_READ | flag::PROT_WRITE;
        cx.native(NativeOp::Mmap { addr: from, len: to - from, prot, flags, file: None }).await
    } else if to < from {
        cx.native(NativeOp::Munmap { addr: to, len: from - to }).await
    } else {
        Ok(0)
    };
    match result {
        Ok(_) => {
            mm.brk.lock().current = want;
            Ok(want as i64)
        }
        Err(SysError::Errno(_)) => Ok(old.current as i64),
        Err(err) => Err(err),
    }
}
