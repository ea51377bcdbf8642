//! Regular files: open, read, write, seek, truncate, allocate.

use libc::*;

use crate::harness::{
    Temp, c, cases, close, errno_name, fails, file, in_child, ok, pipe, read, skip, sys, write, zeroed,
};

cases!("file": open_flags, create_exclusive, truncate_on_open, no_follow, open_directory, append, append_by_fcntl,
    positioned, seek, seek_data_and_hole, sparse, truncate, fallocate_modes, punch_hole, anonymous_file, dup_and_flags,
    dup_errors, fcntl_dupfd, umask_applies, unlinked_stays_open, read_write_access, bad_addresses, end_of_file_with_null,
    vectors, positioned_vectors, copy_range, path_only, at_relative, openat2_resolve, close_range, name_too_long,
    loops, trailing_slash, empty_path, big_offset, fsync_kinds, large_file, rewrite_in_place, o_direct, fadvise,
    close_twice, lowest_descriptor, cloexec_in_open, creat_call, reopen_by_proc, positioned_errors, created_query, no_magic_links);

fn open_flags() {
    let temp = Temp::new();
    let path = temp.join("f");
    fails!(ENOENT, open(path.as_ptr(), O_RDWR));
    let fd = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o640));
    write(fd, b"hello");
    assert_eq!(ok!(fcntl(fd, F_GETFL)) & O_ACCMODE, O_RDWR);
    let mut status: stat = zeroed();
    ok!(fstat(fd, &mut status));
    assert_eq!(status.st_mode, S_IFREG | 0o640);
    assert_eq!(status.st_size, 5);
}

fn create_exclusive() {
    let temp = Temp::new();
    let path = temp.join("f");
    ok!(open(path.as_ptr(), O_WRONLY | O_CREAT | O_EXCL, 0o600));
    fails!(EEXIST, open(path.as_ptr(), O_WRONLY | O_CREAT | O_EXCL, 0o600));
    ok!(symlink(c"nowhere".as_ptr(), temp.join("l").as_ptr()));
    fails!(EEXIST, open(temp.join("l").as_ptr(), O_WRONLY | O_CREAT | O_EXCL, 0o600));
    // Without O_EXCL the target of a dangling link is made.
    ok!(open(temp.join("l").as_ptr(), O_WRONLY | O_CREAT, 0o600));
    ok!(access(temp.join("nowhere").as_ptr(), F_OK));
}

fn truncate_on_open() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"content");
    let fd = ok!(open(path.as_ptr(), O_WRONLY | O_TRUNC));
    assert_eq!(ok!(lseek(fd, 0, SEEK_END)), 0);
}

fn no_follow() {
    let temp = Temp::new();
    file(&temp, "f", b"");
    ok!(symlink(c"f".as_ptr(), temp.join("l").as_ptr()));
    ok!(open(temp.join("l").as_ptr(), O_RDONLY));
    fails!(ELOOP, open(temp.join("l").as_ptr(), O_RDONLY | O_NOFOLLOW));
}

fn open_directory() {
    let temp = Temp::new();
    let dir = temp.join(".");
    fails!(EISDIR, open(dir.as_ptr(), O_RDWR));
    let fd = ok!(open(dir.as_ptr(), O_RDONLY | O_DIRECTORY));
    fails!(EISDIR, libc::read(fd, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(ENOTDIR, open(file(&temp, "f", b"").as_ptr(), O_RDONLY | O_DIRECTORY));
    fails!(ENOTDIR, open(temp.join("f/x").as_ptr(), O_RDONLY));
}

fn append() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"one,");
    let fd = ok!(open(path.as_ptr(), O_RDWR | O_APPEND));
    ok!(lseek(fd, 0, SEEK_SET));
    write(fd, b"two");
    assert_eq!(ok!(lseek(fd, 0, SEEK_CUR)), 7);
    // Linux appends for pwrite as well (a documented bug of old).
    assert_eq!(ok!(pwrite(fd, b"!".as_ptr().cast(), 1, 0)), 1);
    assert_eq!(std::fs::read(temp.path().join("f")).expect("f"), b"one,two!");
}

fn append_by_fcntl() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"abc");
    let fd = ok!(open(path.as_ptr(), O_WRONLY));
    ok!(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    assert_eq!(
        ok!(fcntl(fd, F_GETFL)) & (O_APPEND | O_NONBLOCK | O_ACCMODE),
        O_APPEND | O_NONBLOCK | O_WRONLY
    );
    write(fd, b"d");
    assert_eq!(std::fs::read(temp.path().join("f")).expect("f"), b"abcd");
}

fn positioned() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123456789").as_ptr(), O_RDWR));
    let mut buffer = [0u8; 4];
    assert_eq!(ok!(pread(fd, buffer.as_mut_ptr().cast(), 4, 8)), 2);
    assert_eq!(&buffer[..2], b"89");
    assert_eq!(ok!(pwrite(fd, b"XY".as_ptr().cast(), 2, 3)), 2);
    assert_eq!(read(fd, 10), b"012XY56789");
    fails!(EINVAL, pread(fd, buffer.as_mut_ptr().cast(), 4, -1));
    fails!(EINVAL, pwrite(fd, buffer.as_ptr().cast(), 4, -1));
}

fn seek() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123456789").as_ptr(), O_RDWR));
    assert_eq!(ok!(lseek(fd, -3, SEEK_END)), 7);
    assert_eq!(read(fd, 10), b"789");
    assert_eq!(ok!(lseek(fd, -5, SEEK_CUR)), 5);
    fails!(EINVAL, lseek(fd, -1, SEEK_SET));
    fails!(EINVAL, lseek(fd, 0, 77));
    fails!(EBADF, lseek(987, 0, SEEK_SET));
    assert_eq!(ok!(lseek(fd, 100, SEEK_SET)), 100);
    assert_eq!(read(fd, 10), b"");
}

fn seek_data_and_hole() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    ok!(pwrite(fd, b"data".as_ptr().cast(), 4, 1 << 20));
    assert_eq!(ok!(lseek(fd, 0, SEEK_DATA)) & !4095, 1 << 20);
    assert_eq!(ok!(lseek(fd, 0, SEEK_HOLE)), 0);
    let end = (1 << 20) + 4;
    assert_eq!(ok!(lseek(fd, 1 << 20, SEEK_HOLE)), end);
    fails!(ENXIO, lseek(fd, end, SEEK_DATA));
    fails!(ENXIO, lseek(fd, end, SEEK_HOLE));
}

fn sparse() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    let end = 1i64 << 32;
    ok!(pwrite(fd, b"x".as_ptr().cast(), 1, end));
    let mut status: stat = zeroed();
    ok!(fstat(fd, &mut status));
    assert_eq!(status.st_size, end + 1);
    assert!(status.st_blocks < 1000, "{} blocks", status.st_blocks);
    let mut buffer = [1u8; 16];
    assert_eq!(ok!(pread(fd, buffer.as_mut_ptr().cast(), 16, end / 2)), 16);
    assert_eq!(buffer, [0; 16]);
}

fn truncate() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"0123456789");
    ok!(libc::truncate(path.as_ptr(), 4));
    let fd = ok!(open(path.as_ptr(), O_RDWR));
    ok!(ftruncate(fd, 6));
    assert_eq!(read(fd, 10), b"0123\0\0");
    fails!(EINVAL, ftruncate(fd, -1));
    let reader = ok!(open(path.as_ptr(), O_RDONLY));
    fails!(EINVAL, ftruncate(reader, 0));
    fails!(EISDIR, libc::truncate(temp.join(".").as_ptr(), 0));
}

fn fallocate_modes() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"abc").as_ptr(), O_RDWR));
    ok!(fallocate(fd, 0, 0, 8192));
    assert_eq!(ok!(lseek(fd, 0, SEEK_END)), 8192);
    ok!(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8192, 8192));
    assert_eq!(ok!(lseek(fd, 0, SEEK_END)), 8192);
    fails!(EINVAL, fallocate(fd, 0, 0, 0));
    fails!(EINVAL, fallocate(fd, 0, -1, 10));
    let reader = ok!(open(temp.join("f").as_ptr(), O_RDONLY));
    fails!(EBADF, fallocate(reader, 0, 0, 10));
}

fn punch_hole() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", &[1; 12288]).as_ptr(), O_RDWR));
    ok!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
    let mut buffer = [9u8; 12288];
    assert_eq!(ok!(pread(fd, buffer.as_mut_ptr().cast(), 12288, 0)), 12288);
    assert!(buffer[..4096].iter().all(|b| *b == 1));
    assert!(buffer[4096..8192].iter().all(|b| *b == 0));
    assert!(buffer[8192..].iter().all(|b| *b == 1));
}

fn anonymous_file() {
    let temp = Temp::new();
    let fd = ok!(open(temp.join(".").as_ptr(), O_RDWR | O_TMPFILE, 0o600));
    write(fd, b"nameless");
    assert_eq!(std::fs::read_dir(temp.path()).expect("the directory").count(), 0);
    let from = c(&format!("/proc/self/fd/{fd}"));
    ok!(linkat(AT_FDCWD, from.as_ptr(), AT_FDCWD, temp.join("named").as_ptr(), AT_SYMLINK_FOLLOW));
    assert_eq!(std::fs::read(temp.path().join("named")).expect("named"), b"nameless");
}

fn dup_and_flags() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123456789").as_ptr(), O_RDONLY));
    let copy = ok!(dup(fd));
    read(fd, 3);
    assert_eq!(read(copy, 3), b"345", "the offset is shared");
    ok!(fcntl(fd, F_SETFD, FD_CLOEXEC));
    assert_eq!(ok!(fcntl(copy, F_GETFD)), 0, "the close-on-exec flag is not");
    ok!(fcntl(fd, F_SETFL, O_NONBLOCK));
    assert_ne!(ok!(fcntl(copy, F_GETFL)) & O_NONBLOCK, 0);
    assert_eq!(ok!(dup2(fd, 200)), 200);
    assert_eq!(ok!(dup2(fd, fd)), fd);
    assert_eq!(ok!(dup3(fd, 201, O_CLOEXEC)), 201);
    assert_eq!(ok!(fcntl(201, F_GETFD)), FD_CLOEXEC);
}

fn dup_errors() {
    fails!(EBADF, dup(987));
    fails!(EBADF, dup2(987, 5));
    fails!(EBADF, dup2(0, -1));
    fails!(EINVAL, dup3(0, 0, 0));
    fails!(EINVAL, dup3(0, 50, O_APPEND));
    in_child(|| {
        ok!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 64, rlim_max: 64 }));
        fails!(EBADF, dup2(0, 64));
        fails!(EINVAL, fcntl(0, F_DUPFD, 64));
        while sys!(dup(0)).is_ok() {}
        fails!(EMFILE, dup(0));
        fails!(EMFILE, open(c"/".as_ptr(), O_RDONLY));
    });
}

fn fcntl_dupfd() {
    let fd = ok!(fcntl(0, F_DUPFD, 300));
    assert_eq!(fd, 300);
    assert_eq!(ok!(fcntl(0, F_DUPFD_CLOEXEC, 300)), 301);
    assert_eq!(ok!(fcntl(301, F_GETFD)), FD_CLOEXEC);
    fails!(EINVAL, fcntl(0, F_DUPFD, -1));
    fails!(EINVAL, fcntl(0, 9999));
    fails!(EBADF, fcntl(987, F_GETFD));
}

fn umask_applies() {
    let temp = Temp::new();
    in_child(|| {
        ok!(umask(0o027));
        assert_eq!(ok!(umask(0o027)), 0o027);
        ok!(open(temp.join("f").as_ptr(), O_CREAT | O_WRONLY, 0o666));
        ok!(mkdir(temp.join("d").as_ptr(), 0o777));
    });
    let mut status: stat = zeroed();
    ok!(stat(temp.join("f").as_ptr(), &mut status));
    assert_eq!(status.st_mode & 0o7777, 0o640);
    ok!(stat(temp.join("d").as_ptr(), &mut status));
    assert_eq!(status.st_mode & 0o7777, 0o750);
}

fn unlinked_stays_open() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"still here");
    let fd = ok!(open(path.as_ptr(), O_RDWR));
    ok!(unlink(path.as_ptr()));
    fails!(ENOENT, access(path.as_ptr(), F_OK));
    assert_eq!(read(fd, 100), b"still here");
    let mut status: stat = zeroed();
    ok!(fstat(fd, &mut status));
    assert_eq!(status.st_nlink, 0);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a link");
    assert!(link.to_string_lossy().ends_with("/f (deleted)"), "{link:?}");
    write(fd, b"!");
}

fn read_write_access() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    let reader = ok!(open(path.as_ptr(), O_RDONLY));
    fails!(EBADF, libc::write(reader, b"y".as_ptr().cast(), 1));
    let writer = ok!(open(path.as_ptr(), O_WRONLY));
    fails!(EBADF, libc::read(writer, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(EBADF, libc::read(987, [0u8; 1].as_mut_ptr().cast(), 1));
}

fn bad_addresses() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"content").as_ptr(), O_RDWR));
    fails!(EFAULT, libc::read(fd, 8 as *mut c_void, 4));
    assert_eq!(read(fd, 4), b"cont");
    fails!(EFAULT, libc::write(fd, 8 as *const c_void, 4));
    fails!(EFAULT, open(8 as *const c_char, O_RDONLY));
    fails!(EFAULT, stat(8 as *const c_char, &mut zeroed()));
    fails!(EFAULT, syscall(SYS_fstat, fd, 8));
    fails!(EFAULT, libc::read(fd, (1usize << 63) as *mut c_void, 4));
}

fn end_of_file_with_null() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDONLY));
    assert_eq!(ok!(libc::read(fd, std::ptr::null_mut(), 10)), 0);
}

fn vectors() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    let parts: [&[u8]; 3] = [b"ab", b"", b"cdef"];
    let out = parts.map(|p| iovec { iov_base: p.as_ptr() as *mut c_void, iov_len: p.len() });
    assert_eq!(ok!(writev(fd, out.as_ptr(), 3)), 6);
    assert_eq!(ok!(pread(fd, [0u8; 6].as_mut_ptr().cast(), 6, 0)), 6);
    assert_eq!(ok!(writev(fd, out.as_ptr(), 0)), 0);
    let huge = [iovec { iov_base: std::ptr::null_mut(), iov_len: usize::MAX }];
    fails!(EINVAL, writev(fd, huge.as_ptr(), 1));
}

fn positioned_vectors() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123456789").as_ptr(), O_RDWR));
    let (mut a, mut b) = ([0u8; 2], [0u8; 3]);
    let into = [
        iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 2 },
        iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 3 },
    ];
    assert_eq!(ok!(preadv(fd, into.as_ptr(), 2, 4)), 5);
    assert_eq!((&a, &b), (b"45", b"678"));
    assert_eq!(ok!(pwritev(fd, into.as_ptr(), 2, 0)), 5);
    assert_eq!(read(fd, 10), b"4567856789");
    assert_eq!(ok!(preadv2(fd, into.as_ptr(), 1, 0, RWF_HIPRI)), 2);
    fails!(EOPNOTSUPP, preadv2(fd, into.as_ptr(), 1, 0, 0x4000_0000));
}

fn copy_range() {
    let temp = Temp::new();
    let from = ok!(open(file(&temp, "a", b"0123456789").as_ptr(), O_RDONLY));
    let to = ok!(open(file(&temp, "b", b"").as_ptr(), O_RDWR));
    let mut offset = 3i64;
    let n = ok!(copy_file_range(from, &mut offset, to, std::ptr::null_mut(), 5, 0));
    assert_eq!((n, offset), (5, 8));
    assert_eq!(std::fs::read(temp.path().join("b")).expect("b"), b"34567");
    assert_eq!(ok!(lseek(from, 0, SEEK_CUR)), 0);
    assert_eq!(ok!(copy_file_range(from, &mut 100, to, std::ptr::null_mut(), 5, 0)), 0);
    fails!(EINVAL, copy_file_range(from, std::ptr::null_mut(), to, std::ptr::null_mut(), 5, 1));
    fails!(EBADF, copy_file_range(to, std::ptr::null_mut(), from, std::ptr::null_mut(), 5, 0));
}

fn path_only() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"x").as_ptr(), O_PATH));
    fails!(EBADF, libc::read(fd, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(EBADF, fchmod(fd, 0o600));
    let mut status: stat = zeroed();
    ok!(fstat(fd, &mut status));
    assert_eq!(status.st_size, 1);
    ok!(symlink(c"f".as_ptr(), temp.join("l").as_ptr()));
    let link = ok!(open(temp.join("l").as_ptr(), O_PATH | O_NOFOLLOW));
    ok!(fstat(link, &mut status));
    assert_eq!(status.st_mode & S_IFMT, S_IFLNK);
    ok!(fstatat(fd, c"".as_ptr(), &mut status, AT_EMPTY_PATH));
}

fn at_relative() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    let dir = ok!(open(temp.join("d").as_ptr(), O_RDONLY | O_DIRECTORY));
    let fd = ok!(openat(dir, c"inside".as_ptr(), O_CREAT | O_WRONLY, 0o600));
    write(fd, b"in");
    assert_eq!(std::fs::read(temp.path().join("d/inside")).expect("inside"), b"in");
    let mut status: stat = zeroed();
    ok!(fstatat(dir, c"../d/inside".as_ptr(), &mut status, 0));
    fails!(ENOTDIR, openat(fd, c"x".as_ptr(), O_RDONLY));
    fails!(EBADF, openat(987, c"x".as_ptr(), O_RDONLY));
    ok!(openat(987, c"/".as_ptr(), O_RDONLY));
    ok!(unlinkat(dir, c"inside".as_ptr(), 0));
    fails!(EISDIR, unlinkat(AT_FDCWD, temp.join("d").as_ptr(), 0));
    ok!(unlinkat(AT_FDCWD, temp.join("d").as_ptr(), AT_REMOVEDIR));
}

fn openat2(dir: i32, path: &std::ffi::CStr, flags: i32, resolve: u64) -> Result<i64, i32> {
    let how = [flags as u64, 0, resolve];
    sys!(syscall(SYS_openat2, dir, path.as_ptr(), how.as_ptr(), 24))
}

fn openat2_resolve() {
    let temp = Temp::new();
    let dir = ok!(open(temp.join(".").as_ptr(), O_RDONLY | O_DIRECTORY));
    file(&temp, "f", b"");
    ok!(symlink(c"/etc".as_ptr(), temp.join("out").as_ptr()));
    ok!(symlink(c"f".as_ptr(), temp.join("in").as_ptr()));
    let (no_links, beneath, in_root) = (4, 8, 16);
    openat2(dir, c"f", O_RDONLY, beneath).expect("a file below");
    openat2(dir, c"in", O_RDONLY, beneath).expect("a link below");
    assert_eq!(openat2(dir, c"..", O_RDONLY, beneath), Err(EXDEV));
    assert_eq!(openat2(dir, c"/etc", O_RDONLY, beneath), Err(EXDEV));
    assert_eq!(openat2(dir, c"out", O_RDONLY, beneath), Err(EXDEV));
    assert_eq!(openat2(dir, c"in", O_RDONLY, no_links), Err(ELOOP));
    openat2(dir, c"/f", O_RDONLY, in_root).expect("an absolute path in the new root");
    assert_eq!(openat2(dir, c"out", O_RDONLY, in_root), Err(ENOENT));
    assert_eq!(openat2(dir, c"f", O_RDONLY, 1 << 40), Err(EINVAL));
    let how = [0u64; 4];
    fails!(EINVAL, syscall(SYS_openat2, dir, c"f".as_ptr(), how.as_ptr(), 8));
    ok!(syscall(SYS_openat2, dir, c"f".as_ptr(), how.as_ptr(), 32));
    fails!(E2BIG, syscall(SYS_openat2, dir, c"f".as_ptr(), [0u64, 0, 0, 1].as_ptr(), 32));
}

fn close_range() {
    let fds: Vec<i32> = (0..5).map(|i| ok!(fcntl(0, F_DUPFD, 400 + i))).collect();
    ok!(syscall(SYS_close_range, fds[1], fds[3], 0));
    let open: Vec<bool> = fds.iter().map(|fd| sys!(fcntl(*fd, F_GETFD)).is_ok()).collect();
    assert_eq!(open, [true, false, false, false, true]);
    ok!(syscall(SYS_close_range, fds[0], u32::MAX, 4 /* CLOEXEC */));
    assert_eq!(ok!(fcntl(fds[4], F_GETFD)), FD_CLOEXEC);
    fails!(EINVAL, syscall(SYS_close_range, 5, 4, 0));
    fails!(EINVAL, syscall(SYS_close_range, 5, 6, 64));
}

fn name_too_long() {
    let temp = Temp::new();
    fails!(ENAMETOOLONG, open(temp.join(&"x".repeat(256)).as_ptr(), O_CREAT | O_WRONLY, 0o600));
    ok!(open(temp.join(&"x".repeat(255)).as_ptr(), O_CREAT | O_WRONLY, 0o600));
    fails!(ENAMETOOLONG, open(c(&"/x".repeat(2100)).as_ptr(), O_RDONLY));
    fails!(ENOENT, open(c(&format!("/{}", "./".repeat(2000) + "nope")).as_ptr(), O_RDONLY));
}

fn loops() {
    let temp = Temp::new();
    ok!(symlink(c"b".as_ptr(), temp.join("a").as_ptr()));
    ok!(symlink(c"a".as_ptr(), temp.join("b").as_ptr()));
    fails!(ELOOP, open(temp.join("a").as_ptr(), O_RDONLY));
    file(&temp, "l0", b"end");
    for i in 1..=41 {
        ok!(symlink(c(&format!("l{}", i - 1)).as_ptr(), temp.join(&format!("l{i}")).as_ptr()));
    }
    ok!(open(temp.join("l40").as_ptr(), O_RDONLY));
    fails!(ELOOP, open(temp.join("l41").as_ptr(), O_RDONLY));
}

fn trailing_slash() {
    let temp = Temp::new();
    file(&temp, "f", b"");
    fails!(ENOTDIR, open(temp.join("f/").as_ptr(), O_RDONLY));
    fails!(EISDIR, open(temp.join("new/").as_ptr(), O_CREAT | O_WRONLY, 0o600));
    ok!(mkdir(temp.join("d/").as_ptr(), 0o700));
    ok!(rmdir(temp.join("d/").as_ptr()));
}

fn empty_path() {
    fails!(ENOENT, open(c"".as_ptr(), O_RDONLY));
    fails!(ENOENT, stat(c"".as_ptr(), &mut zeroed()));
    fails!(ENOENT, unlink(c"".as_ptr()));
}

fn big_offset() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    assert_eq!(sys!(pread(fd, [0u8; 1].as_mut_ptr().cast(), 1, i64::MAX)).unwrap_or(0), 0);
    fails!(EINVAL, pwrite(fd, b"x".as_ptr().cast(), 1, i64::MAX));
    // The last byte of all exists in tmpfs alone.
    let mut kind: statfs = zeroed();
    ok!(fstatfs(fd, &raw mut kind));
    let last = sys!(pwrite(fd, b"x".as_ptr().cast(), 1, i64::MAX - 1));
    assert_eq!(last, if kind.f_type == TMPFS_MAGIC { Ok(1) } else { Err(EFBIG) });
}

/// What counts first: no offset, no access; and -1 is an offset to preadv2 alone.
fn positioned_errors() {
    let (r, w) = pipe();
    fails!(ESPIPE, pread(w, [0u8; 1].as_mut_ptr().cast(), 1, 0));
    fails!(ESPIPE, pwrite(r, b"x".as_ptr().cast(), 1, 0));
    let piece = iovec { iov_base: b"x".as_ptr() as *mut c_void, iov_len: 1 };
    fails!(ESPIPE, pwritev2(r, &raw const piece, 1, 0, 0));
    fails!(EBADF, pwritev2(r, &raw const piece, 1, -1, 0));
    let temp = Temp::new();
    let path = file(&temp, "f", b"abc");
    let fd = ok!(open(path.as_ptr(), O_RDWR));
    fails!(EINVAL, pwritev(fd, &raw const piece, 1, -1));
    fails!(EINVAL, preadv(fd, &raw const piece, 1, -1));
    assert_eq!(ok!(pwritev2(fd, &raw const piece, 1, -1, 0)), 1);
    assert_eq!(ok!(lseek(fd, 0, SEEK_CUR)), 1);
    let named = ok!(open(path.as_ptr(), O_PATH));
    fails!(EBADF, mmap(std::ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE, named, 0));
}

/// Only the open that made a file says so.
fn created_query() {
    const F_CREATED_QUERY: i32 = 1028;
    let temp = Temp::new();
    let path = temp.join("new");
    let made = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o600));
    if sys!(fcntl(made, F_CREATED_QUERY, 0)) == Err(EINVAL) {
        skip!("this Linux is older than 6.12");
    }
    assert_eq!(ok!(fcntl(made, F_CREATED_QUERY, 0)), 1);
    assert_eq!(ok!(fcntl(ok!(dup(made)), F_CREATED_QUERY, 0)), 1);
    let found = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o600));
    assert_eq!(ok!(fcntl(found, F_CREATED_QUERY, 0)), 0);
}

fn no_magic_links() {
    let open = |resolve: u64| {
        let how: [u64; 3] = [O_RDONLY as u64, 0, resolve];
        sys!(syscall(SYS_openat2, AT_FDCWD, c"/proc/self/exe".as_ptr(), how.as_ptr(), 24))
    };
    assert!(open(0).is_ok());
    assert_eq!(open(RESOLVE_NO_MAGICLINKS), Err(ELOOP));
    assert_eq!(open(RESOLVE_NO_SYMLINKS), Err(ELOOP));
}

fn fsync_kinds() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    write(fd, b"kept");
    ok!(fsync(fd));
    ok!(fdatasync(fd));
    ok!(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    ok!(syncfs(fd));
    let dir = ok!(open(temp.join(".").as_ptr(), O_RDONLY));
    ok!(fsync(dir));
    let (r, _w) = pipe();
    fails!(EINVAL, fsync(r));
}

fn large_file() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR));
    let block: Vec<u8> = (0..1 << 20).map(|i| (i * 7) as u8).collect();
    for _ in 0..16 {
        write(fd, &block);
    }
    ok!(lseek(fd, 0, SEEK_SET));
    for _ in 0..16 {
        let mut got = Vec::new();
        while got.len() < block.len() {
            got.extend(read(fd, block.len() - got.len()));
        }
        assert!(got == block, "the data came back changed");
    }
    assert_eq!(read(fd, 10), b"");
}

fn rewrite_in_place() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", &[b'.'; 10_000]).as_ptr(), O_RDWR));
    for i in (0..10_000).step_by(997) {
        ok!(pwrite(fd, b"#".as_ptr().cast(), 1, i));
    }
    let content = std::fs::read(temp.path().join("f")).expect("f");
    assert_eq!(content.len(), 10_000);
    assert!(content.iter().enumerate().all(|(i, b)| (*b == b'#') == (i % 997 == 0)));
}

fn o_direct() {
    let temp = Temp::new();
    let path = file(&temp, "f", &[5; 8192]);
    let fd = match sys!(open(path.as_ptr(), O_RDWR | O_DIRECT)) {
        Ok(fd) => fd,
        Err(EINVAL) => skip!("this file system has no direct I/O"),
        Err(errno) => panic!("{}", errno_name(errno)),
    };
    let page =
        ok!(mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    assert_eq!(ok!(pread(fd, page, 4096, 4096)), 4096);
    assert_eq!(ok!(pwrite(fd, page, 4096, 0)), 4096);
    assert_ne!(ok!(fcntl(fd, F_GETFL)) & O_DIRECT, 0);
}

fn fadvise() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"x").as_ptr(), O_RDWR));
    assert_eq!(ok!(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL)), 0);
    assert_eq!(ok!(posix_fadvise(fd, 0, 0, 99)), EINVAL);
    assert_eq!(ok!(posix_fadvise(pipe().0, 0, 0, 0)), ESPIPE);
    ok!(readahead(fd, 0, 4096));
}

fn close_twice() {
    let fd = ok!(dup(0));
    close(fd);
    fails!(EBADF, libc::close(fd));
    fails!(EBADF, libc::close(-1));
}

fn lowest_descriptor() {
    let a = ok!(dup(0));
    let b = ok!(dup(0));
    close(a);
    assert_eq!(ok!(dup(0)), a);
    close(b);
}

fn cloexec_in_open() {
    let fd = ok!(open(c"/".as_ptr(), O_RDONLY | O_CLOEXEC));
    assert_eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
}

fn creat_call() {
    let temp = Temp::new();
    let fd = ok!(creat(file(&temp, "f", b"old").as_ptr(), 0o600));
    assert_eq!(ok!(fcntl(fd, F_GETFL)) & O_ACCMODE, O_WRONLY);
    assert_eq!(ok!(lseek(fd, 0, SEEK_END)), 0);
}

fn reopen_by_proc() {
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"0123").as_ptr(), O_RDONLY));
    read(fd, 2);
    let again = ok!(open(c(&format!("/proc/self/fd/{fd}")).as_ptr(), O_RDWR));
    assert_eq!(read(again, 4), b"0123", "a new open file with its own offset");
    let dev = ok!(open(c(&format!("/dev/fd/{fd}")).as_ptr(), O_RDONLY));
    assert_eq!(read(dev, 1), b"0");
}
