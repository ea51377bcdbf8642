//! `cargo xtask soak [--minutes N] [--sallet PATH]`: eight applications at once, under load, for long.
//!
//! Each runs in a container of its own under Sallet and gets its load by `tests/apps/soak.sh`, round after round,
//! from clients under runc. It fails on any error that a client sees and that the same load under runc does not
//! show; on a kernel process whose memory or descriptors grow from the first third of the time to the last; on
//! CPU time that is used when the load is over; and on anything that is left behind when the containers are gone.

mod left;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{apps, run};
use watch::{Samples, Watched};

/// The applications, each with functions in `tests/apps/soak.sh`.
const APPLICATIONS: [&str; 8] =
    ["nginx", "apache", "redis", "postgresql", "mariadb", "node", "python", "java"];
/// What all containers together may use of one CPU when nobody asks anything of them.
const IDLE: f64 = 0.10;
/// A kernel process's own memory may grow by so much, and by a tenth, from the first third to the last.
const GROWTH: u64 = 8 << 20;
/// So may the number of its descriptors: a tenth, and these.
const DESCRIPTORS: u64 = 32;
/// Longest time of one call of the script.
const ROUND: Duration = Duration::from_secs(400);
const SAMPLE: Duration = Duration::from_secs(2);
/// Errors of one application that are kept.
const KEPT: usize = 20;

struct Options {
    minutes: f64,
    sallet: PathBuf,
}

/// What the load of one application came to.
#[derive(Default)]
struct Load {
    rounds: usize,
    work: f64,
    unit: String,
    /// When each error was seen, and what it was.
    errors: Vec<(Duration, String)>,
}

/// Eight containers of one runtime.
struct Stage {
    runtime: String,
    tag: String,
    containers: Vec<Watched>,
}

/// Runs it; whether all was well.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let options = parse(words)?;
    let sallet = &options.sallet;
    ensure!(sallet.exists(), "{} is not there: cargo build --release", sallet.display());
    let own = apps::register(sallet)?;
    apps::shell(&run::workspace().join("tests"), ". ./image.sh && image base", 20)?;
    for name in ["client"].iter().chain(&APPLICATIONS) {
        apps::build(name)?;
    }
    let stage = Stage::begin(&own)?;
    let result = soak(&stage, &options);
    // What went wrong above must not keep the containers.
    let left = stage.end();
    let (mut sound, loads) = result?;
    for what in left? {
        println!("FAIL left behind: {what}");
        sound = false;
    }
    let new = new_errors(&loads, &options)?;
    for error in &new {
        println!("FAIL {error}");
    }
    sound &= new.is_empty();
    println!("soak of {:.0} minutes: {}", options.minutes, if sound { "passed" } else { "FAILED" });
    Ok(sound)
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options { minutes: 30.0, sallet: run::target_dir().join("release/sallet") };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} wants a value"));
        match *word {
            "--minutes" => options.minutes = run::number(word, value()?)?,
            "--sallet" => options.sallet = PathBuf::from(value()?),
            other => bail!("unknown option {other}: soak [--minutes N] [--sallet PATH]"),
        }
    }
    ensure!(
        options.minutes > 0.0 && options.minutes < 1e5,
        "--minutes: {} is not above 0 and below 100000",
        options.minutes
    );
    Ok(options)
}

/// The load under Sallet, and what the kernel processes did meanwhile and afterwards.
fn soak(stage: &Stage, options: &Options) -> Result<(bool, Vec<Load>)> {
    let mut sound = true;
    let before = watch::idle(&stage.containers, Duration::from_secs(10))?;
    let surplus: Vec<Option<i64>> = stage.containers.iter().map(Watched::surplus).collect();
    println!("idle before: {:.1} % of a CPU", before * 100.0);
    let (loads, samples) = stage.load(Duration::from_secs_f64(options.minutes * 60.0))?;
    for (container, load) in stage.containers.iter().zip(&loads) {
        if let Err(error) = stage.script(&container.name, "verify") {
            println!("FAIL {}: what the rounds left is wrong: {error:#}", container.name);
            sound = false;
        }
        if let Err(error) = container.is_well() {
            println!("FAIL {}: {error:#}", container.name);
            sound = false;
        }
        if load.rounds == 0 {
            println!("FAIL {}: not one round without an error", container.name);
            sound = false;
        }
    }
    sound &= report(stage, &loads, &samples);
    // What is put off (a checkpoint, a vacuum, a collection) may take a while yet.
    let mut after = f64::MAX;
    for _ in 0..9 {
        after = watch::idle(&stage.containers, Duration::from_secs(10))?;
        if after < IDLE {
            break;
        }
    }
    println!("idle afterwards: {:.1} % of a CPU (before: {:.1} %)", after * 100.0, before * 100.0);
    if after >= IDLE {
        println!("FAIL idle: more than {:.0} % of a CPU is used when the load is over", IDLE * 100.0);
        sound = false;
    }
    for (container, before) in stage.containers.iter().zip(surplus) {
        let Some(before) = before else { continue };
        // Processes come and go: the counts are taken one after the other.
        let steady = (0..20).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            container.surplus().is_some_and(|after| after <= before)
        });
        if !steady {
            println!(
                "FAIL {}: {:?} host processes beyond the guest's, {before} before",
                container.name,
                container.surplus()
            );
            sound = false;
        }
    }
    Ok((sound, loads))
}

/// Prints the table; whether memory and descriptors kept within their bounds.
fn report(stage: &Stage, loads: &[Load], samples: &[Samples]) -> bool {
    let mut sound = true;
    println!(
        "| application | rounds | work | errors | kernel process, MiB: first third, last | shared | descriptors |"
    );
    println!("|---|---|---|---|---|---|---|");
    for ((container, load), samples) in stage.containers.iter().zip(loads).zip(samples) {
        let name = &container.name;
        let [first, last] = samples.thirds();
        println!(
            "| {name} | {} | {:.0} {} | {} | {}, {} | {}, {} | {}, {} |",
            load.rounds,
            load.work,
            load.unit,
            load.errors.len(),
            mebibytes(first.private),
            mebibytes(last.private),
            mebibytes(first.shared),
            mebibytes(last.shared),
            first.descriptors,
            last.descriptors
        );
        let bound = first.private + first.private / 10 + GROWTH;
        if last.private > bound {
            println!(
                "FAIL {name}: its kernel process grew to {} MiB, more than {} MiB",
                mebibytes(last.private),
                mebibytes(bound)
            );
            sound = false;
        }
        let bound = first.descriptors + first.descriptors / 10 + DESCRIPTORS;
        if last.descriptors > bound {
            println!("FAIL {name}: {} descriptors of the host, more than {bound}", last.descriptors);
            sound = false;
        }
    }
    sound
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes / 104_858;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The errors that the same load under runc does not show. Without errors runc is not asked.
fn new_errors(loads: &[Load], options: &Options) -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for (name, load) in APPLICATIONS.iter().zip(loads) {
        for (when, error) in &load.errors {
            errors.push((*name, when.as_secs(), error));
        }
    }
    if errors.is_empty() {
        return Ok(Vec::new());
    }
    println!("{} errors: the same load under runc", errors.len());
    let stage = Stage::begin("runc")?;
    let loads = stage.load(Duration::from_secs_f64((options.minutes * 12.0).max(60.0)));
    stage.end()?;
    let (loads, _) = loads?;
    let mut known = BTreeSet::new();
    for (name, load) in APPLICATIONS.iter().zip(&loads) {
        known.extend(load.errors.iter().map(|(_, error)| (*name, kind(error))));
    }
    let mut new = Vec::new();
    for (name, when, error) in errors {
        if known.contains(&(name, kind(error))) {
            println!("{name} after {when} s, under runc too: {error}");
        } else {
            new.push(format!("{name} after {when} s: {error}"));
        }
    }
    Ok(new)
}

/// An error without its numbers.
fn kind(error: &str) -> String {
    error.chars().filter(|c| !c.is_ascii_digit()).take(80).collect()
}

impl Stage {
    /// Starts the eight, one after the other.
    fn begin(runtime: &str) -> Result<Stage> {
        let tag = format!("soak{}-{runtime}", std::process::id());
        let mut stage = Stage { runtime: runtime.to_owned(), tag, containers: Vec::new() };
        for name in APPLICATIONS {
            let start = Instant::now();
            let begun = stage.script(name, "begin").and_then(|output| {
                let id = output.lines().find_map(|line| line.strip_prefix("container "));
                Watched::new(name, id.context("no container")?)
            });
            match begun {
                Ok(container) => stage.containers.push(container),
                Err(error) => {
                    let _ = stage.end();
                    return Err(error.context(format!("{name} does not begin under {runtime}")));
                }
            }
            println!("{name} serves under {runtime}: {:.0} s", start.elapsed().as_secs_f32());
        }
        Ok(stage)
    }

    /// One call of the script; what it printed.
    fn script(&self, name: &str, what: &str) -> Result<String> {
        let mut command = Command::new("bash");
        command.arg(apps::folder().join("soak.sh")).args([name, what]);
        command.env("RUNTIME", &self.runtime).env("TAG", &self.tag);
        let finished = run::limited(command, ROUND)?;
        let text = format!("{}{}", finished.stdout.trim(), finished.stderr.trim()).replace('\n', " ");
        let text: String = text.chars().take(600).collect();
        let status = finished.status.with_context(|| format!("no end in {} s: {text}", ROUND.as_secs()))?;
        ensure!(status.success(), "{text} ({status})");
        Ok(finished.stdout)
    }

    /// Rounds of all eight at once for that long, with samples of their kernel processes.
    fn load(&self, time: Duration) -> Result<(Vec<Load>, Vec<Samples>)> {
        let began = Instant::now();
        let over = AtomicBool::new(false);
        let (rounds, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut samples: Vec<Samples> = self.containers.iter().map(|_| Samples::default()).collect();
        let loads = std::thread::scope(|scope| {
            let workers: Vec<_> = APPLICATIONS
                .iter()
                .map(|name| scope.spawn(|| self.rounds(name, began, &over, (&rounds, &errors))))
                .collect();
            let mut told = began;
            while began.elapsed() < time {
                std::thread::sleep(SAMPLE.min(time.saturating_sub(began.elapsed())));
                for (samples, container) in samples.iter_mut().zip(&self.containers) {
                    samples.push(began.elapsed(), container.sample());
                }
                if told.elapsed() >= Duration::from_secs(60) {
                    told = Instant::now();
                    let private: u64 = samples.iter().map(Samples::last_private).sum();
                    println!(
                        "{:.0} of {:.0} minutes under {}: {} rounds, {} errors, kernel processes {} MiB",
                        began.elapsed().as_secs_f64() / 60.0,
                        time.as_secs_f64() / 60.0,
                        self.runtime,
                        rounds.load(Ordering::Relaxed),
                        errors.load(Ordering::Relaxed),
                        mebibytes(private)
                    );
                }
            }
            over.store(true, Ordering::Relaxed);
            workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for (name, load) in APPLICATIONS.iter().zip(loads) {
            let Ok(load) = load else { bail!("the rounds of {name} panicked") };
            all.push(load);
        }
        Ok((all, samples))
    }

    fn rounds(
        &self,
        name: &str,
        began: Instant,
        over: &AtomicBool,
        (rounds, errors): (&AtomicUsize, &AtomicUsize),
    ) -> Load {
        let mut load = Load::default();
        while !over.load(Ordering::Relaxed) {
            match self.script(name, "round") {
                Ok(output) => {
                    load.rounds += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                    let words: Vec<&str> = output.split_whitespace().collect();
                    if let ["work", number, unit] = words.as_slice() {
                        load.work += number.parse::<f64>().unwrap_or(0.0);
                        load.unit = (*unit).to_owned();
                    }
                }
                Err(error) => {
                    errors.fetch_add(1, Ordering::Relaxed);
                    println!("{name} under {}: {error:#}", self.runtime);
                    if load.errors.len() < KEPT {
                        load.errors.push((began.elapsed(), format!("{error:#}")));
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
        load
    }

    /// Stops and removes the containers; what is still there of them afterwards, and who did not stop.
    fn end(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for container in &self.containers {
            let line = format!("docker stop -t 60 {} >/dev/null", container.id);
            let start = Instant::now();
            if apps::shell(&apps::folder(), &line, 2).is_err() || start.elapsed() > Duration::from_secs(55) {
                left.push(format!("{} did not stop in time", container.name));
            }
        }
        let line = format!("docker ps -aq --filter label=sallet-app={} | xargs -r docker rm -f -v", self.tag);
        apps::shell(&apps::folder(), &line, 2)?;
        let ids: Vec<&str> = self.containers.iter().map(|container| container.id.as_str()).collect();
        let processes: Vec<_> = self.containers.iter().map(|container| container.process).collect();
        left.extend(left::behind(&ids, &processes));
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::{kind, mebibytes};

    #[test]
    fn errors_are_told_apart_without_their_numbers() {
        assert_eq!(kind("17 of 20 failed at 10.0.0.3"), kind("3 of 9 failed at 10.0.0.14"));
        assert_ne!(kind("refused"), kind("reset"));
    }

    #[test]
    fn tenths_of_mebibytes() {
        assert_eq!(mebibytes(0), "0.0");
        assert_eq!(mebibytes(3 << 19), "1.4");
    }
}
