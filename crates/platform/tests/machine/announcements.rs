//! Guests that have a file announced to them and try to map something else, by the shim's own instruction: the host
//! maps exactly what was announced, for the thread it was announced to, once.

use std::arch::global_asm;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use platform::{Exit, GuestThread, NativeOp};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use slot::layout::{
    BATCH, CONTROL_FD, FILE_FD, KEPT_FD, NR_DOORBELL, NR_FETCH, SHIM_VA, SLOT_SIZE, SLOT_VA, SLOTS_FD,
};
use slot::{Slot, kind, state};

use crate::common::{CODE, Kind, clone_request, expect_call, guest, run};
use crate::gadget::{WORDS, code, gadget};

global_asm!(
    ".pushsection .rodata",
    ".globl announced, announced_end",
    // A second thread is wanted if r13 is 1.
    "announced:",
    "test r13, r13",
    "jz 1f",
    "mov eax, 56",
    "syscall",
    "test eax, eax",
    "jz 7f",
    "1: mov r12d, 39",
    "call 8f",
    "mov dword ptr [{flags}], 1",
    "2: pause",
    "test r13, r13",
    "jz 3f",
    "cmp dword ptr [{flags} + 4], 0",
    "je 2b",
    "3: call 9f",
    "mov r12d, 60",
    "call 8f",
    "4: jmp 4b",
    // The second thread, once it was announced to the first.
    "7: pause",
    "cmp dword ptr [{flags}], 0",
    "je 7b",
    "call 9f",
    "mov dword ptr [{flags} + 4], 1",
    "5: jmp 5b",
    // A request by hand, so that the shim does not act upon the answer: number r12.
    "8: mov r15, {slot}",
    "mov byte ptr [r15 + {kind}], {syscall}",
    "mov [r15 + {regs}], r12",
    "mov byte ptr [r15 + {pieces}], 0",
    "mov dword ptr [r15], {request}",
    "mov eax, {bell}",
    "mov edi, [r15 + {index}]",
    "xor esi, esi",
    "xor edx, edx",
    "syscall",
    "ret",
    // Makes the calls that are listed in the page of the stack by the shim's instruction; keeps r13.
    "9: mov rbx, rsp",
    "and rbx, -4096",
    "pop qword ptr [rbx + 24]",
    "mov [rbx + 32], r13",
    "2: lea rsp, [rbx + 0xff0]",
    "mov rbp, [rbx]",
    "cmp rbp, [rbx + 8]",
    "jae 4f",
    "lea rax, [rip + 3f]",
    "mov ecx, {words}",
    "6: push rax",
    "loop 6b",
    "mov rax, [rbp]",
    "mov rdi, [rbp + 8]",
    "mov rsi, [rbp + 16]",
    "mov rdx, [rbp + 24]",
    "mov r10, [rbp + 32]",
    "mov r8, [rbp + 40]",
    "mov r9, [rbp + 48]",
    "jmp qword ptr [rbx + 16]",
    "3: mov rbx, rsp",
    "and rbx, -4096",
    "mov rbp, [rbx]",
    "mov [rbp + 56], rax",
    "add qword ptr [rbx], 64",
    "jmp 2b",
    "4: mov r13, [rbx + 32]",
    "jmp qword ptr [rbx + 24]",
    "announced_end:",
    ".popsection",
    flags = const CODE + 0xf000,
    words = const WORDS,
    slot = const SLOT_VA,
    index = const offset_of!(Slot, index),
    kind = const offset_of!(Slot, kind),
    regs = const offset_of!(Slot, regs),
    pieces = const offset_of!(Slot, pieces),
    syscall = const kind::SYSCALL,
    request = const state::REQUEST,
    bell = const NR_DOORBELL,
);

/// Pages with the calls of the two threads, and their stacks.
const FIRST: u64 = CODE + 0x3000;
const SECOND: u64 = CODE + 0x5000;
/// Where the calls lie in there.
const CALLS: u64 = 0x40;

const MMAP: u64 = 9;
const MUNMAP: u64 = 11;
const EPERM: i64 = -1;

/// What is announced: read only, private, at this place and no other.
const PLACE: u64 = 0x5000_0000;
const LEN: u64 = 0x2000;
const OFFSET: u64 = 0x1000;
const PRIVATE_NOREPLACE: u64 = 0x10_0002;

/// A call: its number and arguments.
type Call = [u64; 7];

/// A file of four pages that a guest may see two of.
fn secret() -> Arc<OwnedFd> {
    let file = memfd_create("secret", MemfdFlags::CLOEXEC).expect("a memfd");
    ftruncate(&file, 0x4000).expect("four pages");
    Arc::new(file)
}

/// A file of four pages that a guest may read.
fn public() -> Arc<OwnedFd> {
    let file = secret();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Arc::new(std::fs::File::open(path).expect("opens").into())
}

/// The mappings of the file, and of files of the sandbox, that a process has.
fn seen(guest: &GuestThread) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", guest.address_space().host_pid()));
    let maps = maps.expect("maps");
    let lines = maps.lines().filter(|line| line.contains("secret") || line.contains("sallet-"));
    lines.map(str::to_owned).collect()
}

fn write_calls(guest: &GuestThread, page: u64, calls: &[Call]) {
    let start = page + CALLS;
    let mut words = vec![start, start + calls.len() as u64 * 64, gadget(), 0, 0, 0, 0, 0];
    for call in calls {
        words.extend(call);
        words.push(u64::MAX - 99);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert_eq!(guest.address_space().write(page, &bytes), Ok(bytes.len()));
}

fn results(guest: &GuestThread, page: u64, count: usize) -> Vec<i64> {
    let read = |i: usize| {
        let mut word = [0; 8];
        let at = page + CALLS + i as u64 * 64 + 56;
        assert_eq!(guest.address_space().read(at, &mut word), Ok(8));
        i64::from_ne_bytes(word)
    };
    (0..count).map(read).collect()
}

/// The thread's number in the sandbox, which comes with the descriptor of a mapping.
fn index(guest: &GuestThread, local: u64) -> u64 {
    let mut index = [0; 4];
    let at = SLOT_VA + local * SLOT_SIZE + offset_of!(Slot, index) as u64;
    assert_eq!(guest.address_space().read(at, &mut index), Ok(4));
    u64::from(u32::from_ne_bytes(index))
}

/// The announced call of the thread at slot `local`.
fn right(guest: &GuestThread, local: u64) -> Call {
    let fd = index(guest, local) << 32 | (FILE_FD as u64 + local);
    [MMAP, PLACE, LEN, 1, PRIVATE_NOREPLACE, fd, OFFSET]
}

/// Has the mapping announced to a guest that makes these calls instead; what they gave, and the guest. `calls` are
/// made from what was announced.
async fn attack(calls: impl FnOnce(Call) -> Vec<Call>) -> (Vec<i64>, GuestThread) {
    let mut evil = guest(code!(announced, announced_end)).await;
    let calls = calls(right(&evil, 0));
    write_calls(&evil, FIRST, &calls);
    evil.regs_mut().rsp = FIRST + 0xff0;
    evil.regs_mut().r13 = 0;
    evil.resume_regs();
    expect_call(&mut evil, 39).await;
    evil.native(announcement());
    expect_call(&mut evil, 60).await;
    (results(&evil, FIRST, calls.len()), evil)
}

fn announcement() -> NativeOp {
    NativeOp::Mmap {
        addr: PLACE,
        len: LEN,
        prot: 1,
        flags: PRIVATE_NOREPLACE as u32,
        file: Some((secret(), OFFSET)),
    }
}

fn with(mut call: Call, argument: usize, value: u64) -> Call {
    call[argument + 1] = value;
    call
}

#[test]
fn what_is_announced_is_mapped() {
    run(async {
        let (results, evil) = attack(|right| vec![right]).await;
        assert_eq!(results, [PLACE as i64]);
        let seen = seen(&evil);
        let line = seen.iter().find(|line| line.contains("secret")).expect("the file");
        assert!(line.starts_with("50000000-50002000 r--p 00001000 "), "{line}");
        evil.handle().kill_process();
    });
}

/// A file that stays is there for reading, at its number, for who was told to take it there.
#[test]
fn what_stays_is_mapped_for_reading_alone() {
    const ACCESS: i64 = -13;
    const BAD: i64 = -9;
    const CLOSE: u64 = 3;
    run(async {
        let mut evil = guest(code!(announced, announced_end)).await;
        let (own, fd) = (index(&evil, 0), KEPT_FD as u64);
        let map = |addr, len, prot, flags, fd, offset| [MMAP, addr, len, prot, flags, fd, offset];
        let fetch = |index, fd| [NR_FETCH.into(), index, fd, 0, 0, 0, 0];
        let close = |fd| [CLOSE, fd, 0, 0, 0, 0, 0];
        let elsewhere = PLACE + 0x10_0000;
        // Bytes that nobody needs.
        let pread = |fd, len| [17, fd, FIRST + 0x800, len, 0, 0, 0];
        let calls = [
            (map(PLACE, LEN, 1, PRIVATE_NOREPLACE, fd, OFFSET), PLACE as i64),
            (pread(fd, 16), 16),
            (pread(fd + 1, 16), BAD),
            (pread(CONTROL_FD as u64, 16), EPERM),
            (pread(SLOTS_FD as u64, 16), EPERM),
            (pread(FILE_FD as u64, 16), EPERM),
            ([18, fd, FIRST + 0x800, 16, 0, 0, 0], EPERM),
            (map(elsewhere, 0x4000, 5, PRIVATE_NOREPLACE, fd, 0), elsewhere as i64),
            (map(PLACE + 0x20_0000, LEN, 3, 0x10_0001, fd, 0), ACCESS),
            (map(SHIM_VA, LEN, 1, 0x12, fd, 0), EPERM),
            (map(SLOT_VA, LEN, 1, 0x12, fd, 0), EPERM),
            (map(PLACE + 0x20_0000, LEN, 1, PRIVATE_NOREPLACE, fd + 1, 0), BAD),
            (map(PLACE + 0x20_0000, LEN, 1, PRIVATE_NOREPLACE, CONTROL_FD as u64, 0), EPERM),
            (fetch(own, fd + 1), EPERM),
            (fetch(own, FILE_FD as u64), EPERM),
            (fetch(own + 1, fd), EPERM),
            (fetch(0, fd), EPERM),
            (close(fd), 0),
            (map(PLACE + 0x20_0000, LEN, 1, PRIVATE_NOREPLACE, fd, 0), BAD),
            (fetch(own, fd), fd as i64),
            (fetch(own, fd), fd as i64),
            (map(PLACE + 0x20_0000, LEN, 1, PRIVATE_NOREPLACE, fd, 0), PLACE as i64 + 0x20_0000),
            (close(SLOTS_FD as u64), EPERM),
        ];
        let (list, wanted): (Vec<Call>, Vec<i64>) = calls.into_iter().unzip();
        write_calls(&evil, FIRST, &list);
        evil.regs_mut().rsp = FIRST + 0xff0;
        evil.regs_mut().r13 = 0;
        evil.resume_regs();
        expect_call(&mut evil, 39).await;
        let flags = PRIVATE_NOREPLACE as u32;
        let file = (public(), OFFSET);
        evil.native(NativeOp::MmapKept { addr: PLACE, len: LEN, prot: 1, flags, file, id: 1 });
        expect_call(&mut evil, 60).await;
        assert_eq!(results(&evil, FIRST, list.len()), wanted);
        evil.handle().kill_process();
    });
}

#[test]
fn nothing_else_is_mapped_and_the_announcement_is_lost() {
    run(async {
        let slots = BATCH as u64 * SLOT_SIZE;
        let (address, len, prot, flags, fd, offset) = (0, 1, 2, 3, 4, 5);
        let wrong: Vec<(usize, u64)> = vec![
            (address, 0),
            (address, PLACE + 0x1000),
            (address, PLACE | 1 << 40),
            (address, SHIM_VA),
            (address, SLOT_VA + slots),
            (address, CODE),
            (len, 0x1000),
            (len, 0x3000),
            (len, LEN - 1),
            (len, LEN | 1 << 32),
            (prot, 0),
            (prot, 2),
            (prot, 3),
            (prot, 5),
            (prot, 7),
            (prot, 1 | 1 << 32),
            (flags, 0x2),
            (flags, 0x12),
            (flags, 0x1),
            (flags, 0x11),
            (flags, 0x10_0001),
            (flags, 0x10_0003),
            (flags, PRIVATE_NOREPLACE | 0x8000),
            (flags, PRIVATE_NOREPLACE | 1 << 32),
            (offset, 0),
            (offset, 0x2000),
            (offset, OFFSET | 1 << 44),
            (offset, !0xfff),
            (fd, FILE_FD as u64 + 1),
            (fd, FILE_FD as u64 - 1),
            (fd, 0),
            (fd, CONTROL_FD as u64),
            (fd, u64::from(u32::MAX)),
        ];
        for (argument, value) in wrong {
            let call = |right: Call| {
                // Of a descriptor the upper half says whose it is.
                let own = if argument == fd { right[5] & !0xffff_ffff } else { 0 };
                vec![with(right, argument, value | own), right]
            };
            let (results, evil) = attack(call).await;
            assert_eq!(results, [EPERM; 2], "argument {argument}: {value:#x}");
            let seen = seen(&evil);
            assert!(!seen.iter().any(|line| line.contains("secret")), "{argument}: {value:#x}: {seen:?}");
            evil.handle().kill_process();
        }
    });
}

#[test]
fn an_announcement_counts_once() {
    run(async {
        let munmap = [MUNMAP, PLACE, LEN, 0, 0, 0, 0];
        let (results, evil) = attack(|right| {
            // The descriptor is still there, since nobody has closed it.
            let elsewhere = with(with(right, 0, PLACE + 0x10_0000), 5, 0);
            vec![right, right, munmap, right, elsewhere, with(elsewhere, 3, 1), with(right, 0, 0)]
        })
        .await;
        assert_eq!(results, [PLACE as i64, EPERM, 0, EPERM, EPERM, EPERM, EPERM]);
        assert!(!seen(&evil).iter().any(|line| line.contains("secret")));
        evil.handle().kill_process();
    });
}

#[test]
fn other_files_of_the_process_stay_out_of_reach() {
    run(async {
        let slots = BATCH as u64 * SLOT_SIZE;
        let before = seen(&guest(&[0xeb, 0xfe]).await).len();
        for fd in [SLOTS_FD as u64, CONTROL_FD as u64] {
            for (prot, flags) in [(1, 1), (3, 1), (3, 2), (3, 0x11), (7, 2), (5, 1)] {
                let (results, evil) = attack(|right| {
                    let own = right[5] & !0xffff_ffff;
                    vec![
                        [MMAP, PLACE, 0x1000, prot, flags, own | fd, 0],
                        [MMAP, SLOT_VA, slots, prot, flags, own | fd, slots],
                        [MMAP, SLOT_VA + slots, slots, prot, flags, own | fd, slots],
                        [MMAP, PLACE, 0x1000, prot, flags, fd, 0],
                        // The nonces of forks to come.
                        [MMAP, SLOT_VA + slots, slots, prot, flags, 0x8000_0000 << 32 | fd, slots],
                    ]
                })
                .await;
                assert_eq!(results, [EPERM; 5], "{fd} {prot} {flags:#x}");
                assert_eq!(seen(&evil).len(), before, "{:?}", seen(&evil));
                evil.handle().kill_process();
            }
        }
    });
}

#[test]
fn another_thread_gets_nothing_and_takes_nothing() {
    run(async {
        let mut evil = guest(code!(announced, announced_end)).await;
        evil.regs_mut().rsp = FIRST + 0xff0;
        evil.regs_mut().r13 = 1;
        evil.resume_regs();
        expect_call(&mut evil, 56).await;
        let mut regs = *evil.regs();
        regs.rsp = SECOND + 0xff0;
        let second = evil.begin_clone(clone_request(Kind::Thread, regs)).expect("a thread");
        assert!(matches!(evil.next_exit().await, Exit::NativeDone(tid) if tid > 0));
        let (first, own) = (right(&evil, 0), right(&evil, 1));
        write_calls(&evil, FIRST, &[first, first]);
        // In the first thread's name, in its own, and half and half.
        let half = with(own, 4, index(&evil, 1) << 32 | FILE_FD as u64);
        write_calls(&evil, SECOND, &[first, own, half, first]);
        evil.resume_syscall(1);
        expect_call(&mut evil, 39).await;
        evil.native(announcement());
        expect_call(&mut evil, 60).await;
        assert_eq!(results(&evil, SECOND, 4), [EPERM; 4]);
        assert_eq!(results(&evil, FIRST, 2), [PLACE as i64, EPERM]);
        evil.handle().kill_process();
        drop(second);
    });
}

#[test]
fn another_process_gets_nothing_and_takes_nothing() {
    run(async {
        let mut victim = guest(code!(announced, announced_end)).await;
        let call = right(&victim, 0);
        write_calls(&victim, FIRST, &[call]);
        victim.regs_mut().rsp = FIRST + 0xff0;
        victim.regs_mut().r13 = 0;
        victim.resume_regs();
        expect_call(&mut victim, 39).await;
        // Announced to the one, and tried by the other before.
        let mut evil = guest(code!(announced, announced_end)).await;
        write_calls(&evil, FIRST, &[call, call]);
        evil.regs_mut().rsp = FIRST + 0xff0;
        evil.regs_mut().r13 = 0;
        evil.resume_regs();
        expect_call(&mut evil, 39).await;
        evil.native(announcement());
        expect_call(&mut evil, 60).await;
        assert_eq!(results(&evil, FIRST, 2), [EPERM; 2]);
        victim.native(announcement());
        expect_call(&mut victim, 60).await;
        assert_eq!(results(&victim, FIRST, 1), [PLACE as i64]);
        evil.handle().kill_process();
        victim.handle().kill_process();
    });
}
