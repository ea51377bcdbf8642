//! The seccomp filter of guest processes: what runs natively, what is announced, what is trapped.
//!
//! Every memory call has a row here. *Native* calls reach only the guest's own memory and are checked
//! by their registers; *announced* ones go to the kernel process; all others trap into the shim.

use linux_abi::sysno::nr;
use slot::layout::{
    FILE_FD, MAX_THREADS, NR_DOORBELL, NR_PARK, PROTECTED_HI, PROTECTED_HI_END, PROTECTED_LOW,
};

/// One instruction of classic BPF: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRAP: u32 = 0x0003_0000;

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const AND: u16 = 0x54;
const ADD_K: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const TO_X: u16 = 0x07;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_IP: u32 = 8;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;

const fn low(arg: u32) -> u32 {
    16 + arg * 8
}
const fn high(arg: u32) -> u32 {
    20 + arg * 8
}

/// What the filter needs to know of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// First address of the shim's text; high half and start below 4 GiB of it.
    pub text_start: u64,
    /// First address after it.
    pub text_end: u64,
    /// Memory calls go through notification instead of running natively (`--memory=checked`).
    pub checked_memory: bool,
}

struct Block(Vec<Instruction>);

impl Block {
    fn op(&mut self, code: u16, k: u32) -> &mut Block {
        self.0.push(Instruction { code, jt: 0, jf: 0, k });
        self
    }
    /// Returns `verdict` if the test holds, else goes on.
    fn ret_if(&mut self, test: u16, k: u32, verdict: u32) -> &mut Block {
        self.0.push(Instruction { code: test, jt: 0, jf: 1, k });
        self.op(RETURN, verdict)
    }
    /// Returns `verdict` unless the test holds.
    fn ret_unless(&mut self, test: u16, k: u32, verdict: u32) -> &mut Block {
        self.0.push(Instruction { code: test, jt: 1, jf: 0, k });
        self.op(RETURN, verdict)
    }
    /// Traps unless the bytes from argument `addr`, as many as argument `len`, avoid the protected ranges.
    fn check_range(&mut self, addr: u32, len: u32) -> &mut Block {
        // A length of 2^47 or more is no range of user space.
        self.op(LOAD, high(len)).ret_if(JGE, 0x8000, TRAP);
        self.op(TO_X, 0).op(LOAD, high(addr)).ret_if(JGE, 0x8000, TRAP);
        let low_check = [
            // High half 0: not below the end of the jump table.
            Instruction { code: JEQ, jt: 0, jf: 3, k: 0 },
            Instruction { code: LOAD, jt: 0, jf: 0, k: low(addr) },
            Instruction { code: JGE, jt: 1, jf: 0, k: PROTECTED_LOW as u32 },
            Instruction { code: RETURN, jt: 0, jf: 0, k: TRAP },
        ];
        self.0.extend(low_check);
        // At or above the end of the protected range all is well; else the end must be below its start:
        // high(addr) + high(len) + 1 is above the high half of the end.
        let above = Instruction { code: JGE, jt: 4, jf: 0, k: PROTECTED_HI_END };
        self.op(LOAD, high(addr));
        self.0.push(above);
        self.op(ADD_X, 0).op(ADD_K, 1).ret_if(JGT, PROTECTED_HI, TRAP);
        self
    }
}

/// Values of `MAP_*` that the guest may use natively on anonymous memory.
const MAP_NATIVE: u32 =
    0x1 | 0x2 | 0x10 | 0x20 | 0x100 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_FIXED_ANY: u32 = 0x10 | 0x10_0000;
const MREMAP_FIXED: u32 = 2;

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
    call(&mut out, nr::futex, |b| {
        // Operation without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME: WAIT WAKE REQUEUE CMP_REQUEUE WAKE_OP
        // WAIT_BITSET WAKE_BITSET run natively; PI operations name thread ids, which are not the host's: the
        // kernel process answers them.
        b.op(LOAD, low(1)).op(AND, !(128 | 256));
        for operation in [0, 1, 3, 4, 5, 9, 10] {
            b.ret_if(JEQ, operation, ALLOW);
        }
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::mmap, |b| {
        from_shim(b, settings, |b| {
            // The shim's anonymous mappings are checked like the guest's; files are announced.
            b.op(LOAD, low(3)).ret_unless(JSET, MAP_ANONYMOUS, NOTIFY);
        });
        b.op(LOAD, low(3)).ret_unless(JSET, MAP_ANONYMOUS, TRAP);
        b.ret_if(JSET, !MAP_NATIVE, TRAP);
        // A hint never replaces what is there. One below the lowest address of the guest is raised by the
        // kernel process, as Linux raises those below mmap_min_addr: what is got must be good for MAP_FIXED.
        b.0.extend([
            Instruction { code: JSET, jt: 7, jf: 0, k: MAP_FIXED_ANY },
            Instruction { code: LOAD, jt: 0, jf: 0, k: high(0) },
            Instruction { code: JEQ, jt: 0, jf: 3, k: 0 },
            Instruction { code: LOAD, jt: 0, jf: 0, k: low(0) },
            Instruction { code: JEQ, jt: 1, jf: 0, k: 0 },
            Instruction { code: JGE, jt: 0, jf: 1, k: PROTECTED_LOW as u32 },
            Instruction { code: RETURN, jt: 0, jf: 0, k: native },
            Instruction { code: RETURN, jt: 0, jf: 0, k: TRAP },
        ]);
        b.check_range(0, 1).op(RETURN, native);
    });
    for number in [nr::munmap, nr::mprotect, nr::pkey_mprotect, nr::mseal, nr::mincore, nr::msync] {
        call(&mut out, number, |b| {
            b.check_range(0, 1).op(RETURN, native);
        });
    }
    call(&mut out, nr::madvise, |b| {
        from_shim(b, settings, |b| {
            // MADV_DONTFORK on freshly mapped slots; until then there is no fork.
            b.op(LOAD, low(2)).ret_if(JEQ, 10, NOTIFY);
        });
        // MADV_HWPOISON, MADV_SOFT_OFFLINE and what comes later are not the guest's.
        b.op(LOAD, low(2)).ret_if(JGE, 26, TRAP);
        b.check_range(0, 1).op(RETURN, native);
    });
    call(&mut out, nr::mremap, |b| {
        b.check_range(0, 1);
        b.check_range(0, 2);
        b.op(LOAD, low(3)).ret_unless(JSET, MREMAP_FIXED, native);
        b.check_range(4, 2).op(RETURN, native);
    });
    for number in [nr::mlock, nr::munlock, nr::mlock2] {
        call(&mut out, number, |b| {
            b.check_range(0, 1).op(RETURN, native);
        });
    }
    call(&mut out, nr::arch_prctl, |b| {
        // ARCH_SET_FS, ARCH_GET_FS.
        b.op(LOAD, low(0)).ret_if(JEQ, 0x1002, ALLOW).ret_if(JEQ, 0x1003, ALLOW).op(RETURN, TRAP);
    });
    let native_calls = [
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
    for number in native_calls {
        out.ret_if(JEQ, number, ALLOW);
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
            let first = FILE_FD as u32;
            b.op(LOAD, low(0)).ret_unless(JGE, first, NOTIFY).ret_if(JGE, first + MAX_THREADS as u32, NOTIFY);
            b.op(RETURN, ALLOW);
        });
        b.op(RETURN, TRAP);
    });
    let of_shim = [
        nr::rt_sigreturn,
        nr::exit,
        nr::exit_group,
        nr::sigaltstack,
        nr::rt_sigprocmask,
        nr::set_tid_address,
        nr::set_robust_list,
    ];
    for number in of_shim {
        call(&mut out, number, |b| {
            from_shim(b, settings, |b| {
                b.op(RETURN, ALLOW);
            });
            b.op(RETURN, TRAP);
        });
    }
    out.op(RETURN, TRAP);
    out.0
}

/// A block for one number; the accumulator holds the number before and after.
fn call(out: &mut Block, number: u32, body: impl FnOnce(&mut Block)) {
    let mut block = Block(Vec::new());
    body(&mut block);
    let skip = u8::try_from(block.0.len()).unwrap_or(u8::MAX);
    out.0.push(Instruction { code: JEQ, jt: 0, jf: skip, k: number });
    out.0.extend(block.0);
}

/// A block for instructions of the shim's text; the accumulator is lost.
fn from_shim(out: &mut Block, settings: &Settings, body: impl FnOnce(&mut Block)) {
    let mut block = Block(Vec::new());
    body(&mut block);
    let len = u8::try_from(block.0.len()).unwrap_or(u8::MAX);
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

    /// Runs the filter over one call, as the host would.
    fn run(filter: &[Instruction], number: u32, ip: u64, args: [u64; 6]) -> u32 {
        run_as(filter, AUDIT_ARCH_X86_64, number, ip, args)
    }

    fn run_as(filter: &[Instruction], arch: u32, number: u32, ip: u64, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(arch.to_ne_bytes());
        data.extend(ip.to_ne_bytes());
        args.iter().for_each(|a| data.extend(a.to_ne_bytes()));
        let (mut pc, mut a, mut x) = (0usize, 0u32, 0u32);
        loop {
            let i = filter[pc];
            pc += 1;
            let jump = |taken: bool| if taken { i.jt } else { i.jf } as usize;
            match i.code {
                LOAD => a = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
                RETURN => return i.k,
                JEQ => pc += jump(a == i.k),
                JGT => pc += jump(a > i.k),
                JGE => pc += jump(a >= i.k),
                JSET => pc += jump(a & i.k != 0),
                AND => a &= i.k,
                ADD_K => a = a.wrapping_add(i.k),
                ADD_X => a = a.wrapping_add(x),
                TO_X => x = a,
                other => panic!("unknown code {other:#x}"),
            }
        }
    }

    const TEXT: u64 = 0x7e00_0000_1000;
    const GUEST: u64 = 0x40_1000;

    fn filter() -> Vec<Instruction> {
        build(&Settings { text_start: TEXT, text_end: TEXT + 0x2000, checked_memory: false })
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
        for fd in [200, 200 + 4095] {
            assert_eq!([close(GUEST, fd), close(TEXT + 2, fd)], [TRAP, ALLOW]);
        }
        for fd in [0, 3, 4, 199, 200 + 4096, 0xffff_ffff, 0xffff_ffff_0000_0003] {
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

    #[test]
    fn every_jump_stays_inside() {
        let f = filter();
        assert!(f.len() < 4096);
        for (at, i) in f.iter().enumerate() {
            if matches!(i.code, JEQ | JGT | JGE | JSET) {
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
