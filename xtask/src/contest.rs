//! Runs youki's OCI validation suite, where somebody has built it, against runc and against Sallet.
//!
//! The folder holds its programs `contest` and `runtimetest` and its `bundle.tar.gz`. Each group runs
//! by itself, since a panic in one test ends the whole program. What runc passes here Sallet must
//! pass, but for what `tests/oci/excused.txt` names, at most one case in ten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

const LIMIT: Duration = Duration::from_secs(120);

/// Results by `group/test`.
type Results = BTreeMap<String, String>;

/// Runs what the options ask for; whether Sallet passes what it must.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let (mut folder, mut sallet, mut filter) = (None, None, "");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--sallet" => sallet = Some(PathBuf::from(words.next().context("--sallet wants a path")?)),
            "--filter" => filter = words.next().context("--filter wants a text")?,
            name if folder.is_none() && !name.starts_with('-') => folder = Some(PathBuf::from(name)),
            other => bail!("unknown option {other}; see cargo xtask --help"),
        }
    }
    let folder = folder.context("which folder has the built suite?")?.canonicalize()?;
    let sallet = sallet.unwrap_or_else(|| run::target_dir().join("release/sallet")).canonicalize()?;
    let excused = run::known_failures("tests/oci/excused.txt")?;
    let listing = run::limited(program(&folder, &["list"]), LIMIT)?;
    ensure!(listing.status.is_some_and(|s| s.success()), "contest list failed: {}", listing.stderr);
    let groups: Vec<&str> =
        listing.stdout.lines().map(str::trim).filter(|g| !g.is_empty() && g.contains(filter)).collect();
    let runc = results(&folder, Path::new("runc"), &groups)?;
    let ours = results(&folder, &sallet, &groups)?;

    let (mut passed, mut excuses, mut wrong) = (0, 0, 0);
    println!("| case | runc | sallet |\n|---|---|---|");
    for (case, theirs) in &runc {
        let own = ours.get(case).map_or("no result", String::as_str);
        let mut note = String::new();
        if theirs == "ok" {
            match (own, excused.get(case)) {
                ("ok", None) => passed += 1,
                ("ok", Some(_)) => {
                    note = " (passes now: remove it from tests/oci/excused.txt)".into();
                    wrong += 1;
                }
                (_, Some(reason)) => {
                    note = format!(" ({reason})");
                    excuses += 1;
                }
                (_, None) => {
                    note = " **wrong**".into();
                    wrong += 1;
                }
            }
        }
        println!("| {case} | {theirs} | {own}{note} |");
    }
    let all = passed + excuses + wrong;
    println!("of {all} cases that runc passes: {passed} passed, {wrong} failed, {excuses} skipped");
    Ok(wrong == 0 && excuses * 10 <= all)
}

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(folder.join("contest"));
    command.args(arguments).current_dir(folder).env("RUNTIME_KIND", "runc");
    command
}

fn results(folder: &Path, runtime: &Path, groups: &[&str]) -> Result<Results> {
    let mut results = Results::new();
    let runtimetest = folder.join("runtimetest");
    for group in groups {
        let mut command = program(folder, &["run", "--runtime"]);
        command.arg(runtime).arg("--runtimetest").arg(&runtimetest).args(["-t", group]);
        let finished = run::limited(command, LIMIT)?;
        let mut found = false;
        for line in finished.stdout.lines() {
            // `1 / 3 : name : ok`
            let mut parts = line.split(" : ");
            let (Some(number), Some(name), Some(result)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if number.contains(" / ") {
                results.insert(format!("{group}/{name}"), result.trim().to_owned());
                found = true;
            }
        }
        if !found {
            let end = finished.status.map_or("no end".to_owned(), |status| status.to_string());
            results.insert((*group).to_owned(), format!("no result ({end})"));
        }
    }
    Ok(results)
}
