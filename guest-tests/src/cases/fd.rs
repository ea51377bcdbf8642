//! Descriptors: dup, fcntl, close_range, memfd and its seals, rlimits, locks, splice.

use crate::harness::{Temp, c, cases, close, fails, file, in_child, ok, pipe, read, sys, write};

cases!("fd": lowest_free, dup2_and_dup3, dupfd_minimum, cloexec_flag, status_flags, close_range_call, shared_offset,
    append_flag, nofile_limit, bad_descriptor, memfd_basic, memfd_seals, memfd_name, sendfile_to_pipe, sendfile_offset,
    splice_file_to_pipe, splice_refused, vmsplice_what_fits, tee_pipes, copy_file_range_call, flock_conflict, locks_listed, posix_lock_conflict,
    posix_lock_of_other_process, posix_lock_lost_on_close, ofd_lock, lock_range_split, access_mode_checked, o_path,
    closed_while_listed);

fn lowest_free() {
    let a = ok!(libc::dup(0));
    let b = ok!(libc::dup(0));
    assert_eq!(b, a + 1);
    close(a);
    assert_eq!(ok!(libc::dup(0)), a);
}

fn dup2_and_dup3() {
    let (r, w) = pipe();
    assert_eq!(ok!(libc::dup2(r, 100)), 100);
    assert_eq!(ok!(libc::dup2(r, r)), r);
    fails!(libc::EINVAL, libc::dup3(r, r, 0));
    fails!(libc::EINVAL, libc::dup3(r, 101, 1));
    fails!(libc::EBADF, libc::dup2(999, 5));
    fails!(libc::EBADF, libc::dup2(r, -1));
    fails!(libc::EBADF, libc::dup2(r, 1 << 30));
    ok!(libc::dup3(w, 101, libc::O_CLOEXEC));
    assert_eq!(ok!(libc::fcntl(101, libc::F_GETFD)), libc::FD_CLOEXEC);
    write(101, b"a");
    assert_eq!(read(100, 9), b"a");
}

fn dupfd_minimum() {
    assert_eq!(ok!(libc::fcntl(0, libc::F_DUPFD, 200)), 200);
    assert_eq!(ok!(libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 200)), 201);
    assert_eq!(ok!(libc::fcntl(201, libc::F_GETFD)), 1);
    fails!(libc::EINVAL, libc::fcntl(0, libc::F_DUPFD, -1));
    fails!(libc::EINVAL, libc::fcntl(0, libc::F_DUPFD, 1 << 30));
}

fn cloexec_flag() {
    let fd = ok!(libc::dup(0));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 0);
    ok!(libc::fcntl(fd, libc::F_SETFD, 1));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 1);
    let copy = ok!(libc::dup(fd));
    assert_eq!(ok!(libc::fcntl(copy, libc::F_GETFD)), 0);
}

fn status_flags() {
    let (r, _w) = pipe();
    assert_eq!(ok!(libc::fcntl(r, libc::F_GETFL)), 0);
    ok!(libc::fcntl(r, libc::F_SETFL, libc::O_NONBLOCK | libc::O_RDWR | libc::O_CREAT));
    assert_eq!(ok!(libc::fcntl(r, libc::F_GETFL)), libc::O_NONBLOCK);
    let copy = ok!(libc::dup(r));
    assert_eq!(ok!(libc::fcntl(copy, libc::F_GETFL)), libc::O_NONBLOCK);
    fails!(libc::EAGAIN, libc::read(copy, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(libc::EINVAL, libc::fcntl(r, 9999));
}

fn close_range_call() {
    for fd in 300..310 {
        ok!(libc::dup2(0, fd));
    }
    ok!(libc::syscall(libc::SYS_close_range, 300, 304, 0));
    fails!(libc::EBADF, libc::fcntl(304, libc::F_GETFD));
    assert_eq!(ok!(libc::fcntl(305, libc::F_GETFD)), 0);
    ok!(libc::syscall(libc::SYS_close_range, 305, u32::MAX, 4));
    assert_eq!(ok!(libc::fcntl(309, libc::F_GETFD)), 1);
    fails!(libc::EINVAL, libc::syscall(libc::SYS_close_range, 5, 4, 0));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_close_range, 5, 6, 64));
}

fn shared_offset() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"abcdef");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    let copy = ok!(libc::dup(fd));
    assert_eq!(read(fd, 2), b"ab");
    assert_eq!(read(copy, 2), b"cd");
    in_child(|| assert_eq!(read(fd, 1), b"e"));
    assert_eq!(read(fd, 9), b"f");
    let own = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    assert_eq!(read(own, 1), b"a");
}

fn append_flag() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"ab");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_APPEND));
    write(fd, b"c");
    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    write(fd, b"d");
    assert_eq!(std::fs::read(temp.path().join("f")).expect("f"), b"abcd");
    ok!(libc::fcntl(fd, libc::F_SETFL, 0));
    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    write(fd, b"X");
    assert_eq!(std::fs::read(temp.path().join("f")).expect("f"), b"Xbcd");
}

fn nofile_limit() {
    in_child(|| {
        let limit = libc::rlimit { rlim_cur: 50, rlim_max: 50 };
        ok!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit));
        fails!(libc::EBADF, libc::dup2(0, 50));
        fails!(libc::EINVAL, libc::fcntl(0, libc::F_DUPFD, 50));
        let errno = loop {
            if let Err(errno) = sys!(libc::dup(0)) {
                break errno;
            }
        };
        assert_eq!(errno, libc::EMFILE);
        fails!(libc::EMFILE, libc::open(c("/").as_ptr(), libc::O_RDONLY));
    });
}

fn bad_descriptor() {
    let mut byte = [0u8; 1];
    // A bad descriptor beats a bad pointer.
    fails!(libc::EBADF, libc::read(-1, std::ptr::null_mut(), 5));
    fails!(libc::EBADF, libc::write(999, byte.as_ptr().cast(), 1));
    fails!(libc::EBADF, libc::close(999));
    fails!(libc::EBADF, libc::lseek(999, 0, 0));
    fails!(libc::EBADF, libc::fstat(999, &mut crate::harness::zeroed()));
    fails!(libc::EBADF, libc::ftruncate(-5, 0));
    fails!(libc::EBADF, libc::ioctl(999, libc::TCGETS, byte.as_mut_ptr()));
}

fn memfd(flags: u32) -> i32 {
    ok!(libc::memfd_create(c("guest").as_ptr(), flags))
}

fn memfd_basic() {
    let fd = memfd(0);
    write(fd, b"hello");
    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    assert_eq!(read(fd, 9), b"hello");
    ok!(libc::ftruncate(fd, 8192));
    let map = ok!(libc::mmap(std::ptr::null_mut(), 8192, 3, libc::MAP_SHARED, fd, 0)).cast::<u8>();
    // SAFETY: two pages are mapped there.
    unsafe {
        assert_eq!(*map, b'h');
        *map.add(1) = b'E';
    }
    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    assert_eq!(read(fd, 5), b"hEllo");
    fails!(libc::EINVAL, libc::memfd_create(c("x").as_ptr(), 0x8000));
    fails!(libc::EINVAL, libc::memfd_create(c(&"x".repeat(250)).as_ptr(), 0));
    fails!(libc::EPERM, libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GET_SEALS)), libc::F_SEAL_SEAL);
}

fn memfd_seals() {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    write(fd, b"abc");
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW));
    fails!(libc::EPERM, libc::ftruncate(fd, 1));
    fails!(libc::EPERM, libc::ftruncate(fd, 100));
    ok!(libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    fails!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 3));
    let map = ok!(libc::mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED, fd, 0));
    fails!(libc::EBUSY, libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    ok!(libc::munmap(map, 4096));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE | libc::F_SEAL_SEAL));
    fails!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    fails!(libc::EPERM, libc::mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED, fd, 0));
    fails!(libc::EPERM, libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW));
    fails!(libc::EINVAL, libc::fcntl(0, libc::F_GET_SEALS));
}

fn memfd_name() {
    let fd = memfd(0);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("the link");
    assert_eq!(link.to_str(), Some("/memfd:guest (deleted)"));
}

fn sendfile_to_pipe() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"abcdef").as_ptr(), libc::O_RDONLY));
    let (r, w) = pipe();
    assert_eq!(ok!(libc::sendfile(w, fd, std::ptr::null_mut(), 4)), 4);
    assert_eq!(read(r, 9), b"abcd");
    assert_eq!(ok!(libc::sendfile(w, fd, std::ptr::null_mut(), 100)), 2);
    assert_eq!(ok!(libc::sendfile(w, fd, std::ptr::null_mut(), 100)), 0);
}

fn sendfile_offset() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"abcdef").as_ptr(), libc::O_RDONLY));
    let out = ok!(libc::open(temp.join("g").as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
    let mut offset = 2;
    assert_eq!(ok!(libc::sendfile(out, fd, &mut offset, 3)), 3);
    assert_eq!(offset, 5);
    assert_eq!(ok!(libc::lseek(fd, 0, libc::SEEK_CUR)), 0);
    assert_eq!(std::fs::read(temp.path().join("g")).expect("g"), b"cde");
}

fn splice_file_to_pipe() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"abcdef").as_ptr(), libc::O_RDWR));
    let (r, w) = pipe();
    let mut offset = 1;
    assert_eq!(ok!(libc::splice(fd, &mut offset, w, std::ptr::null_mut(), 3, 0)), 3);
    assert_eq!(offset, 4);
    assert_eq!(ok!(libc::splice(r, std::ptr::null_mut(), fd, std::ptr::null_mut(), 10, 0)), 3);
    assert_eq!(std::fs::read(temp.path().join("f")).expect("f"), b"bcddef");
    fails!(libc::EINVAL, libc::splice(fd, std::ptr::null_mut(), fd, std::ptr::null_mut(), 3, 0));
    fails!(libc::ESPIPE, libc::splice(fd, std::ptr::null_mut(), w, &mut offset, 3, 0));
    fails!(
        libc::EAGAIN,
        libc::splice(r, std::ptr::null_mut(), fd, std::ptr::null_mut(), 3, libc::SPLICE_F_NONBLOCK)
    );
}

fn splice_refused() {
    let none = std::ptr::null_mut;
    let (r, w) = pipe();
    write(w, b"bytes");
    let directory = ok!(libc::open(c"/tmp".as_ptr(), libc::O_RDONLY));
    let epoll = ok!(libc::epoll_create1(0));
    let event = ok!(libc::eventfd(0, 0));
    let timer = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
    for fd in [directory, epoll, event, timer, ok!(libc::inotify_init1(0))] {
        fails!(libc::EINVAL, libc::splice(fd, none(), w, none(), 3, 0));
    }
    for fd in [epoll, event, timer] {
        fails!(libc::EINVAL, libc::splice(r, none(), fd, none(), 3, 0));
    }
    assert_eq!(read(r, 9), b"bytes");
}

fn vmsplice_what_fits() {
    let (r, w) = pipe();
    let page = 4096;
    let bytes = ok!(libc::mmap(
        std::ptr::null_mut(),
        32 * page,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0
    ));
    let all = libc::iovec { iov_base: bytes, iov_len: 32 * page };
    assert_eq!(ok!(libc::vmsplice(w, &all, 1, 0)), 16 * page as isize);
    fails!(libc::EAGAIN, libc::vmsplice(w, &all, 1, libc::SPLICE_F_NONBLOCK));
    assert_eq!(read(r, page).len(), page);
    assert_eq!(ok!(libc::vmsplice(w, &all, 1, 0)), page as isize);
    ok!(libc::close(r));
    ok!(libc::signal(libc::SIGPIPE, libc::SIG_IGN));
    fails!(libc::EPIPE, libc::vmsplice(w, &all, 1, 0));
}

fn tee_pipes() {
    let (a, aw) = pipe();
    let (b, bw) = pipe();
    write(aw, b"hello");
    assert_eq!(ok!(libc::tee(a, bw, 3, 0)), 3);
    assert_eq!(read(b, 9), b"hel");
    assert_eq!(read(a, 9), b"hello");
    fails!(libc::EAGAIN, libc::tee(a, bw, 3, libc::SPLICE_F_NONBLOCK));
    fails!(libc::EINVAL, libc::tee(a, aw, 3, 0));
}

fn copy_file_range_call() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"abcdef").as_ptr(), libc::O_RDONLY));
    let out = ok!(libc::open(temp.join("g").as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600));
    let mut from = 1;
    let null = std::ptr::null_mut();
    assert_eq!(ok!(libc::copy_file_range(fd, &mut from, out, null, 3, 0)), 3);
    assert_eq!(ok!(libc::copy_file_range(fd, null, out, null, 100, 0)), 6);
    assert_eq!(std::fs::read(temp.path().join("g")).expect("g"), b"bcdabcdef");
    fails!(libc::EBADF, libc::copy_file_range(out, null, fd, null, 1, 0));
    fails!(libc::EINVAL, libc::copy_file_range(fd, null, out, null, 1, 1));
}

/// proc_locks(5).
fn locks_listed() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    let meta = std::fs::metadata(temp.path().join("f")).expect("metadata");
    let (dev, ino) = (std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta));
    let place = format!("{:02x}:{:02x}:{ino}", libc::major(dev), libc::minor(dev));
    let listed = || {
        let text = std::fs::read_to_string("/proc/locks").expect("locks");
        let words = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        let mut rows: Vec<String> = text.lines().map(words).filter(|row| row.contains(&place)).collect();
        rows.sort();
        rows
    };
    assert!(listed().is_empty());
    ok!(libc::flock(fd, libc::LOCK_EX));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_RDLCK, 10, 5)));
    ok!(libc::fcntl(fd, libc::F_OFD_SETLK, &lock(libc::F_WRLCK, 100, 0)));
    let pid = std::process::id();
    let wanted = [
        format!("FLOCK ADVISORY WRITE {pid} {place} 0 EOF"),
        format!("OFDLCK ADVISORY WRITE -1 {place} 100 EOF"),
        format!("POSIX ADVISORY READ {pid} {place} 10 14"),
    ];
    assert_eq!(listed(), wanted);
    close(fd);
    assert!(listed().is_empty());
}

fn flock_conflict() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"");
    let open = || ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    let (a, b) = (open(), open());
    ok!(libc::flock(a, libc::LOCK_SH));
    ok!(libc::flock(b, libc::LOCK_SH | libc::LOCK_NB));
    fails!(libc::EAGAIN, libc::flock(a, libc::LOCK_EX | libc::LOCK_NB));
    ok!(libc::flock(b, libc::LOCK_UN));
    ok!(libc::flock(a, libc::LOCK_EX | libc::LOCK_NB));
    fails!(libc::EAGAIN, libc::flock(b, libc::LOCK_SH | libc::LOCK_NB));
    let copy = ok!(libc::dup(a));
    close(a);
    fails!(libc::EAGAIN, libc::flock(b, libc::LOCK_SH | libc::LOCK_NB));
    close(copy);
    ok!(libc::flock(b, libc::LOCK_EX | libc::LOCK_NB));
    fails!(libc::EINVAL, libc::flock(b, 77));
}

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: 0, l_start: start, l_len: len, l_pid: 0 }
}

fn posix_lock_conflict() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"").as_ptr(), libc::O_RDWR));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 10)));
    in_child(|| {
        fails!(libc::EAGAIN, libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_RDLCK, 9, 1)));
        ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 10, 0)));
    });
    fails!(libc::EINVAL, libc::fcntl(fd, libc::F_SETLK, &lock(7, 0, 1)));
    fails!(libc::EINVAL, libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, -1, 1)));
    let reader = ok!(libc::open(temp.join("f").as_ptr(), libc::O_RDONLY));
    fails!(libc::EBADF, libc::fcntl(reader, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 1)));
}

fn posix_lock_of_other_process() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"").as_ptr(), libc::O_RDWR));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 5, 10)));
    let parent = ok!(libc::getpid());
    in_child(|| {
        let mut probe = lock(libc::F_RDLCK, 0, 0);
        ok!(libc::fcntl(fd, libc::F_GETLK, &mut probe));
        assert_eq!((probe.l_type, probe.l_start, probe.l_len), (libc::F_WRLCK as i16, 5, 10));
        assert_eq!(probe.l_pid, parent);
        probe = lock(libc::F_RDLCK, 0, 5);
        ok!(libc::fcntl(fd, libc::F_GETLK, &mut probe));
        assert_eq!(probe.l_type, libc::F_UNLCK as i16);
    });
}

fn posix_lock_lost_on_close() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    let other = ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    close(other);
    in_child(|| {
        ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    });
}

fn ofd_lock() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"");
    let open = || ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    let (a, b) = (open(), open());
    ok!(libc::fcntl(a, libc::F_OFD_SETLK, &lock(libc::F_WRLCK, 0, 0)));
    fails!(libc::EAGAIN, libc::fcntl(b, libc::F_OFD_SETLK, &lock(libc::F_RDLCK, 0, 1)));
    let mut probe = lock(libc::F_RDLCK, 0, 1);
    ok!(libc::fcntl(b, libc::F_OFD_GETLK, &mut probe));
    assert_eq!(probe.l_pid, -1);
    let mut wrong = lock(libc::F_RDLCK, 0, 1);
    wrong.l_pid = 1;
    fails!(libc::EINVAL, libc::fcntl(b, libc::F_OFD_SETLK, &wrong));
    close(a);
    ok!(libc::fcntl(b, libc::F_OFD_SETLK, &lock(libc::F_WRLCK, 0, 0)));
}

fn lock_range_split() {
    let temp = Temp::new();
    let fd = ok!(libc::open(file(&temp, "f", b"").as_ptr(), libc::O_RDWR));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 0, 30)));
    ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_UNLCK, 10, 10)));
    in_child(|| {
        ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 10, 10)));
        fails!(libc::EAGAIN, libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 9, 1)));
        fails!(libc::EAGAIN, libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 20, 1)));
        ok!(libc::fcntl(fd, libc::F_SETLK, &lock(libc::F_WRLCK, 30, 1)));
    });
}

fn access_mode_checked() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"abc");
    let reader = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    let writer = ok!(libc::open(path.as_ptr(), libc::O_WRONLY));
    fails!(libc::EBADF, libc::write(reader, b"x".as_ptr().cast(), 1));
    fails!(libc::EBADF, libc::read(writer, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(libc::EINVAL, libc::ftruncate(reader, 0));
    let null = std::ptr::null_mut();
    fails!(libc::EACCES, libc::mmap(null, 4096, 3, libc::MAP_SHARED, reader, 0));
    fails!(libc::EACCES, libc::mmap(null, 4096, 1, libc::MAP_PRIVATE, writer, 0));
    ok!(libc::mmap(null, 4096, 3, libc::MAP_PRIVATE, reader, 0));
}

fn o_path() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"abc");
    let fd = ok!(libc::open(path.as_ptr(), libc::O_PATH));
    fails!(libc::EBADF, libc::read(fd, [0u8; 1].as_mut_ptr().cast(), 1));
    fails!(libc::EBADF, libc::fchmod(fd, 0o600));
    fails!(libc::EBADF, libc::ioctl(fd, libc::FIONREAD, &mut 0));
    let mut stat: libc::stat = crate::harness::zeroed();
    ok!(libc::fstat(fd, &mut stat));
    assert_eq!(stat.st_size, 3);
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_PATH, libc::O_PATH);
    let again = ok!(libc::open(c(&format!("/proc/self/fd/{fd}")).as_ptr(), libc::O_RDONLY));
    assert_eq!(read(again, 9), b"abc");
}

/// As programs close what they inherited: each entry as it is read, few at a time.
fn closed_while_listed() {
    let kept = ok!(libc::dup(0));
    let opened: Vec<i32> = (0..40).map(|_| ok!(libc::dup(0))).collect();
    let dir = ok!(libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY));
    let mut buf = [0u8; 120];
    loop {
        let n = ok!(libc::syscall(libc::SYS_getdents64, dir, buf.as_mut_ptr(), buf.len())) as usize;
        if n == 0 {
            break;
        }
        let mut at = 0;
        while at < n {
            let size = usize::from(u16::from_ne_bytes([buf[at + 16], buf[at + 17]]));
            let name: Vec<u8> = buf[at + 19..at + size].iter().copied().take_while(|b| *b != 0).collect();
            if let Ok(fd) = String::from_utf8_lossy(&name).parse::<i32>()
                && fd > kept
                && fd != dir
            {
                close(fd);
            }
            at += size;
        }
    }
    for fd in opened {
        fails!(libc::EBADF, libc::fcntl(fd, libc::F_GETFD));
    }
    ok!(libc::fcntl(kept, libc::F_GETFD));
}
