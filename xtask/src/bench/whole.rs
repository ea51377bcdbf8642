//! Whole programs: milliseconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::figures::{Figures, Sample};
use super::side::Side;
use super::{Condition, Options, progress};
use crate::run;

const LIMIT: Duration = Duration::from_secs(30);
/// Starts of a container are short: more of them make the median steady.
const STARTS: usize = 4;

/// Spawns as many programs as one does that calls others; prints microseconds for one.
const PYTHON: &str = "import subprocess, time
subprocess.run(['/bin/true'])
start = time.perf_counter()
for _ in range(20): subprocess.run(['/bin/true'])
print(int((time.perf_counter() - start) / 20 * 1e6))";

pub(super) fn measure(
    condition: Condition,
    sides: &[Side],
    options: &Options,
    figures: &mut Figures,
) -> Result<()> {
    let bundle = Bundle::new(sides).inspect_err(|error| progress(&format!("no bundle: {error:#}"))).ok();
    let runs = if options.quick { 1 } else { options.runs.div_ceil(2) };
    for round in 0..runs {
        if options.is_late() {
            figures
                .notes
                .push(format!("{}, whole programs: {round} of {runs} runs, time is over", condition.name()));
            break;
        }
        progress(&format!("{}: whole programs, run {} of {runs}", condition.name(), round + 1));
        for (row, words) in programs() {
            for side in sides {
                timed(row, condition, side, side.command(&words), figures)?;
            }
        }
        for start in 0..STARTS {
            for side in sides {
                let (Some(bundle), Some(runtime)) = (&bundle, &side.runtime) else { continue };
                let id = format!("bench-{}-{round}-{start}", std::process::id());
                let path = bundle.0.display().to_string();
                let words = [runtime, "run", "--bundle", &path, &id];
                timed("run /bin/true", condition, side, side.enter(words.into_iter()), figures)?;
            }
        }
    }
    Ok(())
}

/// Names and words; each prints the microseconds that count, when names and pages are warm.
fn programs() -> Vec<(&'static str, Vec<&'static str>)> {
    // The first walk has folders watched, the second one fills what is kept of them.
    const SECOND: &str =
        "find /usr >/dev/null; a=$(date +%s%N); find /usr >/dev/null; b=$(date +%s%N); echo $(((b-a)/1000))";
    const FIND: &str = "find /usr >/dev/null; find /usr >/dev/null; \
         a=$(date +%s%N); find /usr >/dev/null; b=$(date +%s%N); echo $(((b-a)/1000))";
    const TAR: &str = "cd /usr/lib; d=python3; [ -d $d ] || d=perl5; tar cf - $d | cat >/dev/null; \
         a=$(date +%s%N); tar cf - $d | cat >/dev/null; b=$(date +%s%N); echo $(((b-a)/1000))";
    let mut all = vec![
        ("find /usr, second walk", vec!["sh", "-c", SECOND]),
        ("find /usr, warm", vec!["sh", "-c", FIND]),
    ];
    all.push(("tar of a folder", vec!["sh", "-c", TAR]));
    if Path::new("/usr/bin/python3").exists() {
        all.push(("spawn from Python", vec!["/usr/bin/python3", "-c", PYTHON]));
    }
    all
}

/// Runs a program: the time that it prints, else that of its whole life.
fn timed(
    row: &str,
    condition: Condition,
    side: &Side,
    command: Command,
    figures: &mut Figures,
) -> Result<()> {
    let cpu = side.cpu_seconds();
    let start = Instant::now();
    let finished = run::limited(command, LIMIT)?;
    let whole = start.elapsed().as_secs_f64() * 1e3;
    if !finished.status.is_some_and(|status| status.success()) {
        let why = format!("{:?} {}", finished.status, finished.stderr.trim());
        figures.fail(format!("{row}, {}, {}: {why}", side.name, condition.name()));
        return Ok(());
    }
    let time = finished.stdout.trim().parse::<f64>().map_or(whole, |us| us / 1e3);
    let cpu = side.cpu_seconds().zip(cpu).map(|(after, before)| (after - before) * 1e3);
    figures.add_in(row, "ms", condition, side.name, Sample { time, cpu });
    Ok(())
}

/// An OCI bundle whose program is the host's /bin/true with its libraries; removed when it goes out of scope.
struct Bundle(PathBuf);

impl Bundle {
    fn new(sides: &[Side]) -> Result<Bundle> {
        ensure!(sides.iter().filter(|side| side.runtime.is_some()).count() > 1, "there is no runc");
        let bundle = Bundle(std::env::temp_dir().join(format!("sallet-bench-{}", std::process::id())));
        let rootfs = bundle.0.join("rootfs");
        std::fs::create_dir_all(rootfs.join("bin"))?;
        for folder in ["proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(folder))?;
        }
        std::fs::copy("/bin/true", rootfs.join("bin/true")).context("/bin/true")?;
        let libraries = Command::new("ldd").arg("/bin/true").output().context("ldd")?;
        for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
            let Some(inside) = word.strip_prefix('/').filter(|_| Path::new(word).is_file()) else { continue };
            let to = rootfs.join(inside);
            to.parent().map(std::fs::create_dir_all).transpose()?;
            std::fs::copy(word, to)?;
        }
        let status = Command::new("runc").arg("spec").current_dir(&bundle.0).status().context("runc spec")?;
        ensure!(status.success(), "runc spec: {status}");
        let path = bundle.0.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["process"]["args"] = json!(["/bin/true"]);
        config["process"]["terminal"] = json!(false);
        std::fs::write(path, config.to_string())?;
        Ok(bundle)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
