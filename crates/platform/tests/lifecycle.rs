//! Births and deaths in every order leave nothing behind. One test at a time: they count what is in use.
#![expect(clippy::panic, reason = "helpers of tests fail so")]

#[path = "machine/common.rs"]
mod common;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::{CODE, Kind, call, clone_request, expect_call, guest, machine, run};
use platform::{Exit, GuestThread, Usage};

fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|e| e.into_inner())
}

/// Waits until nothing but this is in use.
fn settle(expected: Usage) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while machine().usage() != expected {
        assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", machine().usage());
        std::thread::sleep(Duration::from_millis(2));
    }
}

const EMPTY: Usage = Usage { threads: 1, processes: 0, batches: 1, pending: 0 };

/// A parent in its clone call: a loop of clone, then exit in the child.
async fn cloner() -> GuestThread {
    // clone; test eax, eax; jnz back; exit
    let mut code = call(56);
    code.extend([0x85, 0xc0, 0x75]);
    code.push((-(code.len() as i64) - 1) as u8);
    code.extend(call(60));
    let mut parent = guest(&code).await;
    parent.resume_regs();
    expect_call(&mut parent, 56).await;
    parent
}

fn child_of(parent: &mut GuestThread, kind: Kind) -> GuestThread {
    let mut regs = *parent.regs();
    if kind != Kind::Fork {
        regs.rsp = CODE + 0x4000;
    }
    parent.begin_clone(clone_request(kind, regs)).expect("a child")
}

#[test]
fn families_die_in_every_order() {
    let _alone = alone();
    run(async {
        for kind in [Kind::Fork, Kind::Vfork, Kind::Thread] {
            for order in 0..6 {
                for pause in [0, 50, 2000] {
                    let mut parent = cloner().await;
                    let mut child = child_of(&mut parent, kind);
                    std::thread::sleep(Duration::from_micros(pause));
                    match order {
                        0 => {
                            parent.handle().kill_process();
                            while !matches!(parent.next_exit().await, Exit::Gone(_)) {}
                            child.handle().kill_process();
                            while !matches!(child.next_exit().await, Exit::Gone(_)) {}
                        }
                        1 => {
                            expect_call(&mut child, 60).await;
                            child.handle().kill_process();
                            while !matches!(child.next_exit().await, Exit::Gone(_)) {}
                            if kind != Kind::Thread {
                                assert!(matches!(parent.next_exit().await, Exit::NativeDone(r) if r > 0));
                            }
                            drop(parent);
                        }
                        2 => drop((parent, child)),
                        3 => drop((child, parent)),
                        4 => {
                            let (one, other) = (parent.handle(), child.handle());
                            one.kill_process();
                            other.kill_process();
                        }
                        _ => {
                            expect_call(&mut child, 60).await;
                            parent.handle().kill_process();
                            while !matches!(parent.next_exit().await, Exit::Gone(_)) {}
                        }
                    }
                }
            }
        }
    });
    settle(EMPTY);
}

#[test]
fn threads_by_the_thousand() {
    let _alone = alone();
    run(async {
        let mut parent = cloner().await;
        let mut children = Vec::new();
        for i in 0..3000 {
            children.push(child_of(&mut parent, Kind::Thread));
            match parent.next_exit().await {
                Exit::NativeDone(ret) => assert!(ret > 0, "thread {i}: {ret}"),
                other => panic!("{other:?}"),
            }
            parent.resume_syscall(1);
            expect_call(&mut parent, 56).await;
        }
        assert_eq!(machine().usage().threads, 3002);
        expect_call(&mut children[2999], 60).await;
        parent.handle().kill_process();
        for mut child in children {
            while !matches!(child.next_exit().await, Exit::Gone(_)) {}
        }
    });
    settle(EMPTY);
}

#[test]
fn slots_of_ended_threads_serve_again() {
    let _alone = alone();
    run(async {
        let mut parent = cloner().await;
        let mut living = std::collections::VecDeque::new();
        for i in 0..1000 {
            let child = child_of(&mut parent, Kind::Thread);
            match parent.next_exit().await {
                Exit::NativeDone(ret) => assert!(ret > 0, "thread {i}: {ret}"),
                other => panic!("thread {i}: {other:?} {:x?}", parent.regs()),
            }
            living.push_back(child);
            if living.len() > 20 {
                let mut old = living.pop_front().expect("twenty");
                expect_call(&mut old, 60).await;
                old.exit_thread(None, None, 7, 0);
            }
            parent.resume_syscall(1);
            expect_call(&mut parent, 56).await;
        }
        let usage = machine().usage();
        // Each of ended threads would be some 60; threads on a busy host end late.
        assert!(usage.batches < 16, "{usage:?}");
        // The leader ends before the others.
        parent.exit_thread(None, None, 7, 0);
        let last = living.pop_back().expect("a thread");
        let mut byte = [0];
        assert_eq!(last.address_space().read(CODE, &mut byte), Ok(1));
        last.handle().kill_process();
        assert_eq!(living.len(), 19);
    });
    settle(EMPTY);
}

#[test]
fn processes_by_the_thousand() {
    let _alone = alone();
    run(async {
        let mut parent = cloner().await;
        let mut children = Vec::new();
        for i in 0..3000 {
            children.push(child_of(&mut parent, Kind::Fork));
            match parent.next_exit().await {
                Exit::NativeDone(ret) => assert!(ret > 0, "process {i}: {ret}"),
                other => panic!("{other:?}"),
            }
            parent.resume_syscall(1);
            expect_call(&mut parent, 56).await;
        }
        for child in &mut children {
            expect_call(child, 60).await;
            child.handle().kill_process();
        }
        for child in &mut children {
            assert!(matches!(child.next_exit().await, Exit::Gone(_)));
        }
    });
    settle(EMPTY);
}
