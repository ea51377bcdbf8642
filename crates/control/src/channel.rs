//! Framed JSON messages with descriptors over a unix stream socket.
//!
//! A frame is eight bytes (length of the body and number of descriptors, both
//! little endian), the descriptors attached to those bytes and, past 200 of
//! them, to one filler byte per further 200, then the body.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest body in bytes that either side accepts.
pub const MAX_BODY_BYTES: usize = 16 << 20;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 4000;
/// Descriptors attached to one sendmsg; the host allows 253.
const FDS_PER_PART: usize = 200;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The other side is gone.
    #[error("the other side of the control socket is gone")]
    Closed,
    /// The bytes are no message of ours.
    #[error("malformed control message: {0}")]
    Malformed(String),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> ChannelError {
        ChannelError::Io(errno.into())
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// A conversation over a connected unix stream socket.
    pub fn new(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// Sends one message with its descriptors. Blocks while the socket is full.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let body = serde_json::to_vec(message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        if body.len() > MAX_BODY_BYTES || fds.len() > MAX_FDS {
            return Err(ChannelError::Malformed("message too large".into()));
        }
        let mut header = [0u8; 8];
        header[..4].copy_from_slice(&u32::to_le_bytes(body.len() as u32));
        header[4..].copy_from_slice(&u32::to_le_bytes(fds.len() as u32));
        let mut parts = fds.chunks(FDS_PER_PART);
        self.send_part(&header, parts.next().unwrap_or_default())?;
        for part in parts {
            self.send_part(&[0], part)?;
        }
        self.send_all(&body)
    }

    fn send_part(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_PART))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::Malformed("too many descriptors".into()));
        }
        let sent =
            retry(|| sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL))
                .map_err(closed_or_io)?;
        self.send_all(bytes.get(sent..).unwrap_or_default())
    }

    fn send_all(&self, mut bytes: &[u8]) -> Result<(), ChannelError> {
        while !bytes.is_empty() {
            let sent = retry(|| send(&self.socket, bytes, SendFlags::NOSIGNAL)).map_err(closed_or_io)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Receives one message with its descriptors, all close-on-exec.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let mut fds = Vec::new();
        let mut header = [0u8; 8];
        self.receive_exact(&mut header, &mut fds, true)?;
        let [a, b, c, d, e, f, g, h] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let count = u32::from_le_bytes([e, f, g, h]) as usize;
        if length > MAX_BODY_BYTES || count > MAX_FDS {
            return Err(ChannelError::Malformed("message too large".into()));
        }
        for _ in 1..count.div_ceil(FDS_PER_PART) {
            self.receive_exact(&mut [0u8; 1], &mut fds, false)?;
        }
        let mut body = vec![0u8; length];
        self.receive_exact(&mut body, &mut fds, false)?;
        if fds.len() != count {
            return Err(ChannelError::Malformed(format!(
                "{} descriptors where {count} were announced",
                fds.len()
            )));
        }
        let message = serde_json::from_slice(&body).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        Ok((message, fds))
    }

    /// Fills `buffer`; an end of stream before its first byte is `Closed`.
    fn receive_exact(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        may_be_closed: bool,
    ) -> Result<(), ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_PART))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let Some(rest) = buffer.get_mut(filled..) else {
                break;
            };
            let received = loop {
                match recvmsg(
                    &self.socket,
                    &mut [IoSliceMut::new(rest)],
                    &mut ancillary,
                    RecvFlags::CMSG_CLOEXEC,
                ) {
                    Err(Errno::INTR) => {}
                    other => break other.map_err(closed_or_io)?,
                }
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            if fds.len() > MAX_FDS {
                return Err(ChannelError::Malformed("too many descriptors".into()));
            }
            if received.bytes == 0 {
                return Err(if filled == 0 && may_be_closed {
                    ChannelError::Closed
                } else {
                    ChannelError::Malformed("it ends early".into())
                });
            }
            filled += received.bytes;
        }
        Ok(())
    }
}

fn closed_or_io(errno: Errno) -> ChannelError {
    match errno {
        Errno::PIPE | Errno::CONNRESET => ChannelError::Closed,
        other => other.into(),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, Request};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::new(a.into()), Channel::new(b.into()))
    }

    #[test]
    fn messages_and_descriptors_arrive() {
        let (a, b) = pair();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let many = vec![file.as_fd(); 450];
        let sender = std::thread::spawn({
            let file = file.try_clone().unwrap();
            move || {
                let many = vec![file.as_fd(); 450];
                a.send(&Request::Start, &many).unwrap();
                a.send(&Request::State, &[]).unwrap();
            }
        });
        let (message, fds): (Request, _) = b.receive().unwrap();
        assert_eq!(message, Request::Start);
        assert_eq!(fds.len(), many.len());
        let (message, fds): (Request, _) = b.receive().unwrap();
        assert_eq!(message, Request::State);
        assert!(fds.is_empty());
        sender.join().unwrap();
        assert!(matches!(b.receive::<Request>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn nonsense_is_refused() {
        let (a, b) = pair();
        rustix::net::send(&a.socket, &[0xff; 8], SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(b.receive::<Reply>(), Err(ChannelError::Malformed(_))));
    }
}
