//! Control groups that systemd makes: a transient scope per container, see
//! systemd.scope(5) and org.freedesktop.systemd1(5).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::v2::{swap_only, weight};
use super::{Cgroup, Hierarchy, OWN_TASKS};
use crate::dbus::{Body, Bus, Target, Value};
use crate::log;
use crate::oci::{Resources, translate};

const MANAGER: Target<'static> = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
/// In percent of a CPU, which systemd counts in.
const PERCENT_US: u64 = 10_000;

/// A scope, before and while it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scope {
    unit: String,
    slice: String,
    /// Whose systemd makes it: root's is the host's own.
    uid: u32,
}

impl Scope {
    /// The control groups of a container under systemd. `path` is
    /// `linux.cgroupsPath`: `SLICE:PREFIX:NAME`, or nothing.
    pub(crate) fn plan(hierarchy: &Hierarchy, path: &str, id: &str) -> Result<Cgroup> {
        ensure!(
            Path::new("/run/systemd/system").is_dir(),
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available"
        );
        let uid = crate::rootless::host_uid();
        let (scope, below) = Scope::named(path, id, uid)?;
        let top = if uid == 0 { String::new() } else { scope.control_group()? };
        let path = format!("{}{below}", top.trim_end_matches('/'));
        Ok(Cgroup { scope: Some(scope), ..Cgroup::plan(hierarchy, &path, id) })
    }

    /// The scope and its path below its manager's group.
    fn named(path: &str, id: &str, uid: u32) -> Result<(Scope, String)> {
        let parts: Vec<&str> = path.split(':').collect();
        let (slice, prefix, name) = match parts.as_slice() {
            [""] => ("", "sallet", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => bail!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            ),
        };
        let slice = match slice {
            "" if uid == 0 => "system.slice",
            "" => "user.slice",
            slice => slice,
        };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        ensure!(!unit.contains('/') && !name.is_empty(), "invalid name of a scope: {unit:?}");
        let path = format!("{}/{unit}", slice_path(slice)?);
        Ok((Scope { unit, slice: slice.to_owned(), uid }, path))
    }

    /// Has the scope made around a process, with the limits that systemd knows.
    pub(crate) fn start(&self, pid: i32, resources: &Resources, v2: bool) -> Result<()> {
        let io = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
        let mut properties = vec![
            (
                "Description",
                Value::Text(format!("sallet container {}", self.unit.trim_end_matches(".scope"))),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::U32s(vec![u32::try_from(pid)?])),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            // A scope whose container was killed leaves nothing behind.
            ("CollectMode", Value::Text("inactive-or-failed".into())),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            (io, Value::Bool(true)),
        ];
        properties.extend(limits(resources, v2)?);
        let body = Body::default().text(&self.unit).text("replace").properties(&properties).no_units();
        let mut bus = self.connect()?;
        let done = match run_job(&mut bus, "StartTransientUnit", &body) {
            // The rest of one that failed.
            Err(error) if format!("{error:#}").contains("UnitExists") => {
                bus.call(MANAGER, "ResetFailedUnit", &Body::default().text(&self.unit))?;
                run_job(&mut bus, "StartTransientUnit", &body)
            }
            done => done,
        };
        done.with_context(|| format!("systemd does not start {}", self.unit))
    }

    /// Tells systemd of new limits, lest it restores the old ones.
    pub(crate) fn set(&self, resources: &Resources, v2: bool) -> Result<()> {
        let properties = limits(resources, v2)?;
        let body = Body::default().text(&self.unit).bool(true).properties(&properties);
        self.connect()?
            .call(MANAGER, "SetUnitProperties", &body)
            .map(drop)
            .with_context(|| format!("systemd does not change {}", self.unit))
    }

    /// Has the scope removed; most often systemd has seen that it is empty.
    pub(crate) fn stop(&self) {
        let stopped = self.connect().and_then(|mut bus| {
            let body = Body::default().text(&self.unit).text("replace");
            run_job(&mut bus, "StopUnit", &body)?;
            bus.call(MANAGER, "ResetFailedUnit", &Body::default().text(&self.unit)).map(drop)
        });
        if let Err(error) = stopped {
            log::debug(&format!("{error:#}"));
        }
    }

    /// The group of a user's systemd itself.
    fn control_group(&self) -> Result<String> {
        let target = Target { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
        let body = Body::default().text(MANAGER.interface).text("ControlGroup");
        let reply = self.connect()?.call(target, "Get", &body)?;
        let mut reader = reply.reader();
        let text = reader.signature().filter(|kind| kind == "s").and_then(|_| reader.text());
        text.context("systemd does not tell its control group")
    }

    fn connect(&self) -> Result<Bus> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let address = if self.uid == 0 {
            variable("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned())
        } else {
            variable("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
                let folder = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", self.uid));
                format!("unix:path={folder}/bus")
            })
        };
        Bus::connect(&address, self.uid).context("ask systemd")
    }
}

/// Calls a method that gives a job, and waits for the job's end.
fn run_job(bus: &mut Bus, method: &str, body: &Body) -> Result<()> {
    let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
    bus.watch(MANAGER.destination, rule)?;
    bus.call(MANAGER, "Subscribe", &Body::default())?;
    let job = bus.call(MANAGER, method, body)?.reader().text().context("systemd names no job")?;
    let result = bus.wait(|signal| {
        let mut reader = signal.reader();
        if signal.member != "JobRemoved" {
            return None;
        }
        let (_id, path, _unit, result) = (reader.u32()?, reader.text()?, reader.text()?, reader.text()?);
        (path == job).then_some(result)
    })?;
    ensure!(result == "done", "the job ended as {result}");
    Ok(())
}

/// `a-b.slice` lies in `a.slice`.
fn slice_path(slice: &str) -> Result<String> {
    let stem = slice.strip_suffix(".slice").with_context(|| format!("invalid slice name: {slice}"))?;
    if stem == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut name = String::new();
    for part in stem.split('-') {
        ensure!(!part.is_empty() && !part.contains('/'), "invalid slice name: {slice}");
        name.push_str(part);
        path.push_str(&format!("/{name}.slice"));
        name.push('-');
    }
    Ok(path)
}

/// Limits as properties of a unit.
fn limits(resources: &Resources, v2: bool) -> Result<Vec<(&'static str, Value)>> {
    let mut all = Vec::new();
    let mut number = |name, value: i64| {
        all.push((name, Value::U64(u64::try_from(value).unwrap_or(u64::MAX))));
    };
    if let Some(memory) = &resources.memory {
        if let Some(limit) = memory.limit.filter(|n| *n != 0) {
            number(if v2 { "MemoryMax" } else { "MemoryLimit" }, limit);
        }
        if let Some(low) = memory.reservation.filter(|n| v2 && *n != 0) {
            number("MemoryLow", low);
        }
        if let Some(swap) = swap_only(memory.swap, memory.limit)?.filter(|_| v2) {
            number("MemorySwapMax", swap);
        }
    }
    if let Some(pids) = resources.pids.filter(|pids| pids.limit != 0) {
        number("TasksMax", if pids.limit < 0 { pids.limit } else { pids.limit.saturating_add(OWN_TASKS) });
    }
    let Some(cpu) = &resources.cpu else {
        return Ok(all);
    };
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        all.push(if v2 {
            ("CPUWeight", Value::U64(weight(shares)))
        } else {
            ("CPUShares", Value::U64(shares))
        });
    }
    if cpu.quota.is_some() || cpu.period.is_some() {
        let period = cpu.period.filter(|n| *n != 0);
        let per_second = match cpu.quota.and_then(|n| u64::try_from(n).ok()).filter(|n| *n != 0) {
            Some(quota) => quota
                .saturating_mul(1_000_000)
                .checked_div(period.unwrap_or(100_000))
                .and_then(|n| n.checked_next_multiple_of(PERCENT_US))
                .unwrap_or(u64::MAX),
            None => u64::MAX,
        };
        all.push(("CPUQuotaPerSecUSec", Value::U64(per_second)));
        if let Some(period) = period.filter(|n| *n != 100_000) {
            all.push(("CPUQuotaPeriodUSec", Value::U64(period)));
        }
    }
    for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        if let Some(list) = list.as_ref().filter(|list| v2 && !list.is_empty()) {
            all.push((name, Value::Bytes(bits(list)?)));
        }
    }
    Ok(all)
}

/// `0-2,5` as a bit mask.
fn bits(list: &str) -> Result<Vec<u8>> {
    let mut mask = Vec::new();
    for bit in translate::numbers(list).with_context(|| format!("no list: {list:?}"))? {
        let at = usize::from(bit / 8);
        if mask.len() <= at {
            mask.resize(at + 1, 0);
        }
        mask[at] |= 1 << (bit % 8);
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::config::{Cpu, Memory, Pids};

    #[test]
    fn paths_are_systemds() {
        let path = |path: &str, uid| Scope::named(path, "x", uid).unwrap().1;
        assert_eq!(path("system.slice:docker:abc", 0), "/system.slice/docker-abc.scope");
        assert_eq!(path("a-b.slice:cri:c", 0), "/a.slice/a-b.slice/cri-c.scope");
        assert_eq!(path("", 0), "/system.slice/sallet-x.scope");
        assert_eq!(path("", 1000), "/user.slice/sallet-x.scope");
        assert_eq!(path("-.slice::c", 0), "/c.scope");
        for wrong in ["/docker/abc", "a:b", "a.slice:b:", "x:b:c", "a--b.slice:c:d", "a/b.slice:c:d"] {
            assert!(Scope::named(wrong, "x", 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let resources = Resources {
            memory: Some(Memory { limit: Some(1 << 20), swap: Some(3 << 20), ..Memory::default() }),
            cpu: Some(Cpu { quota: Some(50_001), cpus: Some("0,9-10".into()), ..Cpu::default() }),
            pids: Some(Pids { limit: -1 }),
            ..Resources::default()
        };
        let v2 = limits(&resources, true).unwrap();
        assert_eq!(
            v2,
            [
                ("MemoryMax", Value::U64(1 << 20)),
                ("MemorySwapMax", Value::U64(2 << 20)),
                ("TasksMax", Value::U64(u64::MAX)),
                ("CPUQuotaPerSecUSec", Value::U64(510_000)),
                ("AllowedCPUs", Value::Bytes(vec![1, 6])),
            ]
        );
        let v1: Vec<&str> = limits(&resources, false).unwrap().iter().map(|(name, _)| *name).collect();
        assert_eq!(v1, ["MemoryLimit", "TasksMax", "CPUQuotaPerSecUSec"]);
        assert!(bits("a").is_err());
    }
}
