//! Options of sockets that want a capability, and those that few programs know.

use super::tcp::{self, bind, connect, get, name_of, set};
use super::udp::{LO, bound, send_to, udp};
use super::udp_control::with_control;
use crate::harness::{cases, close, fails, is_root, ok, skip, sys, zeroed};

cases!("socket_options": marks, transparent, bound_once, for_others, header_options, no_peer, without_effect, signed_segments, old_packet_info, fragments);

const IP_TRANSPARENT: i32 = 19;
const IPV6_TRANSPARENT: i32 = 75;
/// Of documentation alone: nobody's.
const FOREIGN: [u8; 4] = [192, 0, 2, 177];

/// Whether the caller's capabilities count in this network.
fn needs_rights() {
    let fd = udp();
    if set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, 7) == Err(libc::EPERM) {
        skip!("no right over this network");
    }
    close(fd);
}

fn marks() {
    needs_rights();
    for fd in [udp(), tcp::tcp(), ok!(libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0))] {
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_MARK), 0);
        assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_MARK, 0x55), Ok(0));
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_MARK), 0x55);
        let value = 1i32;
        fails!(
            libc::EINVAL,
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_MARK, (&raw const value).cast(), 3)
        );
        close(fd);
    }
    // It says nothing about who hears.
    let (to, port) = bound();
    let (from, _) = bound();
    assert_eq!(set(from, libc::SOL_SOCKET, libc::SO_MARK, 7), Ok(0));
    send_to(from, b"marked", LO, port).expect("send");
    assert_eq!(tcp::recv(to, 10, 0).expect("receive"), b"marked");
    close(to);
    close(from);
}

fn transparent() {
    needs_rights();
    for fd in [udp(), tcp::tcp()] {
        assert_eq!(bind(fd, FOREIGN, 0), Err(libc::EADDRNOTAVAIL));
        assert_eq!(set(fd, libc::IPPROTO_IP, IP_TRANSPARENT, 1), Ok(0));
        assert_eq!(get(fd, libc::IPPROTO_IP, IP_TRANSPARENT), 1);
        assert_eq!(bind(fd, FOREIGN, 0), Ok(0));
        assert_eq!(name_of(fd, false).expect("name").0, FOREIGN);
        close(fd);
    }
}

/// Gives up all capabilities.
fn becomes_nobody() {
    if is_root() {
        ok!(libc::setresuid(1000, 1000, 1000));
    }
}

/// Who has chosen an interface chooses no other without `CAP_NET_RAW`.
fn bound_once() {
    becomes_nobody();
    let fd = udp();
    let to = |name: &[u8]| {
        let (at, length) = (name.as_ptr().cast(), name.len() as u32);
        sys!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, at, length))
    };
    assert_eq!(to(b"lo"), Ok(0));
    assert_eq!(to(b"lo"), Err(libc::EPERM));
    assert_eq!(to(b""), Err(libc::EPERM));
    assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, 0), Err(libc::EPERM));
}

fn for_others() {
    becomes_nobody();
    let six = ok!(libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0));
    for fd in [udp(), tcp::tcp(), six] {
        assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_MARK, 1), Err(libc::EPERM));
        for (priority, answer) in [(0, Ok(0)), (6, Ok(0)), (7, Err(libc::EPERM)), (-1, Err(libc::EPERM))] {
            assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, priority), answer);
        }
        assert_eq!(set(fd, libc::IPPROTO_IP, IP_TRANSPARENT, 0), Ok(0));
        assert_eq!(set(fd, libc::IPPROTO_IP, IP_TRANSPARENT, 1), Err(libc::EPERM));
    }
    assert_eq!(set(six, libc::IPPROTO_IPV6, IPV6_TRANSPARENT, 0), Ok(0));
    assert_eq!(set(six, libc::IPPROTO_IPV6, IPV6_TRANSPARENT, 1), Err(libc::EPERM));
    assert_eq!(set(udp(), libc::IPPROTO_IPV6, IPV6_TRANSPARENT, 1), Err(libc::ENOPROTOOPT));
}

/// IP_OPTIONS without `CAP_NET_RAW`: no route of one's own choice, and nothing that Linux does not know.
fn header_options() {
    becomes_nobody();
    let fd = udp();
    let put = |options: &[u8]| {
        let (at, length) = (options.as_ptr().cast(), options.len() as u32);
        sys!(libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, at, length))
    };
    // Record route, router alert, time stamps, nothing.
    for options in
        [&[7, 7, 4, 0, 0, 0, 0, 0][..], &[148, 4, 0, 0], &[68, 8, 5, 0, 0, 0, 0, 0], &[1, 1, 0, 99], &[]]
    {
        assert_eq!(put(options), Ok(0), "{options:?}");
    }
    let security = [130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cut = [7, 9, 4, 0];
    for options in [
        &security[..],
        &[136, 4, 0, 1],
        &[153, 4, 0, 0],
        &[1, 1, 153, 2],
        &[68, 8, 5, 2, 0, 0, 0, 0],
        &cut,
        &[7],
    ] {
        assert_eq!(put(options), Err(libc::EINVAL), "{options:?}");
    }
    // Source routes want the capability in newer Linux, and always here.
    if put(&[131, 7, 4, 127, 0, 0, 1, 0]) != Ok(0) {
        assert_eq!(put(&[131, 7, 4, 127, 0, 0, 1, 0]), Err(libc::EPERM));
        assert_eq!(put(&[1, 137, 7, 4, 127, 0, 0, 1]), Err(libc::EPERM));
    }
}

/// SO_PEERCRED of a socket whose peer is nobody's.
fn no_peer() {
    for fd in [udp(), tcp::tcp()] {
        let (mut peer, mut len) = ([7i32; 3], 12);
        ok!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut len));
        assert_eq!((peer, len), ([0, -1, -1], 12));
        close(fd);
    }
}

/// SO_BSDCOMPAT is taken and forgotten.
fn without_effect() {
    for fd in [udp(), tcp::tcp()] {
        assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_BSDCOMPAT, 1), Ok(0));
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_BSDCOMPAT), 0);
        close(fd);
    }
}

/// `struct tcp_md5sig` for 127.0.0.1 with a key.
fn signature(key: &[u8]) -> [u8; 216] {
    let mut bytes = [0; 216];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&LO);
    bytes[130..132].copy_from_slice(&(key.len() as u16).to_ne_bytes());
    bytes[136..136 + key.len()].copy_from_slice(key);
    bytes
}

/// Both ends of a TCP connection know a key (RFC 2385), as those of BGP do.
fn signed_segments() {
    const TCP_MD5SIG: i32 = 14;
    let (listener, client) = (tcp::tcp(), tcp::tcp());
    let key = signature(b"secret");
    for fd in [listener, client] {
        match sys!(libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_MD5SIG, key.as_ptr().cast(), 216)) {
            Err(libc::ENOPROTOOPT) => skip!("this Linux signs no segments"),
            done => assert_eq!(done, Ok(0)),
        }
    }
    fails!(libc::EINVAL, libc::setsockopt(client, libc::IPPROTO_TCP, TCP_MD5SIG, key.as_ptr().cast(), 100));
    bind(listener, LO, 0).expect("bind");
    ok!(libc::listen(listener, 1));
    let port = name_of(listener, false).expect("name").1;
    assert_eq!(connect(client, LO, port), Ok(0));
    let accepted = ok!(libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()));
    tcp::send(client, b"signed", 0).expect("send");
    assert_eq!(tcp::recv(accepted, 10, 0).expect("receive"), b"signed");
    for fd in [listener, client, accepted] {
        close(fd);
    }
}

/// The options of RFC 2292, which older programs use.
fn old_packet_info() {
    const PKTINFO: i32 = 2;
    let fd = ok!(libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0));
    let mut name: libc::sockaddr_in6 = zeroed();
    name.sin6_family = libc::AF_INET6 as u16;
    name.sin6_addr.s6_addr[15] = 1;
    if sys!(libc::bind(fd, (&raw const name).cast(), 28)).is_err() {
        skip!("no IPv6 here");
    }
    let mut len = 28;
    ok!(libc::getsockname(fd, (&raw mut name).cast(), &mut len));
    for option in [PKTINFO, 3, 4, 5, 8, 11, 33] {
        assert_eq!(set(fd, libc::IPPROTO_IPV6, option, 1), Ok(0), "{option}");
        assert_eq!(get(fd, libc::IPPROTO_IPV6, option), 1, "{option}");
    }
    ok!(libc::sendto(fd, b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), 28));
    let (data, control, _) = with_control(fd, 0);
    assert_eq!(data, b"x");
    let info =
        control.iter().find(|c| (c.0, c.1) == (libc::IPPROTO_IPV6, PKTINFO)).expect("IPV6_2292PKTINFO");
    assert_eq!(&info.2[..16], &name.sin6_addr.s6_addr);
    close(fd);
}

fn fragments() {
    let fd = udp();
    // CHECKSUM, RECVFRAGSIZE, RECVERR_RFC4884
    for option in [23, 25, 26] {
        match set(fd, libc::IPPROTO_IP, option, 1) {
            // Before Linux 5.9.
            Err(libc::ENOPROTOOPT) if option == 26 => {}
            done => assert_eq!((done, get(fd, libc::IPPROTO_IP, option)), (Ok(0), 1)),
        }
    }
    close(fd);
}
