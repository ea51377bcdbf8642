//! ETXTBSY of open(2), truncate(2) and execve(2): nobody writes a program that runs, or runs what is written.

use std::ffi::CString;
use std::ptr::null_mut;

use libc::*;

use crate::harness::{End, Temp, c, cases, fails, file, fork, in_child, ok, pipe, read, sys, wait, write};

cases!("text_busy": running_program, other_names_and_descriptors, ended_program, child_of_fork, after_another_exec, replaced_by_rename,
    open_for_writing, writer_in_another_process, closed_by_exit, mapped_and_closed, scripts, loader, libraries, memory_file, permission_first,
    copied_and_run, many_runs);

/// A copy of a program.
fn copy(temp: &Temp, name: &str, from: &str) -> CString {
    let path = file(temp, name, &std::fs::read(from).expect("a program"));
    ok!(chmod(path.as_ptr(), 0o755));
    path
}

/// Executes a program that waits for its standard input to end; returns once it runs.
fn start(path: &CString) -> (pid_t, i32) {
    let (input, end) = pipe();
    let (gone, here) = pipe();
    ok!(fcntl(here, F_SETFD, FD_CLOEXEC));
    ok!(fcntl(end, F_SETFD, FD_CLOEXEC));
    let child = fork(|| {
        ok!(dup2(input, 0));
        let argv = [path.as_ptr(), std::ptr::null()];
        ok!(execv(path.as_ptr(), argv.as_ptr()));
        0
    });
    ok!(close(input));
    ok!(close(here));
    assert_eq!(read(gone, 1), b"");
    ok!(close(gone));
    (child, end)
}

fn finish((child, end): (pid_t, i32)) {
    ok!(close(end));
    assert_eq!(wait(child), End::Exited(0));
}

/// Runs a program; its errno or its status.
fn run(path: &CString) -> Result<i32, i32> {
    let child = fork(|| {
        let argv = [path.as_ptr(), std::ptr::null()];
        match sys!(execv(path.as_ptr(), argv.as_ptr())) {
            Ok(_) => 0,
            Err(errno) => 100 + errno,
        }
    });
    match wait(child) {
        End::Exited(status) if status >= 100 => Err(status - 100),
        End::Exited(status) => Ok(status),
        other => panic!("{other:?}"),
    }
}

fn opens(path: &CString, flags: i32) -> Result<(), i32> {
    let fd = sys!(open(path.as_ptr(), flags))?;
    ok!(close(fd));
    Ok(())
}

fn running_program() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/cat");
    let cat = start(&path);
    for flags in [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_WRONLY | O_CREAT, O_RDWR | O_APPEND] {
        assert_eq!(opens(&path, flags), Err(ETXTBSY), "{flags:#x}");
    }
    fails!(ETXTBSY, truncate(path.as_ptr(), 0));
    assert_eq!(opens(&path, O_RDONLY), Ok(()));
    assert_eq!(opens(&path, O_PATH), Ok(()));
    // Both bits give neither access.
    assert_eq!(opens(&path, 3), Ok(()));
    ok!(chmod(path.as_ptr(), 0o700));
    let size = std::fs::metadata(path.to_str().expect("ASCII")).expect("attributes").len();
    assert!(size > 1000, "{size}");
    assert_eq!(run(&copy(&temp, "another", "/bin/true")), Ok(0));
    finish(cat);
    assert_eq!(opens(&path, O_RDWR), Ok(()));
    ok!(truncate(path.as_ptr(), 0));
}

fn other_names_and_descriptors() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/cat");
    let link = temp.join("link");
    let cat = start(&path);
    ok!(libc::link(path.as_ptr(), link.as_ptr()));
    assert_eq!(opens(&link, O_WRONLY), Err(ETXTBSY));
    assert_eq!(opens(&c(&format!("/proc/{}/exe", cat.0)), O_WRONLY), Err(ETXTBSY));
    let fd = ok!(open(path.as_ptr(), O_RDONLY));
    assert_eq!(opens(&c(&format!("/proc/self/fd/{fd}")), O_RDWR), Err(ETXTBSY));
    ok!(unlink(path.as_ptr()));
    assert_eq!(opens(&link, O_WRONLY), Err(ETXTBSY));
    finish(cat);
    assert_eq!(opens(&link, O_WRONLY), Ok(()));
}

/// One that nobody has waited for yet has let go of its program.
fn ended_program() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/cat");
    for _ in 0..20 {
        let (child, end) = start(&path);
        ok!(close(end));
        // SAFETY: a siginfo is made of numbers.
        let mut info: siginfo_t = unsafe { std::mem::zeroed() };
        ok!(waitid(P_PID, child as u32, &mut info, WEXITED | WNOWAIT));
        assert_eq!(opens(&path, O_WRONLY), Ok(()));
        assert_eq!(wait(child), End::Exited(0));
    }
    let (child, end) = start(&path);
    ok!(kill(child, SIGKILL));
    assert_eq!(wait(child), End::Killed(SIGKILL));
    assert_eq!(opens(&path, O_WRONLY), Ok(()));
    ok!(close(end));
}

/// A fork executes the same program.
fn child_of_fork() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/sh");
    let (input, end) = pipe();
    let (said, says) = pipe();
    let shell = fork(|| {
        ok!(dup2(input, 0));
        ok!(dup2(says, 1));
        ok!(close(end));
        // The child reads on once its parent has ended.
        let words =
            [c("sh"), c("-c"), c("exec 3<&0; (read x <&3; echo $x; read y <&3) & echo started; exit 0")];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
        ok!(execv(path.as_ptr(), argv.as_ptr()));
        0
    });
    assert_eq!(read(said, 8), b"started\n");
    assert_eq!(wait(shell), End::Exited(0));
    write(end, b"here\n");
    assert_eq!(read(said, 5), b"here\n");
    assert_eq!(opens(&path, O_WRONLY), Err(ETXTBSY));
    ok!(close(says));
    ok!(close(end));
    ok!(close(input));
    assert_eq!(read(said, 1), b"");
    // Its descriptors go a moment before its memory.
    let free = (0..200).any(|_| {
        crate::harness::sleep_ms(5);
        opens(&path, O_WRONLY).is_ok()
    });
    assert!(free);
}

fn after_another_exec() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/sh");
    let (input, end) = pipe();
    let (said, says) = pipe();
    let child = fork(|| {
        ok!(dup2(input, 0));
        ok!(dup2(says, 1));
        ok!(close(end));
        let words = [c("sh"), c("-c"), c("exec /bin/sh -c 'echo other; cat'")];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
        ok!(execv(path.as_ptr(), argv.as_ptr()));
        0
    });
    assert_eq!(read(said, 6), b"other\n");
    assert_eq!(opens(&path, O_WRONLY), Ok(()));
    ok!(close(end));
    assert_eq!(wait(child), End::Exited(0));
}

/// What dpkg and `install` do.
fn replaced_by_rename() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/cat");
    let cat = start(&path);
    let new = copy(&temp, "new", "/bin/true");
    ok!(rename(new.as_ptr(), path.as_ptr()));
    assert_eq!(opens(&path, O_RDWR), Ok(()));
    assert_eq!(run(&path), Ok(0));
    ok!(unlink(path.as_ptr()));
    finish(cat);
}

fn open_for_writing() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/true");
    for flags in [O_WRONLY, O_RDWR, O_WRONLY | O_APPEND] {
        let fd = ok!(open(path.as_ptr(), flags));
        assert_eq!(run(&path), Err(ETXTBSY));
        let other = ok!(dup(fd));
        ok!(close(fd));
        assert_eq!(run(&path), Err(ETXTBSY));
        ok!(close(other));
        assert_eq!(run(&path), Ok(0));
    }
    let fd = ok!(open(path.as_ptr(), 3));
    assert_eq!(run(&path), Ok(0));
    ok!(close(fd));
    // A new one, too.
    let path = temp.join("new");
    let fd = ok!(open(path.as_ptr(), O_WRONLY | O_CREAT | O_EXCL, 0o755));
    write(fd, &std::fs::read("/bin/true").expect("a program"));
    assert_eq!(run(&path), Err(ETXTBSY));
    // Closed on exec is too late.
    ok!(fcntl(fd, F_SETFD, FD_CLOEXEC));
    assert_eq!(run(&path), Err(ETXTBSY));
    ok!(close(fd));
    assert_eq!(run(&path), Ok(0));
}

fn writer_in_another_process() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/true");
    let (opened, tell) = pipe();
    let (go, end) = pipe();
    let writer = fork(|| {
        ok!(open(path.as_ptr(), O_RDWR));
        write(tell, b"x");
        read(go, 1);
        0
    });
    read(opened, 1);
    assert_eq!(run(&path), Err(ETXTBSY));
    write(end, b"x");
    assert_eq!(wait(writer), End::Exited(0));
    assert_eq!(run(&path), Ok(0));
}

/// The linker ends without closing what it wrote, and the program is run at once.
fn closed_by_exit() {
    let temp = Temp::new();
    let content = std::fs::read("/bin/true").expect("a program");
    for i in 0..50 {
        let path = temp.join(&format!("program{i}"));
        let linker = fork(|| {
            let fd = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o755));
            write(fd, &content);
            0
        });
        assert_eq!(wait(linker), End::Exited(0));
        assert_eq!(run(&path), Ok(0));
    }
}

/// A linker that writes by a mapping.
fn mapped_and_closed() {
    let temp = Temp::new();
    let content = std::fs::read("/bin/true").expect("a program");
    let path = temp.join("program");
    let fd = ok!(open(path.as_ptr(), O_RDWR | O_CREAT, 0o755));
    ok!(ftruncate(fd, content.len() as i64));
    let at = ok!(mmap(null_mut(), content.len(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    // SAFETY: the mapping is as long as the content.
    unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), at.cast(), content.len()) };
    ok!(close(fd));
    ok!(munmap(at, content.len()));
    assert_eq!(run(&path), Ok(0));
}

fn scripts() {
    let temp = Temp::new();
    let path = file(&temp, "script", b"#!/bin/sh\nread x\n");
    ok!(chmod(path.as_ptr(), 0o755));
    let fd = ok!(open(path.as_ptr(), O_WRONLY));
    assert_eq!(run(&path), Err(ETXTBSY));
    ok!(close(fd));
    // Once it runs the script is nobody's program.
    let (child, end) = start(&path);
    assert_eq!(opens(&path, O_RDWR), Ok(()));
    write(end, b"x\n");
    finish((child, end));
    // Its interpreter is.
    let shell = copy(&temp, "shell", "/bin/sh");
    let line = format!("#!{}\nread x\n", shell.to_str().expect("ASCII"));
    let path = file(&temp, "other", line.as_bytes());
    ok!(chmod(path.as_ptr(), 0o755));
    let fd = ok!(open(shell.as_ptr(), O_WRONLY));
    assert_eq!(run(&path), Err(ETXTBSY));
    ok!(close(fd));
    let (child, end) = start(&path);
    assert_eq!(opens(&shell, O_RDWR), Err(ETXTBSY));
    write(end, b"x\n");
    finish((child, end));
}

/// A dynamic program with a loader of its own.
fn with_loader(temp: &Temp, from: &str) -> (CString, CString) {
    const NAME: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    let loader = copy(temp, "loader", "/lib64/ld-linux-x86-64.so.2");
    let short = format!("/tmp/ld{}", ok!(getpid()));
    ok!(symlink(loader.as_ptr(), c(&short).as_ptr()));
    let mut program = std::fs::read(from).expect("a program");
    let at = program.windows(NAME.len()).position(|window| window == NAME).expect("a name of a loader");
    // Slashes fill it up.
    let mut name = vec![b'/'; NAME.len() - 1 - short.len()];
    name.extend(short.as_bytes());
    program[at..at + name.len()].copy_from_slice(&name);
    let path = file(temp, "program", &program);
    ok!(chmod(path.as_ptr(), 0o755));
    (path, loader)
}

fn loader() {
    let temp = Temp::new();
    let (path, loader) = with_loader(&temp, "/bin/cat");
    let fd = ok!(open(loader.as_ptr(), O_WRONLY));
    assert_eq!(run(&path), Err(ETXTBSY));
    ok!(close(fd));
    let cat = start(&path);
    // The loader itself is only mapped.
    assert_eq!(opens(&loader, O_RDWR), Ok(()));
    assert_eq!(opens(&path, O_RDWR), Err(ETXTBSY));
    finish(cat);
    ok!(unlink(c(&format!("/tmp/ld{}", ok!(getpid()))).as_ptr()));
}

/// MAP_DENYWRITE is ignored: what is mapped can be written.
fn libraries() {
    let temp = Temp::new();
    let path = copy(&temp, "library", "/bin/true");
    let fd = ok!(open(path.as_ptr(), O_RDONLY));
    ok!(mmap(null_mut(), 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_DENYWRITE, fd, 0));
    assert_eq!(opens(&path, O_RDWR), Ok(()));
}

/// The descriptor that memfd_create gives is no writer; those that are opened later are.
fn memory_file() {
    let fd = ok!(memfd_create(c("program").as_ptr(), 0));
    write(fd, &std::fs::read("/bin/true").expect("a program"));
    let path = c(&format!("/proc/self/fd/{fd}"));
    assert_eq!(run(&path), Ok(0));
    let again = ok!(open(path.as_ptr(), O_RDWR));
    assert_eq!(run(&path), Err(ETXTBSY));
    ok!(close(again));
    assert_eq!(run(&path), Ok(0));
}

fn permission_first() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/cat");
    let cat = start(&path);
    in_child(|| {
        if ok!(geteuid()) == 0 {
            ok!(chmod(path.as_ptr(), 0o755));
            ok!(setresuid(12_345, 12_345, 12_345));
            fails!(EACCES, open(path.as_ptr(), O_WRONLY));
            fails!(EACCES, truncate(path.as_ptr(), 0));
        }
    });
    finish(cat);
    ok!(chmod(path.as_ptr(), 0o644));
    let fd = ok!(open(path.as_ptr(), O_WRONLY));
    assert_eq!(run(&path), Err(EACCES));
    ok!(close(fd));
}

/// Copied by the kernel, closed, run, from several processes at once.
fn copied_and_run() {
    let temp = Temp::new();
    let children: Vec<_> = (0..4)
        .map(|worker| {
            fork(|| {
                for i in 0..20 {
                    let name = format!("program{worker}.{i}");
                    std::fs::copy("/bin/true", temp.path().join(&name)).expect("a copy");
                    assert_eq!(run(&temp.join(&name)), Ok(0));
                }
                0
            })
        })
        .collect();
    for child in children {
        assert_eq!(wait(child), End::Exited(0));
    }
}

/// The account is even after many who run it and some who could not.
fn many_runs() {
    let temp = Temp::new();
    let path = copy(&temp, "program", "/bin/true");
    for _ in 0..10 {
        let children: Vec<_> = (0..4)
            .map(|_| {
                fork(|| {
                    let argv = [path.as_ptr(), std::ptr::null()];
                    ok!(execv(path.as_ptr(), argv.as_ptr()));
                    0
                })
            })
            .collect();
        for child in children {
            assert_eq!(wait(child), End::Exited(0));
        }
        let fd = ok!(open(path.as_ptr(), O_RDWR));
        for _ in 0..3 {
            assert_eq!(run(&path), Err(ETXTBSY));
        }
        ok!(close(fd));
    }
}
