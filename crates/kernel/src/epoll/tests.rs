use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::OpenFile;

use super::{EPOLLET, EPOLLONESHOT, Interest, of, open};
use crate::pipe;

const IN: u32 = 1;

fn interest(events: u32) -> Interest {
    Interest { events, data: 7 }
}

fn told(epoll: &Arc<OpenFile>) -> usize {
    of(epoll).unwrap().harvest(16, |_, interest, _, _| assert_eq!(interest.data, 7))
}

fn write(file: &Arc<OpenFile>) {
    file.ops().write(file, b"x", 0).unwrap();
}

#[test]
fn level_tells_again_edge_does_not_one_shot_only_once() {
    let (reader, writer) = pipe::pair((0, 0), OpenFlags::empty());
    for (flags, counts) in [(0, [1, 1, 1]), (EPOLLET, [1, 0, 1]), (EPOLLONESHOT, [1, 0, 0])] {
        let epoll = open();
        of(&epoll).unwrap().add(3, &reader, interest(IN | flags)).unwrap();
        write(&writer);
        let first = told(&epoll);
        let second = told(&epoll);
        write(&writer);
        assert_eq!([first, second, told(&epoll)], counts);
    }
}

#[test]
fn a_closed_file_is_not_told() {
    let (reader, writer) = pipe::pair((0, 0), OpenFlags::empty());
    let epoll = open();
    of(&epoll).unwrap().add(3, &reader, interest(IN)).unwrap();
    assert_eq!(of(&epoll).unwrap().add(3, &reader, interest(IN)), Err(Errno::EEXIST));
    write(&writer);
    drop(reader);
    assert_eq!(told(&epoll), 0);
}

#[test]
fn nested_instances_pass_readiness_on() {
    let (reader, writer) = pipe::pair((0, 0), OpenFlags::empty());
    let (inner, outer) = (open(), open());
    of(&inner).unwrap().add(3, &reader, interest(IN)).unwrap();
    of(&outer).unwrap().add(4, &inner, interest(IN)).unwrap();
    assert_eq!(told(&outer), 0);
    write(&writer);
    assert_eq!(told(&outer), 1);
    assert_eq!(told(&inner), 1);
}

#[test]
fn cycles_and_deep_chains_are_refused() {
    let (a, b) = (open(), open());
    of(&a).unwrap().add(3, &b, interest(IN)).unwrap();
    assert_eq!(of(&b).unwrap().add(3, &a, interest(IN)), Err(Errno::ELOOP));
    assert_eq!(of(&a).unwrap().add(3, &a, interest(IN)), Err(Errno::EINVAL));
    let chain: Vec<_> = (0..7).map(|_| open()).collect();
    let mut refused = 0;
    for pair in chain.windows(2).rev() {
        if of(&pair[0]).unwrap().add(3, &pair[1], interest(IN)).is_err() {
            refused += 1;
        }
    }
    assert!(refused > 0);
}
