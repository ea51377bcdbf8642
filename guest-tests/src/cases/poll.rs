//! poll, ppoll, select, pselect.

use libc::*;

use super::signal::{COUNT, block, on, set};
use crate::harness::{
    Temp, cases, close, fails, file, fork, in_child, ok, pipe, read, sleep_ms, wait, write, zeroed,
};

cases!("poll": pipe_states, hang_up, bad_descriptor, negative_is_skipped, times_out, regular_file, only_asked_events,
    wakes, many_entries, ppoll_mask, select_sets, select_times_out, select_bad_descriptor, select_writes_rest,
    pselect_mask, too_many);

fn ask(fd: i32, events: i16, timeout: i32) -> i16 {
    let mut entry = pollfd { fd, events, revents: 0x55 };
    let n = ok!(poll(&mut entry, 1, timeout));
    assert_eq!(n, i32::from(entry.revents != 0));
    entry.revents
}

fn pipe_states() {
    let (r, w) = pipe();
    assert_eq!(ask(r, POLLIN, 0), 0);
    assert_eq!(ask(w, POLLOUT, 0), POLLOUT);
    write(w, b"x");
    assert_eq!(ask(r, POLLIN | POLLRDNORM, 0), POLLIN | POLLRDNORM);
}

fn hang_up() {
    let (r, w) = pipe();
    write(w, b"x");
    close(w);
    assert_eq!(ask(r, POLLIN, 0), POLLIN | POLLHUP);
    read(r, 1);
    assert_eq!(ask(r, POLLIN, 0), POLLHUP);
    let (r, w) = pipe();
    close(r);
    assert_eq!(ask(w, POLLOUT, 0), POLLOUT | POLLERR);
}

fn bad_descriptor() {
    assert_eq!(ask(987, POLLIN, 0), POLLNVAL);
}

fn negative_is_skipped() {
    assert_eq!(ask(-1, POLLIN, 0), 0);
}

fn times_out() {
    let (r, _w) = pipe();
    let start = std::time::Instant::now();
    assert_eq!(ask(r, POLLIN, 30), 0);
    assert!(start.elapsed().as_millis() >= 30);
    let start = std::time::Instant::now();
    assert_eq!(ok!(poll(std::ptr::null_mut(), 0, 20)), 0);
    assert!(start.elapsed().as_millis() >= 20);
}

fn regular_file() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    assert_eq!(ask(fd, POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
}

fn only_asked_events() {
    let (r, w) = pipe();
    write(w, b"x");
    assert_eq!(ask(r, POLLOUT, 0), 0);
    assert_eq!(ask(r, POLLPRI, 0), 0);
}

fn wakes() {
    let (r, w) = pipe();
    let pid = fork(|| {
        sleep_ms(20);
        write(w, b"x");
        0
    });
    assert_eq!(ask(r, POLLIN, -1), POLLIN);
    wait(pid);
}

fn many_entries() {
    let pipes: Vec<_> = (0..100).map(|_| pipe()).collect();
    write(pipes[37].1, b"x");
    write(pipes[99].1, b"x");
    let mut entries: Vec<_> = pipes.iter().map(|p| pollfd { fd: p.0, events: POLLIN, revents: 1 }).collect();
    assert_eq!(ok!(poll(entries.as_mut_ptr(), 100, 1000)), 2);
    let ready: Vec<_> = (0..100).filter(|i| entries[*i].revents != 0).collect();
    assert_eq!(ready, [37, 99]);
}

fn ppoll_mask() {
    on(SIGUSR1, 0);
    block(&[SIGUSR1]);
    ok!(raise(SIGUSR1));
    let (r, _w) = pipe();
    let mut entry = pollfd { fd: r, events: POLLIN, revents: 0 };
    let long = timespec { tv_sec: 5, tv_nsec: 0 };
    fails!(EINTR, ppoll(&mut entry, 1, &long, &set(&[])));
    assert_eq!(COUNT.load(std::sync::atomic::Ordering::SeqCst), 1);
}

fn fd_set_of(fds: &[i32]) -> fd_set {
    let mut set: fd_set = zeroed();
    for fd in fds {
        // SAFETY: the descriptors are below FD_SETSIZE.
        unsafe { FD_SET(*fd, &mut set) };
    }
    set
}

fn has(fd: i32, set: &fd_set) -> bool {
    // SAFETY: the descriptor is below FD_SETSIZE.
    unsafe { FD_ISSET(fd, set) }
}

fn select_sets() {
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    write(w2, b"x");
    let (mut readers, mut writers) = (fd_set_of(&[r, r2]), fd_set_of(&[w]));
    let n = ok!(select(w2 + 1, &mut readers, &mut writers, std::ptr::null_mut(), std::ptr::null_mut()));
    assert_eq!(n, 2);
    assert!(!has(r, &readers) && has(r2, &readers) && has(w, &writers));
}

fn select_times_out() {
    let (r, _w) = pipe();
    let mut readers = fd_set_of(&[r]);
    let mut patience = timeval { tv_sec: 0, tv_usec: 20_000 };
    assert_eq!(
        ok!(select(r + 1, &mut readers, std::ptr::null_mut(), std::ptr::null_mut(), &mut patience)),
        0
    );
    assert!(!has(r, &readers));
    assert_eq!((patience.tv_sec, patience.tv_usec), (0, 0));
}

fn select_bad_descriptor() {
    let mut readers = fd_set_of(&[50]);
    fails!(EBADF, select(51, &mut readers, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut()));
    fails!(
        EINVAL,
        select(-1, &mut readers, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    );
}

fn select_writes_rest() {
    let (r, w) = pipe();
    write(w, b"x");
    let mut readers = fd_set_of(&[r]);
    let mut patience = timeval { tv_sec: 9, tv_usec: 0 };
    assert_eq!(
        ok!(select(r + 1, &mut readers, std::ptr::null_mut(), std::ptr::null_mut(), &mut patience)),
        1
    );
    assert!(patience.tv_sec >= 8);
}

fn pselect_mask() {
    on(SIGUSR1, 0);
    block(&[SIGUSR1]);
    ok!(raise(SIGUSR1));
    let (r, _w) = pipe();
    let mut readers = fd_set_of(&[r]);
    let long = timespec { tv_sec: 5, tv_nsec: 0 };
    let none = std::ptr::null_mut();
    fails!(EINTR, pselect(r + 1, &mut readers, none, none, &long, &set(&[])));
}

fn too_many() {
    in_child(|| {
        let limit = rlimit { rlim_cur: 64, rlim_max: 64 };
        ok!(setrlimit(RLIMIT_NOFILE, &limit));
        let mut entries = vec![pollfd { fd: -1, events: 0, revents: 0 }; 65];
        fails!(EINVAL, poll(entries.as_mut_ptr(), 65, 0));
    });
}
