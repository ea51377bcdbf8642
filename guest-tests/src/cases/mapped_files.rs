//! Files that are mapped more than once while they are open, as loaders do: each mapping shows its own file, whatever
//! becomes of the descriptor meanwhile.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::*;

use crate::harness::{End, c, cases, close, fails, fork, ok, sys, wait};

cases!("memory": mapped_again, mapped_names, mapped_names_while_seen, mapped_by_number_of_another, mapped_beside_a_close,
    closed_in_a_range, mapped_beside_closes_of_a_process, mapped_after_fork, mapped_for_reading_alone, many_mapped_files);

const PAGE: usize = 4096;

/// A file of the system, and how it begins, page by page.
pub(super) struct Program {
    path: CString,
    pub(super) pages: Vec<Vec<u8>>,
}

/// Programs of at least three pages that differ.
pub(super) fn programs(count: usize) -> Vec<Program> {
    let mut paths: Vec<_> =
        std::fs::read_dir("/usr/bin").expect("a folder").flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut found: Vec<Program> = Vec::new();
    for path in paths {
        let size =
            std::fs::symlink_metadata(&path).map_or(0, |meta| if meta.is_file() { meta.size() } else { 0 });
        if size < 3 * PAGE as u64 || size > 4 << 20 {
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let pages: Vec<Vec<u8>> = bytes.chunks_exact(PAGE).take(3).map(<[u8]>::to_vec).collect();
        if found.iter().all(|other| other.pages != pages) {
            found.push(Program { path: c(path.to_str().expect("a plain name")), pages });
        }
        if found.len() == count {
            break;
        }
    }
    assert_eq!(found.len(), count, "programs");
    found
}

pub(super) fn open_it(program: &Program) -> i32 {
    ok!(open(program.path.as_ptr(), O_RDONLY | O_CLOEXEC))
}

pub(super) fn map(fd: i32, page: usize) -> *mut u8 {
    ok!(mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, fd, (page * PAGE) as off_t)).cast()
}

pub(super) fn shows(at: *const u8, page: &[u8]) -> bool {
    // SAFETY: a page that was just mapped for reading.
    unsafe { std::slice::from_raw_parts(at, PAGE) == page }
}

pub(super) fn unmap(at: *mut u8) {
    ok!(munmap(at.cast(), PAGE));
}

fn mapped_again() {
    let programs = programs(3);
    for round in 0..400 {
        let program = &programs[round % 3];
        let fd = open_it(program);
        let maps = round % 13;
        let mut all = Vec::new();
        for i in 0..maps {
            all.push(map(fd, i % 3));
        }
        // Over one of them.
        if maps > 1 {
            let fixed = MAP_PRIVATE | MAP_FIXED | MAP_DENYWRITE;
            let at =
                ok!(mmap(all[0].cast(), PAGE, PROT_READ | PROT_WRITE, fixed, fd, PAGE as off_t)).cast::<u8>();
            assert_eq!(at, all[0]);
            assert!(shows(at, &program.pages[1]));
            // SAFETY: mapped for writing, and private.
            unsafe { at.write(!program.pages[1][0]) };
        }
        close(fd);
        fails!(EBADF, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
        for (i, at) in all.iter().enumerate().skip(1) {
            assert!(shows(*at, &program.pages[i % 3]), "{round}: {i}");
        }
        all.into_iter().for_each(unmap);
    }
}

/// What /proc/self/maps says of a mapping.
fn line_of(at: *const u8) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let head = format!("{:x}-", at.addr());
    maps.lines().find(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("{at:?}: {maps}")).into()
}

fn mapped_names() {
    for program in programs(3) {
        let fd = open_it(&program);
        for i in 0..12 {
            // Not beside one another, or they are one.
            let at = ok!(mmap(ptr::null_mut(), 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            let at = at.wrapping_byte_add(PAGE);
            let offset = (i % 3 * PAGE) as off_t;
            ok!(mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, offset));
            let line = line_of(at.cast());
            let wanted = format!(" r--p {offset:08x} ");
            assert!(line.contains(&wanted) && line.ends_with(program.path.to_str().expect("text")), "{line}");
        }
        close(fd);
    }
}

/// Where each mapping lies is known of that one, whenever somebody looks.
fn mapped_names_while_seen() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let programs = programs(2);
    let files: Vec<i32> = programs.iter().map(open_it).collect();
    let looks = std::thread::spawn(|| {
        while !DONE.load(Ordering::SeqCst) {
            assert!(std::fs::read("/proc/self/maps").is_ok_and(|maps| !maps.is_empty()));
        }
    });
    let mut wrong = Vec::new();
    for _ in 0..60 {
        let all: Vec<_> = (0..50).map(|i| (map(files[i % 2], i / 2 % 3), i % 2)).collect();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        for (at, which) in &all {
            let head = format!("{:x}-", at.addr());
            let line = maps.lines().find(|line| line.starts_with(&head)).unwrap_or_default();
            if !line.ends_with(programs[*which].path.to_str().expect("text")) {
                wrong.push(line.to_owned());
            }
        }
        all.into_iter().for_each(|(at, _)| unmap(at));
    }
    DONE.store(true, Ordering::SeqCst);
    looks.join().expect("joined");
    assert!(wrong.is_empty(), "{}: {wrong:?}", wrong.len());
    files.into_iter().for_each(close);
}

/// The number is another file's, by close and open, or by dup2.
fn mapped_by_number_of_another() {
    let programs = programs(2);
    for round in 0..200 {
        let (one, two) = (&programs[round % 2], &programs[(round + 1) % 2]);
        let fd = open_it(one);
        for i in 0..2 + round % 3 {
            let at = map(fd, i % 3);
            assert!(shows(at, &one.pages[i % 3]));
            unmap(at);
        }
        let other = if round % 4 < 2 {
            let other = open_it(two);
            assert_eq!(ok!(dup3(other, fd, O_CLOEXEC)), fd);
            other
        } else {
            close(fd);
            assert_eq!(open_it(two), fd);
            -1
        };
        for i in 0..2 {
            let at = map(fd, i);
            assert!(shows(at, &two.pages[i]), "{round}");
            unmap(at);
        }
        close(fd);
        if other >= 0 {
            let at = map(other, 2);
            assert!(shows(at, &two.pages[2]));
            unmap(at);
            close(other);
        }
    }
}

/// One thread maps by a number that another gives to one file after the other.
fn mapped_beside_a_close() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let programs = programs(3);
    let files: Vec<i32> = programs.iter().map(open_it).collect();
    let fd = ok!(dup(files[0]));
    let changer = std::thread::spawn(move || {
        for round in 0..3000 {
            ok!(dup2(files[round % 3], fd));
            if round % 7 == 0 {
                close(fd);
                let at = ok!(mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, files[0], 0));
                ok!(munmap(at, PAGE));
                ok!(dup2(files[1], fd));
            }
        }
        DONE.store(true, Ordering::SeqCst);
    });
    let mut seen = [0; 3];
    // At least once after the last change, when it is open.
    let mut done = false;
    while !done {
        done = DONE.load(Ordering::SeqCst);
        match sys!(mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE as off_t)) {
            Ok(at) => {
                let which = programs.iter().position(|program| shows(at.cast(), &program.pages[1]));
                seen[which.expect("one of the files")] += 1;
                unmap(at.cast());
            }
            Err(errno) => assert_eq!(errno, EBADF),
        }
    }
    changer.join().expect("joined");
    assert!(seen.iter().sum::<i32>() > 0);
}

/// More than stay anywhere, several at once, and one by two numbers.
fn closed_in_a_range() {
    const FIRST: i32 = 400;
    let open_at = |program: &Program, number: i32| {
        let fd = open_it(program);
        ok!(dup3(fd, number, O_CLOEXEC));
        close(fd);
    };
    let close_range = |first: i32, last: i32| ok!(syscall(SYS_close_range, first, last, 0));
    let programs = programs(50);
    for round in 0..6 {
        for (program, fd) in programs.iter().zip(FIRST..) {
            open_at(program, fd);
            for page in 0..2 + round % 2 {
                let at = map(fd, page);
                assert!(shows(at, &program.pages[page]));
                unmap(at);
            }
        }
        ok!(dup2(FIRST + 3, FIRST + 60));
        close_range(FIRST, FIRST + 9);
        fails!(EBADF, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, FIRST + 5, 0));
        let at = map(FIRST + 60, 1);
        assert!(shows(at, &programs[3].pages[1]));
        unmap(at);
        // By the same numbers, in another order.
        for (program, fd) in programs[..10].iter().rev().zip(FIRST..) {
            open_at(program, fd);
            let at = map(fd, 2);
            assert!(shows(at, &program.pages[2]), "{round}: {fd}");
            unmap(at);
        }
        close_range(FIRST, FIRST + 60);
        fails!(EBADF, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, FIRST + 60, 0));
    }
}

/// A process that shares the descriptors closes what this one maps by: so often that no number would be left.
fn mapped_beside_closes_of_a_process() {
    let programs = programs(3);
    for round in 0..60 {
        let program = &programs[round % 3];
        let fd = open_it(program);
        // Read first: a file that is read and mapped may be mapped without a call.
        let mut byte = 0u8;
        assert_eq!(ok!(read(fd, (&raw mut byte).cast(), 1)), 1);
        for i in 0..4 {
            let at = map(fd, i % 3);
            assert!(shows(at, &program.pages[i % 3]), "{round}: {i}");
            unmap(at);
        }
        let child = ok!(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0)) as i32;
        if child == 0 {
            // SAFETY: one call, and the end.
            unsafe {
                let closed = libc::close(fd);
                _exit(closed.abs());
            }
        }
        assert_eq!(wait(child), End::Exited(0));
        fails!(EBADF, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
    }
}

fn mapped_after_fork() {
    let programs = programs(3);
    let (kept, closed) = (open_it(&programs[0]), open_it(&programs[1]));
    for round in 0..30 {
        let before = [map(kept, 0), map(closed, 0)];
        let end = wait(fork(|| {
            assert!(shows(before[0], &programs[0].pages[0]) && shows(before[1], &programs[1].pages[0]));
            close(closed);
            fails!(EBADF, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, closed, 0));
            assert_eq!(open_it(&programs[2]), closed);
            for i in 0..3 {
                assert!(shows(map(closed, i), &programs[2].pages[i]));
                assert!(shows(map(kept, i), &programs[0].pages[i]));
            }
            0
        }));
        assert_eq!(end, End::Exited(0), "{round}");
        let after = [map(kept, 1), map(closed, 1)];
        assert!(shows(after[0], &programs[0].pages[1]) && shows(after[1], &programs[1].pages[1]));
        before.into_iter().chain(after).for_each(unmap);
    }
}

fn mapped_for_reading_alone() {
    for program in programs(2) {
        let fd = open_it(&program);
        for _ in 0..6 {
            let at = ok!(mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_SHARED, fd, 0));
            fails!(EACCES, mprotect(at, PAGE, PROT_READ | PROT_WRITE));
            fails!(EACCES, mmap(ptr::null_mut(), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
            fails!(EINVAL, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, fd, 1));
            fails!(EINVAL, mmap(ptr::null_mut(), 0, PROT_READ, MAP_PRIVATE, fd, 0));
            fails!(EINVAL, mmap(ptr::null_mut(), PAGE, PROT_READ, 0, fd, 0));
            fails!(EEXIST, mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0));
            // A hint below the lowest address.
            let low = ok!(mmap(ptr::without_provenance_mut(PAGE), PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
            assert!(shows(low.cast(), &program.pages[0]));
            ok!(munmap(low, PAGE));
            ok!(munmap(at, PAGE));
        }
        close(fd);
    }
}

/// More than stay anywhere, all open at once.
fn many_mapped_files() {
    let programs = programs(50);
    let files: Vec<i32> = programs.iter().map(open_it).collect();
    for round in 0..3 {
        for (program, fd) in programs.iter().zip(&files) {
            for i in 0..3 {
                let at = map(*fd, i);
                assert!(shows(at, &program.pages[i]), "{round}");
                unmap(at);
            }
        }
    }
    for (program, fd) in programs.iter().zip(&files).rev() {
        let at = map(*fd, 0);
        assert!(shows(at, &program.pages[0]));
        close(*fd);
        unmap(at);
    }
}
