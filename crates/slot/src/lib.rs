//! The shared-memory contract between a guest thread's shim and the kernel process.
//!
//! One [`Slot`] per guest thread lives in a memfd that both sides map. The guest can write all of
//! it at any time: the kernel process reads each field once and checks its own copy.
#![no_std]

pub mod layout;
pub mod names;
mod posting;

use core::sync::atomic::{AtomicU32, AtomicU64};

pub use posting::{
    AT_END, ATTRIBUTES_SIZE, CLAIMED, CONTENTS, COUNT_BITS, COUNTS, Count, DRY, FILE, FILE_AT, GRANTS, Grant,
    INTEREST_SIZE, KNOWN, LOG, MAP_SIZE, Marks, NONBLOCK, OPTION_SIZE, PART, POSTED_CLOSE, POSTED_HEAD,
    POSTED_INTEREST, POSTED_KINDS, POSTED_MAP, POSTED_OPTION, READS, REVOKED, SIZED, STATX_AT, TAKEN, TCP,
    TCP_CORK, TCP_NODELAY, WHOLE,
};

/// Values of [`Slot::state`].
pub mod state {
    /// The thread runs guest code, or nobody owns the slot.
    pub const IDLE: u32 = 0;
    /// The shim has written a request.
    pub const REQUEST: u32 = 1;
    /// The kernel process has written the answer.
    pub const DONE: u32 = 2;
    /// As [`REQUEST`]; the thread waits for the answer in futex(2).
    pub const PARKED: u32 = 3;
}

/// Values of [`Slot::kind`]: what a request is about.
pub mod kind {
    /// A system call of the guest.
    pub const SYSCALL: u8 = 0;
    /// The thread was interrupted by the kernel's signal.
    pub const INTERRUPTED: u8 = 1;
    /// A fault of guest code.
    pub const FAULT: u8 = 2;
    /// Native operations are done; the result is in `native_ret`.
    pub const NATIVE_DONE: u8 = 3;
    /// A forked child of the zygote has come up.
    pub const STARTED: u8 = 4;
    /// The zygote waits for work.
    pub const ZYGOTE: u8 = 5;
    /// The answer could not be copied to the guest (a bad address).
    pub const UNDELIVERED: u8 = 6;
}

/// Values of [`Slot::via`]: how the guest came into the shim.
pub mod via {
    /// By SIGSYS or another host signal: a host signal frame exists.
    pub const SIGNAL: u8 = 0;
    /// By a patched site: no frame.
    pub const PATCH: u8 = 1;
    /// The shim itself asks, no frame.
    pub const SHIM: u8 = 2;
}

/// Values of [`Slot::action`]: what the shim does with the answer.
pub mod action {
    /// Return `ret` in rax.
    pub const RETURN: u8 = 0;
    /// Load all registers.
    pub const REGS: u8 = 1;
    /// Do the operations in `data`, then report `NATIVE_DONE`.
    pub const NATIVE: u8 = 2;
    /// Do the operations in `data` and return the result in rax.
    pub const NATIVE_RETURN: u8 = 3;
    /// clone(2): `a[0]` flags, `a[1]` slot of the child, `a[2]` nonce, `a[3]` tls, `a[4]` set_child_tid, `a[5]` guest tid.
    pub const CLONE: u8 = 4;
    /// Push a signal frame: bytes in `data`, to `a[0]`, length `a[1]`, extended state to `a[2]`; then load all registers.
    pub const FRAME: u8 = 5;
    /// Load all registers and the extended state from guest address `a[0]`.
    pub const SIGRETURN: u8 = 6;
    /// End the thread: `a[0]` clear_child_tid, `a[1]` robust list head, `a[2]` guest tid, `a[3]` code.
    pub const EXIT: u8 = 7;
}

/// Kinds of [`Op`].
pub mod op {
    /// mmap: addr, len, prot, flags, fd (as the shim passes it), offset. The upper half of a descriptor is the
    /// thread's own index where the kernel process has to give the file; of those from `layout::KEPT_FD` on that
    /// means that it is not there yet.
    pub const MMAP: u32 = 0;
    /// munmap: addr, len.
    pub const MUNMAP: u32 = 1;
    /// mprotect: addr, len, prot.
    pub const MPROTECT: u32 = 2;
    /// mremap: addr, old length, new length, flags, new address.
    pub const MREMAP: u32 = 3;
    /// madvise: addr, len, advice.
    pub const MADVISE: u32 = 4;
    /// Copy `args[1]` bytes of `data` from offset `args[2]` to `args[0]`.
    pub const COPY: u32 = 5;
    /// Zero `args[1]` bytes at `args[0]`.
    pub const ZERO: u32 = 6;
    /// Set the FS base to `args[0]`.
    pub const SET_FS: u32 = 7;
    /// Wake `args[1]` futex waiters at `args[0]`.
    pub const FUTEX_WAKE: u32 = 8;
    /// Set the GS base to `args[0]`; 0 gives it back to the shim.
    pub const SET_GS: u32 = 9;
    /// Write the GS base to `args[0]`: 0 if it is the shim's.
    pub const GET_GS: u32 = 10;
    /// Store `args[2]` in the 32-bit word at `args[0]` if it is `args[1]`; the result is its old value.
    pub const COMPARE_EXCHANGE: u32 = 11;
    /// Mark the futexes of the robust list at `args[0]` that thread `args[1]` holds, and wake their waiters.
    pub const ROBUST_LIST: u32 = 12;
    /// The FS base is the result.
    pub const GET_FS: u32 = 13;
    /// Name the host thread: `args[0]` is the offset in `data` of 16 bytes.
    pub const SET_NAME: u32 = 14;
    /// Tell the host where the program lies: `args[0]` is the offset in `data` of a `struct prctl_mm_map`. The
    /// result is 0, since not every host can.
    pub const SET_MM: u32 = 15;
    /// Make system call `number` with these arguments, as announced; [`crate::NOT_MADE`] if an
    /// interrupt came first, or ended it so that it may be made again.
    pub const CALL: u32 = 16;
    /// Install the filter at `layout::SHOWING_OFFSET` of the control page in all threads of the process.
    pub const SHOW_CALLS: u32 = 17;
    /// Close `args[0]`; the result is 0.
    pub const CLOSE: u32 = 18;
    /// Take a file that is to stay, unless it is there: `args[0]` is a descriptor as of [`MMAP`]. The result is 0.
    pub const FETCH: u32 = 19;
}

/// One native operation, an entry of an array at the start of `data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Op {
    /// One of [`op`].
    pub kind: u32,
    /// Of [`op::CALL`]: the number.
    pub number: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// Indexes of [`Slot::regs`]: a call's number and arguments come first.
pub mod reg {
    #![expect(missing_docs, reason = "the registers of x86-64")]
    pub const RAX: usize = 0;
    pub const RDI: usize = 1;
    pub const RSI: usize = 2;
    pub const RDX: usize = 3;
    pub const R10: usize = 4;
    pub const R8: usize = 5;
    pub const R9: usize = 6;
    pub const RBX: usize = 7;
    pub const RCX: usize = 8;
    pub const RBP: usize = 9;
    pub const RSP: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
    pub const RIP: usize = 16;
    pub const FLAGS: usize = 17;
    pub const COUNT: usize = 18;
    /// A call's number and arguments.
    pub const CALL: usize = 7;
}

/// Result of [`op::CALL`]: as the host's `-ERESTARTSYS`.
pub const NOT_MADE: i64 = -512;

/// `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;

/// Indexes of [`Slot::identity`].
pub mod identity {
    /// getpid(2)
    pub const PID: usize = 0;
    /// gettid(2)
    pub const TID: usize = 1;
    /// getppid(2)
    pub const PPID: usize = 2;
    /// getuid(2)
    pub const UID: usize = 3;
    /// geteuid(2)
    pub const EUID: usize = 4;
    /// getgid(2)
    pub const GID: usize = 5;
    /// getegid(2)
    pub const EGID: usize = 6;
    /// rt_sigaction(2) that only asks: a bit for each signal, from the lowest on for 1, whose action is as a program
    /// starts with, all zero. As it is, not plus 1.
    pub const UNTOUCHED_SIGNALS: usize = 7;
    /// Whether calls that only look for a path may be answered by [`crate::names`]: not 0 if so.
    pub const NAMES: usize = 8;
    /// As [`UNTOUCHED_SIGNALS`]: signals whose action is in [`super::Slot::actions`].
    pub const TOLD_SIGNALS: usize = 9;
    /// How many there are.
    pub const COUNT: usize = 10;

    /// The index of what a system call asks for.
    pub const fn of_call(nr: u64) -> Option<usize> {
        match nr {
            39 => Some(PID),
            186 => Some(TID),
            110 => Some(PPID),
            102 => Some(UID),
            107 => Some(EUID),
            104 => Some(GID),
            108 => Some(EGID),
            _ => None,
        }
    }
}

/// Whether the filter may let a call through to the host, by its arguments: calls of that number are made where
/// they stand, or from the trampoline of a patched site that serves several numbers.
pub const fn may_run_natively(number: u64) -> bool {
    // A call's number is the low half of the register.
    match number as u32 {
        // mmap, mprotect, munmap; sched_yield to madvise: mremap, msync, mincore
        9..=11 | 24..=28 => true,
        // mlock, munlock, munlockall; futex, restart_syscall
        149 | 150 | 152 | 202 | 219 => true,
        // arch_prctl, which changes what a trampoline goes by
        158 => true,
        // membarrier, mlock2; pkey_mprotect, pkey_alloc, pkey_free; rseq
        324 | 325 | 329..=331 | 334 => true,
        // futex_waitv; futex_wake, futex_wait, futex_requeue; mseal
        449 | 454..=456 | 462 => true,
        _ => false,
    }
}

/// A piece of guest memory that travels in `data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Offset in `data`.
    pub offset: u32,
}

/// Words of the kernel's `struct sigaction`.
pub const ACTION_WORDS: usize = 4;

/// Most pieces that travel with an answer.
pub const RECORDS: usize = 16;
/// Most pieces that travel with a request.
pub const IN_RECORDS: usize = 8;

/// The head of a slot; `layout::DATA_SIZE` bytes of data follow at `layout::DATA_OFFSET`.
///
/// A cache line that one side has written and the other reads costs as much as all the rest of a call. So what
/// every call needs lies in the first line, in both directions, and nothing else is written or read on its way.
/// The assembly of the shim knows the offsets by name.
#[repr(C, align(64))]
pub struct Slot {
    /// One of [`state`].
    pub state: AtomicU32,
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`via`].
    pub via: u8,
    /// How many pieces in `data` came with the request, then: are to be copied to the guest before the action.
    pub pieces: u8,
    /// One of [`action`].
    pub action: u8,
    /// The guest's registers; the answer [`action::RETURN`] brings rax.
    pub regs: [u64; reg::COUNT],
    /// Set by the shim's signal handler when the interrupt came while the shim ran.
    pub intr: AtomicU32,
    /// Index of the slot in the sandbox.
    pub index: u32,
    /// Address of the slot in the guest.
    pub this: u64,
    /// Top of the shim's stack for this thread.
    pub stack: u64,
    /// Address of the extended state in the host's signal frame of this request; 0 if the registers still
    /// hold it. For the shim alone.
    pub fpstate: u64,
    /// Address of a trapped system call instruction, 0 if there is none; with [`via::SIGNAL`] only.
    pub site: u64,
    /// Pieces that came with the request.
    pub in_records: [Record; IN_RECORDS],
    /// Pieces to be copied out.
    pub out_records: [Record; RECORDS],
    /// The host's thread id: set by the host (CLONE_CHILD_SETTID); cleared by it (CLONE_CHILD_CLEARTID) or marked
    /// with [`OWNER_DIED`] when the thread ends.
    pub host_tid: AtomicU32,
    /// What proves to the kernel process who rings first.
    pub nonce: u32,
    /// Size of the extended state in the host's signal frames, as [`layout::NR_MEASURE`] finds it.
    pub xstate_size: u32,
    /// How many operations are in `data`.
    pub count: u32,
    /// signo, code, address, trapno, error code, cr2 of a fault.
    pub fault: [u64; 6],
    /// Result of native operations; 0 while those of [`action::NATIVE_RETURN`] are not done.
    pub native_ret: i64,
    /// Arguments of the action.
    pub a: [u64; 8],
    /// Address of the trampoline by which the call came; for the shim alone.
    pub trampoline: u64,
    /// Answers that the shim gives itself to calls of patched sites, by [`identity`]: the value plus 1, or 0.
    pub identity: [u64; identity::COUNT],
    /// Actions of signals as rt_sigaction(2) has them, of those in [`identity::TOLD_SIGNALS`].
    pub actions: [[u64; ACTION_WORDS]; 64],
    /// 0 while the thread is granted nothing, see [`Grant`].
    pub granted: AtomicU32,
    /// What the thread has made of it, in a line of its own.
    pub marks: Marks,
}

const _: () = {
    assert!(core::mem::offset_of!(Slot, regs) + 8 * reg::CALL <= 64);
    assert!(core::mem::offset_of!(Slot, in_records) == 192);
    assert!(core::mem::size_of::<Slot>() <= layout::DATA_OFFSET as usize);
};

/// The page that all shims read and only the kernel process writes.
#[repr(C)]
pub struct Control {
    /// 1 while a worker spins over the slots.
    pub spinning: AtomicU32,
    /// How often the shim looks at its slot before it rings or parks.
    pub guest_spin: AtomicU32,
    /// 1 while the notification worker looks at the slots before it sleeps: nobody needs to ring.
    pub awake: AtomicU32,
    /// Address of the site that is being patched, 0 if none: its breakpoint is not the guest's.
    pub patch_site: AtomicU64,
    /// 1 while the kernel process looks after posted writes by itself.
    pub posting: AtomicU32,
    /// Changes with each file whose attributes or bytes were told in a [`Grant`] and have changed.
    pub files: AtomicU64,
}
