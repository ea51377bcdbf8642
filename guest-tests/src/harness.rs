//! Cases, their outcome, and the few tools every case needs.

use std::ffi::CString;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One test: a subject, a name and a function that panics when Linux would not have done so.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) subject: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

impl Case {
    /// `subject/name`, as the command line and `known-failures.txt` spell it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.subject, self.name)
    }
}

/// Lists the cases of one subject: `cases!("pipe": write_read, end_of_file)`.
macro_rules! cases {
    ($subject:literal: $($name:ident),+ $(,)?) => {
        /// The cases of this subject.
        pub(crate) const CASES: &[$crate::harness::Case] = &[
            $($crate::harness::Case { subject: $subject, name: stringify!($name), run: $name }),+
        ];
    };
}
pub(crate) use cases;

/// Calls the C library; `Ok(value)` or `Err(errno)`.
macro_rules! sys {
    ($call:expr) => {{
        // SAFETY: each case passes pointers to objects that live over the call, or wrong ones on
        // purpose to see the kernel refuse them; the process is thrown away after the case.
        let result = unsafe { $call };
        if result as isize == -1 { Err($crate::harness::errno()) } else { Ok(result) }
    }};
}
pub(crate) use sys;

/// Calls the C library and expects success; the value of the call.
macro_rules! ok {
    ($call:expr) => {
        match $crate::harness::sys!($call) {
            Ok(value) => value,
            Err(errno) => panic!("{}: {}", stringify!($call), $crate::harness::errno_name(errno)),
        }
    };
}
pub(crate) use ok;

/// Calls the C library and expects this errno.
macro_rules! fails {
    ($errno:expr, $call:expr) => {
        match $crate::harness::sys!($call) {
            Ok(value) => panic!(
                "{}: expected {}, succeeded with {value:?}",
                stringify!($call),
                $crate::harness::errno_name($errno)
            ),
            Err(errno) if errno == $errno => {}
            Err(errno) => panic!(
                "{}: expected {}, got {}",
                stringify!($call),
                $crate::harness::errno_name($errno),
                $crate::harness::errno_name(errno)
            ),
        }
    };
}
pub(crate) use fails;

/// Leaves the case as skipped: the machine below (not the kernel under test) lacks something.
macro_rules! skip {
    ($($message:tt)*) => {
        std::panic::panic_any($crate::harness::Skip(format!($($message)*)))
    };
}
pub(crate) use skip;

/// The payload of `skip!`.
pub(crate) struct Skip(pub(crate) String);

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// `ENOENT (No such file or directory)` and the like, for messages.
pub(crate) fn errno_name(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

static MESSAGE: Mutex<String> = Mutex::new(String::new());

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

fn run_case(case: &Case) -> Outcome {
    // A background shell or nohup(1) had the first ones ignored.
    for signo in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: the default action is no code of ours.
        unsafe { libc::signal(signo, libc::SIG_DFL) };
    }
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("panicked");
        let line = format!("{place}: {}", text.replace('\n', " "));
        if let Ok(mut message) = MESSAGE.lock() {
            // The first panic is the cause; a later one is its echo.
            if message.is_empty() {
                message.push_str(&line);
            }
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(case.run));
    let message = MESSAGE.lock().map(|mut m| std::mem::take(&mut *m)).unwrap_or_default();
    match result {
        Ok(()) => Outcome::Passed,
        Err(payload) => match payload.downcast::<Skip>() {
            Ok(skip) => Outcome::Skipped(skip.0),
            Err(_) => Outcome::Failed(message),
        },
    }
}

/// Runs the named cases in this process, one after the other.
pub(crate) fn run_named(names: &[&str]) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for name in names {
        let Some(case) = crate::cases::all().find(|case| case.name() == *name) else {
            eprintln!("guest-tests: no case named {name}");
            return ExitCode::from(2);
        };
        match run_case(&case) {
            Outcome::Passed => println!("ok {name}"),
            Outcome::Skipped(reason) => {
                println!("skip {name}: {reason}");
                if names.len() == 1 {
                    status = ExitCode::from(77);
                }
            }
            Outcome::Failed(reason) => {
                println!("FAIL {name}: {reason}");
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// Runs every case whose name contains `text`, each in a process of its own with 20 s to live, on a machine that the
/// environment says to be `SLOW` that many times more.
pub(crate) fn run_filtered(text: &str) -> ExitCode {
    let program = std::env::current_exe().expect("the path of this program");
    let slow = std::env::var("SLOW").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let limit = Duration::from_secs(20).saturating_mul(slow);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in crate::cases::all().filter(|case| case.name().contains(text)) {
        let name = case.name();
        let mut child = match std::process::Command::new(&program).args(["run", &name]).spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("FAIL {name}: cannot start: {error}");
                failed += 1;
                continue;
            }
        };
        let deadline = Instant::now() + limit;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        match status.map(|s| s.code()) {
            Some(Some(0)) => passed += 1,
            Some(Some(77)) => skipped += 1,
            Some(Some(1)) => failed += 1,
            Some(other) => {
                println!("FAIL {name}: ended with {other:?} ({status:?})");
                failed += 1;
            }
            None => {
                println!("FAIL {name}: no end after {} s", limit.as_secs());
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A fresh directory, removed at the end of the case.
pub(crate) struct Temp {
    path: PathBuf,
}

impl Temp {
    /// Makes the directory under `$GUEST_TESTS_DIR`, else `/tmp`.
    pub(crate) fn new() -> Temp {
        let base = std::env::var("GUEST_TESTS_DIR").unwrap_or_else(|_| "/tmp".into());
        let template = CString::new(format!("{base}/guest-tests-XXXXXX")).expect("no NUL in the path");
        let raw = template.into_raw();
        let made = ok!(libc::mkdtemp(raw));
        assert!(!made.is_null(), "mkdtemp: {}", errno_name(errno()));
        // SAFETY: `raw` came from `into_raw` above and mkdtemp keeps its length.
        let path = unsafe { CString::from_raw(raw) };
        Temp { path: PathBuf::from(path.into_string().expect("an ASCII path")) }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside, ready for the C library.
    pub(crate) fn join(&self, name: &str) -> CString {
        c(self.path.join(name).to_str().expect("an ASCII path"))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A C string.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in the text")
}

/// Forks; the child runs `body` and exits with what it returns, or 101 after a panic.
pub(crate) fn fork(body: impl FnOnce() -> i32) -> libc::pid_t {
    let pid = ok!(libc::fork());
    if pid == 0 {
        let code = match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(code) => code,
            Err(_) => {
                let message = MESSAGE.lock().map(|m| m.clone()).unwrap_or_default();
                eprintln!("  in the child: {message}");
                101
            }
        };
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Killed(i32),
}

/// Waits for `pid` with waitpid(2) and says how it ended.
pub(crate) fn wait(pid: libc::pid_t) -> End {
    let mut status = 0;
    loop {
        match sys!(libc::waitpid(pid, &mut status, 0)) {
            Ok(_) => break,
            Err(libc::EINTR) => {}
            Err(errno) => panic!("waitpid({pid}): {}", errno_name(errno)),
        }
    }
    end_of(status)
}

/// Decodes a wait status of a child that is gone.
pub(crate) fn end_of(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Killed(libc::WTERMSIG(status))
    } else {
        assert!(libc::WIFEXITED(status), "status {status:#x} is no end");
        End::Exited(libc::WEXITSTATUS(status))
    }
}

/// Runs `body` in a child and expects it to return 0.
pub(crate) fn in_child(body: impl FnOnce()) {
    let pid = fork(|| {
        body();
        0
    });
    assert_eq!(wait(pid), End::Exited(0));
}

/// A pipe: read end, write end.
pub(crate) fn pipe() -> (i32, i32) {
    let mut ends = [0; 2];
    ok!(libc::pipe(ends.as_mut_ptr()));
    (ends[0], ends[1])
}

/// Writes all of `data` in one call.
pub(crate) fn write(fd: i32, data: &[u8]) {
    let n = ok!(libc::write(fd, data.as_ptr().cast(), data.len()));
    assert_eq!(n as usize, data.len(), "short write");
}

/// Reads once, at most `max` bytes.
pub(crate) fn read(fd: i32, max: usize) -> Vec<u8> {
    let mut data = vec![0; max];
    let n = ok!(libc::read(fd, data.as_mut_ptr().cast(), max));
    data.truncate(n as usize);
    data
}

/// Closes a descriptor that must be open.
pub(crate) fn close(fd: i32) {
    ok!(libc::close(fd));
}

/// Makes a file with this content and returns its path.
pub(crate) fn file(temp: &Temp, name: &str, content: &[u8]) -> CString {
    std::fs::write(temp.path().join(name), content).expect("a new file");
    temp.join(name)
}

/// A zeroed C structure.
pub(crate) fn zeroed<T>() -> T {
    // SAFETY: used for plain C structures only, for which all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

/// Sleeps for `ms` milliseconds in a child or before a wake-up.
pub(crate) fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Whether the process may do everything: some cases need root.
pub(crate) fn is_root() -> bool {
    ok!(libc::geteuid()) == 0
}
