//! What was measured, and the table of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::micro::Counters;
use super::side::Side;
use super::{CONDITIONS, Condition};

/// One run of one row: microseconds, or milliseconds for whole programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) time: f64,
    /// CPU time that the whole control group used for one operation, in the same unit.
    pub(super) cpu: Option<f64>,
}

/// What is to be reached: at most so many times the native time, or a time.
enum Goal {
    Times(f64),
    At(f64),
}

/// Goals by row and condition.
const GOALS: [(&str, Condition, Goal); 19] = [
    ("answered-call", Condition::Free, Goal::At(1.0)),
    ("answered-call", Condition::Busy, Goal::At(8.0)),
    ("answered-call", Condition::OneCpu, Goal::At(8.0)),
    ("shim-call", Condition::Free, Goal::Times(1.0)),
    ("map-touch-unmap", Condition::Free, Goal::Times(1.5)),
    ("futex-one-cpu", Condition::Free, Goal::Times(1.2)),
    ("futex-two-cpus", Condition::Free, Goal::Times(1.2)),
    ("fork-exit-wait", Condition::Free, Goal::Times(4.0)),
    ("fork-256-mb", Condition::Free, Goal::Times(2.0)),
    ("vfork-exec-wait", Condition::Free, Goal::Times(4.0)),
    ("stat", Condition::Free, Goal::Times(3.0)),
    ("open-close", Condition::Free, Goal::Times(3.0)),
    ("open-close-tmp", Condition::Free, Goal::Times(3.0)),
    ("pread-4k", Condition::Free, Goal::Times(4.0)),
    ("pwrite-4k", Condition::Free, Goal::Times(4.0)),
    ("find /usr, warm", Condition::Free, Goal::Times(3.0)),
    ("tar of a folder", Condition::Free, Goal::Times(3.0)),
    ("spawn from Python", Condition::Free, Goal::Times(4.0)),
    ("run /bin/true", Condition::Free, Goal::Times(1.0)),
];

type Key = (Condition, &'static str);

/// Everything that was measured.
pub(super) struct Figures {
    /// Rows in the order they came.
    rows: Vec<(String, &'static str)>,
    samples: BTreeMap<String, BTreeMap<Key, Vec<Sample>>>,
    /// Calls made and what the kernel process counted meanwhile.
    counts: BTreeMap<(String, Condition), (u64, Counters)>,
    pub(super) idle: Vec<String>,
    /// What could not be measured, and why.
    pub(super) notes: Vec<String>,
    /// Whether all programs ran and the counters bear the rows out.
    pub(super) sound: bool,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            rows: Vec::new(),
            samples: BTreeMap::new(),
            counts: BTreeMap::new(),
            idle: Vec::new(),
            notes: Vec::new(),
            sound: true,
        }
    }
}

impl Figures {
    /// Adds a run of a micro row.
    pub(super) fn add(&mut self, row: &str, condition: Condition, side: &'static str, sample: Sample) {
        self.add_in(row, "µs", condition, side, sample);
    }

    /// Adds a run of a row in another unit.
    pub(super) fn add_in(
        &mut self,
        row: &str,
        unit: &'static str,
        condition: Condition,
        side: &'static str,
        sample: Sample,
    ) {
        if !self.samples.contains_key(row) {
            self.rows.push((row.to_owned(), unit));
        }
        let sides = self.samples.entry(row.to_owned()).or_default();
        sides.entry((condition, side)).or_default().push(sample);
    }

    /// Adds what the kernel process counted while `calls` were made.
    pub(super) fn count(&mut self, row: &str, condition: Condition, calls: u64, counted: &Counters) {
        let (made, all) = self.counts.entry((row.to_owned(), condition)).or_default();
        *made += calls;
        all.system_calls += counted.system_calls;
        all.spun += counted.spun;
    }

    /// Notes something that should not have happened.
    pub(super) fn fail(&mut self, note: String) {
        super::progress(&note);
        self.notes.push(note);
        self.sound = false;
    }

    fn median(&self, row: &str, key: Key, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.samples.get(row)?.get(&key)?.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// The table, in Markdown.
    pub(super) fn table(&self, sides: &[Side]) -> String {
        let mut out = String::from("\n| row | condition |");
        sides.iter().for_each(|side| out.push_str(&format!(" {} |", side.name)));
        out.push_str(" sallet : native |");
        sides.iter().for_each(|side| out.push_str(&format!(" CPU {} |", side.name)));
        out.push_str(" goal |\n|---|---|");
        out.push_str(&"--:|".repeat(2 * sides.len() + 1));
        out.push_str("---|\n");
        for (row, unit) in &self.rows {
            for condition in CONDITIONS {
                let times: Vec<Option<f64>> =
                    sides.iter().map(|s| self.median(row, (condition, s.name), |s| Some(s.time))).collect();
                if times.iter().all(Option::is_none) {
                    continue;
                }
                let _ = write!(out, "| {row}, {unit} | {} |", condition.name());
                times.iter().for_each(|time| out.push_str(&format!(" {} |", number(*time))));
                let ratio = match times.as_slice() {
                    [Some(native), Some(sallet), ..] => Some(sallet / native),
                    _ => None,
                };
                let _ = write!(out, " {} |", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x")));
                for side in sides {
                    let cpu = self.median(row, (condition, side.name), |sample| sample.cpu);
                    let _ = write!(out, " {} |", number(cpu));
                }
                let _ =
                    writeln!(out, " {} |", verdict(row, condition, times.get(1).copied().flatten(), ratio));
            }
        }
        out
    }

    /// What belongs below the table.
    pub(super) fn remarks(&self) -> String {
        let mut out = String::from(
            "CPU: time that all processes of the side's control group used for one operation, in the row's \
             unit (for micro rows also: seconds for a million).\n",
        );
        for ((row, condition), (calls, counted)) in &self.counts {
            let _ = writeln!(
                out,
                "{row}, {}: {calls} calls were made; the kernel process counted {}, of which its spinner took {}.",
                condition.name(),
                counted.system_calls,
                counted.spun,
            );
        }
        for line in self.idle.iter().chain(&self.notes) {
            let _ = writeln!(out, "{line}");
        }
        out
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 0.1 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn verdict(row: &str, condition: Condition, time: Option<f64>, ratio: Option<f64>) -> String {
    let goal = GOALS.iter().find(|(name, when, _)| *name == row && *when == condition);
    let Some((_, _, goal)) = goal else { return String::new() };
    let (text, reached) = match goal {
        Goal::Times(times) => (format!("≤ {times}x"), ratio.is_some_and(|ratio| ratio <= *times)),
        Goal::At(limit) => (format!("≤ {limit}"), time.is_some_and(|time| time <= *limit)),
    };
    if reached { text } else { format!("{text}: missed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_runs_is_judged() {
        let mut figures = Figures::default();
        for (time, native) in [(0.9, 0.2), (5.0, 0.1), (0.8, 0.3)] {
            let sample = |time| Sample { time, cpu: None };
            figures.add("answered-call", Condition::Free, "sallet", sample(time));
            figures.add("answered-call", Condition::Free, "native", sample(native));
        }
        let median = |side| figures.median("answered-call", (Condition::Free, side), |s| Some(s.time));
        assert_eq!((median("sallet"), median("native")), (Some(0.9), Some(0.2)));
        assert_eq!(verdict("answered-call", Condition::Free, median("sallet"), None), "≤ 1");
        assert_eq!(verdict("answered-call", Condition::Busy, Some(9.0), None), "≤ 8: missed");
        assert_eq!(verdict("stat", Condition::Free, Some(9.0), Some(2.0)), "≤ 3x");
        assert_eq!(verdict("stat", Condition::Busy, Some(9.0), Some(2.0)), "");
    }
}
