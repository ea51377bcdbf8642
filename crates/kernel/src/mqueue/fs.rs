//! The mqueue file system: one folder with the queues of a namespace.

use std::any::Any;
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::{DirentType, OpenFlags, S_IFDIR, S_IFMT, S_IFREG};
use linux_abi::time::Timespec;
use parking_lot::Mutex;
use vfs::{
    Caller, DirEntry, FileOps, FileSystem, Inode, Metadata, NewNode, OpenFile, Place, Result, SetAttr,
    SetTime, StatFs,
};

use super::{Queue, QueueFile};
use crate::ipc::IpcNamespace;

/// `MQUEUE_MAGIC` of statfs(2).
const MAGIC: u64 = 0x1980_0202;
/// Device number of all instances.
const DEVICE: u64 = 14;

/// The file system over the queues of a namespace.
pub struct MqueueFs {
    this: Weak<MqueueFs>,
    namespace: Arc<IpcNamespace>,
    meta: Mutex<Metadata>,
}

impl MqueueFs {
    /// Over the queues of this namespace.
    pub fn new(namespace: Arc<IpcNamespace>) -> Arc<MqueueFs> {
        let now = Timespec::from_nanos(executor::realtime_ns());
        Arc::new_cyclic(|this| MqueueFs {
            this: this.clone(),
            namespace,
            meta: Mutex::new(Metadata {
                dev: DEVICE,
                ino: 1,
                nlink: 2,
                mode: S_IFDIR | 0o1777,
                block_size: 4096,
                atime: now,
                mtime: now,
                ctime: now,
                ..Metadata::default()
            }),
        })
    }

    fn shared(&self) -> Result<Arc<MqueueFs>> {
        self.this.upgrade().ok_or(Errno::ENODEV)
    }

    /// A queue as a file of this instance.
    ///
    /// # Errors
    /// `ENODEV` never, in practice.
    pub fn inode(&self, queue: &Arc<Queue>) -> Result<Arc<QueueInode>> {
        Ok(Arc::new(QueueInode { fs: self.shared()?, queue: queue.clone() }))
    }

    /// A queue opened by mq_open(2), in no folder of the caller's.
    ///
    /// # Errors
    /// `ENODEV` never, in practice.
    pub fn open(&self, name: &[u8], queue: &Arc<Queue>, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        let inode = self.inode(queue)?;
        let shown = [b"/", name].concat();
        let place = Place::anonymous(&shown, inode.clone());
        Ok(OpenFile::new(place, inode, Arc::new(QueueFile(queue.clone())), flags))
    }
}

impl FileSystem for MqueueFs {
    fn type_name(&self) -> &'static str {
        "mqueue"
    }
    fn root(&self) -> Result<Arc<dyn Inode>> {
        Ok(Arc::new(Root(self.shared()?)))
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
}

fn change(meta: &mut Metadata, attr: &SetAttr) {
    let now = Timespec::from_nanos(executor::realtime_ns());
    if let Some(mode) = attr.mode {
        meta.mode = meta.mode & S_IFMT | mode & 0o7777;
    }
    meta.uid = attr.uid.unwrap_or(meta.uid);
    meta.gid = attr.gid.unwrap_or(meta.gid);
    let time = |old, new: Option<SetTime>| match new {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::At(time)) => time,
    };
    meta.atime = time(meta.atime, attr.atime);
    meta.mtime = time(meta.mtime, attr.mtime);
    meta.ctime = now;
}

/// The folder.
struct Root(Arc<MqueueFs>);

impl Inode for Root {
    fn metadata(&self) -> Result<Metadata> {
        Ok(*self.0.meta.lock())
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        change(&mut self.0.meta.lock(), attr);
        Ok(())
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.0.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(Folder(self)))
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let queue = self.0.namespace.mq.find(name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(QueueInode { fs: self.0.clone(), queue }))
    }
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        if node.mode & S_IFMT != S_IFREG {
            return Err(Errno::EPERM);
        }
        // As open(2) with O_CREAT makes one: the default size. The limit of the creator is not known here;
        // Linux's default bounds it.
        let creds = identity::Credentials {
            euid: node.uid,
            fsuid: node.uid,
            fsgid: node.gid,
            effective: identity::CapabilitySet::EMPTY,
            ..identity::Credentials::root()
        };
        let queue = self.0.namespace.mq.make(name, node.mode, None, &creds, 819_200)?;
        Ok(Arc::new(QueueInode { fs: self.0.clone(), queue }))
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.0.namespace.mq.unlink(name)
    }
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let now = self.0.namespace.mq.find(name);
        match (now, child.and_then(|c| c.as_any().downcast_ref::<QueueInode>())) {
            (None, None) => child.is_none(),
            (Some(queue), Some(inode)) => Arc::ptr_eq(&queue, &inode.queue),
            _ => false,
        }
    }
}

/// A queue as a file.
pub struct QueueInode {
    fs: Arc<MqueueFs>,
    queue: Arc<Queue>,
}

impl Inode for QueueInode {
    fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata { dev: DEVICE, ..self.queue.metadata() })
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        change(&mut self.queue.state.lock().meta, attr);
        Ok(())
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(QueueFile(self.queue.clone())))
    }
}

/// The open folder.
struct Folder(Arc<Root>);

impl FileOps for Folder {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let mut entries = vec![(b".".to_vec(), 1, DirentType::Dir), (b"..".to_vec(), 1, DirentType::Dir)];
        let names = self.0.0.namespace.mq.names();
        entries.extend(names.into_iter().map(|(name, ino)| (name, ino, DirentType::Regular)));
        let mut at = pos;
        while let Some((name, ino, kind)) = usize::try_from(at).ok().and_then(|i| entries.get(i)) {
            if !sink(DirEntry { ino: *ino, next: at + 1, kind: *kind, name }) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }
}
