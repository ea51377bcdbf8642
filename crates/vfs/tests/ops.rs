//! The path operations over tmpfs.

mod support;

use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use vfs::{MountFlags, ops};

use support::World;

fn error<T>(result: vfs::Result<T>) -> Errno {
    result.err().expect("it worked")
}

#[test]
fn open_creates_and_excludes() {
    let mut w = World::new();
    let create = OpenFlags::CREAT | OpenFlags::RDWR;
    assert_eq!(error(w.open("/file", OpenFlags::empty(), 0)), Errno::ENOENT);
    let file = w.open("/file", create | OpenFlags::EXCL, 0o640).unwrap();
    assert_eq!(file.inode().metadata().unwrap().mode & 0o7777, 0o640);
    assert_eq!(file.ops().write(&file, b"hello", 0), Ok(5));
    assert_eq!(error(w.open("/file", create | OpenFlags::EXCL, 0o640)), Errno::EEXIST);
    assert_eq!(error(w.open("/file", OpenFlags::DIRECTORY, 0)), Errno::ENOTDIR);
    assert_eq!(error(w.open("/", OpenFlags::RDWR, 0)), Errno::EISDIR);
    assert_eq!(error(w.open("/new/", create, 0)), Errno::EISDIR);
    w.open("/file", OpenFlags::TRUNC | OpenFlags::WRONLY, 0).unwrap();
    assert_eq!(file.inode().metadata().unwrap().size, 0);
}

#[test]
fn open_creates_what_a_dangling_link_names() {
    let mut w = World::new();
    w.symlink("target", "/link").unwrap();
    let create = OpenFlags::CREAT | OpenFlags::RDWR;
    assert_eq!(error(w.open("/link", create | OpenFlags::EXCL, 0o600)), Errno::EEXIST);
    assert_eq!(error(w.open("/link", create | OpenFlags::NOFOLLOW, 0o600)), Errno::ELOOP);
    w.open("/link", create, 0o600).unwrap();
    assert_eq!(w.path("/link"), "/target");
}

#[test]
fn removed_names_show_as_deleted() {
    let mut w = World::new();
    let file = w.create("/file").unwrap();
    w.unlink("/file").unwrap();
    assert_eq!(error(w.resolve("/file")), Errno::ENOENT);
    assert_eq!(file.place().path(&w.root), b"/file (deleted)");
    w.create("/file").unwrap();
    assert!(w.resolve("/file").is_ok());
    let dir = w.mkdir("/dir").unwrap();
    w.rmdir("/dir").unwrap();
    w.cwd = dir;
    assert_eq!(error(w.create("inside")), Errno::ENOENT);
    assert_eq!(error(w.rmdir(".")), Errno::EINVAL);
    assert_eq!(error(w.rmdir("/..")), Errno::ENOTEMPTY);
    assert_eq!(error(w.unlink("/")), Errno::EISDIR);
}

#[test]
fn rename_moves_the_cached_names() {
    let mut w = World::new();
    w.mkdir("/a").unwrap();
    w.mkdir("/a/deep").unwrap();
    let file = w.create("/a/deep/file").unwrap();
    w.mkdir("/b").unwrap();
    w.rename("/a/deep", "/b/moved").unwrap();
    assert_eq!(file.place().path(&w.root), b"/b/moved/file");
    assert_eq!(error(w.resolve("/a/deep")), Errno::ENOENT);
    assert!(w.resolve("/b/moved/file").is_ok());
    let old = w.create("/x").unwrap();
    w.create("/y").unwrap();
    w.rename("/y", "/x").unwrap();
    assert!(old.place().dentry.is_deleted());
    assert_eq!(error(w.resolve("/y")), Errno::ENOENT);
    assert_eq!(error(w.rename("/b", "/b/moved/b")), Errno::EINVAL);
    assert_eq!(error(w.rename("/b/moved", "/b")), Errno::ENOTEMPTY);
    assert_eq!(error(w.rename("/x", "/b")), Errno::EISDIR);
    assert_eq!(error(w.rename("/b", "/x")), Errno::ENOTDIR);
    assert_eq!(error(w.rename("/x", "/z/")), Errno::ENOTDIR);
}

#[test]
fn exchange_swaps_two_names() {
    let mut w = World::new();
    w.mkdir("/dir").unwrap();
    let file = w.create("/file").unwrap();
    let (from, to) = (w.parent("/file").unwrap(), w.parent("/dir").unwrap());
    ops::rename::rename(&w.user, &from, &to, vfs::RenameFlags::EXCHANGE).unwrap();
    assert_eq!(file.place().path(&w.root), b"/dir");
    assert!(w.create("/file/inner").is_ok());
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let mut w = World::new();
    w.create("/file").unwrap();
    w.root.mount.set_flags(MountFlags::RDONLY);
    assert_eq!(error(w.create("/other")), Errno::EROFS);
    assert!(w.open("/file", OpenFlags::empty(), 0).is_ok());
    assert_eq!(error(w.open("/file", OpenFlags::RDWR, 0)), Errno::EROFS);
    assert_eq!(error(w.mkdir("/dir")), Errno::EROFS);
    assert_eq!(error(w.mkdir("/file")), Errno::EEXIST);
    assert_eq!(error(w.unlink("/file")), Errno::EROFS);
    let place = w.resolve("/file").unwrap();
    assert_eq!(ops::attributes::chmod(&w.user, &place, 0), Err(Errno::EROFS));
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    let mut w = World::new();
    let dir = w.mkdir("/dir").unwrap();
    ops::attributes::chown(&w.user, &dir, None, Some(50)).unwrap();
    ops::attributes::chmod(&w.user, &dir, 0o2777).unwrap();
    w.become_user(1000);
    let file = w.create("/dir/file").unwrap().inode().metadata().unwrap();
    assert_eq!((file.uid, file.gid), (1000, 50));
    let sub = w.mkdir("/dir/sub").unwrap().inode().unwrap().metadata().unwrap();
    assert_eq!((sub.gid, sub.mode & 0o2000), (50, 0o2000));
}

#[test]
fn links_to_one_file_share_it() {
    let mut w = World::new();
    w.create("/one").unwrap();
    let (old, parent) = (w.resolve("/one").unwrap(), w.parent("/two").unwrap());
    ops::create::link(&w.user, &old, &parent).unwrap();
    let two = w.resolve("/two").unwrap().inode().unwrap().metadata().unwrap();
    assert_eq!(two.nlink, 2);
    // Both names are one file: rename does nothing.
    w.rename("/one", "/two").unwrap();
    assert!(w.resolve("/one").is_ok());
}

#[test]
fn a_user_changes_only_what_is_his() {
    let mut w = World::new();
    let file = w.create("/file").unwrap();
    w.become_user(1000);
    let place = file.place();
    assert_eq!(ops::attributes::chmod(&w.user, place, 0o777), Err(Errno::EPERM));
    assert_eq!(ops::attributes::chown(&w.user, place, Some(1000), None), Err(Errno::EPERM));
    assert_eq!(error(w.create("/mine")), Errno::EACCES);
    assert_eq!(error(w.unlink("/file")), Errno::EACCES);
    assert_eq!(error(w.open("/file", OpenFlags::WRONLY, 0)), Errno::EACCES);
    assert!(w.open("/file", OpenFlags::empty(), 0).is_ok());
}

#[test]
fn an_unnamed_file_gets_a_name_by_link() {
    let mut w = World::new();
    let file = w.open("/", OpenFlags::TMPFILE | OpenFlags::RDWR, 0o600).unwrap();
    assert!(file.place().path(&w.root).ends_with(b" (deleted)"));
    let parent = w.parent("/named").unwrap();
    ops::create::link(&w.user, file.place(), &parent).unwrap();
    assert!(w.resolve("/named").is_ok());
}

#[test]
fn a_deep_tree_is_let_go_without_recursion() {
    let mut w = World::new();
    let top = w.cwd.clone();
    for _ in 0..20_000 {
        w.mkdir("d").unwrap();
        w.cwd = w.resolve("d").unwrap();
    }
    w.cwd = top;
    vfs::dentry_cache::shrink();
}
