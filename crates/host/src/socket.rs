//! Sockets by raw addresses, options and control messages, as guests give them: socket(7).
//!
//! All sockets are non-blocking and close-on-exec. Who may use which option is decided by the caller.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_abi::Errno;
use linux_abi::socket::SOCKADDR_MAX;

type Result<T> = core::result::Result<T, Errno>;

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// The value of a call, repeated while it is interrupted.
fn retry(mut call: impl FnMut() -> isize) -> Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => match last_errno() {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}

fn sockaddr(address: &[u8]) -> (*const libc::sockaddr, libc::socklen_t) {
    (address.as_ptr().cast(), address.len().min(SOCKADDR_MAX) as libc::socklen_t)
}

/// socket(2).
pub fn open(family: u16, kind: u32, protocol: i32) -> Result<OwnedFd> {
    let kind = kind.cast_signed() | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = retry(|| unsafe { libc::socket(i32::from(family), kind, protocol) } as isize)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// bind(2).
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    let (at, len) = sockaddr(address);
    // SAFETY: `at` points to `len` readable bytes.
    retry(|| unsafe { libc::bind(fd.as_raw_fd(), at, len) } as isize).map(|_| ())
}

/// connect(2); `EINPROGRESS`.
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    let (at, len) = sockaddr(address);
    // SAFETY: `at` points to `len` readable bytes.
    retry(|| unsafe { libc::connect(fd.as_raw_fd(), at, len) } as isize).map(|_| ())
}

/// listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // SAFETY: no pointers.
    retry(|| unsafe { libc::listen(fd.as_raw_fd(), backlog) } as isize).map(|_| ())
}

/// accept4(2); `EAGAIN`.
pub fn accept(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null addresses ask for none.
    let accept =
        || unsafe { libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    let fd = retry(|| accept() as isize)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// shutdown(2) with `SHUT_RD`, `SHUT_WR` or `SHUT_RDWR`.
pub fn shutdown(fd: BorrowedFd<'_>, how: i32) -> Result<()> {
    // SAFETY: no pointers.
    retry(|| unsafe { libc::shutdown(fd.as_raw_fd(), how) } as isize).map(|_| ())
}

/// getsockname(2), or getpeername(2) if `peer`.
pub fn name(fd: BorrowedFd<'_>, peer: bool) -> Result<Vec<u8>> {
    let mut address = [0_u8; SOCKADDR_MAX];
    let mut len = SOCKADDR_MAX as libc::socklen_t;
    let at: *mut libc::sockaddr = address.as_mut_ptr().cast();
    let call = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: `at` points to `len` writable bytes; the kernel writes no more.
    retry(|| unsafe { call(fd.as_raw_fd(), at, &raw mut len) } as isize)?;
    Ok(address.get(..len as usize).unwrap_or(&address).to_vec())
}

/// getsockopt(2) with a buffer of `len` bytes, at first as `given`.
pub fn option(fd: BorrowedFd<'_>, level: i32, option: i32, len: usize) -> Result<Vec<u8>> {
    let mut value = vec![0_u8; len];
    let mut size = libc::socklen_t::try_from(len).map_err(|_| Errno::EINVAL)?;
    let at: *mut libc::c_void = value.as_mut_ptr().cast();
    // SAFETY: `at` points to `size` writable bytes; the kernel writes no more.
    retry(|| unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, at, &raw mut size) } as isize)?;
    value.truncate(size as usize);
    Ok(value)
}

/// setsockopt(2). The options that the caller lets through must hold no addresses of memory.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    let at: *const libc::c_void = value.as_ptr().cast();
    // SAFETY: `at` points to `len` readable bytes.
    retry(|| unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, len) } as isize).map(|_| ())
}

/// sendmsg(2); `MSG_DONTWAIT` and `MSG_NOSIGNAL` are added.
pub fn send(fd: BorrowedFd<'_>, data: &[u8], to: Option<&[u8]>, control: &[u8], flags: u32) -> Result<usize> {
    let flags = flags.cast_signed() | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(to) = to {
        let (at, len) = sockaddr(to);
        header.msg_name = at.cast_mut().cast();
        header.msg_namelen = len;
    }
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    // SAFETY: all pointers of the header lead to readable bytes of the lengths given; sendmsg writes to none.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) })
}

/// What [`receive`] gave.
#[derive(Debug, Default)]
pub struct Message {
    /// Length of the message: more than the buffer if it was cut and `MSG_TRUNC` asked for.
    pub length: usize,
    /// `MSG_*` flags.
    pub flags: u32,
    /// The sender, empty if there is none.
    pub from: Vec<u8>,
    /// Control messages, as in cmsg(3).
    pub control: Vec<u8>,
}

/// recvmsg(2) on a socket of a family that carries no descriptors; `MSG_DONTWAIT` is added. Not `MSG_CMSG_CLOEXEC`, which
/// packet(7) sockets refuse.
pub fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], control_room: usize, flags: u32) -> Result<Message> {
    let flags = flags.cast_signed() | libc::MSG_DONTWAIT;
    let mut from = [0_u8; SOCKADDR_MAX];
    let mut control = vec![0_u8; control_room];
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_name = from.as_mut_ptr().cast();
    header.msg_namelen = SOCKADDR_MAX as libc::socklen_t;
    if control_room > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control_room;
    }
    // SAFETY: all pointers of the header lead to writable bytes of the lengths given.
    let length = retry(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })?;
    control.truncate(if control_room > 0 { header.msg_controllen } else { 0 });
    let from = from.get(..header.msg_namelen as usize).unwrap_or(&from).to_vec();
    Ok(Message { length, flags: header.msg_flags.cast_unsigned(), from, control })
}

/// Bytes of a control message with credentials, which leave no room for another one behind them.
const CREDENTIALS: usize = 32;

/// recvmsg(2) on a unix(7) socket of the host, which takes no descriptors: those that came are gone, and `MSG_CTRUNC` is
/// among the flags. With `credentials` (`SO_PASSCRED` is on) the sender's: process, user and group id.
pub fn receive_local(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    credentials: bool,
    flags: u32,
) -> Result<(Message, Option<[u32; 3]>)> {
    let flags = flags | libc::MSG_CMSG_CLOEXEC.cast_unsigned();
    let mut message = receive(fd, buf, if credentials { CREDENTIALS } else { 0 }, flags)?;
    let control = std::mem::take(&mut message.control);
    let word = |at: usize| {
        control.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
    };
    let mut sender = None;
    if word(8).cast_signed() == libc::SOL_SOCKET {
        match word(12).cast_signed() {
            libc::SCM_CREDENTIALS if control.len() >= 28 => sender = Some([word(16), word(20), word(24)]),
            libc::SCM_RIGHTS => {
                // Where the host sends no credentials there was room for some.
                let count = (word(0) as usize).min(control.len()).saturating_sub(16) / 4;
                for index in 0..count {
                    // SAFETY: a fresh descriptor that the host has just made, which nobody else owns.
                    drop(unsafe { OwnedFd::from_raw_fd(word(16 + 4 * index).cast_signed()) });
                }
                message.flags |= libc::MSG_CTRUNC.cast_unsigned();
            }
            _ => {}
        }
    }
    message.flags &= !libc::MSG_CMSG_CLOEXEC.cast_unsigned();
    Ok((message, sender))
}

/// recv(2) with `MSG_PEEK` and `MSG_DONTWAIT`: what waits in a stream.
pub fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the buffer is writable for its length.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) })
}

/// recv(2) with `MSG_TRUNC` and `MSG_DONTWAIT`: throws away what waits in a TCP stream, up to `count` bytes.
pub fn discard(fd: BorrowedFd<'_>, count: usize) -> Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // The host copies nothing there; if it did, it would find room.
    let mut room = Vec::<u8>::with_capacity(count);
    // SAFETY: the buffer has room for that many bytes, which are never read.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), count, flags) })
}

/// Bytes of `struct ifreq`.
pub const IFREQ: usize = 40;

/// How many bytes a socket ioctl of the list reads and writes; none for any other.
pub fn ioctl_size(cmd: u32) -> Option<usize> {
    match cmd {
        // FIONREAD, SIOCOUTQ, SIOCATMARK.
        0x541b | 0x5411 | 0x8905 => Some(4),
        // SIOCGIFNAME, -FLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MTU, -HWADDR, -INDEX, -TXQLEN.
        0x8910 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d | 0x8921 | 0x8927 | 0x8933 | 0x8942 => {
            Some(IFREQ)
        }
        _ if changes(cmd) => Some(IFREQ),
        _ => None,
    }
}

/// Whether a socket ioctl of the list changes an interface, for which the host wants `CAP_NET_ADMIN`.
pub fn changes(cmd: u32) -> bool {
    // SIOCSIFFLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MTU, -NAME, -HWADDR, -TXQLEN; SIOCDIFADDR.
    matches!(
        cmd,
        0x8914 | 0x8916 | 0x8918 | 0x891a | 0x891c | 0x891e | 0x8922 | 0x8923 | 0x8924 | 0x8943 | 0x8936
    )
}

/// Whether it is SIOCADDRT or SIOCDELRT.
pub fn changes_routes(cmd: u32) -> bool {
    matches!(cmd, 0x890b | 0x890c)
}

/// Bytes of `struct rtentry`, and where it has the address of an interface's name.
pub const RTENTRY: usize = 120;
const RT_DEV: usize = 88;

/// Where a `struct rtentry` says that the name of its interface is; 0 for none.
pub fn route_device(entry: &[u8; RTENTRY]) -> u64 {
    entry.get(RT_DEV..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_ne_bytes(*b))
}

/// SIOCADDRT or SIOCDELRT by way of the interface with this name; what the entry has for an address is not used.
pub fn change_route(
    fd: BorrowedFd<'_>,
    cmd: u32,
    mut entry: [u8; RTENTRY],
    mut name: Option<[u8; 16]>,
) -> Result<()> {
    if !changes_routes(cmd) {
        return Err(Errno::ENOTTY);
    }
    let at = name.as_mut().map_or(0, |name| {
        name[15] = 0;
        name.as_mut_ptr() as u64
    });
    entry[RT_DEV..RT_DEV + 8].copy_from_slice(&at.to_ne_bytes());
    // SAFETY: `entry` is as long as struct rtentry, and its only pointer is null or leads to a C string that outlives
    // the call.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(cmd), entry.as_mut_ptr()) } as isize)
        .map(|_| ())
}

/// A socket ioctl of the list; `ENOTTY` for any other.
pub fn ioctl(fd: BorrowedFd<'_>, cmd: u32, data: &mut [u8]) -> Result<()> {
    let size = ioctl_size(cmd).ok_or(Errno::ENOTTY)?;
    let at = data.get_mut(..size).ok_or(Errno::EINVAL)?.as_mut_ptr();
    // SAFETY: the commands of the list read and write `size` bytes and hold no pointers.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(cmd), at) } as isize).map(|_| ())
}

/// SIOCGIFCONF: the interfaces' `struct ifreq`s, at most `room` bytes.
pub fn interfaces(fd: BorrowedFd<'_>, room: usize) -> Result<Vec<u8>> {
    const SIOCGIFCONF: libc::c_ulong = 0x8912;
    let mut list = vec![0_u8; room];
    let mut conf = IfConf { len: i32::try_from(room).map_err(|_| Errno::EINVAL)?, list: list.as_mut_ptr() };
    // SAFETY: `conf` has the layout of struct ifconf and points to `len` writable bytes.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGIFCONF, &raw mut conf) } as isize)?;
    list.truncate(usize::try_from(conf.len).unwrap_or(0));
    Ok(list)
}

/// How many bytes a question of SIOCETHTOOL reads and writes, its own number first; none for any other.
pub fn ethtool_size(command: u32) -> Option<usize> {
    match command {
        // GLINK, GRXCSUM, GTXCSUM, GSG, GTSO, GUFO, GGSO, GFLAGS, GGRO: struct ethtool_value.
        0xa | 0x14 | 0x16 | 0x18 | 0x1e | 0x21 | 0x23 | 0x25 | 0x2b => Some(8),
        // GSET, GET_TS_INFO.
        0x1 | 0x41 => Some(44),
        // GDRVINFO.
        0x3 => Some(196),
        _ => None,
    }
}

/// A question of SIOCETHTOOL about the interface with this name; `EOPNOTSUPP` for any other.
pub fn ethtool(fd: BorrowedFd<'_>, name: [u8; 16], data: &mut [u8]) -> Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let command = data.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
    let size = ethtool_size(command).ok_or(Errno::EOPNOTSUPP)?;
    let at = data.get_mut(..size).ok_or(Errno::EINVAL)?.as_mut_ptr();
    let mut request = EthtoolRequest { name, at, rest: [0; 16] };
    // SAFETY: `request` has the layout of struct ifreq and points to as many writable bytes as the command uses.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL, &raw mut request) } as isize).map(|_| ())
}

#[repr(C)]
struct EthtoolRequest {
    name: [u8; 16],
    at: *mut u8,
    rest: [u8; 16],
}

#[repr(C)]
struct IfConf {
    len: i32,
    list: *mut u8,
}

#[cfg(test)]
mod tests {
    use super::{bind, name, open, receive, send};
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_of_a_local_socket_are_dropped() {
        use super::{receive_local, set_option};
        use std::os::fd::AsRawFd;
        for credentials in [false, true] {
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            if credentials {
                set_option(b.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, &1_i32.to_ne_bytes()).unwrap();
            }
            let rights = [
                &20_u64.to_ne_bytes()[..],
                &libc::SOL_SOCKET.to_ne_bytes(),
                &libc::SCM_RIGHTS.to_ne_bytes(),
                &a.as_raw_fd().to_ne_bytes(),
                &[0; 4],
            ]
            .concat();
            // Room is made whether or not the host tells of the sender.
            for room in [credentials, true] {
                send(a.as_fd(), b"x", None, &rights, 0).unwrap();
                let (message, sender) = receive_local(b.as_fd(), &mut [0; 8], room, 0).unwrap();
                assert_eq!(message.length, 1);
                assert_ne!(message.flags & libc::MSG_CTRUNC as u32, 0);
                assert_eq!(sender.map(|s| s[0]), credentials.then(std::process::id));
            }
            // No copy of this end is left.
            drop(a);
            let (end, _) = receive_local(b.as_fd(), &mut [0; 8], false, 0).unwrap();
            assert_eq!(end.length, 0);
        }
    }

    #[test]
    fn a_datagram_comes_with_its_sender() {
        let address = [2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let (a, b) = (open(2, 2, 0).unwrap(), open(2, 2, 0).unwrap());
        for fd in [&a, &b] {
            bind(fd.as_fd(), &address).unwrap();
        }
        let (from, to) = (name(a.as_fd(), false).unwrap(), name(b.as_fd(), false).unwrap());
        assert_eq!(send(a.as_fd(), b"hello", Some(&to), &[], 0), Ok(5));
        let mut buf = [0; 3];
        let message = receive(b.as_fd(), &mut buf, 64, 0x20).unwrap();
        assert_eq!((message.length, message.from, &buf), (5, from, b"hel"));
    }
}
