//! Host terminals: pty pairs, the console socket, the caller's own.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Mode, OFlags};
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

/// The terminal that the caller of a command sits at.
#[derive(Clone, Debug)]
pub(crate) struct CallersTerminal(Arc<OwnedFd>);

impl CallersTerminal {
    /// One of the standard streams, else the controlling terminal; an error where the caller has none.
    pub(crate) fn find() -> Result<CallersTerminal> {
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let fd = match streams.into_iter().find(|stream| rustix::termios::isatty(*stream)) {
            Some(stream) => rustix::io::fcntl_dupfd_cloexec(stream, 3).context("the caller's terminal")?,
            None => rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| match errno {
                    // runc's words.
                    rustix::io::Errno::NXIO => anyhow!(
                        "open /dev/tty: no such device or address (a terminal is asked for, and the caller has \
                         none: call it from a terminal, or detach with --console-socket)"
                    ),
                    other => anyhow!("open /dev/tty: {other}"),
                })?,
        };
        Ok(CallersTerminal(Arc::new(fd)))
    }

    /// Raw mode until the answer is dropped.
    pub(crate) fn raw(&self) -> Result<RawMode> {
        let before = rustix::termios::tcgetattr(&self.0)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&self.0, OptionalActions::Now, &raw)?;
        Ok(RawMode { terminal: self.clone(), before })
    }

    /// Whether our process group may read it; where it is not our controlling terminal, nobody has it before us.
    pub(crate) fn is_foreground(&self) -> bool {
        match rustix::termios::tcgetpgrp(&self.0) {
            Ok(group) => group == rustix::process::getpgrp(),
            Err(_) => true,
        }
    }

    /// Its size; nothing where nobody has set one.
    pub(crate) fn size(&self) -> Option<control::ConsoleSize> {
        let size = rustix::termios::tcgetwinsize(&self.0).ok()?;
        Some(control::ConsoleSize { rows: size.ws_row, columns: size.ws_col })
    }

    /// Gives another terminal its size.
    pub(crate) fn copy_size(&self, to: impl AsFd) {
        if let Ok(size) = rustix::termios::tcgetwinsize(&self.0) {
            let _ = rustix::termios::tcsetwinsize(to, size);
        }
    }
}

/// The caller's terminal in raw mode.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: CallersTerminal,
    before: Termios,
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.terminal.0, OptionalActions::Now, &self.before);
    }
}
