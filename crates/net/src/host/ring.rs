//! The ring of a packet(7) socket (`PACKET_RX_RING`): memory that the guest reads frames from without a call.
//!
//! It is our own, a file in memory that is written here and mapped by the guest; the host's rings, whose bookkeeping
//! lies in memory that their reader may change, are never made. What the guest writes in there is one word per frame
//! or block, which says whose turn it is; nothing else is read back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use linux_abi::Errno;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::Result;

/// The three layouts: `TPACKET_V1` to `TPACKET_V3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Version {
    /// Frames of one size, microseconds.
    #[default]
    One,
    /// The same with nanoseconds and VLANs.
    Two,
    /// Blocks with frames behind one another.
    Three,
}

impl Version {
    /// As the options have it; `EINVAL`.
    pub(super) fn from_raw(raw: i32) -> Result<Version> {
        match raw {
            0 => Ok(Version::One),
            1 => Ok(Version::Two),
            2 => Ok(Version::Three),
            _ => Err(Errno::EINVAL),
        }
    }
    /// The same back.
    pub(super) fn raw(self) -> i32 {
        match self {
            Version::One => 0,
            Version::Two => 1,
            Version::Three => 2,
        }
    }
    /// Bytes of `struct tpacket_hdr` and its successors: `PACKET_HDRLEN`.
    pub(super) fn header(self) -> usize {
        if self == Version::Three { 48 } else { 32 }
    }
    /// With the `struct sockaddr_ll` behind it.
    fn header_length(self) -> usize {
        self.header() + NAME
    }
}

/// Bytes of `struct sockaddr_ll`.
const NAME: usize = 20;
/// `TPACKET_ALIGNMENT`, and that of blocks.
const ALIGNMENT: usize = 16;
const BLOCK_ALIGNMENT: usize = 8;
/// Bytes of `struct tpacket_block_desc`.
const BLOCK_HEADER: usize = 48;
/// Bytes of all rings of the sandbox.
const MOST: usize = 256 << 20;
const PAGE: usize = 4096;
/// `TP_STATUS_*`.
const USER: u32 = 1;
const BLOCK_TIMEOUT: u32 = 0x20;
const SOFTWARE_STAMP: u32 = 1 << 29;
/// How long a block is open, milliseconds, where nobody says so.
const DEFAULT_TIMEOUT: u64 = 8;

static ALL: AtomicUsize = AtomicUsize::new(0);

/// What is to be laid into the ring.
pub(super) struct Frame<'a> {
    /// As much of it as the filter leaves.
    pub(super) data: &'a [u8],
    /// How long it was.
    pub(super) length: usize,
    /// Bytes of the link's header; none where the data begin behind it.
    pub(super) link: Option<usize>,
    /// `struct sockaddr_ll`.
    pub(super) name: &'a [u8],
    /// `TP_STATUS_*` as the host says.
    pub(super) status: u32,
    /// The VLAN's tag and kind.
    pub(super) vlan: (u16, u16),
    /// When it came, nanoseconds of the real-time clock.
    pub(super) time: u64,
}

/// A block that is being filled.
struct Open {
    /// Where the next frame goes, and where the last one is.
    next: usize,
    last: usize,
    frames: u32,
    first_time: u64,
    last_time: u64,
}

/// A ring.
pub(super) struct Ring {
    file: Arc<OwnedFd>,
    version: Version,
    reserve: usize,
    raw: bool,
    block_size: usize,
    blocks: usize,
    frame_size: usize,
    frames: usize,
    private: usize,
    /// How long a block is open, nanoseconds.
    timeout: u64,
    /// The frame or block that comes next, and the number of that block.
    head: usize,
    number: u64,
    open: Option<Open>,
    /// Frames without room, and how often the ring was found full.
    pub(super) lost: u32,
    pub(super) frozen: u32,
}

impl Drop for Ring {
    fn drop(&mut self) {
        ALL.fetch_sub(self.size(), Ordering::Relaxed);
    }
}

/// How `PACKET_RX_RING` ends.
pub(super) enum Asked {
    /// No ring any more.
    None,
    /// This one.
    Ring(Box<Ring>),
}

fn error(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

impl Ring {
    /// `struct tpacket_req` or `struct tpacket_req3`; `EINVAL`, `ENOMEM`.
    pub(super) fn ask(version: Version, reserve: usize, raw: bool, request: &[u8]) -> Result<Asked> {
        let word =
            |at: usize| request.get(4 * at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b) as usize);
        let need = |at: usize| word(at).ok_or(Errno::EINVAL);
        let (block_size, blocks, frame_size, frames) = (need(0)?, need(1)?, need(2)?, need(3)?);
        let (timeout, private) = if version == Version::Three { (need(4)?, need(5)?) } else { (0, 0) };
        if version == Version::Three {
            need(6)?;
        }
        if blocks == 0 {
            return if frames == 0 { Ok(Asked::None) } else { Err(Errno::EINVAL) };
        }
        let least = version.header_length() + reserve;
        let per_block = block_size.checked_div(frame_size).ok_or(Errno::EINVAL)?;
        let beside = BLOCK_HEADER + private.next_multiple_of(BLOCK_ALIGNMENT);
        let size = block_size.checked_mul(blocks).ok_or(Errno::EINVAL)?;
        if i32::try_from(block_size).is_err()
            || !block_size.is_multiple_of(PAGE)
            || (version == Version::Three && block_size < beside + least)
            || frame_size < least
            || !frame_size.is_multiple_of(ALIGNMENT)
            || per_block == 0
            || per_block.checked_mul(blocks) != Some(frames)
        {
            return Err(Errno::EINVAL);
        }
        if ALL.fetch_add(size, Ordering::Relaxed).saturating_add(size) > MOST {
            ALL.fetch_sub(size, Ordering::Relaxed);
            return Err(Errno::ENOMEM);
        }
        let file = Ring::memory(size).inspect_err(|_| {
            ALL.fetch_sub(size, Ordering::Relaxed);
        })?;
        let timeout = if timeout == 0 { DEFAULT_TIMEOUT } else { timeout as u64 } * 1_000_000;
        Ok(Asked::Ring(Box::new(Ring {
            file: Arc::new(file),
            version,
            reserve,
            raw,
            block_size,
            blocks,
            frame_size,
            frames,
            private,
            timeout,
            head: 0,
            number: 0,
            open: None,
            lost: 0,
            frozen: 0,
        })))
    }

    fn memory(size: usize) -> Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("packets", flags).map_err(error)?;
        rustix::fs::ftruncate(&file, size as u64).map_err(error)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(error)?;
        Ok(file)
    }

    /// Bytes that mmap(2) must ask for.
    pub(super) fn size(&self) -> usize {
        self.block_size.saturating_mul(self.blocks)
    }

    /// What is mapped.
    pub(super) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Nanoseconds that a block is open.
    pub(super) fn timeout(&self) -> u64 {
        self.timeout
    }

    /// The number of the block that is open.
    pub(super) fn open_block(&self) -> Option<u64> {
        self.open.as_ref().map(|_| self.number)
    }

    fn units(&self) -> usize {
        if self.version == Version::Three { self.blocks } else { self.frames }.max(1)
    }

    /// Where a frame or block begins.
    fn place(&self, unit: usize) -> usize {
        if self.version == Version::Three {
            return unit * self.block_size;
        }
        let per_block = (self.block_size / self.frame_size.max(1)).max(1);
        (unit / per_block) * self.block_size + (unit % per_block) * self.frame_size
    }

    /// Where its status stands.
    fn status_at(&self, unit: usize) -> usize {
        self.place(unit) + if self.version == Version::Three { 8 } else { 0 }
    }

    fn is_kernels(&self, unit: usize) -> bool {
        let mut word = [0; 4];
        let read = rustix::io::pread(&*self.file, &mut word, self.status_at(unit) as u64);
        read == Ok(4) && word == [0; 4]
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        // A file of this size that nobody can shorten: only a lack of memory fails, and loses the frame.
        let _ = rustix::io::pwrite(&*self.file, bytes, at as u64);
    }

    /// The status comes after what it tells of.
    fn hand_over(&self, unit: usize, status: u32) {
        self.write(self.status_at(unit), &status.to_ne_bytes());
    }

    /// Whether another frame can come; a ring of blocks may still lack room for a long one.
    pub(super) fn has_room(&mut self) -> bool {
        let room = self.open.is_some() || self.is_kernels(self.head);
        if !room {
            self.frozen = self.frozen.wrapping_add(1);
        }
        room
    }

    /// Whether the guest has something to read.
    pub(super) fn is_readable(&self) -> bool {
        let units = self.units();
        !self.is_kernels((self.head + units - 1) % units)
    }

    /// Lays a frame down.
    pub(super) fn put(&mut self, frame: &Frame<'_>) {
        let header = self.version.header_length();
        let (mac, net) = match frame.link.filter(|_| self.raw) {
            Some(link) => {
                let net = (header + link.max(16)).next_multiple_of(ALIGNMENT) + self.reserve;
                (net - link, net)
            }
            None => {
                let net = header.next_multiple_of(ALIGNMENT) + 16 + self.reserve;
                (net, net)
            }
        };
        if u16::try_from(net).is_err() {
            self.lost = self.lost.wrapping_add(1);
            return;
        }
        if self.version == Version::Three {
            self.put_in_block(frame, mac, net);
        } else {
            let data = cut(frame.data, self.frame_size.saturating_sub(mac));
            let (at, unit) = (self.place(self.head), self.head);
            let mut out = self.header_of(frame, data.len(), mac, net);
            out.resize(mac.min(self.frame_size), 0);
            out.extend_from_slice(data);
            // Without the status.
            self.write(at + 4, out.get(4..).unwrap_or_default());
            self.hand_over(unit, frame.status | USER | SOFTWARE_STAMP);
            self.head = (self.head + 1) % self.units();
        }
    }

    /// Header and sender of a frame.
    fn header_of(&self, frame: &Frame<'_>, kept: usize, mac: usize, net: usize) -> Vec<u8> {
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
        let half = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_ne_bytes();
        let seconds = ((frame.time / 1_000_000_000) as u32).to_ne_bytes();
        let nanos = (frame.time % 1_000_000_000) as u32;
        let status = (frame.status | USER | SOFTWARE_STAMP).to_ne_bytes();
        let vlan = [frame.vlan.0.to_ne_bytes(), frame.vlan.1.to_ne_bytes()].concat();
        let mut out = match self.version {
            Version::One => {
                let fields = [status, [0; 4], word(frame.length), word(kept)];
                let times = [seconds, (nanos / 1000).to_ne_bytes()];
                [fields.concat(), [half(mac), half(net)].concat(), times.concat()].concat()
            }
            Version::Two => {
                let fields = [status, word(frame.length), word(kept)];
                let times = [seconds, nanos.to_ne_bytes()];
                [fields.concat(), [half(mac), half(net)].concat(), times.concat(), vlan].concat()
            }
            Version::Three => {
                // The way to the next frame is written with that one.
                let fields = [[0; 4], seconds, nanos.to_ne_bytes(), word(kept), word(frame.length), status];
                let tag = [word(0), u32::from(frame.vlan.0).to_ne_bytes()].concat();
                [fields.concat(), [half(mac), half(net)].concat(), tag, frame.vlan.1.to_ne_bytes().to_vec()]
                    .concat()
            }
        };
        out.resize(self.version.header(), 0);
        out.extend_from_slice(frame.name.get(..NAME.min(frame.name.len())).unwrap_or_default());
        out.resize(self.version.header_length(), 0);
        out
    }

    fn put_in_block(&mut self, frame: &Frame<'_>, mac: usize, net: usize) {
        let begin = BLOCK_HEADER + self.private.next_multiple_of(BLOCK_ALIGNMENT);
        let data = cut(frame.data, self.block_size.saturating_sub(begin + mac));
        let need = (mac + data.len()).next_multiple_of(BLOCK_ALIGNMENT);
        if self.open.as_ref().is_some_and(|open| open.next + need > self.block_size) {
            self.close(0);
        }
        if self.open.is_none() {
            if !self.is_kernels(self.head) {
                self.lost = self.lost.wrapping_add(1);
                self.frozen = self.frozen.wrapping_add(1);
                return;
            }
            self.number += 1;
            self.open =
                Some(Open { next: begin, last: 0, frames: 0, first_time: frame.time, last_time: frame.time });
        }
        let mut out = self.header_of(frame, data.len(), mac, net);
        out.resize(mac, 0);
        out.extend_from_slice(data);
        let block = self.place(self.head);
        let Some(open) = &mut self.open else { return };
        let (at, before) = (open.next, open.last);
        open.next = (at + need).min(self.block_size);
        open.last = at;
        open.frames += 1;
        open.last_time = frame.time;
        self.write(block + at, &out);
        if before != 0 {
            let step = u32::try_from(at - before).unwrap_or(0);
            self.write(block + before, &step.to_ne_bytes());
        }
    }

    /// Hands the open block to the guest, if it has this number.
    pub(super) fn close_block(&mut self, number: u64) -> bool {
        let is_it = self.open_block() == Some(number);
        if is_it {
            self.close(BLOCK_TIMEOUT);
        }
        is_it
    }

    fn close(&mut self, why: u32) {
        let Some(open) = self.open.take() else { return };
        let begin = BLOCK_HEADER + self.private.next_multiple_of(BLOCK_ALIGNMENT);
        let word = |n: usize| u32::try_from(n).unwrap_or(0).to_ne_bytes();
        let time =
            |t: u64| [((t / 1_000_000_000) as u32).to_ne_bytes(), ((t % 1_000_000_000) as u32).to_ne_bytes()];
        let at = self.place(self.head);
        // Version and way to the private part; then, behind the status: count, first frame, length, number, times.
        self.write(at, &[word(2), word(BLOCK_HEADER)].concat());
        let mut rest = [open.frames.to_ne_bytes(), word(begin), word(open.next)].concat();
        rest.extend_from_slice(&self.number.to_ne_bytes());
        rest.extend_from_slice(&[time(open.first_time), time(open.last_time)].concat().concat());
        self.write(at + 12, &rest);
        self.hand_over(self.head, USER | why);
        self.head = (self.head + 1) % self.units();
    }
}

fn cut(data: &[u8], most: usize) -> &[u8] {
    data.get(..most.min(data.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    fn ring(version: Version, words: &[u32]) -> Result<Box<Ring>> {
        match Ring::ask(version, 0, true, &request(words))? {
            Asked::Ring(ring) => Ok(ring),
            Asked::None => panic!("no ring"),
        }
    }

    fn frame(data: &[u8]) -> Frame<'_> {
        let time = 5_000_000_007;
        Frame { data, length: data.len(), link: Some(14), name: &[17; 20], status: 0, vlan: (0, 0), time }
    }

    fn words<const N: usize>(ring: &Ring, at: usize) -> [u32; N] {
        let mut bytes = vec![0; 4 * N];
        rustix::io::pread(&*ring.file, &mut bytes, at as u64).unwrap();
        std::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()))
    }

    #[test]
    fn sizes_are_checked() {
        for bad in [
            [4095, 1, 2048, 1],
            [4096, 1, 2048, 1],
            [4096, 1, 40, 102],
            [4096, 1, 1000, 4],
            [4096, 0, 2048, 2],
            [0x8000_0000, 1, 2048, 1 << 20],
            [4096, 1, 0, 0],
            [4096, 1, 8192, 0],
        ] {
            assert_eq!(ring(Version::Two, &bad).err(), Some(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(ring(Version::Two, &[4096, 1 << 30, 2048, 1 << 31]).err(), Some(Errno::ENOMEM));
        assert_eq!(ring(Version::Three, &[4096, 1, 2048, 2]).err(), Some(Errno::EINVAL));
        assert_eq!(ring(Version::Three, &[4096, 1, 2048, 2, 0, 4090, 0]).err(), Some(Errno::EINVAL));
        assert!(ring(Version::Three, &[4096, 1, 2048, 2, 0, 0, 0]).is_ok());
    }

    #[test]
    fn frames_come_in_turn() {
        let mut ring = ring(Version::Two, &[4096, 1, 2048, 2]).unwrap();
        assert!(ring.has_room() && !ring.is_readable());
        ring.put(&frame(&[7; 60]));
        assert!(ring.is_readable());
        // tp_status, tp_len, tp_snaplen, tp_mac and tp_net, tp_sec, tp_nsec.
        assert_eq!(words(&ring, 0), [USER | SOFTWARE_STAMP, 60, 60, 66 | 80 << 16, 5, 7]);
        ring.put(&frame(&[8; 4000]));
        assert_eq!(words(&ring, 2048), [USER | SOFTWARE_STAMP, 4000, 2048 - 66]);
        assert!(!ring.has_room());
        ring.write(0, &[0; 4]);
        assert!(ring.has_room());
    }

    #[test]
    fn blocks_hold_frames_behind_one_another() {
        let mut ring = ring(Version::Three, &[4096, 2, 2048, 4, 100, 0, 0]).unwrap();
        ring.put(&frame(&[7; 60]));
        ring.put(&frame(&[8; 61]));
        assert!(!ring.is_readable());
        assert!(!ring.close_block(9) && ring.close_block(1) && ring.is_readable());
        // version, offset_to_priv, block_status, num_pkts, offset_to_first_pkt.
        assert_eq!(words(&ring, 0), [2, 48, USER | BLOCK_TIMEOUT, 2, 48]);
        let [step, seconds, _, kept, length, _] = words(&ring, 48);
        assert_eq!((step % 8, seconds, kept, length), (0, 5, 60, 60));
        assert_eq!(words::<5>(&ring, 48 + step as usize)[3..], [61, 61]);
        for _ in 0..100 {
            ring.put(&frame(&[9; 1000]));
        }
        // The second block is full, the first one not given back.
        assert!(!ring.has_room() && ring.lost > 90 && ring.open_block().is_none());
    }
}
