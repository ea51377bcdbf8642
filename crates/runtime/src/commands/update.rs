//! `sallet update`

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use control::Request;
use serde_json::Value;

use crate::cli::Globals;
use crate::container::Container;
use crate::oci::config::{self, BlockIo, Cpu, Memory, Pids};
use crate::oci::{Resources, translate};
use crate::state::Status;

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// JSON file with limits; - is standard input
    #[arg(long, short)]
    resources: Option<PathBuf>,
    /// Weight for block devices, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Length of a period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU time per period in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Share of CPU time beside others
    #[arg(long, alias = "cpu-shares")]
    cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time per period in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs to use, such as 0-2,5
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Bytes of memory
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<String>,
    /// Bytes of memory to keep when the host runs short
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Bytes of memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Greatest number of tasks
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Refused: there is no such limit here
    #[arg(long, hide = true)]
    l3_cache_schema: Option<String>,
    /// Refused: there is no such limit here
    #[arg(long, hide = true)]
    mem_bw_schema: Option<String>,
    /// Name of the container
    id: String,
}

impl Update {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let mut container = Container::load(&globals.root(), &self.id)?;
        if container.state.status() == Status::Stopped {
            bail!("container not running");
        }
        let resources = match &self.resources {
            Some(path) => read(path)?,
            None => self.resources_of_flags()?,
        };
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            bail!("limits of caches and memory bandwidth (intelRdt) are not supported");
        }
        let all = over(&container.state.resources, &resources)?;
        container.state.cgroup.update(&with_partners(resources, &all))?;
        container.tell(&Request::Limits(translate::cgroup_info(Some(&all))))?;
        container.state.resources = all;
        container.save()?;
        Ok(ExitCode::SUCCESS)
    }

    fn resources_of_flags(&self) -> Result<Resources> {
        let memory = |text: &Option<String>| text.as_deref().map(bytes).transpose();
        Ok(Resources {
            memory: Some(Memory {
                limit: memory(&self.memory)?,
                reservation: memory(&self.memory_reservation)?,
                swap: memory(&self.memory_swap)?,
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                shares: self.cpu_share,
                quota: self.cpu_quota,
                period: self.cpu_period,
                realtime_runtime: self.cpu_rt_runtime,
                realtime_period: self.cpu_rt_period,
                cpus: self.cpuset_cpus.clone(),
                mems: self.cpuset_mems.clone(),
                ..Cpu::default()
            }),
            pids: self.pids_limit.map(|limit| Pids { limit }),
            block_io: self.blkio_weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
            ..Resources::default()
        })
    }
}

/// Limits with others over them. Engines send a zero or an empty text for what stays as it is.
fn over(before: &Resources, changes: &Resources) -> Result<Resources> {
    fn put(all: &mut Value, change: Value) {
        match (all, change) {
            (Value::Object(all), Value::Object(change)) => {
                for (name, value) in change {
                    put(all.entry(name).or_insert(Value::Null), value);
                }
            }
            (_, Value::Null) => {}
            (_, Value::Number(number)) if number.as_i64() == Some(0) => {}
            (_, Value::String(text)) if text.is_empty() => {}
            (_, Value::Array(list)) if list.is_empty() => {}
            (all, change) => *all = change,
        }
    }
    let mut all = serde_json::to_value(before)?;
    put(&mut all, serde_json::to_value(changes)?);
    config::parse(all.to_string().as_bytes())
}

/// Limits that the host takes in pairs: one of them is written with the other as it is.
fn with_partners(mut changes: Resources, all: &Resources) -> Resources {
    let set = |n: Option<i64>| n.is_some_and(|n| n != 0);
    if let (Some(cpu), Some(all)) = (&mut changes.cpu, &all.cpu)
        && (set(cpu.quota) || cpu.period.is_some_and(|n| n != 0))
    {
        (cpu.quota, cpu.period) = (all.quota, all.period);
    }
    if let (Some(memory), Some(all)) = (&mut changes.memory, &all.memory)
        && set(memory.swap)
        && !set(memory.limit)
    {
        memory.limit = all.limit;
    }
    changes
}

fn read(path: &PathBuf) -> Result<Resources> {
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut text)?;
    } else {
        text = fs::read(path).with_context(|| path.display().to_string())?;
    }
    config::parse(&text).context("the resources are no valid JSON")
}

/// `64m` is 64 MiB; `1.5g`, `512MiB` and `64 mb` are as Docker reads them.
pub(super) fn bytes(text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let units = [('k', 10), ('m', 20), ('g', 30), ('t', 40), ('p', 50)];
    let with_unit =
        units.iter().find_map(|(unit, shift)| plain.strip_suffix(*unit).map(|number| (number, *shift)));
    let (number, shift) = match with_unit {
        Some((number, shift)) => (number.strip_suffix(' ').unwrap_or(number), shift),
        None => (plain, 0),
    };
    let whole = number.parse::<i64>().ok().and_then(|n| n.checked_mul(1 << shift));
    whole
        .or_else(|| fraction(number, shift))
        .with_context(|| format!("{text:?} is no number of bytes, such as 512m or 1.5g"))
}

/// A number with a point, of units of so many bits; what is less than a byte is left out.
fn fraction(number: &str, shift: u32) -> Option<i64> {
    let (whole, rest) = number.split_once('.')?;
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(rest) {
        return None;
    }
    let parts = rest.parse::<i128>().ok()?.checked_mul(1 << shift)? / 10_i128.pow(rest.len() as u32);
    let all = whole.parse::<i128>().ok()?.checked_mul(1 << shift)?.checked_add(parts)?;
    i64::try_from(all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_docker() {
        for (text, wanted) in [
            ("1024", 1024),
            ("-1", -1),
            ("0", 0),
            ("5b", 5),
            ("64m", 64 << 20),
            ("64 mb", 64 << 20),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("0.25M", 1 << 18),
            ("1.0001k", 1024),
            ("1.5t", 3 << 39),
        ] {
            assert_eq!(bytes(text).unwrap(), wanted, "{text}");
        }
        for wrong in
            ["", "m", "x", "1.m", ".5m", "1.5.5m", "1e3", "nan", "inf", "1.-5m", "9999999p", "64  m", "1i"]
        {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn changes_leave_the_rest() {
        let of = |text: &str| config::parse::<Resources>(text.as_bytes()).unwrap();
        let before =
            of(r#"{"memory":{"limit":100,"swap":200},"cpu":{"quota":5,"cpus":"0"},"pids":{"limit":7}}"#);
        // As Docker does it.
        let change = of(r#"{"memory":{"limit":0,"swap":300},"cpu":{"period":9,"quota":0,"cpus":""}}"#);
        let all = over(&before, &change).unwrap();
        let (memory, cpu) = (all.memory.unwrap(), all.cpu.clone().unwrap());
        assert_eq!((memory.limit, memory.swap), (Some(100), Some(300)));
        assert_eq!((cpu.quota, cpu.period, cpu.cpus.as_deref()), (Some(5), Some(9), Some("0")));
        assert_eq!(all.pids.unwrap().limit, 7);
        let written = with_partners(change, &all);
        assert_eq!(written.memory.unwrap().limit, Some(100));
        let cpu = written.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period, cpu.cpus.as_deref()), (Some(5), Some(9), Some("")));
        assert_eq!(over(&before, &of(r#"{"memory":{"limit":-1}}"#)).unwrap().memory.unwrap().limit, Some(-1));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!(bytes("1Gb").unwrap(), 1 << 30);
        assert_eq!(bytes("-1").unwrap(), -1);
        assert!(bytes("much").is_err());
        assert!(bytes("").is_err());
    }
}
