//! Watching files: inotify(7).

use libc::*;

use crate::harness::{Temp, cases, close, fails, file, ok, skip, sys, write, zeroed};

cases!("inotify": moved_pair, one_shot, excluded_after_unlink, ends_with_the_file, removed_watch, shown_in_fdinfo,
    mask_create_and_add, equal_events_join, limited);

/// What waits to be read: mask, cookie, name.
fn events(fd: i32) -> Vec<(u32, u32, String)> {
    let mut buf = [0u8; 4096];
    let mut list = Vec::new();
    loop {
        // SAFETY: the buffer takes what is asked for.
        let n = unsafe { read(fd, buf.as_mut_ptr().cast(), buf.len()) };
        let Ok(n) = usize::try_from(n) else { return list };
        let mut rest = &buf[..n];
        while rest.len() >= 16 {
            let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
            let end = 16 + word(12) as usize;
            let name = String::from_utf8_lossy(&rest[16..end]).trim_end_matches('\0').to_owned();
            list.push((word(4), word(8), name));
            rest = &rest[end..];
        }
    }
}

fn masks(fd: i32) -> Vec<u32> {
    events(fd).into_iter().map(|(mask, _, _)| mask).collect()
}

fn instance() -> i32 {
    ok!(inotify_init1(IN_NONBLOCK))
}

fn moved_pair() {
    let temp = Temp::new();
    file(&temp, "a", b"");
    let fd = instance();
    ok!(inotify_add_watch(fd, temp.join(".").as_ptr(), IN_MOVE));
    ok!(rename(temp.join("a").as_ptr(), temp.join("b").as_ptr()));
    let list = events(fd);
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].0, list[0].2.as_str()), (IN_MOVED_FROM, "a"));
    assert_eq!((list[1].0, list[1].2.as_str()), (IN_MOVED_TO, "b"));
    assert!(list[0].1 != 0 && list[0].1 == list[1].1);
}

fn one_shot() {
    let temp = Temp::new();
    let path = file(&temp, "a", b"");
    let watch = instance();
    ok!(inotify_add_watch(watch, path.as_ptr(), IN_MODIFY | IN_ONESHOT));
    let fd = ok!(open(path.as_ptr(), O_WRONLY));
    write(fd, b"1");
    write(fd, b"2");
    assert_eq!(masks(watch), [IN_MODIFY, IN_IGNORED]);
}

fn excluded_after_unlink() {
    for (extra, seen) in [(0, 2), (IN_EXCL_UNLINK, 1)] {
        let temp = Temp::new();
        let path = file(&temp, "a", b"");
        let watch = instance();
        ok!(inotify_add_watch(watch, temp.join(".").as_ptr(), IN_MODIFY | extra));
        let fd = ok!(open(path.as_ptr(), O_WRONLY));
        write(fd, b"1");
        assert_eq!(masks(watch), [IN_MODIFY]);
        ok!(unlink(path.as_ptr()));
        write(fd, b"2");
        assert_eq!(masks(watch).len() + 1, seen);
    }
}

fn ends_with_the_file() {
    let temp = Temp::new();
    let path = file(&temp, "a", b"");
    let watch = instance();
    ok!(inotify_add_watch(watch, path.as_ptr(), IN_DELETE_SELF | IN_ATTRIB));
    ok!(unlink(path.as_ptr()));
    assert_eq!(masks(watch), [IN_ATTRIB, IN_DELETE_SELF, IN_IGNORED]);
}

fn removed_watch() {
    let temp = Temp::new();
    let watch = instance();
    let wd = ok!(inotify_add_watch(watch, temp.join(".").as_ptr(), IN_CREATE));
    ok!(inotify_rm_watch(watch, wd));
    fails!(EINVAL, inotify_rm_watch(watch, wd));
    file(&temp, "a", b"");
    assert_eq!(masks(watch), [IN_IGNORED]);
}

fn shown_in_fdinfo() {
    let temp = Temp::new();
    let watch = instance();
    let wd = ok!(inotify_add_watch(watch, temp.join(".").as_ptr(), IN_MODIFY | IN_ONESHOT));
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{watch}")).expect("its fdinfo");
    let line = text.lines().find(|line| line.starts_with("inotify ")).expect("a line of the watch");
    let field = |name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name)).expect("a field");
        u64::from_str_radix(word, 16).expect("a number")
    };
    let mut status: stat = zeroed();
    ok!(stat(temp.join(".").as_ptr(), &raw mut status));
    let own = status.st_ino;
    assert_eq!((field("wd:"), field("ino:")), (wd as u64, own));
    assert_eq!(field("mask:"), u64::from(IN_MODIFY | IN_ONESHOT));
}

fn mask_create_and_add() {
    const IN_MASK_CREATE: u32 = 0x1000_0000;
    let temp = Temp::new();
    let path = file(&temp, "a", b"");
    let watch = instance();
    let wd = ok!(inotify_add_watch(watch, path.as_ptr(), IN_OPEN | IN_MASK_CREATE));
    fails!(EEXIST, inotify_add_watch(watch, path.as_ptr(), IN_MODIFY | IN_MASK_CREATE));
    assert_eq!(ok!(inotify_add_watch(watch, path.as_ptr(), IN_CLOSE_NOWRITE | IN_MASK_ADD)), wd);
    close(ok!(open(path.as_ptr(), O_RDONLY)));
    assert_eq!(masks(watch), [IN_OPEN, IN_CLOSE_NOWRITE]);
    fails!(EINVAL, inotify_add_watch(watch, path.as_ptr(), 0));
    fails!(ENOENT, inotify_add_watch(watch, c"/no/such".as_ptr(), IN_OPEN));
}

fn equal_events_join() {
    let temp = Temp::new();
    let path = file(&temp, "a", b"");
    let watch = instance();
    ok!(inotify_add_watch(watch, path.as_ptr(), IN_MODIFY));
    let fd = ok!(open(path.as_ptr(), O_WRONLY));
    write(fd, b"1");
    write(fd, b"2");
    assert_eq!(masks(watch), [IN_MODIFY]);
}

fn limited() {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").expect("a limit");
    let most: u64 = text.trim().parse().expect("a number");
    let mut limit: rlimit = zeroed();
    ok!(getrlimit(RLIMIT_NOFILE, &mut limit));
    limit.rlim_cur = limit.rlim_max;
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    if limit.rlim_max < most + 100 {
        skip!("the limit of descriptors comes first");
    }
    let mut own = Vec::new();
    let end = loop {
        match sys!(inotify_init1(0)) {
            Ok(fd) => own.push(fd),
            Err(errno) => break errno,
        }
        assert!(own.len() as u64 <= most);
    };
    assert_eq!(end, EMFILE);
    // One that goes makes room for another.
    close(own.pop().expect("one at least"));
    ok!(inotify_init1(0));
}
