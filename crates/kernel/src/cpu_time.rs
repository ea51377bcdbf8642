//! CPU time of guest threads and processes: the host's accounting of the threads that run them.

use host::cpu_clock::{Part, process_cpu_ns};

use crate::process::Usage;
use crate::{Process, Thread};

/// Nanoseconds in the host's clock tick (always 100 a second for user space).
const TICK_NS: u64 = 10_000_000;

/// CPU time of one live thread, nanoseconds.
pub fn thread_ns(thread: &Thread) -> u64 {
    let Some((pid, tid)) = host_ids(thread) else { return 0 };
    let scheduler = host::proc_fs::read(&format!("{pid}/task/{tid}/schedstat")).ok();
    // Its first field is the time on a CPU.
    let exact = scheduler.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    exact.unwrap_or_else(|| {
        let usage = thread_usage(thread);
        usage.user_ns + usage.system_ns
    })
}

/// CPU time of all threads of a process, live and ended, nanoseconds.
pub fn process_ns(process: &Process) -> u64 {
    let before = process.usage.lock().0;
    let live = host_pid(process).and_then(|pid| process_cpu_ns(pid, Part::All).ok()).unwrap_or(0);
    (before.user_ns + before.system_ns).saturating_add(live)
}

/// Use of one thread so far (`RUSAGE_THREAD`).
pub fn thread_usage(thread: &Thread) -> Usage {
    let Some((pid, tid)) = host_ids(thread) else { return Usage::default() };
    read(&format!("{pid}/task/{tid}/stat"))
}

/// Use of all threads of a process, live and ended (`RUSAGE_SELF`).
pub fn process_usage(process: &Process) -> Usage {
    let before = process.usage.lock().0;
    let Some(pid) = host_pid(process) else { return before };
    sum(&before, &with_times(pid, read(&format!("{pid}/stat"))))
}

/// Adds up what the process used in its host process, which is about to end: at exit and at exec.
/// Page faults and memory are left out for those that ended soon, to save time.
pub fn keep(process: &Process) {
    const SOON_NS: u64 = 20_000_000;
    let Some(pid) = raw_host_pid(process) else { return };
    let soon = executor::monotonic_ns().saturating_sub(process.start_ns) < SOON_NS;
    let rest = if soon { Usage::default() } else { read(&format!("{pid}/stat")) };
    let live = with_times(pid, rest);
    let mut usage = process.usage.lock();
    usage.0 = sum(&usage.0, &live);
}

fn sum(before: &Usage, live: &Usage) -> Usage {
    Usage {
        user_ns: before.user_ns.saturating_add(live.user_ns),
        system_ns: before.system_ns.saturating_add(live.system_ns),
        max_rss_kib: before.max_rss_kib.max(live.max_rss_kib),
        minor_faults: before.minor_faults.saturating_add(live.minor_faults),
        major_faults: before.major_faults.saturating_add(live.major_faults),
    }
}

/// With the times of the host process's clocks.
fn with_times(pid: i32, usage: Usage) -> Usage {
    let clock = |part| process_cpu_ns(pid, part).unwrap_or(0);
    split(clock(Part::All), clock(Part::UserTicks), clock(Part::Ticks), &usage)
}

/// Spreads the exact total in the proportion of the ticks, as Linux itself does.
fn split(total: u64, user: u64, both: u64, usage: &Usage) -> Usage {
    let user = (u128::from(total) * u128::from(user)).checked_div(u128::from(both));
    let user = user.map_or(total, |ns| (ns as u64).min(total));
    Usage { user_ns: user, system_ns: total - user, ..*usage }
}

/// The CPU that a thread ran on last; 0 if the host does not tell.
pub fn last_cpu(thread: &Thread) -> u32 {
    let Some((pid, tid)) = host_ids(thread) else { return 0 };
    let text = host::proc_fs::read(&format!("{pid}/task/{tid}/stat")).unwrap_or_default();
    // Field 39, of which the first two end with the name's parenthesis.
    let field = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(39 - 3));
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Whether a thread sleeps: in a call that waits here, or in one that the host answers (futex(2)).
pub fn sleeps(thread: &Thread) -> bool {
    if thread.is_sleeping() {
        return true;
    }
    if !thread.handle().is_some_and(|handle| handle.in_guest_code()) {
        return false;
    }
    matches!(host_state(thread), Some(b'S' | b'D'))
}

/// Whether a thread runs the guest's code, or would on a free CPU.
pub fn runs(thread: &Thread) -> bool {
    !thread.is_sleeping()
        && thread.handle().is_some_and(|handle| handle.in_guest_code())
        && host_state(thread) == Some(b'R')
}

/// The letter that the host has for the state of the thread that runs it.
fn host_state(thread: &Thread) -> Option<u8> {
    let (pid, tid) = host_ids(thread)?;
    let text = host::proc_fs::read(&format!("{pid}/task/{tid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().bytes().next()
}

fn host_pid(process: &Process) -> Option<i32> {
    // What ends is kept already.
    if process.exit_status().is_some() {
        return None;
    }
    raw_host_pid(process)
}

fn raw_host_pid(process: &Process) -> Option<i32> {
    process.any_thread().map(|t| t.mm().space.host_pid()).filter(|pid| *pid > 0)
}

fn host_ids(thread: &Thread) -> Option<(i32, i32)> {
    let pid = thread.mm().space.host_pid();
    let tid = thread.handle()?.host_tid();
    (pid > 0 && tid > 0).then_some((pid, tid))
}

/// Reads a `stat` file; nothing if the process is gone.
fn read(path: &str) -> Usage {
    host::proc_fs::read(path).ok().and_then(|text| parse(&text)).unwrap_or_default()
}

/// The fields of proc_pid_stat(5) after the name in parentheses.
fn parse(stat: &str) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    // `state` is the first here and field 3 there.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Usage {
        user_ns: field(14)?.saturating_mul(TICK_NS),
        system_ns: field(15)?.saturating_mul(TICK_NS),
        max_rss_kib: field(24)?.saturating_mul(4),
        minor_faults: field(10)?,
        major_faults: field(12)?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_the_fields_after_a_name_with_blanks() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 3 0 12 5 0 0 20 0 1 0 55 4096 25 0 0";
        let Some(usage) = super::parse(stat) else { panic!("malformed") };
        assert_eq!(usage.user_ns, 120_000_000);
        assert_eq!(usage.system_ns, 50_000_000);
        assert_eq!((usage.minor_faults, usage.major_faults), (100, 3));
        assert_eq!(usage.max_rss_kib, 100);
        let exact = super::split(340, 120, 170, &usage);
        assert_eq!((exact.user_ns, exact.system_ns), (240, 100));
        let none = super::split(7, 0, 0, &usage);
        assert_eq!((none.user_ns, none.system_ns), (7, 0));
    }
}
