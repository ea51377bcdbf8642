//! Directories and names: mkdir, link, rename, getdents, the current directory.

use libc::*;

use crate::harness::{Temp, cases, fails, file, in_child, is_root, ok, read, skip, sys, zeroed};

cases!("directory": make_and_remove, remove_errors, link_counts, hard_link, link_errors, symbolic_link, readlink_cuts,
    protected_links,
    rename_replaces, rename_errors, rename_directory, rename_noreplace, rename_exchange, list, list_types, many_entries,
    rewind, seek_to_cookie, small_buffer, delete_while_listing, current_directory, fchdir, getcwd_errors,
    removed_current_directory, chroot, unlink_errors, mknod_kinds, dots, list_deleted);

fn names(path: &std::path::Path) -> Vec<String> {
    let mut list: Vec<String> = std::fs::read_dir(path)
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    list.sort();
    list
}

fn make_and_remove() {
    let temp = Temp::new();
    let path = temp.join("d");
    ok!(mkdir(path.as_ptr(), 0o750));
    fails!(EEXIST, mkdir(path.as_ptr(), 0o750));
    let mut status: stat = zeroed();
    ok!(stat(path.as_ptr(), &mut status));
    assert_eq!(status.st_mode, S_IFDIR | 0o750);
    ok!(rmdir(path.as_ptr()));
    fails!(ENOENT, rmdir(path.as_ptr()));
    fails!(ENOENT, mkdir(temp.join("no/such").as_ptr(), 0o750));
}

fn remove_errors() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    file(&temp, "d/f", b"");
    fails!(ENOTEMPTY, rmdir(temp.join("d").as_ptr()));
    fails!(ENOTDIR, rmdir(temp.join("d/f").as_ptr()));
    fails!(EINVAL, rmdir(temp.join("d/.").as_ptr()));
    fails!(ENOTEMPTY, rmdir(temp.join("d/..").as_ptr()));
}

fn link_counts() {
    let temp = Temp::new();
    let count = || {
        let mut status: stat = zeroed();
        ok!(stat(temp.join(".").as_ptr(), &mut status));
        status.st_nlink
    };
    let before = count();
    if before < 2 {
        skip!("this file system does not count directories");
    }
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    assert_eq!(count(), before + 1);
    ok!(rmdir(temp.join("d").as_ptr()));
    assert_eq!(count(), before);
}

fn hard_link() {
    let temp = Temp::new();
    let (a, b) = (file(&temp, "a", b"same"), temp.join("b"));
    ok!(link(a.as_ptr(), b.as_ptr()));
    let (mut sa, mut sb): (stat, stat) = (zeroed(), zeroed());
    ok!(stat(a.as_ptr(), &mut sa));
    ok!(stat(b.as_ptr(), &mut sb));
    assert_eq!((sa.st_ino, sa.st_dev, sa.st_nlink), (sb.st_ino, sb.st_dev, 2));
    std::fs::write(temp.path().join("b"), b"changed").expect("b");
    assert_eq!(std::fs::read(temp.path().join("a")).expect("a"), b"changed");
    ok!(unlink(a.as_ptr()));
    ok!(stat(b.as_ptr(), &mut sb));
    assert_eq!(sb.st_nlink, 1);
}

fn link_errors() {
    let temp = Temp::new();
    let a = file(&temp, "a", b"");
    fails!(EEXIST, link(a.as_ptr(), a.as_ptr()));
    fails!(ENOENT, link(temp.join("none").as_ptr(), temp.join("b").as_ptr()));
    fails!(EPERM, link(temp.join(".").as_ptr(), temp.join("b").as_ptr()));
    // link does not follow, linkat may.
    ok!(symlink(c"a".as_ptr(), temp.join("s").as_ptr()));
    ok!(link(temp.join("s").as_ptr(), temp.join("s2").as_ptr()));
    assert!(std::fs::read_link(temp.path().join("s2")).is_ok());
    ok!(linkat(AT_FDCWD, temp.join("s").as_ptr(), AT_FDCWD, temp.join("a2").as_ptr(), AT_SYMLINK_FOLLOW));
    assert!(std::fs::read_link(temp.path().join("a2")).is_err());
}

fn symbolic_link() {
    let temp = Temp::new();
    let path = temp.join("l");
    ok!(symlink(c"any thing/at all".as_ptr(), path.as_ptr()));
    let mut buffer = [0u8; 64];
    assert_eq!(ok!(readlink(path.as_ptr(), buffer.as_mut_ptr().cast(), 64)), 16);
    assert_eq!(&buffer[..16], b"any thing/at all");
    let mut status: stat = zeroed();
    ok!(lstat(path.as_ptr(), &mut status));
    assert_eq!((status.st_mode, status.st_size), (S_IFLNK | 0o777, 16));
    fails!(ENOENT, stat(path.as_ptr(), &mut status));
    fails!(EEXIST, symlink(c"x".as_ptr(), path.as_ptr()));
    fails!(ENOENT, symlink(c"".as_ptr(), temp.join("e").as_ptr()));
}

/// fs.protected_symlinks, as of a host that has it.
fn protected_links() {
    if !is_root() {
        skip!("only root makes links of others");
    }
    if std::fs::read("/proc/sys/fs/protected_symlinks").is_ok_and(|text| text != b"1\n") {
        skip!("the host does not protect them");
    }
    let temp = Temp::new();
    let (dir, link, target) = (temp.join("d"), temp.join("d/l"), temp.join("t"));
    let (below, named) = (temp.join("d/l/f"), temp.join("n"));
    ok!(mkdir(dir.as_ptr(), 0o755));
    ok!(mkdir(target.as_ptr(), 0o755));
    let file = ok!(open(temp.join("t/f").as_ptr(), O_CREAT | O_WRONLY, 0o644));
    ok!(close(file));
    ok!(symlink(target.as_ptr(), link.as_ptr()));
    ok!(symlink(link.as_ptr(), named.as_ptr()));
    let mut status: stat = zeroed();
    for (mode, owner, of_dir, allowed) in [
        (0o1777, 1234, 0, false),
        (0o1777, 0, 1234, true),
        (0o1777, 1234, 1234, true),
        (0o1775, 1234, 0, true),
        (0o777, 1234, 0, true),
    ] {
        ok!(chmod(dir.as_ptr(), mode));
        ok!(chown(dir.as_ptr(), of_dir, 0));
        ok!(lchown(link.as_ptr(), owner, owner));
        for path in [&link, &named] {
            let followed = [
                sys!(stat(path.as_ptr(), &mut status)).map(|_| 0),
                sys!(open(path.as_ptr(), O_RDONLY | O_CLOEXEC))
                    .inspect(|fd| assert_eq!(ok!(close(*fd)), 0))
                    .map(|_| 0),
                sys!(chdir(path.as_ptr())).map(|_| 0),
            ];
            let expected = if allowed { Ok(0) } else { Err(EACCES) };
            assert_eq!(followed, [expected; 3], "{mode:o} {owner} {of_dir} {path:?}");
        }
        // In the middle of a path it is followed.
        ok!(stat(below.as_ptr(), &mut status));
        ok!(lstat(link.as_ptr(), &mut status));
    }
    ok!(chdir(c"/".as_ptr()));
}

fn readlink_cuts() {
    let temp = Temp::new();
    ok!(symlink(c"0123456789".as_ptr(), temp.join("l").as_ptr()));
    let mut buffer = [b'.'; 6];
    assert_eq!(ok!(readlink(temp.join("l").as_ptr(), buffer.as_mut_ptr().cast(), 4)), 4);
    assert_eq!(&buffer, b"0123..");
    fails!(EINVAL, readlink(temp.join("l").as_ptr(), buffer.as_mut_ptr().cast(), 0));
    fails!(EINVAL, readlink(file(&temp, "f", b"").as_ptr(), buffer.as_mut_ptr().cast(), 4));
}

fn rename_replaces() {
    let temp = Temp::new();
    let (a, b) = (file(&temp, "a", b"new"), file(&temp, "b", b"old"));
    let old = ok!(open(b.as_ptr(), O_RDONLY));
    ok!(rename(a.as_ptr(), b.as_ptr()));
    assert_eq!(names(temp.path()), ["b"]);
    assert_eq!(std::fs::read(temp.path().join("b")).expect("b"), b"new");
    assert_eq!(read(old, 10), b"old");
    ok!(rename(b.as_ptr(), b.as_ptr()));
    // Two names of one file: nothing happens.
    ok!(link(b.as_ptr(), a.as_ptr()));
    ok!(rename(a.as_ptr(), b.as_ptr()));
    assert_eq!(names(temp.path()), ["a", "b"]);
}

fn rename_errors() {
    let temp = Temp::new();
    let f = file(&temp, "f", b"");
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    ok!(mkdir(temp.join("full").as_ptr(), 0o700));
    file(&temp, "full/x", b"");
    fails!(EISDIR, rename(f.as_ptr(), temp.join("d").as_ptr()));
    fails!(ENOTDIR, rename(temp.join("d").as_ptr(), f.as_ptr()));
    fails!(ENOTEMPTY, rename(temp.join("d").as_ptr(), temp.join("full").as_ptr()));
    fails!(EINVAL, rename(temp.join("d").as_ptr(), temp.join("d/below").as_ptr()));
    fails!(ENOENT, rename(temp.join("none").as_ptr(), f.as_ptr()));
    fails!(EBUSY, rename(temp.join("d/.").as_ptr(), temp.join("e").as_ptr()));
    fails!(ENOTDIR, rename(temp.join("f/x").as_ptr(), temp.join("e").as_ptr()));
}

fn rename_directory() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("a").as_ptr(), 0o700));
    file(&temp, "a/f", b"moved");
    ok!(mkdir(temp.join("b").as_ptr(), 0o700));
    ok!(rename(temp.join("a").as_ptr(), temp.join("b/c").as_ptr()));
    assert_eq!(std::fs::read(temp.path().join("b/c/f")).expect("f"), b"moved");
    let (mut up, mut b): (stat, stat) = (zeroed(), zeroed());
    ok!(stat(temp.join("b/c/..").as_ptr(), &mut up));
    ok!(stat(temp.join("b").as_ptr(), &mut b));
    assert_eq!(up.st_ino, b.st_ino);
    // An empty directory may be replaced by another.
    ok!(mkdir(temp.join("empty").as_ptr(), 0o700));
    ok!(rename(temp.join("b/c").as_ptr(), temp.join("empty").as_ptr()));
    assert_eq!(names(&temp.path().join("empty")), ["f"]);
}

fn renameat2(temp: &Temp, from: &str, to: &str, flags: u32) -> Result<i64, i32> {
    let (from, to) = (temp.join(from), temp.join(to));
    sys!(syscall(SYS_renameat2, AT_FDCWD, from.as_ptr(), AT_FDCWD, to.as_ptr(), flags))
}

fn rename_noreplace() {
    let temp = Temp::new();
    file(&temp, "a", b"");
    file(&temp, "b", b"");
    assert_eq!(renameat2(&temp, "a", "b", RENAME_NOREPLACE), Err(EEXIST));
    assert_eq!(renameat2(&temp, "a", "c", RENAME_NOREPLACE), Ok(0));
    assert_eq!(renameat2(&temp, "c", "d", 0x80), Err(EINVAL));
}

fn rename_exchange() {
    let temp = Temp::new();
    file(&temp, "a", b"A");
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    assert_eq!(renameat2(&temp, "a", "d", RENAME_EXCHANGE), Ok(0));
    assert!(temp.path().join("a").is_dir());
    assert_eq!(std::fs::read(temp.path().join("d")).expect("d"), b"A");
    assert_eq!(renameat2(&temp, "a", "none", RENAME_EXCHANGE), Err(ENOENT));
    assert_eq!(renameat2(&temp, "a", "d", RENAME_EXCHANGE | RENAME_NOREPLACE), Err(EINVAL));
}

fn list() {
    let temp = Temp::new();
    for name in ["one", "two", "three", ".hidden"] {
        file(&temp, name, b"");
    }
    assert_eq!(names(temp.path()), [".hidden", "one", "three", "two"]);
}

/// The raw records of getdents64: inode, cookie, type, name.
fn records(fd: i32, size: usize) -> Result<Vec<(u64, i64, u8, String)>, i32> {
    let mut buffer = vec![0u8; size];
    let n = sys!(syscall(SYS_getdents64, fd, buffer.as_mut_ptr(), size))? as usize;
    let (mut list, mut at) = (Vec::new(), 0);
    while at < n {
        let eight = |from: usize| u64::from_ne_bytes(buffer[from..from + 8].try_into().expect("eight bytes"));
        let length = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
        assert_eq!(length % 8, 0, "records are aligned");
        let name = &buffer[at + 19..at + length];
        let name = &name[..name.iter().position(|b| *b == 0).expect("a NUL")];
        list.push((
            eight(at),
            eight(at + 8) as i64,
            buffer[at + 18],
            String::from_utf8_lossy(name).into_owned(),
        ));
        at += length;
    }
    Ok(list)
}

fn directory(temp: &Temp) -> i32 {
    ok!(open(temp.join(".").as_ptr(), O_RDONLY | O_DIRECTORY))
}

fn list_types() {
    let temp = Temp::new();
    file(&temp, "file", b"");
    ok!(mkdir(temp.join("dir").as_ptr(), 0o700));
    ok!(symlink(c"x".as_ptr(), temp.join("link").as_ptr()));
    ok!(mkfifo(temp.join("fifo").as_ptr(), 0o600));
    let mut list: Vec<_> =
        records(directory(&temp), 4096).expect("records").into_iter().map(|r| (r.3, r.2)).collect();
    list.sort();
    let want = [
        (".", DT_DIR),
        ("..", DT_DIR),
        ("dir", DT_DIR),
        ("fifo", DT_FIFO),
        ("file", DT_REG),
        ("link", DT_LNK),
    ];
    assert_eq!(list, want.map(|(n, t)| (n.to_string(), t)));
    let mut status: stat = zeroed();
    ok!(stat(temp.join("file").as_ptr(), &mut status));
    let inode =
        records(directory(&temp), 4096).expect("records").into_iter().find(|r| r.3 == "file").map(|r| r.0);
    assert_eq!(inode, Some(status.st_ino));
}

fn many_entries() {
    let temp = Temp::new();
    let mut want: Vec<String> = (0..3000).map(|i| format!("entry-with-a-long-name-{i:05}")).collect();
    for name in &want {
        file(&temp, name, b"");
    }
    want.sort();
    assert_eq!(names(temp.path()), want);
}

fn rewind() {
    let temp = Temp::new();
    file(&temp, "a", b"");
    let fd = directory(&temp);
    assert_eq!(records(fd, 4096).expect("records").len(), 3);
    assert_eq!(records(fd, 4096).expect("the end").len(), 0);
    file(&temp, "b", b"");
    ok!(lseek(fd, 0, SEEK_SET));
    assert_eq!(records(fd, 4096).expect("records").len(), 4);
}

fn seek_to_cookie() {
    let temp = Temp::new();
    for i in 0..20 {
        file(&temp, &format!("f{i}"), b"");
    }
    let fd = directory(&temp);
    let all = records(fd, 8192).expect("records");
    assert_eq!(all.len(), 22);
    // A cookie leads to the record after its own.
    for i in [3, 10, 18] {
        ok!(lseek(fd, all[i].1, SEEK_SET));
        let rest = records(fd, 8192).expect("records");
        assert_eq!(rest[0].3, all[i + 1].3);
        assert_eq!(rest.len(), 21 - i);
    }
}

fn small_buffer() {
    let temp = Temp::new();
    file(&temp, "a-rather-long-file-name", b"");
    let fd = directory(&temp);
    assert_eq!(records(fd, 8), Err(EINVAL));
    let mut seen = Vec::new();
    loop {
        let part = records(fd, 64).expect("records");
        if part.is_empty() {
            break;
        }
        seen.extend(part.into_iter().map(|r| r.3));
    }
    seen.sort();
    assert_eq!(seen, [".", "..", "a-rather-long-file-name"]);
    fails!(
        ENOTDIR,
        syscall(
            SYS_getdents64,
            ok!(open(temp.join("a-rather-long-file-name").as_ptr(), O_RDONLY)),
            [0u8; 64].as_mut_ptr(),
            64
        )
    );
}

fn delete_while_listing() {
    let temp = Temp::new();
    for i in 0..500 {
        file(&temp, &format!("f{i}"), b"");
    }
    let fd = directory(&temp);
    let mut seen = 0;
    loop {
        let part = records(fd, 1024).expect("records");
        if part.is_empty() {
            break;
        }
        for record in part.iter().filter(|r| r.3.starts_with('f')) {
            seen += 1;
            ok!(unlink(temp.join(&record.3).as_ptr()));
        }
    }
    assert_eq!(seen, 500, "as `rm -r` does it: nothing is skipped");
    assert_eq!(names(temp.path()).len(), 0);
}

fn current_directory() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    in_child(|| {
        ok!(chdir(temp.join("d").as_ptr()));
        assert_eq!(std::env::current_dir().expect("a directory"), temp.path().join("d"));
        file(&temp, "d/here", b"");
        ok!(access(c"here".as_ptr(), R_OK));
        ok!(access(c"../d/./here".as_ptr(), R_OK));
        ok!(chdir(c"..".as_ptr()));
        assert_eq!(std::env::current_dir().expect("a directory"), temp.path());
        fails!(ENOTDIR, chdir(c"d/here".as_ptr()));
        fails!(ENOENT, chdir(c"none".as_ptr()));
    });
}

fn fchdir() {
    let temp = Temp::new();
    let fd = directory(&temp);
    let other = ok!(open(file(&temp, "f", b"").as_ptr(), O_RDONLY));
    in_child(|| {
        ok!(libc::fchdir(fd));
        ok!(access(c"f".as_ptr(), F_OK));
        fails!(ENOTDIR, libc::fchdir(other));
        fails!(EBADF, libc::fchdir(987));
    });
}

fn getcwd_errors() {
    let mut small = [0u8; 1];
    fails!(ERANGE, syscall(SYS_getcwd, small.as_mut_ptr(), 1));
    fails!(EFAULT, syscall(SYS_getcwd, 8, 4096));
}

fn removed_current_directory() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    in_child(|| {
        ok!(chdir(temp.join("d").as_ptr()));
        ok!(rmdir(temp.join("d").as_ptr()));
        fails!(ENOENT, syscall(SYS_getcwd, [0u8; 100].as_mut_ptr(), 100));
        fails!(ENOENT, open(c"f".as_ptr(), O_CREAT | O_WRONLY, 0o600));
        fails!(ENOENT, mkdir(c"x".as_ptr(), 0o700));
    });
}

fn chroot() {
    if !is_root() {
        skip!("needs root");
    }
    let temp = Temp::new();
    file(&temp, "marker", b"");
    ok!(chmod(temp.join(".").as_ptr(), 0o755));
    in_child(|| {
        ok!(libc::chroot(temp.join(".").as_ptr()));
        ok!(chdir(c"/".as_ptr()));
        ok!(access(c"/marker".as_ptr(), F_OK));
        ok!(access(c"/../../marker".as_ptr(), F_OK));
        fails!(ENOENT, access(c"/etc/passwd".as_ptr(), F_OK));
        let mut buffer = [0u8; 16];
        assert_eq!(ok!(syscall(SYS_getcwd, buffer.as_mut_ptr(), 16)), 2);
        ok!(setuid(65534));
        fails!(EPERM, libc::chroot(c"/".as_ptr()));
    });
}

fn unlink_errors() {
    let temp = Temp::new();
    fails!(ENOENT, unlink(temp.join("none").as_ptr()));
    fails!(EISDIR, unlink(temp.join(".").as_ptr()));
    file(&temp, "f", b"");
    fails!(ENOTDIR, unlink(temp.join("f/").as_ptr()));
    fails!(EINVAL, unlinkat(AT_FDCWD, temp.join("f").as_ptr(), 77));
}

fn mknod_kinds() {
    let temp = Temp::new();
    ok!(mknod(temp.join("f").as_ptr(), S_IFREG | 0o600, 0));
    ok!(mknod(temp.join("p").as_ptr(), S_IFIFO | 0o600, 0));
    ok!(mknod(temp.join("s").as_ptr(), S_IFSOCK | 0o600, 0));
    let mut status: stat = zeroed();
    ok!(stat(temp.join("s").as_ptr(), &mut status));
    assert_eq!(status.st_mode, S_IFSOCK | 0o600);
    fails!(ENXIO, open(temp.join("s").as_ptr(), O_RDONLY));
    fails!(EPERM, mknod(temp.join("d").as_ptr(), S_IFDIR | 0o700, 0));
    fails!(EEXIST, mknod(temp.join("f").as_ptr(), S_IFREG | 0o600, 0));
}

fn dots() {
    let mut a: stat = zeroed();
    let mut b: stat = zeroed();
    ok!(stat(c"/".as_ptr(), &mut a));
    ok!(stat(c"/..".as_ptr(), &mut b));
    assert_eq!((a.st_dev, a.st_ino), (b.st_dev, b.st_ino));
    ok!(stat(c"//./../tmp/../.".as_ptr(), &mut b));
    assert_eq!((a.st_dev, a.st_ino), (b.st_dev, b.st_ino));
}

fn list_deleted() {
    let temp = Temp::new();
    ok!(mkdir(temp.join("d").as_ptr(), 0o700));
    let fd = ok!(open(temp.join("d").as_ptr(), O_RDONLY | O_DIRECTORY));
    ok!(rmdir(temp.join("d").as_ptr()));
    match records(fd, 4096) {
        Ok(list) => assert!(list.len() <= 2),
        Err(errno) => assert_eq!(errno, ENOENT),
    }
}
