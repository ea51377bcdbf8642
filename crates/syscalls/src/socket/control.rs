//! Control messages between guest and sockets: cmsg(3).

use linux_abi::Errno;
use linux_abi::socket::{MsgFlags, SCM_CREDENTIALS, SCM_MAX_FD, SCM_PIDFD, SCM_RIGHTS, SOL_SOCKET};
use net::{Control, Ucred};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// Size of `struct cmsghdr`.
const HEADER: usize = 16;
/// The most bytes of control messages (/proc/sys/net/core/optmem_max).
const MAX: u64 = 128 << 10;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

/// Reads the control messages of a send; `EINVAL` for malformed ones, `EBADF`, `ENOBUFS` for too many bytes.
pub(super) fn read(cx: &mut Cx<'_>, at: Ptr, len: u64) -> SysResult<Vec<Control>> {
    if at.is_null() || len == 0 {
        return Ok(Vec::new());
    }
    if len > MAX {
        return Err(Errno::ENOBUFS.into());
    }
    let bytes = cx.read_bytes(at, len as usize)?;
    let mut out = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= HEADER {
        let size = rest.first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
        let size = usize::try_from(size).ok().filter(|n| *n >= HEADER && *n <= rest.len());
        let size = size.ok_or(Errno::EINVAL)?;
        let (Some(level), Some(kind)) = (u32_at(rest, 8), u32_at(rest, 12)) else { break };
        let (level, kind) = (level.cast_signed(), kind.cast_signed());
        let data = rest.get(HEADER..size).unwrap_or_default();
        out.push(message(cx, level, kind, data)?);
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(out)
}

fn message(cx: &Cx<'_>, level: i32, kind: i32, data: &[u8]) -> SysResult<Control> {
    match (level, kind) {
        (SOL_SOCKET, SCM_RIGHTS) => {
            if data.len() / 4 > SCM_MAX_FD {
                return Err(Errno::EINVAL.into());
            }
            let fds = data.as_chunks::<4>().0;
            let files = fds.iter().map(|fd| cx.file(i32::from_ne_bytes(*fd)));
            Ok(Control::Rights(files.collect::<SysResult<_>>()?))
        }
        (SOL_SOCKET, SCM_CREDENTIALS) => {
            if data.len() != 12 {
                return Err(Errno::EINVAL.into());
            }
            let word = |i| u32_at(data, i).unwrap_or(0);
            Ok(Control::Credentials(Ucred { pid: word(0).cast_signed(), uid: word(4), gid: word(8) }))
        }
        _ => Ok(Control::Raw { level, kind, data: data.to_vec() }),
    }
}

/// Writes the control messages of a receive, as many as fit; returns the bytes used. Descriptors are installed
/// here; `MSG_CTRUNC` is set for what does not fit.
pub(super) fn write(
    cx: &mut Cx<'_>,
    messages: Vec<Control>,
    at: Ptr,
    room: u64,
    flags: MsgFlags,
    out_flags: &mut MsgFlags,
) -> SysResult<u64> {
    let mut used = 0;
    for message in messages {
        let left = usize::try_from(room.saturating_sub(used)).unwrap_or(usize::MAX);
        if left < HEADER || at.is_null() {
            *out_flags |= MsgFlags::CTRUNC;
            break;
        }
        let (level, kind, mut data) = match message {
            Control::Rights(files) => {
                let fits = (left - HEADER) / 4;
                let mut data = Vec::new();
                let total = files.len();
                let cloexec = flags.contains(MsgFlags::CMSG_CLOEXEC);
                for file in files.into_iter().take(fits) {
                    // At the descriptor limit the rest is lost.
                    let Ok(fd) = cx.install(file, cloexec) else { break };
                    data.extend_from_slice(&(fd as i32).to_ne_bytes());
                }
                if data.len() / 4 < total {
                    *out_flags |= MsgFlags::CTRUNC;
                }
                if data.is_empty() {
                    continue;
                }
                (SOL_SOCKET, SCM_RIGHTS, data)
            }
            Control::Credentials(c) => {
                let data = [c.pid.to_ne_bytes(), c.uid.to_ne_bytes(), c.gid.to_ne_bytes()].concat();
                (SOL_SOCKET, SCM_CREDENTIALS, data)
            }
            // Unlike the others it comes whole or not at all.
            Control::PidFd { .. } if left < HEADER + 4 => {
                *out_flags |= MsgFlags::CTRUNC;
                break;
            }
            Control::PidFd { pid, at } => {
                let fd = pidfd(cx, pid, at).unwrap_or_else(|errno| -errno.raw());
                (SOL_SOCKET, SCM_PIDFD, fd.to_ne_bytes().to_vec())
            }
            Control::Raw { level, kind, data } => (level, kind, data),
        };
        if data.len() > left - HEADER {
            *out_flags |= MsgFlags::CTRUNC;
            data.truncate(left - HEADER);
        }
        let size = HEADER + data.len();
        let mut bytes = (size as u64).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&data);
        cx.write_bytes(at.add(used)?, &bytes)?;
        used = used.saturating_add(size.next_multiple_of(8) as u64).min(room);
    }
    Ok(used)
}

/// A descriptor of the process that had an id at a time, `ESRCH` if it is gone. In the message an errno stands for it, as
/// Linux writes it there.
fn pidfd(cx: &mut Cx<'_>, pid: i32, at: u64) -> Result<i32, Errno> {
    let process = cx.kernel().pids.process(pid).map_err(|_| Errno::ESRCH)?;
    if process.start_ns > at {
        return Err(Errno::ESRCH);
    }
    let fd = cx.install(kernel::pidfd::open(&process, false), true).map_err(|_| Errno::EMFILE)?;
    i32::try_from(fd).map_err(|_| Errno::EMFILE)
}
