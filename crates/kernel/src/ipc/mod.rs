//! System V IPC: sysvipc(7). Shared memory, semaphores and message queues of one IPC namespace.

pub mod msg;
pub mod perm;
pub mod registry;
pub mod sem;
pub mod shm;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use linux_abi::Errno;

use crate::Result;

pub use perm::Perm;
pub use registry::Registry;

/// What the guest's root may set under /proc/sys/kernel.
pub struct Limits {
    /// Largest segment, bytes.
    pub shmmax: AtomicU64,
    /// Pages of all segments.
    pub shmall: AtomicU64,
    /// Segments.
    pub shmmni: AtomicI32,
    /// Semaphores in a set.
    pub semmsl: AtomicI32,
    /// Semaphores in all sets.
    pub semmns: AtomicI32,
    /// Operations in one semop(2).
    pub semopm: AtomicI32,
    /// Semaphore sets.
    pub semmni: AtomicI32,
    /// Largest message, bytes.
    pub msgmax: AtomicI32,
    /// Bytes in a queue.
    pub msgmnb: AtomicI32,
    /// Message queues.
    pub msgmni: AtomicI32,
}

/// Linux's default for `shmmax` and `shmall`: as good as none.
const SHM_UNLIMITED: u64 = u64::MAX - (1 << 24);
/// Most objects of a kind: an id has 15 bits for its place.
pub const IPCMNI: i32 = 32768;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            shmmax: AtomicU64::new(SHM_UNLIMITED),
            shmall: AtomicU64::new(SHM_UNLIMITED),
            shmmni: AtomicI32::new(4096),
            semmsl: AtomicI32::new(32000),
            // Linux says 1,024,000,000 and means "as memory allows"; ours is a bound on kernel memory.
            semmns: AtomicI32::new(1_024_000),
            semopm: AtomicI32::new(500),
            semmni: AtomicI32::new(32000),
            msgmax: AtomicI32::new(8192),
            msgmnb: AtomicI32::new(16384),
            msgmni: AtomicI32::new(32000),
        }
    }
}

/// Sets a limit from the text written to its file.
///
/// # Errors
/// `EINVAL` if it is no number from 0 to `most`.
pub fn set_limit(limit: &AtomicI32, text: &[u8], most: i32) -> Result<()> {
    let value = parse(text).and_then(|n| i32::try_from(n).ok()).filter(|n| *n <= most);
    limit.store(value.ok_or(Errno::EINVAL)?, Ordering::Relaxed);
    Ok(())
}

/// As [`set_limit`] for a limit of 64 bits.
///
/// # Errors
/// `EINVAL` if it is no number.
pub fn set_limit_u64(limit: &AtomicU64, text: &[u8]) -> Result<()> {
    limit.store(parse(text).ok_or(Errno::EINVAL)?, Ordering::Relaxed);
    Ok(())
}

fn parse(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// One IPC namespace: ipc_namespaces(7).
#[derive(Default)]
pub struct IpcNamespace {
    /// The limits.
    pub limits: Limits,
    /// Shared memory.
    pub shm: Registry<shm::Segment>,
    /// Pages of all segments.
    pub(crate) shm_pages: AtomicU64,
    /// Semaphore sets.
    pub sem: Registry<sem::Set>,
    /// Semaphores of all sets.
    pub(crate) semaphores: AtomicI32,
    /// Message queues.
    pub msg: Registry<msg::Queue>,
    /// POSIX message queues.
    pub mq: crate::mqueue::Queues,
}

impl IpcNamespace {
    /// Sets a limit by its name in sysctl(8): `kernel.shmmax`, `fs.mqueue.msg_max` and so on.
    ///
    /// # Errors
    /// `EINVAL` for a text that is none of its values, `ENOENT` for another name.
    pub fn set_sysctl(&self, name: &str, text: &str) -> Result<()> {
        let (limits, mq) = (&self.limits, &self.mq.limits);
        let bytes = text.as_bytes();
        match name {
            "kernel.shmmax" => set_limit_u64(&limits.shmmax, bytes),
            "kernel.shmall" => set_limit_u64(&limits.shmall, bytes),
            "kernel.shmmni" => set_limit(&limits.shmmni, bytes, IPCMNI),
            "kernel.msgmax" => set_limit(&limits.msgmax, bytes, i32::MAX),
            "kernel.msgmnb" => set_limit(&limits.msgmnb, bytes, i32::MAX),
            "kernel.msgmni" => set_limit(&limits.msgmni, bytes, IPCMNI),
            "kernel.sem" => {
                let fields = [&limits.semmsl, &limits.semmns, &limits.semopm, &limits.semmni];
                let words: Vec<&str> = text.split_whitespace().collect();
                if words.len() != fields.len() {
                    return Err(Errno::EINVAL);
                }
                let mut pairs = fields.iter().zip(words);
                pairs.try_for_each(|(field, word)| set_limit(field, word.as_bytes(), i32::MAX))
            }
            "fs.mqueue.queues_max" => set_limit(&mq.queues_max, bytes, 65536),
            "fs.mqueue.msg_max" => set_limit(&mq.msg_max, bytes, 65536),
            "fs.mqueue.msgsize_max" => set_limit(&mq.msgsize_max, bytes, 16 << 20),
            "fs.mqueue.msg_default" => set_limit(&mq.msg_default, bytes, 65536),
            "fs.mqueue.msgsize_default" => set_limit(&mq.msgsize_default, bytes, 16 << 20),
            _ => Err(Errno::ENOENT),
        }
    }
}

/// What a thread has of System V IPC.
#[derive(Clone)]
pub struct ThreadIpc {
    /// Its namespace.
    pub namespace: Arc<IpcNamespace>,
    /// Segments attached to its address space.
    pub shm: Arc<shm::Attachments>,
    /// Its semaphore adjustments; shared by `CLONE_SYSVSEM`.
    pub undo: Arc<sem::UndoList>,
}

impl ThreadIpc {
    /// For a first process.
    pub fn new(namespace: Arc<IpcNamespace>, pid: i32) -> ThreadIpc {
        ThreadIpc {
            shm: Arc::new(shm::Attachments::new(pid)),
            undo: Arc::new(sem::UndoList::new(&namespace, pid)),
            namespace,
        }
    }

    /// For a clone in process `pid`.
    pub fn cloned(&self, pid: i32, shares_memory: bool, shares_undo: bool) -> ThreadIpc {
        let namespace = self.namespace.clone();
        let shm = if shares_memory { self.shm.clone() } else { Arc::new(self.shm.fork(pid)) };
        let undo =
            if shares_undo { self.undo.clone() } else { Arc::new(sem::UndoList::new(&namespace, pid)) };
        ThreadIpc { namespace, shm, undo }
    }

    /// After exec: nothing is attached any more; adjustments stay.
    pub fn after_exec(&self, pid: i32) -> ThreadIpc {
        ThreadIpc { shm: Arc::new(shm::Attachments::new(pid)), ..self.clone() }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    (executor::realtime_ns() / 1_000_000_000) as i64
}
