//! Brings the loopback interface of a new network namespace up: rtnetlink(7).

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `lo` has index 1 in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;

/// Sets `IFF_UP` on `lo`.
pub(crate) fn bring_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0u8; 256];
    let (read, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // struct nlmsghdr, then struct nlmsgerr with a negative errno or 0.
    let error = answer
        .get(16..20)
        .filter(|_| read >= 20)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
    }
    Ok(())
}

/// struct nlmsghdr and struct ifinfomsg of an RTM_NEWLINK.
fn request() -> [u8; 32] {
    let mut message = [0u8; 32];
    message[0..4].copy_from_slice(&32u32.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    message[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    message
}
