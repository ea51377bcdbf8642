//! What passes between the kernel and a guest thread: registers, exits, native operations.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// General registers of a guest thread at an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers of x86-64")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A fault of guest code as the host's siginfo and ucontext tell it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named in sigaction(2)")]
pub struct Fault {
    pub signo: i32,
    pub code: i32,
    pub addr: u64,
    pub trapno: u64,
    pub error: u64,
    pub cr2: u64,
}

/// Why a guest thread came back.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// A system call: number in rax, arguments in their registers.
    Syscall,
    /// A fault.
    Fault(Fault),
    /// Interrupted by `ThreadHandle::interrupt`.
    Interrupted,
    /// The native operations asked for are done: the last result, or the first negative errno.
    NativeDone(i64),
    /// The answer to the last system call could not be copied to the guest: a bad address, or the guest says so.
    Undelivered,
    /// The host thread is gone.
    Gone(i32),
}

/// Something that only the stub itself can do to its memory.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in the man pages of the calls")]
pub enum NativeOp {
    Mmap {
        addr: u64,
        len: u64,
        prot: u32,
        flags: u32,
        file: Option<(Arc<OwnedFd>, u64)>,
    },
    /// As `Mmap` of a file that is opened for reading alone and that the guest has open as `id`: where that may be, it
    /// stays in the process until [`NativeOp::LetGo`] or [`crate::GuestThread::resume_closed`].
    MmapKept {
        addr: u64,
        len: u64,
        prot: u32,
        flags: u32,
        file: (Arc<OwnedFd>, u64),
        id: u64,
    },
    /// Takes a file there, as `MmapKept` does, and maps nothing. See [`crate::GuestThread::keep_reading`].
    Keep {
        file: Arc<OwnedFd>,
        id: u64,
    },
    /// Closes what stays in the process of a file.
    LetGo {
        id: u64,
    },
    Munmap {
        addr: u64,
        len: u64,
    },
    Mprotect {
        addr: u64,
        len: u64,
        prot: u32,
    },
    Mremap {
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: u32,
        new_addr: u64,
    },
    Madvise {
        addr: u64,
        len: u64,
        advice: u32,
    },
    Copy {
        addr: u64,
        bytes: Vec<u8>,
    },
    Zero {
        addr: u64,
        len: u64,
    },
    SetFsBase {
        base: u64,
    },
    FutexWake {
        addr: u64,
        count: u32,
    },
    /// Stores `new` in the word at `addr` if it is `expected`; the result is the word's old value.
    CompareExchange {
        addr: u64,
        expected: u32,
        new: u32,
    },
    /// Does for thread `tid` of the guest what Linux does at its end with set_robust_list(2).
    RobustList {
        head: u64,
        tid: i32,
    },
    SetGsBase {
        base: u64,
    },
    GetGsBase {
        addr: u64,
    },
    GetFsBase,
    /// prctl(PR_SET_NAME): what the host's ps shows.
    SetName {
        name: [u8; 16],
    },
    /// prctl(PR_SET_MM_MAP): likewise. A host without it shows less.
    SetLayout(HostLayout),
    /// A system call of the guest's that the host may run, see [`crate::Platform::runs_natively`]. The result is
    /// [`NOT_MADE`] if the thread was interrupted and the call may be made again. The argument of an index may point
    /// to two words that are not the guest's (a `struct timespec`).
    Call {
        nr: u32,
        args: [u64; 6],
        timeout: Option<(usize, [u64; 2])>,
    },
    /// From now on all native calls of the process, and of those forked from it, come here.
    ShowCalls,
}

/// See [`NativeOp::Call`].
pub const NOT_MADE: i64 = slot::NOT_MADE;

/// Bytes of memory that a guest process may have: soft limits of getrlimit(2), `u64::MAX` being none. Where the host
/// has a lower hard limit, that one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// `RLIMIT_AS`, and what exec has mapped that is not the guest's.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub locked: u64,
}

/// Where a program lies, for the host's /proc/PID/cmdline: the fields of `struct prctl_mm_map` of prctl(2).
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named in prctl(2)")]
pub struct HostLayout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

impl HostLayout {
    /// The structure that the host reads.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let HostLayout { start_code, end_code, start_data, end_data, start_brk, brk, .. } = self;
        let HostLayout { start_stack, arg_start, arg_end, env_start, env_end, .. } = self;
        let words = [start_code, end_code, start_data, end_data, start_brk, brk];
        let more = [start_stack, arg_start, arg_end, env_start, env_end];
        // No auxiliary vector (address, then size), no file (-1).
        let none = [0, u64::from(u32::MAX) << 32];
        words.iter().chain(&more).chain(&none).flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// Numbers that a guest thread may learn without asking the kernel; `None` asks. A value must be taken back
/// or replaced before the guest goes on when it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named in getpid(2), gettid(2), getuid(2), getgid(2)")]
pub struct Identity {
    pub pid: Option<u32>,
    pub tid: Option<u32>,
    pub ppid: Option<u32>,
    pub uid: Option<u32>,
    pub euid: Option<u32>,
    pub gid: Option<u32>,
    pub egid: Option<u32>,
    /// Bits of signals, from the lowest on for 1, whose action is all zero.
    pub untouched_signals: u64,
    /// Of those whose action was told.
    pub told_signals: u64,
    /// Whether it may go by what [`crate::Platform::tell_name`] told.
    pub names: bool,
}

impl Identity {
    /// In the order of `slot::identity`: plus 1, so that 0 is "ask".
    pub(crate) fn to_array(self) -> [u64; slot::identity::COUNT] {
        let Identity { pid, tid, ppid, uid, euid, gid, egid, untouched_signals, told_signals, names } = self;
        let [pid, tid, ppid, uid, euid, gid, egid] =
            [pid, tid, ppid, uid, euid, gid, egid].map(|value| value.map_or(0, |v| u64::from(v) + 1));
        [pid, tid, ppid, uid, euid, gid, egid, untouched_signals, u64::from(names), told_signals]
    }
}

/// A new guest thread or process.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// A thread of the same process.
    pub thread: bool,
    /// Shares the address space (thread or vfork).
    pub share_memory: bool,
    /// The parent sleeps until the child's stub has gone.
    pub vfork: bool,
    /// What the child starts with.
    pub regs: Regs,
    /// FS base for the child.
    pub tls: Option<u64>,
    /// Guest thread id of the child.
    pub tid: i32,
    /// The child writes its id here before it runs.
    pub set_child_tid: Option<u64>,
}

/// A signal frame to be pushed by the shim.
#[derive(Clone, Debug)]
pub struct SignalFrame {
    /// Where `bytes` go.
    pub sp: u64,
    /// The frame as Linux builds it.
    pub bytes: Vec<u8>,
    /// Where the host frame's extended state is copied to.
    pub fpstate: Option<u64>,
    /// Registers to start the handler with.
    pub regs: Regs,
}

impl Regs {
    /// From the order of `slot::reg`.
    pub(crate) fn from_array(r: &[u64; slot::reg::COUNT]) -> Regs {
        let [rax, rdi, rsi, rdx, r10, r8, r9, rbx, rcx, rbp, rsp, r11, r12, r13, r14, r15, rip, rflags] = *r;
        Regs { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
    }
    /// In the order of `slot::reg`.
    pub(crate) fn to_array(self) -> [u64; slot::reg::COUNT] {
        [
            self.rax,
            self.rdi,
            self.rsi,
            self.rdx,
            self.r10,
            self.r8,
            self.r9,
            self.rbx,
            self.rcx,
            self.rbp,
            self.rsp,
            self.r11,
            self.r12,
            self.r13,
            self.r14,
            self.r15,
            self.rip,
            self.rflags,
        ]
    }
}
