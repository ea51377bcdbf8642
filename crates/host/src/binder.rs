//! Sockets of a network namespace over which the kernel process has no right: a program of a few pages outside its user
//! namespace, `binder/main.rs`, binds those that it is sent to ports below 1024, and opens raw and packet sockets.

use std::ffi::CString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use linux_abi::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::thread::CapabilitySet;

/// A static ELF program.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/binder"));
/// User and group id of the binder: neither the host's root nor the kernel process's.
const ID: u32 = 65532;
/// How long an answer may take before nobody is asked any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a binder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duties {
    /// It binds sockets to ports below 1024: `CAP_NET_BIND_SERVICE`.
    pub binds: bool,
    /// It opens raw and packet sockets of the network namespace in which it was started: `CAP_NET_RAW`.
    pub opens: bool,
}

impl Duties {
    /// The capabilities that it takes.
    fn capabilities(self) -> CapabilitySet {
        let binds = if self.binds { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
        let opens = if self.opens { CapabilitySet::NET_RAW } else { CapabilitySet::empty() };
        binds | opens
    }
}

/// Both ends of what the binder is asked over: the kernel process's, its own.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for timeout in [rustix::net::sockopt::Timeout::Send, rustix::net::sockopt::Timeout::Recv] {
        rustix::net::sockopt::set_socket_timeout(&ours, timeout, Some(PATIENCE))?;
    }
    Ok((ours, theirs))
}

/// Replaces the calling process by a binder, which is jailed, unprivileged but for its duties and has no descriptor but
/// `channel`. One thread only. Returns only to say why not.
pub fn replace(channel: &OwnedFd, id: &str, duties: Duties) -> io::Error {
    match try_replace(channel, id, duties) {
        Ok(()) => io::Error::other("the binder did not start"),
        Err(error) => error,
    }
}

fn try_replace(channel: &OwnedFd, id: &str, duties: Duties) -> io::Result<()> {
    let image = crate::files::sealed("sallet-binder", IMAGE)?;
    rustix::process::setsid()?;
    crate::jail::set_limits()?;
    crate::namespace::unshare_mounts(false)?;
    crate::mount::enter_empty_root(Path::new("/proc"))?;
    crate::caps::drop_to_through_exec(ID, ID, duties.capabilities())?;
    let id = CString::new(id).map_err(io::Error::other)?;
    let argv = [c"sallet-binder".as_ptr(), id.as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: plain system calls on descriptors that live; the arrays of C strings end with null.
    unsafe {
        // Out of the way of 3 first.
        let image = libc::fcntl(image.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10);
        let channel = libc::fcntl(channel.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10);
        let failed = image < 0
            || libc::dup2(channel, 3) < 0
            || libc::syscall(libc::SYS_close_range, 4u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0
            || libc::syscall(libc::SYS_close_range, 0u32, 2u32, libc::CLOSE_RANGE_CLOEXEC) < 0;
        if !failed {
            libc::syscall(
                libc::SYS_execveat,
                image,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
    }
    Err(io::Error::last_os_error())
}

/// The kernel process's end.
#[derive(Debug)]
pub struct Binder {
    channel: Mutex<Option<OwnedFd>>,
    opens: bool,
}

impl Binder {
    /// Of the first descriptor of [`channel`]; whether the binder opens sockets.
    pub fn new(channel: OwnedFd, opens: bool) -> Binder {
        Binder { channel: Mutex::new(Some(channel)), opens }
    }

    /// Whether it opens raw and packet sockets.
    pub fn opens(&self) -> bool {
        self.opens
    }

    /// bind(2) of an internet socket to an address with a port below 1024; `EACCES` too where nobody answers.
    pub fn bind(&self, socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
        self.ask(Some(socket), address, Errno::EACCES).map(|_| ())
    }

    /// socket(2) for a raw socket of IPv4 or IPv6, or a packet(7) socket; non-blocking and close-on-exec. `EPERM` too where
    /// nobody answers; `EMFILE` where there is no room for one here.
    pub fn open(&self, family: u16, kind: u32, protocol: i32) -> Result<OwnedFd, Errno> {
        let request = [u32::from(family), kind, protocol.cast_unsigned()].map(u32::to_ne_bytes).concat();
        self.ask(None, &request, Errno::EPERM)?.ok_or(Errno::EMFILE)
    }

    fn ask(
        &self,
        socket: Option<BorrowedFd<'_>>,
        request: &[u8],
        unanswered: Errno,
    ) -> Result<Option<OwnedFd>, Errno> {
        let mut channel = self.channel.lock().map_err(|_| unanswered)?;
        match channel.as_ref().map(|channel| ask(channel, socket, request)) {
            Some(Ok(answer)) => answer,
            Some(Err(_)) | None => {
                // A late answer would be taken for that to another question.
                *channel = None;
                Err(unanswered)
            }
        }
    }
}

/// The answer to a request, or that there is none.
fn ask(
    channel: &OwnedFd,
    socket: Option<BorrowedFd<'_>>,
    request: &[u8],
) -> rustix::io::Result<Result<Option<OwnedFd>, Errno>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.into_iter().collect();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(rustix::io::Errno::NOBUFS);
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL)?;
    let mut answer = [0; 4];
    let (count, opened) = crate::connector::receive(channel, &mut answer)?;
    match i32::from_ne_bytes(answer) {
        _ if count != answer.len() => Err(rustix::io::Errno::PIPE),
        0 => Ok(Ok(opened.into_iter().next())),
        errno => Ok(Err(Errno::from_raw(errno))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use super::*;

    /// Of struct sockaddr_in, for 127.0.0.1.
    fn address(port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        [&libc::AF_INET.to_ne_bytes()[..2], &[high, low, 127, 0, 0, 1], &[0; 8]].concat()
    }

    /// A program as it runs, but for the jail and with the capabilities of the tests.
    fn start() -> (OwnedFd, Child) {
        let (ours, theirs) = channel().unwrap();
        let image = crate::files::sealed("binder", IMAGE).unwrap();
        let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
        let channel_fd = theirs.as_raw_fd();
        // SAFETY: dup2(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(channel_fd, 3) {
                3 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        (ours, command.spawn().unwrap())
    }

    #[test]
    fn it_binds_low_ports_and_does_nothing_else() {
        let (ours, mut child) = start();
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixDatagram::unbound().unwrap();
        let asked = |socket: BorrowedFd<'_>, address: &[u8]| {
            ask(&ours, Some(socket), address).unwrap().unwrap_err().raw()
        };
        for _ in 0..2 {
            assert_eq!(asked(bound.as_fd(), &address(2000)), libc::EACCES);
            assert_eq!(asked(bound.as_fd(), &address(0)), libc::EACCES);
            assert_eq!(asked(bound.as_fd(), &[2]), libc::EINVAL);
            assert_eq!(asked(bound.as_fd(), &address(811)[..15]), libc::EINVAL);
            assert_eq!(asked(bound.as_fd(), &[0; 40]), libc::EINVAL);
            assert_eq!(asked(bound.as_fd(), &[2; 12]), libc::EINVAL);
            assert_eq!(asked(unix.as_fd(), &address(811)), libc::EINVAL);
            // What the host says of sockets that have an address: they came there.
            assert_eq!(asked(listener.as_fd(), &address(811)), libc::EINVAL);
        }
        // Without a socket.
        assert_eq!(ask(&ours, None, &address(811)).unwrap().unwrap_err(), Errno::EINVAL);
        let binder = Binder::new(ours, false);
        assert_eq!(binder.bind(bound.as_fd(), &address(2000)), Err(Errno::EACCES));
        drop(binder);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn it_opens_raw_sockets_and_no_others() {
        const INET: u16 = libc::AF_INET as u16;
        const PACKET: u16 = libc::AF_PACKET as u16;
        const RAW: u32 = libc::SOCK_RAW.cast_unsigned();
        let (ours, mut child) = start();
        for length in 0..24 {
            if length != 12 && length != 0 {
                assert_eq!(ask(&ours, None, &vec![2; length]).unwrap().unwrap_err(), Errno::EINVAL);
            }
        }
        let binder = Binder::new(ours, true);
        let others =
            [(INET, 1), (INET, 2), (INET, 3 | libc::SOCK_CLOEXEC.cast_unsigned()), (PACKET, 1), (PACKET, 10)];
        for (family, kind) in others.into_iter().chain([(1, 1), (16, 3), (0, 3), (u16::MAX, 3)]) {
            assert_eq!(binder.open(family, kind, 0).unwrap_err(), Errno::EACCES);
        }
        // Whether the tests run as root or not.
        let may = rustix::thread::capabilities(None).unwrap().effective.contains(CapabilitySet::NET_RAW);
        for (family, kind, protocol) in [(INET, RAW, libc::IPPROTO_ICMP), (PACKET, RAW, 0), (PACKET, 2, 0)] {
            match binder.open(family, kind, protocol) {
                Ok(socket) if may => {
                    let number =
                        |option| crate::socket::option(socket.as_fd(), libc::SOL_SOCKET, option, 4).unwrap();
                    assert_eq!(number(libc::SO_DOMAIN), u32::from(family).to_ne_bytes());
                    assert_eq!(number(libc::SO_TYPE), kind.to_ne_bytes());
                    assert!(rustix::fs::fcntl_getfl(&socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
                }
                Err(errno) => assert!(!may && errno == Errno::EPERM, "{errno}"),
                Ok(_) => panic!("a socket without the capability"),
            }
        }
        drop(binder);
        assert!(child.wait().unwrap().success());
    }
}
