//! Programs that go for the memory, the frames and the doors of what runs below them. Natively nothing is there.

use std::arch::asm;
use std::ops::Range;
use std::time::{Duration, Instant};

use libc::*;

use crate::harness::{End, cases, fails, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("attack_memory": every_call_on_the_shim, growing_down_into_it, calls_on_its_memory, memory_of_a_child,
    stacks_written_over, hostile_frames, forged_sigsys, forged_bells, doors_of_old, many_children, many_threads);

const PAGE: u64 = 4096;
/// The parts of a shim, and the table of patched calls.
const PARTS: [u64; 7] = [
    0x7e00_0000_0000,
    0x7e00_0000_1000,
    0x7e00_1000_0000,
    0x7e00_2000_0000,
    0x7e01_0000_0000,
    0x7e02_0000_0000,
    0x6_0000,
];
const STACKS: u64 = 0x7e01_0000_0000;
const SLOTS: u64 = 0x7e02_0000_0000;

fn survive(attack: impl FnOnce()) -> End {
    let pid = fork(|| {
        ok!(setrlimit(RLIMIT_CORE, &zeroed()));
        ok!(alarm(8));
        attack();
        0
    });
    let end = wait(pid);
    witness();
    end
}

/// Calls, threads, children, signals and mapped files work.
fn witness() {
    let (r, w) = pipe();
    in_child(|| write(w, b"fine"));
    assert_eq!(read(r, 10), b"fine");
    std::thread::spawn(|| ok!(syscall(SYS_getpgid, 0))).join().expect("joined");
    extern "C" fn nothing(_: i32) {}
    ok!(signal(SIGUSR2, nothing as extern "C" fn(i32) as usize) as isize);
    ok!(raise(SIGUSR2));
    let exe = ok!(open(c"/proc/self/exe".as_ptr(), O_RDONLY));
    let at = ok!(mmap(std::ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE, exe, 0));
    // SAFETY: the page was just mapped for reading.
    assert_eq!(unsafe { at.cast::<u8>().read_volatile() }, 0x7f);
    ok!(munmap(at, 4096));
    for fd in [exe, r, w] {
        ok!(close(fd));
    }
}

/// Ranges on, around and across a shim, and such as wrap around.
fn ranges() -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for part in PARTS {
        all.extend([(part, PAGE), (part, 16 * PAGE), (part - PAGE, 2 * PAGE), (part, 0), (part + 1, PAGE)]);
        all.extend([
            (part | 1 << 63, PAGE),
            (part | 1 << 48, PAGE),
            (part, PAGE | 1 << 63),
            (part, u64::MAX - part + 1),
        ]);
        all.extend([(part, 0x1_0000_0000), (part, PAGE | 0xffff << 48)]);
    }
    all.extend([
        (0x7dfd_0000_0000, 0x5_0000_0000),
        (0x7dff_ffff_f000, 0x3_0000_2000),
        (u64::MAX - PAGE + 1, 2 * PAGE),
    ]);
    all.extend([(0x7dff_0000_0000, 0x1_0000_0000), (0x7dfd_ffff_f000, 0x2_0000_0000)]);
    all
}

/// Whatever is tried upon the shim, the process goes on as if nothing had been.
fn every_call_on_the_shim() {
    const NR_MSEAL: i64 = 462;
    const NR_MAP_SHADOW_STACK: i64 = 453;
    let end = survive(|| {
        let plain = MAP_PRIVATE | MAP_ANONYMOUS;
        // With nothing behind that a call upon it could take along.
        let own = 0x6000_0000_0000u64;
        let flags = plain | MAP_FIXED_NOREPLACE;
        ok!(mmap(own as *mut _, 1 << 20, PROT_READ | PROT_WRITE, flags, -1, 0));
        let exe = ok!(open(c"/proc/self/exe".as_ptr(), O_RDONLY));
        let any = |number: i64, args: [u64; 6]| {
            let _ = sys!(syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]));
        };
        for (at, len) in ranges() {
            for (number, third, fourth) in [
                (SYS_munmap, 0, 0),
                (SYS_mprotect, 7, 0),
                (SYS_mprotect, 0, 0),
                (SYS_mprotect, 0x100_0003, 0),
                (SYS_mprotect, 0x200_0000, 0),
                (SYS_pkey_mprotect, 7, u64::MAX),
                (SYS_pkey_mprotect, 0, 0),
                (NR_MSEAL, 0, 0),
                (SYS_mlock, 0, 0),
                (SYS_munlock, 0, 0),
                (SYS_mlock2, 1, 0),
                (SYS_msync, 2, 0),
                (SYS_mincore, own, 0),
                (SYS_remap_file_pages, 0, 1),
                (SYS_mbind, 0, 0),
                (NR_MAP_SHADOW_STACK, 1, 0),
            ] {
                if number == SYS_mincore && len > 1 << 24 {
                    continue;
                }
                any(number, [at, len, third, fourth, 0, 0]);
            }
            // Linux goes through all that lies above, however far the end: also what this process needs.
            let advisable = at.checked_add(len).is_none_or(|end| end < 1 << 47);
            for advice in (0..30).chain([102, 103, u64::MAX, 1 << 32 | 4]) {
                if !advisable {
                    break;
                }
                any(SYS_madvise, [at, len, advice, 0, 0, 0]);
                // A length that is rounded down to nothing by nobody.
                any(SYS_madvise, [at, len.wrapping_add(1), advice, 0, 0, 0]);
            }
            for flags in [0, 1, 3, 5, 7, 4, 2, 8] {
                any(SYS_mremap, [at, len, len, flags, own, 0]);
                any(SYS_mremap, [at, len, 2 * PAGE, flags, own, 0]);
                any(SYS_mremap, [at, 0, len, flags, own, 0]);
                // Onto it: what is moved is given anew.
                for size in [PAGE, 4 * PAGE] {
                    any(SYS_mremap, [own + 0x1_0000, size, size, flags | 3, at, 0]);
                    any(SYS_mremap, [own + 0x1_0000, size, len, flags | 3, at, 0]);
                }
                // A name for what the filter rounds.
                any(SYS_mremap, [own, PAGE, len, flags, at, 0]);
            }
            for flags in [
                0x10,
                0x10_0000,
                0x110,
                0x4_0010,
                0x10_0110,
                0x8010,
                0x100,
                0x40,
                0x10 | 1 << 32,
                0x10 | 1 << 63,
            ] {
                for kind in [0x21u64, 0x22, 0x23, 0x28, 0x2a, 0x20] {
                    any(SYS_mmap, [at, len.min(16 * PAGE), 3, flags | kind, u64::MAX, 0]);
                }
                any(SYS_mmap, [at, PAGE, 1, flags | 2, exe as u64, 0]);
            }
            any(SYS_brk, [at, 0, 0, 0, 0, 0]);
        }
        witness();
    });
    assert_eq!(end, End::Exited(0));
}

fn growing_down_into_it() {
    for top in [0x7e03_0000_0000u64, 0x7dfd_ffff_f000, 0x7_0000] {
        survive(|| {
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE;
            let Ok(at) = sys!(mmap(top as *mut _, 2 * PAGE as usize, PROT_READ | PROT_WRITE, flags, -1, 0))
            else {
                return;
            };
            let mut at = at as u64;
            loop {
                // SAFETY: on purpose: the mapping grows, or the process dies.
                unsafe { (at as *mut u8).write_volatile(1) };
                let _ = sys!(syscall(SYS_getpgid, 0));
                at -= PAGE;
            }
        });
    }
}

/// Calls that are told to use its memory: the attacker's own, if any.
fn calls_on_its_memory() {
    for part in PARTS {
        survive(|| {
            let (r, w) = pipe();
            for offset in (0..4096).step_by(60) {
                let at = part + offset;
                let _ = sys!(syscall(SYS_write, w, at, 64));
                let _ = sys!(fcntl(r, F_SETFL, O_NONBLOCK));
                let mut bytes = [0u8; 256];
                let _ = sys!(syscall(SYS_read, r, bytes.as_mut_ptr(), 256));
                // FUTEX_WAKE, WAIT with a value it has not, REQUEUE, WAKE_OP; private and shared.
                let zero = timespec { tv_sec: 0, tv_nsec: 1 };
                for private in [0, 0x80] {
                    let _ = sys!(syscall(SYS_futex, at & !3, 1 | private, i32::MAX));
                    let _ = sys!(syscall(SYS_futex, at & !3, private, 0x1234_5678, &raw const zero));
                    let _ = sys!(syscall(SYS_futex, at & !3, 3 | private, 1, 100, (at + 64) & !3));
                }
                let _ = sys!(syscall(SYS_set_robust_list, at, 24));
                let _ = sys!(syscall(SYS_clock_gettime, 0, at));
                let _ = sys!(syscall(SYS_getcwd, at, 64));
                let _ = sys!(syscall(SYS_sysinfo, at));
            }
            let stack = stack_t { ss_sp: part as *mut _, ss_flags: 0, ss_size: 65536 };
            let _ = sys!(sigaltstack(&stack, std::ptr::null_mut()));
            let mut action: sigaction = zeroed();
            action.sa_sigaction = part as usize;
            action.sa_flags = SA_ONSTACK;
            ok!(sigaction(SIGUSR1, &action, std::ptr::null_mut()));
            let _ = sys!(raise(SIGUSR1));
        });
    }
}

/// Who may look into a process finds nothing there either.
fn memory_of_a_child() {
    let pid = fork(|| {
        ok!(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ok!(raise(SIGSTOP));
        7
    });
    let mut status = 0;
    assert_eq!(ok!(waitpid(pid, &mut status, 0)), pid);
    assert!(WIFSTOPPED(status));
    let mut word = 0u64;
    let local = iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    for part in PARTS {
        // Nor does a process in itself, whichever list names it.
        let (own, there) = (ok!(getpid()), iovec { iov_base: part as *mut _, iov_len: 8 });
        for (to, from) in [(&local, &there), (&there, &local)] {
            fails!(EFAULT, process_vm_readv(own, to, 1, from, 1, 0));
            fails!(EFAULT, process_vm_writev(own, to, 1, from, 1, 0));
        }
        for at in [part, part + 64, part + 0x1000] {
            let remote = iovec { iov_base: at as *mut _, iov_len: 8 };
            fails!(EFAULT, process_vm_readv(pid, &local, 1, &remote, 1, 0));
            fails!(EFAULT, process_vm_writev(pid, &local, 1, &remote, 1, 0));
            fails!(EIO, syscall(SYS_ptrace, PTRACE_PEEKDATA as c_long, pid, at, &raw mut word));
            fails!(EIO, syscall(SYS_ptrace, PTRACE_POKEDATA as c_long, pid, at, 0));
        }
    }
    ok!(ptrace(PTRACE_CONT, pid, 0, 0));
    assert_eq!(wait(pid), End::Exited(7));
}

/// Writes over memory without end from a thread of its own.
fn scribble(part: Range<u64>, seed: u64) {
    std::thread::spawn(move || {
        let mut random = seed;
        loop {
            for at in part.clone().step_by(8) {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let value = if random >> 63 == 0 { random } else { SLOTS + (random >> 44) };
                // SAFETY: on purpose: the memory of what runs below, if there is any.
                unsafe { (at as *mut u64).write_volatile(value) };
            }
        }
    });
}

fn stacks_written_over() {
    // From the top of the first thread's stack down; and of the second's, which writes.
    for (from, to) in
        [(0xff00, 0x1_0000), (0xf000, 0x1_0000), (0xc000, 0xf000), (0, 0x1_0000), (0x1_0000, 0x2_0000)]
    {
        for seed in 1..4 {
            survive(|| {
                scribble(STACKS + from..STACKS + to, seed);
                let end = Instant::now() + Duration::from_millis(40);
                while Instant::now() < end {
                    let _ = sys!(syscall(SYS_getpgid, 0));
                    let _ = sys!(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, 0, 8));
                    let pid = sys!(libc::fork());
                    if pid == Ok(0) {
                        // SAFETY: ends the child.
                        unsafe { _exit(0) };
                    }
                    if let Ok(pid) = pid {
                        let mut status = 0;
                        let _ = sys!(waitpid(pid, &mut status, 0));
                    }
                }
                // SAFETY: ends the process with its thread.
                unsafe { _exit(0) };
            });
        }
    }
}

/// rt_sigreturn(2) with frames by hand: whatever is in them, it is the attacker's end at worst.
fn hostile_frames() {
    let mut random = 7u64;
    let mut next = move || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        random >> 20
    };
    const VALUES: [u64; 12] = [
        0,
        1,
        8,
        0x2b,
        0x33,
        0x202,
        0xffff,
        0x8000_0000_0000,
        0x7e02_0000_0000,
        0x7fff_ffff_f000,
        0xffff_8000_0000_0000,
        u64::MAX,
    ];
    for round in 0..120u64 {
        let mut frame = vec![0u64; 1024];
        for word in &mut frame {
            let pick = next();
            *word = if pick % 3 == 0 { VALUES[(pick / 3 % 12) as usize] } else { 0 };
        }
        // The extended state: sometimes where it may be, marked as one, with odd sizes and contents.
        let at = ((&raw const frame[64]) as u64 + 63) & !63;
        frame[28] = match round % 4 {
            0 => at,
            1 => at + 8,
            2 => VALUES[(next() % 12) as usize],
            _ => 0,
        };
        let state = ((at - (&raw const frame[0]) as u64) / 8) as usize;
        let size = [0u32, 512, 576, 836, 2696, 4096, u32::MAX][(round % 7) as usize];
        frame[state + 58] = 0x4650_5853 | u64::from(size) << 32;
        frame[state + 59] = VALUES[(next() % 12) as usize];
        frame[state + 64] = VALUES[(next() % 12) as usize];
        frame[state + 65] = VALUES[(next() % 12) as usize];
        frame[state + 3] = VALUES[(next() % 12) as usize];
        let pid = fork(|| {
            ok!(setrlimit(RLIMIT_CORE, &zeroed()));
            ok!(alarm(2));
            // SAFETY: the attacker gives itself up.
            unsafe {
                asm!("mov rsp, {}", "mov eax, 15", "syscall", "ud2", in(reg) frame.as_ptr(), options(noreturn));
            }
        });
        wait(pid);
    }
    witness();
}

/// A SIGSYS that says it is of a filter is a signal like others.
fn forged_sigsys() {
    for code in [1, 2, 0x7fff_ffff, -1, 0, 0x80] {
        let end = survive(|| {
            let mut info = [0i32; 32];
            // si_signo, si_errno, si_code; address, number, architecture.
            (info[0], info[2]) = (SIGSYS, code);
            (info[4], info[6], info[7]) = (0x1000, 59, 0x4000_0003);
            ok!(syscall(SYS_rt_sigqueueinfo, ok!(getpid()), SIGSYS, info.as_ptr()));
        });
        assert_eq!(end, End::Killed(SIGSYS), "{code}");
        let end = survive(|| {
            ok!(signal(SIGSYS, SIG_IGN) as isize);
            let mut info = [0i32; 32];
            (info[0], info[2]) = (SIGSYS, code);
            for _ in 0..100 {
                ok!(syscall(SYS_rt_tgsigqueueinfo, ok!(getpid()), ok!(gettid()), SIGSYS, info.as_ptr()));
                ok!(syscall(SYS_getpgid, 0));
            }
        });
        assert_eq!(end, End::Exited(0), "{code}");
    }
}

/// Threads that use the numbers by which what runs below is told of calls, for slots of their own and of others.
fn forged_bells() {
    let pid = fork(|| {
        for seed in 0..6u64 {
            std::thread::spawn(move || {
                for i in 0.. {
                    for number in [1000, 1001, 1002, 1003, 1004] {
                        let _ = sys!(syscall(number, (i * 7 + seed) % 600, i | 1 << 31, i & 1, i, i, i));
                    }
                }
            });
        }
        sleep_ms(10_000);
        0
    });
    let end = Instant::now() + Duration::from_millis(400);
    let mut rounds = 0;
    while Instant::now() < end {
        witness();
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    ok!(kill(pid, SIGKILL));
    assert_eq!(wait(pid), End::Killed(SIGKILL));
}

/// `int 0x80`, `sysenter` and x32, and the vsyscall page: errors, faults or the end, never a call.
fn doors_of_old() {
    for number in [1u32, 13, 20, 24, 199, 252, 1000] {
        survive(|| {
            // SAFETY: by a door that may not be there; small arguments mean nothing that exists.
            unsafe {
                asm!("push rbx", "xor ebx, ebx", "int 0x80", "pop rbx", inlateout("eax") number => _,
                    in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0);
            }
            let _ = sys!(syscall(0x4000_0000 | i64::from(number), -1, 8, 8, 8, 8, 8));
        });
    }
    for number in [1u32, 13, 20, 252, 1000] {
        survive(|| {
            // SAFETY: as above.
            unsafe { asm!("mov rbp, rsp", "sysenter", in("eax") number, options(noreturn)) };
        });
    }
    for offset in [0usize, 0x400, 0x800, 0xc00, 1, 0x200] {
        survive(|| {
            // SAFETY: where vsyscalls are emulated this is one, with a pointer that is none; elsewhere a fault.
            let page: extern "C" fn(usize, usize) -> i64 =
                unsafe { std::mem::transmute(0xffff_ffff_ff60_0000usize + offset) };
            page(8, 8);
        });
    }
}

fn many_children() {
    let (r, w) = pipe();
    let waits = || {
        ok!(close(w));
        read(r, 1);
        0
    };
    let children: Vec<_> = (0..400).map(|_| fork(waits)).collect();
    witness();
    ok!(close(w));
    for pid in children {
        assert_eq!(wait(pid), End::Exited(0));
    }
}

fn many_threads() {
    let end = survive(|| {
        let threads: Vec<_> = (0..300)
            .map(|i| {
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        ok!(syscall(SYS_getpgid, 0));
                        if i % 50 == 0 {
                            in_child(|| {});
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("joined");
        }
    });
    assert_eq!(end, End::Exited(0));
}
