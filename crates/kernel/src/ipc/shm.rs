//! Shared memory: shmget(2), shmop(2). A segment is a file in memory that the platform maps, so that sharing
//! is the host's.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::ipc::shm::SHM_DEST;
use linux_abi::ipc::{IPC_PRIVATE, ShmidDs};
use parking_lot::Mutex;
use vfs::{OpenFile, Place, SetAttr};

use super::{IpcNamespace, Perm, now};
use crate::Result;

const PAGE: u64 = 4096;

/// A segment.
pub struct Segment {
    /// Bytes asked for.
    pub size: u64,
    /// Its memory, open for reading and writing.
    pub writable: Arc<OpenFile>,
    /// Its memory, open for reading.
    pub readable: Arc<OpenFile>,
    /// What changes.
    pub state: Mutex<State>,
}

/// What changes of a segment.
#[expect(missing_docs, reason = "named in shmctl(2)")]
pub struct State {
    pub perm: Perm,
    pub nattch: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: i32,
    pub lpid: i32,
}

/// Who makes a segment, and how.
pub struct Maker<'a> {
    /// Its key.
    pub key: i32,
    /// Bytes.
    pub size: u64,
    /// `shmflg`.
    pub flags: i32,
    /// The creator.
    pub creds: &'a Credentials,
    /// The creator's process.
    pub pid: i32,
}

fn pages(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

impl IpcNamespace {
    /// shmget(2).
    ///
    /// # Errors
    /// Those of the man page.
    pub fn shmget(&self, maker: &Maker<'_>) -> Result<i32> {
        let limits = &self.limits;
        let check = |segment: &Segment| {
            if segment.size < maker.size {
                return Err(Errno::EINVAL);
            }
            segment.state.lock().perm.check(maker.creds, maker.flags as u32)
        };
        let make = |id| {
            if maker.size == 0 || maker.size > limits.shmmax.load(Ordering::Relaxed) {
                return Err(Errno::EINVAL);
            }
            let rounded = maker.size.checked_next_multiple_of(PAGE).ok_or(Errno::EINVAL)?;
            let total = self.shm_pages.load(Ordering::Relaxed).checked_add(pages(maker.size));
            if total.is_none_or(|total| total > limits.shmall.load(Ordering::Relaxed)) {
                return Err(Errno::ENOSPC);
            }
            let (inode, ops) = fs_tmp::memfd(b"", 0, maker.creds.euid, maker.creds.egid)?;
            let name = format!("/SYSV{:08x} (deleted)", maker.key);
            let open = |flags| {
                let place = Place::anonymous(name.as_bytes(), inode.clone());
                OpenFile::new(place, inode.clone(), ops.clone(), flags)
            };
            let writable = open(OpenFlags::RDWR | OpenFlags::LARGEFILE);
            inode
                .set_attributes(&SetAttr { size: Some(rounded), ..SetAttr::default() })
                .map_err(|e| if e == Errno::EFBIG { Errno::ENOMEM } else { e })?;
            self.shm_pages.fetch_add(pages(maker.size), Ordering::Relaxed);
            Ok(Segment {
                size: maker.size,
                writable,
                readable: open(OpenFlags::LARGEFILE),
                state: Mutex::new(State {
                    perm: Perm::new(id, maker.key, maker.flags, maker.creds),
                    nattch: 0,
                    atime: 0,
                    dtime: 0,
                    ctime: now(),
                    cpid: maker.pid,
                    lpid: 0,
                }),
            })
        };
        self.shm.get_or_make(maker.key, maker.flags, limits.shmmni.load(Ordering::Relaxed), check, make)
    }

    /// `IPC_RMID`: gone now, or at the last detach; until then without a key.
    pub fn shm_remove(&self, segment: &Arc<Segment>) {
        let (id, key, unused) = {
            let mut state = segment.state.lock();
            let key = std::mem::replace(&mut state.perm.key, IPC_PRIVATE);
            state.perm.mode |= SHM_DEST;
            (state.perm.id, key, state.nattch == 0)
        };
        if key != IPC_PRIVATE {
            self.shm.forget_key(key);
        }
        if unused {
            self.shm_destroy(id);
        }
    }

    fn shm_destroy(&self, id: i32) {
        if let Some(segment) = self.shm.remove(id) {
            self.shm_pages.fetch_sub(pages(segment.size), Ordering::Relaxed);
        }
    }

    /// Pages of all segments.
    pub fn shm_total_pages(&self) -> u64 {
        self.shm_pages.load(Ordering::Relaxed)
    }
}

impl Segment {
    /// As `IPC_STAT` tells it.
    pub fn stat(&self) -> ShmidDs {
        let state = self.state.lock();
        ShmidDs {
            perm: state.perm.to_abi(),
            segsz: self.size,
            atime: state.atime,
            dtime: state.dtime,
            ctime: state.ctime,
            cpid: state.cpid,
            lpid: state.lpid,
            nattch: state.nattch,
            ..ShmidDs::default()
        }
    }

    /// Counts one more attachment by process `pid`, for as long as the value lives.
    pub fn attach(self: &Arc<Segment>, namespace: &Arc<IpcNamespace>, pid: i32) -> Attachment {
        Attachment::new(self.clone(), Arc::downgrade(namespace), pid)
    }
}

/// One attachment, counted in `nattch` while it lives.
pub struct Attachment {
    /// The segment.
    pub segment: Arc<Segment>,
    namespace: Weak<IpcNamespace>,
    pid: i32,
}

impl Attachment {
    fn new(segment: Arc<Segment>, namespace: Weak<IpcNamespace>, pid: i32) -> Attachment {
        {
            let mut state = segment.state.lock();
            state.nattch += 1;
            state.atime = now();
            state.lpid = pid;
        }
        Attachment { segment, namespace, pid }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let last = {
            let mut state = self.segment.state.lock();
            state.nattch = state.nattch.saturating_sub(1);
            state.dtime = now();
            state.lpid = self.pid;
            (state.nattch == 0 && state.perm.mode & SHM_DEST != 0).then_some(state.perm.id)
        };
        if let Some(id) = last
            && let Some(namespace) = self.namespace.upgrade()
        {
            namespace.shm_destroy(id);
        }
    }
}

/// The segments attached to one address space, by address. The guest may unmap them without being seen: what
/// is here is only believed where the host's maps show the segment's file.
pub struct Attachments {
    pid: i32,
    map: Mutex<BTreeMap<u64, Attachment>>,
}

/// Attachments that one address space may have.
const MAX_ATTACHMENTS: usize = 32768;

impl Attachments {
    /// None yet, of process `pid`.
    pub fn new(pid: i32) -> Attachments {
        Attachments { pid, map: Mutex::default() }
    }

    /// The same for a forked process.
    pub fn fork(&self, pid: i32) -> Attachments {
        let map = self.map.lock();
        let copy = |(addr, a): (&u64, &Attachment)| {
            (*addr, Attachment::new(a.segment.clone(), a.namespace.clone(), pid))
        };
        Attachments { pid, map: Mutex::new(map.iter().map(copy).collect()) }
    }

    /// The process that attachments are counted for.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Adds one at an address where now nothing else can be; `EMFILE`.
    pub fn insert(&self, addr: u64, attachment: Attachment) -> Result<()> {
        let mut map = self.map.lock();
        if map.len() >= MAX_ATTACHMENTS {
            return Err(Errno::EMFILE);
        }
        let size = attachment.segment.size;
        // What lay wholly in the range was replaced, or had been unmapped before.
        let end = addr.saturating_add(size.next_multiple_of(PAGE));
        let covered: Vec<u64> = map
            .range(addr..end)
            .filter(|(at, a)| at.saturating_add(a.segment.size.next_multiple_of(PAGE)) <= end)
            .map(|(at, _)| *at)
            .collect();
        let mut old: Vec<_> = covered.into_iter().filter_map(|at| map.remove(&at)).collect();
        old.extend(map.insert(addr, attachment));
        drop(map);
        drop(old);
        Ok(())
    }

    /// The segment attached at an address.
    pub fn get(&self, addr: u64) -> Option<Arc<Segment>> {
        self.map.lock().get(&addr).map(|a| a.segment.clone())
    }

    /// Forgets the attachment at an address.
    pub fn remove(&self, addr: u64) {
        let old = self.map.lock().remove(&addr);
        drop(old);
    }
}
