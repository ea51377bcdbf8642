//! seccomp user notification: seccomp_unotify(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use linux_abi::Errno;

/// A call that waits for our verdict.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Notification {
    /// Names it in answers.
    pub id: u64,
    /// Thread id of the caller in our pid namespace.
    pub pid: u32,
    /// Always 0.
    pub flags: u32,
    /// System call number.
    pub nr: i32,
    /// Audit architecture.
    pub arch: u32,
    /// Address behind the instruction.
    pub instruction_pointer: u64,
    /// Argument registers.
    pub args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ADDFD: libc::c_ulong = 0x4018_2103;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Whether a notification waits to be received.
pub fn is_waiting(listener: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    // An error is what `receive` tells.
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_or(true, |ready| ready > 0)
}

/// Waits for the next notification; `EINTR`, `ENOENT` (it went away) are to be retried.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    let mut notification = Notification::default();
    // SAFETY: the structure has the layout of struct seccomp_notif and is zeroed, as the ioctl demands.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), RECV, &raw mut notification) };
    if ret == 0 { Ok(notification) } else { Err(last_errno()) }
}

fn send(listener: BorrowedFd<'_>, mut response: Response) -> Result<(), Errno> {
    // SAFETY: the structure has the layout of struct seccomp_notif_resp.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw mut response) };
    if ret == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Answers with a value.
pub fn answer(listener: BorrowedFd<'_>, id: u64, val: i64) -> Result<(), Errno> {
    send(listener, Response { id, val, error: 0, flags: 0 })
}

/// Answers with an error.
pub fn refuse(listener: BorrowedFd<'_>, id: u64, errno: Errno) -> Result<(), Errno> {
    send(listener, Response { id, val: 0, error: -errno.raw(), flags: 0 })
}

/// Lets the host run the call. Only where everything that was checked was in registers.
pub fn let_run(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    send(listener, Response { id, val: 0, error: 0, flags: 1 })
}

/// Whether the caller still waits: it is alive then, and its thread id its own.
pub fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the ioctl reads the id.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

/// Puts a descriptor at exactly `target` in the caller's table.
pub fn add_fd(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>, target: u32) -> Result<(), Errno> {
    const SETFD: u32 = 1;
    add(listener, id, fd, target, SETFD)
}

/// As [`add_fd`], and answers with `target`.
pub fn answer_with_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    fd: BorrowedFd<'_>,
    target: u32,
) -> Result<(), Errno> {
    const SETFD_AND_SEND: u32 = 1 | 2;
    add(listener, id, fd, target, SETFD_AND_SEND)
}

fn add(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>, target: u32, flags: u32) -> Result<(), Errno> {
    let mut request = AddFd { id, flags, source: fd.as_raw_fd() as u32, target, target_flags: 0 };
    // SAFETY: the structure has the layout of struct seccomp_notif_addfd.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), ADDFD, &raw mut request) };
    if ret >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): the call wakes us on the caller's CPU, the answer the caller on ours;
/// or neither.
pub fn set_sync_wake_up(listener: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    // SAFETY: the ioctl takes the flags by value.
    let ret = unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, u64::from(on)) };
    if ret == 0 { Ok(()) } else { Err(last_errno()) }
}
