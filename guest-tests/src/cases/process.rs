//! fork, exit, process groups and sessions.

use libc::*;

use crate::harness::{End, Temp, cases, fails, file, fork, in_child, ok, pipe, read, sleep_ms, wait, write};

cases!("process": fork_wait, exit_code_is_one_byte, child_sees_copy, getppid_of_child, orphan_is_reparented,
    process_group, setpgid_errors, setsid, getsid_of_unknown, descriptors_are_shared, many_forks, nested_forks,
    exit_group_ends_threads, vfork_shares_memory, kill_zero, pid_of_dead_is_gone);

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

fn vfork_shares_memory() {
    let mut value = 1;
    let cell = std::hint::black_box(&raw mut value);
    // SAFETY: the child only writes one integer that outlives it and leaves by _exit.
    let pid = unsafe {
        let pid = libc::syscall(SYS_vfork) as pid_t;
        if pid == 0 {
            cell.write_volatile(42);
            libc::syscall(SYS_exit, 3);
        }
        pid
    };
    // SAFETY: `cell` points to the live variable above.
    assert_eq!(unsafe { cell.read_volatile() }, 42);
    assert_eq!(wait(pid), End::Exited(3));
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
