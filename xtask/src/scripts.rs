//! Runs the scripts of `tests/FOLDER`: one file per subject, bash or python.
//!
//! A script prints `ok NAME`, `FAIL NAME: reason` or `skip NAME: reason` for each of its tests. It
//! finds the runtime under test in `$SALLET` and, for Docker, its name in `$RUNTIME`;
//! `--yardstick` gives it the host (`do`) or runc instead, with which all of it must pass.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{self, Counts};

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

    let mut counts = Counts::default();
    for script in list(folder)?.into_iter().filter(|p| p.to_string_lossy().contains(filter)) {
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let start = Instant::now();
        let shell = if script.extension().is_some_and(|e| e == "py") { "python3" } else { "bash" };
        let mut command = Command::new(shell);
        command.arg(&script).env("SALLET", &sallet).current_dir(script.parent().context("no folder")?);
        command.env("RUNTIME", if yardstick { "runc" } else { "sallet" });
        let finished = run::limited(command, limit)?;
        let mut own = Counts::default();
        for line in finished.stdout.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let test = rest.split(':').next().unwrap_or_default();
            let path = format!("{folder}/{name}/{test}");
            let reason = known.get(&path).filter(|_| !yardstick);
            let excused = reason.is_some();
            let sometimes = reason.is_some_and(|r| r.starts_with("sometimes"));
            match word {
                "ok" if excused && !sometimes => {
                    println!("{path}: passes now: remove it from tests/known-failures.txt");
                    own.failed += 1;
                }
                "ok" => own.passed += 1,
                "FAIL" if excused => {
                    println!("skip {path}: known failure: {rest}");
                    own.skipped += 1;
                }
                "FAIL" => {
                    println!("FAIL {folder}/{name}/{rest}");
                    own.failed += 1;
                }
                "skip" => {
                    println!("skip {folder}/{name}/{rest}");
                    own.skipped += 1;
                }
                _ => {}
            }
        }
        let ended = finished.status.is_some_and(|s| s.success());
        if !ended && own.failed == 0 && !(own.skipped > 0 && finished.status.is_some()) || own.total() == 0 {
            let end = finished.status.map_or("no end in time".to_owned(), |s| s.to_string());
            println!("FAIL {folder}/{name}: {end}: {}", finished.stderr.trim());
            own.failed += 1;
        }
        println!("{folder}/{name}: {own}, {:.1} s", start.elapsed().as_secs_f32());
        counts.add(&own);
    }
    println!("{counts}");
    Ok(counts.failed == 0)
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
