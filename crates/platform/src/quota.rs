//! How much CPU time the control groups leave the sandbox, `cpu.max` and `cpu.cfs_quota_us` (cgroups(7)), and whether
//! others wait for the machine's CPUs.

use std::os::fd::OwnedFd;

/// The control files of one group. Read anew each time, since limits change while a sandbox runs.
#[derive(Debug)]
pub struct QuotaFiles {
    /// `cpu.max`, or version 1's `cpu.cfs_quota_us`.
    pub quota: OwnedFd,
    /// Version 1's `cpu.cfs_period_us`.
    pub period: Option<OwnedFd>,
    /// `cpu.stat`.
    pub stat: Option<OwnedFd>,
}

/// What limits the sandbox's CPU time.
#[derive(Debug, Default)]
pub struct Quota {
    /// The groups that limit it: its own and those above.
    pub groups: Vec<QuotaFiles>,
    /// `/proc/loadavg` of the host (proc_loadavg(5)).
    pub load: Option<OwnedFd>,
    /// CPUs of the host.
    pub online: usize,
}

impl Quota {
    /// How many CPUs' worth of time the narrowest group has; infinite without a limit.
    pub(crate) fn cpus(&self) -> f64 {
        self.groups.iter().filter_map(QuotaFiles::cpus).fold(f64::INFINITY, f64::min)
    }
    /// How often the groups ran out of time so far.
    pub(crate) fn throttled(&self) -> u64 {
        let counts = self.groups.iter().filter_map(|files| files.stat.as_ref());
        counts.map(|stat| throttled(&text(stat))).fold(0, u64::wrapping_add)
    }
    /// Whether more threads than there are CPUs want to run now, the caller among them. Unknown is yes.
    pub(crate) fn is_contended(&self) -> bool {
        let running = self.load.as_ref().and_then(|load| running(&text(load)));
        running.is_none_or(|running| running > self.online)
    }
}

impl QuotaFiles {
    fn cpus(&self) -> Option<f64> {
        let (quota, period) = (text(&self.quota), self.period.as_ref().map(text));
        limit(&quota, period.as_deref())
    }
}

/// CPUs' worth of time from the files' contents; absent without a limit.
fn limit(quota: &str, period: Option<&str>) -> Option<f64> {
    let mut words = quota.split_whitespace();
    // "max" and -1 are no limit.
    let quota: f64 = words.next()?.parse().ok().filter(|quota| *quota > 0.0)?;
    let period: f64 = period.map(str::trim).or_else(|| words.next())?.parse().ok()?;
    (period > 0.0).then(|| quota / period)
}

fn throttled(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// How many threads run or want to, as /proc/loadavg has it: `0.20 0.18 0.12 1/80 11206`.
fn running(load: &str) -> Option<usize> {
    load.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

/// The file as it is now, at most a page of it.
fn text(file: &OwnedFd) -> String {
    let mut bytes = [0; 4096];
    let n = rustix::io::pread(file, &mut bytes[..], 0).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..n).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(limit("max 100000\n", None), None);
        assert_eq!(limit("150000 100000\n", None), Some(1.5));
        assert_eq!(limit("-1\n", Some("100000\n")), None);
        assert_eq!(limit("50000\n", Some("100000\n")), Some(0.5));
        assert_eq!(limit("", None), None);
        assert_eq!(limit("50000\n", Some("0\n")), None);
        assert_eq!(throttled("nr_periods 7\nnr_throttled 3\nthrottled_time 9\n"), 3);
    }

    #[test]
    fn the_narrowest_group_counts_as_it_is_now() {
        let file = |text: &str| {
            let fd = rustix::fs::memfd_create("quota", rustix::fs::MemfdFlags::empty()).unwrap();
            let mut file = std::fs::File::from(fd);
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let group = |text: &str| QuotaFiles { quota: file(text).into(), period: None, stat: None };
        let inner = file("max 100000\n");
        let own = QuotaFiles { quota: inner.try_clone().unwrap().into(), period: None, stat: None };
        let groups = vec![own, group("400000 100000\n")];
        let quota = Quota { groups, load: None, online: 2 };
        assert_eq!(quota.cpus(), 4.0);
        std::os::unix::fs::FileExt::write_all_at(&inner, b"100000 100000\n", 0).unwrap();
        assert_eq!(quota.cpus(), 1.0);
        assert_eq!(Quota::default().cpus(), f64::INFINITY);
    }

    #[test]
    fn more_threads_than_cpus_are_a_crowd() {
        let crowd = |text: &str, online| {
            let fd = rustix::fs::memfd_create("loadavg", rustix::fs::MemfdFlags::empty()).unwrap();
            std::fs::File::from(fd.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
            Quota { groups: Vec::new(), load: Some(fd), online }.is_contended()
        };
        assert!(!crowd("0.20 0.18 0.12 2/80 11206\n", 2));
        assert!(crowd("0.20 0.18 0.12 3/80 11206\n", 2));
        assert!(crowd("nonsense", 64));
        assert!(Quota::default().is_contended());
    }
}
