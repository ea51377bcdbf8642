//! `cargo xtask test`: installs what the tests need and runs every test.
//!
//! Each step has a limit on its time and a log in `target/test-logs`. A failed step fails the run;
//! the steps after it still run. The last line is `N passed, N failed, N skipped` over all steps. A
//! step that prints such a line, or the totals of cargo's own test runners, counts by it; any other
//! counts as one test.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::run::{self, Counts};

/// A program that some test uses, and the Debian package that brings it.
const PACKAGES: [(&str, &str); 25] = [
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("ctr", "containerd"),
    ("debootstrap", "debootstrap"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("dockerd", "docker.io"),
    ("find", "findutils"),
    ("git", "git"),
    ("go", "golang-go"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("jq", "jq"),
    ("make", "make"),
    ("perl", "perl"),
    ("podman", "podman"),
    ("ps", "procps"),
    ("python3", "python3"),
    ("runc", "runc"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// What whole series cannot do without.
const FOR_DO: [&str; 9] = ["cc", "find", "git", "make", "perl", "ps", "python3", "strace", "xz"];
const FOR_OCI: [&str; 2] = ["debootstrap", "python3"];
const FOR_RUNTIME: [&str; 4] = ["debootstrap", "python3", "script", "setpriv"];
const FOR_DOCKER: [&str; 10] = [
    "ctr",
    "curl",
    "debootstrap",
    "docker",
    "docker-compose",
    "dockerd",
    "ip",
    "iptables",
    "podman",
    "python3",
];

/// Sandboxes that work otherwise, or do without something that this host may have.
const REDUCED: [(&str, &str); 7] = [
    ("memory calls checked", "--memory=checked"),
    ("no notification flags", "--without=notify-flags"),
    ("no sealing", "--without=sealing"),
    ("no patching", "--without=patching"),
    ("no spinning", "--without=spinning"),
    ("posting at once", "--without=posting-trial"),
    ("parking at once", "--without=parking-trial"),
];
/// What depends on those.
const REDUCED_CASES: &str = "memory/,thread/,signal/,attack/,process/,posting/,tcp,unix,epoll,file/,inotify/";

/// So many tests of all series together may be unsteady (see `run::UNSTEADY`).
const UNSTEADY: usize = 4;

const MINUTE: Duration = Duration::from_secs(60);

/// Runs every step; whether all passed.
pub(crate) fn run() -> Result<bool> {
    let logs = run::target_dir().join("test-logs");
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let mut steps = Steps { logs, counts: Counts::default(), unsteady: Vec::new() };
    let root = rustix::process::geteuid().is_root();
    if root {
        install(&mut steps)?;
    }
    steps.run("format", 2, "cargo", &["fmt", "--all", "--check"])?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    steps.run("clippy", 20, "cargo", &clippy)?;
    steps.xtask("tidy", 5, &["tidy"])?;
    if on_path("cargo-nextest") {
        let nextest = ["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"];
        steps.run("unit tests", 25, "cargo", &nextest)?;
        steps.run("documentation tests", 10, "cargo", &["test", "--workspace", "--doc", "--quiet"])?;
    } else {
        steps.run("unit tests", 25, "cargo", &["test", "--workspace", "--no-fail-fast", "--quiet"])?;
    }
    let built = steps.run("release build", 25, "cargo", &["build", "--release", "--quiet"])?;
    steps.xtask("guest tests, natively", 15, &["guest-tests", "--native"])?;
    if built {
        steps.xtask("guest tests, inside", 30, &["guest-tests", "--sandbox"])?;
        for (name, flag) in REDUCED {
            let series = ["guest-tests", "--sandbox", "--with", flag, "--filter", REDUCED_CASES];
            steps.xtask(&format!("guest tests, {name}"), 10, &series)?;
        }
        steps.series("programs in sallet do", 20, &["scripts", "do"], &FOR_DO)?;
    } else {
        steps.lost("guest tests, inside", "no release build");
        steps.lost("programs in sallet do", "no release build");
    }
    if !root {
        steps.skipped("runtime tests", "not root");
        steps.skipped("Docker tests", "not root");
    } else if built {
        steps.series("OCI tests", 10, &["scripts", "oci"], &FOR_OCI)?;
        steps.series("runtime tests", 20, &["scripts", "runtime"], &FOR_RUNTIME)?;
        docker(&mut steps)?;
    } else {
        steps.lost("OCI tests", "no release build");
        steps.lost("runtime tests", "no release build");
        steps.lost("Docker tests", "no release build");
    }
    for line in &steps.unsteady {
        println!("failed once, passed when run again: {line}");
    }
    if steps.unsteady.len() > UNSTEADY {
        println!("FAILED: more than {UNSTEADY} tests are unsteady");
        steps.counts.failed += 1;
    }
    println!("{}", steps.counts);
    Ok(steps.counts.failed == 0)
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

fn install(steps: &mut Steps) -> Result<()> {
    let mut missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {} libc6-dev",
        missing.join(" ")
    );
    if !steps.run("packages", 20, "sh", &["-c", &install])? {
        println!("   Steps that need what is missing will say so.");
    }
    Ok(())
}

/// Runs the Docker tests with the Docker that is there, else with one of their own.
fn docker(steps: &mut Steps) -> Result<()> {
    if !steps.has("Docker tests", &FOR_DOCKER) {
        return Ok(());
    }
    let mut own = None;
    if !docker_answers() {
        match start_docker(&steps.logs) {
            Ok(child) => own = Some(child),
            Err(error) => {
                steps.lost("Docker tests", &format!("dockerd does not start: {error:#}"));
                return Ok(());
            }
        }
    }
    steps.xtask("Docker tests", 40, &["scripts", "docker"])?;
    steps.xtask("applications", 20, &["apps", "--quick"])?;
    steps.xtask("network loads", 15, &["net", "--quick"])?;
    if let Some(mut child) = own {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        child.wait()?;
    }
    Ok(())
}

fn docker_answers() -> bool {
    let mut command = Command::new("docker");
    command.args(["info", "--format", "{{.ServerVersion}}"]);
    run::limited(command, Duration::from_secs(20)).is_ok_and(|f| f.status.is_some_and(|s| s.success()))
}

fn start_docker(logs: &Path) -> Result<Child> {
    let log = File::create(logs.join("dockerd.log"))?;
    let mut child = Command::new("dockerd")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("dockerd")?;
    let deadline = Instant::now() + MINUTE;
    while Instant::now() < deadline {
        if docker_answers() {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("it ended with {status}; see dockerd.log");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    child.kill()?;
    child.wait()?;
    anyhow::bail!("no answer in a minute")
}

struct Steps {
    logs: PathBuf,
    counts: Counts,
    /// What the steps said of tests that failed once and then passed.
    unsteady: Vec<String>,
}

impl Steps {
    fn xtask(&mut self, name: &str, minutes: u32, words: &[&str]) -> Result<bool> {
        let program = std::env::current_exe()?;
        self.run(name, minutes, &program.display().to_string(), words)
    }

    /// Runs one step; whether it passed.
    fn run(&mut self, name: &str, minutes: u32, program: &str, words: &[&str]) -> Result<bool> {
        println!("== {name}");
        std::io::stdout().flush()?;
        let start = Instant::now();
        let mut command = Command::new(program);
        command.args(words).current_dir(run::workspace()).env("CARGO_TERM_COLOR", "never");
        let finished = run::limited(command, MINUTE * minutes)?;
        let text = format!("{}\n{}", finished.stdout, finished.stderr);
        let log = self.logs.join(format!("{}.log", name.replace(&[' ', ','][..], "-")));
        std::fs::write(&log, &text)?;
        let passed = finished.status.is_some_and(|s| s.success());
        let mut counts = Counts::parse(&text);
        if counts.total() == 0 {
            counts.passed = usize::from(passed);
        }
        if !passed && counts.failed == 0 {
            counts.failed = 1;
        }
        self.counts.add(&counts);
        let unsteady = text.lines().filter(|l| l.contains(" UNSTEADY "));
        self.unsteady.extend(unsteady.map(|l| l.trim().to_owned()));
        let seconds = start.elapsed().as_secs();
        if passed {
            for line in text.lines().filter(|l| {
                l.starts_with("skip ")
                    || l.starts_with("     skip ")
                    || l.contains(" UNSTEADY ")
                    || l.contains("passes now")
            }) {
                println!("   {}", line.trim());
            }
            println!("   ok, {seconds} s, {counts}");
        } else {
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(60)..] {
                println!("   | {line}");
            }
            let end = finished.status.map_or(format!("no end after {minutes} minutes"), |s| s.to_string());
            println!("   FAILED: {end}, {seconds} s, {counts}; log: {}", log.display());
        }
        Ok(passed)
    }

    /// A series of tests that cannot do without some programs.
    fn series(&mut self, name: &str, minutes: u32, words: &[&str], programs: &[&str]) -> Result<()> {
        if self.has(name, programs) {
            self.xtask(name, minutes, words)?;
        }
        Ok(())
    }

    /// Whether the programs that a step needs are there; it is lost without.
    fn has(&mut self, name: &str, programs: &[&str]) -> bool {
        let missing: Vec<String> = PACKAGES
            .iter()
            .filter(|(program, _)| programs.contains(program) && !on_path(program))
            .map(|(program, package)| format!("{program} (package {package})"))
            .collect();
        if !missing.is_empty() {
            self.lost(name, &format!("not installed: {}", missing.join(", ")));
        }
        missing.is_empty()
    }

    fn lost(&mut self, name: &str, reason: &str) {
        println!("== {name}\n   FAILED: {reason}");
        self.counts.failed += 1;
    }

    fn skipped(&mut self, name: &str, reason: &str) {
        println!("== {name}\n   skip {name}: {reason}");
        self.counts.skipped += 1;
    }
}
