//! What to do on signals and where: rt_sigaction(2), sigaltstack(2), rt_sigreturn(2).

use linux_abi::Errno;
use linux_abi::sigframe::{MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, StackT, UC_OFFSET, UContext};
use linux_abi::signal::{SigAction, SigInfo, SigSet, Signo, sa, si};

use super::{deliver, frame, mask};
use crate::args::Ptr;
use crate::context::{AltStack, Resume, SignalsTold};
use crate::{Cx, SysResult};

/// First address that a user program cannot have.
const TASK_SIZE: u64 = (1 << 47) - 4096;

/// The flags that this kernel knows; others are cleared, so that a program can find out (`SA_UNSUPPORTED`).
const KNOWN: u64 = sa::NOCLDSTOP
    | sa::NOCLDWAIT
    | sa::SIGINFO
    | sa::ONSTACK
    | sa::RESTART
    | sa::NODEFER
    | sa::RESETHAND
    | sa::RESTORER;

/// rt_sigaction(2).
pub fn rt_sigaction(cx: &mut Cx<'_>, sig: i32, new: Ptr, old: Ptr, size: usize) -> SysResult {
    mask::check_size(size)?;
    let action = if new.is_null() { None } else { Some(cx.read::<SigAction>(new)?) };
    let sig = Signo::new(sig).ok_or(Errno::EINVAL)?;
    if action.is_none() && cx.local.signals == SignalsTold::default() {
        // Who asks for one asks for all, as posix_spawn(3).
        cx.tell_signals();
    }
    let before = match action {
        None => cx.process().actions().get(sig),
        Some(_) if SigSet::UNBLOCKABLE.contains(sig) => return Err(Errno::EINVAL.into()),
        Some(mut action) => {
            action.flags &= KNOWN;
            action.mask = action.mask.blockable();
            let before = cx.set_action(sig, action);
            if kernel::signal::is_ignored(cx.process(), sig) {
                kernel::signal::flush(cx.process(), SigSet::EMPTY.with(sig));
            }
            before
        }
    };
    if !old.is_null() {
        cx.write(old, &before)?;
    }
    Ok(0)
}

/// sigaltstack(2).
pub fn sigaltstack(cx: &mut Cx<'_>, new: Ptr, old: Ptr) -> SysResult {
    let wanted = if new.is_null() { None } else { Some(cx.read::<StackT>(new)?) };
    let rsp = cx.guest.regs().rsp;
    let now = cx.local.alt_stack;
    if let Some(wanted) = wanted {
        cx.local.alt_stack = change_alt_stack(now, &wanted, rsp)?;
    }
    if !old.is_null() {
        let flags = now.state(rsp) | (now.flags & SS_AUTODISARM);
        cx.write(old, &StackT { flags, ..now.as_stack_t() })?;
    }
    Ok(0)
}

/// The alternate stack after a change; `EPERM` while on it, `EINVAL`, `ENOMEM`.
fn change_alt_stack(now: AltStack, wanted: &StackT, rsp: u64) -> Result<AltStack, Errno> {
    if now.holds(rsp) {
        return Err(Errno::EPERM);
    }
    match wanted.flags & !SS_AUTODISARM {
        SS_DISABLE => Ok(AltStack { sp: 0, flags: wanted.flags, size: 0 }),
        SS_ONSTACK | 0 if wanted.size < MINSIGSTKSZ => Err(Errno::ENOMEM),
        SS_ONSTACK | 0 => Ok(AltStack { sp: wanted.sp, flags: wanted.flags, size: wanted.size }),
        _ => Err(Errno::EINVAL),
    }
}

/// rt_sigreturn(2): back to where the signal came.
pub fn rt_sigreturn(cx: &mut Cx<'_>) -> SysResult {
    // The handler's return has taken `pretcode` off the stack.
    let at = cx.guest.regs().rsp.wrapping_sub(8).wrapping_add(UC_OFFSET);
    let context = match cx.read::<UContext>(Ptr(at)) {
        Ok(context) => context,
        Err(_) => return bad_frame(cx),
    };
    let registers = context.mcontext;
    // An address that only the kernel has, or that no program can have, would fault on the way out.
    if registers.rip >= TASK_SIZE || !registers.fpstate.is_multiple_of(64) {
        return bad_frame(cx);
    }
    mask::set(cx.thread, context.sigmask);
    let regs = frame::restored(&registers, cx.guest.regs());
    // Errors of the stack are ignored, as Linux does.
    if let Ok(stack) = change_alt_stack(cx.local.alt_stack, &context.stack, regs.rsp) {
        cx.local.alt_stack = stack;
    }
    *cx.guest.regs_mut() = regs;
    let fpstate = (registers.fpstate != 0).then_some(registers.fpstate);
    if cx.thread.wants_attention() || cx.thread.ptrace.is_active() {
        // A tracer sees the end of this call, too. What the restored mask lets in comes before the next instruction of the guest.
        cx.local.return_fpstate = fpstate;
        cx.local.resume = Resume::Regs;
        return Ok(0);
    }
    match fpstate {
        None => cx.guest.resume_regs(),
        Some(fpstate) => cx.guest.resume_regs_with_xstate(fpstate),
    }
    cx.local.resume = Resume::Done;
    Ok(0)
}

/// No frame to go back to: SIGSEGV, which the run loop delivers.
fn bad_frame(cx: &mut Cx<'_>) -> SysResult {
    deliver::force_signal(cx, Signo::SIGSEGV, SigInfo::new(Signo::SIGSEGV, si::KERNEL));
    cx.local.resume = Resume::Regs;
    Ok(0)
}
