//! A queue of bytes in segments: memory is held for what waits, not for the most that ever waited.

use std::collections::VecDeque;

/// The smallest and the largest segment.
const SEGMENT: std::ops::RangeInclusive<usize> = 512..=64 << 10;
/// An empty queue keeps a segment up to this size, for the next small message.
const KEPT: usize = 4 << 10;

#[derive(Default)]
struct Segment {
    data: Vec<u8>,
    taken: usize,
}

/// Bytes in the order they came.
#[derive(Default)]
pub(super) struct Bytes {
    segments: VecDeque<Segment>,
    len: usize,
}

impl Bytes {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, mut data: &[u8]) {
        self.len += data.len();
        if let Some(last) = self.segments.back_mut() {
            let room = last.data.capacity() - last.data.len();
            let (now, rest) = data.split_at(room.min(data.len()));
            last.data.extend_from_slice(now);
            data = rest;
        }
        while !data.is_empty() {
            let size = data.len().next_power_of_two().clamp(*SEGMENT.start(), *SEGMENT.end());
            let (now, rest) = data.split_at(size.min(data.len()));
            let mut segment = Segment { data: Vec::with_capacity(size), taken: 0 };
            segment.data.extend_from_slice(now);
            self.segments.push_back(segment);
            data = rest;
        }
    }

    /// Copies bytes from `skip` on; returns how many.
    pub(super) fn peek(&self, mut skip: usize, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in &self.segments {
            let left = segment.data.get(segment.taken..).unwrap_or_default();
            if skip >= left.len() {
                skip -= left.len();
                continue;
            }
            let left = left.get(skip..).unwrap_or_default();
            skip = 0;
            let rest = buf.get_mut(done..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let n = left.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..n), left.get(..n)) {
                to.copy_from_slice(from);
            }
            done += n;
        }
        done
    }

    /// Throws the first `n` bytes away.
    pub(super) fn skip(&mut self, n: usize) {
        let mut n = n.min(self.len);
        self.len -= n;
        while n > 0 {
            let only = self.segments.len() == 1;
            let Some(first) = self.segments.front_mut() else { break };
            let step = n.min(first.data.len() - first.taken);
            first.taken += step;
            n -= step;
            if first.taken < first.data.len() {
                break;
            }
            if only && first.data.capacity() <= KEPT {
                first.data.clear();
                first.taken = 0;
                break;
            }
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn bytes_come_in_order_whatever_the_sizes() {
        let mut queue = Bytes::default();
        let (mut sent, mut got) = (0_u32, 0_u32);
        for round in 0..400_usize {
            let n = (round * 7919) % 150_000;
            let data: Vec<u8> = (0..n as u32).map(|i| ((sent + i) % 251) as u8).collect();
            queue.push(&data);
            sent += n as u32;
            let mut buf = vec![0; (round * 104_729) % 200_000];
            let peeked = queue.peek(3, &mut buf);
            assert!((0..peeked as u32).all(|i| buf[i as usize] == ((got + 3 + i) % 251) as u8));
            let taken = queue.peek(0, &mut buf);
            queue.skip(taken);
            assert!((0..taken as u32).all(|i| buf[i as usize] == ((got + i) % 251) as u8));
            got += taken as u32;
            assert_eq!(queue.len(), (sent - got) as usize);
        }
        queue.skip(usize::MAX);
        assert!(queue.len() == 0 && queue.segments.len() <= 1);
    }
}
