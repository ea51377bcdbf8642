//! Runs programs with a limit on their time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The number that follows an option.
pub(crate) fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{option}: {value:?} is no number that it takes"))
}

/// Runs cargo and expects success.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(arguments).current_dir(workspace()).status().context("cargo")?;
    ensure!(status.success(), "cargo {} failed: {status}", arguments.join(" "));
    Ok(())
}

/// What a program printed and how it ended; no status when its time was over.
pub(crate) struct Finished {
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` for at most `limit`, then kills its process group.
///
/// What it prints goes to unnamed files: a grandchild that keeps a pipe open could hold this
/// process for ever.
pub(crate) fn limited(mut command: Command, limit: Duration) -> Result<Finished> {
    let (mut out, mut err) = (unnamed_file()?, unnamed_file()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    Ok(Finished { status, stdout: content(&mut out)?, stderr: content(&mut err)? })
}

fn unnamed_file() -> Result<File> {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let fd = rustix::fs::open(std::env::temp_dir(), flags, 0o600.into()).context("a temporary file")?;
    Ok(File::from(fd))
}

fn content(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    // A runaway test may print without end.
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// So many tests of a series, or of a script, may fail once and pass when they are run again. They are named as
/// UNSTEADY, in the series and at the end of `cargo xtask test`; more of them are failures. The machines that run
/// the tests are shared: what a test says of the order of things can be wrong there without a defect.
pub(crate) const UNSTEADY: usize = 2;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub(crate) fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Reads the totals out of what a step printed: our own last line (`1 passed, 0 failed, 0
    /// skipped`), nextest's (`Summary [ 1s] 9 tests run: 9 passed, 1 skipped`) or one
    /// `test result:` line per program of `cargo test`.
    pub(crate) fn parse(text: &str) -> Counts {
        let mut counts = Counts::default();
        for line in text.lines().map(str::trim) {
            let own = line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(" passed, ");
            if own || line.starts_with("Summary [") {
                counts = Counts::of_line(line);
            } else if line.starts_with("test result:") {
                counts.add(&Counts::of_line(line));
            }
        }
        counts
    }

    fn of_line(line: &str) -> Counts {
        let words: Vec<&str> = line.split([' ', ',', ';', ':', '.']).filter(|w| !w.is_empty()).collect();
        let before = |word: &str| {
            words.windows(2).find(|w| w[1] == word).and_then(|w| w[0].parse().ok()).unwrap_or_default()
        };
        Counts {
            passed: before("passed"),
            failed: before("failed") + before("timed"),
            skipped: before("skipped") + before("ignored"),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a ratchet of known failures: a name and its reason per line.
///
/// A reason that begins with `sometimes` lets the test pass too.
pub(crate) fn known_failures(file: &str) -> Result<BTreeMap<String, String>> {
    let path = workspace().join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            ensure!(!reason.trim().is_empty(), "{}: {name} has no reason", path.display());
            Ok((name.to_owned(), reason.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn totals_of_three_runners() {
        let own = Counts::parse("sandbox: x\n7 passed, 1 failed, 2 skipped\n");
        assert_eq!(own, Counts { passed: 7, failed: 1, skipped: 2 });
        let nextest =
            Counts::parse("  Summary [   0.4s] 9 tests run: 8 passed (1 slow), 1 failed, 3 skipped");
        assert_eq!(nextest, Counts { passed: 8, failed: 1, skipped: 3 });
        let line = "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(Counts::parse(&format!("{line}\n{line}")), Counts { passed: 8, failed: 0, skipped: 2 });
    }
}
