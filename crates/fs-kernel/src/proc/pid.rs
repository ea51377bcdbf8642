//! /proc/PID and /proc/PID/task/TID.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use identity::Capability;
use kernel::{Kernel, Process, Thread};
use linux_abi::Errno;
use linux_abi::fs::DirentType;
use vfs::{OpenFile, Place};

use crate::proc::{Options, fd, maps, mem, parse_pid, status};
use crate::synthetic::{Directory, Kind, Node, ino_of};

/// One process's (or thread's) directory. What is open outlives the process, and must not keep its memory.
struct Entry {
    kernel: Arc<Kernel>,
    process: Arc<Process>,
    /// The thread it is about; none for a zombie.
    thread: Option<Weak<Thread>>,
    /// A directory below `task`.
    task: bool,
    /// Whom the directory of a process is shown to.
    options: Option<Arc<Options>>,
}

/// The directory of a process, or without options of one thread below `task`.
pub(super) fn directory(
    kernel: &Arc<Kernel>,
    process: Arc<Process>,
    thread: Option<Arc<Thread>>,
    options: Option<Arc<Options>>,
) -> Arc<Node> {
    let task = options.is_none();
    let id = if task { thread.as_ref().map_or(0, |t| t.tid()) } else { process.pid() };
    let ino = ino_of(if task { 5 } else { 2 }, id.to_string().as_bytes());
    let thread = thread.or_else(|| process.any_thread()).as_ref().map(Arc::downgrade);
    let entry = Entry { kernel: kernel.clone(), process: process.clone(), thread, task, options };
    Node::new(ino, 0o555, Some(process), Kind::Directory(Box::new(entry)))
}

/// How long a title may be.
const PAGE: u64 = 4096;
/// In the directory of a thread alone.
const CHILDREN: &str = "children";

const FILES: &[(&str, u32)] = &[
    ("cmdline", 0o444),
    ("environ", 0o400),
    ("auxv", 0o400),
    ("comm", 0o644),
    ("stat", 0o444),
    ("statm", 0o444),
    ("status", 0o444),
    ("limits", 0o444),
    ("maps", 0o444),
    ("mem", 0o600),
    ("smaps", 0o444),
    ("smaps_rollup", 0o444),
    ("numa_maps", 0o444),
    ("cgroup", 0o444),
    ("mounts", 0o444),
    ("mountinfo", 0o444),
    ("mountstats", 0o400),
    ("oom_score", 0o444),
    ("oom_adj", 0o644),
    ("oom_score_adj", 0o644),
    ("wchan", 0o444),
    ("personality", 0o400),
    ("loginuid", 0o644),
    ("sessionid", 0o444),
    ("uid_map", 0o644),
    ("gid_map", 0o644),
    ("setgroups", 0o644),
    ("io", 0o400),
    ("schedstat", 0o444),
    ("timerslack_ns", 0o666),
    ("coredump_filter", 0o444),
    ("arch_status", 0o444),
    ("cpuset", 0o444),
    ("projid_map", 0o644),
    ("sched", 0o644),
    ("timens_offsets", 0o644),
    ("timers", 0o444),
    ("syscall", 0o400),
    ("stack", 0o400),
];
/// Files that show memory, its addresses or what it does: for who may trace the process.
const GUARDED: &[&str] = &[
    "environ",
    "auxv",
    "maps",
    "smaps",
    "smaps_rollup",
    "numa_maps",
    "personality",
    "io",
    "timerslack_ns",
    "syscall",
    "stack",
];
const LINKS: &[&str] = &["exe", "cwd", "root"];
const DIRS: &[&str] = &["attr", "fd", "fdinfo", "ns", "task", "net"];
/// What security modules say of a process: none is there.
const ATTRIBUTES: &[&str] = &["current", "prev", "exec", "fscreate", "keycreate", "sockcreate"];
const NAMESPACES: &[(&str, u64)] = &[
    ("cgroup", 4_026_531_835),
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("pid_for_children", 4_026_531_836),
    ("time", 4_026_531_834),
    ("time_for_children", 4_026_531_834),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

impl Entry {
    fn key(&self) -> u64 {
        self.process.pid() as u64 | if self.task { 1 << 40 } else { 0 }
    }
    fn node(&self, name: &str, mode: u32, kind: Kind) -> Arc<Node> {
        Node::new(ino_of(self.key(), name.as_bytes()), mode, Some(self.process.clone()), kind)
    }
    fn file(&self, name: &'static str, mode: u32) -> Arc<Node> {
        if name == "mem" {
            let (ino, thread) = (ino_of(self.key(), name.as_bytes()), self.thread.clone());
            let open = Box::new(move || mem::open(thread.as_ref().and_then(Weak::upgrade)));
            return Node::guarded(ino, mode, self.process.clone(), Kind::Opened(open));
        }
        let (kernel, process, thread) = (self.kernel.clone(), self.process.clone(), self.thread.clone());
        let task = self.task;
        let make = Box::new(move |_: &mut dyn vfs::Caller| {
            if let Some(thread) = thread.as_ref().and_then(Weak::upgrade) {
                return contents(&kernel, &process, &thread, task, name);
            }
            // After the end only the ids and the state remain, until it is waited for.
            match kernel.pids.process(process.pid()) {
                Ok(zombie) if Arc::ptr_eq(&zombie, &process) => status::of_zombie(&kernel, &process, name),
                _ => Err(Errno::ESRCH),
            }
        });
        let take = (mode & 0o222 != 0).then(|| self.taker(name));
        if !GUARDED.contains(&name) {
            return self.node(name, mode, Kind::File(make, take));
        }
        let ino = ino_of(self.key(), name.as_bytes());
        Node::guarded(ino, mode, self.process.clone(), Kind::File(make, take))
    }
    fn taker(&self, name: &'static str) -> crate::synthetic::Take {
        let (process, thread) = (self.process.clone(), self.thread.clone());
        Box::new(move |caller, bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?.trim();
            match name {
                "comm" => {
                    if let Some(thread) = thread.as_ref().and_then(Weak::upgrade) {
                        thread.set_comm(bytes.strip_suffix(b"\n").unwrap_or(bytes));
                    }
                    Ok(())
                }
                "oom_score_adj" => {
                    let value: i32 = text.parse().map_err(|_| Errno::EINVAL)?;
                    if !(-1000..=1000).contains(&value) {
                        return Err(Errno::EINVAL);
                    }
                    set_oom_score_adj(caller, &process, value)
                }
                "oom_adj" => {
                    let value: i32 = text.parse().map_err(|_| Errno::EINVAL)?;
                    if !(-17..=15).contains(&value) {
                        return Err(Errno::EINVAL);
                    }
                    set_oom_score_adj(caller, &process, if value == 15 { 1000 } else { value * 1000 / 17 })
                }
                "loginuid" => {
                    let uid = text.parse().map_err(|_| Errno::EINVAL)?;
                    if caller.pid() != process.pid() {
                        return Err(Errno::EPERM);
                    }
                    let mut login = process.login.lock();
                    // As audit(8): anybody sets it once, only the auditor changes it.
                    if login.0 != u32::MAX && !caller.credentials().capable(Capability::AUDIT_CONTROL) {
                        return Err(Errno::EPERM);
                    }
                    let session = match uid {
                        u32::MAX => u32::MAX,
                        _ => process.kernel().logins.fetch_add(1, Ordering::Relaxed),
                    };
                    *login = (uid, session);
                    Ok(())
                }
                "timerslack_ns" => {
                    let value = text.parse().map_err(|_| Errno::EINVAL)?;
                    if let Some(thread) = thread.as_ref().and_then(Weak::upgrade) {
                        thread.scheduling.lock().set_timer_slack(value);
                    }
                    Ok(())
                }
                _ => Err(Errno::EPERM),
            }
        })
    }
    fn link(&self, name: &'static str) -> Option<Arc<Node>> {
        let thread = self.thread.clone()?;
        let root = thread.clone();
        let find = move || -> vfs::Result<(Option<Arc<OpenFile>>, Place)> {
            let thread = thread.upgrade().ok_or(Errno::ENOENT)?;
            match name {
                "exe" => {
                    let file = thread.mm().exe.read().clone().ok_or(Errno::ENOENT)?;
                    let place = file.place().clone();
                    Ok((Some(file), place))
                }
                "cwd" => Ok((None, thread.fs().cwd())),
                _ => Ok((None, thread.fs().root())),
            }
        };
        let find2 = find.clone();
        let text = Box::new(move |_: &mut dyn vfs::Caller| {
            let root = root.upgrade().ok_or(Errno::ENOENT)?.fs().root();
            Ok(find()?.1.path(&root))
        });
        Some(self.node(name, 0o777, Kind::Magic(text, Box::new(move || Ok(find2()?.1)))))
    }
}

impl Directory for Entry {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some((name, mode)) = FILES.iter().find(|(n, _)| *n == name) {
            return Some(self.file(name, *mode));
        }
        if name == CHILDREN && self.task {
            return Some(self.file(CHILDREN, 0o444));
        }
        if let Some(name) = LINKS.iter().find(|n| **n == name) {
            return self.link(name);
        }
        let kind = match name {
            "fd" => Kind::Directory(Box::new(fd::Fds {
                thread: self.thread.clone(),
                info: false,
                key: self.key(),
            })),
            "fdinfo" => Kind::Directory(Box::new(fd::Fds {
                thread: self.thread.clone(),
                info: true,
                key: self.key(),
            })),
            "attr" => {
                let none = |all: crate::synthetic::Fixed, name: &&str| {
                    let make = Box::new(|_: &mut dyn vfs::Caller| Err(Errno::EINVAL));
                    all.with(name, self.node(name, 0o444, Kind::File(make, None)))
                };
                Kind::Directory(Box::new(ATTRIBUTES.iter().fold(crate::synthetic::Fixed::default(), none)))
            }
            "ns" => Kind::Directory(Box::new(Namespaces { key: self.key() })),
            "task" if !self.task => Kind::Directory(Box::new(Tasks {
                kernel: self.kernel.clone(),
                process: self.process.clone(),
            })),
            "net" => Kind::Directory(Box::new(crate::proc_net::files())),
            _ => return None,
        };
        let ino = ino_of(self.key(), name.as_bytes());
        Some(match name {
            "fd" => Node::guarded(ino, 0o500, self.process.clone(), kind),
            "fdinfo" => Node::guarded(ino, 0o555, self.process.clone(), kind),
            _ => self.node(name, 0o555, kind),
        })
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        let mut all = Vec::new();
        let mut push = |name: &str, kind| {
            all.push((name.as_bytes().to_vec(), kind, ino_of(self.key(), name.as_bytes())))
        };
        for name in DIRS.iter().filter(|n| !self.task || **n != "task") {
            push(name, DirentType::Dir);
        }
        for (name, _) in FILES {
            push(name, DirentType::Regular);
        }
        if self.task {
            push(CHILDREN, DirentType::Regular);
        }
        for name in LINKS {
            push(name, DirentType::Symlink);
        }
        all
    }
    fn folders(&self) -> usize {
        DIRS.len() - usize::from(self.task)
    }
    fn show_to(&self, caller: &dyn vfs::Caller, within: bool) -> vfs::Result<()> {
        self.options.as_ref().map_or(Ok(()), |options| options.check(caller, &self.process, within))
    }
    fn of_process(&self) -> Option<Arc<Process>> {
        (!self.task).then(|| self.process.clone())
    }
    fn still(&self, _name: &[u8]) -> bool {
        self.thread.as_ref().and_then(Weak::upgrade).is_some_and(|t| !t.is_dying())
    }
}

/// /proc/PID/task.
struct Tasks {
    kernel: Arc<Kernel>,
    process: Arc<Process>,
}

impl Directory for Tasks {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        let thread = self.process.thread(parse_pid(name)?).ok()?;
        Some(directory(&self.kernel, self.process.clone(), Some(thread), None))
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        let threads = self.process.threads.lock();
        threads
            .keys()
            .map(|tid| {
                let name = tid.to_string().into_bytes();
                let ino = ino_of(5, &name);
                (name, DirentType::Dir, ino)
            })
            .collect()
    }
    fn folders(&self) -> usize {
        self.process.threads.lock().len()
    }
    fn still(&self, _name: &[u8]) -> bool {
        false
    }
}

/// /proc/PID/ns.
struct Namespaces {
    key: u64,
}

impl Directory for Namespaces {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        let (name, number) = NAMESPACES.iter().find(|(n, _)| n.as_bytes() == name)?;
        let kind = name.strip_suffix("_for_children").unwrap_or(name);
        let text = Box::new(move |_: &mut dyn vfs::Caller| Ok(format!("{kind}:[{number}]").into_bytes()));
        Some(Node::new(ino_of(self.key, name.as_bytes()), 0o777, None, Kind::Link(text)))
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        NAMESPACES
            .iter()
            .map(|(n, _)| (n.as_bytes().to_vec(), DirentType::Symlink, ino_of(self.key, n.as_bytes())))
            .collect()
    }
}

/// Reads a range of guest memory, as far as it is there.
fn memory(thread: &Thread, start: u64, end: u64) -> Vec<u8> {
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(8 << 20);
    let mut bytes = vec![0; len];
    let n = thread.mm().space.read(start, &mut bytes).unwrap_or(0);
    bytes.truncate(n);
    bytes
}

/// The arguments. A program that has written over the end of them shows a title of its own, up to the first NUL,
/// which may reach into what was its environment.
fn command_line(thread: &Thread) -> Vec<u8> {
    let layout = thread.mm().layout.read().clone();
    let arguments = memory(thread, layout.arg_start, layout.arg_end);
    if arguments.last().is_none_or(|last| *last == 0) {
        return arguments;
    }
    let end = if layout.env_start == layout.arg_end { layout.env_end } else { layout.arg_end };
    let mut title = memory(thread, layout.arg_start, end.min(layout.arg_start.saturating_add(PAGE)));
    if let Some(nul) = title.iter().position(|byte| *byte == 0) {
        title.truncate(nul + 1);
    }
    title
}

/// Writes oom_score_adj: less than what a privileged writer set last needs CAP_SYS_RESOURCE;
/// proc_pid_oom_score_adj(5).
fn set_oom_score_adj(caller: &dyn vfs::Caller, process: &Process, value: i32) -> vfs::Result<()> {
    let least = process.oom_score_adj_min.load(Ordering::Relaxed);
    if caller.credentials().capable(Capability::SYS_RESOURCE) {
        process.oom_score_adj_min.store(value, Ordering::Relaxed);
    } else if value < least {
        return Err(Errno::EACCES);
    }
    process.oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

/// Lines of user_namespaces(7): first id inside, first id outside, length.
fn id_map(lines: &[[u32; 3]]) -> String {
    lines
        .iter()
        .map(|[inside, outside, length]| format!("{inside:>10} {outside:>10} {length:>10}\n"))
        .collect()
}

fn contents(
    kernel: &Arc<Kernel>,
    process: &Arc<Process>,
    thread: &Arc<Thread>,
    task: bool,
    name: &str,
) -> vfs::Result<Vec<u8>> {
    let mm = thread.mm();
    let line = |text: String| Ok(text.into_bytes());
    match name {
        "cmdline" => Ok(command_line(thread)),
        "environ" => {
            let layout = mm.layout.read().clone();
            Ok(memory(thread, layout.env_start, layout.env_end))
        }
        "auxv" => Ok(mm.layout.read().auxv.iter().flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()].concat()).collect()),
        "comm" => {
            let mut comm = status::comm(thread);
            comm.push(b'\n');
            Ok(comm)
        }
        "stat" => status::stat(kernel, process, thread, task),
        "statm" => status::statm(thread),
        "status" => status::status(process, thread, task),
        "limits" => status::limits(process),
        "maps" => maps::maps(thread),
        "smaps" => maps::smaps(thread),
        "smaps_rollup" => maps::rollup(thread),
        "numa_maps" => maps::numa_maps(thread),
        "cgroup" => line("0::/\n".into()),
        "mounts" | "mountinfo" | "mountstats" => {
            let root = thread.fs().root();
            let namespace = root.mount.namespace().ok_or(Errno::EINVAL)?;
            Ok(if name == "mountinfo" { namespace.mountinfo(&root) } else { namespace.mounts_text(&root) })
        }
        "oom_score" => line("666\n".into()),
        "oom_score_adj" => line(format!("{}\n", process.oom_score_adj.load(Ordering::Relaxed))),
        "oom_adj" => line(format!("{}\n", process.oom_score_adj.load(Ordering::Relaxed) * 17 / 1000)),
        "wchan" => line("0".into()),
        CHILDREN => line(process.children_of(thread.tid()).iter().map(|pid| format!("{pid} ")).collect()),
        "personality" => line(format!("{:08x}\n", process.personality.load(Ordering::Relaxed))),
        "arch_status" => Ok(Vec::new()),
        "cpuset" => line("/\n".into()),
        "projid_map" => line("         0          0 4294967295\n".into()),
        "timens_offsets" => line("monotonic           0         0\nboottime            0         0\n".into()),
        "timers" => line(process.timers.lock().describe(process.pid())),
        "sched" => Ok(status::sched(process, thread)),
        "loginuid" => line(process.login.lock().0.to_string()),
        "sessionid" => line(process.login.lock().1.to_string()),
        "uid_map" => line(id_map(&kernel.config.uid_map)),
        "gid_map" => line(id_map(&kernel.config.gid_map)),
        "setgroups" => line("allow\n".into()),
        "io" => line("rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".into()),
        "schedstat" => line(format!("{} 0 0\n", kernel::cpu_time::thread_ns(thread))),
        "timerslack_ns" => line(format!("{}\n", thread.scheduling.lock().timer_slack_ns)),
        "coredump_filter" => line("00000033\n".into()),
        "syscall" => line("running\n".into()),
        "stack" => Ok(Vec::new()),
        _ => Err(Errno::ENOENT),
    }
}
