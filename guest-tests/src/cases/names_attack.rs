//! What processes could learn of paths that others ask for.

use libc::*;

use crate::harness::{End, Temp, c, cases, close, fork, ok, sys, wait, zeroed};

cases!("names_attack": no_names_of_hidden_files);

/// Where a sandbox has what its processes know of paths; natively there is nothing.
const TABLE: usize = 0x7e00_1c00_0000;

/// Names in directories that anybody may search, but not list, such as those of sessions, are told to nobody.
fn no_names_of_hidden_files() {
    let temp = Temp::new();
    ok!(chmod(c(temp.path().to_str().expect("ASCII")).as_ptr(), 0o755));
    for mode in [0o711, 0o1733, 0o551] {
        let (dir, file, none) = (temp.join("d"), temp.join("d/secretly-there"), temp.join("d/secretly-not"));
        ok!(mkdir(dir.as_ptr(), 0o755));
        close(ok!(open(file.as_ptr(), O_CREAT | O_WRONLY, 0o644)));
        ok!(chmod(dir.as_ptr(), mode));
        for _ in 0..5 {
            ok!(access(file.as_ptr(), F_OK));
            let mut status: stat = zeroed();
            ok!(fstatat(AT_FDCWD, file.as_ptr(), &raw mut status, 0));
            assert_eq!(sys!(access(none.as_ptr(), F_OK)), Err(ENOENT));
        }
        // Natively it ends at the first byte.
        let pid = fork(|| {
            ok!(setrlimit(RLIMIT_CORE, &zeroed()));
            // SAFETY: reads what is mapped there, if anything is.
            let byte = |at: usize| unsafe { (at as *const u8).read_volatile() };
            let told = |at: usize| b"secretly-".iter().enumerate().all(|(i, wanted)| byte(at + i) == *wanted);
            i32::from((TABLE..TABLE + 0xc_0000).any(told))
        });
        let end = wait(pid);
        assert!(matches!(end, End::Exited(0) | End::Killed(SIGSEGV)), "{mode:o}: {end:?}");
        ok!(unlink(file.as_ptr()));
        ok!(rmdir(dir.as_ptr()));
    }
}
