//! Connections inside the sandbox, without a guest.

use std::sync::Arc;

use executor::Events;
use identity::Credentials;
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_UNSPEC, MsgFlags, SOCK_STREAM, SOL_SOCKET, so};

use super::InetProvider;
use crate::host::Maker;
use crate::provider::Provider;
use crate::{Address, Halves, Result, Socket, SocketCaller};

const ANY_PORT: [u8; 16] = [2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

struct World {
    provider: InetProvider,
    credentials: Credentials,
}

impl World {
    fn new() -> World {
        World {
            provider: InetProvider::new(Arc::new(Maker::new(1024, Default::default(), None))),
            credentials: Credentials::root(),
        }
    }
    fn caller(&self) -> SocketCaller<'_> {
        SocketCaller { pid: 1, credentials: &self.credentials }
    }
    fn socket(&self) -> Arc<dyn Socket> {
        self.provider.socket(&self.caller(), AF_INET, SOCK_STREAM, 0).unwrap()
    }
    fn listener(&self, backlog: i32) -> Arc<dyn Socket> {
        let socket = self.socket();
        socket.bind(&self.caller(), &Address::plain(ANY_PORT.to_vec())).unwrap();
        socket.listen(&self.caller(), backlog).unwrap();
        socket
    }
    fn connect(&self, listener: &Arc<dyn Socket>) -> (Arc<dyn Socket>, Result<()>) {
        let socket = self.socket();
        let done = socket.connect(&self.caller(), &Address::plain(listener.local_address().unwrap()));
        (socket, done)
    }
    fn pair(&self) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
        let listener = self.listener(4);
        let (client, done) = self.connect(&listener);
        assert_eq!(done, Err(Errno::EINPROGRESS));
        (client, listener.accept().unwrap())
    }
    fn send(&self, socket: &Arc<dyn Socket>, data: &[u8], flags: MsgFlags) -> Result<usize> {
        socket.send(&self.caller(), data, None, &mut Vec::new(), flags)
    }
}

fn receive(socket: &Arc<dyn Socket>, size: usize, flags: MsgFlags) -> Result<Vec<u8>> {
    let mut buf = vec![0; size];
    let n = socket.receive(&mut buf, 0, flags)?.count;
    buf.truncate(n);
    Ok(buf)
}

const NONE: MsgFlags = MsgFlags::empty();

#[test]
fn bytes_flow_both_ways_and_end() {
    let world = World::new();
    let (a, b) = world.pair();
    assert_eq!(a.local_address(), b.peer_address());
    assert_eq!(world.send(&a, b"hello", NONE), Ok(5));
    assert_eq!(receive(&b, 3, MsgFlags::PEEK), Ok(b"hel".to_vec()));
    assert_eq!(receive(&b, 9, NONE), Ok(b"hello".to_vec()));
    assert_eq!(receive(&b, 9, NONE), Err(Errno::EAGAIN));
    a.shutdown(Halves { read: false, write: true }).unwrap();
    assert_eq!(world.send(&a, b"x", NONE), Err(Errno::EPIPE));
    assert_eq!(receive(&b, 9, NONE), Ok(Vec::new()));
    assert_eq!(world.send(&b, b"late", NONE), Ok(4));
    assert_eq!(receive(&a, 9, NONE), Ok(b"late".to_vec()));
    drop(b);
    assert!(a.poll().contains(Events::HUP | Events::RDHUP | Events::IN));
    assert_eq!(a.peer_address().err(), Some(Errno::ENOTCONN));
}

#[test]
fn unread_bytes_reset() {
    let world = World::new();
    let (a, b) = world.pair();
    world.send(&a, b"x", NONE).unwrap();
    world.send(&b, b"answer", NONE).unwrap();
    drop(b);
    // What came before the reset can be read.
    assert_eq!(receive(&a, 9, NONE), Ok(b"answer".to_vec()));
    assert_eq!(receive(&a, 9, NONE), Err(Errno::ECONNRESET));
    assert_eq!(receive(&a, 9, NONE), Ok(Vec::new()));
    assert_eq!(world.send(&a, b"x", NONE), Err(Errno::EPIPE));
}

#[test]
fn a_write_after_the_end_is_answered_by_a_reset() {
    let world = World::new();
    let (a, b) = world.pair();
    drop(b);
    assert_eq!(world.send(&a, b"x", NONE), Ok(1));
    assert_eq!(world.send(&a, b"x", NONE), Err(Errno::EPIPE));
    assert_eq!(receive(&a, 9, NONE), Ok(Vec::new()));
}

#[test]
fn a_full_backlog_makes_clients_wait() {
    let world = World::new();
    let listener = world.listener(0);
    let (first, _) = world.connect(&listener);
    let (second, done) = world.connect(&listener);
    assert_eq!(done, Err(Errno::EINPROGRESS));
    assert!(first.poll().contains(Events::OUT) && second.poll().is_empty());
    let _one = listener.accept().unwrap();
    assert!(second.poll().contains(Events::OUT));
    let (third, _) = world.connect(&listener);
    drop(listener);
    assert_eq!(third.take_error(), Some(Errno::ECONNREFUSED));
    assert_eq!(second.take_error(), Some(Errno::ECONNRESET));
}

#[test]
fn a_full_queue_pushes_back() {
    let world = World::new();
    let (a, b) = world.pair();
    b.set_option(&world.caller(), SOL_SOCKET, so::RCVBUF, &4096_i32.to_ne_bytes()).unwrap();
    a.set_option(&world.caller(), SOL_SOCKET, so::SNDBUF, &4096_i32.to_ne_bytes()).unwrap();
    let mut sent = 0;
    while let Ok(n) = world.send(&a, &[7; 1000], NONE) {
        sent += n;
    }
    assert_eq!(sent, 8192);
    assert!(!a.poll().contains(Events::OUT));
    assert_eq!(receive(&b, 2000, NONE).unwrap().len(), 2000);
    assert!(!a.poll().contains(Events::OUT));
    assert_eq!(receive(&b, 2000, NONE).unwrap().len(), 2000);
    assert!(a.poll().contains(Events::OUT));
}

#[test]
fn an_urgent_byte_stands_apart() {
    let world = World::new();
    let (a, b) = world.pair();
    world.send(&a, b"abc", MsgFlags::OOB).unwrap();
    world.send(&a, b"de", NONE).unwrap();
    assert!(b.poll().contains(Events::PRI));
    assert_eq!(receive(&b, 1, MsgFlags::OOB), Ok(b"c".to_vec()));
    assert_eq!(receive(&b, 1, MsgFlags::OOB), Err(Errno::EINVAL));
    assert_eq!(receive(&b, 9, NONE), Ok(b"ab".to_vec()));
    assert_eq!(receive(&b, 9, NONE), Ok(b"de".to_vec()));
}

#[test]
fn a_connection_can_be_dissolved() {
    let world = World::new();
    let listener = world.listener(4);
    let (client, _) = world.connect(&listener);
    client.connect(&world.caller(), &Address::plain(AF_UNSPEC.to_ne_bytes().to_vec())).unwrap();
    assert_eq!(client.peer_address().err(), Some(Errno::ENOTCONN));
    let server = listener.accept().unwrap();
    assert_eq!(receive(&server, 1, NONE), Err(Errno::ECONNRESET));
    let again = Address::plain(listener.local_address().unwrap());
    assert_eq!(client.connect(&world.caller(), &again), Err(Errno::EINPROGRESS));
}
