//! Trees, contents and limits.

use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFCHR, S_IFREG};
use vfs::{
    Caller, Dentry, DirEntry, FileOps, FileSystem, Inode, MapRequest, MapSource, Mount, NewNode, OpenFile,
    Place, RenameFlags, SetAttr, Whence,
};

use crate::{Options, TmpFile, TmpFs, memfd};

struct Nobody(Credentials);

impl Caller for Nobody {
    fn credentials(&self) -> &Credentials {
        &self.0
    }
    fn pid(&self) -> i32 {
        1
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn wrap(fs: &Arc<TmpFs>, inode: Arc<dyn Inode>, ops: Arc<dyn FileOps>) -> Arc<OpenFile> {
    let root = Dentry::root(fs.root().unwrap());
    let mount = Mount::detached(fs.clone(), root);
    let dentry = Dentry::detached(b"file", Arc::clone(&inode));
    OpenFile::new(Place { mount, dentry }, inode, ops, OpenFlags::RDWR)
}

fn open(fs: &Arc<TmpFs>, inode: &Arc<dyn Inode>) -> Arc<OpenFile> {
    let mut caller = Nobody(Credentials::root());
    let ops = Arc::clone(inode).open(OpenFlags::RDWR, &mut caller).unwrap();
    wrap(fs, Arc::clone(inode), ops)
}

fn write(file: &OpenFile, buf: &[u8], pos: u64) -> vfs::Result<usize> {
    file.ops().write(file, buf, pos)
}

fn read(file: &OpenFile, pos: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xaa; len];
    let count = file.ops().read(file, &mut buf, pos).unwrap();
    buf.truncate(count);
    buf
}

fn node(mode: u32) -> NewNode {
    NewNode { mode, uid: 5, gid: 6, rdev: 0 }
}

fn names(directory: &Arc<dyn Inode>, mut pos: u64, at_once: usize) -> Vec<String> {
    let fs = TmpFs::new(Options::default());
    let mut caller = Nobody(Credentials::root());
    let ops = Arc::clone(directory).open(OpenFlags::empty(), &mut caller).unwrap();
    let file = wrap(&fs, Arc::clone(directory), ops);
    let mut names = Vec::new();
    loop {
        let mut count = 0;
        let mut sink = |entry: DirEntry<'_>| {
            if count == at_once {
                return false;
            }
            count += 1;
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        };
        let next = file.ops().readdir(&file, pos, &mut sink).unwrap();
        if next == pos {
            return names;
        }
        pos = next;
    }
}

#[test]
fn trees() {
    let fs = TmpFs::new(Options::default());
    let root = fs.root().unwrap();
    let dir = root.mkdir(b"dir", &node(0o755)).unwrap();
    let file = dir.create(b"file", &node(S_IFREG | 0o640)).unwrap();
    assert_eq!(root.metadata().unwrap().nlink, 3);
    root.link(b"other", &file).unwrap();
    assert_eq!(file.metadata().unwrap().nlink, 2);
    assert_eq!(root.rmdir(b"dir"), Err(Errno::ENOTEMPTY));
    assert_eq!(root.unlink(b"dir"), Err(Errno::EISDIR));
    assert_eq!(root.rename(b"dir", &dir, b"x", RenameFlags::empty()), Err(Errno::EINVAL));
    dir.rename(b"file", &root, b"moved", RenameFlags::WHITEOUT).unwrap();
    let mark = dir.lookup(b"file").unwrap().metadata().unwrap();
    assert_eq!((mark.kind(), mark.rdev), (S_IFCHR, 0));
    root.rename(b"dir", &root, b"moved", RenameFlags::EXCHANGE).unwrap();
    assert!(Arc::ptr_eq(&root.lookup(b"dir").unwrap(), &file));
    assert!(Arc::ptr_eq(&root.lookup(b"moved").unwrap(), &dir));
    assert_eq!(root.rename(b"dir", &root, b"other", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    root.unlink(b"dir").unwrap();
    root.unlink(b"other").unwrap();
    assert_eq!(file.metadata().unwrap().nlink, 0);
    assert_eq!(root.lookup(b"other").err(), Some(Errno::ENOENT));
}

#[test]
fn positions_in_a_directory_stay() {
    let fs = TmpFs::new(Options::default());
    let root = fs.root().unwrap();
    for i in 0..10 {
        root.create(format!("{i}").as_bytes(), &node(S_IFREG)).unwrap();
    }
    root.unlink(b"3").unwrap();
    root.create(b"3", &node(S_IFREG)).unwrap();
    let expected = [".", "..", "0", "1", "2", "4", "5", "6", "7", "8", "9", "3"];
    assert_eq!(names(&root, 0, usize::MAX), expected);
    assert_eq!(names(&root, 0, 1), expected);
    assert_eq!(names(&root, 5, 3), expected[5..]);
}

#[test]
fn contents_stay_the_same_as_they_move() {
    let fs = TmpFs::new(Options::default());
    let inode = fs.root().unwrap().create(b"f", &node(S_IFREG)).unwrap();
    let file = open(&fs, &inode);
    write(&file, b"hello", 10).unwrap();
    assert_eq!(read(&file, 8, 100), b"\0\0hello");
    // Beyond what is kept here.
    write(&file, b"far", 1 << 20).unwrap();
    assert_eq!(read(&file, 8, 8), b"\0\0hello\0");
    let own = inode.as_any().downcast_ref::<crate::inode::TmpInode>().unwrap();
    assert_eq!(own.give_back_memfd(), Some(true));
    assert_eq!(read(&file, 8, 8), b"\0\0hello\0");
    assert_eq!(read(&file, (1 << 20) - 1, 10), b"\0far");
    let map = MapRequest { offset: 0, length: 4096, prot: 3, shared: true };
    let MapSource::Host { fd, .. } = file.ops().mmap(&file, &map).unwrap() else { panic!() };
    rustix::io::pwrite(&fd, b"HELLO", 10).unwrap();
    assert_eq!(read(&file, 8, 8), b"\0\0HELLO\0");
    assert_eq!(own.give_back_memfd(), Some(false));
    let private = MapRequest { shared: false, ..map };
    let MapSource::Host { fd, .. } = file.ops().mmap(&file, &private).unwrap() else { panic!() };
    assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
    inode.set_attributes(&SetAttr { size: Some(12), ..SetAttr::default() }).unwrap();
    assert_eq!(read(&file, 8, 8), b"\0\0HE");
}

#[test]
fn holes() {
    let fs = TmpFs::new(Options::default());
    let inode = fs.root().unwrap().create(b"f", &node(S_IFREG)).unwrap();
    let file = open(&fs, &inode);
    write(&file, b"x", 1 << 20).unwrap();
    let seek = |at, whence| file.ops().seek(&file, at, whence);
    assert_eq!(seek(0, Whence::Data), Ok(1 << 20));
    assert_eq!(seek(0, Whence::Hole), Ok(0));
    assert_eq!(seek(1 << 20, Whence::Hole), Ok((1 << 20) + 1));
    assert_eq!(seek(1 << 21, Whence::Data), Err(Errno::ENXIO));
    file.ops().fallocate(&file, 3, 1 << 20, 4096).unwrap();
    assert_eq!(seek(0, Whence::Data), Err(Errno::ENXIO));
    assert_eq!(inode.metadata().unwrap().blocks, 0);
    file.ops().fallocate(&file, 1, 0, 8192).unwrap();
    assert_eq!(inode.metadata().unwrap().blocks, 16);
}

#[test]
fn limits() {
    let fs = TmpFs::new(Options { size: Some(64 << 12), inodes: Some(3), ..Options::default() });
    let root = fs.root().unwrap();
    let inode = root.create(b"f", &node(S_IFREG)).unwrap();
    root.create(b"g", &node(S_IFREG)).unwrap();
    assert_eq!(root.create(b"h", &node(S_IFREG)).err(), Some(Errno::ENOSPC));
    root.unlink(b"g").unwrap();
    let file = open(&fs, &inode);
    let big = vec![1; 100 << 12];
    assert_eq!(write(&file, &big, 100), Ok((64 << 12) - 100));
    assert_eq!(write(&file, &big, 64 << 12), Err(Errno::ENOSPC));
    assert_eq!(write(&file, b"again", 0), Ok(5));
    assert_eq!(fs.statfs().unwrap().blocks_free, 0);
    root.unlink(b"f").unwrap();
    drop((file, inode));
    assert_eq!(fs.statfs().unwrap().blocks_free, 64);
    assert_eq!(fs.statfs().unwrap().files_free, 2);
}

#[test]
fn seals() {
    let fs = TmpFs::new(Options::default());
    let (inode, ops) = memfd(b"name", 2, 0, 0).unwrap();
    let file = wrap(&fs, inode, ops);
    let sealing: &TmpFile = file.ops_as().unwrap();
    write(&file, b"0123456789", 0).unwrap();
    sealing.add_seals(&file, 2 | 4).unwrap();
    assert_eq!(sealing.seals(), Ok(6));
    assert_eq!(write(&file, b"abc", 8), Ok(2));
    assert_eq!(write(&file, b"abc", 10), Err(Errno::EPERM));
    let shrink = SetAttr { size: Some(1), ..SetAttr::default() };
    assert_eq!(file.inode().set_attributes(&shrink), Err(Errno::EPERM));
    sealing.add_seals(&file, 8 | 1).unwrap();
    assert_eq!(write(&file, b"abc", 0), Err(Errno::EPERM));
    assert_eq!(sealing.add_seals(&file, 2), Err(Errno::EPERM));
    let map = MapRequest { offset: 0, length: 4096, prot: 3, shared: true };
    assert_eq!(file.ops().mmap(&file, &map).err(), Some(Errno::EPERM));
    assert!(file.ops().mmap(&file, &MapRequest { prot: 1, ..map }).is_ok());
    let (_, ops) = memfd(b"name", 0, 0, 0).unwrap();
    assert_eq!(ops.as_any().downcast_ref::<TmpFile>().unwrap().seals(), Ok(1));
}

#[test]
fn many_files_and_deep_trees() {
    let fs = TmpFs::new(Options::default());
    let root = fs.root().unwrap();
    for i in 0..50_000 {
        root.create(format!("{i}").as_bytes(), &node(S_IFREG)).unwrap();
    }
    assert_eq!(names(&root, 0, 1000).len(), 50_002);
    let mut at = root.clone();
    for _ in 0..50_000 {
        at = at.mkdir(b"d", &node(0o755)).unwrap();
    }
}

#[test]
fn more_large_files_than_descriptors() {
    let fs = TmpFs::new(Options::default());
    let root = fs.root().unwrap();
    let count = 200.min(rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(200));
    let data = vec![7; 70_000];
    for i in 0..count {
        let inode = root.create(format!("{i}").as_bytes(), &node(S_IFREG)).unwrap();
        write(&open(&fs, &inode), &data, 0).unwrap();
    }
    for i in 0..count {
        let inode = root.lookup(format!("{i}").as_bytes()).unwrap();
        assert_eq!(read(&open(&fs, &inode), 0, 70_000), data);
    }
}
