//! Limits on memory: RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK of getrlimit(2).

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::*;

use crate::harness::{End, c, cases, fails, fork, in_child, ok, pipe, read, skip, sys, wait, write, zeroed};

cases!("limits_memory": address_space, address_space_counts_files, lowered_below_use, break_and_data, data_of_mprotect,
    data_but_not_shared, data_zero, stack_depth, stack_raised, locked_memory, locked_nothing, locked_mapping, limit_of_other, inherited_by_fork, exec_within,
    exec_beyond, exec_small_stack, threads_within, threads_lift_nothing, fork_beside_setrlimit, vfork_of_limited, allocation_fails, unchanged_by_failure);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const ANON: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const RW: i32 = PROT_READ | PROT_WRITE;

fn set(resource: __rlimit_resource_t, soft: usize) {
    let mut limit: rlimit = zeroed();
    ok!(getrlimit(resource, &mut limit));
    limit.rlim_cur = soft as u64;
    ok!(setrlimit(resource, &limit));
}

fn map(len: usize, prot: i32, flags: i32) -> Result<*mut u8, i32> {
    let at = sys!(mmap(null_mut(), len, prot, flags, -1, 0))?;
    Ok(at.cast())
}

/// A number of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
    let number = line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok());
    number.expect("a number") * KIB
}

/// Runs a shell command; what it printed and how it ended.
fn shell(command: &str) -> (String, End) {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(dup2(w, 1));
        ok!(dup2(w, 2));
        let words = [c("/bin/sh"), c("-c"), c(command)];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
        ok!(execv(words[0].as_ptr(), argv.as_ptr()));
        0
    });
    ok!(close(w));
    let mut all = Vec::new();
    loop {
        let part = read(r, 4096);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    ok!(close(r));
    (String::from_utf8_lossy(&all).into_owned(), wait(pid))
}

fn address_space() {
    let room = 64 * MIB;
    set(RLIMIT_AS, status("VmSize:") + room);
    assert_eq!(map(room + MIB, PROT_NONE, ANON | MAP_NORESERVE), Err(ENOMEM));
    // Half a mebibyte for what the harness has mapped since.
    let at = map(room - MIB / 2, PROT_NONE, ANON | MAP_NORESERVE).expect("room");
    assert_eq!(map(MIB, RW, ANON), Err(ENOMEM));
    assert_eq!(map(MIB, PROT_READ, MAP_SHARED | MAP_ANONYMOUS), Err(ENOMEM));
    fails!(ENOMEM, mremap(at.cast(), room - MIB / 2, room + MIB, MREMAP_MAYMOVE));
    // Over what is mapped already no more is needed.
    ok!(mmap(at.cast(), room - MIB / 2, RW, ANON | MAP_FIXED, -1, 0));
    ok!(munmap(at.cast(), 2 * MIB));
    map(MIB, RW, ANON).expect("room again");
    set(RLIMIT_AS, RLIM_INFINITY as usize);
    map(2 * room, PROT_NONE, ANON | MAP_NORESERVE).expect("no limit");
}

fn address_space_counts_files() {
    let fd = ok!(memfd_create(c("limits").as_ptr(), 0));
    ok!(ftruncate(fd, 32 << 20));
    set(RLIMIT_AS, status("VmSize:") + 16 * MIB);
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        fails!(ENOMEM, mmap(null_mut(), 17 * MIB, PROT_READ, flags, fd, 0));
        let at = ok!(mmap(null_mut(), 15 * MIB, PROT_READ, flags, fd, 0));
        fails!(ENOMEM, mmap(null_mut(), 2 * MIB, PROT_READ, flags, fd, 0));
        ok!(munmap(at, 15 * MIB));
    }
}

/// A process that has more than it may has it still, and may fork.
fn lowered_below_use() {
    let at = map(64 * MIB, RW, ANON).expect("memory");
    set(RLIMIT_AS, 16 * MIB);
    // SAFETY: mapped above.
    unsafe { at.add(63 * MIB).write(7) };
    fails!(ENOMEM, mmap(null_mut(), 4096, RW, ANON, -1, 0));
    in_child(|| {
        // SAFETY: mapped above, and inherited.
        assert_eq!(unsafe { at.add(63 * MIB).read() }, 7);
        fails!(ENOMEM, mmap(null_mut(), 4096, RW, ANON, -1, 0));
        in_child(|| fails!(ENOMEM, mmap(null_mut(), 4096, RW, ANON, -1, 0)));
    });
    ok!(munmap(at.cast(), 64 * MIB));
}

fn break_and_data() {
    in_child(|| {
        let start = ok!(syscall(SYS_brk, 0));
        set(RLIMIT_DATA, status("VmData:") + 8 * MIB);
        // The break stays where it is.
        assert_eq!(ok!(syscall(SYS_brk, start + (9 << 20))), start);
        assert_eq!(map(9 * MIB, RW, ANON), Err(ENOMEM));
        map(7 * MIB, RW, ANON).expect("room");
        assert_eq!(map(2 * MIB, RW, ANON), Err(ENOMEM));
        assert_eq!(ok!(syscall(SYS_brk, start + (2 << 20))), start);
    });
}

fn data_of_mprotect() {
    let at = map(32 * MIB, PROT_READ, ANON).expect("memory that is no data");
    set(RLIMIT_DATA, status("VmData:") + 16 * MIB);
    fails!(ENOMEM, mprotect(at.cast(), 17 * MIB, RW));
    ok!(mprotect(at.cast(), 15 * MIB, RW));
    fails!(ENOMEM, mprotect(at.wrapping_add(16 * MIB).cast(), 2 * MIB, RW));
}

fn data_but_not_shared() {
    set(RLIMIT_DATA, status("VmData:") + MIB);
    map(16 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS).expect("shared memory is no data");
    map(16 * MIB, PROT_READ, ANON).expect("nor what cannot be written");
    assert_eq!(map(2 * MIB, RW, ANON), Err(ENOMEM));
}

/// For the sake of valgrind Linux takes a soft limit of 0 for the hard one.
fn data_zero() {
    set(RLIMIT_DATA, 0);
    map(16 * MIB, RW, ANON).expect("the hard limit counts");
    let start = ok!(syscall(SYS_brk, 0));
    assert_eq!(ok!(syscall(SYS_brk, start + (2 << 20))), start);
    ok!(setrlimit(RLIMIT_DATA, &rlimit { rlim_cur: 0, rlim_max: status("VmData:") as u64 + 4 * MIB as u64 }));
    assert_eq!(map(5 * MIB, RW, ANON), Err(ENOMEM));
    map(3 * MIB, RW, ANON).expect("below the hard limit");
}

/// How deep a stack can get that begins at `top`, in steps of pages: what a child could touch before it died.
fn depth(top: usize) -> usize {
    let shared = map(4096, RW, MAP_SHARED | MAP_ANONYMOUS).expect("a page").cast::<usize>();
    let child = fork(|| {
        ok!(signal(SIGSEGV, SIG_DFL) as isize);
        for below in (4096..512 * MIB).step_by(4096) {
            // SAFETY: below the stack is nothing but room to grow, where a fault ends the child.
            unsafe {
                ((top - below) as *mut u8).write_volatile(1);
                shared.write_volatile(below);
            }
        }
        0
    });
    assert_eq!(wait(child), End::Killed(SIGSEGV));
    // SAFETY: the page is mapped and nobody else uses it any more.
    unsafe { shared.read() }
}

/// Where the mapping of the main thread's stack ends.
fn stack_top() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|line| line.ends_with("[stack]")).expect("a stack");
    let end = line.split(['-', ' ']).nth(1).expect("an end");
    usize::from_str_radix(end, 16).expect("an address")
}

fn stack_depth() {
    let top = stack_top();
    for limit in [512 * KIB, 3 * MIB, 8 * MIB] {
        set(RLIMIT_STACK, limit);
        assert_eq!(depth(top), limit, "{limit:#x}");
    }
}

fn stack_raised() {
    let top = stack_top();
    set(RLIMIT_STACK, MIB);
    in_child(|| {
        assert_eq!(depth(top), MIB);
        set(RLIMIT_STACK, 32 * MIB);
        assert_eq!(depth(top), 32 * MIB);
    });
}

/// Does without the right to lock as much as one likes.
fn give_up_rights() {
    if ok!(geteuid()) == 0 {
        ok!(setresuid(12_345, 12_345, 12_345));
    }
}

fn locked_memory() {
    let at = map(2 * MIB, RW, ANON).expect("memory");
    in_child(|| {
        give_up_rights();
        set(RLIMIT_MEMLOCK, 64 * KIB);
        ok!(mlock(at.cast(), 32 * KIB));
        ok!(mlock(at.wrapping_add(32 * KIB).cast(), 32 * KIB));
        fails!(ENOMEM, mlock(at.wrapping_add(MIB).cast(), 4096));
        fails!(ENOMEM, mlock2(at.cast(), MIB, MLOCK_ONFAULT));
        // What is locked already is not counted twice.
        ok!(mlock(at.cast(), 64 * KIB));
        ok!(munlock(at.cast(), 4096));
        ok!(mlock(at.wrapping_add(MIB).cast(), 4096));
        ok!(munlockall());
        ok!(mlock(at.wrapping_add(MIB).cast(), 64 * KIB));
    });
}

fn locked_nothing() {
    let at = map(MIB, RW, ANON).expect("memory");
    in_child(|| {
        give_up_rights();
        set(RLIMIT_MEMLOCK, 0);
        fails!(EPERM, mlock(at.cast(), 4096));
        fails!(EPERM, mlockall(MCL_CURRENT));
        assert_eq!(map(4096, RW, ANON | MAP_LOCKED), Err(EPERM));
    });
}

fn locked_mapping() {
    in_child(|| {
        give_up_rights();
        set(RLIMIT_MEMLOCK, 64 * KIB);
        map(32 * KIB, RW, ANON | MAP_LOCKED).expect("within the limit");
        assert_eq!(map(64 * KIB, RW, ANON | MAP_LOCKED), Err(EAGAIN));
        let fd = ok!(memfd_create(c("limits").as_ptr(), 0));
        ok!(ftruncate(fd, 1 << 20));
        fails!(EAGAIN, mmap(null_mut(), 64 * KIB, PROT_READ, MAP_SHARED | MAP_LOCKED, fd, 0));
        ok!(mmap(null_mut(), 32 * KIB, PROT_READ, MAP_SHARED | MAP_LOCKED, fd, 0));
        assert_eq!(map(4096, RW, ANON | MAP_LOCKED), Err(EAGAIN));
    });
}

/// prlimit(2) reaches another process: one that runs, and one that hardly exists yet.
fn limit_of_other() {
    for _ in 0..50 {
        let (r, w) = pipe();
        let child = fork(|| {
            read(r, 1);
            match map(64 * MIB, PROT_NONE, ANON) {
                Ok(_) => 0,
                Err(errno) => errno,
            }
        });
        let new = rlimit { rlim_cur: 32 * MIB as u64, rlim_max: RLIM_INFINITY };
        ok!(prlimit(child, RLIMIT_AS, &new, null_mut()));
        write(w, b"x");
        assert_eq!(wait(child), End::Exited(ENOMEM));
        ok!(close(r));
        ok!(close(w));
    }
    map(64 * MIB, PROT_NONE, ANON).expect("the parent's limit is another");
}

fn inherited_by_fork() {
    set(RLIMIT_AS, status("VmSize:") + 32 * MIB);
    in_child(|| {
        assert_eq!(map(64 * MIB, PROT_NONE, ANON), Err(ENOMEM));
        in_child(|| assert_eq!(map(64 * MIB, PROT_NONE, ANON), Err(ENOMEM)));
        set(RLIMIT_AS, status("VmSize:") + 96 * MIB);
        map(64 * MIB, PROT_NONE, ANON).expect("a child's limit is its own");
    });
    assert_eq!(map(64 * MIB, PROT_NONE, ANON), Err(ENOMEM));
}

fn exec_within() {
    // A program that fits, and one that asks for more than is left.
    let (text, end) = shell(
        "ulimit -v 20000; exec sh -c 'ulimit -v; dd if=/dev/zero of=/dev/null bs=1M count=1 2>/dev/null && echo small; dd if=/dev/zero of=/dev/null bs=40M count=1 2>/dev/null || echo large'",
    );
    assert_eq!((text.as_str(), end), ("20000\nsmall\nlarge\n", End::Exited(0)));
}

fn exec_beyond() {
    // Too late for an error: the program's own memory is gone.
    for limits in ["-v 0", "-v 200", "-d 4", "-s 0"] {
        let (_, end) = shell(&format!("ulimit {limits}; exec /bin/true"));
        assert_eq!(end, End::Killed(SIGSEGV), "{limits}");
    }
    let (_, end) = shell("ulimit -v 1000; exec /bin/true");
    assert_eq!(end, End::Exited(127), "the loader says so itself");
    // One limit below what the shell has: it can fork still.
    let (text, end) = shell("ulimit -v 1000; /bin/true; echo $?");
    assert_eq!((text.lines().last(), end), (Some("127"), End::Exited(0)));
}

fn exec_small_stack() {
    let (text, end) = shell("ulimit -s 64; exec sh -c 'ulimit -s; exec cat /proc/self/limits | grep stack'");
    assert_eq!(end, End::Exited(0));
    assert!(text.starts_with("64\n") && text.contains("65536"), "{text}");
    // A quarter of it is for arguments, but 128 KiB at least.
    let (_, end) = shell("ulimit -s 2048; exec /bin/true $(seq 1 80000)");
    assert_ne!(end, End::Exited(0));
    let (_, end) = shell("ulimit -s 2048; exec /bin/true $(seq 1 20000)");
    assert_eq!(end, End::Exited(0));
}

fn threads_within() {
    // Room for some stacks of 2 MiB.
    set(RLIMIT_AS, status("VmSize:") + 256 * MIB);
    let threads: Vec<_> = (0..40)
        .map(|i| {
            let built = std::thread::Builder::new().stack_size(MIB).spawn(move || i);
            built.expect("a thread")
        })
        .collect();
    for (i, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().ok(), Some(i));
    }
    let built = std::thread::Builder::new().stack_size(512 * MIB).spawn(|| ());
    assert!(built.is_err(), "a stack beyond the limit");
}

fn threads_lift_nothing() {
    set(RLIMIT_AS, status("VmSize:") + 1024 * MIB);
    let stop = AtomicBool::new(false);
    let grabbed = std::thread::scope(|scope| {
        let grab = || {
            let mut grabbed = 0;
            while !stop.load(Ordering::Relaxed) {
                grabbed += usize::from(map(65536 * MIB, PROT_NONE, ANON | MAP_NORESERVE).is_ok());
            }
            grabbed
        };
        let grabbers = [scope.spawn(grab), scope.spawn(grab)];
        for _ in 0..200 {
            let built = std::thread::Builder::new().stack_size(64 * KIB).spawn_scoped(scope, || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            });
            assert!(built.is_ok(), "a thread");
        }
        stop.store(true, Ordering::Relaxed);
        grabbers.map(|grabber| grabber.join().expect("no panic"))
    });
    assert_eq!(grabbed, [0, 0]);
}

fn fork_beside_setrlimit() {
    let limits = [RLIM_INFINITY as usize, 1024 * MIB];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for limit in limits {
                    set(RLIMIT_AS, limit);
                }
            }
        });
        let child = || {
            let mut limit: rlimit = zeroed();
            ok!(getrlimit(RLIMIT_AS, &mut limit));
            let fits = map(2048 * MIB, PROT_NONE, ANON | MAP_NORESERVE).is_ok();
            i32::from(fits != (limit.rlim_cur == RLIM_INFINITY))
        };
        let ends: Vec<_> = (0..300).map(|_| wait(fork(child))).filter(|end| *end != End::Exited(0)).collect();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(ends, []);
    });
}

fn vfork_of_limited() {
    extern "C" fn child(_: *mut c_void) -> i32 {
        let words = [c"true".as_ptr(), std::ptr::null()];
        // SAFETY: the words are static and end with NULL.
        unsafe { execv(c"/bin/true".as_ptr(), words.as_ptr()) };
        126
    }
    let mut stack = vec![0u8; 64 * KIB];
    let at = map(64 * MIB, RW, ANON).expect("memory");
    set(RLIMIT_AS, 16 * MIB);
    // SAFETY: one past the end of the stack, which grows down.
    let top = unsafe { stack.as_mut_ptr().add(64 * KIB) };
    let pid = ok!(clone(child, top.cast(), CLONE_VM | CLONE_VFORK | SIGCHLD, null_mut()));
    assert_eq!(wait(pid), End::Exited(0));
    ok!(munmap(at.cast(), 64 * MIB));
}

fn allocation_fails() {
    let (text, end) = shell(
        "command -v python3 >/dev/null || { echo none; exit; }; ulimit -v 100000; exec python3 -c '\ntry:\n    x = bytearray(200 << 20)\n    print(\"got it\")\nexcept MemoryError:\n    print(\"MemoryError\")\nx = bytearray(10 << 20)\nprint(len(x))'",
    );
    if text == "none\n" {
        skip!("no python3");
    }
    assert_eq!((text.as_str(), end), ("MemoryError\n10485760\n", End::Exited(0)));
}

fn unchanged_by_failure() {
    set(RLIMIT_AS, status("VmSize:") + MIB);
    let mut before: rlimit = zeroed();
    ok!(getrlimit(RLIMIT_AS, &mut before));
    assert_eq!(map(64 * MIB, RW, ANON), Err(ENOMEM));
    let mut after: rlimit = zeroed();
    ok!(getrlimit(RLIMIT_AS, &mut after));
    assert_eq!((before.rlim_cur, before.rlim_max), (after.rlim_cur, after.rlim_max));
    let text = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = text.lines().find(|line| line.starts_with("Max address space")).expect("a line");
    assert!(line.contains(&before.rlim_cur.to_string()), "{line}");
}
