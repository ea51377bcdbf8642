//! getsockopt(2), setsockopt(2).

use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, SOL_SOCKET, so};
use linux_abi::time::Timeval;
use net::filter::Filter;
use zerocopy::{FromBytes, IntoBytes};

use super::{caller, socket_of};
use crate::args::Ptr;
use crate::{Cx, SysError, SysResult};

/// The most bytes of an option's value.
const MAX: usize = 64 << 10;
/// `SO_RCVTIMEO_NEW`, `SO_SNDTIMEO_NEW`: the same as the old ones on 64 bits.
const RCVTIMEO_NEW: i32 = 66;
const SNDTIMEO_NEW: i32 = 67;
/// `SO_BPF_EXTENSIONS`: the offsets up to here tell of a packet what is not in it.
const BPF_EXTENSIONS: i32 = 64;

const SOL_PACKET: i32 = 263;
const PACKET_HDRLEN: i32 = 11;

/// `SO_ATTACH_FILTER` with a `struct sock_fprog`: a count, and at 8 where the instructions are.
fn attach_filter(cx: &mut Cx<'_>, filter: &Filter, value: &[u8]) -> SysResult {
    let program = value.first_chunk::<16>().filter(|_| value.len() == 16).ok_or(Errno::EINVAL)?;
    filter.may_change()?;
    let [l0, l1, _, _, _, _, _, _, at @ ..] = *program;
    let (count, at) = (u16::from_ne_bytes([l0, l1]), u64::from_ne_bytes(at));
    if at == 0 || count == 0 || usize::from(count) > bpf::MOST {
        return Err(Errno::EINVAL.into());
    }
    let code = cx.read_bytes(Ptr(at), usize::from(count) * bpf::INSTRUCTION)?;
    filter.attach(&code)?;
    Ok(0)
}

/// `SO_GET_FILTER`, whose lengths count instructions.
fn get_filter(
    cx: &mut Cx<'_>,
    filter: Option<&Filter>,
    room: usize,
    value_at: Ptr,
    len_at: Ptr,
) -> SysResult {
    let code = filter.map(Filter::code).unwrap_or_default();
    let count = code.len() / bpf::INSTRUCTION;
    if room != 0 {
        if room < count {
            return Err(Errno::EINVAL.into());
        }
        cx.write_bytes(value_at, &code)?;
    }
    cx.write(len_at, &u32::try_from(count).unwrap_or(0))?;
    Ok(0)
}

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
        (SOL_SOCKET, so::ATTACH_FILTER) if socket.filter().is_some() => {
            return get_filter(cx, socket.filter(), len, value_at, len_at);
        }
        (SOL_SOCKET, so::LOCK_FILTER) if let Some(filter) = socket.filter() => {
            i32::from(filter.is_locked()).to_ne_bytes().to_vec()
        }
        (SOL_SOCKET, so::BPF_EXTENSIONS) => BPF_EXTENSIONS.to_ne_bytes().to_vec(),
        // The version whose header is asked for stands where its length is written to.
        (SOL_PACKET, PACKET_HDRLEN) => {
            let given = cx.read_bytes(value_at, len.min(4))?;
            socket.option_about(level, name, &given)?
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
    if level == SOL_SOCKET
        && matches!(name, so::ATTACH_FILTER | so::DETACH_FILTER | so::LOCK_FILTER)
        && let Some(filter) = socket.filter()
    {
        return match name {
            so::ATTACH_FILTER => attach_filter(cx, filter, &value),
            _ if len < 4 => Err(Errno::EINVAL.into()),
            so::DETACH_FILTER => Ok(filter.detach().map(|()| 0)?),
            _ => Ok(filter.lock(&value).map(|()| 0)?),
        };
    }
    match socket.set_option(&caller(cx), level, name, &value) {
        Err(Errno::ENOPROTOOPT) => {
            cx.kernel().note_missing(&format!("setsockopt of level {level}, option {name}"));
            Err(Errno::ENOPROTOOPT.into())
        }
        done => Ok(done.map(|()| 0)?),
    }
}
