//! Paths that are asked for again and again lead where they lead now: readlink(2), stat(2), open(2), access(2) of what
//! comes and goes. A relative path, or a path of another form, is asked for by other means and tells the truth.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use libc::*;

use crate::harness::{
    End, Temp, c, cases, close, fails, fork, in_child, is_root, ok, pipe, read, skip, sys, wait, write,
    zeroed,
};

cases!("names": come_and_go, files_change, writers_are_seen, directories_move, others_change_them, errors_of_arguments, forms, search_permission, other_users,
    other_root, root_of_threads, mounts, filters_see_them, table_is_not_ours, at_random, at_random_by_two);

/// A directory that anybody may search: of others nothing is remembered.
pub(super) fn temp() -> Temp {
    let temp = Temp::new();
    ok!(chmod(c(temp.path().to_str().expect("ASCII")).as_ptr(), 0o755));
    temp
}

/// Errors of the calls that look for a path, 0 for none.
pub(super) type Found = [i32; 6];

fn look(path: &CStr) -> Found {
    let path = path.as_ptr();
    let mut text = [0u8; 64];
    let mut status: stat = zeroed();
    let opened = sys!(open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
    if let Ok(fd) = opened {
        close(fd);
    }
    let error = |result: Result<i64, i32>| result.err().unwrap_or(0);
    [
        error(sys!(readlink(path, text.as_mut_ptr().cast(), 64)).map(|_| 0)),
        error(sys!(syscall(SYS_lstat, path, &raw mut status))),
        error(sys!(fstatat(AT_FDCWD, path, &raw mut status, 0)).map(i64::from)),
        error(opened.map(i64::from)),
        error(sys!(access(path, F_OK)).map(i64::from)),
        error(sys!(syscall(SYS_readlinkat, AT_FDCWD, path, text.as_mut_ptr(), 64))),
    ]
}

/// Asked often enough that it may be remembered.
pub(super) fn often(path: &CStr) -> Found {
    let first = look(path);
    for _ in 0..5 {
        assert_eq!(look(path), first, "{path:?}");
    }
    first
}

pub(super) const ABSENT: Found = [ENOENT; 6];
pub(super) const THERE: Found = [EINVAL, 0, 0, 0, 0, EINVAL];

fn come_and_go() {
    let temp = temp();
    let (a, b) = (temp.join("a"), temp.join("b"));
    for _ in 0..3 {
        assert_eq!(often(&a), ABSENT);
        close(ok!(open(a.as_ptr(), O_CREAT | O_EXCL | O_WRONLY, 0o644)));
        assert_eq!(often(&a), THERE);
        ok!(unlink(a.as_ptr()));
        assert_eq!(often(&a), ABSENT);
        ok!(mkdir(a.as_ptr(), 0o755));
        assert_eq!((often(&a), often(&b)), (THERE, ABSENT));
        ok!(rename(a.as_ptr(), b.as_ptr()));
        assert_eq!((often(&a), often(&b)), (ABSENT, THERE));
        ok!(symlink(c"b".as_ptr(), a.as_ptr()));
        assert_eq!(often(&a), [0, 0, 0, ELOOP, 0, 0]);
        ok!(rmdir(b.as_ptr()));
        assert_eq!((often(&a), often(&b)), ([0, 0, ENOENT, ELOOP, ENOENT, 0], ABSENT));
        close(ok!(open(b.as_ptr(), O_CREAT | O_WRONLY, 0o644)));
        ok!(rename(b.as_ptr(), a.as_ptr()));
        assert_eq!((often(&a), often(&b)), (THERE, ABSENT));
        ok!(link(a.as_ptr(), b.as_ptr()));
        ok!(unlink(a.as_ptr()));
        assert_eq!((often(&a), often(&b)), (ABSENT, THERE));
        ok!(mkfifo(a.as_ptr(), 0o600));
        assert_eq!(often(&a), THERE);
        ok!(symlink(c"x".as_ptr(), temp.join("l").as_ptr()));
        ok!(syscall(SYS_renameat2, AT_FDCWD, a.as_ptr(), AT_FDCWD, temp.join("l").as_ptr(), RENAME_EXCHANGE));
        assert_eq!(often(&a), [0, 0, ENOENT, ELOOP, ENOENT, 0]);
        for name in ["a", "b", "l"] {
            ok!(unlink(temp.join(name).as_ptr()));
        }
    }
}

fn size(path: &CStr) -> i64 {
    attributes(path).map_or(-1, |all| all[0])
}

fn files_change() {
    let temp = temp();
    let (file, other) = (temp.join("f"), temp.join("g"));
    let fd = ok!(open(file.as_ptr(), O_CREAT | O_RDWR, 0o644));
    let settled = || {
        let first = attributes(&file).expect("it is there");
        for _ in 0..5 {
            assert_eq!(attributes(&file), Some(first));
            let mut s: stat = zeroed();
            ok!(fstat(fd, &raw mut s));
            assert_eq!((s.st_size, s.st_nlink as i64, i64::from(s.st_mode)), (first[0], first[4], first[5]));
        }
        first
    };
    for round in 0..5i64 {
        assert_eq!(settled()[0], 3 * round);
        write(fd, b"abc");
        assert_eq!(settled()[0], 3 * round + 3);
        ok!(ftruncate(fd, 100));
        assert_eq!(settled()[0], 100);
        ok!(ftruncate(fd, 3 * round + 3));
        ok!(fchmod(fd, 0o600));
        assert_eq!(settled()[5] & 0o777, 0o600);
        ok!(chmod(file.as_ptr(), 0o644));
        assert_eq!(settled()[5] & 0o777, 0o644);
        ok!(link(file.as_ptr(), other.as_ptr()));
        assert_eq!(settled()[4], 2);
        ok!(chmod(other.as_ptr(), 0o640));
        assert_eq!(settled()[5] & 0o777, 0o640);
        ok!(unlink(other.as_ptr()));
        assert_eq!(settled()[4], 1);
        let times = [timespec { tv_sec: 1000 + round, tv_nsec: 5 }; 2];
        ok!(futimens(fd, times.as_ptr()));
        assert_eq!((settled()[9], settled()[10]), (1000 + round, 5));
        ok!(lseek(fd, 0, SEEK_END));
    }
    // By memory: nobody tells of that, and so it may not be remembered.
    let at: *mut u8 = ok!(mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)).cast();
    ok!(ftruncate(fd, 4096));
    settled();
    // SAFETY: within the mapping.
    unsafe { at.write_volatile(7) };
    ok!(msync(at.cast(), 4096, MS_SYNC));
    let mut s: stat = zeroed();
    ok!(fstat(fd, &raw mut s));
    let seen = attributes(&file).expect("it is there");
    assert_eq!((seen[9], seen[10]), (s.st_mtime, s.st_mtime_nsec));
}

fn writers_are_seen() {
    let temp = temp();
    let file = temp.join("f");
    let fd = ok!(open(file.as_ptr(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0o644));
    let helper = Helper::new(|count| (0..count).for_each(|_| write(fd, b"x")));
    let mut expected = 0;
    for round in 0..200u32 {
        helper.act((round % 40) as u8);
        expected += i64::from(round % 40);
        for _ in 0..3 {
            assert_eq!(size(&file), expected);
        }
        if round % 3 == 0 {
            write(fd, b"y");
            expected += 1;
            assert_eq!(size(&file), expected);
        }
    }
    helper.end();
}

fn directories_move() {
    let temp = temp();
    let [top, below, file, other] =
        ["top", "top/below", "top/below/file", "other"].map(|name| temp.join(name));
    let link = temp.join("link/below/file");
    for _ in 0..3 {
        assert_eq!((often(&file), often(&link)), (ABSENT, ABSENT));
        ok!(mkdir(top.as_ptr(), 0o755));
        assert_eq!(often(&file), ABSENT);
        ok!(mkdir(below.as_ptr(), 0o755));
        assert_eq!(often(&file), ABSENT);
        close(ok!(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644)));
        assert_eq!(often(&file), THERE);
        ok!(symlink(c"top".as_ptr(), temp.join("link").as_ptr()));
        assert_eq!(often(&link), THERE);
        ok!(rename(top.as_ptr(), other.as_ptr()));
        assert_eq!(
            (often(&file), often(&link), often(&temp.join("other/below/file"))),
            (ABSENT, ABSENT, THERE)
        );
        ok!(mkdir(top.as_ptr(), 0o755));
        ok!(rename(temp.join("other/below").as_ptr(), below.as_ptr()));
        assert_eq!(
            (often(&file), often(&link), often(&temp.join("other/below/file"))),
            (THERE, THERE, ABSENT)
        );
        ok!(unlink(temp.join("link").as_ptr()));
        ok!(unlink(file.as_ptr()));
        ok!(rmdir(below.as_ptr()));
        assert_eq!((often(&file), often(&link)), (ABSENT, ABSENT));
        ok!(rmdir(top.as_ptr()));
        ok!(rmdir(other.as_ptr()));
    }
}

/// A process that does what it is told by a byte, and says when it is done.
struct Helper {
    to: i32,
    from: i32,
    pid: pid_t,
}

impl Helper {
    fn new(act: impl Fn(u8)) -> Helper {
        let ((r, w), (done, say)) = (pipe(), pipe());
        let pid = fork(|| {
            close(w);
            while let Some(byte) = read(r, 1).first() {
                act(*byte);
                write(say, b"x");
            }
            0
        });
        close(r);
        close(say);
        Helper { to: w, from: done, pid }
    }
    fn act(&self, what: u8) {
        write(self.to, &[what]);
        assert_eq!(read(self.from, 1), b"x");
    }
    fn end(self) {
        close(self.to);
        close(self.from);
        assert_eq!(wait(self.pid), End::Exited(0));
    }
}

fn others_change_them() {
    let temp = temp();
    let (dir, file) = (temp.join("d"), temp.join("d/f"));
    let helper = Helper::new(|what| match what {
        b'd' => assert_eq!(ok!(mkdir(dir.as_ptr(), 0o755)), 0),
        b'f' => close(ok!(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644))),
        b'u' => assert_eq!(ok!(unlink(file.as_ptr())), 0),
        _ => assert_eq!(ok!(rmdir(dir.as_ptr())), 0),
    });
    for _ in 0..20 {
        assert_eq!(often(&file), ABSENT);
        helper.act(b'd');
        assert_eq!((often(&file), often(&dir)), (ABSENT, THERE));
        helper.act(b'f');
        assert_eq!(often(&file), THERE);
        helper.act(b'u');
        assert_eq!(often(&file), ABSENT);
        helper.act(b'r');
        assert_eq!((often(&file), often(&dir)), (ABSENT, ABSENT));
    }
    helper.end();
}

fn errors_of_arguments() {
    let temp = temp();
    let (no, yes) = (temp.join("no"), c(temp.path().to_str().expect("ASCII")));
    assert_eq!((often(&no), often(&yes)), (ABSENT, THERE));
    let mut status: stat = zeroed();
    let mut text = [0u8; 8];
    for path in [&no, &yes] {
        fails!(EINVAL, syscall(SYS_readlink, path.as_ptr(), text.as_mut_ptr(), 0));
        fails!(EINVAL, syscall(SYS_readlink, path.as_ptr(), text.as_mut_ptr(), -1));
        fails!(EINVAL, syscall(SYS_readlinkat, AT_FDCWD, path.as_ptr(), text.as_mut_ptr(), 0));
        fails!(EINVAL, syscall(SYS_newfstatat, AT_FDCWD, path.as_ptr(), &raw mut status, 0x8000));
        fails!(EINVAL, syscall(SYS_access, path.as_ptr(), 8));
        fails!(EINVAL, syscall(SYS_faccessat2, AT_FDCWD, path.as_ptr(), 0, 0x4000));
        fails!(EINVAL, open(path.as_ptr(), O_TMPFILE & !O_DIRECTORY));
    }
    // The directory does not count, whatever it is.
    fails!(ENOENT, syscall(SYS_newfstatat, 12345, no.as_ptr(), &raw mut status, AT_SYMLINK_NOFOLLOW));
    fails!(ENOENT, syscall(SYS_openat, 12345, no.as_ptr(), O_RDONLY));
    fails!(EINVAL, syscall(SYS_readlinkat, 12345, yes.as_ptr(), text.as_mut_ptr(), 8));
    fails!(EFAULT, syscall(SYS_access, 8, 0));
    fails!(EFAULT, syscall(SYS_readlink, 0x7000_0000_0000u64, text.as_mut_ptr(), 8));
    close(ok!(open(no.as_ptr(), O_CREAT | O_RDWR, 0o600)));
    assert_eq!(often(&no), THERE);
    // A name that ends where the memory does.
    let page: *mut u8 =
        ok!(mmap(std::ptr::null_mut(), 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
            .cast();
    ok!(munmap(page.wrapping_add(4096).cast(), 4096));
    let name = yes.to_bytes_with_nul();
    let at = page.wrapping_add(4096 - name.len());
    // SAFETY: within the page that is left.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), at, name.len()) };
    for _ in 0..5 {
        fails!(EINVAL, syscall(SYS_readlink, at, text.as_mut_ptr(), 8));
        fails!(EFAULT, syscall(SYS_readlink, page.wrapping_add(4096), text.as_mut_ptr(), 8));
    }
}

fn forms() {
    let temp = temp();
    let base = temp.path().to_str().expect("ASCII").to_owned();
    ok!(mkdir(temp.join("d").as_ptr(), 0o755));
    close(ok!(open(temp.join("f").as_ptr(), O_CREAT | O_WRONLY, 0o644)));
    let path = |tail: &str| c(&format!("{base}{tail}"));
    assert_eq!(often(&path("/f/")), [ENOTDIR; 6]);
    assert_eq!(often(&path("/f/x")), [ENOTDIR; 6]);
    assert_eq!(often(&path("/d/")), THERE);
    assert_eq!(often(&path("/d/.")), THERE);
    assert_eq!(often(&path("//d")), THERE);
    assert_eq!(often(&path("/d/../f")), THERE);
    assert_eq!(often(&path("/f/../f")), [ENOTDIR; 6]);
    assert_eq!(often(&path("/x/../f")), ABSENT);
    assert_eq!(often(&path("/x/")), ABSENT);
    assert_eq!(often(c"/"), THERE);
    assert_eq!(often(c""), ABSENT);
    assert_eq!(often(&path(&format!("/{}", "n".repeat(255)))), ABSENT);
    assert_eq!(often(&path(&format!("/{}", "n".repeat(256)))), [ENAMETOOLONG; 6]);
    // Of all lengths around the longest that is remembered.
    for length in 120..200 - base.len().min(60) {
        let name = "m".repeat(length);
        let (file, longer) = (path(&format!("/{name}")), path(&format!("/{name}m")));
        assert_eq!((often(&file), often(&longer)), (ABSENT, ABSENT));
        close(ok!(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644)));
        assert_eq!((often(&file), often(&longer)), (THERE, ABSENT));
        ok!(unlink(file.as_ptr()));
    }
    for _ in 0..5 {
        assert_eq!(look(c"/proc/self/nothing"), ABSENT);
        assert_eq!(look(c"/proc/self/exe")[0], 0);
    }
}

fn search_permission() {
    if !is_root() {
        skip!("only root becomes somebody else");
    }
    let temp = temp();
    let (dir, no, yes) = (temp.join("d"), temp.join("d/no"), temp.join("d/yes"));
    ok!(mkdir(dir.as_ptr(), 0o755));
    ok!(mkdir(yes.as_ptr(), 0o755));
    let helper = Helper::new(|what| {
        ok!(chmod(dir.as_ptr(), if what == b'+' { 0o755 } else { 0o700 }));
    });
    in_child(|| {
        ok!(setgid(65534));
        ok!(setuid(65534));
        for _ in 0..5 {
            assert_eq!((often(&no), often(&yes)), (ABSENT, THERE));
            helper.act(b'-');
            assert_eq!((often(&no), often(&yes)), ([EACCES; 6], [EACCES; 6]));
            helper.act(b'+');
        }
    });
    helper.end();
}

fn other_users() {
    if !is_root() {
        skip!("only root becomes somebody else");
    }
    let temp = temp();
    // Whoever is in the group may not.
    for mode in [0o700, 0o701, 0o711, 0o755, 0o750] {
        let dir = temp.join("d");
        let no = temp.join("d/no");
        ok!(mkdir(dir.as_ptr(), 0o755));
        ok!(chown(dir.as_ptr(), 0, 4321));
        ok!(chmod(dir.as_ptr(), mode));
        assert_eq!(often(&no), ABSENT);
        let of = |group: u32| {
            in_child(|| {
                ok!(setgroups(0, std::ptr::null()));
                ok!(setgid(group));
                ok!(setuid(1234));
                let shift = if group == 4321 { 3 } else { 0 };
                let expected = if mode >> shift & 1 != 0 { ABSENT } else { [EACCES; 6] };
                assert_eq!(often(&no), expected, "{mode:o} {group}");
            });
        };
        of(4321);
        of(1234);
        assert_eq!(often(&no), ABSENT);
        ok!(rmdir(dir.as_ptr()));
    }
}

fn other_root() {
    if !is_root() {
        skip!("only root may change the root");
    }
    let temp = temp();
    let base = c(temp.path().to_str().expect("ASCII"));
    assert_eq!((often(c"/usr"), often(c"/only-there"), often(&base)), (THERE, ABSENT, THERE));
    close(ok!(open(temp.join("only-there").as_ptr(), O_CREAT | O_WRONLY, 0o644)));
    in_child(|| {
        ok!(chroot(base.as_ptr()));
        assert_eq!((often(c"/usr"), often(c"/only-there"), often(&base)), (ABSENT, THERE, ABSENT));
        in_child(|| assert_eq!((often(c"/usr"), often(c"/only-there")), (ABSENT, THERE)));
    });
    assert_eq!((often(c"/usr"), often(c"/only-there"), often(&base)), (THERE, ABSENT, THERE));
}

fn root_of_threads() {
    if !is_root() {
        skip!("only root may change the root");
    }
    let temp = temp();
    let base = c(temp.path().to_str().expect("ASCII"));
    in_child(|| {
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!((often(c"/usr"), often(c"/nowhere")), (THERE, ABSENT));
                barrier.wait();
                barrier.wait();
                assert_eq!((often(c"/usr"), often(c"/nowhere")), (ABSENT, ABSENT));
            });
            barrier.wait();
            ok!(chroot(base.as_ptr()));
            barrier.wait();
        });
    });
    assert_eq!(often(c"/usr"), THERE);
}

fn mounts() {
    if !is_root() {
        skip!("only root may mount");
    }
    let temp = temp();
    let (dir, file, new) = (temp.join("d"), temp.join("d/f"), temp.join("d/n"));
    ok!(mkdir(dir.as_ptr(), 0o755));
    close(ok!(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644)));
    for _ in 0..3 {
        assert_eq!((often(&file), often(&new)), (THERE, ABSENT));
        if sys!(mount(c"t".as_ptr(), dir.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())) == Err(EPERM) {
            skip!("no right to mount");
        }
        assert_eq!((often(&file), often(&new)), (ABSENT, ABSENT));
        ok!(mkdir(new.as_ptr(), 0o755));
        assert_eq!((often(&file), often(&new)), (ABSENT, THERE));
        ok!(umount(dir.as_ptr()));
        assert_eq!((often(&file), often(&new)), (THERE, ABSENT));
    }
}

fn filters_see_them() {
    let code = |code: u16, jt: u8, jf: u8, k: u32| sock_filter { code, jt, jf, k };
    assert_eq!((often(c"/usr"), often(c"/nowhere")), (THERE, ABSENT));
    in_child(|| {
        assert_eq!((often(c"/usr"), often(c"/nowhere")), (THERE, ABSENT));
        let program = [
            code(0x20, 0, 0, 0),
            code(0x15, 1, 0, SYS_readlink as u32),
            code(0x15, 0, 1, SYS_access as u32),
            code(0x06, 0, 0, 0x5_0000 | 33),
            code(0x06, 0, 0, 0x7fff_0000),
        ];
        ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        let head = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        ok!(prctl(PR_SET_SECCOMP, 2, &raw const head, 0, 0));
        assert_eq!(often(c"/usr"), [33, 0, 0, 0, 33, EINVAL]);
        assert_eq!(often(c"/nowhere"), [33, ENOENT, ENOENT, ENOENT, 33, ENOENT]);
    });
}

/// Where a sandbox has what its processes know of paths; natively there is nothing.
fn table_is_not_ours() {
    const TABLE: usize = 0x7e00_1c00_0000;
    assert_eq!(often(c"/nowhere"), ABSENT);
    for at in (TABLE..TABLE + 0xc_1000).step_by(0x8000) {
        let pid = fork(|| {
            ok!(setrlimit(RLIMIT_CORE, &zeroed()));
            let page = at as *mut c_void;
            // SAFETY: these fail, or the write does.
            unsafe {
                mprotect(page, 4096, PROT_READ | PROT_WRITE);
                munmap(page, 4096);
                mremap(page, 4096, 8192, MREMAP_MAYMOVE);
                page.cast::<u8>().write_volatile(1);
            }
            0
        });
        assert_eq!(wait(pid), End::Killed(SIGSEGV));
    }
    assert_eq!(often(c"/nowhere"), ABSENT);
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
    /// One of few paths.
    fn path(&mut self) -> String {
        let names = ["a", "b", "c"];
        let depth = 1 + self.below(3);
        (0..depth).map(|_| names[self.below(3)]).collect::<Vec<_>>().join("/")
    }
}

/// Does one thing or another to the tree below the current directory; what fails, fails.
fn change(random: &mut Random) {
    let (one, two) = (c(&random.path()), c(&random.path()));
    let (a, b) = (one.as_ptr(), two.as_ptr());
    let targets = ["a", "b/c", "../a", "x"];
    let target = c(targets[random.below(targets.len())]);
    // SAFETY: all of them are strings.
    unsafe {
        match random.below(16) {
            0..=2 => drop(mkdir(a, 0o755)),
            3 => drop(rmdir(a)),
            4 | 5 => {
                let fd = open(a, O_CREAT | O_WRONLY | O_NOFOLLOW, 0o644);
                if fd >= 0 {
                    libc::close(fd);
                }
            }
            6 => drop(unlink(a)),
            7 => drop(symlink(target.as_ptr(), a)),
            8 | 9 => drop(rename(a, b)),
            10 => {
                let fd = open(a, O_WRONLY | O_APPEND | O_NOFOLLOW);
                if fd >= 0 {
                    for _ in 0..random.below(8) {
                        libc::write(fd, a.cast(), 1);
                    }
                    libc::close(fd);
                }
            }
            11 => drop(truncate(a, random.below(9000) as i64)),
            12 => drop(chmod(a, 0o755 - random.below(2) as u32)),
            13 => drop(utimes(a, [timeval { tv_sec: random.below(1 << 30) as i64, tv_usec: 0 }; 2].as_ptr())),
            14 => drop(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)),
            _ => drop(link(a, b)),
        }
    }
}

/// What stat(2) tells of a path.
fn attributes(path: &CStr) -> Option<[i64; 12]> {
    let mut s: stat = zeroed();
    sys!(libc::stat(path.as_ptr(), &raw mut s)).ok()?;
    let ids =
        [s.st_dev as i64, s.st_ino as i64, s.st_nlink as i64, i64::from(s.st_mode), i64::from(s.st_uid)];
    let times = [s.st_atime, s.st_atime_nsec, s.st_mtime, s.st_mtime_nsec, s.st_ctime_nsec];
    let mut all = [s.st_size, s.st_blocks, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    all[2..7].copy_from_slice(&ids);
    all[7..].copy_from_slice(&times);
    Some(all)
}

/// What a path below the current directory leads to, asked for by its whole name and by the relative one.
fn compare(base: &str, random: &mut Random) {
    let tail = random.path();
    let (whole, relative) = (c(&format!("{base}/{tail}")), c(&tail));
    let expected = (look(&relative), attributes(&relative));
    for _ in 0..3 {
        assert_eq!((look(&whole), attributes(&whole)), expected, "{tail}");
    }
}

fn at_random() {
    let temp = temp();
    let base = temp.path().to_str().expect("ASCII").to_owned();
    ok!(chdir(c(&base).as_ptr()));
    let mut random = Random(u64::from(std::process::id()));
    for _ in 0..1500 {
        change(&mut random);
        compare(&base, &mut random);
        compare(&base, &mut random);
    }
    ok!(chdir(c"/".as_ptr()));
}

fn at_random_by_two() {
    let temp = temp();
    let base = temp.path().to_str().expect("ASCII").to_owned();
    let bytes = temp.path().as_os_str().as_bytes().to_vec();
    let helper = Helper::new(|seed| {
        ok!(chdir(c(std::str::from_utf8(&bytes).expect("ASCII")).as_ptr()));
        let mut random = Random(u64::from(seed) << 20 | u64::from(std::process::id()));
        (0..1 + random.below(3)).for_each(|_| change(&mut random));
        compare(std::str::from_utf8(&bytes).expect("ASCII"), &mut random);
    });
    ok!(chdir(c(&base).as_ptr()));
    let mut random = Random(u64::from(std::process::id()) << 8);
    for round in 0..600u32 {
        helper.act(round as u8);
        for _ in 0..4 {
            compare(&base, &mut random);
        }
    }
    helper.end();
    ok!(chdir(c"/".as_ptr()));
}
