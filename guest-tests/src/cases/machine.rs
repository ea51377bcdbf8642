//! Calls for the machine itself, and memory policy.

use std::ptr;

use libc::*;

use crate::harness::{cases, fails, in_child, ok, sys, zeroed};

cases!("machine": not_for_users, ports, clock_is_read, memory_policy, policy_errors, pages_of_node_zero, mlockall_errors,
    rings_are_refused, kernel_log, large_pages_are_told_of, devices_by_their_number);

/// /sys/dev: each entry leads to the device that has its number.
fn devices_by_their_number() {
    use std::os::unix::fs::MetadataExt;
    for name in ["null", "zero", "full", "random", "urandom"] {
        let device = std::fs::metadata(format!("/dev/{name}")).expect(name).rdev();
        let number = format!("{}:{}", major(device), minor(device));
        let entry = format!("/sys/dev/char/{number}");
        assert!(std::fs::symlink_metadata(&entry).expect("an entry").is_symlink());
        let text = std::fs::read_to_string(format!("{entry}/dev")).expect("its number");
        assert_eq!(text, format!("{number}\n"));
        let text = std::fs::read_to_string(format!("{entry}/uevent")).expect("its names");
        assert!(text.contains(&format!("DEVNAME={name}\n")), "{text}");
        let class = std::fs::canonicalize(format!("/sys/class/mem/{name}")).expect("of its class");
        assert_eq!(class, std::fs::canonicalize(&entry).expect("the device"));
        let subsystem = std::fs::canonicalize(format!("{entry}/subsystem")).expect("its class");
        assert_eq!(subsystem.to_str(), Some("/sys/class/mem"));
    }
    for entry in std::fs::read_dir("/sys/dev/block").expect("block devices") {
        let entry = entry.expect("an entry");
        let text = std::fs::read_to_string(entry.path().join("dev")).expect("its number");
        assert_eq!(Some(text.trim_end()), entry.file_name().to_str());
    }
}

/// What databases read of large pages at their start.
fn large_pages_are_told_of() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}"))
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    for name in ["enabled", "defrag", "shmem_enabled"] {
        assert!(read(name).contains('['), "{name}");
    }
    for name in [
        "max_ptes_none",
        "max_ptes_swap",
        "pages_to_scan",
        "scan_sleep_millisecs",
        "alloc_sleep_millisecs",
        "defrag",
    ] {
        let text = read(&format!("khugepaged/{name}"));
        assert!(text.trim_end().parse::<u32>().is_ok(), "{name} is {text:?}");
    }
}

/// Runs the body as somebody without privileges.
fn as_user(body: impl FnOnce()) {
    in_child(|| {
        if ok!(geteuid()) == 0 {
            ok!(setresgid(1234, 1234, 1234));
            ok!(setresuid(1234, 1234, 1234));
        }
        body();
    });
}

fn not_for_users() {
    as_user(|| {
        fails!(EPERM, syscall(SYS_vhangup));
        fails!(EPERM, syscall(SYS_acct, ptr::null::<u8>()));
        fails!(EPERM, syscall(SYS_swapoff, c"/nothing".as_ptr()));
        fails!(EPERM, syscall(SYS_reboot, 0xfee1_dead_u32, 672_274_793, 0x89ab_cdef_u32, 0));
        // Some kernels are built without modules.
        let errno = sys!(syscall(SYS_delete_module, c"nothing".as_ptr(), 0)).expect_err("no modules");
        assert!([EPERM, ENOSYS].contains(&errno));
    });
}

fn ports() {
    as_user(|| {
        if sys!(iopl(3)) == Err(ENOSYS) {
            // Built without it: a child cannot skip.
            return;
        }
        fails!(EPERM, iopl(3));
        fails!(EINVAL, iopl(4));
        ok!(iopl(0));
        fails!(EPERM, ioperm(0x80, 1, 1));
        fails!(EINVAL, ioperm(0x1_0000, 1, 1));
        fails!(EINVAL, ioperm(0, 0, 1));
        ok!(ioperm(0x80, 1, 0));
    });
}

fn clock_is_read() {
    let mut now: timex = zeroed();
    let state = ok!(adjtimex(&mut now));
    assert!((0..=5).contains(&state));
    assert_eq!(now.tick / 1000, 10);
    let mut date: timespec = zeroed();
    ok!(clock_gettime(CLOCK_REALTIME, &mut date));
    assert!((date.tv_sec - now.time.tv_sec).abs() <= 1);
    as_user(|| {
        let mut change: timex = zeroed();
        change.modes = ADJ_TICK;
        change.tick = 10_000;
        fails!(EPERM, adjtimex(&mut change));
        fails!(EPERM, clock_adjtime(CLOCK_REALTIME, &mut change));
    });
    fails!(EFAULT, adjtimex(ptr::without_provenance_mut(8)));
    fails!(EINVAL, clock_adjtime(999, &mut now));
}

fn policy() -> (i32, u64) {
    let (mut mode, mut mask) = (-1i32, u64::MAX);
    ok!(syscall(SYS_get_mempolicy, &mut mode, &mut mask, 64, 0, 0));
    (mode, mask)
}

fn memory_policy() {
    assert_eq!(policy(), (0, 0));
    let node = 1u64;
    ok!(syscall(SYS_set_mempolicy, 2, &node, 64));
    assert_eq!(policy(), (2, 1));
    ok!(syscall(SYS_set_mempolicy, 3, &node, 64));
    assert_eq!(policy(), (3, 1));
    ok!(syscall(SYS_set_mempolicy, 0, ptr::null::<u64>(), 0));
    assert_eq!(policy(), (0, 0));
    let mut allowed = 0u64;
    ok!(syscall(SYS_get_mempolicy, ptr::null::<i32>(), &mut allowed, 64, 0, 4));
    assert_eq!(allowed, 1);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let at = ok!(mmap(ptr::null_mut(), 8192, PROT_READ | PROT_WRITE, flags, -1, 0));
    ok!(syscall(SYS_mbind, at, 8192, 2, &node, 64, 0));
}

fn policy_errors() {
    let other = 2u64;
    let node = 1u64;
    fails!(EINVAL, syscall(SYS_set_mempolicy, 2, &other, 64));
    fails!(EINVAL, syscall(SYS_set_mempolicy, 2, ptr::null::<u64>(), 0));
    fails!(EINVAL, syscall(SYS_set_mempolicy, 99, &node, 64));
    fails!(EFAULT, syscall(SYS_set_mempolicy, 2, 8, 64));
    fails!(EINVAL, syscall(SYS_get_mempolicy, 0, 0, 0, 0, 77));
    fails!(EINVAL, syscall(SYS_mbind, 1, 4096, 2, &node, 64, 0));
}

fn pages_of_node_zero() {
    let here = Box::new(5u8);
    let pages = [(&raw const *here).addr() & !4095, 8 * 4096];
    let mut status = [77i32; 2];
    ok!(syscall(SYS_move_pages, 0, 2, pages.as_ptr(), ptr::null::<i32>(), status.as_mut_ptr(), 0));
    assert_eq!(status[0], 0);
    assert!(status[1] < 0);
    fails!(EINVAL, syscall(SYS_move_pages, 0, 0, 0, 0, 0, 99));
    fails!(ESRCH, syscall(SYS_move_pages, 0x03ff_ffff, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 0));
}

fn mlockall_errors() {
    fails!(EINVAL, mlockall(0));
    fails!(EINVAL, mlockall(8));
    fails!(EINVAL, mlockall(4));
}

fn rings_are_refused() {
    // Where there are none, programs fall back by themselves.
    let mut parameters = [0u8; 120];
    match sys!(syscall(SYS_io_uring_setup, 4, parameters.as_mut_ptr())) {
        Ok(_) | Err(EPERM | ENOSYS) => {}
        Err(errno) => panic!("errno {errno}"),
    }
    fails!(EBADF, syscall(SYS_io_uring_enter, 9999, 0, 0, 0, 0, 0));
}

fn kernel_log() {
    as_user(|| {
        let errno = sys!(klogctl(8, ptr::null_mut(), 1)).expect_err("the console is not a user's");
        assert_eq!(errno, EPERM);
    });
}
