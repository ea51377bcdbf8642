//! Runs the guest programs on the host's Linux, then inside a sandbox, and compares.
//!
//! `guest-tests/known-failures.txt` is a ratchet: a case on it may fail inside, one that passes must
//! leave it, and any other failure fails the run. A case that fails once and passes twice when it is tried again
//! is told of as UNSTEADY; more than two of those in a series have failed (see `run::UNSTEADY`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{self, Finished};

const LIMIT: Duration = Duration::from_secs(20);

struct Options {
    native: bool,
    sandbox: bool,
    sallet: Option<PathBuf>,
    /// The guest programs, built already.
    program: Option<PathBuf>,
    filter: String,
    /// Flags of sallet.
    with: Vec<String>,
    limit: Duration,
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        native: true,
        sandbox: true,
        sallet: None,
        program: None,
        filter: String::new(),
        with: Vec::new(),
        limit: LIMIT,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--native" => options.sandbox = false,
            "--sandbox" => options.native = false,
            "--sallet" => options.sallet = Some(words.next().context("--sallet wants a path")?.into()),
            "--program" => options.program = Some(words.next().context("--program wants a path")?.into()),
            "--filter" => options.filter = (*words.next().context("--filter wants a text")?).into(),
            "--with" => options.with.push((*words.next().context("--with wants a flag")?).into()),
            "--limit" => {
                options.limit =
                    Duration::from_secs(run::number(word, words.next().context("--limit wants seconds")?)?);
            }
            other => bail!("unknown option {other}; see cargo xtask --help"),
        }
    }
    Ok(options)
}

#[derive(PartialEq)]
enum Outcome {
    Passed,
    Skipped,
    Failed(String),
}

/// Runs what the options ask for; whether all is as it should be.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let options = parse(words)?;
    let program = match &options.program {
        Some(program) => program.canonicalize()?,
        None => {
            run::cargo(&["build", "--quiet", "--package", "guest-tests"])?;
            run::target_dir().join("debug/guest-tests").canonicalize()?
        }
    };
    let listing = run::limited(command(&program, &["list"]), LIMIT)?;
    ensure!(listing.status.is_some_and(|s| s.success()), "guest-tests list failed: {}", listing.stderr);
    let names: Vec<&str> =
        listing.stdout.lines().filter(|n| options.filter.split(',').any(|f| n.contains(f))).collect();
    ensure!(!names.is_empty(), "no case matches {}", options.filter);

    let mut totals = (0, 0, 0);
    if options.native {
        let failures = series("native", &names, options.limit, &mut totals, |name| {
            Ok(command(&program, &["run", name]))
        })?;
        for (name, reason) in &failures {
            println!("native FAIL {name}: {reason}");
        }
        totals.1 += failures.len();
    }
    if options.sandbox {
        let sallet = options.sallet.unwrap_or_else(|| run::target_dir().join("release/sallet"));
        ensure!(sallet.exists(), "{} is not there: cargo build --release first", sallet.display());
        let known = run::known_failures("guest-tests/known-failures.txt")?;
        let mut failures = series("sandbox", &names, options.limit, &mut totals, |name| {
            let mut command = Command::new(&sallet);
            command.args(&options.with).args(["do", "--"]).arg(&program).args(["run", name]);
            Ok(command)
        })?;
        for (name, reason) in names.iter().filter_map(|n| known.get_key_value(*n)) {
            if failures.remove(name).is_some() {
                // Known: it counts as skipped, not as passed.
                totals.2 += 1;
            } else if !reason.starts_with("sometimes") {
                println!("sandbox {name}: passes now: remove it from guest-tests/known-failures.txt");
                totals.0 -= 1;
                totals.1 += 1;
            }
        }
        for (name, reason) in &failures {
            println!("sandbox FAIL {name}: {reason}");
        }
        totals.1 += failures.len();
    }
    println!("{} passed, {} failed, {} skipped", totals.0, totals.1, totals.2);
    Ok(totals.1 == 0)
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs every case; the failures by name. Passed and skipped cases are added to `totals`.
fn series(
    side: &str,
    names: &[&str],
    limit: Duration,
    totals: &mut (usize, usize, usize),
    command: impl Fn(&str) -> Result<Command>,
) -> Result<BTreeMap<String, String>> {
    let start = Instant::now();
    let mut failures = BTreeMap::new();
    let mut unsteady = Vec::new();
    for name in names {
        match judge(name, &run::limited(command(name)?, limit)?) {
            Outcome::Passed => totals.0 += 1,
            Outcome::Skipped => totals.2 += 1,
            Outcome::Failed(reason) => {
                // Further tries tell what fails now and then from a plain failure.
                let again = || Ok::<_, anyhow::Error>(judge(name, &run::limited(command(name)?, limit)?));
                if again()? == Outcome::Passed && again()? == Outcome::Passed {
                    println!("{side} UNSTEADY {name}: {reason}");
                    unsteady.push((*name, reason));
                } else {
                    failures.insert((*name).to_owned(), reason);
                }
            }
        }
    }
    if unsteady.len() <= run::UNSTEADY {
        totals.0 += unsteady.len();
    } else {
        failures.extend(unsteady.into_iter().map(|(name, reason)| (name.to_owned(), reason)));
    }
    let (all, bad, seconds) = (names.len(), failures.len(), start.elapsed().as_secs());
    println!("{side}: {all} guest tests, {bad} failures, {seconds} s");
    Ok(failures)
}

fn judge(name: &str, finished: &Finished) -> Outcome {
    let Some(status) = finished.status else {
        return Outcome::Failed("no end in time".to_owned());
    };
    let last = finished.stdout.lines().last().unwrap_or_default();
    match status.code() {
        Some(0) if last == format!("ok {name}") => Outcome::Passed,
        Some(77) if last.starts_with("skip ") => Outcome::Skipped,
        _ => {
            let reason = last.strip_prefix(&format!("FAIL {name}: ")).unwrap_or(last);
            let detail = finished.stderr.lines().last().unwrap_or_default();
            Outcome::Failed(format!("{reason} [{status}] {detail}"))
        }
    }
}
