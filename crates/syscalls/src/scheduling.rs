//! Scheduling: sched_setaffinity(2), sched_setscheduler(2), setpriority(2), ioprio_set(2) and relatives.
//!
//! The host schedules guest threads. Affinity and nice values are handed to it; real-time policies are
//! refused, since no sandbox may starve its host.

use std::sync::Arc;

use identity::Capability;
use kernel::Thread;
use kernel::limits::resource;
use kernel::scheduling::Policy;
use linux_abi::Errno;
use linux_abi::time::Timespec;
use rustix::process::Pid;
use rustix::thread::CpuSet;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `SCHED_FIFO`, `SCHED_RR`, `SCHED_DEADLINE`.
const REAL_TIME: [i32; 3] = [1, 2, 6];
const SCHED_RESET_ON_FORK: i32 = 0x4000_0000;

/// The thread of an id, 0 is the caller; `EINVAL`, `ESRCH`.
fn target(cx: &Cx<'_>, tid: i32) -> SysResult<Arc<Thread>> {
    match tid {
        0 => Ok(cx.thread.clone()),
        tid if tid < 0 => Err(Errno::EINVAL.into()),
        tid => Ok(cx.kernel().pids.thread(tid)?),
    }
}

/// Whether the caller may change how the target is scheduled.
fn may_change(cx: &Cx<'_>, target: &Thread) -> SysResult<()> {
    let (mine, theirs) = (&cx.credentials, target.credentials());
    if mine.euid == theirs.uid || mine.euid == theirs.euid || mine.capable(Capability::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}

/// The host's thread, none while it has none.
fn host_thread(thread: &Thread) -> Option<Pid> {
    Pid::from_raw(thread.handle()?.host_tid())
}

/// sched_yield(2), where it is not native.
pub async fn sched_yield(_cx: &mut Cx<'_>) -> SysResult {
    executor::yield_now().await;
    Ok(0)
}

/// The thread of an id for the affinity calls, which know no invalid id: `ESRCH`.
fn affinity_target(cx: &Cx<'_>, tid: i32) -> SysResult<Arc<Thread>> {
    if tid < 0 { Err(Errno::ESRCH.into()) } else { target(cx, tid) }
}

/// sched_getaffinity(2).
pub fn sched_getaffinity(cx: &mut Cx<'_>, tid: i32, len: usize, out: Ptr) -> SysResult {
    let thread = affinity_target(cx, tid)?;
    let set = kernel::scheduling::affinity(&thread)?;
    let mut bytes = [0u8; CpuSet::MAX_CPU / 8];
    let mut highest = 0;
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)) {
        if let Some(byte) = bytes.get_mut(cpu / 8) {
            *byte |= 1 << (cpu % 8);
            highest = cpu;
        }
    }
    // Linux wants whole words and room for every CPU there is.
    let size = (highest / 64 + 1) * 8;
    if !len.is_multiple_of(8) || len < size {
        return Err(Errno::EINVAL.into());
    }
    cx.write_bytes(out, bytes.get(..size).unwrap_or_default())?;
    Ok(size as i64)
}

/// sched_setaffinity(2).
pub fn sched_setaffinity(cx: &mut Cx<'_>, tid: i32, len: usize, mask: Ptr) -> SysResult {
    let bytes = cx.read_bytes(mask, len.min(CpuSet::MAX_CPU / 8))?;
    let thread = affinity_target(cx, tid)?;
    may_change(cx, &thread)?;
    let mut set = CpuSet::new();
    for (index, byte) in bytes.iter().enumerate() {
        for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
            set.set(index * 8 + bit);
        }
    }
    let host = host_thread(&thread).ok_or(Errno::ESRCH)?;
    rustix::thread::sched_setaffinity(Some(host), &set).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    Ok(0)
}

/// sched_getscheduler(2).
pub fn sched_getscheduler(cx: &mut Cx<'_>, tid: i32) -> SysResult {
    let thread = target(cx, tid)?;
    let wishes = *thread.scheduling.lock();
    let flag = if wishes.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 };
    Ok(i64::from(wishes.policy.raw() | flag))
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(cx: &mut Cx<'_>, tid: i32, policy: i32, param: Ptr) -> SysResult {
    if param.is_null() || policy < 0 || tid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = cx.read(param)?;
    set_policy(cx, tid, policy & !SCHED_RESET_ON_FORK, priority, policy & SCHED_RESET_ON_FORK != 0)
}

fn set_policy(cx: &mut Cx<'_>, tid: i32, policy: i32, priority: i32, reset: bool) -> SysResult {
    let thread = target(cx, tid)?;
    if REAL_TIME.contains(&policy) {
        if policy != 6 && !(1..=99).contains(&priority) {
            return Err(Errno::EINVAL.into());
        }
        return Err(Errno::EPERM.into());
    }
    let policy = Policy::from_raw(policy).ok_or(Errno::EINVAL)?;
    if priority != 0 {
        return Err(Errno::EINVAL.into());
    }
    may_change(cx, &thread)?;
    let mut wishes = thread.scheduling.lock();
    wishes.policy = policy;
    wishes.reset_on_fork = reset;
    Ok(0)
}

/// sched_getparam(2).
pub fn sched_getparam(cx: &mut Cx<'_>, tid: i32, param: Ptr) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    target(cx, tid)?;
    cx.write(param, &0i32)?;
    Ok(0)
}

/// sched_setparam(2): the policies that there are have priority 0 only.
pub fn sched_setparam(cx: &mut Cx<'_>, tid: i32, param: Ptr) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let priority: i32 = cx.read(param)?;
    let thread = target(cx, tid)?;
    may_change(cx, &thread)?;
    if priority == 0 { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// sched_get_priority_max(2).
pub fn sched_get_priority_max(_cx: &mut Cx<'_>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => Ok(99),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// sched_get_priority_min(2).
pub fn sched_get_priority_min(_cx: &mut Cx<'_>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => Ok(1),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// sched_rr_get_interval(2): the slice of a normal thread.
pub fn sched_rr_get_interval(cx: &mut Cx<'_>, tid: i32, out: Ptr) -> SysResult {
    target(cx, tid)?;
    cx.write(out, &Timespec { sec: 0, nsec: 4_000_000 })?;
    Ok(0)
}

/// `struct sched_attr`, first version.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_getattr(2).
pub fn sched_getattr(cx: &mut Cx<'_>, tid: i32, out: Ptr, size: u32, flags: u32) -> SysResult {
    let known = size_of::<SchedAttr>() as u32;
    if out.is_null() || flags != 0 || size < known || size > 4096 {
        return Err(Errno::EINVAL.into());
    }
    let thread = target(cx, tid)?;
    let wishes = *thread.scheduling.lock();
    let attr = SchedAttr {
        size: known,
        policy: wishes.policy.raw() as u32,
        flags: u64::from(wishes.reset_on_fork),
        nice: wishes.nice,
        ..SchedAttr::default()
    };
    cx.write(out, &attr)?;
    Ok(0)
}

/// sched_setattr(2).
pub fn sched_setattr(cx: &mut Cx<'_>, tid: i32, attr_at: Ptr, flags: u32) -> SysResult {
    if attr_at.is_null() || flags != 0 || tid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let known = size_of::<SchedAttr>() as u32;
    let size: u32 = cx.read(attr_at)?;
    if size != 0 && size < known {
        cx.write(attr_at, &known)?;
        return Err(Errno::E2BIG.into());
    }
    let attr: SchedAttr = cx.read(attr_at)?;
    // SCHED_FLAG_RESET_ON_FORK alone.
    if attr.flags & !1 != 0 {
        return Err(Errno::EINVAL.into());
    }
    set_policy(cx, tid, attr.policy as i32, attr.priority as i32, attr.flags & 1 != 0)?;
    let thread = target(cx, tid)?;
    set_nice(cx, &thread, attr.nice)?;
    Ok(0)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

/// The threads that setpriority(2) and ioprio_set(2) mean; `EINVAL`, `ESRCH`.
fn selected(cx: &Cx<'_>, which: i32, who: i32) -> SysResult<Vec<Arc<Thread>>> {
    let processes = match which {
        PRIO_PROCESS => return Ok(vec![target(cx, who).map_err(|_| Errno::ESRCH)?]),
        PRIO_PGRP => {
            let pgid = if who == 0 { cx.process().job().pgid } else { who };
            cx.kernel().pids.group(pgid)
        }
        PRIO_USER => cx.kernel().pids.processes(),
        _ => return Err(Errno::EINVAL.into()),
    };
    let uid = if who == 0 { cx.credentials.uid } else { who as u32 };
    let mut threads = Vec::new();
    for process in processes {
        threads.extend(process.threads.lock().values().cloned());
    }
    threads.retain(|t| which != PRIO_USER || t.credentials().uid == uid);
    if threads.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(threads) }
}

/// getpriority(2): the raw call gives 20 - nice, 1 to 40.
pub fn getpriority(cx: &mut Cx<'_>, which: i32, who: i32) -> SysResult {
    let lowest = selected(cx, which, who)?.iter().map(|t| t.scheduling.lock().nice).min();
    Ok(i64::from(20 - lowest.ok_or(Errno::ESRCH)?))
}

/// setpriority(2).
pub fn setpriority(cx: &mut Cx<'_>, which: i32, who: i32, nice: i32) -> SysResult {
    for thread in selected(cx, which, who)? {
        set_nice(cx, &thread, nice)?;
    }
    Ok(0)
}

fn set_nice(cx: &Cx<'_>, thread: &Thread, nice: i32) -> SysResult<()> {
    let nice = nice.clamp(-20, 19);
    may_change(cx, thread)?;
    let now = thread.scheduling.lock().nice;
    // RLIMIT_NICE counts from 1 (nice 19) to 40 (nice -20).
    let floor = 20 - i64::try_from(thread.process().limit(resource::NICE)).unwrap_or(40).min(40);
    if nice < now && i64::from(nice) < floor && !cx.credentials.capable(Capability::SYS_NICE) {
        return Err(Errno::EACCES.into());
    }
    thread.scheduling.lock().nice = nice;
    if let Some(host) = host_thread(thread) {
        // The host may not let a sandbox go up again; the wish is kept.
        let _ = rustix::process::setpriority_process(Some(host), nice);
    }
    Ok(())
}

/// ioprio_get(2).
pub fn ioprio_get(cx: &mut Cx<'_>, which: i32, who: i32) -> SysResult {
    let highest =
        selected(cx, which.wrapping_sub(1), who)?.iter().map(|t| t.scheduling.lock().io_priority).max();
    Ok(i64::from(highest.unwrap_or_default()))
}

/// ioprio_set(2): kept for ioprio_get; the host's I/O scheduler is not told.
pub fn ioprio_set(cx: &mut Cx<'_>, which: i32, who: i32, priority: u32) -> SysResult {
    let (class, level) = (priority >> 13, priority & 7);
    match class {
        0 if level != 0 => return Err(Errno::EINVAL.into()),
        0 | 2 | 3 => {}
        1 => cx.require(Capability::SYS_NICE)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    for thread in selected(cx, which.wrapping_sub(1), who)? {
        may_change(cx, &thread)?;
        thread.scheduling.lock().io_priority = priority;
    }
    Ok(0)
}
