//! devpts: a folder with one device node per terminal, and `ptmx`.

use std::any::Any;
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::{DirentType, OpenFlags, S_IFCHR, S_IFDIR, makedev};
use linux_abi::time::Timespec;
use parking_lot::Mutex;
use vfs::{Caller, DirEntry, FileOps, FileSystem, Inode, Metadata, OpenFile, Result, SetAttr, StatFs};

use super::{SLAVE_MAJOR, Terminals};

/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x1cd1;

/// The file system.
pub struct Devpts {
    this: Weak<Devpts>,
    terminals: Arc<Terminals>,
    device: u64,
    born: Timespec,
    /// Permission bits of `ptmx`, and mode and group of slaves.
    ptmx_mode: u32,
    mode: u32,
    gid: u32,
    /// Nodes found before, so that chmod(2) and chown(2) last.
    nodes: Mutex<Vec<Weak<Node>>>,
}

impl Devpts {
    /// With mount options (`ptmxmode=`, `mode=`, `gid=`, in octal but for the group).
    pub fn new(terminals: Arc<Terminals>, device: u64, options: &str) -> Arc<Devpts> {
        let value =
            |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let octal = |name: &str, default| {
            value(name).and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(default) & 0o777
        };
        Arc::new_cyclic(|this| Devpts {
            this: this.clone(),
            terminals,
            device,
            born: Timespec::from_nanos(executor::realtime_ns()),
            ptmx_mode: octal("ptmxmode", 0o666),
            mode: octal("mode", 0o620),
            gid: value("gid").and_then(|text| text.parse().ok()).unwrap_or(5),
            nodes: Mutex::default(),
        })
    }

    fn shared(&self) -> Result<Arc<Devpts>> {
        self.this.upgrade().ok_or(Errno::ENODEV)
    }

    fn node(&self, number: Number) -> Result<Arc<Node>> {
        let mut nodes = self.nodes.lock();
        nodes.retain(|node| node.strong_count() > 0);
        if let Some(node) = nodes.iter().filter_map(Weak::upgrade).find(|node| node.number == number) {
            return Ok(node);
        }
        let attributes = match number {
            Number::Root => (S_IFDIR | 0o755, 0, 0),
            Number::Ptmx => (S_IFCHR | self.ptmx_mode, 0, 0),
            Number::Slave(_) => (S_IFCHR | self.mode, 0, self.gid),
        };
        let node = Arc::new(Node { fs: self.shared()?, number, attributes: Mutex::new(attributes) });
        nodes.push(Arc::downgrade(&node));
        Ok(node)
    }
}

impl FileSystem for Devpts {
    fn type_name(&self) -> &'static str {
        "devpts"
    }
    fn root(&self) -> Result<Arc<dyn Inode>> {
        Ok(self.node(Number::Root)?)
    }
    fn options(&self) -> String {
        format!("gid={},mode={:03o},ptmxmode={:03o}", self.gid, self.mode, self.ptmx_mode)
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Root,
    Ptmx,
    Slave(u32),
}

/// The folder or one of its nodes.
struct Node {
    fs: Arc<Devpts>,
    number: Number,
    /// Mode, user, group; those of a slave are its terminal's.
    attributes: Mutex<(u32, u32, u32)>,
}

impl Node {
    /// Reads, and with `attr` changes, mode, user and group.
    fn attributes(&self, attr: Option<&SetAttr>) -> (u32, u32, u32) {
        let mut own = self.attributes.lock();
        let terminal = match self.number {
            Number::Slave(index) => self.fs.terminals.get(index),
            _ => None,
        };
        let mut changed = terminal.as_ref().map(|terminal| terminal.attributes.lock());
        let mut now = match (&terminal, changed.as_deref()) {
            (Some(_), Some(Some(changed))) => *changed,
            (Some(terminal), _) => (own.0, terminal.opener(), own.2),
            (None, _) => *own,
        };
        if let Some(attr) = attr {
            if let Some(mode) = attr.mode {
                now.0 = now.0 & !0o7777 | mode & 0o7777;
            }
            now.1 = attr.uid.unwrap_or(now.1);
            now.2 = attr.gid.unwrap_or(now.2);
            match changed.as_deref_mut() {
                Some(changed) => *changed = Some(now),
                None => *own = now,
            }
        }
        now
    }

    fn ino(&self) -> u64 {
        match self.number {
            Number::Root => 1,
            Number::Ptmx => 2,
            Number::Slave(index) => u64::from(index) + 3,
        }
    }
}

fn parse(name: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(name).ok()?;
    let index: u32 = text.parse().ok()?;
    // "01" and "+1" are no names of 1.
    (index.to_string() == text).then_some(index)
}

impl Inode for Node {
    fn metadata(&self) -> Result<Metadata> {
        let (mode, uid, gid) = self.attributes(None);
        Ok(Metadata {
            dev: self.fs.device,
            ino: self.ino(),
            nlink: if self.number == Number::Root { 2 } else { 1 },
            mode,
            uid,
            gid,
            rdev: match self.number {
                Number::Root => 0,
                Number::Ptmx => makedev(5, 2),
                Number::Slave(index) => makedev(SLAVE_MAJOR, index),
            },
            block_size: 1024,
            atime: self.fs.born,
            mtime: self.fs.born,
            ctime: self.fs.born,
            ..Metadata::default()
        })
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        self.attributes(Some(attr));
        Ok(())
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        match self.number {
            Number::Root => Ok(Arc::new(Folder(self))),
            _ => Err(Errno::ENXIO),
        }
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if self.number != Number::Root {
            return Err(Errno::ENOTDIR);
        }
        if name == b"ptmx" {
            return Ok(self.fs.node(Number::Ptmx)?);
        }
        let index = parse(name).ok_or(Errno::ENOENT)?;
        if !self.fs.terminals.indices().contains(&index) {
            return Err(Errno::ENOENT);
        }
        Ok(self.fs.node(Number::Slave(index))?)
    }
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let exists =
            name == b"ptmx" || parse(name).is_some_and(|index| self.fs.terminals.indices().contains(&index));
        exists == child.is_some()
    }
}

/// The open folder.
struct Folder(Arc<Node>);

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
        let mut entries = vec![
            (b".".to_vec(), DirentType::Dir, 1),
            (b"..".to_vec(), DirentType::Dir, 1),
            (b"ptmx".to_vec(), DirentType::Char, 2),
        ];
        for index in self.0.fs.terminals.indices() {
            entries.push((index.to_string().into_bytes(), DirentType::Char, u64::from(index) + 3));
        }
        let mut at = pos;
        while let Some((name, kind, ino)) = usize::try_from(at).ok().and_then(|i| entries.get(i)) {
            if !sink(DirEntry { ino: *ino, next: at + 1, kind: *kind, name }) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }
}
