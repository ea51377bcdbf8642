//! The notification worker: doorbells and announced calls; and the reaper of host processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use host::notify::{self, Notification};
use linux_abi::Errno;
use linux_abi::sysno::nr;
use slot::layout::{BATCH, NR_DOORBELL, NR_PARK, SLOT_SIZE, SLOT_VA, SLOTS_FD};

use crate::machine::{Core, Platform};
use crate::process::ProcessCore;

/// Serves notifications until the listener has no filter left.
pub(crate) fn run(platform: &Arc<Platform>) {
    let _scope = executor::worker_scope();
    loop {
        match notify::receive(platform.listener()) {
            Ok(notification) => {
                handle(platform, &notification);
                executor::run_ready();
                if notification.nr as u32 == NR_DOORBELL {
                    platform.spinner.doorbell();
                }
            }
            Err(Errno::EINTR | Errno::ENOENT) => {}
            Err(errno) => {
                tracing::error!("notification listener: {errno}");
                return;
            }
        }
    }
}

const MADV_DONTFORK: u64 = 10;
const SLOTS_END: u64 = SLOT_VA + slot::layout::MAX_THREADS as u64 * SLOT_SIZE;

/// The shim keeps a batch that it has mapped from its children.
fn kept_from_forks(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let core = caller(platform, n.args[3], n.pid as i32).ok_or(Errno::EPERM)?;
    if n.args[1] != BATCH as u64 * SLOT_SIZE {
        return Err(Errno::EPERM);
    }
    core.process.space.forkable.lock().retain(|at| *at != n.args[0]);
    core.process.space.set_mapped(n.args[0]);
    Ok(())
}

fn handle(platform: &Arc<Platform>, n: &Notification) {
    let listener = platform.listener();
    let verdict = match n.nr as u32 {
        NR_DOORBELL | NR_PARK => return doorbell(platform, n),
        nr::clone => check_clone(platform, n),
        nr::mmap if n.args[3] & 0x20 == 0 => check_file_map(platform, n),
        nr::madvise if n.args[2] == MADV_DONTFORK && n.args[0] >= SLOT_VA && n.args[0] < SLOTS_END => {
            kept_from_forks(platform, n)
        }
        // The filter has checked the range already (`--memory=checked`).
        nr::mmap
        | nr::munmap
        | nr::mprotect
        | nr::pkey_mprotect
        | nr::mseal
        | nr::mincore
        | nr::msync
        | nr::madvise
        | nr::mremap
        | nr::mlock
        | nr::munlock
        | nr::mlock2 => Ok(()),
        _ => Err(Errno::ENOSYS),
    };
    // If the caller has died there is nobody to tell.
    let _ = match verdict {
        Ok(()) => notify::let_run(listener, n.id),
        Err(errno) => notify::refuse(listener, n.id, errno),
    };
}

/// The thread at a slot, if the caller is that thread; binds one that rings for the first time.
fn caller(platform: &Platform, index: u64, pid: i32) -> Option<Arc<Core>> {
    let core = platform.core(index)?;
    let tid = core.tid.load(Ordering::Relaxed);
    if tid == pid {
        return Some(core);
    }
    let process = core.process.pid();
    // Its process is known and the caller one of its threads: forging this, it cheats only itself.
    if tid == 0 && process != 0 && host::process::signal_thread(process, pid, 0).is_ok() {
        core.tid.store(pid, Ordering::Relaxed);
        return Some(core);
    }
    None
}

fn doorbell(platform: &Arc<Platform>, n: &Notification) {
    let pid = n.pid as i32;
    let core = caller(platform, n.args[0], pid).or_else(|| introduce(platform, n, pid));
    match core {
        // A vfork child says hello.
        Some(_) if n.args[2] == 1 => {
            let _ = notify::answer(platform.listener(), n.id, 0);
        }
        Some(core) => {
            platform.take(&core, Some(n.id));
        }
        None => {
            // A thread that was told to end may still be on its way into a park: the answer lies in its slot.
            // Everybody else hears that nobody is here; who forges the word only makes itself ring again.
            let answered = usize::try_from(n.args[0])
                .ok()
                .and_then(|index| platform.slots.slot(index))
                .is_some_and(|slot| slot.state().load(Ordering::Acquire) == slot::state::DONE);
            let _ = match answered {
                true => notify::answer(platform.listener(), n.id, 0),
                false => notify::refuse(platform.listener(), n.id, Errno::ENOSYS),
            };
        }
    }
}

/// A vfork child's first ring: it knows its nonce.
fn introduce(platform: &Platform, n: &Notification, pid: i32) -> Option<Arc<Core>> {
    let core = platform.core(n.args[0])?;
    let process = &core.process;
    if !core.owns_process
        || process.nonce == 0
        || u64::from(process.nonce) != n.args[1]
        || process.pid() != 0
        || process.is_gone()
    {
        return None;
    }
    bind(platform, &core, pid);
    Some(core)
}

pub(crate) fn bind(platform: &Platform, core: &Arc<Core>, pid: i32) {
    core.tid.store(pid, Ordering::Relaxed);
    core.slot.host_tid().store(pid as u32, Ordering::Relaxed);
    platform.processes.lock().insert(pid, core.process.clone());
    core.process.bind(pid);
    if core.interrupted.swap(false, Ordering::SeqCst) {
        core.process.interrupt(pid);
    }
}

fn check_clone(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let core = caller(platform, n.args[5], n.pid as i32).ok_or(Errno::EPERM)?;
    const VM: u64 = 0x100;
    if n.args[0] & VM == 0 && !core.process.space.forkable.lock().is_empty() {
        // Another thread is about to: the shim tries again.
        return Err(Errno::EBUSY);
    }
    let announced = core.announced.lock().clone.take().ok_or(Errno::EPERM)?;
    // flags, stack, parent tid (unused), the tid word; tls is the guest's own affair.
    if announced == (n.args[0], n.args[1], n.args[3]) && n.args[2] == 0 { Ok(()) } else { Err(Errno::EPERM) }
}

fn check_file_map(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let [addr, len, prot, flags, fd, offset] = n.args;
    let who = fd >> 32;
    if fd as u32 as i32 == SLOTS_FD {
        let exact = len == BATCH as u64 * SLOT_SIZE && prot == 3 && flags == 0x11;
        let child = u32::try_from(who).ok().and_then(|nonce| platform.pending.lock().remove(&nonce));
        if let Some(child) = child {
            let batch = BATCH as u32;
            let first = u64::from(child.index / batch * batch) * SLOT_SIZE;
            let at = slot::layout::SLOT_VA + u64::from(child.local / batch * batch) * SLOT_SIZE;
            if !exact || offset != first || addr != at || child.process.pid() != 0 || child.process.is_gone()
            {
                return Err(Errno::EPERM);
            }
            child.process.space.forkable.lock().push(at);
            bind(platform, &child, n.pid as i32);
            return Ok(());
        }
        let core = caller(platform, who, n.pid as i32).ok_or(Errno::EPERM)?;
        let batch = core.announced.lock().batch.take().ok_or(Errno::EPERM)?;
        if !exact || (addr, offset) != (batch.0, u64::from(batch.1) * SLOT_SIZE) {
            return Err(Errno::EPERM);
        }
        core.process.space.forkable.lock().push(addr);
        return Ok(());
    }
    let core = caller(platform, who, n.pid as i32).ok_or(Errno::EPERM)?;
    let map = core.announced.lock().files.pop_front().ok_or(Errno::EPERM)?;
    let target = slot::layout::FILE_FD as u64 + u64::from(core.local);
    let same = (map.addr, map.len, map.prot, map.flags, map.offset) == (addr, len, prot, flags, offset);
    if !same || fd & 0xffff_ffff != target {
        return Err(Errno::EPERM);
    }
    notify::add_fd(platform.listener(), n.id, std::os::fd::AsFd::as_fd(&*map.file), target as u32)
}

/// Waits for host processes to end, tells their threads, then reaps.
pub(crate) fn reap(platform: &Arc<Platform>) {
    let _scope = executor::worker_scope();
    loop {
        let pid = match host::process::wait_any() {
            Ok(pid) => pid,
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                tracing::debug!("no host process left: {errno}");
                return;
            }
        };
        let process: Option<Arc<ProcessCore>> = platform.processes.lock().remove(&pid);
        if let Some(process) = process {
            process.set_gone();
            let threads = process.threads.lock().clone();
            for core in threads.iter().filter_map(std::sync::Weak::upgrade) {
                if core.parked.load(Ordering::SeqCst) {
                    platform.remove_core(&core);
                }
            }
        } else if let Some(core) = platform.core(0).filter(|c| c.process.pid() == pid) {
            tracing::error!("the zygote has died: no new program can start");
            core.process.set_gone();
        } else {
            platform.unborn.lock().end(pid);
        }
        // Peeked at above, so it is there.
        let status = host::process::reap(pid).unwrap_or(0);
        const SIGKILL: i32 = 9;
        if status & 0x7f != SIGKILL {
            // Stubs do not end by themselves, but for a guest that made its own do so.
            tracing::debug!(pid, status, "a host process ended");
        }
        executor::run_ready();
    }
}
