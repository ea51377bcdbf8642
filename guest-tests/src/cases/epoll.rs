//! epoll: level, edge, one-shot, nested.

use libc::*;

use crate::harness::{
    Temp, cases, close, fails, file, fork, in_child, ok, pipe, read, sleep_ms, wait, write,
};

cases!("epoll": level_repeats, edge_fires_once, edge_fires_on_new_data, one_shot, modify, delete, errors, times_out,
    wakes, hang_up_always, data_is_kept, nested, nested_loop_refused, closed_descriptor_leaves, dup_stays, max_events,
    round_robin, regular_file_refused, write_side, pwait_mask, pwait2_timeout, across_fork, thread_adds_while_waiting,
    exclusive_flag);

fn new() -> i32 {
    ok!(epoll_create1(EPOLL_CLOEXEC))
}

fn add(ep: i32, fd: i32, events: i32) {
    let mut event = epoll_event { events: events as u32, u64: fd as u64 };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &mut event));
}

/// Ready `(data, events)`, sorted.
fn ready(ep: i32, timeout: i32) -> Vec<(u64, i32)> {
    let mut events = [epoll_event { events: 0, u64: 0 }; 16];
    let n = ok!(epoll_wait(ep, events.as_mut_ptr(), 16, timeout));
    let mut list: Vec<_> = events[..n as usize].iter().map(|e| (e.u64, e.events as i32)).collect();
    list.sort_unstable();
    list
}

fn level_repeats() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    assert_eq!(ready(ep, 0), []);
    write(w, b"x");
    for _ in 0..3 {
        assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    }
    read(r, 1);
    assert_eq!(ready(ep, 0), []);
}

fn edge_fires_once() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN | EPOLLET);
    write(w, b"xy");
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    assert_eq!(ready(ep, 0), []);
    read(r, 1);
    assert_eq!(ready(ep, 0), []);
}

fn edge_fires_on_new_data() {
    let (r, w) = pipe();
    let ep = new();
    write(w, b"before");
    add(ep, r, EPOLLIN | EPOLLET);
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    write(w, b"more");
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    assert_eq!(ready(ep, 0), []);
}

fn one_shot() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN | EPOLLONESHOT);
    write(w, b"x");
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    write(w, b"y");
    assert_eq!(ready(ep, 0), []);
    let mut again = epoll_event { events: (EPOLLIN | EPOLLONESHOT) as u32, u64: 5 };
    ok!(epoll_ctl(ep, EPOLL_CTL_MOD, r, &mut again));
    assert_eq!(ready(ep, 0), [(5, EPOLLIN)]);
}

fn modify() {
    let (_r, w) = pipe();
    let ep = new();
    add(ep, w, EPOLLIN);
    assert_eq!(ready(ep, 0), []);
    let mut event = epoll_event { events: EPOLLOUT as u32, u64: 9 };
    ok!(epoll_ctl(ep, EPOLL_CTL_MOD, w, &mut event));
    assert_eq!(ready(ep, 0), [(9, EPOLLOUT)]);
}

fn delete() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    write(w, b"x");
    ok!(epoll_ctl(ep, EPOLL_CTL_DEL, r, std::ptr::null_mut()));
    assert_eq!(ready(ep, 0), []);
    fails!(ENOENT, epoll_ctl(ep, EPOLL_CTL_DEL, r, std::ptr::null_mut()));
}

fn errors() {
    let (r, _w) = pipe();
    let ep = new();
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    add(ep, r, EPOLLIN);
    fails!(EEXIST, epoll_ctl(ep, EPOLL_CTL_ADD, r, &mut event));
    fails!(EBADF, epoll_ctl(ep, EPOLL_CTL_ADD, 987, &mut event));
    fails!(EBADF, epoll_ctl(987, EPOLL_CTL_ADD, r, &mut event));
    fails!(EINVAL, epoll_ctl(r, EPOLL_CTL_ADD, ep, &mut event));
    fails!(EINVAL, epoll_ctl(ep, EPOLL_CTL_ADD, ep, &mut event));
    fails!(EINVAL, epoll_ctl(ep, 9, r, &mut event));
    fails!(EFAULT, syscall(SYS_epoll_ctl, ep, EPOLL_CTL_MOD, r, 8));
    fails!(EINVAL, epoll_wait(ep, &mut event, 0, 0));
    fails!(EINVAL, epoll_wait(r, &mut event, 1, 0));
    fails!(EINVAL, epoll_create1(1));
    fails!(EINVAL, epoll_create(0));
}

fn times_out() {
    let ep = new();
    let start = std::time::Instant::now();
    assert_eq!(ready(ep, 30), []);
    assert!(start.elapsed().as_millis() >= 30);
}

fn wakes() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    let pid = fork(|| {
        sleep_ms(20);
        write(w, b"x");
        0
    });
    assert_eq!(ready(ep, -1), [(r as u64, EPOLLIN)]);
    wait(pid);
}

fn hang_up_always() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, 0);
    close(w);
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLHUP)]);
}

fn data_is_kept() {
    let (_r, w) = pipe();
    let ep = new();
    let mut event = epoll_event { events: EPOLLOUT as u32, u64: 0xfeed_beef_dead_cafe };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, w, &mut event));
    assert_eq!(ready(ep, 0), [(0xfeed_beef_dead_cafe, EPOLLOUT)]);
}

fn nested() {
    let (r, w) = pipe();
    let (inner, outer) = (new(), new());
    add(inner, r, EPOLLIN);
    add(outer, inner, EPOLLIN);
    assert_eq!(ready(outer, 0), []);
    write(w, b"x");
    assert_eq!(ready(outer, 1000), [(inner as u64, EPOLLIN)]);
    let mut entry = pollfd { fd: outer, events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut entry, 1, 0)), 1);
    read(r, 1);
    assert_eq!(ready(outer, 0), []);
}

fn nested_loop_refused() {
    let (a, b) = (new(), new());
    add(a, b, EPOLLIN);
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    fails!(ELOOP, epoll_ctl(b, EPOLL_CTL_ADD, a, &mut event));
}

fn closed_descriptor_leaves() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    write(w, b"x");
    close(r);
    assert_eq!(ready(ep, 0), []);
}

fn dup_stays() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    let copy = ok!(dup(r));
    write(w, b"x");
    close(r);
    // The open file lives on through the copy, and so does its registration.
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    close(copy);
    assert_eq!(ready(ep, 0), []);
}

fn max_events() {
    let ep = new();
    for _ in 0..5 {
        add(ep, pipe().1, EPOLLOUT);
    }
    let mut events = [epoll_event { events: 0, u64: 0 }; 5];
    assert_eq!(ok!(epoll_wait(ep, events.as_mut_ptr(), 2, 0)), 2);
    assert_eq!(ok!(epoll_wait(ep, events.as_mut_ptr(), 5, 0)), 5);
}

fn round_robin() {
    let ep = new();
    for _ in 0..3 {
        add(ep, pipe().1, EPOLLOUT);
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut event = epoll_event { events: 0, u64: 0 };
        assert_eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 1);
        seen.push(event.u64);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each ready file has its turn");
}

fn regular_file_refused() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDONLY));
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    fails!(EPERM, epoll_ctl(new(), EPOLL_CTL_ADD, fd, &mut event));
}

fn write_side() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, w, EPOLLOUT | EPOLLET);
    assert_eq!(ready(ep, 0), [(w as u64, EPOLLOUT)]);
    write(w, &[0; 65536]);
    assert_eq!(ready(ep, 0), []);
    read(r, 65536);
    assert_eq!(ready(ep, 1000), [(w as u64, EPOLLOUT)]);
}

fn pwait_mask() {
    use super::signal;
    signal::on(SIGUSR1, 0);
    signal::block(&[SIGUSR1]);
    ok!(raise(SIGUSR1));
    let mut event = epoll_event { events: 0, u64: 0 };
    fails!(EINTR, epoll_pwait(new(), &mut event, 1, 3000, &signal::set(&[])));
}

fn pwait2_timeout() {
    let mut event = epoll_event { events: 0, u64: 0 };
    let ten = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let start = std::time::Instant::now();
    assert_eq!(ok!(syscall(SYS_epoll_pwait2, new(), &mut event, 1, &ten, 0, 8)), 0);
    assert!(start.elapsed().as_millis() >= 10);
}

fn across_fork() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN);
    in_child(|| {
        write(w, b"x");
        assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
    });
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
}

fn thread_adds_while_waiting() {
    let (r, w) = pipe();
    let ep = new();
    let thread = std::thread::spawn(move || ready(ep, 5000));
    sleep_ms(20);
    write(w, b"x");
    add(ep, r, EPOLLIN);
    assert_eq!(thread.join().expect("the waiter"), [(r as u64, EPOLLIN)]);
}

fn exclusive_flag() {
    let (r, w) = pipe();
    let ep = new();
    add(ep, r, EPOLLIN | EPOLLEXCLUSIVE);
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    fails!(EINVAL, epoll_ctl(ep, EPOLL_CTL_MOD, r, &mut event));
    write(w, b"x");
    assert_eq!(ready(ep, 0), [(r as u64, EPOLLIN)]);
}
