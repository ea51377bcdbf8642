//! The notification worker: doorbells and announced calls; and the reaper of host processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::Events;
use host::notify::{self, Notification};
use linux_abi::Errno;
use linux_abi::sysno::nr;
use slot::layout::{BATCH, NR_DOORBELL, NR_FETCH, NR_PARK, SLOT_SIZE, SLOT_VA, SLOTS_FD};

use crate::machine::{Core, Platform};
use crate::parking;
use crate::process::{Batch, ProcessCore, touches_reserved};

/// Serves notifications until the listener has no filter left.
pub(crate) fn run(platform: &Arc<Platform>) {
    // Who was relieved may have left callers parked.
    parking::end(platform);
    let mut parks = false;
    while !executor::is_relieved() {
        match notify::receive(platform.listener()) {
            Ok(notification) => {
                if platform.parking.is_on() && !parks {
                    parking::begin(platform);
                    parks = true;
                }
                handle(platform, &notification);
                executor::run_ready();
                if parks {
                    parks = parking::run_dry(platform);
                } else if notification.nr as u32 == NR_DOORBELL {
                    platform.spinner.doorbell();
                }
            }
            Err(Errno::EINTR | Errno::ENOENT) => {
                if std::mem::take(&mut parks) {
                    parking::end(platform);
                }
            }
            Err(errno) => {
                tracing::error!("notification listener: {errno}");
                return;
            }
        }
    }
    if parks {
        parking::end(platform);
    }
}

const MADV_DONTFORK: u64 = 10;
const SLOTS_END: u64 = SLOT_VA + slot::layout::MAX_THREADS as u64 * SLOT_SIZE;

/// The shim keeps a batch that it has mapped from its children. The host has done so once the caller is heard of
/// again.
fn keep_from_forks(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let core = member(platform, n.args[3], n.pid as i32).ok_or(Errno::EPERM)?;
    let mut forkable = core.process.space.forkable.lock();
    let own = |b: &&mut Batch| b.addr == n.args[0] && b.owner.as_ptr() == Arc::as_ptr(&core);
    let batch = forkable.batches.iter_mut().find(own).ok_or(Errno::EPERM)?;
    if n.args[1] != BATCH as u64 * SLOT_SIZE {
        return Err(Errno::EPERM);
    }
    batch.advised = true;
    core.process.follow_limits();
    core.advised.store(true, Ordering::SeqCst);
    Ok(())
}

/// A thread is heard of that had told the host to keep slots from its children: the host has done it.
fn kept_from_forks(platform: &Platform, core: &Arc<Core>) {
    let space = &core.process.space;
    let waiting = {
        let mut forkable = space.forkable.lock();
        forkable.batches.retain(|b| {
            let kept = b.advised && b.owner.as_ptr() == Arc::as_ptr(core);
            if kept {
                space.set_mapped(b.addr);
            }
            !kept
        });
        if forkable.batches.is_empty() { std::mem::take(&mut forkable.waiting) } else { Vec::new() }
    };
    for n in waiting {
        answer_clone(platform, &n);
    }
}

/// A process has ended: forks that wait for slots it has mapped into a space that lives on wait in vain.
fn forks_in_vain(platform: &Platform, process: &ProcessCore) {
    let waiting = {
        let mut forkable = process.space.forkable.lock();
        let lost = forkable.batches.iter().any(|b| b.owner.upgrade().is_none_or(|c| c.process.is_gone()));
        if lost { std::mem::take(&mut forkable.waiting) } else { Vec::new() }
    };
    for n in waiting {
        let _ = notify::refuse(platform.listener(), n.id, Errno::EAGAIN);
    }
}

fn handle(platform: &Arc<Platform>, n: &Notification) {
    let listener = platform.listener();
    let verdict = match n.nr as u32 {
        NR_DOORBELL | NR_PARK => return doorbell(platform, n),
        NR_FETCH => return fetch(platform, n),
        _ if platform.native.is_gadget(n) => crate::native::answer(platform, n),
        nr::clone => return answer_clone(platform, n),
        nr::mmap if n.args[3] & 0x20 == 0 => check_file_map(platform, n),
        nr::close => check_close(platform, n),
        nr::seccomp => member(platform, n.args[3], n.pid as i32)
            .ok_or(Errno::EPERM)
            .and_then(|core| crate::native::check_filter(&core, n)),
        nr::madvise if n.args[2] == MADV_DONTFORK && n.args[0] >= SLOT_VA && n.args[0] < SLOTS_END => {
            keep_from_forks(platform, n)
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
        core.in_clone.store(false, Ordering::Relaxed);
        return Some(core);
    }
    // Its process is known and the caller one of its threads: forging this, it cheats only itself.
    if tid == 0 && core.process.has_thread(pid) {
        core.tid.store(pid, Ordering::Relaxed);
        return Some(core);
    }
    None
}

/// As [`caller`], for calls that do more than serve the caller's own slot. The thread that was known by this id may
/// have ended a moment ago, and the id be another's. Whoever is found in the process now is the caller, if the
/// caller is still there when the host is told to go on: it answers `ENOENT` otherwise.
fn member(platform: &Platform, index: u64, pid: i32) -> Option<Arc<Core>> {
    caller(platform, index, pid).filter(|core| core.process.has_thread(pid))
}

/// The caller's madvise of slots, if there was one, is over: it makes another call.
fn kept_by(platform: &Platform, core: &Arc<Core>, pid: i32) {
    if core.advised.load(Ordering::Relaxed) && core.process.has_thread(pid) {
        core.advised.store(false, Ordering::Relaxed);
        kept_from_forks(platform, core);
    }
}

fn doorbell(platform: &Arc<Platform>, n: &Notification) {
    let pid = n.pid as i32;
    let core = caller(platform, n.args[0], pid).or_else(|| introduce(platform, n));
    match core {
        // A vfork child says hello.
        Some(_) if n.args[2] == 1 => {
            let _ = notify::answer(platform.listener(), n.id, 0);
        }
        Some(core) => {
            kept_by(platform, &core, pid);
            platform.parking.called(&core.turn, || platform.spinner.cpus());
            platform.placement.called(platform.listener(), &core.called, || platform.spinner.cpus());
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
fn introduce(platform: &Platform, n: &Notification) -> Option<Arc<Core>> {
    let core = platform.core(n.args[0])?;
    let process = &core.process;
    if !core.owns_process || process.nonce == 0 || u64::from(process.nonce) != n.args[1] {
        return None;
    }
    bind(platform, &core, n).then_some(core)
}

/// Makes a new process known by its host id; false if it comes too late or twice.
fn bind(platform: &Platform, core: &Arc<Core>, n: &Notification) -> bool {
    let pid = n.pid as i32;
    {
        // Who waits now is not reaped meanwhile: the id is its own until it is known by it.
        let _ids = platform.watch.ids.lock();
        if !notify::is_valid(platform.listener(), n.id) {
            return false;
        }
        let mut processes = platform.processes.lock();
        if processes.contains_key(&pid) || !core.process.bind(pid) {
            return false;
        }
        processes.insert(pid, core.process.clone());
    }
    platform.came_up.wake_all(Events::all());
    core.process.follow_limits();
    platform.watch.born(core.process.nonce);
    core.tid.store(pid, Ordering::Relaxed);
    core.slot.host_tid().store(pid as u32, Ordering::Relaxed);
    if core.interrupted.swap(false, Ordering::SeqCst) {
        core.process.interrupt(pid);
    }
    true
}

/// Lets a clone run if it is the one announced. A fork waits while slots would be handed on by it.
fn answer_clone(platform: &Platform, n: &Notification) {
    const VM: u64 = 0x100;
    const VFORK: u64 = 0x4000;
    let refuse = |errno| {
        let _ = notify::refuse(platform.listener(), n.id, errno);
    };
    let Some(core) = member(platform, n.args[5], n.pid as i32) else { return refuse(Errno::EPERM) };
    kept_by(platform, &core, n.pid as i32);
    let mut announced = core.announced.lock();
    // flags, stack, parent tid (unused), the tid word; tls is the guest's own affair.
    let same = announced.clone.as_ref().is_some_and(|c| {
        (c.flags, c.stack, c.tid_word) == (n.args[0], n.args[1], n.args[3]) && n.args[2] == 0
    });
    if !same {
        return refuse(Errno::EPERM);
    }
    if n.args[0] & VM == 0 {
        let mut forkable = core.process.space.forkable.lock();
        if !forkable.batches.is_empty() {
            let lost = |b: &Batch| b.owner.upgrade().is_none_or(|c| c.process.is_gone());
            if forkable.batches.iter().any(lost) {
                return refuse(Errno::EAGAIN);
            }
            forkable.waiting.push(*n);
            return;
        }
    }
    let Some(clone) = announced.clone.take() else { return };
    core.in_clone.store(true, Ordering::SeqCst);
    let nonce = clone.child.process.nonce;
    let is_process = clone.child.owns_process;
    if is_process {
        platform.watch.expect(&clone.child, &core);
    }
    core.in_vfork.store(n.args[0] & VFORK != 0, Ordering::SeqCst);
    if notify::let_run(platform.listener(), n.id).is_err() {
        // Interrupted before the answer (by its death, or on an old host): it did not run.
        core.in_clone.store(false, Ordering::SeqCst);
        core.in_vfork.store(false, Ordering::SeqCst);
        if is_process {
            platform.watch.born(nonce);
        }
        announced.clone = Some(clone);
    }
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
            if !exact || offset != first || addr != at {
                return Err(Errno::EPERM);
            }
            forkable(&child, at);
            if !bind(platform, &child, n) {
                return Err(Errno::EPERM);
            }
            child.process.lift_limits();
            return Ok(());
        }
        let core = member(platform, who, n.pid as i32).ok_or(Errno::EPERM)?;
        let batch = core.announced.lock().batch.take().ok_or(Errno::EPERM)?;
        if !exact || (addr, offset) != (batch.0, u64::from(batch.1) * SLOT_SIZE) {
            return Err(Errno::EPERM);
        }
        forkable(&core, addr);
        core.process.lift_limits();
        return Ok(());
    }
    let core = member(platform, who, n.pid as i32).ok_or(Errno::EPERM)?;
    let map = {
        let mut announced = core.announced.lock();
        let wanted = (addr, len, prot, flags, offset);
        let same = |m: &crate::machine::FileMap| (m.addr, m.len, m.prot, m.flags, m.offset) == wanted;
        let found = announced.files.iter().position(same);
        // Who asks for anything else has lost what was announced.
        let mut files = std::mem::take(&mut announced.files);
        let map = files.remove(found.ok_or(Errno::EPERM)?);
        announced.files = files;
        map
    };
    // Anonymous memory is kept off the shim by the filter.
    const MAP_FIXED: u64 = 0x10;
    if flags & MAP_FIXED != 0 && touches_reserved(addr, len) {
        return Err(Errno::EPERM);
    }
    let target = slot::layout::FILE_FD as u64 + u64::from(core.local);
    if fd & 0xffff_ffff != target {
        core.announced.lock().files.clear();
        return Err(Errno::EPERM);
    }
    notify::add_fd(platform.listener(), n.id, std::os::fd::AsFd::as_fd(&*map.file), target as u32)
}

/// Gives a thread a file that it was told to take, as often as it asks until it is heard of.
fn fetch(platform: &Platform, n: &Notification) {
    let core = member(platform, n.args[0], n.pid as i32);
    let wanted = |core: Arc<Core>| {
        let announced = core.announced.lock();
        announced.fetched.iter().find(|(fd, _)| u64::from(*fd) == n.args[1]).cloned()
    };
    // If the caller has died there is nobody to tell.
    let _ = match core.and_then(wanted) {
        Some((fd, file)) => {
            notify::answer_with_fd(platform.listener(), n.id, std::os::fd::AsFd::as_fd(&*file), fd)
                .or_else(|errno| notify::refuse(platform.listener(), n.id, errno))
        }
        None => notify::refuse(platform.listener(), n.id, Errno::EPERM),
    };
}

/// The zygote closes its end of the notifications, once, before any guest code ran; nobody closes anything else.
fn check_close(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let zygote = platform.core(0).is_some_and(|core| core.process.pid() == n.pid as i32);
    let first = zygote && !platform.zygote_closed.swap(true, Ordering::SeqCst);
    if first { Ok(()) } else { Err(Errno::EPERM) }
}

/// A batch is about to be mapped that the next fork would hand on.
fn forkable(core: &Arc<Core>, addr: u64) {
    let batch = Batch { addr, owner: Arc::downgrade(core), advised: false };
    let mut forkable = core.process.space.forkable.lock();
    // What a lost owner has left at this place is replaced.
    forkable.batches.retain(|b| b.addr != addr || b.owner.upgrade().is_some_and(|c| !c.process.is_gone()));
    forkable.batches.push(batch);
}

/// Waits for host processes to end, tells their threads, then reaps.
pub(crate) fn reap(platform: &Arc<Platform>) {
    while !executor::is_relieved() {
        let pid = match host::process::wait_any() {
            Ok(pid) => pid,
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                tracing::debug!("no host process left: {errno}");
                return;
            }
        };
        let (process, status) = {
            // Its id is its own until here, and nobody becomes known by it any more.
            let _ids = platform.watch.ids.lock();
            platform.watch.ended(pid);
            let process: Option<Arc<ProcessCore>> = platform.processes.lock().remove(&pid);
            if let Some(process) = &process {
                process.set_gone();
            } else if let Some(core) = platform.core(0).filter(|c| c.process.pid() == pid) {
                tracing::error!("the zygote has died: no new program can start");
                core.process.set_gone();
            }
            (process, host::process::reap(pid).unwrap_or(0))
        };
        if let Some(process) = process {
            forks_in_vain(platform, &process);
            let threads = process.threads.lock().clone();
            for core in threads.iter().filter_map(std::sync::Weak::upgrade) {
                if core.parked.load(Ordering::SeqCst) {
                    platform.remove_core(&core);
                }
            }
        }
        const SIGKILL: i32 = 9;
        if status & 0x7f != SIGKILL {
            // Stubs do not end by themselves, but for a guest that made its own do so.
            tracing::debug!(pid, status, "a host process ended");
        }
        executor::run_ready();
    }
}
