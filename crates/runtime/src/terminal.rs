//! Host terminals: pty pairs, the console socket, raw mode.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

/// Two ends of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    /// In raw mode: the guest's own line discipline runs above it.
    pub(crate) slave: OwnedFd,
}

impl Pty {
    /// A new pair from the host's /dev/ptmx.
    pub(crate) fn open(size: Option<control::ConsoleSize>) -> Result<Pty> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).context("open a pseudo-terminal")?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)
            .context("open the other end of the pseudo-terminal")?;
        let mut settings = rustix::termios::tcgetattr(&slave)?;
        settings.make_raw();
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &settings)?;
        if let Some(size) = size {
            let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        Ok(Pty { master, slave })
    }

    /// Sends the master to whoever listens on the console socket.
    pub(crate) fn send_master(&self, socket: &Path) -> Result<()> {
        let connect = || -> rustix::io::Result<()> {
            let stream = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
            let fds = [self.master.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            rustix::net::sendmsg(
                &stream,
                &[IoSlice::new(b"/dev/ptmx")],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?;
            Ok(())
        };
        connect().with_context(|| format!("send the terminal to {}", socket.display()))
    }
}

/// Puts the caller's terminal into raw mode until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Raw mode on standard input, if that is a terminal.
    pub(crate) fn enter() -> Result<Option<RawMode>> {
        let input = rustix::stdio::stdin();
        if !rustix::termios::isatty(input) {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(input)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(input, OptionalActions::Now, &raw)?;
        Ok(Some(RawMode { terminal: rustix::io::fcntl_dupfd_cloexec(input, 3)?, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Gives a terminal the size of the caller's standard input.
pub(crate) fn copy_size(to: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}

/// The size of the caller's standard input, if it is a terminal.
pub(crate) fn own_size() -> Option<control::ConsoleSize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some(control::ConsoleSize { rows: size.ws_row, columns: size.ws_col })
}
