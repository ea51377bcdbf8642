//! Bytes over TCP: buffers, urgent bytes, flags of send and receive, options, readiness.

use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;

use super::tcp::{accept, connect, connected, get, listening, poll, recv, send, set, settles, tcp};
use crate::harness::{cases, close, fails, ok, sleep_ms, sys, zeroed};

cases!("tcp_data": send_buffer_fills, blocked_writer_goes_on, writer_blocked_by_end, urgent, urgent_inline, urgent_poll, peek, wait_all, wait_all_interrupted, truncate_discards, dontwait, low_water, fionread, outq, info, option_values, option_errors, inherited_options, epoll_out_edge, epoll_each_arrival, vectors, send_file, splice_both_ways, timestamp_refused_or_given);

fn fill(fd: RawFd) -> usize {
    let mut sent = 0;
    loop {
        match send(fd, &[1; 4096], libc::MSG_DONTWAIT) {
            Ok(n) => sent += n as usize,
            Err(libc::EAGAIN) => return sent,
            Err(errno) => panic!("send: {errno}"),
        }
        assert!(sent < 64 << 20);
    }
}

fn send_buffer_fills() {
    let (client, server) = connected();
    set(server, libc::SOL_SOCKET, libc::SO_RCVBUF, 8192).expect("set");
    set(client, libc::SOL_SOCKET, libc::SO_SNDBUF, 8192).expect("set");
    let sent = fill(client);
    assert!(sent >= 4096);
    assert_eq!(poll(client, 0), 0);
    let mut got = 0;
    while got < sent {
        got += recv(server, 65_536, 0).expect("receive").len();
    }
    assert_eq!(got, sent);
    assert_eq!(poll(client, 5000), libc::POLLOUT);
}

fn blocked_writer_goes_on() {
    let (client, server) = connected();
    let writer = thread::spawn(move || {
        let mut stream = Descriptor(client);
        stream.write_all(&vec![3; 8 << 20]).expect("write");
        close(client);
    });
    sleep_ms(50);
    let mut got = 0;
    loop {
        let data = recv(server, 100_000, 0).expect("receive");
        if data.is_empty() {
            break;
        }
        assert!(data.iter().all(|b| *b == 3));
        got += data.len();
    }
    assert_eq!(got, 8 << 20);
    writer.join().expect("joined");
}

/// A descriptor as a stream that is not closed.
struct Descriptor(RawFd);

impl Write for Descriptor {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        send(self.0, data, 0).map(|n| n as usize).map_err(std::io::Error::from_raw_os_error)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn writer_blocked_by_end() {
    let (client, server) = connected();
    let writer = thread::spawn(move || send(client, &vec![3; 32 << 20], 0));
    sleep_ms(100);
    close(server);
    // What went is told; the next call has the error.
    let first = writer.join().expect("joined");
    match first {
        Ok(n) => {
            assert!(n < 32 << 20);
            let next = send(client, b"x", 0);
            assert!(matches!(next, Err(libc::ECONNRESET | libc::EPIPE)), "{next:?}");
        }
        Err(errno) => assert!(matches!(errno, libc::ECONNRESET | libc::EPIPE), "{errno}"),
    }
}

fn at_mark(fd: RawFd) -> i32 {
    let mut value = -1;
    ok!(libc::ioctl(fd, 0x8905, &raw mut value));
    value
}

fn urgent() {
    let (client, server) = connected();
    assert_eq!(recv(server, 1, libc::MSG_OOB), Err(libc::EINVAL));
    send(client, b"ab!", libc::MSG_OOB).expect("send");
    send(client, b"cd", 0).expect("send");
    sleep_ms(20);
    assert_eq!(at_mark(server), 0);
    assert_eq!(recv(server, 10, libc::MSG_PEEK | libc::MSG_OOB), Ok(b"!".to_vec()));
    assert_eq!(recv(server, 10, 0), Ok(b"ab".to_vec()));
    assert_eq!(at_mark(server), 1);
    assert_eq!(recv(server, 10, libc::MSG_OOB), Ok(b"!".to_vec()));
    assert_eq!(recv(server, 10, libc::MSG_OOB), Err(libc::EINVAL));
    assert_eq!(recv(server, 10, 0), Ok(b"cd".to_vec()));
    assert_eq!(at_mark(server), 0);
}

fn urgent_inline() {
    let (client, server) = connected();
    set(server, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1).expect("set");
    send(client, b"ab!", libc::MSG_OOB).expect("send");
    send(client, b"cd", 0).expect("send");
    sleep_ms(20);
    assert_eq!(recv(server, 10, libc::MSG_OOB), Err(libc::EINVAL));
    assert_eq!(recv(server, 10, 0), Ok(b"ab".to_vec()));
    assert_eq!(at_mark(server), 1);
    assert_eq!(recv(server, 10, 0), Ok(b"!cd".to_vec()));
}

fn urgent_poll() {
    let (client, server) = connected();
    send(client, b"!", libc::MSG_OOB).expect("send");
    settles(server, libc::POLLOUT | libc::POLLPRI);
    recv(server, 1, libc::MSG_OOB).expect("receive");
    settles(server, libc::POLLOUT);
    send(client, b"x", 0).expect("send");
    settles(server, libc::POLLOUT | libc::POLLIN);
}

fn peek() {
    let (client, server) = connected();
    send(client, b"hello", 0).expect("send");
    sleep_ms(10);
    assert_eq!(recv(server, 3, libc::MSG_PEEK), Ok(b"hel".to_vec()));
    assert_eq!(recv(server, 10, libc::MSG_PEEK), Ok(b"hello".to_vec()));
    assert_eq!(recv(server, 10, 0), Ok(b"hello".to_vec()));
}

fn wait_all() {
    let (client, server) = connected();
    let writer = thread::spawn(move || {
        for piece in [b"ab", b"cd", b"ef"] {
            send(client, piece, 0).expect("send");
            sleep_ms(20);
        }
        client
    });
    assert_eq!(recv(server, 5, libc::MSG_WAITALL), Ok(b"abcde".to_vec()));
    close(writer.join().expect("joined"));
    assert_eq!(recv(server, 5, libc::MSG_WAITALL), Ok(b"f".to_vec()));
}

fn wait_all_interrupted() {
    let (client, server) = connected();
    send(client, b"abc", 0).expect("send");
    let mut action: libc::sigaction = zeroed();
    extern "C" fn nothing(_: i32) {}
    action.sa_sigaction = nothing as *const () as usize;
    ok!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()));
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 50_000 },
    };
    ok!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()));
    assert_eq!(recv(server, 5, libc::MSG_WAITALL), Ok(b"abc".to_vec()));
    ok!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()));
    assert_eq!(recv(server, 5, 0), Err(libc::EINTR));
}

fn truncate_discards() {
    let (client, server) = connected();
    send(client, b"hello", 0).expect("send");
    sleep_ms(10);
    assert_eq!(sys!(libc::recv(server, std::ptr::null_mut(), 3, libc::MSG_TRUNC)), Ok(3));
    assert_eq!(recv(server, 10, 0), Ok(b"lo".to_vec()));
}

fn dontwait() {
    let (_client, server) = connected();
    assert_eq!(recv(server, 1, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    assert_eq!(recv(server, 1, libc::MSG_ERRQUEUE), Err(libc::EAGAIN));
}

fn low_water() {
    let (client, server) = connected();
    set(server, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 4).expect("set");
    assert_eq!(get(server, libc::SOL_SOCKET, libc::SO_RCVLOWAT), 4);
    send(client, b"abc", 0).expect("send");
    sleep_ms(20);
    assert_eq!(poll(server, 0), libc::POLLOUT);
    send(client, b"d", 0).expect("send");
    settles(server, libc::POLLOUT | libc::POLLIN);
    assert_eq!(recv(server, 9, 0), Ok(b"abcd".to_vec()));
    // A receive that waits goes on until there is as much.
    send(client, b"abc", 0).expect("send");
    let late = std::thread::spawn(move || {
        sleep_ms(50);
        send(client, b"defg", 0).expect("send");
    });
    assert_eq!(recv(server, 9, 0), Ok(b"abcdefg".to_vec()));
    late.join().expect("join");
}

fn fionread() {
    let (client, server) = connected();
    send(client, b"hello", 0).expect("send");
    sleep_ms(10);
    let mut n = -1;
    ok!(libc::ioctl(server, libc::FIONREAD, &raw mut n));
    assert_eq!(n, 5);
    let (listener, _) = listening(1);
    fails!(libc::EINVAL, libc::ioctl(listener, libc::FIONREAD, &raw mut n));
    ok!(libc::ioctl(tcp(), libc::FIONREAD, &raw mut n));
    assert_eq!(n, 0);
}

fn outq() {
    let (client, server) = connected();
    send(client, b"hello", 0).expect("send");
    sleep_ms(50);
    let mut n = -1;
    ok!(libc::ioctl(client, libc::TIOCOUTQ, &raw mut n));
    assert_eq!(n, 0);
    set(server, libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).expect("set");
    fill(client);
    ok!(libc::ioctl(client, libc::TIOCOUTQ, &raw mut n));
    assert!(n > 0);
}

fn info() {
    let (client, server) = connected();
    send(client, b"hello", 0).expect("send");
    sleep_ms(20);
    let state = |fd| {
        let mut data = [0_u8; 104];
        let mut len = 104;
        ok!(libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, data.as_mut_ptr().cast(), &mut len));
        assert_eq!(len, 104);
        data[0]
    };
    assert_eq!((state(client), state(server)), (1, 1));
    recv(server, 10, 0).expect("receive");
    ok!(libc::shutdown(client, libc::SHUT_WR));
    // The host's acknowledgement may be late.
    sleep_ms(100);
    assert_eq!((state(client), state(server)), (5, 8));
    assert_eq!(state(tcp()), 7);
    assert_eq!(state(listening(1).0), 10);
}

fn option_values() {
    let (client, _server) = connected();
    let flags = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::SOL_SOCKET, libc::SO_OOBINLINE),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_SOCKET, libc::SO_BROADCAST),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        (libc::IPPROTO_TCP, libc::TCP_CORK),
    ];
    for fd in [tcp(), client] {
        for (level, name) in flags {
            assert_eq!(get(fd, level, name), 0);
            set(fd, level, name, 7).expect("set");
            assert_eq!(get(fd, level, name), 1, "{level} {name}");
        }
        let numbers = [
            (libc::TCP_KEEPIDLE, 7200, 11),
            (libc::TCP_KEEPINTVL, 75, 12),
            (libc::TCP_KEEPCNT, 9, 13),
            (libc::TCP_SYNCNT, 6, 14),
            (libc::TCP_LINGER2, 60, 15),
            (libc::TCP_USER_TIMEOUT, 0, 1600),
            (libc::TCP_NOTSENT_LOWAT, 0, 17),
        ];
        for (name, before, after) in numbers {
            assert_eq!(get(fd, libc::IPPROTO_TCP, name), before, "{name}");
            set(fd, libc::IPPROTO_TCP, name, after).expect("set");
            assert_eq!(get(fd, libc::IPPROTO_TCP, name), after, "{name}");
        }
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 10_000).expect("set");
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_RCVBUF), 20_000);
        set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 1).expect("set");
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_SNDBUF), 4608);
        set(fd, libc::SOL_SOCKET, libc::SO_PRIORITY, 3).expect("set");
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_PRIORITY), 3);
        set(fd, libc::IPPROTO_IP, libc::IP_TTL, 44).expect("set");
        assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TTL), 44);
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_TYPE), libc::SOCK_STREAM);
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 0);
        let mut name = [0_u8; 16];
        let mut len = 16;
        ok!(libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_mut_ptr().cast(),
            &mut len
        ));
        assert!(name[0].is_ascii_lowercase());
    }
    assert_eq!(get(listening(1).0, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 1);
}

fn option_errors() {
    let (client, _server) = connected();
    for fd in [tcp(), client] {
        for (name, value) in [(libc::TCP_KEEPIDLE, 0), (libc::TCP_KEEPCNT, 128), (libc::TCP_SYNCNT, 0)] {
            assert_eq!(set(fd, libc::IPPROTO_TCP, name, value), Err(libc::EINVAL));
        }
        assert_eq!(set(fd, libc::IPPROTO_TCP, 9999, 1), Err(libc::ENOPROTOOPT));
        assert_eq!(set(fd, libc::SOL_SOCKET, 9999, 1), Err(libc::ENOPROTOOPT));
        let value = 1_i32;
        fails!(
            libc::EINVAL,
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const value).cast(), 3)
        );
        assert_eq!(set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1), Err(libc::ENOPROTOOPT));
        fails!(
            libc::EFAULT,
            libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, std::ptr::without_provenance(8), 4)
        );
    }
}

fn inherited_options() {
    let (listener, port) = listening(5);
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77),
        (libc::SOL_SOCKET, libc::SO_RCVBUF, 10_000),
    ] {
        set(listener, level, name, value).expect("set");
    }
    connect(tcp(), [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    assert_eq!(get(server, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(get(server, libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
    assert_eq!(get(server, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 77);
    assert_eq!(get(server, libc::SOL_SOCKET, libc::SO_RCVBUF), 20_000);
}

fn epoll_of(fd: RawFd, events: i32) -> RawFd {
    let epoll = ok!(libc::epoll_create1(0));
    let mut event = libc::epoll_event { events: events as u32, u64: 5 };
    ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event));
    epoll
}

fn epoll_wait(epoll: RawFd, timeout: i32) -> u32 {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    if ok!(libc::epoll_wait(epoll, &mut event, 1, timeout)) == 1 { event.events } else { 0 }
}

fn epoll_out_edge() {
    let (client, server) = connected();
    let epoll = epoll_of(client, libc::EPOLLOUT | libc::EPOLLET);
    assert_eq!(epoll_wait(epoll, 1000), libc::EPOLLOUT as u32);
    assert_eq!(epoll_wait(epoll, 0), 0);
    let sent = fill(client);
    assert_eq!(epoll_wait(epoll, 0), 0);
    let mut got = 0;
    while got < sent {
        got += recv(server, 65_536, 0).expect("receive").len();
    }
    assert_eq!(epoll_wait(epoll, 5000), libc::EPOLLOUT as u32);
}

fn epoll_each_arrival() {
    let (client, server) = connected();
    let epoll = epoll_of(server, libc::EPOLLIN | libc::EPOLLET | libc::EPOLLRDHUP);
    for _ in 0..3 {
        send(client, b"x", 0).expect("send");
        assert_eq!(epoll_wait(epoll, 5000), libc::EPOLLIN as u32);
        assert_eq!(epoll_wait(epoll, 0), 0);
    }
    close(client);
    assert_eq!(epoll_wait(epoll, 5000), (libc::EPOLLIN | libc::EPOLLRDHUP) as u32);
}

fn vectors() {
    let (client, server) = connected();
    let piece = |data: &[u8]| libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let out = [piece(b"ab"), piece(b""), piece(b"cde")];
    assert_eq!(ok!(libc::writev(client, out.as_ptr(), 3)), 5);
    sleep_ms(10);
    let (mut a, mut b) = ([0_u8; 3], [0_u8; 8]);
    let into = [
        libc::iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 3 },
        libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 8 },
    ];
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = into.as_ptr().cast_mut();
    header.msg_iovlen = 2;
    let mut name = [0_u8; 32];
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = 32;
    assert_eq!(ok!(libc::recvmsg(server, &raw mut header, 0)), 5);
    assert_eq!((&a, &b[..2], header.msg_namelen, header.msg_flags), (b"abc", &b"de"[..], 0, 0));
}

fn send_file() {
    let temp = crate::harness::Temp::new();
    let path = temp.path().join("data");
    let data: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&path, &data).expect("write");
    let file = std::fs::File::open(&path).expect("open");
    let (client, server) = connected();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        loop {
            let data = recv(server, 100_000, 0).expect("receive");
            if data.is_empty() {
                return all;
            }
            all.extend(data);
        }
    });
    let mut sent = 0;
    while sent < data.len() {
        let n = ok!(libc::sendfile(client, file.as_raw_fd(), std::ptr::null_mut(), data.len() - sent));
        assert!(n > 0);
        sent += n as usize;
    }
    close(client);
    assert_eq!(reader.join().expect("joined"), data);
}

fn splice_both_ways() {
    let (client, server) = connected();
    let mut pipe = [0; 2];
    ok!(libc::pipe(pipe.as_mut_ptr()));
    ok!(libc::write(pipe[1], b"through".as_ptr().cast(), 7));
    let none = std::ptr::null_mut;
    assert_eq!(ok!(libc::splice(pipe[0], none(), client, none(), 100, 0)), 7);
    assert_eq!(ok!(libc::splice(server, none(), pipe[1], none(), 100, 0)), 7);
    let mut data = [0; 10];
    assert_eq!(ok!(libc::read(pipe[0], data.as_mut_ptr().cast(), 10)), 7);
    assert_eq!(&data[..7], b"through");
}

/// A socket that was asked for time stamps either says that it gives none or gives them.
fn timestamp_refused_or_given() {
    let (listener, port) = listening(5);
    let client = tcp();
    set(client, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1).expect("set");
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    // The host begins to stamp packets a moment later.
    for _ in 0..200 {
        send(server, b"x", 0).expect("send");
        let mut byte = [0_u8; 1];
        let mut control = [0_u64; 16];
        let mut into = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut into;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        assert_eq!(ok!(libc::recvmsg(client, &raw mut header, 0)), 1);
        if header.msg_controllen == 32 {
            return;
        }
        sleep_ms(10);
    }
    panic!("no time stamps");
}
