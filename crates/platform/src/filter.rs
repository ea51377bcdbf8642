//! The seccomp filter of guest processes: what runs natively, what is announced, what is trapped.
//!
//! Every memory call has a row here. *Native* calls reach only the guest's own memory and are checked
//! by their registers; *announced* ones go to the kernel process; all others trap into the shim.
//!
//! Somebody may want to see native calls, too: a tracer, a filter of the guest's own or of the container. They trap
//! then, and the shim makes them by its first instruction, the gadget. Calls made there go to the kernel process,
//! which lets them run as it has announced them. For a whole sandbox the filter is built that way; for one process
//! a second filter does it, on top of the first. Of two filters the stricter counts: it takes nothing back.

use linux_abi::sysno::nr;
use slot::layout::{FILE_FD, KEPT_FD, KEPT_FDS, MAX_THREADS, NR_DOORBELL, NR_FETCH, NR_PARK, PROTECTED_LOW};

use crate::bpf::{
    ALLOW, AND, AUDIT_ARCH_X86_64, Block, Instruction, JEQ, JGE, JGT, JSET, LOAD, NOTIFY, OFFSET_ARCH,
    OFFSET_IP, OFFSET_NR, RETURN, TRAP, X32_BIT, high, low,
};

/// Calls that the filter may let guest code make by itself, by their arguments.
pub const NATIVE_CALLS: [u32; 25] = [
    nr::futex,
    nr::mmap,
    nr::munmap,
    nr::mprotect,
    nr::pkey_mprotect,
    nr::mseal,
    nr::mincore,
    nr::msync,
    nr::madvise,
    nr::mremap,
    nr::mlock,
    nr::munlock,
    nr::mlock2,
    nr::arch_prctl,
    nr::sched_yield,
    nr::restart_syscall,
    nr::rseq,
    nr::membarrier,
    nr::pkey_alloc,
    nr::pkey_free,
    nr::munlockall,
    nr::futex_waitv,
    nr::futex_wake,
    nr::futex_wait,
    nr::futex_requeue,
];
/// Those of them that the shim makes anywhere: they give a guest nothing, and none waits for anybody's word.
const OF_SHIM_TOO: [u32; 2] = [nr::sched_yield, nr::restart_syscall];

/// What the filter needs to know of the image.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// First address of the shim's text; high half and start below 4 GiB of it.
    pub text_start: u64,
    /// First address after it.
    pub text_end: u64,
    /// Memory calls go through notification instead of running natively (`--memory=checked`).
    pub checked_memory: bool,
    /// Which of the native calls are announced in all processes.
    pub seen: Vec<u32>,
}

impl Settings {
    /// What a call at the gadget shows as its address.
    pub(crate) fn gadget(&self) -> u64 {
        self.text_start + 2
    }
    /// The end of a block of a native call whose arguments are right.
    fn native(&self, b: &mut Block, number: u32, verdict: u32) {
        let elsewhere = if self.seen.contains(&number) { TRAP } else { verdict };
        at_gadget(b, self, NOTIFY).op(RETURN, elsewhere);
    }
}

/// Values of `MAP_*` that the guest may use natively on anonymous memory, and on files that are kept in its stub.
pub(crate) const MAP_NATIVE: u32 = slot::layout::MAP_KEPT as u32;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_FIXED_ANY: u32 = slot::layout::MAP_FIXED_ANY as u32;
const MREMAP_FIXED: u32 = 2;
const MADV_DONTFORK: u32 = 10;

/// Builds the filter.
pub(crate) fn build(settings: &Settings) -> Vec<Instruction> {
    let native = if settings.checked_memory { NOTIFY } else { ALLOW };
    let mut out = Block(Vec::new());
    // `int 0x80` and the like: the shim makes it the fault that it is on a kernel without that entry.
    out.op(LOAD, OFFSET_ARCH).ret_unless(JEQ, AUDIT_ARCH_X86_64, TRAP);
    // x32 numbers, and negative ones.
    out.op(LOAD, OFFSET_NR).ret_if(JGE, X32_BIT, TRAP);

    for bell in [NR_DOORBELL, NR_PARK] {
        out.ret_if(JEQ, bell, NOTIFY);
    }
    call(&mut out, NR_FETCH, |b| {
        from_shim(b, settings, |b| {
            b.op(RETURN, NOTIFY);
        });
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::futex, |b| {
        if settings.seen.contains(&nr::futex) {
            wakes_of_shim(b, settings);
        }
        // Operation without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME: WAIT WAKE REQUEUE CMP_REQUEUE WAKE_OP
        // WAIT_BITSET WAKE_BITSET run natively; PI operations name thread ids, which are not the host's: the
        // kernel process answers them.
        b.op(LOAD, low(1)).op(AND, !(128 | 256));
        trap_others(b, &[0, 1, 3, 4, 5, 9, 10]);
        settings.native(b, nr::futex, ALLOW);
    });
    call(&mut out, nr::mmap, |b| {
        from_shim(b, settings, |b| {
            // The shim's anonymous mappings are checked like the guest's, and so are those of files that are kept.
            // Other files are announced.
            let mut file = Block(Vec::new());
            kept(&mut file, NOTIFY);
            mapping(&mut file, settings, native);
            b.op(LOAD, low(3)).skip_if(JSET, MAP_ANONYMOUS, &file);
        });
        b.op(LOAD, low(3)).ret_unless(JSET, MAP_ANONYMOUS, TRAP);
        mapping(b, settings, native);
    });
    for number in [nr::munmap, nr::mprotect, nr::pkey_mprotect, nr::mseal, nr::mincore, nr::msync] {
        call(&mut out, number, |b| {
            b.check_range(0, 1);
            settings.native(b, number, native);
        });
    }
    call(&mut out, nr::madvise, |b| {
        from_shim(b, settings, |b| {
            // MADV_DONTFORK on freshly mapped slots; until then there is no fork.
            b.op(LOAD, low(2)).ret_if(JEQ, MADV_DONTFORK, NOTIFY);
        });
        // MADV_HWPOISON, MADV_SOFT_OFFLINE and what comes later are not the guest's.
        b.op(LOAD, low(2)).ret_if(JGE, 26, TRAP);
        b.check_range(0, 1);
        settings.native(b, nr::madvise, native);
    });
    call(&mut out, nr::mremap, |b| {
        b.check_range(0, 1);
        b.check_range(0, 2);
        let mut target = Block(Vec::new());
        target.check_range(4, 2);
        b.op(LOAD, low(3)).skip_unless(JSET, MREMAP_FIXED, &target);
        settings.native(b, nr::mremap, native);
    });
    for number in [nr::mlock, nr::munlock, nr::mlock2] {
        call(&mut out, number, |b| {
            b.check_range(0, 1);
            settings.native(b, number, native);
        });
    }
    call(&mut out, nr::arch_prctl, |b| {
        // ARCH_SET_FS, ARCH_GET_FS.
        b.op(LOAD, low(0));
        trap_others(b, &[0x1002, 0x1003]);
        settings.native(b, nr::arch_prctl, ALLOW);
    });
    for number in OF_SHIM_TOO {
        if settings.seen.contains(&number) {
            of_shim(&mut out, settings, number);
        } else {
            out.ret_if(JEQ, number, ALLOW);
        }
    }
    let native_calls = [
        nr::rseq,
        nr::membarrier,
        nr::pkey_alloc,
        nr::pkey_free,
        nr::munlockall,
        nr::futex_waitv,
        nr::futex_wake,
        nr::futex_wait,
        nr::futex_requeue,
    ];
    for number in native_calls {
        call(&mut out, number, |b| settings.native(b, number, ALLOW));
    }
    // The rest is for the shim's own instructions only.
    call(&mut out, nr::clone, |b| {
        from_shim(b, settings, |b| {
            b.op(RETURN, NOTIFY);
        });
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::prctl, |b| {
        from_shim(b, settings, |b| {
            // PR_SET_NAME; PR_SET_MM with PR_SET_MM_MAP. What the host shows of a process is the guest's to choose.
            b.op(LOAD, low(0)).ret_if(JEQ, 15, ALLOW).ret_unless(JEQ, 35, TRAP);
            b.op(LOAD, low(1)).ret_if(JEQ, 14, ALLOW).op(RETURN, TRAP);
        });
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::close, |b| {
        from_shim(b, settings, |b| {
            // Descriptors of mapped files, which this process alone has. Of the others the zygote closes one.
            let (first, last) = (KEPT_FD as u32, FILE_FD as u32 + MAX_THREADS as u32 - 1);
            b.op(LOAD, low(0)).ret_unless(JGE, first, NOTIFY).ret_if(JGT, last, NOTIFY);
            b.op(RETURN, ALLOW);
        });
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::seccomp, |b| {
        from_shim(b, settings, |b| {
            b.op(RETURN, NOTIFY);
        });
        b.op(RETURN, TRAP);
    });
    let of_shim_alone = [
        nr::rt_sigreturn,
        nr::exit,
        nr::exit_group,
        nr::sigaltstack,
        nr::rt_sigprocmask,
        nr::set_tid_address,
        nr::set_robust_list,
    ];
    for number in of_shim_alone {
        of_shim(&mut out, settings, number);
    }
    out.op(RETURN, TRAP);
    out.0
}

/// Builds the second filter, of a process that shows its native calls: they trap, but at the gadget. What the first
/// filter says of everything else, and of calls at the gadget, counts.
pub(crate) fn showing(settings: &Settings) -> Vec<Instruction> {
    let mut out = Block(Vec::new());
    out.op(LOAD, OFFSET_ARCH).ret_unless(JEQ, AUDIT_ARCH_X86_64, ALLOW);
    out.op(LOAD, OFFSET_NR).ret_if(JGE, X32_BIT, ALLOW);
    for number in NATIVE_CALLS {
        if OF_SHIM_TOO.contains(&number) {
            of_shim(&mut out, settings, number);
            continue;
        }
        call(&mut out, number, |b| {
            match number {
                nr::futex => wakes_of_shim(b, settings),
                nr::mmap => {
                    let mut file = Block(Vec::new());
                    kept(&mut file, ALLOW);
                    b.op(LOAD, low(3)).skip_if(JSET, MAP_ANONYMOUS, &file);
                }
                nr::madvise => from_shim(b, settings, |b| {
                    b.op(LOAD, low(2)).ret_if(JEQ, MADV_DONTFORK, ALLOW);
                }),
                _ => {}
            }
            at_gadget(b, settings, ALLOW).op(RETURN, TRAP);
        });
    }
    out.op(RETURN, ALLOW);
    out.0
}

/// Goes on if a file is mapped that is kept in the stub, else returns a verdict.
fn kept(b: &mut Block, others: u32) {
    let first = KEPT_FD as u32;
    b.op(LOAD, high(4)).ret_unless(JEQ, 0, others);
    b.op(LOAD, low(4)).ret_unless(JGE, first, others).ret_if(JGE, first + KEPT_FDS as u32, others);
}

/// Checks the flags and the place of a mapping.
fn mapping(b: &mut Block, settings: &Settings, native: u32) {
    b.op(LOAD, low(3)).ret_if(JSET, !MAP_NATIVE, TRAP);
    // A hint never replaces what is there. One below the lowest address of the guest is raised by the
    // kernel process, as Linux raises those below mmap_min_addr: what is got must be good for MAP_FIXED.
    let mut hint = Block(vec![
        Instruction { code: LOAD, jt: 0, jf: 0, k: high(0) },
        Instruction { code: JEQ, jt: 0, jf: 4, k: 0 },
        Instruction { code: LOAD, jt: 0, jf: 0, k: low(0) },
        Instruction { code: JEQ, jt: 2, jf: 0, k: 0 },
        Instruction { code: JGE, jt: 1, jf: 0, k: PROTECTED_LOW as u32 },
        Instruction { code: RETURN, jt: 0, jf: 0, k: TRAP },
    ]);
    settings.native(&mut hint, nr::mmap, native);
    b.skip_if(JSET, MAP_FIXED_ANY, &hint);
    b.check_range(0, 1);
    settings.native(b, nr::mmap, native);
}

/// Goes on if the accumulator is one of these, else traps.
fn trap_others(b: &mut Block, wanted: &[u32]) {
    for (i, k) in wanted.iter().enumerate() {
        // Over the rest and the trap.
        let jt = u8::try_from(wanted.len() - i).unwrap_or(u8::MAX);
        b.0.push(Instruction { code: JEQ, jt, jf: 0, k: *k });
    }
    b.op(RETURN, TRAP);
}

/// Lets the shim's FUTEX_WAKE of a thread that ends pass: it wakes who must look again anyway.
fn wakes_of_shim(b: &mut Block, settings: &Settings) {
    const FUTEX_WAKE: u32 = 1;
    from_shim(b, settings, |b| {
        b.op(LOAD, low(1)).ret_if(JEQ, FUTEX_WAKE, ALLOW);
    });
}

/// Returns a verdict on calls made at the gadget; the accumulator is lost.
fn at_gadget<'a>(b: &'a mut Block, settings: &Settings, verdict: u32) -> &'a mut Block {
    let at = settings.gadget();
    b.0.extend([
        Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_IP },
        Instruction { code: JEQ, jt: 0, jf: 3, k: at as u32 },
        Instruction { code: LOAD, jt: 0, jf: 0, k: OFFSET_IP + 4 },
        Instruction { code: JEQ, jt: 0, jf: 1, k: (at >> 32) as u32 },
    ]);
    b.op(RETURN, verdict)
}

/// A call for the shim's instructions alone.
fn of_shim(out: &mut Block, settings: &Settings, number: u32) {
    call(out, number, |b| {
        from_shim(b, settings, |b| {
            b.op(RETURN, ALLOW);
        });
        b.op(RETURN, TRAP);
    });
}

/// A block for one number; the accumulator holds the number before and after.
fn call(out: &mut Block, number: u32, body: impl FnOnce(&mut Block)) {
    let mut block = Block(Vec::new());
    body(&mut block);
    let skip = crate::bpf::length(&block);
    out.0.push(Instruction { code: JEQ, jt: 0, jf: skip, k: number });
    out.0.extend(block.0);
}

/// A block for instructions of the shim's text; the accumulator is lost.
fn from_shim(out: &mut Block, settings: &Settings, body: impl FnOnce(&mut Block)) {
    let mut block = Block(Vec::new());
    body(&mut block);
    let len = crate::bpf::length(&block);
    out.op(LOAD, OFFSET_IP + 4);
    out.0.push(Instruction { code: JEQ, jt: 0, jf: len + 3, k: (settings.text_start >> 32) as u32 });
    out.op(LOAD, OFFSET_IP);
    out.0.push(Instruction { code: JGE, jt: 0, jf: len + 1, k: settings.text_start as u32 });
    // The address reported is behind the instruction, so that the last byte may be text_end itself.
    out.0.push(Instruction { code: JGT, jt: len, jf: 0, k: settings.text_end as u32 });
    out.0.extend(block.0);
}

#[cfg(test)]
mod tests {
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
                assert_eq!(
                    [mmap(&showing, shim, addr, flags, fd), mmap(&all, shim, addr, flags, fd)],
                    [TRAP; 2]
                );
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
            assert_eq!(run(&showing, number, TEXT + 2, args), ALLOW, "{number} {args:x?}");
            let wakes = number == nr::futex && args[1] == 1;
            assert!(wakes || run(&all, number, TEXT + 2, args) == gadget, "{number} {args:x?}");
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
}
