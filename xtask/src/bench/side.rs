//! The sides of the comparison, and the control group in which each is counted and limited.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One way to run a program.
pub(super) struct Side {
    pub(super) name: &'static str,
    /// What stands before the program's own words.
    pub(super) words: Vec<String>,
    /// The container runtime behind it, for whole containers.
    pub(super) runtime: Option<String>,
    pub(super) cgroup: Option<Cgroup>,
}

impl Side {
    /// Native, Sallet, and runsc where it is installed.
    pub(super) fn all(sallet: &str, notes: &mut Vec<String>) -> Vec<Side> {
        let installed = |name: &str| {
            let mut command = Command::new(name);
            command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let root = rustix::process::geteuid().is_root();
        let runc = (root && installed("runc")).then(|| "runc".to_owned());
        if runc.is_none() {
            notes.push("run /bin/true: not measured, it needs root and runc".into());
        }
        let mut sides = vec![
            Side { name: "native", words: Vec::new(), runtime: runc, cgroup: None },
            Side {
                name: "sallet",
                words: vec![sallet.to_owned(), "do".into(), "--".into()],
                runtime: Some(sallet.to_owned()),
                cgroup: None,
            },
        ];
        if root && installed("runsc") {
            let words = ["runsc", "--platform=systrap", "--network=none", "do"].map(str::to_owned).to_vec();
            sides.push(Side { name: "runsc", words, runtime: None, cgroup: None });
        } else {
            notes.push("runsc: not measured, it is not installed (or we are not root)".into());
        }
        for side in &mut sides {
            side.cgroup = Cgroup::new(side.name);
        }
        if sides.iter().any(|side| side.cgroup.is_none()) {
            notes.push("CPU time: not measured, no control group may be made here".into());
        }
        sides
    }

    /// The program with its words, in the side's control group.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let all = self.words.iter().map(String::as_str).chain(words.iter().copied());
        self.enter(all)
    }

    /// Any program, in the side's control group. It keeps the process id that it is started with.
    pub(super) fn enter<'a>(&self, mut words: impl Iterator<Item = &'a str>) -> Command {
        let Some(cgroup) = &self.cgroup else {
            let mut command = Command::new(words.next().unwrap_or("true"));
            command.args(words);
            return command;
        };
        let mut script = String::new();
        for directory in &cgroup.0 {
            script.push_str(&format!("echo $$ >{}/cgroup.procs; ", directory.display()));
        }
        script.push_str("exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(words);
        command
    }

    /// CPU seconds used so far.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        self.cgroup.as_ref().and_then(Cgroup::cpu_seconds)
    }

    /// One CPU's worth of time, or no limit.
    pub(super) fn limit(&self, one_cpu: bool) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.limit(one_cpu);
        }
    }
}

/// A control group of our own: the directory that limits, and the one that counts where version 1 keeps
/// them apart. Removed when it goes out of scope.
pub(super) struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn new(name: &str) -> Option<Cgroup> {
        let own = |controller: &str| group_of("self", controller);
        let name = format!("sallet-bench-{}-{name}", std::process::id());
        let top = Path::new("/sys/fs/cgroup");
        let mut made = Cgroup(Vec::new());
        for (mount, controller, file) in [
            ("cpu,cpuacct", "cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu", "cpu.cfs_quota_us"),
            ("", "", "cpu.max"),
        ] {
            let base = top.join(mount).join(own(controller).unwrap_or_default());
            if made.add(base.join(&name), file) {
                break;
            }
        }
        let limits = made.0.first()?.clone();
        if !limits.join("cpuacct.usage").exists() && !limits.join("cpu.stat").exists()
            || limits.join("cpu.cfs_quota_us").exists() && !limits.join("cpuacct.usage").exists()
        {
            let base = top.join("cpuacct").join(own("cpuacct").unwrap_or_default());
            made.add(base.join(&name), "cpuacct.usage");
        }
        Some(made)
    }

    /// Makes a directory that must then hold this file.
    fn add(&mut self, path: PathBuf, file: &str) -> bool {
        if std::fs::create_dir(&path).is_err() {
            return false;
        }
        if path.join(file).exists()
            && std::fs::OpenOptions::new().write(true).open(path.join("cgroup.procs")).is_ok()
        {
            self.0.push(path);
            return true;
        }
        let _ = std::fs::remove_dir(path);
        false
    }

    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        self.0.iter().find_map(|path| usage(path))
    }

    fn limit(&self, one_cpu: bool) {
        for path in &self.0 {
            // Each version has one of the two.
            let _ = std::fs::write(path.join("cpu.cfs_quota_us"), if one_cpu { "100000" } else { "-1" });
            let _ =
                std::fs::write(path.join("cpu.max"), if one_cpu { "100000 100000" } else { "max 100000" });
        }
    }

    /// Processes in it and in the groups below it.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut left: Vec<PathBuf> = self.0.first().cloned().into_iter().collect();
        while let Some(path) = left.pop() {
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            left.extend(folders(&path));
        }
        found
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in &self.0 {
            // The host takes a moment to forget the dead.
            for _ in 0..50 {
                folders(path).for_each(|below| drop(std::fs::remove_dir(below)));
                if std::fs::remove_dir(path).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// The path of a process's control group below the mount of a controller of version 1, or of version 2 for "".
fn group_of(process: &str, controller: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        names.split(',').any(|n| n == controller).then(|| path.trim_start_matches('/').to_owned())
    })
}

/// CPU seconds that a control group has used, those below it too.
fn usage(path: &Path) -> Option<f64> {
    if let Ok(text) = std::fs::read_to_string(path.join("cpuacct.usage")) {
        return Some(text.trim().parse::<f64>().ok()? / 1e9);
    }
    let stat = std::fs::read_to_string(path.join("cpu.stat")).unwrap_or_default();
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(usage.parse::<f64>().ok()? / 1e6)
}

/// CPU seconds that the control group of another process has used.
pub(crate) fn seconds_of_group(process: &str) -> Option<f64> {
    let top = Path::new("/sys/fs/cgroup");
    ["cpuacct", "cpu,cpuacct", ""].into_iter().find_map(|mount| {
        let controller = if mount.is_empty() { "" } else { "cpuacct" };
        usage(&top.join(mount).join(group_of(process, controller)?))
    })
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}
