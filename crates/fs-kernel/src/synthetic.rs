//! Files whose contents are made when they are read: the templates of proc and sys.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::proc::Options;
use kernel::Process;
use linux_abi::Errno;
use linux_abi::fs::{DirentType, OpenFlags, S_IFDIR, S_IFLNK, S_IFREG};
use linux_abi::time::Timespec;
use parking_lot::Mutex;
use vfs::{Caller, DirEntry, FileOps, FileSystem, Inode, Metadata, OpenFile, Place, Result, SetAttr, StatFs};

/// A file system of synthetic files.
pub struct Synthetic {
    this: Weak<Synthetic>,
    name: &'static str,
    magic: u64,
    device: u64,
    root: Arc<Node>,
    born: Timespec,
    /// Of a procfs.
    options: Option<Arc<Options>>,
}

/// The contents of a directory.
pub trait Directory: Send + Sync {
    /// A child; `None` if there is none (now).
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>>;
    /// The names of the children, with their types and inode numbers.
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)>;
    /// As `list`, what a caller sees of it.
    fn list_for(&self, _caller: &dyn Caller) -> Vec<(Vec<u8>, DirentType, u64)> {
        self.list()
    }
    /// Whether a caller sees it, or what is in it: `Inode::show_to`.
    fn show_to(&self, _caller: &dyn Caller, _within: bool) -> Result<()> {
        Ok(())
    }
    /// How many of them are directories.
    fn folders(&self) -> usize {
        0
    }
    /// The process, if this is /proc/PID.
    fn of_process(&self) -> Option<Arc<Process>> {
        None
    }
    /// Whether names come and go with processes.
    fn is_of_processes(&self) -> bool {
        self.of_process().is_some()
    }
    /// Whether a child found earlier is still the one of this name.
    fn still(&self, _name: &[u8]) -> bool {
        true
    }
}

/// Makes text.
pub type Text = Box<dyn Fn(&mut dyn Caller) -> Result<Vec<u8>> + Send + Sync>;
/// Takes what was written.
pub type Take = Box<dyn Fn(&mut dyn Caller, &[u8]) -> Result<()> + Send + Sync>;
/// Makes the operations of a file that is opened.
pub type Open = Box<dyn Fn() -> Result<Arc<dyn FileOps>> + Send + Sync>;
/// Finds where a magic link leads.
pub type Lead = Box<dyn Fn() -> Result<Place> + Send + Sync>;

/// What a node is.
pub enum Kind {
    /// A directory.
    Directory(Box<dyn Directory>),
    /// A file with generated text, perhaps writable.
    File(Text, Option<Take>),
    /// A file with operations of its own.
    Special(Arc<dyn FileOps>),
    /// A file with operations of its own for each time it is opened.
    Opened(Open),
    /// A symbolic link.
    Link(Text),
    /// A link that leads to a place without a walk; its text is for readlink(2).
    Magic(Text, Lead),
}

/// One synthetic file.
pub struct Node {
    ino: u64,
    mode: u32,
    /// Whose process it tells of: its owner is the process's user.
    process: Option<Arc<Process>>,
    /// Only for who may trace the process, whatever the mode; links that lead somewhere always are.
    guarded: bool,
    kind: Kind,
}

impl Node {
    /// A node with permission bits.
    pub fn new(ino: u64, permissions: u32, process: Option<Arc<Process>>, kind: Kind) -> Arc<Node> {
        let guarded = matches!(kind, Kind::Magic(..));
        Node::made(ino, permissions, process, guarded, kind)
    }
    fn made(
        ino: u64,
        permissions: u32,
        process: Option<Arc<Process>>,
        guarded: bool,
        kind: Kind,
    ) -> Arc<Node> {
        let type_bits = match &kind {
            Kind::Directory(_) => S_IFDIR,
            Kind::File(..) | Kind::Special(_) | Kind::Opened(_) => S_IFREG,
            Kind::Link(_) | Kind::Magic(..) => S_IFLNK,
        };
        Arc::new(Node { ino, mode: type_bits | permissions, process, guarded, kind })
    }
    /// A node that only who may trace the process opens (`PTRACE_MODE_READ_FSCREDS` of ptrace(2)).
    pub fn guarded(ino: u64, permissions: u32, process: Arc<Process>, kind: Kind) -> Arc<Node> {
        Node::made(ino, permissions, Some(process), true, kind)
    }
    /// `EACCES` for who may not look into the process.
    fn check_guard(&self, caller: &dyn Caller) -> Result<()> {
        let Some(process) = self.process.as_ref().filter(|_| self.guarded) else { return Ok(()) };
        if caller.pid() == process.pid() {
            return Ok(());
        }
        // After its end there is nothing to see.
        let Some(thread) = process.any_thread() else { return Ok(()) };
        kernel::ptrace::may_access(caller.credentials(), kernel::ptrace::Ids::FileSystem, &thread)
            .map_err(|_| Errno::EACCES)
    }
    /// A read-only file.
    pub fn text(
        name: &str,
        make: impl Fn(&mut dyn Caller) -> Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Arc<Node> {
        Node::new(ino_of(0, name.as_bytes()), 0o444, None, Kind::File(Box::new(make), None))
    }
    /// The process whose own directory it is.
    fn directory_of(&self) -> Option<Arc<Process>> {
        match &self.kind {
            Kind::Directory(directory) => directory.of_process(),
            _ => None,
        }
    }
    /// The type for directory entries.
    pub fn dirent_type(&self) -> DirentType {
        DirentType::from_mode(self.mode)
    }
    /// The inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }
}

/// A steady inode number from a parent's key and a name.
pub fn ino_of(key: u64, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash >> 16
}

/// A directory with fixed children.
#[derive(Default)]
pub struct Fixed(Vec<(Vec<u8>, Arc<Node>)>);

impl Fixed {
    /// With a child added.
    pub fn with(mut self, name: &str, node: Arc<Node>) -> Fixed {
        self.0.push((name.as_bytes().to_vec(), node));
        self
    }
    /// Without a child.
    pub fn without(mut self, name: &str) -> Fixed {
        self.0.retain(|(known, _)| known != name.as_bytes());
        self
    }
    /// With a read-only text file of fixed contents added.
    pub fn with_text(self, name: &str, text: impl Into<Vec<u8>>) -> Fixed {
        let text = text.into();
        let node = Node::text(name, move |_| Ok(text.clone()));
        self.with(name, node)
    }
    /// With a file of generated text added.
    pub fn with_made(self, name: &str, make: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Fixed {
        let node = Node::text(name, move |_| Ok(make()));
        self.with(name, node)
    }
    /// With a directory added.
    pub fn with_dir(self, name: &str, dir: Fixed) -> Fixed {
        let node = dir.node(name);
        self.with(name, node)
    }
    /// As a node.
    pub fn node(self, name: &str) -> Arc<Node> {
        Node::new(ino_of(1, name.as_bytes()), 0o555, None, Kind::Directory(Box::new(self)))
    }
}

impl Directory for Fixed {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, node)| node.clone())
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        self.0.iter().map(|(n, node)| (n.clone(), node.dirent_type(), node.ino)).collect()
    }
    fn folders(&self) -> usize {
        self.0.iter().filter(|(_, node)| matches!(node.kind, Kind::Directory(_))).count()
    }
}

impl Synthetic {
    /// A file system with this root.
    pub fn new(name: &'static str, magic: u64, device: u64, root: Arc<Node>) -> Arc<Synthetic> {
        Synthetic::with_options(name, magic, device, root, None)
    }
    /// A file system with this root, which may show less to some.
    pub(crate) fn with_options(
        name: &'static str,
        magic: u64,
        device: u64,
        root: Arc<Node>,
        options: Option<Arc<Options>>,
    ) -> Arc<Synthetic> {
        let now = executor::realtime_ns();
        Arc::new_cyclic(|this| Synthetic {
            this: this.clone(),
            name,
            magic,
            device,
            root,
            born: Timespec::from_nanos(now),
            options,
        })
    }
}

/// A file system that is a single empty file, to cover another file with. It reports tmpfs's type.
pub fn empty_file(device: u64) -> Arc<dyn FileSystem> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let node = Node::new(2, 0o444, None, Kind::File(Box::new(|_| Ok(Vec::new())), None));
    Synthetic::new("tmpfs", TMPFS_MAGIC, device, node)
}

impl FileSystem for Synthetic {
    fn type_name(&self) -> &'static str {
        self.name
    }
    fn root(&self) -> Result<Arc<dyn Inode>> {
        let fs = self.this.upgrade().ok_or(Errno::ENODEV)?;
        Ok(Arc::new(SyntheticInode { fs, node: self.root.clone() }))
    }
    fn options(&self) -> String {
        self.options.as_ref().map(|options| options.shown()).unwrap_or_default()
    }
    fn remount(&self, data: &[u8]) -> Result<()> {
        match &self.options {
            Some(options) => options.set(data),
            None if data.is_empty() => Ok(()),
            None => Err(Errno::EINVAL),
        }
    }
    fn hides(&self) -> bool {
        self.options.is_some()
    }
    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { magic: self.magic, block_size: 4096, name_max: 255, ..StatFs::default() })
    }
}

/// The process, if an open file is /proc/PID.
pub fn process_of_directory(file: &OpenFile) -> Option<Arc<Process>> {
    file.inode().as_any().downcast_ref::<SyntheticInode>()?.node.directory_of()
}

/// A child of a folder: name, type and inode number.
type Child = (Vec<u8>, DirentType, u64);

/// Where a name that is a number (a process, a descriptor) stands in its directory, whatever comes and goes.
fn place_of(name: &[u8]) -> Option<u64> {
    let number: u32 = std::str::from_utf8(name).ok()?.parse().ok()?;
    Some((1 << 32) + u64::from(number))
}

/// A node in its file system.
struct SyntheticInode {
    fs: Arc<Synthetic>,
    node: Arc<Node>,
}

impl Inode for SyntheticInode {
    fn metadata(&self) -> Result<Metadata> {
        let (uid, gid) = self.node.process.as_ref().and_then(|p| p.any_thread()).map_or((0, 0), |t| {
            let c = t.credentials();
            (c.euid, c.egid)
        });
        let folders = match &self.node.kind {
            Kind::Directory(directory) => Some(directory.folders()),
            _ => None,
        };
        Ok(Metadata {
            dev: self.fs.device,
            ino: self.node.ino,
            nlink: folders.map_or(1, |count| count.saturating_add(2) as u64),
            mode: self.node.mode,
            uid,
            gid,
            block_size: 1024,
            atime: self.fs.born,
            mtime: self.fs.born,
            ctime: self.fs.born,
            ..Metadata::default()
        })
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        // Truncation by O_TRUNC is nothing to a generated file.
        if attr.size == Some(0) && attr.mode.is_none() && attr.uid.is_none() && attr.gid.is_none() {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        self.node.check_guard(caller)?;
        self.show_to(caller, true)?;
        match &self.node.kind {
            Kind::Special(ops) => Ok(ops.clone()),
            Kind::Opened(open) => open(),
            Kind::Directory(_) | Kind::File(..) => Ok(Arc::new(SyntheticFile {
                node: self.node.clone(),
                opener: Opener { credentials: caller.credentials().clone(), pid: caller.pid() },
                text: Mutex::new(None),
                written: Mutex::default(),
            })),
            Kind::Link(_) | Kind::Magic(..) => Err(Errno::ELOOP),
        }
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Kind::Directory(dir) = &self.node.kind else { return Err(Errno::ENOTDIR) };
        let node = dir.lookup(name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(SyntheticInode { fs: self.fs.clone(), node }))
    }
    fn show_to(&self, caller: &dyn Caller, within: bool) -> Result<()> {
        match &self.node.kind {
            Kind::Directory(directory) => directory.show_to(caller, within),
            _ => Ok(()),
        }
    }
    fn readlink(&self, caller: &mut dyn Caller) -> Result<Vec<u8>> {
        match &self.node.kind {
            Kind::Link(text) | Kind::Magic(text, _) => {
                self.node.check_guard(caller)?;
                text(caller)
            }
            _ => Err(Errno::EINVAL),
        }
    }
    fn follow(&self, caller: &mut dyn Caller) -> Option<Result<Place>> {
        match &self.node.kind {
            Kind::Magic(_, lead) => Some(self.node.check_guard(caller).and_then(|()| lead())),
            _ => None,
        }
    }
    fn keeps_dentries(&self) -> bool {
        match &self.node.kind {
            Kind::Directory(directory) => self.node.process.is_none() && !directory.is_of_processes(),
            _ => true,
        }
    }
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        match &self.node.kind {
            Kind::Directory(dir) => child.is_some() && dir.still(name),
            _ => false,
        }
    }
}

/// An open synthetic file or directory.
struct SyntheticFile {
    node: Arc<Node>,
    opener: Opener,
    /// The text as made when reading began, until it was read to its end.
    text: Mutex<Option<Kept>>,
    written: Mutex<Option<Vec<u8>>>,
}

/// Bytes of text that all open files together keep between reads. Beyond, text is made for each read anew.
const KEPT: usize = 16 << 20;
static KEEPING: AtomicUsize = AtomicUsize::new(0);

/// Text that is kept between reads.
struct Kept(Vec<u8>);

impl Kept {
    /// The text back if too much is kept already.
    fn new(text: Vec<u8>) -> std::result::Result<Kept, Vec<u8>> {
        let room = |kept: usize| kept.checked_add(text.capacity()).filter(|kept| *kept <= KEPT);
        match KEEPING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Ok(Kept(text)),
            Err(_) => Err(text),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEEPING.fetch_sub(self.0.capacity(), Ordering::Relaxed);
    }
}

/// Copies the text at a position; the bytes copied.
fn copy_text(all: &[u8], buf: &mut [u8], pos: u64) -> usize {
    let rest = usize::try_from(pos).ok().and_then(|p| all.get(p..)).unwrap_or_default();
    let n = rest.len().min(buf.len());
    for (to, from) in buf.iter_mut().zip(rest) {
        *to = *from;
    }
    n
}

/// Who opened a file: what it shows and takes is decided by that, as by `f_cred` in Linux, whoever holds the
/// descriptor later.
#[derive(Clone)]
struct Opener {
    credentials: identity::Credentials,
    pid: i32,
}

impl Caller for Opener {
    fn credentials(&self) -> &identity::Credentials {
        &self.credentials
    }
    fn pid(&self) -> i32 {
        self.pid
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl FileOps for SyntheticFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: vfs::Whence) -> Result<u64> {
        match whence {
            // Generated files have no end to seek from, but for 0.
            vfs::Whence::End if offset == 0 => Ok(self.text.lock().as_ref().map_or(0, |t| t.0.len() as u64)),
            _ => Err(Errno::EINVAL),
        }
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let Kind::File(make, _) = &self.node.kind else { return Err(Errno::EISDIR) };
        let mut text = self.text.lock();
        if pos == 0 {
            *text = None;
        }
        if let Some(kept) = text.as_ref() {
            let n = copy_text(&kept.0, buf, pos);
            if n == 0 && !buf.is_empty() {
                *text = None;
            }
            return Ok(n);
        }
        let made = make(&mut self.opener.clone())?;
        let n = copy_text(&made, buf, pos);
        if n > 0 {
            *text = Kept::new(made).ok();
        }
        Ok(n)
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let Kind::File(_, Some(take)) = &self.node.kind else { return Err(Errno::EACCES) };
        take(&mut self.opener.clone(), buf)?;
        *self.written.lock() = None;
        *self.text.lock() = None;
        Ok(buf.len())
    }
    fn readdir(&self, file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let Kind::Directory(dir) = &self.node.kind else { return Err(Errno::ENOTDIR) };
        let mut at = pos;
        let dots: [&[u8]; 2] = [b".", b".."];
        let parent =
            file.place().parent().inode().and_then(|i| i.metadata()).map_or(self.node.ino, |m| m.ino);
        while let Some(name) = usize::try_from(at).ok().and_then(|i| dots.get(i)) {
            let ino = if at == 0 { self.node.ino } else { parent };
            if !sink(DirEntry { ino, next: at + 1, kind: DirentType::Dir, name }) {
                return Ok(at);
            }
            at += 1;
        }
        // A reader that closes descriptors or reaps processes on its way misses none of those that stay.
        let mut list: Vec<(u64, Child)> = (2..)
            .zip(dir.list_for(&self.opener))
            .map(|(index, entry)| (place_of(&entry.0).unwrap_or(index), entry))
            .collect();
        list.sort_unstable_by_key(|(place, _)| *place);
        for (place, (name, kind, ino)) in list.iter().filter(|(place, _)| *place >= pos) {
            if !sink(DirEntry { ino: *ino, next: place + 1, kind: *kind, name }) {
                break;
            }
            at = place + 1;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Kept};

    #[test]
    fn what_is_kept_between_reads_is_bounded() {
        let mut kept = Vec::new();
        while let Ok(text) = Kept::new(vec![0; 1 << 20]) {
            kept.push(text);
            assert!(kept.len() <= KEPT >> 20);
        }
        assert!(Kept::new(vec![0; KEPT]).is_err());
        kept.pop();
        assert!(Kept::new(vec![0; 1 << 20]).is_ok());
        drop(kept);
        assert!(Kept::new(vec![0; KEPT]).is_ok());
    }
}
