//! The bytes in a pipe: a bounded queue of stream bytes and packets.

use std::collections::VecDeque;

/// Writes up to this many bytes are atomic (`PIPE_BUF`), and a page of capacity.
pub const PIPE_BUF: usize = 4096;

/// A run of bytes; a packet is read on its own, and what a read leaves of it is lost.
#[derive(Clone, Copy, Debug)]
struct Segment {
    len: usize,
    packet: bool,
}

/// Bytes in a pipe, with the boundaries of packets.
#[derive(Debug)]
pub struct Buffer {
    bytes: VecDeque<u8>,
    segments: VecDeque<Segment>,
    capacity: usize,
}

impl Buffer {
    /// An empty buffer for `capacity` bytes. Memory is taken as it fills.
    pub fn new(capacity: usize) -> Buffer {
        Buffer { bytes: VecDeque::new(), segments: VecDeque::new(), capacity }
    }
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
    /// How many bytes it takes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Room left, in bytes. As in Linux each packet takes a page at least, so that packets are bounded too.
    pub fn room(&self) -> usize {
        if self.segments.len() > self.capacity / PIPE_BUF {
            return 0;
        }
        self.capacity.saturating_sub(self.bytes.len())
    }
    /// Changes the capacity; false if more is in it.
    pub fn resize(&mut self, capacity: usize) -> bool {
        if self.bytes.len() > capacity || self.segments.len() > capacity / PIPE_BUF {
            return false;
        }
        self.capacity = capacity;
        self.bytes.shrink_to(capacity);
        true
    }

    /// Adds stream bytes, as many as there is room for (all or nothing up to `PIPE_BUF`); returns how many.
    pub fn push(&mut self, data: &[u8]) -> usize {
        let room = self.room();
        if data.len() <= PIPE_BUF && room < data.len() {
            return 0;
        }
        let n = room.min(data.len());
        // From a slice it is one copy, else a byte at a time.
        self.bytes.extend(data.get(..n).unwrap_or_default());
        match self.segments.back_mut() {
            Some(last) if !last.packet => last.len += n,
            _ if n > 0 => self.segments.push_back(Segment { len: n, packet: false }),
            _ => {}
        }
        n
    }

    /// Adds packets of at most `PIPE_BUF` bytes each; returns how many bytes went in.
    pub fn push_packets(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        for packet in data.chunks(PIPE_BUF) {
            if self.room() < packet.len() || self.segments.len() >= self.capacity / PIPE_BUF {
                break;
            }
            self.bytes.extend(packet);
            self.segments.push_back(Segment { len: packet.len(), packet: true });
            done += packet.len();
        }
        done
    }

    /// Takes bytes out: one packet (its rest is lost), or stream bytes up to the next packet.
    pub fn pop(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(first) = self.segments.front_mut() {
            if first.packet && done > 0 || done == buf.len() {
                break;
            }
            let Some(rest) = buf.get_mut(done..) else { break };
            let n = rest.len().min(first.len);
            copy_front(&self.bytes, rest, n);
            let gone = if first.packet { first.len } else { n };
            self.bytes.drain(..gone.min(self.bytes.len()));
            first.len -= gone;
            done += n;
            let packet = first.packet;
            if first.len == 0 {
                self.segments.pop_front();
            }
            if packet {
                break;
            }
        }
        done
    }

    /// Puts stream bytes back to the front: what a reader took and could not pass on. May exceed the capacity.
    pub fn unpop(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.bytes.reserve(data.len());
        for byte in data.iter().rev() {
            self.bytes.push_front(*byte);
        }
        match self.segments.front_mut() {
            Some(first) if !first.packet => first.len += data.len(),
            _ => self.segments.push_front(Segment { len: data.len(), packet: false }),
        }
    }

    /// Copies the first bytes without taking them, across segments (tee(2)).
    pub fn peek(&self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.bytes.len());
        copy_front(&self.bytes, buf, n);
        n
    }
}

/// Copies the first `n` bytes; both sides have them.
fn copy_front(bytes: &VecDeque<u8>, out: &mut [u8], n: usize) {
    let (a, b) = bytes.as_slices();
    let first = n.min(a.len());
    if let (Some(to), Some(from)) = (out.get_mut(..first), a.get(..first)) {
        to.copy_from_slice(from);
    }
    if let (Some(to), Some(from)) = (out.get_mut(first..n), b.get(..n - first)) {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::Buffer;

    #[test]
    fn small_writes_are_all_or_nothing() {
        let mut buffer = Buffer::new(65_536);
        assert_eq!(buffer.push(&vec![1; 65_000]), 65_000);
        assert_eq!(buffer.push(&vec![2; 4096]), 0);
        assert_eq!(buffer.push(&vec![2; 4097]), 536);
        assert_eq!(buffer.room(), 0);
    }

    #[test]
    fn packets_are_read_one_at_a_time_and_cut() {
        let mut buffer = Buffer::new(65_536);
        assert_eq!(buffer.push_packets(b"hello"), 5);
        assert_eq!(buffer.push_packets(&[7; 5000]), 5000);
        assert_eq!(buffer.push(b"stream"), 6);
        let mut out = [0; 8192];
        assert_eq!(buffer.pop(&mut out[..2]), 2);
        assert_eq!(&out[..2], b"he");
        assert_eq!(buffer.pop(&mut out), 4096);
        assert_eq!(buffer.pop(&mut out), 904);
        assert_eq!(buffer.pop(&mut out), 6);
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut buffer = Buffer::new(65_536);
        buffer.push(b"abcdef");
        let mut out = [0; 8];
        assert_eq!(buffer.pop(&mut out[..4]), 4);
        buffer.unpop(b"cd");
        assert_eq!(buffer.pop(&mut out), 4);
        assert_eq!(&out[..4], b"cdef");
    }

    #[test]
    fn shrinking_below_the_contents_is_refused() {
        let mut buffer = Buffer::new(65_536);
        buffer.push(&vec![1; 5000]);
        assert!(!buffer.resize(4096));
        assert!(buffer.resize(8192));
        assert_eq!(buffer.room(), 3192);
    }
}
