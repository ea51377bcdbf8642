//! How much CPU time the control groups leave the sandbox: `cpu.max`, `cpu.cfs_quota_us` (cgroups(7)).

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

/// The groups that limit the sandbox: its own and those above.
#[derive(Debug, Default)]
pub struct Quota(pub Vec<QuotaFiles>);

impl Quota {
    /// How many CPUs' worth of time the narrowest group has; infinite without a limit.
    pub(crate) fn cpus(&self) -> f64 {
        self.0.iter().filter_map(QuotaFiles::cpus).fold(f64::INFINITY, f64::min)
    }
    /// How often the groups ran out of time so far.
    pub(crate) fn throttled(&self) -> u64 {
        let counts = self.0.iter().filter_map(|files| files.stat.as_ref());
        counts.map(|stat| throttled(&text(stat))).fold(0, u64::wrapping_add)
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
        let quota = Quota(vec![own, group("400000 100000\n")]);
        assert_eq!(quota.cpus(), 4.0);
        std::os::unix::fs::FileExt::write_all_at(&inner, b"100000 100000\n", 0).unwrap();
        assert_eq!(quota.cpus(), 1.0);
        assert_eq!(Quota::default().cpus(), f64::INFINITY);
    }
}
