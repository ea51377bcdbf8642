//! Core dumps: core(5).

use libc::*;

use crate::harness::{Temp, cases, fork, ok, skip, sleep_ms, zeroed};

cases!("core_dump": of_a_fault, of_abort_with_threads, none_without_room, none_of_the_undumpable, none_of_other_signals, killed_by_id,
    told_by_waitid, over_a_link);

/// Skips where the machine hands core dumps to a program or another folder.
fn needs_plain_pattern() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("core_pattern");
    if pattern.trim() != "core" {
        skip!("core_pattern is {pattern}");
    }
}

fn limit(bytes: u64) {
    ok!(setrlimit(RLIMIT_CORE, &rlimit { rlim_cur: bytes, rlim_max: bytes }));
}

/// The wait status of a child that does this in a folder, and what the core file holds.
fn crash(temp: &Temp, bytes: u64, body: impl FnOnce()) -> (i32, Option<Vec<u8>>) {
    let folder = temp.join(".");
    let pid = fork(|| {
        ok!(chdir(folder.as_ptr()));
        limit(bytes);
        body();
        0
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, 0)), pid);
    let file = std::fs::read_dir(temp.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().expect("a type").is_file())
        .find(|entry| entry.file_name().to_string_lossy().starts_with("core"));
    let bytes = file.map(|entry| {
        use std::os::unix::fs::PermissionsExt;
        let meta = entry.metadata().expect("metadata");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        std::fs::read(entry.path()).expect("the core")
    });
    (status, bytes)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).expect("a word")
}

/// The contents of memory at an address, as the program headers tell.
fn memory(core: &[u8], addr: u64, len: usize) -> Option<&[u8]> {
    let (table, count) = (word(core, 32) as usize, (word(core, 56) & 0xffff) as usize);
    (0..count).map(|i| table + 56 * i).find_map(|at| {
        let (kind, offset, start, size) =
            (word(core, at) as u32, word(core, at + 8), word(core, at + 16), word(core, at + 32));
        let inside = kind == 1 && addr >= start && addr - start + len as u64 <= size;
        inside.then(|| core.get((offset + addr - start) as usize..)?.get(..len)).flatten()
    })
}

fn of_a_fault() {
    needs_plain_pattern();
    let temp = Temp::new();
    let mark: Vec<u8> = b"this is in the dump".iter().map(|b| b ^ 1).collect();
    let at = mark.as_ptr() as u64;
    let (status, core) = crash(&temp, RLIM_INFINITY, || {
        // SAFETY: the fault is what the case is about.
        unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
    });
    assert!(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV && WCOREDUMP(status), "{status:#x}");
    let core = core.expect("a core file");
    assert_eq!(core.get(..4), Some(&b"\x7fELF"[..]));
    // ET_CORE, EM_X86_64.
    assert_eq!(word(&core, 16) as u32, 62 << 16 | 4);
    assert_eq!(memory(&core, at, mark.len()), Some(&mark[..]));
    // The first note: NT_PRSTATUS of "CORE", with the signal.
    let notes = word(&core, word(&core, 32) as usize + 8) as usize;
    assert_eq!((word(&core, notes), word(&core, notes + 8) as u32), (336 << 32 | 5, 1));
    assert_eq!(word(&core, notes + 20) as i32, SIGSEGV);
}

fn of_abort_with_threads() {
    needs_plain_pattern();
    let temp = Temp::new();
    let (status, core) = crash(&temp, RLIM_INFINITY, || {
        std::thread::spawn(|| sleep_ms(10_000));
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        sleep_ms(30);
        // SAFETY: the end is what the case is about.
        unsafe { abort() };
    });
    assert!(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && WCOREDUMP(status), "{status:#x}");
    assert!(core.is_some_and(|core| core.len() > 100_000));
}

fn none_without_room() {
    let temp = Temp::new();
    let (status, core) = crash(&temp, 0, || {
        ok!(raise(SIGQUIT));
    });
    assert_eq!((status, core), (SIGQUIT, None));
}

fn none_of_the_undumpable() {
    needs_plain_pattern();
    let temp = Temp::new();
    let (status, core) = crash(&temp, RLIM_INFINITY, || {
        ok!(prctl(PR_SET_DUMPABLE, 0));
        ok!(raise(SIGQUIT));
    });
    assert_eq!((status, core), (SIGQUIT, None));
}

fn none_of_other_signals() {
    let temp = Temp::new();
    let (status, core) = crash(&temp, RLIM_INFINITY, || {
        ok!(raise(SIGTERM));
    });
    assert_eq!((status, core), (SIGTERM, None));
}

fn killed_by_id() {
    needs_plain_pattern();
    let temp = Temp::new();
    let (status, core) = crash(&temp, RLIM_INFINITY, || {
        let me = ok!(getpid());
        fork(|| {
            sleep_ms(30);
            ok!(kill(me, SIGILL))
        });
        sleep_ms(10_000);
    });
    assert!(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL && WCOREDUMP(status), "{status:#x}");
    assert!(core.is_some());
}

fn told_by_waitid() {
    needs_plain_pattern();
    let temp = Temp::new();
    let folder = temp.join(".");
    let pid = fork(|| {
        ok!(chdir(folder.as_ptr()));
        limit(RLIM_INFINITY);
        ok!(raise(SIGFPE))
    });
    let mut info: siginfo_t = zeroed();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED));
    assert_eq!(info.si_code, CLD_DUMPED);
    // SAFETY: filled in for a child that has ended.
    assert_eq!(unsafe { info.si_status() }, SIGFPE);
}

/// Nothing is written where a link leads.
fn over_a_link() {
    needs_plain_pattern();
    let temp = Temp::new();
    let target = temp.join("target");
    std::fs::write(temp.path().join("target"), b"untouched").expect("a file");
    let (status, _) = crash(&temp, RLIM_INFINITY, || {
        let name = std::ffi::CString::new(format!("core.{}", ok!(getpid()))).expect("a name");
        ok!(symlink(target.as_ptr(), name.as_ptr()));
        ok!(symlink(target.as_ptr(), c"core".as_ptr()));
        ok!(chmod(target.as_ptr(), 0o600));
        ok!(raise(SIGQUIT));
    });
    // Linux may have named it by another pid, that of an outer namespace.
    assert_eq!(WTERMSIG(status), SIGQUIT);
    assert_eq!(std::fs::read(temp.path().join("target")).expect("the file"), b"untouched");
}
