//! Calls that ask for much at once: they may take their time, but nobody else waits for them.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{End, cases, fork, ok, sys, wait, zeroed};

cases!("attack_long": random_bytes, many_messages, many_arguments, many_requests, foreign_memory, many_pages,
    many_files_polled);

/// What the bystander tells.
#[derive(Default)]
struct Watched {
    ready: AtomicBool,
    stop: AtomicBool,
    /// Its longest call, in microseconds.
    longest: AtomicU64,
}

fn map<T>(bytes: usize, flags: c_int) -> *mut T {
    let flags = flags | MAP_ANONYMOUS | MAP_NORESERVE;
    ok!(mmap(ptr::null_mut(), bytes, PROT_READ | PROT_WRITE, flags, -1, 0)).cast()
}

/// A process makes small calls all the while: none of them may take as long as the long ones.
fn unnoticed(mut long_call: impl FnMut()) {
    // SAFETY: new memory, all zeros, as all of its fields may be.
    let watched: &Watched = unsafe { &*map(4096, MAP_SHARED) };
    let bystander = fork(|| {
        while !watched.stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            ok!(getpgid(0));
            ok!(getsid(0));
            watched.longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::SeqCst);
            watched.ready.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
        }
        0
    });
    while !watched.ready.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    watched.longest.store(0, Ordering::SeqCst);
    let begun = Instant::now();
    long_call();
    let took = begun.elapsed().as_micros() as u64;
    watched.stop.store(true, Ordering::SeqCst);
    assert_eq!(wait(bystander), End::Exited(0));
    let longest = watched.longest.load(Ordering::SeqCst);
    // Where it is quick there is nothing to wait for; a busy machine keeps anybody waiting for a while.
    assert!(took < 300_000 || longest < took / 2, "somebody waited {longest} of {took} us");
}

fn random_bytes() {
    let file = ok!(open(c"/dev/urandom".as_ptr(), O_RDONLY));
    let piece = iovec { iov_base: map(1 << 20, MAP_PRIVATE), iov_len: 1 << 20 };
    let pieces = [piece; 192];
    unnoticed(|| assert_eq!(ok!(readv(file, pieces.as_ptr(), 192)), 192 << 20));
}

fn many_messages() {
    let socket = ok!(socket(AF_INET, SOCK_DGRAM, 0));
    let mut address: sockaddr_in = zeroed();
    address.sin_family = AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let length = size_of::<sockaddr_in>() as u32;
    ok!(bind(socket, (&raw const address).cast(), length));
    let mut own = length;
    ok!(getsockname(socket, (&raw mut address).cast(), &mut own));
    let mut pieces = [iovec { iov_base: map(4096, MAP_PRIVATE), iov_len: 8 }; 1024];
    let mut message: mmsghdr = zeroed();
    message.msg_hdr.msg_name = (&raw mut address).cast();
    message.msg_hdr.msg_namelen = length;
    message.msg_hdr.msg_iov = pieces.as_mut_ptr();
    message.msg_hdr.msg_iovlen = 1024;
    let messages = [message; 200];
    unnoticed(|| {
        ok!(syscall(SYS_sendmmsg, socket, messages.as_ptr(), 200, MSG_DONTWAIT));
    });
}

fn many_arguments() {
    let mut arguments = vec![c"".as_ptr(); 500_000];
    arguments.push(ptr::null());
    unnoticed(|| {
        // Too much for Linux, or for its limit on the stack; either way it looks at many.
        let pid = fork(|| {
            let program = c"/proc/self/exe".as_ptr();
            let none = [ptr::null::<c_char>()];
            assert_eq!(sys!(execve(program, arguments.as_ptr(), none.as_ptr())), Err(E2BIG));
            0
        });
        assert_eq!(wait(pid), End::Exited(0));
    });
}

/// `struct iocb`: data, key and flags, opcode, descriptor, buffer, length, offset, reserved, flags and resfd.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u64,
    opcode: u16,
    priority: i16,
    fd: i32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    rest: [u64; 2],
}

fn many_requests() {
    let file = ok!(memfd_create(c"file".as_ptr(), 0));
    let buffer: *mut u8 = map(1 << 20, MAP_PRIVATE);
    const WRITE: u16 = 1;
    let request = Iocb { opcode: WRITE, fd: file, buf: buffer as u64, nbytes: 1 << 20, ..Iocb::default() };
    let mut requests = vec![request; 1500];
    let list: Vec<*mut Iocb> = requests.iter_mut().map(|request| &raw mut *request).collect();
    let mut context = 0u64;
    ok!(syscall(SYS_io_setup, 1500, &raw mut context));
    unnoticed(|| assert_eq!(ok!(syscall(SYS_io_submit, context, 1500, list.as_ptr())), 1500));
    ok!(syscall(SYS_io_destroy, context));
}

fn foreign_memory() {
    let piece = iovec { iov_base: map(1 << 20, MAP_PRIVATE), iov_len: 1 << 20 };
    // SAFETY: writes our own memory, so that there is some to be copied.
    unsafe { ptr::write_bytes(piece.iov_base.cast::<u8>(), 1, 1 << 20) };
    let pieces = [piece; 1024];
    unnoticed(|| {
        for _ in 0..2 {
            let to = pieces.as_ptr();
            assert_eq!(ok!(syscall(SYS_process_vm_readv, getpid(), to, 1024, to, 1024, 0)), 1 << 30);
        }
    });
}

fn many_pages() {
    let page: u64 = map::<u8>(4096, MAP_PRIVATE) as u64;
    let pages = vec![page; 100_000];
    let mut states = vec![0i32; 100_000];
    unnoticed(|| {
        let (pages, states) = (pages.as_ptr(), states.as_mut_ptr());
        ok!(syscall(SYS_move_pages, 0, 100_000, pages, 0, states, 0));
    });
}

fn many_files_polled() {
    let mut limit: rlimit = zeroed();
    ok!(getrlimit(RLIMIT_NOFILE, &mut limit));
    limit.rlim_cur = limit.rlim_max;
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    let count = limit.rlim_max.min(200_000) as usize;
    let counter = ok!(eventfd(1, 0));
    let mut files = vec![pollfd { fd: counter, events: POLLIN, revents: 0 }; count];
    unnoticed(|| assert_eq!(ok!(poll(files.as_mut_ptr(), count as u64, 0)), count as c_int));
    assert!(files.iter().all(|file| file.revents == POLLIN));
}
