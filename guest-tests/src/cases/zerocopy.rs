//! `MSG_ZEROCOPY`: bytes that may be taken later, and how a program learns that they were.

use std::os::fd::RawFd;

use super::tcp::{connect, connected, get, poll, recv, send, set, settles, tcp};
use super::udp::{LO, bound};
use super::udp_control::with_control;
use crate::harness::{cases, fails, ok, sleep_ms};

cases!("zerocopy": stream, datagrams, off_by_default, values, long_send_is_one, with_epoll, unix_refuses);

/// Two UDP sockets, the first connected to the second.
fn pair() -> (RawFd, RawFd) {
    let ((a, _), (b, port)) = (bound(), bound());
    connect(a, LO, port).expect("connect");
    (a, b)
}

/// First and last number of what is done.
fn done(fd: RawFd) -> (u32, u32) {
    assert_eq!(poll(fd, 5000) & libc::POLLERR, libc::POLLERR);
    let (data, control, flags) = with_control(fd, libc::MSG_ERRQUEUE);
    assert_eq!((data, flags & libc::MSG_ERRQUEUE), (Vec::new(), libc::MSG_ERRQUEUE));
    let error = control.iter().find(|c| (c.0, c.1) == (libc::IPPROTO_IP, libc::IP_RECVERR)).expect("told");
    // struct sock_extended_err: no errno, SO_EE_ORIGIN_ZEROCOPY, type, SO_EE_CODE_ZEROCOPY_COPIED.
    assert_eq!((&error.2[..4], error.2[4], error.2[5], error.2[6]), (&[0; 4][..], 5, 0, 1));
    assert_eq!(error.2.len(), 32);
    let word = |at: usize| u32::from_ne_bytes(error.2[at..at + 4].try_into().expect("4 bytes"));
    (word(8), word(12))
}

fn both(from: RawFd, to: RawFd) {
    set(from, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).expect("set");
    assert_eq!(get(from, libc::SOL_SOCKET, libc::SO_ZEROCOPY), 1);
    let mut next = 0;
    for round in 1..4_u32 {
        for _ in 0..round {
            assert_eq!(send(from, b"hello", libc::MSG_ZEROCOPY), Ok(5));
            assert_eq!(recv(to, 5, 0), Ok(b"hello".to_vec()));
        }
        sleep_ms(20);
        assert_eq!(done(from), (next, next + round - 1));
        next += round;
        settles(from, libc::POLLOUT);
        assert_eq!(get(from, libc::SOL_SOCKET, libc::SO_ERROR), 0);
        fails!(libc::EAGAIN, libc::recv(from, [0_u8; 1].as_mut_ptr().cast(), 1, libc::MSG_ERRQUEUE));
    }
}

fn stream() {
    let (client, server) = connected();
    both(client, server);
    both(server, client);
}

fn datagrams() {
    let (a, b) = pair();
    both(a, b);
}

fn off_by_default() {
    let ((client, server), (a, b)) = (connected(), pair());
    for (from, to) in [(client, server), (a, b)] {
        assert_eq!(get(from, libc::SOL_SOCKET, libc::SO_ZEROCOPY), 0);
        // Without the option the flag means nothing.
        assert_eq!(send(from, b"hello", libc::MSG_ZEROCOPY), Ok(5));
        assert_eq!(recv(to, 5, 0), Ok(b"hello".to_vec()));
        sleep_ms(20);
        assert_eq!(poll(from, 0), libc::POLLOUT);
    }
}

fn values() {
    for fd in [tcp(), pair().0] {
        for bad in [2, -1] {
            assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, bad), Err(libc::EINVAL));
        }
        set(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).expect("set");
        set(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 0).expect("set");
        assert_eq!(get(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY), 0);
    }
}

fn long_send_is_one() {
    let (client, server) = connected();
    set(client, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).expect("set");
    let writer = std::thread::spawn(move || send(client, &vec![7; 3 << 20], libc::MSG_ZEROCOPY));
    let mut got = 0;
    while got < 3 << 20 {
        got += recv(server, 1 << 20, 0).expect("receive").len();
    }
    assert_eq!(writer.join().expect("joined"), Ok(3 << 20));
    sleep_ms(50);
    assert_eq!(done(client), (0, 0));
}

fn with_epoll() {
    let (client, server) = connected();
    set(client, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).expect("set");
    let epoll = ok!(libc::epoll_create1(0));
    let mut event = libc::epoll_event { events: 0, u64: 1 };
    ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, client, &mut event));
    assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 50)), 0);
    send(client, b"x", libc::MSG_ZEROCOPY).expect("send");
    recv(server, 1, 0).expect("receive");
    assert_eq!(ok!(libc::epoll_wait(epoll, &mut event, 1, 5000)), 1);
    assert_eq!({ event.events }, libc::EPOLLERR as u32);
    assert_eq!(done(client), (0, 0));
    // A connection that began without it goes on.
    let (listener, port) = super::tcp::listening(1);
    let other = tcp();
    connect(other, [127, 0, 0, 1], port).expect("connect");
    send(other, b"y", 0).expect("send");
    assert_eq!(recv(super::tcp::accept(listener), 1, 0), Ok(b"y".to_vec()));
}

fn unix_refuses() {
    let fd = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    assert_eq!(set(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1), Err(libc::EOPNOTSUPP));
}
