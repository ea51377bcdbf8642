//! eventfd.

use libc::*;

use crate::harness::{cases, fails, fork, ok, sleep_ms, sys, wait, write};

cases!("eventfd": counts, semaphore, blocks_until_written, overflow, polls, errors, edge_in_epoll);

fn add(fd: i32, n: u64) {
    write(fd, &n.to_ne_bytes());
}

fn get(fd: i32) -> Result<u64, i32> {
    let mut n = 0u64;
    sys!(libc::read(fd, (&raw mut n).cast(), 8)).map(|_| n)
}

fn counts() {
    let fd = ok!(eventfd(3, EFD_NONBLOCK));
    add(fd, 4);
    assert_eq!(get(fd), Ok(7));
    assert_eq!(get(fd), Err(EAGAIN));
}

fn semaphore() {
    let fd = ok!(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
    assert_eq!([get(fd), get(fd), get(fd)], [Ok(1), Ok(1), Err(EAGAIN)]);
}

fn blocks_until_written() {
    let fd = ok!(eventfd(0, 0));
    let pid = fork(|| {
        sleep_ms(20);
        add(fd, 5);
        0
    });
    assert_eq!(get(fd), Ok(5));
    wait(pid);
}

fn overflow() {
    let fd = ok!(eventfd(0, EFD_NONBLOCK));
    add(fd, u64::MAX - 1);
    let one = 1u64;
    fails!(EAGAIN, libc::write(fd, (&raw const one).cast(), 8));
    let all = u64::MAX;
    fails!(EINVAL, libc::write(fd, (&raw const all).cast(), 8));
    assert_eq!(get(fd), Ok(u64::MAX - 1));
}

fn polls() {
    let fd = ok!(eventfd(0, 0));
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    ok!(poll(&mut entry, 1, 0));
    assert_eq!(entry.revents, POLLOUT);
    add(fd, u64::MAX - 1);
    ok!(poll(&mut entry, 1, 0));
    assert_eq!(entry.revents, POLLIN);
}

fn errors() {
    fails!(EINVAL, eventfd(0, 4));
    let fd = ok!(eventfd(0, EFD_NONBLOCK));
    fails!(EINVAL, libc::read(fd, [0u8; 7].as_mut_ptr().cast(), 7));
    fails!(EINVAL, libc::write(fd, [0u8; 4].as_ptr().cast(), 4));
}

fn edge_in_epoll() {
    let fd = ok!(eventfd(0, EFD_NONBLOCK));
    let ep = ok!(epoll_create1(0));
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 1 };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &mut event));
    for _ in 0..3 {
        // Each write is an edge of its own, read or not: async run-times wake themselves so.
        add(fd, 1);
        assert_eq!(ok!(epoll_wait(ep, &mut event, 1, 1000)), 1);
        assert_eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 0);
    }
}
