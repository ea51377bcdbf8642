//! What TCP makes wait: bytes that more shall join, connections without bytes, readers that take nothing.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::tcp::{
    accept, connect, connected, get, listening, nonblocking, poll, recv, send, set, settles, tcp,
};
use crate::harness::{cases, close, ok, sleep_ms};

cases!("tcp_hold": more_waits, cork_waits, second_joins, uncork_sends, no_delay_sends, full_segments_go,
    end_sends, close_sends, plain_send_sends, urgent_sends, counted, full_buffer_sends, inherited_cork,
    cork_and_peek, deferred_for_a_time, deferred_and_held, user_timeout, user_timeout_with_progress, info_counts,
    error_after_bytes);

const TCP: i32 = libc::IPPROTO_TCP;

/// Nothing is there at first, all of it a moment later.
fn comes_late(fd: RawFd, data: &[u8]) {
    assert_eq!(recv(fd, 1000, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    let begin = Instant::now();
    assert_eq!(recv(fd, 1000, 0).as_deref(), Ok(data));
    let waited = begin.elapsed();
    assert!(waited > Duration::from_millis(80) && waited < Duration::from_secs(3), "{waited:?}");
}

fn more_waits() {
    let (client, server) = connected();
    send(client, b"held", libc::MSG_MORE).expect("send");
    comes_late(server, b"held");
    // And again.
    send(client, b"once more", libc::MSG_MORE).expect("send");
    comes_late(server, b"once more");
}

fn cork_waits() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, b"held", 0).expect("send");
    assert_eq!(poll(server, 0), libc::POLLOUT);
    comes_late(server, b"held");
    // The cork is still in.
    send(client, b"again", 0).expect("send");
    comes_late(server, b"again");
}

fn second_joins() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    let begin = Instant::now();
    send(client, b"one ", 0).expect("send");
    sleep_ms(50);
    send(client, b"two", 0).expect("send");
    assert_eq!(recv(server, 100, 0), Ok(b"one two".to_vec()));
    // The first one's time counts.
    assert!(begin.elapsed() > Duration::from_millis(150));
}

fn uncork_sends() {
    let (client, server) = connected();
    for i in 0..20_u8 {
        set(client, TCP, libc::TCP_CORK, 1).expect("set");
        send(client, &[i], 0).expect("send");
        send(client, &[i; 10], 0).expect("send");
        assert_eq!(recv(server, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        set(client, TCP, libc::TCP_CORK, 0).expect("set");
        settles(server, libc::POLLIN | libc::POLLOUT);
        assert_eq!(recv(server, 100, 0), Ok(vec![i; 11]));
    }
    // Not at once was it the time that ended it.
    let begin = Instant::now();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, b"x", 0).expect("send");
    set(client, TCP, libc::TCP_CORK, 0).expect("set");
    recv(server, 1, 0).expect("receive");
    assert!(begin.elapsed() < Duration::from_millis(150));
}

fn no_delay_sends() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, b"first", 0).expect("send");
    set(client, TCP, libc::TCP_NODELAY, 1).expect("set");
    assert_eq!(poll(server, 100) & libc::POLLIN, libc::POLLIN);
    assert_eq!(recv(server, 100, 0), Ok(b"first".to_vec()));
    // A cork is stronger afterwards.
    send(client, b"second", 0).expect("send");
    comes_late(server, b"second");
}

fn full_segments_go() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, &vec![1; 40_000], 0).expect("send");
    assert_eq!(poll(server, 1000) & libc::POLLIN, libc::POLLIN);
    let first = recv(server, 65_536, 0).expect("receive").len();
    assert!((1..40_000).contains(&first), "{first}");
    assert_eq!(recv(server, 65_536, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    assert_eq!(recv(server, 65_536, 0).expect("receive").len(), 40_000 - first);
}

fn end_sends() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, b"last", 0).expect("send");
    ok!(libc::shutdown(client, libc::SHUT_WR));
    assert_eq!(poll(server, 100) & libc::POLLIN, libc::POLLIN);
    assert_eq!((recv(server, 100, 0), recv(server, 100, 0)), (Ok(b"last".to_vec()), Ok(Vec::new())));
}

fn close_sends() {
    let (client, server) = connected();
    send(client, b"last", libc::MSG_MORE).expect("send");
    close(client);
    assert_eq!(poll(server, 100) & libc::POLLIN, libc::POLLIN);
    assert_eq!((recv(server, 100, 0), recv(server, 100, 0)), (Ok(b"last".to_vec()), Ok(Vec::new())));
}

fn plain_send_sends() {
    let (client, server) = connected();
    send(client, b"head ", libc::MSG_MORE).expect("send");
    send(client, b"body", 0).expect("send");
    assert_eq!(poll(server, 100) & libc::POLLIN, libc::POLLIN);
    assert_eq!(recv(server, 100, 0), Ok(b"head body".to_vec()));
}

fn urgent_sends() {
    let (client, server) = connected();
    send(client, b"ab", libc::MSG_MORE).expect("send");
    send(client, b"!", libc::MSG_OOB).expect("send");
    settles(server, libc::POLLIN | libc::POLLOUT | libc::POLLPRI);
    assert_eq!(recv(server, 10, 0), Ok(b"ab".to_vec()));
    assert_eq!(recv(server, 10, libc::MSG_OOB), Ok(b"!".to_vec()));
}

fn ask(fd: RawFd, what: libc::c_ulong) -> i32 {
    let mut n = -1;
    ok!(libc::ioctl(fd, what, &raw mut n));
    n
}

fn counted() {
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    let (client, server) = connected();
    send(client, &[1; 100], libc::MSG_MORE).expect("send");
    assert_eq!((ask(client, libc::TIOCOUTQ), ask(client, SIOCOUTQNSD)), (100, 100));
    assert_eq!(ask(server, libc::FIONREAD), 0);
    send(client, &[1; 10], 0).expect("send");
    sleep_ms(20);
    assert_eq!((ask(client, SIOCOUTQNSD), ask(server, libc::FIONREAD)), (0, 110));
}

fn full_buffer_sends() {
    let (client, server) = connected();
    set(client, libc::SOL_SOCKET, libc::SO_SNDBUF, 4608).expect("set");
    set(server, libc::SOL_SOCKET, libc::SO_RCVBUF, 4608).expect("set");
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    let writer = std::thread::spawn(move || {
        assert_eq!(send(client, &vec![5; 200_000], 0), Ok(200_000));
        client
    });
    let mut got = 0;
    while got < 200_000 {
        got += recv(server, 65_536, 0).expect("receive").len();
    }
    close(writer.join().expect("joined"));
}

fn inherited_cork() {
    let (listener, port) = listening(5);
    set(listener, TCP, libc::TCP_CORK, 1).expect("set");
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    let server = accept(listener);
    assert_eq!(get(server, TCP, libc::TCP_CORK), 1);
    send(server, b"held", 0).expect("send");
    comes_late(client, b"held");
}

fn cork_and_peek() {
    let (client, server) = connected();
    send(client, b"seen", 0).expect("send");
    sleep_ms(20);
    assert_eq!(recv(server, 10, libc::MSG_PEEK), Ok(b"seen".to_vec()));
    set(client, TCP, libc::TCP_CORK, 1).expect("set");
    send(client, b" held", 0).expect("send");
    assert_eq!(recv(server, 10, libc::MSG_PEEK | libc::MSG_DONTWAIT), Ok(b"seen".to_vec()));
    assert_eq!(recv(server, 9, libc::MSG_WAITALL), Ok(b"seen held".to_vec()));
}

fn deferred_for_a_time() {
    let (listener, port) = listening(5);
    set(listener, TCP, libc::TCP_DEFER_ACCEPT, 1).expect("set");
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    assert_eq!(poll(listener, 300), 0);
    // Nothing came for a second: it is accepted all the same.
    assert_eq!(poll(listener, 8000), libc::POLLIN);
    let server = accept(listener);
    send(client, b"late", 0).expect("send");
    assert_eq!(recv(server, 10, 0), Ok(b"late".to_vec()));
}

fn deferred_and_held() {
    let (listener, port) = listening(5);
    set(listener, TCP, libc::TCP_DEFER_ACCEPT, 10).expect("set");
    let client = tcp();
    connect(client, [127, 0, 0, 1], port).expect("connect");
    send(client, b"held", libc::MSG_MORE).expect("send");
    assert_eq!(poll(listener, 60), 0);
    assert_eq!(poll(listener, 5000), libc::POLLIN);
    assert_eq!(recv(accept(listener), 10, 0), Ok(b"held".to_vec()));
}

fn fill(fd: RawFd) -> usize {
    nonblocking(fd);
    let mut sent = 0;
    loop {
        match send(fd, &[1; 65_536], 0) {
            Ok(n) => sent += n as usize,
            Err(errno) => {
                assert_eq!(errno, libc::EAGAIN);
                return sent;
            }
        }
    }
}

fn user_timeout() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_USER_TIMEOUT, 700).expect("set");
    fill(client);
    let begin = Instant::now();
    let dead = poll(client, 10_000);
    assert_eq!(dead & (libc::POLLERR | libc::POLLHUP), libc::POLLERR | libc::POLLHUP);
    let waited = begin.elapsed();
    assert!(waited > Duration::from_millis(600) && waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(get(client, libc::SOL_SOCKET, libc::SO_ERROR), libc::ETIMEDOUT);
    assert_eq!(send(client, b"x", 0), Err(libc::EPIPE));
    // The reader has what came, then a reset.
    let mut got = 0;
    let end = loop {
        match recv(server, 1 << 20, 0) {
            Ok(data) => got += data.len(),
            Err(errno) => break errno,
        }
    };
    assert!(got > 0);
    assert_eq!(end, libc::ECONNRESET);
}

fn user_timeout_with_progress() {
    let (client, server) = connected();
    set(client, TCP, libc::TCP_USER_TIMEOUT, 800).expect("set");
    let mut left = fill(client);
    // A reader that takes something each time is alive.
    for _ in 0..4 {
        sleep_ms(400);
        for _ in 0..8 {
            left -= recv(server, 65_536.min(left), libc::MSG_DONTWAIT).map_or(0, |data| data.len());
        }
        left += fill(client);
    }
    assert_eq!(get(client, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    while left > 0 {
        left -= recv(server, 1 << 20, 0).expect("receive").len();
    }
}

fn info_counts() {
    let (client, server) = connected();
    for _ in 0..3 {
        send(client, &[1; 100], 0).expect("send");
        assert_eq!(recv(server, 100, libc::MSG_WAITALL).expect("receive").len(), 100);
    }
    sleep_ms(100);
    let info = |fd| {
        let mut data = [0_u8; 232];
        let mut len = 232;
        ok!(libc::getsockopt(fd, TCP, libc::TCP_INFO, data.as_mut_ptr().cast(), &mut len));
        assert_eq!(len, 232);
        data
    };
    let word = |data: &[u8], at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().expect("4 bytes"));
    let (here, there) = (info(client), info(server));
    // tcpi_snd_mss, tcpi_pmtu, tcpi_rtt, tcpi_snd_cwnd, tcpi_rcv_space, tcpi_snd_wnd are something.
    for at in [16, 60, 68, 80, 96, 228] {
        assert!(word(&here, at) > 0, "{at}");
    }
    // tcpi_unacked, tcpi_lost, tcpi_total_retrans, tcpi_notsent_bytes are nothing.
    for at in [24, 32, 100, 144] {
        assert_eq!(word(&here, at), 0, "{at}");
    }
    // tcpi_bytes_acked counts the SYN, tcpi_bytes_received does not; data segments out and in; tcpi_bytes_sent.
    assert_eq!((word(&here, 120), word(&there, 128), word(&there, 120)), (301, 300, 0));
    assert_eq!((word(&here, 156), word(&there, 152), word(&here, 152)), (3, 3, 0));
    assert_eq!(word(&here, 200), 300);
    assert!(word(&here, 136) >= 3 && word(&there, 140) >= 3);
    send(client, &[1; 50], libc::MSG_MORE).expect("send");
    assert_eq!(word(&info(client), 144), 50);
}

fn error_after_bytes() {
    // What a long receive has met behind the bytes is not lost: an end is not what it was.
    let (client, server) = connected();
    let size = 512 << 10;
    set(server, libc::SOL_SOCKET, libc::SO_SNDBUF, 1 << 20).expect("set");
    let sent = send(server, &vec![1; size], libc::MSG_DONTWAIT).expect("send") as usize;
    // The reader's own bytes, unread, make it a reset that leaves the reader what it has.
    send(client, b"unread", 0).expect("send");
    sleep_ms(50);
    close(server);
    sleep_ms(20);
    let mut got = 0;
    let end = loop {
        match recv(client, 1 << 20, 0) {
            Ok(data) if data.is_empty() => panic!("an end after {got} of {sent}"),
            Ok(data) => got += data.len(),
            Err(errno) => break errno,
        }
    };
    assert_eq!(end, libc::ECONNRESET);
    assert_eq!(recv(client, 1, 0), Ok(Vec::new()));
}
