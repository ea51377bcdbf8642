//! Sparse contents in memory of this process.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::PAGE;

type Page = Box<[u8; PAGE as usize]>;

/// Pages by number; a missing one is a hole.
#[derive(Default)]
pub(crate) struct Pages(BTreeMap<u64, Page>);

/// The pieces of `pos..pos+len` by page: number, range in the page, start in the buffer.
fn pieces(pos: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = pos + done as u64;
        let start = (at % PAGE) as usize;
        let count = (PAGE as usize - start).min(len - done);
        let piece = (at / PAGE, start..start + count, done);
        done += count;
        Some(piece)
    })
}

impl Pages {
    /// Fills `buf`; holes are zero.
    pub(crate) fn read(&self, pos: u64, buf: &mut [u8]) {
        for (number, range, at) in pieces(pos, buf.len()) {
            let into = &mut buf[at..at + range.len()];
            match self.0.get(&number) {
                Some(page) => into.copy_from_slice(&page[range]),
                None => into.fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, pos: u64, buf: &[u8]) {
        for (number, range, at) in pieces(pos, buf.len()) {
            let from = &buf[at..at + range.len()];
            self.0.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]))[range].copy_from_slice(from);
        }
    }

    /// Makes a range zero, freeing whole pages.
    pub(crate) fn punch(&mut self, pos: u64, len: u64) {
        let end = pos.saturating_add(len);
        let touched: Vec<u64> =
            self.0.range(pos / PAGE..end.div_ceil(PAGE)).map(|(&number, _)| number).collect();
        for number in touched {
            let first = number * PAGE;
            let from = pos.max(first) - first;
            let to = end.min(first + PAGE) - first;
            if from == 0 && to == PAGE {
                self.0.remove(&number);
            } else if let Some(page) = self.0.get_mut(&number) {
                page[from as usize..to as usize].fill(0);
            }
        }
    }

    /// How many pages there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many of these page numbers are there.
    pub(crate) fn present(&self, range: Range<u64>) -> u64 {
        self.0.range(range).count() as u64
    }

    /// The first byte of data at or after `pos`.
    pub(crate) fn next_data(&self, pos: u64) -> Option<u64> {
        self.0.range(pos / PAGE..).next().map(|(&number, _)| pos.max(number * PAGE))
    }

    /// The first byte of a hole at or after `pos`.
    pub(crate) fn next_hole(&self, pos: u64) -> u64 {
        let mut number = pos / PAGE;
        for (&present, _) in self.0.range(number..) {
            if present != number {
                break;
            }
            number += 1;
        }
        pos.max(number * PAGE)
    }

    /// All pages in order, with their position.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().map(|(&number, page)| (number * PAGE, &page[..]))
    }

    /// Makes pages of a range, zero where there was a hole (fallocate(2)).
    pub(crate) fn allocate(&mut self, range: Range<u64>) {
        for number in range {
            self.0.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pages;

    #[test]
    fn holes_read_as_zero_and_are_found() {
        let mut pages = Pages::default();
        pages.write(4090, b"0123456789");
        pages.write(5 * 4096, b"x");
        let mut buf = [1; 12];
        pages.read(4089, &mut buf);
        assert_eq!(&buf, b"\x000123456789\0");
        assert_eq!((pages.next_hole(0), pages.next_data(9000)), (8192, Some(20480)));
        pages.punch(4096, 4096);
        assert_eq!(pages.count(), 2);
        pages.read(4089, &mut buf);
        assert_eq!(&buf, b"\x00012345\0\0\0\0\0");
    }
}
