//! System V shared memory.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::harness::{End, cases, fails, fork, in_child, ok, sys, wait, zeroed};

cases!("sysv_shm": get_by_key, get_errors, shared_with_child, fork_counts_attachments, exec_detaches, read_only,
    removal_waits_for_detach, fixed_address, remap, detach_errors, permissions, stat_and_set, info, lists_in_proc,
    unmapped_is_not_detached, many);

/// A key of this process's own.
fn key(n: i32) -> key_t {
    (ok!(getpid()) << 8) | n | 0x4000_0000
}

fn stat(id: i32) -> shmid_ds {
    let mut ds: shmid_ds = zeroed();
    ok!(shmctl(id, IPC_STAT, &mut ds));
    ds
}

fn remove(id: i32) {
    ok!(shmctl(id, IPC_RMID, ptr::null_mut()));
}

fn word(at: *mut c_void) -> &'static AtomicU32 {
    // SAFETY: the segment is attached at least as long as the case looks.
    unsafe { AtomicU32::from_ptr(at.cast()) }
}

fn get_by_key() {
    let id = ok!(shmget(key(1), 100, IPC_CREAT | IPC_EXCL | 0o600));
    assert_eq!(ok!(shmget(key(1), 100, 0)), id);
    assert_eq!(ok!(shmget(key(1), 0, IPC_CREAT | 0o600)), id);
    fails!(EEXIST, shmget(key(1), 100, IPC_CREAT | IPC_EXCL | 0o600));
    fails!(EINVAL, shmget(key(1), 101, 0));
    let other = ok!(shmget(IPC_PRIVATE, 100, 0o600));
    assert_ne!(other, id);
    remove(id);
    remove(other);
    fails!(ENOENT, shmget(key(1), 100, 0));
    fails!(EINVAL, shmctl(id, IPC_STAT, &mut zeroed::<shmid_ds>()));
}

fn get_errors() {
    fails!(ENOENT, shmget(key(2), 100, 0));
    fails!(EINVAL, shmget(IPC_PRIVATE, 0, 0o600));
    fails!(EINVAL, shmget(IPC_PRIVATE, usize::MAX, 0o600));
    fails!(EINVAL, shmat(-1, ptr::null(), 0));
    fails!(EINVAL, shmat(0x7fff_0000, ptr::null(), 0));
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    fails!(EINVAL, shmat(id, ptr::without_provenance(0x7000_0001), 0));
    fails!(EINVAL, shmat(id, ptr::null(), SHM_REMAP));
    fails!(EINVAL, shmctl(id, 77, ptr::null_mut()));
    fails!(EFAULT, shmctl(id, IPC_STAT, ptr::without_provenance_mut(8)));
    remove(id);
}

fn shared_with_child() {
    let id = ok!(shmget(IPC_PRIVATE, 8192, 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    let mine = word(at);
    mine.store(7, SeqCst);
    in_child(|| {
        // Inherited, and attached once more.
        assert_eq!(mine.load(SeqCst), 7);
        let again = ok!(shmat(id, ptr::null(), 0));
        assert_ne!(again, at);
        word(again).store(8, SeqCst);
    });
    assert_eq!(mine.load(SeqCst), 8);
    // SAFETY: the second page of the two that are attached.
    let second = unsafe { at.cast::<u8>().add(4096).cast() };
    word(second).store(5, SeqCst);
    ok!(shmdt(at));
    let at = ok!(shmat(id, ptr::null(), 0));
    assert_eq!(word(at).load(SeqCst), 8);
    ok!(shmdt(at));
    remove(id);
}

fn fork_counts_attachments() {
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    let twice = ok!(shmat(id, ptr::null(), 0));
    assert_eq!(stat(id).shm_nattch, 2);
    let (ready, tell) = crate::harness::pipe();
    let pid = fork(|| {
        ok!(shmdt(twice));
        crate::harness::write(tell, b"x");
        ok!(pause());
        0
    });
    crate::harness::read(ready, 1);
    let now = stat(id);
    assert_eq!((now.shm_nattch, now.shm_lpid), (3, pid));
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
    assert_eq!(stat(id).shm_nattch, 2);
    let pid = ok!(libc::fork());
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { _exit(3) };
    }
    assert_eq!(wait(pid), End::Exited(3));
    let now = stat(id);
    assert_eq!((now.shm_nattch, now.shm_lpid), (2, pid));
    assert!(now.shm_dtime > 0);
    ok!(shmdt(at));
    ok!(shmdt(twice));
    assert_eq!(stat(id).shm_nattch, 0);
    remove(id);
}

fn exec_detaches() {
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    ok!(shmat(id, ptr::null(), 0));
    let (lives, end) = crate::harness::pipe();
    let pid = fork(|| {
        assert_eq!(stat(id).shm_nattch, 2);
        ok!(dup2(lives, 0));
        ok!(close(end));
        let argv = [c"cat".as_ptr(), ptr::null()];
        ok!(execv(c"/bin/cat".as_ptr(), argv.as_ptr()));
        1
    });
    while stat(id).shm_nattch != 1 {
        crate::harness::sleep_ms(2);
    }
    ok!(close(end));
    assert_eq!(wait(pid), End::Exited(0));
    remove(id);
}

fn read_only() {
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    let at = ok!(shmat(id, ptr::null(), SHM_RDONLY));
    assert_eq!(word(at).load(SeqCst), 0);
    fails!(EACCES, mprotect(at, 4096, PROT_READ | PROT_WRITE));
    let pid = fork(|| {
        word(at).store(1, SeqCst);
        0
    });
    assert_eq!(wait(pid), End::Killed(SIGSEGV));
    remove(id);
}

fn removal_waits_for_detach() {
    let id = ok!(shmget(key(3), 4096, IPC_CREAT | 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    word(at).store(3, SeqCst);
    remove(id);
    fails!(ENOENT, shmget(key(3), 4096, 0));
    let ds = stat(id);
    assert_eq!((ds.shm_perm.mode & 0o1000, ds.shm_perm.__key, ds.shm_nattch), (0o1000, IPC_PRIVATE, 1));
    let again = ok!(shmat(id, ptr::null(), 0));
    assert_eq!(word(again).load(SeqCst), 3);
    ok!(shmdt(again));
    ok!(shmdt(at));
    fails!(EINVAL, shmctl(id, IPC_STAT, &mut zeroed::<shmid_ds>()));
}

fn free_range(len: usize) -> *mut c_void {
    let at = ok!(mmap(ptr::null_mut(), len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ok!(munmap(at, len));
    at
}

fn fixed_address() {
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    let want = free_range(8192);
    assert_eq!(ok!(shmat(id, want, 0)), want);
    fails!(EINVAL, shmat(id, want, 0));
    ok!(shmdt(want));
    // SAFETY: not followed.
    let inside = unsafe { want.cast::<u8>().add(123).cast() };
    assert_eq!(ok!(shmat(id, inside, SHM_RND)), want);
    ok!(shmdt(want));
    remove(id);
}

fn remap() {
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let want = ok!(mmap(ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, flags, -1, 0));
    word(want).store(9, SeqCst);
    fails!(EINVAL, shmat(id, want, 0));
    assert_eq!(ok!(shmat(id, want, SHM_REMAP)), want);
    assert_eq!(word(want).load(SeqCst), 0);
    // Over itself: the old attachment goes.
    assert_eq!(ok!(shmat(id, want, SHM_REMAP)), want);
    assert_eq!(stat(id).shm_nattch, 1);
    ok!(shmdt(want));
    remove(id);
}

fn detach_errors() {
    let id = ok!(shmget(IPC_PRIVATE, 8192, 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    fails!(EINVAL, shmdt(at.wrapping_byte_add(1)));
    fails!(EINVAL, shmdt(at.wrapping_byte_add(4096)));
    ok!(shmdt(at));
    fails!(EINVAL, shmdt(at));
    fails!(EINVAL, shmdt(ptr::null()));
    remove(id);
}

fn permissions() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    let key = key(4);
    let id = ok!(shmget(key, 4096, IPC_CREAT | 0o640));
    in_child(|| {
        ok!(setresgid(1234, 1234, 1234));
        ok!(setgroups(0, ptr::null()));
        ok!(setresuid(1234, 1234, 1234));
        fails!(EACCES, shmat(id, ptr::null(), SHM_RDONLY));
        fails!(EACCES, shmget(key, 4096, 0o400));
        assert_eq!(ok!(shmget(key, 4096, 0)), id);
        fails!(EACCES, shmctl(id, IPC_STAT, &mut zeroed::<shmid_ds>()));
        fails!(EPERM, shmctl(id, IPC_RMID, ptr::null_mut()));
    });
    in_child(|| {
        ok!(setgroups(0, ptr::null()));
        ok!(setresuid(1234, 1234, 1234));
        // The group may read.
        ok!(shmat(id, ptr::null(), SHM_RDONLY));
        fails!(EACCES, shmat(id, ptr::null(), 0));
    });
    remove(id);
}

fn stat_and_set() {
    let id = ok!(shmget(key(5), 5000, IPC_CREAT | 0o621));
    let mut ds = stat(id);
    assert_eq!((ds.shm_segsz, ds.shm_perm.mode, ds.shm_cpid), (5000, 0o621, ok!(getpid())));
    assert_eq!((ds.shm_atime, ds.shm_dtime, ds.shm_lpid), (0, 0, 0));
    assert!(ds.shm_ctime > 1_500_000_000);
    assert_eq!((ds.shm_perm.__key, ds.shm_perm.cuid), (key(5), ok!(geteuid())));
    ds.shm_perm.mode = 0o7604;
    ok!(shmctl(id, IPC_SET, &mut ds));
    assert_eq!(stat(id).shm_perm.mode, 0o604);
    let at = ok!(shmat(id, ptr::null(), 0));
    assert!(stat(id).shm_atime >= ds.shm_ctime);
    ok!(shmdt(at));
    remove(id);
}

fn info() {
    const SHM_INFO: i32 = 14;
    const SHM_STAT: i32 = 13;
    let id = ok!(shmget(IPC_PRIVATE, 4096, 0o600));
    let mut words = [0u64; 14];
    let highest = ok!(shmctl(0, SHM_INFO, words.as_mut_ptr().cast()));
    assert!(words[0] as u32 >= 1 && words[1] >= 1);
    let found = (0..=highest).any(|at| sys!(shmctl(at, SHM_STAT, &mut zeroed::<shmid_ds>())) == Ok(id));
    assert!(found);
    ok!(shmctl(0, IPC_INFO, words.as_mut_ptr().cast()));
    assert_eq!((words[0], words[1]), (u64::MAX - (1 << 24), 1));
    remove(id);
}

fn lists_in_proc() {
    let id = ok!(shmget(key(6), 4096, IPC_CREAT | 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    let text = std::fs::read_to_string("/proc/sysvipc/shm").expect("/proc/sysvipc/shm");
    assert!(text.starts_with("       key      shmid perms                  size  cpid  lpid nattch"));
    let line =
        text.lines().find(|l| l.split_ascii_whitespace().nth(1) == Some(&id.to_string())).expect("a line");
    let fields: Vec<_> = line.split_ascii_whitespace().take(7).collect();
    let pid = std::process::id().to_string();
    let key = key(6).to_string();
    assert_eq!(fields, [key.as_str(), &id.to_string(), "600", "4096", &pid, &pid, "1"]);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(
        maps.lines().any(|l| l.starts_with(&format!("{:x}-", at.addr())) && l.contains("/SYSV")),
        "{maps}"
    );
    remove(id);
}

fn unmapped_is_not_detached() {
    let id = ok!(shmget(IPC_PRIVATE, 8192, 0o600));
    let at = ok!(shmat(id, ptr::null(), 0));
    // Half of it is unmapped, and something else put there: shmdt takes the other half only.
    ok!(munmap(at.wrapping_byte_add(4096), 4096));
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let other = ok!(mmap(at.wrapping_byte_add(4096), 4096, PROT_READ | PROT_WRITE, flags, -1, 0));
    word(other).store(4, SeqCst);
    ok!(shmdt(at));
    assert_eq!(word(other).load(SeqCst), 4);
    assert_eq!(stat(id).shm_nattch, 0);
    remove(id);
}

fn many() {
    let ids: Vec<i32> = (0..300).map(|_| ok!(shmget(IPC_PRIVATE, 4096, 0o600))).collect();
    let at: Vec<_> = ids.iter().map(|id| ok!(shmat(*id, ptr::null(), 0))).collect();
    for (at, n) in at.iter().zip(0u32..) {
        word(*at).store(n, SeqCst);
    }
    for (at, n) in at.iter().zip(0u32..) {
        assert_eq!(word(*at).load(SeqCst), n);
        ok!(shmdt(*at));
    }
    ids.into_iter().for_each(remove);
}
