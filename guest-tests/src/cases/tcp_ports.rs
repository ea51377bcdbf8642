//! Addresses and ports of TCP: who is reached, which ports are taken and for how long.

use std::io::{Read, Write};
use std::mem::size_of;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::tcp::{accept, address, bind, connect, listening, name_of, nonblocking, poll, set, tcp};
use crate::harness::{cases, close, fails, ok, skip, sleep_ms, sys, zeroed};

cases!("tcp_ports": any_port_is_free, time_wait, time_wait_reuse, connections_keep_port, reuse_port_balances, reuse_port_needed, wildcard_listener, exact_listener_first, mapped_client, connect_to_wildcard, other_loopback_address, bound_client, own_address, ports_differ, bind_twice, bad_addresses, self_connect_refused, connect_again);

fn any_port_is_free() {
    // Ports that wait after the end of their connections.
    for _ in 0..300 {
        let (listener, port) = listening(5);
        let client = tcp();
        connect(client, [127, 0, 0, 1], port).expect("connect");
        close(accept(listener));
        close(client);
        close(listener);
    }
    for _ in 0..300 {
        let first = tcp();
        bind(first, [127, 0, 0, 1], 0).expect("any port");
        let port = name_of(first, false).expect("name").1;
        close(first);
        let second = tcp();
        bind(second, [127, 0, 0, 1], port).expect("the same");
        close(second);
    }
}

fn time_wait() {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    close(listener);
    // The server ends first: its port waits.
    close(server);
    sleep_ms(20);
    close(client);
    sleep_ms(20);
    assert_eq!(bind(tcp(), [127, 0, 0, 1], port), Err(libc::EADDRINUSE));
    assert_eq!(bind(tcp(), [0, 0, 0, 0], port), Err(libc::EADDRINUSE));
    bind(tcp(), [127, 0, 0, 9], port).expect("another address");
}

fn time_wait_reuse() {
    let fd = tcp();
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
    bind(fd, [127, 0, 0, 1], 0).expect("bind");
    ok!(libc::listen(fd, 5));
    let port = name_of(fd, false).expect("name").1;
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    close(accept(fd));
    sleep_ms(20);
    close(client);
    close(fd);
    let again = tcp();
    set(again, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
    bind(again, [127, 0, 0, 1], port).expect("bind again");
    ok!(libc::listen(again, 5));
    connect(tcp(), [127, 0, 0, 1], port).expect("connect again");
}

fn connections_keep_port() {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    close(listener);
    assert_eq!(bind(tcp(), [127, 0, 0, 1], port), Err(libc::EADDRINUSE));
    let own = name_of(client, false).expect("name").1;
    assert_eq!(bind(tcp(), [127, 0, 0, 1], own), Err(libc::EADDRINUSE));
    close(client);
    sleep_ms(20);
    close(server);
    sleep_ms(20);
    // The client ended first, so that only its port waits.
    bind(tcp(), [127, 0, 0, 1], port).expect("bind");
    assert_eq!(bind(tcp(), [127, 0, 0, 1], own), Err(libc::EADDRINUSE));
}

fn reuse_port_balances() {
    let make = |port| {
        let fd = tcp();
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("set");
        bind(fd, [127, 0, 0, 1], port).expect("bind");
        ok!(libc::listen(fd, 200));
        nonblocking(fd);
        fd
    };
    let first = make(0);
    let port = name_of(first, false).expect("name").1;
    let second = make(port);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let fd = tcp();
            connect(fd, [127, 0, 0, 1], port).expect("connect");
            fd
        })
        .collect();
    let count = |fd| {
        let mut n = 0;
        while sys!(libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut())).is_ok() {
            n += 1;
        }
        n
    };
    let (a, b) = (count(first), count(second));
    assert_eq!(a + b, clients.len());
    assert!(a > 10 && b > 10, "{a} and {b}");
}

fn reuse_port_needed() {
    let (_listener, port) = listening(5);
    let fd = tcp();
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("set");
    assert_eq!(bind(fd, [127, 0, 0, 1], port), Err(libc::EADDRINUSE));
    let other = tcp();
    set(other, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
    assert_eq!(bind(other, [127, 0, 0, 1], port), Err(libc::EADDRINUSE));
}

fn wildcard_listener() {
    let fd = tcp();
    bind(fd, [0; 4], 0).expect("bind");
    ok!(libc::listen(fd, 5));
    let (ip, port) = name_of(fd, false).expect("name");
    assert_eq!(ip, [0; 4]);
    let client = tcp();
    connect(client, [127, 1, 2, 3], port).expect("connect");
    let server = accept(fd);
    assert_eq!(name_of(server, false), Ok(([127, 1, 2, 3], port)));
    assert_eq!(name_of(client, true), Ok(([127, 1, 2, 3], port)));
    let own = name_of(client, false).expect("name");
    assert_eq!(own.0, [127, 0, 0, 1]);
    assert_eq!(name_of(server, true), Ok(own));
}

fn exact_listener_first() {
    let wide = tcp();
    set(wide, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("set");
    bind(wide, [0; 4], 0).expect("bind");
    ok!(libc::listen(wide, 5));
    let port = name_of(wide, false).expect("name").1;
    let exact = tcp();
    set(exact, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).expect("set");
    bind(exact, [127, 0, 0, 1], port).expect("bind");
    ok!(libc::listen(exact, 5));
    for (ip, wanted) in [([127, 0, 0, 1], exact), ([127, 0, 0, 2], wide)] {
        connect(tcp(), ip, port).expect("connect");
        assert_eq!(poll(wanted, 1000) & libc::POLLIN, libc::POLLIN);
        accept(wanted);
        assert_eq!(poll(exact, 0) | poll(wide, 0), 0);
    }
}

fn mapped_client() {
    let (listener, port) = listening(5);
    let client = match sys!(libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0)) {
        Ok(fd) => fd,
        Err(errno) => skip!("no IPv6 here: {errno}"),
    };
    let mut name: libc::sockaddr_in6 = zeroed();
    name.sin6_family = libc::AF_INET6 as u16;
    name.sin6_port = port.to_be();
    name.sin6_addr.s6_addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    ok!(libc::connect(client, (&raw const name).cast(), size_of::<libc::sockaddr_in6>() as u32));
    let server = accept(listener);
    assert_eq!(name_of(server, true).expect("name").0, [127, 0, 0, 1]);
    let (mut own, mut len): (libc::sockaddr_in6, u32) = (zeroed(), 28);
    ok!(libc::getsockname(client, (&raw mut own).cast(), &mut len));
    assert_eq!((len, own.sin6_addr.s6_addr), (28, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()));
    let only = ok!(libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0));
    set(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).expect("set");
    fails!(libc::ENETUNREACH, libc::connect(only, (&raw const name).cast(), 28));
}

fn connect_to_wildcard() {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [0; 4], port).expect("connect");
    assert_eq!(name_of(client, true), Ok(([127, 0, 0, 1], port)));
    accept(listener);
}

fn other_loopback_address() {
    let (_listener, port) = listening(5);
    assert_eq!(connect(tcp(), [127, 0, 0, 2], port), Err(libc::ECONNREFUSED));
}

fn bound_client() {
    let (listener, port) = listening(5);
    let client = tcp();
    bind(client, [127, 0, 0, 7], 0).expect("bind");
    let own = name_of(client, false).expect("name");
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    assert_eq!(name_of(server, true), Ok(own));
    assert_eq!(own.0, [127, 0, 0, 7]);
    let second = tcp();
    set(second, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("set");
    assert_eq!(bind(second, [127, 0, 0, 7], own.1), Err(libc::EADDRINUSE));
}

/// A connection to an address of an interface other than lo.
fn own_address() {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
    if probe.connect("192.0.2.1:9").is_err() {
        skip!("only loopback here");
    }
    let ip = probe.local_addr().expect("name").ip();
    let listener = TcpListener::bind((ip, 0)).expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("name")).expect("connect");
    assert_eq!(client.local_addr().expect("name").ip(), ip);
    let (mut server, from) = listener.accept().expect("accept");
    assert_eq!(from, client.local_addr().expect("name"));
    client.write_all(b"own").expect("write");
    let mut data = [0; 3];
    server.read_exact(&mut data).expect("read");
}

fn ports_differ() {
    let (listener, port) = listening(200);
    let mut ports: Vec<_> = (0..100)
        .map(|_| {
            let client = tcp();
            connect(client, [127, 0, 0, 1], port).expect("connect");
            accept(listener);
            name_of(client, false).expect("name").1
        })
        .collect();
    assert!(ports.iter().all(|p| *p >= 1024));
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
}

fn bind_twice() {
    let fd = tcp();
    bind(fd, [127, 0, 0, 1], 0).expect("bind");
    assert_eq!(bind(fd, [127, 0, 0, 1], 0), Err(libc::EINVAL));
    let port = name_of(fd, false).expect("name").1;
    assert_eq!(bind(tcp(), [0; 4], port), Err(libc::EADDRINUSE));
    bind(tcp(), [127, 0, 0, 2], port).expect("another address");
}

fn bad_addresses() {
    let (_listener, port) = listening(5);
    let name = address([127, 0, 0, 1], port);
    fails!(libc::EINVAL, libc::connect(tcp(), (&raw const name).cast(), 15));
    fails!(libc::EINVAL, libc::bind(tcp(), (&raw const name).cast(), 15));
    let mut wrong = name;
    wrong.sin_family = libc::AF_UNIX as u16;
    fails!(libc::EAFNOSUPPORT, libc::connect(tcp(), (&raw const wrong).cast(), 16));
    fails!(libc::EFAULT, libc::connect(tcp(), std::ptr::without_provenance(8), 16));
    assert_eq!(connect(tcp(), [127, 0, 0, 1], 0), Err(libc::ECONNREFUSED));
    assert_eq!(bind(tcp(), [192, 0, 2, 1], 0), Err(libc::EADDRNOTAVAIL));
}

/// Nobody listens on a port that is only bound.
fn self_connect_refused() {
    let fd = tcp();
    bind(fd, [127, 0, 0, 1], 0).expect("bind");
    let port = name_of(fd, false).expect("name").1;
    assert_eq!(connect(tcp(), [127, 0, 0, 1], port), Err(libc::ECONNREFUSED));
}

fn connect_again() {
    let (listener, port) = listening(5);
    let gone = {
        let (fd, port) = listening(1);
        close(fd);
        port
    };
    // A socket whose connection was refused may try elsewhere; what it is asked next begins anew.
    let fd = tcp();
    for _ in 0..3 {
        assert_eq!(connect(fd, [127, 0, 0, 1], gone), Err(libc::ECONNREFUSED));
    }
    let mut foreign = address([127, 0, 0, 1], port);
    foreign.sin_family = 47;
    fails!(libc::EAFNOSUPPORT, libc::connect(fd, (&raw const foreign).cast(), 16));
    connect(fd, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    assert_eq!(name_of(fd, false), name_of(server, true));
    assert_eq!(connect(fd, [127, 0, 0, 1], port), Err(libc::EISCONN));
}
