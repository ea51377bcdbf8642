//! The frame that a handler starts with: where it goes and what is in it (`setup_rt_frame` of Linux).

use linux_abi::sigframe::{
    INFO_OFFSET, RtSigFrame, SS_AUTODISARM, SS_DISABLE, SigContext, StackT, UC_FP_XSTATE, UC_OFFSET,
    UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, UContext, USER_CS, USER_SS, rflags,
};
use linux_abi::signal::{SigAction, SigInfo, SigSet, sa};
use platform::{Fault, Regs, SignalFrame};
use zerocopy::IntoBytes;

use crate::context::AltStack;

/// Bytes below rsp that leaf functions use without moving it (System V ABI).
const RED_ZONE: u64 = 128;
/// Size of the FXSAVE area: the extended state is never smaller.
const FXSAVE: u64 = 512;

impl AltStack {
    /// Whether `sp` lies on it. With `SS_AUTODISARM` never: the frame has taken it away.
    pub fn holds(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.spans(sp)
    }
    /// Whether `sp` lies within its bounds.
    fn spans(&self, sp: u64) -> bool {
        sp > self.sp && sp - self.sp <= self.size
    }
    /// `ss_flags` as sigaltstack(2) tells it.
    pub fn state(&self, sp: u64) -> i32 {
        if self.size == 0 {
            SS_DISABLE
        } else if self.holds(sp) {
            linux_abi::sigframe::SS_ONSTACK
        } else {
            0
        }
    }
    /// As `stack_t`.
    pub fn as_stack_t(&self) -> StackT {
        StackT { sp: self.sp, flags: self.flags, pad: 0, size: self.size }
    }
}

/// What the frame is made of.
pub(super) struct Parts<'a> {
    /// Registers to come back to.
    pub regs: &'a Regs,
    /// The handler.
    pub action: &'a SigAction,
    /// Third and second argument of the handler.
    pub info: &'a SigInfo,
    /// The mask to come back to.
    pub mask: SigSet,
    /// The alternate stack now.
    pub alt_stack: AltStack,
    /// The thread's last fault.
    pub fault: Fault,
    /// `Platform::xstate_size`.
    pub xstate_size: u64,
}

/// Lays the frame out and fills it; none if it cannot be pushed (SIGSEGV then).
pub(super) fn build(parts: &Parts<'_>) -> Option<SignalFrame> {
    let Parts { regs, action, alt_stack, .. } = parts;
    if action.flags & sa::RESTORER == 0 {
        return None;
    }
    let nested = alt_stack.holds(regs.rsp);
    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let mut entering = false;
    if action.flags & sa::ONSTACK != 0 && alt_stack.state(sp) == 0 {
        sp = alt_stack.sp.checked_add(alt_stack.size)?;
        entering = true;
    }
    let fpstate = sp.checked_sub(parts.xstate_size.max(FXSAVE))? & !63;
    let frame_at = (fpstate.checked_sub(size_of::<RtSigFrame>() as u64)? & !15).checked_sub(8)?;
    if (nested || entering) && !alt_stack.spans(frame_at) {
        return None;
    }
    let frame = RtSigFrame {
        pretcode: action.restorer,
        uc: UContext {
            flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            link: 0,
            stack: alt_stack.as_stack_t(),
            mcontext: context(regs, parts.mask, &parts.fault, fpstate),
            sigmask: parts.mask,
        },
        info: *parts.info,
    };
    Some(SignalFrame {
        sp: frame_at,
        bytes: frame.as_bytes().to_vec(),
        fpstate: Some(fpstate),
        regs: Regs {
            rax: 0,
            rdi: parts.info.signo as u64,
            rsi: frame_at + INFO_OFFSET,
            rdx: frame_at + UC_OFFSET,
            rsp: frame_at,
            rip: action.handler,
            rflags: regs.rflags & !(rflags::DF | rflags::TF | rflags::RF),
            ..**regs
        },
    })
}

fn context(regs: &Regs, mask: SigSet, fault: &Fault, fpstate: u64) -> SigContext {
    SigContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rdi: regs.rdi,
        rsi: regs.rsi,
        rbp: regs.rbp,
        rbx: regs.rbx,
        rdx: regs.rdx,
        rax: regs.rax,
        rcx: regs.rcx,
        rsp: regs.rsp,
        rip: regs.rip,
        rflags: regs.rflags,
        cs: USER_CS,
        gs: 0,
        fs: 0,
        ss: USER_SS,
        err: fault.error,
        trapno: fault.trapno,
        oldmask: mask.0,
        cr2: fault.cr2,
        fpstate,
        reserved: [0; 8],
    }
}

/// The registers that sigreturn goes back to: flags that the guest may set only, segments as they are.
pub(super) fn restored(context: &SigContext, now: &Regs) -> Regs {
    Regs {
        rax: context.rax,
        rbx: context.rbx,
        rcx: context.rcx,
        rdx: context.rdx,
        rsi: context.rsi,
        rdi: context.rdi,
        rbp: context.rbp,
        rsp: context.rsp,
        r8: context.r8,
        r9: context.r9,
        r10: context.r10,
        r11: context.r11,
        r12: context.r12,
        r13: context.r13,
        r14: context.r14,
        r15: context.r15,
        rip: context.rip,
        rflags: (now.rflags & !rflags::RESTORED)
            | (context.rflags & rflags::RESTORED)
            | rflags::FIXED
            | rflags::IF,
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, build, restored};
    use crate::context::AltStack;
    use linux_abi::sigframe::{RtSigFrame, SS_AUTODISARM, rflags};
    use linux_abi::signal::{SigAction, SigInfo, SigSet, Signo, sa};
    use platform::{Fault, Regs, SignalFrame};
    use zerocopy::FromBytes;

    fn frame(rsp: u64, flags: u64, alt_stack: AltStack) -> Option<SignalFrame> {
        let regs =
            Regs { rsp, rip: 0x1000, r12: 12, rflags: 0x246 | rflags::DF | rflags::TF, ..Regs::default() };
        let action =
            SigAction { handler: 0x2000, flags: flags | sa::RESTORER, restorer: 0x3000, mask: SigSet::EMPTY };
        build(&Parts {
            regs: &regs,
            action: &action,
            info: &SigInfo::new(Signo::SIGUSR1, 0),
            mask: SigSet(5),
            alt_stack,
            fault: Fault { trapno: 14, error: 6, cr2: 0x77, ..Fault::default() },
            xstate_size: 2700,
        })
    }

    #[test]
    fn lies_below_the_red_zone_aligned_as_at_a_call() {
        for rsp in [0x7fff_0000, 0x7fff_0008, 0x7fff_0031] {
            let Some(frame) = frame(rsp, 0, AltStack::default()) else { panic!("no frame") };
            assert_eq!(frame.sp % 16, 8);
            let Some(fpstate) = frame.fpstate else { panic!("no state") };
            assert_eq!(fpstate % 64, 0);
            assert!(fpstate + 2700 <= rsp - 128);
            assert!(frame.sp + 440 <= fpstate);
            assert_eq!(frame.regs.rflags, 0x246);
            assert_eq!((frame.regs.rdi, frame.regs.rsi, frame.regs.rdx), (10, frame.sp + 312, frame.sp + 8));
            let Ok(read) = RtSigFrame::read_from_bytes(&frame.bytes) else { panic!("size") };
            assert_eq!(read.pretcode, 0x3000);
            assert_eq!(read.uc.mcontext.r12, 12);
            assert_eq!(read.uc.mcontext.cr2, 0x77);
            assert_eq!(read.uc.sigmask, SigSet(5));
        }
    }

    #[test]
    fn goes_to_the_alternate_stack_once_and_not_over_its_end() {
        let alt = AltStack { sp: 0x10000, flags: 0, size: 0x2000 };
        let Some(first) = frame(0x7fff_0000, sa::ONSTACK, alt) else { panic!("no frame") };
        assert!(first.sp > alt.sp && first.sp < alt.sp + alt.size);
        let Some(second) = frame(first.sp, sa::ONSTACK, alt) else { panic!("no frame") };
        assert!(second.sp < first.sp);
        assert!(frame(second.sp, sa::ONSTACK, alt).is_none());
        let disarmed = AltStack { flags: SS_AUTODISARM, ..alt };
        let Some(again) = frame(second.sp, sa::ONSTACK, disarmed) else { panic!("no frame") };
        assert_eq!(again.sp, first.sp);
        assert!(frame(0x7fff_0000, sa::ONSTACK, AltStack { size: 1024, ..alt }).is_none());
    }

    #[test]
    fn no_room_below_a_low_stack_pointer() {
        assert!(frame(1000, 0, AltStack::default()).is_none());
    }

    #[test]
    fn sigreturn_takes_only_harmless_flags() {
        let context = linux_abi::sigframe::SigContext { rflags: u64::MAX, rip: 7, ..Default::default() };
        let regs = restored(&context, &Regs { rflags: 0x202, ..Regs::default() });
        assert_eq!(regs.rflags & (3 << 12), 0);
        assert_eq!(regs.rflags & rflags::IF, rflags::IF);
        assert_eq!(regs.rip, 7);
    }
}
