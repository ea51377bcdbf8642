//! A procfs of a pid namespace around ours: there our processes have other ids.
//!
//! In a container whose own /proc has parts hidden the host lets nobody mount another one (mount_namespaces(7)). The
//! container's is used then. Ours in it are this process and its children; what else it shows is told to nobody.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags, openat};

/// The procfs, when it is one of a namespace around ours.
static OUTER: OnceLock<Outer> = OnceLock::new();

struct Outer {
    /// Our own id there.
    own: i32,
    /// Ids there of processes and threads by ids here, as found last.
    known: Mutex<HashMap<i32, i32>>,
}

/// The ids in /proc/PID/status.
struct Ids {
    /// In the innermost namespace.
    inner: i32,
    /// Of its parent, and of the process that a thread belongs to, as the procfs has them.
    parent: i32,
    process: i32,
}

fn ids(root: &OwnedFd, path: &str) -> Option<Ids> {
    let text = read(root, &format!("{path}/status")).ok()?;
    let row = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().last();
    let number = |name: &str| row(name)?.parse().ok();
    Some(Ids { inner: number("NSpid:")?, parent: number("PPid:")?, process: number("Tgid:")? })
}

fn read(root: &OwnedFd, path: &str) -> io::Result<String> {
    let fd = openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    super::text(std::fs::File::from(fd))
}

fn numbers(root: &OwnedFd, path: &str) -> io::Result<Vec<i32>> {
    let fd = openat(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        all.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(all)
}

/// Says that the procfs is one of a namespace around ours. An error if it is none in which we are.
pub fn set_outer(root: &OwnedFd) -> io::Result<()> {
    let own = rustix::fs::readlinkat(root, "self", Vec::new())?;
    let own = own.to_str().ok().and_then(|text| text.parse().ok());
    let ours = rustix::process::getpid().as_raw_nonzero().get();
    let own = own.filter(|own| ids(root, &format!("{own}")).is_some_and(|ids| ids.inner == ours));
    let own = own.ok_or_else(|| io::Error::other("the procfs does not show its reader"))?;
    let _ = OUTER.set(Outer { own, known: Mutex::default() });
    Ok(())
}

impl Outer {
    /// Whether a process there is ours: what ends without a parent is the child of this process, the first one of
    /// its namespace.
    fn is_ours(&self, ids: &Ids, id: i32) -> bool {
        id == self.own || ids.parent == self.own
    }

    /// Our processes: their ids there and here.
    fn processes(&self, root: &OwnedFd) -> Vec<(i32, i32)> {
        let all = numbers(root, ".").unwrap_or_default().into_iter();
        let known = all.filter_map(|id| Some((id, ids(root, &format!("{id}"))?)));
        known.filter(|(id, ids)| self.is_ours(ids, *id)).map(|(id, ids)| (id, ids.inner)).collect()
    }

    /// The id there of a process or thread of ours.
    fn find(&self, root: &OwnedFd, inner: i32) -> io::Result<i32> {
        let is = |id: i32| {
            ids(root, &format!("{id}")).is_some_and(|ids| ids.inner == inner && self.is_ours(&ids, id))
        };
        if let Some(known) = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&inner)
            .copied()
            .filter(|id| is(*id))
        {
            return Ok(known);
        }
        let processes = self.processes(root);
        let mut known: HashMap<i32, i32> = processes.iter().map(|(id, inner)| (*inner, *id)).collect();
        if !known.contains_key(&inner) {
            for (process, _) in &processes {
                let threads = numbers(root, &format!("{process}/task")).unwrap_or_default();
                let thread = |id: i32| Some((ids(root, &format!("{process}/task/{id}"))?.inner, id));
                known.extend(threads.into_iter().filter_map(thread));
            }
        }
        let found = known.get(&inner).copied();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A path below the procfs for what has these ids here.
pub(super) fn path(root: Option<&OwnedFd>, path: &str) -> io::Result<Option<String>> {
    let (Some(outer), Some(root)) = (OUTER.get(), root) else { return Ok(None) };
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let Ok(pid) = first.parse() else { return Ok(None) };
    let pid = outer.find(root, pid)?;
    let (thread, file) = match rest.strip_prefix("task/") {
        Some(task) => task.split_once('/').unwrap_or((task, "")),
        None => ("", rest),
    };
    Ok(Some(match thread.parse() {
        Ok(tid) => format!("{pid}/task/{}/{file}", outer.find(root, tid)?),
        Err(_) => format!("{pid}/{rest}"),
    }))
}

/// Ids here of all our processes, if the procfs has others.
pub(super) fn processes(root: &OwnedFd) -> Option<Vec<i32>> {
    let outer = OUTER.get()?;
    Some(outer.processes(root).into_iter().map(|(_, inner)| inner).collect())
}

/// The id here of the process that a thread belongs to, if the procfs has others.
pub(super) fn process_of(root: &OwnedFd, tid: i32) -> Option<Option<i32>> {
    let outer = OUTER.get()?;
    Some(outer.find(root, tid).ok().and_then(|id| {
        let process = ids(root, &format!("{id}"))?.process;
        Some(ids(root, &format!("{process}"))?.inner)
    }))
}

/// The id here of a parent.
pub(super) fn parent(id: i64) -> i64 {
    match OUTER.get() {
        Some(outer) if id == i64::from(outer.own) => {
            i64::from(rustix::process::getpid().as_raw_nonzero().get())
        }
        Some(_) => 0,
        None => id,
    }
}
