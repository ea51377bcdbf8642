//! wait4, waitid and pidfd in all forms.

use libc::*;

use crate::harness::{
    End, cases, end_of, fails, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write, zeroed,
};

cases!("wait": no_children, no_hang, any_child, by_group, bad_options, killed_by_signal, stopped_and_continued,
    waitid_exited, waitid_keeps_with_nowait, waitid_killed, rusage_is_filled, sigchld_ignored_reaps,
    sigchld_siginfo, wait_interrupted, thread_may_wait, pidfd_polls, pidfd_waitid, pidfd_send_signal,
    pidfd_errors, pidfd_getfd_of_child, mrelease);

fn no_children() {
    fails!(ECHILD, waitpid(-1, std::ptr::null_mut(), 0));
    fails!(ECHILD, waitpid(1 << 21, std::ptr::null_mut(), WNOHANG));
}

fn no_hang() {
    let (r, w) = pipe();
    let pid = fork(|| {
        read(r, 1);
        0
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, WNOHANG)), 0);
    write(w, b"x");
    assert_eq!(wait(pid), End::Exited(0));
}

fn any_child() {
    let a = fork(|| 1);
    let b = fork(|| 2);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut status = 0;
        let pid = ok!(waitpid(-1, &mut status, 0));
        seen.push((pid, end_of(status)));
    }
    seen.sort_by_key(|s| s.0);
    let mut want = vec![(a, End::Exited(1)), (b, End::Exited(2))];
    want.sort_by_key(|s| s.0);
    assert_eq!(seen, want);
    fails!(ECHILD, waitpid(-1, std::ptr::null_mut(), 0));
}

fn by_group() {
    let (r, w) = pipe();
    let other = fork(|| {
        read(r, 1);
        1
    });
    ok!(setpgid(other, other));
    let same = fork(|| 2);
    let mut status = 0;
    assert_eq!(ok!(waitpid(0, &mut status, 0)), same);
    write(w, b"x");
    assert_eq!(ok!(waitpid(-other, &mut status, 0)), other);
    assert_eq!(end_of(status), End::Exited(1));
}

fn bad_options() {
    fails!(EINVAL, waitpid(-1, std::ptr::null_mut(), 0x100));
    let mut info: siginfo_t = zeroed();
    fails!(EINVAL, waitid(P_ALL, 0, &mut info, 0));
}

fn killed_by_signal() {
    for signal in [SIGKILL, SIGTERM, SIGUSR1, SIGRTMIN() + 1] {
        let pid = fork(|| {
            loop {
                sleep_ms(1000);
            }
        });
        ok!(kill(pid, signal));
        assert_eq!(wait(pid), End::Killed(signal));
    }
}

fn stopped_and_continued() {
    let pid = fork(|| {
        ok!(raise(SIGSTOP));
        4
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, WUNTRACED)), pid);
    assert!(WIFSTOPPED(status), "{status:#x}");
    assert_eq!(WSTOPSIG(status), SIGSTOP);
    assert_eq!(ok!(waitpid(pid, &mut status, WNOHANG)), 0);
    ok!(kill(pid, SIGCONT));
    assert_eq!(ok!(waitpid(pid, &mut status, WCONTINUED)), pid);
    if WIFCONTINUED(status) {
        assert_eq!(wait(pid), End::Exited(4));
    } else {
        // The child may have ended before this process asked.
        assert_eq!(end_of(status), End::Exited(4));
    }
}

fn info_of(pid: pid_t, options: i32) -> siginfo_t {
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PID, pid as id_t, &mut info, options));
    info
}

fn pid_and_status(info: &siginfo_t) -> (pid_t, i32) {
    // SAFETY: waitid fills the SIGCHLD member.
    unsafe { (info.si_pid(), info.si_status()) }
}

fn waitid_exited() {
    let pid = fork(|| 9);
    let info = info_of(pid, WEXITED);
    assert_eq!((info.si_signo, info.si_code), (SIGCHLD, CLD_EXITED));
    assert_eq!(pid_and_status(&info), (pid, 9));
    fails!(ECHILD, waitpid(pid, std::ptr::null_mut(), 0));
}

fn waitid_keeps_with_nowait() {
    let pid = fork(|| 9);
    info_of(pid, WEXITED | WNOWAIT);
    info_of(pid, WEXITED | WNOWAIT);
    assert_eq!(wait(pid), End::Exited(9));
}

fn waitid_killed() {
    let pid = fork(|| {
        loop {
            sleep_ms(1000);
        }
    });
    ok!(kill(pid, SIGKILL));
    let info = info_of(pid, WEXITED);
    assert_eq!(info.si_code, CLD_KILLED);
    assert_eq!(pid_and_status(&info), (pid, SIGKILL));
}

fn rusage_is_filled() {
    let pid = fork(|| {
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::spin_loop();
        }
        0
    });
    let mut usage: rusage = zeroed();
    let mut status = 0;
    assert_eq!(ok!(wait4(pid, &mut status, 0, &mut usage)), pid);
    let used = usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec;
    assert!(used > 5_000, "60 ms of work counted as {used} us");
    let mut children: rusage = zeroed();
    ok!(getrusage(RUSAGE_CHILDREN, &mut children));
    assert!(children.ru_utime.tv_sec * 1_000_000 + children.ru_utime.tv_usec >= used);
}

fn sigchld_ignored_reaps() {
    in_child(|| {
        ok!(sigaction(SIGCHLD, &super::signal::action(SIG_IGN, 0), std::ptr::null_mut()));
        let pid = fork(|| 0);
        fails!(ECHILD, waitpid(pid, std::ptr::null_mut(), 0));
        fails!(ESRCH, kill(pid, 0));
    });
}

fn sigchld_siginfo() {
    super::signal::block(&[SIGCHLD]);
    let pid = fork(|| 6);
    let info = super::signal::take(SIGCHLD);
    assert_eq!(info.si_code, CLD_EXITED);
    assert_eq!(pid_and_status(&info), (pid, 6));
    assert_eq!(wait(pid), End::Exited(6));
}

fn wait_interrupted() {
    super::signal::on(SIGALRM, 0);
    let pid = fork(|| {
        loop {
            sleep_ms(1000);
        }
    });
    super::signal::alarm_ms(30);
    fails!(EINTR, waitpid(pid, std::ptr::null_mut(), 0));
    ok!(kill(pid, SIGKILL));
    wait(pid);
}

fn thread_may_wait() {
    let pid = fork(|| 3);
    std::thread::spawn(move || assert_eq!(wait(pid), End::Exited(3))).join().expect("the thread waited");
}

fn pidfd(pid: pid_t) -> i32 {
    ok!(syscall(SYS_pidfd_open, pid, 0)) as i32
}

fn pidfd_polls() {
    let (r, w) = pipe();
    let pid = fork(|| {
        read(r, 1);
        0
    });
    let mut entry = pollfd { fd: pidfd(pid), events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut entry, 1, 0)), 0);
    write(w, b"x");
    assert_eq!(ok!(poll(&mut entry, 1, 5000)), 1);
    assert_eq!(entry.revents, POLLIN);
    wait(pid);
}

fn pidfd_waitid() {
    let pid = fork(|| 8);
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PIDFD, pidfd(pid) as id_t, &mut info, WEXITED));
    assert_eq!(pid_and_status(&info), (pid, 8));
}

fn pidfd_send_signal() {
    let pid = fork(|| {
        loop {
            sleep_ms(1000);
        }
    });
    let fd = pidfd(pid);
    ok!(syscall(SYS_pidfd_send_signal, fd, SIGTERM, 0, 0));
    assert_eq!(wait(pid), End::Killed(SIGTERM));
    fails!(ESRCH, syscall(SYS_pidfd_send_signal, fd, SIGTERM, 0, 0));
}

fn pidfd_errors() {
    fails!(EINVAL, syscall(SYS_pidfd_open, -1, 0));
    fails!(ESRCH, syscall(SYS_pidfd_open, 1 << 21, 0));
    fails!(EINVAL, syscall(SYS_pidfd_open, ok!(getpid()), 1));
    fails!(EBADF, syscall(SYS_pidfd_send_signal, 0, SIGTERM, 0, 0));
}

fn pidfd_getfd_of_child() {
    let (ready, tell) = pipe();
    let (_r, stay) = pipe();
    let pid = fork(|| {
        let (r, w) = pipe();
        write(w, b"hidden");
        write(tell, &r.to_le_bytes());
        loop {
            let _ = stay;
            sleep_ms(1000);
        }
    });
    let number = read(ready, 4);
    let number = i32::from_le_bytes([number[0], number[1], number[2], number[3]]);
    let mine = ok!(syscall(SYS_pidfd_getfd, pidfd(pid), number, 0)) as i32;
    assert_eq!(read(mine, 10), b"hidden");
    ok!(kill(pid, SIGKILL));
    wait(pid);
}

/// process_mrelease(2) is for processes that end.
fn mrelease() {
    let pid = fork(|| {
        loop {
            sleep_ms(1000);
        }
    });
    let fd = pidfd(pid);
    let (r, _w) = pipe();
    fails!(EINVAL, syscall(SYS_process_mrelease, fd, 1));
    fails!(EBADF, syscall(SYS_process_mrelease, -1, 0));
    fails!(EBADF, syscall(SYS_process_mrelease, r, 0));
    fails!(EINVAL, syscall(SYS_process_mrelease, fd, 0));
    ok!(kill(pid, SIGKILL));
    // It may have ended meanwhile.
    if let Err(errno) = sys!(syscall(SYS_process_mrelease, fd, 0)) {
        assert_eq!(errno, ESRCH);
    }
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PIDFD, fd as id_t, &mut info, WEXITED | WNOWAIT));
    fails!(ESRCH, syscall(SYS_process_mrelease, fd, 0));
    wait(pid);
    fails!(ESRCH, syscall(SYS_process_mrelease, fd, 0));
}
