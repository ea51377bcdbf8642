//! The micro rows: `guest-tests bench` on each side, stepped row by row so that CPU time and the kernel
//! process's own counters are read between rows, while nothing runs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::figures::{Figures, Sample};
use super::side::Side;
use super::{Condition, Options, progress};

/// The longest that one row may take; forks of a large process on a busy machine take their time.
const ROW_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn measure(
    condition: Condition,
    sides: &[Side],
    options: &Options,
    figures: &mut Figures,
) -> Result<()> {
    for run in 0..options.runs {
        if options.is_late() {
            figures.notes.push(format!("{}: {run} of {} runs, time is over", condition.name(), options.runs));
            break;
        }
        progress(&format!("{}: run {} of {}", condition.name(), run + 1, options.runs));
        for side in sides {
            if let Err(error) = once(condition, side, options, figures) {
                figures.fail(format!("{}, {}: {error:#}", side.name, condition.name()));
            }
        }
    }
    Ok(())
}

/// All rows on one side.
fn once(condition: Condition, side: &Side, options: &Options, figures: &mut Figures) -> Result<()> {
    let time = options.row_time.as_millis().to_string();
    let mut words = vec![options.program.as_str(), "bench", "--step", "--time", &time];
    match options.rows.as_slice() {
        [] => words.push("all"),
        rows => words.extend(rows.iter().map(String::as_str)),
    }
    let mut guest = Stepped::start(side.command(&words))?;
    let counters = |pid: u32| (side.name == "sallet").then(|| Counters::of(&options.sallet, pid)).flatten();
    loop {
        let line = guest.line()?;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["ready", row] => {
                let row = (*row).to_owned();
                let counted = matches!(row.as_str(), "answered-call" | "shim-call");
                let before = counted.then(|| counters(guest.child.id())).flatten();
                let cpu = side.cpu_seconds();
                guest.go()?;
                let line = guest.line()?;
                let spent = side.cpu_seconds().zip(cpu).map(|(after, before)| after - before);
                let words: Vec<&str> = line.split(' ').collect();
                let [_, time, operations] = words.as_slice() else { bail!("{row}: {line}") };
                let (time, operations): (f64, f64) = (time.parse()?, operations.parse()?);
                let cpu = spent.map(|seconds| seconds * 1e6 / operations.max(1.0));
                figures.add(&row, condition, side.name, Sample { time, cpu });
                if let Some(before) = before {
                    let after = counters(guest.child.id()).context("no counters from the kernel process")?;
                    figures.count(&row, condition, operations as u64, &after.since(&before));
                }
            }
            ["skip", row, reason @ ..] => {
                let note = format!("{row}: not measured ({}, {})", reason.join(" "), side.name);
                if !figures.notes.contains(&note) {
                    figures.notes.push(note);
                }
            }
            ["end"] => return guest.end(),
            _ => bail!("unexpected: {line}"),
        }
    }
}

/// A program that waits for a line before each step; killed when it goes out of scope.
struct Stepped {
    child: Child,
    to: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Stepped {
    fn start(mut command: Command) -> Result<Stepped> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let to = child.stdin.take();
        let from = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Stepped { child, to, lines })
    }

    fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(ROW_LIMIT).context("no answer in time")
    }

    fn go(&mut self) -> Result<()> {
        self.to.as_mut().context("no input")?.write_all(b"\n").context("the program has ended")
    }

    fn end(mut self) -> Result<()> {
        self.go()?;
        drop(self.to.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("{status}") }
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counters of a kernel process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// System calls that came to it.
    pub(super) system_calls: u64,
    /// Of all requests, those that its spinner took.
    pub(super) spun: u64,
}

impl Counters {
    /// As `sallet events --stats` tells them.
    fn of(sallet: &str, pid: u32) -> Option<Counters> {
        let output = Command::new(sallet).args(["events", "--stats", &format!("do-{pid}")]).output().ok()?;
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        let counter = |name: &str| value["kernel"][name].as_u64();
        Some(Counters { system_calls: counter("system_calls")?, spun: counter("spun")? })
    }

    fn since(&self, before: &Counters) -> Counters {
        Counters {
            system_calls: self.system_calls.saturating_sub(before.system_calls),
            spun: self.spun.saturating_sub(before.spun),
        }
    }
}
