//! Reads and writes of bytes that are there already: in files of memory and of the file system, small and large.

use libc::*;

use crate::harness::{Temp, cases, fails, file, in_child, ok, write, zeroed};

cases!("rewrite": as_in_memory, addresses_that_are_bad, beyond_the_limit, seals, pages_in_use);

/// Larger than what is kept without a file of the host.
const LARGE: usize = 300_000;

/// Runs a case on a memory file and on one of the file system.
fn on_both(case: impl Fn(i32)) {
    let temp = Temp::new();
    case(ok!(memfd_create(c"rewrite".as_ptr(), MFD_ALLOW_SEALING)));
    case(ok!(open(file(&temp, "f", b"").as_ptr(), O_RDWR)));
}

fn position(fd: i32) -> i64 {
    ok!(lseek(fd, 0, SEEK_CUR))
}

fn as_in_memory() {
    on_both(|fd| {
        let mut bytes: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
        write(fd, &bytes);
        let mut random = 1u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        for turn in 0..400u32 {
            let at = next(bytes.len() + 5000);
            let new = vec![turn as u8; 1 + next(6000)];
            if turn % 2 == 0 {
                assert_eq!(ok!(pwrite(fd, new.as_ptr().cast(), new.len(), at as i64)), new.len() as isize);
            } else {
                ok!(lseek(fd, at as i64, SEEK_SET));
                write(fd, &new);
                assert_eq!(position(fd), (at + new.len()) as i64);
            }
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(&new);
            let (at, mut found) = (next(bytes.len() + 5000), vec![0xee; 1 + next(70_000)]);
            let expected = bytes.get(at..(at + found.len()).min(bytes.len())).unwrap_or_default();
            let got = if turn % 3 == 0 {
                ok!(pread(fd, found.as_mut_ptr().cast(), found.len(), at as i64))
            } else {
                ok!(lseek(fd, at as i64, SEEK_SET));
                let got = ok!(read(fd, found.as_mut_ptr().cast(), found.len()));
                assert_eq!(position(fd), at as i64 + got as i64);
                got
            };
            assert_eq!(got, expected.len() as isize);
            assert!(found[..expected.len()] == *expected, "turn {turn}, at {at}");
            assert!(found[expected.len()..].iter().all(|byte| *byte == 0xee));
        }
    });
}

fn addresses_that_are_bad() {
    on_both(|fd| {
        write(fd, &[b'x'; LARGE]);
        ok!(lseek(fd, 1000, SEEK_SET));
        for bad in [0usize, 8, 1 << 62] {
            fails!(EFAULT, read(fd, bad as *mut c_void, 4096));
            fails!(EFAULT, pread(fd, bad as *mut c_void, 4096, 0));
            fails!(EFAULT, libc::write(fd, bad as *const c_void, 4096));
            fails!(EFAULT, pwrite(fd, bad as *const c_void, 4096, 0));
            assert_eq!(position(fd), 1000);
        }
        // Nothing of it is asked for.
        assert_eq!(ok!(pread(fd, 8 as *mut c_void, 4096, LARGE as i64)), 0);
    });
}

fn beyond_the_limit() {
    on_both(|fd| {
        write(fd, &[b'x'; LARGE]);
        in_child(|| {
            let limit = rlimit { rlim_cur: 200_000, rlim_max: 200_000 };
            ok!(setrlimit(RLIMIT_FSIZE, &limit));
            // SAFETY: no handler.
            unsafe { signal(SIGXFSZ, SIG_IGN) };
            let page = [b'y'; 4096];
            assert_eq!(ok!(pwrite(fd, page.as_ptr().cast(), 4096, 190_000)), 4096);
            assert_eq!(ok!(pwrite(fd, page.as_ptr().cast(), 4096, 199_000)), 1000);
            fails!(EFBIG, pwrite(fd, page.as_ptr().cast(), 4096, 200_000));
        });
        let mut found = [0u8; 2];
        ok!(pread(fd, found.as_mut_ptr().cast(), 2, 199_999));
        assert_eq!(&found, b"yx");
    });
}

fn seals() {
    let fd = ok!(memfd_create(c"rewrite".as_ptr(), MFD_ALLOW_SEALING));
    write(fd, &[b'x'; LARGE]);
    let page = [b'y'; 4096];
    assert_eq!(ok!(pwrite(fd, page.as_ptr().cast(), 4096, 4096)), 4096);
    ok!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    fails!(EPERM, pwrite(fd, page.as_ptr().cast(), 4096, 4096));
    ok!(lseek(fd, 0, SEEK_SET));
    fails!(EPERM, libc::write(fd, page.as_ptr().cast(), 4096));
    assert_eq!(position(fd), 0);
}

/// What a file takes is known whatever was done to it.
fn pages_in_use() {
    let fd = ok!(memfd_create(c"rewrite".as_ptr(), 0));
    let pages = || {
        let mut stat: stat = zeroed();
        ok!(fstat(fd, &mut stat));
        stat.st_blocks / 8
    };
    let page = [b'y'; 4096];
    let put = |number: i64| assert_eq!(ok!(pwrite(fd, page.as_ptr().cast(), 4096, number * 4096)), 4096);
    (0..40).for_each(put);
    assert_eq!(pages(), 40);
    put(20);
    put(60);
    assert_eq!(pages(), 41);
    ok!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192));
    assert_eq!(pages(), 39);
    put(1);
    assert_eq!(pages(), 40);
    ok!(ftruncate(fd, 30 * 4096 + 1));
    assert_eq!(pages(), 30);
    put(2);
    put(31);
    assert_eq!(pages(), 32);
    let size = 64 * 4096;
    ok!(ftruncate(fd, size));
    let map =
        ok!(mmap(std::ptr::null_mut(), size as usize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) as isize);
    // SAFETY: within the mapping.
    unsafe { ((map + 50 * 4096) as *mut u8).write_volatile(1) };
    assert_eq!(pages(), 33);
    put(0);
    assert_eq!(pages(), 33);
}
