//! Options of proc(5): `hidepid=`, `gid=`, `subset=`.

use std::ffi::CStr;
use std::ptr;

use libc::*;

use super::mount::in_namespace;
use crate::harness::{Temp, c, cases, in_child, ok, sys};

cases!("hidepid": invisible, no_access, ptraceable, group, remounted, pids_only, options_shown);

/// In a mount namespace with a procfs of these options.
fn with_proc(options: &CStr, body: impl FnOnce(&Temp)) {
    in_namespace(|temp| {
        ok!(chmod(temp.join(".").as_ptr(), 0o755));
        ok!(mkdir(temp.join("p").as_ptr(), 0o755));
        assert_eq!(mount_proc(temp, 0, options), Ok(0));
        body(temp);
    });
}

fn mount_proc(temp: &Temp, flags: c_ulong, options: &CStr) -> Result<i32, i32> {
    let (at, options) = (temp.join("p"), options.as_ptr().cast());
    sys!(mount(c"proc".as_ptr(), at.as_ptr(), c"proc".as_ptr(), flags, options))
}

fn remount(temp: &Temp, options: &CStr) {
    assert_eq!(mount_proc(temp, MS_REMOUNT, options), Ok(0));
}

/// As a user in a group of another number, in a child; told the id of its parent, which is root's.
fn as_user(gid: gid_t, body: impl FnOnce(i32)) {
    let parent = ok!(getpid());
    in_child(|| {
        ok!(setgroups(0, ptr::null()));
        ok!(setresgid(gid, gid, gid));
        ok!(setresuid(1234, 1234, 1234));
        body(parent);
    });
}

fn status_of(path: &str) -> Result<(), i32> {
    let mut status = crate::harness::zeroed::<stat>();
    sys!(stat(c(path).as_ptr(), &mut status)).map(drop)
}

fn open_of(path: &str) -> Result<(), i32> {
    let fd = sys!(open(c(path).as_ptr(), O_RDONLY))?;
    ok!(close(fd));
    Ok(())
}

fn names(temp: &Temp) -> Vec<String> {
    let entries = std::fs::read_dir(temp.path().join("p")).expect("a listing");
    entries.flatten().map(|entry| entry.file_name().into_string().expect("a name")).collect()
}

fn at(temp: &Temp, name: impl std::fmt::Display) -> String {
    format!("{}/p/{name}", temp.path().display())
}

fn invisible() {
    with_proc(c"hidepid=2", |temp| {
        as_user(1234, |parent| {
            assert_eq!(status_of(&at(temp, parent)), Err(ENOENT));
            assert_eq!(open_of(&at(temp, parent)), Err(ENOENT));
            assert_eq!(open_of(&at(temp, format!("{parent}/status"))), Err(ENOENT));
            let own = ok!(getpid()).to_string();
            let seen = names(temp);
            assert!(seen.contains(&own) && !seen.contains(&parent.to_string()));
            assert!(seen.contains(&"meminfo".to_owned()));
            assert_eq!(open_of(&at(temp, format!("{own}/status"))), Ok(()));
            assert_eq!(open_of(&at(temp, "self/task")), Ok(()));
            // Elsewhere it is seen.
            assert_eq!(open_of(&format!("/proc/{parent}/status")), Ok(()));
        });
        // Root sees all.
        assert_eq!(open_of(&at(temp, "1/status")), Ok(()));
        assert!(names(temp).contains(&"1".to_owned()));
    });
}

fn no_access() {
    with_proc(c"hidepid=noaccess", |temp| {
        as_user(1234, |parent| {
            assert_eq!(status_of(&at(temp, parent)), Ok(()));
            assert_eq!(open_of(&at(temp, parent)), Err(EPERM));
            assert_eq!(open_of(&at(temp, format!("{parent}/status"))), Err(EPERM));
            assert!(names(temp).contains(&parent.to_string()));
        });
    });
}

fn ptraceable() {
    with_proc(c"hidepid=4,gid=1234", |temp| {
        as_user(1234, |parent| {
            assert_eq!(status_of(&at(temp, parent)), Err(ENOENT));
            assert_eq!(open_of(&at(temp, format!("{parent}/status"))), Err(ENOENT));
            assert!(!names(temp).contains(&parent.to_string()));
        });
    });
}

fn group() {
    with_proc(c"gid=1234,hidepid=invisible", |temp| {
        as_user(1234, |parent| {
            assert_eq!(open_of(&at(temp, format!("{parent}/status"))), Ok(()));
            assert!(names(temp).contains(&parent.to_string()));
        });
        as_user(1235, |parent| assert_eq!(status_of(&at(temp, parent)), Err(ENOENT)));
    });
}

/// What has been looked up before is hidden as well.
fn remounted() {
    with_proc(c"", |temp| {
        let look = |temp: &Temp, wanted| {
            as_user(1234, |parent| {
                assert_eq!(open_of(&at(temp, format!("{parent}/status"))), wanted);
            });
        };
        look(temp, Ok(()));
        remount(temp, c"hidepid=2");
        look(temp, Err(ENOENT));
        remount(temp, c"gid=5");
        look(temp, Err(ENOENT));
        remount(temp, c"hidepid=1");
        look(temp, Err(EPERM));
        remount(temp, c"hidepid=0");
        look(temp, Ok(()));
        for wrong in [c"hidepid=3", c"hidepid=all", c"gid=-2", c"size=1m", c"subset=all"] {
            assert_eq!(mount_proc(temp, MS_REMOUNT, wrong), Err(EINVAL));
            assert_eq!(mount_proc(temp, 0, wrong), Err(EINVAL));
        }
        look(temp, Ok(()));
    });
}

fn pids_only() {
    with_proc(c"subset=pid", |temp| {
        assert_eq!(open_of(&at(temp, "meminfo")), Err(ENOENT));
        assert_eq!(open_of(&at(temp, "sys/kernel/ostype")), Err(ENOENT));
        assert_eq!(open_of(&at(temp, "self/status")), Ok(()));
        assert_eq!(open_of(&at(temp, "thread-self/status")), Ok(()));
        for name in names(temp) {
            assert!(name.parse::<u32>().is_ok() || name.ends_with("self"), "{name}");
        }
    });
}

fn options_shown() {
    with_proc(c"hidepid=2,gid=7", |temp| {
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let place = format!("{}/p ", temp.path().display());
        let line = text.lines().find(|line| line.contains(&place)).expect("the mount");
        assert!(line.ends_with(" proc rw,gid=7,hidepid=invisible"), "{line}");
    });
}
