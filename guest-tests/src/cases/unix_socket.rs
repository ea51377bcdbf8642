//! Unix sockets: stream, datagram, seqpacket, names, descriptors and credentials in messages.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use crate::harness::{
    End, Temp, cases, close, fails, fork, ok, pipe, read, sleep_ms, sys, wait, write, zeroed,
};

cases!("unix_socket": pair_stream, pair_datagram_keeps_borders, pair_seqpacket, listen_accept, connect_refused, address_in_use,
    abstract_name, names, end_of_stream, broken_pipe, half_close, nonblocking, pass_descriptor, pass_many_descriptors,
    credentials_of_peer, credentials_message, peek, truncated_datagram, datagram_between_names, poll_states, buffer_full,
    socket_options, socket_type_checked, bad_arguments, socket_file_in_stat, unlink_and_reuse, accept_flags, wait_all,
    shutdown_wakes, sendmmsg_recvmmsg, autobind, closed_with_descriptors_in_flight, big_transfer, sigpipe_kills);

pub(super) fn pair(kind: i32) -> (i32, i32) {
    let mut ends = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()));
    (ends[0], ends[1])
}

fn pair_stream() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write(a, b"one");
    write(a, b"two");
    assert_eq!(read(b, 100), b"onetwo");
    write(b, b"back");
    assert_eq!(read(a, 2), b"ba");
    assert_eq!(read(a, 100), b"ck");
}

fn pair_datagram_keeps_borders() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    write(a, b"one");
    write(a, b"");
    write(a, b"three");
    assert_eq!(read(b, 100), b"one");
    assert_eq!(read(b, 100), b"");
    assert_eq!(read(b, 100), b"three");
}

fn pair_seqpacket() {
    let (a, b) = pair(libc::SOCK_SEQPACKET);
    write(a, b"one");
    write(a, b"two");
    assert_eq!(read(b, 2), b"on");
    assert_eq!(read(b, 100), b"two");
    close(a);
    assert_eq!(read(b, 100), b"");
}

fn listen_accept() {
    let temp = Temp::new();
    let path = temp.path().join("s");
    let listener = UnixListener::bind(&path).expect("bind");
    let pid = fork(|| {
        let mut client = UnixStream::connect(&path).expect("connect");
        client.write_all(b"ping").expect("write");
        let mut text = String::new();
        client.read_to_string(&mut text).expect("read");
        i32::from(text != "pong")
    });
    let (mut server, address) = listener.accept().expect("accept");
    assert!(address.is_unnamed());
    let mut data = [0; 4];
    server.read_exact(&mut data).expect("read");
    server.write_all(b"pong").expect("write");
    drop(server);
    assert_eq!(wait(pid), End::Exited(0));
}

fn errno(result: std::io::Result<impl Sized>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

fn connect_refused() {
    let temp = Temp::new();
    let path = temp.path().join("s");
    assert_eq!(errno(UnixStream::connect(&path)), libc::ENOENT);
    drop(UnixListener::bind(&path).expect("bind"));
    assert_eq!(errno(UnixStream::connect(&path)), libc::ECONNREFUSED);
    std::fs::write(temp.path().join("f"), b"").expect("a file");
    assert_eq!(errno(UnixStream::connect(temp.path().join("f"))), libc::ECONNREFUSED);
}

fn address_in_use() {
    let temp = Temp::new();
    let path = temp.path().join("s");
    let _listener = UnixListener::bind(&path).expect("bind");
    assert_eq!(errno(UnixListener::bind(&path)), libc::EADDRINUSE);
    assert_eq!(errno(UnixListener::bind(temp.path().join("no/s"))), libc::ENOENT);
}

fn name(bytes: &[u8]) -> (libc::sockaddr_un, u32) {
    let mut address: libc::sockaddr_un = zeroed();
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    (address, 2 + bytes.len() as u32)
}

fn abstract_name() {
    let text = format!("\0guest-tests-{}", ok!(libc::getpid()));
    let (address, length) = name(text.as_bytes());
    let listener = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::bind(listener, (&raw const address).cast(), length));
    ok!(libc::listen(listener, 5));
    let client = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::connect(client, (&raw const address).cast(), length));
    let server = ok!(libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()));
    write(client, b"x");
    assert_eq!(read(server, 5), b"x");
    let other = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    fails!(libc::EADDRINUSE, libc::bind(other, (&raw const address).cast(), length));
    close(listener);
    fails!(libc::ECONNREFUSED, libc::connect(other, (&raw const address).cast(), length));
}

fn names() {
    let temp = Temp::new();
    let path = temp.path().join("s");
    let listener = UnixListener::bind(&path).expect("bind");
    assert_eq!(listener.local_addr().expect("name").as_pathname(), Some(path.as_path()));
    let client = UnixStream::connect(&path).expect("connect");
    assert_eq!(client.peer_addr().expect("name").as_pathname(), Some(path.as_path()));
    assert!(client.local_addr().expect("name").is_unnamed());
    let alone = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    let (mut address, mut length) = name(b"");
    fails!(libc::ENOTCONN, libc::getpeername(alone, (&raw mut address).cast(), &mut length));
}

fn end_of_stream() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write(a, b"last");
    close(a);
    assert_eq!(read(b, 10), b"last");
    assert_eq!(read(b, 10), b"");
}

fn broken_pipe() {
    ok!(libc::signal(libc::SIGPIPE, libc::SIG_IGN) as isize);
    let (a, b) = pair(libc::SOCK_STREAM);
    close(a);
    fails!(libc::EPIPE, libc::write(b, b"x".as_ptr().cast(), 1));
    let (a, b) = pair(libc::SOCK_STREAM);
    write(b, b"unread");
    close(a);
    fails!(libc::ECONNRESET, libc::read(b, [0u8; 1].as_mut_ptr().cast(), 1));
    let (a, b) = pair(libc::SOCK_DGRAM);
    close(a);
    fails!(libc::ECONNREFUSED, libc::write(b, b"x".as_ptr().cast(), 1));
}

fn sigpipe_kills() {
    let pid = fork(|| {
        ok!(libc::signal(libc::SIGPIPE, libc::SIG_DFL) as isize);
        let (a, b) = pair(libc::SOCK_STREAM);
        close(a);
        fails!(libc::EPIPE, libc::send(b, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL));
        let _ = sys!(libc::write(b, b"x".as_ptr().cast(), 1));
        0
    });
    assert_eq!(wait(pid), End::Killed(libc::SIGPIPE));
}

fn half_close() {
    let (a, b) = pair(libc::SOCK_STREAM);
    ok!(libc::shutdown(a, libc::SHUT_WR));
    assert_eq!(read(b, 10), b"");
    write(b, b"still");
    assert_eq!(read(a, 10), b"still");
    fails!(libc::EPIPE, libc::send(a, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL));
    fails!(libc::EINVAL, libc::shutdown(a, 9));
}

fn nonblocking() {
    let (a, b) = pair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let mut byte = [0u8; 1];
    fails!(libc::EAGAIN, libc::read(a, byte.as_mut_ptr().cast(), 1));
    fails!(libc::EAGAIN, libc::recv(a, byte.as_mut_ptr().cast(), 1, libc::MSG_DONTWAIT));
    write(b, b"x");
    assert_eq!(read(a, 1), b"x");
    let temp = Temp::new();
    let listener = UnixListener::bind(temp.path().join("s")).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    assert_eq!(errno(listener.accept()), libc::EAGAIN);
}

/// Sends one byte with these descriptors.
pub(super) fn send_descriptors(socket: i32, descriptors: &[i32]) {
    let mut data = [7u8];
    let mut control = vec![0u64; 200];
    let mut piece = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 1 };
    let mut message: libc::msghdr = zeroed();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let bytes = size_of_val(descriptors) as u32;
    // SAFETY: the control buffer is large enough for the header and the descriptors.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
        let to = libc::CMSG_DATA(header).cast::<i32>();
        for (i, fd) in descriptors.iter().enumerate() {
            to.add(i).write_unaligned(*fd);
        }
    }
    assert_eq!(ok!(libc::sendmsg(socket, &message, 0)), 1);
}

/// Receives one byte; the control message's type and payload, and the flags of the message.
pub(super) fn receive_control(socket: i32, space: usize) -> (Option<(i32, Vec<u8>)>, i32) {
    let mut data = [0u8];
    let mut control = vec![0u64; 200];
    let mut piece = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 1 };
    let mut message: libc::msghdr = zeroed();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space;
    assert_eq!(ok!(libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC)), 1);
    // SAFETY: the kernel filled the buffer and said how far.
    let payload = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() {
            None
        } else {
            let length = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
            let bytes = std::slice::from_raw_parts(libc::CMSG_DATA(header), length).to_vec();
            Some(((*header).cmsg_type, bytes))
        }
    };
    (payload, message.msg_flags)
}

pub(super) fn descriptors(payload: &[u8]) -> Vec<i32> {
    payload.chunks(4).map(|b| i32::from_ne_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn pass_descriptor() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let (r, w) = pipe();
    send_descriptors(a, &[w]);
    close(w);
    let (control, flags) = receive_control(b, 64);
    let (kind, payload) = control.expect("a control message");
    assert_eq!((kind, flags & libc::MSG_CTRUNC), (libc::SCM_RIGHTS, 0));
    let got = descriptors(&payload);
    assert_eq!(ok!(libc::fcntl(got[0], libc::F_GETFD)), libc::FD_CLOEXEC);
    write(got[0], b"through");
    assert_eq!(read(r, 20), b"through");
}

fn pass_many_descriptors() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    send_descriptors(a, &[0; 253]);
    let (control, _) = receive_control(b, 1600);
    assert_eq!(descriptors(&control.expect("control").1).len(), 253);
    // No room: the message is cut and says so.
    send_descriptors(a, &[0, 0, 0]);
    let (control, flags) = receive_control(b, 24);
    assert_eq!(descriptors(&control.expect("control").1).len(), 2);
    assert_eq!(flags & libc::MSG_CTRUNC, libc::MSG_CTRUNC);
}

fn credentials_of_peer() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let mut peer: libc::ucred = zeroed();
    let mut length = size_of_val(&peer) as u32;
    ok!(libc::getsockopt(a, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut length));
    assert_eq!(
        (peer.pid, peer.uid, peer.gid),
        (ok!(libc::getpid()), ok!(libc::getuid()), ok!(libc::getgid()))
    );
}

fn credentials_message() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let on = 1i32;
    ok!(libc::setsockopt(b, libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), 4));
    let pid = fork(|| {
        write(a, b"x");
        0
    });
    let (control, _) = receive_control(b, 64);
    let (kind, payload) = control.expect("a control message");
    assert_eq!(kind, libc::SCM_CREDENTIALS);
    assert_eq!(descriptors(&payload)[0], pid);
    wait(pid);
}

fn peek() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write(a, b"abc");
    let mut data = [0u8; 2];
    assert_eq!(ok!(libc::recv(b, data.as_mut_ptr().cast(), 2, libc::MSG_PEEK)), 2);
    assert_eq!(read(b, 10), b"abc");
}

fn truncated_datagram() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    write(a, b"abcdef");
    let mut data = [0u8; 2];
    assert_eq!(ok!(libc::recv(b, data.as_mut_ptr().cast(), 2, libc::MSG_TRUNC)), 6);
    fails!(libc::EAGAIN, libc::recv(b, data.as_mut_ptr().cast(), 2, libc::MSG_DONTWAIT));
}

fn datagram_between_names() {
    let temp = Temp::new();
    let (one, two) = (temp.path().join("1"), temp.path().join("2"));
    let a = UnixDatagram::bind(&one).expect("bind");
    let b = UnixDatagram::bind(&two).expect("bind");
    a.send_to(b"hello", &two).expect("send");
    let mut data = [0; 10];
    let (n, from) = b.recv_from(&mut data).expect("receive");
    assert_eq!((&data[..n], from.as_pathname()), (&b"hello"[..], Some(one.as_path())));
    drop(b);
    assert_eq!(errno(a.send_to(b"x", &two)), libc::ECONNREFUSED);
}

fn poll(fd: i32) -> i16 {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, revents: 0 };
    ok!(libc::poll(&mut entry, 1, 0));
    entry.revents
}

fn poll_states() {
    let (a, b) = pair(libc::SOCK_STREAM);
    assert_eq!(poll(a), libc::POLLOUT);
    write(b, b"x");
    assert_eq!(poll(a), libc::POLLOUT | libc::POLLIN);
    read(a, 1);
    ok!(libc::shutdown(b, libc::SHUT_WR));
    assert_eq!(poll(a), libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP);
    close(b);
    assert_eq!(poll(a), libc::POLLOUT | libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP);
    let temp = Temp::new();
    let listener = UnixListener::bind(temp.path().join("s")).expect("bind");
    assert_eq!(poll(listener.as_raw_fd()) & libc::POLLIN, 0);
    let _client = UnixStream::connect(temp.path().join("s")).expect("connect");
    assert_eq!(poll(listener.as_raw_fd()) & libc::POLLIN, libc::POLLIN);
}

fn buffer_full() {
    let (a, b) = pair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let data = [0u8; 4096];
    let mut sent = 0;
    while let Ok(n) = sys!(libc::write(a, data.as_ptr().cast(), data.len())) {
        sent += n as usize;
        assert!(sent < 64 << 20, "no bound");
    }
    assert_eq!(crate::harness::errno(), libc::EAGAIN);
    assert_eq!(poll(a) & libc::POLLOUT, 0);
    let mut got = 0;
    while got < sent {
        got += read(b, 65536).len();
    }
    assert_eq!(poll(a) & libc::POLLOUT, libc::POLLOUT);
}

fn option(fd: i32, name: i32) -> i32 {
    let (mut value, mut length) = (-1i32, 4);
    ok!(libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut length));
    value
}

fn socket_options() {
    let (a, _b) = pair(libc::SOCK_SEQPACKET);
    assert_eq!(option(a, libc::SO_TYPE), libc::SOCK_SEQPACKET);
    assert_eq!(option(a, libc::SO_DOMAIN), libc::AF_UNIX);
    assert_eq!(option(a, libc::SO_PROTOCOL), 0);
    assert_eq!(option(a, libc::SO_ERROR), 0);
    assert_eq!(option(a, libc::SO_ACCEPTCONN), 0);
    assert!(option(a, libc::SO_SNDBUF) > 0);
    let mut value = 0i32;
    fails!(libc::ENOPROTOOPT, libc::getsockopt(a, libc::SOL_SOCKET, 9999, (&raw mut value).cast(), &mut 4));
}

fn socket_type_checked() {
    fails!(libc::EAFNOSUPPORT, libc::socket(200, libc::SOCK_STREAM, 0));
    fails!(libc::EINVAL, libc::socket(libc::AF_UNIX, 77, 0));
    fails!(libc::EPROTONOSUPPORT, libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 99));
    let (r, _w) = pipe();
    fails!(libc::ENOTSOCK, libc::listen(r, 1));
    fails!(libc::ENOTSOCK, libc::send(r, b"x".as_ptr().cast(), 1, 0));
}

fn bad_arguments() {
    let fd = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    fails!(libc::EINVAL, libc::listen(fd, 1));
    fails!(libc::EINVAL, libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()));
    fails!(libc::ENOTCONN, libc::send(fd, b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL));
    let (address, _) = name(b"x");
    fails!(libc::EINVAL, libc::bind(fd, (&raw const address).cast(), 1));
    fails!(libc::EINVAL, libc::connect(fd, (&raw const address).cast(), 200));
    fails!(libc::EFAULT, libc::bind(fd, std::ptr::dangling(), 20));
    fails!(libc::EFAULT, libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, std::ptr::dangling_mut()));
}

fn socket_file_in_stat() {
    let temp = Temp::new();
    let _listener = UnixListener::bind(temp.path().join("s")).expect("bind");
    let mut stat: libc::stat = zeroed();
    ok!(libc::stat(temp.join("s").as_ptr(), &mut stat));
    assert_eq!(stat.st_mode & libc::S_IFMT, libc::S_IFSOCK);
    fails!(libc::ENXIO, libc::open(temp.join("s").as_ptr(), libc::O_RDWR));
}

fn unlink_and_reuse() {
    let temp = Temp::new();
    let path = temp.path().join("s");
    let old = UnixListener::bind(&path).expect("bind");
    std::fs::remove_file(&path).expect("unlink");
    let new = UnixListener::bind(&path).expect("bind again");
    let _client = UnixStream::connect(&path).expect("connect");
    old.set_nonblocking(true).expect("nonblocking");
    assert_eq!(errno(old.accept()), libc::EAGAIN);
    new.accept().expect("accept");
}

fn accept_flags() {
    let temp = Temp::new();
    let listener = UnixListener::bind(temp.path().join("s")).expect("bind");
    let _client = UnixStream::connect(temp.path().join("s")).expect("connect");
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let null = std::ptr::null_mut();
    let fd = ok!(libc::accept4(listener.as_raw_fd(), null, null.cast(), flags));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 1);
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFL)), libc::O_RDWR | libc::O_NONBLOCK);
    fails!(libc::EINVAL, libc::accept4(listener.as_raw_fd(), null, null.cast(), 7));
}

fn wait_all() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let pid = fork(|| {
        write(a, b"ab");
        sleep_ms(30);
        write(a, b"cd");
        0
    });
    let mut data = [0u8; 4];
    assert_eq!(ok!(libc::recv(b, data.as_mut_ptr().cast(), 4, libc::MSG_WAITALL)), 4);
    assert_eq!(&data, b"abcd");
    wait(pid);
}

fn shutdown_wakes() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let reader = std::thread::spawn(move || read(a, 10));
    sleep_ms(30);
    ok!(libc::shutdown(a, libc::SHUT_RD));
    assert_eq!(reader.join().expect("joined"), b"");
}

fn sendmmsg_recvmmsg() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    let mut data = [[1u8; 3], [2u8; 3]];
    let mut pieces = data.each_mut().map(|d| libc::iovec { iov_base: d.as_mut_ptr().cast(), iov_len: 3 });
    let mut messages: [libc::mmsghdr; 2] = zeroed();
    for (message, piece) in messages.iter_mut().zip(&mut pieces) {
        message.msg_hdr.msg_iov = piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    assert_eq!(ok!(libc::sendmmsg(a, messages.as_mut_ptr(), 2, 0)), 2);
    assert_eq!(messages[1].msg_len, 3);
    let null = std::ptr::null_mut();
    assert_eq!(ok!(libc::recvmmsg(b, messages.as_mut_ptr(), 2, libc::MSG_DONTWAIT, null)), 2);
    fails!(libc::EAGAIN, libc::recvmmsg(b, messages.as_mut_ptr(), 2, libc::MSG_DONTWAIT, null));
}

fn autobind() {
    let fd = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0));
    let (mut address, _) = name(b"");
    ok!(libc::bind(fd, (&raw const address).cast(), 2));
    let mut length = size_of_val(&address) as u32;
    ok!(libc::getsockname(fd, (&raw mut address).cast(), &mut length));
    assert_eq!((length, address.sun_path[0]), (8, 0));
}

fn closed_with_descriptors_in_flight() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let (r, w) = pipe();
    send_descriptors(a, &[w]);
    close(w);
    close(a);
    close(b);
    // The last writer went with the message.
    assert_eq!(read(r, 1), b"");
    // A socket that holds itself.
    let (a, b) = pair(libc::SOCK_STREAM);
    send_descriptors(a, &[b]);
    close(a);
    close(b);
}

fn big_transfer() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let pid = fork(|| {
        close(b);
        let data = vec![b'z'; 1 << 20];
        for _ in 0..8 {
            let mut sent = 0;
            while sent < data.len() {
                sent += ok!(libc::write(a, data[sent..].as_ptr().cast(), data.len() - sent)) as usize;
            }
        }
        0
    });
    close(a);
    let mut total = 0;
    loop {
        let part = read(b, 1 << 17);
        if part.is_empty() {
            break;
        }
        total += part.len();
    }
    assert_eq!(total, 8 << 20);
    assert_eq!(wait(pid), End::Exited(0));
}
