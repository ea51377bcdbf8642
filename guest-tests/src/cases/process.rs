//! fork, exit, process groups and sessions.

use libc::*;

use crate::harness::{
    End, Temp, cases, fails, file, fork, in_child, ok, pipe, read, skip, sleep_ms, wait, write, zeroed,
};

cases!("process": fork_wait, exit_code_is_one_byte, child_sees_copy, getppid_of_child, orphan_is_reparented,
    process_group, setpgid_errors, setsid, getsid_of_unknown, descriptors_are_shared, many_forks, nested_forks,
    exit_group_ends_threads, vfork_shares_memory, kill_zero, pid_of_dead_is_gone, state_of_native_waits,
    name_of_a_zombie, pidfd_to_a_bad_address, signal_by_proc_directory, personality_takes_any, nonblocking_pidfd,
    login_is_kept, oom_score_is_not_lowered,
    children_are_listed, children_of_threads, forks_while_children_end, thousands_look_at_themselves, file_of_a_dead_process);

fn fork_wait() {
    let pid = fork(|| 7);
    assert!(pid > 0);
    assert_eq!(wait(pid), End::Exited(7));
}

fn exit_code_is_one_byte() {
    assert_eq!(wait(fork(|| 0x1ff)), End::Exited(0xff));
}

fn child_sees_copy() {
    let mut value = 1;
    let pid = fork(|| {
        value = 2;
        value - 2
    });
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(value, 1);
}

fn getppid_of_child() {
    let parent = ok!(getpid());
    in_child(|| assert_eq!(ok!(getppid()), parent));
}

fn orphan_is_reparented() {
    let (r, w) = pipe();
    let middle = fork(|| {
        let me = ok!(getpid());
        fork(|| {
            while ok!(getppid()) == me {
                sleep_ms(2);
            }
            write(w, &ok!(getppid()).to_le_bytes());
            0
        });
        0
    });
    assert_eq!(wait(middle), End::Exited(0));
    let parent = read(r, 4);
    assert_eq!(parent.len(), 4);
    let parent = i32::from_le_bytes([parent[0], parent[1], parent[2], parent[3]]);
    assert_ne!(parent, middle);
    assert!(parent >= 0);
}

fn process_group() {
    let (r, w) = pipe();
    let child = fork(|| {
        read(r, 1);
        let me = ok!(getpid());
        i32::from(ok!(getpgrp()) != me || ok!(getpgid(0)) != me)
    });
    ok!(setpgid(child, child));
    assert_eq!(ok!(getpgid(child)), child);
    write(w, b"x");
    assert_eq!(wait(child), End::Exited(0));
}

fn setpgid_errors() {
    fails!(EINVAL, setpgid(0, -1));
    fails!(ESRCH, setpgid(1 << 21, 0));
    in_child(|| {
        ok!(libc::setsid());
        fails!(EPERM, setpgid(0, 0));
    });
}

fn setsid() {
    in_child(|| {
        let me = ok!(getpid());
        assert_eq!(ok!(libc::setsid()), me);
        assert_eq!(ok!(getsid(0)), me);
        assert_eq!(ok!(getpgrp()), me);
        fails!(EPERM, libc::setsid());
        fails!(ENXIO, open(c"/dev/tty".as_ptr(), O_RDWR));
    });
}

fn getsid_of_unknown() {
    fails!(ESRCH, getsid(1 << 21));
    fails!(ESRCH, getpgid(1 << 21));
}

fn descriptors_are_shared() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123456789").as_ptr(), O_RDONLY));
    in_child(|| assert_eq!(read(fd, 4), b"0123"));
    assert_eq!(read(fd, 4), b"4567");
}

fn many_forks() {
    let children: Vec<_> = (0..50).map(|i| (i, fork(move || i))).collect();
    for (i, pid) in children {
        assert_eq!(wait(pid), End::Exited(i));
    }
}

fn nested_forks() {
    fn nest(depth: i32) -> i32 {
        if depth == 0 {
            return 0;
        }
        match wait(fork(move || nest(depth - 1))) {
            End::Exited(n) => n + 1,
            End::Killed(_) => 99,
        }
    }
    assert_eq!(nest(10), 10);
}

fn exit_group_ends_threads() {
    let pid = fork(|| {
        for _ in 0..4 {
            std::thread::spawn(|| {
                loop {
                    sleep_ms(1000);
                }
            });
        }
        // One that never makes a call must end as well.
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        sleep_ms(20);
        5
    });
    assert_eq!(wait(pid), End::Exited(5));
}

/// The child, which has its parent's stack as well, leaves without having used it.
fn vfork_shares_memory() {
    let mut value = 1;
    let cell = &raw mut value;
    let pid: i64;
    // SAFETY: the child writes one integer that outlives it, touches no register of its parent's and leaves by _exit.
    unsafe {
        std::arch::asm!(
            "syscall", "test eax, eax", "jnz 2f", "mov dword ptr [rdi], 42", "mov edi, 3", "mov eax, {exit}", "syscall",
            "2:", exit = const SYS_exit, inlateout("rax") SYS_vfork => pid, in("rdi") cell, lateout("rcx") _,
            lateout("r11") _
        );
    }
    // SAFETY: `cell` points to the live variable above.
    assert_eq!(unsafe { cell.read_volatile() }, 42);
    assert_eq!(wait(pid as pid_t), End::Exited(3));
}

fn kill_zero() {
    ok!(kill(ok!(getpid()), 0));
    fails!(ESRCH, kill(1 << 21, 0));
    fails!(EINVAL, kill(ok!(getpid()), 65));
}

fn pid_of_dead_is_gone() {
    let pid = fork(|| 0);
    wait(pid);
    fails!(ESRCH, kill(pid, 0));
}

/// A process that waits in a futex, which the host does for it, is seen to sleep; one that computes to run.
fn state_of_native_waits() {
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let word = std::sync::atomic::AtomicU32::new(0);
    let sleeper = fork(|| ok!(libc::syscall(libc::SYS_futex, word.as_ptr(), 0, 0, 0, 0, 0)) as i32);
    let runner = fork(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    for _ in 0..2000 {
        if state(sleeper) == Some('S') {
            break;
        }
        sleep_ms(1);
    }
    assert_eq!(state(sleeper), Some('S'));
    assert_eq!(state(runner), Some('R'));
    for pid in [sleeper, runner] {
        ok!(libc::kill(pid, libc::SIGKILL));
        assert_eq!(wait(pid), End::Killed(libc::SIGKILL));
    }
}

/// A zombie keeps its name.
fn name_of_a_zombie() {
    let pid = fork(|| {
        ok!(libc::prctl(libc::PR_SET_NAME, c"ended".as_ptr()));
        0
    });
    let mut info: libc::siginfo_t = zeroed();
    ok!(libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WEXITED | libc::WNOWAIT));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    assert!(stat.starts_with(&format!("{pid} (ended) Z ")), "{stat}");
    assert_eq!(wait(pid), End::Exited(0));
}

/// clone3 with a bad address for the pidfd makes no process.
fn pidfd_to_a_bad_address() {
    let mut args = [0u64; 8];
    args[0] = 0x1000;
    args[1] = 8;
    args[4] = libc::SIGCHLD as u64;
    fails!(libc::EFAULT, libc::syscall(libc::SYS_clone3, args.as_ptr(), 64));
    fails!(libc::ECHILD, libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG));
    // No descriptor is left.
    let lowest = ok!(libc::dup(1));
    ok!(libc::close(lowest));
    let mut fd = -1i32;
    args[1] = (&raw mut fd) as u64;
    let pid = ok!(libc::syscall(libc::SYS_clone3, args.as_ptr(), 64));
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(6) };
    }
    assert_eq!(fd, lowest);
    assert_eq!(wait(pid as i32), End::Exited(6));
    // Reaped: it names nobody any more.
    fails!(libc::ESRCH, libc::syscall(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    assert!(info.contains("Pid:\t-1\n"), "{info}");
}

/// A directory of /proc does for pidfd_send_signal(2), but nothing else of it.
fn signal_by_proc_directory() {
    let pid = fork(|| {
        sleep_ms(10_000);
        0
    });
    let open = |path: String| {
        ok!(libc::open(
            std::ffi::CString::new(path).expect("a path").as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC
        ))
    };
    let file = open(format!("/proc/{pid}/stat"));
    fails!(libc::EBADF, libc::syscall(libc::SYS_pidfd_send_signal, file, libc::SIGTERM, 0, 0));
    let directory = open(format!("/proc/{pid}"));
    ok!(libc::syscall(libc::SYS_pidfd_send_signal, directory, libc::SIGTERM, 0, 0));
    assert_eq!(wait(pid), End::Killed(libc::SIGTERM));
}

fn personality_takes_any() {
    let call = |value: u64| ok!(libc::syscall(libc::SYS_personality, value));
    let before = call(0xffff_ffff);
    assert_eq!(call(0x0410_0001), before);
    assert_eq!(call(0xffff_ffff), 0x0410_0001);
    let shown = std::fs::read_to_string("/proc/self/personality").expect("personality");
    assert_eq!(shown, "04100001\n");
    // STICKY_TIMEOUTS.
    let mut time = libc::timeval { tv_sec: 0, tv_usec: 10 };
    assert_eq!(ok!(libc::syscall(libc::SYS_select, 0, 0, 0, 0, &raw mut time)), 0);
    assert_eq!(time.tv_usec, 10);
    call(before as u64);
}

fn oom_score_is_not_lowered() {
    if ok!(geteuid()) != 0 {
        skip!("only root may become another user");
    }
    let set = |value: &str| std::fs::write("/proc/self/oom_score_adj", value).map_err(|e| e.raw_os_error());
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        // The files of a process that changed its user are root's until exec, natively.
        ok!(prctl(PR_SET_DUMPABLE, 1));
        assert_eq!(set("20"), Ok(()));
        assert_eq!(set("1000"), Ok(()));
        assert_eq!(set("-1"), Err(Some(EACCES)));
        assert_eq!(set("-1000"), Err(Some(EACCES)));
    });
}

fn children_are_listed() {
    let path = format!("/proc/self/task/{}/children", ok!(getpid()));
    let listed = || std::fs::read_to_string(&path).expect("children");
    assert_eq!(listed(), "");
    let (r, w) = pipe();
    let children = [(); 2].map(|()| {
        fork(|| {
            ok!(close(w));
            read(r, 1);
            0
        })
    });
    assert_eq!(listed(), format!("{} {} ", children[0], children[1]));
    ok!(close(w));
    for pid in children {
        assert_eq!(wait(pid), End::Exited(0));
    }
    assert_eq!(listed(), "");
    ok!(close(r));
}

/// A child is its maker's among the threads, for proc(5) and for __WNOTHREAD, until that thread ends.
fn children_of_threads() {
    let (r, w) = pipe();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let maker = std::thread::spawn(move || {
        let pid = fork(|| {
            read(r, 1);
            0
        });
        tell.send((ok!(syscall(SYS_gettid)), pid)).expect("the first thread waits");
        let _ = ended.recv();
    });
    let (tid, pid) = told.recv().expect("a child");
    let listed = |tid: c_long| std::fs::read_to_string(format!("/proc/self/task/{tid}/children"));
    let (first, both) = (c_long::from(ok!(getpid())), format!("{pid} "));
    assert_eq!(listed(tid).expect("children"), both);
    assert_eq!(listed(first).expect("children"), "");
    let mut status = 0;
    fails!(ECHILD, waitpid(-1, &mut status, WNOHANG | __WNOTHREAD));
    assert_eq!(ok!(waitpid(-1, &mut status, WNOHANG)), 0);
    drop(end);
    maker.join().expect("joined");
    while listed(first).expect("children") != both {
        sleep_ms(2);
    }
    assert_eq!(ok!(waitpid(pid, &mut status, WNOHANG | __WNOTHREAD)), 0);
    write(w, b"x");
    assert_eq!(wait(pid), End::Exited(0));
}

fn login_is_kept() {
    let shown = || std::fs::read_to_string("/proc/self/loginuid").expect("loginuid");
    if shown() != "4294967295" {
        skip!("somebody has logged in already, and only the auditor may change that");
    }
    in_child(|| {
        std::fs::write("/proc/self/loginuid", "1000").expect("loginuid");
        assert_eq!(shown(), "1000");
        let of_child = fork(|| i32::from(shown() != "1000"));
        assert_eq!(wait(of_child), End::Exited(0));
        let session = std::fs::read_to_string("/proc/self/sessionid").expect("sessionid");
        assert_ne!(session, "4294967295");
        let others = format!("/proc/{}/loginuid", ok!(getppid()));
        let denied = std::fs::write(others, "1000").expect_err("of another process");
        assert_eq!(denied.raw_os_error(), Some(libc::EPERM));
    });
}

fn nonblocking_pidfd() {
    let (r, w) = pipe();
    let pid = fork(|| {
        read(r, 1);
        3
    });
    let fd = ok!(libc::syscall(libc::SYS_pidfd_open, pid, libc::O_NONBLOCK)) as u32;
    let mut info: libc::siginfo_t = zeroed();
    fails!(libc::EAGAIN, libc::waitid(libc::P_PIDFD, fd, &mut info, libc::WEXITED));
    write(w, b"x");
    let mut poll = libc::pollfd { fd: fd as i32, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut poll, 1, 5000)), 1);
    ok!(libc::waitid(libc::P_PIDFD, fd, &mut info, libc::WEXITED));
    // SAFETY: filled in for a child that has exited.
    assert_eq!(unsafe { (info.si_pid(), info.si_status()) }, (pid, 3));
}

/// The signal of one child comes while the next is being made, as in a shell's pipeline.
fn forks_while_children_end() {
    super::signal::on(libc::SIGCHLD, libc::SA_RESTART);
    for round in 0..1500 {
        let first = fork(|| 1);
        for _ in 0..round % 50 * 10 {
            std::hint::spin_loop();
        }
        let second = fork(|| 2);
        assert_eq!((wait(first), wait(second)), (End::Exited(1), End::Exited(2)));
    }
}

/// More than there can be at a time.
fn thousands_look_at_themselves() {
    for _ in 0..2500 {
        let pid = fork(|| std::fs::metadata("/proc/self/exe").map_or(1, |_| 0));
        assert_eq!(wait(pid), End::Exited(0));
    }
}

fn file_of_a_dead_process() {
    let (ours, theirs) = crate::harness::pipe();
    let pid = fork(move || {
        crate::harness::read(ours, 1);
        0
    });
    let open = |name: &str| std::fs::File::open(format!("/proc/{pid}/{name}")).expect("of a child");
    let (stat, _exe) = (open("stat"), open("exe"));
    crate::harness::write(theirs, b"x");
    assert_eq!(wait(pid), End::Exited(0));
    let error = std::io::read_to_string(stat).expect_err("nobody is left");
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}
