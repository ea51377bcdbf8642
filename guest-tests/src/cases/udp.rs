//! UDP between sockets of one machine: names, filters, order and errors.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::RawFd;
use std::thread;

use super::tcp::{address, bind, connect, get, name_of, nonblocking, poll, recv, send, set};
use crate::harness::{cases, close, fails, ok, skip, sleep_ms, sys, zeroed};

cases!("udp": order_kept, connected_filter, disconnect, refused_once, refused_before_data, closed_receiver,
    peek_and_length, full_buffer, mapped_sender, v6_only_receiver, exact_before_wildcard, edges, readers_wake,
    reuse_port, many_messages, multicast_on_lo, broadcast_permission, longest, first_send_binds, shut_down,
    bad_destinations, lite_coverage, more_to_come, closed_with_mail);

pub(super) const LO: [u8; 4] = [127, 0, 0, 1];

pub(super) fn udp() -> RawFd {
    ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))
}

/// A socket bound to 127.0.0.1, and its port.
pub(super) fn bound() -> (RawFd, u16) {
    let fd = udp();
    bind(fd, LO, 0).expect("bind");
    (fd, name_of(fd, false).expect("name").1)
}

pub(super) fn send_to(fd: RawFd, data: &[u8], ip: [u8; 4], port: u16) -> Result<isize, i32> {
    let to = address(ip, port);
    sys!(libc::sendto(fd, data.as_ptr().cast(), data.len(), 0, (&raw const to).cast(), 16))
}

pub(super) fn recv_from(fd: RawFd) -> (Vec<u8>, [u8; 4], u16) {
    let (mut data, mut from, mut len) = (vec![0; 70_000], address([0; 4], 0), 16);
    let at = (&raw mut from).cast();
    let n = ok!(libc::recvfrom(fd, data.as_mut_ptr().cast(), data.len(), 0, at, &mut len));
    data.truncate(n as usize);
    assert_eq!(len, 16);
    (data, from.sin_addr.s_addr.to_ne_bytes(), u16::from_be(from.sin_port))
}

pub(super) fn nothing(fd: RawFd) {
    assert_eq!(recv(fd, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
}

fn order_kept() {
    let (to, port) = bound();
    let from = udp();
    for i in 0..100_u8 {
        assert_eq!(send_to(from, &[i; 10], LO, port), Ok(10));
    }
    let own = name_of(from, false).expect("name").1;
    for i in 0..100_u8 {
        assert_eq!(recv_from(to), (vec![i; 10], LO, own));
    }
    nothing(to);
}

fn connected_filter() {
    let ((a, a_port), (b, b_port), (c, _)) = (bound(), bound(), bound());
    send_to(c, b"early", LO, b_port).expect("send");
    connect(b, LO, a_port).expect("connect");
    // What was there before stays; what others send from now on does not come.
    assert_eq!(recv(b, 10, 0), Ok(b"early".to_vec()));
    send_to(c, b"late", LO, b_port).expect("send");
    send_to(a, b"right", LO, b_port).expect("send");
    assert_eq!(recv(b, 10, 0), Ok(b"right".to_vec()));
    nothing(b);
    send(b, b"back", 0).expect("send");
    assert_eq!(recv_from(a), (b"back".to_vec(), LO, b_port));
    // A connected socket may still send elsewhere.
    send_to(b, b"other", LO, name_of(c, false).expect("name").1).expect("send");
    assert_eq!(recv(c, 10, 0), Ok(b"other".to_vec()));
}

fn disconnect() {
    let ((_a, a_port), (c, _), b_port) = (bound(), bound(), free_port());
    let b = udp();
    bind(b, LO, b_port).expect("bind");
    connect(b, LO, a_port).expect("connect");
    let mut none = address([0; 4], 0);
    none.sin_family = libc::AF_UNSPEC as u16;
    ok!(libc::connect(b, (&raw const none).cast(), 16));
    assert_eq!(name_of(b, true), Err(libc::ENOTCONN));
    send_to(c, b"now", LO, b_port).expect("send");
    assert_eq!(recv(b, 10, 0), Ok(b"now".to_vec()));
    assert_eq!(send(b, b"x", 0), Err(libc::EDESTADDRREQ));
    // A port that was not asked for goes with the connection.
    connect(c, LO, a_port).expect("connect");
    let port = name_of(c, false).expect("name").1;
    ok!(libc::connect(c, (&raw const none).cast(), 16));
    assert_eq!(name_of(c, false).expect("name").1, 0);
    connect(b, LO, port).expect("connect");
    send(b, b"x", 0).expect("send");
    assert_eq!(recv(b, 1, 0), Err(libc::ECONNREFUSED));
}

/// A port that nobody has.
pub(super) fn free_port() -> u16 {
    let (fd, port) = bound();
    close(fd);
    port
}

fn refused_once() {
    let gone = free_port();
    let fd = udp();
    connect(fd, LO, gone).expect("connect");
    send(fd, b"x", 0).expect("send");
    assert_eq!(poll(fd, 1000) & libc::POLLERR, libc::POLLERR);
    assert_eq!(send(fd, b"x", 0), Err(libc::ECONNREFUSED));
    send(fd, b"x", 0).expect("send");
    assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNREFUSED);
    assert_eq!(recv(fd, 1, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
}

fn refused_before_data() {
    let port = free_port();
    let fd = udp();
    connect(fd, LO, port).expect("connect");
    send(fd, b"x", 0).expect("send");
    let late = udp();
    bind(late, LO, port).expect("bind");
    send_to(late, b"data", LO, name_of(fd, false).expect("name").1).expect("send");
    assert_eq!(recv(fd, 10, 0), Err(libc::ECONNREFUSED));
    assert_eq!(recv(fd, 10, 0), Ok(b"data".to_vec()));
    send(fd, b"there", 0).expect("send");
    assert_eq!(recv(late, 10, 0), Ok(b"there".to_vec()));
    // The same for a send: the old error first.
    close(late);
    send(fd, b"x", 0).expect("send");
    let late = udp();
    bind(late, LO, port).expect("bind");
    assert_eq!(send(fd, b"x", 0), Err(libc::ECONNREFUSED));
    send(fd, b"y", 0).expect("send");
    assert_eq!(recv(late, 10, 0), Ok(b"y".to_vec()));
}

fn closed_receiver() {
    let (to, port) = bound();
    let from = udp();
    connect(from, LO, port).expect("connect");
    send(from, b"x", 0).expect("send");
    // What nobody read is no error.
    close(to);
    assert_eq!(recv(from, 1, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    send(from, b"x", 0).expect("send");
    assert_eq!(recv(from, 1, 0), Err(libc::ECONNREFUSED));
}

fn peek_and_length() {
    let (to, port) = bound();
    let from = udp();
    let waiting = || {
        let mut n = -1;
        ok!(libc::ioctl(to, libc::FIONREAD, &raw mut n));
        n
    };
    assert_eq!(waiting(), 0);
    send_to(from, b"hello", LO, port).expect("send");
    send_to(from, b"", LO, port).expect("send");
    send_to(from, b"end", LO, port).expect("send");
    assert_eq!(waiting(), 5);
    assert_eq!(recv(to, 2, libc::MSG_PEEK), Ok(b"he".to_vec()));
    let mut data = [0_u8; 2];
    assert_eq!(ok!(libc::recv(to, data.as_mut_ptr().cast(), 2, libc::MSG_TRUNC | libc::MSG_PEEK)), 5);
    assert_eq!(recv(to, 2, 0), Ok(b"he".to_vec()));
    assert_eq!((waiting(), poll(to, 0) & libc::POLLIN), (0, libc::POLLIN));
    assert_eq!(recv(to, 2, 0), Ok(Vec::new()));
    assert_eq!(ok!(libc::read(to, data.as_mut_ptr().cast(), 2)), 2);
    assert_eq!(poll(to, 0) & libc::POLLIN, 0);
    nothing(to);
}

fn full_buffer() {
    let (to, port) = bound();
    let from = udp();
    set(to, libc::SOL_SOCKET, libc::SO_RCVBUF, 20_000).expect("set");
    for i in 0..1000_u32 {
        assert_eq!(send_to(from, &i.to_ne_bytes(), LO, port), Ok(4));
    }
    nonblocking(to);
    let mut got = 0_u32;
    while let Ok(data) = recv(to, 10, 0) {
        assert_eq!(data, got.to_ne_bytes());
        got += 1;
    }
    assert!((10..500).contains(&got), "{got} of 1000");
    send_to(from, b"room", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"room".to_vec()));
}

/// A socket of IPv6 bound to every address; none without IPv6.
fn v6(only: i32) -> Option<(RawFd, u16)> {
    let fd = sys!(libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)).ok()?;
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only).expect("set");
    let mut name: libc::sockaddr_in6 = zeroed();
    name.sin6_family = libc::AF_INET6 as u16;
    sys!(libc::bind(fd, (&raw const name).cast(), 28)).ok()?;
    let mut len = 28;
    ok!(libc::getsockname(fd, (&raw mut name).cast(), &mut len));
    Some((fd, u16::from_be(name.sin6_port)))
}

fn mapped_sender() {
    let Some((to, port)) = v6(0) else { skip!("no IPv6") };
    let (from, own) = bound();
    send_to(from, b"four", LO, port).expect("send");
    let (mut data, mut name, mut len) = ([0_u8; 10], zeroed::<libc::sockaddr_in6>(), 28);
    let at = (&raw mut name).cast();
    assert_eq!(ok!(libc::recvfrom(to, data.as_mut_ptr().cast(), 10, 0, at, &mut len)), 4);
    assert_eq!((len, name.sin6_family, u16::from_be(name.sin6_port)), (28, libc::AF_INET6 as u16, own));
    assert_eq!(name.sin6_addr.s6_addr, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    // And back to the mapped name.
    ok!(libc::sendto(to, data.as_ptr().cast(), 4, 0, (&raw const name).cast(), 28));
    assert_eq!(recv_from(from), (b"four".to_vec(), LO, port));
}

fn v6_only_receiver() {
    let Some((to, port)) = v6(1) else { skip!("no IPv6") };
    let from = udp();
    connect(from, LO, port).expect("connect");
    send(from, b"x", 0).expect("send");
    assert_eq!(recv(from, 1, 0), Err(libc::ECONNREFUSED));
    nothing(to);
}

fn exact_before_wildcard() {
    let (any, exact) = (udp(), udp());
    for fd in [any, exact] {
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
    }
    bind(any, [0; 4], 0).expect("bind");
    let port = name_of(any, false).expect("name").1;
    bind(exact, [127, 0, 0, 7], port).expect("bind");
    let from = udp();
    send_to(from, b"exact", [127, 0, 0, 7], port).expect("send");
    send_to(from, b"any", [127, 0, 0, 8], port).expect("send");
    assert_eq!(recv(exact, 10, 0), Ok(b"exact".to_vec()));
    assert_eq!(recv(any, 10, 0), Ok(b"any".to_vec()));
    nothing(exact);
    nothing(any);
}

fn edges() {
    let (to, port) = bound();
    let from = udp();
    let epoll = ok!(libc::epoll_create1(0));
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 1 };
    ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, to, &mut event));
    for _ in 0..3 {
        send_to(from, b"x", LO, port).expect("send");
        assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 5000)), 1);
        assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 0)), 0);
    }
}

fn readers_wake() {
    let (to, port) = bound();
    let from = udp();
    let readers: Vec<_> = (0..4).map(|_| thread::spawn(move || recv(to, 10, 0))).collect();
    sleep_ms(50);
    for _ in 0..4 {
        send_to(from, b"one", LO, port).expect("send");
    }
    for reader in readers {
        assert_eq!(reader.join().expect("joined"), Ok(b"one".to_vec()));
    }
    nothing(to);
}

fn reuse_port() {
    let (a, b) = (udp(), udp());
    for fd in [a, b] {
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("set");
        nonblocking(fd);
    }
    bind(a, LO, 0).expect("bind");
    let port = name_of(a, false).expect("name").1;
    bind(b, LO, port).expect("bind");
    for _ in 0..64 {
        let from = udp();
        send_to(from, b"x", LO, port).expect("send");
        close(from);
    }
    let count = |fd| std::iter::from_fn(|| recv(fd, 10, 0).ok()).count();
    let (a, b) = (count(a), count(b));
    assert!(a > 5 && b > 5 && a + b == 64, "{a} and {b}");
}

fn many_messages() {
    let ((one, one_port), (two, two_port)) = (bound(), bound());
    let from = udp();
    let bytes: Vec<u8> = (0..6).collect();
    let names: Vec<_> = (0..6).map(|i| address(LO, if i < 4 { one_port } else { two_port })).collect();
    let mut iov: Vec<_> = (0..6)
        .map(|i| libc::iovec { iov_base: bytes[i..].as_ptr().cast_mut().cast(), iov_len: 6 - i })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = (0..6)
        .map(|i| {
            let mut message: libc::mmsghdr = zeroed();
            message.msg_hdr.msg_name = (&raw const names[i]).cast_mut().cast();
            message.msg_hdr.msg_namelen = 16;
            message.msg_hdr.msg_iov = &raw mut iov[i];
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    assert_eq!(ok!(libc::sendmmsg(from, messages.as_mut_ptr(), 6, 0)), 6);
    assert_eq!(messages.iter().map(|m| m.msg_len).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    for message in &mut messages {
        message.msg_len = 0;
    }
    let flags = libc::MSG_WAITFORONE;
    assert_eq!(ok!(libc::recvmmsg(one, messages.as_mut_ptr(), 6, flags, std::ptr::null_mut())), 4);
    assert_eq!(messages.iter().map(|m| m.msg_len).collect::<Vec<_>>(), [6, 5, 4, 3, 0, 0]);
    assert_eq!(u16::from_be(names[3].sin_port), name_of(from, false).expect("name").1);
    assert_eq!((recv(two, 9, 0), recv(two, 9, 0)), (Ok(vec![4, 5]), Ok(vec![5])));
}

fn multicast_on_lo() {
    let group = Ipv4Addr::new(239, 255, 7, 9);
    let members: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("0.0.0.0:0").expect("bind")).collect();
    let port = members[0].local_addr().expect("name").port();
    let fds: Vec<RawFd> = (0..2)
        .map(|_| {
            let fd = udp();
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
            fd
        })
        .collect();
    drop(members);
    for fd in &fds {
        bind(*fd, [0; 4], port).expect("bind");
        let join = [group.octets(), LO].concat();
        ok!(libc::setsockopt(*fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, join.as_ptr().cast(), 8));
    }
    let from = udp();
    ok!(libc::setsockopt(from, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, LO.as_ptr().cast(), 4));
    send_to(from, b"all", group.octets(), port).expect("send");
    for fd in fds {
        assert_eq!(recv(fd, 10, 0), Ok(b"all".to_vec()));
    }
}

fn broadcast_permission() {
    let to = udp();
    bind(to, [0; 4], 0).expect("bind");
    let port = name_of(to, false).expect("name").1;
    let from = udp();
    assert_eq!(send_to(from, b"x", [127, 255, 255, 255], port), Err(libc::EACCES));
    set(from, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).expect("set");
    send_to(from, b"all", [127, 255, 255, 255], port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"all".to_vec()));
}

fn longest() {
    let (to, port) = bound();
    let from = udp();
    let data: Vec<u8> = (0..65_508_u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(send_to(from, &data, LO, port), Err(libc::EMSGSIZE));
    for size in [65_507, 65_487, 65_488, 40_000, 1] {
        assert_eq!(send_to(from, &data[..size], LO, port), Ok(size as isize));
        assert_eq!(recv_from(to).0, &data[..size]);
    }
}

fn first_send_binds() {
    let (to, port) = bound();
    let from = udp();
    assert_eq!(name_of(from, false), Ok(([0; 4], 0)));
    send_to(from, b"x", LO, port).expect("send");
    let (ip, own) = name_of(from, false).expect("name");
    assert!(ip == [0; 4] && own != 0);
    assert_eq!(bind(from, LO, 0), Err(libc::EINVAL));
    assert_eq!(recv_from(to).2, own);
    // Connecting gives it an address, which goes when it is disconnected.
    connect(from, LO, port).expect("connect");
    assert_eq!(name_of(from, false), Ok((LO, own)));
}

fn shut_down() {
    let ((a, a_port), (b, b_port)) = (bound(), bound());
    fails!(libc::ENOTCONN, libc::shutdown(a, libc::SHUT_RD));
    connect(a, LO, b_port).expect("connect");
    send_to(b, b"x", LO, a_port).expect("send");
    ok!(libc::shutdown(a, libc::SHUT_RD));
    assert_eq!(recv(a, 10, 0), Ok(b"x".to_vec()));
    assert_eq!(recv(a, 10, 0), Ok(Vec::new()));
    assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    ok!(libc::shutdown(a, libc::SHUT_WR));
    assert_eq!(send(a, b"x", 0), Err(libc::EPIPE));
    nothing(b);
}

fn bad_destinations() {
    let (fd, port) = bound();
    assert_eq!(send(fd, b"x", 0), Err(libc::EDESTADDRREQ));
    assert_eq!(send_to(fd, b"x", LO, 0), Err(libc::EINVAL));
    let mut to = address(LO, port);
    fails!(libc::EINVAL, libc::sendto(fd, c"x".as_ptr().cast(), 1, 0, (&raw const to).cast(), 8));
    to.sin_family = libc::AF_INET6 as u16;
    fails!(libc::EAFNOSUPPORT, libc::sendto(fd, c"x".as_ptr().cast(), 1, 0, (&raw const to).cast(), 16));
    fails!(
        libc::EOPNOTSUPP,
        libc::sendto(fd, c"x".as_ptr().cast(), 1, libc::MSG_OOB, (&raw const to).cast(), 16)
    );
    to.sin_family = libc::AF_UNSPEC as u16;
    ok!(libc::sendto(fd, c"x".as_ptr().cast(), 1, 0, (&raw const to).cast(), 16));
    assert_eq!(recv(fd, 5, 0), Ok(b"x".to_vec()));
}

fn lite_coverage() {
    const UDPLITE: i32 = 136;
    const SEND_CSCOV: i32 = 10;
    const RECV_CSCOV: i32 = 11;
    if !std::path::Path::new("/proc/net/udplite").exists() {
        skip!("a kernel without UDP-Lite");
    }
    let lite = || ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, UDPLITE));
    let (to, from) = (lite(), lite());
    bind(to, LO, 0).expect("bind");
    let port = name_of(to, false).expect("name").1;
    set(from, UDPLITE, SEND_CSCOV, 20).expect("set");
    set(to, UDPLITE, RECV_CSCOV, 1).expect("set");
    // Coverages below the header's length are rounded up to it.
    assert_eq!((get(from, UDPLITE, SEND_CSCOV), get(to, UDPLITE, RECV_CSCOV)), (20, 8));
    send_to(from, b"covered", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"covered".to_vec()));
    // Not the same ports as UDP's.
    send_to(udp(), b"other", LO, port).expect("send");
    nothing(to);
}

fn more_to_come() {
    let (to, port) = bound();
    let from = udp();
    connect(from, LO, port).expect("connect");
    send(from, b"one ", libc::MSG_MORE).expect("send");
    nothing(to);
    send(from, b"datagram", 0).expect("send");
    assert_eq!(recv(to, 20, 0), Ok(b"one datagram".to_vec()));
    send(from, b"next", 0).expect("send");
    assert_eq!(recv(to, 20, 0), Ok(b"next".to_vec()));
}

fn closed_with_mail() {
    let from = udp();
    let mail = |port| (0..3).all(|_| send_to(from, &[7; 60_000], LO, port).is_ok());
    for _ in 0..800 {
        let (to, port) = bound();
        mail(port);
        close(to); // What lies in it counts no more against the bound for all sockets.
    }
    let (to, port) = bound();
    assert!(mail(port) && recv_from(to).0.len() == 60_000);
}
