//! prctl, arch_prctl, personality, names of the host, kcmp, unshare.

use libc::*;

use crate::harness::{
    End, cases, fails, fork, in_child, ok, pipe, read, skip, sleep_ms, wait, write, zeroed,
};

cases!("prctl": name, name_is_cut, parent_death, subreaper, dumpable, timer_slack, bad_option, personality_of,
    fs_base, kcmp_files, unshare_files, unshare_bad, host_name, tid_address);

fn name_of() -> [u8; 16] {
    let mut name = [0u8; 16];
    ok!(prctl(PR_GET_NAME, name.as_mut_ptr()));
    name
}

fn name() {
    ok!(prctl(PR_SET_NAME, c"short".as_ptr()));
    assert_eq!(&name_of()[..6], b"short\0");
    in_child(|| assert_eq!(&name_of()[..6], b"short\0"));
}

fn name_is_cut() {
    ok!(prctl(PR_SET_NAME, c"a name of many letters".as_ptr()));
    assert_eq!(&name_of(), b"a name of many \0");
    fails!(EFAULT, prctl(PR_SET_NAME, 8));
}

fn parent_death() {
    let (r, w) = pipe();
    let (alive_r, alive_w) = pipe();
    let parent = fork(|| {
        fork(|| {
            ok!(close(r));
            ok!(close(alive_r));
            ok!(prctl(PR_SET_PDEATHSIG, SIGKILL));
            let mut sig = 0i32;
            ok!(prctl(PR_GET_PDEATHSIG, &mut sig));
            assert_eq!(sig, SIGKILL);
            write(w, b"x");
            sleep_ms(10_000);
            0
        });
        read(r, 1);
        0
    });
    ok!(close(alive_w));
    wait(parent);
    // End of file: the grandchild is gone and its end of the pipe with it.
    assert_eq!(read(alive_r, 1), b"");
    fails!(EINVAL, prctl(PR_SET_PDEATHSIG, 99));
}

fn subreaper() {
    in_child(|| {
        ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
        let me = ok!(getpid());
        let (r, w) = pipe();
        wait(fork(|| {
            let middle = ok!(getpid());
            fork(move || {
                while ok!(getppid()) == middle {
                    sleep_ms(1);
                }
                write(w, &ok!(getppid()).to_le_bytes());
                3
            });
            0
        }));
        assert_eq!(read(r, 4), me.to_le_bytes());
        let mut status = 0;
        ok!(waitpid(-1, &mut status, 0));
        assert_eq!(crate::harness::end_of(status), End::Exited(3));
    });
}

fn dumpable() {
    in_child(|| {
        ok!(prctl(PR_SET_DUMPABLE, 0));
        assert_eq!(ok!(prctl(PR_GET_DUMPABLE)), 0);
        ok!(prctl(PR_SET_DUMPABLE, 1));
        assert_eq!(ok!(prctl(PR_GET_DUMPABLE)), 1);
        fails!(EINVAL, prctl(PR_SET_DUMPABLE, 2));
    });
}

fn timer_slack() {
    in_child(|| {
        ok!(prctl(PR_SET_TIMERSLACK, 1234));
        assert_eq!(ok!(prctl(PR_GET_TIMERSLACK)), 1234);
    });
}

fn bad_option() {
    fails!(EINVAL, prctl(0x7654_3210, 0, 0, 0, 0));
    fails!(EINVAL, syscall(SYS_arch_prctl, 0x9999, 0));
}

fn personality_of() {
    in_child(|| {
        let before = ok!(personality(0xffff_ffff));
        ok!(personality(before as c_ulong | 0x004_0000));
        assert_eq!(ok!(personality(0xffff_ffff)), before | 0x004_0000);
    });
}

fn fs_base() {
    let mut base = 0u64;
    ok!(syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &mut base));
    assert_ne!(base, 0);
    ok!(syscall(SYS_arch_prctl, 0x1002 /* ARCH_SET_FS */, base));
    fails!(EPERM, syscall(SYS_arch_prctl, 0x1002, u64::MAX));
}

fn kcmp_files() {
    let me = ok!(getpid());
    let copy = ok!(dup(0));
    let (r, _w) = pipe();
    match crate::harness::sys!(syscall(SYS_kcmp, me, me, 0, 0, copy)) {
        Err(ENOSYS) => skip!("no kcmp"),
        other => assert_eq!(other, Ok(0)),
    }
    assert_ne!(ok!(syscall(SYS_kcmp, me, me, 0, 0, r)), 0);
    fails!(EBADF, syscall(SYS_kcmp, me, me, 0, 0, 999));
    assert_eq!(ok!(syscall(SYS_kcmp, me, me, 1, 0, 0)), 0);
    fails!(EINVAL, syscall(SYS_kcmp, me, me, 99, 0, 0));
}

fn unshare_files() {
    let (r, w) = pipe();
    let thread = std::thread::spawn(move || {
        ok!(unshare(CLONE_FILES));
        ok!(close(w));
        ok!(close(r));
    });
    thread.join().expect("the thread ends");
    write(w, b"x");
    assert_eq!(read(r, 1), b"x");
}

fn unshare_bad() {
    fails!(EINVAL, unshare(1));
}

fn host_name() {
    let mut uts: utsname = zeroed();
    ok!(uname(&mut uts));
    let mut name = [0 as c_char; 65];
    ok!(gethostname(name.as_mut_ptr(), name.len()));
    assert_eq!(name[..10], uts.nodename[..10]);
    fails!(EFAULT, syscall(SYS_uname, 8));
}

fn tid_address() {
    let mut word = 0u32;
    let tid = ok!(syscall(SYS_set_tid_address, &mut word));
    assert_eq!(tid, ok!(syscall(SYS_gettid)));
}
