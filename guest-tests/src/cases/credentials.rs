//! User and group ids, capabilities. Cases that need root are skipped without.

use std::ffi::CString;

use libc::*;

use crate::harness::{cases, fails, in_child, ok, skip, sys};

cases!("credentials": ids_agree, leaving_root, saved_root_comes_back, groups, capget_versions, capset_only_lowers,
    bounding_set, ambient_needs_inheritable, keep_caps, no_new_privs_stays, securebits_default, fsuid,
    processes_of_others_are_closed);

pub(super) fn need_root() {
    if ok!(geteuid()) != 0 {
        skip!("needs root");
    }
    // A root without the right to change ids is no root here.
    let (effective, _, _) = caps();
    if effective & (1 << 6 | 1 << 7 | 1 << 8) != (1 << 6 | 1 << 7 | 1 << 8) {
        skip!("needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP");
    }
}

/// Effective, permitted, inheritable.
fn caps() -> (u64, u64, u64) {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    ok!(syscall(SYS_capget, header.as_ptr(), data.as_mut_ptr()));
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    (join(data[0], data[3]), join(data[1], data[4]), join(data[2], data[5]))
}

fn set_caps(effective: u64, permitted: u64, inheritable: u64) -> Result<i64, i32> {
    let header = [0x2008_0522u32, 0];
    let sets = [effective, permitted, inheritable];
    let low = sets.map(|s| s as u32);
    let high = sets.map(|s| (s >> 32) as u32);
    let data = [low, high].concat();
    sys!(syscall(SYS_capset, header.as_ptr(), data.as_ptr()))
}

fn uids() -> [u32; 3] {
    let mut all = [0; 3];
    let [r, e, s] = &mut all;
    ok!(getresuid(r, e, s));
    all
}

fn ids_agree() {
    let [r, e, _] = uids();
    assert_eq!((r, e), (ok!(getuid()), ok!(geteuid())));
    let (mut r, mut e, mut s) = (0, 0, 0);
    ok!(getresgid(&mut r, &mut e, &mut s));
    assert_eq!((r, e), (ok!(getgid()), ok!(getegid())));
}

fn leaving_root() {
    need_root();
    in_child(|| {
        ok!(syscall(SYS_setgid, 1000));
        ok!(syscall(SYS_setuid, 1000));
        assert_eq!(uids(), [1000; 3]);
        assert_eq!((caps().0, caps().1), (0, 0));
        fails!(EPERM, syscall(SYS_setuid, 0));
        fails!(EPERM, syscall(SYS_setresuid, -1, 0, -1));
        fails!(EINVAL, syscall(SYS_setuid, -1));
        ok!(syscall(SYS_setuid, 1000));
    });
}

fn saved_root_comes_back() {
    need_root();
    in_child(|| {
        let before = caps();
        ok!(syscall(SYS_setresuid, -1, 1000, -1));
        assert_eq!(uids(), [0, 1000, 0]);
        assert_eq!((caps().0, caps().1), (0, before.1));
        ok!(syscall(SYS_setreuid, -1, 0));
        assert_eq!(caps().0, before.1);
    });
}

fn groups() {
    need_root();
    in_child(|| {
        let wanted = [7u32, 3, 5];
        ok!(syscall(SYS_setgroups, 3, wanted.as_ptr()));
        let mut got = [0u32; 8];
        assert_eq!(ok!(getgroups(0, got.as_mut_ptr())), 3);
        assert_eq!(ok!(getgroups(8, got.as_mut_ptr())), 3);
        let mut got = got[..3].to_vec();
        got.sort_unstable();
        assert_eq!(got, [3, 5, 7]);
        fails!(EINVAL, getgroups(2, wanted.as_ptr().cast_mut()));
        fails!(EINVAL, getgroups(-1, wanted.as_ptr().cast_mut()));
        fails!(EINVAL, syscall(SYS_setgroups, 65_537, wanted.as_ptr()));
        fails!(EFAULT, syscall(SYS_setgroups, 3, 8));
    });
}

fn capget_versions() {
    let mut header = [1u32, 0];
    let mut data = [0u32; 6];
    fails!(EINVAL, syscall(SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()));
    assert_eq!(header[0], 0x2008_0522, "the version to use is told");
    header = [1, 0];
    ok!(syscall(SYS_capget, header.as_mut_ptr(), 0));
    header = [0x2008_0522, -1i32 as u32];
    fails!(EINVAL, syscall(SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()));
}

fn capset_only_lowers() {
    need_root();
    in_child(|| {
        let (effective, permitted, inheritable) = caps();
        let one = permitted & permitted.wrapping_neg();
        assert_eq!(set_caps(one, one, inheritable), Ok(0));
        assert_eq!(caps().1, one);
        assert_eq!(set_caps(effective, permitted, inheritable), Err(EPERM));
        assert_eq!(set_caps(permitted & !one, one, 0), Err(EPERM));
    });
}

fn bounding_set() {
    need_root();
    in_child(|| {
        assert_eq!(ok!(prctl(PR_CAPBSET_READ, 0)), 1);
        ok!(prctl(PR_CAPBSET_DROP, 0));
        assert_eq!(ok!(prctl(PR_CAPBSET_READ, 0)), 0);
        fails!(EINVAL, prctl(PR_CAPBSET_READ, 64));
        fails!(EINVAL, prctl(PR_CAPBSET_DROP, 64));
    });
}

fn ambient_needs_inheritable() {
    need_root();
    in_child(|| {
        let (effective, permitted, _) = caps();
        let cap = permitted.trailing_zeros() as c_ulong;
        assert_eq!(set_caps(effective, permitted, 0), Ok(0));
        fails!(EPERM, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
        assert_eq!(set_caps(effective, permitted, 1 << cap), Ok(0));
        ok!(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
        assert_eq!(ok!(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0)), 1);
        // Taking it out of the inheritable set takes it out of the ambient one.
        assert_eq!(set_caps(effective, permitted, 0), Ok(0));
        assert_eq!(ok!(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0)), 0);
        ok!(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    });
}

fn keep_caps() {
    need_root();
    in_child(|| {
        let before = caps();
        ok!(prctl(PR_SET_KEEPCAPS, 1));
        assert_eq!(ok!(prctl(PR_GET_KEEPCAPS)), 1);
        ok!(syscall(SYS_setresuid, 1000, 1000, 1000));
        assert_eq!((caps().0, caps().1), (0, before.1));
        assert_eq!(set_caps(before.1, before.1, 0), Ok(0));
        fails!(EINVAL, prctl(PR_SET_KEEPCAPS, 2));
    });
}

fn no_new_privs_stays() {
    in_child(|| {
        fails!(EINVAL, prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
        ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        assert_eq!(ok!(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1);
        fails!(EINVAL, prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
        in_child(|| assert_eq!(ok!(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), 1));
    });
}

fn securebits_default() {
    assert_eq!(ok!(prctl(PR_GET_SECUREBITS)), 0);
}

fn fsuid() {
    need_root();
    in_child(|| {
        assert_eq!(ok!(syscall(SYS_setfsuid, 1000)), 0);
        assert_eq!(ok!(syscall(SYS_setfsuid, -1)), 1000, "an invalid id changes nothing");
        let dac_override = 1 << 1;
        assert_eq!(caps().0 & dac_override, 0);
        ok!(syscall(SYS_setfsuid, 0));
        assert_eq!(caps().0 & dac_override, caps().1 & dac_override);
    });
}

/// What /proc shows of a process is for its user and for who may trace it.
fn processes_of_others_are_closed() {
    need_root();
    let secret = ok!(memfd_create(c"secret".as_ptr(), 0)) as i32;
    let own = ok!(getpid());
    let path = |name: &str| CString::new(format!("/proc/{own}/{name}")).expect("no NUL");
    let descriptor = format!("fd/{secret}");
    let open_for = |name: &str, flags: c_int| sys!(open(path(name).as_ptr(), flags));
    let files = ["environ", "maps", "smaps", "auxv", "fdinfo/0", &descriptor];
    for name in files {
        ok!(close(open_for(name, O_RDONLY).expect("one's own")));
    }
    in_child(|| {
        ok!(setresgid(1000, 1000, 1000));
        ok!(setresuid(1000, 1000, 1000));
        for name in files {
            assert_eq!(open_for(name, O_RDONLY), Err(EACCES), "{name}");
        }
        assert_eq!(open_for("fd", O_RDONLY | O_DIRECTORY), Err(EACCES));
        let mut text = [0u8; 64];
        for name in ["cwd", "root", "exe", &descriptor] {
            fails!(EACCES, readlink(path(name).as_ptr(), text.as_mut_ptr().cast(), text.len()));
        }
        fails!(EACCES, chdir(path("cwd").as_ptr()));
        // What tells no addresses stays open to all.
        ok!(close(open_for("stat", O_RDONLY).expect("for all")));
    });
    ok!(close(secret));
}
