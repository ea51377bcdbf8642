//! Native calls that are shown: they come here, and run as announced.

use std::time::Duration;

use platform::{Exit, GuestThread, NOT_MADE, NativeOp};
use slot::layout::{SHIM_VA, SLOT_VA};

use crate::attacks::{by_shim, shim_syscalls};
use crate::common::{CODE, Kind, call, clone_request, expect_call, guest, machine, run};

const MPROTECT: u32 = 10;
const MUNMAP: u32 = 11;
const FUTEX: u32 = 202;
const WORD: u64 = CODE + 0x9000;
/// A page that nothing else lies in.
const PAGE: u64 = CODE + 0xc000;

async fn done(guest: &mut GuestThread) -> i64 {
    match guest.next_exit().await {
        Exit::NativeDone(ret) => ret,
        other => panic!("{other:?}"),
    }
}

async fn native(guest: &mut GuestThread, op: NativeOp) -> i64 {
    guest.native(op);
    done(guest).await
}

async fn show(guest: &mut GuestThread) {
    assert!(!guest.shows_calls());
    assert_eq!(native(guest, NativeOp::ShowCalls).await, 0);
    assert!(guest.shows_calls());
}

async fn announced(guest: &mut GuestThread, nr: u32, args: [u64; 6]) -> i64 {
    native(guest, NativeOp::Call { nr, args, timeout: None }).await
}

fn is_mapped(guest: &GuestThread, at: u64) -> bool {
    guest.address_space().read(at, &mut [0]).is_ok()
}

/// mov edi, a; mov esi, b; mov edx, c; and the call.
fn with(nr: u32, args: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    for (opcode, arg) in [0xbf, 0xbe, 0xba].into_iter().zip(args) {
        code.push(opcode);
        code.extend(arg.to_le_bytes());
    }
    code.extend(call(nr));
    code
}

#[test]
fn native_calls_come_here_once_they_are_shown() {
    run(async {
        let code =
            [with(MUNMAP, [0x1000_0000, 4096, 0]), call(39), with(FUTEX, [WORD as u32, 1, 1])].concat();
        let mut guest = guest(&code).await;
        guest.resume_regs();
        // The first is made by the host alone.
        expect_call(&mut guest, 39).await;
        let regs = *guest.regs();
        show(&mut guest).await;
        *guest.regs_mut() = regs;
        guest.regs_mut().rip = CODE;
        guest.resume_regs();
        expect_call(&mut guest, MUNMAP.into()).await;
        guest.resume_syscall(0);
        expect_call(&mut guest, 39).await;
        guest.resume_syscall(0);
        expect_call(&mut guest, FUTEX.into()).await;
        guest.handle().kill_process();
    });
}

#[test]
fn announced_calls_are_made() {
    run(async {
        for shown in [false, true] {
            let mut guest = guest(&call(39)).await;
            guest.resume_regs();
            expect_call(&mut guest, 39).await;
            if shown {
                show(&mut guest).await;
            }
            let results = [
                announced(&mut guest, FUTEX, [WORD, 1, 1, 0, 0, 0]).await,
                announced(&mut guest, FUTEX, [WORD, 0, 5, 0, 0, 0]).await,
                announced(&mut guest, MPROTECT, [PAGE, 4096, 0, 0, 0, 0]).await,
                announced(&mut guest, MUNMAP, [PAGE, 4096, 0, 0, 0, 0]).await,
            ];
            assert_eq!(results, [0, -11, 0, 0]);
            assert!(!is_mapped(&guest, PAGE));
            // Not announced, but an operation of the machine's own.
            let op = NativeOp::Mmap { addr: PAGE, len: 4096, prot: 3, flags: 0x32, file: None };
            assert_eq!(native(&mut guest, op).await, PAGE as i64);
            assert!(is_mapped(&guest, PAGE));
            let timeout = Some((3, [0, 1_000_000]));
            let wait = NativeOp::Call { nr: FUTEX, args: [WORD, 0, 0, 0, 0, 0], timeout };
            assert_eq!(native(&mut guest, wait).await, -110);
            guest.handle().kill_process();
        }
    });
}

#[test]
fn what_the_filter_forbids_cannot_be_announced() {
    run(async {
        let mut guest = guest(&call(39)).await;
        for (nr, args) in [
            (MUNMAP, [SHIM_VA, 4096, 0, 0, 0, 0]),
            (MPROTECT, [SLOT_VA, 4096, 7, 0, 0, 0]),
            (FUTEX, [WORD, 6, 0, 0, 0, 0]),
            (39, [0; 6]),
            (62, [1, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(announced(&mut guest, nr, args).await, -1, "{nr}");
        }
        guest.handle().kill_process();
    });
}

#[test]
fn a_wait_is_interrupted_and_made_again() {
    run(async {
        let mut guest = guest(&call(39)).await;
        show(&mut guest).await;
        for round in 0..60u64 {
            guest.native(NativeOp::Call { nr: FUTEX, args: [WORD, 0, 0, 0, 0, 0], timeout: None });
            // Before, at and within the wait.
            std::thread::sleep(Duration::from_micros(round * 10));
            guest.handle().interrupt();
            assert_eq!(done(&mut guest).await, NOT_MADE);
        }
        guest.native(NativeOp::Call { nr: FUTEX, args: [WORD, 0, 0, 0, 0, 0], timeout: Some((3, [9, 0])) });
        std::thread::sleep(Duration::from_millis(20));
        guest.handle().interrupt();
        assert_eq!(done(&mut guest).await, -4);
        guest.handle().kill_process();
    });
}

/// The guest jumps to the instruction whose calls are announced, with others in its registers.
#[test]
fn calls_nobody_announced_are_refused_there() {
    run(async {
        let [gadget, _] = shim_syscalls();
        for shown in [false, true] {
            for (nr, args) in [
                (u64::from(MUNMAP), [PAGE, 4096, 0, 0, 0, 0]),
                (u64::from(MPROTECT), [PAGE, 4096, 0, 0, 0, 0]),
                (28, [PAGE, 4096, 10, 0, 0, 0]),
                (u64::from(FUTEX), [WORD, 0, 7, 0, 0, 0]),
            ] {
                let code = [by_shim(gadget, nr, args), call(60)].concat();
                let mut evil = guest(&code).await;
                if shown {
                    show(&mut evil).await;
                    // Others than those that were announced, and made, before.
                    assert_eq!(announced(&mut evil, MPROTECT, [PAGE, 4096, 3, 0, 0, 0]).await, 0);
                    evil.regs_mut().rip = CODE;
                    evil.regs_mut().rsp = CODE + 0x8000;
                    evil.regs_mut().rflags = 0x202;
                }
                evil.resume_regs();
                // It comes back with EPERM, in rax, which the next call's number has replaced: see the memory.
                assert!(matches!(evil.next_exit().await, Exit::Syscall));
                assert!(is_mapped(&evil, PAGE), "{nr}");
                evil.handle().kill_process();
            }
        }
    });
}

#[test]
fn filters_stay_with_children() {
    run(async {
        for kind in [Kind::Fork, Kind::Vfork, Kind::Thread] {
            let code = [call(39), with(MUNMAP, [PAGE as u32, 4096, 0]), call(60)].concat();
            let mut guest = guest(&code).await;
            guest.resume_regs();
            expect_call(&mut guest, 39).await;
            let regs = *guest.regs();
            show(&mut guest).await;
            let mut child = guest.begin_clone(clone_request(kind, regs)).expect("a child");
            assert!(child.shows_calls());
            expect_call(&mut child, MUNMAP.into()).await;
            assert_eq!(announced(&mut child, MUNMAP, [PAGE, 4096, 0, 0, 0, 0]).await, 0, "{kind:?}");
            assert!(!is_mapped(&child, PAGE));
            child.handle().kill_process();
            guest.handle().kill_process();
        }
        // Others are as before.
        let other = machine().new_process().await.expect("a new process");
        assert!(!other.shows_calls());
        other.handle().kill_process();
    });
}

/// The installed filter is the host's word, not the guest's.
#[test]
fn the_host_counts_the_filters() {
    run(async {
        let mut guest = guest(&call(39)).await;
        let filters = |guest: &GuestThread| {
            let status = format!("/proc/{}/status", guest.address_space().host_pid());
            let status = std::fs::read_to_string(status).expect("status");
            let line = status.lines().find_map(|l| l.strip_prefix("Seccomp_filters:")).map(str::trim);
            line.and_then(|count| count.parse::<u32>().ok())
        };
        let before = filters(&guest);
        show(&mut guest).await;
        assert_eq!(filters(&guest), before.map(|count| count + 1));
        guest.handle().kill_process();
    });
}
