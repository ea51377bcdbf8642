//! What the host tells of a container's kernel process and control group.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// A container and its kernel process.
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) id: String,
    /// The process that the runtime named: Sallet's kernel process.
    pub(super) process: u32,
}

/// A kernel process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes of memory of its own.
    pub(super) private: u64,
    /// Bytes shared with other processes: slots, and files in memory that it has mapped.
    pub(super) shared: u64,
    /// Descriptors of the host.
    pub(super) descriptors: u64,
}

/// Samples over time.
#[derive(Default)]
pub(super) struct Samples(Vec<(Duration, Sample)>);

impl Samples {
    pub(super) fn push(&mut self, when: Duration, sample: Option<Sample>) {
        self.0.extend(sample.map(|sample| (when, sample)));
    }

    pub(super) fn last_private(&self) -> u64 {
        self.0.last().map_or(0, |(_, sample)| sample.private)
    }

    /// The means of the first third of the time and of the last.
    pub(super) fn thirds(&self) -> [Sample; 2] {
        let end = self.0.last().map_or(Duration::ZERO, |(when, _)| *when);
        let first = self.0.iter().filter(|(when, _)| *when <= end / 3).map(|(_, sample)| *sample);
        let last = self.0.iter().filter(|(when, _)| *when >= end / 3 * 2).map(|(_, sample)| *sample);
        [mean(first.collect()), mean(last.collect())]
    }
}

fn mean(samples: Vec<Sample>) -> Sample {
    let count = samples.len().max(1) as u64;
    let of = |field: fn(&Sample) -> u64| samples.iter().map(field).sum::<u64>() / count;
    Sample { private: of(|s| s.private), shared: of(|s| s.shared), descriptors: of(|s| s.descriptors) }
}

impl Watched {
    /// The container with that id.
    pub(super) fn new(name: &str, id: &str) -> Result<Watched> {
        let process = inspect(id, "{{.State.Pid}}")?.parse().context("the container's process")?;
        Ok(Watched { name: name.to_owned(), id: id.to_owned(), process })
    }

    /// It runs, and has done so since it began.
    pub(super) fn is_well(&self) -> Result<()> {
        let state =
            inspect(&self.id, "{{.State.Pid}} {{.State.Status}} {{.State.OOMKilled}} {{.RestartCount}}")?;
        let wanted = format!("{} running false 0", self.process);
        ensure!(state == wanted, "its state is {state:?}, not {wanted:?}");
        Ok(())
    }

    /// None once the process has ended.
    pub(super) fn sample(&self) -> Option<Sample> {
        let folder = PathBuf::from(format!("/proc/{}", self.process));
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        Some(Sample {
            private: kibibytes(&status, "RssAnon:")? << 10,
            shared: kibibytes(&status, "RssShmem:")? << 10,
            descriptors: std::fs::read_dir(folder.join("fd")).ok()?.count() as u64,
        })
    }

    /// Host processes of the container beyond the guest's own.
    pub(super) fn surplus(&self) -> Option<i64> {
        let line = "set -- /proc/[0-9]*; echo $#";
        let output = Command::new("docker").args(["exec", &self.id, "sh", "-c", line]).output().ok()?;
        let guest: i64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
        let host = i64::try_from(self.processes()?.len()).ok()?;
        Some(host - guest)
    }

    /// The host processes in the container's control group.
    fn processes(&self) -> Option<BTreeSet<u32>> {
        let text = std::fs::read_to_string(self.group()?.join("cgroup.procs")).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The control group that accounts for CPU time.
    fn group(&self) -> Option<PathBuf> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.process)).ok()?;
        let mut second = None;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = path.trim_start_matches('/');
            if controllers.split(',').any(|controller| controller == "cpuacct") {
                return Some(PathBuf::from("/sys/fs/cgroup").join(controllers).join(path));
            }
            if controllers.is_empty() {
                second = Some(PathBuf::from("/sys/fs/cgroup").join(path));
            }
        }
        second
    }

    /// Seconds of CPU time that all of the container has used.
    fn cpu_seconds(&self) -> Result<f64> {
        let group = self.group().with_context(|| format!("{}: its kernel process has ended", self.name))?;
        if let Ok(text) = std::fs::read_to_string(group.join("cpuacct.usage")) {
            return Ok(text.trim().parse::<f64>()? / 1e9);
        }
        let text = std::fs::read_to_string(group.join("cpu.stat")).context("cpu.stat")?;
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(line.context("cpu.stat has no usage_usec")?.trim().parse::<f64>()? / 1e6)
    }
}

/// The part of one CPU that all containers together use over that time.
pub(super) fn idle(containers: &[Watched], time: Duration) -> Result<f64> {
    let used = || containers.iter().map(Watched::cpu_seconds).sum::<Result<f64>>();
    let (began, before) = (Instant::now(), used()?);
    std::thread::sleep(time);
    Ok((used()? - before) / began.elapsed().as_secs_f64())
}

fn inspect(id: &str, format: &str) -> Result<String> {
    let output = Command::new("docker").args(["inspect", "-f", format, id]).output().context("docker")?;
    ensure!(output.status.success(), "docker inspect: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_are_of_the_time() {
        let mut samples = Samples::default();
        for second in 0..=90 {
            let sample = Sample { private: second, shared: 1, descriptors: 7 };
            samples.push(Duration::from_secs(second), Some(sample));
        }
        let [first, last] = samples.thirds();
        assert_eq!(first, Sample { private: 15, shared: 1, descriptors: 7 });
        assert_eq!(last, Sample { private: 75, shared: 1, descriptors: 7 });
        assert_eq!(samples.last_private(), 90);
    }

    #[test]
    fn without_samples_nothing_is_told() {
        assert_eq!(Samples::default().thirds(), [Sample::default(); 2]);
    }

    #[test]
    fn fields_of_a_status() {
        assert_eq!(kibibytes("Name:\tx\nRssAnon:\t     704 kB\n", "RssAnon:"), Some(704));
        assert_eq!(kibibytes("Name:\tx\n", "RssAnon:"), None);
    }
}
