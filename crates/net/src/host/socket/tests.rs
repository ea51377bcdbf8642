use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn the_end_of_a_lingering_socket_waits_for_nobody() {
    for inherited in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let rights = Rights::default();
        let (used, hearing) = Default::default();
        let room = Arc::new(Room { used, max: 9, first_free_port: 1024, rights, binder: None, hearing });
        let new = |fd: OwnedFd| {
            let kind = (AF_INET, SOCK_STREAM, 0);
            HostSocket::new(fd, kind, room.take().unwrap(), room.clone(), Arc::default()).unwrap()
        };
        let linger = [1i32, 20].map(i32::to_ne_bytes).concat();
        let lingering = new(listener.into());
        if inherited {
            lingering.force_option(SOL_SOCKET, so::LINGER, &linger).unwrap();
        }
        let _reader = TcpStream::connect(address).unwrap();
        let socket = lingering.accept_host(Arc::default()).unwrap();
        if !inherited {
            socket.force_option(SOL_SOCKET, so::LINGER, &linger).unwrap();
        }
        // More than the reader takes.
        let mut writer = TcpStream::from(socket.fd().try_clone_to_owned().unwrap());
        while writer.write(&[0; 65536]).is_ok() {}
        drop(writer);
        let begin = Instant::now();
        drop(socket);
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn what_is_sent_later_stays_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut writer, _) = listener.accept().unwrap();
    writer.set_nonblocking(true).unwrap();
    let (used, hearing) = Default::default();
    let room =
        Arc::new(Room { used, max: 9, first_free_port: 0, rights: Rights::default(), binder: None, hearing });
    let fd = writer.try_clone().unwrap().into();
    let place = room.take().unwrap();
    let socket = HostSocket::new(fd, (AF_INET, SOCK_STREAM, 0), place, room, Arc::default()).unwrap();
    // The host takes a little more when what it has is on its way.
    let mut filled = 0;
    for _ in 0..5 {
        while let Ok(n) = writer.write(&[0; 65536]) {
            filled += n;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    socket.send_all(&[1; 1000]).unwrap();
    assert!(!socket.is_drained() && !socket.catch_up());
    // Now the host would take it, but not before what waits.
    reader.read_exact(&mut vec![0; filled]).unwrap();
    socket.send_all(&[2; 1000]).unwrap();
    let begin = Instant::now();
    while !socket.catch_up() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    drop((socket, writer));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [[1; 1000], [2; 1000]].concat());
}
