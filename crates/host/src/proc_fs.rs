//! The host's procfs of our own pid namespace: what the host knows of the processes that run guest code.

mod outer;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};

pub use outer::set_outer;

static ROOT: OnceLock<OwnedFd> = OnceLock::new();

/// Says where the procfs is; before that (and without a jail) it is /proc. The first call counts.
pub fn set_root(root: OwnedFd) {
    let _ = ROOT.set(root);
}

/// Opens a file of it, such as `7/stat`, for reading. `path` is relative and never the guest's.
pub fn open(path: &str) -> io::Result<File> {
    open_in(None, path, OFlags::RDONLY)
}

fn open_in(dir: Option<&OwnedFd>, path: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC;
    let dir = dir.or_else(|| ROOT.get());
    let other = outer::path(dir, path)?;
    let path = other.as_deref().unwrap_or(path);
    let fd = match dir {
        Some(root) => openat(root, path, flags, Mode::empty())?,
        None => openat(rustix::fs::CWD, format!("/proc/{path}"), flags, Mode::empty())?,
    };
    Ok(File::from(fd))
}

/// Opens a process's memory for reading and writing; writes ignore the protection of private pages. `dir` is a
/// procfs of our pid namespace if it is not the one that was set.
pub fn open_memory(dir: Option<&OwnedFd>, pid: i32) -> io::Result<File> {
    open_in(dir, &format!("{pid}/mem"), OFlags::RDWR)
}

/// A process's mappings: proc_pid_maps(5). `dir` as above.
pub fn mappings(dir: Option<&OwnedFd>, pid: i32) -> io::Result<String> {
    text(open_in(dir, &format!("{pid}/maps"), OFlags::RDONLY)?)
}

/// The directory that was set.
pub(crate) fn root() -> Option<&'static OwnedFd> {
    ROOT.get()
}

/// Reads a whole file of it. What names of files are in it need not be UTF-8, and are not what is looked for.
pub fn read(path: &str) -> io::Result<String> {
    text(open(path)?)
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Ids of all processes of it.
pub fn processes() -> io::Result<Vec<i32>> {
    if let Some(ours) = ROOT.get().and_then(outer::processes) {
        return Ok(ours);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match ROOT.get() {
        Some(root) => openat(root, ".", flags, Mode::empty())?,
        None => openat(rustix::fs::CWD, "/proc", flags, Mode::empty())?,
    };
    let mut pids = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The process that a thread belongs to.
pub fn process_of(tid: i32) -> Option<i32> {
    if let Some(process) = ROOT.get().and_then(|root| outer::process_of(root, tid)) {
        return process;
    }
    let status = read(&format!("{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// How many threads a process has.
pub fn threads(pid: i32) -> Option<usize> {
    let path = format!("{pid}/task");
    let path = outer::path(ROOT.get(), &path).ok()?.unwrap_or(path);
    let stat = match ROOT.get() {
        Some(root) => rustix::fs::statat(root, path, rustix::fs::AtFlags::empty()),
        None => rustix::fs::stat(format!("/proc/{path}")),
    };
    // Each is a folder in it, and each folder a link of its own, beside "." and its name.
    usize::try_from(stat.ok()?.st_nlink).ok()?.checked_sub(2)
}

/// Some fields of /proc/PID/stat.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// One of `RSDTtZXI`.
    pub state: u8,
    /// The parent's process id.
    pub parent: i64,
    /// Clock ticks in user code.
    pub user_time: u64,
    /// Clock ticks from the host's start to its own.
    pub start_time: u64,
}

/// Reads a file like `7/stat` or `7/task/8/stat`.
pub fn stat(path: &str) -> Option<Stat> {
    let text = read(path).ok()?;
    // The name before may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = outer::parent(fields.next()?.parse().ok()?);
    let user_time = fields.nth(9)?.parse().ok()?;
    let start_time = fields.nth(7)?.parse().ok()?;
    Some(Stat { state, parent, user_time, start_time })
}
