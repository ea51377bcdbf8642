//! seccomp(2), and what a filter's verdict does to a call.

use std::sync::Arc;

use identity::Capability;
use kernel::guest_filter::{Data, Filter, Instruction, Listener, Mode, Program, action, synchronize};
use kernel::process::ExitStatus;
use kernel::ptrace::{event, option};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, Signo};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::context::SignalsTold;
use crate::signal::deliver;
use crate::{Cx, SysResult, native, user_notification};

/// `struct sock_fprog`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Prog {
    len: u16,
    pad: [u16; 3],
    filter: u64,
}

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;
const FLAG_TSYNC: u64 = 1;
const FLAG_LOG: u64 = 2;
const FLAG_SPEC_ALLOW: u64 = 4;
const FLAG_NEW_LISTENER: u64 = 8;
const FLAG_TSYNC_ESRCH: u64 = 16;
const FLAG_WAIT_KILLABLE_RECV: u64 = 32;
const FLAGS: u64 =
    FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH | FLAG_WAIT_KILLABLE_RECV;

/// seccomp(2).
pub async fn seccomp(cx: &mut Cx<'_>, operation: u32, flags: u64, args: Ptr) -> SysResult {
    let flags = flags & u64::from(u32::MAX);
    match operation {
        SET_MODE_STRICT if flags == 0 && args.is_null() => set_strict(cx).await,
        SET_MODE_FILTER => set_filter(cx, flags, args).await,
        GET_ACTION_AVAIL if flags == 0 => {
            let wanted: u32 = cx.read(args)?;
            const KNOWN: [u32; 8] = [
                action::KILL_PROCESS,
                action::KILL_THREAD,
                action::TRAP,
                action::ERRNO,
                action::USER_NOTIF,
                action::TRACE,
                action::LOG,
                action::ALLOW,
            ];
            if KNOWN.contains(&wanted) { Ok(0) } else { Err(Errno::EOPNOTSUPP.into()) }
        }
        GET_NOTIF_SIZES if flags == 0 => {
            cx.write(args, &user_notification::SIZES)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// prctl(PR_SET_SECCOMP).
pub async fn prctl_set(cx: &mut Cx<'_>, mode: u64, program: u64) -> SysResult {
    match mode {
        1 => set_strict(cx).await,
        2 => set_filter(cx, 0, Ptr(program)).await,
        _ => Err(Errno::EINVAL.into()),
    }
}

async fn set_strict(cx: &mut Cx<'_>) -> SysResult {
    native::show_to(cx, &Mode::Strict).await?;
    cx.thread.seccomp.set(Mode::Strict)?;
    forget_identity(cx);
    Ok(0)
}

/// What the shim answers by itself would not be seen.
fn forget_identity(cx: &mut Cx<'_>) {
    cx.guest.set_identity(&platform::Identity::default());
    cx.local.identity_told = false;
    cx.local.names_told = false;
    cx.local.signals = SignalsTold::default();
    cx.kernel().posting.withdraw(cx.thread, true);
}

async fn set_filter(cx: &mut Cx<'_>, flags: u64, args: Ptr) -> SysResult {
    let contradicts =
        flags & FLAG_TSYNC != 0 && flags & FLAG_NEW_LISTENER != 0 && flags & FLAG_TSYNC_ESRCH == 0;
    let waits = flags & FLAG_WAIT_KILLABLE_RECV != 0 && flags & FLAG_NEW_LISTENER == 0;
    if flags & !FLAGS != 0 || contradicts || waits {
        return Err(Errno::EINVAL.into());
    }
    let head: Prog = cx.read(args)?;
    let length = usize::from(head.len);
    if length == 0 || length > 4096 {
        return Err(Errno::EINVAL.into());
    }
    if !cx.credentials.no_new_privs && !cx.credentials.capable(Capability::SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    let bytes = cx.read_bytes(Ptr(head.filter), length * size_of::<Instruction>())?;
    let code = bytes.chunks_exact(8).filter_map(|chunk| Instruction::read_from_bytes(chunk).ok()).collect();
    let program = Program::new(code)?;
    let old = cx.thread.seccomp.mode();
    let before = match &old {
        Mode::Disabled | Mode::Ended(_) => None,
        Mode::Filter(filter) => Some(filter.clone()),
        Mode::Strict => return Err(Errno::EINVAL.into()),
    };
    let (listener, file) = match flags & FLAG_NEW_LISTENER {
        0 => (None, None),
        _ => {
            let (listener, file) = Listener::new(flags & FLAG_WAIT_KILLABLE_RECV != 0);
            (Some(listener), Some(file))
        }
    };
    let filter = Filter::new(program, before, listener)?;
    // Before the filter counts, so that nothing gets by it.
    native::show_to(cx, &Mode::Filter(filter.clone())).await?;
    let Some(file) = file else { return attach(cx, flags, &old, filter) };
    let fd = cx.install(file.clone(), true)? as i32;
    let attached = attach(cx, flags, &old, filter);
    if !matches!(attached, Ok(0)) {
        // Another thread may have put something else there.
        let files = cx.files();
        if files.get(fd).is_ok_and(|now| Arc::ptr_eq(&now, &file)) {
            let _ = files.remove(fd);
        }
        return attached;
    }
    Ok(i64::from(fd))
}

/// Gives the caller, or all threads, a filter; the id of a thread that cannot have it, or 0.
fn attach(cx: &mut Cx<'_>, flags: u64, old: &Mode, filter: Arc<Filter>) -> SysResult {
    if flags & FLAG_TSYNC != 0
        && let Err(tid) = synchronize(cx.process(), cx.thread, old, &filter)
    {
        return if flags & FLAG_TSYNC_ESRCH != 0 { Err(Errno::ESRCH.into()) } else { Ok(i64::from(tid)) };
    }
    cx.thread.seccomp.set(Mode::Filter(filter))?;
    forget_identity(cx);
    Ok(0)
}

/// What becomes of a call.
pub enum Verdict {
    /// It is made, perhaps as a tracer has changed it.
    Call(u32, [u64; 6]),
    /// It returns this without being made.
    Return(SysResult),
    /// A signal comes instead.
    Signal,
    /// The thread ends.
    Exit(ExitStatus),
}

/// Asks the thread's filters.
pub async fn check(cx: &mut Cx<'_>, nr: u32, args: [u64; 6]) -> Verdict {
    let filter: Arc<Filter> = match cx.thread.seccomp.mode() {
        Mode::Disabled | Mode::Ended(_) => return Verdict::Call(nr, args),
        // read, write, rt_sigreturn, exit.
        Mode::Strict if matches!(nr, 0 | 1 | 15 | 60) => return Verdict::Call(nr, args),
        Mode::Strict => return Verdict::Exit(ended(cx, Signo::SIGKILL)),
        Mode::Filter(filter) => filter,
    };
    let (mut nr, mut args, mut asked) = (nr, args, false);
    loop {
        let ip = cx.guest.regs().rip;
        let call = Data { nr, ip, args };
        let verdict = filter.run(&call);
        let data = (verdict & 0xffff) as i32;
        return match verdict & action::MASK {
            action::ALLOW => Verdict::Call(nr, args),
            action::LOG => {
                tracing::info!(nr, pid = cx.process().pid(), "seccomp");
                Verdict::Call(nr, args)
            }
            action::ERRNO => Verdict::Return(Ok(-i64::from(data.min(4095)))),
            // What the container forbids nobody is asked about.
            action::USER_NOTIF if crate::seccomp::forbids(cx, nr, &args) => Verdict::Call(nr, args),
            action::USER_NOTIF => match filter.listener(&call) {
                Some(listener) => Box::pin(user_notification::ask(cx, &listener, call)).await,
                None => Verdict::Return(Err(Errno::ENOSYS.into())),
            },
            action::TRACE if asked => Verdict::Call(nr, args),
            action::TRACE if cx.thread.ptrace.option(option::TRACESECCOMP) => {
                cx.local.call = u64::from(nr);
                crate::ptrace::stop::event(cx, event::SECCOMP, data as u64).await;
                match crate::ptrace::stop::changed_call(cx, nr) {
                    Some(changed) => (nr, args) = changed,
                    None => return Verdict::Return(Ok(cx.guest.regs().rax as i64)),
                }
                // What the tracer made of it is judged again.
                asked = true;
                continue;
            }
            action::TRACE => Verdict::Return(Err(Errno::ENOSYS.into())),
            action::TRAP => {
                const SYS_SECCOMP: i32 = 1;
                let mut info = SigInfo::new(Signo::SIGSYS, SYS_SECCOMP)
                    .with_u64(0, ip)
                    .with_i32(8, nr as i32)
                    .with_i32(12, 0xc000_003e_u32 as i32);
                info.errno = data;
                // The handler finds the number where it was.
                cx.guest.regs_mut().rax = u64::from(nr);
                deliver::force_signal(cx, Signo::SIGSYS, info);
                Verdict::Signal
            }
            action::KILL_THREAD if cx.process().threads.lock().len() > 1 => {
                Verdict::Exit(ExitStatus::Signaled { signal: Signo::SIGSYS, core: false })
            }
            _ => Verdict::Exit(ended(cx, Signo::SIGSYS)),
        };
    }
}

fn ended(cx: &Cx<'_>, signal: Signo) -> ExitStatus {
    let status = ExitStatus::Signaled { signal, core: false };
    cx.process().begin_exit(status);
    status
}
