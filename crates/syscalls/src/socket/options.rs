//! getsockopt(2), setsockopt(2).

use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, SOL_SOCKET, so};
use linux_abi::time::Timeval;
use zerocopy::{FromBytes, IntoBytes};

use super::{caller, socket_of};
use crate::args::Ptr;
use crate::{Cx, SysError, SysResult};

/// The most bytes of an option's value.
const MAX: usize = 64 << 10;
/// `SO_RCVTIMEO_NEW`, `SO_SNDTIMEO_NEW`: the same as the old ones on 64 bits.
const RCVTIMEO_NEW: i32 = 66;
const SNDTIMEO_NEW: i32 = 67;

/// getsockopt(2).
pub fn getsockopt(cx: &mut Cx<'_>, fd: i32, level: i32, name: i32, value_at: Ptr, len_at: Ptr) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let len: i32 = cx.read(len_at)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(MAX);
    let mut value = match (level, name) {
        (SOL_SOCKET, so::RCVTIMEO | RCVTIMEO_NEW | so::SNDTIMEO | SNDTIMEO_NEW) => {
            let timeouts = *net::file::of(&file)?.timeouts().lock();
            let one =
                if matches!(name, so::RCVTIMEO | RCVTIMEO_NEW) { timeouts.receive } else { timeouts.send };
            Timeval::from_nanos(one.unwrap_or(0)).as_bytes().to_vec()
        }
        (SOL_SOCKET, so::PEERPIDFD) if socket.kind().0 == AF_UNIX => {
            if len < 4 {
                return Err(Errno::EINVAL.into());
            }
            // The pid is the first field of SO_PEERCRED; none without a peer.
            let peer = net::socket::int_option(&socket.option(SOL_SOCKET, so::PEERCRED, 12)?)?;
            if peer <= 0 {
                return Err(Errno::ENODATA.into());
            }
            let fd = match crate::pidfd::pidfd_open(cx, peer, 0) {
                Err(SysError::Errno(Errno::ESRCH)) => return Err(Errno::EINVAL.into()),
                fd => fd?,
            };
            (fd as i32).to_ne_bytes().to_vec()
        }
        _ => match socket.option(level, name, len) {
            Err(Errno::ENOPROTOOPT) => {
                cx.kernel().note_missing(&format!("getsockopt of level {level}, option {name}"));
                return Err(Errno::ENOPROTOOPT.into());
            }
            value => value?,
        },
    };
    value.truncate(len);
    cx.write_bytes(value_at, &value)?;
    cx.write(len_at, &(value.len() as u32))?;
    Ok(0)
}

/// setsockopt(2).
pub fn setsockopt(cx: &mut Cx<'_>, fd: i32, level: i32, name: i32, value_at: Ptr, len: i32) -> SysResult {
    let (file, socket) = socket_of(cx, fd)?;
    let len = usize::try_from(len).ok().filter(|n| *n <= MAX).ok_or(Errno::EINVAL)?;
    let value = cx.read_bytes(value_at, len)?;
    if level == SOL_SOCKET && matches!(name, so::RCVTIMEO | RCVTIMEO_NEW | so::SNDTIMEO | SNDTIMEO_NEW) {
        let (time, _) = Timeval::read_from_prefix(&value).map_err(|_| Errno::EINVAL)?;
        let nanos = time.to_nanos().map_err(|_| Errno::EDOM)?;
        let timeout = (nanos != 0).then_some(nanos);
        let mut timeouts = net::file::of(&file)?.timeouts().lock();
        if matches!(name, so::RCVTIMEO | RCVTIMEO_NEW) {
            timeouts.receive = timeout;
        } else {
            timeouts.send = timeout;
        }
        return Ok(0);
    }
    match socket.set_option(&caller(cx), level, name, &value) {
        Err(Errno::ENOPROTOOPT) => {
            cx.kernel().note_missing(&format!("setsockopt of level {level}, option {name}"));
            Err(Errno::ENOPROTOOPT.into())
        }
        done => Ok(done.map(|()| 0)?),
    }
}
