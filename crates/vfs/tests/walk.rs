//! Path walk over tmpfs.

mod support;

use linux_abi::Errno;
use vfs::WalkFlags;

use support::World;

fn error<T>(result: vfs::Result<T>) -> Errno {
    result.err().expect("it worked")
}

#[test]
fn dots_and_slashes_lead_nowhere_new() {
    let mut w = World::new();
    w.mkdir("/a").unwrap();
    w.mkdir("/a/b").unwrap();
    assert_eq!(w.path("//a/./b/../b//"), "/a/b");
    assert_eq!(w.path("/../.."), "/");
    w.create("/a/file").unwrap();
    assert_eq!(error(w.resolve("/a/file/")), Errno::ENOTDIR);
    assert_eq!(error(w.resolve("/a/file/x")), Errno::ENOTDIR);
    assert_eq!(error(w.resolve("/a/missing/x")), Errno::ENOENT);
    assert_eq!(error(w.resolve("")), Errno::ENOENT);
    assert_eq!(error(w.resolve(&"x".repeat(256))), Errno::ENAMETOOLONG);
}

#[test]
fn links_are_followed_up_to_forty() {
    let mut w = World::new();
    w.mkdir("/dir").unwrap();
    w.create("/dir/file").unwrap();
    w.symlink("dir", "/one").unwrap();
    w.symlink("one/../dir/file", "/two").unwrap();
    assert_eq!(w.path("/one/file"), "/dir/file");
    assert_eq!(w.path("/two"), "/dir/file");
    assert_eq!(w.path("/one/"), "/dir");
    let link = w.resolve_with("/one", WalkFlags::empty()).unwrap();
    assert_eq!(link.path(&w.root), b"/one");
    assert_eq!(error(w.resolve("/two/")), Errno::ENOTDIR);
    w.symlink("loop", "/loop").unwrap();
    assert_eq!(error(w.resolve("/loop")), Errno::ELOOP);
    let mut target = "dir".to_owned();
    for i in 0..41 {
        w.symlink(&target, &format!("/l{i}")).unwrap();
        target = format!("l{i}");
    }
    assert_eq!(w.path("/l39"), "/dir");
    assert_eq!(error(w.resolve("/l40")), Errno::ELOOP);
}

#[test]
fn openat2_keeps_a_walk_inside() {
    let mut w = World::new();
    w.mkdir("/jail").unwrap();
    w.mkdir("/jail/sub").unwrap();
    w.create("/secret").unwrap();
    w.symlink("/secret", "/jail/absolute").unwrap();
    w.symlink("../secret", "/jail/up").unwrap();
    w.create("/jail/secret").unwrap();
    w.cwd = w.resolve("/jail").unwrap();
    let beneath = WalkFlags::FOLLOW | WalkFlags::BENEATH;
    assert_eq!(error(w.resolve_with("../secret", beneath)), Errno::EXDEV);
    assert_eq!(error(w.resolve_with("/secret", beneath)), Errno::EXDEV);
    assert_eq!(error(w.resolve_with("absolute", beneath)), Errno::EXDEV);
    assert_eq!(error(w.resolve_with("up", beneath)), Errno::EXDEV);
    assert!(w.resolve_with("sub/../secret", beneath).is_ok());
    let in_root = WalkFlags::FOLLOW | WalkFlags::IN_ROOT;
    for path in ["absolute", "up", "/secret", "../../secret"] {
        let place = w.resolve_with(path, in_root).unwrap();
        assert_eq!(place.path(&w.root), b"/jail/secret");
    }
    let plain = WalkFlags::FOLLOW | WalkFlags::NO_SYMLINKS;
    assert_eq!(error(w.resolve_with("up", plain)), Errno::ELOOP);
}

#[test]
fn search_permission_is_asked_on_each_directory() {
    let mut w = World::new();
    w.mkdir("/open").unwrap();
    let closed = w.mkdir("/closed").unwrap();
    w.create("/closed/file").unwrap();
    vfs::ops::attributes::chmod(&w.user, &closed, 0o700).unwrap();
    w.become_user(1000);
    assert!(w.resolve("/open").is_ok());
    assert!(w.resolve("/closed").is_ok());
    assert_eq!(error(w.resolve("/closed/file")), Errno::EACCES);
}

#[test]
fn mounts_are_crossed_in_both_directions() {
    let mut w = World::new();
    w.mkdir("/mnt").unwrap();
    w.create("/mnt/hidden").unwrap();
    let point = w.resolve("/mnt").unwrap();
    w.namespace.mount(support::tmpfs(), &point, vfs::MountFlags::empty(), b"none").unwrap();
    assert_eq!(error(w.resolve("/mnt/hidden")), Errno::ENOENT);
    w.mkdir("/mnt/inner").unwrap();
    assert_eq!(w.path("/mnt/inner"), "/mnt/inner");
    assert_eq!(w.path("/mnt/inner/../.."), "/");
    assert_eq!(error(w.resolve_with("/mnt", WalkFlags::NO_XDEV)), Errno::EXDEV);
    assert_eq!(error(w.rmdir("/mnt")), Errno::EBUSY);
    // A bind of the inner directory elsewhere.
    w.mkdir("/bind").unwrap();
    let (from, to) = (w.resolve("/mnt/inner").unwrap(), w.resolve("/bind").unwrap());
    w.create("/mnt/inner/file").unwrap();
    w.namespace.bind(&from, &to, false).unwrap();
    assert_eq!(w.path("/bind/file"), "/bind/file");
    assert_eq!(w.path("/bind/.."), "/");
    let info = String::from_utf8(w.namespace.mountinfo(&w.root)).unwrap();
    assert!(info.contains(" /inner /bind rw"), "{info}");
    drop((from, to, point));
    let mount = w.resolve("/mnt").unwrap().mount;
    w.namespace.umount(&mount, false, 1).unwrap();
    assert!(w.resolve("/mnt/hidden").is_ok());
}

#[test]
fn pivot_root_swaps_the_trees() {
    let mut w = World::new();
    w.mkdir("/new").unwrap();
    let point = w.resolve("/new").unwrap();
    w.namespace.mount(support::tmpfs(), &point, vfs::MountFlags::empty(), b"none").unwrap();
    w.mkdir("/new/old").unwrap();
    let (new, old) = (w.resolve("/new").unwrap(), w.resolve("/new/old").unwrap());
    w.namespace.pivot_root(&new, &old).unwrap();
    w.root = new.clone();
    w.cwd = new;
    assert_eq!(w.path("/old/new"), "/old/new");
    assert_eq!(w.path("/old/.."), "/");
}

#[test]
fn a_new_namespace_goes_its_own_way() {
    let mut w = World::new();
    w.mkdir("/mnt").unwrap();
    let mut places = [w.root.clone()];
    let copy = w.namespace.duplicate(&mut places).unwrap();
    let point = w.resolve("/mnt").unwrap();
    w.namespace.mount(support::tmpfs(), &point, vfs::MountFlags::empty(), b"none").unwrap();
    w.mkdir("/mnt/here").unwrap();
    let [root] = places;
    let mut other = World { namespace: copy, cwd: root.clone(), root, user: support::User(w.user.0.clone()) };
    assert_eq!(error(other.resolve("/mnt/here")), Errno::ENOENT);
    assert!(w.resolve("/mnt/here").is_ok());
}
