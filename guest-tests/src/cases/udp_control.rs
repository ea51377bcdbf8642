//! UDP: what comes beside the bytes (control messages, the error queue), and whose address it names.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::tcp::{bind, connect, get, name_of, poll, recv, send, set};
use super::udp::{LO, bound, free_port, nothing, recv_from, send_to, udp};
use crate::harness::{cases, fails, ok, skip, zeroed};

cases!("udp_control": packet_info, timestamps, carried_both_ways, error_queue, own_address, new_timestamps,
    timestamping, interface_by_number, other_source, seen_at_once);

/// Level, type and data of a control message.
pub(super) type Message = (i32, i32, Vec<u8>);

/// Receives with control messages: the bytes, the messages, the flags.
pub(super) fn with_control(fd: RawFd, flags: i32) -> (Vec<u8>, Vec<Message>, i32) {
    let (mut data, mut control) = ([0_u8; 100], [0_u64; 64]);
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut header: libc::msghdr = zeroed();
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let n = ok!(libc::recvmsg(fd, &raw mut header, flags));
    let bytes: Vec<u8> = control.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let mut rest = &bytes[..header.msg_controllen];
    let mut out = Vec::new();
    while rest.len() >= 16 {
        let size = u64::from_ne_bytes(rest[..8].try_into().expect("8 bytes")) as usize;
        let word = |at: usize| i32::from_ne_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
        out.push((word(8), word(12), rest[16..size].to_vec()));
        rest = &rest[size.next_multiple_of(8).min(rest.len())..];
    }
    (data[..n as usize].to_vec(), out, header.msg_flags)
}

fn packet_info() {
    let (to, port) = bound();
    let (from, _) = bound();
    for name in [libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
        set(to, libc::IPPROTO_IP, name, 1).expect("set");
    }
    set(from, libc::IPPROTO_IP, libc::IP_TTL, 33).expect("set");
    set(from, libc::IPPROTO_IP, libc::IP_TOS, 0x10).expect("set");
    send_to(from, b"x", LO, port).expect("send");
    let (_, control, _) = with_control(to, 0);
    let find =
        |kind: i32| control.iter().find(|c| (c.0, c.1) == (libc::IPPROTO_IP, kind)).map(|c| c.2.clone());
    assert_eq!(find(libc::IP_TTL), Some(33_i32.to_ne_bytes().to_vec()));
    assert_eq!(find(libc::IP_TOS), Some(vec![0x10]));
    // struct in_pktinfo: interface, address here, address in the header.
    let info = find(libc::IP_PKTINFO).expect("IP_PKTINFO");
    assert_eq!(info, [1, 0, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
}

/// What was sent before epoll_wait(2) is ready in it, without a wait.
fn seen_at_once() {
    let (to, port) = bound();
    set(to, libc::IPPROTO_IP, libc::IP_PKTINFO, 1).expect("set");
    let epoll = ok!(libc::epoll_create1(0));
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 5 };
    ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, to, &mut event));
    let from = udp();
    let mut seen = 0;
    for _ in 0..200 {
        send_to(from, b"x", LO, port).expect("send");
        seen += ok!(libc::epoll_wait(epoll, &mut event, 1, 0));
        assert_eq!(with_control(to, 0).0, b"x");
    }
    // A busy host may be late with one or two.
    assert!(seen >= 190, "seen at once: {seen} of 200");
}

fn timestamps() {
    let (to, port) = bound();
    let from = udp();
    send_to(from, b"plain", LO, port).expect("send");
    assert_eq!(with_control(to, 0).1, []);
    for (name, kind, size) in
        [(libc::SO_TIMESTAMP, libc::SCM_TIMESTAMP, 16), (libc::SO_TIMESTAMPNS, libc::SCM_TIMESTAMPNS, 16)]
    {
        set(to, libc::SOL_SOCKET, name, 1).expect("set");
        send_to(from, b"x", LO, port).expect("send");
        let control = with_control(to, 0).1;
        assert_eq!(control.len(), 1);
        assert_eq!((control[0].0, control[0].1, control[0].2.len()), (libc::SOL_SOCKET, kind, size));
    }
}

fn new_timestamps() {
    let (to, port) = bound();
    // SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW.
    for name in [63, 64] {
        set(to, libc::SOL_SOCKET, name, 1).expect("set");
        send_to(udp(), b"x", LO, port).expect("send");
        let control = with_control(to, 0).1;
        assert_eq!(control.len(), 1);
        assert_eq!((control[0].0, control[0].1, control[0].2.len()), (libc::SOL_SOCKET, name, 16));
    }
}

fn timestamping() {
    let ((to, port), (from, _)) = (bound(), bound());
    // SOF_TIMESTAMPING_RX_SOFTWARE, -SOFTWARE; TX_SOFTWARE, OPT_ID.
    set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 1 << 3 | 1 << 4).expect("set");
    set(from, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 1 << 1 | 1 << 4 | 1 << 7).expect("set");
    assert_eq!(get(to, libc::SOL_SOCKET, libc::SO_TIMESTAMPING), 1 << 3 | 1 << 4);
    assert_eq!(set(to, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, 1 << 25), Err(libc::EINVAL));
    let stamp = |c: &[Message]| c.iter().find(|c| (c.0, c.1) == (1, libc::SCM_TIMESTAMPING)).cloned();
    // The host begins to stamp what arrives a moment later.
    let arrived = (0..200).any(|_| {
        send_to(udp(), b"x", LO, port).expect("send");
        let control = with_control(to, 0).1;
        crate::harness::sleep_ms(5);
        stamp(&control).is_some_and(|stamp| stamp.2[..8] != [0; 8])
    });
    assert!(arrived);
    send_to(from, b"stamped", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"stamped".to_vec()));
    // The sender's comes with the packet and its number.
    assert_eq!(poll(from, 1000) & libc::POLLERR, libc::POLLERR);
    let (data, control, flags) = with_control(from, libc::MSG_ERRQUEUE);
    assert!(data.ends_with(b"stamped") && flags & libc::MSG_ERRQUEUE != 0);
    assert!(stamp(&control).expect("stamp").2[..8] != [0; 8]);
    let error = control.iter().find(|c| (c.0, c.1) == (libc::IPPROTO_IP, libc::IP_RECVERR)).expect("number");
    // ENOMSG, SO_EE_ORIGIN_TIMESTAMPING; ee_data.
    assert_eq!((&error.2[..4], error.2[4]), (&libc::ENOMSG.to_ne_bytes()[..], 4));
    assert_eq!(error.2[12..16], [0; 4]);
}

fn interface_by_number() {
    const SO_BINDTOIFINDEX: i32 = 62;
    let ((to, port), from) = (bound(), udp());
    set(from, libc::SOL_SOCKET, SO_BINDTOIFINDEX, 1).expect("set");
    assert_eq!(get(from, libc::SOL_SOCKET, SO_BINDTOIFINDEX), 1);
    send_to(from, b"lo", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"lo".to_vec()));
    assert_eq!(set(udp(), libc::SOL_SOCKET, SO_BINDTOIFINDEX, -1), Err(libc::EINVAL));
}

fn carried_both_ways() {
    // Some go by a way of their own, since they have control messages: all arrive.
    let (to, port) = bound();
    let (from, _) = bound();
    connect(from, LO, port).expect("connect");
    for i in 0..50_u8 {
        if i % 2 == 0 {
            send(from, &[i], 0).expect("send");
            continue;
        }
        let mut control = [20_u64, 0, 0];
        control[1] = u64::from(libc::IPPROTO_IP as u32) | (libc::IP_TTL as u64) << 32;
        control[2] = 64;
        let mut iov = libc::iovec { iov_base: (&raw const i).cast_mut().cast(), iov_len: 1 };
        let mut header: libc::msghdr = zeroed();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 24;
        assert_eq!(ok!(libc::sendmsg(from, &raw const header, 0)), 1);
    }
    let mut got: Vec<u8> = (0..50).map(|_| recv(to, 10, 0).expect("receive")[0]).collect();
    got.sort_unstable();
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    nothing(to);
}

fn error_queue() {
    let gone = free_port();
    let (fd, _) = bound();
    set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1).expect("set");
    send_to(fd, b"lost", LO, gone).expect("send");
    assert_eq!(poll(fd, 1000) & libc::POLLERR, libc::POLLERR);
    let (data, control, flags) = with_control(fd, libc::MSG_ERRQUEUE);
    assert_eq!((data.as_slice(), flags & libc::MSG_ERRQUEUE), (&b"lost"[..], libc::MSG_ERRQUEUE));
    let error = control.iter().find(|c| (c.0, c.1) == (libc::IPPROTO_IP, libc::IP_RECVERR)).expect("error");
    // struct sock_extended_err: the errno, SO_EE_ORIGIN_ICMP, "port unreachable"; then who said so.
    assert_eq!(error.2[..4], libc::ECONNREFUSED.to_ne_bytes());
    assert_eq!(error.2[4..7], [2, 3, 3]);
    assert_eq!(error.2[20..24], LO);
    fails!(libc::EAGAIN, libc::recv(fd, [0_u8; 1].as_mut_ptr().cast(), 1, libc::MSG_ERRQUEUE));
    // With the option, sends between sockets that are there go on as before.
    let (to, port) = bound();
    send_to(fd, b"fine", LO, port).expect("send");
    assert_eq!(recv(to, 10, 0), Ok(b"fine".to_vec()));
}

fn own_address() {
    let probe = UdpSocket::bind("0.0.0.0:0").expect("bind");
    if probe.connect("192.0.2.1:9").is_err() {
        skip!("only loopback here");
    }
    let ip = probe.local_addr().expect("name").ip();
    let (to, from) = (UdpSocket::bind((ip, 0)).expect("bind"), UdpSocket::bind("0.0.0.0:0").expect("bind"));
    to.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
    from.send_to(b"own", to.local_addr().expect("name")).expect("send");
    let (n, sender) = to.recv_from(&mut [0; 10]).expect("receive");
    assert_eq!((n, sender), (3, (ip, from.local_addr().expect("name").port()).into()));
    // From loopback to it, too.
    let (lo, port) = bound();
    let there = to.local_addr().expect("name").port();
    let std::net::IpAddr::V4(four) = ip else { return };
    send_to(lo, b"lo", four.octets(), there).expect("send");
    assert_eq!(recv_from(to.as_raw_fd()), (b"lo".to_vec(), LO, port));
}

fn other_source() {
    let to = udp();
    bind(to, [127, 0, 0, 5], 0).expect("bind");
    let port = name_of(to, false).expect("name").1;
    let from = udp();
    send_to(from, b"x", [127, 0, 0, 5], port).expect("send");
    assert_eq!(recv_from(to).1, LO);
    let from = udp();
    bind(from, [127, 0, 0, 6], 0).expect("bind");
    send_to(from, b"x", [127, 0, 0, 5], port).expect("send");
    assert_eq!(recv_from(to).1, [127, 0, 0, 6]);
    // Not to other addresses of the same port.
    let asker = udp();
    connect(asker, LO, port).expect("connect");
    send(asker, b"x", 0).expect("send");
    assert_eq!(recv(asker, 1, 0), Err(libc::ECONNREFUSED));
    nothing(to);
}
