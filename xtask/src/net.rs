//! `cargo xtask net`: the same network programs under runc and under Sallet, side by side.
//!
//! Each side is one container with all servers of `tests/apps/net`. They are asked from three places: inside
//! the same container over loopback, from a container of runc beside it, and from the host through published
//! ports. Runs alternate between the runtimes; a figure is the median of work done in a second, and beside it
//! stands the CPU time that the whole control group of the server's container used for one unit of work
//! (inside that is server and client together). A ratio above 1 says that Sallet did more.

mod rows;
mod sides;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::bench;
use crate::run::{self, Counts};
use crate::{apps, net::rows::Place};
use rows::{PLACES, ROWS, Row};
use sides::{Side, Sides};
use table::{Figure, Table};

/// What CI runs: whether the work is done, not how fast.
const QUICK: [&str; 8] = [
    "inside/SET-50",
    "inside/nginx-1K",
    "inside/pgbench-unix",
    "inside/TCP_RR",
    "inside/TCP_CRR",
    "inside/iperf3",
    "container/GET-500-P16",
    "published/nginx-100K",
];

struct Options<'a> {
    /// Parts of `PLACE/ROW`; all rows if empty.
    wanted: Vec<&'a str>,
    quick: bool,
    runs: usize,
    /// Seconds of one row in one run.
    seconds: u32,
    write: bool,
    sallet: PathBuf,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Result<Options<'a>> {
        let mut options = Options {
            wanted: Vec::new(),
            quick: false,
            runs: 3,
            seconds: 2,
            write: false,
            sallet: run::target_dir().join("release/sallet"),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match *word {
                "--quick" => (options.quick, options.runs, options.seconds) = (true, 1, 1),
                "--runs" => options.runs = run::number(word, value()?)?,
                "--seconds" => options.seconds = run::number(word, value()?)?,
                "--write" => options.write = true,
                "--sallet" => options.sallet = PathBuf::from(value()?),
                row if !row.starts_with('-') => options.wanted.push(row),
                other => bail!("unknown option {other}; see cargo xtask --help"),
            }
        }
        let sallet = &options.sallet;
        ensure!(sallet.exists(), "{} is not there: cargo build --release", sallet.display());
        Ok(options)
    }

    fn wants(&self, place: Place, row: &Row) -> bool {
        let name = format!("{}/{}", place.name(), row.name);
        if self.wanted.is_empty() {
            return !self.quick || QUICK.contains(&name.as_str());
        }
        // The name of a row means that one and not those that begin like it.
        self.wanted
            .iter()
            .any(|part| row.name == *part || name == *part || name.starts_with(&format!("{part}/")))
    }
}

/// Measures what the options ask for; whether all work was done.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let options = Options::parse(words)?;
    let work: Vec<(Place, &Row)> = PLACES
        .iter()
        .flat_map(|place| ROWS.iter().map(|row| (*place, row)))
        .filter(|(place, row)| row.from(*place) && options.wants(*place, row))
        .collect();
    ensure!(!work.is_empty(), "no row is called {}", options.wanted.join(" or "));
    let own = apps::register(&options.sallet)?;
    apps::base_image()?;
    apps::build("net")?;
    let mut runtimes = vec!["runc".to_owned(), own];
    if !options.quick && apps::docker_knows("runsc")? {
        runtimes.push("runsc".to_owned());
    }
    let sides = Sides::start(&runtimes)?;
    let (began, machine, ours) = (Instant::now(), bench::machine_seconds(), sides.cpu_seconds());
    let mut table = Table::default();
    let mut counts = Counts::default();
    for (place, row) in work {
        let mut figures: Vec<Figure> = sides.all.iter().map(|_| Figure::default()).collect();
        let mut trouble = None;
        for turn in 0..options.runs {
            let mut order: Vec<(&Side, &mut Figure)> = sides.all.iter().zip(&mut figures).collect();
            if turn % 2 == 1 {
                order.reverse();
            }
            for (side, figure) in order {
                if let Err(error) = once(&sides, side, place, row, &options, figure) {
                    trouble = Some(format!("under {}: {error:#}", side.runtime));
                }
            }
        }
        let name = format!("{}/{}", place.name(), row.name);
        match trouble {
            Some(why) => {
                println!("FAIL net/{name}: {}", why.trim().replace('\n', " "));
                counts.failed += 1;
            }
            None => {
                println!("ok net/{name}: {}", table::told(row, &sides.all, &figures));
                counts.passed += 1;
            }
        }
        std::io::stdout().flush()?;
        table.add(place, row, figures);
    }
    let all = bench::machine_seconds().zip(machine).map(|(after, before)| after - before);
    let ours = sides.cpu_seconds().zip(ours).map(|(after, before)| after - before);
    println!("\n{}", table.text(&sides.all));
    if let Some((all, ours)) = all.zip(ours) {
        let others = ((all - ours) / began.elapsed().as_secs_f64()).max(0.0);
        println!("Beside the containers, {others:.2} CPUs were used.");
    }
    if options.write {
        table.write(&sides.all)?;
    }
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// One run of one row on one side.
fn once(
    sides: &Sides,
    side: &Side,
    place: Place,
    row: &Row,
    options: &Options<'_>,
    figure: &mut Figure,
) -> Result<()> {
    let rate = figure.rates.last().copied().unwrap_or(row.guess);
    let before = side.cpu_seconds();
    let (units, seconds) = sides.load(side, place, row, options.seconds, rate)?;
    let used = side.cpu_seconds().zip(before).map(|(after, before)| after - before);
    ensure!(units > 0.0 && seconds > 0.0, "no work was done");
    figure.rates.push(units / seconds);
    figure.cpu.extend(used.map(|used| used * 1e6 / units));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_wanted_by_name_or_place() {
        let sallet = std::env::current_exe().expect("a file").display().to_string();
        let row = |name: &str| ROWS.iter().find(|row| row.name == name).expect("a row");
        let options = Options::parse(&["SET-50", "container", "--sallet", &sallet]).expect("options");
        assert!(options.wants(Place::Inside, row("SET-50")) && options.wants(Place::Container, row("GET-1")));
        assert!(
            !options.wants(Place::Inside, row("SET-500")) && !options.wants(Place::Published, row("GET-1"))
        );
        for name in QUICK {
            let (place, row_name) = name.split_once('/').expect("a place");
            let place = PLACES.into_iter().find(|known| known.name() == place).expect("a place");
            assert!(row(row_name).from(place), "{name}");
        }
    }
}
