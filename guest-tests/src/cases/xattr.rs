//! Extended attributes of users: xattr(7), setxattr(2) and its like, setxattrat(2) and its like (Linux 6.13).

use std::ffi::CStr;

use libc::*;

use crate::harness::{Temp, cases, close, fails, file, ok, skip, sys};

cases!("xattr": create_and_replace, sizes, names, at_a_folder, at_a_descriptor, at_a_link, bad_arguments_at);

const SYS_SETXATTRAT: c_long = 463;
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;
const SYS_REMOVEXATTRAT: c_long = 466;
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;
const USER: &CStr = c"user.a";

/// `struct xattr_args`.
#[repr(C)]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
    /// What a later Linux may have.
    more: u64,
}

const SIZE: usize = 16;

fn args(value: &[u8], flags: u32) -> Args {
    Args { value: value.as_ptr().expose_provenance() as u64, size: value.len() as u32, flags, more: 0 }
}

fn set_at(dirfd: i32, path: &CStr, at: i32, value: &[u8], flags: u32) -> Result<i64, i32> {
    let args = args(value, flags);
    sys!(syscall(SYS_SETXATTRAT, dirfd, path.as_ptr(), at, USER.as_ptr(), &raw const args, SIZE))
}

fn get_at(dirfd: i32, path: &CStr, at: i32) -> Result<Vec<u8>, i32> {
    let mut value = vec![0_u8; 64];
    let place = value.as_mut_ptr().expose_provenance() as u64;
    let args = Args { value: place, size: 64, flags: 0, more: 0 };
    let length =
        sys!(syscall(SYS_GETXATTRAT, dirfd, path.as_ptr(), at, USER.as_ptr(), &raw const args, SIZE))?;
    value.truncate(usize::try_from(length).expect("a length"));
    Ok(value)
}

fn list_at(dirfd: i32, path: &CStr, at: i32) -> Result<Vec<Vec<u8>>, i32> {
    let mut names = [0_u8; 1024];
    let length = sys!(syscall(SYS_LISTXATTRAT, dirfd, path.as_ptr(), at, names.as_mut_ptr(), names.len()))?;
    let names = &names[..usize::try_from(length).expect("a length")];
    Ok(names.split(|b| *b == 0).filter(|name| name.starts_with(b"user.")).map(<[u8]>::to_vec).collect())
}

fn remove_at(dirfd: i32, path: &CStr, at: i32) -> Result<i64, i32> {
    sys!(syscall(SYS_REMOVEXATTRAT, dirfd, path.as_ptr(), at, USER.as_ptr()))
}

/// A folder with a file `f`; skips where the machine has no such calls, or its file system no such attributes.
fn folder() -> (Temp, i32) {
    let temp = Temp::new();
    file(&temp, "f", b"x");
    let dirfd = ok!(open(temp.join("").as_ptr(), O_RDONLY | O_DIRECTORY));
    match get_at(dirfd, c"f", 0) {
        Err(ENOSYS) => skip!("no getxattrat here"),
        Err(EOPNOTSUPP) => skip!("no attributes of users here"),
        result => assert_eq!(result, Err(ENODATA)),
    }
    (temp, dirfd)
}

fn set(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> Result<i32, i32> {
    sys!(setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags))
}

/// A file; skips where the file system has no such attributes.
fn one_file() -> (Temp, std::ffi::CString) {
    let temp = Temp::new();
    let path = file(&temp, "f", b"x");
    if set(&path, USER, b"", 0) == Err(EOPNOTSUPP) {
        skip!("no attributes of users here");
    }
    ok!(removexattr(path.as_ptr(), USER.as_ptr()));
    (temp, path)
}

fn create_and_replace() {
    let (_temp, path) = one_file();
    assert_eq!(set(&path, USER, b"1", XATTR_REPLACE as i32), Err(ENODATA));
    assert_eq!(set(&path, USER, b"1", XATTR_CREATE as i32), Ok(0));
    assert_eq!(set(&path, USER, b"2", XATTR_CREATE as i32), Err(EEXIST));
    assert_eq!(set(&path, USER, b"23", XATTR_REPLACE as i32), Ok(0));
    assert_eq!(set(&path, USER, b"3", 4), Err(EINVAL));
    let mut value = [0_u8; 8];
    assert_eq!(ok!(getxattr(path.as_ptr(), USER.as_ptr(), value.as_mut_ptr().cast(), 8)), 2);
    assert_eq!(&value[..2], b"23");
    ok!(removexattr(path.as_ptr(), USER.as_ptr()));
    fails!(ENODATA, removexattr(path.as_ptr(), USER.as_ptr()));
    fails!(ENODATA, getxattr(path.as_ptr(), USER.as_ptr(), value.as_mut_ptr().cast(), 8));
}

fn sizes() {
    let (_temp, path) = one_file();
    assert_eq!(set(&path, USER, b"1234", 0), Ok(0));
    let mut value = [0_u8; 8];
    let value = value.as_mut_ptr().cast::<c_void>();
    // 0 asks how long it is.
    assert_eq!(ok!(getxattr(path.as_ptr(), USER.as_ptr(), std::ptr::null_mut(), 0)), 4);
    fails!(ERANGE, getxattr(path.as_ptr(), USER.as_ptr(), value, 3));
    fails!(EFAULT, getxattr(path.as_ptr(), USER.as_ptr(), std::ptr::null_mut(), 4));
    assert!(ok!(listxattr(path.as_ptr(), std::ptr::null_mut(), 0)) >= 7);
    fails!(ERANGE, listxattr(path.as_ptr(), value.cast(), 3));
    fails!(EFAULT, setxattr(path.as_ptr(), USER.as_ptr(), std::ptr::null(), 4, 0));
    fails!(E2BIG, setxattr(path.as_ptr(), USER.as_ptr(), value, 65537, 0));
}

fn names() {
    let (_temp, path) = one_file();
    assert_eq!(set(&path, c"", b"", 0), Err(ERANGE));
    assert_eq!(set(&path, c"user.", b"", 0), Err(EINVAL));
    assert_eq!(set(&path, c"nobody.a", b"", 0), Err(EOPNOTSUPP));
    let long = crate::harness::c(&format!("user.{}", "x".repeat(251)));
    assert_eq!(set(&path, &long, b"", 0), Err(ERANGE));
    fails!(EFAULT, setxattr(path.as_ptr(), std::ptr::null(), std::ptr::null(), 0, 0));
}

fn at_a_folder() {
    let (temp, dirfd) = folder();
    assert_eq!(set_at(dirfd, c"f", 0, b"1", XATTR_REPLACE), Err(ENODATA));
    assert_eq!(set_at(dirfd, c"f", 0, b"one", XATTR_CREATE), Ok(0));
    assert_eq!(set_at(dirfd, c"f", 0, b"1", XATTR_CREATE), Err(EEXIST));
    assert_eq!(get_at(dirfd, c"f", 0), Ok(b"one".to_vec()));
    assert_eq!(list_at(dirfd, c"f", 0), Ok(vec![USER.to_bytes().to_vec()]));
    // An absolute path does not ask for the folder.
    assert_eq!(get_at(-1, &temp.join("f"), 0), Ok(b"one".to_vec()));
    assert_eq!(get_at(AT_FDCWD, &temp.join("f"), 0), Ok(b"one".to_vec()));
    assert_eq!(remove_at(dirfd, c"f", 0), Ok(0));
    assert_eq!(remove_at(dirfd, c"f", 0), Err(ENODATA));
    assert_eq!(get_at(dirfd, c"none", 0), Err(ENOENT));
    assert_eq!(get_at(99, c"f", 0), Err(EBADF));
    let fd = ok!(openat(dirfd, c"f".as_ptr(), O_RDONLY));
    assert_eq!(list_at(fd, c"f", 0), Err(ENOTDIR));
}

fn at_a_descriptor() {
    let (temp, dirfd) = folder();
    let fd = ok!(openat(dirfd, c"f".as_ptr(), O_RDONLY));
    assert_eq!(set_at(fd, c"", AT_EMPTY_PATH, b"one", 0), Ok(0));
    assert_eq!(get_at(fd, c"", AT_EMPTY_PATH), Ok(b"one".to_vec()));
    assert_eq!(get_at(fd, c"", 0), Err(ENOENT));
    // As for fgetxattr(2).
    let path = ok!(openat(dirfd, c"f".as_ptr(), O_PATH));
    assert_eq!(get_at(path, c"", AT_EMPTY_PATH), Err(EBADF));
    assert_eq!(list_at(path, c"", AT_EMPTY_PATH), Err(EBADF));
    assert_eq!(remove_at(path, c"", AT_EMPTY_PATH), Err(EBADF));
    assert_eq!(set_at(path, c"", AT_EMPTY_PATH, b"", 0), Err(EBADF));
    assert_eq!(get_at(99, c"", AT_EMPTY_PATH), Err(EBADF));
    assert_eq!(get_at(-1, c"", AT_EMPTY_PATH), Err(EBADF));
    assert_eq!(remove_at(fd, c"", AT_EMPTY_PATH), Ok(0));
    // A path of its own keeps `AT_EMPTY_PATH` from counting; the working directory needs no descriptor.
    assert_eq!(set_at(dirfd, c"f", AT_EMPTY_PATH, b"two", 0), Ok(0));
    ok!(chdir(temp.join("").as_ptr()));
    assert_eq!(set_at(AT_FDCWD, c"", AT_EMPTY_PATH, b"here", 0), Ok(0));
    assert_eq!(get_at(dirfd, c".", 0), Ok(b"here".to_vec()));
    close(fd);
}

fn at_a_link() {
    let (_temp, dirfd) = folder();
    ok!(symlinkat(c"f".as_ptr(), dirfd, c"l".as_ptr()));
    assert_eq!(set_at(dirfd, c"l", 0, b"one", 0), Ok(0));
    assert_eq!(get_at(dirfd, c"f", 0), Ok(b"one".to_vec()));
    // Links have no attributes of users.
    assert_eq!(set_at(dirfd, c"l", AT_SYMLINK_NOFOLLOW, b"two", 0), Err(EPERM));
    assert_eq!(get_at(dirfd, c"l", AT_SYMLINK_NOFOLLOW), Err(ENODATA));
    assert_eq!(list_at(dirfd, c"l", AT_SYMLINK_NOFOLLOW), Ok(vec![]));
    assert_eq!(get_at(dirfd, c"l", 0), Ok(b"one".to_vec()));
}

fn bad_arguments_at() {
    let (_temp, dirfd) = folder();
    let mut value = [0_u8; 4096];
    let (f, name) = (c"f".as_ptr(), USER.as_ptr());
    let good = args(b"1", 0);
    let good = &raw const good;
    // Flags that there are not.
    assert_eq!(set_at(dirfd, c"f", 1, b"", 0), Err(EINVAL));
    assert_eq!(get_at(dirfd, c"f", AT_SYMLINK_FOLLOW), Err(EINVAL));
    assert_eq!(list_at(dirfd, c"f", AT_NO_AUTOMOUNT), Err(EINVAL));
    assert_eq!(remove_at(dirfd, c"f", 1), Err(EINVAL));
    assert_eq!(set_at(dirfd, c"f", 0, b"", 4), Err(EINVAL));
    let flagged = args(&value[..8], XATTR_CREATE);
    fails!(EINVAL, syscall(SYS_GETXATTRAT, dirfd, f, 0, name, &raw const flagged, SIZE));
    // The structure: too small, of a later Linux with nothing in it, with something, beyond a page.
    fails!(EINVAL, syscall(SYS_SETXATTRAT, dirfd, f, 0, name, good, SIZE - 1));
    fails!(EINVAL, syscall(SYS_GETXATTRAT, dirfd, f, 0, name, good, 0));
    ok!(syscall(SYS_SETXATTRAT, dirfd, f, 0, name, good, SIZE + 8));
    let later = Args { more: 1, ..args(b"1", 0) };
    fails!(E2BIG, syscall(SYS_SETXATTRAT, dirfd, f, 0, name, &raw const later, SIZE + 8));
    fails!(E2BIG, syscall(SYS_SETXATTRAT, dirfd, f, 0, name, good, 4097));
    fails!(EFAULT, syscall(SYS_SETXATTRAT, dirfd, f, 0, name, std::ptr::null::<Args>(), SIZE));
    fails!(EFAULT, syscall(SYS_GETXATTRAT, dirfd, f, 0, std::ptr::null::<u8>(), good, SIZE));
    fails!(EFAULT, syscall(SYS_REMOVEXATTRAT, dirfd, std::ptr::null::<u8>(), 0, name));
    // The value.
    let huge = Args { size: 65537, ..args(&value, 0) };
    fails!(E2BIG, syscall(SYS_SETXATTRAT, dirfd, f, 0, name, &raw const huge, SIZE));
    assert_eq!(set_at(dirfd, c"f", 0, b"1234", 0), Ok(0));
    let place = value.as_mut_ptr().expose_provenance() as u64;
    let small = Args { value: place, size: 3, flags: 0, more: 0 };
    fails!(ERANGE, syscall(SYS_GETXATTRAT, dirfd, f, 0, name, &raw const small, SIZE));
    let length = Args { value: 0, size: 0, flags: 0, more: 0 };
    assert_eq!(ok!(syscall(SYS_GETXATTRAT, dirfd, f, 0, name, &raw const length, SIZE)), 4);
    fails!(ERANGE, syscall(SYS_LISTXATTRAT, dirfd, f, 0, value.as_mut_ptr(), 3));
}
