//! `cargo xtask bench`: one table, the host (or runc) beside Sallet, and runsc where it is installed.
//!
//! Every side runs the same dynamic program, `guest-tests bench`, and the same whole programs; a figure is
//! the median of interleaved runs. Each row comes under three conditions: with a free CPU, with every CPU
//! busy, and with one CPU's worth of quota. Beside the times, the CPU time that the whole control group of a
//! side used for one operation, so that the cost of a spinner is seen. That, and the quota, need a control
//! group of our own (root, or a delegated one); what could not be measured is said at the end.

mod figures;
mod idle;
mod micro;
pub(crate) mod side;
mod whole;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run;
use figures::Figures;
use side::{Cgroup, Side};

/// Under what a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Free,
    Busy,
    OneCpu,
}

const CONDITIONS: [Condition; 3] = [Condition::Free, Condition::Busy, Condition::OneCpu];

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Condition::Free => "free CPU",
            Condition::Busy => "all CPUs busy",
            Condition::OneCpu => "--cpus=1",
        }
    }
}

/// How much is measured.
struct Options {
    sallet: String,
    /// The program of the micro rows.
    program: String,
    runs: usize,
    /// Time of one micro row in one run.
    row_time: Duration,
    /// Time over which the idle sandbox is watched.
    idle_time: Duration,
    /// Past this nothing new is begun.
    deadline: Instant,
    quick: bool,
    /// Micro rows wanted; all if empty.
    rows: Vec<String>,
}

/// Prints the table.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let options = Options::parse(words)?;
    let mut figures = Figures::default();
    let sides = Side::all(&options.sallet, &mut figures.notes);
    let began = Instant::now();
    for condition in CONDITIONS {
        let burners = Burners::new(condition)?;
        let unlimited = sides.iter().find(|side| side.cgroup.is_none());
        if let Some(side) = unlimited.filter(|_| condition == Condition::OneCpu) {
            let name = condition.name();
            figures.notes.push(format!("{name}: not measured, no control group to limit ({})", side.name));
            continue;
        }
        sides.iter().for_each(|side| side.limit(condition == Condition::OneCpu));
        let load = Load::new(&sides);
        micro::measure(condition, &sides, &options, &mut figures)?;
        if options.rows.is_empty() && (condition == Condition::Free || !options.quick) {
            whole::measure(condition, &sides, &options, &mut figures)?;
        }
        if let Some(others) = load.others(&sides).filter(|_| condition == Condition::Free) {
            figures.notes.push(format!("other programs used {others:.2} CPUs while a CPU should be free"));
        }
        drop(burners);
    }
    sides.iter().for_each(|side| side.limit(false));
    if options.rows.is_empty() {
        idle::measure(&sides, &options, &mut figures)?;
    }
    println!("{}", figures.table(&sides));
    println!("{}", figures.remarks());
    eprintln!("bench: {} s", began.elapsed().as_secs());
    Ok(figures.sound)
}

impl Options {
    fn parse(words: &[&str]) -> Result<Options> {
        let mut sallet = run::target_dir().join("release/sallet");
        let (mut runs, mut quick, mut rows) = (None, false, Vec::new());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match *word {
                "--runs" => runs = Some(run::number(word, value()?)?),
                "--sallet" => sallet = PathBuf::from(value()?),
                "--quick" => quick = true,
                "--row" => rows.push((*value()?).to_owned()),
                other => {
                    bail!("unknown option {other}: bench [--quick] [--runs N] [--row NAME] [--sallet PATH]")
                }
            }
        }
        ensure!(sallet.exists(), "{} is not there: cargo build --release", sallet.display());
        progress("building the program that is measured");
        run::cargo(&["build", "--release", "--quiet", "--package", "guest-tests"])?;
        let seconds = Duration::from_secs;
        Ok(Options {
            sallet: sallet.canonicalize()?.display().to_string(),
            program: run::target_dir().join("release/guest-tests").canonicalize()?.display().to_string(),
            runs: runs.unwrap_or(if quick { 3 } else { 5 }),
            row_time: Duration::from_millis(if quick { 30 } else { 150 }),
            idle_time: seconds(if quick { 10 } else { 60 }),
            deadline: Instant::now() + seconds(if quick { 45 } else { 290 }),
            quick,
            rows,
        })
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }
}

fn progress(text: &str) {
    eprintln!("bench: {text}");
}

/// Processes that only use up CPU time; killed when they go out of scope.
struct Burners(Vec<Child>);

impl Burners {
    fn new(condition: Condition) -> Result<Burners> {
        let mut burners = Burners(Vec::new());
        if condition == Condition::Busy {
            for _ in 0..std::thread::available_parallelism()?.get() {
                let mut command = Command::new("sh");
                command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
                burners.0.push(command.spawn().context("sh")?);
            }
        }
        Ok(burners)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the machine does beside the measurement.
struct Load {
    began: Instant,
    machine: Option<f64>,
    sides: Option<f64>,
}

impl Load {
    fn new(sides: &[Side]) -> Load {
        Load { began: Instant::now(), machine: machine_seconds(), sides: all_seconds(sides) }
    }

    /// CPUs that others used on average.
    fn others(&self, sides: &[Side]) -> Option<f64> {
        let all = machine_seconds()? - self.machine?;
        let ours = all_seconds(sides)? - self.sides?;
        Some(((all - ours) / self.began.elapsed().as_secs_f64()).max(0.0))
    }
}

fn all_seconds(sides: &[Side]) -> Option<f64> {
    sides.iter().map(|side| side.cgroup.as_ref().and_then(Cgroup::cpu_seconds)).sum()
}

/// CPU seconds that all programs used since the machine started.
pub(crate) fn machine_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().next()?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system, then idle and iowait, then interrupts.
    let busy: f64 = ticks.iter().take(3).chain(ticks.iter().skip(5).take(2)).sum();
    Some(busy / 100.0)
}
