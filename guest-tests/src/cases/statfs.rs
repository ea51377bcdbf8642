//! File systems as a whole: statfs(2), fstatfs(2), ustat(2).

use std::ptr;

use libc::*;

use crate::harness::{Temp, c, cases, close, fails, file, is_root, ok, skip, sys, zeroed};

cases!("statfs": errors, one_file_system, flags_of_a_mount, ustat_tells_what_is_free, ustat_errors);

/// `struct ustat`, padding by name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug)]
struct UStat {
    blocks_free: u32,
    padding: u32,
    files_free: u64,
    names: [u8; 16],
}

fn of(path: &std::ffi::CStr) -> statfs {
    let mut kind: statfs = zeroed();
    ok!(statfs(path.as_ptr(), &raw mut kind));
    kind
}

fn device(path: &std::ffi::CStr) -> u64 {
    let mut about: stat = zeroed();
    ok!(stat(path.as_ptr(), &raw mut about));
    about.st_dev
}

fn errors() {
    let temp = Temp::new();
    let plain = file(&temp, "plain", b"text");
    let mut kind: statfs = zeroed();
    fails!(ENOENT, statfs(temp.join("missing").as_ptr(), &raw mut kind));
    fails!(ENOTDIR, statfs(temp.join("plain/below").as_ptr(), &raw mut kind));
    fails!(ENOENT, statfs(c"".as_ptr(), &raw mut kind));
    fails!(ENAMETOOLONG, statfs(c(&"n".repeat(256)).as_ptr(), &raw mut kind));
    ok!(symlink(c"loop".as_ptr(), temp.join("loop").as_ptr()));
    fails!(ELOOP, statfs(temp.join("loop").as_ptr(), &raw mut kind));
    fails!(EFAULT, syscall(SYS_statfs, 8, &raw mut kind));
    fails!(EFAULT, syscall(SYS_statfs, plain.as_ptr(), 8));
    fails!(EBADF, fstatfs(-1, &raw mut kind));
    let fd = ok!(open(plain.as_ptr(), O_RDONLY));
    fails!(EFAULT, syscall(SYS_fstatfs, fd, 8));
    close(fd);
}

fn one_file_system() {
    let temp = Temp::new();
    let plain = file(&temp, "plain", b"text");
    let fd = ok!(open(plain.as_ptr(), O_PATH));
    let mut by_fd: statfs = zeroed();
    ok!(fstatfs(fd, &raw mut by_fd));
    close(fd);
    let by_path = of(&plain);
    assert_eq!(by_fd.f_type, by_path.f_type);
    assert_eq!(by_fd.f_blocks, by_path.f_blocks);
    assert_eq!(of(c"/proc").f_type, PROC_SUPER_MAGIC);
    assert_eq!(by_path.f_namelen, 255);
}

fn flags_of_a_mount() {
    if !is_root() {
        skip!("not root");
    }
    let temp = Temp::new();
    let point = temp.join("");
    let none = ptr::null();
    let flags = MS_NOSUID | MS_NODEV | MS_NOSYMFOLLOW;
    match sys!(mount(c"tmpfs".as_ptr(), point.as_ptr(), c"tmpfs".as_ptr(), flags, none)) {
        Err(EPERM) => skip!("no mounts here"),
        mounted => assert_eq!(mounted, Ok(0)),
    }
    // The C library gives the flags of statfs(2) as they are.
    let mut all: statvfs = zeroed();
    ok!(statvfs(point.as_ptr(), &raw mut all));
    ok!(umount2(point.as_ptr(), MNT_DETACH));
    const ST_NOSYMFOLLOW: u64 = 8192;
    let wanted = ST_NOSUID | ST_NODEV | ST_NOSYMFOLLOW;
    assert_eq!(all.f_flag & (wanted | ST_RDONLY | ST_NOEXEC), wanted);
}

fn ustat_tells_what_is_free() {
    for path in [c"/dev/shm", c"/proc"] {
        let dev = device(path);
        // Others may write in between: only what did not change over the call counts.
        let steady = (0..100).any(|_| {
            let before = of(path);
            let mut told = UStat { blocks_free: 7, padding: 7, files_free: 7, names: [7; 16] };
            ok!(syscall(SYS_ustat, dev, &raw mut told));
            let after = of(path);
            if (before.f_bfree, before.f_ffree) != (after.f_bfree, after.f_ffree) {
                return false;
            }
            let blocks_free = after.f_bfree as u32;
            assert_eq!(told, UStat { blocks_free, padding: 0, files_free: after.f_ffree, names: [0; 16] });
            true
        });
        assert!(steady, "{path:?} changes all the time");
    }
}

fn ustat_errors() {
    let mut told = [0u64; 4];
    // The number of no block device, and of no file system.
    fails!(EINVAL, syscall(SYS_ustat, u32::MAX, told.as_mut_ptr()));
    fails!(EINVAL, syscall(SYS_ustat, 0, told.as_mut_ptr()));
    fails!(EINVAL, syscall(SYS_ustat, u32::MAX, 8));
    fails!(EFAULT, syscall(SYS_ustat, device(c"/proc"), 8));
}
