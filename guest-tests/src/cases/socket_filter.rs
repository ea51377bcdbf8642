//! Filters of what arrives at a socket: `SO_ATTACH_FILTER` of socket(7).

use std::os::fd::RawFd;
use std::thread;

use super::tcp::{connect, get, name_of, poll, recv, send, set};
use super::udp::{LO, bound, nothing, send_to, udp};
use crate::harness::{cases, close, fails, ok, sleep_ms, sys};

cases!("socket_filter": by_content, headers, network_header, about, cut, host_carried, flood, replaced, detached,
    locked, read_back, errors, unix_datagrams, unix_packets, unix_stream, netlink, extensions, six, early_datagrams);

const ALL: u32 = u32::MAX;
const NETWORK: u32 = -0x10_0000_i32 as u32;
const ABOUT: u32 = -0x1000_i32 as u32;

/// code, jt, jf, k.
type Instruction = (u16, u8, u8, u32);

#[repr(C)]
struct Program {
    count: u16,
    at: *const u8,
}

fn bytes(code: &[Instruction]) -> Vec<u8> {
    let one = |i: &Instruction| [&i.0.to_ne_bytes()[..], &[i.1, i.2], &i.3.to_ne_bytes()].concat();
    code.iter().flat_map(one).collect()
}

fn attach(fd: RawFd, code: &[Instruction]) -> Result<i32, i32> {
    let bytes = bytes(code);
    let program = Program { count: code.len() as u16, at: bytes.as_ptr() };
    let at = (&raw const program).cast();
    sys!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, 16))
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Lets pass what has this value at this place.
fn only(load: u16, at: u32, value: u32) -> [Instruction; 4] {
    [(load, 0, 0, at), (EQUAL, 0, 1, value), (RETURN, 0, 0, ALL), (RETURN, 0, 0, 0)]
}

/// Lets pass datagrams that begin with "keep".
fn keep() -> [Instruction; 4] {
    only(LOAD_WORD, 8, u32::from_be_bytes(*b"keep"))
}

/// What came through the filter of a receiver: the datagram was sent before a last one that nothing stops.
fn passes(code: &[Instruction], data: &[u8]) -> bool {
    let ((to, port), (from, _)) = (bound(), bound());
    attach(to, code).expect("attach");
    send_to(from, data, LO, port).expect("send");
    match recv(to, 100, libc::MSG_DONTWAIT) {
        Ok(got) => got == data,
        Err(errno) => {
            assert_eq!(errno, libc::EAGAIN);
            false
        }
    }
}

fn by_content() {
    let ((to, port), (from, _)) = (bound(), bound());
    attach(to, &keep()).expect("attach");
    for data in [&b"drop it"[..], b"keep it", b"x", b"", b"keep"] {
        assert_eq!(send_to(from, data, LO, port), Ok(data.len() as isize));
    }
    assert_eq!(recv(to, 10, 0), Ok(b"keep it".to_vec()));
    assert_eq!(recv(to, 10, 0), Ok(b"keep".to_vec()));
    send_to(from, b"drop again", LO, port).expect("send");
    assert_eq!(poll(to, 50), libc::POLLOUT);
    nothing(to);
}

fn headers() {
    let ((to, port), (from, own)) = (bound(), bound());
    for (at, value) in [(0, u32::from(own)), (2, u32::from(port)), (4, 8 + 5)] {
        attach(to, &only(LOAD_HALF, at, value)).expect("attach");
        send_to(from, b"right", LO, port).expect("send");
        assert_eq!(recv(to, 10, libc::MSG_DONTWAIT), Ok(b"right".to_vec()), "{at}");
        attach(to, &only(LOAD_HALF, at, value + 1)).expect("attach");
        send_to(from, b"wrong", LO, port).expect("send");
        nothing(to);
    }
    // The length of the whole.
    assert!(passes(&[(0x80, 0, 0, 0), (EQUAL, 0, 1, 12), (RETURN, 0, 0, ALL), (RETURN, 0, 0, 0)], b"four"));
}

fn network_header() {
    assert!(passes(&only(LOAD_BYTE, NETWORK, 0x45), b"x"));
    // Protocol, source, destination.
    assert!(passes(&only(LOAD_BYTE, NETWORK + 9, 17), b"x"));
    assert!(passes(&only(LOAD_WORD, NETWORK + 12, 0x7f00_0001), b"x"));
    assert!(passes(&only(LOAD_WORD, NETWORK + 16, 0x7f00_0001), b"x"));
    assert!(passes(&only(LOAD_HALF, NETWORK + 2, 29), b"x"));
    // X from the length of the header, then the data.
    let code = [
        (0xb1, 0, 0, NETWORK),
        (0x50, 0, 0, NETWORK + 8),
        (EQUAL, 0, 1, 120),
        (RETURN, 0, 0, ALL),
        (RETURN, 0, 0, 0),
    ];
    assert!(passes(&code, b"x") && !passes(&code, b"y"));
    assert!(!passes(&only(LOAD_BYTE, NETWORK + 100, 0), b"x"));
}

fn about() {
    // SKF_AD_PROTOCOL, -PKTTYPE, -IFINDEX, -HATYPE, -PAY_OFFSET.
    for (what, value) in [(0, 0x800), (4, 0), (8, 1), (28, 772)] {
        assert!(passes(&only(LOAD_WORD, ABOUT + what, value), b"x"), "{what}");
    }
}

fn cut() {
    let ((to, port), (from, _)) = (bound(), bound());
    for (length, left) in [(8 + 3, &b"abc"[..]), (8 + 50, b"abcdef"), (8, b""), (1, b"")] {
        attach(to, &[(RETURN, 0, 0, length)]).expect("attach");
        send_to(from, b"abcdef", LO, port).expect("send");
        assert_eq!(recv(to, 10, libc::MSG_DONTWAIT).as_deref(), Ok(left), "{length}");
    }
}

fn host_carried() {
    // Options on the receiver's side change nothing.
    let ((to, port), (from, own)) = (bound(), bound());
    set(to, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).expect("set");
    attach(to, &keep()).expect("attach");
    for data in [&b"drop it"[..], b"keep it", b"no", b"keep"] {
        send_to(from, data, LO, port).expect("send");
    }
    assert_eq!(recv(to, 2, libc::MSG_PEEK), Ok(b"ke".to_vec()));
    assert_eq!(recv(to, 10, 0), Ok(b"keep it".to_vec()));
    assert_eq!(recv(to, 10, 0), Ok(b"keep".to_vec()));
    send_to(from, b"no", LO, port).expect("send");
    assert_eq!(poll(to, 50), libc::POLLOUT);
    attach(to, &only(LOAD_HALF, 0, u32::from(own))).expect("attach");
    send_to(from, b"mine", LO, port).expect("send");
    send_to(udp(), b"other", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"mine".to_vec()));
    nothing(to);
}

fn flood() {
    for option in [libc::IP_PKTINFO, libc::IP_TTL] {
        let ((to, port), (from, _)) = (bound(), bound());
        set(to, libc::IPPROTO_IP, option, 1).expect("set");
        attach(to, &keep()).expect("attach");
        let reader = thread::spawn(move || recv(to, 10, 0));
        sleep_ms(30);
        for _ in 0..200 {
            send_to(from, b"drop", LO, port).expect("send");
        }
        send_to(from, b"keep", LO, port).expect("send");
        assert_eq!(reader.join().expect("joined"), Ok(b"keep".to_vec()));
    }
}

fn replaced() {
    let ((to, port), (from, _)) = (bound(), bound());
    attach(to, &[(RETURN, 0, 0, 0)]).expect("attach");
    send_to(from, b"lost", LO, port).expect("send");
    attach(to, &[(RETURN, 0, 0, ALL)]).expect("attach");
    send_to(from, b"got", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"got".to_vec()));
    // One that is refused leaves the old one.
    assert_eq!(attach(to, &[(0xffff, 0, 0, 0)]), Err(libc::EINVAL));
    send_to(from, b"still", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"still".to_vec()));
}

fn detached() {
    let ((to, port), (from, _)) = (bound(), bound());
    assert_eq!(set(to, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0), Err(libc::ENOENT));
    attach(to, &[(RETURN, 0, 0, 0)]).expect("attach");
    set(to, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0).expect("detach");
    send_to(from, b"free", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"free".to_vec()));
    fails!(libc::EINVAL, libc::setsockopt(to, 1, libc::SO_DETACH_FILTER, std::ptr::null(), 0));
}

fn locked() {
    let ((to, port), (from, _)) = (bound(), bound());
    attach(to, &keep()).expect("attach");
    assert_eq!(get(to, libc::SOL_SOCKET, libc::SO_LOCK_FILTER), 0);
    set(to, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 7).expect("lock");
    assert_eq!(get(to, libc::SOL_SOCKET, libc::SO_LOCK_FILTER), 1);
    assert_eq!(set(to, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 0), Err(libc::EPERM));
    assert_eq!(set(to, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0), Err(libc::EPERM));
    assert_eq!(attach(to, &[(RETURN, 0, 0, ALL)]), Err(libc::EPERM));
    send_to(from, b"drop", LO, port).expect("send");
    nothing(to);
}

fn read_back() {
    let fd = udp();
    let read = |room: u32| {
        let (mut data, mut len) = ([0_u8; 80], room);
        let at = data.as_mut_ptr().cast();
        sys!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, &mut len))
            .map(|_| (len, data.to_vec()))
    };
    assert_eq!(read(10).expect("none").0, 0);
    attach(fd, &keep()).expect("attach");
    // Lengths count instructions.
    assert_eq!(read(0).expect("count").0, 4);
    assert_eq!(read(3), Err(libc::EINVAL));
    let (count, data) = read(10).expect("read");
    assert_eq!((count, &data[..32]), (4, &bytes(&keep())[..]));
}

fn errors() {
    let fd = udp();
    let bytes = bytes(&keep());
    let try_it = |program: &Program, len: u32| {
        let at = (std::ptr::from_ref(program)).cast();
        sys!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, at, len))
    };
    let good = Program { count: 4, at: bytes.as_ptr() };
    for len in [0, 8, 15, 17] {
        assert_eq!(try_it(&good, len), Err(libc::EINVAL), "{len}");
    }
    assert_eq!(try_it(&Program { count: 0, at: bytes.as_ptr() }, 16), Err(libc::EINVAL));
    assert_eq!(try_it(&Program { count: 4, at: std::ptr::null() }, 16), Err(libc::EINVAL));
    assert_eq!(try_it(&Program { count: 4, at: std::ptr::without_provenance(8) }, 16), Err(libc::EFAULT));
    assert_eq!(try_it(&Program { count: 4097, at: bytes.as_ptr() }, 16), Err(libc::EINVAL));
    let all = (RETURN, 0, 0, ALL);
    for bad in [
        vec![(LOAD_WORD, 0, 0, 0)],
        vec![(LOAD_WORD, 0, 0, ABOUT + 64), all],
        vec![(LOAD_WORD, 0, 0, ABOUT + 1), all],
        vec![(0x34, 0, 0, 0), all],
        vec![(0x64, 0, 0, 32), all],
        vec![(0x05, 0, 0, 1), all],
        vec![(EQUAL, 1, 0, 0), all],
        vec![(0x60, 0, 0, 3), all],
        vec![(0x02, 0, 0, 16), all],
        vec![(0x0e, 0, 0, 0)],
    ] {
        assert_eq!(attach(fd, &bad), Err(libc::EINVAL), "{:?}", bad[0]);
    }
    attach(fd, &vec![all; 4096]).expect("the longest");
    // Division by nothing, loads from beyond the end: thrown away.
    assert!(!passes(&[(0x01, 0, 0, 0), (0x3c, 0, 0, 0), all], b"x"));
    assert!(!passes(&[(LOAD_WORD, 0, 0, 6), all], b"x"));
    assert!(passes(&[(LOAD_WORD, 0, 0, 5), all], b"x"));
}

fn pair(kind: i32) -> (RawFd, RawFd) {
    let mut fds = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()));
    (fds[0], fds[1])
}

fn messages(kind: i32) {
    let (a, b) = pair(kind);
    attach(b, &only(LOAD_WORD, 0, u32::from_be_bytes(*b"keep"))).expect("attach");
    for data in [&b"drop"[..], b"keep it", b"k"] {
        assert_eq!(send(a, data, 0), Ok(data.len() as isize));
    }
    assert_eq!(recv(b, 10, 0), Ok(b"keep it".to_vec()));
    nothing(b);
    attach(b, &[(RETURN, 0, 0, 3)]).expect("attach");
    assert_eq!(send(a, b"abcdef", 0), Ok(6));
    assert_eq!(recv(b, 10, 0), Ok(b"abc".to_vec()));
    // The other way is free.
    send(b, b"drop", 0).expect("send");
    assert_eq!(recv(a, 10, 0), Ok(b"drop".to_vec()));
}

fn unix_datagrams() {
    messages(libc::SOCK_DGRAM);
}

fn unix_packets() {
    messages(libc::SOCK_SEQPACKET);
}

fn unix_stream() {
    let (a, b) = pair(libc::SOCK_STREAM);
    attach(b, &[(RETURN, 0, 0, 0)]).expect("attach");
    send(a, b"bytes", 0).expect("send");
    assert_eq!(recv(b, 10, 0), Ok(b"bytes".to_vec()));
}

fn netlink() {
    // RTM_GETLINK of lo; sock_diag of nothing: an error.
    let mut link = [[32, 0, 0, 0, 18, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0], [0; 16]].concat();
    link[20] = 1;
    let diag = [[20, 0, 0, 0, 20, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0].to_vec(), vec![250, 0, 0, 0]].concat();
    for (protocol, ask) in [(0, link), (4, diag)] {
        let fd = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol));
        attach(fd, &[(RETURN, 0, 0, 0)]).expect("attach");
        send(fd, &ask, 0).expect("send");
        nothing(fd);
        attach(fd, &[(RETURN, 0, 0, 16)]).expect("attach");
        send(fd, &ask, 0).expect("send");
        assert_eq!(recv(fd, 100, libc::MSG_DONTWAIT).expect("receive").len(), 16);
        close(fd);
    }
    // Of devices nothing is told, but who asks for some of it may.
    let fd = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 15));
    attach(fd, &only(LOAD_WORD, 8, 0xfeed_cafe)).expect("attach");
}

fn extensions() {
    assert_eq!(get(udp(), libc::SOL_SOCKET, 48), 64);
}

fn six() {
    let socket = || std::net::UdpSocket::bind("[::1]:0");
    let (Ok(to), Ok(from)) = (socket(), socket()) else { crate::harness::skip!("no IPv6") };
    use std::os::fd::AsRawFd;
    let fd = to.as_raw_fd();
    for (code, goes) in [
        (only(LOAD_BYTE, NETWORK, 0x60), true),
        (only(LOAD_BYTE, NETWORK + 6, 17), true),
        (only(LOAD_WORD, NETWORK + 36, 1), true),
        (only(LOAD_WORD, ABOUT, 0x86dd), true),
        (keep(), false),
    ] {
        attach(fd, &code).expect("attach");
        from.send_to(b"six", to.local_addr().expect("name")).expect("send");
        assert_eq!(recv(fd, 10, libc::MSG_DONTWAIT).is_ok(), goes, "{code:?}");
    }
}

fn early_datagrams() {
    // What was there before stays.
    let ((to, port), (from, _)) = (bound(), bound());
    connect(from, LO, port).expect("connect");
    send(from, b"early", 0).expect("send");
    attach(to, &[(RETURN, 0, 0, 0)]).expect("attach");
    send(from, b"late", 0).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"early".to_vec()));
    nothing(to);
    assert_eq!(name_of(from, true).expect("name").1, port);
}
