//! The rules of the house that neither rustc nor clippy checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run;

/// Every crate and the floor it stands on: a crate uses its own floor and those below.
const FLOORS: [(&str, &[&str]); 5] = [
    ("words", &["linux-abi", "identity", "bpf"]),
    ("ground", &["slot", "stub", "host", "executor", "platform"]),
    ("the kernel", &["vfs", "fs-tmp", "fs-host", "fs-overlay", "net", "kernel", "fs-kernel", "syscalls"]),
    ("the house", &["control", "sentry"]),
    ("the doors", &["runtime"]),
];

/// The crates that may hold `unsafe` code.
const UNSAFE_ALLOWED: [&str; 4] = ["slot", "stub", "host", "platform"];

/// Crates beside the house: no floor, and rules of their own.
const BESIDE: [&str; 2] = ["guest-tests", "xtask"];

/// A file longer than this wants to be two.
const LONGEST_FILE: usize = 599;

/// Checks everything and prints each offence; whether there was none.
pub(crate) fn run() -> Result<bool> {
    let mut offences = Vec::new();
    layering(&mut offences)?;
    let long_files = ratchet("xtask/long-files.txt")?;
    let mut count = 0;
    for folder in ["crates", "guest-tests", "xtask"] {
        visit(&run::workspace().join(folder), &mut |path| {
            count += 1;
            source_file(path, &long_files, &mut offences)
        })?;
    }
    for offence in &offences {
        println!("tidy: {offence}");
    }
    println!("tidy: {count} files, {} offences", offences.len());
    Ok(offences.is_empty())
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, crates)| crates.contains(&name))
}

fn layering(offences: &mut Vec<String>) -> Result<()> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(run::workspace())
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if BESIDE.contains(&name) {
            continue;
        }
        let Some(own) = floor(name) else {
            offences.push(format!("crate {name} stands on no floor: add it to FLOORS in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let below = dependency["name"].as_str().unwrap_or_default();
            if floor(below).is_some_and(|floor| floor > own) {
                offences.push(format!("{name} (floor {own}) depends upwards on {below}"));
            }
        }
    }
    Ok(())
}

fn visit(folder: &Path, each: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                visit(&path, each)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            each(&path)?;
        }
    }
    Ok(())
}

/// Files that are longer than allowed today, with the length they may not pass.
fn ratchet(name: &str) -> Result<BTreeMap<String, usize>> {
    let text = std::fs::read_to_string(run::workspace().join(name)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let (path, length) = line.split_once(' ').with_context(|| format!("{name}: {line}"))?;
            Ok((path.to_owned(), length.trim().parse()?))
        })
        .collect()
}

fn source_file(path: &Path, long_files: &BTreeMap<String, usize>, offences: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let shown = path.strip_prefix(run::workspace())?.display().to_string();
    let crate_name = shown.strip_prefix("crates/").and_then(|rest| rest.split('/').next());

    let lines = text.lines().count();
    let longest = long_files.get(&shown).copied().unwrap_or(LONGEST_FILE);
    if lines > longest {
        offences.push(format!("{shown}: {lines} lines, at most {longest}"));
    }
    if let Some(name) = crate_name
        && !UNSAFE_ALLOWED.contains(&name)
        && (shown.ends_with("src/lib.rs") || shown.ends_with("src/main.rs"))
        && !text.contains("#![forbid(unsafe_code)]")
    {
        offences.push(format!("{shown}: a crate above the ground says #![forbid(unsafe_code)]"));
    }
    let rows: Vec<&str> = text.lines().collect();
    for (index, row) in rows.iter().enumerate() {
        let place = format!("{shown}:{}", index + 1);
        let code = row.split("//").next().unwrap_or_default();
        let quoted = code.contains('"');
        if !quoted && (code.contains("unsafe {") || code.contains("unsafe impl")) {
            let from = index.saturating_sub(8);
            if !rows[from..=index].iter().any(|r| r.contains("SAFETY:")) {
                offences.push(format!("{place}: unsafe without a SAFETY note"));
            }
        }
        if !quoted && (code.contains("#[allow(") || code.contains("#![allow(")) {
            offences.push(format!("{place}: use #[expect(lint, reason = \"...\")]"));
        }
        for word in ["TODO", "FIXME", "XXX"] {
            let marker = format!("// {word}");
            if row.contains(&marker) && !row.contains("(#") {
                offences.push(format!("{place}: a {word} carries an issue number: {word}(#12)"));
            }
        }
    }
    Ok(())
}
