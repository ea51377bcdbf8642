//! Runs the scripts of `tests/FOLDER`: one file per subject, bash or python.
//!
//! A script prints `ok NAME`, `FAIL NAME: reason` or `skip NAME: reason` for each of its tests. It
//! finds the runtime under test in `$SALLET` and, for Docker, its name in `$RUNTIME`;
//! A script of which one or two tests fail is run once more: where all passes then, they are told of as
//! UNSTEADY and count as passed (see `run::UNSTEADY`).
//! `--yardstick` gives it the host (`do`) or runc instead, with which all of it must pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{self, Counts, Finished};

const LIMIT: Duration = Duration::from_secs(300);

/// Runs what the options ask for; whether all passed.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let (mut folder, mut yardstick, mut filter, mut sallet) = (None, false, "", None);
    let mut limit = LIMIT;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--yardstick" => yardstick = true,
            "--sallet" => sallet = Some(PathBuf::from(words.next().context("--sallet wants a path")?)),
            "--limit" => {
                limit =
                    Duration::from_secs(run::number(word, words.next().context("--limit wants seconds")?)?);
            }
            "--filter" => filter = words.next().context("--filter wants a text")?,
            name if folder.is_none() && !name.starts_with('-') => folder = Some(name),
            other => bail!("unknown option {other}; see cargo xtask --help"),
        }
    }
    let folder = folder.context("which folder of tests/?")?;
    let sallet = sallet.unwrap_or_else(|| run::target_dir().join("release/sallet"));
    ensure!(yardstick || sallet.exists(), "{} is not there: cargo build --release", sallet.display());
    let sallet = if yardstick { String::new() } else { sallet.canonicalize()?.display().to_string() };
    let known = run::known_failures("tests/known-failures.txt")?;
    let none = BTreeMap::new();

    let mut counts = Counts::default();
    for script in list(folder)?.into_iter().filter(|p| p.to_string_lossy().contains(filter)) {
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let start = Instant::now();
        let shell = if script.extension().is_some_and(|e| e == "py") { "python3" } else { "bash" };
        let once = || -> Result<Script> {
            let mut command = Command::new(shell);
            command.arg(&script).env("SALLET", &sallet).current_dir(script.parent().context("no folder")?);
            command.env("RUNTIME", if yardstick { "runc" } else { "sallet" });
            let path = format!("{folder}/{name}");
            Ok(Script::of(&path, &run::limited(command, limit)?, if yardstick { &none } else { &known }))
        };
        let mut first = once()?;
        let tests_alone = first.failed.len() == first.counts.failed;
        if tests_alone && (1..=run::UNSTEADY).contains(&first.failed.len()) {
            // The second try tells what fails now and then from a plain failure.
            let second = once()?;
            if second.counts.failed == 0 {
                for (path, reason) in std::mem::take(&mut first.failed) {
                    println!("scripts UNSTEADY {path}: {reason}");
                    first.counts.failed -= 1;
                    first.counts.passed += 1;
                }
            }
        }
        for (path, reason) in &first.failed {
            println!("FAIL {path}: {reason}");
        }
        let own = first.counts;
        println!("{folder}/{name}: {own}, {:.1} s", start.elapsed().as_secs_f32());
        counts.add(&own);
    }
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// What a script printed.
struct Script {
    counts: Counts,
    /// Tests that failed, by their path, and why. Other failures are in `counts` alone.
    failed: Vec<(String, String)>,
}

impl Script {
    fn of(path: &str, finished: &Finished, known: &BTreeMap<String, String>) -> Script {
        let mut script = Script { counts: Counts::default(), failed: Vec::new() };
        let counts = &mut script.counts;
        for line in finished.stdout.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (test, why) = rest.split_once(':').unwrap_or((rest, ""));
            let test = format!("{path}/{test}");
            let reason = known.get(&test);
            match (word, reason) {
                ("ok", Some(reason)) if !reason.starts_with("sometimes") => {
                    println!("{test}: passes now: remove it from tests/known-failures.txt");
                    counts.failed += 1;
                }
                ("ok", _) => counts.passed += 1,
                ("FAIL", Some(_)) => {
                    println!("skip {test}: known failure:{why}");
                    counts.skipped += 1;
                }
                ("FAIL", None) => {
                    script.failed.push((test, why.trim().to_owned()));
                    counts.failed += 1;
                }
                ("skip", _) => {
                    println!("skip {path}/{rest}");
                    counts.skipped += 1;
                }
                _ => {}
            }
        }
        let ended = finished.status.is_some_and(|s| s.success());
        if !ended && counts.failed == 0 && !(counts.skipped > 0 && finished.status.is_some())
            || counts.total() == 0
        {
            let end = finished.status.map_or("no end in time".to_owned(), |s| s.to_string());
            println!("FAIL {path}: {end}: {}", finished.stderr.trim());
            counts.failed += 1;
        }
        script
    }
}

fn list(folder: &str) -> Result<Vec<PathBuf>> {
    let path = run::workspace().join("tests").join(folder).canonicalize().context("no such folder")?;
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&path)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "sh" || e == "py"))
        .collect();
    scripts.sort();
    Ok(scripts)
}
