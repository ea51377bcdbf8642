use super::*;

/// What the host would say of a call.
fn run(filter: &[Instruction], number: u32, ip: u64, args: [u64; 6]) -> u32 {
    run_as(filter, AUDIT_ARCH_X86_64, number, ip, args)
}

fn run_as(filter: &[Instruction], arch: u32, number: u32, ip: u64, args: [u64; 6]) -> u32 {
    crate::bpf::run(filter, &crate::bpf::Call { arch, number, ip, args })
}

const TEXT: u64 = 0x7e00_0000_1000;
const GUEST: u64 = 0x40_1000;

fn settings(seen: &[u32]) -> Settings {
    Settings { text_start: TEXT, text_end: TEXT + 0x2000, checked_memory: false, seen: seen.to_vec() }
}

fn filter() -> Vec<Instruction> {
    build(&settings(&[]))
}

#[test]
fn memory_calls_keep_off_the_shim() {
    let f = filter();
    let munmap = |addr: u64, len: u64| run(&f, nr::munmap, GUEST, [addr, len, 0, 0, 0, 0]);
    assert_eq!(munmap(0x7f00_0000_0000, 4096), ALLOW);
    assert_eq!(munmap(0x1_0000_0000, 1 << 40), ALLOW);
    assert_eq!(munmap(0x40_0000, 4096), ALLOW);
    assert_eq!(munmap(0x7e00_0000_0000, 4096), TRAP);
    assert_eq!(munmap(0x7e02_1000_0000, 4096), TRAP);
    assert_eq!(munmap(0x7dff_ffff_f000, 8192), TRAP);
    assert_eq!(munmap(0x1_0000_0000, 0x7e00_0000_0000), TRAP);
    assert_eq!(munmap(0, 0x8000_0000_0000), TRAP);
    assert_eq!(munmap(0x6_0000, 4096), TRAP);
    assert_eq!(munmap(0x5_0000, 0x2_0000), TRAP);
    assert_eq!(munmap(!0xfff, 4096), TRAP);
    assert_eq!(munmap(0x7e03_0000_0000, 4096), ALLOW);
    // Whatever lies below what is reserved can be unmapped.
    let reserved = u64::from(slot::layout::RESERVED_HI) << 32;
    for len in [4096, 1 << 32, (1 << 32) + 4096, 1 << 40, (1 << 40) + 0x1234_5000, 0x7000_0000_0000] {
        assert_eq!(munmap(reserved - len, len), ALLOW, "{len:#x}");
    }
}

#[test]
fn mappings_of_files_trap_and_fixed_ones_are_checked() {
    let f = filter();
    let mmap =
        |ip, addr: u64, len: u64, flags: u64| run(&f, nr::mmap, ip, [addr, len, 3, flags, u64::MAX, 0]);
    assert_eq!(mmap(GUEST, 0, 4096, 0x22), ALLOW);
    assert_eq!(mmap(GUEST, 0, 1 << 45, 0x4022), ALLOW);
    assert_eq!(mmap(GUEST, 0, 4096, 0x02), TRAP);
    assert_eq!(mmap(TEXT + 2, 0, 4096, 0x02), NOTIFY);
    assert_eq!(mmap(GUEST, 0x7e01_0000_0000, 4096, 0x32), TRAP);
    assert_eq!(mmap(TEXT + 2, 0x7e01_0000_0000, 4096, 0x32), TRAP);
    assert_eq!(mmap(GUEST, 0x5000_0000, 4096, 0x10_0022), ALLOW);
    assert_eq!(mmap(GUEST, 0, 4096, 0x100_0000_0000 | 0x22), ALLOW);
}

#[test]
fn the_shim_maps_kept_files_as_the_guest_maps_memory() {
    let f = filter();
    let mmap = |f: &[Instruction], ip, addr: u64, flags: u64, fd: u64| {
        run(f, nr::mmap, ip, [addr, 4096, 5, flags, fd, 0x1000])
    };
    let (shim, gadget) = (TEXT + 20, TEXT + 2);
    let showing = showing(&settings(&[]));
    let all = build(&settings(&NATIVE_CALLS));
    let checked = build(&Settings { checked_memory: true, ..settings(&[]) });
    for fd in [8, 9, 39] {
        for (addr, flags) in [(0, 2), (0x5000_0000, 0x12), (0x7e00_0000_0000, 2), (0, 0x8001)] {
            assert_eq!(mmap(&f, shim, addr, flags, fd), ALLOW);
            assert_eq!(mmap(&f, GUEST, addr, flags, fd), TRAP);
            assert_eq!(mmap(&f, gadget, addr, flags, fd), NOTIFY);
            assert_eq!([mmap(&showing, shim, addr, flags, fd), mmap(&all, shim, addr, flags, fd)], [TRAP; 2]);
            assert_eq!(mmap(&checked, shim, addr, flags, fd), NOTIFY);
        }
        // Over the shim and the jump table, below the guest's lowest address, and what may not be mapped.
        for (addr, flags) in
            [(0x7e00_0000_0000, 0x12), (0x6_0000, 0x12), (0x1000, 2), (0, 0x8_0003), (0, 0x8000_0002)]
        {
            assert_eq!(mmap(&f, shim, addr, flags, fd), TRAP, "{addr:#x} {flags:#x}");
        }
        assert_eq!(mmap(&f, shim, 0, 2, fd | 1 << 32), NOTIFY);
    }
    for fd in [0, 3, 4, 7, 40, 41, 40 + 4095, 0xffff_ffff, u64::MAX] {
        assert_eq!([mmap(&f, shim, 0, 2, fd), mmap(&showing, shim, 0, 2, fd)], [NOTIFY, ALLOW], "{fd}");
    }
}

#[test]
fn the_shim_reads_kept_files_alone() {
    let f = filter();
    let pread = |f: &[Instruction], ip, fd: u64| run(f, nr::pread64, ip, [fd, 0x5000_0000, 4096, 0, 0, 0]);
    let (shim, gadget) = (TEXT + 20, TEXT + 2);
    let showing = showing(&settings(&[]));
    let seen = build(&settings(&[nr::pread64]));
    let checked = build(&Settings { checked_memory: true, ..settings(&[]) });
    for fd in [8, 9, 39] {
        assert_eq!([pread(&f, shim, fd), pread(&f, gadget, fd), pread(&f, GUEST, fd)], [ALLOW, ALLOW, TRAP]);
        for other in [&showing, &seen, &checked] {
            assert_eq!([pread(other, shim, fd), pread(other, gadget, fd)], [TRAP; 2]);
        }
    }
    for fd in [0, 3, 4, 7, 40, 41, 40 + 4095, 8 | 1 << 32, 0xffff_ffff, u64::MAX] {
        assert_eq!(pread(&f, shim, fd), TRAP, "{fd}");
    }
}

#[test]
fn remapping_checks_both_ends() {
    let f = filter();
    let mremap = |a: [u64; 5]| run(&f, nr::mremap, GUEST, [a[0], a[1], a[2], a[3], a[4], 0]);
    assert_eq!(mremap([0x5000_0000, 4096, 8192, 1, 0]), ALLOW);
    assert_eq!(mremap([0x5000_0000, 4096, 8192, 3, 0x7e00_0000_0000]), TRAP);
    assert_eq!(mremap([0x7e00_0000_0000, 4096, 4096, 3, 0x5000_0000]), TRAP);
    assert_eq!(mremap([0x5000_0000, 4096, 8192, 3, 0x6000_0000]), ALLOW);
}

#[test]
fn only_the_shim_may_use_its_calls() {
    let f = filter();
    for number in [nr::rt_sigreturn, nr::exit, nr::sigaltstack, nr::set_tid_address] {
        assert_eq!(run(&f, number, GUEST, [0; 6]), TRAP, "{number}");
        assert_eq!(run(&f, number, TEXT + 2, [0; 6]), ALLOW, "{number}");
    }
    let close = |ip, fd| run(&f, nr::close, ip, [fd, 0, 0, 0, 0, 0]);
    for fd in [8, 39, 40, 40 + 4095] {
        assert_eq!([close(GUEST, fd), close(TEXT + 2, fd)], [TRAP, ALLOW]);
    }
    for fd in [0, 3, 4, 7, 40 + 4096, 0xffff_ffff, 0xffff_ffff_0000_0003] {
        assert_eq!([close(GUEST, fd), close(TEXT + 2, fd)], [TRAP, NOTIFY]);
    }
    let prctl = |ip, option, second| run(&f, nr::prctl, ip, [option, second, 0, 0, 0, 0]);
    assert_eq!([prctl(TEXT + 2, 15, 0), prctl(TEXT + 2, 35, 14)], [ALLOW; 2]);
    for (ip, option, second) in [(GUEST, 15, 0), (GUEST, 35, 14), (TEXT + 2, 35, 13), (TEXT + 2, 4, 1)] {
        assert_eq!(prctl(ip, option, second), TRAP);
    }
    assert_eq!(run(&f, nr::clone, GUEST, [0; 6]), TRAP);
    assert_eq!(run(&f, nr::clone, TEXT + 2, [0; 6]), NOTIFY);
    assert_eq!(run(&f, nr::clone3, TEXT + 2, [0; 6]), TRAP);
    assert_eq!(run(&f, nr::openat, TEXT + 2, [0; 6]), TRAP);
}

#[test]
fn futexes_are_native_but_for_pi() {
    let f = filter();
    for op in [0u64, 128, 1, 129, 9 | 128 | 256, 10, 3, 4, 5] {
        assert_eq!(run(&f, nr::futex, GUEST, [0, op, 0, 0, 0, 0]), ALLOW);
    }
    for op in [2u64, 6, 7, 8, 11, 12, 13, 6 | 128, 14] {
        assert_eq!(run(&f, nr::futex, GUEST, [0, op, 0, 0, 0, 0]), TRAP);
    }
}

#[test]
fn other_tables_of_calls_trap() {
    let f = filter();
    for number in [nr::getpid | X32_BIT, nr::munmap | X32_BIT, u32::MAX, X32_BIT] {
        assert_eq!(run(&f, number, GUEST, [0; 6]), TRAP, "{number:#x}");
        assert_eq!(run(&f, number, TEXT + 2, [0; 6]), TRAP, "{number:#x}");
    }
    for number in 0..500 {
        for ip in [GUEST, TEXT + 2] {
            assert_eq!(run_as(&f, 0x4000_0003, number, ip, [0; 6]), TRAP, "{number:#x}");
        }
    }
}

/// Calls of every number with arguments of many kinds.
fn calls() -> impl Iterator<Item = (u32, [u64; 6])> {
    let at = [0, 0x5000_0000, 0x7e00_0000_1000, 0x6_0000, u64::MAX];
    let small = [0, 1, 2, 4096, 1 << 47];
    let flags = [0, 1, 2, 6, 10, 11, 0x22, 0x32, 0x100, 0x10_0022, 0x1002, 0x1003];
    let args =
        move |a| small.into_iter().flat_map(move |b| flags.into_iter().map(move |f| [a, b, f, f, a, 0]));
    (0..500).flat_map(move |number| at.into_iter().flat_map(args).map(move |args| (number, args)))
}

#[test]
fn announced_calls_are_checked_as_others_are() {
    let (f, gadget) = (filter(), TEXT + 2);
    for (number, args) in calls().filter(|(number, _)| NATIVE_CALLS.contains(number)) {
        let (elsewhere, there) = (run(&f, number, GUEST, args), run(&f, number, gadget, args));
        let of_shim = run(&f, number, gadget + 9, args);
        match (elsewhere, there) {
            (ALLOW, NOTIFY) | (TRAP, TRAP) => {}
            (ALLOW, ALLOW) => assert!(OF_SHIM_TOO.contains(&number)),
            // What the shim alone may do is announced one by one.
            (TRAP, NOTIFY) => assert_eq!(of_shim, NOTIFY),
            other => panic!("{number} {args:x?}: {other:x?}"),
        }
    }
}

#[test]
fn a_process_that_shows_its_calls_makes_none_by_itself() {
    let (f, showing) = (filter(), showing(&settings(&[])));
    let all = build(&settings(&NATIVE_CALLS));
    for (number, args) in calls() {
        let second = run(&showing, number, GUEST, args);
        let both = if second == TRAP { TRAP } else { run(&f, number, GUEST, args) };
        assert_eq!([both, run(&all, number, GUEST, args)], [TRAP; 2], "{number} {args:x?}");
        // At the gadget nothing changes, and the shim itself can do no more than before.
        let gadget = run(&f, number, TEXT + 2, args);
        let there = if KEPT_CALLS.contains(&number) { TRAP } else { ALLOW };
        assert_eq!(run(&showing, number, TEXT + 2, args), there, "{number} {args:x?}");
        let of_shim = number == nr::futex && args[1] as u32 <= 1;
        assert!(of_shim || run(&all, number, TEXT + 2, args) == gadget, "{number} {args:x?}");
        let shim = run(&f, number, TEXT + 20, args);
        assert!([shim, TRAP].contains(&run(&all, number, TEXT + 20, args)), "{number} {args:x?}");
    }
}

#[test]
fn the_shim_knows_the_same_native_calls() {
    for number in 0..1000u32 {
        assert_eq!(slot::may_run_natively(number.into()), NATIVE_CALLS.contains(&number), "{number}");
    }
}

#[test]
fn one_call_alone_can_be_shown() {
    let f = build(&settings(&[nr::mprotect]));
    let at = |number| run(&f, number, GUEST, [0x5000_0000, 4096, 1, 0, 0, 0]);
    assert_eq!([at(nr::mprotect), at(nr::munmap), at(nr::futex)], [TRAP, ALLOW, TRAP]);
    assert_eq!(run(&f, nr::futex, GUEST, [0, 1, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn filters_are_installed_by_the_shim_alone() {
    let f = filter();
    let seccomp = |ip| run(&f, nr::seccomp, ip, [1, 1, 0x7e00_1000_0100, 0, 0, 0]);
    assert_eq!([seccomp(GUEST), seccomp(TEXT + 20)], [TRAP, NOTIFY]);
}

#[test]
fn every_jump_stays_inside() {
    for f in [filter(), build(&settings(&NATIVE_CALLS)), showing(&settings(&[]))] {
        assert!(f.len() < 4096);
        for (at, i) in f.iter().enumerate() {
            if matches!(i.code, JEQ | JGT | JGE | JSET) {
                // A block too long to be jumped over would show here.
                assert!(i.jt.max(i.jf) < u8::MAX);
                assert!(at + 1 + usize::from(i.jt.max(i.jf)) < f.len());
            }
        }
        for number in 0..500 {
            for ip in [GUEST, TEXT] {
                run(&f, number, ip, [0; 6]);
            }
        }
    }
}
