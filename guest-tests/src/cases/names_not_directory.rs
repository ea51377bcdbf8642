//! Paths that go through what is no directory (`ENOTDIR`), asked for again and again, as by web servers that look for
//! `.htaccess` below each file.

use libc::*;

use super::names::{ABSENT, Found, THERE, often, temp};
use crate::harness::{c, cases, close, ok};

cases!("names": through_a_file, through_links);

const THROUGH: Found = [ENOTDIR; 6];

fn file(path: &std::ffi::CStr) {
    close(ok!(open(path.as_ptr(), O_CREAT | O_EXCL | O_WRONLY, 0o644)));
}

fn through_a_file() {
    let temp = temp();
    let (a, below, deep) = (temp.join("a"), temp.join("a/b"), temp.join("a/b/c"));
    for _ in 0..3 {
        assert_eq!([often(&below), often(&deep)], [ABSENT; 2]);
        file(&a);
        assert_eq!([often(&below), often(&deep)], [THROUGH; 2]);
        let long = format!("a/{}", "x".repeat(300));
        assert_eq!(
            [often(&temp.join(&long)), often(&temp.join("a/.")), often(&temp.join("a/.."))],
            [THROUGH; 3]
        );
        ok!(unlink(a.as_ptr()));
        assert_eq!([often(&below), often(&deep)], [ABSENT; 2]);
        ok!(mkdir(a.as_ptr(), 0o755));
        file(&below);
        assert_eq!([often(&below), often(&deep)], [THERE, THROUGH]);
        ok!(rename(below.as_ptr(), temp.join("f").as_ptr()));
        assert_eq!([often(&below), often(&deep)], [ABSENT; 2]);
        ok!(syscall(SYS_renameat2, AT_FDCWD, a.as_ptr(), AT_FDCWD, temp.join("f").as_ptr(), RENAME_EXCHANGE));
        assert_eq!([often(&below), often(&deep)], [THROUGH; 2]);
        ok!(mkfifo(temp.join("f/b").as_ptr(), 0o600));
        ok!(syscall(SYS_renameat2, AT_FDCWD, a.as_ptr(), AT_FDCWD, temp.join("f").as_ptr(), RENAME_EXCHANGE));
        assert_eq!([often(&below), often(&deep)], [THERE, THROUGH]);
        ok!(unlink(below.as_ptr()));
        ok!(rmdir(a.as_ptr()));
        ok!(unlink(temp.join("f").as_ptr()));
    }
}

fn through_links() {
    let temp = temp();
    let (link, below) = (temp.join("l"), temp.join("l/b"));
    file(&temp.join("a"));
    ok!(symlink(c("a").as_ptr(), link.as_ptr()));
    assert_eq!(often(&below), THROUGH);
    ok!(unlink(link.as_ptr()));
    ok!(symlink(c("a/more").as_ptr(), link.as_ptr()));
    assert_eq!(often(&below), THROUGH);
    ok!(unlink(temp.join("a").as_ptr()));
    assert_eq!(often(&below), ABSENT);
    ok!(mkdir(temp.join("a").as_ptr(), 0o755));
    ok!(mkdir(temp.join("a/more").as_ptr(), 0o755));
    assert_eq!(often(&below), ABSENT);
    file(&temp.join("a/more/b"));
    assert_eq!(often(&below), THERE);
}
