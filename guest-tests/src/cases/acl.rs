//! Access control lists: acl(5), through their attributes.

use std::ffi::CStr;

use libc::*;

use crate::harness::{Temp, cases, close, fails, file, in_child, is_root, ok, skip, sys, zeroed};

cases!("acl": values, refused_values, mode_and_mask, named_user, groups, default_list, default_of_a_file, removal,
    directory_entries, set_id_bit);

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, allowed, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&allowed.to_le_bytes());
        value.extend_from_slice(&(if *tag & (USER | GROUP) != 0 { *id } else { u32::MAX }).to_le_bytes());
    }
    value
}

/// `u::rw-,u:USER:ALLOWED,g::r--,m::MASK,o::---`
fn for_user(user: u32, allowed: u16, mask: u16) -> Vec<u8> {
    value(&[(USER_OBJ, 6, 0), (USER, allowed, user), (GROUP_OBJ, 4, 0), (MASK, mask, 0), (OTHER, 0, 0)])
}

/// Lets a user read and execute what others may execute alone.
pub(super) fn let_read(path: &CStr, user: u32) {
    let list = value(&[(USER_OBJ, 7, 0), (USER, 5, user), (GROUP_OBJ, 1, 0), (MASK, 5, 0), (OTHER, 1, 0)]);
    assert_eq!(set(path, ACCESS, &list), Ok(0));
}

fn set(path: &CStr, name: &CStr, value: &[u8]) -> Result<i64, i32> {
    sys!(setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)).map(i64::from)
}

fn get(path: &CStr, name: &CStr) -> Result<Vec<u8>, i32> {
    let mut value = vec![0_u8; 1024];
    let length = sys!(getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()))?;
    value.truncate(usize::try_from(length).expect("a length"));
    Ok(value)
}

fn mode(path: &CStr) -> u32 {
    let mut status: stat = zeroed();
    ok!(stat(path.as_ptr(), &mut status));
    status.st_mode & 0o7777
}

/// Runs the body as a user in these groups, who may search the folder.
fn as_user(temp: &Temp, uid: u32, groups: &[u32], body: impl FnOnce()) {
    ok!(chmod(temp.join("").as_ptr(), 0o755));
    in_child(|| {
        ok!(setgroups(groups.len(), groups.as_ptr()));
        ok!(setresgid(groups[0], groups[0], groups[0]));
        ok!(setresuid(uid, uid, uid));
        body();
    });
}

fn may(path: &CStr, want: i32) -> bool {
    let by_access = sys!(access(path.as_ptr(), want)).is_ok();
    let flags = match want {
        R_OK => O_RDONLY,
        W_OK => O_WRONLY,
        _ => return by_access,
    };
    let opened = sys!(open(path.as_ptr(), flags));
    assert_eq!(opened.is_ok(), by_access);
    if let Ok(fd) = opened {
        close(fd);
    }
    by_access
}

fn values() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    assert_eq!(get(&path, ACCESS), Err(ENODATA));
    assert_eq!(set(&path, ACCESS, &for_user(7, 6, 7)), Ok(0));
    assert_eq!(get(&path, ACCESS), Ok(for_user(7, 6, 7)));
    let mut names = [0_u8; 256];
    let length = ok!(listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()));
    let listed = names[..length as usize].split(|b| *b == 0).any(|name| name == ACCESS.to_bytes());
    assert!(listed);
    // What the mode says alone is not kept.
    assert_eq!(set(&path, ACCESS, &value(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 2, 0), (OTHER, 1, 0)])), Ok(0));
    assert_eq!(get(&path, ACCESS), Err(ENODATA));
    assert_eq!(mode(&path), 0o621);
    let link = temp.join("l");
    ok!(symlink(c"f".as_ptr(), link.as_ptr()));
    fails!(EOPNOTSUPP, lsetxattr(link.as_ptr(), ACCESS.as_ptr(), for_user(7, 6, 7).as_ptr().cast(), 44, 0));
}

fn refused_values() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    let good = for_user(7, 6, 7);
    assert_eq!(set(&path, ACCESS, &good[..43]), Err(EINVAL));
    assert_eq!(set(&path, ACCESS, &good[..36]), Err(EINVAL));
    assert_eq!(set(&path, ACCESS, &[1, 0, 0, 0]), Err(EOPNOTSUPP));
    assert_eq!(set(&path, ACCESS, &[2, 0, 0]), Err(EINVAL));
    // No mask; out of order; twice; more than rwx.
    let refused = [
        value(&[(USER_OBJ, 6, 0), (USER, 6, 7), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]),
        value(&[(GROUP_OBJ, 4, 0), (USER_OBJ, 6, 0), (OTHER, 0, 0)]),
        value(&[(USER_OBJ, 6, 0), (USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]),
        value(&[(USER_OBJ, 8, 0), (GROUP_OBJ, 4, 0), (OTHER, 0, 0)]),
    ];
    for value in refused {
        assert_eq!(set(&path, ACCESS, &value), Err(EINVAL), "{value:?}");
    }
    if is_root() {
        as_user(&temp, 7, &[7], || assert_eq!(set(&path, ACCESS, &good), Err(EPERM)));
    }
}

fn mode_and_mask() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    assert_eq!(set(&path, ACCESS, &for_user(7, 7, 5)), Ok(0));
    assert_eq!(mode(&path), 0o650);
    ok!(chmod(path.as_ptr(), 0o4621));
    let list = value(&[(USER_OBJ, 6, 0), (USER, 7, 7), (GROUP_OBJ, 4, 0), (MASK, 2, 0), (OTHER, 1, 0)]);
    assert_eq!(get(&path, ACCESS), Ok(list));
    assert_eq!(mode(&path), 0o4621);
}

fn named_user() {
    if !is_root() {
        skip!("needs root");
    }
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    assert_eq!(set(&path, ACCESS, &for_user(1234, 7, 6)), Ok(0));
    as_user(&temp, 1234, &[99], || {
        assert!(may(&path, R_OK) && may(&path, W_OK) && !may(&path, X_OK));
    });
    // Who is not named falls to the others.
    as_user(&temp, 1235, &[99], || assert!(!may(&path, R_OK)));
    // Named with less than the others have.
    let list = value(&[(USER_OBJ, 6, 0), (USER, 0, 1234), (GROUP_OBJ, 4, 0), (MASK, 4, 0), (OTHER, 4, 0)]);
    assert_eq!(set(&path, ACCESS, &list), Ok(0));
    as_user(&temp, 1234, &[99], || assert!(!may(&path, R_OK)));
    as_user(&temp, 1235, &[99], || assert!(may(&path, R_OK)));
    // The owner's class is the mode's.
    ok!(chown(path.as_ptr(), 1234, 0));
    as_user(&temp, 1234, &[99], || assert!(may(&path, R_OK) && may(&path, W_OK)));
}

fn groups() {
    if !is_root() {
        skip!("needs root");
    }
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    ok!(chown(path.as_ptr(), 0, 50));
    let list = value(&[
        (USER_OBJ, 6, 0),
        (GROUP_OBJ, 4, 0),
        (GROUP, 2, 60),
        (GROUP, 7, 70),
        (MASK, 6, 0),
        (OTHER, 7, 0),
    ]);
    assert_eq!(set(&path, ACCESS, &list), Ok(0));
    as_user(&temp, 1234, &[50], || assert!(may(&path, R_OK) && !may(&path, W_OK)));
    as_user(&temp, 1234, &[60], || assert!(!may(&path, R_OK) && may(&path, W_OK)));
    // Not both at once by two groups.
    as_user(&temp, 1234, &[50, 60], || {
        assert!(may(&path, R_OK) && may(&path, W_OK));
        fails!(EACCES, access(path.as_ptr(), R_OK | W_OK));
    });
    as_user(&temp, 1234, &[70], || {
        assert!(sys!(access(path.as_ptr(), R_OK | W_OK)).is_ok() && !may(&path, X_OK));
    });
    as_user(&temp, 1234, &[80], || assert!(may(&path, R_OK) && may(&path, X_OK)));
}

fn default_list() {
    let temp = Temp::new();
    ok!(umask(0o077));
    let dir = temp.join("d");
    ok!(mkdir(dir.as_ptr(), 0o755));
    let list = value(&[(USER_OBJ, 7, 0), (USER, 6, 7), (GROUP_OBJ, 5, 0), (MASK, 7, 0), (OTHER, 5, 0)]);
    assert_eq!(set(&dir, DEFAULT, &list), Ok(0));
    assert_eq!(get(&dir, DEFAULT), Ok(list.clone()));
    assert_eq!((get(&dir, ACCESS), mode(&dir)), (Err(ENODATA), 0o700));
    // The umask does not count there.
    let path = file(&temp, "d/f", b"x");
    assert_eq!(mode(&path), 0o664);
    let own = value(&[(USER_OBJ, 6, 0), (USER, 6, 7), (GROUP_OBJ, 5, 0), (MASK, 6, 0), (OTHER, 4, 0)]);
    assert_eq!((get(&path, ACCESS), get(&path, DEFAULT)), (Ok(own), Err(ENODATA)));
    let inner = temp.join("d/d");
    ok!(mkdir(inner.as_ptr(), 0o750));
    assert_eq!((get(&inner, DEFAULT), mode(&inner)), (Ok(list), 0o750));
    let fifo = temp.join("d/p");
    ok!(mkfifo(fifo.as_ptr(), 0o600));
    assert_eq!(mode(&fifo), 0o600);
    let unnamed = sys!(open(dir.as_ptr(), O_TMPFILE | O_RDWR, 0o666));
    if let Ok(fd) = unnamed {
        let mut status: stat = zeroed();
        ok!(fstat(fd, &mut status));
        assert_eq!(status.st_mode & 0o7777, 0o664);
        close(fd);
    }
    // A plain one replaces the umask, too.
    let plain = value(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (OTHER, 4, 0)]);
    assert_eq!(set(&dir, DEFAULT, &plain), Ok(0));
    let path = file(&temp, "d/g", b"x");
    assert_eq!((get(&path, ACCESS), mode(&path)), (Err(ENODATA), 0o644));
    ok!(umask(0o022));
}

fn default_of_a_file() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    assert_eq!(set(&path, DEFAULT, &for_user(7, 6, 7)), Err(EACCES));
    assert_eq!(set(&path, DEFAULT, &[2, 0, 0, 0]), Ok(0));
    assert_eq!(get(&path, DEFAULT), Err(ENODATA));
}

fn removal() {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    ok!(removexattr(path.as_ptr(), ACCESS.as_ptr()));
    assert_eq!(set(&path, ACCESS, &for_user(7, 6, 6)), Ok(0));
    ok!(removexattr(path.as_ptr(), ACCESS.as_ptr()));
    assert_eq!((get(&path, ACCESS), mode(&path)), (Err(ENODATA), 0o660));
    let dir = temp.join("d");
    ok!(mkdir(dir.as_ptr(), 0o700));
    assert_eq!(set(&dir, DEFAULT, &for_user(7, 6, 6)), Ok(0));
    assert_eq!(set(&dir, DEFAULT, &[2, 0, 0, 0]), Ok(0));
    assert_eq!(get(&dir, DEFAULT), Err(ENODATA));
}

fn directory_entries() {
    if !is_root() {
        skip!("needs root");
    }
    let temp = Temp::new();
    let dir = temp.join("d");
    ok!(mkdir(dir.as_ptr(), 0o700));
    file(&temp, "d/f", b"x");
    let list = value(&[(USER_OBJ, 7, 0), (USER, 7, 1234), (GROUP_OBJ, 0, 0), (MASK, 7, 0), (OTHER, 0, 0)]);
    assert_eq!(set(&dir, ACCESS, &list), Ok(0));
    as_user(&temp, 1234, &[99], || {
        ok!(rename(temp.join("d/f").as_ptr(), temp.join("d/g").as_ptr()));
        ok!(mkdir(temp.join("d/d").as_ptr(), 0o700));
        ok!(unlink(temp.join("d/g").as_ptr()));
        ok!(chdir(dir.as_ptr()));
    });
    as_user(&temp, 1235, &[99], || {
        fails!(EACCES, access(temp.join("d/d").as_ptr(), F_OK));
        fails!(EACCES, chdir(dir.as_ptr()));
    });
}

fn set_id_bit() {
    if !is_root() {
        skip!("needs root");
    }
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    ok!(chown(path.as_ptr(), 1234, 50));
    ok!(chmod(path.as_ptr(), 0o2755));
    // Who is not in the group loses it, as by chmod.
    as_user(&temp, 1234, &[99], || assert_eq!(set(&path, ACCESS, &for_user(7, 6, 7)), Ok(0)));
    assert_eq!(mode(&path), 0o670);
}
