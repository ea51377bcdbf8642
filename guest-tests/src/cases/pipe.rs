//! Pipes and FIFOs.

use libc::*;

use crate::harness::{
    End, Temp, c, cases, close, fails, file, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write,
    zeroed,
};

cases!("pipe": write_read, end_of_file, empty_nonblocking, full_nonblocking, size, atomic_writes, blocked_writer_goes_on,
    blocked_reader_wakes, zero_length, flags, packet_mode, fifo, fifo_nonblocking_errors, fifo_opens_meet, fionread,
    closed_reader_wakes_writer, big_transfer, wrong_end, bad_buffer, vectors, seek, through_proc, reopened, of_their_maker, many_pieces);

fn write_read() {
    let (r, w) = pipe();
    write(w, b"hello ");
    write(w, b"world");
    assert_eq!(read(r, 100), b"hello world");
}

fn end_of_file() {
    let (r, w) = pipe();
    write(w, b"x");
    close(w);
    assert_eq!(read(r, 10), b"x");
    assert_eq!(read(r, 10), b"");
    // Nothing is left to copy, so a bad buffer goes unnoticed.
    assert_eq!(ok!(libc::read(r, std::ptr::null_mut(), 10)), 0);
}

fn nonblocking() -> (i32, i32) {
    let mut ends = [0; 2];
    ok!(pipe2(ends.as_mut_ptr(), O_NONBLOCK));
    (ends[0], ends[1])
}

fn empty_nonblocking() {
    let (r, _w) = nonblocking();
    fails!(EAGAIN, libc::read(r, [0u8; 1].as_mut_ptr().cast(), 1));
}

fn full_nonblocking() {
    let (r, w) = nonblocking();
    let block = [7u8; 4096];
    let mut total = 0;
    while let Ok(n) = sys!(libc::write(w, block.as_ptr().cast(), 4096)) {
        total += n;
    }
    assert_eq!(total, 65536);
    fails!(EAGAIN, libc::write(w, block.as_ptr().cast(), 1));
    assert_eq!(read(r, 4096).len(), 4096);
    assert_eq!(ok!(libc::write(w, block.as_ptr().cast(), 4096)), 4096);
}

fn size() {
    let (r, w) = pipe();
    assert_eq!(ok!(fcntl(r, F_GETPIPE_SZ)), 65536);
    assert_eq!(ok!(fcntl(w, F_SETPIPE_SZ, 100_000)), 131_072);
    assert_eq!(ok!(fcntl(r, F_GETPIPE_SZ)), 131_072);
    assert_eq!(ok!(fcntl(r, F_SETPIPE_SZ, 1)), 4096);
    write(w, &[0; 4096]);
    ok!(fcntl(w, F_SETPIPE_SZ, 65536));
    write(w, &[0; 8192]);
    fails!(EBUSY, fcntl(w, F_SETPIPE_SZ, 4096));
    let temp = Temp::new();
    let fd = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDONLY));
    fails!(EBADF, fcntl(fd, F_GETPIPE_SZ));
}

fn atomic_writes() {
    let (r, w) = pipe();
    let writers: Vec<_> = (0..4u8)
        .map(|n| {
            fork(move || {
                for _ in 0..50 {
                    write(w, &[n; 3000]);
                }
                0
            })
        })
        .collect();
    close(w);
    let mut all = Vec::new();
    loop {
        let part = read(r, 10_000);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    assert_eq!(all.len(), 4 * 50 * 3000);
    for message in all.chunks(3000) {
        assert!(message.iter().all(|b| *b == message[0]), "two writes are mixed");
    }
    for pid in writers {
        assert_eq!(wait(pid), End::Exited(0));
    }
}

fn blocked_writer_goes_on() {
    let (r, w) = pipe();
    let pid = fork(|| {
        write(w, &[1; 200_000]);
        0
    });
    close(w);
    let mut total = 0;
    loop {
        let n = read(r, 7000).len();
        if n == 0 {
            break;
        }
        total += n;
    }
    assert_eq!(total, 200_000);
    assert_eq!(wait(pid), End::Exited(0));
}

fn blocked_reader_wakes() {
    let (r, w) = pipe();
    let pid = fork(|| {
        sleep_ms(20);
        write(w, b"now");
        0
    });
    assert_eq!(read(r, 10), b"now");
    wait(pid);
}

fn zero_length() {
    let (r, w) = pipe();
    write(w, b"");
    let mut entry = pollfd { fd: r, events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&mut entry, 1, 0)), 0);
    assert_eq!(ok!(libc::read(r, [0u8; 1].as_mut_ptr().cast(), 0)), 0);
}

fn flags() {
    let mut ends = [0; 2];
    ok!(pipe2(ends.as_mut_ptr(), O_CLOEXEC | O_NONBLOCK));
    assert_eq!(ok!(fcntl(ends[0], F_GETFD)), FD_CLOEXEC);
    assert_eq!(ok!(fcntl(ends[0], F_GETFL)), O_RDONLY | O_NONBLOCK);
    assert_eq!(ok!(fcntl(ends[1], F_GETFL)), O_WRONLY | O_NONBLOCK);
    fails!(EINVAL, pipe2(ends.as_mut_ptr(), O_APPEND));
    fails!(EFAULT, syscall(SYS_pipe2, 8, 0));
    let mut status: stat = zeroed();
    ok!(fstat(ends[0], &mut status));
    assert_eq!(status.st_mode & S_IFMT, S_IFIFO);
}

fn packet_mode() {
    let mut ends = [0; 2];
    ok!(pipe2(ends.as_mut_ptr(), O_DIRECT));
    write(ends[1], b"one");
    write(ends[1], b"two!");
    assert_eq!(read(ends[0], 2), b"on");
    assert_eq!(read(ends[0], 100), b"two!");
}

fn fifo() {
    let temp = Temp::new();
    let path = temp.join("fifo");
    ok!(mkfifo(path.as_ptr(), 0o600));
    let pid = fork(|| {
        let w = ok!(open(path.as_ptr(), O_WRONLY));
        write(w, b"through the fifo");
        0
    });
    let r = ok!(open(path.as_ptr(), O_RDONLY));
    assert_eq!(read(r, 100), b"through the fifo");
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(read(r, 100), b"");
}

fn fifo_nonblocking_errors() {
    let temp = Temp::new();
    let path = temp.join("fifo");
    ok!(mkfifo(path.as_ptr(), 0o600));
    fails!(ENXIO, open(path.as_ptr(), O_WRONLY | O_NONBLOCK));
    let r = ok!(open(path.as_ptr(), O_RDONLY | O_NONBLOCK));
    assert_eq!(read(r, 10), b"");
    let w = ok!(open(path.as_ptr(), O_WRONLY | O_NONBLOCK));
    fails!(EAGAIN, libc::read(r, [0u8; 1].as_mut_ptr().cast(), 1));
    write(w, b"x");
    assert_eq!(read(r, 10), b"x");
    fails!(EEXIST, mkfifo(path.as_ptr(), 0o600));
}

fn fifo_opens_meet() {
    let temp = Temp::new();
    let path = temp.join("fifo");
    ok!(mkfifo(path.as_ptr(), 0o600));
    // Reading and writing at once never waits for the other end.
    let both = ok!(open(path.as_ptr(), O_RDWR));
    write(both, b"self");
    assert_eq!(read(both, 10), b"self");
}

fn fionread() {
    let (r, w) = pipe();
    write(w, b"12345");
    let mut n = 0;
    ok!(ioctl(r, FIONREAD, &mut n));
    assert_eq!(n, 5);
}

fn closed_reader_wakes_writer() {
    ok!(signal(SIGPIPE, SIG_IGN));
    let (r, w) = pipe();
    let pid = fork(|| {
        close(r);
        let block = vec![0u8; 200_000];
        match sys!(libc::write(w, block.as_ptr().cast(), block.len())) {
            // The part that fitted counts, then the next call fails.
            Ok(n) => {
                assert!(n < 200_000);
                fails!(EPIPE, libc::write(w, block.as_ptr().cast(), 1));
            }
            Err(errno) => assert_eq!(errno, EPIPE),
        }
        0
    });
    sleep_ms(20);
    close(r);
    assert_eq!(wait(pid), End::Exited(0));
}

fn big_transfer() {
    let (r, w) = pipe();
    let pid = fork(|| {
        for i in 0..256u32 {
            write(w, &vec![i as u8; 32 * 1024]);
        }
        0
    });
    close(w);
    let (mut total, mut sum) = (0usize, 0u64);
    loop {
        let part = read(r, 65536);
        if part.is_empty() {
            break;
        }
        total += part.len();
        sum += part.iter().map(|b| u64::from(*b)).sum::<u64>();
    }
    assert_eq!(total, 256 * 32 * 1024);
    assert_eq!(sum, (0..256).sum::<u64>() * 32 * 1024);
    wait(pid);
}

fn wrong_end() {
    let (r, w) = pipe();
    fails!(EBADF, libc::write(r, b"x".as_ptr().cast(), 1));
    fails!(EBADF, libc::read(w, [0u8; 1].as_mut_ptr().cast(), 1));
    // A bad descriptor is found before a bad pointer.
    fails!(EBADF, libc::read(w, 8 as *mut c_void, 1));
}

fn bad_buffer() {
    let (r, w) = pipe();
    fails!(EFAULT, libc::write(w, 8 as *const c_void, 10));
    write(w, b"kept");
    fails!(EFAULT, libc::read(r, 8 as *mut c_void, 4));
    assert_eq!(read(r, 100), b"kept");
    // A pipe whose numbers reach nobody is closed again.
    fails!(EFAULT, syscall(SYS_pipe2, 8, 0));
    let (again, _) = pipe();
    assert_eq!(again, w + 1);
}

/// A pipe opened once more, by its name in /proc, waits for nobody, whoever has the other end.
fn reopened() {
    let (r, w) = pipe();
    write(w, b"here is the document");
    close(w);
    let name = std::ffi::CString::new(format!("/proc/self/fd/{r}")).expect("a name");
    let again = ok!(open(name.as_ptr(), O_RDONLY));
    assert_eq!(read(again, 7), b"here is");
    assert_eq!(read(r, 100), b" the document");
    assert_eq!(read(again, 1), b"");
    let mut poll_fd = pollfd { fd: again, events: POLLIN, revents: 0 };
    assert_eq!(ok!(poll(&raw mut poll_fd, 1, 0)), 1);
    assert_eq!(poll_fd.revents, POLLHUP);
    let (r, w) = pipe();
    let name = std::ffi::CString::new(format!("/dev/fd/{w}")).expect("a name");
    close(r);
    let again = ok!(open(name.as_ptr(), O_WRONLY | O_NONBLOCK));
    ok!(sigaction(SIGPIPE, &super::signal::action(SIG_IGN, 0), std::ptr::null_mut()));
    fails!(EPIPE, libc::write(again, b"x".as_ptr().cast(), 1));
}

/// A pipe belongs to who made it, who can open it anew: what `<(...)` of a shell and `/dev/stdin` are for others than root.
fn of_their_maker() {
    in_child(|| {
        let (of_root, _w) = pipe();
        let (uid, gid) = if ok!(geteuid()) == 0 {
            ok!(setresgid(1235, 1235, 1235));
            ok!(setresuid(1234, 1234, 1234));
            let name = c(&format!("/proc/self/fd/{of_root}"));
            fails!(EACCES, open(name.as_ptr(), O_RDONLY | O_NONBLOCK));
            (1234, 1235)
        } else {
            (ok!(geteuid()), ok!(getegid()))
        };
        let (r, w) = pipe();
        let mut sockets = [0; 2];
        ok!(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.as_mut_ptr()));
        for (fd, mode) in [(r, S_IFIFO | 0o600), (w, S_IFIFO | 0o600), (sockets[1], S_IFSOCK | 0o777)] {
            let mut stat: stat = zeroed();
            ok!(fstat(fd, &raw mut stat));
            assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode), (uid, gid, mode));
        }
        let (into, from) = (c(&format!("/dev/fd/{w}")), c(&format!("/dev/fd/{r}")));
        write(ok!(open(into.as_ptr(), O_WRONLY)), b"again");
        assert_eq!(read(ok!(open(from.as_ptr(), O_RDONLY)), 10), b"again");
    });
}

fn vectors() {
    let (r, w) = pipe();
    let parts: [&[u8]; 3] = [b"ab", b"", b"cdef"];
    let out = parts.map(|p| iovec { iov_base: p.as_ptr() as *mut c_void, iov_len: p.len() });
    assert_eq!(ok!(writev(w, out.as_ptr(), 3)), 6);
    let (mut a, mut b) = ([0u8; 4], [0u8; 4]);
    let into = [
        iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 4 },
        iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 4 },
    ];
    assert_eq!(ok!(readv(r, into.as_ptr(), 2)), 6);
    assert_eq!((&a, &b[..2]), (b"abcd", &b"ef"[..]));
    fails!(EINVAL, writev(w, out.as_ptr(), -1));
    fails!(EINVAL, writev(w, out.as_ptr(), 1025));
}

fn seek() {
    let (r, _w) = pipe();
    fails!(ESPIPE, lseek(r, 0, SEEK_CUR));
    fails!(ESPIPE, pread(r, [0u8; 1].as_mut_ptr().cast(), 1, 0));
}

fn through_proc() {
    let (r, w) = pipe();
    let path = c(&format!("/proc/self/fd/{w}"));
    let again = ok!(open(path.as_ptr(), O_WRONLY));
    write(again, b"again");
    assert_eq!(read(r, 10), b"again");
    let target = std::fs::read_link(format!("/proc/self/fd/{r}")).expect("a link");
    let text = target.to_string_lossy().into_owned();
    assert!(text.starts_with("pipe:[") && text.ends_with(']'), "{text}");
}

/// One call that names more pieces than travel with it, some of them empty or large.
fn many_pieces() {
    let (r, w) = pipe();
    let parts: Vec<Vec<u8>> =
        (0..40_u8).map(|i| vec![i; if i == 7 { 5000 } else { usize::from(i % 5) }]).collect();
    let all: Vec<u8> = parts.concat();
    let piece = |p: &Vec<u8>| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() };
    let mut pieces: Vec<libc::iovec> = parts.iter().map(piece).collect();
    assert_eq!(ok!(libc::writev(w, pieces.as_ptr(), 40)) as usize, all.len());
    assert_eq!(read(r, all.len()), all);
    // The list itself lies in what is written.
    pieces[0] = libc::iovec { iov_base: pieces.as_mut_ptr().cast(), iov_len: 16 };
    assert_eq!(ok!(libc::writev(w, pieces.as_ptr(), 1)), 16);
    assert_eq!(read(r, 16).len(), 16);
}
