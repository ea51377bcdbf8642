//! The memory of a process as a file: proc_pid_mem(5). What stands beside it for debuggers: the state of tracees.

use std::ptr;

use libc::*;

use crate::harness::{End, c, cases, close, fails, fork, is_root, ok, pipe, read, skip, sys, wait, write};

cases!("memory-file": own_memory, what_the_program_may_not_touch, ends_at_a_hole, of_a_child, of_a_child_at_once, of_another_user,
    old_memory_is_empty, positions, links_count_threads, title,
    tracees_are_shown_stopped, new_thread_has_its_base);

const PAGE: usize = 4096;

fn map(pages: usize, protection: i32) -> usize {
    let at = ok!(mmap(ptr::null_mut(), pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    at.addr()
}

fn open_of(pid: &str, flags: i32) -> Result<i32, i32> {
    sys!(open(c(&format!("/proc/{pid}/mem")).as_ptr(), flags))
}

fn get(file: i32, at: usize, buf: &mut [u8]) -> Result<isize, i32> {
    sys!(pread(file, buf.as_mut_ptr().cast(), buf.len(), at as off_t))
}

fn put(file: i32, at: usize, buf: &[u8]) -> Result<isize, i32> {
    sys!(pwrite(file, buf.as_ptr().cast(), buf.len(), at as off_t))
}

fn own_memory() {
    let word = Box::new(0x0123_4567_89ab_cdef_u64);
    let at = ptr::from_ref(&*word).addr();
    let file = open_of("self", O_RDWR).expect("opens");
    let mut bytes = [0; 8];
    assert_eq!(get(file, at, &mut bytes), Ok(8));
    assert_eq!(u64::from_ne_bytes(bytes), *word);
    assert_eq!(put(file, at, &77u64.to_ne_bytes()), Ok(8));
    assert_eq!(std::hint::black_box(*word), 77);
    let mut status: stat = crate::harness::zeroed();
    ok!(fstat(file, &mut status));
    assert_eq!((status.st_mode, status.st_size), (S_IFREG | 0o600, 0));
    assert_eq!(get(file, at, &mut []), Ok(0));
    close(file);
    // Of a thread the same.
    let thread = ok!(syscall(SYS_gettid));
    let file = open_of(&format!("self/task/{thread}"), O_RDONLY).expect("opens");
    assert_eq!(get(file, at, &mut bytes), Ok(8));
    assert_eq!(put(file, at, &bytes), Err(EBADF));
    close(file);
}

/// Debuggers write into text and look at guard pages.
fn what_the_program_may_not_touch() {
    let file = open_of("self", O_RDWR).expect("opens");
    let read_only = map(1, PROT_READ);
    assert_eq!(put(file, read_only + 8, b"written"), Ok(7));
    let mut bytes = [0; 7];
    assert_eq!(get(file, read_only + 8, &mut bytes), Ok(7));
    assert_eq!(&bytes, b"written");
    let nothing = map(1, PROT_NONE);
    assert_eq!(get(file, nothing, &mut bytes), Ok(7));
    assert_eq!(put(file, nothing, b"hidden "), Ok(7));
    ok!(mprotect(nothing as *mut c_void, PAGE, PROT_READ));
    assert_eq!(get(file, nothing, &mut bytes), Ok(7));
    assert_eq!(&bytes, b"hidden ");
    // What is shared with others stays as it is.
    let program = ok!(open(c"/proc/self/exe".as_ptr(), O_RDONLY));
    let shared = ok!(mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_SHARED, program, 0)).addr();
    assert_eq!(put(file, shared, b"x"), Err(EIO));
    assert_eq!(get(file, shared, &mut bytes), Ok(7));
    assert_eq!(bytes.first_chunk(), Some(b"\x7fELF"));
}

fn ends_at_a_hole() {
    let file = open_of("self", O_RDWR).expect("opens");
    let at = map(3, PROT_READ | PROT_WRITE);
    ok!(munmap((at + 2 * PAGE) as *mut c_void, PAGE));
    let mut bytes = vec![0; 3 * PAGE];
    assert_eq!(get(file, at, &mut bytes), Ok(2 * PAGE as isize));
    assert_eq!(put(file, at + PAGE, &bytes), Ok(PAGE as isize));
    assert_eq!(get(file, at + 2 * PAGE, &mut bytes), Err(EIO));
    assert_eq!(put(file, at + 2 * PAGE, &bytes), Err(EIO));
    assert_eq!(get(file, 0, &mut bytes), Err(EIO));
    assert_eq!(get(file, i64::MAX as usize - 5, &mut bytes[..5]), Err(EIO));
    // Where the answer goes must be there, too.
    fails!(EFAULT, pread(file, 8 as *mut c_void, 8, at as off_t));
}

fn of_a_child() {
    let at = map(1, PROT_READ | PROT_WRITE);
    let (r, w) = pipe();
    let pid = fork(|| {
        read(r, 1);
        // SAFETY: mapped above.
        i32::from(unsafe { *(at as *const u8) })
    });
    let file = open_of(&pid.to_string(), O_RDWR).expect("opens");
    assert_eq!(put(file, at, &[42]), Ok(1));
    // SAFETY: mapped above.
    assert_eq!(unsafe { *(at as *const u8) }, 0);
    write(w, b"x");
    assert_eq!(wait(pid), End::Exited(42));
}

/// By each way to look into a child that has not made a call yet.
fn of_a_child_at_once() {
    let at = map(1, PROT_READ | PROT_WRITE);
    for _ in 0..50 {
        let pid = fork(|| {
            ok!(pause());
            0
        });
        let file = open_of(&pid.to_string(), O_RDWR).expect("opens");
        assert_eq!(put(file, at, &[42]), Ok(1));
        close(file);
        ok!(kill(pid, SIGKILL));
        assert_eq!(wait(pid), End::Killed(SIGKILL));
        let pid = fork(|| {
            ok!(pause());
            0
        });
        let mut byte = [1u8];
        let local = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let remote = iovec { iov_base: at as *mut c_void, iov_len: 1 };
        assert_eq!(ok!(process_vm_readv(pid, &local, 1, &remote, 1, 0)), 1);
        assert_eq!(byte, [0]);
        ok!(kill(pid, SIGKILL));
        assert_eq!(wait(pid), End::Killed(SIGKILL));
    }
}

fn of_another_user() {
    if !is_root() {
        skip!("only root may become another user");
    }
    let root = ok!(getpid());
    let user = fork(|| {
        ok!(setgroups(0, ptr::null()));
        ok!(setresgid(1234, 1234, 1234));
        ok!(setresuid(1234, 1234, 1234));
        assert_eq!(open_of(&root.to_string(), O_RDONLY), Err(EACCES));
        0
    });
    assert_eq!(wait(user), End::Exited(0));
}

fn old_memory_is_empty() {
    let at = map(1, PROT_READ);
    let (r, w) = pipe();
    let (said, says) = pipe();
    let pid = fork(|| {
        read(r, 1);
        ok!(dup2(says, 1));
        ok!(dup2(r, 0));
        ok!(execl(
            c"/bin/sh".as_ptr(),
            c"sh".as_ptr(),
            c"-c".as_ptr(),
            c"echo; read x".as_ptr(),
            ptr::null::<c_char>()
        ));
        1
    });
    let file = open_of(&pid.to_string(), O_RDWR).expect("opens");
    let mut bytes = [1; 8];
    assert_eq!(get(file, at, &mut bytes), Ok(8));
    write(w, b"x");
    read(said, 1);
    assert_eq!(get(file, at, &mut bytes), Ok(0));
    assert_eq!(put(file, at, &bytes), Ok(0));
    // Opened anew it is that of the new program.
    let anew = open_of(&pid.to_string(), O_RDONLY).expect("opens");
    assert!(matches!(get(anew, at, &mut bytes), Err(EIO) | Ok(8)));
    write(w, b"\n");
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(get(anew, at, &mut bytes), Ok(0));
}

fn positions() {
    let file = open_of("self", O_RDONLY).expect("opens");
    let at = map(1, PROT_READ) as off_t;
    assert_eq!(ok!(lseek(file, at, SEEK_SET)), at);
    read(file, 16);
    assert_eq!(ok!(lseek(file, 0, SEEK_CUR)), at + 16);
    fails!(EINVAL, lseek(file, 0, SEEK_END));
    fails!(ENODEV, mmap(ptr::null_mut(), PAGE, PROT_READ, MAP_PRIVATE, file, 0));
}

/// A program that writes over its arguments and on (setproctitle) shows that in place of them.
fn title() {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let after = stat.rsplit_once(") ").expect("a name").1;
    let number = |field: usize| -> usize {
        after.split_ascii_whitespace().nth(field - 3).and_then(|text| text.parse().ok()).expect("a number")
    };
    let (start, end, environment, last) = (number(48), number(49), number(50), number(51));
    assert_eq!(end, environment);
    let shown = || std::fs::read("/proc/self/cmdline").expect("cmdline");
    // SAFETY: the arguments and the environment lie in these.
    let mine = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, last - start) };
    assert_eq!(shown(), mine[..end - start]);
    let room = mine.len();
    assert!(room > end - start + 8);
    mine.fill(0);
    mine[..5].copy_from_slice(b"short");
    assert_eq!(shown().len(), end - start);
    mine[..end - start + 4].fill(b'x');
    assert_eq!(shown(), mine[..end - start + 5]);
    mine[3] = 0;
    assert_eq!(shown(), b"xxx\0");
    mine.fill(b'y');
    assert_eq!(shown(), mine[..room.min(PAGE)]);
}

/// Programs count their threads by the links of this folder.
fn links_count_threads() {
    let links =
        || std::os::linux::fs::MetadataExt::st_nlink(&std::fs::metadata("/proc/self/task").expect("stat"));
    assert_eq!(links(), 3);
    let (r, w) = pipe();
    let thread = std::thread::spawn(move || read(r, 1));
    assert_eq!(links(), 4);
    write(w, b"x");
    thread.join().expect("joined");
    // Joined is who has left his stack, a little before his end.
    while links() != 3 {
        crate::harness::sleep_ms(1);
    }
}

fn tracees_are_shown_stopped() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        0
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, 0)), pid);
    for folder in [format!("/proc/{pid}"), format!("/proc/{pid}/task/{pid}")] {
        let text = std::fs::read_to_string(format!("{folder}/status")).expect("status");
        assert!(text.contains("State:\tt (tracing stop)\n"), "{text}");
        let text = std::fs::read_to_string(format!("{folder}/stat")).expect("stat");
        assert_eq!(text.rsplit_once(')').map(|(_, rest)| &rest[..3]), Some(" t "));
    }
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(wait(pid), End::Exited(0));
}

/// Debuggers find a new thread's descriptor by the FS base that it has at its first stop.
fn new_thread_has_its_base() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        std::thread::spawn(|| {}).join().expect("joined");
        0
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, 0)), pid);
    ok!(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(ok!(waitpid(pid, &mut status, __WALL)), pid);
    assert_eq!(status >> 8, SIGTRAP | PTRACE_EVENT_CLONE << 8);
    let mut thread: c_ulong = 0;
    ok!(ptrace(PTRACE_GETEVENTMSG, pid, 0, &raw mut thread));
    let thread = thread as pid_t;
    assert_eq!(ok!(waitpid(thread, &mut status, __WALL)), thread);
    assert_eq!(status >> 8, SIGSTOP);
    let (mut base, mut word) = (0u64, 0u64);
    let at = std::mem::offset_of!(user_regs_struct, fs_base);
    ok!(syscall(SYS_ptrace, PTRACE_PEEKUSER as c_long, thread, at, &raw mut base));
    assert_ne!(base, 0);
    // The first word of it is its own address (System V ABI).
    ok!(syscall(SYS_ptrace, PTRACE_PEEKDATA as c_long, thread, base, &raw mut word));
    assert_eq!(word, base);
    ok!(kill(pid, SIGKILL));
}
