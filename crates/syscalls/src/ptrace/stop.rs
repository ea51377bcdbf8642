//! The tracee's side: where it stops, and how it goes on.

use kernel::ptrace::{self, Kind, Mode, Resume, Stop, event, option};
use linux_abi::signal::{SigInfo, Signo};
use platform::NativeOp;

use crate::Cx;

const CODE_TRAP: i32 = 1 << 7;
/// The trap flag of rflags.
const TRAP_FLAG: u64 = 0x100;

/// A stop of the calling thread until its tracer lets it go on; `None` if it dies. Registers are as the tracer
/// leaves them.
async fn stop(cx: &mut Cx<'_>, status: i32, kind: Kind, info: SigInfo, orig_rax: u64) -> Option<Resume> {
    let fs_base = if kind == Kind::Plain || kind == Kind::Group { cx.local.fs_base } else { 0 };
    let made = Stop {
        status,
        kind,
        info,
        regs: *cx.guest.regs(),
        orig_rax,
        fs_base,
        xstate: cx.guest.xstate_address(),
        reported: false,
    };
    let tracer = {
        let mut trace = cx.thread.ptrace.trace.lock();
        let trace = trace.as_mut()?;
        trace.stop = Some(made);
        trace.tracer.clone()
    };
    ptrace::tell(&tracer, cx.thread.tid(), cx.credentials.uid, status);
    drop(tracer);
    let waiter = cx.thread.waiter().clone();
    let resume = loop {
        waiter.reset();
        if let Some(resume) = cx.thread.ptrace.resume.lock().take() {
            break resume;
        }
        if cx.thread.is_dying() {
            return None;
        }
        cx.sleep_on(&waiter).await;
    };
    // In the midst of a clone the shim is busy; there is another stop at its end.
    if resume.mode == Mode::Syscall && cx.guest.has_exited() {
        // Without it the tracer misses some calls; the tracee dies if it is to blame.
        let _ = Box::pin(crate::native::show(cx)).await;
    }
    *cx.guest.regs_mut() = resume.stop.regs;
    Some(resume)
}

/// Learns the FS base, which the tracer may ask for; only between an exit and the first change of registers.
pub async fn learn_fs_base(cx: &mut Cx<'_>) {
    let regs = *cx.guest.regs();
    if let Ok(base) = cx.native(NativeOp::GetFsBase).await {
        cx.local.fs_base = base as u64;
    }
    *cx.guest.regs_mut() = regs;
}

fn trap(cx: &Cx<'_>, code: i32) -> SigInfo {
    SigInfo::from_user(Signo::SIGTRAP, code, cx.process().pid(), cx.credentials.uid)
}

/// What follows the entry of a traced call.
pub enum Entry {
    /// It is made, perhaps another one.
    Call(u32, [u64; 6]),
    /// It is not made; the registers are the tracer's.
    Skip,
    /// The thread dies.
    Died,
}

/// `syscall-enter-stop`, and the event of a call that ends the thread.
pub async fn entry(cx: &mut Cx<'_>, nr: u32, args: [u64; 6]) -> Entry {
    let call = entry_stop(cx, nr, args).await;
    if let Entry::Call(60 | 231, args) = call
        && cx.thread.ptrace.option(option::TRACEEXIT)
    {
        event(cx, event::EXIT, (args[0] & 0xff) << 8).await;
        cx.local.call_after_stop = None;
        if cx.thread.is_dying() {
            return Entry::Died;
        }
    }
    call
}

async fn entry_stop(cx: &mut Cx<'_>, nr: u32, args: [u64; 6]) -> Entry {
    if cx.thread.ptrace.mode() != Mode::Syscall {
        return Entry::Call(nr, args);
    }
    cx.guest.regs_mut().rax = linux_abi::Errno::ENOSYS.to_ret() as u64;
    let Some(resume) = syscall_stop(cx, Kind::Entry, u64::from(nr)).await else {
        return if cx.thread.is_dying() { Entry::Died } else { Entry::Call(nr, args) };
    };
    let regs = resume.stop.regs;
    match resume.stop.orig_rax as u32 {
        u32::MAX => Entry::Skip,
        nr => Entry::Call(nr, [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]),
    }
}

async fn syscall_stop(cx: &mut Cx<'_>, kind: Kind, nr: u64) -> Option<Resume> {
    let good = cx.thread.ptrace.option(option::TRACESYSGOOD);
    let status = Signo::SIGTRAP.raw() | if good { CODE_TRAP } else { 0 };
    let info = trap(cx, status);
    let resume = stop(cx, status, kind, info, nr).await?;
    if let Some(sig) = Signo::new(resume.signal) {
        // The tracer sends one along.
        let _ = cx.thread.send_signal(SigInfo::from_user(sig, 0, cx.process().pid(), cx.credentials.uid));
    }
    Some(resume)
}

/// `syscall-exit-stop`, if wanted: rax holds the result.
pub async fn exit(cx: &mut Cx<'_>, nr: u32) {
    if cx.thread.ptrace.mode() == Mode::Syscall {
        // The tracer reads what the call wrote.
        cx.guest.flush_out();
        syscall_stop(cx, Kind::Exit, u64::from(nr)).await;
    }
}

/// An event stop with its message.
pub async fn event(cx: &mut Cx<'_>, event: i32, message: u64) {
    cx.local.call_after_stop = None;
    if let Some(trace) = cx.thread.ptrace.trace.lock().as_mut() {
        trace.message = message;
    }
    let status = Signo::SIGTRAP.raw() | event << 8;
    let info = trap(cx, status);
    let nr = cx.local.call;
    let resume = stop(cx, status, Kind::Plain, info, nr).await;
    cx.local.call_after_stop = resume.map(|resume| resume.stop.orig_rax);
}

/// The call after a stop for a filter, where the tracer may have changed it: as [`entry`] without a stop of its own.
/// `None` if it is not to be made.
pub fn changed_call(cx: &mut Cx<'_>, nr: u32) -> Option<(u32, [u64; 6])> {
    let regs = *cx.guest.regs();
    let nr = match cx.local.call_after_stop.take() {
        None => nr,
        Some(changed) if changed as u32 == u32::MAX => return None,
        Some(changed) => changed as u32,
    };
    Some((nr, [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]))
}

/// After exec: the event, or the old SIGTRAP.
pub async fn exec(cx: &mut Cx<'_>, old_tid: i32) {
    let (wanted, seized) = {
        let trace = cx.thread.ptrace.trace.lock();
        let Some(trace) = trace.as_ref() else { return };
        (trace.options & option::TRACEEXEC != 0, trace.seized)
    };
    cx.local.fs_base = 0;
    if wanted {
        event(cx, event::EXEC, old_tid as u64).await;
    } else if !seized {
        let info = SigInfo::from_user(Signo::SIGTRAP, 0, cx.process().pid(), cx.credentials.uid);
        let _ = cx.thread.send_signal(info);
    }
}

/// Stops that need no signal: `PTRACE_INTERRUPT`, the first one of a seized child.
pub async fn pending_trap(cx: &mut Cx<'_>) {
    while cx.thread.ptrace.wants_trap() && !cx.thread.is_dying() {
        if let Some(trace) = cx.thread.ptrace.trace.lock().as_mut() {
            trace.trap = false;
        }
        let stopped = cx.process().state.lock().stopped;
        let sig = stopped.filter(|_| cx.process().wants_stop()).unwrap_or(Signo::SIGTRAP);
        let status = sig.raw() | event::STOP << 8;
        let info = trap(cx, status);
        stop(cx, status, Kind::Plain, info, u64::MAX).await;
    }
}

/// `signal-delivery-stop`: what is to be delivered instead; `None` if nothing.
pub async fn signal(cx: &mut Cx<'_>, info: SigInfo, orig_rax: u64) -> Option<SigInfo> {
    let resume = stop(cx, info.signo, Kind::Plain, info, orig_rax).await?;
    let sig = Signo::new(resume.signal)?;
    if resume.signal == info.signo {
        // With its siginfo as the tracer left it.
        return Some(SigInfo { signo: info.signo, ..resume.stop.info });
    }
    Some(SigInfo::from_user(sig, 0, cx.process().pid(), cx.credentials.uid))
}

/// `group-stop`; whether the thread runs on although its process is stopped.
pub async fn group(cx: &mut Cx<'_>) -> bool {
    let Some(sig) = cx.process().state.lock().stopped else { return false };
    let seized = cx.thread.ptrace.trace.lock().as_ref().is_some_and(|t| t.seized);
    let status = if seized { sig.raw() | event::STOP << 8 } else { sig.raw() };
    let info = trap(cx, status);
    let resume = stop(cx, status, if seized { Kind::Plain } else { Kind::Group }, info, u64::MAX).await;
    resume.is_some_and(|resume| resume.mode != Mode::Listen)
}

/// Sets or clears the trap flag for how the tracee is to run.
pub fn arm_step(cx: &mut Cx<'_>) {
    if cx.thread.ptrace.is_active() && cx.thread.ptrace.mode() == Mode::Step {
        cx.guest.regs_mut().rflags |= TRAP_FLAG;
    }
}

/// A fault of a traced thread: the trap flag was ours.
pub fn disarm_step(cx: &mut Cx<'_>) {
    if cx.thread.ptrace.mode() == Mode::Step {
        cx.guest.regs_mut().rflags &= !TRAP_FLAG;
    }
}
