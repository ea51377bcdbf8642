//! SIGIO and SIGURG: files that tell their owner.

use std::os::fd::RawFd;

use super::tcp::{connected, recv, send};
use crate::harness::{cases, close, fails, ok, sys, zeroed};

cases!("sigio": socket_tells, chosen_signal, pipe_tells, group_and_thread, urgent_data, off_again, owners, by_ioctl, files_do_not_tell, hang_up, owner_ids_are_checked,
    terminal_tells, terminal_line, terminal_room, terminal_master, terminal_default_owner);

const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

/// Blocks SIGIO, SIGURG and the first real-time signal.
fn blocked() -> libc::sigset_t {
    let mut set: libc::sigset_t = zeroed();
    for sig in [libc::SIGIO, libc::SIGURG, libc::SIGRTMIN()] {
        ok!(libc::sigaddset(&mut set, sig));
    }
    ok!(libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));
    set
}

/// The next of these signals: number, code, band and descriptor.
fn next(set: &libc::sigset_t, ms: i64) -> Option<(i32, i32, i64, i32)> {
    let mut info: libc::siginfo_t = zeroed();
    let timeout = libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    let sig = sys!(libc::sigtimedwait(set, &mut info, &timeout)).ok()?;
    // SAFETY: siginfo_t has 128 bytes; si_band and si_fd lie at 16 and 24.
    let (band, fd) = unsafe {
        let at: *const u8 = (&raw const info).cast();
        (at.add(16).cast::<i64>().read(), at.add(24).cast::<i32>().read())
    };
    Some((sig, info.si_code, band, fd))
}

fn number(set: &libc::sigset_t) -> Option<i32> {
    next(set, 2000).map(|n| n.0)
}

fn pair() -> (RawFd, RawFd) {
    let mut fds = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, fds.as_mut_ptr()));
    (fds[0], fds[1])
}

fn own(fd: RawFd) {
    ok!(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()));
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC));
}

fn write(fd: RawFd) {
    assert_eq!(ok!(libc::write(fd, c"x".as_ptr().cast(), 1)), 1);
}

fn socket_tells() {
    let set = blocked();
    let (a, b) = pair();
    own(a);
    assert_eq!(ok!(libc::fcntl(a, libc::F_GETFL)), libc::O_RDWR | libc::O_ASYNC);
    for _ in 0..3 {
        write(b);
        let (sig, code, ..) = next(&set, 2000).expect("a signal");
        assert_eq!((sig, code), (libc::SIGIO, libc::SI_KERNEL));
        assert_eq!(recv(a, 5, 0), Ok(b"x".to_vec()));
    }
}

fn chosen_signal() {
    let set = blocked();
    let (a, b) = pair();
    ok!(libc::fcntl(a, F_SETSIG, libc::SIGRTMIN()));
    own(a);
    write(b);
    // POLL_IN.
    let band = i64::from(libc::POLLIN | libc::POLLRDNORM);
    assert_eq!(next(&set, 2000), Some((libc::SIGRTMIN(), 1, band, a)));
    fails!(libc::EINVAL, libc::fcntl(a, F_SETSIG, 65));
}

fn pipe_tells() {
    let set = blocked();
    let mut fds = [0; 2];
    ok!(libc::pipe(fds.as_mut_ptr()));
    own(fds[0]);
    write(fds[1]);
    assert_eq!(number(&set), Some(libc::SIGIO));
    // The other end is another file: it tells of room, which comes when the pipe was full.
    ok!(libc::fcntl(fds[1], libc::F_SETFL, libc::O_NONBLOCK));
    while sys!(libc::write(fds[1], [0_u8; 4096].as_ptr().cast(), 4096)).is_ok() {}
    while next(&set, 20).is_some() {}
    ok!(libc::fcntl(fds[0], libc::F_SETFL, 0));
    ok!(libc::fcntl(fds[1], F_SETSIG, libc::SIGRTMIN()));
    ok!(libc::fcntl(fds[1], libc::F_SETOWN, libc::getpid()));
    ok!(libc::fcntl(fds[1], libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC));
    let mut buf = [0_u8; 8192];
    ok!(libc::read(fds[0], buf.as_mut_ptr().cast(), buf.len()));
    let (sig, code, _, fd) = next(&set, 2000).expect("a signal");
    assert_eq!((sig, code, fd), (libc::SIGRTMIN(), 2, fds[1]));
}

fn group_and_thread() {
    // In a group of its own: others must not die of the signal.
    let child = ok!(libc::fork());
    if child == 0 {
        ok!(libc::setpgid(0, 0));
        tell_group_and_thread();
        std::process::exit(0);
    }
    let mut status = 0;
    ok!(libc::waitpid(child, &mut status, 0));
    assert_eq!(status, 0);
}

fn tell_group_and_thread() {
    let set = blocked();
    let (a, b) = pair();
    own(a);
    ok!(libc::fcntl(a, libc::F_SETOWN, -ok!(libc::getpid())));
    assert_eq!(ok!(libc::fcntl(a, libc::F_GETOWN)), -ok!(libc::getpid()));
    write(b);
    assert_eq!(number(&set), Some(libc::SIGIO));
    let thread = [0, ok!(libc::gettid())];
    ok!(libc::fcntl(a, F_SETOWN_EX, thread.as_ptr()));
    let mut got = [9; 2];
    ok!(libc::fcntl(a, F_GETOWN_EX, got.as_mut_ptr()));
    assert_eq!(got, thread);
    write(b);
    assert_eq!(number(&set), Some(libc::SIGIO));
}

fn urgent_data() {
    let set = blocked();
    let (client, server) = connected();
    // Without O_ASYNC, too.
    ok!(libc::fcntl(server, libc::F_SETOWN, libc::getpid()));
    send(client, b"plain", 0).expect("send");
    assert_eq!(next(&set, 30), None);
    send(client, b"u", libc::MSG_OOB).expect("send");
    let (sig, code, ..) = next(&set, 2000).expect("a signal");
    assert_eq!((sig, code), (libc::SIGURG, libc::SI_KERNEL));
    assert_eq!(recv(server, 1, libc::MSG_OOB), Ok(b"u".to_vec()));
}

fn off_again() {
    let set = blocked();
    let (a, b) = pair();
    own(a);
    ok!(libc::fcntl(a, libc::F_SETFL, 0));
    write(b);
    assert_eq!(next(&set, 30), None);
    ok!(libc::fcntl(a, libc::F_SETFL, libc::O_ASYNC));
    write(b);
    assert_eq!(number(&set), Some(libc::SIGIO));
    ok!(libc::fcntl(a, libc::F_SETOWN, 0));
    write(b);
    assert_eq!(next(&set, 30), None);
    // A closed file tells nothing.
    own(a);
    close(a);
    assert_eq!(sys!(libc::write(b, c"x".as_ptr().cast(), 1)), Err(libc::ECONNREFUSED));
    assert_eq!(next(&set, 30), None);
}

fn owners() {
    let (a, _b) = pair();
    assert_eq!(ok!(libc::fcntl(a, libc::F_GETOWN)), 0);
    fails!(libc::ESRCH, libc::fcntl(a, libc::F_SETOWN, 4_000_000));
    fails!(libc::ESRCH, libc::fcntl(a, libc::F_SETOWN, -4_000_000));
    fails!(libc::EINVAL, libc::fcntl(a, libc::F_SETOWN, i32::MIN));
    fails!(libc::EINVAL, libc::fcntl(a, F_SETOWN_EX, [7, 1].as_ptr()));
    fails!(libc::EFAULT, libc::fcntl(a, F_SETOWN_EX, 1));
    fails!(libc::ESRCH, libc::fcntl(a, F_SETOWN_EX, [1, 4_000_000].as_ptr()));
    ok!(libc::fcntl(a, libc::F_SETOWN, libc::getpid()));
    assert_eq!(ok!(libc::fcntl(a, libc::F_GETOWN)), ok!(libc::getpid()));
}

fn by_ioctl() {
    const FIOGETOWN: u64 = 0x8903;
    const SIOCSPGRP: u64 = 0x8902;
    let set = blocked();
    let (a, b) = pair();
    let own = ok!(libc::getpid());
    ok!(libc::ioctl(a, SIOCSPGRP as _, &raw const own));
    let mut got = 0;
    ok!(libc::ioctl(a, FIOGETOWN as _, &raw mut got));
    assert_eq!(got, own);
    let on = 1;
    ok!(libc::ioctl(a, libc::FIOASYNC, &raw const on));
    write(b);
    assert_eq!(number(&set), Some(libc::SIGIO));
}

fn files_do_not_tell() {
    let fd = ok!(libc::memfd_create(c"plain".as_ptr(), 0));
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_ASYNC, 0);
    let on = 1;
    fails!(libc::ENOTTY, libc::ioctl(fd, libc::FIOASYNC, &raw const on));
    fails!(libc::ENOTTY, libc::ioctl(fd, 0x8903, &raw const on));
}

fn hang_up() {
    let set = blocked();
    let mut fds = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()));
    own(fds[0]);
    close(fds[1]);
    assert_eq!(number(&set), Some(libc::SIGIO));
}

fn owner_ids_are_checked() {
    // Who has no right to signal init must not do it by way of a file.
    let (a, b) = pair();
    let child = ok!(libc::fork());
    if child == 0 {
        let set = blocked();
        ok!(libc::setresuid(12_345, 12_345, 12_345));
        ok!(libc::fcntl(a, libc::F_SETOWN, libc::getppid()));
        ok!(libc::fcntl(a, libc::F_SETFL, libc::O_ASYNC));
        write(b);
        assert_eq!(next(&set, 20), None);
        std::process::exit(0);
    }
    // Not blocked here: the signal would end this process.
    let mut status = 0;
    ok!(libc::waitpid(child, &mut status, 0));
    assert_eq!(status, 0);
    crate::harness::sleep_ms(30);
}

/// Both ends of a terminal.
fn fresh_terminal() -> (RawFd, RawFd) {
    let (master, path) = super::pty::master();
    (master, ok!(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY)))
}

/// The same in raw mode.
fn terminal() -> (RawFd, RawFd) {
    let (master, slave) = fresh_terminal();
    let mut termios: libc::termios = zeroed();
    ok!(libc::tcgetattr(slave, &mut termios));
    // SAFETY: termios is a valid struct.
    unsafe { libc::cfmakeraw(&mut termios) };
    ok!(libc::tcsetattr(slave, libc::TCSANOW, &termios));
    (master, slave)
}

fn terminal_tells() {
    let set = blocked();
    let (master, slave) = terminal();
    ok!(libc::fcntl(slave, F_SETSIG, libc::SIGRTMIN()));
    own(slave);
    assert_ne!(ok!(libc::fcntl(slave, libc::F_GETFL)) & libc::O_ASYNC, 0);
    let band = i64::from(libc::POLLIN | libc::POLLRDNORM);
    for _ in 0..3 {
        write(master);
        assert_eq!(next(&set, 2000), Some((libc::SIGRTMIN(), 1, band, slave)));
    }
    let mut buf = [0_u8; 8];
    assert_eq!(ok!(libc::read(slave, buf.as_mut_ptr().cast(), 8)), 3);
    // Nothing of what it does itself.
    write(slave);
    assert_eq!(ok!(libc::read(master, buf.as_mut_ptr().cast(), 8)), 1);
    assert_eq!(next(&set, 30), None);
    ok!(libc::fcntl(slave, libc::F_SETFL, libc::O_RDWR));
    write(master);
    assert_eq!(next(&set, 30), None);
    let on = 1;
    ok!(libc::ioctl(slave, libc::FIOASYNC, &raw const on));
    write(master);
    assert_eq!(number(&set), Some(libc::SIGRTMIN()));
}

fn terminal_line() {
    let set = blocked();
    let (master, slave) = fresh_terminal();
    own(slave);
    write(master);
    assert_eq!(next(&set, 30), None);
    assert_eq!(ok!(libc::write(master, c"\n".as_ptr().cast(), 1)), 1);
    assert_eq!(number(&set), Some(libc::SIGIO));
    // A line waits: the beginning of the next is not told, its end is.
    write(master);
    assert_eq!(next(&set, 30), None);
    assert_eq!(ok!(libc::write(master, c"\n".as_ptr().cast(), 1)), 1);
    assert_eq!(number(&set), Some(libc::SIGIO));
}

fn terminal_room() {
    let set = blocked();
    let (master, slave) = terminal();
    ok!(libc::fcntl(slave, libc::F_SETOWN, libc::getpid()));
    ok!(libc::fcntl(slave, F_SETSIG, libc::SIGRTMIN()));
    ok!(libc::fcntl(slave, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC | libc::O_NONBLOCK));
    let mut buf = [0_u8; 4096];
    let mut left = 0;
    while let Ok(n) = sys!(libc::write(slave, buf.as_ptr().cast(), buf.len())) {
        left += n;
    }
    while next(&set, 20).is_some() {}
    while left > 0 {
        left -= ok!(libc::read(master, buf.as_mut_ptr().cast(), buf.len()));
    }
    let (sig, code, _, fd) = next(&set, 2000).expect("a signal");
    assert_eq!((sig, code, fd), (libc::SIGRTMIN(), 2, slave));
}

fn terminal_master() {
    let set = blocked();
    let (master, slave) = terminal();
    own(master);
    assert_eq!(next(&set, 30), None);
    write(slave);
    assert_eq!(number(&set), Some(libc::SIGIO));
    write(master);
    assert_eq!(next(&set, 30), None);
}

fn terminal_default_owner() {
    let set = blocked();
    let (master, slave) = terminal();
    assert_eq!(ok!(libc::fcntl(slave, libc::F_GETOWN)), 0);
    ok!(libc::fcntl(slave, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC));
    assert_eq!(ok!(libc::fcntl(slave, libc::F_GETOWN)), ok!(libc::getpid()));
    write(master);
    assert_eq!(number(&set), Some(libc::SIGIO));
    // The foreground of a terminal that controls a session.
    let child = ok!(libc::fork());
    if child == 0 {
        ok!(libc::setsid());
        ok!(libc::ioctl(slave, libc::TIOCSCTTY, 0));
        let own = ok!(libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        ok!(libc::fcntl(own, libc::F_SETFL, libc::O_RDWR | libc::O_ASYNC));
        assert_eq!(ok!(libc::fcntl(own, libc::F_GETOWN)), -ok!(libc::getpid()));
        write(master);
        assert_eq!(number(&set), Some(libc::SIGIO));
        std::process::exit(0);
    }
    let mut status = 0;
    ok!(libc::waitpid(child, &mut status, 0));
    assert_eq!(status, 0);
}
