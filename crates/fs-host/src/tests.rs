//! Against a directory in the host's temporary folder.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use linux_abi::fs::DirentType;
use rustix::fs::{CWD, Mode, OFlags};
use vfs::{FileSystem, Inode, NewNode, RenameFlags, SetAttr};

use crate::{HostFs, Options};

/// A directory of the host that goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fs-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn mount(&self, options: Options) -> Arc<HostFs> {
        HostFs::new(open(&self.0), options).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(crate) fn with_proc() -> Options {
    Options { proc_self_fd: Some(Arc::new(open(Path::new("/proc/self/fd")))), ..Options::default() }
}

pub(crate) fn own(mode: u32) -> NewNode {
    NewNode {
        mode,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
    }
}

fn error<T>(result: vfs::Result<T>) -> linux_abi::Errno {
    result.err().unwrap()
}

#[test]
fn makes_finds_and_removes() {
    for options in [Options::default(), with_proc()] {
        let folder = Folder::new();
        let root = folder.mount(options).root().unwrap();
        let dir = root.mkdir(b"dir", &own(0o040750)).unwrap();
        let file = dir.create(b"file", &own(0o104640)).unwrap();
        assert_eq!(file.metadata().unwrap().mode, 0o104640);
        assert!(Arc::ptr_eq(&dir.lookup(b"file").unwrap(), &file));
        assert_eq!(error(dir.create(b"file", &own(0o100600))), linux_abi::Errno::EEXIST);
        dir.symlink(b"link", b"/etc/passwd", &own(0o120777)).unwrap();
        assert_eq!(dir.lookup(b"link").unwrap().metadata().unwrap().kind(), linux_abi::fs::S_IFLNK);
        file.set_attributes(&SetAttr { size: Some(5), mode: Some(0o600), ..SetAttr::default() }).unwrap();
        assert_eq!(fs::metadata(folder.path().join("dir/file")).unwrap().len(), 5);
        assert_eq!(error(root.rmdir(b"dir")), linux_abi::Errno::ENOTEMPTY);
        dir.unlink(b"file").unwrap();
        assert_eq!(file.metadata().unwrap().nlink, 0);
        dir.unlink(b"link").unwrap();
        root.rmdir(b"dir").unwrap();
        assert_eq!(error(root.lookup(b"dir")), linux_abi::Errno::ENOENT);
    }
}

/// Where files belong to another than the process that makes them, too, as in most containers.
#[test]
fn the_birth_of_a_file_is_its_last_change() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let root = folder.mount(with_proc()).root().unwrap();
    let foreign = |mode| NewNode { uid: 1000, gid: 1000, ..own(mode) };
    // The host's clock may tick in between.
    let together = (0..20).filter(|n| {
        let file = root.create(format!("file{n}").as_bytes(), &foreign(0o100640)).unwrap();
        let dir = root.mkdir(format!("dir{n}").as_bytes(), &foreign(0o040750)).unwrap();
        let link = root.symlink(format!("link{n}").as_bytes(), b"x", &foreign(0o120777)).unwrap();
        [(file, 0o100640), (dir, 0o040750), (link, 0o120777)].into_iter().skip(usize::from(*n == 0)).all(
            |(inode, mode)| {
                let metadata = inode.metadata().unwrap();
                assert_eq!((metadata.uid, metadata.gid, metadata.mode), (1000, 1000, mode));
                metadata.btime.is_none_or(|btime| btime == metadata.ctime)
            },
        )
    });
    assert!(together.count() > 10);
}

#[test]
fn hard_links_are_one_inode_and_renames_keep_it() {
    let folder = Folder::new();
    let root = folder.mount(with_proc()).root().unwrap();
    let file = root.create(b"a", &own(0o100644)).unwrap();
    root.link(b"b", &file).unwrap();
    assert!(Arc::ptr_eq(&root.lookup(b"b").unwrap(), &file));
    root.rename(b"a", &root, b"c", RenameFlags::empty()).unwrap();
    assert_eq!(error(root.lookup(b"a")), linux_abi::Errno::ENOENT);
    assert_eq!(error(root.rename(b"b", &root, b"c", RenameFlags::NOREPLACE)), linux_abi::Errno::EEXIST);
    let unnamed = root.tmpfile(&own(0o100600)).unwrap();
    root.link(b"named", &unnamed).unwrap();
    assert!(folder.path().join("named").exists());
}

#[test]
fn names_cannot_leave_the_tree() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("inside")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("inside/out")).unwrap();
    let fs = HostFs::new(open(&folder.path().join("inside")), with_proc()).unwrap();
    let root = fs.root().unwrap();
    for name in [&b".."[..], b"out/passwd", b"/etc/passwd", b".", b""] {
        assert!(root.lookup(name).is_err(), "{name:?}");
    }
    let link = root.lookup(b"out").unwrap();
    assert_eq!(error(link.lookup(b"passwd")), linux_abi::Errno::ENOTDIR);
}

#[test]
fn changes_from_outside_are_noticed() {
    let folder = Folder::new();
    let root = folder.mount(with_proc()).root().unwrap();
    let file = root.create(b"a", &own(0o100644)).unwrap();
    assert!(root.revalidate(b"a", Some(&file)));
    assert!(root.revalidate(b"b", None));
    fs::write(folder.path().join("new"), "x").unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("a")).unwrap();
    fs::write(folder.path().join("b"), "x").unwrap();
    assert!(!root.revalidate(b"a", Some(&file)));
    assert!(!root.revalidate(b"b", None));
}

#[test]
fn read_only_refuses_changes() {
    let folder = Folder::new();
    let root = folder.mount(Options { read_only: true, ..with_proc() }).root().unwrap();
    assert_eq!(error(root.create(b"a", &own(0o100644))), linux_abi::Errno::EROFS);
    assert_eq!(error(root.mkdir(b"a", &own(0o040755))), linux_abi::Errno::EROFS);
}

#[test]
fn page_cache_of_a_read_only_tree_is_not_told() {
    use linux_abi::{Errno, fs::OpenFlags};
    let folder = Folder::new();
    fs::write(folder.path().join("a"), [1; 5000]).unwrap();
    let look = |options| {
        let fs = HostFs::new(open(&folder.path().join("a")), options).unwrap();
        let file = crate::file::OpenRegular::new(fs.root_inode().unwrap(), OpenFlags::empty()).unwrap();
        vfs::FileOps::cache_stat(&file, 0, 0)
    };
    match look(with_proc()) {
        Err(Errno::ENOSYS) => {}
        seen => assert_eq!(seen.unwrap().cache, 2),
    }
    assert_eq!(look(Options { read_only: true, ..with_proc() }), Err(Errno::EPERM));
}

#[test]
fn extended_attributes_pass_through() {
    let folder = Folder::new();
    let root = folder.mount(with_proc()).root().unwrap();
    let file = root.create(b"a", &own(0o100644)).unwrap();
    if file.set_xattr(b"user.note", b"hello", 0) == Err(linux_abi::Errno::EOPNOTSUPP) {
        return;
    }
    assert_eq!(file.get_xattr(b"user.note").unwrap(), b"hello");
    assert_eq!(file.list_xattr().unwrap(), [b"user.note".to_vec()]);
    file.remove_xattr(b"user.note").unwrap();
    assert_eq!(error(file.get_xattr(b"user.note")), linux_abi::Errno::ENODATA);
}

#[test]
fn trusted_attributes_are_kept_among_ours() {
    let folder = Folder::new();
    let root = folder.mount(with_proc()).root().unwrap();
    let file = root.create(b"a", &own(0o100644)).unwrap();
    if file.set_xattr(b"trusted.note", b"hello", 0) == Err(linux_abi::Errno::EOPNOTSUPP) {
        return;
    }
    assert_eq!(file.get_xattr(b"trusted.note").unwrap(), b"hello");
    assert_eq!(file.list_xattr().unwrap(), [b"trusted.note".to_vec()]);
    assert_eq!(file.set_xattr(b"trusted.note", b"", 1), Err(linux_abi::Errno::EEXIST));
    // Nobody comes to them by the name that they have on the host.
    let ours = b"user.sallet.trusted.note";
    assert_eq!(error(file.get_xattr(ours)), linux_abi::Errno::ENODATA);
    assert_eq!(file.set_xattr(ours, b"", 0), Err(linux_abi::Errno::EPERM));
    assert_eq!(file.remove_xattr(ours), Err(linux_abi::Errno::ENODATA));
    file.remove_xattr(b"trusted.note").unwrap();
    assert_eq!(error(file.get_xattr(b"trusted.note")), linux_abi::Errno::ENODATA);
}

/// What the files of a directory say to be, `.` and `..` left out.
fn kinds(fs: &Arc<HostFs>, directory: &Arc<dyn Inode>) -> Vec<(Vec<u8>, DirentType)> {
    let own = crate::inode::host(directory).unwrap().shared();
    let ops: Arc<dyn vfs::FileOps> = Arc::new(crate::directory::OpenDirectory::new(own).unwrap());
    let dentry = vfs::Dentry::root(directory.clone());
    let place = vfs::Place { mount: vfs::Mount::detached(fs.clone(), dentry.clone()), dentry };
    let file = vfs::OpenFile::new(place, directory.clone(), ops, linux_abi::fs::OpenFlags::empty());
    let mut kinds = Vec::new();
    let mut sink = |entry: vfs::DirEntry<'_>| {
        kinds.push((entry.name.to_vec(), entry.kind));
        true
    };
    file.ops().readdir(&file, 0, &mut sink).unwrap();
    kinds.retain(|(name, _)| name != b"." && name != b"..");
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    kinds
}

#[test]
fn device_nodes_are_files_with_an_attribute() {
    use linux_abi::fs::{S_IFBLK, S_IFCHR, makedev};
    for options in [Options::default(), with_proc()] {
        let folder = Folder::new();
        let fs = folder.mount(options);
        let root = fs.root().unwrap();
        let dir = root.mkdir(b"dir", &own(0o040755)).unwrap();
        let null = NewNode { rdev: makedev(1, 3), ..own(S_IFCHR | 0o640) };
        let node = match root.create(b"null", &null) {
            // The temporary folder keeps no attributes.
            Err(linux_abi::Errno::EPERM) => return,
            made => made.unwrap(),
        };
        root.create(b"file", &own(0o100644)).unwrap();
        let known = |inode: &Arc<dyn Inode>| {
            let metadata = inode.metadata().unwrap();
            (inode.kind().unwrap(), metadata.mode, metadata.rdev, metadata.size)
        };
        assert_eq!(known(&node), (S_IFCHR, S_IFCHR | 0o640, makedev(1, 3), 0));
        node.set_attributes(&SetAttr { mode: Some(0o4600), ..SetAttr::default() }).unwrap();
        let (uid, gid) = (Some(null.uid), Some(null.gid));
        node.set_attributes(&SetAttr { uid, gid, ..SetAttr::default() }).unwrap();
        assert_eq!(
            node.set_attributes(&SetAttr { size: Some(1), ..SetAttr::default() }),
            Err(linux_abi::Errno::EINVAL)
        );
        root.rename(b"null", &dir, b"moved", RenameFlags::empty()).unwrap();
        // Found again, and by another mount of the folder that remembers nothing.
        for fs in [&fs, &folder.mount(with_proc())] {
            let root = fs.root().unwrap();
            let dir = root.lookup(b"dir").unwrap();
            assert_eq!(kinds(fs, &dir), [(b"moved".to_vec(), DirentType::Unknown)]);
            let found = dir.lookup(b"moved").unwrap();
            assert_eq!(known(&found), (S_IFCHR, S_IFCHR | 0o4600, makedev(1, 3), 0));
        }
        root.rename(b"file", &root, b"other", RenameFlags::WHITEOUT).unwrap();
        assert_eq!(known(&root.lookup(b"file").unwrap()), (S_IFCHR, S_IFCHR, 0, 0));
        assert_eq!(root.lookup(b"other").unwrap().kind().unwrap(), linux_abi::fs::S_IFREG);
        let disk = NewNode { rdev: makedev(8, 1), ..own(S_IFBLK | 0o660) };
        let disk = root.create(b"disk", &disk).unwrap();
        dir.link(b"linked", &disk).unwrap();
        assert_eq!(known(&dir.lookup(b"linked").unwrap()).0, S_IFBLK);
        // An empty file of that mode is still a file.
        let odd = root.create(b"odd", &own(0o107000)).unwrap();
        assert_eq!(known(&odd), (linux_abi::fs::S_IFREG, 0o107000, 0, 0));
        dir.unlink(b"moved").unwrap();
    }
}

#[test]
fn dropped_descriptors_are_found_again() {
    let folder = Folder::new();
    let fs = folder.mount(with_proc());
    let root = fs.root().unwrap();
    let mut at = root.clone();
    let mut held = Vec::new();
    for _ in 0..20 {
        at = at.mkdir(b"d", &own(0o040755)).unwrap();
        held.push(at.clone());
    }
    let file = at.create(b"f", &own(0o100644)).unwrap();
    for inode in held.iter().chain([&file]) {
        crate::inode::host(inode).unwrap().drop_descriptor();
    }
    assert_eq!(file.metadata().unwrap().mode, 0o100644);
    crate::inode::host(&file).unwrap().drop_descriptor();
    fs::remove_file(folder.path().join("d/".repeat(20)).join("f")).unwrap();
    assert_eq!(error(file.metadata()), linux_abi::Errno::ESTALE);
}

/// Uses a directory until it is watched.
pub(crate) fn watch(directory: &Arc<dyn Inode>) {
    let own = crate::inode::host(directory).unwrap();
    for _ in 0..1000 {
        directory.metadata().unwrap();
        if own.names.as_ref().unwrap().generation().is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("no watch was set");
}

#[test]
fn what_is_remembered_is_never_old() {
    let folder = Folder::new();
    let path = folder.path().join("a");
    let root = folder.mount(with_proc()).root().unwrap();
    watch(&root);
    let file = root.create(b"a", &own(0o100644)).unwrap();
    let remembered = || crate::inode::host(&file).unwrap().is_remembered();
    crate::catch_up();
    assert!(root.revalidate(b"a", Some(&file)) && root.revalidate(b"none", None));
    file.metadata().unwrap();
    assert!(remembered());
    fs::write(&path, "12345").unwrap();
    crate::catch_up();
    assert!(!remembered());
    assert_eq!(file.metadata().unwrap().size, 5);
    fs::write(&path, "123456").unwrap();
    // A few milliseconds, but on a machine as busy as it likes.
    for _ in 0..1000 {
        if file.metadata().unwrap().size == 6 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(file.metadata().unwrap().size, 6);
    // Our own change counts at once, in another tree of the same folder too.
    let twin = folder.mount(with_proc()).root().unwrap();
    watch(&twin);
    let other = twin.lookup(b"a").unwrap();
    assert!(twin.revalidate(b"a", Some(&other)));
    other.metadata().unwrap();
    file.set_attributes(&SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    assert_eq!((file.metadata().unwrap().size, other.metadata().unwrap().size), (2, 2));
    let before = root.metadata().unwrap().mtime;
    fs::write(folder.path().join("none"), "").unwrap();
    fs::rename(folder.path().join("none"), &path).unwrap();
    crate::catch_up();
    assert!(!root.revalidate(b"a", Some(&file)));
    assert!(root.revalidate(b"none", None));
    assert!(root.metadata().unwrap().mtime > before);
    root.unlink(b"a").unwrap();
    assert!(!twin.revalidate(b"a", Some(&other)));
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let folder = Folder::new();
    fs::write(folder.path().join("a"), "x").unwrap();
    let root = folder.mount(with_proc()).root().unwrap();
    let file = root.lookup(b"a").unwrap();
    for label in ["unwatched", "watched"] {
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            assert!(root.revalidate(b"a", Some(&file)));
            file.metadata().unwrap();
        }
        println!("{label}: {:?} each", start.elapsed() / 100_000);
        watch(&root);
    }
}

#[test]
fn directories_are_read_from_any_position() {
    let folder = Folder::new();
    for i in 0..2000 {
        fs::write(folder.path().join(format!("file-with-a-long-name-{i}")), "").unwrap();
    }
    let fs = folder.mount(with_proc());
    let inode = fs.root().unwrap();
    let own: Arc<crate::inode::HostInode> = fs.root_inode().unwrap();
    let ops: Arc<dyn vfs::FileOps> = Arc::new(crate::directory::OpenDirectory::new(own).unwrap());
    let dentry = vfs::Dentry::root(inode.clone());
    let mount = vfs::Mount::detached(fs.clone(), dentry.clone());
    let file =
        vfs::OpenFile::new(vfs::Place { mount, dentry }, inode, ops, linux_abi::fs::OpenFlags::empty());
    let read = |mut pos: u64, at_once: usize| {
        let mut seen = Vec::new();
        loop {
            let mut count = 0;
            let mut sink = |entry: vfs::DirEntry<'_>| {
                count += 1;
                if count > at_once {
                    return false;
                }
                seen.push((entry.name.to_vec(), entry.next));
                true
            };
            let next = file.ops().readdir(&file, pos, &mut sink).unwrap();
            if next == pos {
                return seen;
            }
            pos = next;
        }
    };
    let all = read(0, usize::MAX);
    assert_eq!(all.len(), 2002);
    assert_eq!(read(0, 7), all);
    assert_eq!(read(all[499].1, 1000), all[500..]);
    fs::remove_file(folder.path().join("file-with-a-long-name-5")).unwrap();
    assert_eq!(read(0, usize::MAX).len(), 2001);
}

/// The names of a directory, read from its start.
fn names(fs: &Arc<HostFs>) -> Vec<Vec<u8>> {
    let own = fs.root_inode().unwrap();
    let ops: Arc<dyn vfs::FileOps> = Arc::new(crate::directory::OpenDirectory::new(own).unwrap());
    let dentry = vfs::Dentry::root(fs.root().unwrap());
    let place = vfs::Place { mount: vfs::Mount::detached(fs.clone(), dentry.clone()), dentry };
    let file = vfs::OpenFile::new(place, fs.root().unwrap(), ops, linux_abi::fs::OpenFlags::empty());
    let mut names = Vec::new();
    let mut pos = 0;
    loop {
        let next = file.ops().readdir(&file, pos, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        });
        if next == Ok(pos) {
            names.sort();
            return names;
        }
        pos = next.unwrap();
    }
}

#[test]
fn a_known_listing_is_never_stale() {
    let folder = Folder::new();
    let fs = folder.mount(with_proc());
    let root = fs.root().unwrap();
    watch(&root);
    let inode = fs.root_inode().unwrap();
    assert!(inode.known_listing().is_none());
    assert_eq!(names(&fs), [&b"."[..], b".."]);
    assert!(inode.known_listing().is_some());
    // By ourselves: at once.
    root.create(b"a", &own(0o100644)).unwrap();
    assert!(inode.known_listing().is_none());
    assert_eq!(names(&fs), [&b"."[..], b"..", b"a"]);
    // The event of our own change is still to come.
    crate::catch_up();
    names(&fs);
    // Contents are not names.
    fs::write(folder.path().join("a"), "more").unwrap();
    crate::catch_up();
    assert!(inode.known_listing().is_some());
    // By others.
    fs::write(folder.path().join("b"), "").unwrap();
    crate::catch_up();
    assert_eq!(names(&fs), [&b"."[..], b"..", b"a", b"b"]);
    fs::rename(folder.path().join("b"), folder.path().join("c")).unwrap();
    fs::remove_file(folder.path().join("a")).unwrap();
    crate::catch_up();
    assert_eq!(names(&fs), [&b"."[..], b"..", b"c"]);
    root.unlink(b"c").unwrap();
    assert_eq!(names(&fs), [&b"."[..], b".."]);
}
