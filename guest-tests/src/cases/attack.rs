//! Programs that try to break what runs below them. What becomes of the attacker is open where Linux
//! and a sandbox differ; the other processes of the guest must not notice.

use std::arch::asm;

use crate::harness::{End, cases, fails, fork, in_child, ok, pipe, read, sleep_ms, sys, wait, write, zeroed};

cases!("attack": old_entry, x32_entry, vsyscall_page, sigsys_blocked, sigsys_handler, alternate_stack_wrecked,
    unmap_everything, protect_everything, remap_everywhere, clone_by_hand, thread_without_stack, segment_base_changed,
    segment_base_by_instruction, wild_segment_writes, unknown_numbers, negative_number, signal_storm, kill_storm, every_descriptor_closed, wild_pointers, wild_vectors,
    stack_pointer_wild, jump_into_nothing, all_signals_blocked_and_killed, discard_everything, forked_orphans);

/// Runs the attacker in a child, whatever its end, then sees that calls, children and pipes still work.
fn survive(attack: impl FnOnce()) -> End {
    let pid = fork(|| {
        ok!(libc::setrlimit(libc::RLIMIT_CORE, &zeroed()));
        ok!(libc::alarm(5));
        attack();
        0
    });
    let end = wait(pid);
    let (r, w) = pipe();
    in_child(|| write(w, b"fine"));
    assert_eq!(read(r, 10), b"fine");
    assert_eq!(ok!(libc::getppid()), ok!(libc::syscall(libc::SYS_getppid)) as i32);
    end
}

fn old_entry() {
    // With the entry it is a call, without it a fault; either way the attacker goes on or dies of SIGSEGV.
    // exit(3) by the i386 table, getpid before it.
    survive(|| {
        // SAFETY: enters the kernel by its old door; registers are as that door wants them.
        unsafe {
            asm!("int 0x80", inlateout("eax") 20 => _, options(nostack));
        }
    });
}

fn x32_entry() {
    survive(|| {
        let _ = sys!(libc::syscall(0x4000_0000 | libc::SYS_getpid));
    });
}

fn vsyscall_page() {
    survive(|| {
        // SAFETY: where vsyscalls are emulated this is time(NULL); elsewhere it faults.
        let time: extern "C" fn(usize) -> i64 = unsafe { std::mem::transmute(0xffff_ffff_ff60_0400usize) };
        time(0);
    });
}

fn block_all() {
    let all = u64::MAX;
    ok!(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, 8));
}

fn sigsys_blocked() {
    let end = survive(|| {
        block_all();
        for _ in 0..1000 {
            ok!(libc::syscall(libc::SYS_getppid));
            ok!(libc::syscall(libc::SYS_getpgid, 0));
        }
        let pid = fork(|| 3);
        assert_eq!(wait(pid), End::Exited(3));
        std::thread::spawn(|| ok!(libc::syscall(libc::SYS_getpgid, 0))).join().expect("joined");
    });
    assert_eq!(end, End::Exited(0));
}

extern "C" fn exit_five(_: i32) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(5) };
}

fn sigsys_handler() {
    let end = survive(|| {
        ok!(libc::signal(libc::SIGSYS, exit_five as extern "C" fn(i32) as usize) as isize);
        for _ in 0..100 {
            ok!(libc::syscall(libc::SYS_getpgid, 0));
        }
        ok!(libc::raise(libc::SIGSYS));
    });
    assert_eq!(end, End::Exited(5));
    assert_eq!(
        survive(|| {
            ok!(libc::raise(libc::SIGSYS));
        }),
        End::Killed(libc::SIGSYS)
    );
}

fn alternate_stack_wrecked() {
    let end = survive(|| {
        let stack = libc::stack_t { ss_sp: 0x1000 as *mut _, ss_flags: 0, ss_size: 65536 };
        ok!(libc::sigaltstack(&stack, std::ptr::null_mut()));
        for _ in 0..100 {
            ok!(libc::syscall(libc::SYS_getpgid, 0));
        }
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = exit_five as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_ONSTACK;
        ok!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()));
        ok!(libc::raise(libc::SIGUSR1));
    });
    assert_eq!(end, End::Killed(libc::SIGSEGV));
}

/// Calls `act` on big steps of the whole address space, by raw system calls only.
fn everywhere(call: i64, second: usize, third: usize) {
    let step = 1usize << 36;
    let own = everywhere as fn(i64, usize, usize) as usize & !(step - 1);
    let stack = (&raw const step) as usize & !(step - 1);
    let mut at = 0;
    while at < 1 << 47 {
        if at != own && at != stack {
            let length = if second == 0 { step } else { second };
            // SAFETY: the attacker tears down its own address space, all but this code and stack.
            unsafe {
                asm!("syscall", inlateout("rax") call => _, in("rdi") at, in("rsi") length, in("rdx") third,
                    in("r10") 0, in("r8") 0, in("r9") 0, out("rcx") _, out("r11") _);
            }
        }
        at += step;
    }
    // SAFETY: exit_group(0), by hand: the C library may be gone.
    unsafe {
        asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") 0, options(noreturn));
    }
}

fn unmap_everything() {
    survive(|| everywhere(libc::SYS_munmap, 0, 0));
}

fn protect_everything() {
    survive(|| everywhere(libc::SYS_mprotect, 0, 0));
}

fn discard_everything() {
    survive(|| everywhere(libc::SYS_madvise, 0, libc::MADV_DONTNEED as usize));
}

fn remap_everywhere() {
    survive(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0));
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        for shift in 12..47u32 {
            for offset in [0usize, 4096, 1 << 30] {
                let at = (1usize << shift).wrapping_add(offset) & !4095;
                let _ = sys!(libc::syscall(libc::SYS_mremap, page, 4096, 4096, fixed, at));
                let force = flags | libc::MAP_FIXED_NOREPLACE;
                let _ = sys!(libc::mmap(at as *mut _, 4096, libc::PROT_NONE, force, -1, 0));
            }
        }
    });
}

fn clone_by_hand() {
    survive(|| {
        for bit in 8..32 {
            let flags = (1u64 << bit) | libc::SIGCHLD as u64;
            // A thread without a stack of its own would wreck this one.
            if flags & libc::CLONE_VM as u64 != 0 || flags & libc::CLONE_THREAD as u64 != 0 {
                continue;
            }
            let result = sys!(libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0));
            if result == Ok(0) {
                // SAFETY: the child ends at once.
                unsafe { libc::_exit(0) };
            }
        }
        fails!(libc::EINVAL, libc::syscall(libc::SYS_clone, libc::CLONE_THREAD, 0, 0, 0, 0));
        fails!(libc::EINVAL, libc::syscall(libc::SYS_clone, libc::CLONE_SIGHAND, 0, 0, 0, 0));
    });
}

fn thread_without_stack() {
    survive(|| {
        let flags =
            libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FILES | libc::CLONE_FS;
        let _ = sys!(libc::syscall(libc::SYS_clone, flags, 0x1000, 0, 0, 0x2000));
        sleep_ms(20);
    });
}

fn segment_base_changed() {
    let end = survive(|| {
        let page = vec![0x41u8; 8192];
        // ARCH_SET_GS is 0x1001, ARCH_GET_GS 0x1004.
        for value in [page.as_ptr() as u64, 0, 8] {
            ok!(libc::syscall(libc::SYS_arch_prctl, 0x1001, value));
            for _ in 0..100 {
                ok!(libc::syscall(libc::SYS_getpgid, 0));
            }
            let mut got = 1u64;
            ok!(libc::syscall(libc::SYS_arch_prctl, 0x1004, &raw mut got));
            assert_eq!(got, value);
        }
        fails!(libc::EPERM, libc::syscall(libc::SYS_arch_prctl, 0x1001, u64::MAX));
    });
    assert_eq!(end, End::Exited(0));
}

fn gs_base() -> u64 {
    let base;
    // SAFETY: reads a register.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack)) };
    base
}

fn segment_base_by_instruction() {
    const HWCAP2_FSGSBASE: u64 = 2;
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
        return;
    }
    let end = survive(|| {
        let words: Vec<u64> = (0..1024).collect();
        let calls = || {
            let parent = ok!(libc::getppid());
            for _ in 0..100 {
                assert_eq!(ok!(libc::getppid()), parent);
                ok!(libc::getpgid(0));
                ok!(libc::getuid());
            }
        };
        calls();
        let base = words.as_ptr() as u64;
        // SAFETY: nothing of ours goes by gs.
        unsafe { asm!("wrgsbase {}", in(reg) base, options(nomem, nostack)) };
        calls();
        let word: u64;
        // SAFETY: within the words above.
        unsafe { asm!("mov {}, gs:[80]", out(reg) word, options(readonly, nostack)) };
        assert_eq!((gs_base(), word), (base, 10));
        // Threads and processes inherit it.
        std::thread::spawn(move || {
            calls();
            assert_eq!(gs_base(), base);
        })
        .join()
        .expect("joined");
        in_child(|| {
            calls();
            assert_eq!(gs_base(), base);
        });
        extern "C" fn handler(_: i32) {
            // SAFETY: a call that may be made in handlers.
            unsafe { libc::getppid() };
        }
        ok!(libc::signal(libc::SIGUSR1, handler as extern "C" fn(i32) as usize) as isize);
        ok!(libc::raise(libc::SIGUSR1));
        assert_eq!(words, (0..1024).collect::<Vec<u64>>());
        assert_eq!(gs_base(), base);
    });
    assert_eq!(end, End::Exited(0));
}

fn wild_segment_writes() {
    survive(|| {
        for offset in (0..65536u64).step_by(8) {
            // SAFETY: writes where gs points: nowhere on Linux, into the attacker's own memory elsewhere.
            unsafe { asm!("mov gs:[{}], {}", in(reg) offset, in(reg) 0x4141_4141_4141_4141u64) };
        }
        for _ in 0..100 {
            let _ = sys!(libc::syscall(libc::SYS_getpgid, 0));
        }
    });
}

fn unknown_numbers() {
    for number in (1000..1200).chain([600, 0x3fff_ffff]) {
        let wild = [usize::MAX, 1, 0x7fff_ffff_ffff, 0];
        fails!(libc::ENOSYS, libc::syscall(number, wild[0], wild[1], wild[2], wild[3], wild[0], wild[2]));
    }
}

fn negative_number() {
    fails!(libc::ENOSYS, libc::syscall(-1, 0));
    fails!(libc::ENOSYS, libc::syscall(i64::from(u32::MAX), 0));
}

extern "C" fn nothing(_: i32) {}

fn signal_storm() {
    let end = survive(|| {
        ok!(libc::signal(libc::SIGALRM, nothing as extern "C" fn(i32) as usize) as isize);
        let often = libc::timeval { tv_sec: 0, tv_usec: 50 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        ok!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
        let (r, w) = pipe();
        for _ in 0..3000 {
            write(w, b"x");
            assert_eq!(read(r, 1), b"x");
        }
        ok!(libc::setitimer(libc::ITIMER_REAL, &zeroed(), std::ptr::null_mut()));
    });
    assert_eq!(end, End::Exited(0));
}

fn kill_storm() {
    for round in 0..40 {
        let pid = fork(|| {
            loop {
                let child = fork(|| 0);
                wait(child);
                drop(std::thread::spawn(|| ok!(libc::syscall(libc::SYS_getpgid, 0))));
            }
        });
        sleep_ms(round % 7);
        ok!(libc::kill(pid, libc::SIGKILL));
        assert_eq!(wait(pid), End::Killed(libc::SIGKILL));
    }
}

fn every_descriptor_closed() {
    let end = survive(|| {
        ok!(libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0));
        assert_eq!(ok!(libc::open(c"/".as_ptr(), libc::O_RDONLY)), 0);
        let pid = fork(|| 2);
        assert_eq!(wait(pid), End::Exited(2));
    });
    assert_eq!(end, End::Exited(0));
}

const WILD: [usize; 6] = [1, 0x1000, 0x7fff_ffff_e000, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, usize::MAX];

fn wild_pointers() {
    let (r, w) = pipe();
    write(w, b"data");
    for at in WILD {
        fails!(libc::EFAULT, libc::syscall(libc::SYS_read, r, at, 4));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_write, w, at, 4));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_stat, at, at));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_open, at, 0));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_pipe, at));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_uname, at));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_rt_sigaction, libc::SIGUSR1, at, 0, 8));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_nanosleep, at, 0));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_getcwd, at, 4096));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_poll, at, 5, 0));
    }
    assert_eq!(read(r, 10), b"data");
}

fn wild_vectors() {
    let (r, w) = pipe();
    for at in WILD {
        fails!(libc::EFAULT, libc::syscall(libc::SYS_writev, w, at, 3));
        fails!(libc::EFAULT, libc::syscall(libc::SYS_readv, r, at, 1024));
        let pieces = [libc::iovec { iov_base: at as *mut _, iov_len: 1 << 20 }; 8];
        let result = sys!(libc::syscall(libc::SYS_writev, w, pieces.as_ptr(), 8));
        assert_eq!(result, Err(libc::EFAULT));
    }
    let one = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: usize::MAX };
    fails!(libc::EINVAL, libc::syscall(libc::SYS_writev, w, &raw const one, 1));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_writev, w, &raw const one, 1025));
    fails!(libc::EINVAL, libc::syscall(libc::SYS_writev, w, &raw const one, -1));
}

fn stack_pointer_wild() {
    for at in WILD {
        survive(|| {
            // SAFETY: the attacker gives up its stack, makes a call and leaves.
            unsafe {
                asm!("mov rsp, {at}", "mov eax, 121", "xor edi, edi", "syscall", "mov eax, 231", "mov edi, 4", "syscall",
                    at = in(reg) at, options(noreturn));
            }
        });
    }
}

fn jump_into_nothing() {
    for at in WILD {
        let end = survive(|| {
            // SAFETY: the attacker ends here.
            unsafe { asm!("jmp {}", in(reg) at, options(noreturn)) };
        });
        assert_eq!(end, End::Killed(libc::SIGSEGV), "{at:#x}");
    }
}

fn all_signals_blocked_and_killed() {
    let pid = fork(|| {
        block_all();
        loop {
            std::hint::spin_loop();
        }
    });
    sleep_ms(20);
    ok!(libc::kill(pid, libc::SIGTERM));
    ok!(libc::kill(pid, libc::SIGKILL));
    assert_eq!(wait(pid), End::Killed(libc::SIGKILL));
    // A fault that is blocked kills.
    let end = survive(|| {
        block_all();
        // SAFETY: a write to nowhere, on purpose.
        unsafe { (8 as *mut u8).write_volatile(1) };
    });
    assert_eq!(end, End::Killed(libc::SIGSEGV));
}

fn forked_orphans() {
    let end = survive(|| {
        for _ in 0..20 {
            fork(|| {
                fork(|| {
                    sleep_ms(30);
                    0
                });
                0
            });
        }
    });
    assert_eq!(end, End::Exited(0));
}
