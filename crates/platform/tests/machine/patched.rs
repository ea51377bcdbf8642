//! Calls from sites that were patched.

use platform::{Exit, GuestThread, Identity, NativeOp};

use crate::common::{CODE, Kind, call, clone_request, expect_call, guest, machine, run};

const CALLS: u32 = 3000;
const ANSWER: i64 = 0x1234;

/// Sums the answers of `CALLS` calls in r12, then exits. With padding behind it, the site gets a short jump.
fn summing(padding: bool) -> Vec<u8> {
    let mut code = vec![0x45, 0x31, 0xe4, 0xbb]; // xor r12d, r12d; mov ebx, CALLS
    code.extend(CALLS.to_le_bytes());
    let start = code.len();
    // The site in one cache line.
    code.extend(call(110));
    code.extend([0x49, 0x01, 0xc4, 0xff, 0xcb, 0x75]); // add r12, rax; dec ebx; jnz
    code.push((start as i64 - code.len() as i64 - 1) as u8);
    code.extend(call(60));
    if padding {
        code.push(0xc3);
        code.resize(code.len().next_multiple_of(16) + 16, 0xcc);
    }
    code
}

/// Answers calls until the last; how many, and how many interrupts.
async fn answer(guest: &mut GuestThread) -> (u32, u32) {
    let (mut calls, mut interrupts) = (0, 0);
    loop {
        match guest.next_exit().await {
            Exit::Syscall if guest.regs().rax == 110 => {
                calls += 1;
                guest.resume_syscall(ANSWER);
            }
            Exit::Syscall if guest.regs().rax == 60 => return (calls, interrupts),
            Exit::Interrupted => {
                interrupts += 1;
                guest.resume_regs();
            }
            other => panic!("{other:?} {:x?}", guest.regs()),
        }
    }
}

const SUM: u64 = CALLS as u64 * ANSWER as u64;

#[test]
fn patched_calls_get_their_answers() {
    run(async {
        for padding in [false, true] {
            let before = machine().patched();
            let mut guest = guest(&summing(padding)).await;
            guest.resume_regs();
            assert_eq!(answer(&mut guest).await, (CALLS, 0));
            assert_eq!(guest.regs().r12, SUM);
            assert!(machine().patched() > before);
            let mut site = [0; 4];
            guest.copy_in(CODE + 8, &mut site).expect("readable");
            assert_eq!(if padding { site[0] } else { site[1] }, if padding { 0xb8 } else { 0x24 });
            guest.handle().kill_process();
        }
    });
}

#[test]
fn a_site_of_several_calls_is_patched() {
    run(async {
        const FUTEX_WAKE: u64 = 1;
        for (before, hop) in [(false, false), (true, false), (false, true)] {
            // Padding before the loop or behind it, or too little of it and more elsewhere.
            let mut code = vec![0xeb, 0x3e];
            code.resize(29, 0x50);
            code.push(0xc3);
            code.resize(64, if before { 0xcc } else { 0x50 });
            let start = code.len();
            code.extend([0x44, 0x89, 0xe0, 0x0f, 0x05]); // mov eax, r12d; syscall
            code.extend([0x49, 0x01, 0xc5]); // add r13, rax
            code.extend([0xb8, 0xca, 0, 0, 0, 0x44, 0x31, 0xe0, 0x41, 0x89, 0xc4]); // r12 = 202 ^ r12
            code.extend([0xff, 0xcb, 0x75]); // dec ebx; jnz
            code.push((start as i64 - code.len() as i64 - 1) as u8);
            code.extend(call(60));
            code.push(0xc3);
            if hop {
                code.resize(code.len().next_multiple_of(16) + 10, 0x50);
                code.push(0xc3);
                code.resize(code.len() + 5, 0xcc);
                code.resize(1024 - 9, 0x50);
                code.push(0xc3);
                code.resize(1024, 0xcc);
            }
            code.resize(code.len().next_multiple_of(16) + 1024, if before || hop { 0x50 } else { 0xcc });
            let patched = machine().patched();
            let mut guest = guest(&code).await;
            // read(2) and futex(2) in turn.
            *guest.regs_mut() =
                platform::Regs { rbx: 2 * u64::from(CALLS), rdi: CODE, rsi: FUTEX_WAKE, ..*guest.regs() };
            guest.resume_regs();
            for _ in 0..CALLS {
                expect_call(&mut guest, 0).await;
                assert_eq!((guest.regs().rdi, guest.regs().rip), (CODE, CODE + 69));
                guest.resume_syscall(2);
            }
            expect_call(&mut guest, 60).await;
            assert_eq!(guest.regs().r13, 2 * u64::from(CALLS));
            // Other tests patch at the same time.
            assert!(machine().patched() > patched);
            let mut site = [0; 2];
            guest.copy_in(CODE + 67, &mut site).expect("readable");
            assert_eq!(site[0], 0xeb);
            assert_eq!(site[1] > 127, before);
            guest.handle().kill_process();
        }
    });
}

#[test]
fn files_and_shared_memory_are_left_alone() {
    run(async {
        const SHARED: u64 = 0x50_0000;
        let file = rustix::fs::memfd_create("code", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
        rustix::fs::ftruncate(&file, 0x1000).expect("a page");
        let file = std::sync::Arc::new(file);
        let mut guest = guest(&call(39)).await;
        guest.resume_regs();
        expect_call(&mut guest, 39).await;
        // MAP_SHARED of the file, MAP_SHARED | MAP_ANONYMOUS.
        for (addr, flags, file) in [(SHARED, 0x11, Some(file.clone())), (SHARED + 0x1000, 0x31, None)] {
            guest.native_batch(vec![
                NativeOp::Mmap { addr, len: 0x1000, prot: 7, flags, file: file.map(|fd| (fd, 0)) },
                NativeOp::Copy { addr, bytes: summing(true) },
            ]);
            assert!(matches!(guest.next_exit().await, Exit::NativeDone(0)));
            guest.regs_mut().rip = addr;
            guest.resume_regs();
            assert_eq!(answer(&mut guest).await, (CALLS, 0));
            assert_eq!(guest.regs().r12, SUM);
            let mut code = vec![0; summing(true).len()];
            guest.copy_in(addr, &mut code).expect("readable");
            assert_eq!(code, summing(true), "{addr:x}");
        }
        guest.handle().kill_process();
    });
}

#[test]
fn sites_above_the_shim_are_patched() {
    run(async {
        const HIGH: u64 = 0x7f00_0000_0000;
        let mut guest = guest(&call(39)).await;
        guest.resume_regs();
        expect_call(&mut guest, 39).await;
        guest.native_batch(vec![
            NativeOp::Mmap { addr: HIGH, len: 0x1000, prot: 7, flags: 0x32, file: None },
            NativeOp::Copy { addr: HIGH, bytes: summing(true) },
        ]);
        assert!(matches!(guest.next_exit().await, Exit::NativeDone(0)));
        let before = machine().patched();
        guest.regs_mut().rip = HIGH;
        guest.resume_regs();
        assert_eq!(answer(&mut guest).await, (CALLS, 0));
        assert_eq!(guest.regs().r12, SUM);
        assert!(machine().patched() > before);
        let mut site = vec![0; summing(true).len()];
        guest.copy_in(HIGH, &mut site).expect("readable");
        assert_ne!(site, summing(true));
        guest.handle().kill_process();
    });
}

#[test]
fn many_threads_meet_a_site_while_it_is_patched() {
    for padding in [false, true] {
        for _ in 0..10 {
            let (send, receive) = std::sync::mpsc::channel();
            executor::spawn(async move {
                // One call to clone at, then the loop.
                let mut code = call(56);
                code.resize(16, 0x90);
                code.extend(summing(padding));
                let mut parent = guest(&code).await;
                parent.resume_regs();
                expect_call(&mut parent, 56).await;
                let regs = *parent.regs();
                for _ in 0..4 {
                    let mut child = parent.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
                    assert!(matches!(parent.next_exit().await, Exit::NativeDone(ret) if ret > 0));
                    let send = send.clone();
                    executor::spawn(async move {
                        let counts = answer(&mut child).await;
                        let _ = send.send((counts, child.regs().r12));
                        child.exit_thread(None, None, 7, 0);
                    });
                }
                parent.resume_syscall(0);
                let counts = answer(&mut parent).await;
                let _ = send.send((counts, parent.regs().r12));
                // Lives on as the memory of the others.
                let _ = parent.next_exit().await;
            });
            for _ in 0..5 {
                let timeout = std::time::Duration::from_secs(20);
                assert_eq!(receive.recv_timeout(timeout).expect("all threads end"), ((CALLS, 0), SUM));
            }
        }
    }
}

#[test]
fn interrupts_of_patched_calls_lose_nothing() {
    let (send, receive) = std::sync::mpsc::channel();
    executor::spawn(async move {
        let mut guest = guest(&summing(false)).await;
        let _ = send.send(Err(guest.handle()));
        guest.resume_regs();
        let counts = answer(&mut guest).await;
        let _ = send.send(Ok((counts, guest.regs().r12)));
        guest.handle().kill_process();
    });
    let Ok(Err(handle)) = receive.recv() else { panic!("no guest") };
    loop {
        handle.interrupt();
        std::thread::sleep(std::time::Duration::from_micros(30));
        match receive.try_recv() {
            Ok(Ok(((calls, _), sum))) => {
                assert_eq!((calls, sum), (CALLS, SUM));
                return;
            }
            Ok(Err(_)) => panic!("two guests"),
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn registers_and_the_red_zone_survive() {
    run(async {
        // mov [rsp-8], r15; mov [rsp-128], r15; four calls; mov r13, [rsp-8]; mov r14, [rsp-128]; exit
        let mut code = vec![0x4c, 0x89, 0x7c, 0x24, 0xf8, 0x4c, 0x89, 0x7c, 0x24, 0x80];
        code.extend([0xbb, 8, 0, 0, 0]); // mov ebx, 8
        let start = code.len();
        code.extend(call(110));
        code.extend([0xff, 0xcb, 0x75]);
        code.push((start as i64 - code.len() as i64 - 1) as u8);
        code.extend([0x4c, 0x8b, 0x6c, 0x24, 0xf8, 0x4c, 0x8b, 0x74, 0x24, 0x80]);
        code.extend(call(60));
        let mut guest = guest(&code).await;
        *guest.regs_mut() = platform::Regs {
            rdx: 3,
            rsi: 4,
            rdi: 5,
            rbp: 6,
            r8: 8,
            r9: 9,
            r10: 10,
            r12: 12,
            r15: 15,
            ..*guest.regs()
        };
        guest.resume_regs();
        for _ in 0..8 {
            expect_call(&mut guest, 110).await;
            guest.resume_syscall(1);
        }
        expect_call(&mut guest, 60).await;
        let r = guest.regs();
        assert_eq!([r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r12], [3, 4, 5, 6, 8, 9, 10, 12]);
        assert_eq!([r.r13, r.r14, r.r15, r.rsp], [15, 15, 15, CODE + 0x8000]);
        guest.handle().kill_process();
    });
}

#[test]
fn the_shim_answers_what_it_was_told() {
    run(async {
        let mut guest = guest(&summing(false)).await;
        guest.resume_regs();
        for _ in 0..5 {
            expect_call(&mut guest, 110).await;
            guest.resume_syscall(1);
        }
        expect_call(&mut guest, 110).await;
        guest.set_identity(&Identity { ppid: Some(0), pid: Some(3), ..Identity::default() });
        guest.resume_syscall(7);
        // All other calls were answered with 0.
        expect_call(&mut guest, 60).await;
        assert_eq!(guest.regs().r12, 5 + 7);
        guest.handle().kill_process();
    });
}

#[test]
fn a_patched_call_can_be_made_again() {
    run(async {
        for padding in [false, true] {
            let mut guest = guest(&summing(padding)).await;
            guest.resume_regs();
            for i in 0..40 {
                expect_call(&mut guest, 110).await;
                let rip = guest.regs().rip;
                if i % 3 == 0 {
                    guest.rewind_syscall();
                    guest.resume_regs();
                    expect_call(&mut guest, 110).await;
                    assert_eq!(guest.regs().rip, rip);
                }
                guest.resume_syscall(1);
            }
            guest.handle().kill_process();
        }
    });
}
