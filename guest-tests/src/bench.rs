//! The micro benchmarks: the same program on every side of a comparison.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{End, Temp, file, fork, ok, wait};

/// The rows: a name, and what makes the operation that is measured.
const ROWS: [Row; 11] = [
    ("answered-call", answered_call),
    ("shim-call", shim_call),
    ("map-touch-unmap", map_touch_unmap),
    ("futex-ping-pong", futex_ping_pong),
    ("fork-exit-wait", fork_exit_wait),
    ("vfork-exec-wait", vfork_exec_wait),
    ("stat", stat),
    ("open-close", open_close),
    ("pread-4k", pread),
    ("pwrite-4k", pwrite),
    ("pipe-ping-pong", pipe_ping_pong),
];

type Operation = Box<dyn FnMut()>;
type Row = (&'static str, fn() -> Operation);

/// Prints `ROW MICROSECONDS` for each named row (all of them without a name): the median of many
/// short batches, so that one interruption does not count.
pub(crate) fn run(row: &str, rest: &[&str]) -> ExitCode {
    let wanted: Vec<&str> = std::iter::once(row).chain(rest.iter().copied()).collect();
    let mut found = false;
    for (name, make) in ROWS {
        if wanted.contains(&name) || wanted == ["all"] {
            found = true;
            println!("{name} {:.3}", measure(&mut make()));
        }
    }
    if found {
        return ExitCode::SUCCESS;
    }
    eprintln!("guest-tests: no row named {row}");
    ExitCode::from(2)
}

/// Microseconds per operation: batches of about 2 ms for half a second, then their median.
fn measure(operation: &mut Operation) -> f64 {
    let start = Instant::now();
    let mut batch = 0u32;
    while start.elapsed() < Duration::from_millis(20) {
        operation();
        batch += 1;
    }
    let batch = (batch / 10).max(1);
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) || times.len() < 5 {
        let begin = Instant::now();
        for _ in 0..batch {
            operation();
        }
        times.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(batch));
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn answered_call() -> Operation {
    // getpgid of this process is answered by the kernel, never in a shim or a vDSO.
    Box::new(|| {
        ok!(libc::getpgid(0));
    })
}

fn shim_call() -> Operation {
    Box::new(|| {
        ok!(libc::getpid());
    })
}

fn map_touch_unmap() -> Operation {
    Box::new(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at =
            ok!(libc::mmap(std::ptr::null_mut(), 65536, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0));
        for page in 0..16 {
            // SAFETY: one byte of each of the 16 pages that were mapped above.
            unsafe { at.cast::<u8>().add(page * 4096).write_volatile(1) };
        }
        ok!(libc::munmap(at, 65536));
    })
}

static TURN: AtomicU32 = AtomicU32::new(0);

fn wait_for(turn: u32) {
    while TURN.load(Ordering::SeqCst) != turn {
        // SAFETY: the word is static; what the call returns does not matter, the word is read again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                TURN.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                1 - turn,
                0,
            )
        };
    }
}

fn pass(turn: u32) {
    TURN.store(turn, Ordering::SeqCst);
    ok!(libc::syscall(libc::SYS_futex, TURN.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1));
}

fn futex_ping_pong() -> Operation {
    std::thread::spawn(|| {
        loop {
            wait_for(1);
            pass(0);
        }
    });
    Box::new(|| {
        pass(1);
        wait_for(0);
    })
}

fn fork_exit_wait() -> Operation {
    Box::new(|| {
        assert_eq!(wait(fork(|| 0)), End::Exited(0));
    })
}

fn vfork_exec_wait() -> Operation {
    Box::new(|| {
        let argv = [c"/bin/true".as_ptr().cast_mut(), std::ptr::null_mut()];
        let environment = [std::ptr::null_mut()];
        let mut pid = 0;
        let null = std::ptr::null();
        let path = c"/bin/true".as_ptr();
        let status =
            ok!(libc::posix_spawn(&mut pid, path, null, null.cast(), argv.as_ptr(), environment.as_ptr()));
        assert_eq!(status, 0);
        assert_eq!(wait(pid), End::Exited(0));
    })
}

fn stat() -> Operation {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    Box::new(move || {
        let _ = &temp;
        let mut stat: libc::stat = crate::harness::zeroed();
        ok!(libc::stat(path.as_ptr(), &mut stat));
    })
}

fn open_close() -> Operation {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    Box::new(move || {
        let _ = &temp;
        let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
        ok!(libc::close(fd));
    })
}

fn positioned(write: bool) -> Operation {
    let temp = Temp::new();
    let path = file(&temp, "f", &[1; 65536]);
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    let mut data = vec![0u8; 4096];
    let mut turn = 0;
    Box::new(move || {
        let _ = &temp;
        turn = (turn + 1) % 16;
        let offset = turn * 4096;
        let n = if write {
            ok!(libc::pwrite(fd, data.as_ptr().cast(), 4096, offset))
        } else {
            ok!(libc::pread(fd, data.as_mut_ptr().cast(), 4096, offset))
        };
        assert_eq!(n, 4096);
    })
}

fn pread() -> Operation {
    positioned(false)
}

fn pwrite() -> Operation {
    positioned(true)
}

fn pipe_ping_pong() -> Operation {
    let (there, there_end) = crate::harness::pipe();
    let (back, back_end) = crate::harness::pipe();
    fork(|| {
        // Ends at end of file, when the parent is gone.
        ok!(libc::close(there_end));
        loop {
            let data = crate::harness::read(there, 1);
            if data.is_empty() {
                return 0;
            }
            crate::harness::write(back_end, &data);
        }
    });
    Box::new(move || {
        crate::harness::write(there_end, b"x");
        assert_eq!(crate::harness::read(back, 1), b"x");
    })
}
