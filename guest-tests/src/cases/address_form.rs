//! `IPV6_ADDRFORM` of ipv6(7): sockets of IPv6 that are connected to IPv4 become sockets of IPv4.

use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use super::tcp::{connect, get, set};
use crate::harness::{cases, close, fails, ok, skip, sys, zeroed};

cases!("address_form": tcp_not_connected, tcp_of_ipv6, tcp_mapped, tcp_mapped_by_host, tcp_bound, tcp_accepted, tcp_half_closed, tcp_connects_again, tcp_changes_lists, udp_states, udp_mapped, udp_connects_again, udp_corked, v6_only_is_kept, values, other_types);

const IPV6: i32 = libc::IPPROTO_IPV6;
const ADDRFORM: i32 = 1;
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1);
const LOCAL: &str = "127.0.0.1:0";

fn socket(kind: i32) -> RawFd {
    ok!(libc::socket(libc::AF_INET6, kind, 0))
}

fn six(ip: Ipv6Addr, port: u16) -> libc::sockaddr_in6 {
    let mut name: libc::sockaddr_in6 = zeroed();
    name.sin6_family = libc::AF_INET6 as u16;
    name.sin6_port = port.to_be();
    name.sin6_addr.s6_addr = ip.octets();
    name
}

fn connect6(fd: RawFd, ip: Ipv6Addr, port: u16) -> Result<i32, i32> {
    let name = six(ip, port);
    sys!(libc::connect(fd, (&raw const name).cast(), 28))
}

/// Where ::1 is no address there are no connections of IPv6 that are not mapped.
fn has_loopback() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip!("no IPv6 here");
    }
}

fn dissolve(fd: RawFd) {
    let nobody: libc::sockaddr_in = zeroed();
    ok!(libc::connect(fd, (&raw const nobody).cast(), 16));
}

fn change(fd: RawFd) -> Result<i32, i32> {
    set(fd, IPV6, ADDRFORM, libc::AF_INET)
}

fn form(fd: RawFd) -> Result<i32, i32> {
    let (mut value, mut len) = (-1, 4);
    sys!(libc::getsockopt(fd, IPV6, ADDRFORM, (&raw mut value).cast(), &mut len)).map(|_| value)
}

/// Family, length, port and IPv4 address of a name.
fn name(fd: RawFd, peer: bool) -> Result<(u16, u32, u16, [u8; 4]), i32> {
    let mut bytes = [0u8; 28];
    let mut len = 28;
    let at = bytes.as_mut_ptr().cast();
    let got = if peer {
        sys!(libc::getpeername(fd, at, &mut len))
    } else {
        sys!(libc::getsockname(fd, at, &mut len))
    };
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let ip = if family == libc::AF_INET as u16 { &bytes[4..8] } else { &bytes[20..24] };
    let ip = ip.try_into().expect("four bytes");
    got.map(|_| (family, len, u16::from_be_bytes([bytes[2], bytes[3]]), ip))
}

/// What a socket is after the change.
fn is_ipv4(fd: RawFd, own: &str, peer: Option<u16>) {
    assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN), libc::AF_INET);
    let (family, len, _, ip) = name(fd, false).expect("name");
    assert_eq!((family, len, ip.map(|b| b.to_string()).join(".").as_str()), (2, 16, own));
    match peer {
        Some(port) => assert_eq!(name(fd, true), Ok((2, 16, port, [127, 0, 0, 1]))),
        None => assert_eq!(name(fd, true), Err(libc::ENOTCONN)),
    }
    for option in [ADDRFORM, libc::IPV6_V6ONLY] {
        let (mut value, mut len) = (-1, 4);
        fails!(libc::EOPNOTSUPP, libc::getsockopt(fd, IPV6, option, (&raw mut value).cast(), &mut len));
    }
    assert_eq!(change(fd), Err(libc::ENOPROTOOPT));
    assert_eq!(set(fd, IPV6, libc::IPV6_V6ONLY, 0), Err(libc::ENOPROTOOPT));
    assert_eq!(set(fd, IPV6, libc::IPV6_UNICAST_HOPS, 5), Err(libc::ENOPROTOOPT));
    assert_eq!(set(fd, libc::IPPROTO_IP, libc::IP_TTL, 44), Ok(0));
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TTL), 44);
}

fn send(fd: RawFd, data: &[u8]) {
    assert_eq!(ok!(libc::send(fd, data.as_ptr().cast(), data.len(), 0)), data.len() as isize);
}

fn receives(fd: RawFd, wanted: &[u8]) {
    let mut data = [0u8; 64];
    let n = ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0));
    assert_eq!(&data[..n as usize], wanted);
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    let port = listener.local_addr().expect("name").port();
    (listener, port)
}

fn tcp_not_connected() {
    let fd = socket(libc::SOCK_STREAM);
    let refused = |fd| assert_eq!((change(fd), form(fd)), (Err(libc::ENOTCONN), Err(libc::ENOTCONN)));
    refused(fd);
    let any = six(Ipv6Addr::UNSPECIFIED, 0);
    ok!(libc::bind(fd, (&raw const any).cast(), 28));
    refused(fd);
    ok!(libc::listen(fd, 1));
    refused(fd);
    assert_eq!(set(fd, IPV6, ADDRFORM, libc::AF_INET6), Err(libc::EINVAL));
    close(fd);
    let fd = socket(libc::SOCK_STREAM);
    let free = listener().1;
    assert_eq!(connect6(fd, MAPPED, free), Err(libc::ECONNREFUSED));
    refused(fd);
    close(fd);
}

fn tcp_of_ipv6() {
    has_loopback();
    let listener = TcpListener::bind("[::1]:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("name")).expect("connect");
    let fd = client.as_raw_fd();
    assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Err(libc::EADDRNOTAVAIL)));
    assert_eq!(set(fd, IPV6, ADDRFORM, libc::AF_INET6), Err(libc::EINVAL));
}

fn mapped(fd: RawFd) {
    let (listener, port) = listener();
    assert_eq!(connect6(fd, MAPPED, port), Ok(0));
    let accepted = listener.accept().expect("accept").0;
    assert_eq!(name(fd, true), Ok((10, 28, port, [127, 0, 0, 1])));
    let own = name(fd, false).expect("name");
    assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Ok(0)));
    assert_eq!(name(fd, false), Ok((2, 16, own.2, [127, 0, 0, 1])));
    is_ipv4(fd, "127.0.0.1", Some(port));
    send(fd, b"there");
    receives(accepted.as_raw_fd(), b"there");
    send(accepted.as_raw_fd(), b"back");
    receives(fd, b"back");
    // A copy of the descriptor is the same socket.
    let copy = ok!(libc::dup(fd));
    assert_eq!(get(copy, libc::SOL_SOCKET, libc::SO_DOMAIN), libc::AF_INET);
    close(copy);
    drop(accepted);
    receives(fd, b"");
    close(fd);
}

fn tcp_mapped() {
    mapped(socket(libc::SOCK_STREAM));
}

/// The same for a connection that our kernel does not make by itself.
fn tcp_mapped_by_host() {
    let fd = socket(libc::SOCK_STREAM);
    assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1), Ok(0));
    mapped(fd);
}

fn tcp_bound() {
    let fd = socket(libc::SOCK_STREAM);
    let any = six(Ipv6Addr::UNSPECIFIED, 0);
    ok!(libc::bind(fd, (&raw const any).cast(), 28));
    let port = name(fd, false).expect("name").2;
    let (first, second) = (listener(), listener());
    assert_eq!(connect6(fd, MAPPED, first.1), Ok(0));
    assert_eq!(change(fd), Ok(0));
    assert_eq!(name(fd, false), Ok((2, 16, port, [127, 0, 0, 1])));
    is_ipv4(fd, "127.0.0.1", Some(first.1));
    dissolve(fd);
    is_ipv4(fd, "0.0.0.0", None);
    assert_eq!(connect6(fd, MAPPED, second.1), Err(libc::EAFNOSUPPORT));
    assert_eq!(connect(fd, [127, 0, 0, 1], second.1), Ok(0));
    is_ipv4(fd, "127.0.0.1", Some(second.1));
    send(fd, b"anew");
    receives(second.0.accept().expect("accept").0.as_raw_fd(), b"anew");
    close(fd);
}

fn tcp_accepted() {
    let listener = TcpListener::bind("[::]:0").expect("bind");
    let port = listener.local_addr().expect("name").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let accepted = listener.accept().expect("accept").0;
    let fd = accepted.as_raw_fd();
    assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Ok(0)));
    is_ipv4(fd, "127.0.0.1", Some(client.local_addr().expect("name").port()));
    assert!(accepted.local_addr().expect("name").is_ipv4());
    send(client.as_raw_fd(), b"data");
    receives(fd, b"data");
    // The listener has not changed.
    assert_eq!(get(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN), libc::AF_INET6);
}

fn tcp_half_closed() {
    for (how, answer) in [(libc::SHUT_RD, Ok(0)), (libc::SHUT_WR, Err(libc::ENOTCONN))] {
        let (listener, port) = listener();
        let fd = socket(libc::SOCK_STREAM);
        assert_eq!(connect6(fd, MAPPED, port), Ok(0));
        let _accepted = listener.accept().expect("accept").0;
        ok!(libc::shutdown(fd, how));
        assert_eq!(change(fd), answer);
        close(fd);
    }
    let (listener, port) = listener();
    let fd = socket(libc::SOCK_STREAM);
    assert_eq!(connect6(fd, MAPPED, port), Ok(0));
    drop(listener.accept().expect("accept").0);
    receives(fd, b"");
    assert_eq!((form(fd), change(fd)), (Err(libc::ENOTCONN), Err(libc::ENOTCONN)));
    close(fd);
}

fn tcp_connects_again() {
    let (first, second) = (listener(), listener());
    let fd = socket(libc::SOCK_STREAM);
    assert_eq!(connect6(fd, MAPPED, first.1), Ok(0));
    assert_eq!(change(fd), Ok(0));
    assert_eq!(connect(fd, [127, 0, 0, 1], second.1), Err(libc::EISCONN));
    dissolve(fd);
    is_ipv4(fd, "0.0.0.0", None);
    assert_eq!(connect6(fd, Ipv6Addr::LOCALHOST, second.1), Err(libc::EAFNOSUPPORT));
    assert_eq!(connect(fd, [127, 0, 0, 1], second.1), Ok(0));
    is_ipv4(fd, "127.0.0.1", Some(second.1));
    close(fd);
}

/// /proc/net has it among those of IPv4.
fn tcp_changes_lists() {
    let (listener, port) = listener();
    let fd = socket(libc::SOCK_STREAM);
    assert_eq!(connect6(fd, MAPPED, port), Ok(0));
    let _accepted = listener.accept().expect("accept").0;
    let own = format!(":{:04X} ", name(fd, false).expect("name").2);
    let listed = |file| {
        let text = std::fs::read_to_string(file).expect("list");
        text.lines().any(|line| {
            line.split_whitespace().nth(1).is_some_and(|name| own.starts_with(&name[name.len() - 5..]))
        })
    };
    assert_eq!((listed("/proc/net/tcp"), listed("/proc/net/tcp6")), (false, true));
    assert_eq!(change(fd), Ok(0));
    assert_eq!((listed("/proc/net/tcp"), listed("/proc/net/tcp6")), (true, false));
    close(fd);
}

fn udp_states() {
    has_loopback();
    let fd = socket(libc::SOCK_DGRAM);
    let any = six(Ipv6Addr::UNSPECIFIED, 0);
    assert_eq!((form(fd), change(fd)), (Err(libc::ENOTCONN), Err(libc::ENOTCONN)));
    ok!(libc::bind(fd, (&raw const any).cast(), 28));
    assert_eq!((form(fd), change(fd)), (Err(libc::ENOTCONN), Err(libc::ENOTCONN)));
    assert_eq!(connect6(fd, Ipv6Addr::LOCALHOST, 9), Ok(0));
    assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Err(libc::EADDRNOTAVAIL)));
    close(fd);
}

fn udp_mapped() {
    let other = UdpSocket::bind(LOCAL).expect("bind");
    let port = other.local_addr().expect("name").port();
    let fd = socket(libc::SOCK_DGRAM);
    assert_eq!(connect6(fd, MAPPED, port), Ok(0));
    let own = name(fd, false).expect("name");
    // What has come already is read as what comes later.
    other.send_to(b"early", ("127.0.0.1", own.2)).expect("send");
    assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Ok(0)));
    is_ipv4(fd, "127.0.0.1", Some(port));
    other.send_to(b"late", ("127.0.0.1", own.2)).expect("send");
    for wanted in [&b"early"[..], b"late"] {
        let mut data = [0u8; 16];
        let mut from: libc::sockaddr_in6 = zeroed();
        let mut len = 28;
        let at = data.as_mut_ptr().cast();
        let n = ok!(libc::recvfrom(fd, at, 16, 0, (&raw mut from).cast(), &mut len));
        assert_eq!((&data[..n as usize], from.sin6_family, len), (wanted, libc::AF_INET as u16, 16));
    }
    send(fd, b"answer");
    let mut data = [0u8; 16];
    let (n, from) = other.recv_from(&mut data).expect("receive");
    assert_eq!((&data[..n], from.port()), (&b"answer"[..], own.2));
    close(fd);
}

fn udp_connects_again() {
    let (first, second) = (UdpSocket::bind(LOCAL).expect("bind"), UdpSocket::bind(LOCAL).expect("bind"));
    let port = |socket: &UdpSocket| socket.local_addr().expect("name").port();
    let fd = socket(libc::SOCK_DGRAM);
    assert_eq!(connect6(fd, MAPPED, port(&first)), Ok(0));
    assert_eq!(change(fd), Ok(0));
    assert_eq!(connect6(fd, MAPPED, port(&second)), Err(libc::EAFNOSUPPORT));
    assert_eq!(connect(fd, [127, 0, 0, 1], port(&second)), Ok(0));
    is_ipv4(fd, "127.0.0.1", Some(port(&second)));
    dissolve(fd);
    is_ipv4(fd, "0.0.0.0", None);
    let to = six(MAPPED, port(&first));
    fails!(libc::EAFNOSUPPORT, libc::sendto(fd, b"x".as_ptr().cast(), 1, 0, (&raw const to).cast(), 28));
    close(fd);
}

fn udp_corked() {
    has_loopback();
    let other = UdpSocket::bind(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0)).expect("bind");
    let fd = socket(libc::SOCK_DGRAM);
    assert_eq!(connect6(fd, Ipv6Addr::LOCALHOST, other.local_addr().expect("name").port()), Ok(0));
    ok!(libc::send(fd, b"a".as_ptr().cast(), 1, libc::MSG_MORE));
    assert_eq!(change(fd), Err(libc::EBUSY));
    close(fd);
}

/// `IPV6_V6ONLY` is not to be changed once there is a port, whoever has chosen that.
fn v6_only_is_kept() {
    let server = TcpListener::bind("[::]:0").expect("bind");
    let port = server.local_addr().expect("name").port();
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        let fd = socket(kind);
        for value in [1, 0] {
            assert_eq!(set(fd, IPV6, libc::IPV6_V6ONLY, value), Ok(0));
        }
        assert_eq!(connect6(fd, MAPPED, port), Ok(0));
        let kept = |fd| {
            for value in [0, 1] {
                assert_eq!(set(fd, IPV6, libc::IPV6_V6ONLY, value), Err(libc::EINVAL));
            }
            assert_eq!(get(fd, IPV6, libc::IPV6_V6ONLY), 0);
        };
        kept(fd);
        if kind == libc::SOCK_STREAM {
            let accepted = server.accept().expect("accept").0;
            kept(accepted.as_raw_fd());
            ok!(libc::shutdown(fd, libc::SHUT_WR));
            kept(fd);
        }
        close(fd);
    }
    assert_eq!(set(server.as_raw_fd(), IPV6, libc::IPV6_V6ONLY, 1), Err(libc::EINVAL));
    // One that was refused has none.
    let fd = socket(libc::SOCK_STREAM);
    let free = listener().1;
    assert_eq!(connect6(fd, MAPPED, free), Err(libc::ECONNREFUSED));
    assert_eq!(set(fd, IPV6, libc::IPV6_V6ONLY, 1), Ok(0));
    close(fd);
}

fn values() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        let fd = socket(kind);
        for value in [0, libc::AF_UNIX, libc::AF_INET6, -1] {
            assert_eq!(set(fd, IPV6, ADDRFORM, value), Err(libc::EINVAL));
        }
        let value = [libc::AF_INET, 9];
        for length in 0..4 {
            fails!(libc::EINVAL, libc::setsockopt(fd, IPV6, ADDRFORM, (&raw const value).cast(), length));
        }
        fails!(libc::ENOTCONN, libc::setsockopt(fd, IPV6, ADDRFORM, (&raw const value).cast(), 8));
        close(fd);
        let fd = ok!(libc::socket(libc::AF_INET, kind, 0));
        assert_eq!((form(fd), change(fd)), (Err(libc::EOPNOTSUPP), Err(libc::ENOPROTOOPT)));
        close(fd);
    }
}

fn other_types() {
    // UDP-Lite changes as well; Linux 6.19 and later have none.
    if let Ok(fd) = sys!(libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)) {
        assert_eq!(connect6(fd, MAPPED, 9), Ok(0));
        assert_eq!((form(fd), change(fd)), (Ok(libc::AF_INET6), Ok(0)));
        is_ipv4(fd, "127.0.0.1", Some(9));
        close(fd);
    }
    if let Ok(fd) = sys!(libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6)) {
        assert_eq!((form(fd), change(fd)), (Err(libc::ENOPROTOOPT), Err(libc::ENOPROTOOPT)));
        close(fd);
    }
}
