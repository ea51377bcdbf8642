//! cachestat(2): what the page cache holds of a file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use libc::*;

use crate::harness::{Temp, c, cases, close, fails, file, in_child, is_root, ok, pipe, skip, sys, write};

cases!("page_cache": errors, pages_of_a_file, ranges, small_memory_file, large_memory_file, holes, others_cannot_look,
    nothing_cached, dropped_and_read_ahead);

/// `SYS_cachestat`.
const CACHESTAT: i64 = 451;

/// Pages cached, dirty, in writeback, evicted, recently evicted. Skips where the kernel below is too old.
fn of(fd: i32, offset: u64, len: u64) -> [u64; 5] {
    let range = [offset, len];
    let mut found = [u64::MAX; 5];
    match sys!(syscall(CACHESTAT, fd, &raw const range, &raw mut found, 0)) {
        Err(ENOSYS) => skip!("no cachestat here"),
        answer => assert_eq!(answer, Ok(0)),
    }
    assert!(found[1] + found[2] <= found[0]);
    found
}

fn cached(fd: i32, offset: u64, len: u64) -> u64 {
    of(fd, offset, len)[0]
}

fn memory(size: usize) -> i32 {
    let fd = ok!(memfd_create(c"pages".as_ptr(), 0));
    write(fd, &vec![b'x'; size]);
    fd
}

fn errors() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"text");
    let fd = ok!(open(path.as_ptr(), O_RDWR));
    of(fd, 0, 0);
    let range = [0u64; 2];
    let mut found = [7u64; 5];
    fails!(EBADF, syscall(CACHESTAT, -1, 8, &raw mut found, 1));
    let place = ok!(open(path.as_ptr(), O_PATH));
    fails!(EBADF, syscall(CACHESTAT, place, &raw const range, &raw mut found, 0));
    fails!(EFAULT, syscall(CACHESTAT, fd, 8, &raw mut found, 1));
    fails!(EINVAL, syscall(CACHESTAT, fd, &raw const range, 8, 1));
    fails!(EFAULT, syscall(CACHESTAT, fd, &raw const range, 8, 0));
    assert_eq!(found, [7; 5]);
}

fn pages_of_a_file() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    assert_eq!(of(fd, 0, 0), [0; 5]);
    write(fd, &[b'x'; 10_000]);
    assert_eq!(cached(fd, 0, 0), 3);
    ok!(fsync(fd));
    assert_eq!(of(fd, 0, 0)[..3], [3, 0, 0]);
    ok!(ftruncate(fd, 100));
    assert_eq!(cached(fd, 0, 0), 1);
}

fn check_ranges(fd: i32) {
    assert_eq!(cached(fd, 4096, 4096), 1);
    assert_eq!(cached(fd, 5000, 1), 1);
    assert_eq!(cached(fd, 4095, 2), 2);
    assert_eq!(cached(fd, 4096, 0), 2);
    assert_eq!(cached(fd, 0, 1 << 62), 3);
    assert_eq!(cached(fd, 1 << 40, 0), 0);
    // The end goes round.
    assert_eq!(cached(fd, 4096, u64::MAX), 0);
    assert_eq!(cached(fd, u64::MAX, 2), 0);
    assert_eq!(cached(fd, u64::MAX, 0), 0);
}

fn ranges() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", &[b'x'; 9000]).as_ptr(), O_RDWR));
    check_ranges(fd);
}

fn small_memory_file() {
    let fd = memory(9000);
    check_ranges(fd);
    assert_eq!(of(fd, 0, 0), [3, 0, 0, 0, 0]);
}

fn large_memory_file() {
    let fd = memory(1 << 20);
    assert_eq!(of(fd, 0, 0), [256, 0, 0, 0, 0]);
    assert_eq!(cached(fd, 255 << 12, 0), 1);
    ok!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 19));
    assert_eq!(cached(fd, 0, 0), 128);
}

fn holes() {
    let fd = memory(4096);
    ok!(pwrite(fd, c"x".as_ptr().cast(), 1, 1 << 30));
    assert_eq!(cached(fd, 0, 0), 2);
    assert_eq!(cached(fd, 4096, (1 << 30) - 4096), 0);
}

fn others_cannot_look() {
    if !is_root() {
        skip!("not root");
    }
    let temp = Temp::new();
    let path = file(&temp, "f", &[b'x'; 9000]);
    std::fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).expect("chmod");
    ok!(chmod(path.as_ptr(), 0o644));
    let writable = ok!(open(path.as_ptr(), O_RDWR));
    of(writable, 0, 0);
    in_child(|| {
        ok!(syscall(SYS_setresuid, 65534, 65534, 65534));
        let fd = ok!(open(path.as_ptr(), O_RDONLY));
        let range = [0u64; 2];
        let mut found = [0u64; 5];
        fails!(EPERM, syscall(CACHESTAT, fd, &raw const range, &raw mut found, 0));
        fails!(EPERM, syscall(CACHESTAT, fd, &raw const range, &raw mut found, 1));
        // What was opened for writing tells.
        assert_eq!(cached(writable, 0, 0), 3);
    });
    ok!(chmod(path.as_ptr(), 0o666));
    in_child(|| {
        ok!(syscall(SYS_setresuid, 65534, 65534, 65534));
        assert_eq!(cached(ok!(open(path.as_ptr(), O_RDONLY)), 0, 0), 3);
    });
}

fn nothing_cached() {
    let (reader, writer) = pipe();
    write(writer, b"text");
    for fd in
        [reader, ok!(open(c"/dev/null".as_ptr(), O_RDWR)), ok!(open(c"/proc/self/comm".as_ptr(), O_RDWR))]
    {
        assert_eq!(of(fd, 0, 0), [0; 5]);
        close(fd);
    }
}

/// Pages leave the cache and come back when a program says so: where files are on a disk.
fn dropped_and_read_ahead() {
    let path = c(&format!("./guest-tests-advised-{}", std::process::id()));
    let Ok(fd) = sys!(open(path.as_ptr(), O_RDWR | O_CREAT | O_EXCL, 0o600)) else {
        skip!("nothing to write to")
    };
    ok!(unlink(path.as_ptr()));
    write(fd, &[b'x'; 64 << 10]);
    ok!(fsync(fd));
    assert_eq!(cached(fd, 0, 0), 16);
    assert_eq!(ok!(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)), 0);
    if cached(fd, 0, 0) != 0 {
        skip!("files are in memory here");
    }
    assert_eq!(ok!(posix_fadvise(fd, 4096, 4096, POSIX_FADV_WILLNEED)), 0);
    // Neither is done at once.
    let until = |wanted: u64| {
        for _ in 0..1000 {
            if cached(fd, 4096, 4096) == wanted {
                return;
            }
            if wanted == 0 {
                assert_eq!(ok!(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)), 0);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("{} pages", cached(fd, 4096, 4096));
    };
    until(1);
    until(0);
    ok!(readahead(fd, 0, 8192));
    fails!(EINVAL, readahead(fd, 0, usize::MAX));
    ok!(readahead(fd, 0, isize::MAX as usize));
    until(1);
    close(fd);
}
