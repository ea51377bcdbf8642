//! The life of a guest thread: resume the guest, take its next exit, handle it, deliver signals, repeat.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::Thread;
use kernel::process::ExitStatus;
use kernel::robust::Mending;
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo};
use platform::{Exit, GuestThread, NativeOp};

use crate::context::{Resume, SignalsTold};
use crate::guest_filter::Verdict;
use crate::ptrace::stop::Entry;
use crate::signal::deliver::{self, Delivery};
use crate::undo::Undo;
use crate::{Cx, Restart, SysError, SysResult, ThreadLocal, native, table};

/// Starts the task of a guest thread; `kernel::Kernel` is given this function.
pub fn spawn(thread: Arc<Thread>, guest: GuestThread) {
    spawn_with(thread, guest, ThreadLocal::default());
}

/// Starts the task of a guest thread with the local state that clone copied.
pub fn spawn_with(thread: Arc<Thread>, guest: GuestThread, local: ThreadLocal) {
    executor::spawn(run_thread(thread, guest, local));
}

/// Ends the process if the task ends by a panic: only the guest process dies, never the kernel.
struct PanicGuard(Option<Arc<Thread>>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            tracing::error!("task of thread {} ended unexpectedly: its process is killed", thread.tid());
            let status = ExitStatus::Signaled { signal: Signo::SIGKILL, core: false };
            thread.process().kill_now(status);
            kernel::exit::thread_exited(&thread, status);
        }
    }
}

/// The host process ended by itself (out of memory, or the guest burnt its own stub): its threads end, also
/// those that wait in a call.
struct HostGone(std::sync::Weak<Thread>);

/// What a guest thread's host side tells its end to.
pub(crate) fn host_gone(thread: &Arc<Thread>) -> Arc<dyn executor::Observer> {
    Arc::new(HostGone(Arc::downgrade(thread)))
}

impl executor::Observer for HostGone {
    fn notify(&self, _events: executor::Events) -> bool {
        // Ordered ends and exec have marked the thread before.
        if let Some(thread) = self.0.upgrade().filter(|t| !t.is_dying()) {
            tracing::debug!(tid = thread.tid(), "the host process is gone");
            thread.process().kill_now(ExitStatus::Signaled { signal: Signo::SIGKILL, core: false });
        }
        false
    }
}

async fn run_thread(thread: Arc<Thread>, mut guest: GuestThread, mut local: ThreadLocal) {
    let mut guard = PanicGuard(Some(thread.clone()));
    thread.set_handle(Some(guest.handle()));
    // Its limits may have been changed before it could be reached.
    kernel::limits::enforce(&thread.process().limits.read(), &thread);
    guest.observe_gone(Some(host_gone(&thread)));
    let mut status = ExitStatus::Signaled { signal: Signo::SIGKILL, core: false };
    // A kill may have come before the handle was known.
    if thread.is_dying() {
        guest.handle().kill_process();
    }
    if thread.ptrace.is_active() {
        // The child of a tracee stops before it runs on.
        guest.handle().interrupt();
    }
    loop {
        let exit = guest.next_exit().await;
        if std::mem::take(&mut local.unsettled) {
            thread.mm().settle_of(thread.tid());
        }
        if thread.is_dying() {
            break;
        }
        let posting = &thread.kernel().posting;
        if posting.is_in_use() {
            posting.settle(Some(&thread));
        }
        let mut cx =
            Cx { thread: &thread, guest: &mut guest, local: &mut local, credentials: thread.credentials() };
        let next = match exit {
            // A future is moved to where it is awaited, unless it is pinned: this one is large.
            Exit::Syscall => pin!(system_call(&mut cx)).await,
            Exit::Interrupted => {
                cx.local.in_guest_code = true;
                if cx.thread.ptrace.is_active() {
                    crate::ptrace::stop::learn_fs_base(&mut cx).await;
                }
                let next = after_interrupt(&mut cx).await;
                local.in_guest_code = false;
                next
            }
            Exit::Fault(fault) => {
                if cx.thread.ptrace.is_active() {
                    crate::ptrace::stop::learn_fs_base(&mut cx).await;
                    crate::ptrace::stop::disarm_step(&mut cx);
                }
                deliver::fault(&mut cx, &fault);
                after_interrupt(&mut cx).await
            }
            Exit::Undelivered => {
                crate::undo::undo(&mut cx);
                undelivered(&mut cx).await
            }
            // A result nobody waits for: forged by the guest; it changes nothing.
            Exit::NativeDone(_) => {
                cx.guest.resume_regs();
                Next::Continue
            }
            Exit::Gone(_) => Next::End,
        };
        match next {
            Next::Continue => {}
            Next::Exit(end) => {
                status = end;
                break;
            }
            Next::End => break,
        }
    }
    guard.0 = None;
    finish(&thread, guest, &mut local, status).await;
}

/// What the loop does after an exit.
enum Next {
    Continue,
    /// exit(2) of this thread.
    Exit(ExitStatus),
    /// Ended from outside.
    End,
}

async fn finish(thread: &Arc<Thread>, mut guest: GuestThread, local: &mut ThreadLocal, status: ExitStatus) {
    let process = thread.process();
    thread.kernel().posting.release(thread);
    let ordered = process.exit_status();
    if ordered.is_none() && !thread.is_dying() && process.threads.lock().len() > 1 {
        // One thread of several ends by exit(2): its shim clears the tid word and robust locks.
        let robust_list = thread.robust_list.load(Ordering::Relaxed);
        guest.exit_thread(
            (local.clear_child_tid != 0).then_some(local.clear_child_tid),
            (robust_list != 0).then_some(robust_list),
            thread.tid(),
            0,
        );
    } else {
        if ordered.is_none() && !thread.is_dying() {
            tracing::debug!(tid = thread.tid(), ?status, "the last thread ends its process");
            process.begin_exit(status);
        }
        mend(process, &mut guest).await;
        guest.handle().kill_process();
        drop(guest);
    }
    kernel::exit::thread_exited(thread, ordered.unwrap_or(status));
    if executor::is_owing() {
        executor::settle().await;
    }
}

/// Marks the robust futexes of a process that ends, or waits until another thread has done so.
async fn mend(process: &kernel::Process, guest: &mut GuestThread) {
    match process.take_mending() {
        Mending::None => {}
        Mending::Wanted { lists, watchdog } => {
            for (head, tid) in lists {
                if !guest.has_exited() {
                    break;
                }
                guest.native(NativeOp::RobustList { head, tid });
                guest.next_exit().await;
            }
            drop(watchdog);
        }
        Mending::UnderWay => while !matches!(guest.next_exit().await, Exit::Gone(_)) {},
    }
}

async fn system_call(cx: &mut Cx<'_>) -> Next {
    let (mut nr, mut args) = cx.guest.call();
    let mut trace = crate::strace::enter(cx, nr, &args);
    loop {
        let traced = cx.thread.ptrace.is_active();
        if traced {
            cx.local.call = u64::from(nr);
            match crate::ptrace::stop::entry(cx, nr, args).await {
                Entry::Call(other, changed) => (nr, args) = (other, changed),
                Entry::Skip => {
                    crate::ptrace::stop::exit(cx, nr).await;
                    return back_to_guest(cx, None).await;
                }
                Entry::Died => return Next::End,
            }
        }
        let mut refused = None;
        if cx.thread.seccomp.is_active() {
            match crate::guest_filter::check(cx, nr, args).await {
                Verdict::Call(other, changed) => (nr, args) = (other, changed),
                Verdict::Return(result) => refused = Some(result),
                Verdict::Signal => return back_to_guest(cx, None).await,
                Verdict::Exit(status) => return Next::Exit(status),
            }
        }
        cx.local.resume = Resume::Value;
        cx.local.undo = Undo::Nothing;
        let result = match (refused, crate::seccomp::judge(cx, nr, &args)) {
            (_, Some(result)) => result,
            (Some(result), None) => result,
            (None, None) if native::takes(cx, nr, &args) => Box::pin(native::call(cx, nr, args)).await,
            (None, None) => pin!(table::dispatch(cx, nr, &args)).await,
        };
        let posting = &cx.thread.kernel().posting;
        if posting.is_in_use() && posting.has_ends() {
            posting.settle(Some(cx.thread));
        }
        if executor::is_owing() {
            // The memory of a file that is gone: free before the caller goes on, as on Linux.
            executor::settle().await;
        }
        if let Some(trace) = &mut trace {
            trace.leave(cx, &result);
        }
        if cx.thread.is_dying() && !matches!(cx.local.resume, Resume::Exited) {
            return Next::End;
        }
        match std::mem::take(&mut cx.local.resume) {
            Resume::Exited => return exited(result),
            Resume::Done => return Next::Continue,
            Resume::Regs => {
                cx.local.restart_deadline = None;
                if traced {
                    if matches!(nr, SYS_EXECVE | SYS_EXECVEAT) {
                        crate::ptrace::stop::exec(cx, cx.thread.tid()).await;
                    }
                    crate::ptrace::stop::exit(cx, nr).await;
                }
                return back_to_guest(cx, None).await;
            }
            Resume::Value => {}
        }
        let (value, restart) = match result {
            Ok(value) => (value, None),
            Err(SysError::Errno(errno)) => (errno.to_ret(), None),
            Err(SysError::Interrupted(restart)) => (Errno::EINTR.to_ret(), Some(restart)),
        };
        // Few calls need more than their arguments.
        let wanted = restart.is_some() || cx.thread.ptrace.is_active();
        let before = wanted.then(|| *cx.guest.regs());
        if cx.thread.ptrace.is_active() {
            cx.guest.regs_mut().rax = restart.map_or(value, told_to_tracer) as u64;
            crate::ptrace::stop::exit(cx, nr).await;
        }
        if restart.is_none() {
            cx.local.restart_deadline = None;
            // A wait that ended by itself takes its mask along: what that let in stays pending.
            if let Some(mask) = cx.local.saved_mask.take() {
                crate::signal::mask::set(cx.thread, mask);
            }
            if cx.thread.ptrace.is_active() {
                return back_to_guest(cx, None).await;
            }
            if !cx.thread.wants_attention() {
                cx.guest.resume_syscall(value);
                return Next::Continue;
            }
        }
        cx.guest.regs_mut().rax = value as u64;
        cx.guest.clear_interrupt();
        cx.thread.clear_attention();
        match deliver::deliver(cx, restart.map(|kind| (kind, nr))).await {
            Delivery::None => match restart {
                // Nothing ran: the call goes on as if nothing had been.
                Some(_) => {
                    if let Some(before) = before {
                        cx.guest.regs_mut().rax = before.rax;
                        if *cx.guest.regs() != before {
                            // A tracer sends it elsewhere.
                            cx.guest.regs_mut().rax = value as u64;
                            return back_to_guest(cx, None).await;
                        }
                    }
                    cx.guest.regs_mut().rax = u64::from(nr);
                    continue;
                }
                None => cx.guest.resume_syscall(value),
            },
            Delivery::Handler => cx.local.restart_deadline = None,
            Delivery::Died => return Next::End,
        }
        return Next::Continue;
    }
}

/// The result of the last call could not be copied out: it fails.
async fn undelivered(cx: &mut Cx<'_>) -> Next {
    let value = Errno::EFAULT.to_ret();
    if !cx.thread.wants_attention() {
        cx.guest.resume_syscall(value);
        return Next::Continue;
    }
    cx.guest.regs_mut().rax = value as u64;
    back_to_guest(cx, None).await
}

const SYS_EXECVE: u32 = 59;
const SYS_EXECVEAT: u32 = 322;

/// The result of an interrupted call as a tracer sees it: what Linux has inside.
fn told_to_tracer(restart: Restart) -> i64 {
    match restart {
        Restart::IfSaRestart => -512,
        Restart::Always => -513,
        Restart::Never => -514,
    }
}

fn exited(result: SysResult) -> Next {
    match result {
        Ok(code) => Next::Exit(ExitStatus::Exited(code as i32)),
        Err(_) => Next::End,
    }
}

async fn after_interrupt(cx: &mut Cx<'_>) -> Next {
    back_to_guest(cx, None).await
}

async fn back_to_guest(cx: &mut Cx<'_>, restart: Option<(Restart, u32)>) -> Next {
    cx.guest.clear_interrupt();
    cx.thread.clear_attention();
    let told = cx.local.identity_told || cx.local.names_told || cx.local.signals != SignalsTold::default();
    if told && (cx.thread.seccomp.is_active() || cx.thread.ptrace.is_active()) {
        // Somebody traces: every call must be seen.
        cx.guest.set_identity(&platform::Identity::default());
        cx.local.identity_told = false;
        cx.local.names_told = false;
        cx.local.signals = SignalsTold::default();
    }
    let delivery = deliver::deliver(cx, restart).await;
    if delivery == Delivery::None {
        crate::ptrace::stop::arm_step(cx);
    }
    match delivery {
        Delivery::None => match cx.local.return_fpstate.take() {
            None => cx.guest.resume_regs(),
            Some(fpstate) => cx.guest.resume_regs_with_xstate(fpstate),
        },
        Delivery::Handler => {}
        Delivery::Died => return Next::End,
    }
    Next::Continue
}

/// Sends a signal that the thread caused itself (SIGPIPE, SIGSYS).
pub fn raise(cx: &Cx<'_>, sig: Signo) {
    let info = SigInfo::from_user(sig, linux_abi::signal::si::USER, cx.process().pid(), cx.credentials.uid);
    // A full queue loses it, as in Linux.
    let _ = cx.thread.send_signal(info);
}
