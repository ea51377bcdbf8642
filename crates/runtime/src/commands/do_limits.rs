//! Limits of `sallet do`: `--memory`, `--cpus`, `--pids`, `--timeout`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::update::bytes;
use crate::oci::Resources;
use crate::oci::config::{Cpu, Memory, Pids};

/// What a sandbox may use.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// Memory of all its processes together, such as 512m or 1.5g; who takes more is killed
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
    /// CPU time, as a number of CPUs such as 0.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Processes and threads at once
    #[arg(long, value_name = "NUMBER")]
    pids: Option<String>,
    /// Time to run, such as 30 (seconds), 500ms, 2h or 1m30s; then SIGTERM, a second later SIGKILL to all, and status
    /// 124. 0 is no limit
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
}

/// Microseconds that a quota of CPU time is for.
const PERIOD_US: u64 = 100_000;
/// The host takes no smaller quota, in microseconds.
const LEAST_QUOTA_US: f64 = 1000.0;
/// Less does not hold the sandbox itself.
const LEAST_MEMORY: i64 = 16 << 20;

impl Limits {
    /// For the control group; none where nothing is limited.
    pub(super) fn resources(&self) -> Result<Option<Resources>> {
        let memory = self.memory.as_deref().map(|text| memory(text).context("--memory")).transpose()?;
        let quota = self.cpus.as_deref().map(|text| quota(text).context("--cpus")).transpose()?;
        let pids = self.pids.as_deref().map(|text| pids(text).context("--pids")).transpose()?;
        if memory.is_none() && quota.is_none() && pids.is_none() {
            return Ok(None);
        }
        Ok(Some(Resources {
            // No swap: what is too much is too much at once.
            memory: memory.map(|limit| Memory { limit: Some(limit), swap: Some(limit), ..Memory::default() }),
            cpu: quota.map(|quota| Cpu { quota: Some(quota), period: Some(PERIOD_US), ..Cpu::default() }),
            pids: pids.map(|limit| Pids { limit }),
            ..Resources::default()
        }))
    }

    /// How long the program may run.
    pub(super) fn timeout(&self) -> Result<Option<Duration>> {
        let text = self.timeout.as_deref();
        let time = text.map(|text| duration(text).context("--timeout")).transpose()?;
        // As timeout(1) has it.
        Ok(time.filter(|time| !time.is_zero()))
    }
}

fn memory(text: &str) -> Result<i64> {
    let limit = bytes(text)?;
    ensure!(limit >= LEAST_MEMORY, "{text:?} is less than the 16m that a sandbox needs");
    Ok(limit)
}

fn quota(text: &str) -> Result<i64> {
    let cpus = text.parse().ok().filter(|cpus: &f64| cpus.is_finite() && *cpus > 0.0 && *cpus <= 100_000.0);
    let cpus = cpus.with_context(|| format!("{text:?} is no number of CPUs, such as 0.5"))?;
    #[expect(clippy::cast_possible_truncation, reason = "at most 10^10")]
    let quota = (cpus * PERIOD_US as f64).max(LEAST_QUOTA_US) as i64;
    Ok(quota)
}

fn pids(text: &str) -> Result<i64> {
    let limit = text.parse().ok().filter(|limit: &i64| *limit > 0);
    limit.with_context(|| format!("{text:?} is no number of processes, such as 100"))
}

/// Seconds, or numbers with units as timeout(1) and systemd.time(7) take them: `90`, `0.5s`, `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let seconds = text.trim().parse().ok().or_else(|| with_units(text));
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.with_context(|| format!("{text:?} is no time, such as 30, 500ms, 2m or 1m30s"))
}

/// Their sum, in seconds.
fn with_units(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (0.0, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, left) = after.split_at(end);
        let length = match unit {
            "us" | "usec" => 1e-6,
            "ms" | "msec" => 1e-3,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * length;
        rest = left.trim_start();
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: &str, cpus: &str, pids: &str) -> Result<Option<Resources>> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Limits { memory: some(memory), cpus: some(cpus), pids: some(pids), timeout: None }.resources()
    }

    #[test]
    fn limits_are_numbers() {
        let all = limits("64m", "1.5", "20").unwrap().unwrap();
        assert_eq!(all.memory.map(|m| (m.limit, m.swap)), Some((Some(64 << 20), Some(64 << 20))));
        assert_eq!(all.cpu.map(|c| (c.quota, c.period)), Some((Some(150_000), Some(100_000))));
        assert_eq!(all.pids.map(|p| p.limit), Some(20));
        assert!(limits("", "", "").unwrap().is_none());
        assert!(limits("", "0.001", "").unwrap().unwrap().memory.is_none());
        for (memory, cpus, pids) in [
            ("1k", "", ""),
            ("-1", "", ""),
            ("x", "", ""),
            ("", "0", ""),
            ("", "-1", ""),
            ("", "nan", ""),
            ("", "", "0"),
            ("", "", "1.5"),
        ] {
            assert!(limits(memory, cpus, pids).is_err(), "{memory} {cpus} {pids}");
        }
    }

    #[test]
    fn times_are_those_of_timeout() {
        for (text, seconds) in [
            ("5", 5.0),
            ("0.5", 0.5),
            ("2m", 120.0),
            ("1h", 3600.0),
            ("1d", 86400.0),
            ("3s", 3.0),
            ("500ms", 0.5),
            ("1m30s", 90.0),
            ("1h 30min", 5400.0),
            ("2 hours", 7200.0),
        ] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), seconds);
        }
        for wrong in
            ["", "s", "x", "-1", "nan", "inf", "5y", "1e300", "1m30", "m1", "1m-30s", "1.5.5s", "5,5s"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
