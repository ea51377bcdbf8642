//! Pseudoterminals: the nodes of their slaves.

use libc::*;

use super::credentials::need_root;
use crate::harness::{cases, fails, in_child, ok, zeroed};

cases!("pty": slave_belongs_to_opener, changed_owner_stays, owner_is_fresh);

/// Opens a master; its slave's path.
pub(super) fn master() -> (i32, std::ffi::CString) {
    let fd = ok!(posix_openpt(O_RDWR | O_NOCTTY));
    ok!(unlockpt(fd));
    let mut number = 0;
    ok!(ioctl(fd, TIOCGPTN, &mut number));
    let name = std::ffi::CString::new(format!("/dev/pts/{number}")).expect("no zero byte");
    (fd, name)
}

fn owner(path: &std::ffi::CStr) -> u32 {
    let mut stat: stat = zeroed();
    ok!(libc::stat(path.as_ptr(), &mut stat));
    stat.st_uid
}

fn slave_belongs_to_opener() {
    need_root();
    let (_root, of_root) = master();
    assert_eq!(owner(&of_root), 0);
    in_child(move || {
        ok!(setgid(1000));
        ok!(setuid(1000));
        let (_fd, path) = master();
        assert_eq!(owner(&path), 1000);
        ok!(open(path.as_ptr(), O_RDWR | O_NOCTTY));
        fails!(EACCES, open(of_root.as_ptr(), O_RDWR | O_NOCTTY));
    });
}

fn changed_owner_stays() {
    need_root();
    let (_fd, path) = master();
    ok!(chown(path.as_ptr(), 1001, 5));
    ok!(chmod(path.as_ptr(), 0o600));
    let mut stat: stat = zeroed();
    ok!(libc::stat(path.as_ptr(), &mut stat));
    assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (1001, 5, 0o600));
}

fn owner_is_fresh() {
    need_root();
    let (fd, path) = master();
    ok!(chown(path.as_ptr(), 1001, 5));
    ok!(close(fd));
    let (_fd, again) = master();
    assert_eq!(owner(&again), 0);
}
