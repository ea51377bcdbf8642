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
/// Calls that the filter lets the shim alone make, on files that are kept, where nobody wants to see them.
pub const KEPT_CALLS: [u32; 1] = [nr::pread64];
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
    /// Which of the native calls are announced, and which of [`KEPT_CALLS`] are not made, in all processes.
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
    // Early: it is the call that is made most by the shim.
    for number in KEPT_CALLS.into_iter().filter(|number| !settings.seen.contains(number)) {
        call(&mut out, number, |b| {
            from_shim(b, settings, |b| {
                kept(b, 0, TRAP);
                b.op(RETURN, if settings.checked_memory { TRAP } else { ALLOW });
            });
            b.op(RETURN, TRAP);
        });
    }
    call(&mut out, NR_FETCH, |b| {
        from_shim(b, settings, |b| {
            b.op(RETURN, NOTIFY);
        });
        b.op(RETURN, TRAP);
    });
    call(&mut out, nr::futex, |b| {
        if settings.seen.contains(&nr::futex) {
            futexes_of_shim(b, settings);
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
            kept(&mut file, 4, NOTIFY);
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
                nr::futex => futexes_of_shim(b, settings),
                nr::mmap => {
                    let mut file = Block(Vec::new());
                    kept(&mut file, 4, ALLOW);
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
    for number in KEPT_CALLS {
        out.ret_if(JEQ, number, TRAP);
    }
    out.op(RETURN, ALLOW);
    out.0
}

/// Goes on if an argument names a file that is kept in the stub, else returns a verdict.
fn kept(b: &mut Block, arg: u32, others: u32) {
    let first = KEPT_FD as u32;
    b.op(LOAD, high(arg)).ret_unless(JEQ, 0, others);
    b.op(LOAD, low(arg)).ret_unless(JGE, first, others).ret_if(JGE, first + KEPT_FDS as u32, others);
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

/// Lets the shim's own futex calls pass: FUTEX_WAKE of a thread that ends, for it wakes who must look again anyway,
/// and FUTEX_WAIT for an answer.
fn futexes_of_shim(b: &mut Block, settings: &Settings) {
    const FUTEX_WAIT: u32 = 0;
    const FUTEX_WAKE: u32 = 1;
    from_shim(b, settings, |b| {
        b.op(LOAD, low(1)).ret_if(JEQ, FUTEX_WAKE, ALLOW).ret_if(JEQ, FUTEX_WAIT, ALLOW);
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
mod tests;
