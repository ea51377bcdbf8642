//! CPU time of guest threads and processes: the host's accounting of the threads that run them.

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
    let (before, _) = *process.usage.lock();
    let live = host_pid(process).and_then(|pid| host::cpu_clock::process_cpu_ns(pid).ok()).unwrap_or(0);
    (before.user_ns + before.system_ns).saturating_add(live)
}

/// Use of one thread so far (`RUSAGE_THREAD`).
pub fn thread_usage(thread: &Thread) -> Usage {
    let Some((pid, tid)) = host_ids(thread) else { return Usage::default() };
    read(&format!("{pid}/task/{tid}/stat"))
}

/// Use of all threads of a process, live and ended (`RUSAGE_SELF`).
pub fn process_usage(process: &Process) -> Usage {
    let (before, _) = *process.usage.lock();
    let Some(pid) = host_pid(process) else { return before };
    // The host counts ended threads of a host process; `before` those that exec left behind.
    let mut live = read(&format!("{pid}/stat"));
    if let Ok(total) = host::cpu_clock::process_cpu_ns(pid) {
        live = split(total, &live);
    }
    Usage {
        user_ns: before.user_ns + live.user_ns,
        system_ns: before.system_ns + live.system_ns,
        max_rss_kib: before.max_rss_kib.max(live.max_rss_kib),
        minor_faults: before.minor_faults + live.minor_faults,
        major_faults: before.major_faults + live.major_faults,
    }
}

/// The CPU that a thread ran on last; 0 if the host does not tell.
pub fn last_cpu(thread: &Thread) -> u32 {
    let Some((pid, tid)) = host_ids(thread) else { return 0 };
    let text = host::proc_fs::read(&format!("{pid}/task/{tid}/stat")).unwrap_or_default();
    // Field 39, of which the first two end with the name's parenthesis.
    let field = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(39 - 3));
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Spreads the exact total in the proportion of the ticks, as Linux itself does.
fn split(total: u64, ticks: &Usage) -> Usage {
    let sum = u128::from(ticks.user_ns) + u128::from(ticks.system_ns);
    let user = (u128::from(total) * u128::from(ticks.user_ns)).checked_div(sum).map_or(total, |ns| ns as u64);
    Usage { user_ns: user, system_ns: total - user.min(total), ..*ticks }
}

fn host_pid(process: &Process) -> Option<i32> {
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
        let exact = super::split(340, &usage);
        assert_eq!((exact.user_ns, exact.system_ns), (240, 100));
    }
}
