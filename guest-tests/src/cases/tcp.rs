//! What a program sees of TCP's states: backlog, ends, resets, urgent bytes, options.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::thread;

use crate::harness::{End, cases, close, fails, fork, ok, skip, sleep_ms, sys, wait, zeroed};

cases!("tcp": backlog_full, backlog_closed, unaccepted_are_reset, reset_by_unread, write_after_end, reset_after_end, linger_zero, shutdown_read, shutdown_both, shutdown_wakes_reader, shutdown_listener, unconnected, connect_twice, dissolve, poll_states, poll_after_reset, accept_of_reset, defer_accept, fast_open, closed_while_reading, sigpipe, no_sigpipe, passed_by_fork, many_at_once, churn, accept_flags, accept_timeout, connect_blocked_times_out, storm_of_threads);

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

pub(super) fn tcp() -> RawFd {
    ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))
}

pub(super) fn address(ip: [u8; 4], port: u16) -> libc::sockaddr_in {
    let mut name: libc::sockaddr_in = zeroed();
    name.sin_family = libc::AF_INET as u16;
    name.sin_port = port.to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes(ip);
    name
}

pub(super) fn bind(fd: RawFd, ip: [u8; 4], port: u16) -> Result<i32, i32> {
    let name = address(ip, port);
    sys!(libc::bind(fd, (&raw const name).cast(), 16))
}

pub(super) fn connect(fd: RawFd, ip: [u8; 4], port: u16) -> Result<i32, i32> {
    let name = address(ip, port);
    sys!(libc::connect(fd, (&raw const name).cast(), 16))
}

pub(super) fn name_of(fd: RawFd, peer: bool) -> Result<([u8; 4], u16), i32> {
    let mut name = address([0; 4], 0);
    let mut len = 16;
    let at = (&raw mut name).cast();
    let got = if peer {
        sys!(libc::getpeername(fd, at, &mut len))
    } else {
        sys!(libc::getsockname(fd, at, &mut len))
    };
    got.map(|_| (name.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.sin_port)))
}

pub(super) fn set(fd: RawFd, level: i32, name: i32, value: i32) -> Result<i32, i32> {
    sys!(libc::setsockopt(fd, level, name, (&raw const value).cast(), 4))
}

pub(super) fn get(fd: RawFd, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (-1, 4);
    ok!(libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len));
    value
}

pub(super) fn nonblocking(fd: RawFd) {
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
}

/// A listening socket and its port.
pub(super) fn listening(backlog: i32) -> (RawFd, u16) {
    let fd = tcp();
    bind(fd, [127, 0, 0, 1], 0).expect("bind");
    ok!(libc::listen(fd, backlog));
    (fd, name_of(fd, false).expect("name").1)
}

pub(super) fn accept(fd: RawFd) -> RawFd {
    ok!(libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()))
}

/// A connection: client, server.
pub(super) fn connected() -> (RawFd, RawFd) {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    close(listener);
    (client, server)
}

fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(ANY).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("name")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

pub(super) fn send(fd: RawFd, data: &[u8], flags: i32) -> Result<isize, i32> {
    sys!(libc::send(fd, data.as_ptr().cast(), data.len(), flags | libc::MSG_NOSIGNAL))
}

pub(super) fn recv(fd: RawFd, size: usize, flags: i32) -> Result<Vec<u8>, i32> {
    let mut data = vec![0; size];
    let n = sys!(libc::recv(fd, data.as_mut_ptr().cast(), size, flags))?;
    data.truncate(n as usize);
    Ok(data)
}

pub(super) fn poll(fd: RawFd, timeout: i32) -> i16 {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP | libc::POLLPRI;
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    ok!(libc::poll(&mut entry, 1, timeout));
    entry.revents
}

/// Until a poll shows this much; the host needs a moment.
pub(super) fn settles(fd: RawFd, wanted: i16) {
    let mut seen = 0;
    for _ in 0..200 {
        seen = poll(fd, 0);
        if seen == wanted {
            return;
        }
        sleep_ms(5);
    }
    assert_eq!(seen, wanted, "poll of {fd}");
}

fn backlog_full() {
    let (listener, port) = listening(0);
    let first = tcp();
    connect(first, [127, 0, 0, 1], port).expect("connect");
    let second = tcp();
    nonblocking(second);
    assert_eq!(connect(second, [127, 0, 0, 1], port), Err(libc::EINPROGRESS));
    assert_eq!(poll(second, 100), 0);
    assert_eq!(connect(second, [127, 0, 0, 1], port), Err(libc::EALREADY));
    assert_eq!(recv(second, 1, 0), Err(libc::EAGAIN));
    accept(listener);
    // Linux asks again after a second.
    assert_eq!(poll(second, 10_000), libc::POLLOUT);
    assert_eq!(get(second, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    accept(listener);
    send(second, b"x", 0).expect("send");
}

fn backlog_closed() {
    let (listener, port) = listening(0);
    let (first, second) = (tcp(), tcp());
    connect(first, [127, 0, 0, 1], port).expect("connect");
    nonblocking(second);
    assert_eq!(connect(second, [127, 0, 0, 1], port), Err(libc::EINPROGRESS));
    close(listener);
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;
    assert_eq!(poll(second, 10_000), all);
    assert_eq!(get(second, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNREFUSED);
    assert_eq!(get(second, libc::SOL_SOCKET, libc::SO_ERROR), 0);
}

fn unaccepted_are_reset() {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    send(client, b"x", 0).expect("send");
    close(listener);
    assert_eq!(recv(client, 1, 0), Err(libc::ECONNRESET));
    assert_eq!(recv(client, 1, 0), Ok(vec![]));
}

fn reset_by_unread() {
    let (client, server) = connected();
    send(client, b"unread", 0).expect("send");
    send(server, b"answer", 0).expect("send");
    sleep_ms(20);
    close(server);
    sleep_ms(20);
    assert_eq!(recv(client, 10, 0), Ok(b"answer".to_vec()));
    assert_eq!(recv(client, 10, 0), Err(libc::ECONNRESET));
    assert_eq!(recv(client, 10, 0), Ok(vec![]));
    assert_eq!(send(client, b"x", 0), Err(libc::EPIPE));
}

fn write_after_end() {
    let (client, server) = connected();
    close(server);
    sleep_ms(20);
    assert_eq!(poll(client, 0), libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);
    assert_eq!(send(client, b"x", 0), Ok(1));
    sleep_ms(20);
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;
    assert_eq!(poll(client, 0), all);
    assert_eq!(send(client, b"x", 0), Err(libc::EPIPE));
    assert_eq!(recv(client, 1, 0), Ok(vec![]));
}

fn reset_after_end() {
    let (client, server) = connected();
    ok!(libc::shutdown(server, libc::SHUT_WR));
    send(client, b"unread", 0).expect("send");
    sleep_ms(20);
    close(server);
    sleep_ms(20);
    assert_eq!(get(client, libc::SOL_SOCKET, libc::SO_ERROR), libc::EPIPE);
    assert_eq!(recv(client, 1, 0), Ok(vec![]));
}

fn linger_zero() {
    let (client, server) = connected();
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    ok!(libc::setsockopt(server, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), 8));
    send(server, b"last", 0).expect("send");
    sleep_ms(20);
    close(server);
    sleep_ms(20);
    assert_eq!(recv(client, 10, 0), Ok(b"last".to_vec()));
    assert_eq!(recv(client, 10, 0), Err(libc::ECONNRESET));
}

fn shutdown_read() {
    let (client, server) = connected();
    ok!(libc::shutdown(client, libc::SHUT_RD));
    assert_eq!(recv(client, 1, 0), Ok(vec![]));
    assert_eq!(poll(client, 0), libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);
    // The other side does not know; what comes can be read.
    send(server, b"late", 0).expect("send");
    sleep_ms(20);
    assert_eq!(recv(client, 10, 0), Ok(b"late".to_vec()));
    assert_eq!(recv(client, 1, 0), Ok(vec![]));
    assert_eq!(poll(server, 0), libc::POLLOUT);
}

fn shutdown_both() {
    let (client, server) = connected();
    ok!(libc::shutdown(client, libc::SHUT_RDWR));
    sleep_ms(20);
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLHUP | libc::POLLRDHUP;
    assert_eq!(poll(client, 0), all);
    assert_eq!(poll(server, 0), libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP);
    ok!(libc::shutdown(server, libc::SHUT_WR));
    sleep_ms(20);
    assert_eq!(poll(server, 0), all);
    for fd in [client, server] {
        fails!(libc::ENOTCONN, libc::shutdown(fd, libc::SHUT_RD));
        assert_eq!(name_of(fd, true), Err(libc::ENOTCONN));
        assert_eq!(send(fd, b"x", 0), Err(libc::EPIPE));
    }
}

fn shutdown_wakes_reader() {
    let (client, server) = connected();
    let reader = thread::spawn(move || recv(client, 1, 0));
    sleep_ms(30);
    ok!(libc::shutdown(client, libc::SHUT_RDWR));
    assert_eq!(reader.join().expect("joined"), Ok(vec![]));
    assert_eq!(recv(server, 1, 0), Ok(vec![]));
}

fn shutdown_listener() {
    let (listener, port) = listening(5);
    ok!(libc::shutdown(listener, libc::SHUT_WR));
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    ok!(libc::shutdown(listener, libc::SHUT_RD));
    fails!(libc::EINVAL, libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()));
    assert_eq!(poll(listener, 0) & libc::POLLHUP, libc::POLLHUP);
    assert_eq!(recv(client, 1, 0), Err(libc::ECONNRESET));
    assert_eq!(connect(tcp(), [127, 0, 0, 1], port), Err(libc::ECONNREFUSED));
    ok!(libc::listen(listener, 5));
    // A port that bind(2) chose may be another one now.
    let port = name_of(listener, false).expect("name").1;
    connect(tcp(), [127, 0, 0, 1], port).expect("connect");
}

fn unconnected() {
    let fd = tcp();
    assert_eq!(poll(fd, 0), libc::POLLOUT | libc::POLLHUP);
    assert_eq!(recv(fd, 1, 0), Err(libc::ENOTCONN));
    assert_eq!(send(fd, b"x", 0), Err(libc::EPIPE));
    fails!(libc::ENOTCONN, libc::shutdown(fd, libc::SHUT_RDWR));
    assert_eq!(name_of(fd, true), Err(libc::ENOTCONN));
    assert_eq!(name_of(fd, false), Ok(([0; 4], 0)));
    fails!(libc::EINVAL, libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()));
    let (listener, _) = listening(1);
    assert_eq!(recv(listener, 1, 0), Err(libc::ENOTCONN));
    assert_eq!(send(listener, b"x", 0), Err(libc::EPIPE));
    assert_eq!(connect(listener, [127, 0, 0, 1], 1), Err(libc::EISCONN));
    assert_eq!(poll(listener, 0), 0);
}

fn connect_twice() {
    let (_listener, port) = listening(5);
    let fd = tcp();
    nonblocking(fd);
    assert_eq!(connect(fd, [127, 0, 0, 1], port), Err(libc::EINPROGRESS));
    assert_eq!(poll(fd, 5000), libc::POLLOUT);
    assert_eq!(connect(fd, [127, 0, 0, 1], port), Ok(0));
    assert_eq!(connect(fd, [127, 0, 0, 1], port), Err(libc::EISCONN));
    let blocking = tcp();
    connect(blocking, [127, 0, 0, 1], port).expect("connect");
    assert_eq!(connect(blocking, [127, 0, 0, 1], port), Err(libc::EISCONN));
    fails!(libc::EINVAL, libc::listen(blocking, 1));
    assert_eq!(bind(blocking, [127, 0, 0, 1], 0), Err(libc::EINVAL));
}

fn dissolve() {
    let (listener, port) = listening(5);
    let fd = tcp();
    connect(fd, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    let none: libc::sockaddr = zeroed();
    ok!(libc::connect(fd, &raw const none, 16));
    assert_eq!(name_of(fd, true), Err(libc::ENOTCONN));
    assert_eq!(recv(server, 1, 0), Err(libc::ECONNRESET));
    connect(fd, [127, 0, 0, 1], port).expect("connect again");
    let server = accept(listener);
    send(fd, b"again", 0).expect("send");
    assert_eq!(recv(server, 10, 0), Ok(b"again".to_vec()));
}

fn poll_states() {
    let (client, server) = connected();
    settles(client, libc::POLLOUT);
    send(server, b"x", 0).expect("send");
    settles(client, libc::POLLOUT | libc::POLLIN);
    recv(client, 1, 0).expect("receive");
    ok!(libc::shutdown(client, libc::SHUT_WR));
    settles(client, libc::POLLOUT);
    settles(server, libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP);
    close(server);
    settles(client, libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP);
}

fn poll_after_reset() {
    let (client, server) = connected();
    send(client, b"x", 0).expect("send");
    sleep_ms(20);
    close(server);
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;
    settles(client, all);
    assert_eq!(get(client, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNRESET);
    assert_eq!(poll(client, 0), all & !libc::POLLERR);
}

fn accept_of_reset() {
    let (listener, port) = listening(5);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let own = name_of(client, false).expect("name");
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    ok!(libc::setsockopt(client, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), 8));
    close(client);
    sleep_ms(20);
    let mut name = address([0; 4], 0);
    let mut len = 16;
    let server = ok!(libc::accept(listener, (&raw mut name).cast(), &mut len));
    assert_eq!(u16::from_be(name.sin_port), own.1);
    assert_eq!(recv(server, 1, 0), Err(libc::ECONNRESET));
}

fn defer_accept() {
    let (listener, port) = listening(5);
    set(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5).expect("set");
    assert_eq!(get(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 7);
    nonblocking(listener);
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    assert_eq!(poll(listener, 50), 0);
    fails!(libc::EAGAIN, libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()));
    send(client, b"now", 0).expect("send");
    assert_eq!(poll(listener, 5000), libc::POLLIN);
    let server = accept(listener);
    assert_eq!(recv(server, 10, 0), Ok(b"now".to_vec()));
}

fn fast_open() {
    let (listener, port) = listening(5);
    let client = tcp();
    let name = address([127, 0, 0, 1], port);
    let sent = sys!(libc::sendto(
        client,
        b"fast".as_ptr().cast(),
        4,
        libc::MSG_FASTOPEN,
        (&raw const name).cast(),
        16
    ));
    match sent {
        Err(libc::EOPNOTSUPP) => skip!("fast open is off here"),
        other => assert_eq!(other, Ok(4)),
    }
    let server = accept(listener);
    assert_eq!(recv(server, 10, 0), Ok(b"fast".to_vec()));
}

fn closed_while_reading() {
    let (client, server) = connected();
    let copy = ok!(libc::dup(client));
    let reader = thread::spawn(move || recv(copy, 10, 0));
    sleep_ms(30);
    // The description lives on in the reader.
    close(client);
    send(server, b"still", 0).expect("send");
    assert_eq!(reader.join().expect("joined"), Ok(b"still".to_vec()));
}

fn sigpipe() {
    let pid = fork(|| {
        ok!(libc::signal(libc::SIGPIPE, libc::SIG_DFL));
        let (client, _server) = connected();
        ok!(libc::shutdown(client, libc::SHUT_WR));
        sys!(libc::write(client, b"x".as_ptr().cast(), 1)).ok();
        0
    });
    assert_eq!(wait(pid), End::Killed(libc::SIGPIPE));
}

fn no_sigpipe() {
    ok!(libc::signal(libc::SIGPIPE, libc::SIG_DFL));
    let (client, _server) = connected();
    ok!(libc::shutdown(client, libc::SHUT_WR));
    assert_eq!(send(client, b"x", libc::MSG_NOSIGNAL), Err(libc::EPIPE));
    assert_eq!(send(client, b"", libc::MSG_NOSIGNAL), Err(libc::EPIPE));
}

fn passed_by_fork() {
    let (client, server) = connected();
    let pid = fork(|| {
        close(client);
        let data = recv(server, 10, 0).expect("receive");
        send(server, &data, 0).expect("send");
        0
    });
    close(server);
    send(client, b"child", 0).expect("send");
    assert_eq!(recv(client, 10, 0), Ok(b"child".to_vec()));
    wait(pid);
    assert_eq!(recv(client, 10, 0), Ok(vec![]));
}

fn many_at_once() {
    let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
    if sys!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).is_err() {
        skip!("too few descriptors");
    }
    let (listener, port) = listening(4096);
    let mut all = Vec::new();
    for i in 0..1500_u32 {
        let client = tcp();
        connect(client, [127, 0, 0, 1], port).expect("connect");
        all.push((client, accept(listener)));
        send(client, &i.to_ne_bytes(), 0).expect("send");
    }
    for (i, (_, server)) in all.iter().enumerate() {
        assert_eq!(recv(*server, 10, 0), Ok((i as u32).to_ne_bytes().to_vec()));
    }
}

fn churn() {
    let (listener, port) = listening(50);
    for i in 0..2000 {
        let client = tcp();
        connect(client, [127, 0, 0, 1], port).expect("connect");
        let server = accept(listener);
        if i % 2 == 0 {
            close(server);
            close(client);
        } else {
            close(client);
            close(server);
        }
    }
}

fn accept_flags() {
    let (listener, port) = listening(5);
    connect(tcp(), [127, 0, 0, 1], port).expect("connect");
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = ok!(libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_NONBLOCK, libc::O_NONBLOCK);
    assert_eq!(recv(fd, 1, 0), Err(libc::EAGAIN));
    fails!(libc::EINVAL, libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), 1));
}

fn accept_timeout() {
    let (listener, _) = listening(5);
    let time = libc::timeval { tv_sec: 0, tv_usec: 30_000 };
    ok!(libc::setsockopt(listener, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const time).cast(), 16));
    fails!(libc::EAGAIN, libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()));
}

fn connect_blocked_times_out() {
    let (_listener, port) = listening(0);
    connect(tcp(), [127, 0, 0, 1], port).expect("connect");
    let late = tcp();
    let time = libc::timeval { tv_sec: 0, tv_usec: 30_000 };
    ok!(libc::setsockopt(late, libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const time).cast(), 16));
    assert_eq!(connect(late, [127, 0, 0, 1], port), Err(libc::EINPROGRESS));
    assert_eq!(connect(late, [127, 0, 0, 1], port), Err(libc::EALREADY));
}

fn storm_of_threads() {
    let listener = TcpListener::bind(ANY).expect("bind");
    let to = listener.local_addr().expect("name");
    let servers: Vec<_> = (0..4)
        .map(|_| {
            let listener = listener.try_clone().expect("dup");
            thread::spawn(move || {
                loop {
                    let mut stream = listener.accept().expect("accept").0;
                    let mut data = [0; 1];
                    stream.read_exact(&mut data).expect("read");
                    if data[0] == 0 {
                        return;
                    }
                    stream.write_all(&data).expect("write");
                }
            })
        })
        .collect();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for i in 0..200_u32 {
                    let mut stream = TcpStream::connect(to).expect("connect");
                    let byte = [(i % 250) as u8 + 1];
                    stream.write_all(&byte).expect("write");
                    let mut data = [0; 1];
                    stream.read_exact(&mut data).expect("read");
                    assert_eq!(data, byte);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().expect("joined"));
    for _ in 0..4 {
        TcpStream::connect(to).expect("connect").write_all(&[0]).expect("write");
    }
    servers.into_iter().for_each(|s| s.join().expect("joined"));
    let (mut a, b) = streams();
    drop(b);
    assert_eq!(a.read(&mut [0; 1]).expect("read"), 0);
}
