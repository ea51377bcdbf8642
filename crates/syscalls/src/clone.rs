//! New threads and processes: clone(2), clone3(2), fork(2), vfork(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::Capability;
use kernel::guest_filter::Mode;
use kernel::ipc::ThreadIpc;
use kernel::pidfd::PidFd;
use kernel::process::{ExitStatus, Process};
use kernel::ptrace::{How, event, option};
use kernel::thread::ThreadParts;
use kernel::{Mm, Thread};
use linux_abi::Errno;
use linux_abi::process::CloneFlags;
use linux_abi::signal::{SigInfo, Signo};
use platform::{CloneRequest, Exit};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult, ThreadLocal};

/// `struct clone_args` of clone3(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// fork(2).
pub async fn fork(cx: &mut Cx<'_>) -> SysResult {
    let args = CloneArgs { exit_signal: Signo::SIGCHLD.raw() as u64, ..CloneArgs::default() };
    make(cx, args).await
}

/// vfork(2).
pub async fn vfork(cx: &mut Cx<'_>) -> SysResult {
    let flags = (CloneFlags::VM | CloneFlags::VFORK).bits();
    make(cx, CloneArgs { flags, exit_signal: Signo::SIGCHLD.raw() as u64, ..CloneArgs::default() }).await
}

/// clone(2), with the argument order of x86-64.
pub async fn clone(
    cx: &mut Cx<'_>,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> SysResult {
    let wanted = CloneFlags::from_bits_retain(flags & 0xffff_ff00);
    let pidfd = if wanted.contains(CloneFlags::PIDFD) { parent_tid } else { 0 };
    make(
        cx,
        CloneArgs {
            flags: wanted.bits(),
            pidfd,
            child_tid,
            parent_tid,
            exit_signal: flags & 0xff,
            stack,
            tls,
            ..CloneArgs::default()
        },
    )
    .await
}

/// clone3(2).
pub async fn clone3(cx: &mut Cx<'_>, args: Ptr, size: usize) -> SysResult {
    // The first clone3(2) ended before set_tid.
    let mut all: CloneArgs = cx.read_extensible(args, size, 64)?;
    if all.exit_signal > 64 || (all.stack == 0) != (all.stack_size == 0) {
        return Err(Errno::EINVAL.into());
    }
    if all.set_tid_size != 0 {
        return Err(Errno::EPERM.into());
    }
    all.stack = all.stack.checked_add(all.stack_size).ok_or(Errno::EINVAL)?;
    make(cx, all).await
}

/// What of clone's flags makes sense, as Linux checks it.
fn check(flags: CloneFlags, exit_signal: u64) -> SysResult<()> {
    let has = |f: CloneFlags| flags.contains(f);
    let wrong = (has(CloneFlags::SIGHAND) && !has(CloneFlags::VM))
        || (has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND))
        || (has(CloneFlags::FS) && has(CloneFlags::NEWNS))
        || (has(CloneFlags::THREAD) && has(CloneFlags::PIDFD) && has(CloneFlags::DETACHED))
        || (has(CloneFlags::CLEAR_SIGHAND) && has(CloneFlags::SIGHAND))
        || exit_signal > 64;
    if wrong { Err(Errno::EINVAL.into()) } else { Ok(()) }
}

async fn make(cx: &mut Cx<'_>, args: CloneArgs) -> SysResult {
    let flags = CloneFlags::from_bits_retain(args.flags);
    check(flags, args.exit_signal)?;
    let namespaces = CloneFlags::NEWNS
        | CloneFlags::NEWCGROUP
        | CloneFlags::NEWUTS
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUSER
        | CloneFlags::NEWPID
        | CloneFlags::NEWNET
        | CloneFlags::INTO_CGROUP;
    if flags.intersects(namespaces) {
        cx.kernel().note_missing("clone flags for namespaces");
        return Err(Errno::EPERM.into());
    }
    // A new process that shares memory but neither suspends its parent nor is a thread.
    if flags.contains(CloneFlags::VM) && !flags.intersects(CloneFlags::VFORK | CloneFlags::THREAD) {
        cx.kernel().note_missing("clone(CLONE_VM) without CLONE_VFORK or CLONE_THREAD");
    }
    let kernel = cx.kernel().clone();
    within_process_limit(cx)?;
    let tid = kernel.pids.allocate()?;
    let is_thread = flags.contains(CloneFlags::THREAD);
    if flags.contains(CloneFlags::SIGHAND) {
        cx.forget_signals();
    }

    let mut regs = *cx.guest.regs();
    regs.rax = 0;
    if args.stack != 0 {
        regs.rsp = args.stack;
    }
    let request = CloneRequest {
        thread: is_thread,
        share_memory: flags.contains(CloneFlags::VM),
        vfork: flags.contains(CloneFlags::VFORK),
        regs,
        tls: flags.contains(CloneFlags::SETTLS).then_some(args.tls),
        tid,
        set_child_tid: flags.contains(CloneFlags::CHILD_SETTID).then_some(args.child_tid),
    };
    // As it is before the host's clone: with a filter set meanwhile the child's native calls might not be shown.
    let seccomp = cx.thread.seccomp.mode();
    let pidfd = if flags.contains(CloneFlags::PIDFD) { Some(new_pidfd(cx, args.pidfd)?) } else { None };
    let guest = match cx.guest.begin_clone(request) {
        Ok(guest) => guest,
        Err(errno) => {
            close_pidfd(cx, pidfd);
            return Err(errno.into());
        }
    };

    let mm =
        if flags.contains(CloneFlags::VM) { cx.mm() } else { Arc::new(cx.mm().fork(guest.address_space())) };
    let thread = new_thread(cx, tid, flags, args.exit_signal, mm, seccomp);
    let local = ThreadLocal {
        alt_stack: if flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK) {
            Default::default()
        } else {
            cx.local.alt_stack
        },
        clear_child_tid: if flags.contains(CloneFlags::CHILD_CLEARTID) { args.child_tid } else { 0 },
        // A debugger asks for it at the first stop.
        fs_base: if flags.contains(CloneFlags::SETTLS) { args.tls } else { cx.local.fs_base },
        ..ThreadLocal::default()
    };
    if let Some((_, pidfd)) = &pidfd {
        pidfd.set(thread.process());
    }
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // Linux ignores a fault here.
        let _ = cx.write(Ptr(args.parent_tid), &tid);
    }
    kernel.pids.add(&thread);
    kernel.forks.fetch_add(1, Ordering::Relaxed);
    {
        let mut threads = thread.process().threads.lock();
        // An exec that has ended all threads it knew ends this one, too.
        if is_thread && cx.thread.is_dying() {
            thread.set_dying();
        }
        threads.insert(tid, thread.clone());
    }
    if !is_thread && let Some(parent) = thread.process().parent() {
        parent.children.lock().insert(tid, thread.process().clone());
    }
    let event = traced_event(cx, flags, args.exit_signal);
    if event.is_some() || (flags.contains(CloneFlags::PTRACE) && cx.thread.ptrace.is_active()) {
        trace_child(cx, &thread);
    }
    crate::run_loop::spawn_with(thread.clone(), guest, local);
    if let Some(event) = event {
        crate::ptrace::stop::event(cx, event, tid as u64).await;
    }

    // For vfork this comes when the child has let go of the memory.
    match host_result(cx).await {
        Ok(()) => {
            if flags.contains(CloneFlags::VFORK) && cx.thread.ptrace.option(option::TRACEVFORKDONE) {
                crate::ptrace::stop::event(cx, event::VFORK_DONE, tid as u64).await;
            }
            Ok(i64::from(tid))
        }
        Err(err) => {
            close_pidfd(cx, pidfd);
            abandon(&thread);
            Err(err)
        }
    }
}

/// A descriptor for the child to come, told to the guest before anything else can fail.
fn new_pidfd(cx: &mut Cx<'_>, at: u64) -> SysResult<(i32, Arc<PidFd>)> {
    let (file, pidfd) = kernel::pidfd::reserve(false);
    let fd = cx.install(file, true)? as i32;
    if let Err(errno) = cx.guest.copy_out_now(at, &fd.to_ne_bytes()) {
        close_pidfd(cx, Some((fd, pidfd)));
        return Err(errno.into());
    }
    Ok((fd, pidfd))
}

fn close_pidfd(cx: &Cx<'_>, pidfd: Option<(i32, Arc<PidFd>)>) {
    if let Some((fd, _)) = pidfd {
        // Another thread may have closed it already.
        let _ = cx.files().remove(fd);
    }
}

/// Which event of a traced caller a clone is, if its tracer wants to hear of it.
fn traced_event(cx: &Cx<'_>, flags: CloneFlags, exit_signal: u64) -> Option<i32> {
    if !cx.thread.ptrace.is_active() || flags.contains(CloneFlags::UNTRACED) {
        return None;
    }
    let (event, option) = if flags.contains(CloneFlags::VFORK) {
        (event::VFORK, option::TRACEVFORK)
    } else if exit_signal == Signo::SIGCHLD.raw() as u64 {
        (event::FORK, option::TRACEFORK)
    } else {
        (event::CLONE, option::TRACECLONE)
    };
    cx.thread.ptrace.option(option).then_some(event)
}

/// Gives a new thread its parent's tracer; it stops before anything else.
fn trace_child(cx: &Cx<'_>, child: &Arc<Thread>) {
    let tie = cx
        .thread
        .ptrace
        .trace
        .lock()
        .as_ref()
        .map(|t| (t.tracer.clone(), How { seized: t.seized, options: t.options, capable: t.capable }));
    let Some((tracer, how)) = tie else { return };
    // A child that nobody knows yet has no tracer.
    if kernel::ptrace::attach(child, &tracer, how, || Ok(())).is_err() {
        return;
    }
    if how.seized {
        if let Some(trace) = child.ptrace.trace.lock().as_mut() {
            trace.trap = true;
        }
    } else {
        // Before the tracee runs its queue is empty.
        let _ = child.send_signal(SigInfo::from_user(Signo::SIGSTOP, 0, 0, 0));
    }
}

/// Awaits the result of the host's clone in the parent.
async fn host_result(cx: &mut Cx<'_>) -> SysResult<()> {
    match cx.guest.next_exit().await {
        Exit::NativeDone(ret) if ret < 0 => Err(Errno::from_raw((-ret) as i32).into()),
        Exit::NativeDone(_) => Ok(()),
        other => {
            tracing::debug!(?other, tid = cx.thread.tid(), "no result of clone");
            cx.thread.set_dying();
            Err(SysError::Interrupted(Restart::Never))
        }
    }
}

/// Undoes a thread whose host clone failed.
fn abandon(thread: &Arc<Thread>) {
    if let Some(parent) = thread.process().parent() {
        parent.children.lock().remove(&thread.tid());
        if thread.tid() == thread.process().pid() {
            thread.process().exit_signal.store(0, Ordering::Relaxed);
        }
    }
    thread.set_dying();
    if thread.tid() == thread.process().pid() {
        thread.process().begin_exit(ExitStatus::Signaled { signal: Signo::SIGKILL, core: false });
        thread.kernel().pids.remove_process(thread.tid());
    }
}

fn new_thread(
    cx: &Cx<'_>,
    tid: i32,
    flags: CloneFlags,
    exit_signal: u64,
    mm: Arc<Mm>,
    seccomp: Mode,
) -> Arc<Thread> {
    let parent = cx.process();
    let process = if flags.contains(CloneFlags::THREAD) {
        parent.clone()
    } else {
        let actions = if flags.contains(CloneFlags::SIGHAND) {
            parent.actions()
        } else if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            Arc::new(parent.actions().after_exec())
        } else {
            Arc::new(parent.actions().duplicate())
        };
        let real_parent =
            if flags.contains(CloneFlags::PARENT) { parent.parent() } else { Some(parent.clone()) };
        let limits = *parent.limits.read();
        let process =
            Process::new(tid, cx.kernel().clone(), real_parent.as_ref(), parent.job(), limits, actions);
        if limits.soft(kernel::limits::resource::CPU) != linux_abi::process::RLIM_INFINITY {
            kernel::timers::watch_cpu_limit(&process);
        }
        let maker = if flags.contains(CloneFlags::PARENT) { parent.maker() } else { cx.thread.tid() };
        process.set_maker(maker);
        process.set_executing(parent.executing());
        process.personality.store(parent.personality.load(Ordering::Relaxed), Ordering::Relaxed);
        process.exit_signal.store(exit_signal as i32, Ordering::Relaxed);
        process.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        process.oom_score_adj_min.store(parent.oom_score_adj_min.load(Ordering::Relaxed), Ordering::Relaxed);
        *process.login.lock() = *parent.login.lock();
        process
    };
    let files = if flags.contains(CloneFlags::FILES) { cx.files() } else { cx.files().duplicate() };
    let fs = if flags.contains(CloneFlags::FS) { cx.fs() } else { cx.fs().duplicate() };
    let ipc = cx.thread.ipc().unwrap_or_else(|| ThreadIpc::new(cx.kernel().ipc.clone(), process.pid()));
    let ipc = ipc.cloned(process.pid(), flags.contains(CloneFlags::VM), flags.contains(CloneFlags::SYSVSEM));
    let scheduling = cx.thread.scheduling.lock().inherited();
    let thread = Thread::new(
        tid,
        process,
        ThreadParts {
            files,
            fs,
            credentials: cx.thread.credentials(),
            mm,
            ipc,
            comm: cx.thread.comm(),
            seccomp,
            mask: cx.thread.signals.lock().mask,
        },
    );
    *thread.scheduling.lock() = scheduling;
    thread
}

/// RLIMIT_NPROC of getrlimit(2): `EAGAIN` if the real user has as many tasks already.
fn within_process_limit(cx: &Cx<'_>) -> SysResult<()> {
    let limit = cx.process().limit(kernel::limits::resource::NPROC);
    let pids = &cx.kernel().pids;
    // Counting walks over all: only where the limit can have been met at all.
    if cx.credentials.uid == 0 || (pids.tasks_at_most() as u64) < limit {
        return Ok(());
    }
    let exempt = [Capability::SYS_RESOURCE, Capability::SYS_ADMIN];
    if exempt.iter().any(|capability| cx.credentials.capable(*capability)) {
        return Ok(());
    }
    if pids.owned_by(cx.credentials.uid) as u64 >= limit { Err(Errno::EAGAIN.into()) } else { Ok(()) }
}
