//! Guests that jump out of the shim: host processes and threads that hide, and code that cannot be interrupted.
//! None of them stays. One test at a time: they count host processes.
#![expect(clippy::panic, reason = "helpers of tests fail so")]

#[path = "machine/common.rs"]
mod common;
#[path = "machine/gadget.rs"]
mod gadget;

use std::arch::global_asm;
use std::mem::offset_of;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use platform::{Exit, GuestThread};
use slot::layout::{NR_DOORBELL, SLOT_SIZE, SLOT_VA};
use slot::{Slot, kind, state};

use common::{CODE, Kind, PATIENCE, call, clone_request, expect_call, guest, run};
use gadget::{WORDS, code, gadget};

global_asm!(
    ".pushsection .rodata",
    // r14: a `syscall` in the shim that soon returns; r13: result that is told; r12: number that is asked for.
    ".globl outlaw_hides, outlaw_hides_end, outlaw_deaf, outlaw_deaf_end, outlaw_stays, outlaw_stays_end",
    "outlaw_hides:",
    "mov r15, {slot}",
    // The stack of a child at the next slot, which starts with rsp there: two words below its top are free.
    "call 8f",
    "mov [r15 + {rbx}], r13",
    // clone(flags, stack, 0, tid word, 0, own index), by the shim's instruction and back.
    "mov rdi, [r15 + {a}]",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov r9d, [r15 + {index}]",
    "lea rbx, [rip + 2f]",
    "test rdi, 0x100",
    "jz 1f",
    "mov rsi, [r15 + {size} + {stack}]",
    "lea r10, [r15 + {size} + {tid}]",
    "mov rdi, rsi",
    "mov rax, rbx",
    "mov ecx, {words}",
    "rep stosq",
    "mov rdi, [r15 + {a}]",
    "1: mov ecx, {words}",
    "6: push rbx",
    "loop 6b",
    "mov eax, 56",
    "jmp r14",
    "2: test eax, eax",
    "jz 3f",
    "mov r15, {slot}",
    "mov r13, [r15 + {rbx}]",
    "mov qword ptr [r15 + {ret}], r13",
    "mov byte ptr [r15 + {kind}], {done}",
    "call 9f",
    "3: jmp 3b",
    // A request by hand: number r12.
    "8: mov byte ptr [r15 + {kind}], {syscall}",
    "mov [r15 + {regs}], r12",
    "9: mov byte ptr [r15 + {pieces}], 0",
    "mov dword ptr [r15], {request}",
    "mov eax, {bell}",
    "mov edi, [r15 + {index}]",
    "xor esi, esi",
    "xor edx, edx",
    "syscall",
    "ret",
    "outlaw_hides_end:",
    // Blocks all signals by the shim's instruction: rt_sigprocmask(SIG_SETMASK, all, 0, 8).
    "outlaw_deaf:",
    "push -1",
    "mov rsi, rsp",
    "mov r15, {slot}",
    "mov [r15 + {rbx}], r13",
    "lea rbx, [rip + 2f]",
    "mov ecx, {words}",
    "6: push rbx",
    "loop 6b",
    "mov eax, 14",
    "mov edi, 2",
    "xor edx, edx",
    "mov r10d, 8",
    "jmp r14",
    "2: mov r15, {slot}",
    "mov r13, [r15 + {rbx}]",
    "mov r12d, 39",
    // Told by hand, since a trap would be the end.
    "mov byte ptr [r15 + {kind}], {syscall}",
    "mov [r15 + {regs}], r12",
    "mov byte ptr [r15 + {pieces}], 0",
    "mov dword ptr [r15], {request}",
    "mov eax, {bell}",
    "mov edi, [r15 + {index}]",
    "xor esi, esi",
    "xor edx, edx",
    "syscall",
    "test r13, r13",
    "jz 3f",
    // futex(FUTEX_WAIT) for ever
    "4: push 0",
    "mov rdi, rsp",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "mov eax, 202",
    "syscall",
    "jmp 4b",
    "3: jmp 3b",
    "outlaw_deaf_end:",
    // A thread asks for its end by hand and goes on. Its slot is the second.
    "outlaw_stays:",
    "mov eax, 56",
    "syscall",
    "test eax, eax",
    "jnz 5f",
    "mov r15, {slot} + {size}",
    "mov byte ptr [r15 + {kind}], {syscall}",
    "mov qword ptr [r15 + {regs}], 60",
    "mov byte ptr [r15 + {pieces}], 0",
    "mov dword ptr [r15], {request}",
    "mov eax, {bell}",
    "mov edi, [r15 + {index}]",
    "xor esi, esi",
    "xor edx, edx",
    "syscall",
    "4: jmp 4b",
    "5: mov eax, 110",
    "syscall",
    "jmp 5b",
    "outlaw_stays_end:",
    ".popsection",
    words = const WORDS,
    slot = const SLOT_VA,
    size = const SLOT_SIZE,
    a = const offset_of!(Slot, a),
    index = const offset_of!(Slot, index),
    stack = const offset_of!(Slot, stack),
    tid = const offset_of!(Slot, host_tid),
    ret = const offset_of!(Slot, native_ret),
    kind = const offset_of!(Slot, kind),
    regs = const offset_of!(Slot, regs),
    rbx = const offset_of!(Slot, regs) + 8 * slot::reg::RBX,
    pieces = const offset_of!(Slot, pieces),
    done = const kind::NATIVE_DONE,
    syscall = const kind::SYSCALL,
    request = const state::REQUEST,
    bell = const NR_DOORBELL,
);

fn stat(pid: &str) -> Option<(String, i64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Living host processes of the machine, its zygote among them.
fn stubs() -> Vec<String> {
    common::machine();
    let own = i64::from(std::process::id());
    let all = std::fs::read_dir("/proc").expect("procfs").flatten();
    let names = all.filter_map(|e| e.file_name().into_string().ok());
    names.filter(|n| stat(n).is_some_and(|(state, parent)| parent == own && state != "Z")).collect()
}

/// Waits until a condition holds; how long it took.
fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(start.elapsed())
}

fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

const LONG: Duration = PATIENCE.saturating_mul(6);

/// The attacker asks for a process or thread by hand, makes it, and tells `told`.
async fn hider(kind: Kind, told: i64) -> (GuestThread, GuestThread) {
    let mut evil = guest(code!(outlaw_hides, outlaw_hides_end)).await;
    evil.regs_mut().r14 = gadget();
    evil.regs_mut().r13 = told as u64;
    evil.regs_mut().r12 = 57;
    evil.resume_regs();
    expect_call(&mut evil, 57).await;
    let regs = *evil.regs();
    let child = evil.begin_clone(clone_request(kind, regs)).expect("announced");
    (evil, child)
}

#[test]
fn children_that_hide_are_found() {
    let _alone = alone();
    run(async {
        for kind in [Kind::Fork, Kind::Vfork] {
            for told in [-11, 1, 0x7fff_ffff] {
                let before = stubs().len();
                let (mut evil, mut child) = hider(kind, told).await;
                if kind == Kind::Fork {
                    assert!(matches!(evil.next_exit().await, Exit::NativeDone(n) if n == told));
                    evil.resume_syscall(0);
                }
                assert!(until(LONG, || stubs().len() > before + 1).is_some(), "{kind:?} {told}");
                assert!(
                    until(LONG, || stubs().len() == before + 1).is_some(),
                    "{kind:?} {told}: {:?}",
                    stubs()
                );
                assert!(matches!(child.next_exit().await, Exit::Gone(_)));
                evil.handle().kill_process();
                while !matches!(evil.next_exit().await, Exit::Gone(_)) {}
            }
        }
    });
}

#[test]
fn children_that_hide_do_not_outlive_their_sandbox_process() {
    let _alone = alone();
    run(async {
        let before = stubs().len();
        let (mut evil, child) = hider(Kind::Fork, 1).await;
        assert!(matches!(evil.next_exit().await, Exit::NativeDone(1)));
        assert!(until(LONG, || stubs().len() == before + 2).is_some());
        // Both end for their kernel.
        evil.handle().kill_process();
        child.handle().kill_process();
        drop((evil, child));
        let took = until(LONG, || stubs().len() <= before).expect("all are found");
        assert!(took < PATIENCE, "{took:?}");
    });
}

#[test]
fn threads_that_hide_end_their_process() {
    let _alone = alone();
    run(async {
        let (mut evil, child) = hider(Kind::Thread, -11).await;
        assert!(matches!(evil.next_exit().await, Exit::NativeDone(-11)));
        // As the kernel does when there is no thread.
        drop(child);
        evil.resume_syscall(0);
        let gone = std::thread::spawn(move || {
            run(async move { while !matches!(evil.next_exit().await, Exit::Gone(_)) {} });
        });
        assert!(until(LONG, || gone.is_finished()).is_some());
    });
}

#[test]
fn threads_that_stay_after_their_end_end_their_process() {
    let _alone = alone();
    run(async {
        let mut evil = guest(code!(outlaw_stays, outlaw_stays_end)).await;
        evil.resume_regs();
        expect_call(&mut evil, 56).await;
        let mut regs = *evil.regs();
        regs.rsp = CODE + 0x4000;
        let mut child = evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
        assert!(matches!(evil.next_exit().await, Exit::NativeDone(n) if n > 0));
        evil.resume_syscall(1);
        expect_call(&mut child, 60).await;
        child.exit_thread(None, None, 7, 0);
        let start = Instant::now();
        loop {
            match evil.next_exit().await {
                Exit::Gone(_) => break,
                _ => evil.resume_syscall(0),
            }
            assert!(start.elapsed() < LONG, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn code_that_cannot_be_interrupted_is_killed() {
    let _alone = alone();
    run(async {
        for waits in [0, 1] {
            let mut evil = guest(code!(outlaw_deaf, outlaw_deaf_end)).await;
            evil.regs_mut().r14 = gadget();
            evil.regs_mut().r13 = waits;
            evil.resume_regs();
            expect_call(&mut evil, 39).await;
            evil.resume_syscall(0);
            // Left in peace it goes on.
            std::thread::sleep(PATIENCE + Duration::from_millis(500));
            assert!(stat(&evil.address_space().host_pid().to_string()).is_some());
            evil.handle().interrupt();
            assert!(matches!(evil.next_exit().await, Exit::Gone(_)));
        }
    });
}

#[test]
fn a_forged_thread_id_does_not_keep_interrupts_away() {
    let _alone = alone();
    run(async {
        // clone; test; jz child; getppid for ever; child: slot 1's thread id = 1, for ever
        let mut code = call(56);
        code.extend([0x85, 0xc0, 0x74, 0x09]);
        code.extend(call(110));
        code.extend([0xeb, 0xf7, 0x48, 0xb8]);
        code.extend((SLOT_VA + SLOT_SIZE + offset_of!(Slot, host_tid) as u64).to_le_bytes());
        code.extend([0xc7, 0x00, 1, 0, 0, 0, 0xeb, 0xf8]);
        let mut evil = guest(&code).await;
        evil.resume_regs();
        expect_call(&mut evil, 56).await;
        let mut regs = *evil.regs();
        regs.rsp = CODE + 0x4000;
        let mut child = evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
        assert!(matches!(evil.next_exit().await, Exit::NativeDone(n) if n > 0));
        std::thread::sleep(Duration::from_millis(50));
        child.handle().interrupt();
        assert!(matches!(child.next_exit().await, Exit::Gone(_) | Exit::Interrupted));
        evil.handle().kill_process();
    });
}

#[test]
fn guests_that_behave_are_left_alone() {
    let _alone = alone();
    run(async {
        // A busy loop is interrupted many times, a vfork parent waits long, forks come and go.
        let mut busy = guest(&[0xeb, 0xfe]).await;
        busy.resume_regs();
        let mut code = call(56);
        code.extend([0x85, 0xc0, 0x75]);
        code.push((-(code.len() as i64) - 1) as u8);
        code.extend(call(60));
        let mut parent = guest(&code).await;
        parent.resume_regs();
        expect_call(&mut parent, 56).await;
        let mut regs = *parent.regs();
        regs.rsp = CODE + 0x4000;
        let mut child = parent.begin_clone(clone_request(Kind::Vfork, regs)).expect("a child");
        expect_call(&mut child, 60).await;
        parent.handle().interrupt();
        let start = Instant::now();
        while start.elapsed() < PATIENCE * 2 {
            busy.handle().interrupt();
            assert!(matches!(busy.next_exit().await, Exit::Interrupted));
            busy.resume_regs();
            std::thread::sleep(Duration::from_millis(10));
        }
        child.handle().kill_process();
        assert!(matches!(parent.next_exit().await, Exit::NativeDone(n) if n > 0));
        busy.handle().kill_process();
        parent.handle().kill_process();
    });
}
