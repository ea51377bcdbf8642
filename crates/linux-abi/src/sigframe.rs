//! What a signal handler finds on its stack: `struct rt_sigframe` of x86-64 (`asm/sigcontext.h`, `asm/ucontext.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::signal::{SigInfo, SigSet};

/// `stack_t` of sigaltstack(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StackT {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*`.
    pub flags: i32,
    /// Alignment.
    pub pad: u32,
    /// Bytes.
    pub size: u64,
}

/// The thread runs on the alternate stack.
pub const SS_ONSTACK: i32 = 1;
/// There is no alternate stack.
pub const SS_DISABLE: i32 = 2;
/// The alternate stack is taken away while a handler runs on it.
pub const SS_AUTODISARM: i32 = i32::MIN;
/// The smallest alternate stack that the call takes.
pub const MINSIGSTKSZ: u64 = 2048;

/// `fpstate` holds more than the FXSAVE area.
pub const UC_FP_XSTATE: u64 = 1;
/// The frame has a valid `ss`.
pub const UC_SIGCONTEXT_SS: u64 = 2;
/// sigreturn restores `ss` as it is.
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// Code segment of 64-bit user programs.
pub const USER_CS: u16 = 0x33;
/// Stack segment of user programs.
pub const USER_SS: u16 = 0x2b;

/// Bits of rflags.
#[expect(missing_docs, reason = "named in the processor's manual")]
pub mod rflags {
    pub const CF: u64 = 1;
    pub const FIXED: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const RF: u64 = 1 << 16;
    pub const AC: u64 = 1 << 18;
    /// What sigreturn takes from the frame; the rest stays.
    pub const RESTORED: u64 = AC | OF | DF | TF | SF | ZF | AF | PF | CF | RF;
}

/// `struct sigcontext`: the registers at the signal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "the registers of x86-64")]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `struct ucontext`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UContext {
    /// `UC_*`.
    pub flags: u64,
    /// Always 0.
    pub link: u64,
    /// The alternate stack at the signal.
    pub stack: StackT,
    /// Registers.
    pub mcontext: SigContext,
    /// The mask to restore.
    pub sigmask: SigSet,
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RtSigFrame {
    /// Return address of the handler: `sa_restorer`.
    pub pretcode: u64,
    /// The handler's third argument.
    pub uc: UContext,
    /// The handler's second argument.
    pub info: SigInfo,
}

/// Offset of `uc` in the frame.
pub const UC_OFFSET: u64 = core::mem::offset_of!(RtSigFrame, uc) as u64;
/// Offset of `info` in the frame.
pub const INFO_OFFSET: u64 = core::mem::offset_of!(RtSigFrame, info) as u64;

const _: () = assert!(size_of::<SigContext>() == 256);
const _: () = assert!(size_of::<UContext>() == 304);
const _: () = assert!(size_of::<RtSigFrame>() == 440);
