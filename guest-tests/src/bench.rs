//! The micro benchmarks: the same program on every side of a comparison.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{End, Temp, file, fork, ok, wait};

/// The rows: a name, and what makes the operation that is measured.
const ROWS: [Row; 14] = [
    ("answered-call", answered_call),
    ("shim-call", shim_call),
    ("map-touch-unmap", map_touch_unmap),
    ("futex-one-cpu", futex_one_cpu),
    ("futex-two-cpus", futex_two_cpus),
    ("fork-exit-wait", fork_exit_wait),
    ("fork-256-mb", fork_large),
    ("vfork-exec-wait", vfork_exec_wait),
    ("stat", stat),
    ("open-close", open_close),
    ("open-close-tmp", open_close_tmp),
    ("pread-4k", pread),
    ("pwrite-4k", pwrite),
    ("pipe-ping-pong", pipe_ping_pong),
];

type Operation = Box<dyn FnMut()>;
/// A name, and what makes the operation; or why it cannot be measured here.
type Row = (&'static str, fn() -> Result<Operation, String>);

/// How rows are run.
struct Plan {
    time: Duration,
    /// Someone else says when to begin each row, by a line.
    step: bool,
    rows: Vec<String>,
}

impl Plan {
    fn parse(words: &[&str]) -> Option<Plan> {
        let mut plan = Plan { time: Duration::from_millis(500), step: false, rows: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--step" => plan.step = true,
                "--time" => plan.time = Duration::from_millis(words.next()?.parse().ok()?),
                row => plan.rows.push(row.to_owned()),
            }
        }
        let known = |row: &String| row == "all" || ROWS.iter().any(|(name, _)| name == row);
        (!plan.rows.is_empty() && plan.rows.iter().all(known)).then_some(plan)
    }

    fn wants(&self, row: &str) -> bool {
        self.rows.iter().any(|wanted| wanted == row || wanted == "all")
    }

    /// Says what comes, and waits until it may.
    fn step(&self, text: &str) {
        if self.step {
            println!("{text}");
            let _ = std::io::stdout().flush();
            let _ = std::io::stdin().lock().read_line(&mut String::new());
        }
    }
}

/// Prints `ROW MICROSECONDS OPERATIONS` for each named row (`all` of them): the median of many short
/// batches, so that one interruption does not count, and how many operations were made in all.
///
/// With `--step` it prints `ready ROW` before each row and `end` after the last, and then waits for a line.
pub(crate) fn run(words: &[&str]) -> ExitCode {
    let Some(plan) = Plan::parse(words) else {
        eprintln!("guest-tests: bench [--time MILLISECONDS] [--step] all | ROW...");
        return ExitCode::from(2);
    };
    for (name, make) in ROWS.iter().filter(|(name, _)| plan.wants(name)) {
        match make() {
            Ok(mut operation) => {
                plan.step(&format!("ready {name}"));
                let (time, operations) = measure(&mut operation, plan.time);
                println!("{name} {time:.3} {operations}");
            }
            Err(why) => println!("skip {name} {why}"),
        }
    }
    plan.step("end");
    ExitCode::SUCCESS
}

/// Microseconds per operation: the median of short batches; and the number of operations.
fn measure(operation: &mut Operation, time: Duration) -> (f64, u64) {
    let start = Instant::now();
    let mut count = 0u32;
    while start.elapsed() < time / 20 {
        operation();
        count += 1;
    }
    let batch = (count / 10).max(1);
    let mut operations = u64::from(count);
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time || times.len() < 3 {
        let begin = Instant::now();
        for _ in 0..batch {
            operation();
        }
        times.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(batch));
        operations += u64::from(batch);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], operations)
}

fn answered_call() -> Result<Operation, String> {
    // getpgid of this process is answered by the kernel, never in a shim or a vDSO.
    Ok(Box::new(|| {
        ok!(libc::getpgid(0));
    }))
}

fn shim_call() -> Result<Operation, String> {
    Ok(Box::new(|| {
        ok!(libc::getpid());
    }))
}

fn map_touch_unmap() -> Result<Operation, String> {
    Ok(Box::new(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at =
            ok!(libc::mmap(std::ptr::null_mut(), 65536, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0));
        for page in 0..16 {
            // SAFETY: one byte of each of the 16 pages that were mapped above.
            unsafe { at.cast::<u8>().add(page * 4096).write_volatile(1) };
        }
        ok!(libc::munmap(at, 65536));
    }))
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

/// CPUs that the calling thread may use.
fn cpus() -> libc::cpu_set_t {
    let mut set: libc::cpu_set_t = crate::harness::zeroed();
    ok!(libc::sched_getaffinity(0, size_of_val(&set), &mut set));
    set
}

/// Binds the calling thread.
fn bind(set: &libc::cpu_set_t) {
    ok!(libc::sched_setaffinity(0, size_of_val(set), set));
}

/// Two threads in turns; where they run is fixed, since the scheduler's choice is half of what it takes.
fn futex_ping_pong(other: usize) -> Result<Operation, String> {
    /// Puts things right for the next row.
    struct Partner(libc::cpu_set_t, Option<std::thread::JoinHandle<()>>);
    static OVER: AtomicBool = AtomicBool::new(false);

    impl Drop for Partner {
        fn drop(&mut self) {
            OVER.store(true, Ordering::SeqCst);
            pass(1);
            let _ = self.1.take().map(std::thread::JoinHandle::join);
            TURN.store(0, Ordering::SeqCst);
            bind(&self.0);
        }
    }

    let all = cpus();
    // SAFETY: the index is below the size of the set.
    let usable: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|i| unsafe { libc::CPU_ISSET(*i, &all) }).collect();
    let one = |index: usize| {
        let cpu = usable.get(index)?;
        let mut set: libc::cpu_set_t = crate::harness::zeroed();
        // SAFETY: as above.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
        Some(set)
    };
    let (Some(here), Some(there)) = (one(0), one(other)) else { return Err("there is one CPU".into()) };
    OVER.store(false, Ordering::SeqCst);
    let thread = std::thread::spawn(move || {
        bind(&there);
        loop {
            wait_for(1);
            if OVER.load(Ordering::SeqCst) {
                return;
            }
            pass(0);
        }
    });
    bind(&here);
    let partner = Partner(all, Some(thread));
    Ok(Box::new(move || {
        let _ = &partner;
        pass(1);
        wait_for(0);
    }))
}

fn futex_one_cpu() -> Result<Operation, String> {
    futex_ping_pong(0)
}

fn futex_two_cpus() -> Result<Operation, String> {
    futex_ping_pong(1)
}

fn fork_exit_wait() -> Result<Operation, String> {
    Ok(Box::new(|| {
        assert_eq!(wait(fork(|| 0)), End::Exited(0));
    }))
}

fn vfork_exec_wait() -> Result<Operation, String> {
    Ok(Box::new(|| {
        let argv = [c"/bin/true".as_ptr().cast_mut(), std::ptr::null_mut()];
        let environment = [std::ptr::null_mut()];
        let mut pid = 0;
        let null = std::ptr::null();
        let path = c"/bin/true".as_ptr();
        let status =
            ok!(libc::posix_spawn(&mut pid, path, null, null.cast(), argv.as_ptr(), environment.as_ptr()));
        assert_eq!(status, 0);
        assert_eq!(wait(pid), End::Exited(0));
    }))
}

fn fork_large() -> Result<Operation, String> {
    let memory = vec![1u8; 256 << 20];
    Ok(Box::new(move || {
        let _ = &memory;
        assert_eq!(wait(fork(|| 0)), End::Exited(0));
    }))
}

/// A file of the root file system that everybody has.
const FILE: &std::ffi::CStr = c"/usr/bin/true";

fn stat() -> Result<Operation, String> {
    Ok(Box::new(|| {
        let mut stat: libc::stat = crate::harness::zeroed();
        ok!(libc::stat(FILE.as_ptr(), &mut stat));
    }))
}

fn open_close() -> Result<Operation, String> {
    Ok(Box::new(|| {
        let fd = ok!(libc::open(FILE.as_ptr(), libc::O_RDONLY));
        ok!(libc::close(fd));
    }))
}

fn open_close_tmp() -> Result<Operation, String> {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    Ok(Box::new(move || {
        let _ = &temp;
        let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
        ok!(libc::close(fd));
    }))
}

fn positioned(fd: i32, write: bool) -> Result<Operation, String> {
    let mut data = vec![0u8; 4096];
    let mut turn = 0;
    Ok(Box::new(move || {
        turn = (turn + 1) % 8;
        let offset = turn * 4096;
        let n = if write {
            ok!(libc::pwrite(fd, data.as_ptr().cast(), 4096, offset))
        } else {
            ok!(libc::pread(fd, data.as_mut_ptr().cast(), 4096, offset))
        };
        assert_eq!(n, 4096);
    }))
}

/// Of a file of the root file system.
fn pread() -> Result<Operation, String> {
    positioned(ok!(libc::open(FILE.as_ptr(), libc::O_RDONLY)), false)
}

/// To a fresh file in /tmp.
fn pwrite() -> Result<Operation, String> {
    let temp = Temp::new();
    let path = file(&temp, "f", &[1; 32768]);
    positioned(ok!(libc::open(path.as_ptr(), libc::O_RDWR)), true)
}

fn pipe_ping_pong() -> Result<Operation, String> {
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
    Ok(Box::new(move || {
        crate::harness::write(there_end, b"x");
        assert_eq!(crate::harness::read(back, 1), b"x");
    }))
}
