//! Guests that attack the platform: other guests and the machine go on.

use std::time::{Duration, Instant};

use platform::{Exit, GuestThread};
use slot::layout::{
    BATCH, CONTROL_VA, NR_DOORBELL, SHIM_VA, SHOWING_OFFSET, SLOT_SIZE, SLOT_VA, STACK_SIZE, STACK_VA,
};

use crate::common::{CODE, Kind, call, clone_request, expect_call, guest, machine, run};

/// mov rax, rdi, rsi, rdx, r10, r8, r9
fn load(values: [u64; 7]) -> Vec<u8> {
    let opcodes =
        [[0x48, 0xb8], [0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    let mut code = Vec::new();
    for (opcode, value) in opcodes.iter().zip(values) {
        code.extend(opcode);
        code.extend(value.to_le_bytes());
    }
    code
}

/// A call by an own instruction; `calls` ends with exit.
fn direct(nr: u64, args: [u64; 6]) -> Vec<u8> {
    let [a, b, c, d, e, f] = args;
    let mut code = load([nr, a, b, c, d, e, f]);
    code.extend([0x0f, 0x05]);
    code
}

/// Addresses of system call instructions of the shim: the first, whose calls are announced, and one that faults then.
pub(crate) fn shim_syscalls() -> [u64; 2] {
    let image = stub::IMAGE;
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("eight"));
    let header = word(32) as usize;
    let (offset, address, size) = (word(header + 8), word(header + 16), word(header + 32));
    let text = &image[offset as usize..(offset + size) as usize];
    let mut found = text.windows(2).enumerate().filter(|(_, w)| *w == [0x0f, 0x05]).map(|(at, _)| at);
    [found.next(), found.next()].map(|at| address + at.expect("two at least") as u64)
}

/// A call by an instruction of the shim: mov rcx, address; call rcx. What follows there is the shim's.
pub(crate) fn by_shim(at: u64, nr: u64, args: [u64; 6]) -> Vec<u8> {
    let [a, b, c, d, e, f] = args;
    let mut code = load([nr, a, b, c, d, e, f]);
    code.extend([0x48, 0xb9]);
    code.extend(at.to_le_bytes());
    code.extend([0xff, 0xd1]);
    code
}

/// The next exit within half a second, if there is one.
async fn soon(guest: &mut GuestThread) -> Option<Exit> {
    let deadline = Instant::now() + Duration::from_millis(500);
    std::future::poll_fn(|cx| match guest.poll_exit(cx) {
        std::task::Poll::Ready(exit) => std::task::Poll::Ready(Some(exit)),
        std::task::Poll::Pending if Instant::now() > deadline => std::task::Poll::Ready(None),
        std::task::Poll::Pending => {
            std::thread::sleep(Duration::from_millis(1));
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await
}

/// Another guest makes calls and gets its own answers.
async fn witness() {
    let mut code = call(39);
    code.extend([0x89, 0xc7]);
    code.extend(call(60));
    let mut guest = guest(&code).await;
    guest.resume_regs();
    expect_call(&mut guest, 39).await;
    guest.resume_syscall(4321);
    expect_call(&mut guest, 60).await;
    assert_eq!(guest.regs().rdi, 4321);
    guest.handle().kill_process();
}

fn maps(guest: &GuestThread) -> String {
    std::fs::read_to_string(format!("/proc/{}/maps", guest.address_space().host_pid())).unwrap_or_default()
}

fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    tasks
        .map(|t| std::fs::read_to_string(t.expect("a task").path().join("children")).unwrap_or_default())
        .map(|c| c.split_whitespace().count())
        .sum()
}

#[test]
fn foreign_slots_cannot_be_rung_for() {
    run(async {
        let mut victim = guest(&call(39)).await;
        victim.resume_regs();
        expect_call(&mut victim, 39).await;
        // In the kernel's hands as it is, its slot holds no answer that would let a ringer pass.
        let mut index = [0; 4];
        let at = SLOT_VA + std::mem::offset_of!(slot::Slot, index) as u64;
        assert_eq!(victim.address_space().read(at, &mut index), Ok(4));
        let index = u32::from_ne_bytes(index);
        // for ebx in 0..40000 { r = doorbell(ebx, nonce ebx + 2^31); if r == 0 && ebx == index, r12 += 1 }
        let mut code = vec![0x45, 0x31, 0xe4, 0x31, 0xdb];
        let start = code.len();
        code.extend([0x89, 0xdf, 0x8d, 0xb3, 0, 0, 0, 0x80, 0x31, 0xd2]);
        code.extend(call(NR_DOORBELL));
        code.extend([0x81, 0xfb]); // cmp ebx, index; jne +7
        code.extend(index.to_le_bytes());
        code.extend([0x75, 0x07]);
        code.extend([0x85, 0xc0, 0x75, 0x03, 0x49, 0xff, 0xc4]); // test eax, eax; jnz +3; inc r12
        code.extend([0xff, 0xc3, 0x81, 0xfb, 0x40, 0x9c, 0, 0, 0x75]);
        code.push((start as i64 - code.len() as i64 - 1) as u8);
        code.extend(call(60));
        let mut evil = guest(&code).await;
        evil.resume_regs();
        loop {
            match evil.next_exit().await {
                Exit::Syscall if evil.regs().rax == 60 => break,
                // Its own slot held some request.
                Exit::Gone(code) => panic!("gone: {code}"),
                _ => evil.resume_regs(),
            }
        }
        assert_eq!(evil.regs().r12, 0);
        assert!((1..40_000).contains(&index));
        evil.handle().kill_process();
        victim.resume_syscall(0);
        victim.handle().kill_process();
        witness().await;
    });
}

#[test]
fn the_shims_instructions_are_of_no_use() {
    run(async {
        let before = children();
        let slots = BATCH as u64 * SLOT_SIZE;
        let attacks = [
            // fork, vfork and a thread by hand
            (56, [0x11, 0, 0, 0, 0, 0]),
            (56, [0x8011, 0, 0, 0, 0, 1]),
            (56, [0x4111, CODE + 0x7000, 0, 0, 0, 1]),
            (56, [0x5_0f00, CODE + 0x7000, 0, 0, 0, 1]),
            // slots of others, the control file writable, and elsewhere
            (9, [0x1000_0000, slots, 3, 0x11, 3, 0]),
            (9, [0x1000_0000, slots, 3, 0x11, 3 | 1 << 32, 0]),
            (9, [0x1000_0000, 0x1000, 3, 0x11, 4, 0]),
            (9, [SLOT_VA, slots, 3, 0x11, 3, slots * 3]),
            (9, [0x1000_0000, 0x1000, 7, 0x12, 200, 0]),
            // over the shim
            (9, [SHIM_VA + 0x1000, 0x1000, 7, 0x32, u64::MAX, 0]),
            (11, [SLOT_VA, slots, 0, 0, 0, 0]),
            (10, [SHIM_VA + 0x1000, 0x1000, 7, 0, 0, 0]),
            (25, [SLOT_VA, slots, slots, 3, 0x1000_0000, 0]),
            (25, [CODE, 0x1000, 0x1000, 3, SLOT_VA, 0]),
            (28, [SLOT_VA, slots, 11, 0, 0, 0]),
            // the host's own calls
            (2, [CODE, 0, 0, 0, 0, 0]),
            (59, [CODE, 0, 0, 0, 0, 0]),
            (62, [1, 9, 0, 0, 0, 0]),
            (101, [16, 1, 0, 0, 0, 0]),
            (317, [1, 0, 0, 0, 0, 0]),
            (317, [1, 1, CONTROL_VA + SHOWING_OFFSET, 0, 0, 0]),
        ];
        let both = shim_syscalls();
        for (at, (nr, args)) in both.into_iter().flat_map(|at| attacks.map(|attack| (at, attack))) {
            let mut evil = guest(&by_shim(at, nr, args)).await;
            let clean = maps(&evil);
            assert!(clean.contains("sallet-slots"), "{clean}");
            evil.resume_regs();
            // Whatever the shim makes of coming back there.
            soon(&mut evil).await;
            let after = maps(&evil);
            let ours = |maps: &str| {
                maps.lines()
                    .filter(|l| l.contains("sallet-") || l.starts_with("7e"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            if !after.is_empty() {
                assert_eq!(ours(&clean), ours(&after), "{at:x}: call {nr} {args:x?}");
            }
            evil.handle().kill_process();
            drop(evil);
        }
        for _ in 0..1000 {
            if children() <= before {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(children() <= before + 3, "{before} {}", children());
        witness().await;
    });
}

#[test]
fn the_shim_is_sealed() {
    run(async {
        let guest = guest(&call(60)).await;
        let pid = guest.address_space().host_pid();
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
        let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
        let mut numbers = version.split('.').map_while(|n| n.parse::<u32>().ok());
        let has_mseal = (numbers.next(), numbers.next()) >= (Some(6), Some(10));
        if !has_mseal || std::env::var_os("SALLET_TEST_OLD_HOST").is_some() {
            return;
        }
        let (mut start, mut sealed) = (0, Vec::new());
        for line in smaps.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                sealed.push((start, flags.split_whitespace().any(|f| f == "sl")));
            } else if let Some((at, _)) = line.split_once('-') {
                start = u64::from_str_radix(at, 16).unwrap_or(start);
            }
        }
        for (at, sealed) in sealed {
            let shim = (0x7dfe_0000_0000..SLOT_VA).contains(&at) || at == 0x6_0000;
            assert_eq!(sealed, shim, "{at:#x}: {smaps}");
        }
        guest.handle().kill_process();
    });
}

#[test]
fn memory_calls_on_the_shim_trap() {
    run(async {
        let calls = [
            (10, [SHIM_VA, 0x2000, 7, 0, 0, 0]),
            (11, [0x7dff_ffff_f000, 0x2000, 0, 0, 0, 0]),
            (25, [SLOT_VA, 0x1000, 0x1000, 3, 0x1000_0000, 0]),
            (25, [CODE, 0x1000, 0x1000, 3, STACK_VA, 0]),
            (9, [SLOT_VA, 0x1000, 3, 0x32, u64::MAX, 0]),
            (28, [SLOT_VA, 0x1000, 4, 0, 0, 0]),
            (9, [0x6_0000, 0x1000, 3, 0x32, u64::MAX, 0]),
            (216, [SLOT_VA, 0x1000, 0, 1, 0, 0]),
        ];
        for (nr, args) in calls {
            let mut evil = guest(&direct(nr, args)).await;
            evil.resume_regs();
            expect_call(&mut evil, nr).await;
            evil.handle().kill_process();
        }
    });
}

#[test]
fn other_ways_into_the_host_end_the_process() {
    run(async {
        // int 0x80 (exit): a fault, as where there is no such entry.
        let mut evil = guest(&[0xb8, 1, 0, 0, 0, 0xcd, 0x80]).await;
        evil.resume_regs();
        match evil.next_exit().await {
            Exit::Fault(fault) => assert_eq!((fault.signo, fault.code, fault.trapno), (11, 0x80, 13)),
            other => panic!("{other:?}"),
        }
        assert_eq!(evil.regs().rip, CODE + 5);
        evil.handle().kill_process();
        // x32 numbers and negative ones are calls like others.
        for number in [0x4000_0027, u32::MAX] {
            let mut evil = guest(&call(number)).await;
            evil.resume_regs();
            expect_call(&mut evil, u64::from(number)).await;
            evil.handle().kill_process();
        }
        // mov rax, vsyscall page; call rax
        let mut code = vec![0x48, 0xb8];
        code.extend(0xffff_ffff_ff60_0000u64.to_le_bytes());
        code.extend([0xff, 0xd0]);
        code.extend(call(60));
        let mut evil = guest(&code).await;
        evil.resume_regs();
        assert!(matches!(evil.next_exit().await, Exit::Syscall | Exit::Fault(_) | Exit::Gone(_)));
        evil.handle().kill_process();
        // SIGSYS blocked by the shim's instruction, and no signal stack: at the next trap the host ends it.
        for (nr, args) in [(14, [0, CODE + 0x200, 0, 8, 0, 0]), (131, [CODE + 0x300, 0, 0, 0, 0, 0])] {
            let mut code = by_shim(shim_syscalls()[1], nr, args);
            code.resize(0x200, 0x90);
            code.extend([0xff; 8]);
            code.resize(0x300, 0);
            code.extend([0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let mut evil = guest(&code).await;
            evil.resume_regs();
            soon(&mut evil).await;
            evil.handle().kill_process();
            while !matches!(evil.next_exit().await, Exit::Gone(_)) {}
        }
        witness().await;
    });
}

/// One thread makes calls, the other writes over `at` without end: its bytes change each time.
fn scribbler(at: u64, len: u32) -> Vec<u8> {
    // clone; test; jz scribble; calls: getppid in a loop; scribble: mov rdi; mov ecx; inc eax; rep stosb; jmp
    let mut code = call(56);
    code.extend([0x85, 0xc0, 0x74, 0x09]);
    code.extend(call(110));
    code.extend([0xeb, 0xf7]);
    code.extend([0x48, 0xbf]);
    code.extend(at.to_le_bytes());
    code.push(0xb9);
    code.extend(len.to_le_bytes());
    code.extend([0x80, 0xc3, 0x01, 0x88, 0xd8, 0xf3, 0xaa, 0xeb, 0xe8]);
    code
}

#[test]
fn forged_slots_and_stacks_harm_their_owner_alone() {
    run(async {
        let targets = [
            (SLOT_VA, 64),
            (SLOT_VA + 4, 0x800),
            (SLOT_VA, 0x1000),
            (SLOT_VA + SLOT_SIZE, 0x1000),
            (STACK_VA + STACK_SIZE - 0x2000, 0x2000),
            (STACK_VA, 2 * STACK_SIZE as u32),
        ];
        for (at, len) in targets {
            for _ in 0..3 {
                let mut evil = guest(&scribbler(at, len)).await;
                evil.resume_regs();
                expect_call(&mut evil, 56).await;
                let regs = *evil.regs();
                let second = evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
                // The child may have spoilt that already.
                if let Some(Exit::NativeDone(_)) = soon(&mut evil).await {
                    evil.resume_syscall(1);
                }
                // Serve it as a kernel would: with whatever it says, copies included.
                let deadline = Instant::now() + Duration::from_millis(60);
                while Instant::now() < deadline {
                    match soon(&mut evil).await {
                        Some(Exit::Gone(_)) | None => break,
                        Some(_) => {
                            let mut buf = [0; 256];
                            let rdi = evil.regs().rdi;
                            let _ = evil.copy_in(rdi, &mut buf);
                            let _ = evil.copy_in_travelled(rdi, 1 << 20);
                            let _ = evil.copy_out(rdi, &buf);
                            evil.resume_syscall(5);
                        }
                    }
                }
                evil.handle().kill_process();
                drop(second);
            }
            witness().await;
        }
    });
}

#[test]
fn a_flood_of_bells_keeps_nobody_out() {
    run(async {
        // clone; test; jnz loop of clone; child: doorbell on slot 1 in a loop
        let mut code = call(56);
        code.extend([0x85, 0xc0, 0x75]);
        code.push((-(code.len() as i64) - 1) as u8);
        let start = code.len();
        code.extend([0xbf, 1, 0, 0, 0]);
        code.extend(call(NR_DOORBELL));
        code.push(0xeb);
        code.push((start as i64 - code.len() as i64 - 1) as u8);
        let mut evil = guest(&code).await;
        evil.resume_regs();
        let mut ringers = Vec::new();
        for _ in 0..8 {
            expect_call(&mut evil, 56).await;
            let regs = *evil.regs();
            ringers.push(evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread"));
            assert!(matches!(evil.next_exit().await, Exit::NativeDone(_)));
            evil.resume_syscall(1);
        }
        let start = Instant::now();
        for _ in 0..20 {
            witness().await;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        evil.handle().kill_process();
    });
}

#[test]
fn only_files_of_mappings_can_be_closed() {
    run(async {
        // By the shim's close, which comes back into the shim: the thread is lost, but another goes on: clone; jz
        // close; fork
        for fd in [0, 3, 4, 5, 199, 200] {
            let mut code = call(56);
            code.extend([0x85, 0xc0, 0x74, 0x10]);
            code.extend(call(39));
            code.extend(call(57));
            code.extend([0xeb, 0xfe]);
            code.extend(by_shim(shim_syscalls()[1], 3, [fd, 0, 0, 0, 0, 0]));
            let mut evil = guest(&code).await;
            evil.resume_regs();
            expect_call(&mut evil, 56).await;
            let regs = *evil.regs();
            let mut closer = evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
            assert!(matches!(evil.next_exit().await, Exit::NativeDone(_)));
            evil.resume_syscall(1);
            expect_call(&mut evil, 39).await;
            let pid = evil.address_space().host_pid();
            soon(&mut closer).await;
            for file in [0, 3, 4] {
                assert!(std::fs::metadata(format!("/proc/{pid}/fd/{file}")).is_ok(), "{file} after {fd}");
            }
            evil.resume_syscall(0);
            expect_call(&mut evil, 57).await;
            let regs = *evil.regs();
            let child = evil.begin_clone(clone_request(Kind::Fork, regs)).expect("announced");
            assert!(matches!(evil.next_exit().await, Exit::NativeDone(ret) if ret > 0));
            evil.handle().kill_process();
            child.handle().kill_process();
        }
        witness().await;
    });
}

#[test]
fn no_guest_says_how_large_frames_are() {
    run(async {
        let size = machine().xstate_size();
        assert!((512..=16 << 10).contains(&size), "{size}");
        // A request by hand, of a thread that was never trapped: its slot says 1, or much.
        for forged in [1u32, 1 << 20] {
            let mut code = vec![0x49, 0xbf];
            code.extend(SLOT_VA.to_le_bytes());
            let word = std::mem::offset_of!(slot::Slot, xstate_size) as u32;
            code.extend([0x41, 0xc7, 0x87]); // mov dword [r15 + word], forged
            code.extend(word.to_le_bytes());
            code.extend(forged.to_le_bytes());
            code.extend([0x41, 0xc7, 0x07, 1, 0, 0, 0]); // mov dword [r15], REQUEST
            code.extend([0x41, 0x8b, 0xbf]); // mov edi, [r15 + index]
            code.extend((std::mem::offset_of!(slot::Slot, index) as u32).to_le_bytes());
            code.extend([0x31, 0xf6, 0x31, 0xd2]);
            code.extend(call(NR_DOORBELL));
            code.extend(call(60));
            let mut evil = guest(&code).await;
            evil.resume_regs();
            soon(&mut evil).await;
            evil.handle().kill_process();
            assert_eq!(machine().xstate_size(), size);
        }
    });
}
