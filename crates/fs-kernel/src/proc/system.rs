//! The files of /proc that tell of the whole system.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::Kernel;
use kernel::memory::Memory;
use linux_abi::fs::{major, minor};

use crate::synthetic::Fixed;

/// Adds them.
pub(super) fn files(kernel: &Arc<Kernel>, dir: Fixed) -> Fixed {
    let k = || kernel.clone();
    let (k1, k2, k3, k4, k5, k6) = (k(), k(), k(), k(), k(), k());
    dir.with_made("meminfo", move || meminfo(&k1))
        .with_made("cpuinfo", move || cpuinfo(&k2))
        .with_made("stat", move || stat(&k3))
        .with_made("uptime", move || uptime(&k4))
        .with_made("loadavg", move || loadavg(&k5))
        .with_made("version", version)
        .with_text("cmdline", "\n")
        .with_text("filesystems", "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\tcgroup2\nnodev\tmqueue\n\text4\nnodev\toverlay\n")
        .with_text("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n")
        .with_text("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
        .with_text("partitions", "major minor  #blocks  name\n\n")
        .with_text("diskstats", "")
        .with_text("modules", "")
        .with_text("interrupts", "")
        .with_text("softirqs", "")
        .with_text("consoles", "")
        .with_text("misc", "")
        .with_text("crypto", "")
        .with_made("locks", move || locks(&k6))
        .with_text("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\ncpu\t0\t1\t1\ncpuacct\t0\t1\t1\nmemory\t0\t1\t1\npids\t0\t1\t1\n")
        .with_made("vmstat", || b"nr_free_pages 0\npgfault 0\npgmajfault 0\n".to_vec())
}

/// proc_locks(5), as far as anybody reads it.
fn locks(kernel: &Kernel) -> Vec<u8> {
    const MOST: usize = 100_000;
    let mut out = String::new();
    for (number, lock) in (1..).zip(kernel.io.locks.list(MOST)) {
        let kind = match (lock.range, lock.pid) {
            (None, _) => "FLOCK ",
            (_, Some(_)) => "POSIX ",
            (_, None) => "OFDLCK",
        };
        let (access, (dev, ino)) = (if lock.write { "WRITE" } else { "READ " }, lock.file);
        let (major, minor, pid) = (major(dev), minor(dev), lock.pid.unwrap_or(-1));
        let (start, end) = lock.range.unwrap_or((0, i64::MAX as u64));
        let end = if end >= i64::MAX as u64 { "EOF".to_owned() } else { end.to_string() };
        let _ = writeln!(
            out,
            "{number}: {kind} ADVISORY  {access} {pid} {major:02x}:{minor:02x}:{ino} {start} {end}"
        );
    }
    out.into_bytes()
}

fn meminfo(kernel: &Kernel) -> Vec<u8> {
    let Memory { total, free, available, buffers, cached } = kernel.memory();
    let anon = total.saturating_sub(free).saturating_sub(buffers).saturating_sub(cached);
    let mut out = String::new();
    let rows: [(&str, u64); 24] = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", buffers),
        ("Cached", cached),
        ("SwapCached", 0),
        ("Active", anon),
        ("Inactive", cached),
        ("Active(anon)", anon),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", cached),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", anon),
        ("Mapped", 0),
        ("Shmem", 0),
        ("CommitLimit", total),
        ("Committed_AS", anon),
        ("VmallocTotal", 34_359_738_367 << 10),
    ];
    for (name, bytes) in rows {
        let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), bytes >> 10);
    }
    out.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n");
    out.into_bytes()
}

/// What the host's cpuinfo says of a CPU, read once: the guest sees CPUID as it is anyway.
fn host_cpu() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| {
        let leaf = |leaf: u32| std::arch::x86_64::__cpuid(leaf);
        let vendor = leaf(0);
        let bytes = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
        let vendor_id = String::from_utf8_lossy(&bytes).into_owned();
        let one = leaf(1).eax;
        let family = ((one >> 8) & 15) + if (one >> 8) & 15 == 15 { (one >> 20) & 255 } else { 0 };
        let model = ((one >> 4) & 15) | ((one >> 12) & 0xf0);
        let mut name = Vec::new();
        if leaf(0x8000_0000).eax >= 0x8000_0004 {
            for l in 0x8000_0002..=0x8000_0004u32 {
                let r = leaf(l);
                name.extend([r.eax, r.ebx, r.ecx, r.edx].map(u32::to_le_bytes).concat());
            }
        }
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').trim().to_owned();
        format!(
            "vendor_id\t: {vendor_id}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\nstepping\t: {}\n",
            one & 15
        )
    })
}

fn flags() -> String {
    let (one, seven) = (std::arch::x86_64::__cpuid(1), std::arch::x86_64::__cpuid_count(7, 0));
    let names: [(u32, u32, &str); 36] = [
        (one.edx, 0, "fpu"),
        (one.edx, 4, "tsc"),
        (one.edx, 8, "cx8"),
        (one.edx, 15, "cmov"),
        (one.edx, 19, "clflush"),
        (one.edx, 23, "mmx"),
        (one.edx, 24, "fxsr"),
        (one.edx, 25, "sse"),
        (one.edx, 26, "sse2"),
        (one.edx, 28, "ht"),
        (one.ecx, 0, "pni"),
        (one.ecx, 1, "pclmulqdq"),
        (one.ecx, 9, "ssse3"),
        (one.ecx, 12, "fma"),
        (one.ecx, 13, "cx16"),
        (one.ecx, 19, "sse4_1"),
        (one.ecx, 20, "sse4_2"),
        (one.ecx, 22, "movbe"),
        (one.ecx, 23, "popcnt"),
        (one.ecx, 25, "aes"),
        (one.ecx, 26, "xsave"),
        (one.ecx, 28, "avx"),
        (one.ecx, 29, "f16c"),
        (one.ecx, 30, "rdrand"),
        (one.ecx, 31, "hypervisor"),
        (seven.ebx, 0, "fsgsbase"),
        (seven.ebx, 3, "bmi1"),
        (seven.ebx, 5, "avx2"),
        (seven.ebx, 8, "bmi2"),
        (seven.ebx, 9, "erms"),
        (seven.ebx, 16, "avx512f"),
        (seven.ebx, 18, "rdseed"),
        (seven.ebx, 19, "adx"),
        (seven.ebx, 29, "sha_ni"),
        (seven.ecx, 9, "vaes"),
        (seven.ecx, 22, "rdpid"),
    ];
    let mut out = String::from("lm constant_tsc nopl");
    for (register, bit, name) in names {
        if register >> bit & 1 == 1 {
            out.push(' ');
            out.push_str(name);
        }
    }
    out
}

fn cpuinfo(kernel: &Kernel) -> Vec<u8> {
    let mut out = String::new();
    let cpus = kernel.config.cpus;
    for cpu in 0..cpus {
        let _ = writeln!(
            out,
            "processor\t: {cpu}\n{}microcode\t: 0x1\ncpu MHz\t\t: 2000.000\ncache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\napicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {}\nbogomips\t: 4000.00\nclflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 48 bits physical, 48 bits virtual\npower management:\n",
            host_cpu(),
            flags()
        );
    }
    out.into_bytes()
}

/// User and system time of all live processes, in clock ticks.
fn ticks(kernel: &Kernel) -> (u64, u64) {
    let mut sum = (0, 0);
    for process in kernel.pids.processes() {
        let usage = kernel::cpu_time::process_usage(&process);
        sum.0 += usage.user_ns / 10_000_000;
        sum.1 += usage.system_ns / 10_000_000;
    }
    sum
}

fn stat(kernel: &Kernel) -> Vec<u8> {
    let (user, system) = ticks(kernel);
    let cpus = kernel.config.cpus.max(1) as u64;
    let up = (executor::monotonic_ns() - kernel.boot_ns) / 10_000_000;
    let idle = (up * cpus).saturating_sub(user + system);
    let mut out = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        let _ = writeln!(out, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0", user / cpus, system / cpus, idle / cpus);
    }
    let boot = (executor::realtime_ns() - (executor::monotonic_ns() - kernel.boot_ns)) / 1_000_000_000;
    let forks = kernel.forks.load(Ordering::Relaxed) + 1;
    let running = kernel.pids.processes().iter().filter(|p| p.state_letter() == 'R').count().max(1);
    let _ = write!(
        out,
        "intr 0\nctxt 0\nbtime {boot}\nprocesses {forks}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    out.into_bytes()
}

fn uptime(kernel: &Kernel) -> Vec<u8> {
    let (user, system) = ticks(kernel);
    let up = (executor::monotonic_ns() - kernel.boot_ns) / 10_000_000;
    let idle = (up * kernel.config.cpus.max(1) as u64).saturating_sub(user + system);
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100).into_bytes()
}

fn loadavg(kernel: &Kernel) -> Vec<u8> {
    let processes = kernel.pids.processes();
    let running = processes.iter().filter(|p| p.state_letter() == 'R').count();
    format!("0.00 0.00 0.00 {running}/{} {}\n", kernel.pids.thread_count(), kernel.pids.last()).into_bytes()
}

/// The release that uname(2) gives as well.
pub(crate) const RELEASE: &str = "6.12.0-sallet";
/// The version that uname(2) gives as well.
pub(crate) const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Sallet";

fn version() -> Vec<u8> {
    format!("Linux version {RELEASE} (sallet) (rustc) {VERSION}\n").into_bytes()
}
