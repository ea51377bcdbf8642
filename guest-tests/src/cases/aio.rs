//! Asynchronous input and output: io_setup(2) and its family.

use std::ptr;
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{
    End, Temp, c, cases, end_of, fails, file, fork, in_child, ok, pipe, read, skip, sleep_ms, sys, write,
    zeroed,
};

cases!("aio": setup_and_destroy, setup_errors, read_and_write, vectors, many_at_once, sync, eventfd_is_told, poll_request,
    cancel_poll, submit_errors, partial_submit, queue_is_full, getevents_timeout, getevents_errors, interrupted,
    direct_file, of_a_pipe, flags_of_requests, end_of_file, bad_buffer, signal_mask, limits_in_proc, not_inherited,
    end_lets_files_go, on_a_disk);

#[repr(C)]
#[derive(Clone, Copy)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

fn iocb(opcode: u16, fd: i32, buf: usize, nbytes: usize, offset: i64) -> Iocb {
    Iocb { data: 7, opcode, fd: fd as u32, buf: buf as u64, nbytes: nbytes as u64, offset, ..zeroed() }
}

fn setup(count: u32) -> u64 {
    let mut context = 0u64;
    ok!(syscall(SYS_io_setup, count, &mut context));
    context
}

fn submit(context: u64, requests: &mut [Iocb]) -> Result<i64, i32> {
    let list: Vec<*mut Iocb> = requests.iter_mut().map(ptr::from_mut).collect();
    sys!(syscall(SYS_io_submit, context, list.len(), list.as_ptr()))
}

fn events(context: u64, least: i64, most: usize, timeout: Option<Duration>) -> Result<Vec<Event>, i32> {
    let mut out = vec![Event::default(); most];
    let time = timeout.map(|t| timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let n = sys!(syscall(SYS_io_getevents, context, least, most, out.as_mut_ptr(), time))?;
    out.truncate(n as usize);
    Ok(out)
}

fn one(context: u64, mut request: Iocb) -> i64 {
    assert_eq!(submit(context, std::slice::from_mut(&mut request)), Ok(1));
    let got = events(context, 1, 4, None).expect("events");
    assert_eq!((got.len(), got[0].data, got[0].obj), (1, 7, (&raw const request).addr() as u64));
    got[0].res
}

fn open_file(flags: i32) -> (Temp, i32) {
    let temp = Temp::new();
    let path = file(&temp, "f", b"0123456789");
    let fd = ok!(open(path.as_ptr(), O_RDWR | flags));
    (temp, fd)
}

fn setup_and_destroy() {
    let context = setup(4);
    assert_ne!(context, 0);
    // The C library looks into it.
    // SAFETY: the page that io_setup mapped.
    let _ = unsafe { ptr::with_exposed_provenance::<u64>(context as usize).read_volatile() };
    ok!(syscall(SYS_io_destroy, context));
    fails!(EINVAL, syscall(SYS_io_destroy, context));
    fails!(EINVAL, syscall(SYS_io_getevents, context, 0, 0, 0, 0));
}

fn setup_errors() {
    let mut context = 1u64;
    fails!(EINVAL, syscall(SYS_io_setup, 4, &mut context));
    context = 0;
    fails!(EINVAL, syscall(SYS_io_setup, 0, &mut context));
    fails!(EFAULT, syscall(SYS_io_setup, 4, 8));
    fails!(EINVAL, syscall(SYS_io_setup, 0x2000_0000, &mut context));
    fails!(EAGAIN, syscall(SYS_io_setup, 1 << 20, &mut context));
}

fn read_and_write() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let mut data = [0u8; 20];
    assert_eq!(one(context, iocb(PREAD, fd, data.as_mut_ptr().addr(), 4, 3)), 4);
    assert_eq!(&data[..5], b"3456\0");
    assert_eq!(one(context, iocb(PWRITE, fd, b"abc".as_ptr().addr(), 3, 9)), 3);
    assert_eq!(one(context, iocb(PREAD, fd, data.as_mut_ptr().addr(), 20, 0)), 12);
    assert_eq!(&data[..12], b"012345678abc");
    // The position of the file has not moved.
    assert_eq!(ok!(lseek(fd, 0, SEEK_CUR)), 0);
}

fn vectors() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let (mut a, mut b) = ([0u8; 3], [0u8; 4]);
    let list = [
        iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 3 },
        iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 4 },
    ];
    assert_eq!(one(context, iocb(PREADV, fd, list.as_ptr().addr(), 2, 1)), 7);
    assert_eq!((&a, &b), (b"123", b"4567"));
    assert_eq!(one(context, iocb(PWRITEV, fd, list.as_ptr().addr(), 2, 0)), 7);
    let mut whole = [0u8; 10];
    assert_eq!(one(context, iocb(PREAD, fd, whole.as_mut_ptr().addr(), 10, 0)), 10);
    assert_eq!(&whole, b"1234567789");
}

fn many_at_once() {
    let (_temp, fd) = open_file(0);
    let context = setup(64);
    let blocks: Vec<Vec<u8>> = (0..64u8).map(|n| vec![n; 4096]).collect();
    let mut writes: Vec<Iocb> =
        blocks.iter().zip(0..).map(|(b, n)| iocb(PWRITE, fd, b.as_ptr().addr(), 4096, n * 4096)).collect();
    assert_eq!(submit(context, &mut writes), Ok(64));
    let mut done = 0;
    while done < 64 {
        let got = events(context, 1, 64, None).expect("events");
        assert!(got.iter().all(|e| e.res == 4096));
        done += got.len();
    }
    let mut back = vec![vec![9u8; 4096]; 64];
    let mut reads: Vec<Iocb> = back
        .iter_mut()
        .zip(0..)
        .map(|(b, n)| iocb(PREAD, fd, b.as_mut_ptr().addr(), 4096, n * 4096))
        .collect();
    assert_eq!(submit(context, &mut reads), Ok(64));
    assert_eq!(events(context, 64, 64, None).expect("events").len(), 64);
    assert!(back == blocks);
}

fn sync() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    assert_eq!(one(context, iocb(FSYNC, fd, 0, 0, 0)), 0);
    assert_eq!(submit(context, &mut [iocb(FSYNC, fd, 0, 5, 0)]), Err(EINVAL));
    let (end, _other) = pipe();
    assert_eq!(submit(context, &mut [iocb(FSYNC, end, 0, 0, 0)]), Err(EINVAL));
}

fn eventfd_is_told() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let counter = ok!(eventfd(0, 0));
    let mut data = [0u8; 4];
    let request = iocb(PREAD, fd, data.as_mut_ptr().addr(), 4, 0);
    let mut two = [Iocb { flags: 1, resfd: counter as u32, ..request }; 2];
    assert_eq!(submit(context, &mut two), Ok(2));
    let mut told = 0;
    while told < 2 {
        told += u64::from_ne_bytes(read(counter, 8).try_into().expect("8 bytes"));
    }
    assert_eq!((told, events(context, 0, 4, None).expect("events").len()), (2, 2));
    assert_eq!(submit(context, &mut [Iocb { flags: 1, resfd: fd as u32, ..request }]), Err(EINVAL));
    assert_eq!(submit(context, &mut [Iocb { flags: 1, resfd: 9999, ..request }]), Err(EBADF));
}

fn poll_request() {
    let context = setup(4);
    let (end, other) = pipe();
    assert_eq!(submit(context, &mut [iocb(POLL, end, POLLIN as usize, 0, 0)]), Ok(1));
    assert_eq!(events(context, 0, 4, None), Ok(vec![]));
    write(other, b"x");
    let got = events(context, 1, 4, None).expect("events");
    assert_eq!(got[0].res & i64::from(POLLIN), i64::from(POLLIN));
    assert_eq!(one(context, iocb(POLL, other, POLLOUT as usize, 0, 0)), i64::from(POLLOUT));
}

fn cancel_poll() {
    let context = setup(4);
    let (end, _other) = pipe();
    let mut request = iocb(POLL, end, POLLIN as usize, 0, 0);
    assert_eq!(submit(context, std::slice::from_mut(&mut request)), Ok(1));
    let mut event = Event::default();
    fails!(EINPROGRESS, syscall(SYS_io_cancel, context, &mut request, &mut event));
    assert_eq!(events(context, 1, 4, None).expect("events").len(), 1);
    fails!(EINVAL, syscall(SYS_io_cancel, context, &mut request, &mut event));
    fails!(EFAULT, syscall(SYS_io_cancel, context, 8, &mut event));
}

fn submit_errors() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let mut data = [0u8; 4];
    let request = iocb(PREAD, fd, data.as_mut_ptr().addr(), 4, 0);
    assert_eq!(submit(context, &mut [Iocb { fd: 9999, ..request }]), Err(EBADF));
    assert_eq!(submit(context, &mut [Iocb { opcode: 99, ..request }]), Err(EINVAL));
    assert_eq!(submit(context, &mut [Iocb { reserved: 1, ..request }]), Err(EINVAL));
    assert_eq!(submit(context, &mut [Iocb { nbytes: u64::MAX, ..request }]), Err(EINVAL));
    assert_eq!(submit(context, &mut [Iocb { offset: -1, ..request }]), Err(EINVAL));
    assert_eq!(submit(context, &mut []), Ok(0));
    fails!(EINVAL, syscall(SYS_io_submit, context, -1i64, ptr::null::<u8>()));
    fails!(EFAULT, syscall(SYS_io_submit, context, 1, 8));
    fails!(EINVAL, syscall(SYS_io_submit, 12345, 0, 0));
    let reader = ok!(open(c"/dev/zero".as_ptr(), O_RDONLY));
    assert_eq!(submit(context, &mut [iocb(PWRITE, reader, data.as_ptr().addr(), 4, 0)]), Err(EBADF));
}

fn partial_submit() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let mut data = [0u8; 4];
    let good = iocb(PREAD, fd, data.as_mut_ptr().addr(), 4, 0);
    assert_eq!(submit(context, &mut [good, Iocb { fd: 9999, ..good }, good]), Ok(1));
    assert_eq!(events(context, 1, 4, None).expect("events").len(), 1);
}

fn queue_is_full() {
    let context = setup(1);
    let (end, _other) = pipe();
    let mut begun = 0;
    // Linux makes the queue a little larger than asked.
    let mut all = vec![iocb(POLL, end, POLLIN as usize, 0, 0); 5000];
    for request in &mut all {
        match submit(context, std::slice::from_mut(request)) {
            Ok(_) => begun += 1,
            Err(errno) => {
                assert_eq!(errno, EAGAIN);
                break;
            }
        }
    }
    assert!((1..5000).contains(&begun));
    ok!(syscall(SYS_io_destroy, context));
}

fn getevents_timeout() {
    let context = setup(1);
    let begin = Instant::now();
    assert_eq!(events(context, 1, 1, Some(Duration::from_millis(30))), Ok(vec![]));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(events(context, 1, 1, Some(Duration::ZERO)), Ok(vec![]));
}

fn getevents_errors() {
    let context = setup(1);
    assert_eq!(events(context, 2, 1, None), Err(EINVAL));
    assert_eq!(events(context, -1, 1, None), Err(EINVAL));
    assert_eq!(events(12345, 0, 1, None), Err(EINVAL));
}

extern "C" fn nothing(_: i32) {}

fn interrupted() {
    let mut action: sigaction = zeroed();
    action.sa_sigaction = nothing as *const () as usize;
    action.sa_flags = SA_RESTART;
    ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
    let pid = fork(|| {
        let context = setup(1);
        events(context, 1, 1, None).map_or_else(|errno| errno, |_| 0)
    });
    // One that comes before it waits interrupts nothing.
    let mut status = 0;
    while ok!(waitpid(pid, &mut status, WNOHANG)) == 0 {
        ok!(kill(pid, SIGUSR1));
        sleep_ms(50);
    }
    assert_eq!(end_of(status), End::Exited(EINTR));
}

fn direct_file() {
    let temp = Temp::new();
    let path = file(&temp, "f", &[5; 8192]);
    let Ok(fd) = sys!(open(path.as_ptr(), O_RDWR | O_DIRECT)) else {
        crate::harness::skip!("no O_DIRECT here");
    };
    let context = setup(8);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let at = ok!(mmap(ptr::null_mut(), 8192, PROT_READ | PROT_WRITE, flags, -1, 0));
    assert_eq!(one(context, iocb(PREAD, fd, at.addr(), 4096, 4096)), 4096);
    // SAFETY: the mapping above.
    assert_eq!(unsafe { at.cast::<u8>().add(4095).read() }, 5);
    assert_eq!(one(context, iocb(PWRITE, fd, at.addr(), 8192, 4096)), 8192);
    assert_eq!(std::fs::metadata(temp.path().join("f")).expect("stat").len(), 12288);
}

fn of_a_pipe() {
    let context = setup(4);
    let (end, other) = pipe();
    assert_eq!(one(context, iocb(PWRITE, other, b"pipe".as_ptr().addr(), 4, 0)), 4);
    let mut data = [0u8; 8];
    assert_eq!(one(context, iocb(PREAD, end, data.as_mut_ptr().addr(), 8, 0)), 4);
    assert_eq!(&data[..4], b"pipe");
}

fn flags_of_requests() {
    let context = setup(4);
    let (end, _other) = pipe();
    let mut data = [0u8; 8];
    // RWF_NOWAIT of an empty pipe.
    let request = Iocb { rw_flags: 8, ..iocb(PREAD, end, data.as_mut_ptr().addr(), 8, 0) };
    assert_eq!(one(context, request), -i64::from(EAGAIN));
    // RWF_APPEND, RWF_DSYNC.
    let (temp, fd) = open_file(0);
    let request = Iocb { rw_flags: 16 | 2, ..iocb(PWRITE, fd, b"abc".as_ptr().addr(), 3, 0) };
    assert_eq!(one(context, request), 3);
    assert_eq!(std::fs::read(temp.path().join("f")).expect("read"), b"0123456789abc");
    let request = Iocb { rw_flags: 1 << 30, ..request };
    assert_eq!(submit(context, &mut [request]), Err(EOPNOTSUPP));
}

fn end_of_file() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    let mut data = [0u8; 8];
    assert_eq!(one(context, iocb(PREAD, fd, data.as_mut_ptr().addr(), 8, 6)), 4);
    assert_eq!(one(context, iocb(PREAD, fd, data.as_mut_ptr().addr(), 8, 100)), 0);
}

fn bad_buffer() {
    let (_temp, fd) = open_file(0);
    let context = setup(4);
    assert_eq!(one(context, iocb(PREAD, fd, 8, 8, 0)), -i64::from(EFAULT));
    assert_eq!(one(context, iocb(PWRITE, fd, 8, 8, 0)), -i64::from(EFAULT));
}

fn signal_mask() {
    let context = setup(1);
    let mut set: sigset_t = zeroed();
    ok!(sigaddset(&mut set, SIGUSR1));
    ok!(sigprocmask(SIG_BLOCK, &set, ptr::null_mut()));
    let mut action: sigaction = zeroed();
    action.sa_sigaction = nothing as *const () as usize;
    ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
    ok!(raise(SIGUSR1));
    // Let in for the time of the wait.
    let none = 0u64;
    let mask: [u64; 2] = [(&raw const none).addr() as u64, 8];
    let mut out = Event::default();
    fails!(EINTR, syscall(333, context, 1, 1, &mut out, ptr::null::<timespec>(), &mask));
    let mut now: sigset_t = zeroed();
    ok!(sigprocmask(SIG_BLOCK, ptr::null(), &mut now));
    assert_eq!(ok!(sigismember(&now, SIGUSR1)), 1);
}

fn limits_in_proc() {
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}")).expect(name);
        text.trim().parse::<u64>().expect("a number")
    };
    assert!(number("aio-max-nr") >= 65536);
    setup(100);
    assert!(number("aio-nr") >= 100);
}

fn not_inherited() {
    let context = setup(4);
    crate::harness::in_child(|| assert_eq!(events(context, 0, 1, None), Err(EINVAL)));
    assert_eq!(events(context, 0, 1, None), Ok(vec![]));
}

/// Requests that wait, two of them of one iocb, end with their process and keep no file open.
fn end_lets_files_go() {
    let (end, other) = pipe();
    in_child(|| {
        let context = setup(4);
        let mut request = iocb(POLL, end, POLLIN as usize, 0, 0);
        let twice = [ptr::from_mut(&mut request); 2];
        assert_eq!(sys!(syscall(SYS_io_submit, context, 2, twice.as_ptr())), Ok(2));
    });
    ok!(close(end));
    let mut look = pollfd { fd: other, events: 0, revents: 0 };
    assert_eq!(ok!(poll(&mut look, 1, 2000)), 1);
    assert_eq!(look.revents, POLLERR);
    ok!(close(other));
}

/// Files of the folder of the run, which a disk holds: parts, ends, bad buffers, and what waits for the disk.
fn on_a_disk() {
    const SIZE: usize = 10_000;
    let path = c(&format!("./guest-tests-aio-{}", std::process::id()));
    for flags in [0, O_DSYNC] {
        let Ok(fd) = sys!(open(path.as_ptr(), O_RDWR | O_CREAT | O_EXCL | flags, 0o600)) else {
            skip!("nothing to write to")
        };
        ok!(unlink(path.as_ptr()));
        let context = setup(64);
        for round in 0..20u8 {
            let bytes = vec![round; SIZE];
            let mut writes: Vec<_> =
                (0..8).map(|i| iocb(PWRITE, fd, bytes.as_ptr().addr(), SIZE, (i * SIZE) as i64)).collect();
            assert_eq!(submit(context, &mut writes), Ok(8));
            let mut done = Vec::new();
            while done.len() < 8 {
                done.extend(events(context, 1, 8, None).expect("events"));
            }
            assert!(done.iter().all(|event| event.res == SIZE as i64));
            let mut buf = vec![0xffu8; SIZE];
            let at = buf.as_mut_ptr().addr();
            assert_eq!(one(context, iocb(PREAD, fd, at, SIZE, (3 * SIZE) as i64)), SIZE as i64);
            assert!(buf == bytes);
            assert_eq!(one(context, iocb(PREAD, fd, at, SIZE, (8 * SIZE - 5) as i64)), 5);
            assert_eq!(one(context, iocb(PREAD, fd, at, SIZE, (9 * SIZE) as i64)), 0);
            assert_eq!(one(context, iocb(PREAD, fd, 8, SIZE, 0)), -i64::from(EFAULT));
            assert_eq!(one(context, iocb(PWRITE, fd, 8, SIZE, 0)), -i64::from(EFAULT));
            assert_eq!(one(context, iocb(FSYNC, fd, 0, 0, 0)), 0);
        }
        ok!(syscall(SYS_io_destroy, context));
        crate::harness::close(fd);
    }
}
