//! Shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::Capability;
use kernel::ipc::perm::{READ, WRITE};
use kernel::ipc::shm::{Maker, Segment};
use kernel::mm::FileMapping;
use linux_abi::Errno;
use linux_abi::ipc::shm::{SHM_EXEC, SHM_HUGETLB, SHM_RDONLY, SHM_REMAP, SHM_RND};
use linux_abi::ipc::{IPC_CREAT, ShmInfo, ShmLimits, ShmidDs, ctl};
use platform::NativeOp;
use vfs::{MapRequest, MapSource};

use crate::args::Ptr;
use crate::mm::{PAGE, flag};
use crate::{Cx, SysError, SysResult};

/// shmget(2).
pub fn shmget(cx: &mut Cx<'_>, key: i32, size: u64, flags: i32) -> SysResult {
    if flags & SHM_HUGETLB != 0 && flags & IPC_CREAT != 0 {
        // As on a Linux whose pool of huge pages is empty.
        let may = cx.credentials.capable(Capability::IPC_LOCK);
        return Err(if may { Errno::ENOMEM } else { Errno::EPERM }.into());
    }
    let ipc = cx.ipc()?;
    let maker = Maker { key, size, flags, creds: &cx.credentials, pid: cx.process().pid() };
    Ok(i64::from(ipc.namespace.shmget(&maker)?))
}

/// shmat(2): an announced mapping of the segment's file.
pub async fn shmat(cx: &mut Cx<'_>, id: i32, addr: u64, flags: i32) -> SysResult {
    let mut addr = addr;
    if addr != 0 {
        if !addr.is_multiple_of(PAGE) {
            if flags & SHM_RND == 0 {
                return Err(Errno::EINVAL.into());
            }
            addr -= addr % PAGE;
            if addr == 0 && flags & SHM_REMAP != 0 {
                return Err(Errno::EINVAL.into());
            }
        }
    } else if flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (mut prot, mut wanted) = (flag::PROT_READ, READ);
    if flags & SHM_RDONLY == 0 {
        prot |= flag::PROT_WRITE;
        wanted |= WRITE;
    }
    if flags & SHM_EXEC != 0 {
        prot |= flag::PROT_EXEC;
        wanted |= 0o111;
    }
    let ipc = cx.ipc()?;
    let segment = ipc.namespace.shm.get(id)?;
    segment.state.lock().perm.check(&cx.credentials, wanted)?;
    let file = if flags & SHM_RDONLY == 0 { segment.writable.clone() } else { segment.readable.clone() };
    let length = segment.size.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    // Counted before it is there, so that a removal leaves it.
    let attachment = segment.attach(&ipc.namespace, ipc.shm.pid());
    let MapSource::Host { fd, offset, .. } =
        file.ops().mmap(&file, &MapRequest { offset: 0, length, prot, shared: true })?
    else {
        return Err(Errno::ENOMEM.into());
    };
    let fixed = match addr {
        0 => 0,
        _ if flags & SHM_REMAP != 0 => flag::MAP_FIXED,
        _ => flag::MAP_FIXED_NOREPLACE,
    };
    let op =
        NativeOp::Mmap { addr, len: length, prot, flags: flag::MAP_SHARED | fixed, file: Some((fd, offset)) };
    let start = match cx.native(op).await {
        Err(SysError::Errno(Errno::EEXIST)) => return Err(Errno::EINVAL.into()),
        done => done? as u64,
    };
    ipc.shm.insert(start, attachment)?;
    cx.mm().note_file(FileMapping::new(start, start.saturating_add(length), 0, &file));
    Ok(start as i64)
}

/// Where the segment attached at `addr` is mapped still: the guest unmaps without asking.
fn pieces(cx: &Cx<'_>, addr: u64, segment: &Segment) -> SysResult<Vec<(u64, u64)>> {
    let request = MapRequest { offset: 0, length: PAGE, prot: flag::PROT_READ, shared: true };
    let file = &segment.readable;
    let MapSource::Host { fd, .. } = file.ops().mmap(file, &request)? else { return Ok(Vec::new()) };
    let inode = rustix::fs::fstat(&*fd).map_err(|e| Errno::from_raw(e.raw_os_error()))?.st_ino;
    let host = cx.mm().space.host_pid();
    let maps = host::proc_fs::read(&format!("{host}/maps")).map_err(|_| Errno::EINVAL)?;
    let end = addr.saturating_add(segment.size.next_multiple_of(PAGE));
    Ok(maps.lines().filter_map(|line| piece(line, addr, end, inode)).collect())
}

/// The range of a line of the host's maps, if it shows this file where the attachment put it.
fn piece(line: &str, addr: u64, end: u64, inode: u64) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
    let own: u64 = fields.nth(1)?.parse().ok()?;
    (own == inode && from >= addr && to <= end && from - addr == offset).then_some((from, to - from))
}

/// shmdt(2).
pub async fn shmdt(cx: &mut Cx<'_>, addr: u64) -> SysResult {
    let ipc = cx.ipc()?;
    let segment = ipc.shm.get(addr).filter(|_| addr.is_multiple_of(PAGE)).ok_or(Errno::EINVAL)?;
    let pieces = pieces(cx, addr, &segment)?;
    for &(addr, len) in &pieces {
        cx.native(NativeOp::Munmap { addr, len }).await?;
    }
    ipc.shm.remove(addr);
    if pieces.is_empty() { Err(Errno::EINVAL.into()) } else { Ok(0) }
}

/// shmctl(2).
pub fn shmctl(cx: &mut Cx<'_>, id: i32, cmd: i32, buf: Ptr) -> SysResult {
    let ipc = cx.ipc()?;
    let namespace = &ipc.namespace;
    if id < 0 || cmd < 0 {
        return Err(Errno::EINVAL.into());
    }
    let find = || -> SysResult<Arc<Segment>> { Ok(namespace.shm.get(id)?) };
    match cmd {
        ctl::IPC_INFO => {
            let limits = &namespace.limits;
            let shmmni = u64::try_from(limits.shmmni.load(Ordering::Relaxed)).unwrap_or(0);
            let info = ShmLimits {
                shmmax: limits.shmmax.load(Ordering::Relaxed),
                shmmin: 1,
                shmmni,
                shmseg: shmmni,
                shmall: limits.shmall.load(Ordering::Relaxed),
                ..ShmLimits::default()
            };
            cx.write(buf, &info)?;
            Ok(i64::from(namespace.shm.highest()))
        }
        ctl::SHM_INFO => {
            let mut info = ShmInfo { shm_tot: namespace.shm_total_pages(), ..ShmInfo::default() };
            info.used_ids = i32::try_from(namespace.shm.len()).unwrap_or(i32::MAX);
            cx.write(buf, &info)?;
            Ok(i64::from(namespace.shm.highest()))
        }
        ctl::IPC_STAT | ctl::SHM_STAT | ctl::SHM_STAT_ANY => {
            let (full, segment) = if cmd == ctl::IPC_STAT { (0, find()?) } else { namespace.shm.at(id)? };
            if cmd != ctl::SHM_STAT_ANY {
                segment.state.lock().perm.check(&cx.credentials, READ)?;
            }
            cx.write(buf, &segment.stat())?;
            Ok(i64::from(full))
        }
        ctl::IPC_SET => {
            let to: ShmidDs = cx.read(buf)?;
            let segment = find()?;
            let mut state = segment.state.lock();
            state.perm.check_owner(&cx.credentials)?;
            state.perm.set(&to.perm)?;
            state.ctime = (executor::realtime_ns() / 1_000_000_000) as i64;
            Ok(0)
        }
        ctl::IPC_RMID => {
            let segment = find()?;
            segment.state.lock().perm.check_owner(&cx.credentials)?;
            namespace.shm_remove(&segment);
            Ok(0)
        }
        ctl::SHM_LOCK | ctl::SHM_UNLOCK => {
            let segment = find()?;
            if !cx.credentials.capable(Capability::IPC_LOCK) {
                let state = segment.state.lock();
                let owner = [state.perm.uid, state.perm.cuid].contains(&cx.credentials.euid);
                if !owner || cx.process().limit(kernel::limits::resource::MEMLOCK) == 0 {
                    return Err(Errno::EPERM.into());
                }
            }
            // Nothing here can keep the host from swapping a file in memory; what was never locked unlocks.
            if cmd == ctl::SHM_LOCK { Err(Errno::ENOMEM.into()) } else { Ok(0) }
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
