//! Who is told of input and output of a file: the owner commands of fcntl(2) and ioctl(2), and `O_ASYNC`.

use std::sync::Arc;

use kernel::sigio;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::{FileOwner, OpenFile, OtherwiseOwner, OwnerKind};

use crate::args::Ptr;
use crate::{Cx, SysResult};

const F_SETOWN: u32 = 8;
const F_GETOWN: u32 = 9;
const F_SETSIG: u32 = 10;
const F_GETSIG: u32 = 11;
const F_SETOWN_EX: u32 = 15;
const F_GETOWN_EX: u32 = 16;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
const FIOGETOWN: u32 = 0x8903;
const SIOCGPGRP: u32 = 0x8904;

/// fcntl(F_SETFL), also one bit of it by ioctl(FIONBIO, FIOASYNC). As in Linux `O_ASYNC` stays off where the file has
/// nothing to tell.
pub(crate) fn set_flags(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32, mut flags: OpenFlags) {
    let before = file.flags();
    match file.ops().fasync() {
        None => flags.set(OpenFlags::ASYNC, before.contains(OpenFlags::ASYNC)),
        Some(fasync) if (flags - before).contains(OpenFlags::ASYNC) && file.owner().id == 0 => {
            let (kind, id, born) = match fasync.otherwise {
                OtherwiseOwner::Nobody => (OwnerKind::Process, 0, 0),
                OtherwiseOwner::Caller => (OwnerKind::Process, cx.process().pid(), cx.process().start_ns),
                OtherwiseOwner::Group(id) => (OwnerKind::Group, id, 0),
            };
            set_owner(cx, file, kind, id, born);
        }
        Some(_) => {}
    }
    file.set_flags(flags);
    if (before | flags).contains(OpenFlags::ASYNC) {
        sigio::update(cx.kernel(), file, fd);
    }
}

/// The owner commands of fcntl(2); none for any other. `ESRCH` if there is no such owner, `EINVAL`.
pub(crate) fn fcntl(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    fd: i32,
    cmd: u32,
    arg: u64,
) -> SysResult<Option<i64>> {
    let owner = file.owner();
    match cmd {
        F_SETOWN => set_by_number(cx, file, fd, arg as i32)?,
        F_GETOWN => return Ok(Some(i64::from(number(owner)))),
        F_SETSIG => {
            if arg > 64 {
                return Err(Errno::EINVAL.into());
            }
            file.set_owner_signal(arg as i32);
        }
        F_GETSIG => return Ok(Some(i64::from(file.owner_signal()))),
        F_SETOWN_EX => {
            // `struct f_owner_ex` is a type and an id.
            let [kind, id]: [i32; 2] = cx.read(Ptr(arg))?;
            let kind = match kind {
                0 => OwnerKind::Thread,
                1 => OwnerKind::Process,
                2 => OwnerKind::Group,
                _ => return Err(Errno::EINVAL.into()),
            };
            set(cx, file, fd, kind, id)?;
        }
        F_GETOWN_EX => cx.write(Ptr(arg), &[owner.kind as i32, owner.id])?,
        _ => return Ok(None),
    }
    Ok(Some(0))
}

/// The owner commands of ioctl(2) on sockets; none for any other.
pub(crate) fn ioctl(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    fd: i32,
    cmd: u32,
    arg: u64,
) -> SysResult<Option<i64>> {
    if file.ops_as::<net::SocketFile>().is_none() {
        return Ok(None);
    }
    match cmd {
        FIOSETOWN | SIOCSPGRP => {
            let who: i32 = cx.read(Ptr(arg))?;
            set_by_number(cx, file, fd, who)?;
        }
        FIOGETOWN | SIOCGPGRP => cx.write(Ptr(arg), &number(file.owner()))?,
        _ => return Ok(None),
    }
    Ok(Some(0))
}

/// A process, or a process group as a negative number.
fn number(owner: FileOwner) -> i32 {
    if owner.kind == OwnerKind::Group { owner.id.saturating_neg() } else { owner.id }
}

fn set_by_number(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32, who: i32) -> SysResult<()> {
    match who {
        i32::MIN => Err(Errno::EINVAL.into()),
        who if who < 0 => set(cx, file, fd, OwnerKind::Group, who.saturating_neg()),
        who => set(cx, file, fd, OwnerKind::Process, who),
    }
}

fn set(cx: &Cx<'_>, file: &Arc<OpenFile>, fd: i32, kind: OwnerKind, id: i32) -> SysResult<()> {
    let pids = &cx.kernel().pids;
    // Linux asks only whether the number is anybody's.
    let exists = id == 0 || pids.thread(id).is_ok() || pids.process(id).is_ok() || !pids.group(id).is_empty();
    if !exists {
        return Err(Errno::ESRCH.into());
    }
    let born = match kind {
        OwnerKind::Thread => pids.thread(id).map_or(0, |thread| thread.start_ns),
        OwnerKind::Process => pids.process(id).map_or(0, |process| process.start_ns),
        OwnerKind::Group => 0,
    };
    set_owner(cx, file, kind, id, born);
    sigio::update(cx.kernel(), file, fd);
    Ok(())
}

fn set_owner(cx: &Cx<'_>, file: &OpenFile, kind: OwnerKind, id: i32, born: u64) {
    file.set_owner(FileOwner { kind, id, born, uid: cx.credentials.uid, euid: cx.credentials.euid });
}
