//! Questions and answers.

use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::socket::{AF_NETLINK, MsgFlags, SOCK_RAW};

use super::{NetlinkProvider, u16_at, u32_at};
use crate::provider::Provider;
use crate::{Socket, SocketCaller};

fn ask(socket: &Arc<dyn Socket>, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let credentials = Credentials::root();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    let mut data = (16 + body.len() as u32).to_ne_bytes().to_vec();
    data.extend_from_slice(&kind.to_ne_bytes());
    data.extend_from_slice(&flags.to_ne_bytes());
    data.extend_from_slice(&9_u32.to_ne_bytes());
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(body);
    assert_eq!(socket.send(&caller, &data, None, &mut Vec::new(), MsgFlags::empty()), Ok(data.len()));
    let mut buf = vec![0; 65_536];
    let n = socket.receive(&mut buf, 0, MsgFlags::empty()).unwrap().count;
    buf.truncate(n);
    buf
}

fn socket(protocol: i32) -> Arc<dyn Socket> {
    let credentials = Credentials::root();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    NetlinkProvider.socket(&caller, AF_NETLINK, SOCK_RAW, protocol).unwrap()
}

#[test]
fn a_dump_ends_and_bad_requests_are_errors() {
    let diag = socket(4);
    let mut tcp = [0_u8; 56];
    (tcp[0], tcp[1]) = (2, 6);
    // No states: nothing but the end.
    let done = ask(&diag, 20, 0x301, &tcp);
    assert_eq!((u16_at(&done, 4), u32_at(&done, 8), u32_at(&done, 12)), (Some(3), Some(9), Some(7)));
    for (kind, body, errno) in
        [(20, &tcp[..5], Errno::EINVAL), (99, &tcp[..], Errno::EINVAL), (20, &[99_u8; 60][..], Errno::ENOENT)]
    {
        let error = ask(&diag, kind, 1, body);
        assert_eq!(u16_at(&error, 4), Some(2));
        assert_eq!(u32_at(&error, 16).map(u32::cast_signed), Some(-errno.raw()));
    }
}

#[test]
fn malformed_datagrams_have_no_answer() {
    let diag = socket(4);
    let credentials = Credentials::root();
    let caller = SocketCaller { pid: 7, credentials: &credentials };
    for data in [&[][..], &[1, 2, 3], &[255; 40], &[16, 0, 0, 0], &[8; 16]] {
        assert_eq!(diag.send(&caller, data, None, &mut Vec::new(), MsgFlags::empty()), Ok(data.len()));
    }
    assert_eq!(diag.receive(&mut [0; 9], 0, MsgFlags::empty()).err(), Some(Errno::EAGAIN));
}
