//! `cargo xtask bench`: one table, the host beside Sallet (and runsc where it is installed).
//!
//! Every side runs the same dynamic program, `guest-tests bench`. A figure is the median of the
//! interleaved runs, each of which is a median of many batches. Three conditions: a free CPU, every
//! CPU busy, and one CPU's worth of quota. Below each, the CPU seconds that the whole cgroup of a side
//! used, so that the cost of a spinner is seen (needs root and the cpu controller of cgroup v1 or v2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run;

const LIMIT: Duration = Duration::from_secs(120);

/// One way to run a program.
struct Side {
    name: &'static str,
    words: Vec<String>,
    /// Where its processes are counted and limited.
    cgroup: Option<PathBuf>,
}

/// Prints the table.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let (mut runs, mut sallet) = (3, run::target_dir().join("release/sallet"));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--runs" => runs = words.next().context("--runs wants a number")?.parse()?,
            "--sallet" => sallet = words.next().context("--sallet wants a path")?.into(),
            other => bail!("unknown option {other}"),
        }
    }
    ensure!(sallet.exists(), "{} is not there: cargo build --release", sallet.display());
    let sallet = sallet.canonicalize()?.display().to_string();
    run::cargo(&["build", "--release", "--quiet", "--package", "guest-tests"])?;
    let program = run::target_dir().join("release/guest-tests").canonicalize()?.display().to_string();

    let mut sides = vec![
        Side { name: "native", words: Vec::new(), cgroup: None },
        Side { name: "sallet", words: vec![sallet.clone(), "do".into(), "--".into()], cgroup: None },
    ];
    if run::limited(Command::new("runsc"), LIMIT).is_ok() {
        let words = ["runsc", "--network=none", "do"].map(str::to_owned).to_vec();
        sides.push(Side { name: "runsc", words, cgroup: None });
    }
    for side in &mut sides {
        side.cgroup = cgroup(side.name);
    }
    let cpus = std::thread::available_parallelism()?.get();
    for condition in ["a free CPU", "all CPUs busy", "--cpus=1"] {
        let mut busy = Busy(Vec::new());
        if condition == "all CPUs busy" {
            for _ in 0..cpus {
                busy.0.push(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
            }
        }
        let quota = condition == "--cpus=1";
        if quota && sides.iter().any(|s| s.cgroup.is_none()) {
            println!("\n{condition}: skipped, no cgroup to limit");
            continue;
        }
        sides.iter().for_each(|side| set_quota(side, quota));
        table(condition, &sides, &program, runs)?;
    }
    sides.iter().for_each(|side| set_quota(side, false));
    whole_programs(&sides, runs)?;
    idle(&sallet)?;
    for side in &sides {
        if let Some(path) = &side.cgroup {
            let _ = accounts(path).map(std::fs::remove_dir);
            let _ = std::fs::remove_dir(path);
        }
    }
    Ok(true)
}

/// Processes that only use up CPU time; killed when they go out of scope.
struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A fresh cgroup with the cpu controller, where this machine lets us make one.
fn cgroup(name: &str) -> Option<PathBuf> {
    for base in ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        let path = Path::new(base).join(format!("sallet-bench-{name}"));
        let made = path.is_dir() || std::fs::create_dir(&path).is_ok();
        if made && (path.join("cpu.cfs_quota_us").exists() || path.join("cpu.max").exists()) {
            return Some(path);
        }
        let _ = std::fs::remove_dir(&path);
    }
    None
}

/// The cgroup that counts CPU time, where cgroup v1 keeps it apart from the one that limits.
fn accounts(cgroup: &Path) -> Option<PathBuf> {
    let path = Path::new("/sys/fs/cgroup/cpuacct").join(cgroup.file_name()?);
    (path.is_dir() || std::fs::create_dir(&path).is_ok()).then_some(path)
}

fn set_quota(side: &Side, one_cpu: bool) {
    if let Some(path) = &side.cgroup {
        let _ = std::fs::write(path.join("cpu.cfs_quota_us"), if one_cpu { "100000" } else { "-1" });
        let _ = std::fs::write(path.join("cpu.max"), if one_cpu { "100000 100000" } else { "max 100000" });
    }
}

/// CPU seconds that the cgroup of a side used so far.
fn cpu_seconds(side: &Side) -> Option<f64> {
    let path = side.cgroup.as_ref()?;
    let path = accounts(path).unwrap_or_else(|| path.clone());
    if let Ok(text) = std::fs::read_to_string(path.join("cpuacct.usage")) {
        return Some(text.trim().parse::<f64>().ok()? / 1e9);
    }
    let text = std::fs::read_to_string(path.join("cpu.stat")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
    Some(line.parse::<f64>().ok()? / 1e6)
}

fn command(side: &Side, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let enter = match &side.cgroup {
        Some(path) => {
            let accounts = accounts(path).unwrap_or_else(|| path.clone());
            let (path, accounts) = (path.display(), accounts.display());
            format!("echo $$ >{path}/cgroup.procs; echo $$ >{accounts}/cgroup.procs; exec \"$@\"")
        }
        None => "exec \"$@\"".to_owned(),
    };
    command.args(["-c", &enter, "sh"]).args(&side.words).args(words);
    command
}

/// Without the cgroup: entering one takes longer than a short program.
fn plain(side: &Side, words: &[&str]) -> Command {
    let mut all = side.words.iter().map(String::as_str).chain(words.iter().copied());
    let mut command = Command::new(all.next().unwrap_or("true"));
    command.args(all);
    command
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(condition: &str, sides: &[Side], program: &str, runs: usize) -> Result<()> {
    let mut rows: Vec<String> = Vec::new();
    let mut figures: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
    let before: Vec<Option<f64>> = sides.iter().map(cpu_seconds).collect();
    for _ in 0..runs {
        for side in sides {
            let finished = run::limited(command(side, &[program, "bench", "all"]), LIMIT)?;
            if !finished.status.is_some_and(|s| s.success()) {
                println!("{}: {:?} {}", side.name, finished.status, finished.stderr.trim());
            }
            for line in finished.stdout.lines() {
                let Some((row, value)) = line.split_once(' ') else { continue };
                if !rows.iter().any(|r| r == row) {
                    rows.push(row.to_owned());
                }
                figures.entry((row.to_owned(), side.name)).or_default().push(value.parse()?);
            }
        }
    }
    print!("\n{condition} (µs)       ");
    sides.iter().for_each(|side| print!("{:>12}", side.name));
    println!("{:>10}", "ratio");
    for row in &rows {
        let mut values: Vec<f64> = Vec::new();
        for side in sides {
            values.push(median(figures.entry((row.clone(), side.name)).or_default()));
        }
        print!("{row:<24}");
        values.iter().for_each(|v| print!("{v:>12.2}"));
        println!("{:>9.2}x", values[1] / values[0]);
    }
    print!("{:<24}", "CPU seconds");
    for (side, before) in sides.iter().zip(before) {
        match (cpu_seconds(side), before) {
            (Some(after), Some(before)) => print!("{:>12.2}", after - before),
            _ => print!("{:>12}", "-"),
        }
    }
    println!();
    Ok(())
}

/// Programs from start to end: milliseconds.
fn whole_programs(sides: &[Side], runs: usize) -> Result<()> {
    print!("\nwhole programs (ms)     ");
    sides.iter().for_each(|side| print!("{:>12}", side.name));
    println!("{:>10}", "ratio");
    // The walk is timed inside, when the names are warm.
    let walk =
        "find /usr >/dev/null; a=$(date +%s%N); find /usr >/dev/null; b=$(date +%s%N); echo $(((b-a)/1000))";
    for (row, words) in [("/bin/true", ["/bin/true", "", ""]), ("find /usr, warm", ["sh", "-c", walk])] {
        let mut values = vec![Vec::new(); sides.len()];
        for _ in 0..runs.max(5) {
            for (side, values) in sides.iter().zip(&mut values) {
                let start = Instant::now();
                let words: Vec<&str> = words.iter().copied().filter(|w| !w.is_empty()).collect();
                let finished = run::limited(plain(side, &words), LIMIT)?;
                let whole = start.elapsed().as_secs_f64() * 1e3;
                values.push(finished.stdout.trim().parse::<f64>().map_or(whole, |us| us / 1e3));
            }
        }
        let medians: Vec<f64> = values.iter_mut().map(|v| median(v)).collect();
        print!("{row:<24}");
        medians.iter().for_each(|v| print!("{v:>12.2}"));
        println!("{:>9.2}x", medians[1] / medians[0]);
    }
    Ok(())
}

/// What a sandbox costs that only sleeps: PSS of all its processes, and CPU time in ten seconds.
fn idle(sallet: &str) -> Result<()> {
    let mut child = Command::new(sallet).args(["do", "--", "sleep", "30"]).stdin(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(1));
    let processes = family(child.id())?;
    let before: u64 = processes.iter().map(|pid| ticks(*pid)).sum();
    std::thread::sleep(Duration::from_secs(10));
    let after: u64 = processes.iter().map(|pid| ticks(*pid)).sum();
    let pss: u64 = processes.iter().map(|pid| pss_kib(*pid)).sum();
    child.kill()?;
    child.wait()?;
    println!(
        "\nidle sandbox: {} processes, {:.1} MB PSS, {} ms of CPU in 10 s",
        processes.len(),
        pss as f64 / 1024.0,
        after.saturating_sub(before) * 10
    );
    Ok(())
}

/// A process and its descendants.
fn family(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        if let Some(parent) = rest.split_whitespace().nth(1).and_then(|w| w.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    Ok(family)
}

/// CPU time of a process in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|w| w.parse::<u64>().ok()).sum()
}

fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|w| w.parse().ok()).unwrap_or(0)
}
