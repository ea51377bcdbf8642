//! Resource limits and use: prlimit64(2), getrlimit(2), setrlimit(2), getrusage(2), times(2).

use std::sync::Arc;

use identity::Capability;
use kernel::Process;
use kernel::fd_table::NR_OPEN;
use kernel::limits::resource;
use linux_abi::Errno;
use linux_abi::process::Rlimit;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::wait::Rusage;
use crate::{Cx, SysResult};

/// A `struct rlimit` of the guest, in a form that can be read.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Pair {
    cur: u64,
    max: u64,
}

fn read_limit(cx: &mut Cx<'_>, at: Ptr) -> SysResult<Rlimit> {
    let pair: Pair = cx.read(at)?;
    Ok(Rlimit { cur: pair.cur, max: pair.max })
}

/// The new limit, if it may be set: `EINVAL`, `EPERM`.
fn check(cx: &Cx<'_>, number: usize, old: &Rlimit, new: &Rlimit) -> SysResult<()> {
    if new.cur > new.max {
        return Err(Errno::EINVAL.into());
    }
    if number == resource::NOFILE && new.max > NR_OPEN as u64 {
        return Err(Errno::EPERM.into());
    }
    if new.max > old.max {
        cx.require(Capability::SYS_RESOURCE)?;
    }
    Ok(())
}

/// Gets and sets in one step.
fn exchange(cx: &mut Cx<'_>, target: &Arc<Process>, number: u32, new: Option<Rlimit>) -> SysResult<Rlimit> {
    let number = number as usize;
    let thread = target.any_thread();
    let mut limits = target.limits.write();
    let slot = limits.0.get_mut(number).ok_or(Errno::EINVAL)?;
    let old = *slot;
    if let Some(new) = new {
        check(cx, number, &old, &new)?;
        *slot = new;
        let of_memory = [resource::AS, resource::DATA, resource::STACK, resource::MEMLOCK];
        if let Some(thread) = thread.filter(|_| of_memory.contains(&number)) {
            kernel::limits::enforce(&limits, &thread);
        }
        drop(limits);
        if number == resource::CPU {
            kernel::timers::watch_cpu_limit(target);
        }
        if number == resource::FSIZE {
            cx.kernel().posting.end_lost_logs();
        }
    }
    Ok(old)
}

/// getrlimit(2).
pub fn getrlimit(cx: &mut Cx<'_>, number: u32, out: Ptr) -> SysResult {
    let process = cx.process().clone();
    let old = exchange(cx, &process, number, None)?;
    cx.write(out, &old)?;
    Ok(0)
}

/// setrlimit(2).
pub fn setrlimit(cx: &mut Cx<'_>, number: u32, new: Ptr) -> SysResult {
    let new = read_limit(cx, new)?;
    let process = cx.process().clone();
    exchange(cx, &process, number, Some(new))?;
    Ok(0)
}

/// prlimit64(2).
pub fn prlimit64(cx: &mut Cx<'_>, pid: i32, number: u32, new: Ptr, old: Ptr) -> SysResult {
    let new = if new.is_null() { None } else { Some(read_limit(cx, new)?) };
    let target: Arc<Process> = match pid {
        0 => cx.process().clone(),
        pid => cx.kernel().pids.thread(pid)?.process().clone(),
    };
    if target.pid() != cx.process().pid() && !cx.credentials.capable(Capability::SYS_RESOURCE) {
        let theirs = target.any_thread().ok_or(Errno::ESRCH)?.credentials();
        let mine = &cx.credentials;
        let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == mine.uid)
            && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == mine.gid);
        if !same {
            return Err(Errno::EPERM.into());
        }
    }
    let before = exchange(cx, &target, number, new)?;
    if !old.is_null() {
        cx.write(old, &before)?;
    }
    Ok(0)
}

/// getrusage(2).
pub fn getrusage(cx: &mut Cx<'_>, who: i32, out: Ptr) -> SysResult {
    let usage = match who {
        0 => kernel::cpu_time::process_usage(cx.process()),
        1 => kernel::cpu_time::thread_usage(cx.thread),
        -1 => cx.process().usage.lock().1,
        _ => return Err(Errno::EINVAL.into()),
    };
    cx.write(out, &Rusage::from_usage(&usage))?;
    Ok(0)
}

/// Nanoseconds in a clock tick (`sysconf(_SC_CLK_TCK)` is 100).
const TICK_NS: u64 = 10_000_000;

/// times(2).
pub fn times(cx: &mut Cx<'_>, out: Ptr) -> SysResult {
    if !out.is_null() {
        let own = kernel::cpu_time::process_usage(cx.process());
        let children = cx.process().usage.lock().1;
        let ticks = [own.user_ns, own.system_ns, children.user_ns, children.system_ns]
            .map(|ns| (ns / TICK_NS) as i64);
        cx.write(out, &ticks)?;
    }
    Ok((executor::monotonic_ns() / TICK_NS) as i64)
}
