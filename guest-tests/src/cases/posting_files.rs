//! Files that are opened often: what they are and hold may be known before it is asked for, and closing them may be
//! done without waiting for the kernel process. Nobody must be able to tell.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::posting::{epoll_of, pairs, ready, shared_words, warm};
use super::tcp::recv;
use crate::harness::{
    End, Temp, c, cases, close, errno, fails, file, fork, ok, read, sleep_ms, wait, write, zeroed,
};

cases!("posting": opened_and_closed, number_of_another, change_is_seen, position_is_shared, bad_buffers, sent_file,
    locks_go, events_come, mapped_change, closed_beside,
    kept_and_sent, read_in_pieces, rewritten);

/// So many times until calls are done without an answer.
pub(super) const WARM: usize = 200;

pub(super) fn open(path: &CStr, flags: i32) -> RawFd {
    ok!(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644))
}

pub(super) fn stat(fd: RawFd) -> libc::stat {
    let mut stat = zeroed();
    ok!(libc::fstat(fd, &raw mut stat));
    stat
}

pub(super) fn position(fd: RawFd) -> i64 {
    ok!(libc::lseek(fd, 0, libc::SEEK_CUR))
}

pub(super) fn pread(fd: RawFd, max: usize, at: i64) -> Vec<u8> {
    let mut buf = vec![0; max];
    let n = ok!(libc::pread(fd, buf.as_mut_ptr().cast(), max, at));
    buf.truncate(n as usize);
    buf
}

/// Opens, looks, reads to the end and closes, often.
fn warm_file(path: &CStr) {
    for _ in 0..WARM {
        let fd = open(path, libc::O_RDONLY);
        let size = stat(fd).st_size as usize;
        assert_eq!(position(fd), 0);
        let data = read(fd, size + 1);
        assert_eq!(data.len(), size);
        assert!(read(fd, 1).is_empty());
        close(fd);
    }
}

/// Waits, without a call, until a word has this value.
pub(super) fn until(word: &AtomicU32, value: u32) {
    while word.load(Ordering::SeqCst) != value {
        std::hint::spin_loop();
        std::thread::yield_now();
    }
}

fn opened_and_closed() {
    let temp = Temp::new();
    for size in [0, 1, 100, 4096, 15_935, 15_936, 15_937, 16_384, 40_000] {
        let content: Vec<u8> = (0..size).map(|i| (i * 7 + i / 256) as u8).collect();
        let path = file(&temp, &format!("f{size}"), &content);
        warm_file(&path);
        let fd = open(&path, libc::O_RDONLY);
        let by_path = {
            let mut stat = zeroed::<libc::stat>();
            ok!(libc::stat(path.as_ptr(), &raw mut stat));
            stat
        };
        let by_fd = stat(fd);
        assert_eq!(
            (by_fd.st_ino, by_fd.st_size, by_fd.st_mode),
            (by_path.st_ino, size as i64, by_path.st_mode)
        );
        let mut statx: libc::statx = zeroed();
        ok!(libc::statx(fd, c("").as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS, &raw mut statx));
        assert_eq!((statx.stx_ino, statx.stx_size), (by_path.st_ino, size as u64));
        assert_eq!((statx.stx_mtime.tv_sec, statx.stx_nlink), (by_path.st_mtime, 1));
        fails!(libc::ENOTTY, libc::ioctl(fd, libc::TCGETS, [0u8; 64].as_mut_ptr()));
        ok!(libc::syscall(libc::SYS_fadvise64, fd, 0, 0, libc::POSIX_FADV_SEQUENTIAL));
        assert_eq!(pread(fd, 50, 60), content.get(60.min(size)..110.min(size)).unwrap_or_default());
        assert!(pread(fd, 50, 1 << 20).is_empty());
        fails!(libc::EINVAL, libc::pread(fd, [0u8; 8].as_mut_ptr().cast(), 8, -1));
        assert_eq!(position(fd), 0);
        assert!(read(fd, 100_000) == content);
        assert!(read(fd, 100).is_empty());
        assert_eq!(position(fd), size as i64);
        fails!(libc::EBADF, libc::write(fd, c"x".as_ptr().cast(), 1));
        fails!(libc::EINVAL, libc::syscall(libc::SYS_fadvise64, fd, 0, 0, 6));
        fails!(libc::EINVAL, libc::syscall(libc::SYS_fadvise64, fd, 0, -1i64, libc::POSIX_FADV_SEQUENTIAL));
        let mut name = [0u8; 4];
        fails!(libc::ENOTSOCK, libc::recv(fd, name.as_mut_ptr().cast(), 4, 0));
        close(fd);
        fails!(libc::EBADF, libc::close(fd));
        assert_eq!(open(&path, libc::O_RDONLY), fd, "the number is free");
        close(fd);
    }
}

/// A number that was just given back is another file's: a socket's, whose bytes are read there.
fn number_of_another() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"of the file");
    for (a, b) in pairs() {
        warm((a, b));
        for i in 0..WARM {
            let fd = open(&path, libc::O_RDONLY);
            if i % 2 == 0 {
                assert_eq!(stat(fd).st_size, 11);
            }
            if i % 3 == 0 {
                assert_eq!(read(fd, 4), b"of t");
            }
            close(fd);
            let copy = ok!(libc::dup(b));
            assert_eq!(copy, fd);
            write(a, b"of the socket");
            assert_eq!(recv(copy, 100, 0), Ok(b"of the socket".to_vec()));
            assert_eq!(stat(copy).st_mode & libc::S_IFMT, libc::S_IFSOCK);
            fails!(libc::ESPIPE, libc::lseek(copy, 0, libc::SEEK_CUR));
            close(copy);
            fails!(libc::EBADF, libc::fstat(fd, [0u8; 144].as_mut_ptr().cast()));
        }
        close(a);
        close(b);
    }
}

/// What another thread or process has changed before it tells, in memory, is seen.
fn change_is_seen() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"before");
    let other = temp.join("g");
    let words = shared_words();
    for forks in [false, true] {
        for round in 0..8 {
            std::fs::write(temp.path().join("f"), b"before").expect("the file");
            words[0].store(0, Ordering::SeqCst);
            words[1].store(0, Ordering::SeqCst);
            let (path, other) = (path.clone(), other.clone());
            let change = move || {
                until(&words[0], 1);
                match round {
                    0 | 1 => {
                        let fd = open(&path, libc::O_WRONLY);
                        write(fd, b"behind all that");
                        close(fd);
                    }
                    2 => drop(ok!(libc::truncate(path.as_ptr(), 3))),
                    3 => drop(ok!(libc::chmod(path.as_ptr(), 0o600))),
                    4 => {
                        ok!(libc::link(path.as_ptr(), other.as_ptr()));
                        ok!(libc::unlink(other.as_ptr()));
                        ok!(libc::link(path.as_ptr(), other.as_ptr()));
                    }
                    5 => drop(ok!(libc::unlink(other.as_ptr()))),
                    6 => {
                        let times = [libc::timespec { tv_sec: 77, tv_nsec: 5 }; 2];
                        ok!(libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0));
                    }
                    _ => {
                        let fd = open(&path, libc::O_WRONLY);
                        assert_eq!(ok!(libc::pwrite(fd, c"X".as_ptr().cast(), 1, 0)), 1);
                        words[1].store(1, Ordering::SeqCst);
                        until(&words[0], 2);
                        return 0;
                    }
                }
                words[1].store(1, Ordering::SeqCst);
                0
            };
            let path = temp.join("f");
            warm_file(&path);
            let (pid, thread) =
                if forks { (fork(change), None) } else { (0, Some(std::thread::spawn(change))) };
            sleep_ms(2);
            warm_file(&path);
            let fd = open(&path, libc::O_RDONLY);
            let before = stat(fd);
            words[0].store(1, Ordering::SeqCst);
            until(&words[1], 1);
            let after = stat(fd);
            let data = read(fd, 100);
            match round {
                0 | 1 => assert_eq!((after.st_size, data.as_slice()), (15, b"behind all that".as_slice())),
                2 => assert_eq!((after.st_size, data.as_slice()), (3, b"bef".as_slice())),
                3 => assert_eq!(after.st_mode & 0o777, 0o600),
                4 => assert_eq!((before.st_nlink, after.st_nlink), (1, 2)),
                5 => assert_eq!((before.st_nlink, after.st_nlink), (2, 1)),
                6 => assert_eq!((after.st_mtime, after.st_mtime_nsec), (77, 5)),
                _ => assert_eq!(data, b"Xefore"),
            }
            close(fd);
            words[0].store(2, Ordering::SeqCst);
            match thread {
                Some(thread) => drop(thread.join().expect("the thread")),
                None => assert_eq!(wait(pid), End::Exited(0)),
            }
        }
    }
}

/// The position belongs to the open file, by whatever descriptor and in whatever process.
fn position_is_shared() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"0123456789");
    warm_file(&path);
    let fd = open(&path, libc::O_RDONLY);
    assert_eq!(read(fd, 2), b"01");
    let copy = ok!(libc::dup(fd));
    assert_eq!(read(copy, 2), b"23");
    assert_eq!((position(fd), read(fd, 2)), (4, b"45".to_vec()));
    assert_eq!(wait(fork(|| i32::from(read(fd, 2) != b"67"))), End::Exited(0));
    assert_eq!((position(copy), read(fd, 1)), (8, b"8".to_vec()));
    close(copy);
    close(fd);
    warm_file(&path);
    let fd = open(&path, libc::O_RDONLY);
    assert_eq!(std::thread::spawn(move || read(fd, 3)).join().expect("the thread"), b"012");
    assert_eq!(read(fd, 3), b"345");
    ok!(libc::lseek(fd, 1, libc::SEEK_SET));
    assert_eq!(read(fd, 3), b"123");
    close(fd);
}

fn bad_buffers() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"0123456789");
    warm_file(&path);
    let bad = 8 as *mut libc::c_void;
    let fd = open(&path, libc::O_RDONLY);
    fails!(libc::EFAULT, libc::read(fd, bad, 4));
    assert_eq!(position(fd), 0);
    fails!(libc::EFAULT, libc::pread(fd, bad, 4, 0));
    fails!(libc::EFAULT, libc::fstat(fd, bad.cast()));
    assert_eq!(ok!(libc::read(fd, bad, 0)), 0);
    assert_eq!(read(fd, 4), b"0123");
    close(fd);
}

/// Reads of all sizes give what they should, also beyond what was known.
fn read_in_pieces() {
    let temp = Temp::new();
    let content: Vec<u8> = (0..20_000).map(|i| (i % 251) as u8).collect();
    for size in [0, 10, 1_000, 16_000, 20_000] {
        let path = file(&temp, "f", &content[..size]);
        warm_file(&path);
        for piece in [1, 7, 900, 1_024, 5_000, 30_000] {
            for _ in 0..3 {
                let fd = open(&path, libc::O_RDONLY);
                let mut got = Vec::new();
                loop {
                    let data = read(fd, piece);
                    if data.is_empty() {
                        break;
                    }
                    got.extend(data);
                    assert_eq!(position(fd), got.len() as i64);
                }
                assert!(got == content[..size], "{size} in pieces of {piece}");
                close(fd);
            }
        }
    }
}

/// A file that is written anew each time it is read.
fn rewritten() {
    let temp = Temp::new();
    for i in 0..400 {
        let text = format!("{i} {}", "x".repeat(i % 50));
        let path = file(&temp, "f", text.as_bytes());
        let fd = open(&path, libc::O_RDONLY);
        assert_eq!(stat(fd).st_size, text.len() as i64);
        assert_eq!(read(fd, 100), text.as_bytes());
        assert!(read(fd, 100).is_empty());
        close(fd);
    }
}

fn send_file(out: RawFd, fd: RawFd, offset: &mut i64, count: usize) -> Result<isize, i32> {
    // SAFETY: the offset lives as long as the call.
    match unsafe { libc::sendfile(out, fd, offset, count) } {
        -1 => Err(errno()),
        n => Ok(n),
    }
}

/// sendfile(2) of a file that is known to a connection that takes it.
fn sent_file() {
    let temp = Temp::new();
    let content: Vec<u8> = (0..3_000).map(|i| (i % 253) as u8).collect();
    let path = file(&temp, "f", &content);
    warm_file(&path);
    for (a, b) in pairs() {
        let epoll = epoll_of(&[b]);
        for i in 0..WARM {
            write(a, b"?");
            assert_eq!(ready(epoll, 5000), [b]);
            assert_eq!(read(b, 10), b"?");
            let fd = open(&path, libc::O_RDONLY);
            assert_eq!(stat(fd).st_size, 3_000);
            write(b, b"head");
            let from = (i * 17) % 3_100;
            let mut offset = from as i64;
            let wanted = content.get(from..).unwrap_or_default();
            let wanted = &wanted[..wanted.len().min(2_000)];
            assert_eq!(send_file(b, fd, &mut offset, 2_000), Ok(wanted.len() as isize));
            assert_eq!(offset, (from + wanted.len()) as i64);
            assert_eq!(position(fd), 0);
            close(fd);
            let mut got = Vec::new();
            while got.len() < 4 + wanted.len() {
                got.extend(recv(a, 4_000, 0).expect("recv"));
            }
            assert!(got.starts_with(b"head") && got[4..] == *wanted);
        }
        let fd = open(&path, libc::O_RDONLY);
        assert_eq!(send_file(b, fd, &mut -1, 10), Err(libc::EINVAL));
        assert_eq!(send_file(fd, fd, &mut 0, 10), Err(libc::EBADF));
        close(fd);
        close(a);
        close(b);
        close(epoll);
    }
}

/// The same for one that stays open, and is changed in between.
fn kept_and_sent() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"");
    let fd = open(&path, libc::O_RDONLY);
    let writer = open(&path, libc::O_RDWR);
    for (a, b) in pairs() {
        let epoll = epoll_of(&[b]);
        for i in 0..WARM * 2 {
            if i % 10 == 0 {
                let text = format!("version {i}");
                ok!(libc::ftruncate(writer, 0));
                assert_eq!(
                    ok!(libc::pwrite(writer, text.as_ptr().cast(), text.len(), 0)),
                    text.len() as isize
                );
            }
            let text = format!("version {}", i / 10 * 10);
            write(a, b"?");
            assert_eq!(ready(epoll, 5000), [b]);
            assert_eq!(read(b, 10), b"?");
            assert_eq!(send_file(b, fd, &mut 0, 1_000), Ok(text.len() as isize));
            assert_eq!(recv(a, 100, 0), Ok(text.into_bytes()));
        }
        close(a);
        close(b);
        close(epoll);
    }
}

/// close(2) of any descriptor of a file ends the process's locks on it.
fn locks_go() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"locked");
    let words = shared_words();
    words[0].store(0, Ordering::SeqCst);
    words[1].store(0, Ordering::SeqCst);
    let held = open(&path, libc::O_RDWR);
    let mut lock: libc::flock = zeroed();
    lock.l_type = libc::F_WRLCK as i16;
    let of_child = path.clone();
    let pid = fork(|| {
        let fd = open(&of_child, libc::O_RDWR);
        for step in 1..=2 {
            until(&words[0], step);
            let mut asked: libc::flock = zeroed();
            asked.l_type = libc::F_WRLCK as i16;
            ok!(libc::fcntl(fd, libc::F_GETLK, &raw mut asked));
            let wanted = if step == 1 { libc::F_WRLCK } else { libc::F_UNLCK };
            assert_eq!(i32::from(asked.l_type), wanted, "step {step}");
            words[1].store(step, Ordering::SeqCst);
        }
        0
    });
    warm_file(&path);
    let fd = open(&path, libc::O_RDONLY);
    ok!(libc::fcntl(held, libc::F_SETLK, &raw mut lock));
    words[0].store(1, Ordering::SeqCst);
    until(&words[1], 1);
    close(fd);
    words[0].store(2, Ordering::SeqCst);
    until(&words[1], 2);
    assert_eq!(wait(pid), End::Exited(0));
    close(held);
}

/// inotify(7) tells of what was done.
fn events_come() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"watched");
    warm_file(&path);
    let watcher = ok!(libc::inotify_init1(libc::IN_CLOEXEC));
    let mask = libc::IN_OPEN | libc::IN_ACCESS | libc::IN_CLOSE | libc::IN_MODIFY;
    ok!(libc::inotify_add_watch(watcher, path.as_ptr(), mask));
    let fd = open(&path, libc::O_RDONLY);
    assert_eq!(stat(fd).st_size, 7);
    assert_eq!(read(fd, 100), b"watched");
    close(fd);
    let log = open(&path, libc::O_WRONLY | libc::O_APPEND);
    for _ in 0..WARM {
        write(log, b"x");
    }
    close(log);
    let events: Vec<u32> = read(watcher, 16_384)
        .chunks_exact(16)
        .map(|event| u32::from_ne_bytes(event[4..8].try_into().expect("a mask")))
        .collect();
    let (open, access, modify) = (libc::IN_OPEN, libc::IN_ACCESS, libc::IN_MODIFY);
    assert_eq!(events, [open, access, libc::IN_CLOSE_NOWRITE, open, modify, libc::IN_CLOSE_WRITE]);
    close(watcher);
}

/// What is written through a shared mapping, without any call, is read at once.
fn mapped_change() {
    let temp = Temp::new();
    let path = file(&temp, "f", &[b'.'; 4096]);
    warm_file(&path);
    let writer = open(&path, libc::O_RDWR);
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let before = open(&path, libc::O_RDONLY);
    // SAFETY: a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, writer, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: within the mapping.
    let byte = unsafe { &*at.cast::<AtomicBool>() };
    byte.store(true, Ordering::SeqCst);
    assert_eq!(read(before, 1), [1]);
    close(before);
    for i in 0..WARM {
        let fd = open(&path, libc::O_RDONLY);
        byte.store(i % 2 == 0, Ordering::SeqCst);
        assert_eq!(read(fd, 10)[0], u8::from(i % 2 == 0));
        close(fd);
    }
    // SAFETY: nobody uses it any more.
    ok!(unsafe { libc::munmap(at, 4096) });
    close(writer);
}

/// Another thread closes the descriptor: once, whoever does it.
fn closed_beside() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"content");
    warm_file(&path);
    for _ in 0..300 {
        let fd = open(&path, libc::O_RDONLY);
        let thread = std::thread::spawn(move || {
            // SAFETY: the number is this file's or nobody's.
            unsafe { libc::close(fd) == 0 }
        });
        // SAFETY: as above.
        let here = unsafe { libc::close(fd) == 0 };
        let there = thread.join().expect("the thread");
        assert!(here != there, "closed {} times", u32::from(here) + u32::from(there));
    }
}
