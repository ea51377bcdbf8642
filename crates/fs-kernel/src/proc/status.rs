//! /proc/PID/stat, statm, status, limits.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use kernel::{Kernel, Process, Thread};
use linux_abi::Errno;
use linux_abi::signal::{SIG_DFL, SIG_IGN, SigSet, Signo};
use rustix::thread::CpuSet;

/// The name without its padding.
pub(super) fn comm(thread: &Thread) -> Vec<u8> {
    thread.comm().split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Stands in a text for a name, which holds no such byte and need not be UTF-8.
const NAME: char = '\0';

/// A text with a name where [`NAME`] is.
fn named(text: &str, name: &[u8]) -> Vec<u8> {
    match text.split_once(NAME) {
        Some((before, after)) => [before.as_bytes(), name, after.as_bytes()].concat(),
        None => text.as_bytes().to_vec(),
    }
}

/// A name as status shows it.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in name {
        match byte {
            b'\n' => out.extend(b"\\n"),
            b'\\' => out.extend(b"\\\\"),
            byte => out.push(*byte),
        }
    }
    out
}

/// Pages: total, resident, shared, text, data.
fn pages(thread: &Thread) -> [u64; 5] {
    let pid = thread.mm().space.host_pid();
    let text = host::proc_fs::read(&format!("{pid}/statm")).unwrap_or_default();
    let mut fields = text.split_ascii_whitespace().map(|f| f.parse::<u64>().unwrap_or(0));
    let mut next = || fields.next().unwrap_or(0);
    let (size, resident, shared, code, _lib, data) = (next(), next(), next(), next(), next(), next());
    // The shim reserves address space that it does not use, and exec the gap.
    let gap = thread.mm().gap.clone();
    let (reserved, stacks) =
        ((platform::shim::size() + gap.end - gap.start) / 4096, platform::shim::DATA / 4096);
    [size.saturating_sub(reserved), resident, shared, code, data.saturating_sub(stacks)]
}

fn ticks(ns: u64) -> u64 {
    ns / 10_000_000
}

/// What is left of a process that has ended.
pub(super) fn of_zombie(kernel: &Arc<Kernel>, process: &Arc<Process>, name: &str) -> vfs::Result<Vec<u8>> {
    let job = process.job();
    let start = ticks(process.start_ns.saturating_sub(kernel.boot_ns));
    let ended = *process.state.lock();
    let comm = ended.comm.split(|b| *b == 0).next().unwrap_or_default();
    match name {
        "stat" => {
            let mut out = format!(
                "{} ({NAME}) Z {} {} {} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start}",
                process.pid(),
                process.parent_pid(),
                job.pgid,
                job.sid
            );
            out.push_str(&" 0".repeat(30));
            out.push('\n');
            Ok(named(&out, comm))
        }
        "status" => Ok(named(
            &format!(
                "Name:\t{NAME}\nState:\tZ (zombie)\nTgid:\t{0}\nPid:\t{0}\nPPid:\t{1}\nTracerPid:\t0\nUid:\t{2}\t{2}\t{2}\t{2}\nThreads:\t1\n",
                process.pid(),
                process.parent_pid(),
                ended.uid
            ),
            &escaped(comm),
        )),
        "comm" => Ok(named(&format!("{NAME}\n"), comm)),
        "cmdline" | "environ" | "maps" | "smaps" => Ok(Vec::new()),
        "statm" => Ok(b"0 0 0 0 0 0 0\n".to_vec()),
        "cgroup" => Ok(b"0::/\n".to_vec()),
        _ => Err(Errno::ESRCH),
    }
}

/// /proc/PID/stat.
pub(super) fn stat(
    kernel: &Arc<Kernel>,
    process: &Arc<Process>,
    thread: &Arc<Thread>,
    task: bool,
) -> vfs::Result<Vec<u8>> {
    let job = process.job();
    let usage =
        if task { kernel::cpu_time::thread_usage(thread) } else { kernel::cpu_time::process_usage(process) };
    let waited = process.usage.lock().1;
    let [size, resident, ..] = pages(thread);
    let layout = thread.mm().layout.read().clone();
    let brk = *thread.mm().brk.lock();
    let threads = process.threads.lock().len();
    let start = ticks(process.start_ns.saturating_sub(kernel.boot_ns));
    let letter = if task { thread_letter(process, thread) } else { process.state_letter() };
    let (mask, pending) = {
        let s = thread.signals.lock();
        (s.mask, s.pending.set())
    };
    let (ignored, caught) = dispositions(process);
    let id = if task { thread.tid() } else { process.pid() };
    let tty = kernel.terminal_of(process);
    let mut out = format!("{id} (").into_bytes();
    out.extend(comm(thread));
    let _ = writeln!(
        &mut Text(&mut out),
        ") {letter} {} {} {} {} {} 4194304 {} 0 {} 0 {} {} {} {} 20 0 {threads} 0 {start} {} {resident} {} {} {} {} 0 0 {} {} {} {} 0 0 0 {} {} 0 0 0 0 0 {} {} {} {} {} {} {} 0",
        process.parent_pid(),
        job.pgid,
        job.sid,
        tty.0,
        tty.1,
        usage.minor_faults,
        usage.major_faults,
        ticks(usage.user_ns),
        ticks(usage.system_ns),
        ticks(waited.user_ns),
        ticks(waited.system_ns),
        size * 4096,
        u64::MAX,
        layout.start_code,
        layout.end_code,
        layout.start_stack,
        pending.0 & 0x7fff_ffff,
        mask.0 & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        process.exit_signal.load(Ordering::Relaxed),
        kernel::cpu_time::last_cpu(thread),
        layout.start_data,
        layout.end_data,
        brk.start,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end,
    );
    Ok(out)
}

/// Lets `write!` append to bytes that need not be UTF-8.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// Ignored and caught signals.
fn dispositions(process: &Process) -> (SigSet, SigSet) {
    let actions = process.actions();
    let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
    for sig in (1..=64).filter_map(Signo::new) {
        match actions.get(sig).handler {
            SIG_DFL => {}
            SIG_IGN => ignored = ignored.with(sig),
            _ => caught = caught.with(sig),
        }
    }
    (ignored, caught)
}

/// /proc/PID/statm.
pub(super) fn statm(thread: &Thread) -> vfs::Result<Vec<u8>> {
    let [size, resident, shared, code, data] = pages(thread);
    Ok(format!("{size} {resident} {shared} {code} 0 {data} 0\n").into_bytes())
}

/// CPUs that a thread may run on: what the host says, else all.
fn allowed_cpus(thread: &Thread) -> Vec<usize> {
    match kernel::scheduling::affinity(thread) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => (0..thread.kernel().config.cpus).collect(),
    }
}

/// The letter of /proc/PID/task/TID/stat.
fn thread_letter(process: &Arc<Process>, thread: &Arc<Thread>) -> char {
    if thread.ptrace.is_stopped() {
        return 't';
    }
    let stopped = process.state.lock().stopped.is_some();
    match kernel::cpu_time::sleeps(thread) {
        _ if stopped => 'T',
        true => 'S',
        false => 'R',
    }
}

/// /proc/PID/status, and that of a thread if `task`.
pub(super) fn status(process: &Arc<Process>, thread: &Arc<Thread>, task: bool) -> vfs::Result<Vec<u8>> {
    let c = thread.credentials();
    let letter = if task { thread_letter(process, thread) } else { process.state_letter() };
    let word = match letter {
        'R' => "running",
        'T' => "stopped",
        't' => "tracing stop",
        'Z' => "zombie",
        _ => "sleeping",
    };
    let job = process.job();
    let [size, resident, shared, code, data] = pages(thread);
    let (mask, pending) = {
        let s = thread.signals.lock();
        (s.mask, s.pending.set())
    };
    let shared_pending = process.shared_pending.lock().set();
    let queued = process.shared_pending.lock().len();
    let (ignored, caught) = dispositions(process);
    let groups: String = c.groups.iter().map(|g| format!("{g} ")).collect();
    let limit = process.limit(kernel::limits::resource::SIGPENDING);
    let cpus = allowed_cpus(thread);
    let (cpu_mask, cpu_list) =
        (crate::cpus::mask(&cpus, process.kernel().config.cpus), crate::cpus::list(&cpus));
    let threads = process.threads.lock().len();
    let (pid, tid) = (process.pid(), thread.tid());
    let filtered = u32::from(thread.kernel().config.seccomp.is_some());
    let (mode, filters) = thread.seccomp.status();
    let tracer = thread.ptrace.tracer_pid();
    let out = format!(
        "Name:\t{NAME}\nUmask:\t{:04o}\nState:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t{}\nTracerPid:\t{tracer}\n\
Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{}\nGroups:\t{groups}\nNStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n\
VmPeak:\t{:8} kB\nVmSize:\t{:8} kB\nVmLck:\t       0 kB\nVmPin:\t       0 kB\nVmHWM:\t{:8} kB\nVmRSS:\t{:8} kB\n\
RssAnon:\t{:8} kB\nRssFile:\t{:8} kB\nRssShmem:\t       0 kB\nVmData:\t{:8} kB\nVmStk:\t     132 kB\nVmExe:\t{:8} kB\nVmLib:\t       0 kB\nVmPTE:\t      64 kB\nVmSwap:\t       0 kB\n\
HugetlbPages:\t       0 kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\nThreads:\t{threads}\nSigQ:\t{queued}/{limit}\n\
SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n\
CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\n\
NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n{}\
Cpus_allowed:\t{cpu_mask}\nCpus_allowed_list:\t{cpu_list}\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n",
        thread.fs().umask(),
        process.parent_pid(),
        c.uid,
        c.euid,
        c.suid,
        c.fsuid,
        c.gid,
        c.egid,
        c.sgid,
        c.fsgid,
        thread.files().capacity(),
        job.pgid,
        job.sid,
        size * 4,
        size * 4,
        resident * 4,
        resident * 4,
        resident.saturating_sub(shared) * 4,
        shared * 4,
        data * 4,
        code * 4,
        pending.0,
        shared_pending.0,
        mask.0,
        ignored.0,
        caught.0,
        c.inheritable.0,
        c.permitted.0,
        c.effective.0,
        c.bounding.0,
        c.ambient.0,
        u8::from(c.no_new_privs),
        mode.max(filtered * 2),
        filters + filtered,
        speculation(),
    );
    Ok(named(&out, &escaped(&comm(thread))))
}

/// How the host's CPUs may be led to guess, which is the same for all processes of the sandbox and for this one: they
/// have filters of system calls, and ask for nothing else.
fn speculation() -> &'static str {
    static ROWS: OnceLock<String> = OnceLock::new();
    ROWS.get_or_init(|| {
        let own = format!("{}/status", rustix::process::getpid().as_raw_nonzero());
        let text = host::proc_fs::read(&own).unwrap_or_default();
        let rows = text.lines().filter(|line| line.starts_with("Speculation"));
        rows.flat_map(|line| [line, "\n"]).collect()
    })
}

/// /proc/PID/limits.
pub(super) fn limits(process: &Process) -> vfs::Result<Vec<u8>> {
    const ROWS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let shown = |v: u64| if v == u64::MAX { "unlimited".to_owned() } else { v.to_string() };
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let limits = *process.limits.read();
    for ((name, unit), limit) in ROWS.iter().zip(limits.0) {
        // Linux pads a unit, but not where there is none.
        let unit = if unit.is_empty() { String::new() } else { format!("{unit:<10}") };
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit}", shown(limit.cur), shown(limit.max));
    }
    Ok(out.into_bytes())
}

/// /proc/PID/sched: what is known of it here.
pub(super) fn sched(process: &Process, thread: &Thread) -> Vec<u8> {
    let wishes = *thread.scheduling.lock();
    let ms = |ns: u64| format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
    let head = format!("{NAME} ({}, #threads: {})", thread.tid(), process.threads.lock().len());
    let out = format!(
        "{head}\n{}\nse.exec_start                                : {:>20}\nse.sum_exec_runtime                          : {:>20}\npolicy                                       : {:>20}\nprio                                         : {:>20}\n",
        "-".repeat(67),
        ms(thread.start_ns),
        ms(kernel::cpu_time::thread_ns(thread)),
        wishes.policy.raw(),
        120 + wishes.nice,
    );
    named(&out, &comm(thread))
}
