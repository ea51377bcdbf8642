//! Flags of mounts: mount(2), mount_setattr(2).

use std::ffi::CStr;
use std::{fs, ptr};

use libc::*;

use crate::harness::{End, Temp, c, cases, close, fails, fork, in_child, is_root, ok, skip, sys, wait};

cases!("mount": names_are_escaped, rules_of_access_times, attributes_change, attributes_of_a_tree, attribute_errors, attributes_want_root, tmpfs_takes_other_limits, tmpfs_refuses_other_limits);

const ATTR_RECURSIVE: u32 = 0x8000;

/// `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn setattr(dirfd: i32, path: &CStr, flags: u32, attr: Attr) -> Result<i64, i32> {
    let size = size_of::<Attr>();
    sys!(syscall(SYS_mount_setattr, dirfd, path.as_ptr(), flags, &raw const attr, size))
}

fn set(path: &CStr, set: u64, clear: u64) -> Result<i64, i32> {
    setattr(AT_FDCWD, path, 0, Attr { set, clear, ..Attr::default() })
}

fn mount_new(path: &CStr, flags: u64) {
    ok!(mount(c"t".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), flags, ptr::null()));
}

fn remount(path: &CStr, flags: u64) {
    let flags = flags | MS_REMOUNT | MS_BIND;
    ok!(mount(ptr::null(), path.as_ptr(), ptr::null(), flags, ptr::null()));
}

/// Options and optional fields of the topmost mount at a path, from /proc/self/mountinfo.
fn shown(path: &CStr) -> (String, String) {
    let path = path.to_str().expect("ASCII").trim_end_matches('/');
    let all = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = all.lines().rfind(|line| line.split(' ').nth(4) == Some(path)).expect("the mount");
    let (head, _) = line.split_once(" - ").expect("the separator");
    let words: Vec<&str> = head.split(' ').collect();
    let fields = words.iter().skip(6).map(|word| word.split(':').next().expect("a name")).collect();
    (words[5].to_owned(), fields)
}

fn options(path: &CStr) -> String {
    shown(path).0
}

/// Runs a body in a mount namespace of its own, with a directory to mount on.
pub(super) fn in_namespace(body: impl FnOnce(&Temp)) {
    if !is_root() {
        skip!("only root may mount");
    }
    let temp = Temp::new();
    let child = fork(|| {
        if sys!(unshare(CLONE_NEWNS)).is_err() {
            return 77;
        }
        ok!(mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), MS_REC | MS_PRIVATE, ptr::null()));
        body(&temp);
        0
    });
    match wait(child) {
        End::Exited(77) => skip!("needs mount namespaces"),
        end => assert_eq!(end, End::Exited(0)),
    }
}

/// What a field of mountinfo and mounts would end at is written in octal.
fn names_are_escaped() {
    in_namespace(|temp| {
        let point = temp.join("p #\\");
        ok!(mkdir(point.as_ptr(), 0o755));
        ok!(mount(c"a b#c\\".as_ptr(), point.as_ptr(), c"tmpfs".as_ptr(), 0, ptr::null()));
        let at = format!("{}/p\\040#\\134", temp.path().display());
        for (file, line) in [
            ("mountinfo", format!(" / {at} rw,relatime - tmpfs a\\040b\\043c\\134 rw")),
            ("mounts", format!("a\\040b\\043c\\134 {at} tmpfs rw,relatime")),
        ] {
            let all = fs::read_to_string(format!("/proc/self/{file}")).expect("readable");
            assert!(all.contains(&line), "{line} in {all}");
        }
    });
}

fn rules_of_access_times() {
    in_namespace(|temp| {
        let point = temp.join("");
        for (flags, wanted) in [
            (0, "rw,relatime"),
            (MS_NODIRATIME, "rw,nodiratime,relatime"),
            (MS_NODIRATIME | MS_STRICTATIME, "rw,nodiratime"),
            (MS_NODIRATIME | MS_NOATIME, "rw,noatime,nodiratime"),
            (MS_NOATIME | MS_RELATIME, "rw,noatime"),
            (MS_STRICTATIME, "rw"),
        ] {
            mount_new(&point, flags);
            assert_eq!(options(&point), wanted);
            // What says nothing of access times leaves the rule.
            remount(&point, MS_NOSUID);
            assert_eq!(options(&point), wanted.replace("rw", "rw,nosuid"));
            ok!(umount2(point.as_ptr(), MNT_DETACH));
        }
        mount_new(&point, MS_NOATIME);
        remount(&point, MS_NODIRATIME);
        assert_eq!(options(&point), "rw,nodiratime,relatime");
    });
}

fn attributes_change() {
    in_namespace(|temp| {
        let point = temp.join("");
        mount_new(&point, MS_NOSUID);
        let inner = c(&format!("{}/inner", temp.path().display()));
        assert_eq!(set(&point, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0), Ok(0));
        assert_eq!(options(&point), "ro,nosuid,nodev,relatime");
        fails!(EROFS, mkdir(inner.as_ptr(), 0o755));
        // Setting wins over clearing.
        let both = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
        assert_eq!(set(&point, MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID, both), Ok(0));
        assert_eq!(options(&point), "rw,nosuid,nodev,noexec,relatime");
        ok!(mkdir(inner.as_ptr(), 0o755));
        let atime = MOUNT_ATTR__ATIME;
        for (rule, wanted) in [
            (MOUNT_ATTR_NOATIME, ",noatime"),
            (MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODIRATIME, ",nodiratime"),
            (MOUNT_ATTR_RELATIME, ",nodiratime,relatime"),
        ] {
            assert_eq!(set(&point, rule, atime), Ok(0));
            assert_eq!(options(&point), format!("rw,nosuid,nodev,noexec{wanted}"));
        }
        // By descriptor, and the propagation.
        let fd = ok!(open(point.as_ptr(), O_PATH));
        let attr = Attr { propagation: MS_SHARED, ..Attr::default() };
        assert_eq!(setattr(fd, c"", AT_EMPTY_PATH as u32, attr), Ok(0));
        close(fd);
        assert_eq!(shown(&point).1, "shared");
        assert_eq!(setattr(AT_FDCWD, &point, 0, Attr { propagation: MS_PRIVATE, ..attr }), Ok(0));
        assert_eq!(shown(&point).1, "");
    });
}

fn attributes_of_a_tree() {
    in_namespace(|temp| {
        let point = temp.join("");
        mount_new(&point, 0);
        let inner = temp.join("inner");
        ok!(mkdir(inner.as_ptr(), 0o755));
        mount_new(&inner, MS_NOSUID);
        assert_eq!(set(&point, MOUNT_ATTR_NODEV, 0), Ok(0));
        assert_eq!(options(&inner), "rw,nosuid,relatime");
        let attr = Attr { set: MOUNT_ATTR_RDONLY, clear: MOUNT_ATTR_NODEV, ..Attr::default() };
        assert_eq!(setattr(AT_FDCWD, &point, ATTR_RECURSIVE, attr), Ok(0));
        assert_eq!(options(&point), "ro,relatime");
        assert_eq!(options(&inner), "ro,nosuid,relatime");
        let file = c(&format!("{}/file", inner.to_str().expect("ASCII")));
        fails!(EROFS, open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644));
    });
}

fn attribute_errors() {
    in_namespace(|temp| {
        let point = temp.join("");
        mount_new(&point, 0);
        let inner = temp.join("inner");
        ok!(mkdir(inner.as_ptr(), 0o755));
        let attr = Attr { set: MOUNT_ATTR_NODEV, ..Attr::default() };
        assert_eq!(setattr(AT_FDCWD, &inner, 0, attr), Err(EINVAL), "no mount point");
        assert_eq!(setattr(AT_FDCWD, &temp.join("missing"), 0, attr), Err(ENOENT));
        assert_eq!(setattr(AT_FDCWD, c"", 0, attr), Err(ENOENT));
        assert_eq!(setattr(-1, c"here", 0, attr), Err(EBADF));
        assert_eq!(setattr(AT_FDCWD, &point, 1, attr), Err(EINVAL));
        for (to_set, to_clear) in [
            (1 << 40, 0),
            (0, 1 << 40),
            (MOUNT_ATTR_NOATIME, 0),
            (MOUNT_ATTR_NOATIME, MOUNT_ATTR_NOATIME),
            (0, MOUNT_ATTR_STRICTATIME),
            (MOUNT_ATTR__ATIME, MOUNT_ATTR__ATIME),
            (0, MOUNT_ATTR_IDMAP),
        ] {
            assert_eq!(set(&point, to_set, to_clear), Err(EINVAL), "{to_set:#x} {to_clear:#x}");
        }
        for propagation in [MS_PRIVATE | MS_SHARED, MS_PRIVATE | MS_REC, MS_NODEV] {
            let attr = Attr { propagation, ..attr };
            assert_eq!(setattr(AT_FDCWD, &point, 0, attr), Err(EINVAL), "{propagation:#x}");
        }
        // Nothing to do: nothing is looked at.
        assert_eq!(setattr(AT_FDCWD, &temp.join("missing"), 0, Attr::default()), Ok(0));
        let call = |at: *const u64, size: usize| {
            sys!(syscall(SYS_mount_setattr, AT_FDCWD, point.as_ptr(), 0, at, size))
        };
        let mut long = [0u64; 513];
        long[0] = MOUNT_ATTR_NOEXEC;
        assert_eq!(call(long.as_ptr(), 31), Err(EINVAL));
        assert_eq!(call(long.as_ptr(), 4104), Err(E2BIG));
        assert_eq!(call(ptr::without_provenance(8), 32), Err(EFAULT));
        assert_eq!(call(long.as_ptr(), 4096), Ok(0));
        assert_eq!(options(&point), "rw,noexec,relatime");
        long[4] = 1;
        assert_eq!(call(long.as_ptr(), 40), Err(E2BIG));
    });
}

fn attributes_want_root() {
    if !is_root() {
        skip!("not root");
    }
    in_child(|| {
        ok!(setresuid(65534, 65534, 65534));
        assert_eq!(set(c"/", MOUNT_ATTR_NODEV, 0), Err(EPERM));
        assert_eq!(set(c"/", 0, 0), Err(EPERM));
    });
}

/// mount(2) of a tmpfs anew with these options.
fn remount_with(path: &CStr, data: &CStr) -> Result<i32, i32> {
    sys!(mount(ptr::null(), path.as_ptr(), ptr::null(), MS_REMOUNT, data.as_ptr().cast()))
}

fn mount_with(path: &CStr, data: &CStr) {
    ok!(mount(c"t".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, data.as_ptr().cast()));
}

fn tmpfs_takes_other_limits() {
    in_namespace(|temp| {
        let point = temp.join("");
        mount_with(&point, c"size=64k,nr_inodes=3,mode=755");
        let file = temp.path().join("file");
        let put = |size: usize| fs::write(&file, vec![1; size]).map_err(|e| e.raw_os_error());
        assert_eq!(put(64 << 10), Ok(()));
        assert_eq!(put(68 << 10), Err(Some(ENOSPC)));
        assert_eq!(remount_with(&point, c"size=128k"), Ok(0));
        assert_eq!(put(128 << 10), Ok(()));
        assert_eq!(put(132 << 10), Err(Some(ENOSPC)));
        let mut stat: statvfs = crate::harness::zeroed();
        ok!(statvfs(point.as_ptr(), &raw mut stat));
        assert_eq!((stat.f_blocks * stat.f_frsize, stat.f_files), (128 << 10, 3));

        let inner = |name: &str| fs::create_dir(temp.path().join(name)).map_err(|e| e.raw_os_error());
        assert_eq!((inner("a"), inner("b")), (Ok(()), Err(Some(ENOSPC))));
        assert_eq!(remount_with(&point, c"nr_inodes=4"), Ok(0));
        assert_eq!((inner("b"), inner("c")), (Ok(()), Err(Some(ENOSPC))));

        // The root keeps its mode and owner; nothing said is nothing changed.
        assert_eq!(remount_with(&point, c"mode=700,uid=5"), Ok(0));
        assert_eq!(remount_with(&point, c""), Ok(0));
        let mut root: stat = crate::harness::zeroed();
        ok!(libc::stat(point.as_ptr(), &raw mut root));
        assert_eq!((root.st_mode & 0o7777, root.st_uid), (0o755, 0));
        let all = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let line = all.lines().last().expect("a mount");
        assert!(line.contains("size=128k,nr_inodes=4,mode=755"), "{line}");

        // Flags change with them.
        let flags = MS_REMOUNT | MS_RDONLY;
        ok!(mount(ptr::null(), point.as_ptr(), ptr::null(), flags, c"size=1m".as_ptr().cast()));
        assert_eq!(put(1), Err(Some(EROFS)));
        ok!(mount(ptr::null(), point.as_ptr(), ptr::null(), MS_REMOUNT, ptr::null()));
        assert_eq!(put((1 << 20) + 1), Err(Some(ENOSPC)));
        assert_eq!(put(1 << 19), Ok(()));
    });
}

fn tmpfs_refuses_other_limits() {
    in_namespace(|temp| {
        let point = temp.join("");
        mount_with(&point, c"size=64k,nr_inodes=8");
        fs::write(temp.path().join("file"), [1; 8192]).expect("write");
        for wrong in
            [c"size=4k", c"nr_blocks=1", c"nr_inodes=1", c"colour=red", c"size=x", c"size=1m,colour=red"]
        {
            assert_eq!(remount_with(&point, wrong), Err(EINVAL), "{wrong:?}");
        }
        // What is refused changes nothing.
        let mut stat: statvfs = crate::harness::zeroed();
        ok!(statvfs(point.as_ptr(), &raw mut stat));
        assert_eq!((stat.f_blocks * stat.f_frsize, stat.f_files), (64 << 10, 8));
        assert_eq!(remount_with(&point, c"nr_blocks=2"), Ok(0));
        // Without a limit there is none to come.
        assert_eq!(remount_with(&point, c"size=0,nr_inodes=0"), Ok(0));
        assert_eq!(remount_with(&point, c"size=1m"), Err(EINVAL));
        assert_eq!(remount_with(&point, c"nr_inodes=100"), Err(EINVAL));
        let inner = temp.join("inner");
        ok!(mkdir(inner.as_ptr(), 0o755));
        assert_eq!(remount_with(&inner, c"size=0"), Err(EINVAL));
    });
}
