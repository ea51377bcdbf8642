//! Ports below 1024 of a network namespace over which the kernel process has no right: a program of a few pages outside its
//! user namespace, `binder/main.rs`, holds that one, and binds the sockets that it is sent.

use std::ffi::CString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use linux_abi::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::thread::CapabilitySet;

/// A static ELF program.
const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/binder"));
/// User and group id of the binder: neither the host's root nor the kernel process's.
const ID: u32 = 65532;
/// How long an answer may take before nobody is asked any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both ends of what the binder is asked over: the kernel process's, its own.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for timeout in [rustix::net::sockopt::Timeout::Send, rustix::net::sockopt::Timeout::Recv] {
        rustix::net::sockopt::set_socket_timeout(&ours, timeout, Some(PATIENCE))?;
    }
    Ok((ours, theirs))
}

/// Replaces the calling process by a binder, which is jailed, unprivileged but for `CAP_NET_BIND_SERVICE` and has no
/// descriptor but `channel`. One thread only. Returns only to say why not.
pub fn replace(channel: &OwnedFd, id: &str) -> io::Error {
    match try_replace(channel, id) {
        Ok(()) => io::Error::other("the binder did not start"),
        Err(error) => error,
    }
}

fn try_replace(channel: &OwnedFd, id: &str) -> io::Result<()> {
    let image = crate::files::sealed("sallet-binder", IMAGE)?;
    rustix::process::setsid()?;
    crate::jail::set_limits()?;
    crate::namespace::unshare_mounts(false)?;
    crate::mount::enter_empty_root(Path::new("/proc"))?;
    crate::caps::drop_to_through_exec(ID, ID, CapabilitySet::NET_BIND_SERVICE)?;
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
pub struct Binder(Mutex<Option<OwnedFd>>);

impl Binder {
    /// Of the first descriptor of [`channel`].
    pub fn new(channel: OwnedFd) -> Binder {
        Binder(Mutex::new(Some(channel)))
    }

    /// bind(2) of an internet socket to an address with a port below 1024; `EACCES` too where nobody answers.
    pub fn bind(&self, socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
        let mut channel = self.0.lock().map_err(|_| Errno::EACCES)?;
        match channel.as_ref().map(|channel| ask(channel, socket, address)) {
            Some(Ok(0)) => Ok(()),
            Some(Ok(errno)) => Err(Errno::from_raw(errno)),
            Some(Err(_)) | None => {
                // A late answer would be taken for that to another question.
                *channel = None;
                Err(Errno::EACCES)
            }
        }
    }
}

fn ask(channel: &OwnedFd, socket: BorrowedFd<'_>, address: &[u8]) -> rustix::io::Result<i32> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(rustix::io::Errno::NOBUFS);
    }
    rustix::net::sendmsg(channel, &[IoSlice::new(address)], &mut control, SendFlags::NOSIGNAL)?;
    let mut answer = [0; 4];
    let (read, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(channel, &mut answer, RecvFlags::empty()))?;
    if read == answer.len() { Ok(i32::from_ne_bytes(answer)) } else { Err(rustix::io::Errno::PIPE) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// Of struct sockaddr_in, for 127.0.0.1.
    fn address(port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        [&libc::AF_INET.to_ne_bytes()[..2], &[high, low, 127, 0, 0, 1], &[0; 8]].concat()
    }

    #[test]
    fn it_binds_low_ports_and_does_nothing_else() {
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
        let mut child = command.spawn().unwrap();
        drop(theirs);
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixDatagram::unbound().unwrap();
        let asked = |socket: BorrowedFd<'_>, address: &[u8]| ask(&ours, socket, address).unwrap();
        for _ in 0..2 {
            assert_eq!(asked(bound.as_fd(), &address(2000)), libc::EACCES);
            assert_eq!(asked(bound.as_fd(), &address(0)), libc::EACCES);
            assert_eq!(asked(bound.as_fd(), &[2]), libc::EINVAL);
            assert_eq!(asked(bound.as_fd(), &address(811)[..15]), libc::EINVAL);
            assert_eq!(asked(bound.as_fd(), &[0; 40]), libc::EINVAL);
            assert_eq!(asked(unix.as_fd(), &address(811)), libc::EINVAL);
            // What the host says of sockets that have an address: they came there.
            assert_eq!(asked(listener.as_fd(), &address(811)), libc::EINVAL);
        }
        // Without a socket.
        rustix::net::send(&ours, &address(811), SendFlags::empty()).unwrap();
        let mut answer = [0; 4];
        rustix::net::recv(&ours, &mut answer, RecvFlags::empty()).unwrap();
        assert_eq!(i32::from_ne_bytes(answer), libc::EINVAL);
        let binder = Binder::new(ours);
        assert_eq!(binder.bind(bound.as_fd(), &address(2000)), Err(Errno::EACCES));
        drop(binder);
        assert!(child.wait().unwrap().success());
    }
}
