//! Calls that the host runs natively where nobody wants to see them: futex(2), memory calls and others. Here they come
//! from processes that show them, judged and allowed, and are made by the shim as announced.

use kernel::Thread;
use kernel::guest_filter::Mode;
use kernel::process::ExitStatus;
use linux_abi::Errno;
use linux_abi::signal::Signo;
use linux_abi::sysno::nr;
use linux_abi::time::Timespec;
use platform::{KEPT_CALLS, NATIVE_CALLS, NOT_MADE, NativeOp, Platform};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

/// Whether this handler is the right one for a call.
pub(crate) fn takes(cx: &Cx<'_>, number: u32, args: &[u64; 6]) -> bool {
    // What the table has for these is as good, and for mmap quicker where nobody looks.
    let plain = matches!(number, nr::sched_yield | nr::restart_syscall)
        || (number == nr::mmap && !cx.guest.shows_calls());
    !plain && cx.kernel().platform.runs_natively(number, args)
}

/// Has the host make the call.
pub(crate) async fn call(cx: &mut Cx<'_>, number: u32, args: [u64; 6]) -> SysResult {
    let end = relative_end(cx, number, &args)?;
    let timeout = end.map(|end| {
        let left = Timespec::from_nanos(end.saturating_sub(executor::monotonic_ns()));
        (TIMEOUT, [left.sec as u64, left.nsec as u64])
    });
    match cx.native(NativeOp::Call { nr: number, args, timeout }).await {
        Err(SysError::Errno(errno)) if i64::from(errno.raw()) == -NOT_MADE => {
            cx.local.restart_deadline = end;
            Err(SysError::Interrupted(Restart::IfSaRestart))
        }
        Err(SysError::Errno(Errno::EINTR)) if is_wait(number) => {
            cx.local.restart_deadline = end;
            Err(SysError::Interrupted(Restart::Never))
        }
        done => done,
    }
}

/// With an end it is not restarted, but goes on where no handler runs.
fn is_wait(number: u32) -> bool {
    matches!(number, nr::futex | nr::futex_wait | nr::futex_waitv)
}

/// Which argument of futex(2) it is.
const TIMEOUT: usize = 3;

/// The end of a futex wait that is told how long it may take: when it goes on after an interrupt, it keeps it.
fn relative_end(cx: &mut Cx<'_>, number: u32, args: &[u64; 6]) -> SysResult<Option<u64>> {
    const FUTEX_WAIT: u64 = 0;
    const FUTEX_PRIVATE_FLAG: u64 = 128;
    let [_, operation, _, timeout, ..] = *args;
    let relative = number == nr::futex && operation & !FUTEX_PRIVATE_FLAG == FUTEX_WAIT;
    if !relative || timeout == 0 {
        return Ok(None);
    }
    if let Some(end) = cx.local.restart_deadline.take() {
        return Ok(Some(end));
    }
    let length = cx.read::<Timespec>(Ptr(timeout))?.to_nanos()?;
    Ok(Some(executor::monotonic_ns().saturating_add(length)))
}

/// restart_syscall(2): what could be restarted is restarted without it. The host uses it in waits that it runs itself.
pub(crate) fn restart_syscall(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::EINTR.into())
}

/// Whether a mode has a say in native calls that would not come by.
fn wants(platform: &Platform, mode: &Mode) -> bool {
    let mut unseen = NATIVE_CALLS.into_iter().chain(KEPT_CALLS).filter(|number| !platform.shows(*number));
    match mode {
        Mode::Disabled | Mode::Ended(_) => false,
        Mode::Strict => unseen.next().is_some(),
        Mode::Filter(filter) => unseen.any(|number| !filter.always_allows(number)),
    }
}

/// Has the process show its native calls before a filter becomes that of one of its threads.
pub(crate) async fn show_to(cx: &mut Cx<'_>, mode: &Mode) -> SysResult<()> {
    if wants(&cx.kernel().platform, mode) { show(cx).await } else { Ok(()) }
}

/// As [`show_to`], for a new program and the filters that it keeps.
pub(crate) async fn show_after_exec(cx: &mut Cx<'_>) -> SysResult<()> {
    let thread: &Thread = cx.thread;
    let mode = if thread.seccomp.is_active() { thread.seccomp.mode() } else { Mode::Disabled };
    show_to(cx, &mode).await
}

/// Has the process show its native calls from now on, as its children will. Registers stay as they are.
pub(crate) async fn show(cx: &mut Cx<'_>) -> SysResult<()> {
    if cx.guest.shows_calls() {
        return Ok(());
    }
    let regs = *cx.guest.regs();
    let result = cx.native(NativeOp::ShowCalls).await;
    *cx.guest.regs_mut() = regs;
    if result? != 0 || !cx.guest.shows_calls() {
        tracing::debug!(tid = cx.thread.tid(), "the guest says that its calls are shown");
        cx.process().begin_exit(ExitStatus::Signaled { signal: Signo::SIGKILL, core: false });
        return Err(SysError::Interrupted(Restart::Never));
    }
    Ok(())
}
