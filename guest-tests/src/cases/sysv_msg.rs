//! System V message queues.

use std::ptr;

use libc::*;

use crate::harness::{End, cases, fails, fork, in_child, ok, sleep_ms, sys, wait, zeroed};

cases!("sysv_msg": send_receive, by_type, too_long, copy, waits_for_message, waits_for_room, nowait, removal_wakes,
    interrupted, errors, permissions, stat_and_set, lists_in_proc, limits_in_proc);

#[repr(C)]
struct Buffer {
    kind: i64,
    text: [u8; 64],
}

fn queue() -> i32 {
    ok!(msgget(IPC_PRIVATE, 0o600))
}
fn remove(id: i32) {
    ok!(msgctl(id, IPC_RMID, ptr::null_mut()));
}
fn send(id: i32, kind: i64, text: &[u8], flags: i32) -> Result<i32, i32> {
    let mut buffer = Buffer { kind, text: [0; 64] };
    buffer.text[..text.len()].copy_from_slice(text);
    sys!(msgsnd(id, (&raw const buffer).cast(), text.len(), flags))
}
fn receive(id: i32, size: usize, kind: i64, flags: i32) -> Result<(i64, Vec<u8>), i32> {
    let mut buffer = Buffer { kind: 0, text: [0; 64] };
    let n = sys!(msgrcv(id, (&raw mut buffer).cast(), size, kind, flags))?;
    Ok((buffer.kind, buffer.text[..n as usize].to_vec()))
}
fn stat(id: i32) -> msqid_ds {
    let mut ds: msqid_ds = zeroed();
    ok!(msgctl(id, IPC_STAT, &mut ds));
    ds
}

fn send_receive() {
    let id = queue();
    assert_eq!(send(id, 5, b"hello", 0), Ok(0));
    assert_eq!(send(id, 6, b"", 0), Ok(0));
    assert_eq!(receive(id, 64, 0, 0), Ok((5, b"hello".to_vec())));
    assert_eq!(receive(id, 64, 0, 0), Ok((6, vec![])));
    remove(id);
}

fn by_type() {
    let id = queue();
    for kind in [3, 1, 2, 3] {
        send(id, kind, &[kind as u8], 0).expect("sent");
    }
    assert_eq!(receive(id, 64, 2, 0), Ok((2, vec![2])));
    assert_eq!(receive(id, 64, -3, 0), Ok((1, vec![1])));
    send(id, 9, b"9", 0).expect("sent");
    assert_eq!(receive(id, 64, 3, MSG_EXCEPT), Ok((9, b"9".to_vec())));
    assert_eq!(receive(id, 64, -2, IPC_NOWAIT), Err(ENOMSG));
    assert_eq!(receive(id, 64, i64::MIN, 0), Ok((3, vec![3])));
    remove(id);
}

fn too_long() {
    let id = queue();
    send(id, 1, b"0123456789", 0).expect("sent");
    assert_eq!(receive(id, 4, 0, 0), Err(E2BIG));
    assert_eq!(receive(id, 4, 0, MSG_NOERROR), Ok((1, b"0123".to_vec())));
    assert_eq!(receive(id, 4, 0, IPC_NOWAIT), Err(ENOMSG));
    remove(id);
}

fn copy() {
    const MSG_COPY: i32 = 0o40000;
    let id = queue();
    if receive(id, 64, 0, MSG_COPY | IPC_NOWAIT) == Err(ENOSYS) {
        crate::harness::skip!("the kernel has no MSG_COPY");
    }
    send(id, 1, b"one", 0).expect("sent");
    send(id, 2, b"two", 0).expect("sent");
    assert_eq!(receive(id, 64, 1, MSG_COPY | IPC_NOWAIT), Ok((2, b"two".to_vec())));
    assert_eq!(receive(id, 64, 2, MSG_COPY | IPC_NOWAIT), Err(ENOMSG));
    assert_eq!(receive(id, 64, 0, MSG_COPY), Err(EINVAL));
    assert_eq!(receive(id, 64, 0, MSG_COPY | IPC_NOWAIT | MSG_EXCEPT), Err(EINVAL));
    assert_eq!(stat(id).msg_qnum, 2);
    remove(id);
}

fn waits_for_message() {
    let id = queue();
    let pid = fork(|| i32::from(receive(id, 64, 7, 0) != Ok((7, b"now".to_vec()))));
    sleep_ms(20);
    send(id, 6, b"no", 0).expect("sent");
    sleep_ms(10);
    send(id, 7, b"now", 0).expect("sent");
    assert_eq!(wait(pid), End::Exited(0));
    remove(id);
}

fn waits_for_room() {
    let id = queue();
    let mut ds = stat(id);
    ds.msg_qbytes = 16;
    ok!(msgctl(id, IPC_SET, &mut ds));
    send(id, 1, &[0; 16], 0).expect("sent");
    assert_eq!(send(id, 1, b"x", IPC_NOWAIT), Err(EAGAIN));
    let pid = fork(|| send(id, 2, b"later", 0).unwrap_or(9));
    sleep_ms(20);
    receive(id, 64, 1, 0).expect("received");
    assert_eq!(wait(pid), End::Exited(0));
    assert_eq!(receive(id, 64, 0, 0), Ok((2, b"later".to_vec())));
    remove(id);
}

fn nowait() {
    let id = queue();
    assert_eq!(receive(id, 64, 0, IPC_NOWAIT), Err(ENOMSG));
    for _ in 0..256 {
        send(id, 1, &[0; 64], IPC_NOWAIT).expect("room");
    }
    assert_eq!(send(id, 1, b"x", IPC_NOWAIT), Err(EAGAIN));
    remove(id);
}

fn removal_wakes() {
    let id = queue();
    let pid = fork(|| receive(id, 64, 0, 0).map_or_else(|errno| errno, |_| 0));
    sleep_ms(20);
    remove(id);
    assert_eq!(wait(pid), End::Exited(EIDRM));
}

extern "C" fn nothing(_: i32) {}

fn interrupted() {
    let id = queue();
    let pid = fork(|| {
        let mut action: sigaction = zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = SA_RESTART;
        ok!(sigaction(SIGUSR1, &action, ptr::null_mut()));
        receive(id, 64, 0, 0).map_or_else(|errno| errno, |_| 0)
    });
    sleep_ms(50);
    ok!(kill(pid, SIGUSR1));
    assert_eq!(wait(pid), End::Exited(EINTR));
    remove(id);
}

fn errors() {
    let id = queue();
    assert_eq!(send(id, 0, b"x", 0), Err(EINVAL));
    assert_eq!(send(id, -1, b"x", 0), Err(EINVAL));
    assert_eq!(send(-1, 1, b"x", 0), Err(EINVAL));
    let big = vec![0u8; 9000];
    fails!(EINVAL, msgsnd(id, big.as_ptr().cast(), 8193, 0));
    fails!(EINVAL, msgsnd(id, big.as_ptr().cast(), usize::MAX, 0));
    fails!(EFAULT, msgsnd(id, ptr::without_provenance(8), 1, 0));
    fails!(EINVAL, msgrcv(id, ptr::null_mut(), usize::MAX, 0, 0));
    send(id, 1, b"x", 0).expect("sent");
    fails!(EFAULT, msgrcv(id, ptr::without_provenance_mut(8), 1, 0, 0));
    fails!(EINVAL, msgctl(id, 99, ptr::null_mut()));
    remove(id);
    assert_eq!(send(id, 1, b"x", 0), Err(EINVAL));
    assert_eq!(receive(id, 1, 0, 0), Err(EINVAL));
    let key = (ok!(getpid()) << 8) | 0x4000_0001;
    fails!(ENOENT, msgget(key, 0));
    let id = ok!(msgget(key, IPC_CREAT | 0o600));
    fails!(EEXIST, msgget(key, IPC_CREAT | IPC_EXCL));
    remove(id);
}

fn permissions() {
    if ok!(geteuid()) != 0 {
        crate::harness::skip!("needs root");
    }
    let id = ok!(msgget(IPC_PRIVATE, 0o602));
    in_child(|| {
        ok!(setresgid(1234, 1234, 1234));
        ok!(setgroups(0, ptr::null()));
        ok!(setresuid(1234, 1234, 1234));
        assert_eq!(send(id, 1, b"x", 0), Ok(0));
        assert_eq!(receive(id, 64, 0, IPC_NOWAIT), Err(EACCES));
        fails!(EACCES, msgctl(id, IPC_STAT, &mut zeroed::<msqid_ds>()));
        fails!(EPERM, msgctl(id, IPC_RMID, ptr::null_mut()));
    });
    // More room than the limit is not for everybody; taking away is.
    let mut ds = stat(id);
    ds.msg_perm.uid = 1234;
    ok!(msgctl(id, IPC_SET, &mut ds));
    in_child(|| {
        ok!(setresuid(1234, 1234, 1234));
        let mut ds = stat(id);
        ds.msg_qbytes = 16385;
        fails!(EPERM, msgctl(id, IPC_SET, &mut ds));
        ds.msg_qbytes = 100;
        ok!(msgctl(id, IPC_SET, &mut ds));
    });
    remove(id);
}

fn stat_and_set() {
    let id = queue();
    let ds = stat(id);
    assert_eq!((ds.msg_qnum, ds.msg_qbytes, ds.msg_lspid, ds.msg_lrpid), (0, 16384, 0, 0));
    assert_eq!((ds.msg_stime, ds.msg_rtime), (0, 0));
    send(id, 1, b"hello", 0).expect("sent");
    let ds = stat(id);
    assert_eq!((ds.msg_qnum, ds.__msg_cbytes, ds.msg_lspid), (1, 5, ok!(getpid())));
    assert!(ds.msg_stime > 0);
    receive(id, 64, 0, 0).expect("received");
    let ds = stat(id);
    assert_eq!((ds.msg_qnum, ds.__msg_cbytes, ds.msg_lrpid), (0, 0, ok!(getpid())));
    remove(id);
}

fn lists_in_proc() {
    let id = queue();
    send(id, 1, b"hello", 0).expect("sent");
    let text = std::fs::read_to_string("/proc/sysvipc/msg").expect("/proc/sysvipc/msg");
    let line =
        text.lines().find(|l| l.split_ascii_whitespace().nth(1) == Some(&id.to_string())).expect("a line");
    let fields: Vec<_> = line.split_ascii_whitespace().take(5).collect();
    assert_eq!(fields, ["0", &id.to_string(), "600", "5", "1"]);
    remove(id);
}

fn limits_in_proc() {
    for (name, value) in
        [("msgmax", "8192\n"), ("msgmnb", "16384\n"), ("msgmni", "32000\n"), ("shmmni", "4096\n")]
    {
        assert_eq!(std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).expect(name), value);
    }
}
