//! A process of its own that connects to unix(7) sockets of the host by their descriptors.
//!
//! The kernel process may make no unix sockets: by abstract names they would reach whatever programs share its network
//! namespace. The connector lives in a network namespace that is empty, where there are no such names, and reaches by
//! `/proc/self/fd` what it is handed an `O_PATH` descriptor of, if that was opened through one of the mounts that it was
//! told of before any guest ran. It asks for no path and follows no link, so that there is nothing to swap in between.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Mutex;

use linux_abi::Errno;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::{caps, jail, seccomp_jail};

type Reply = Result<OwnedFd, Errno>;

/// The most bytes of a request: what is asked for, the type of socket, a name.
const REQUEST: usize = 128;
const CONNECT: u8 = 0;
const BIND: u8 = 1;

/// What a connector is to do.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// The mounts whose sockets it connects to.
    pub mounts: Vec<u64>,
    /// Whether it binds sockets in their directories, too.
    pub binds: bool,
}

/// How much the connector is locked in.
#[derive(Clone, Copy, Debug)]
pub struct Walls {
    /// User and group id that it takes, as [`caps::drop_to`]; none where the one mapped id must do.
    pub id: Option<u32>,
    /// Whether it gives up ids and capabilities.
    pub jailed: bool,
    /// Whether it gets a seccomp filter.
    pub seccomp: bool,
}

/// The kernel process's end of the connector.
#[derive(Debug)]
pub struct Connector {
    channel: Mutex<OwnedFd>,
    pid: i32,
}

/// The number of the mount through which a descriptor was opened: statx(2).
pub fn mount_of(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(stat.stx_mnt_id)
}

impl Connector {
    /// Starts one. `proc` is a procfs of our PID namespace.
    ///
    /// # Errors
    /// fork(2), unshare(2) and what [`Walls`] asks for; when there is more than one thread.
    pub fn start(proc: BorrowedFd<'_>, granted: &Granted, walls: Walls) -> io::Result<Connector> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let tasks =
            rustix::fs::openat(proc, "self/task", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let entries = rustix::fs::Dir::new(tasks)?.filter_map(Result::ok);
        let threads = entries.filter(|entry| !entry.file_name().to_bytes().starts_with(b".")).count();
        if threads != 1 {
            return Err(io::Error::other("fork in a process with several threads"));
        }
        // SAFETY: the process has one thread, so the child's copy is consistent.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                let served = std::panic::catch_unwind(|| child(proc, &theirs, granted, walls));
                // SAFETY: ends the child, whatever became of it, without a word to anybody.
                unsafe { libc::_exit(i32::from(served.is_err())) }
            }
            pid => pid,
        };
        drop(theirs);
        let connector = Connector { channel: Mutex::new(ours), pid };
        match connector.answer() {
            Ok(None) => Ok(connector),
            Ok(Some(_)) => Err(io::ErrorKind::InvalidData.into()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno.raw())),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A socket of type `SOCK_*` that is connected to the socket file behind an `O_PATH` descriptor. It is non-blocking.
    ///
    /// # Errors
    /// connect(2): `EAGAIN` if the backlog is full, `ECONNREFUSED`, `EPROTOTYPE`; `EACCES` for what lies on no mount that
    /// it was told of.
    pub fn connect(&self, file: BorrowedFd<'_>, kind: u32) -> Reply {
        let kind = u8::try_from(kind).map_err(|_| Errno::EINVAL)?;
        self.ask(&[CONNECT, kind], file)
    }

    /// A socket of type `SOCK_*` that is bound to a new name in the directory behind an `O_PATH` descriptor, with these
    /// permission bits. It is non-blocking.
    ///
    /// # Errors
    /// bind(2): `EADDRINUSE` for a name that there is; `EACCES` for a directory in which nothing is to be bound.
    pub fn bind(&self, directory: BorrowedFd<'_>, name: &[u8], kind: u32, mode: u32) -> Reply {
        let kind = u8::try_from(kind).map_err(|_| Errno::EINVAL)?;
        let mode = u16::try_from(mode & 0o777).map_err(|_| Errno::EINVAL)?;
        let [low, high] = mode.to_le_bytes();
        // A name in an address is shorter than that.
        if name.len() > REQUEST - 4 {
            return Err(Errno::EINVAL);
        }
        self.ask(&[&[BIND, kind, low, high], name].concat(), directory)
    }

    fn ask(&self, request: &[u8], file: BorrowedFd<'_>) -> Reply {
        let channel = self.channel.lock().map_err(|_| Errno::ECONNREFUSED)?;
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let sent = retry(|| sendmsg(&*channel, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL));
        // Nobody is there any more.
        sent.map_err(|_| Errno::ECONNREFUSED)?;
        answer_on(&channel)?.ok_or(Errno::ECONNREFUSED)
    }

    fn answer(&self) -> Result<Option<OwnedFd>, Errno> {
        answer_on(&*self.channel.lock().map_err(|_| Errno::ECONNREFUSED)?)
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            done => return done,
        }
    }
}

/// What the connector says: an error number, or none and perhaps a descriptor.
fn answer_on(channel: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut word = [0; 4];
    let (count, files) = receive(channel, &mut word).map_err(|_| Errno::ECONNREFUSED)?;
    match i32::from_ne_bytes(word) {
        _ if count != word.len() => Err(Errno::ECONNREFUSED),
        0 => Ok(files.into_iter().next()),
        raw => Err(Errno::from_raw(raw)),
    }
}

/// One message with its descriptors.
pub(crate) fn receive(channel: &OwnedFd, bytes: &mut [u8]) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry(|| recvmsg(channel, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    Ok((received.bytes, files))
}

fn reply(channel: &OwnedFd, answer: Result<Option<OwnedFd>, i32>) -> rustix::io::Result<usize> {
    let (raw, file) = match &answer {
        Ok(file) => (0, file.as_ref()),
        Err(raw) => (*raw, None),
    };
    let files: Vec<_> = file.map(AsFd::as_fd).into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    retry(|| sendmsg(channel, &[IoSlice::new(&raw.to_ne_bytes())], &mut control, SendFlags::NOSIGNAL))
}

/// The life of the connector.
fn child(proc: BorrowedFd<'_>, channel: &OwnedFd, granted: &Granted, walls: Walls) {
    match lock_in(proc, channel, granted.binds, walls) {
        Ok((channel, own)) => {
            if reply(&channel, Ok(None)).is_ok() {
                serve(&channel, &own, granted);
            }
        }
        Err(error) => {
            let _ = reply(channel, Err(error.raw_os_error().unwrap_or(libc::EPERM)));
        }
    }
}

/// Leaves what it has of the kernel process. Its folder becomes that of its own descriptors.
fn lock_in(
    proc: BorrowedFd<'_>,
    channel: &OwnedFd,
    binds: bool,
    walls: Walls,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::fs::openat(proc, "self/fd", flags, Mode::empty())?;
    rustix::process::fchdir(&own)?;
    const CHANNEL: i32 = 3;
    const OWN: i32 = 4;
    // Above both places, so that neither is overwritten before it is copied.
    let channel = rustix::io::fcntl_dupfd_cloexec(channel, OWN + 1)?;
    let own = rustix::io::fcntl_dupfd_cloexec(own, OWN + 1)?;
    // SAFETY: nobody in this process uses any descriptor but the standard ones and these two from here on: the
    // caller's owners of others are never dropped, as the process ends by _exit(2).
    let (channel, own) = unsafe {
        if libc::dup2(channel.as_raw_fd(), CHANNEL) < 0
            || libc::dup2(own.as_raw_fd(), OWN) < 0
            || libc::syscall(libc::SYS_close_range, OWN + 1, libc::c_uint::MAX, 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
        std::mem::forget((channel, own));
        (OwnedFd::from_raw_fd(CHANNEL), OwnedFd::from_raw_fd(OWN))
    };
    rustix::thread::set_name(c"sallet-connect")?;
    // SAFETY: there is one thread, which shares its descriptors with nobody.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    if walls.jailed {
        // Who may connect is decided by our kernel, as with the guest's files.
        let capabilities = CapabilitySet::DAC_OVERRIDE;
        match walls.id {
            Some(id) => caps::drop_to(id, id, capabilities)?,
            None => caps::limit_to(capabilities)?,
        }
        jail::set_limits()?;
    }
    if walls.seccomp {
        seccomp_jail::install_for_connector(binds)?;
    }
    Ok((channel, own))
}

fn serve(channel: &OwnedFd, own: &OwnedFd, granted: &Granted) {
    let mounts = &granted.mounts;
    loop {
        let mut request = [0; REQUEST];
        let Ok((count, files)) = receive(channel, &mut request) else { return };
        // The kernel process has ended.
        if count == 0 {
            return;
        }
        let answer = match (request, files.as_slice()) {
            ([CONNECT, kind, ..], [file]) => connect(file, kind, mounts),
            ([BIND, kind, low, high, ..], [directory]) if granted.binds => {
                let name = request.get(4..count).unwrap_or_default();
                let mode = u16::from_le_bytes([low, high]);
                let bound = bind(directory, name, kind, mode, mounts);
                // In any case, or connections would be sought there.
                match rustix::process::fchdir(own) {
                    Ok(()) => bound,
                    Err(_) => return,
                }
            }
            _ => Err(rustix::io::Errno::INVAL),
        };
        let answer = answer.map(Some).map_err(rustix::io::Errno::raw_os_error);
        if reply(channel, answer).is_err() {
            return;
        }
    }
}

/// The type of a file that was opened through one of the mounts; `EACCES`.
fn granted_type(file: &OwnedFd, mounts: &[u64]) -> rustix::io::Result<FileType> {
    let mask = StatxFlags::MNT_ID | StatxFlags::TYPE;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, mask)?;
    if stat.stx_mask & mask.bits() != mask.bits() || !mounts.contains(&stat.stx_mnt_id) {
        return Err(rustix::io::Errno::ACCESS);
    }
    Ok(FileType::from_raw_mode(stat.stx_mode.into()))
}

fn socket(kind: u8) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::from_raw(kind.into()), flags, None)
}

/// bind(2) makes the file and never follows a link.
fn bind(
    directory: &OwnedFd,
    name: &[u8],
    kind: u8,
    mode: u16,
    mounts: &[u64],
) -> rustix::io::Result<OwnedFd> {
    if granted_type(directory, mounts)? != FileType::Directory {
        return Err(rustix::io::Errno::NOTDIR);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(rustix::io::Errno::INVAL);
    }
    let socket = socket(kind)?;
    rustix::process::fchdir(directory)?;
    rustix::process::umask(Mode::from_raw_mode(u32::from(!mode) & 0o777));
    rustix::net::bind(&socket, &SocketAddrUnix::new(name)?)?;
    Ok(socket)
}

fn connect(file: &OwnedFd, kind: u8, mounts: &[u64]) -> rustix::io::Result<OwnedFd> {
    if granted_type(file, mounts)? != FileType::Socket {
        return Err(rustix::io::Errno::CONNREFUSED);
    }
    let socket = socket(kind)?;
    // Below the current folder, which holds a link to the very file that the descriptor stands for.
    let address = SocketAddrUnix::new(file.as_raw_fd().to_string())?;
    retry(|| rustix::net::connect(&socket, &address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::{connect, mount_of};
    use rustix::fs::{Mode, OFlags, open};
    use rustix::io::Errno;
    use std::os::unix::net::UnixListener;

    #[test]
    fn connects_to_the_file_that_is_held_if_its_mount_is_granted() {
        let folder = std::env::temp_dir().join(format!("sallet-connector-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let held =
            |path| open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let file = held(&path);
        // Another one by the same name, as a guest could put there.
        std::fs::rename(&path, folder.join("moved")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        let here = mount_of(&file).unwrap();
        let plain = folder.join("plain");
        std::fs::write(&plain, "").unwrap();
        let plain = held(&plain);
        std::thread::spawn(move || {
            crate::files::private_cwd().unwrap();
            std::env::set_current_dir("/proc/self/fd").unwrap();
            assert_eq!(connect(&file, 1, &[]).unwrap_err(), Errno::ACCESS);
            assert_eq!(connect(&file, 1, &[here + 1]).unwrap_err(), Errno::ACCESS);
            assert_eq!(connect(&file, 2, &[here]).unwrap_err(), Errno::PROTOTYPE);
            assert_eq!(connect(&plain, 1, &[here]).unwrap_err(), Errno::CONNREFUSED);
            connect(&file, 1, &[here]).unwrap();
        })
        .join()
        .unwrap();
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
