//! POSIX message queues.

use std::ffi::CString;
use std::ptr;
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{End, c, cases, fails, fork, in_child, ok, sleep_ms, sys, wait, zeroed};

cases!("mqueue": send_receive_by_priority, names, no_descriptor_no_queue, attributes, defaults, nonblocking, times_out, waits_for_message,
    waits_for_room, interrupted, polls, notifies_by_signal, notify_rules, sizes, access_modes, permissions,
    unlinked_lives_on, file_system, descriptor_is_closed_by_exec);

fn name() -> CString {
    c(&format!("/guest-tests-{}", ok!(getpid())))
}

fn attr(messages: i64, bytes: i64) -> mq_attr {
    let mut attr: mq_attr = zeroed();
    attr.mq_maxmsg = messages;
    attr.mq_msgsize = bytes;
    attr
}

/// A new queue without a name.
fn queue(flags: i32, messages: i64, bytes: i64) -> i32 {
    let name = name();
    let mq =
        ok!(mq_open(name.as_ptr(), O_CREAT | O_EXCL | O_RDWR | flags, 0o600, &mut attr(messages, bytes)));
    ok!(mq_unlink(name.as_ptr()));
    mq
}

fn send(mq: i32, text: &[u8], priority: u32) -> Result<i32, i32> {
    sys!(mq_send(mq, text.as_ptr().cast(), text.len(), priority))
}

fn receive(mq: i32) -> Result<(Vec<u8>, u32), i32> {
    let mut text = vec![0u8; 64];
    let mut priority = 99;
    let n = sys!(mq_receive(mq, text.as_mut_ptr().cast(), 64, &mut priority))?;
    text.truncate(n as usize);
    Ok((text, priority))
}

fn send_receive_by_priority() {
    let mq = queue(0, 10, 64);
    for (text, priority) in [("a", 1), ("b", 5), ("c", 1), ("d", 0)] {
        send(mq, text.as_bytes(), priority).expect("sent");
    }
    let all: Vec<_> = (0..4).map(|_| receive(mq).expect("received")).collect();
    assert_eq!(all, [(b"b".to_vec(), 5), (b"a".to_vec(), 1), (b"c".to_vec(), 1), (b"d".to_vec(), 0)]);
}

fn names() {
    let name = name();
    fails!(ENOENT, mq_open(name.as_ptr(), O_RDWR));
    fails!(ENOENT, mq_unlink(name.as_ptr()));
    let mq = ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, ptr::null_mut::<mq_attr>()));
    fails!(EEXIST, mq_open(name.as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600, ptr::null_mut::<mq_attr>()));
    let again = ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(3, 3)));
    send(mq, b"x", 0).expect("sent");
    let mut now = attr(0, 0);
    ok!(mq_getattr(again, &mut now));
    assert_eq!(now.mq_curmsgs, 1);
    ok!(mq_unlink(name.as_ptr()));
    fails!(ENAMETOOLONG, mq_open(c(&format!("/{}", "n".repeat(256))).as_ptr(), O_RDWR));
    fails!(EACCES, syscall(SYS_mq_open, c"a/b".as_ptr(), O_RDWR, 0, 0));
    fails!(ENOENT, syscall(SYS_mq_open, c"".as_ptr(), O_RDWR, 0, 0));
}

fn no_descriptor_no_queue() {
    let mut old: rlimit = zeroed();
    ok!(getrlimit(RLIMIT_NOFILE, &mut old));
    let name = name();
    let none = rlimit { rlim_cur: 0, rlim_max: old.rlim_max };
    ok!(setrlimit(RLIMIT_NOFILE, &none));
    fails!(EMFILE, mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(1, 1)));
    ok!(setrlimit(RLIMIT_NOFILE, &old));
    fails!(ENOENT, mq_open(name.as_ptr(), O_RDWR));
}

fn attributes() {
    let mq = queue(0, 7, 33);
    let mut now = attr(0, 0);
    ok!(mq_getattr(mq, &mut now));
    assert_eq!((now.mq_flags, now.mq_maxmsg, now.mq_msgsize, now.mq_curmsgs), (0, 7, 33, 0));
    let mut new = attr(1, 1);
    new.mq_flags = O_NONBLOCK.into();
    ok!(mq_setattr(mq, &new, &mut now));
    assert_eq!(now.mq_flags, 0);
    ok!(mq_getattr(mq, &mut now));
    assert_eq!((now.mq_flags, now.mq_maxmsg), (O_NONBLOCK.into(), 7));
    new.mq_flags = O_APPEND.into();
    fails!(EINVAL, mq_setattr(mq, &new, ptr::null_mut()));
    fails!(EBADF, mq_getattr(0x7fff, &mut now));
    fails!(EBADF, mq_getattr(0, &mut now));
    for (messages, bytes) in [(0, 1), (1, 0), (-1, 5), (65537, 1), (1, (16 << 20) + 1)] {
        let name = name();
        fails!(EINVAL, mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(messages, bytes)));
    }
}

fn defaults() {
    let name = name();
    let mq = ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, ptr::null_mut::<mq_attr>()));
    ok!(mq_unlink(name.as_ptr()));
    let mut now = attr(0, 0);
    ok!(mq_getattr(mq, &mut now));
    assert_eq!((now.mq_maxmsg, now.mq_msgsize), (10, 8192));
    for (file, value) in
        [("msg_max", "10\n"), ("msgsize_max", "8192\n"), ("queues_max", "256\n"), ("msg_default", "10\n")]
    {
        assert_eq!(std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{file}")).expect(file), value);
    }
}

fn nonblocking() {
    let mq = queue(O_NONBLOCK, 2, 64);
    assert_eq!(receive(mq), Err(EAGAIN));
    send(mq, b"1", 0).expect("sent");
    send(mq, b"2", 0).expect("sent");
    assert_eq!(send(mq, b"3", 0), Err(EAGAIN));
}

fn times_out() {
    let mq = queue(0, 1, 64);
    let begin = Instant::now();
    let mut at: timespec = zeroed();
    ok!(clock_gettime(CLOCK_REALTIME, &mut at));
    at.tv_nsec += 30_000_000;
    if at.tv_nsec >= 1_000_000_000 {
        at.tv_nsec -= 1_000_000_000;
        at.tv_sec += 1;
    }
    let mut text = [0u8; 64];
    fails!(ETIMEDOUT, mq_timedreceive(mq, text.as_mut_ptr().cast(), 64, ptr::null_mut(), &at));
    assert!(begin.elapsed() >= Duration::from_millis(25));
    send(mq, b"x", 0).expect("sent");
    fails!(ETIMEDOUT, mq_timedsend(mq, text.as_ptr().cast(), 1, 0, &at));
    at.tv_nsec = 1_000_000_000;
    fails!(EINVAL, mq_timedreceive(mq, text.as_mut_ptr().cast(), 64, ptr::null_mut(), &at));
}

fn waits_for_message() {
    let mq = queue(0, 1, 64);
    let pid = fork(|| i32::from(receive(mq) != Ok((b"now".to_vec(), 3))));
    sleep_ms(20);
    send(mq, b"now", 3).expect("sent");
    assert_eq!(wait(pid), End::Exited(0));
}

fn waits_for_room() {
    let mq = queue(0, 1, 64);
    send(mq, b"first", 0).expect("sent");
    let pid = fork(|| send(mq, b"second", 0).unwrap_or(9));
    sleep_ms(20);
    assert_eq!(receive(mq), Ok((b"first".to_vec(), 0)));
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(receive(mq), Ok((b"second".to_vec(), 0)));
}

extern "C" fn nothing(_: i32) {}

fn on_signal(flags: i32) {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = nothing as *const () as usize;
    action.sa_flags = flags;
    ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
}

fn interrupted() {
    let mq = queue(0, 1, 64);
    for (flags, end) in [(0, EINTR), (SA_RESTART, 0)] {
        let pid = fork(|| {
            on_signal(flags);
            receive(mq).map_or_else(|errno| errno, |_| 0)
        });
        sleep_ms(50);
        ok!(kill(pid, SIGUSR1));
        sleep_ms(20);
        if end == 0 {
            send(mq, b"x", 0).expect("sent");
        }
        assert_eq!(wait(pid), End::Exited(end));
    }
}

fn polls() {
    let mq = queue(0, 1, 64);
    let mut entry = pollfd { fd: mq, events: POLLIN | POLLOUT, revents: 0 };
    ok!(poll(&mut entry, 1, 0));
    assert_eq!(entry.revents, POLLOUT);
    send(mq, b"x", 0).expect("sent");
    ok!(poll(&mut entry, 1, 0));
    assert_eq!(entry.revents, POLLIN);
    let pid = fork(|| {
        sleep_ms(20);
        i32::from(receive(mq).is_err())
    });
    entry.events = POLLOUT;
    assert_eq!(ok!(poll(&mut entry, 1, 2000)), 1);
    assert_eq!(wait(pid), End::Exited(0));
}

fn notifies_by_signal() {
    let mq = queue(0, 4, 64);
    let mut set: sigset_t = zeroed();
    ok!(sigaddset(&mut set, SIGUSR1));
    ok!(sigprocmask(SIG_BLOCK, &set, ptr::null_mut()));
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    event.sigev_value.sival_ptr = ptr::without_provenance_mut(77);
    ok!(mq_notify(mq, &event));
    let pid = fork(|| send(mq, b"x", 0).unwrap_or(9));
    let mut info: siginfo_t = zeroed();
    let time = timespec { tv_sec: 2, tv_nsec: 0 };
    assert_eq!(ok!(sigtimedwait(&set, &mut info, &time)), SIGUSR1);
    assert_eq!(info.si_code, -3);
    // SAFETY: SI_MESGQ fills pid and value.
    assert_eq!(unsafe { (info.si_pid(), info.si_value().sival_ptr.addr()) }, (pid, 77));
    wait(pid);
    // Once only, and only from empty.
    send(mq, b"y", 0).expect("sent");
    let short = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    fails!(EAGAIN, sigtimedwait(&set, &mut info, &short));
    ok!(mq_notify(mq, &event));
    send(mq, b"z", 0).expect("sent");
    fails!(EAGAIN, sigtimedwait(&set, &mut info, &short));
}

fn notify_rules() {
    let mq = queue(0, 4, 64);
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_NONE;
    ok!(mq_notify(mq, &event));
    fails!(EBUSY, mq_notify(mq, &event));
    in_child(|| {
        fails!(EBUSY, mq_notify(mq, &event));
        // Not its to take away.
        ok!(mq_notify(mq, ptr::null()));
    });
    fails!(EBUSY, mq_notify(mq, &event));
    ok!(mq_notify(mq, ptr::null()));
    ok!(mq_notify(mq, &event));
    // Any descriptor closed takes it along, and so does the end of the process.
    ok!(close(ok!(dup(mq))));
    in_child(|| {
        ok!(mq_notify(mq, &event));
    });
    ok!(mq_notify(mq, &event));
    event.sigev_notify = 9;
    fails!(EINVAL, mq_notify(mq, &event));
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = 65;
    fails!(EINVAL, mq_notify(mq, &event));
    fails!(EBADF, mq_notify(0x7fff, ptr::null()));
}

fn sizes() {
    let mq = queue(0, 4, 8);
    assert_eq!(send(mq, &[0; 9], 0), Err(EMSGSIZE));
    assert_eq!(send(mq, &[1; 8], 32768), Err(EINVAL));
    assert_eq!(send(mq, &[1; 8], 32767), Ok(0));
    let mut text = [0u8; 8];
    fails!(EMSGSIZE, mq_receive(mq, text.as_mut_ptr().cast(), 7, ptr::null_mut()));
    assert_eq!(ok!(mq_receive(mq, text.as_mut_ptr().cast(), 8, ptr::null_mut())), 8);
    assert_eq!(send(mq, &[], 0), Ok(0));
    assert_eq!(ok!(mq_receive(mq, text.as_mut_ptr().cast(), 8, ptr::null_mut())), 0);
    fails!(EFAULT, mq_send(mq, ptr::without_provenance(8), 4, 0));
}

fn access_modes() {
    let name = name();
    let both = ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(4, 64)));
    let reader = ok!(mq_open(name.as_ptr(), O_RDONLY));
    let writer = ok!(mq_open(name.as_ptr(), O_WRONLY));
    ok!(mq_unlink(name.as_ptr()));
    assert_eq!(send(reader, b"x", 0), Err(EBADF));
    assert_eq!(send(writer, b"x", 0), Ok(0));
    assert_eq!(receive(writer), Err(EBADF));
    assert_eq!(receive(reader), Ok((b"x".to_vec(), 0)));
    assert_eq!(send(0x7fff, b"x", 0), Err(EBADF));
    ok!(close(both));
}

fn permissions() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    let name = name();
    ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o604, &mut attr(4, 64)));
    in_child(|| {
        ok!(setresgid(1234, 1234, 1234));
        ok!(setgroups(0, ptr::null()));
        ok!(setresuid(1234, 1234, 1234));
        ok!(mq_open(name.as_ptr(), O_RDONLY));
        fails!(EACCES, mq_open(name.as_ptr(), O_WRONLY));
        fails!(EACCES, mq_open(name.as_ptr(), O_RDWR));
        let errno = sys!(mq_unlink(name.as_ptr())).expect_err("not the owner");
        assert!([EACCES, EPERM].contains(&errno));
        // No privilege: the limits hold.
        fails!(EINVAL, mq_open(c"/guest-tests-more".as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(11, 64)));
        fails!(EINVAL, mq_open(c"/guest-tests-more".as_ptr(), O_CREAT | O_RDWR, 0o600, &mut attr(1, 8193)));
    });
    ok!(mq_unlink(name.as_ptr()));
}

fn unlinked_lives_on() {
    let mq = queue(0, 4, 64);
    send(mq, b"x", 0).expect("sent");
    in_child(|| assert_eq!(receive(mq), Ok((b"x".to_vec(), 0))));
    let mut stat: stat = zeroed();
    ok!(fstat(mq, &mut stat));
    assert_eq!((stat.st_mode, stat.st_nlink, stat.st_size), (S_IFREG | 0o600, 0, 80));
}

fn file_system() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    let temp = crate::harness::Temp::new();
    ok!(unshare(CLONE_NEWNS));
    let path = temp.join("");
    if let Err(errno) = sys!(mount(c"none".as_ptr(), path.as_ptr(), c"mqueue".as_ptr(), 0, ptr::null())) {
        crate::harness::skip!("no mount of mqueue here: {errno}");
    }
    let name = name();
    let mq = ok!(mq_open(name.as_ptr(), O_CREAT | O_RDWR, 0o640, &mut attr(4, 64)));
    send(mq, b"hello", 0).expect("sent");
    let file = temp.path().join(&name.to_str().expect("ascii")[1..]);
    let text = std::fs::read_to_string(&file).expect("the queue as a file");
    assert_eq!(text, "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
    let listed = std::fs::read_dir(temp.path()).expect("list").filter_map(Result::ok);
    assert!(listed.into_iter().any(|entry| entry.path() == file));
    let opened = ok!(open(c(file.to_str().expect("ascii")).as_ptr(), O_RDWR));
    assert_eq!(receive(opened), Ok((b"hello".to_vec(), 0)));
    std::fs::write(temp.path().join("made"), b"").expect("a file is a queue");
    let made = ok!(mq_open(c"/made".as_ptr(), O_RDWR));
    send(made, b"x", 1).expect("sent");
    std::fs::remove_file(temp.path().join("made")).expect("removed");
    std::fs::remove_file(&file).expect("removed");
    fails!(ENOENT, mq_open(name.as_ptr(), O_RDWR));
    ok!(umount2(path.as_ptr(), MNT_DETACH));
}

fn descriptor_is_closed_by_exec() {
    let mq = queue(0, 4, 64);
    assert_eq!(ok!(fcntl(mq, F_GETFD)), FD_CLOEXEC);
    let link = std::fs::read_link(format!("/proc/self/fd/{mq}")).expect("a link");
    assert!(link.to_str().expect("ascii").starts_with("/guest-tests-"), "{link:?}");
}
