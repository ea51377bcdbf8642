//! `cargo xtask apps`: real applications under runc and under Sallet, with real clients.
//!
//! Each folder of `tests/apps` with a `test.sh` is one application; its `Dockerfile` is the recipe of its
//! image, made when it is first needed and kept by Docker. What the image cannot fetch by apt, an optional
//! `prepare.sh FOLDER` brings on the host; the files of that folder join those of the recipe. `test.sh check`
//! prints a line per test (and with `note` what is only told), `test.sh measure` a line per figure (see
//! `tests/apps/lib.sh`). Figures are medians of runs that alternate between the runtimes; a ratio above 1 says
//! that Sallet did more work in the same time than runc.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{self, Counts};

/// What CI runs: small images, short tests.
const QUICK: [&str; 3] = ["nginx", "python", "redis"];
const DOCUMENT: &str = "docs/applications.md";
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes that a script may take; those of whole suites of tests run each twice.
const USUAL: u32 = 20;
const LONG: [(&str, u32); 3] = [("go-suite", 60), ("python", 40), ("redis-suite", 120)];

struct Options<'a> {
    names: Vec<&'a str>,
    quick: bool,
    runs: usize,
    sallet: PathBuf,
}

/// Values by runtime, of one figure.
type Values = BTreeMap<String, Vec<f64>>;

/// What came out of one application.
struct Row {
    name: String,
    counts: Counts,
    /// `WHAT RATIO` of each figure.
    ratios: Vec<String>,
}

/// Runs what the options ask for; whether all passed.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let options = parse(words)?;
    let sallet = &options.sallet;
    ensure!(sallet.exists(), "{} is not there: cargo build --release", sallet.display());
    let all = list()?;
    if let Some(unknown) = options.names.iter().find(|name| !all.iter().any(|a| a == *name)) {
        bail!("no application {unknown}; there are {}", all.join(", "));
    }
    let wanted = |name: &&String| {
        let listed = options.names.contains(&name.as_str());
        listed || options.names.is_empty() && (!options.quick || QUICK.contains(&name.as_str()))
    };
    let own = register(sallet)?;
    base_image()?;
    build("client")?;
    let mut runtimes = vec!["runc".to_owned(), own];
    if !options.quick && docker_knows("runsc")? {
        runtimes.push("runsc".to_owned());
    }
    let mut rows = Vec::new();
    let mut counts = Counts::default();
    for name in all.iter().filter(wanted) {
        let row = application(name, &runtimes, &options)?;
        counts.add(&row.counts);
        rows.push(row);
    }
    if !options.quick {
        document(&rows)?;
    }
    println!("{counts}");
    Ok(counts.failed == 0)
}

fn parse<'a>(words: &[&'a str]) -> Result<Options<'a>> {
    let sallet = run::target_dir().join("release/sallet");
    let mut options = Options { names: Vec::new(), quick: false, runs: 3, sallet };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => (options.quick, options.runs) = (true, 1),
            "--runs" => options.runs = run::number(word, words.next().context("--runs wants a number")?)?,
            "--sallet" => options.sallet = PathBuf::from(words.next().context("--sallet wants a path")?),
            name if !name.starts_with('-') => options.names.push(name),
            other => bail!("unknown option {other}; see cargo xtask --help"),
        }
    }
    Ok(options)
}

pub(crate) fn folder() -> PathBuf {
    run::workspace().join("tests/apps")
}

fn list() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let entry = entry?;
        if entry.path().join("test.sh").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs a line of bash in a folder; its output.
pub(crate) fn shell(folder: &Path, line: &str, minutes: u32) -> Result<String> {
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(folder);
    let finished = run::limited(command, MINUTE * minutes)?;
    let ended = finished.status.is_some_and(|s| s.success());
    ensure!(ended, "{line}: {}{}", finished.stdout, finished.stderr);
    Ok(finished.stdout)
}

/// The image that all others stand on.
pub(crate) fn base_image() -> Result<()> {
    shell(&run::workspace().join("tests"), ". ./image.sh && image base", 20)?;
    Ok(())
}

/// Makes the binary known to Docker; the name of the runtime.
pub(crate) fn register(sallet: &Path) -> Result<String> {
    let path = sallet.canonicalize()?;
    let line = format!("SALLET='{}' RUNTIME=sallet; . ./lib.sh.inc; echo \"$NAME\"", path.display());
    let output = shell(&run::workspace().join("tests/docker"), &line, 2)?;
    let name = output.lines().last().unwrap_or_default().trim().to_owned();
    ensure!(!name.is_empty() && !name.contains(' '), "Docker does not take the runtime: {output}");
    Ok(name)
}

pub(crate) fn docker_knows(runtime: &str) -> Result<bool> {
    let text = shell(&folder(), "docker info -f '{{json .Runtimes}}'", 1)?;
    Ok(text.contains(&format!("\"{runtime}\"")))
}

pub(crate) fn build(name: &str) -> Result<()> {
    let start = Instant::now();
    let line = if folder().join(name).join("prepare.sh").exists() {
        format!(
            "set -e -o pipefail; . ../image.sh; brought=$CACHE/apps/{name}; mkdir -p \"$brought\"
             bash {name}/prepare.sh \"$brought\"
             tar -c -C \"$PWD/{name}\" . -C \"$brought\" . | docker build -q -t sallet-app:{name} -"
        )
    } else {
        format!("docker build -q -t sallet-app:{name} {name}")
    };
    shell(&folder(), &line, 20)?;
    println!("image sallet-app:{name}: {:.0} s", start.elapsed().as_secs_f32());
    std::io::stdout().flush()?;
    Ok(())
}

/// Runs `test.sh`, ends what it left behind, and gives what it printed.
fn script(name: &str, mode: &str, runtime: &str, options: &Options<'_>) -> Result<run::Finished> {
    let tag = format!("sa{}", std::process::id());
    let mut command = Command::new("bash");
    command.arg(folder().join(name).join("test.sh")).arg(mode);
    command.env("RUNTIME", runtime).env("TAG", &tag).env("QUICK", if options.quick { "1" } else { "0" });
    let minutes = LONG.iter().find(|(long, _)| *long == name).map_or(USUAL, |(_, minutes)| *minutes);
    let finished = run::limited(command, MINUTE * if options.quick { 6 } else { minutes });
    let left = format!("docker ps -aq --filter label=sallet-app={tag} | xargs -r docker rm -f -v");
    shell(&folder(), &left, 2)?;
    finished
}

fn application(name: &str, runtimes: &[String], options: &Options<'_>) -> Result<Row> {
    let mut row = Row { name: name.to_owned(), counts: Counts::default(), ratios: Vec::new() };
    if let Err(error) = build(name) {
        println!("FAIL {name}: no image: {error:#}");
        row.counts.failed += 1;
        return Ok(row);
    }
    let own = runtimes.get(1).context("no runtime")?;
    for runtime in runtimes.iter().filter(|r| !options.quick || *r == own) {
        let start = Instant::now();
        let counts = check(name, runtime, runtime == own, options)?;
        println!("{name} under {runtime}: {counts}, {:.0} s", start.elapsed().as_secs_f32());
        if runtime == own {
            row.counts.add(&counts);
        } else if runtime == "runc" && counts.failed > 0 {
            println!("FAIL {name}: the test fails under runc");
            row.counts.failed += 1;
        }
    }
    let mut figures: Vec<(String, String, Values)> = Vec::new();
    for _ in 0..options.runs {
        for runtime in runtimes {
            for line in script(name, "measure", runtime, options)?.stdout.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let ["measure", what, number, unit] = words.as_slice() else { continue };
                let Ok(number) = number.parse() else { continue };
                let at = figures.iter().position(|(w, _, _)| w == what).unwrap_or_else(|| {
                    figures.push(((*what).to_owned(), (*unit).to_owned(), Values::new()));
                    figures.len() - 1
                });
                if let Some((_, _, values)) = figures.get_mut(at) {
                    values.entry(runtime.clone()).or_default().push(number);
                }
            }
        }
    }
    for (what, unit, values) in &mut figures {
        let mut medians = BTreeMap::new();
        for (runtime, values) in values.iter_mut() {
            medians.insert(runtime.as_str(), median(values));
        }
        let shown: Vec<String> = medians.iter().map(|(runtime, m)| format!("{runtime} {m:.1}")).collect();
        let (Some(theirs), Some(ours)) = (medians.get("runc"), medians.get(own.as_str())) else {
            println!("FAIL {name}: no figure for {what}: {}", shown.join(", "));
            row.counts.failed += 1;
            continue;
        };
        let ratio = if unit == "s" { theirs / ours } else { ours / theirs };
        println!("{name} {what} ({unit}): {}: {ratio:.2}", shown.join(", "));
        row.ratios.push(format!("{what} {ratio:.2}"));
    }
    Ok(row)
}

/// Runs `test.sh check` and counts; known failures are those of `runtime` under test only.
fn check(name: &str, runtime: &str, tested: bool, options: &Options<'_>) -> Result<Counts> {
    let known = run::known_failures("tests/known-failures.txt")?;
    let finished = script(name, "check", runtime, options)?;
    let mut counts = Counts::default();
    for line in finished.stdout.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let test = rest.split(':').next().unwrap_or_default();
        let reason = known.get(&format!("apps/{name}/{test}")).filter(|_| tested);
        match (word, reason) {
            ("ok", Some(reason)) if !reason.starts_with("sometimes") => {
                println!("FAIL apps/{name}/{test}: passes now: remove it from tests/known-failures.txt");
                counts.failed += 1;
            }
            ("ok", _) => counts.passed += 1,
            ("FAIL", Some(_)) => {
                println!("skip apps/{name}/{test}: known failure: {rest}");
                counts.skipped += 1;
            }
            ("FAIL", None) => {
                println!("FAIL apps/{name}/{rest} (under {runtime})");
                counts.failed += 1;
            }
            ("note", _) => println!("{name}: {rest}"),
            ("skip", _) => {
                println!("skip apps/{name}/{rest}");
                counts.skipped += 1;
            }
            _ => {}
        }
    }
    if finished.status.is_none() || counts.total() == 0 {
        println!("FAIL apps/{name}: no end in time, or no tests: {}", finished.stderr.trim());
        counts.failed += 1;
    }
    std::io::stdout().flush()?;
    Ok(counts)
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len().is_multiple_of(2) {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

/// Writes the rows into the table of the document; rows of other applications stay.
fn document(rows: &[Row]) -> Result<()> {
    let path = run::workspace().join(DOCUMENT);
    let text = std::fs::read_to_string(&path).context(DOCUMENT)?;
    std::fs::write(&path, with_rows(&text, rows)?)?;
    Ok(())
}

/// What stands before the rows of the table whose head ends with `head`, the rows, and what follows.
pub(crate) fn around_table<'a>(text: &'a str, head: &str) -> Result<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(head).context("there is no table")?;
    let end = rest.split_inclusive('\n').take_while(|line| line.starts_with('|')).map(str::len).sum();
    let (table, after) = rest.split_at_checked(end).context("the table's end")?;
    Ok((before, table, after))
}

fn with_rows(text: &str, rows: &[Row]) -> Result<String> {
    const HEAD: &str = "|---|---|---|\n";
    let (before, table, after) = around_table(text, HEAD).context("docs/applications.md")?;
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for line in table.lines() {
        let name = line.split('|').nth(1).unwrap_or_default().trim();
        lines.insert(name.to_owned(), line.to_owned());
    }
    for row in rows {
        let ratios = if row.ratios.is_empty() { "not measured".to_owned() } else { row.ratios.join(", ") };
        let passed = format!("{} of {}", row.counts.passed, row.counts.total());
        lines.insert(row.name.clone(), format!("| {} | {passed} | {ratios} |", row.name));
    }
    let table: String = lines.into_values().map(|line| line + "\n").collect();
    Ok(format!("{before}{HEAD}{table}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{Counts, Row, median, with_rows};

    #[test]
    fn medians() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn rows_replace_their_own_and_leave_others() {
        let text = "# A\n| a | b | c |\n|---|---|---|\n| nginx | 1 of 3 | small 0.10 |\n| redis | 4 of 4 | x |\n\nend\n";
        let counts = Counts { passed: 3, failed: 0, skipped: 0 };
        let row = Row { name: "nginx".to_owned(), counts, ratios: vec!["small 0.90".to_owned()] };
        let new = with_rows(text, &[row]).expect("a table");
        assert!(
            new.contains("|---|---|---|\n| nginx | 3 of 3 | small 0.90 |\n| redis | 4 of 4 | x |\n\nend\n")
        );
    }
}
