//! POSIX message queues: mq_overview(7).

mod fs;

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::fs::S_IFREG;
use linux_abi::signal::{SigInfo, Signo, si};
use linux_abi::time::Timespec;
use parking_lot::Mutex;
use vfs::{FileOps, Metadata, OpenFile};

use crate::{Process, Result};

pub use fs::{MqueueFs, QueueInode};

/// Most messages of a queue of root, whatever the limit (`HARD_MSGMAX`).
const HARD_MESSAGES: i64 = 65536;
/// Most bytes of a message of root (`HARD_MSGSIZEMAX`).
const HARD_SIZE: i64 = 16 << 20;
/// Priorities are below this.
pub const PRIORITIES: u32 = 32768;

/// The limits under /proc/sys/fs/mqueue.
pub struct Limits {
    /// Queues.
    pub queues_max: AtomicI32,
    /// Messages of a queue.
    pub msg_max: AtomicI32,
    /// Bytes of a message.
    pub msgsize_max: AtomicI32,
    /// Messages of a queue made without attributes.
    pub msg_default: AtomicI32,
    /// Bytes of its messages.
    pub msgsize_default: AtomicI32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queues_max: AtomicI32::new(256),
            msg_max: AtomicI32::new(10),
            msgsize_max: AtomicI32::new(8192),
            msg_default: AtomicI32::new(10),
            msgsize_default: AtomicI32::new(8192),
        }
    }
}

/// The queues of one IPC namespace.
#[derive(Default)]
pub struct Queues {
    /// The limits.
    pub limits: Limits,
    named: Mutex<BTreeMap<Vec<u8>, Arc<Queue>>>,
    /// Queues, those without a name that are open among them.
    count: Arc<AtomicUsize>,
    /// Bytes by user, for `RLIMIT_MSGQUEUE`; shared with the queues, which give theirs back.
    charged: Arc<Mutex<HashMap<u32, u64>>>,
}

/// Size of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// `mq_maxmsg`.
    pub messages: i64,
    /// `mq_msgsize`.
    pub bytes: i64,
}

static NEXT_INO: AtomicU64 = AtomicU64::new(2);

impl Queues {
    /// A queue by name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<Queue>> {
        self.named.lock().get(name).cloned()
    }

    /// Makes a queue; `size` none is the default.
    ///
    /// # Errors
    /// `EEXIST`, `EINVAL`, `ENOSPC`, `EMFILE` past `limit` bytes of the user, as in mq_open(3).
    pub fn make(
        &self,
        name: &[u8],
        mode: u32,
        size: Option<Size>,
        creds: &Credentials,
        limit: u64,
    ) -> Result<Arc<Queue>> {
        let get = |value: &AtomicI32| i64::from(value.load(Ordering::Relaxed));
        let limits = &self.limits;
        let privileged = creds.capable(Capability::SYS_RESOURCE);
        let size = size.unwrap_or(Size {
            messages: get(&limits.msg_max).min(get(&limits.msg_default)),
            bytes: get(&limits.msgsize_max).min(get(&limits.msgsize_default)),
        });
        let (most, longest) = if privileged {
            (HARD_MESSAGES, HARD_SIZE)
        } else {
            (get(&limits.msg_max), get(&limits.msgsize_max))
        };
        if size.messages <= 0 || size.bytes <= 0 || size.messages > most || size.bytes > longest {
            return Err(Errno::EINVAL);
        }
        // As Linux counts: a pointer for each message, a node for each priority that can be, and the texts.
        let count = size.messages as u64;
        let bytes = count * 8 + count.min(u64::from(PRIORITIES)) * 48 + count * size.bytes as u64;
        let mut named = self.named.lock();
        if named.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let count = self.count.load(Ordering::Relaxed);
        if count as i64 >= get(&limits.queues_max) && !privileged || count >= 65536 {
            return Err(Errno::ENOSPC);
        }
        {
            let mut charged = self.charged.lock();
            let sum = charged.entry(creds.euid).or_insert(0);
            if sum.saturating_add(bytes) > limit {
                return Err(Errno::EMFILE);
            }
            *sum += bytes;
        }
        let now = Timespec::from_nanos(executor::realtime_ns());
        self.count.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue {
            size,
            count: self.count.clone(),
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            charge: (self.charged.clone(), creds.euid, bytes),
            waiters: Arc::new(WaitQueue::new()),
            state: Mutex::new(State {
                messages: BTreeMap::new(),
                count: 0,
                bytes: 0,
                receivers: 0,
                notify: None,
                meta: Metadata {
                    nlink: 1,
                    mode: S_IFREG | mode & 0o7777,
                    uid: creds.fsuid,
                    gid: creds.fsgid,
                    block_size: 4096,
                    atime: now,
                    mtime: now,
                    ctime: now,
                    ..Metadata::default()
                },
            }),
        });
        named.insert(name.to_vec(), queue.clone());
        Ok(queue)
    }

    /// Takes the name away; `ENOENT`.
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        let queue = self.named.lock().remove(name).ok_or(Errno::ENOENT)?;
        queue.state.lock().meta.nlink = 0;
        Ok(())
    }

    fn names(&self) -> Vec<(Vec<u8>, u64)> {
        self.named.lock().iter().map(|(name, queue)| (name.clone(), queue.ino)).collect()
    }
}

/// How the owner hears of a message in an empty queue: mq_notify(3).
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// Not at all.
    None,
    /// By a signal with a value.
    Signal(Signo, u64),
}

struct Notify {
    owner: Weak<Process>,
    notice: Notice,
}

struct State {
    /// By priority, each in the order of coming.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: u64,
    /// How many wait for a message.
    receivers: usize,
    notify: Option<Notify>,
    meta: Metadata,
}

/// Counters of bytes by user.
type Charges = Arc<Mutex<HashMap<u32, u64>>>;

/// One queue.
pub struct Queue {
    /// Its size.
    pub size: Size,
    ino: u64,
    count: Arc<AtomicUsize>,
    charge: (Charges, u32, u64),
    /// Woken when a message comes (`IN`) and when there is room (`OUT`).
    pub waiters: Arc<WaitQueue>,
    state: Mutex<State>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let (charged, user, bytes) = &self.charge;
        let mut charged = charged.lock();
        if let Some(sum) = charged.get_mut(user) {
            *sum = sum.saturating_sub(*bytes);
            if *sum == 0 {
                charged.remove(user);
            }
        }
    }
}

impl Queue {
    /// Adds the message, taking it; `EAGAIN` while the queue is full.
    pub fn send(&self, text: &mut Vec<u8>, priority: u32, sender: (i32, u32)) -> Result<()> {
        let mut state = self.state.lock();
        if state.count as i64 >= self.size.messages {
            return Err(Errno::EAGAIN);
        }
        let text = std::mem::take(text);
        state.bytes += text.len() as u64;
        state.count += 1;
        let first = state.count == 1;
        state.messages.entry(priority).or_default().push_back(text);
        state.meta.mtime = Timespec::from_nanos(executor::realtime_ns());
        let notify = if first && state.receivers == 0 { state.notify.take() } else { None };
        drop(state);
        self.waiters.wake_all(Events::READABLE);
        if let Some(Notify { owner, notice: Notice::Signal(sig, value) }) = notify
            && let Some(owner) = owner.upgrade()
        {
            // A full queue of signals loses it, as in Linux.
            let _ = owner.send_signal(SigInfo::queued(sig, si::MESGQ, sender.0, sender.1, value));
        }
        Ok(())
    }

    /// Takes the first message of the highest priority; `EAGAIN` while there is none.
    pub fn receive(&self) -> Result<(Vec<u8>, u32)> {
        let mut state = self.state.lock();
        let mut entry = state.messages.last_entry().ok_or(Errno::EAGAIN)?;
        let priority = *entry.key();
        let text = entry.get_mut().pop_front().ok_or(Errno::EAGAIN)?;
        if entry.get().is_empty() {
            entry.remove();
        }
        state.count = state.count.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(text.len() as u64);
        state.meta.atime = Timespec::from_nanos(executor::realtime_ns());
        drop(state);
        self.waiters.wake_all(Events::WRITABLE);
        Ok((text, priority))
    }

    /// One more, or one less, waits for a message: then nobody else is told of it.
    pub fn count_receiver(&self, waits: bool) {
        let mut state = self.state.lock();
        state.receivers = if waits { state.receivers + 1 } else { state.receivers.saturating_sub(1) };
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        self.state.lock().count
    }

    /// Registers the process for a notice; `EBUSY`.
    pub fn notify(&self, process: &Arc<Process>, notice: Notice) -> Result<()> {
        let mut state = self.state.lock();
        if state.notify.as_ref().and_then(|n| n.owner.upgrade()).is_some_and(|p| !p.is_zombie()) {
            return Err(Errno::EBUSY);
        }
        state.notify = Some(Notify { owner: Arc::downgrade(process), notice });
        Ok(())
    }

    /// Takes the registration of a process back, if it is its.
    pub fn forget_notify(&self, pid: i32) {
        let mut state = self.state.lock();
        if state.notify.as_ref().is_some_and(|n| n.owner.upgrade().is_none_or(|p| p.pid() == pid)) {
            state.notify = None;
        }
    }

    fn metadata(&self) -> Metadata {
        Metadata { ino: self.ino, size: 80, ..self.state.lock().meta }
    }

    fn status(&self) -> String {
        let state = self.state.lock();
        let (how, signo, pid) = match &state.notify {
            None => (0, 0, 0),
            Some(n) => {
                let pid = n.owner.upgrade().map_or(0, |p| p.pid());
                match n.notice {
                    Notice::None => (1, 0, pid),
                    Notice::Signal(sig, _) => (0, sig.raw(), pid),
                }
            }
        };
        format!("QSIZE:{:<10} NOTIFY:{how:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
    }
}

/// A descriptor was closed: it takes its process's registration along.
pub fn descriptor_closed(process: &Process, file: &OpenFile) {
    if let Some(queue) = file.ops_as::<QueueFile>() {
        queue.0.forget_notify(process.pid());
    }
}

/// An open queue.
pub struct QueueFile(pub Arc<Queue>);

impl FileOps for QueueFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let text = self.0.status();
        let rest = usize::try_from(pos).ok().and_then(|pos| text.as_bytes().get(pos..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(n)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let count = self.0.count() as i64;
        let mut events = Events::empty();
        events.set(Events::READABLE, count > 0);
        events.set(Events::WRITABLE, count < self.0.size.messages);
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.waiters.clone())
    }
}
