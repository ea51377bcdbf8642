//! Files that are read at offsets again and again, as databases do: each read finds what its own descriptor names, and
//! what others have written before, and whoever wants to see these reads does.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::*;

use super::mapped_files::{open_it, programs};
use super::posting::shared_words;
use super::posting_attack::refuse;
use super::posting_files::{WARM, open as open_file, until};
use super::unix_socket::{descriptors, pair, receive_control, send_descriptors};
use crate::harness::{End, c, cases, close, fails, fork, ok, read, sys, wait, zeroed};

cases!("posting": read_at_offsets, read_by_number_of_another, read_beside_a_close, read_by_two_numbers,
    read_after_close_by_a_process, read_after_fork, read_after_exec, read_of_what_was_sent, read_of_many_files,
    read_of_what_others_write, read_of_what_was_added, read_while_sized, reads_refused, reads_traced, reads_watched,
    read_in_memory, read_sets_the_access_time, read_by_many_descriptors);

const PAGE: usize = 4096;

/// A file in the folder of the run, which is a folder of the host in a sandbox; `None` where it cannot be.
fn here(name: &str, content: &[u8]) -> Option<CString> {
    let path = format!("./guest-tests-{name}-{}", std::process::id());
    std::fs::write(&path, content).ok()?;
    Some(c(&path))
}

/// Files to write to, in memory and on the disk; they are gone when they are closed.
fn own_files(content: &[u8], flags: i32) -> Vec<(CString, RawFd)> {
    let mut files = Vec::new();
    for (name, folder) in
        [("disk", here("disk", content)), ("memory", Some(c("/tmp/guest-tests-kept-reads")))]
    {
        let Some(path) = folder else { continue };
        if name == "memory" {
            std::fs::write(path.to_str().expect("text"), content).expect("written");
        }
        let fd = open_file(&path, flags);
        files.push((path, fd));
    }
    files
}

fn remove((path, fd): (CString, RawFd)) {
    ok!(unlink(path.as_ptr()));
    close(fd);
}

fn pread_page(fd: RawFd, page: usize) -> Vec<u8> {
    let mut buf = vec![0x5a; PAGE];
    let n = ok!(pread(fd, buf.as_mut_ptr().cast(), PAGE, (page * PAGE) as off_t));
    buf.truncate(n as usize);
    buf
}

fn try_page(fd: RawFd, page: usize) -> Result<Vec<u8>, i32> {
    let mut buf = vec![0x5a; PAGE];
    sys!(pread(fd, buf.as_mut_ptr().cast(), PAGE, (page * PAGE) as off_t)).map(|n| {
        buf.truncate(n as usize);
        buf
    })
}

/// Reads so often that nobody is asked any more, if ever.
fn warm(fd: RawFd) {
    for _ in 0..40 {
        assert_eq!(pread_page(fd, 0).len(), PAGE);
    }
}

fn read_at_offsets() {
    for program in programs(3) {
        let fd = open_it(&program);
        let size = ok!(lseek(fd, 0, SEEK_END));
        for i in 0..WARM {
            assert!(pread_page(fd, i % 3) == program.pages[i % 3]);
            let mut few = [0u8; 7];
            let at = PAGE + i * 5;
            assert_eq!(ok!(pread(fd, few.as_mut_ptr().cast(), 7, at as off_t)), 7);
            let wanted: Vec<u8> = (at..at + 7).map(|at| program.pages[at / PAGE][at % PAGE]).collect();
            assert_eq!(few.as_slice(), wanted);
            assert_eq!(ok!(pread(fd, few.as_mut_ptr().cast(), 7, size - 3)), 3);
            assert_eq!(ok!(pread(fd, few.as_mut_ptr().cast(), 7, size + 9)), 0);
            assert_eq!(ok!(pread(fd, few.as_mut_ptr().cast(), 0, 1)), 0);
            fails!(EINVAL, pread(fd, few.as_mut_ptr().cast(), 7, -1));
            fails!(EFAULT, pread(fd, std::ptr::without_provenance_mut(8), 7, 0));
            fails!(EFAULT, pread(fd, std::ptr::without_provenance_mut(usize::MAX - 9), 7, 0));
            fails!(EBADF, pwrite(fd, few.as_ptr().cast(), 7, 0));
            assert_eq!(ok!(lseek(fd, 0, SEEK_CUR)), size, "reads at offsets leave the position");
        }
        close(fd);
        assert_eq!(try_page(fd, 0), Err(EBADF));
    }
}

/// The number is another file's, by close and open, or by dup3.
fn read_by_number_of_another() {
    let programs = programs(2);
    for round in 0..100 {
        let (one, two) = (&programs[round % 2], &programs[(round + 1) % 2]);
        let fd = open_it(one);
        warm(fd);
        let other = if round % 4 < 2 {
            let other = open_it(two);
            warm(other);
            assert_eq!(ok!(dup3(other, fd, O_CLOEXEC)), fd);
            other
        } else {
            close(fd);
            assert_eq!(open_it(two), fd);
            -1
        };
        for i in 0..30 {
            assert!(pread_page(fd, i % 3) == two.pages[i % 3], "{round}: {i}");
        }
        close(fd);
        if other >= 0 {
            assert!(pread_page(other, 2) == two.pages[2]);
            close(other);
        }
        fails!(EBADF, pread(fd, [0u8; 8].as_mut_ptr().cast(), 8, 0));
        let (r, w) = crate::harness::pipe();
        assert_eq!(r, fd);
        fails!(ESPIPE, pread(r, [0u8; 8].as_mut_ptr().cast(), 8, 0));
        close(r);
        close(w);
    }
}

/// Threads read by a number that another gives to one file after the other; what it has told has happened.
fn read_beside_a_close() {
    static DONE: AtomicBool = AtomicBool::new(false);
    static NOW: AtomicU32 = AtomicU32::new(0);
    let programs = std::sync::Arc::new(programs(3));
    let files: Vec<i32> = programs.iter().map(open_it).collect();
    let fd = ok!(dup(files[0]));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let programs = programs.clone();
            std::thread::spawn(move || {
                let mut seen = [0u32; 3];
                let mut done = false;
                while !done {
                    done = DONE.load(Ordering::SeqCst);
                    let before = NOW.load(Ordering::SeqCst);
                    let got = try_page(fd, 1);
                    let after = NOW.load(Ordering::SeqCst);
                    match got {
                        Ok(page) => {
                            let which = programs.iter().position(|program| program.pages[1] == page);
                            let which = which.expect("one of the files");
                            seen[which] += 1;
                            // Nothing was changed meanwhile, nor about to be.
                            if before == after && before.is_multiple_of(2) {
                                assert_eq!(which as u32, before / 2 % 3);
                            }
                        }
                        Err(errno) => assert!(errno == EBADF && (before != after || before % 2 == 1)),
                    }
                }
                seen
            })
        })
        .collect();
    for round in 1..=1500u32 {
        // Odd while it changes.
        NOW.store(2 * round - 1, Ordering::SeqCst);
        let file = files[round as usize % 3];
        if round % 5 == 0 {
            close(fd);
            warm(files[0]);
        }
        ok!(dup2(file, fd));
        NOW.store(2 * round, Ordering::SeqCst);
        if round % 50 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    DONE.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().expect("joined").iter().sum::<u32>() > 0);
    }
}

/// One of two numbers of a file is closed; others' files come meanwhile.
fn read_by_two_numbers() {
    let programs = programs(40);
    for round in 0..20 {
        let program = &programs[round];
        let fd = open_it(program);
        warm(fd);
        let second = ok!(dup(fd));
        warm(second);
        close(if round % 2 == 0 { fd } else { second });
        let left = if round % 2 == 0 { second } else { fd };
        let mut others = Vec::new();
        for other in programs[round + 1..].iter().take(5) {
            let fd = open_it(other);
            warm(fd);
            others.push(fd);
            assert!(pread_page(left, 1) == program.pages[1], "{round}");
        }
        others.into_iter().for_each(close);
        assert!(pread_page(left, 2) == program.pages[2]);
        close(left);
    }
}

/// A process that shares the descriptors closes what this one reads: so often that no number would be left.
fn read_after_close_by_a_process() {
    let programs = programs(3);
    for round in 0..50 {
        let program = &programs[round % 3];
        let fd = open_it(program);
        warm(fd);
        let child = ok!(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0)) as i32;
        if child == 0 {
            // SAFETY: one call, and the end.
            unsafe {
                let closed = libc::close(fd);
                _exit(closed.abs());
            }
        }
        assert_eq!(wait(child), End::Exited(0));
        assert_eq!(try_page(fd, 0), Err(EBADF), "{round}");
    }
}

fn read_after_fork() {
    let programs = programs(3);
    let (kept, closed) = (open_it(&programs[0]), open_it(&programs[1]));
    for round in 0..20 {
        warm(kept);
        warm(closed);
        let end = wait(fork(|| {
            assert!(pread_page(kept, 1) == programs[0].pages[1]);
            close(closed);
            assert_eq!(try_page(closed, 0), Err(EBADF));
            assert_eq!(open_it(&programs[2]), closed);
            for i in 0..60 {
                assert!(pread_page(closed, i % 3) == programs[2].pages[i % 3]);
                assert!(pread_page(kept, i % 3) == programs[0].pages[i % 3]);
            }
            0
        }));
        assert_eq!(end, End::Exited(0), "{round}");
        assert!(pread_page(kept, 2) == programs[0].pages[2] && pread_page(closed, 2) == programs[1].pages[2]);
    }
}

/// What is closed by execve(2) is closed, what is handed on is read there.
fn read_after_exec() {
    let programs = programs(2);
    for program in &programs {
        let fd = ok!(dup2(open_it(program), 50));
        warm(fd);
        let (r, w) = crate::harness::pipe();
        let child = fork(|| {
            warm(fd);
            ok!(dup2(w, 1));
            let args =
                [c("dd"), c("if=/dev/fd/50"), c("bs=4096"), c("count=1"), c("skip=1"), c("status=none")];
            let mut words: Vec<_> = args.iter().map(|word| word.as_ptr()).collect();
            words.push(std::ptr::null());
            // SAFETY: strings, and the end of the list.
            unsafe { execvp(words[0], words.as_ptr()) };
            1
        });
        close(w);
        let mut got = Vec::new();
        loop {
            let piece = read(r, PAGE);
            if piece.is_empty() {
                break;
            }
            got.extend(piece);
        }
        assert_eq!(wait(child), End::Exited(0));
        assert!(got == program.pages[1]);
        close(r);
        close(fd);
    }
}

/// Who is sent a file reads it after the sender has closed it.
fn read_of_what_was_sent() {
    let programs = programs(2);
    let (a, b) = pair(SOCK_STREAM);
    let child = fork(|| {
        close(a);
        for program in &programs {
            let (control, _) = receive_control(b, 64);
            let fd = descriptors(&control.expect("a control message").1)[0];
            let mut byte = [0u8; 1];
            assert_eq!(ok!(write(b, byte.as_mut_ptr().cast(), 1)), 1);
            for i in 0..60 {
                assert!(pread_page(fd, i % 3) == program.pages[i % 3]);
            }
            close(fd);
            assert_eq!(try_page(fd, 0), Err(EBADF));
        }
        0
    });
    for program in &programs {
        let fd = open_it(program);
        warm(fd);
        send_descriptors(a, &[fd]);
        assert_eq!(read(a, 1).len(), 1);
        close(fd);
        assert_eq!(try_page(fd, 1), Err(EBADF));
    }
    assert_eq!(wait(child), End::Exited(0));
    close(a);
    close(b);
}

/// More than stay anywhere, all open at once, closed together.
fn read_of_many_files() {
    const FIRST: i32 = 400;
    let programs = programs(50);
    for round in 0..3 {
        for (program, number) in programs.iter().zip(FIRST..) {
            let fd = open_it(program);
            ok!(dup3(fd, number, O_CLOEXEC));
            close(fd);
            warm(number);
        }
        for i in 0..3 {
            for (program, fd) in programs.iter().zip(FIRST..) {
                assert!(pread_page(fd, i) == program.pages[i], "{round}: {fd}");
            }
        }
        ok!(syscall(SYS_close_range, FIRST, FIRST + 60, 0));
        for fd in FIRST..FIRST + 50 {
            assert_eq!(try_page(fd, 0), Err(EBADF));
        }
    }
}

/// What another process has written, cut off or punched before it tells, in memory, is seen.
fn read_of_what_others_write() {
    for (path, fd) in own_files(&vec![b'a'; 2 * PAGE], O_RDONLY) {
        warm(fd);
        let words = shared_words();
        words[0].store(0, Ordering::SeqCst);
        words[1].store(0, Ordering::SeqCst);
        let of_child = path.clone();
        let child = fork(|| {
            let fd = open_file(&of_child, O_RDWR);
            for step in 1..=WARM as u32 {
                until(&words[0], step);
                if step % 5 == 0 {
                    ok!(ftruncate(fd, 100));
                } else {
                    let bytes = vec![step as u8; 2 * PAGE];
                    assert_eq!(ok!(pwrite(fd, bytes.as_ptr().cast(), 2 * PAGE, 0)), 2 * PAGE as isize);
                }
                words[1].store(step, Ordering::SeqCst);
            }
            0
        });
        for step in 1..=WARM as u32 {
            words[0].store(step, Ordering::SeqCst);
            until(&words[1], step);
            if step % 5 == 0 {
                assert_eq!((pread_page(fd, 0).len(), pread_page(fd, 1).len()), (100, 0), "{step}");
            } else {
                assert!(pread_page(fd, 1) == vec![step as u8; PAGE], "{step}");
            }
        }
        assert_eq!(wait(child), End::Exited(0));
        remove((path, fd));
    }
}

/// What another process has added to the end is seen, whether that waits for an answer or not.
fn read_of_what_was_added() {
    for (path, fd) in own_files(b"", O_RDONLY) {
        let words = shared_words();
        words[0].store(0, Ordering::SeqCst);
        words[1].store(0, Ordering::SeqCst);
        let of_child = path.clone();
        let child = fork(|| {
            let fd = open_file(&of_child, O_WRONLY | O_APPEND);
            for step in 1..=2 * WARM as u32 {
                until(&words[0], step);
                for _ in 0..3 {
                    assert_eq!(ok!(write(fd, c"line\n".as_ptr().cast(), 5)), 5);
                }
                words[1].store(step, Ordering::SeqCst);
            }
            0
        });
        for step in 1..=2 * WARM as u32 {
            words[0].store(step, Ordering::SeqCst);
            until(&words[1], step);
            let mut buf = [0u8; 64];
            let at = off_t::from(step - 1) * 15;
            assert_eq!(ok!(pread(fd, buf.as_mut_ptr().cast(), 64, at)), 15, "{step}");
            assert_eq!(&buf[..15], b"line\nline\nline\n");
        }
        assert_eq!(wait(child), End::Exited(0));
        remove((path, fd));
    }
}

/// Who asks for the size between reads, as PostgreSQL does, gets both right.
fn read_while_sized() {
    for (path, fd) in own_files(&vec![b'a'; PAGE], O_RDWR) {
        for pages in 1..100 {
            for _ in 0..8 {
                assert_eq!(ok!(lseek(fd, 0, SEEK_END)), (pages * PAGE) as off_t);
                assert_eq!(pread_page(fd, pages - 1).len(), PAGE);
                assert_eq!(pread_page(fd, pages).len(), 0);
            }
            let bytes = vec![pages as u8; PAGE];
            assert_eq!(ok!(pwrite(fd, bytes.as_ptr().cast(), PAGE, (pages * PAGE) as off_t)), PAGE as isize);
            assert!(pread_page(fd, pages) == bytes);
        }
        remove((path, fd));
    }
}

/// A filter that refuses such reads comes when they are made without a word.
fn reads_refused() {
    let programs = programs(1);
    for by_other in [false, true] {
        let end = wait(fork(|| {
            let fd = open_it(&programs[0]);
            warm(fd);
            if by_other {
                std::thread::spawn(|| refuse(&[SYS_pread64], SECCOMP_FILTER_FLAG_TSYNC))
                    .join()
                    .expect("joined");
            } else {
                refuse(&[SYS_pread64], 0);
            }
            for _ in 0..40 {
                assert_eq!(try_page(fd, 0), Err(EPERM));
            }
            0
        }));
        assert_eq!(end, End::Exited(0), "{by_other}");
    }
}

/// A tracer sees the reads of a process that has made them without a word.
fn reads_traced() {
    let programs = programs(1);
    let child = fork(|| {
        let fd = open_it(&programs[0]);
        warm(fd);
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        for _ in 0..5 {
            assert_eq!(pread_page(fd, 1).len(), PAGE);
        }
        0
    });
    let mut status = 0;
    ok!(waitpid(child, &raw mut status, 0));
    let mut seen = 0;
    while WIFSTOPPED(status) {
        // SAFETY: plain registers.
        let mut regs: user_regs_struct = zeroed();
        ok!(ptrace(PTRACE_GETREGS, child, 0, &raw mut regs));
        seen += u32::from(regs.orig_rax == SYS_pread64 as u64);
        ok!(ptrace(PTRACE_SYSCALL, child, 0, 0));
        ok!(waitpid(child, &raw mut status, 0));
    }
    assert_eq!(seen, 10, "five entries, five exits");
    assert_eq!(crate::harness::end_of(status), End::Exited(0));
}

/// Who watches a file hears of each read, also of one that begins to watch later.
fn reads_watched() {
    for (path, fd) in own_files(&vec![b'a'; PAGE], O_RDONLY) {
        for _ in 0..3 {
            warm(fd);
            let watcher = ok!(inotify_init1(IN_NONBLOCK));
            ok!(inotify_add_watch(watcher, path.as_ptr(), IN_ACCESS));
            for _ in 0..20 {
                assert_eq!(pread_page(fd, 0).len(), PAGE);
                let event = read(watcher, 64);
                assert_eq!(event.get(4..8), Some(IN_ACCESS.to_ne_bytes().as_slice()));
            }
            close(watcher);
        }
        remove((path, fd));
    }
}

/// A file without a name and a descriptor to read it by.
fn in_memory(content: &[u8]) -> (RawFd, RawFd) {
    let fd = ok!(memfd_create(c"kept-reads".as_ptr(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    assert_eq!(ok!(pwrite(fd, content.as_ptr().cast(), content.len(), 0)), content.len() as isize);
    let reader = open_file(&c(&format!("/proc/self/fd/{fd}")), O_RDONLY);
    (fd, reader)
}

/// What was changed in memory, by whatever means, is read; small files grow large meanwhile.
fn read_in_memory() {
    let (fd, reader) = in_memory(&[b'a'; PAGE]);
    warm(reader);
    for step in 1..=WARM {
        let pages = step % 7 * 40 + 1;
        ok!(ftruncate(fd, 0));
        assert_eq!(pread_page(reader, 0).len(), 0);
        ok!(ftruncate(fd, (pages * PAGE) as off_t));
        assert!(pread_page(reader, pages - 1) == [0; PAGE]);
        let bytes = vec![step as u8; PAGE];
        assert_eq!(ok!(pwrite(fd, bytes.as_ptr().cast(), PAGE, (pages * PAGE) as off_t)), PAGE as isize);
        assert!(pread_page(reader, pages) == bytes);
        assert_eq!(pread_page(reader, pages + 1).len(), 0);
        ok!(fallocate(
            fd,
            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            (pages * PAGE) as off_t,
            PAGE as off_t
        ));
        assert!(pread_page(reader, pages) == [0; PAGE]);
        let at = ok!(mmap(std::ptr::null_mut(), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) as isize);
        // SAFETY: a page that was just mapped.
        unsafe { std::ptr::write_bytes(at as *mut u8, step as u8 + 1, PAGE) };
        assert!(pread_page(reader, 0) == vec![step as u8 + 1; PAGE]);
        ok!(munmap(at as *mut c_void, PAGE));
    }
    ok!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    fails!(EPERM, pwrite(fd, [1u8].as_ptr().cast(), 1, 0));
    assert_eq!(pread_page(reader, 0).len(), PAGE);
    close(fd);
    assert_eq!(pread_page(reader, 0).len(), PAGE);
    close(reader);
}

/// Reads that nobody is asked for set the access time, as relatime has it.
fn read_sets_the_access_time() {
    let (fd, reader) = in_memory(&[b'a'; PAGE]);
    warm(reader);
    for _ in 0..5 {
        let long_ago = [timespec { tv_sec: 1_000_000, tv_nsec: 0 }; 2];
        ok!(futimens(fd, long_ago.as_ptr()));
        let mut stat: stat = zeroed();
        ok!(fstat(fd, &raw mut stat));
        assert_eq!(stat.st_atime, 1_000_000);
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(pread_page(reader, 0).len(), PAGE);
        ok!(fstat(fd, &raw mut stat));
        assert!(stat.st_atime > 1_000_000 && stat.st_mtime == 1_000_000);
    }
    ok!(futimens(fd, [timespec { tv_sec: 1_000_000, tv_nsec: 0 }; 2].as_ptr()));
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(pread_page(reader, 0).len(), PAGE);
    close(reader);
    let mut stat: stat = zeroed();
    ok!(fstat(fd, &raw mut stat));
    assert!(stat.st_atime > 1_000_000, "also when the reader has gone");
    close(fd);
}

/// One file by more descriptors than stay anywhere; it can be mapped and changed all the same.
fn read_by_many_descriptors() {
    let (fd, reader) = in_memory(&[b'a'; 100 * PAGE]);
    for round in 0..3u8 {
        let path = c(&format!("/proc/self/fd/{reader}"));
        let readers: Vec<_> = (0..300).map(|_| open_file(&path, O_RDONLY)).collect();
        readers.iter().for_each(|reader| warm(*reader));
        let bytes = vec![round; 100 * PAGE];
        assert_eq!(ok!(pwrite(fd, bytes.as_ptr().cast(), bytes.len(), 0)), bytes.len() as isize);
        for reader in readers {
            assert!(pread_page(reader, 99) == [round; PAGE]);
            close(reader);
            assert_eq!(try_page(reader, 0), Err(EBADF));
        }
    }
    close(fd);
    close(reader);
}
