//! Filters that ask a listener: `SECCOMP_RET_USER_NOTIF`, `SECCOMP_FILTER_FLAG_NEW_LISTENER`, seccomp_unotify(2).

use std::ptr;

use libc::*;

use crate::harness::{End, cases, close, fails, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write};

cases!("seccomp_notify": sizes, answered, made, response_errors, forged_ids, one_answer, receive_errors, not_received, polled, hung_up, second_listener, without_listener, listener_closed, descriptor, no_descriptor_left, own_process, synchronized, host_calls, after_exec, which_filter_asks, set_flags);

const ALLOW: u32 = 0x7fff_0000;
const ASK: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x5_0000;
const TRACE: u32 = 0x7ff0_0000;
const TSYNC: c_long = 1;
const NEW_LISTENER: c_long = 8;
const TSYNC_ESRCH: c_long = 16;
pub(super) const WAIT_KILLABLE: c_long = 32;
pub(super) const RECV: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;
const ID_VALID: c_ulong = 0x4008_2102;
pub(super) const ADDFD: c_ulong = 0x4018_2103;
const SET_FLAGS: c_ulong = 0x4008_2104;
const MADE: u32 = 1;
pub(super) const SETFD: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Notif {
    pub(super) id: u64,
    pub(super) pid: u32,
    pub(super) flags: u32,
    pub(super) nr: i32,
    pub(super) arch: u32,
    pub(super) ip: u64,
    pub(super) args: [u64; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Add {
    pub(super) id: u64,
    pub(super) flags: u32,
    pub(super) src: u32,
    pub(super) new: u32,
    pub(super) new_flags: u32,
    pub(super) more: u64,
}

fn set(nr: c_long, verdict: u32, flags: c_long) -> Result<i32, i32> {
    let code = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let program =
        [code(0x20, 0, 0, 0), code(0x15, 0, 1, nr as u32), code(6, 0, 0, verdict), code(6, 0, 0, ALLOW)];
    let head = sock_fprog { len: 4, filter: program.as_ptr().cast_mut() };
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    sys!(syscall(SYS_seccomp, 1, flags, &head)).map(|fd| fd as i32)
}

/// A listener for one call.
pub(super) fn listen(nr: c_long, flags: c_long) -> i32 {
    set(nr, ASK, NEW_LISTENER | flags).expect("a listener")
}

pub(super) fn receive(listener: i32) -> Notif {
    let mut notif = Notif::default();
    ok!(ioctl(listener, RECV, &mut notif));
    notif
}

pub(super) fn send(listener: i32, id: u64, val: i64, error: i32, flags: u32) -> Result<i32, i32> {
    let response = Response { id, val, error, flags };
    sys!(ioctl(listener, SEND, &response))
}

pub(super) fn is_valid(listener: i32, id: u64) -> bool {
    match sys!(ioctl(listener, ID_VALID, &id)) {
        Ok(_) => true,
        Err(errno) => {
            assert_eq!(errno, ENOENT);
            false
        }
    }
}

pub(super) fn add(listener: i32, id: u64, src: i32, new: u32, flags: u32) -> Result<i32, i32> {
    let add = Add { id, flags, src: src as u32, new, ..Add::default() };
    sys!(ioctl(listener, ADDFD, &add))
}

pub(super) fn ready(listener: i32) -> i16 {
    let mut fd = pollfd { fd: listener, events: POLLIN | POLLOUT, revents: 0 };
    ok!(poll(&mut fd, 1, 0));
    fd.revents
}

/// getsid(2), which the filters ask about.
pub(super) fn call(argument: i64) -> Result<c_long, i32> {
    sys!(syscall(SYS_getsid, argument))
}

/// A child that makes the call and exits with its result, or 100 and the errno.
pub(super) fn caller() -> i32 {
    fork(|| call(0).map_or_else(|errno| 100 + errno, |value| value as i32))
}

/// What runs with the caller's descriptors in a process of its own.
fn fork_sharing_descriptors(body: impl FnOnce() -> i32) -> i32 {
    let pid = ok!(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0)) as i32;
    if pid == 0 {
        let code = body();
        // SAFETY: the end.
        unsafe { _exit(code) };
    }
    pid
}

/// Whether Linux is at least this old.
fn linux(major: u32, minor: u32) -> bool {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut words = text.split(['.', '-']).map_while(|word| word.trim().parse::<u32>().ok());
    (words.next().unwrap_or(0), words.next().unwrap_or(0)) >= (major, minor)
}

pub(super) fn asleep(pid: i32) {
    for _ in 0..5000 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
            return;
        }
        sleep_ms(1);
    }
    panic!("{pid} does not sleep");
}

fn sizes() {
    let mut sizes = [0u16; 3];
    ok!(syscall(SYS_seccomp, 3, 0, &mut sizes));
    assert_eq!(sizes, [80, 24, 64]);
    fails!(EINVAL, syscall(SYS_seccomp, 3, 1, &mut sizes));
    fails!(EFAULT, syscall(SYS_seccomp, 3, 0, 8));
    ok!(syscall(SYS_seccomp, 2, 0, &ASK));
    assert_eq!(set(SYS_getsid, ALLOW, WAIT_KILLABLE), Err(EINVAL));
}

fn answered() {
    let listener = listen(SYS_getsid, 0);
    let pid = fork(|| {
        let result = sys!(syscall(SYS_getsid, 1, 2, 3, 4, 5, 1i64 << 40));
        result.map_or(0, |value| value as i32)
    });
    let notif = receive(listener);
    assert_eq!(
        (notif.pid, notif.nr, notif.arch, notif.flags),
        (pid as u32, SYS_getsid as i32, 0xc000_003e, 0)
    );
    assert_eq!(notif.args, [1, 2, 3, 4, 5, 1 << 40]);
    assert_ne!(notif.ip, 0);
    assert!(is_valid(listener, notif.id));
    assert_eq!(send(listener, notif.id, 77, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(77));
    let pid = caller();
    let next = receive(listener);
    assert_eq!(next.id, notif.id.wrapping_add(1));
    // The error counts, not the value.
    assert_eq!(send(listener, next.id, 5, -EBADMSG, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(100 + EBADMSG));
    let pid = caller();
    assert_eq!(send(listener, receive(listener).id, 0, 33, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(33));
}

fn made() {
    let listener = listen(SYS_getsid, 0);
    // A session of its own: the id of one whose leader is in no namespace of ours is 0.
    let pid = fork(|| {
        let session = c_long::from(ok!(setsid()));
        i32::from(session != 0 && call(0) == Ok(session))
    });
    let id = receive(listener).id;
    assert_eq!(send(listener, id, 0, 0, MADE), Ok(0));
    assert_eq!(wait(pid), End::Exited(1));
    let pid = fork(|| call(-1).map_or_else(|errno| errno, |_| 0));
    let id = receive(listener).id;
    assert_eq!(send(listener, id, 0, 0, MADE), Ok(0));
    assert_eq!(wait(pid), End::Exited(ESRCH));
}

fn response_errors() {
    let listener = listen(SYS_getsid, 0);
    let pid = caller();
    let id = receive(listener).id;
    assert_eq!(send(listener, id, 1, 0, MADE), Err(EINVAL));
    assert_eq!(send(listener, id, 0, -1, MADE), Err(EINVAL));
    assert_eq!(send(listener, id, 0, 0, 2), Err(EINVAL));
    fails!(EFAULT, ioctl(listener, SEND, 8));
    fails!(EFAULT, ioctl(listener, ID_VALID, 8));
    fails!(EINVAL, ioctl(listener, SEND + 100, 0));
    fails!(EINVAL, ioctl(listener, TCGETS, 0));
    assert_eq!(send(listener, id, 9, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(9));
}

/// Ids that are near, far, old, of nobody.
fn forged_ids() {
    let listener = listen(SYS_getsid, 0);
    assert_eq!(send(listener, 0, 0, 0, 0), Err(ENOENT));
    let first = caller();
    let id = receive(listener).id;
    let (ends, told) = pipe();
    for forged in (1..2000).flat_map(|n| [id.wrapping_add(n), id.wrapping_sub(n), id ^ (1 << (n % 64)), n]) {
        if forged != id {
            assert_eq!(send(listener, forged, 1, 0, 0), Err(ENOENT));
            assert_eq!(add(listener, forged, ends, 0, 0), Err(ENOENT));
            assert!(!is_valid(listener, forged));
        }
    }
    assert_eq!(send(listener, id, 3, 0, 0), Ok(0));
    assert_eq!(wait(first), End::Exited(3));
    assert_eq!(send(listener, id, 3, 0, 0), Err(ENOENT));
    assert_eq!(add(listener, id, told, 0, 0), Err(ENOENT));
    assert!(!is_valid(listener, id));
}

/// What is announced and not received cannot be answered, although its id can be guessed.
fn not_received() {
    let listener = listen(SYS_getsid, 0);
    let first = caller();
    let id = receive(listener).id;
    let second = caller();
    while ready(listener) & POLLIN == 0 {
        sleep_ms(1);
    }
    let next = id.wrapping_add(1);
    assert_eq!(send(listener, next, 1, 0, 0), Err(EINPROGRESS));
    assert_eq!(add(listener, next, 0, 0, 0), Err(EINPROGRESS));
    assert!(!is_valid(listener, next));
    assert_eq!(receive(listener).id, next);
    assert_eq!(send(listener, next, 8, 0, 0), Ok(0));
    assert_eq!(wait(second), End::Exited(8));
    assert_eq!(send(listener, id, 7, 0, 0), Ok(0));
    assert_eq!(wait(first), End::Exited(7));
}

fn one_answer() {
    let listener = listen(SYS_getsid, 0);
    for _ in 0..200 {
        let pid = caller();
        let id = receive(listener).id;
        assert_eq!(send(listener, id, 4, 0, 0), Ok(0));
        assert!(matches!(send(listener, id, 5, 0, 0), Err(ENOENT | EINPROGRESS)));
        assert_eq!(wait(pid), End::Exited(4));
    }
}

fn receive_errors() {
    let listener = listen(SYS_getsid, 0);
    let pid = caller();
    let mut garbage = Notif { flags: 1, ..Notif::default() };
    fails!(EINVAL, ioctl(listener, RECV, &mut garbage));
    fails!(EFAULT, ioctl(listener, RECV, 8));
    // Where it cannot be written it can be received once more.
    let page = ok!(mmap(ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for _ in 0..3 {
        fails!(EFAULT, ioctl(listener, RECV, page));
    }
    let id = receive(listener).id;
    assert_eq!(send(listener, id, 6, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(6));
}

fn polled() {
    let listener = listen(SYS_getsid, 0);
    assert_eq!(ready(listener), 0);
    let epoll = ok!(epoll_create1(0));
    let mut event = epoll_event { events: (EPOLLIN | EPOLLOUT) as u32, u64: 7 };
    ok!(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &mut event));
    assert_eq!(ok!(epoll_wait(epoll, &mut event, 1, 0)), 0);
    let pid = caller();
    assert_eq!(ok!(epoll_wait(epoll, &mut event, 1, 10_000)), 1);
    assert_eq!((event.events, event.u64), (EPOLLIN as u32, 7));
    assert_eq!(ready(listener), POLLIN);
    let id = receive(listener).id;
    assert_eq!(ready(listener), POLLOUT);
    assert_eq!(send(listener, id, 1, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(1));
    assert_eq!(ready(listener), 0);
    // Both at once.
    let pids = [caller(), caller()];
    let id = receive(listener).id;
    while ready(listener) != POLLIN | POLLOUT {
        sleep_ms(1);
    }
    for id in [id, receive(listener).id] {
        assert_eq!(send(listener, id, 1, 0, 0), Ok(0));
    }
    for pid in pids {
        assert_eq!(wait(pid), End::Exited(1));
    }
}

/// Once nobody has the filter no call can come.
fn hung_up() {
    let (go, tell) = pipe();
    let (listeners, told) = pipe();
    let pid = fork_sharing_descriptors(|| {
        let listener = listen(SYS_getsid, 0);
        write(told, &listener.to_ne_bytes());
        read(go, 1);
        // A second filter on top, and a thread and a child that have both.
        set(SYS_getppid, ALLOW, 0).expect("a filter");
        let _ = std::thread::spawn(|| ()).join();
        let child = fork(|| 0);
        assert_eq!(wait(child), End::Exited(0));
        read(go, 1);
        0
    });
    let listener = i32::from_ne_bytes(read(listeners, 4).try_into().expect("4 bytes"));
    assert_eq!(ready(listener), 0);
    write(tell, b"x");
    sleep_ms(20);
    assert_eq!(ready(listener), 0);
    write(tell, b"x");
    let mut fd = pollfd { fd: listener, events: 0, revents: 0 };
    if linux(6, 11) {
        // A zombie has none.
        assert_eq!(ok!(poll(&mut fd, 1, 10_000)), 1);
        assert_eq!(fd.revents, POLLHUP);
        let mut notif = Notif::default();
        fails!(ENOENT, ioctl(listener, RECV, &mut notif));
    }
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(ok!(poll(&mut fd, 1, 10_000)), 1);
    assert_eq!(fd.revents, POLLHUP);
}

fn second_listener() {
    let listener = listen(SYS_getsid, 0);
    assert_eq!(set(SYS_getppid, ASK, NEW_LISTENER), Err(EBUSY));
    // Without one it is welcome, and the failure left no filter.
    assert_eq!(set(SYS_getppid, ALLOW, 0), Ok(0));
    assert_eq!(ok!(syscall(SYS_getppid)) as i32, ok!(getppid()));
    in_child(|| assert_eq!(set(SYS_getppid, ASK, NEW_LISTENER), Err(EBUSY)));
    let other = ok!(dup(listener));
    close(listener);
    assert_eq!(set(SYS_getppid, ASK, NEW_LISTENER), Err(EBUSY));
    close(other);
    let again = listen(SYS_getppid, 0);
    // The old filter is there, and has nobody.
    fails!(ENOSYS, syscall(SYS_getsid, 0));
    let pid = fork(|| ok!(syscall(SYS_getppid)) as i32);
    assert_eq!(send(again, receive(again).id, 5, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(5));
}

fn without_listener() {
    assert_eq!(set(SYS_getsid, ASK, 0), Ok(0));
    assert_eq!(call(0), Err(ENOSYS));
    in_child(|| assert_eq!(call(0), Err(ENOSYS)));
}

fn listener_closed() {
    let listener = listen(SYS_getsid, 0);
    let alone = || {
        fork(|| {
            close(listener);
            call(0).map_or_else(|errno| 100 + errno, |value| value as i32)
        })
    };
    let received = alone();
    receive(listener);
    let announced = alone();
    while ready(listener) & POLLIN == 0 {
        sleep_ms(1);
    }
    let pending = [received, announced];
    close(listener);
    for pid in pending {
        assert_eq!(wait(pid), End::Exited(100 + ENOSYS));
    }
    assert_eq!(call(0), Err(ENOSYS));
}

fn descriptor() {
    let listener = listen(SYS_getsid, 0);
    assert_eq!(ok!(fcntl(listener, F_GETFD)), FD_CLOEXEC);
    assert_eq!(ok!(fcntl(listener, F_GETFL)) & O_ACCMODE, O_RDWR);
    let name = std::fs::read_link(format!("/proc/self/fd/{listener}")).expect("a link");
    assert_eq!(name.to_str(), Some("anon_inode:seccomp notify"));
    let mut bytes = [0u8; 80];
    fails!(EINVAL, libc::read(listener, bytes.as_mut_ptr().cast(), 80));
    fails!(EINVAL, libc::write(listener, bytes.as_ptr().cast(), 80));
    let (end, _other) = pipe();
    fails!(ENOTTY, ioctl(end, ID_VALID, &bytes));
}

fn no_descriptor_left() {
    let none = rlimit { rlim_cur: 3, rlim_max: 3 };
    let most = 3..64;
    for fd in most {
        let _ = sys!(libc::close(fd));
    }
    ok!(setrlimit(RLIMIT_NOFILE, &none));
    assert_eq!(set(SYS_getsid, ASK, NEW_LISTENER), Err(EMFILE));
    assert!(call(0).is_ok());
}

/// A thread listens to the others of its process.
fn own_process() {
    let listener = listen(SYS_getsid, 0);
    let threads: Vec<_> = (0..4).map(|n| std::thread::spawn(move || call(n))).collect();
    for _ in 0..4 {
        let notif = receive(listener);
        assert_eq!(send(listener, notif.id, notif.args[0] as i64 * 10, 0, 0), Ok(0));
    }
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().expect("joined"), Ok(n as i64 * 10));
    }
}

fn synchronized() {
    assert_eq!(set(SYS_getsid, ASK, NEW_LISTENER | TSYNC), Err(EINVAL));
    let (go, tell) = pipe();
    let thread = std::thread::spawn(move || {
        read(go, 1);
        call(0)
    });
    let listener = set(SYS_getsid, ASK, NEW_LISTENER | TSYNC | TSYNC_ESRCH).expect("a listener");
    write(tell, b"x");
    assert_eq!(send(listener, receive(listener).id, 12, 0, 0), Ok(0));
    assert_eq!(thread.join().expect("joined"), Ok(12));
    // A thread with a filter of its own: no descriptor is left behind.
    close(listener);
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
    let (go, tell) = pipe();
    let (ready, told) = pipe();
    let thread = std::thread::spawn(move || {
        set(SYS_getppid, ALLOW, 0).expect("a filter");
        write(told, b"x");
        read(go, 1);
    });
    read(ready, 1);
    let before = descriptors();
    assert_eq!(set(SYS_getpgid, ASK, NEW_LISTENER | TSYNC | TSYNC_ESRCH), Err(ESRCH));
    assert_eq!(descriptors(), before);
    assert!(sys!(syscall(SYS_getpgid, 0)).is_ok());
    write(tell, b"x");
    thread.join().expect("joined");
}

/// Calls that a sandbox may leave to its host.
fn host_calls() {
    let listener = listen(SYS_msync, 0);
    let page = ok!(mmap(ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) as usize;
    let sync = move |at: usize| {
        fork(move || {
            sys!(syscall(SYS_msync, at, 4096, MS_SYNC)).map_or_else(|errno| 100 + errno, |v| v as i32)
        })
    };
    let pid = sync(page);
    let notif = receive(listener);
    assert_eq!(notif.args[..3], [page as u64, 4096, MS_SYNC as u64]);
    assert_eq!(send(listener, notif.id, 31, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(31));
    for (at, result) in [(page, 0), (page + 1, 100 + EINVAL)] {
        let pid = sync(at);
        assert_eq!(send(listener, receive(listener).id, 0, 0, MADE), Ok(0));
        assert_eq!(wait(pid), End::Exited(result));
    }
}

/// The filter stays with the program that is executed, the descriptor does not.
fn after_exec() {
    let listener = listen(SYS_uname, 0);
    let pid = fork(|| {
        let null = ok!(open(c"/dev/null".as_ptr(), O_RDWR));
        ok!(dup2(null, 2));
        ok!(dup2(null, 1));
        let argv = [c"uname".as_ptr(), ptr::null()];
        ok!(execv(c"/bin/uname".as_ptr(), argv.as_ptr()));
        0
    });
    let notif = receive(listener);
    assert_eq!(notif.pid, pid as u32);
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let names: Vec<_> = files.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("seccomp")), "{names:?}");
    assert_eq!(send(listener, notif.id, 0, -EPERM, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(1));
}

fn which_filter_asks() {
    let listener = listen(SYS_getsid, 0);
    // Weaker and equal verdicts of newer filters: of equal ones the newest counts, which has no listener.
    assert_eq!(set(SYS_getsid, TRACE, 0), Ok(0));
    let pid = caller();
    assert_eq!(send(listener, receive(listener).id, 3, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(3));
    in_child(|| {
        assert_eq!(set(SYS_getsid, ASK, 0), Ok(0));
        assert_eq!(call(0), Err(ENOSYS));
    });
    assert_eq!(set(SYS_getsid, ERRNO | 66, 0), Ok(0));
    assert_eq!(call(0), Err(66));
    assert_eq!(ready(listener), 0);
}

fn set_flags() {
    let listener = listen(SYS_getsid, 0);
    if !linux(6, 6) {
        crate::harness::skip!("Linux 6.6 has it");
    }
    fails!(EINVAL, ioctl(listener, SET_FLAGS, 2));
    ok!(ioctl(listener, SET_FLAGS, 1));
    let pid = caller();
    assert_eq!(send(listener, receive(listener).id, 3, 0, 0), Ok(0));
    assert_eq!(wait(pid), End::Exited(3));
    ok!(ioctl(listener, SET_FLAGS, 0));
}
