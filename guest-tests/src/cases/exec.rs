//! execve(2): scripts, errors, what survives; the auxiliary vector; clone, vfork.

use std::ffi::CString;

use crate::harness::{
    End, Temp, c, cases, close, fails, file, fork, in_child, ok, pipe, read, sys, wait, write,
};

cases!("exec": missing, not_executable, directory_errno, bad_format, empty_file, script_argument,
    script_nested, script_missing_interpreter, close_on_exec, signal_dispositions, argument_vector,
    environment, too_big, truncated_elf, truncated_loader, exec_by_descriptor, execveat_empty_path, auxv_entries, comm_after_exec, vfork_shares,
    pid_survives, bad_pointer, name_too_long, not_a_directory, trailing_slash, symlink_loop, zero_arguments);

/// Executes `path` in a child; its errno as exit status, or how the program ended.
fn try_exec(path: &CString, arguments: &[&CString]) -> End {
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let environment = c("A=1");
    let envp = [environment.as_ptr(), std::ptr::null()];
    wait(fork(|| match sys!(libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr())) {
        Ok(_) => 0,
        Err(errno) => errno,
    }))
}

fn expect_errno(path: &CString, errno: i32) {
    assert_eq!(try_exec(path, &[path]), End::Exited(errno), "{path:?}");
}

/// Runs a shell command and returns what it printed.
fn shell(command: &str) -> String {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(libc::dup2(w, 1));
        let words = [c("/bin/sh"), c("-c"), c(command)];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
        ok!(libc::execv(words[0].as_ptr(), argv.as_ptr()));
        0
    });
    close(w);
    let mut all = Vec::new();
    loop {
        let part = read(r, 65536);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    close(r);
    assert_eq!(wait(pid), End::Exited(0), "{command}");
    String::from_utf8(all).expect("text")
}

fn script(temp: &Temp, name: &str, content: &[u8]) -> CString {
    let path = file(temp, name, content);
    ok!(libc::chmod(path.as_ptr(), 0o755));
    path
}

fn missing() {
    expect_errno(&c("/no/such/program"), libc::ENOENT);
    expect_errno(&c(""), libc::ENOENT);
}

fn not_executable() {
    let temp = Temp::new();
    expect_errno(&file(&temp, "plain", b"#!/bin/sh\n"), libc::EACCES);
}

fn directory_errno() {
    expect_errno(&c("/tmp"), libc::EACCES);
}

fn bad_format() {
    let temp = Temp::new();
    expect_errno(&script(&temp, "text", b"hello world, this is no program\n"), libc::ENOEXEC);
}

fn empty_file() {
    let temp = Temp::new();
    expect_errno(&script(&temp, "empty", b""), libc::ENOEXEC);
}

fn script_argument() {
    let temp = Temp::new();
    // The rest of the line is one argument, the script's path the next.
    let path = script(&temp, "s", b"#!/bin/sh -e \nfalse\nexit 9\n");
    assert_eq!(try_exec(&path, &[&path]), End::Exited(1));
    let path = script(&temp, "t", b"#! /bin/sh\n[ \"$1\" = one ] && exit 7\n");
    assert_eq!(try_exec(&path, &[&c("zero"), &c("one")]), End::Exited(7));
}

fn script_nested() {
    let temp = Temp::new();
    let inner = script(&temp, "inner", b"#!/bin/sh\nexit $#\n");
    let line = format!("#!{} x\n", inner.to_str().expect("ASCII"));
    let outer = script(&temp, "outer", line.as_bytes());
    // sh inner x outer a: three arguments of `inner`.
    assert_eq!(try_exec(&outer, &[&outer, &c("a")]), End::Exited(3));
    let itself = temp.join("loop");
    let line = format!("#!{}\n", itself.to_str().expect("ASCII"));
    script(&temp, "loop", line.as_bytes());
    expect_errno(&itself, libc::ELOOP);
}

fn script_missing_interpreter() {
    let temp = Temp::new();
    expect_errno(&script(&temp, "s", b"#!/no/such/shell\n"), libc::ENOENT);
}

fn close_on_exec() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    let kept = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    let closed = ok!(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC));
    let listing = shell(&format!(
        "[ -e /proc/self/fd/{kept} ] && echo kept; [ -e /proc/self/fd/{closed} ] || echo closed"
    ));
    assert_eq!(listing, "kept\nclosed\n");
    assert_eq!(
        shell(&format!("(: <&{kept}) 2>/dev/null && echo a; (: <&{closed}) 2>/dev/null || echo b")),
        "a\nb\n"
    );
}

fn signal_dispositions() {
    in_child(|| {
        ok!(libc::signal(libc::SIGUSR1, libc::SIG_IGN) as isize);
        // An ignored signal stays ignored, a caught one goes back to its default.
        extern "C" fn nothing(_: i32) {}
        ok!(libc::signal(libc::SIGUSR2, nothing as extern "C" fn(i32) as usize) as isize);
        assert_eq!(shell("sh -c 'kill -USR1 $$; echo alive'"), "alive\n");
        assert_eq!(shell("sh -c 'kill -USR2 $$' >/dev/null 2>&1; echo $?").trim(), "140");
    });
}

fn argument_vector() {
    assert_eq!(shell("printf '%s|' '' 'a b' \"$(printf 'x\\ny')\""), "|a b|x\ny|");
}

fn environment() {
    let path = c("/bin/sh");
    assert_eq!(try_exec(&path, &[&path, &c("-c"), &c("[ \"$A\" = 1 ] && [ -z \"$HOME\" ]")]), End::Exited(0));
}

fn too_big() {
    let path = c("/bin/true");
    // One string may have 128 KiB, with its NUL.
    let word = c(&"x".repeat(131_072));
    assert_eq!(try_exec(&path, &[&path, &word]), End::Exited(libc::E2BIG));
    let word = c(&"x".repeat(131_071));
    assert_eq!(try_exec(&path, &[&path, &word]), End::Exited(0));
    let many: Vec<&CString> = std::iter::repeat_n(&word, 64).collect();
    assert_eq!(try_exec(&path, &many), End::Exited(libc::E2BIG));
}

fn truncated_elf() {
    let temp = Temp::new();
    let whole = std::fs::read("/bin/true").expect("/bin/true");
    expect_errno(&script(&temp, "short", &whole[..40]), libc::ENOEXEC);
    let mut other = whole.clone();
    other[18] = 0xb7; // EM_AARCH64
    expect_errno(&script(&temp, "arm", &other), libc::ENOEXEC);
    let mut wide = whole;
    wide[54] = 1; // e_phentsize
    expect_errno(&script(&temp, "header", &wide), libc::ENOEXEC);
}

/// A program of one header for its loader, at 64, and one that maps the file.
fn program_with_loader(loader: &[u8]) -> Vec<u8> {
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half =
        |elf: &mut Vec<u8>, words: &[u16]| words.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    half(&mut elf, &[2, 62, 1, 0]);
    [0x40_0000u64, 64, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    half(&mut elf, &[0, 0, 64, 56, 2, 64, 0, 0]);
    // PT_INTERP behind the headers, PT_LOAD of all.
    let (at, length) = (64 + 2 * 56, loader.len() as u64);
    for (kind, offset, address, bytes) in [(3, at, 0x40_0000 + at, length), (1, 0, 0x40_0000, at + length)] {
        half(&mut elf, &[kind, 0, 5, 0]);
        [offset, address, address, bytes, bytes, 4096].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    }
    elf.extend(loader);
    elf
}

fn truncated_loader() {
    let temp = Temp::new();
    let whole = std::fs::read("/bin/true").expect("/bin/true");
    for (name, loader, errno) in [
        ("none", &b""[..], libc::EIO),
        ("word", b"\x7fELF", libc::EIO),
        ("text", &[b'x'; 100], libc::ELIBBAD),
        ("head", &whole[..100], libc::ELIBBAD),
    ] {
        let path = script(&temp, name, loader);
        let program = program_with_loader(path.as_bytes_with_nul());
        expect_errno(&script(&temp, "program", &program), errno);
        // The name ends at its first NUL.
        let mut longer = path.as_bytes_with_nul().to_vec();
        longer.extend(b"more\0");
        expect_errno(&script(&temp, "longer", &program_with_loader(&longer)), errno);
    }
    let program = program_with_loader(b"/no/such/loader\0");
    expect_errno(&script(&temp, "missing", &program), libc::ENOENT);
    // Its name is not all there, or has no end; the headers are not all there.
    expect_errno(&script(&temp, "part", &program[..program.len() - 2]), libc::EIO);
    expect_errno(&script(&temp, "endless", &program_with_loader(b"/no/such")), libc::ENOEXEC);
    for length in [63, 64, 100, 175] {
        expect_errno(&script(&temp, "headers", &program[..length]), libc::ENOEXEC);
    }
}

fn exec_by_descriptor() {
    let fd = ok!(libc::open(c("/bin/true").as_ptr(), libc::O_PATH | libc::O_CLOEXEC));
    let words = [c("true")];
    let argv = [words[0].as_ptr(), std::ptr::null()];
    let pid = fork(|| {
        ok!(libc::fexecve(fd, argv.as_ptr(), [std::ptr::null()].as_ptr()));
        1
    });
    assert_eq!(wait(pid), End::Exited(0));
}

fn execveat_empty_path() {
    let temp = Temp::new();
    let path = script(&temp, "s", b"#!/bin/sh\nexit 4\n");
    let argv = [path.as_ptr(), std::ptr::null()];
    let run = |fd: i32, name: &CString, flags: i32| {
        wait(fork(|| {
            match sys!(libc::syscall(
                libc::SYS_execveat,
                fd,
                name.as_ptr(),
                argv.as_ptr(),
                std::ptr::null::<u8>(),
                flags
            )) {
                Ok(_) => 0,
                Err(errno) => errno,
            }
        }))
    };
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    assert_eq!(run(fd, &c(""), libc::AT_EMPTY_PATH), End::Exited(4));
    assert_eq!(run(fd, &c(""), 0), End::Exited(libc::ENOENT));
    // A script cannot be opened again through a descriptor that exec closes.
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC));
    assert_eq!(run(fd, &c(""), libc::AT_EMPTY_PATH), End::Exited(libc::ENOENT));
    let folder = ok!(libc::open(temp.join(".").as_ptr(), libc::O_PATH));
    assert_eq!(run(folder, &c("s"), 0), End::Exited(4));
    assert_eq!(run(-1, &c("s"), 0), End::Exited(libc::EBADF));
    ok!(libc::symlink(c("s").as_ptr(), temp.join("l").as_ptr()));
    assert_eq!(run(folder, &c("l"), libc::AT_SYMLINK_NOFOLLOW), End::Exited(libc::ELOOP));
}

fn auxv_entries() {
    let value = |kind| ok!(libc::getauxval(kind));
    assert_eq!(value(libc::AT_PAGESZ), 4096);
    assert_eq!(value(libc::AT_CLKTCK), 100);
    assert_eq!(value(libc::AT_PHENT), 56);
    assert_eq!(value(libc::AT_SECURE), 0);
    assert_eq!(value(libc::AT_UID), u64::from(ok!(libc::getuid())));
    assert_eq!(value(libc::AT_EUID), u64::from(ok!(libc::geteuid())));
    assert!(value(libc::AT_PHNUM) > 3 && value(libc::AT_PHDR) != 0 && value(libc::AT_ENTRY) != 0);
    assert!(value(libc::AT_SYSINFO_EHDR) != 0 && value(libc::AT_MINSIGSTKSZ) >= 1024);
    // SAFETY: the kernel promises 16 bytes at AT_RANDOM, a string at AT_EXECFN and one at AT_PLATFORM.
    unsafe {
        assert_ne!(*(value(libc::AT_RANDOM) as *const [u8; 16]), [0; 16]);
        let name = std::ffi::CStr::from_ptr(value(libc::AT_EXECFN) as *const libc::c_char);
        assert!(name.to_bytes().ends_with(b"guest-tests"), "{name:?}");
        let platform = std::ffi::CStr::from_ptr(value(libc::AT_PLATFORM) as *const libc::c_char);
        assert_eq!(platform.to_bytes(), b"x86_64");
        assert_eq!(*(value(libc::AT_SYSINFO_EHDR) as *const [u8; 4]), *b"\x7fELF");
    }
    let text = std::fs::read("/proc/self/auxv").expect("/proc/self/auxv");
    assert!(text.len().is_multiple_of(16) && text.ends_with(&[0; 16]));
}

fn comm_after_exec() {
    assert_eq!(shell("cat /proc/self/comm; exec 3</proc/$$/comm; read x <&3; echo $x"), "cat\nsh\n");
}

fn vfork_shares() {
    extern "C" fn child(shared: *mut libc::c_void) -> i32 {
        // SAFETY: the parent, which owns the variable, is stopped until the child is gone.
        unsafe { shared.cast::<i32>().write_volatile(42) };
        3
    }
    let mut shared = 0;
    let seen = &raw mut shared;
    let mut stack = vec![0u8; 65536];
    // SAFETY: one past the end of the stack, which grows down.
    let top = unsafe { stack.as_mut_ptr().add(65536) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let pid = ok!(libc::clone(child, top.cast(), flags, seen.cast()));
    // SAFETY: the child is gone.
    assert_eq!(unsafe { seen.read_volatile() }, 42);
    assert_eq!(wait(pid), End::Exited(3));
}

fn pid_survives() {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(libc::dup2(w, 1));
        let words = [c("/bin/sh"), c("-c"), c("echo $$")];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
        ok!(libc::execv(words[0].as_ptr(), argv.as_ptr()));
        1
    });
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(read(r, 32), format!("{pid}\n").as_bytes());
    write(w, b"x");
}

fn bad_pointer() {
    fails!(libc::EFAULT, libc::syscall(libc::SYS_execve, 1, 0, 0));
    let path = c("/bin/true");
    fails!(libc::EFAULT, libc::syscall(libc::SYS_execve, path.as_ptr(), 1, 0));
    let argv = [std::ptr::dangling::<u8>(), std::ptr::null()];
    fails!(libc::EFAULT, libc::syscall(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), 0));
}

fn name_too_long() {
    expect_errno(&c(&format!("/{}", "x".repeat(256))), libc::ENAMETOOLONG);
    expect_errno(&c(&"/x".repeat(2048)), libc::ENAMETOOLONG);
}

fn not_a_directory() {
    expect_errno(&c("/bin/true/x"), libc::ENOTDIR);
}

fn trailing_slash() {
    expect_errno(&c("/bin/true/"), libc::ENOTDIR);
}

fn symlink_loop() {
    let temp = Temp::new();
    ok!(libc::symlink(c("loop").as_ptr(), temp.join("loop").as_ptr()));
    expect_errno(&temp.join("loop"), libc::ELOOP);
}

fn zero_arguments() {
    // Since Linux 5.18 a program without arguments gets one empty string.
    let path = c("/bin/true");
    let pid = fork(|| {
        ok!(libc::syscall(libc::SYS_execve, path.as_ptr(), 0, 0));
        1
    });
    assert_eq!(wait(pid), End::Exited(0));
}
