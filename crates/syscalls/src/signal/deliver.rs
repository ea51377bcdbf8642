//! Delivery: takes pending signals and does what the process wants (signal(7)).

use std::sync::atomic::Ordering;

use executor::Events;
use linux_abi::sigframe::SS_AUTODISARM;
use linux_abi::signal::{SIG_DFL, SIG_IGN, SigAction, SigInfo, SigSet, Signo, sa, si};
use platform::Fault;

use kernel::process::ExitStatus;
use kernel::signal::{DefaultAction, default_action, has_deliverable, take};

use super::frame::{Parts, build};
use crate::context::{AltStack, Pushed};
use crate::{Cx, Restart};

const SYS_FUTEX: u64 = 202;

/// What delivery did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// No handler ran.
    None,
    /// A frame was built and the guest resumed in the handler.
    Handler,
    /// The process ends.
    Died,
}

/// The signal of a fault of guest code, as the host reported it.
pub fn fault_info(fault: &Fault) -> (Signo, SigInfo) {
    let sig = Signo::new(fault.signo).unwrap_or(Signo::SIGSEGV);
    let info = if fault.code == si::KERNEL {
        SigInfo::new(sig, fault.code)
    } else {
        SigInfo::fault(sig, fault.code, fault.addr)
    };
    (sig, info)
}

/// A fault of guest code: its signal is sent so that it cannot be blocked, and the frame will tell of it.
pub fn fault(cx: &mut Cx<'_>, fault: &Fault) {
    if frame_failed(cx, fault) {
        return;
    }
    cx.local.fault = *fault;
    let (sig, info) = fault_info(fault);
    force_signal(cx, sig, info);
}

/// A frame could not be written: all is as before it, but for a SIGSEGV.
fn frame_failed(cx: &mut Cx<'_>, fault: &Fault) -> bool {
    let told = fault.signo == Signo::SIGSEGV.raw() && fault.code == si::KERNEL && fault.addr == 0;
    let Some(pushed) = cx.local.pushed.take().filter(|pushed| told && pushed.handler == *cx.guest.regs())
    else {
        return false;
    };
    *cx.guest.regs_mut() = pushed.before;
    cx.local.alt_stack = pushed.alt_stack;
    super::mask::set(cx.thread, pushed.mask);
    if pushed.saved_mask != pushed.mask {
        cx.local.saved_mask = Some(pushed.saved_mask);
    }
    force_segv(cx, pushed.sig);
    true
}

/// Sends a signal that cannot be blocked or ignored: where it is, its action becomes the default.
pub fn force_signal(cx: &mut Cx<'_>, sig: Signo, info: SigInfo) {
    let actions = cx.process().actions();
    let blocked = {
        let mut signals = cx.thread.signals.lock();
        let blocked = signals.mask.contains(sig);
        signals.mask = signals.mask.without(sig);
        blocked
    };
    if blocked || actions.get(sig).handler == SIG_IGN {
        cx.set_action(sig, SigAction::default());
    }
    if actions.get(sig).handler == SIG_DFL && !cx.thread.ptrace.is_active() {
        // Not queued: init, too, dies of its own faults.
        cx.local.fatal = Some(info);
        cx.thread.note_attention();
        return;
    }
    // A full queue cannot keep out a standard signal.
    let _ = cx.thread.send_signal(info);
}

/// Ends the process by a signal, whatever it has done to handle that: `force_fatal_sig` of Linux.
pub fn kill_self(cx: &mut Cx<'_>, sig: Signo) {
    cx.local.fatal = Some(SigInfo::new(sig, si::KERNEL));
    cx.thread.note_attention();
}

/// Ends the process if it has no way to handle this `sig` (a frame could not be pushed): `force_sigsegv` of Linux.
fn force_segv(cx: &mut Cx<'_>, failed: Signo) {
    if failed == Signo::SIGSEGV {
        cx.set_action(Signo::SIGSEGV, SigAction::default());
    }
    force_signal(cx, Signo::SIGSEGV, SigInfo::new(Signo::SIGSEGV, si::KERNEL));
}

/// Takes the next deliverable signal of the thread or its process.
fn next_signal(cx: &Cx<'_>) -> Option<SigInfo> {
    let wanted = SigSet(!cx.thread.signals.lock().mask.0);
    take(cx.thread, wanted)
}

/// Delivers what is pending. `restart` tells of an interrupted call: its kind and number; `rax` of the
/// registers then holds `-EINTR`.
pub async fn deliver(cx: &mut Cx<'_>, restart: Option<(Restart, u32)>) -> Delivery {
    loop {
        stay_stopped(cx).await;
        if cx.thread.is_dying() {
            return Delivery::Died;
        }
        if let Some(info) = cx.local.fatal.take() {
            return die(cx, &info).await;
        }
        if cx.thread.ptrace.is_active() {
            crate::ptrace::stop::pending_trap(cx).await;
            if cx.thread.is_dying() {
                return Delivery::Died;
            }
        }
        let Some(info) = next_signal(cx) else {
            // Nothing ran under the mask of a wait: the old one comes back, and may let something in.
            match cx.local.saved_mask.take() {
                Some(mask) => super::mask::set(cx.thread, mask),
                None => return Delivery::None,
            }
            continue;
        };
        let info = if cx.thread.ptrace.is_active() {
            let nr = restart.map_or(u64::MAX, |(_, nr)| u64::from(nr));
            match crate::ptrace::stop::signal(cx, info, nr).await {
                Some(info) => info,
                None => continue,
            }
        } else {
            info
        };
        let Some(sig) = Signo::new(info.signo) else { continue };
        let action = cx.process().actions().get(sig);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => {
                if default(cx, sig) {
                    return die(cx, &info).await;
                }
            }
            _ => {
                if handler(cx, sig, &info, &action, restart) {
                    return Delivery::Handler;
                }
            }
        }
    }
}

/// The default action; whether the process ends.
fn default(cx: &Cx<'_>, sig: Signo) -> bool {
    let process = cx.process();
    if process.is_init_immune(sig) {
        return false;
    }
    match default_action(sig) {
        DefaultAction::Ignore | DefaultAction::Continue => false,
        DefaultAction::Stop => {
            // Only SIGSTOP stops a process that no shell can continue.
            if sig == Signo::SIGSTOP || !process.kernel().is_orphaned_group(process.job().pgid) {
                kernel::signal::stop(process, sig);
            }
            false
        }
        DefaultAction::Terminate | DefaultAction::Core => true,
    }
}

async fn wait_for_death(cx: &mut Cx<'_>) {
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        if cx.thread.is_dying() {
            return;
        }
        cx.sleep_on(&waiter).await;
    }
}

/// Ends the process by a signal, after its core was dumped if it is one of those.
async fn die(cx: &mut Cx<'_>, info: &SigInfo) -> Delivery {
    let process = cx.process().clone();
    let signal = Signo::new(info.signo).unwrap_or(Signo::SIGKILL);
    let dumps = default_action(signal) == DefaultAction::Core;
    if process.dumps_core.fetch_or(dumps, Ordering::AcqRel) {
        // Another thread dumps the core, and the process then dies of that signal.
        wait_for_death(cx).await;
        return Delivery::Died;
    }
    let core = dumps && Box::pin(crate::core_dump::dump(cx, info)).await;
    process.begin_exit(ExitStatus::Signaled { signal, core });
    Delivery::Died
}

/// Waits while the process is stopped.
async fn stay_stopped(cx: &mut Cx<'_>) {
    if !cx.process().wants_stop() {
        cx.local.runs_in_stop = false;
        return;
    }
    if cx.local.runs_in_stop {
        return;
    }
    let mut told = false;
    let waiter = cx.thread.waiter().clone();
    let process = cx.process().clone();
    loop {
        waiter.reset();
        let listener = process.stop_queue.listen(&waiter, Events::all(), false);
        if !process.wants_stop() || cx.thread.is_dying() {
            if told && cx.thread.ptrace.is_active() {
                // A listening tracee tells that the stop is over.
                if let Some(trace) = cx.thread.ptrace.trace.lock().as_mut() {
                    trace.trap = true;
                }
            }
            return;
        }
        if cx.thread.ptrace.is_active() && !told {
            drop(listener);
            if crate::ptrace::stop::group(cx).await {
                cx.local.runs_in_stop = process.wants_stop();
                return;
            }
            told = true;
            continue;
        }
        cx.sleep_on(&waiter).await;
        drop(listener);
    }
}

/// A futex wait that the host would go on with after the interrupt: the registers stand at its instruction.
/// Without `SA_RESTART` it fails with `EINTR` instead.
fn end_native_wait(cx: &mut Cx<'_>) {
    if cx.guest.regs().rax == SYS_FUTEX && cx.guest.is_at_call() {
        let regs = cx.guest.regs_mut();
        regs.rip = regs.rip.wrapping_add(2);
        regs.rax = linux_abi::Errno::EINTR.to_ret() as u64;
    }
}

/// A signal right at a sigreturn: the extended state to come back to is not the processor's but the one in the
/// frame that is left, at `from`. A state that cannot be read leaves the processor's.
fn take_xstate_along(cx: &mut Cx<'_>, from: u64, frame: &mut platform::SignalFrame) {
    let mut state = vec![0; cx.kernel().platform.xstate_size()];
    let room = frame.fpstate.and_then(|at| usize::try_from(at.checked_sub(frame.sp)?).ok());
    if let Some(offset) = room
        && cx.guest.copy_in(from, &mut state).is_ok()
    {
        frame.bytes.resize(offset, 0);
        frame.bytes.extend_from_slice(&state);
        frame.fpstate = None;
    }
}

/// Pushes the frame of a handler and goes there; false if it cannot be pushed.
fn handler(
    cx: &mut Cx<'_>,
    sig: Signo,
    info: &SigInfo,
    action: &SigAction,
    restart: Option<(Restart, u32)>,
) -> bool {
    if action.flags & sa::RESETHAND != 0 {
        cx.set_action(sig, SigAction { handler: SIG_DFL, ..*action });
    }
    match restart {
        Some((Restart::Always, _)) => cx.guest.rewind_syscall(),
        Some((Restart::IfSaRestart, _)) if action.flags & sa::RESTART != 0 => cx.guest.rewind_syscall(),
        _ => {}
    }
    if cx.local.in_guest_code && action.flags & sa::RESTART == 0 {
        end_native_wait(cx);
    }
    let blocked = cx.thread.signals.lock().mask;
    let saved = cx.local.saved_mask.take().unwrap_or(blocked);
    let regs = *cx.guest.regs();
    let frame = build(&Parts {
        regs: &regs,
        action,
        info,
        mask: saved,
        alt_stack: cx.local.alt_stack,
        fault: cx.local.fault,
        xstate_size: cx.kernel().platform.xstate_size() as u64,
    });
    let Some(mut frame) = frame else {
        cx.local.saved_mask = Some(saved);
        force_segv(cx, sig);
        return false;
    };
    let mut mask = SigSet(blocked.0 | action.mask.0);
    if action.flags & sa::NODEFER == 0 {
        mask = mask.with(sig);
    }
    super::mask::set(cx.thread, mask);
    cx.local.pushed = Some(Pushed {
        sig,
        before: *cx.guest.regs(),
        handler: frame.regs,
        mask: blocked,
        saved_mask: saved,
        alt_stack: cx.local.alt_stack,
    });
    if cx.local.alt_stack.flags & SS_AUTODISARM != 0 {
        cx.local.alt_stack = AltStack::default();
    }
    if let Some(from) = cx.local.return_fpstate.take() {
        take_xstate_along(cx, from, &mut frame);
    }
    *cx.guest.regs_mut() = frame.regs;
    cx.guest.signal_frame(frame);
    // The next one's frame goes on top of this one, before the handler's first instruction if it can.
    if has_deliverable(cx.thread) {
        cx.thread.request_attention();
    }
    true
}
