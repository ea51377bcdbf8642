//! wait4(2), waitid(2).

use std::sync::Arc;

use executor::Events;
use kernel::process::{ExitStatus, Process};
use kernel::wait::Report;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::{SigInfo, Signo, si};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, Restart, SysResult};

const WNOHANG: i32 = 1;
const WUNTRACED: i32 = 2;
const WSTOPPED: i32 = 2;
const WEXITED: i32 = 4;
const WCONTINUED: i32 = 8;
const WNOWAIT: i32 = 0x0100_0000;
const WNOTHREAD: i32 = 0x2000_0000;
const WALL: i32 = 0x4000_0000;
const WCLONE: i32 = i32::MIN;

/// Whom to wait for.
#[derive(Clone, Copy)]
enum Which {
    Any,
    Pid(i32),
    Group(i32),
}

/// What was found.
#[derive(Clone, Copy)]
struct Found {
    pid: i32,
    uid: u32,
    event: Event,
    usage: Rusage,
}

#[derive(Clone, Copy)]
enum Event {
    Exited(ExitStatus),
    Stopped(Signo),
    Continued,
    /// A tracee's stop, as wait(2) tells it above bit 8.
    Trapped(i32),
}

/// `struct rusage`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rusage {
    /// User and system time as two `struct timeval`.
    pub times: [i64; 4],
    /// `ru_maxrss` in KiB.
    pub max_rss: i64,
    /// ixrss, idrss, isrss: unused by Linux.
    pub unused: [i64; 3],
    /// Minor and major faults.
    pub faults: [i64; 2],
    /// nswap, inblock, oublock, msgsnd, msgrcv, nsignals, nvcsw, nivcsw.
    pub rest: [i64; 8],
}

impl Rusage {
    /// From the kernel's own count.
    pub fn from_usage(usage: &kernel::process::Usage) -> Rusage {
        let split = |ns: u64| ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000 / 1000) as i64);
        let (us, uu) = split(usage.user_ns);
        let (ss, su) = split(usage.system_ns);
        Rusage {
            times: [us, uu, ss, su],
            max_rss: usage.max_rss_kib as i64,
            faults: [usage.minor_faults as i64, usage.major_faults as i64],
            ..Rusage::default()
        }
    }
}

/// wait4(2).
pub async fn wait4(cx: &mut Cx<'_>, pid: i32, status: Ptr, options: i32, rusage: Ptr) -> SysResult {
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WALL | WCLONE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let which = match pid {
        -1 => Which::Any,
        0 => Which::Group(cx.process().job().pgid),
        i32::MIN => return Err(Errno::ESRCH.into()),
        p if p < 0 => Which::Group(-p),
        p => Which::Pid(p),
    };
    let Some(found) = wait(cx, which, options | WEXITED).await? else { return Ok(0) };
    let word = match found.event {
        Event::Exited(end) => end.wait_status(),
        Event::Stopped(sig) => (sig.raw() << 8) | 0x7f,
        Event::Continued => 0xffff,
        Event::Trapped(status) => (status << 8) | 0x7f,
    };
    if !status.is_null() {
        cx.write(status, &word)?;
    }
    if !rusage.is_null() {
        cx.write(rusage, &found.usage)?;
    }
    Ok(i64::from(found.pid))
}

/// waitid(2).
pub async fn waitid(
    cx: &mut Cx<'_>,
    id_type: i32,
    id: i32,
    info: Ptr,
    options: i32,
    rusage: Ptr,
) -> SysResult {
    let known = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE;
    if options & !known != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut nonblock = false;
    let which = match id_type {
        0 => Which::Any,
        1 if id > 0 => Which::Pid(id),
        2 if id > 0 => Which::Group(id),
        2 if id == 0 => Which::Group(cx.process().job().pgid),
        3 => {
            let file = cx.file(id)?;
            nonblock = file.flags().contains(OpenFlags::NONBLOCK) && options & WNOHANG == 0;
            Which::Pid(kernel::pidfd::pid_of(&file).ok_or(Errno::EBADF)?)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let found = wait(cx, which, if nonblock { options | WNOHANG } else { options }).await?;
    if found.is_none() && nonblock {
        return Err(Errno::EAGAIN.into());
    }
    if !info.is_null() {
        let bytes = match &found {
            None => SigInfo { signo: 0, errno: 0, code: 0, pad: 0, fields: [0; 112] },
            Some(found) => {
                let (code, status) = match found.event {
                    Event::Exited(ExitStatus::Exited(code)) => (si::CLD_EXITED, code & 0xff),
                    Event::Exited(ExitStatus::Signaled { signal, core }) => {
                        (if core { si::CLD_DUMPED } else { si::CLD_KILLED }, signal.raw())
                    }
                    Event::Stopped(sig) => (si::CLD_STOPPED, sig.raw()),
                    Event::Trapped(status) => (si::CLD_TRAPPED, status),
                    Event::Continued => (si::CLD_CONTINUED, Signo::SIGCONT.raw()),
                };
                SigInfo::child(code, found.pid, found.uid, status, 0, 0)
            }
        };
        // Linux writes the fields of the union that waitid has, not the whole siginfo.
        cx.write_bytes(info, bytes.as_bytes().get(..32).unwrap_or_default())?;
    }
    if let (Some(found), false) = (&found, rusage.is_null()) {
        cx.write(rusage, &found.usage)?;
    }
    Ok(0)
}

async fn wait(cx: &mut Cx<'_>, which: Which, options: i32) -> SysResult<Option<Found>> {
    let process = cx.process().clone();
    let tid = cx.thread.tid();
    let queue = process.child_queue.clone();
    if options & WNOHANG != 0 {
        return match look(&process, tid, which, options) {
            Err(Errno::EAGAIN) => Ok(None),
            done => Ok(Some(done?)),
        };
    }
    cx.wait_until(&queue, Events::IN, None, Restart::IfSaRestart, |_| {
        Ok(look(&process, tid, which, options)?)
    })
    .await
}

/// One look at the children: `ECHILD` if none fits, `EAGAIN` if none has something to tell.
fn look(process: &Arc<Process>, tid: i32, which: Which, options: i32) -> Result<Found, Errno> {
    let mut any = false;
    if let Some(found) = look_at_tracees(process, which, options, &mut any) {
        return Ok(found);
    }
    // __WNOTHREAD: not those of the other threads.
    let own = (options & WNOTHREAD != 0).then(|| process.children_of(tid));
    let mut children = process.children.lock();
    let mut found = None;
    for child in children.values() {
        if own.as_ref().is_some_and(|own| own.binary_search(&child.pid()).is_err()) {
            continue;
        }
        let fits = match which {
            Which::Any => true,
            Which::Pid(pid) => child.pid() == pid,
            Which::Group(pgid) => child.job().pgid == pgid,
        };
        // __WCLONE asks for children that do not send SIGCHLD, __WALL for both.
        let is_clone = child.exit_signal.load(std::sync::atomic::Ordering::Relaxed) != Signo::SIGCHLD.raw();
        if !fits || (options & WALL == 0 && is_clone != (options & WCLONE != 0)) {
            continue;
        }
        any = true;
        let mut state = child.state.lock();
        let event = if let Some(end) = state.zombie {
            (options & WEXITED != 0).then_some(Event::Exited(end))
        } else {
            match state.report.filter(|_| !child.is_leader_traced_by(process)) {
                Some(Report::Stopped(sig)) if options & WUNTRACED != 0 => Some(Event::Stopped(sig)),
                Some(Report::Continued) if options & WCONTINUED != 0 => Some(Event::Continued),
                _ => None,
            }
        };
        let Some(event) = event else { continue };
        if options & WNOWAIT == 0 {
            state.report = None;
        }
        let uid = if state.zombie.is_some() { Some(state.uid) } else { None };
        drop(state);
        let uid = uid.or_else(|| child.any_thread().map(|t| t.credentials().uid)).unwrap_or_default();
        let (own, waited) = *child.usage.lock();
        let total = kernel::process::Usage {
            user_ns: own.user_ns + waited.user_ns,
            system_ns: own.system_ns + waited.system_ns,
            max_rss_kib: own.max_rss_kib.max(waited.max_rss_kib),
            minor_faults: own.minor_faults + waited.minor_faults,
            major_faults: own.major_faults + waited.major_faults,
        };
        found = Some((Found { pid: child.pid(), uid, event, usage: Rusage::from_usage(&total) }, total));
        break;
    }
    let Some((found, total)) = found else {
        return Err(if any { Errno::EAGAIN } else { Errno::ECHILD });
    };
    if matches!(found.event, Event::Exited(_)) && options & WNOWAIT == 0 {
        children.remove(&found.pid);
        drop(children);
        process.kernel().pids.remove_process(found.pid);
        let mut usage = process.usage.lock();
        usage.1.user_ns += total.user_ns;
        usage.1.system_ns += total.system_ns;
        usage.1.max_rss_kib = usage.1.max_rss_kib.max(total.max_rss_kib);
        usage.1.minor_faults += total.minor_faults;
        usage.1.major_faults += total.major_faults;
    }
    Ok(found)
}

/// Tracees that have stopped, and those that ended without being children.
fn look_at_tracees(process: &Arc<Process>, which: Which, options: i32, any: &mut bool) -> Option<Found> {
    let fits = |tid: i32, pgid: Option<i32>| match which {
        Which::Any => true,
        Which::Pid(pid) => pid == tid,
        Which::Group(group) => pgid == Some(group),
    };
    let tracees: Vec<_> = {
        let mut tracing = process.tracing.lock();
        if tracing.tracees.is_empty() && tracing.ends().is_empty() {
            return None;
        }
        let end = tracing.ends().iter().position(|(tid, ..)| fits(*tid, None));
        if let Some(at) = end.filter(|_| options & WEXITED != 0) {
            let (tid, status, uid) = *tracing.ends().get(at)?;
            if options & WNOWAIT == 0 {
                tracing.forget_end(at, &process.kernel().pids);
            }
            return Some(Found { pid: tid, uid, event: Event::Exited(status), usage: Rusage::default() });
        }
        tracing.tracees.values().cloned().collect()
    };
    for thread in tracees {
        if !fits(thread.tid(), Some(thread.process().job().pgid)) {
            continue;
        }
        *any = true;
        let mut trace = thread.ptrace.trace.lock();
        let Some(stop) = trace.as_mut().and_then(|t| t.stop.as_mut()).filter(|s| !s.reported) else {
            continue;
        };
        stop.reported = options & WNOWAIT == 0;
        let event = Event::Trapped(stop.status);
        let uid = thread.credentials().uid;
        return Some(Found { pid: thread.tid(), uid, event, usage: Rusage::default() });
    }
    None
}
