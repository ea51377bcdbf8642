//! What keeps processes, users and namespaces apart where another way leads around it.

use std::ffi::CString;
use std::ptr;

use libc::*;

use crate::harness::{
    End, Temp, c, cases, close, fails, fork, is_root, ok, pipe, read, skip, sys, wait, write,
};

cases!("guard": program_that_cannot_be_read, tracees_that_ended_count, mounts_of_another_namespace, text_read_in_pieces);

/// Becomes a user that nobody else is: tasks are counted by user.
fn leave_root() {
    let user = user_of_test();
    ok!(setgroups(0, ptr::null()));
    ok!(setresgid(user, user, user));
    ok!(setresuid(user, user, user));
}

fn user_of_test() -> u32 {
    100_000 + ok!(getpid()) as u32
}

/// A program of root's that others may execute, and perhaps read.
fn program(temp: &Temp, mode: u32) -> CString {
    let path = temp.join("program");
    let _ = sys!(unlink(path.as_ptr()));
    std::fs::copy("/proc/self/exe", path.to_str().expect("ASCII")).expect("a copy");
    ok!(chmod(path.as_ptr(), mode));
    ok!(chmod(temp.join(".").as_ptr(), 0o755));
    path
}

fn stopped(pid: pid_t) -> i32 {
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, __WALL)), pid);
    assert!(WIFSTOPPED(status), "status {status:#x} is no stop");
    status >> 8
}

/// A user may execute what it may not read, and look into it by no other way either.
fn program_that_cannot_be_read() {
    if !is_root() {
        skip!("only root may become another user");
    }
    let temp = Temp::new();
    for (mode, by_list, open_to_user) in [(0o755, false, true), (0o711, false, false), (0o711, true, true)] {
        let path = program(&temp, mode);
        let user = fork(|| {
            if by_list {
                super::acl::let_read(&path, user_of_test());
            }
            leave_root();
            let pid = fork(|| {
                ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
                ok!(execl(path.as_ptr(), path.as_ptr(), ptr::null::<c_char>()));
                1
            });
            assert_eq!(stopped(pid), SIGTRAP);
            let mut registers: user_regs_struct = crate::harness::zeroed();
            ok!(ptrace(PTRACE_GETREGS, pid, 0, &raw mut registers));
            let at = registers.rsp;
            let mut word = 0u64;
            let peek = sys!(syscall(SYS_ptrace, PTRACE_PEEKDATA as c_long, pid, at, &raw mut word));
            let poke = sys!(syscall(SYS_ptrace, PTRACE_POKEDATA as c_long, pid, at, word));
            let local = iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
            let remote = iovec { iov_base: at as *mut _, iov_len: 8 };
            let copy = sys!(process_vm_readv(pid, &local, 1, &remote, 1, 0));
            let memory = sys!(open(c(&format!("/proc/{pid}/environ")).as_ptr(), O_RDONLY));
            let exe = sys!(readlink(c(&format!("/proc/{pid}/exe")).as_ptr(), (&raw mut word).cast(), 8));
            if open_to_user {
                assert!(peek.is_ok() && poke.is_ok() && copy.is_ok() && memory.is_ok() && exe.is_ok());
            } else {
                assert_eq!((peek, poke), (Err(EIO), Err(EIO)));
                assert_eq!((copy, memory, exe), (Err(EPERM), Err(EACCES), Err(EACCES)));
            }
            ok!(kill(pid, SIGKILL));
            assert_eq!(wait(pid), End::Killed(SIGKILL));
            0
        });
        assert_eq!(wait(user), End::Exited(0));
    }
}

/// Threads whose tracer has not waited for their end are tasks of their user.
fn tracees_that_ended_count() {
    if !is_root() {
        skip!("only root may become another user");
    }
    let tracer = fork(|| {
        leave_root();
        let (r, w) = pipe();
        let pid = fork(|| {
            ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
            ok!(raise(SIGSTOP));
            std::thread::spawn(|| {}).join().expect("joined");
            write(w, b"x");
            loop {
                ok!(pause());
            }
        });
        assert_eq!(stopped(pid), SIGSTOP);
        ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
        ok!(ptrace(PTRACE_CONT, pid, 0, 0));
        assert_eq!(stopped(pid), SIGTRAP | PTRACE_EVENT_CLONE << 8);
        let mut thread: c_ulong = 0;
        ok!(ptrace(PTRACE_GETEVENTMSG, pid, 0, &raw mut thread));
        let thread = thread as pid_t;
        assert_eq!(stopped(thread), SIGSTOP);
        ok!(ptrace(PTRACE_CONT, pid, 0, 0));
        ok!(ptrace(PTRACE_CONT, thread, 0, 0));
        assert_eq!(read(r, 1), b"x");
        // Tracer, tracee, and the thread that ended: one more and no other.
        ok!(setrlimit(RLIMIT_NPROC, &rlimit { rlim_cur: 4, rlim_max: 4 }));
        let (alive_r, alive_w) = pipe();
        let child = fork(|| {
            close(alive_w);
            read(alive_r, 1);
            0
        });
        fails!(EAGAIN, libc::fork());
        let mut status = 0;
        assert_eq!(ok!(waitpid(thread, &mut status, __WALL)), thread);
        let more = fork(|| 3);
        assert_eq!(wait(more), End::Exited(3));
        close(alive_w);
        assert_eq!(wait(child), End::Exited(0));
        ok!(kill(pid, SIGKILL));
        assert_eq!(wait(pid), End::Killed(SIGKILL));
        0
    });
    assert_eq!(wait(tracer), End::Exited(0));
}

/// What another mount namespace has mounted can be seen by /proc/PID/root, and no more.
fn mounts_of_another_namespace() {
    if !is_root() {
        skip!("only root may mount");
    }
    let temp = Temp::new();
    let child = fork(|| {
        if sys!(unshare(CLONE_NEWNS)).is_err() {
            return 77;
        }
        let none = ptr::null::<c_void>();
        ok!(mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), MS_REC | MS_PRIVATE, none));
        let (theirs, ours) = (temp.join("theirs"), temp.join("ours"));
        ok!(mkdir(theirs.as_ptr(), 0o755));
        ok!(mkdir(ours.as_ptr(), 0o755));
        let (r, w) = pipe();
        let (stay_r, stay_w) = pipe();
        let other = fork(|| {
            close(stay_w);
            ok!(unshare(CLONE_NEWNS));
            ok!(mount(c"t".as_ptr(), theirs.as_ptr(), c"tmpfs".as_ptr(), 0, none));
            ok!(mkdir(c(&format!("{}/old", theirs.to_str().expect("ASCII"))).as_ptr(), 0o755));
            write(w, b"x");
            read(stay_r, 1);
            0
        });
        read(r, 1);
        let foreign = c(&format!("/proc/{other}/root{}", theirs.to_str().expect("ASCII")));
        let old = c(&format!("{}/old", foreign.to_str().expect("ASCII")));
        ok!(access(old.as_ptr(), R_OK));
        for flags in [MS_BIND, MS_BIND | MS_REC, MS_MOVE] {
            fails!(EINVAL, mount(foreign.as_ptr(), ours.as_ptr(), ptr::null(), flags, none));
        }
        fails!(EINVAL, mount(c"t".as_ptr(), old.as_ptr(), c"tmpfs".as_ptr(), 0, none));
        fails!(EINVAL, mount(ours.as_ptr(), old.as_ptr(), ptr::null(), MS_BIND, none));
        fails!(
            EINVAL,
            mount(ptr::null(), foreign.as_ptr(), ptr::null(), MS_REMOUNT | MS_BIND | MS_RDONLY, none)
        );
        let attr = [MOUNT_ATTR_RDONLY, 0, 0, 0u64];
        fails!(EINVAL, syscall(SYS_mount_setattr, AT_FDCWD, foreign.as_ptr(), 0, attr.as_ptr(), 32));
        fails!(EINVAL, umount2(foreign.as_ptr(), MNT_DETACH));
        fails!(EINVAL, syscall(SYS_pivot_root, foreign.as_ptr(), old.as_ptr()));
        // Its own it may bind, and what was taken off is nobody's any more.
        ok!(mount(c"t".as_ptr(), ours.as_ptr(), c"tmpfs".as_ptr(), 0, none));
        let fd = ok!(open(ours.as_ptr(), O_DIRECTORY | O_RDONLY));
        ok!(umount2(ours.as_ptr(), MNT_DETACH));
        let gone = c(&format!("/proc/self/fd/{fd}"));
        fails!(EINVAL, mount(gone.as_ptr(), ours.as_ptr(), ptr::null(), MS_BIND, none));
        close(stay_w);
        assert_eq!(wait(other), End::Exited(0));
        0
    });
    match wait(child) {
        End::Exited(77) => skip!("needs mount namespaces"),
        end => assert_eq!(end, End::Exited(0)),
    }
}

/// However a text of the kernel is read, it is the same: in pieces, after its end, from many descriptors.
fn text_read_in_pieces() {
    let open_one = || ok!(open(c"/proc/self/status".as_ptr(), O_RDONLY));
    let pieces = |fd: i32, size: usize| {
        let mut all = Vec::new();
        loop {
            let piece = read(fd, size);
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    };
    let name = |text: &[u8]| text.split(|b| *b == b'\n').next().expect("a line").to_vec();
    let files: Vec<i32> = (0..200).map(|_| open_one()).collect();
    for fd in &files {
        // Begun and left.
        assert_eq!(read(*fd, 5), b"Name:");
    }
    let whole = pieces(open_one(), 1 << 16);
    for fd in files {
        assert!(name(&whole).ends_with(&read(fd, name(&whole).len() - 5)));
        pieces(fd, 100);
        assert_eq!(read(fd, 100), b"");
        ok!(lseek(fd, 0, SEEK_SET));
        assert_eq!(name(&pieces(fd, 7)), name(&whole));
        let mut buffer = [0u8; 4];
        assert_eq!(ok!(pread(fd, buffer.as_mut_ptr().cast(), 4, 1)), 4);
        assert_eq!(&buffer, b"ame:");
        close(fd);
    }
}
