//! What the kernel tells of sockets and interfaces: sock_diag(7), /proc/net, /sys/class/net, netlink(7).

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::harness::{cases, fails, ok, zeroed};

cases!("netlink": diag_listener, diag_connection, diag_states, diag_unix, diag_errors, uevents_are_silent, addresses, truncated,
    unknown_protocols, changes_refused, question_and_change, route_of_the_asker,
    packets_need_a_right,  proc_tcp, proc_udp, udp_queue, udp_counters, interface_changes, proc_unix, proc_tables, sys_class_net);

fn netlink(protocol: i32) -> RawFd {
    let fd = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol));
    let mut name: libc::sockaddr_nl = zeroed();
    name.nl_family = libc::AF_NETLINK as u16;
    ok!(libc::bind(fd, (&raw const name).cast(), 12));
    fd
}

fn request(fd: RawFd, flags: u16, body: &[u8]) {
    let mut data = (16 + body.len() as u32).to_ne_bytes().to_vec();
    data.extend(20_u16.to_ne_bytes());
    data.extend(flags.to_ne_bytes());
    data.extend(7_u32.to_ne_bytes());
    data.extend([0; 4]);
    data.extend(body);
    assert_eq!(ok!(libc::send(fd, data.as_ptr().cast(), data.len(), 0)) as usize, data.len());
}

/// Type and body of the messages up to the end of the answer.
fn answers(fd: RawFd) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let mut data = vec![0; 65_536];
        let n = ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0)) as usize;
        let mut rest = &data[..n];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("4")) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into().expect("2"));
            let multi = u16::from_ne_bytes(rest[6..8].try_into().expect("2")) & 2 != 0;
            all.push((kind, rest[16..length].to_vec()));
            if kind == 3 || kind == 2 || !multi {
                return all;
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn inet_request(states: u32) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, 6, 0, 0];
    body.extend(states.to_ne_bytes());
    body.resize(56, 0);
    body
}

/// Takes capabilities away from this thread.
fn without(capabilities: u64) {
    let header = [0x2008_0522_u32, 0];
    let mut data = [0_u32; 6];
    ok!(libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()));
    for at in 0..2 {
        data[3 * at] &= !((capabilities >> (32 * at)) as u32);
    }
    ok!(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()));
}

fn route_message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut data = (16 + body.len() as u32).to_ne_bytes().to_vec();
    data.extend(kind.to_ne_bytes());
    data.extend(flags.to_ne_bytes());
    data.extend(9_u32.to_ne_bytes());
    data.extend([0; 4]);
    data.extend(body);
    data
}

/// RTM_NEWADDR of 127.0.0.9/8 on lo.
fn new_address() -> Vec<u8> {
    let body = [&[2, 8, 0, 0][..], &1_u32.to_ne_bytes(), &[8, 0, 2, 0, 127, 0, 0, 9]].concat();
    route_message(20, 0x405, &body)
}

fn changes_refused() {
    without(1 << 12);
    let fd = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0));
    let ask = new_address();
    assert_eq!(ok!(libc::send(fd, ask.as_ptr().cast(), ask.len(), 0)) as usize, ask.len());
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!((ok!(libc::poll(&mut entry, 1, 5000)), entry.revents), (1, libc::POLLIN));
    let mut data = [0_u8; 200];
    let n = ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0)) as usize;
    // struct nlmsghdr of NLMSG_ERROR with the number of the request, the errno, the request.
    assert_eq!((n, data[4]), (20 + ask.len(), 2));
    assert_eq!(data[8..12], 9_u32.to_ne_bytes());
    assert_eq!(data[16..20], (-libc::EPERM).to_ne_bytes());
    assert_eq!(data[20..28], ask[..8]);
    fails!(libc::EAGAIN, libc::recv(fd, data.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT));
    // Whether there is such an object or not.
    let ask = route_message(25, 5, &[0; 12]);
    ok!(libc::send(fd, ask.as_ptr().cast(), ask.len(), 0));
    ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0));
    assert_eq!(data[16..20], (-libc::EPERM).to_ne_bytes());
    // No such request at all.
    let ask = route_message(500, 5, &[0; 12]);
    ok!(libc::send(fd, ask.as_ptr().cast(), ask.len(), 0));
    ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0));
    assert_eq!(data[16..20], (-libc::EOPNOTSUPP).to_ne_bytes());
}

/// What `ip route get` shows as uid, to root and to others.
fn route_of_the_asker() {
    let body = [&[2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[8, 0, 1, 0, 127, 0, 0, 1]].concat();
    let ask = route_message(26, 1, &body);
    let look = || {
        let fd = netlink(0);
        ok!(libc::send(fd, ask.as_ptr().cast(), ask.len(), 0));
        let mut data = [0_u8; 500];
        let n = ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0)) as usize;
        assert_eq!(data[4], 24);
        let mut rest = &data[28..n];
        while rest.len() >= 8 {
            if rest[2..4] == [25, 0] {
                assert_eq!(rest[4..8], ok!(libc::getuid()).to_ne_bytes());
                return;
            }
            rest = &rest[usize::from(rest[0]).next_multiple_of(4)..];
        }
        panic!("no uid in {:?}", &data[..n]);
    };
    look();
    if crate::harness::is_root() {
        crate::harness::in_child(|| {
            ok!(libc::setresuid(1234, 1234, 1234));
            look();
        });
    }
}

fn question_and_change() {
    without(1 << 12);
    let fd = netlink(0);
    // RTM_GETLINK of interface 1, then a change: both are answered.
    let mut body = vec![0; 16];
    body[4] = 1;
    let ask = [route_message(18, 1, &body), new_address()].concat();
    ok!(libc::send(fd, ask.as_ptr().cast(), ask.len(), 0));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut data = [0_u8; 8192];
        ok!(libc::recv(fd, data.as_mut_ptr().cast(), data.len(), 0));
        kinds.push(data[4]);
    }
    // RTM_NEWLINK, NLMSG_ERROR.
    assert_eq!(kinds, [16, 2]);
}

fn packets_need_a_right() {
    without(1 << 13);
    fails!(libc::EPERM, libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0x300));
    fails!(libc::EPERM, libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP));
    fails!(libc::EPERM, libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP));
}

fn inode(fd: RawFd) -> u64 {
    let mut stat: libc::stat = zeroed();
    ok!(libc::fstat(fd, &mut stat));
    stat.st_ino
}

/// State, ports and inode number of the TCP sockets in some states.
fn sockets(states: u32) -> Vec<(u8, u16, u16, u64)> {
    let fd = netlink(4);
    request(fd, 0x301, &inet_request(states));
    answers(fd)
        .into_iter()
        .filter(|(kind, _)| *kind == 20)
        .map(|(_, m)| {
            let port = |at: usize| u16::from_be_bytes(m[at..at + 2].try_into().expect("2"));
            let inode = u32::from_ne_bytes(m[68..72].try_into().expect("4"));
            (m[1], port(4), port(6), u64::from(inode))
        })
        .collect()
}

fn diag_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("name").port();
    let wanted = (10, port, 0, inode(listener.as_raw_fd()));
    assert!(sockets(1 << 10).contains(&wanted), "{wanted:?}");
    drop(listener);
    assert!(!sockets(1 << 10).contains(&wanted));
}

fn diag_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("name").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let own = client.local_addr().expect("name").port();
    let server = listener.accept().expect("accept").0;
    let all = sockets(1 << 1);
    for wanted in [(1, own, port, inode(client.as_raw_fd())), (1, port, own, inode(server.as_raw_fd()))] {
        assert!(all.contains(&wanted), "{wanted:?} in {all:?}");
    }
}

fn diag_states() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let wanted = inode(listener.as_raw_fd());
    assert!(sockets(!(1 << 10)).iter().all(|s| s.3 != wanted && s.0 != 10));
}

fn diag_unix() {
    let name = format!("guest-tests-{}", std::process::id());
    let listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("name")).expect("bind");
    let fd = netlink(4);
    let mut body = vec![libc::AF_UNIX as u8, 0, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    body.extend(1_u32.to_ne_bytes());
    body.resize(24, 0);
    request(fd, 0x301, &body);
    let wanted = inode(listener.as_raw_fd()) as u32;
    let all = answers(fd);
    let found = all.iter().find(|(kind, m)| *kind == 20 && m[4..8] == wanted.to_ne_bytes()).expect("listed");
    // Stream, LISTEN; the name is the first attribute.
    assert_eq!((found.1[1], found.1[2]), (1, 10));
    assert_eq!(&found.1[21..21 + name.len()], name.as_bytes());
}

fn diag_errors() {
    let fd = netlink(4);
    for (body, errno) in [
        (vec![99; 60], libc::EINVAL),
        (inet_request(1)[..10].to_vec(), libc::EINVAL),
        (vec![libc::AF_UNIX as u8; 3], libc::EINVAL),
    ] {
        request(fd, 1, &body);
        let all = answers(fd);
        assert_eq!(all[0].0, 2);
        let got = -i32::from_ne_bytes(all[0].1[..4].try_into().expect("4"));
        assert!(got == errno || got == libc::ENOENT, "{body:?}: {got}");
    }
}

fn uevents_are_silent() {
    let fd = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 15));
    let mut name: libc::sockaddr_nl = zeroed();
    name.nl_family = libc::AF_NETLINK as u16;
    name.nl_groups = 1;
    ok!(libc::bind(fd, (&raw const name).cast(), 12));
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut entry, 1, 20)), 0);
    let mut byte = 0_u8;
    fails!(libc::EAGAIN, libc::recv(fd, (&raw mut byte).cast(), 1, 0));
}

fn addresses() {
    let fd = netlink(4);
    let mut name: libc::sockaddr_nl = zeroed();
    let mut len = 12;
    ok!(libc::getsockname(fd, (&raw mut name).cast(), &mut len));
    assert_eq!((len, i32::from(name.nl_family)), (12, libc::AF_NETLINK));
    assert_ne!(name.nl_pid, 0);
    ok!(libc::getpeername(fd, (&raw mut name).cast(), &mut len));
    assert_eq!(name.nl_pid, 0);
    name.nl_family = libc::AF_INET as u16;
    fails!(libc::EINVAL, libc::bind(fd, (&raw const name).cast(), 12));
}

fn truncated() {
    let fd = netlink(4);
    request(fd, 0x301, &inet_request(0));
    let mut data = [0_u8; 8];
    let n = ok!(libc::recv(fd, data.as_mut_ptr().cast(), 8, libc::MSG_TRUNC | libc::MSG_PEEK));
    assert!(n >= 20);
    assert_eq!(answers(fd).last().expect("the end").0, 3);
}

fn unknown_protocols() {
    fails!(libc::EPROTONOSUPPORT, libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 31));
    fails!(libc::ESOCKTNOSUPPORT, libc::socket(libc::AF_NETLINK, libc::SOCK_STREAM, 4));
}

/// The line of a table with an inode number in a column.
fn line(table: &str, column: usize, wanted: u64) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/net/{table}")).expect(table);
    let rows =
        text.lines().skip(1).map(|l| l.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    rows.into_iter().find(|row| row.get(column) == Some(&wanted.to_string()))
}

fn proc_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("name").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let own = client.local_addr().expect("name").port();
    let server = listener.accept().expect("accept").0;
    let name = |port| format!("0100007F:{port:04X}");
    for (fd, state, local, remote) in [
        (listener.as_raw_fd(), "0A", name(port), "00000000:0000".to_owned()),
        (client.as_raw_fd(), "01", name(own), name(port)),
        (server.as_raw_fd(), "01", name(port), name(own)),
    ] {
        let row = line("tcp", 9, inode(fd)).expect("listed");
        assert_eq!((&row[1], &row[2], row[3].as_str()), (&local, &remote, state));
    }
}

fn proc_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let row = line("udp", 9, inode(socket.as_raw_fd())).expect("listed");
    assert_eq!(row[1], format!("0100007F:{:04X}", socket.local_addr().expect("name").port()));
}

fn udp_queue() {
    let to = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let from = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let row = || line("udp", 9, inode(to.as_raw_fd())).expect("listed");
    let queue = || u32::from_str_radix(row()[4].split_once(':').expect("two").1, 16).expect("number");
    assert_eq!((queue(), row()[12].as_str()), (0, "0"));
    for _ in 0..3 {
        from.send_to(&[1; 1000], to.local_addr().expect("name")).expect("send");
    }
    assert!(queue() >= 3000, "{}", queue());
    for _ in 0..3 {
        to.recv(&mut [0; 1000]).expect("receive");
    }
    assert_eq!(queue(), 0);
    // What is too much is lost, and counted.
    for _ in 0..2000 {
        from.send_to(&[1; 1000], to.local_addr().expect("name")).expect("send");
    }
    assert!(row()[12].parse::<u32>().expect("drops") > 100);
}

/// A counter of UDP in /proc/net/snmp.
fn counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").expect("snmp");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let at = rows.next().expect("names").split(' ').position(|n| n == name).expect("name");
    rows.next().expect("numbers").split(' ').nth(at).expect("number").parse().expect("number")
}

fn udp_counters() {
    let to = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let from = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let all = || ["InDatagrams", "OutDatagrams", "RcvbufErrors", "InErrors"].map(counter);
    let before = all();
    for _ in 0..10 {
        from.send_to(b"x", to.local_addr().expect("name")).expect("send");
        to.recv(&mut [0; 1]).expect("receive");
    }
    let after = all();
    // Others of this machine count, too.
    assert!(after[0] >= before[0] + 10 && after[1] >= before[1] + 10);
    for _ in 0..2000 {
        from.send_to(&[1; 1000], to.local_addr().expect("name")).expect("send");
    }
    let lost = all();
    assert!(lost[2] > after[2] + 100 && lost[3] > after[3] + 100);
    if let Ok(six) = UdpSocket::bind("[::1]:0") {
        let counter = || {
            let text = fs::read_to_string("/proc/net/snmp6").expect("snmp6");
            let row = text.lines().find(|l| l.starts_with("Udp6OutDatagrams")).expect("row").to_owned();
            row.split_ascii_whitespace().nth(1).expect("number").parse::<u64>().expect("number")
        };
        let before = counter();
        for _ in 0..10 {
            six.send_to(b"x", six.local_addr().expect("name")).expect("send");
        }
        assert!(counter() >= before + 10);
    }
}

fn interface_changes() {
    without(1 << 12);
    let fd = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    for what in [libc::SIOCSIFFLAGS, libc::SIOCSIFADDR, libc::SIOCSIFMTU, libc::SIOCSIFNETMASK] {
        fails!(libc::EPERM, libc::ioctl(fd, what, request.as_mut_ptr()));
    }
    fails!(libc::EFAULT, libc::ioctl(fd, libc::SIOCSIFFLAGS, std::ptr::without_provenance_mut::<u8>(8)));
}

fn proc_unix() {
    let name = format!("guest-tests-proc-{}", std::process::id());
    let listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("name")).expect("bind");
    let row = line("unix", 6, inode(listener.as_raw_fd())).expect("listed");
    assert_eq!((row[3].as_str(), row[4].as_str(), row[5].as_str()), ("00010000", "0001", "01"));
    assert_eq!(row[7], format!("@{name}"));
}

fn proc_tables() {
    assert!(fs::read_to_string("/proc/net/dev").expect("dev").contains("lo:"));
    assert!(fs::read_to_string("/proc/net/route").expect("route").starts_with("Iface"));
    assert!(fs::read_to_string("/proc/net/snmp").expect("snmp").contains("Tcp:"));
    let sockstat = fs::read_to_string("/proc/net/sockstat").expect("sockstat");
    assert!(sockstat.starts_with("sockets: used ") && sockstat.contains("TCP: inuse "));
}

fn sys_class_net() {
    let names: Vec<_> =
        fs::read_dir("/sys/class/net").expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert!(names.iter().any(|n| n == "lo"));
    let read = |file: &str| fs::read_to_string(format!("/sys/class/net/lo/{file}")).expect(file);
    assert_eq!(read("ifindex"), "1\n");
    assert_eq!(read("mtu"), "65536\n");
    assert_eq!(read("address"), "00:00:00:00:00:00\n");
    assert_eq!(read("type"), "772\n");
    assert_eq!(read("operstate"), "unknown\n");
    read("statistics/rx_bytes").trim().parse::<u64>().expect("a number");
    assert!(fs::symlink_metadata("/sys/class/net/lo").expect("lo").is_symlink());
}
