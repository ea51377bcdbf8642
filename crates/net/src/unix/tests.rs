use std::sync::Arc;

use executor::Events;
use identity::Credentials;
use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, MsgFlags, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};

use super::{Names, UnixSocket};
use crate::socket::{Control, Socket, SocketCaller};
use crate::{Address, file};

fn credentials() -> Credentials {
    Credentials::root()
}

fn named(name: &[u8]) -> Address {
    Address::plain([&AF_UNIX.to_ne_bytes(), b"\0".as_slice(), name].concat())
}

fn receive(socket: &dyn Socket, len: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; len];
    let got = socket.receive(&mut buf, 0, MsgFlags::empty())?;
    buf.truncate(got.count);
    Ok(buf)
}

fn send(socket: &dyn Socket, data: &[u8], to: Option<&Address>) -> Result<usize, Errno> {
    let credentials = credentials();
    let caller = SocketCaller { pid: 1, credentials: &credentials };
    socket.send(&caller, data, to, &mut Vec::new(), MsgFlags::empty())
}

#[test]
fn streams_connect_carry_and_close() {
    let names = Arc::new(Names::default());
    let credentials = credentials();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    let server = UnixSocket::new(&names, &caller, SOCK_STREAM, 0).unwrap();
    let client = UnixSocket::new(&names, &caller, SOCK_STREAM, 0).unwrap();
    assert_eq!(client.connect(&caller, &named(b"x")), Err(Errno::ECONNREFUSED));
    server.bind(&caller, &named(b"x")).unwrap();
    server.listen(&caller, 1).unwrap();
    client.connect(&caller, &named(b"x")).unwrap();
    assert!(server.poll().contains(Events::IN));
    let end = server.accept().unwrap();
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
    assert_eq!(send(&*client, b"hello", None), Ok(5));
    assert_eq!(receive(&*end, 3), Ok(b"hel".to_vec()));
    assert_eq!(client.peer_address().unwrap(), named(b"x").bytes);
    drop(client);
    assert_eq!(receive(&*end, 8), Ok(b"lo".to_vec()));
    assert_eq!(receive(&*end, 8), Ok(Vec::new()));
    assert_eq!(send(&*end, b"x", None), Err(Errno::EPIPE));
    assert!(end.poll().contains(Events::HUP | Events::RDHUP | Events::IN));
    drop(server);
    let again = UnixSocket::new(&names, &caller, SOCK_STREAM, 0).unwrap();
    again.bind(&caller, &named(b"x")).unwrap();
}

#[test]
fn a_full_peer_pushes_back() {
    let names = Arc::new(Names::default());
    let credentials = credentials();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    for kind in [SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM] {
        let (a, b) = UnixSocket::pair(&names, &caller, kind, 0).unwrap();
        let mut sent = 0;
        while let Ok(n) = send(&*a, &[1; 4096], None) {
            sent += n;
            assert!(sent < 1 << 22);
        }
        assert!(!a.poll().contains(Events::OUT));
        while receive(&*b, 4096).is_ok() {}
        assert!(a.poll().contains(Events::OUT));
    }
}

#[test]
fn files_travel_even_in_circles() {
    let names = Arc::new(Names::default());
    let credentials = credentials();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    let (a, b) = UnixSocket::pair(&names, &caller, SOCK_STREAM, 0).unwrap();
    let file = file::open(&caller, b.clone(), false);
    let mut control = vec![Control::Rights(vec![file.clone()])];
    a.send(&caller, b"x", None, &mut control, MsgFlags::empty()).unwrap();
    assert!(control.is_empty());
    let mut buf = [0; 4];
    let got = b.receive(&mut buf, 100, MsgFlags::empty()).unwrap();
    assert!(matches!(got.control.as_slice(), [Control::Rights(files)] if files.len() == 1));
    // A long chain of sockets in flight, each inside the next one, goes without deep recursion.
    let mut inner = file;
    for _ in 0..20_000 {
        let (x, y) = UnixSocket::pair(&names, &caller, SOCK_STREAM, 0).unwrap();
        let mut control = vec![Control::Rights(vec![inner])];
        x.send(&caller, b"x", None, &mut control, MsgFlags::empty()).unwrap();
        inner = file::open(&caller, y, false);
    }
    drop(inner);
}

#[test]
fn sockets_in_circles_end() {
    let names = Arc::new(Names::default());
    let credentials = credentials();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    // Two ends in each other's inbox; which of them somebody still has.
    for kept in [None, Some(0), Some(1)] {
        let (a, b) = UnixSocket::pair(&names, &caller, SOCK_STREAM, 0).unwrap();
        let mut files = vec![file::open(&caller, a.clone(), false), file::open(&caller, b.clone(), false)];
        for (from, sent) in [(&a, 0), (&b, 1)] {
            let mut control = vec![Control::Rights(vec![files[sent].clone()])];
            from.send(&caller, b"x", None, &mut control, MsgFlags::empty()).unwrap();
        }
        let ends = [Arc::downgrade(&a), Arc::downgrade(&b)];
        drop((a, b));
        let mut kept = kept.map(|index| files.swap_remove(index));
        drop(files);
        // It is noticed when others are closed, later beside a test with many in flight.
        let alive = |closed: usize| {
            for _ in 0..closed {
                drop(UnixSocket::pair(&names, &caller, SOCK_STREAM, 0).unwrap());
            }
            ends.each_ref().map(|end| end.strong_count())
        };
        if kept.is_some() {
            assert_eq!(alive(10_000), [1, 1]);
        }
        kept.take();
        assert!((0..1000).any(|_| alive(100) == [0, 0]));
    }
}

#[test]
fn datagrams_name_their_sender() {
    let names = Arc::new(Names::default());
    let credentials = credentials();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    let a = UnixSocket::new(&names, &caller, SOCK_DGRAM, 0).unwrap();
    let b = UnixSocket::new(&names, &caller, SOCK_DGRAM, 0).unwrap();
    a.bind(&caller, &named(b"a")).unwrap();
    b.bind(&caller, &Address::plain(AF_UNIX.to_ne_bytes().to_vec())).unwrap();
    assert_eq!(send(&*b, b"x", None), Err(Errno::ENOTCONN));
    send(&*b, b"hello", Some(&named(b"a"))).unwrap();
    let mut buf = [0; 2];
    let got = a.receive(&mut buf, 0, MsgFlags::empty()).unwrap();
    assert_eq!((got.count, got.length), (2, 5));
    assert!(got.flags.contains(MsgFlags::TRUNC));
    assert_eq!(got.from, Some(b.local_address().unwrap()));
}
