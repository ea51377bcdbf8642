//! The receive ring of packet(7) sockets, over lo.

use std::os::fd::RawFd;

use super::packet::{
    ETH_P_ALL, SOL_PACKET, attach, counts, link_address, only_port, open, readable, send_over_lo, token,
};
use super::tcp::{recv, set};
use super::udp::{LO, bound, send_to};
use crate::harness::{cases, close, ok, sys};

cases!("packet_ring": frames, blocks, errors, without_calls, filtered);

struct Ring {
    fd: RawFd,
    at: *mut u8,
    size: usize,
}

impl Ring {
    /// A ring of this version: `words` are struct tpacket_req3, as much of it as the version has.
    fn new(version: i32, words: &[u32]) -> Ring {
        let fd = open(libc::AF_PACKET, libc::SOCK_RAW, 0);
        set(fd, SOL_PACKET, 10, version).expect("version");
        ok!(libc::setsockopt(fd, SOL_PACKET, 5, words.as_ptr().cast(), 4 * words.len() as u32));
        let size = (words[0] * words[1]) as usize;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let at = ok!(libc::mmap(std::ptr::null_mut(), size, prot, libc::MAP_SHARED, fd, 0)).cast();
        let name = link_address(ETH_P_ALL);
        ok!(libc::bind(fd, (&raw const name).cast(), 20));
        Ring { fd, at, size }
    }
    fn word(&self, at: usize) -> u32 {
        assert!(at + 4 <= self.size);
        // SAFETY: within the mapping; the kernel writes it meanwhile.
        unsafe { self.at.add(at).cast::<u32>().read_volatile() }
    }
    fn give_back(&self, at: usize) {
        // SAFETY: within the mapping.
        unsafe { self.at.add(at).cast::<u32>().write_volatile(0) }
    }
    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.size);
        // SAFETY: within the mapping.
        (0..len).map(|i| unsafe { self.at.add(at + i).read_volatile() }).collect()
    }
    /// The frame with a header of version 2 here: mac, net, whole length, what was kept.
    fn two(&self, at: usize) -> (usize, usize, usize, Vec<u8>) {
        let (length, kept, ways) =
            (self.word(at + 4) as usize, self.word(at + 8) as usize, self.word(at + 12));
        let mac = (ways & 0xffff) as usize;
        (mac, (ways >> 16) as usize, length, self.bytes(at + mac, kept))
    }
    /// Waits for a frame in the ring that ends in this, giving back all before it.
    fn find(&self, frame_size: usize, end: &[u8]) -> (usize, usize, usize, Vec<u8>) {
        let mut unit = 0;
        for _ in 0..1000 {
            let at = unit * frame_size;
            if self.word(at) & 1 == 0 {
                readable(self.fd);
                continue;
            }
            let frame = self.two(at);
            // struct sockaddr_ll behind the header.
            assert_eq!(self.word(at + 32) & 0xffff, libc::AF_PACKET as u32);
            self.give_back(at);
            if frame.3.ends_with(end) {
                return frame;
            }
            unit = (unit + 1) % (self.size / frame_size);
        }
        panic!("it did not come");
    }
}

fn frames() {
    let ring = Ring::new(1, &[8192, 2, 2048, 8]);
    let data = token("ring");
    let _to = send_over_lo(&data);
    let (mac, net, length, bytes) = ring.find(2048, &data);
    assert_eq!((mac, net, length, bytes.len()), (66, 80, 42 + data.len(), 42 + data.len()));
    // All goes into the ring.
    assert_eq!(recv(ring.fd, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    // One too long for a frame is cut.
    let (to, port) = bound();
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).expect("set");
    let (from, _) = bound();
    send_to(from, &[b'z'; 5000], LO, port).expect("send");
    let again = Ring::new(1, &[8192, 2, 2048, 8]);
    send_to(from, &[b'y'; 5000], LO, port).expect("send");
    let (_, _, length, bytes) = again.find(2048, b"yyyyyyyyyyyy");
    assert_eq!((length, bytes.len()), (5042, 2048 - 66));
    assert!(counts(again.fd).0 >= 1);
}

fn blocks() {
    // Blocks of 4 KiB that are handed over after 50 ms.
    let ring = Ring::new(2, &[4096, 4, 2048, 8, 50, 0, 0]);
    let data = token("block");
    let _to = send_over_lo(&data);
    for block in (0..4).cycle().take(100) {
        let at = block * 4096;
        while ring.word(at + 8) & 1 == 0 {
            readable(ring.fd);
        }
        // struct tpacket_block_desc: version, offset_to_priv, block_status, num_pkts, offset_to_first_pkt.
        assert_eq!((ring.word(at), ring.word(at + 4)), (2, 48));
        let mut frame = at + ring.word(at + 16) as usize;
        assert_eq!(frame, at + 48);
        for left in (0..ring.word(at + 12)).rev() {
            let (step, kept, length) = (ring.word(frame), ring.word(frame + 12), ring.word(frame + 16));
            let mac = ring.word(frame + 24) & 0xffff;
            let bytes = ring.bytes(frame + mac as usize, kept as usize);
            if bytes.ends_with(&data) {
                assert_eq!((mac, ring.word(frame + 24) >> 16, length, kept), (82, 96, length, length));
                assert_eq!(length as usize, 42 + data.len());
                return;
            }
            assert!(left == 0 || step.is_multiple_of(8), "{step}");
            frame += step as usize;
        }
        ring.give_back(at + 8);
    }
    panic!("it did not come");
}

fn errors() {
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, 0);
    set(fd, SOL_PACKET, 10, 1).expect("version");
    let ring = |words: [u32; 4]| sys!(libc::setsockopt(fd, SOL_PACKET, 5, words.as_ptr().cast(), 16));
    for bad in [
        [4095, 1, 2048, 1],
        [4096, 1, 2048, 1],
        [4096, 1, 40, 102],
        [4096, 1, 1000, 4],
        [4096, 0, 2048, 2],
        [0x8000_0000, 1, 2048, 1 << 20],
    ] {
        assert_eq!(ring(bad), Err(libc::EINVAL), "{bad:?}");
    }
    let map = |size| {
        let at = std::ptr::null_mut();
        sys!(libc::mmap(at, size, libc::PROT_READ, libc::MAP_SHARED, fd, 0)).map(|_| ())
    };
    assert_eq!(map(4096), Err(libc::EINVAL));
    assert_eq!(ring([4096, 2, 2048, 4]), Ok(0));
    assert_eq!(ring([4096, 2, 2048, 4]), Err(libc::EBUSY));
    assert_eq!(set(fd, SOL_PACKET, 10, 0), Err(libc::EBUSY));
    assert_eq!(set(fd, SOL_PACKET, 12, 8), Err(libc::EBUSY));
    assert_eq!(map(4096), Err(libc::EINVAL));
    // A ring goes, and comes again.
    assert_eq!(ring([0; 4]), Ok(0));
    assert_eq!(ring([8192, 1, 2048, 4]), Ok(0));
    assert_eq!(map(8192), Ok(()));
}

fn without_calls() {
    // Who looks at the ring alone sees frames come, in the end more than it has room for. Others' fill it as well.
    const FRAMES: usize = 64;
    let ring = Ring::new(1, &[4096, 32, 2048, FRAMES as u32]);
    let mut unit = 0;
    for round in 0..FRAMES {
        let data = token(&format!("round {round}"));
        let mut seen = false;
        for _ in 0..100 {
            let to = send_over_lo(&data).0;
            let start = std::time::Instant::now();
            while !seen && start.elapsed().as_millis() < 100 {
                while ring.word(unit * 2048) & 1 != 0 {
                    seen |= ring.two(unit * 2048).3.ends_with(&data);
                    ring.give_back(unit * 2048);
                    unit = (unit + 1) % FRAMES;
                }
            }
            close(to);
            if seen {
                break;
            }
        }
        assert!(seen, "round {round}");
    }
}

fn filtered() {
    let (to, port) = bound();
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).expect("set");
    let fd = open(libc::AF_PACKET, libc::SOCK_RAW, 0);
    attach(fd, &only_port(port));
    set(fd, SOL_PACKET, 10, 1).expect("version");
    let words = [4096_u32, 1, 2048, 2];
    ok!(libc::setsockopt(fd, SOL_PACKET, 5, words.as_ptr().cast(), 16));
    let at = ok!(libc::mmap(
        std::ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
        fd,
        0
    ));
    let ring = Ring { fd, at: at.cast(), size: 4096 };
    let name = link_address(ETH_P_ALL);
    ok!(libc::bind(fd, (&raw const name).cast(), 20));
    let _other = send_over_lo(b"not this one");
    let (from, _) = bound();
    send_to(from, b"but this one is wanted", LO, port).expect("send");
    readable(fd);
    let (_, _, length, bytes) = ring.two(0);
    assert_eq!((length, bytes.len(), &bytes[36..38]), (64, 50, &port.to_be_bytes()[..]));
    assert!(counts(fd).0 >= 1);
}
