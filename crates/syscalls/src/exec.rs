//! Programs: execve(2), execveat(2), and the start of a process from outside.

mod image;
mod program;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::limits::Limits;
use kernel::process::ExitStatus;
use kernel::{FsContext, Kernel};
use linux_abi::Errno;
use linux_abi::fs::AT_FDCWD;
use linux_abi::signal::Signo;
use platform::NativeOp;
use vfs::Caller;

use crate::args::Ptr;
use crate::context::{Resume, SignalsTold};
use crate::path::{at, check_flags};
use crate::signal::deliver;
use crate::{Cx, Restart, SysError, SysResult};

pub use image::{Loaded, NotLoaded, load};
pub use program::{Prepared, failing_interpreter, prepare};

/// Most bytes of one argument (Linux's MAX_ARG_STRLEN).
const MAX_ARG: usize = 128 << 10;
/// Most bytes of arguments and environment together, whatever the stack limit.
const MAX_ARGS: usize = 6 << 20;

/// execve(2).
pub async fn execve(cx: &mut Cx<'_>, path: Ptr, argv: Ptr, envp: Ptr) -> SysResult {
    execveat(cx, AT_FDCWD, path, argv, envp, 0).await
}

/// execveat(2).
pub async fn execveat(cx: &mut Cx<'_>, dirfd: i32, path: Ptr, argv: Ptr, envp: Ptr, flags: u32) -> SysResult {
    check_flags(flags, at::SYMLINK_NOFOLLOW | at::EMPTY_PATH)?;
    let path = cx.read_path(path)?;
    let args = read_strings(cx, argv).await?;
    let env = read_strings(cx, envp).await?;
    let total: usize = args.iter().chain(&env).map(|s| s.len() + 9).sum();
    let stack = cx.process().limit(kernel::limits::resource::STACK);
    // A quarter of the stack, at least 128 KiB.
    let limit = usize::try_from(stack / 4).unwrap_or(MAX_ARGS).clamp(MAX_ARG, MAX_ARGS);
    if total > limit {
        return Err(Errno::E2BIG.into());
    }
    let fs = cx.fs();
    let start = if dirfd == AT_FDCWD || path.starts_with(b"/") { None } else { Some(cx.file(dirfd)?) };
    if path.is_empty() && flags & at::EMPTY_PATH == 0 {
        return Err(Errno::ENOENT.into());
    }
    let nofollow = flags & at::SYMLINK_NOFOLLOW != 0;
    // Linux names a program opened by descriptor /dev/fd/N or /dev/fd/N/path.
    let name = match &start {
        None => path.clone(),
        Some(_) if path.is_empty() => format!("/dev/fd/{dirfd}").into_bytes(),
        Some(_) => [format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat(),
    };
    let prepared = prepare(&fs, cx, start.as_ref(), &path, name, nofollow, args, env)?;
    let kernel = cx.kernel().clone();
    let persona = cx.process().personality.load(Ordering::Relaxed);
    let randomize = persona & image::ADDR_NO_RANDOMIZE == 0;
    let limits = *cx.process().limits.read();
    let loaded = match Box::pin(load(&kernel, prepared, randomize, &limits)).await {
        Ok(loaded) => loaded,
        Err(NotLoaded::Early(errno)) => return Err(errno.into()),
        Err(NotLoaded::Late(errno)) => {
            deliver::kill_self(cx, Signo::SIGSEGV);
            return Err(errno.into());
        }
    };
    let_go_of_memory(cx).await?;
    take_over(cx, loaded).await
}

/// Marks the robust futexes of all threads that end with the old memory.
async fn let_go_of_memory(cx: &mut Cx<'_>) -> SysResult<()> {
    let threads: Vec<_> = cx.process().threads.lock().values().cloned().collect();
    for (head, tid) in kernel::robust::held(&threads) {
        cx.native(NativeOp::RobustList { head, tid }).await?;
    }
    Ok(())
}

/// Makes the thread run the loaded program: the point of no return is behind us.
async fn take_over(cx: &mut Cx<'_>, loaded: Loaded) -> SysResult {
    let process = cx.process().clone();
    let Loaded { guest, mm, credentials, comm, executing } = loaded;
    // Other threads end with the old address space. Of two that come here, one ends the other.
    {
        let threads = process.threads.lock();
        if cx.thread.is_dying() {
            return Err(SysError::Interrupted(Restart::Never));
        }
        // Who hears of it ends the old host process at once. That is the death neither of this thread nor of
        // those that have not heard yet: all are marked before the first is told.
        cx.guest.observe_gone(None);
        let others = || threads.values().filter(|other| !Arc::ptr_eq(other, cx.thread));
        others().for_each(|other| other.mark_dying());
        others().for_each(|other| other.request_attention());
    }
    kernel::cpu_time::keep(&process);
    cx.kernel().posting.release(cx.thread);
    let old = std::mem::replace(cx.guest, guest);
    cx.guest.observe_gone(Some(crate::run_loop::host_gone(cx.thread)));
    cx.thread.set_handle(Some(cx.guest.handle()));
    old.handle().kill_process();
    drop(old);
    others_end(cx).await;
    if cx.thread.is_dying() {
        cx.guest.handle().kill_process();
        return Err(SysError::Interrupted(Restart::Never));
    }
    cx.thread.become_first();

    let files = cx.files().duplicate();
    let closed = files.remove_cloexec();
    cx.thread.set_files(Some(files));
    for file in closed {
        kernel::locks::descriptor_closed(&process, &file);
        kernel::mqueue::descriptor_closed(&process, &file);
        // exec reports no errors of files it closes.
        let _ = file.ops().flush(&file);
    }
    cx.thread.set_fs(cx.fs().duplicate());
    process.set_actions(Arc::new(process.actions().after_exec()));
    process.timers.lock().after_exec();
    process.did_exec.store(true, Ordering::Relaxed);
    process.exit_signal.store(Signo::SIGCHLD.raw(), Ordering::Relaxed);
    cx.thread.set_mm(Arc::new(mm));
    process.set_executing(Some(executing));
    let ipc = cx.thread.ipc().map(|ipc| ipc.after_exec(process.pid()));
    cx.thread.set_ipc(ipc);
    kernel::ptrace::credentials_at_exec(cx.thread, credentials);
    // They may have been changed while the program was loaded.
    kernel::limits::enforce(&process.limits.read(), cx.thread);
    cx.thread.set_comm(&comm);
    cx.local.restart_deadline = None;
    cx.local.identity_told = false;
    cx.local.names_told = false;
    cx.local.signals = SignalsTold::default();
    cx.local.alt_stack = Default::default();
    cx.local.clear_child_tid = 0;
    cx.thread.robust_list.store(0, Ordering::Relaxed);
    cx.local.resume = Resume::Regs;
    if let Err(error) = crate::native::show_after_exec(cx).await {
        // Nothing is there to go back to.
        cx.process().begin_exit(failed_status());
        return Err(error);
    }
    Ok(0)
}

/// Waits until the calling thread is the only one of its process, or must end itself.
async fn others_end(cx: &mut Cx<'_>) {
    let process = cx.process().clone();
    let waiter = cx.thread.waiter().clone();
    loop {
        waiter.reset();
        let listener = process.stop_queue.listen(&waiter, executor::Events::all(), false);
        if process.threads.lock().len() <= 1 || cx.thread.is_dying() {
            return;
        }
        cx.sleep_on(&waiter).await;
        drop(listener);
    }
}

/// Reads argv or envp; NULL counts as empty, as in Linux.
async fn read_strings(cx: &mut Cx<'_>, list: Ptr) -> SysResult<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    if list.is_null() {
        return Ok(out);
    }
    let mut total = 0usize;
    let mut at = list.0;
    // Pointers are read a page's rest at a time.
    let mut words: Vec<u8> = Vec::new();
    let mut next = 0;
    let mut pace = executor::Pace::default();
    loop {
        pace.keep().await;
        if next + 8 > words.len() {
            let room = (4096 - (at % 4096) as usize).max(8);
            words = match cx.read_bytes(Ptr(at), room & !7) {
                Ok(words) => words,
                Err(_) => cx.read_bytes(Ptr(at), 8)?,
            };
            next = 0;
        }
        let bytes: [u8; 8] =
            words.get(next..next + 8).and_then(|b| b.try_into().ok()).ok_or(Errno::EFAULT)?;
        let pointer = u64::from_ne_bytes(bytes);
        next += 8;
        at = at.checked_add(8).ok_or(Errno::EFAULT)?;
        if pointer == 0 {
            return Ok(out);
        }
        let string = cx.read_cstr(Ptr(pointer), MAX_ARG)?.ok_or(Errno::E2BIG)?;
        total += string.len() + 9;
        if total > MAX_ARGS {
            return Err(Errno::E2BIG.into());
        }
        out.push(string);
    }
}

/// Loads a program for a process that does not run yet (the sandbox's own doors).
pub async fn load_first(
    kernel: &Arc<Kernel>,
    fs: &Arc<FsContext>,
    caller: &mut dyn Caller,
    path: &[u8],
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    limits: &Limits,
) -> Result<Loaded, Errno> {
    let prepared = prepare(fs, caller, None, path, path.to_vec(), false, args, env)?;
    let loaded = load(kernel, prepared, true, limits).await;
    loaded.map_err(|(NotLoaded::Early(errno) | NotLoaded::Late(errno))| errno)
}

/// The status of a process whose program could not even begin.
pub fn failed_status() -> ExitStatus {
    ExitStatus::Signaled { signal: Signo::SIGSEGV, core: false }
}
