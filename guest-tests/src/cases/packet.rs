//! Raw sockets (raw(7)) and packet sockets (packet(7)), over lo.

use std::os::fd::RawFd;

use super::tcp::{address, get, recv, set};
use super::udp::{LO, bound, send_to};
use crate::harness::{cases, close, fails, ok, skip, sleep_ms, sys, zeroed};

cases!("packet": raw_echo, raw_hears_udp, raw_header_included, raw_errors, raw_bound, raw_six, frames_of_lo, cooked_frames,
    sends_frames, name, options, statistics, filtered, hears_programs,
    drivers_questions, not_for_everybody);

pub(super) const SOL_PACKET: i32 = 263;
pub(super) const ETH_P_ALL: u16 = 3;
const ETH_P_IP: u16 = 0x0800;

/// A socket of this kind; skipped where this network is not ours to listen to.
pub(super) fn open(family: i32, kind: i32, protocol: i32) -> RawFd {
    match sys!(libc::socket(family, kind, protocol)) {
        Ok(fd) => fd,
        Err(libc::EPERM) => skip!("no CAP_NET_RAW over this network"),
        Err(errno) => panic!("socket({family}, {kind}, {protocol}): {errno}"),
    }
}

pub(super) fn lo_index() -> i32 {
    ok!(libc::if_nametoindex(c"lo".as_ptr())) as i32
}

pub(super) fn link_address(protocol: u16) -> libc::sockaddr_ll {
    let mut address: libc::sockaddr_ll = zeroed();
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = lo_index();
    address
}

/// A packet socket on lo.
fn on_lo(kind: i32, protocol: u16) -> RawFd {
    let fd = open(libc::AF_PACKET, kind, 0);
    let name = link_address(protocol);
    ok!(libc::bind(fd, (&raw const name).cast(), 20));
    fd
}

/// A datagram that nobody else has sent.
pub(super) fn token(what: &str) -> Vec<u8> {
    format!("{what} {} {}", std::process::id(), std::env::args().count()).into_bytes()
}

/// Sends this as a datagram that goes over the interface: the receiver asks for time stamps.
pub(super) fn send_over_lo(data: &[u8]) -> (RawFd, u16) {
    let (to, port) = bound();
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).expect("set");
    let (from, _) = bound();
    send_to(from, data, LO, port).expect("send");
    close(from);
    (to, port)
}

/// Waits until there is something to read.
pub(super) fn readable(fd: RawFd) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!((ok!(libc::poll(&mut entry, 1, 5000)), entry.revents), (1, libc::POLLIN), "nothing came");
}

/// The first message that ends in this, with its sender.
fn next(fd: RawFd, end: &[u8]) -> (Vec<u8>, libc::sockaddr_ll) {
    for _ in 0..1000 {
        readable(fd);
        let (mut data, mut from, mut len) = (vec![0; 70_000], zeroed(), 20);
        let from_at: *mut libc::sockaddr_ll = &raw mut from;
        let n = sys!(libc::recvfrom(
            fd,
            data.as_mut_ptr().cast(),
            data.len(),
            libc::MSG_DONTWAIT,
            from_at.cast(),
            &mut len
        ));
        match n {
            Ok(n) => data.truncate(n as usize),
            Err(errno) => {
                assert_eq!(errno, libc::EAGAIN);
                continue;
            }
        }
        if data.ends_with(end) {
            return (data, from);
        }
    }
    panic!("it did not come");
}

fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 =
        data.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn raw_echo() {
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP);
    let id = (std::process::id() as u16).to_be_bytes();
    let mut ask = [&[8, 0, 0, 0][..], &id, &[0, 1], b"guest tests raw!"].concat();
    let sum = checksum(&ask).to_be_bytes();
    ask[2..4].copy_from_slice(&sum);
    assert_eq!(send_to(fd, &ask, LO, 0), Ok(24));
    // Both the request and the answer come by, each with its IP header.
    for _ in 0..1000 {
        let got = recv(fd, 1000, 0).expect("recv");
        if got[20] == 0 && got[24..26] == id {
            assert_eq!((got.len(), got[0], got[9]), (44, 0x45, 1));
            assert_eq!(got[28..], ask[8..]);
            return;
        }
    }
    panic!("no answer");
}

fn raw_hears_udp() {
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP);
    assert_eq!(
        (get(fd, libc::SOL_SOCKET, libc::SO_TYPE), get(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)),
        (3, 17)
    );
    let data = token("raw");
    let (_to, port) = send_over_lo(&data);
    for _ in 0..1000 {
        let got = recv(fd, 1000, 0).expect("recv");
        if got.ends_with(&data) {
            assert_eq!((got.len(), got[9]), (28 + data.len(), 17));
            assert_eq!((&got[12..16], &got[22..24]), (&LO[..], &port.to_be_bytes()[..]));
            return;
        }
    }
}

/// A UDP datagram to a port of lo with its IP header.
fn datagram(port: u16, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut out = vec![0x45, 0];
    out.extend((length + 20).to_be_bytes());
    out.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    out.extend(LO);
    out.extend(LO);
    let sum = checksum(&out).to_be_bytes();
    out[10..12].copy_from_slice(&sum);
    out.extend(7_u16.to_be_bytes());
    out.extend(port.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend([0, 0]);
    out.extend(data);
    out
}

fn raw_header_included() {
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
    // IPPROTO_RAW has it on, and never receives.
    assert_eq!(get(fd, 0, libc::IP_HDRINCL), 1);
    let (to, port) = bound();
    let packet = datagram(port, b"made by hand");
    assert_eq!(send_to(fd, &packet, LO, 0), Ok(packet.len() as isize));
    let (data, from, from_port) = super::udp::recv_from(to);
    assert_eq!((&data[..], from, from_port), (&b"made by hand"[..], LO, 7));
    let udp = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP);
    set(udp, 0, libc::IP_HDRINCL, 1).expect("set");
    assert_eq!(send_to(udp, &packet, LO, 0), Ok(packet.len() as isize));
    assert_eq!(super::udp::recv_from(to).0, b"made by hand");
}

fn raw_errors() {
    fails!(libc::EPROTONOSUPPORT, libc::socket(libc::AF_INET, libc::SOCK_RAW, 0));
    fails!(libc::EINVAL, libc::socket(libc::AF_INET, libc::SOCK_RAW, -1));
    fails!(libc::EINVAL, libc::socket(libc::AF_INET, libc::SOCK_RAW, 4000));
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP);
    fails!(libc::EOPNOTSUPP, libc::listen(fd, 1));
    assert_eq!(set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1), Err(libc::ENOPROTOOPT));
    fails!(libc::EDESTADDRREQ, libc::send(fd, b"x".as_ptr().cast(), 1, 0));
}

fn raw_bound() {
    let fd = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP);
    // The port of the name is the protocol, whatever was asked for.
    let mut name = address(LO, 7);
    ok!(libc::bind(fd, (&raw const name).cast(), 16));
    let mut len = 16;
    ok!(libc::getsockname(fd, (&raw mut name).cast(), &mut len));
    assert_eq!((u16::from_be(name.sin_port), name.sin_addr.s_addr.to_ne_bytes()), (17, LO));
    ok!(libc::connect(fd, (&raw const name).cast(), 16));
    let (_to, port) = bound();
    let rest = &datagram(port, b"xyz")[20..];
    assert_eq!(sys!(libc::send(fd, rest.as_ptr().cast(), rest.len(), 0)), Ok(11));
}

fn raw_six() {
    let fd = open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6);
    let mut to: libc::sockaddr_in6 = zeroed();
    to.sin6_family = libc::AF_INET6 as u16;
    to.sin6_addr.s6_addr[15] = 1;
    let id = (std::process::id() as u16).to_be_bytes();
    let ask = [&[128, 0, 0, 0][..], &id, &[0, 1], b"six"].concat();
    match sys!(libc::sendto(fd, ask.as_ptr().cast(), ask.len(), 0, (&raw const to).cast(), 28)) {
        Ok(n) => assert_eq!(n, 11),
        Err(libc::EADDRNOTAVAIL | libc::ENETUNREACH) => skip!("no IPv6 here"),
        Err(errno) => panic!("sendto: {errno}"),
    }
    loop {
        // Without a header.
        let got = recv(fd, 1000, 0).expect("recv");
        if got[0] == 129 && got[4..6] == id {
            assert_eq!(got[8..], *b"six");
            return;
        }
    }
}

fn frames_of_lo() {
    let fd = on_lo(libc::SOCK_RAW, ETH_P_ALL);
    let data = token("frame");
    let (_to, port) = send_over_lo(&data);
    let (frame, from) = next(fd, &data);
    // Ethernet's header, IPv4's, UDP's.
    assert_eq!((frame.len(), &frame[12..15]), (42 + data.len(), &[8, 0, 0x45][..]));
    assert_eq!(frame[36..38], port.to_be_bytes());
    assert_eq!((from.sll_protocol, from.sll_ifindex), (ETH_P_IP.to_be(), lo_index()));
    assert_eq!((from.sll_hatype, from.sll_halen), (772, 6));
    // On its way out (PACKET_OUTGOING) or in.
    assert!(matches!(from.sll_pkttype, 0 | 4), "{}", from.sll_pkttype);
}

fn cooked_frames() {
    let fd = on_lo(libc::SOCK_DGRAM, ETH_P_IP);
    let data = token("cooked");
    let _to = send_over_lo(&data);
    let (packet, from) = next(fd, &data);
    assert_eq!((packet.len(), packet[0], from.sll_pkttype), (28 + data.len(), 0x45, 0));
}

fn sends_frames() {
    // Linux takes no such packet in whose sender is of lo, but every packet socket sees it come by.
    let seen = on_lo(libc::SOCK_RAW, ETH_P_IP);
    let data = token("from the link");
    let packet = datagram(9, &data);
    let raw = on_lo(libc::SOCK_RAW, ETH_P_IP);
    let frame = [&[0; 12][..], &[8, 0], &packet].concat();
    let name = link_address(ETH_P_IP);
    let at = (&raw const name).cast();
    let length = frame.len() as isize;
    assert_eq!(sys!(libc::sendto(raw, frame.as_ptr().cast(), frame.len(), 0, at, 20)), Ok(length));
    assert_eq!(next(seen, &data).0, frame);
    // Where the socket is bound.
    assert_eq!(sys!(libc::send(raw, frame.as_ptr().cast(), frame.len(), 0)), Ok(length));
    assert_eq!(next(seen, &data).0, frame);
    let cooked = on_lo(libc::SOCK_DGRAM, 0);
    assert_eq!(sys!(libc::sendto(cooked, packet.as_ptr().cast(), packet.len(), 0, at, 20)), Ok(length - 14));
    assert_eq!(next(seen, &data).0[14..], packet);
    fails!(libc::EINVAL, libc::sendto(raw, frame.as_ptr().cast(), 5, 0, at, 20));
    let huge = vec![0; 80_000];
    fails!(libc::EMSGSIZE, libc::sendto(raw, huge.as_ptr().cast(), huge.len(), 0, at, 20));
}

fn name() {
    let fd = on_lo(libc::SOCK_RAW, ETH_P_ALL);
    let (mut name, mut len) = (link_address(0), 20);
    ok!(libc::getsockname(fd, (&raw mut name).cast(), &mut len));
    assert_eq!((len, name.sll_protocol, name.sll_ifindex), (18, ETH_P_ALL.to_be(), lo_index()));
    fails!(libc::EOPNOTSUPP, libc::getpeername(fd, (&raw mut name).cast(), &mut len));
    fails!(libc::EOPNOTSUPP, libc::connect(fd, (&raw const name).cast(), 20));
    fails!(libc::EOPNOTSUPP, libc::listen(fd, 1));
    fails!(libc::EOPNOTSUPP, libc::shutdown(fd, libc::SHUT_RDWR));
    let mut wrong = link_address(ETH_P_ALL);
    wrong.sll_ifindex = 123_456;
    fails!(libc::ENODEV, libc::bind(fd, (&raw const wrong).cast(), 20));
    wrong.sll_family = libc::AF_INET as u16;
    fails!(libc::EINVAL, libc::bind(fd, (&raw const wrong).cast(), 20));
    fails!(libc::EINVAL, libc::bind(fd, (&raw const wrong).cast(), 8));
}

fn options() {
    let fd = on_lo(libc::SOCK_RAW, ETH_P_ALL);
    // struct packet_mreq: to hear everything.
    let mut request = [0_u8; 16];
    request[..4].copy_from_slice(&lo_index().to_ne_bytes());
    request[4..6].copy_from_slice(&1_u16.to_ne_bytes());
    let at = request.as_ptr().cast();
    // PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP.
    for name in [1, 2] {
        ok!(libc::setsockopt(fd, SOL_PACKET, name, at, 16));
    }
    // PACKET_AUXDATA, PACKET_ORIGDEV, PACKET_IGNORE_OUTGOING.
    for name in [8, 9, 23] {
        assert_eq!(get(fd, SOL_PACKET, name), 0, "{name}");
        set(fd, SOL_PACKET, name, 1).expect("set");
        assert_eq!(get(fd, SOL_PACKET, name), 1, "{name}");
    }
    // PACKET_VERSION, PACKET_RESERVE.
    assert_eq!(set(fd, SOL_PACKET, 10, 7), Err(libc::EINVAL));
    for version in [0, 2, 1] {
        set(fd, SOL_PACKET, 10, version).expect("set");
        assert_eq!(get(fd, SOL_PACKET, 10), version);
    }
    set(fd, SOL_PACKET, 12, 4).expect("set");
    assert_eq!((get(fd, SOL_PACKET, 12), set(fd, SOL_PACKET, 12, -1)), (4, Err(libc::EINVAL)));
    // PACKET_HDRLEN of each version.
    for (version, length) in [(0, 32), (1, 32), (2, 48)] {
        let (mut value, mut size) = (version, 4);
        ok!(libc::getsockopt(fd, SOL_PACKET, 11, (&raw mut value).cast(), &mut size));
        assert_eq!((value, size), (length, 4));
    }
    let (mut value, mut size) = (9, 4);
    fails!(libc::EINVAL, libc::getsockopt(fd, SOL_PACKET, 11, (&raw mut value).cast(), &mut size));
    assert_eq!(set(fd, SOL_PACKET, 999, 1), Err(libc::ENOPROTOOPT));
    // struct tpacket_auxdata of a frame.
    let data = token("auxiliary");
    let _to = send_over_lo(&data);
    for _ in 0..1000 {
        let (mut buf, mut control) = (vec![0_u8; 2000], [0_u64; 16]);
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 128;
        let n = ok!(libc::recvmsg(fd, &raw mut header, 0)) as usize;
        if buf[..n].ends_with(&data) {
            // Length 36, SOL_PACKET and PACKET_AUXDATA; behind it status, length twice, mac 0 and net 14.
            assert_eq!((control[0], control[1]), (36, 8 << 32 | 263));
            assert_eq!((control[2] & 1, control[2] >> 32), (1, n as u64));
            assert_eq!((control[3] as u32 as usize, control[3] >> 32), (n, 14 << 16));
            return;
        }
    }
    panic!("it did not come");
}

/// `PACKET_STATISTICS`.
pub(super) fn counts(fd: RawFd) -> (u32, u32) {
    let (mut value, mut size) = ([0_u32; 3], 12);
    ok!(libc::getsockopt(fd, SOL_PACKET, 6, value.as_mut_ptr().cast(), &mut size));
    assert!(matches!(size, 8 | 12));
    (value[0], value[1])
}

fn statistics() {
    let fd = on_lo(libc::SOCK_RAW, ETH_P_IP);
    let data = token("counted");
    let _to = send_over_lo(&data);
    next(fd, &data);
    assert!(counts(fd).0 >= 1);
}

pub(super) fn attach(fd: RawFd, code: &[(u16, u8, u8, u32)]) {
    let one = |i: &(u16, u8, u8, u32)| [&i.0.to_ne_bytes()[..], &[i.1, i.2], &i.3.to_ne_bytes()].concat();
    let bytes: Vec<u8> = code.iter().flat_map(one).collect();
    let program = (code.len() as u64, bytes.as_ptr());
    ok!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), 16));
}

/// Lets UDP to this port pass, cut to 50 bytes, as tcpdump's filters do.
pub(super) fn only_port(port: u16) -> Vec<(u16, u8, u8, u32)> {
    vec![
        (0x28, 0, 0, 12),
        (0x15, 0, 5, u32::from(ETH_P_IP)),
        (0x30, 0, 0, 23),
        (0x15, 0, 3, 17),
        (0x28, 0, 0, 36),
        (0x15, 0, 1, u32::from(port)),
        (0x06, 0, 0, 50),
        (0x06, 0, 0, 0),
    ]
}

fn filtered() {
    let fd = on_lo(libc::SOCK_RAW, ETH_P_ALL);
    let (first, second) = (token("first of all"), token("other"));
    let (other, _) = send_over_lo(&first);
    let (to, port) = send_over_lo(&second);
    attach(fd, &only_port(port));
    // What came before the filter is judged when it is read, or was let through: at most these two.
    let (from, _) = bound();
    send_to(from, &token("third and last of them"), LO, port).expect("send");
    sleep_ms(20);
    for _ in 0..20 {
        match recv(fd, 1000, libc::MSG_DONTWAIT) {
            Ok(frame) if frame.len() == 50 => {
                assert_eq!(frame[36..38], port.to_be_bytes());
                // SKF_LL_OFF, SKF_NET_OFF, SKF_AD_PROTOCOL, SKF_AD_PKTTYPE, SKF_AD_HATYPE
                let low = |n: i32| n as u32;
                attach(
                    fd,
                    &[
                        (0x28, 0, 0, low(-0x20_0000 + 12)),
                        (0x15, 0, 7, u32::from(ETH_P_IP)),
                        (0x30, 0, 0, low(-0x10_0000)),
                        (0x15, 0, 5, 0x45),
                        (0x20, 0, 0, low(-0x1000)),
                        (0x15, 0, 3, u32::from(ETH_P_IP)),
                        (0x20, 0, 0, low(-0x1000 + 28)),
                        (0x15, 0, 1, 772),
                        (0x06, 0, 0, 30),
                        (0x06, 0, 0, 0),
                    ],
                );
                send_to(from, b"once more", LO, port).expect("send");
                for _ in 0..100 {
                    if recv(fd, 1000, 0).expect("recv").len() == 30 {
                        for fd in [other, to] {
                            close(fd);
                        }
                        return;
                    }
                }
            }
            Ok(_) => {}
            Err(errno) => panic!("recv: {errno}"),
        }
    }
    panic!("nothing was cut");
}

fn hears_programs() {
    // Whatever programs of this machine send each other while somebody listens.
    let fd = on_lo(libc::SOCK_RAW, ETH_P_ALL);
    let ((to, port), (from, _)) = (bound(), bound());
    let data = token("plain datagram");
    send_to(from, &data, LO, port).expect("send");
    next(fd, &data);
    assert_eq!(recv(to, 100, 0), Ok(data));
    let (a, b) = super::tcp::connected();
    let data = token("over a connection");
    super::tcp::send(a, &data, 0).expect("send");
    next(fd, &data);
    assert_eq!(recv(b, 100, 0), Ok(data));
    close(a);
    assert_eq!(recv(b, 100, 0), Ok(Vec::new()));
    // And to a raw socket.
    close(fd);
    let raw = open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP);
    let (a, _b) = super::tcp::connected();
    let data = token("over another");
    super::tcp::send(a, &data, 0).expect("send");
    next(raw, &data);
}

fn drivers_questions() {
    // SIOCETHTOOL with ETHTOOL_GLINK, ETHTOOL_GGSO, ETHTOOL_GDRVINFO of lo.
    let fd = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
    let ask = |name: &[u8], data: &mut [u32]| {
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name);
        request[16..24].copy_from_slice(&(data.as_mut_ptr() as u64).to_ne_bytes());
        sys!(libc::ioctl(fd, 0x8946, request.as_mut_ptr()))
    };
    let mut link = [0xa, 7];
    assert_eq!((ask(b"lo", &mut link), link[1]), (Ok(0), 1));
    let mut offload = [0x23, 7];
    assert_eq!((ask(b"lo", &mut offload), offload[1]), (Ok(0), 1));
    let mut driver = [0_u32; 49];
    driver[0] = 3;
    match ask(b"lo", &mut driver) {
        // Older kernels know no driver of lo.
        Ok(_) | Err(libc::EOPNOTSUPP) => {}
        Err(errno) => panic!("ETHTOOL_GDRVINFO: {errno}"),
    }
    assert_eq!(ask(b"nothing", &mut link), Err(libc::ENODEV));
    // ETHTOOL_SGSO is no question.
    if !crate::harness::is_root() {
        assert_eq!(ask(b"lo", &mut [0x24, 1]), Err(libc::EPERM));
    }
    fails!(libc::EFAULT, libc::ioctl(fd, 0x8946, 8));
}

fn not_for_everybody() {
    if !crate::harness::is_root() {
        skip!("not root");
    }
    ok!(libc::setresuid(1000, 1000, 1000));
    for kind in [libc::SOCK_RAW, libc::SOCK_DGRAM, libc::SOCK_STREAM, 77] {
        let wanted = if kind == 77 { libc::EINVAL } else { libc::EPERM };
        fails!(wanted, libc::socket(libc::AF_PACKET, kind, 0));
    }
    for protocol in [1, 6, 17, 200, 255] {
        fails!(libc::EPERM, libc::socket(libc::AF_INET, libc::SOCK_RAW, protocol));
        fails!(libc::EPERM, libc::socket(libc::AF_INET6, libc::SOCK_RAW, protocol));
    }
}
