//! What a sandbox costs that only sleeps.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::figures::Figures;
use super::side::{Cgroup, Side};
use super::{Options, progress};

/// Goals: MB in all processes together, and milliseconds of CPU time in a minute.
const MEMORY_MB: f64 = 8.0;
const CPU_MS: f64 = 10.0;

/// Memory (PSS) of all its processes, and the CPU time they use.
pub(super) fn measure(sides: &[Side], options: &Options, figures: &mut Figures) -> Result<()> {
    let Some(side) = sides.iter().find(|side| side.name == "sallet") else { return Ok(()) };
    let seconds = options.idle_time.as_secs();
    progress(&format!("an idle sandbox for {seconds} s"));
    let sleep = (seconds + 30).to_string();
    let mut command: Command = side.command(&["sleep", &sleep]);
    let mut child = command.stdin(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(1));
    let processes = match &side.cgroup {
        Some(cgroup) => Cgroup::processes(cgroup),
        None => family(child.id())?,
    };
    let used = || match side.cpu_seconds() {
        Some(seconds) => seconds * 1e3,
        // Ticks of 10 ms.
        None => processes.iter().map(|pid| ticks(*pid)).sum::<u64>() as f64 * 10.0,
    };
    let before = used();
    std::thread::sleep(options.idle_time);
    let cpu = used() - before;
    let sizes: Vec<f64> = processes.iter().map(|pid| pss_kib(*pid) as f64 / 1024.0).collect();
    child.kill()?;
    child.wait()?;
    let (memory, unknown) = (sizes.iter().sum::<f64>(), sizes.iter().filter(|size| **size == 0.0).count());
    figures.idle.push(format!(
        "idle sandbox: {} processes, {memory:.1} MB PSS (goal {MEMORY_MB}{}), {cpu:.1} ms of CPU in {seconds} s \
         (goal {CPU_MS} in 60{})",
        processes.len(),
        if memory > MEMORY_MB { ": missed" } else { "" },
        if cpu > CPU_MS { ": missed" } else { "" },
    ));
    if unknown > 0 {
        figures.notes.push(format!("idle sandbox: the memory of {unknown} processes could not be read"));
    }
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
