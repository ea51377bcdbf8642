//! The container's filter of system calls, before a call is dispatched: seccomp(2).

use kernel::process::ExitStatus;
use kernel::seccomp::Action;
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo};

use crate::context::Resume;
use crate::signal::deliver;
use crate::{Cx, SysResult};

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const AUDIT_ARCH_X86_64: i32 = 0xc000_003eu32 as i32;
/// `SYS_SECCOMP` of asm-generic/siginfo.h.
const SYS_SECCOMP: i32 = 1;

/// The result of a call that is not made; none where it may go on.
#[inline]
pub(crate) fn judge(cx: &mut Cx<'_>, nr: u32, args: &[u64; 6]) -> Option<SysResult> {
    let action = cx.thread.kernel().config.seccomp.as_deref()?.judge(nr, args);
    if action == Action::Allow { None } else { refuse(cx, nr, action) }
}

/// Whether the profile has another result for a call than that it is made.
pub(crate) fn forbids(cx: &Cx<'_>, nr: u32, args: &[u64; 6]) -> bool {
    let profile = cx.thread.kernel().config.seccomp.as_deref();
    profile.is_some_and(|profile| !matches!(profile.judge(nr, args), Action::Allow | Action::Log))
}

#[cold]
fn refuse(cx: &mut Cx<'_>, nr: u32, action: Action) -> Option<SysResult> {
    let name = linux_abi::sysno::name(nr).unwrap_or("unknown");
    tracing::debug!(tid = cx.thread.tid(), nr, name, ?action, "seccomp");
    match action {
        Action::Allow | Action::Log => None,
        Action::Errno(0) => Some(Ok(0)),
        Action::Errno(errno) => Some(Err(Errno::from_raw(i32::from(errno)).into())),
        Action::Trap(errno) => {
            let mut info = SigInfo::new(Signo::SIGSYS, SYS_SECCOMP)
                .with_u64(0, cx.guest.regs().rip)
                .with_i32(8, nr as i32)
                .with_i32(12, AUDIT_ARCH_X86_64);
            info.errno = i32::from(errno);
            deliver::force_signal(cx, Signo::SIGSYS, info);
            // The handler finds the number where it was.
            Some(Ok(i64::from(nr)))
        }
        Action::KillThread if cx.process().threads.lock().len() > 1 => {
            cx.local.resume = Resume::Exited;
            Some(Ok(i64::from(Signo::SIGSYS.raw())))
        }
        Action::KillThread | Action::KillProcess => {
            cx.process().begin_exit(ExitStatus::Signaled { signal: Signo::SIGSYS, core: false });
            Some(Ok(i64::from(nr)))
        }
    }
}
