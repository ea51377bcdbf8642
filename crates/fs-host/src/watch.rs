//! Watching host directories, so that what is cached of them is never older than an event's way here.
//!
//! One thread has the inotify descriptor of the process. It sets watches (by fchdir and ".", as the
//! trees have no names here) and passes events on to the directories. Events of our own writes come
//! too, so it reads at most every few milliseconds, and all there is at once.

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags};

use crate::inode::HostInode;

/// Most directories watched; the host's own limit (`fs.inotify.max_user_watches`) may come first.
const MOST: usize = 32 << 10;
/// With fewer than this it is not worth the trouble.
const FEWEST: usize = 64;
/// Pause between readings of events.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of events read at once.
const BUFFER: usize = 16 * 1024;

const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events after which a name may lead elsewhere.
const NAMES: ReadFlags =
    ReadFlags::CREATE.union(ReadFlags::DELETE).union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);

/// The process's watches.
struct Watcher {
    inotify: OwnedFd,
    bell: OwnedFd,
    requests: Mutex<VecDeque<Weak<HostInode>>>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// Who watches by descriptor: the same directory may be in two trees.
    directories: HashMap<i32, Vec<Weak<HostInode>>>,
    /// In the order they were set, for a second-chance clock.
    order: VecDeque<i32>,
    /// How many the host allows, once it refused one.
    bound: Option<usize>,
}

fn watcher() -> Option<&'static Watcher> {
    static WATCHER: OnceLock<Option<&'static Watcher>> = OnceLock::new();
    *WATCHER.get_or_init(|| {
        let watcher: &'static Watcher = Box::leak(Box::new(Watcher {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?,
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?,
            requests: Mutex::default(),
            watched: Mutex::default(),
        }));
        std::thread::Builder::new().name("watch".into()).spawn(move || watcher.run()).ok()?;
        Some(watcher)
    })
}

/// Asks for a watch on a directory, which is set soon if at all.
pub(crate) fn request(directory: Weak<HostInode>) {
    let Some(watcher) = watcher() else { return };
    let mut requests = watcher.requests.lock();
    let ring = requests.is_empty();
    requests.push_back(directory);
    drop(requests);
    if ring {
        let _ = rustix::io::write(&watcher.bell, &1_u64.to_ne_bytes());
    }
}

/// Passes on all events until now: what the host did before this call is seen after it.
pub(crate) fn catch_up() {
    if let Some(watcher) = watcher() {
        watcher.read_events();
    }
}

impl Watcher {
    fn run(&self) {
        // Nobody else uses the current directory, so that sharing it would do no harm.
        let _ = host::files::private_cwd();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let neutral = rustix::fs::openat(CWD, "/", flags, Mode::empty());
        loop {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
            self.read_events();
            if self.serve_requests()
                && let Ok(neutral) = &neutral
            {
                // A current directory keeps its mount busy.
                let _ = rustix::process::fchdir(neutral);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// True if there were any.
    fn serve_requests(&self) -> bool {
        let mut any = false;
        loop {
            let Some(request) = self.requests.lock().pop_front() else { return any };
            any = true;
            if let Some(directory) = request.upgrade() {
                self.watch(&directory);
            }
        }
    }

    fn watch(&self, directory: &Arc<HostInode>) {
        let Ok(fd) = directory.fd() else { return };
        let mut watched = self.watched.lock();
        let bound = watched.bound.unwrap_or(MOST);
        if bound < FEWEST || rustix::process::fchdir(&*fd).is_err() {
            return;
        }
        if watched.directories.len() >= bound {
            self.evict(&mut watched, bound);
        }
        match inotify::add_watch(&self.inotify, ".", MASK) {
            Ok(wd) => {
                let holders = watched.directories.entry(wd).or_default();
                holders.retain(|holder| holder.strong_count() > 0);
                let first = holders.is_empty();
                holders.push(Arc::downgrade(directory));
                if first {
                    watched.order.push_back(wd);
                }
                directory.watch_began(wd);
            }
            // Other programs of the same user may have taken all of them.
            Err(rustix::io::Errno::NOSPC) => watched.bound = Some(watched.directories.len()),
            Err(_) => directory.watch_ended(),
        }
        if watched.order.len() > 2 * MOST {
            let Watched { directories, order, .. } = &mut *watched;
            order.retain(|wd| directories.contains_key(wd));
        }
    }

    /// Gives up some watches that nobody used lately.
    fn evict(&self, watched: &mut Watched, bound: usize) {
        let mut surplus = watched.directories.len().saturating_sub(bound - bound / 8);
        for _ in 0..2 * watched.order.len() {
            if surplus == 0 {
                return;
            }
            let Some(wd) = watched.order.pop_front() else { return };
            let Some(holders) = watched.directories.get(&wd) else { continue };
            let holders: Vec<_> = holders.iter().filter_map(Weak::upgrade).collect();
            if holders.iter().any(|holder| holder.watch_was_used()) {
                watched.order.push_back(wd);
                continue;
            }
            for holder in holders {
                holder.watch_ended();
            }
            watched.directories.remove(&wd);
            let _ = inotify::remove_watch(&self.inotify, wd);
            surplus -= 1;
        }
    }

    fn read_events(&self) {
        // Held throughout, so that events reach the directories in their order.
        let mut watched = self.watched.lock();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let (wd, events) = (event.wd(), event.events());
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Something happened somewhere.
                for holder in watched.directories.values().flatten().filter_map(Weak::upgrade) {
                    holder.watch_began(holder.watch_descriptor());
                }
                continue;
            }
            if events.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                for holder in watched.directories.remove(&wd).into_iter().flatten() {
                    if let Some(holder) = holder.upgrade() {
                        holder.watch_ended();
                    }
                }
                continue;
            }
            let Some(holders) = watched.directories.get(&wd) else { continue };
            let name = event.file_name().map(|name| name.to_bytes());
            for holder in holders.iter().filter_map(Weak::upgrade) {
                holder.happened(name, events.intersects(NAMES));
            }
        }
    }
}

/// A directory is dropped: its watch is of no use.
pub(crate) fn forget(wd: i32) {
    let Some(watcher) = watcher() else { return };
    // From within an event's handling the lock is taken; the clock finds it later.
    let Some(mut watched) = watcher.watched.try_lock() else { return };
    if let Some(holders) = watched.directories.get_mut(&wd) {
        holders.retain(|holder| holder.strong_count() > 0);
        if holders.is_empty() {
            watched.directories.remove(&wd);
            let _ = inotify::remove_watch(&watcher.inotify, wd);
        }
    }
}
