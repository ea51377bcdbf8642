//! The table of figures, printed and kept in the document.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};

use super::rows::{PLACES, Place, ROWS, Row};
use super::sides::Side;
use crate::{apps, run};

const DOCUMENT: &str = "docs/network.md";
/// The end of the table's head with two sides.
const HEAD: &str = "|---|---|---|--:|--:|--:|--:|--:|---|\n";

/// What the runs of one row gave on one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Figure {
    /// Units of work a second.
    pub(super) rates: Vec<f64>,
    /// Microseconds of CPU time for one unit.
    pub(super) cpu: Vec<f64>,
}

impl Figure {
    fn medians(&self) -> (Option<f64>, Option<f64>) {
        let of = |values: &[f64]| (!values.is_empty()).then(|| apps::median(&mut values.to_vec()));
        (of(&self.rates), of(&self.cpu))
    }
}

/// All rows, in the order they were measured in.
#[derive(Default)]
pub(super) struct Table(Vec<(Place, &'static str, &'static str, Vec<Figure>)>);

impl Table {
    pub(super) fn add(&mut self, place: Place, row: &Row, figures: Vec<Figure>) {
        self.0.push((place, row.name, row.unit, figures));
    }

    /// The table, in Markdown.
    pub(super) fn text(&self, sides: &[Side]) -> String {
        let mut out = String::from("| from | row | unit |");
        sides.iter().for_each(|side| out.push_str(&format!(" {}, 1/s |", side.name())));
        out.push_str(" ratio |");
        sides.iter().for_each(|side| out.push_str(&format!(" CPU {}, µs |", side.name())));
        out.push_str(" goal |\n|---|---|---|");
        out.push_str(&"--:|".repeat(2 * sides.len() + 1));
        out.push_str("---|\n");
        for (place, row, unit, figures) in &self.0 {
            out.push_str(&line(*place, row, unit, figures));
        }
        out
    }

    /// Writes the rows into the document, with runc and Sallet alone; other rows stay.
    pub(super) fn write(&self, sides: &[Side]) -> Result<()> {
        let path = run::workspace().join(DOCUMENT);
        let text = std::fs::read_to_string(&path).context(DOCUMENT)?;
        let new = self.0.iter().map(|(place, row, unit, figures)| {
            let two = figures.get(..sides.len().min(2)).unwrap_or_default();
            line(*place, row, unit, two)
        });
        std::fs::write(&path, with_lines(&text, new)?)?;
        Ok(())
    }
}

/// The document with these lines of the table, each in its place.
fn with_lines(text: &str, new: impl Iterator<Item = String>) -> Result<String> {
    let (before, table, after) = apps::around_table(text, HEAD).context(DOCUMENT)?;
    let mut lines: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for line in table.split_inclusive('\n').map(str::to_owned).chain(new) {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (place, row) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let place = PLACES.iter().position(|known| known.name() == place);
        // A row that is no longer measured goes.
        let row = ROWS.iter().position(|known| known.name == row);
        if let Some(key) = place.zip(row) {
            lines.insert(key, line);
        }
    }
    let table: String = lines.into_values().collect();
    Ok(format!("{before}{HEAD}{table}{after}"))
}

fn line(place: Place, row: &str, unit: &str, figures: &[Figure]) -> String {
    let medians: Vec<_> = figures.iter().map(Figure::medians).collect();
    let mut out = format!("| {} | {row} | {unit} |", place.name());
    medians.iter().for_each(|(rate, _)| out.push_str(&format!(" {} |", number(*rate))));
    let ratio = ratio(&medians);
    out.push_str(&format!(" {} |", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))));
    medians.iter().for_each(|(_, cpu)| out.push_str(&format!(" {} |", number(*cpu))));
    let missed = if ratio.is_some_and(|ratio| ratio >= place.goal()) { "" } else { ": missed" };
    let _ = writeln!(out, " ≥ {}{missed} |", place.goal());
    out
}

/// Sallet's rate by runc's.
fn ratio(medians: &[(Option<f64>, Option<f64>)]) -> Option<f64> {
    match medians {
        [(Some(theirs), _), (Some(ours), _), ..] => Some(ours / theirs),
        _ => None,
    }
}

/// One row in one line, while the others are still measured.
pub(super) fn told(row: &Row, sides: &[Side], figures: &[Figure]) -> String {
    let medians: Vec<_> = figures.iter().map(Figure::medians).collect();
    let mut out = String::new();
    for (side, (rate, cpu)) in sides.iter().zip(&medians) {
        let _ = write!(out, "{} {}/s (CPU {} µs), ", side.name(), number(*rate), number(*cpu));
    }
    let ratio = ratio(&medians).map_or("-".into(), |ratio| format!("{ratio:.2}"));
    let _ = write!(out, "a unit is a {}: {ratio}", row.unit);
    out
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_replace_their_own_and_stand_in_order() {
        let figure = |rate, cpu| Figure { rates: vec![rate], cpu: vec![cpu] };
        let old = "| inside | GET-1 | request | 1 | 2 | 2.00 | 3 | 4 | ≥ 1 |\n";
        let text = format!("# A\n| x |\n{HEAD}{old}| inside | gone | x |\n\nend\n");
        let new = line(Place::Inside, "SET-1", "request", &[figure(200.0, 10.0), figure(150.0, 5.0)]);
        assert_eq!(new, "| inside | SET-1 | request | 200 | 150 | 0.75 | 10.0 | 5.00 | ≥ 1: missed |\n");
        let other = line(Place::Published, "SET-1", "request", &[figure(200.0, 10.0), figure(150.0, 5.0)]);
        assert!(other.ends_with("| ≥ 0.7 |\n"));
        let written = with_lines(&text, [other.clone(), new.clone()].into_iter()).expect("a table");
        assert_eq!(written, format!("# A\n| x |\n{HEAD}{new}{old}{other}\nend\n"));
    }
}
