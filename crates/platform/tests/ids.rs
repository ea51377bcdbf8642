//! Host ids that are used again soon: in a pid namespace with room for few, threads and processes come and go, and
//! each request and each answer is that of the right guest.
#![expect(clippy::panic, reason = "helpers of tests fail so")]

#[path = "machine/common.rs"]
mod common;

use std::collections::VecDeque;
use std::process::Command;

use common::{CODE, Kind, call, clone_request, expect_call, guest, run};
use platform::{Exit, GuestThread};

/// Ids of the namespace. Those below 300 are given once.
const IDS: u32 = 400;
const INSIDE: &str = "SALLET_TEST_FEW_IDS";

/// Limits of a pid namespace alone came with Linux 6.14; before, the whole host would feel it.
fn has_own_limit() -> bool {
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

/// In a loop: clone; the child's number from rbx, which is told to it by nobody else, goes with two calls.
async fn parent() -> GuestThread {
    // 1: clone; test eax, eax; jz 2f; jmp 1b; 2: mov rdi, rbx; getpgid; mov rdi, rbx; mov rsi, rax; exit
    let mut code = call(56);
    code.extend([0x85, 0xc0, 0x74, 0x02, 0xeb, 0xf3]);
    code.extend([0x48, 0x89, 0xdf]);
    code.extend(call(121));
    code.extend([0x48, 0x89, 0xdf, 0x48, 0x89, 0xc6]);
    code.extend(call(60));
    let mut parent = guest(&code).await;
    parent.resume_regs();
    expect_call(&mut parent, 56).await;
    parent
}

async fn finish(mut child: GuestThread, number: u64) {
    expect_call(&mut child, 121).await;
    assert_eq!(child.regs().rdi, number);
    child.resume_syscall(number as i64 * 3);
    expect_call(&mut child, 60).await;
    assert_eq!((child.regs().rdi, child.regs().rsi), (number, number * 3));
    let mut word = [0; 4];
    assert_eq!(child.address_space().read(CODE, &mut word), Ok(4));
    if number.is_multiple_of(3) {
        drop(child);
    } else {
        child.handle().kill_process();
        while !matches!(child.next_exit().await, Exit::Gone(_)) {}
    }
}

async fn families() {
    let mut witness = parent().await;
    let mut witness_child = {
        let mut regs = *witness.regs();
        regs.rbx = 4321;
        witness.begin_clone(clone_request(Kind::Fork, regs)).expect("a child")
    };
    expect_call(&mut witness_child, 121).await;
    for kind in [Kind::Fork, Kind::Thread, Kind::Vfork] {
        let mut living = VecDeque::new();
        let mut evil = parent().await;
        for number in 0..4 * u64::from(IDS) {
            let mut regs = *evil.regs();
            regs.rbx = number;
            if kind != Kind::Fork {
                regs.rsp = CODE + 0x8000 + 0x100 * (number % 64);
            }
            let child = evil.begin_clone(clone_request(kind, regs)).expect("a child");
            if kind == Kind::Vfork {
                finish(child, number).await;
            } else {
                living.push_back((child, number));
            }
            match evil.next_exit().await {
                Exit::NativeDone(ret) => assert!(ret > 0 && ret < i64::from(IDS), "{kind:?} {number}: {ret}"),
                other => panic!("{kind:?} {number}: {other:?}"),
            }
            evil.resume_syscall(1);
            expect_call(&mut evil, 56).await;
            if living.len() > 12 {
                let (mut child, number) = living.pop_front().expect("twelve");
                if kind == Kind::Fork {
                    finish(child, number).await;
                } else {
                    expect_call(&mut child, 121).await;
                    assert_eq!(child.regs().rdi, number);
                    child.exit_thread(None, None, 7, 0);
                }
            }
        }
        evil.handle().kill_process();
    }
    witness_child.resume_syscall(8642);
    expect_call(&mut witness_child, 60).await;
    assert_eq!((witness_child.regs().rdi, witness_child.regs().rsi), (4321, 8642));
}

#[test]
fn ids_that_are_used_again_soon() {
    if std::env::var_os(INSIDE).is_some() {
        run(families());
        return;
    }
    // SAFETY of the host: nothing is written where the limit is not the namespace's own.
    if !has_own_limit() || !rustix::process::geteuid().is_root() {
        return;
    }
    let script =
        format!("echo {IDS} > /proc/sys/kernel/pid_max && exec \"$0\" --exact ids_that_are_used_again_soon");
    let status = Command::new("unshare")
        .args(["--fork", "--pid", "--kill-child", "--mount-proc", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("the path of this program"))
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1)");
    assert!(status.success(), "{status}");
}
