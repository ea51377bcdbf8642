//! What waits to be received: stream bytes or whole messages, with what they carry.

use std::collections::VecDeque;
use std::sync::Arc;

use vfs::OpenFile;

use super::rights::Rights;
use crate::Ucred;

/// Small stream writes are put together up to this size.
const MERGE: usize = 32 << 10;
/// The most messages in one inbox, however small.
pub(super) const MAX_MESSAGES: usize = 4096;

/// One message, or a run of stream bytes of one sender.
pub(super) struct Message {
    pub(super) data: Vec<u8>,
    /// Bytes already read of a stream.
    pub(super) taken: usize,
    pub(super) rights: Rights,
    pub(super) sender: Ucred,
    /// When it was sent, if the receiver wanted a pidfd by then (`SO_PASSPIDFD`).
    pub(super) sent: Option<u64>,
    /// The sender's address, empty if it has none.
    pub(super) from: Vec<u8>,
}

impl Message {
    fn left(&self) -> &[u8] {
        self.data.get(self.taken..).unwrap_or_default()
    }
}

/// What one read took.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) count: usize,
    pub(super) length: usize,
    pub(super) files: Vec<Arc<OpenFile>>,
    pub(super) sender: Option<Ucred>,
    pub(super) sent: Option<u64>,
    pub(super) from: Vec<u8>,
}

/// Messages in order of arrival.
#[derive(Default)]
pub(super) struct Inbox {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Inbox {
    /// Bytes not yet read.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
    /// The files that all messages carry.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<OpenFile>> {
        self.messages.iter().flat_map(|message| message.rights.iter())
    }
    /// Length of the first message.
    pub(super) fn first_len(&self) -> usize {
        self.messages.front().map_or(0, |m| m.left().len())
    }

    /// Adds stream bytes, to the last run if both carry nothing and have one sender.
    pub(super) fn push_stream(&mut self, message: Message) {
        self.bytes += message.data.len();
        if let Some(last) = self.messages.back_mut()
            && last.rights.is_empty()
            && message.rights.is_empty()
            && last.sender == message.sender
            && last.sent.is_some() == message.sent.is_some()
            && last.data.len() + message.data.len() <= MERGE
        {
            last.data.extend_from_slice(&message.data);
            return;
        }
        self.messages.push_back(message);
    }
    /// Adds a whole message.
    pub(super) fn push(&mut self, message: Message) {
        self.bytes += message.data.len();
        self.messages.push_back(message);
    }

    /// Reads stream bytes: not across a change of sender (if `by_sender`), nor beyond bytes that carry files.
    /// A peek leaves out the first `skip` bytes.
    pub(super) fn read_stream(
        &mut self,
        buf: &mut [u8],
        peek: bool,
        by_sender: bool,
        mut skip: usize,
    ) -> Taken {
        let mut out = Taken::default();
        let mut index = 0;
        while out.count < buf.len() {
            let Some(message) = self.messages.get_mut(index) else { break };
            let stranger = by_sender && out.sender.is_some_and(|s| s != message.sender);
            if stranger || (out.count > 0 && !message.rights.is_empty()) {
                break;
            }
            let left = message.left();
            if peek && skip > 0 && skip >= left.len() {
                skip -= left.len();
                index += 1;
                continue;
            }
            let left = left.get(if peek { skip } else { 0 }..).unwrap_or_default();
            skip = 0;
            out.sender = Some(message.sender);
            out.sent = message.sent;
            out.from.clone_from(&message.from);
            let rest = buf.get_mut(out.count..).unwrap_or_default();
            let n = rest.len().min(left.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..n), left.get(..n)) {
                to.copy_from_slice(from);
            }
            out.count += n;
            let carried = !message.rights.is_empty();
            if peek {
                out.files = message.rights.files();
                index += 1;
            } else {
                out.files = message.rights.take();
                message.taken += n;
                self.bytes -= n;
                if message.taken >= message.data.len() {
                    self.messages.pop_front();
                } else {
                    break;
                }
            }
            if carried {
                break;
            }
        }
        out.length = out.count;
        out
    }

    /// Reads one whole message; what does not fit is lost. A peek leaves out the first `skip` bytes.
    pub(super) fn read_message(&mut self, buf: &mut [u8], peek: bool, mut skip: usize) -> Option<Taken> {
        let mut index = 0;
        if peek {
            while self.messages.get(index).is_some_and(|m| skip > 0 && skip >= m.data.len()) {
                skip -= self.messages.get(index).map_or(0, |m| m.data.len());
                index += 1;
            }
        }
        let message = self.messages.get(index)?;
        let data = message.data.get(if peek { skip } else { 0 }..).unwrap_or_default();
        let n = buf.len().min(data.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), data.get(..n)) {
            to.copy_from_slice(from);
        }
        let mut out = Taken {
            count: n,
            length: data.len(),
            files: message.rights.files(),
            sender: Some(message.sender),
            sent: message.sent,
            from: message.from.clone(),
        };
        if !peek && let Some(mut message) = self.messages.pop_front() {
            self.bytes -= message.data.len();
            out.files = message.rights.take();
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{Inbox, Message};
    use crate::Ucred;

    fn message(data: &[u8], pid: i32) -> Message {
        let sender = Ucred { pid, uid: 0, gid: 0 };
        Message {
            data: data.to_vec(),
            taken: 0,
            rights: super::Rights::default(),
            sender,
            sent: None,
            from: Vec::new(),
        }
    }

    #[test]
    fn a_stream_is_read_across_writes_but_not_senders() {
        let mut inbox = Inbox::default();
        for (data, pid) in [(b"ab", 1), (b"cd", 1), (b"ef", 2)] {
            inbox.push_stream(message(data, pid));
        }
        let mut buf = [0; 8];
        assert_eq!(inbox.read_stream(&mut buf, true, false, 0).count, 6);
        assert_eq!(inbox.read_stream(&mut buf[..3], false, true, 0).count, 3);
        assert_eq!(inbox.read_stream(&mut buf, false, true, 0).count, 1);
        assert_eq!(inbox.read_stream(&mut buf, false, true, 0).count, 2);
        assert!(inbox.is_empty() && inbox.bytes() == 0);
    }

    #[test]
    fn messages_are_cut_and_keep_their_length() {
        let mut inbox = Inbox::default();
        inbox.push(message(b"hello", 1));
        let mut buf = [0; 2];
        let taken = inbox.read_message(&mut buf, false, 0).unwrap();
        assert_eq!((taken.count, taken.length), (2, 5));
        assert_eq!(inbox.bytes(), 0);
    }
}
