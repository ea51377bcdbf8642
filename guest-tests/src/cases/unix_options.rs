//! Options of unix sockets: peeking onwards, who the peer is, time stamps, names for those who pass credentials.

use std::mem::size_of_val;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::harness::{End, cases, close, fails, fork, ok, read, sleep_ms, sys, wait, write, zeroed};

cases!("unix_options": cookies, peek_offset, peek_offset_datagram, peek_offset_waits, peer_groups, peer_pidfd, peer_pidfd_gone, passed_pidfd,
    passed_pidfd_has_no_room, passed_pidfd_of_streams, time_stamps,
    passing_names, plain_numbers, refused, low_water, low_water_ends, low_water_of_messages, reads_time_out,
    writes_time_out, whole_reads_time_out);

fn pair(kind: i32) -> (RawFd, RawFd) {
    let mut ends = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()));
    (ends[0], ends[1])
}

fn set(fd: RawFd, name: i32, value: i32) -> Result<i32, i32> {
    sys!(libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const value).cast(), 4))
}

fn get(fd: RawFd, name: i32) -> Result<i32, i32> {
    let (mut value, mut len) = (-9, 4);
    sys!(libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut len)).map(|_| value)
}

fn recv(fd: RawFd, size: usize, flags: i32) -> Result<Vec<u8>, i32> {
    let mut data = vec![0; size];
    let n = sys!(libc::recv(fd, data.as_mut_ptr().cast(), size, flags | libc::MSG_DONTWAIT))?;
    data.truncate(n as usize);
    Ok(data)
}

fn peek_offset() {
    let (a, b) = pair(libc::SOCK_STREAM);
    assert_eq!(get(b, libc::SO_PEEK_OFF), Ok(-1));
    set(b, libc::SO_PEEK_OFF, 0).expect("set");
    write(a, b"abcdef");
    assert_eq!(recv(b, 2, libc::MSG_PEEK), Ok(b"ab".to_vec()));
    assert_eq!(recv(b, 2, libc::MSG_PEEK), Ok(b"cd".to_vec()));
    assert_eq!(get(b, libc::SO_PEEK_OFF), Ok(4));
    assert_eq!(recv(b, 3, 0), Ok(b"abc".to_vec()));
    assert_eq!(get(b, libc::SO_PEEK_OFF), Ok(1));
    assert_eq!(recv(b, 9, libc::MSG_PEEK), Ok(b"ef".to_vec()));
    set(b, libc::SO_PEEK_OFF, -1).expect("set");
    assert_eq!(recv(b, 9, libc::MSG_PEEK), Ok(b"def".to_vec()));
}

fn peek_offset_datagram() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    set(b, libc::SO_PEEK_OFF, 1).expect("set");
    write(a, b"abcdef");
    assert_eq!(recv(b, 2, libc::MSG_PEEK), Ok(b"bc".to_vec()));
    assert_eq!(recv(b, 2, libc::MSG_PEEK), Ok(b"de".to_vec()));
    assert_eq!(recv(b, 9, 0), Ok(b"abcdef".to_vec()));
}

fn peek_offset_waits() {
    let (a, b) = pair(libc::SOCK_STREAM);
    set(b, libc::SO_PEEK_OFF, 3).expect("set");
    write(a, b"abc");
    assert_eq!(recv(b, 9, libc::MSG_PEEK), Err(libc::EAGAIN));
    write(a, b"d");
    assert_eq!(recv(b, 9, libc::MSG_PEEK), Ok(b"d".to_vec()));
}

fn peer_groups() {
    let groups = [7_u32, 9, 4000];
    match sys!(libc::setgroups(3, groups.as_ptr())) {
        Err(libc::EPERM) => crate::harness::skip!("may not set groups"),
        done => done.map(|_| ()).expect("setgroups"),
    }
    let (a, _b) = pair(libc::SOCK_STREAM);
    let (mut got, mut len) = ([0_u32; 8], 32);
    ok!(libc::getsockopt(a, libc::SOL_SOCKET, libc::SO_PEERGROUPS, got.as_mut_ptr().cast(), &mut len));
    assert_eq!((len, &got[..3]), (12, &groups[..]));
    len = 8;
    fails!(
        libc::ERANGE,
        libc::getsockopt(a, libc::SOL_SOCKET, libc::SO_PEERGROUPS, got.as_mut_ptr().cast(), &mut len)
    );
    let lonely = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    len = 32;
    fails!(
        libc::ENODATA,
        libc::getsockopt(lonely, libc::SOL_SOCKET, libc::SO_PEERGROUPS, got.as_mut_ptr().cast(), &mut len)
    );
}

const SO_PEERPIDFD: i32 = 77;

fn peer_pidfd() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let fd = match get(a, SO_PEERPIDFD) {
        Err(libc::ENOPROTOOPT) => crate::harness::skip!("an older kernel"),
        fd => fd.expect("get"),
    };
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    assert!(text.contains(&format!("Pid:\t{}\n", std::process::id())), "{text}");
}

fn peer_pidfd_gone() {
    let lonely = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    match get(lonely, SO_PEERPIDFD) {
        Err(libc::ENOPROTOOPT) => crate::harness::skip!("an older kernel"),
        other => assert_eq!(other, Err(libc::ENODATA)),
    }
}

const SO_PASSPIDFD: i32 = 76;
const SCM_PIDFD: i32 = 4;

fn pass_pidfd(fd: RawFd) {
    match set(fd, SO_PASSPIDFD, 7) {
        Err(libc::ENOPROTOOPT) => crate::harness::skip!("an older kernel"),
        done => assert_eq!(done, Ok(0)),
    }
    assert_eq!(get(fd, SO_PASSPIDFD), Ok(1));
}

/// The data, the control messages as type and first number, and the flags.
fn messages(fd: RawFd, room: usize) -> (Vec<u8>, Vec<(i32, i32)>, i32) {
    let mut data = [0_u8; 8];
    let mut control = [0_u64; 16];
    let mut into = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 8 };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut into;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = room;
    let n = ok!(libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT));
    let mut words = &control[..header.msg_controllen.div_ceil(8)];
    let mut found = Vec::new();
    while let [size, kind, first, ..] = words {
        found.push(((kind >> 32) as i32, *first as i32));
        words = words.get((*size as usize).div_ceil(8)..).unwrap_or_default();
    }
    (data[..n as usize].to_vec(), found, header.msg_flags)
}

fn is_pidfd_of(fd: RawFd, pid: i32) {
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    assert!(text.contains(&format!("Pid:\t{pid}\n")), "{text}");
    close(fd);
}

fn passed_pidfd() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind);
        assert_eq!(get(b, libc::SO_PASSCRED), Ok(0));
        pass_pidfd(b);
        let child = fork(|| {
            write(a, b"child");
            0
        });
        // Neither has it been waited for.
        ok!(libc::waitid(libc::P_PID, child as u32, &mut zeroed(), libc::WEXITED | libc::WNOWAIT));
        let (data, found, flags) = messages(b, 64);
        assert_eq!(
            (&data[..], found.len(), found[0].0, flags & libc::MSG_CTRUNC),
            (&b"child"[..], 1, SCM_PIDFD, 0)
        );
        is_pidfd_of(found[0].1, child);
        assert_eq!(wait(child), End::Exited(0));
        // After who it is by number.
        set(b, libc::SO_PASSCRED, 1).expect("set");
        write(a, b"own");
        let own = std::process::id().cast_signed();
        let (_, found, _) = messages(b, 64);
        assert_eq!((found.len(), found[0], found[1].0), (2, (libc::SCM_CREDENTIALS, own), SCM_PIDFD));
        is_pidfd_of(found[1].1, own);
        set(b, SO_PASSPIDFD, 0).expect("set");
        write(a, b"own");
        assert_eq!(messages(b, 64).1, [(libc::SCM_CREDENTIALS, own)]);
        close(a);
        close(b);
    }
}

/// Unlike others this message is not cut.
fn passed_pidfd_has_no_room() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    pass_pidfd(b);
    for room in [0, 8, 16, 19] {
        write(a, b"x");
        let (data, found, flags) = messages(b, room);
        assert_eq!(
            (data, found, flags & libc::MSG_CTRUNC),
            (b"x".to_vec(), vec![], libc::MSG_CTRUNC),
            "{room}"
        );
    }
    write(a, b"x");
    let (_, found, flags) = messages(b, 20);
    assert_eq!((found.len(), flags & libc::MSG_CTRUNC), (1, 0));
    is_pidfd_of(found[0].1, std::process::id().cast_signed());
}

/// Bytes of several senders are not read together.
fn passed_pidfd_of_streams() {
    let (a, b) = pair(libc::SOCK_STREAM);
    pass_pidfd(b);
    write(a, b"own");
    let child = fork(|| {
        write(a, b"its");
        0
    });
    ok!(libc::waitid(libc::P_PID, child as u32, &mut zeroed(), libc::WEXITED | libc::WNOWAIT));
    for (wanted, pid) in [(b"own", std::process::id().cast_signed()), (b"its", child)] {
        let (data, found, _) = messages(b, 64);
        assert_eq!((&data[..], found.len()), (&wanted[..], 1));
        is_pidfd_of(found[0].1, pid);
    }
    assert_eq!(wait(child), End::Exited(0));
}

fn time_stamps() {
    for (option, scale) in [(libc::SO_TIMESTAMP, 1_000_000), (libc::SO_TIMESTAMPNS, 1_000_000_000)] {
        let (a, b) = pair(libc::SOCK_DGRAM);
        set(b, option, 1).expect("set");
        assert_eq!(get(b, option), Ok(1));
        write(a, b"x");
        let mut byte = [0_u8; 4];
        let mut control = [0_u64; 8];
        let mut into = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 4 };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut into;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        assert_eq!(ok!(libc::recvmsg(b, &raw mut header, 0)), 1);
        // struct cmsghdr: length, level and type; then seconds and their fraction.
        assert_eq!((header.msg_controllen, control[0]), (32, 32));
        assert_eq!(control[1], (option as u64) << 32 | libc::SOL_SOCKET as u64);
        let now = ok!(libc::time(std::ptr::null_mut())).cast_unsigned();
        assert!(control[2].abs_diff(now) <= 2 && control[3] < scale);
    }
}

fn passing_names() {
    let (receiver, sender) = (
        ok!(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)),
        ok!(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)),
    );
    let mut name: libc::sockaddr_un = zeroed();
    name.sun_family = libc::AF_UNIX as u16;
    ok!(libc::bind(receiver, (&raw const name).cast(), 2));
    let mut len = 110;
    ok!(libc::getsockname(receiver, (&raw mut name).cast(), &mut len));
    assert_eq!(len, 8);
    set(sender, libc::SO_PASSCRED, 1).expect("set");
    ok!(libc::sendto(sender, b"x".as_ptr().cast(), 1, 0, (&raw const name).cast(), len));
    let mut from: libc::sockaddr_un = zeroed();
    let mut byte = [0_u8; 1];
    len = 110;
    ok!(libc::recvfrom(receiver, byte.as_mut_ptr().cast(), 1, 0, (&raw mut from).cast(), &mut len));
    assert_eq!((len, from.sun_path[0]), (8, 0));
}

fn plain_numbers() {
    let (a, b) = pair(libc::SOCK_STREAM);
    for name in [libc::SO_OOBINLINE, libc::SO_DONTROUTE, libc::SO_NO_CHECK, libc::SO_RXQ_OVFL] {
        assert_eq!(get(a, name), Ok(0));
        set(a, name, 5).expect("set");
        assert_eq!(get(a, name), Ok(1), "{name}");
    }
    set(a, libc::SO_PRIORITY, 5).expect("set");
    assert_eq!(get(a, libc::SO_PRIORITY), Ok(5));
    assert_eq!(get(a, libc::SO_INCOMING_CPU), Ok(-1));
    assert_eq!(get(a, libc::SO_ZEROCOPY), Ok(0));
    write(a, b"x");
    assert_eq!(read(b, 2), b"x");
    close(a);
}

fn refused() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    assert_eq!(set(a, libc::SO_REUSEPORT, 1), Err(libc::EOPNOTSUPP));
    assert_eq!(set(a, libc::SO_ZEROCOPY, 1), Err(libc::EOPNOTSUPP));
    assert_eq!(set(a, 9999, 1), Err(libc::ENOPROTOOPT));
    assert_eq!(get(a, 9999), Err(libc::ENOPROTOOPT));
}

fn cookies() {
    let fd = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    let cookie = |fd| {
        let (mut value, mut len) = (0_u64, 8);
        ok!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut value).cast(), &mut len));
        assert_eq!(len, 8);
        value
    };
    let other = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    assert!(cookie(fd) == cookie(fd) && cookie(fd) != cookie(other) && cookie(fd) != 0);
}

/// What `call` gives while `late` is written to `fd` after 50 ms; the milliseconds that it took.
fn meanwhile<T>(fd: RawFd, late: &'static [u8], call: impl FnOnce() -> T) -> (T, u128) {
    let writer = std::thread::spawn(move || {
        sleep_ms(50);
        write(fd, late);
    });
    let begin = Instant::now();
    let result = call();
    let took = begin.elapsed().as_millis();
    writer.join().expect("join");
    (result, took)
}

fn plain_read(fd: RawFd, size: usize) -> Result<Vec<u8>, i32> {
    let mut data = vec![0; size];
    let n = sys!(libc::read(fd, data.as_mut_ptr().cast(), size))?;
    data.truncate(n as usize);
    Ok(data)
}

fn waiting_recv(fd: RawFd, size: usize, flags: i32) -> Result<Vec<u8>, i32> {
    let mut data = vec![0; size];
    let n = sys!(libc::recv(fd, data.as_mut_ptr().cast(), size, flags))?;
    data.truncate(n as usize);
    Ok(data)
}

fn low_water() {
    let (a, b) = pair(libc::SOCK_STREAM);
    for (asked, got) in [(0, 1), (-5, i32::MAX), (4, 4)] {
        set(b, libc::SO_RCVLOWAT, asked).expect("set");
        assert_eq!(get(b, libc::SO_RCVLOWAT), Ok(got));
    }
    write(a, b"abc");
    // poll(2) does not heed it here, nor do those who do not wait, look only, or ask for less.
    let mut one = libc::pollfd { fd: b, events: libc::POLLIN, revents: 0 };
    assert_eq!((ok!(libc::poll(&mut one, 1, 0)), one.revents), (1, libc::POLLIN));
    assert_eq!(waiting_recv(b, 9, libc::MSG_PEEK), Ok(b"abc".to_vec()));
    assert_eq!(recv(b, 9, 0), Ok(b"abc".to_vec()));
    write(a, b"abc");
    assert_eq!(plain_read(b, 3), Ok(b"abc".to_vec()));
    // What came first is taken at once, and the rest waited for.
    write(a, b"abc");
    let (got, took) = meanwhile(a, b"defgh", || waiting_recv(b, 9, 0));
    assert!(got == Ok(b"abcdefgh".to_vec()) && took >= 45, "{got:?} {took}");
    for _ in 0..300 {
        // Often, as what is done often may be done in another way.
        write(a, b"abcd");
        assert_eq!(plain_read(b, 9), Ok(b"abcd".to_vec()));
    }
    write(a, b"abc");
    let (got, took) = meanwhile(a, b"d", || plain_read(b, 9));
    assert!(got == Ok(b"abcd".to_vec()) && took >= 45, "{got:?} {took}");
    write(a, b"ab");
    let mut data = [0_u8; 9];
    let parts = data.split_at_mut(1);
    let vectors = [parts.0, parts.1]
        .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
    let (got, took) = meanwhile(a, b"cd", || sys!(libc::readv(b, vectors.as_ptr(), 2)));
    assert!(got == Ok(4) && data.starts_with(b"abcd") && took >= 45, "{got:?} {took}");
    assert_eq!(set(b, libc::SO_SNDLOWAT, 4), Err(libc::ENOPROTOOPT));
}

fn low_water_ends() {
    let (a, b) = pair(libc::SOCK_STREAM);
    set(b, libc::SO_RCVLOWAT, 4).expect("set");
    // More than the buffer holds: what waits is taken, so that the writer goes on.
    set(b, libc::SO_RCVLOWAT, 1 << 20).expect("set");
    let writer = std::thread::spawn(move || write(a, &vec![7; 1 << 20]));
    let mut data = vec![0_u8; 2 << 20];
    assert_eq!(ok!(libc::read(b, data.as_mut_ptr().cast(), data.len())), 1 << 20);
    writer.join().expect("join");
    set_time(b, libc::SO_RCVTIMEO, 50);
    write(a, b"abc");
    assert_eq!(waiting_recv(b, 9, 0), Ok(b"abc".to_vec()));
    write(a, b"abc");
    assert_eq!(plain_read(b, 9), Ok(b"abc".to_vec()));
    set_time(b, libc::SO_RCVTIMEO, 0);
    write(a, b"abc");
    close(a);
    assert_eq!(plain_read(b, 9), Ok(b"abc".to_vec()));
    assert_eq!(plain_read(b, 9), Ok(Vec::new()));
}

fn low_water_of_messages() {
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind);
        set(b, libc::SO_RCVLOWAT, 4).expect("set");
        assert_eq!(get(b, libc::SO_RCVLOWAT), Ok(4));
        write(a, b"abc");
        assert_eq!(plain_read(b, 9), Ok(b"abc".to_vec()));
    }
}

/// A time-out of milliseconds.
fn set_time(fd: RawFd, name: i32, ms: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: ms * 1000 };
    ok!(libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const time).cast(), 16));
}

fn reads_time_out() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        let (a, b) = pair(kind);
        set_time(b, libc::SO_RCVTIMEO, 60);
        let begin = Instant::now();
        assert_eq!(plain_read(b, 9), Err(libc::EAGAIN));
        let took = begin.elapsed().as_millis();
        assert!((55..2000).contains(&took), "{took}");
        let (got, _) = meanwhile(a, b"x", || {
            set_time(b, libc::SO_RCVTIMEO, 900);
            plain_read(b, 9)
        });
        assert_eq!(got, Ok(b"x".to_vec()));
    }
}

fn writes_time_out() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    set_time(a, libc::SO_SNDTIMEO, 60);
    let data = [0_u8; 65_536];
    let begin = Instant::now();
    let mut result = Ok(1);
    while result.is_ok() {
        result = sys!(libc::write(a, data.as_ptr().cast(), data.len()));
    }
    let took = begin.elapsed().as_millis();
    assert!(result == Err(libc::EAGAIN) && (55..2000).contains(&took), "{result:?} {took}");
}

fn whole_reads_time_out() {
    // The time is that of the whole call, not of each wait.
    let (a, b) = pair(libc::SOCK_STREAM);
    set_time(b, libc::SO_RCVTIMEO, 200);
    let writer = std::thread::spawn(move || {
        for _ in 0..5 {
            sleep_ms(120);
            write(a, b"x");
        }
    });
    let begin = Instant::now();
    assert_eq!(waiting_recv(b, 5, libc::MSG_WAITALL), Ok(b"x".to_vec()));
    let took = begin.elapsed().as_millis();
    assert!((195..350).contains(&took), "{took}");
    writer.join().expect("join");
}
