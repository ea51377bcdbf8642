//! Internet sockets over loopback.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use super::tcp::set;
use crate::harness::{cases, fails, ok, skip, sleep_ms, sys, zeroed};

cases!("inet": tcp_echo, tcp_refused, tcp_end_of_stream, tcp_nonblocking_connect, tcp_options, tcp_address_in_use, tcp_names,
    tcp_big_transfer, tcp_many_clients, tcp_reset, tcp_shutdown, tcp_v6, tcp_v6_only, tcp_poll, tcp_timeout, tcp_accept_interrupted_by_close,
    udp_echo, udp_connected, udp_refused, udp_truncated, udp_v6, bind_foreign_address, privileged_family, tcp_epoll_edge, loopback_interface, bad_lengths, unknown_levels, pairs_of_other_families);

const LOCAL: &str = "127.0.0.1:0";

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("name")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

fn errno(result: std::io::Result<impl Sized>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

fn tcp_echo() {
    let (mut a, mut b) = connected();
    a.write_all(b"ping").expect("write");
    let mut data = [0; 4];
    b.read_exact(&mut data).expect("read");
    b.write_all(b"pong").expect("write");
    a.read_exact(&mut data).expect("read");
    assert_eq!(&data, b"pong");
}

fn tcp_refused() {
    let address = {
        let listener = TcpListener::bind(LOCAL).expect("bind");
        listener.local_addr().expect("name")
    };
    assert_eq!(errno(TcpStream::connect(address)), libc::ECONNREFUSED);
}

fn tcp_end_of_stream() {
    let (mut a, mut b) = connected();
    a.write_all(b"last").expect("write");
    drop(a);
    let mut text = String::new();
    b.read_to_string(&mut text).expect("read");
    assert_eq!(text, "last");
}

fn tcp_nonblocking_connect() {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    let port = listener.local_addr().expect("name").port();
    let fd = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0));
    let mut address: libc::sockaddr_in = zeroed();
    address.sin_family = libc::AF_INET as u16;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
    match sys!(libc::connect(fd, (&raw const address).cast(), 16)) {
        Ok(_) | Err(libc::EINPROGRESS) => {}
        Err(other) => panic!("connect: {other}"),
    }
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut entry, 1, 5000)), 1);
    let (mut error, mut length) = (-1i32, 4);
    ok!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut length));
    assert_eq!(error, 0);
    listener.accept().expect("accept");
    // The first call after the handshake may still report its success.
    let _ = sys!(libc::connect(fd, (&raw const address).cast(), 16));
    fails!(libc::EISCONN, libc::connect(fd, (&raw const address).cast(), 16));
}

fn tcp_options() {
    let (a, _b) = connected();
    a.set_nodelay(true).expect("set");
    assert!(a.nodelay().expect("get"));
    a.set_ttl(33).expect("set");
    assert_eq!(a.ttl().expect("get"), 33);
    let (mut value, mut length) = (0i32, 4);
    let fd = a.as_raw_fd();
    for (name, wanted) in
        [(libc::SO_TYPE, libc::SOCK_STREAM), (libc::SO_DOMAIN, libc::AF_INET), (libc::SO_PROTOCOL, 6)]
    {
        ok!(libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length));
        assert_eq!(value, wanted);
    }
    let on = 1i32;
    ok!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, (&raw const on).cast(), 4));
    ok!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const on).cast(), 4));
    ok!(libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, (&raw const on).cast(), 4));
}

fn tcp_address_in_use() {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    assert_eq!(errno(TcpListener::bind(listener.local_addr().expect("name"))), libc::EADDRINUSE);
}

fn tcp_names() {
    let (a, b) = connected();
    assert_eq!(a.local_addr().expect("name"), b.peer_addr().expect("name"));
    assert_eq!(b.local_addr().expect("name"), a.peer_addr().expect("name"));
    assert!(a.local_addr().expect("name").ip().is_loopback());
}

fn tcp_big_transfer() {
    let (mut a, mut b) = connected();
    let writer = thread::spawn(move || {
        let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
        for _ in 0..8 {
            a.write_all(&data).expect("write");
        }
    });
    let mut all = Vec::new();
    b.read_to_end(&mut all).expect("read");
    writer.join().expect("joined");
    assert_eq!(all.len(), 8 << 20);
    assert!(all.chunks(1 << 20).all(|c| c.iter().enumerate().all(|(i, v)| *v == (i % 251) as u8)));
}

fn tcp_many_clients() {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    let address = listener.local_addr().expect("name");
    let server = thread::spawn(move || {
        for _ in 0..40 {
            let mut stream = listener.accept().expect("accept").0;
            thread::spawn(move || {
                let mut data = [0; 8];
                stream.read_exact(&mut data).expect("read");
                stream.write_all(&data).expect("write");
            });
        }
    });
    let clients: Vec<_> = (0..40u64)
        .map(|i| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("connect");
                stream.write_all(&i.to_ne_bytes()).expect("write");
                let mut data = [0; 8];
                stream.read_exact(&mut data).expect("read");
                assert_eq!(u64::from_ne_bytes(data), i);
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().expect("joined"));
    server.join().expect("joined");
}

fn tcp_reset() {
    let (a, mut b) = connected();
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    ok!(libc::setsockopt(a.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), 8));
    drop(a);
    sleep_ms(20);
    assert_eq!(errno(b.read(&mut [0; 1])), libc::ECONNRESET);
}

fn tcp_shutdown() {
    let (mut a, mut b) = connected();
    a.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(b.read(&mut [0; 1]).expect("read"), 0);
    b.write_all(b"x").expect("write");
    assert_eq!(a.read(&mut [0; 5]).expect("read"), 1);
    assert_eq!(errno(a.write(b"x")), libc::EPIPE);
}

fn v6() -> SocketAddr {
    match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) => {
            skip!("no IPv6 here")
        }
        Err(e) => panic!("bind to ::1: {e}"),
    }
}

fn tcp_v6() {
    let listener = TcpListener::bind(v6()).expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("name")).expect("connect");
    let (mut server, from) = listener.accept().expect("accept");
    assert_eq!(from.ip(), Ipv6Addr::LOCALHOST);
    client.write_all(b"six").expect("write");
    let mut data = [0; 3];
    server.read_exact(&mut data).expect("read");
}

fn tcp_v6_only() {
    v6();
    // A dual-stack listener accepts IPv4 clients under mapped addresses.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind");
    let port = listener.local_addr().expect("name").port();
    let _client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let from = listener.accept().expect("accept").1;
    assert_eq!(from.ip().to_string(), "::ffff:127.0.0.1");
}

fn tcp_poll() {
    let (mut a, mut b) = connected();
    let poll = |stream: &TcpStream| {
        let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        let mut entry = libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
        ok!(libc::poll(&mut entry, 1, 0));
        entry.revents
    };
    assert_eq!(poll(&a), libc::POLLOUT);
    b.write_all(b"x").expect("write");
    sleep_ms(10);
    assert_eq!(poll(&a), libc::POLLOUT | libc::POLLIN);
    a.read_exact(&mut [0]).expect("read");
    drop(b);
    sleep_ms(10);
    assert_eq!(poll(&a) & (libc::POLLIN | libc::POLLRDHUP), libc::POLLIN | libc::POLLRDHUP);
}

fn tcp_timeout() {
    let (mut a, _b) = connected();
    a.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
    assert_eq!(errno(a.read(&mut [0; 1])), libc::EAGAIN);
}

fn tcp_accept_interrupted_by_close() {
    let listener = TcpListener::bind(LOCAL).expect("bind");
    let fd = listener.as_raw_fd();
    let waiter = thread::spawn(move || sys!(libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut())));
    sleep_ms(30);
    ok!(libc::shutdown(fd, libc::SHUT_RDWR));
    assert_eq!(waiter.join().expect("joined"), Err(libc::EINVAL));
}

fn udp_echo() {
    let (a, b) = (UdpSocket::bind(LOCAL).expect("bind"), UdpSocket::bind(LOCAL).expect("bind"));
    a.send_to(b"hello", b.local_addr().expect("name")).expect("send");
    let mut data = [0; 10];
    let (n, from) = b.recv_from(&mut data).expect("receive");
    assert_eq!((&data[..n], from), (&b"hello"[..], a.local_addr().expect("name")));
}

fn udp_connected() {
    let (a, b) = (UdpSocket::bind(LOCAL).expect("bind"), UdpSocket::bind(LOCAL).expect("bind"));
    a.connect(b.local_addr().expect("name")).expect("connect");
    a.send(b"x").expect("send");
    assert_eq!(b.recv(&mut [0; 5]).expect("receive"), 1);
    assert_eq!(a.peer_addr().expect("name"), b.local_addr().expect("name"));
}

fn udp_refused() {
    let a = UdpSocket::bind(LOCAL).expect("bind");
    let gone = UdpSocket::bind(LOCAL).expect("bind").local_addr().expect("name");
    a.connect(gone).expect("connect");
    a.send(b"x").expect("send");
    sleep_ms(20);
    assert_eq!(errno(a.recv(&mut [0; 1])), libc::ECONNREFUSED);
}

fn udp_truncated() {
    let (a, b) = (UdpSocket::bind(LOCAL).expect("bind"), UdpSocket::bind(LOCAL).expect("bind"));
    a.send_to(b"hello", b.local_addr().expect("name")).expect("send");
    let mut data = [0u8; 2];
    assert_eq!(ok!(libc::recv(b.as_raw_fd(), data.as_mut_ptr().cast(), 2, libc::MSG_TRUNC)), 5);
}

fn udp_v6() {
    v6();
    let local = (Ipv6Addr::LOCALHOST, 0);
    let (a, b) = (UdpSocket::bind(local).expect("bind"), UdpSocket::bind(local).expect("bind"));
    a.send_to(b"x", b.local_addr().expect("name")).expect("send");
    assert_eq!(b.recv(&mut [0; 5]).expect("receive"), 1);
}

fn bind_foreign_address() {
    assert_eq!(errno(TcpListener::bind("192.0.2.1:0")), libc::EADDRNOTAVAIL);
}

fn privileged_family() {
    fails!(libc::EAFNOSUPPORT, libc::socket(250, libc::SOCK_STREAM, 0));
    fails!(libc::EINVAL, libc::socket(libc::AF_INET, 99, 0));
    fails!(libc::EPROTONOSUPPORT, libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP));
}

fn tcp_epoll_edge() {
    let (a, mut b) = connected();
    let epoll = ok!(libc::epoll_create1(0));
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 5 };
    ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, a.as_raw_fd(), &mut event));
    b.write_all(b"x").expect("write");
    assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 5000)), 1);
    assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 0)), 0);
    b.write_all(b"y").expect("write");
    assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 5000)), 1);
}

fn loopback_interface() {
    let fd = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
    let mut request: libc::ifreq = zeroed();
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    ok!(libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request));
    // SAFETY: the kernel filled the flags.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    assert_eq!(flags & (libc::IFF_UP | libc::IFF_LOOPBACK), libc::IFF_UP | libc::IFF_LOOPBACK);
}

fn bad_lengths() {
    let socket = UdpSocket::bind(LOCAL).expect("bind");
    let fd = socket.as_raw_fd();
    let mut name: libc::sockaddr_in = zeroed();
    let at: *mut libc::sockaddr = (&raw mut name).cast();
    let (mut negative, mut good) = (u32::MAX, 16);
    fails!(libc::EINVAL, libc::getsockname(fd, at, &mut negative));
    fails!(libc::EFAULT, libc::getsockname(fd, std::ptr::null_mut(), &mut good));
    fails!(libc::EFAULT, libc::getsockname(fd, at, std::ptr::null_mut()));
    socket.send_to(b"x", socket.local_addr().expect("name")).expect("send");
    let mut data = [0_u8; 4];
    fails!(libc::EINVAL, libc::recvfrom(fd, data.as_mut_ptr().cast(), 4, 0, at, &mut negative));
    // The same on a stream, which tells no sender.
    let (mut client, server) = connected();
    client.write_all(b"x").expect("write");
    fails!(
        libc::EINVAL,
        libc::recvfrom(server.as_raw_fd(), data.as_mut_ptr().cast(), 4, 0, at, &mut negative)
    );
}

fn unknown_levels() {
    let (mut value, mut len) = (0_i32, 4);
    let tcp = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let udp = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
    let mut ask =
        |fd, level, name| sys!(libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len));
    for fd in [udp, tcp] {
        assert_eq!(ask(fd, 500, 1), Err(libc::EOPNOTSUPP));
        assert_eq!(ask(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), Err(libc::EOPNOTSUPP));
        assert_eq!(ask(fd, libc::SOL_SOCKET, 9999), Err(libc::ENOPROTOOPT));
        assert_eq!(ask(fd, libc::IPPROTO_IP, 9999), Err(libc::ENOPROTOOPT));
        assert_eq!(set(fd, 500, 1, 1), Err(libc::ENOPROTOOPT));
    }
    assert_eq!(ask(tcp, libc::IPPROTO_UDP, 1), Err(libc::EOPNOTSUPP));
    assert_eq!(ask(tcp, libc::IPPROTO_TCP, 9999), Err(libc::ENOPROTOOPT));
}

fn pairs_of_other_families() {
    let mut fds = [0; 2];
    let at = fds.as_mut_ptr();
    fails!(libc::EOPNOTSUPP, libc::socketpair(libc::AF_INET, libc::SOCK_DGRAM, 0, at));
    fails!(libc::EOPNOTSUPP, libc::socketpair(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, at));
    fails!(libc::EPROTONOSUPPORT, libc::socketpair(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_TCP, at));
    fails!(libc::EPROTONOSUPPORT, libc::socketpair(libc::AF_INET, libc::SOCK_RAW, 0, at));
    fails!(libc::EAFNOSUPPORT, libc::socketpair(250, libc::SOCK_STREAM, 0, at));
    fails!(libc::EINVAL, libc::socketpair(libc::AF_INET, 75, 0, at));
}
