//! ioctl(2) of host sockets: questions about interfaces, and changes of them.

use std::os::fd::BorrowedFd;

use identity::Capability;
use linux_abi::Errno;
use vfs::Caller;

use super::Rights;
use crate::Result;

pub(super) const SIOCGIFCONF: u32 = 0x8912;
pub(super) const SIOCETHTOOL: u32 = 0x8946;

/// The ioctls of the lists that `host` keeps, on any socket; `ENOTTY`, `EPERM`.
pub(super) fn ask(
    fd: BorrowedFd<'_>,
    rights: Rights,
    caller: &mut dyn Caller,
    cmd: u32,
    arg: u64,
) -> Result<i64> {
    if cmd == SIOCGIFCONF {
        return interfaces(fd, caller, arg);
    }
    if cmd == SIOCETHTOOL {
        return ethtool(fd, caller, arg);
    }
    let may = rights.admin && caller.credentials().capable(Capability::NET_ADMIN);
    if host::socket::changes_routes(cmd) {
        if !may {
            return Err(Errno::EPERM);
        }
        let mut entry = [0; host::socket::RTENTRY];
        caller.read_memory(arg, &mut entry)?;
        let name = match host::socket::route_device(&entry) {
            0 => None,
            at => Some(device_name(caller, at)?),
        };
        host::socket::change_route(fd, cmd, entry, name)?;
        return Ok(0);
    }
    let changes = host::socket::changes(cmd);
    let size = host::socket::ioctl_size(cmd).ok_or(Errno::ENOTTY)?;
    let mut data = vec![0; size];
    // Requests about an interface carry its name or number; the others only answer.
    if size == host::socket::IFREQ {
        caller.read_memory(arg, &mut data)?;
    }
    if changes && !may {
        return Err(Errno::EPERM);
    }
    host::socket::ioctl(fd, cmd, &mut data)?;
    if !changes {
        caller.write_memory(arg, &data)?;
    }
    Ok(0)
}

/// The name of an interface, at most 15 bytes.
fn device_name(caller: &mut dyn Caller, at: u64) -> Result<[u8; 16]> {
    let mut name = [0; 16];
    for (place, byte) in (at..).zip(name.iter_mut().take(15)) {
        let mut one = [0];
        caller.read_memory(place, &mut one)?;
        if one == [0] {
            break;
        }
        [*byte] = one;
    }
    Ok(name)
}

/// Questions to the driver of an interface: whether it has a link, what it does for the processor.
fn ethtool(fd: BorrowedFd<'_>, caller: &mut dyn Caller, arg: u64) -> Result<i64> {
    let mut request = [0; host::socket::IFREQ];
    caller.read_memory(arg, &mut request)?;
    let (name, rest) = request.split_first_chunk::<16>().ok_or(Errno::EFAULT)?;
    let at = rest.first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
    let mut command = [0; 4];
    caller.read_memory(at, &mut command)?;
    let Some(size) = host::socket::ethtool_size(u32::from_ne_bytes(command)) else {
        let may = caller.credentials().capable(Capability::NET_ADMIN);
        return Err(if may { Errno::EOPNOTSUPP } else { Errno::EPERM });
    };
    let mut data = vec![0; size];
    caller.read_memory(at, &mut data)?;
    // Not what another thread has made of it meanwhile.
    if let Some(first) = data.first_chunk_mut::<4>() {
        *first = command;
    }
    host::socket::ethtool(fd, *name, &mut data)?;
    caller.write_memory(at, &data)?;
    Ok(0)
}

/// SIOCGIFCONF: `struct ifconf` is a length and, at 8, an address (null asks for the length alone).
fn interfaces(fd: BorrowedFd<'_>, caller: &mut dyn Caller, arg: u64) -> Result<i64> {
    const MAX: usize = 64 << 10;
    let mut conf = [0; 16];
    caller.read_memory(arg, &mut conf)?;
    let room = conf.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
    let at = conf.last_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(MAX);
    let list = host::socket::interfaces(fd, if at == 0 { MAX } else { room })?;
    if at != 0 {
        caller.write_memory(at, &list)?;
    }
    caller.write_memory(arg, &i32::try_from(list.len()).unwrap_or(0).to_ne_bytes())?;
    Ok(0)
}
