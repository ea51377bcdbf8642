//! Without root on the host: a user namespace around the runtime itself.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use host::namespace::Fork;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::CapabilitySet;

use crate::oci::config::{IdMapping, Linux};

/// Whether the caller lacks what namespaces, mounts and id maps need.
pub(crate) fn is_needed() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    let has = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    !(has && rustix::process::geteuid().is_root())
}

/// The caller's user id as the host, or the user namespace around ours, knows
/// it.
pub(crate) fn host_uid() -> u32 {
    let own = rustix::process::geteuid().as_raw();
    outside(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default(), own).unwrap_or(own)
}

/// What an id map makes of an id.
fn outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        let (inside, outside, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < length)?;
        outside.checked_add(offset)
    })
}

/// Moves this process into a new user and mount namespace. The id maps are
/// the bundle's, else the caller onto itself. Ids beside the caller's own are
/// newuidmap(1)'s to give.
pub(crate) fn enter(linux: &Linux) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    match (own_line(&linux.uid_mappings, uid), own_line(&linux.gid_mappings, gid)) {
        (Some(uid_line), Some(gid_line)) => {
            host::namespace::unshare_mounts(true).map_err(refused)?;
            // Required before an unprivileged process may write its gid_map.
            fs::write("/proc/self/setgroups", "deny").context("write /proc/self/setgroups")?;
            fs::write("/proc/self/uid_map", uid_line).map_err(|error| unmapped(uid, error))?;
            fs::write("/proc/self/gid_map", gid_line).context("write /proc/self/gid_map")?;
        }
        _ => enter_with_subordinates(linux)?,
    }
    // The kernel process is executed by an id other than 0.
    host::caps::inherit_all().context("keep capabilities for the kernel process")
}

/// The map of a bundle that maps nobody but the caller.
fn own_line(mappings: &[IdMapping], own: u32) -> Option<String> {
    match mappings {
        [] => Some(format!("{own} {own} 1\n")),
        [one] if one.host_id == own && one.size == 1 => Some(format!("{} {own} 1\n", one.container_id)),
        _ => None,
    }
}

/// A child outside the new namespace has its maps written.
fn enter_with_subordinates(linux: &Linux) -> Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    let (entered, enter) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (failures, failure) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = match host::namespace::fork().context("fork for newuidmap")? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(enter);
            if rustix::io::read(&entered, &mut [0; 1]) == Ok(1) {
                let written = write_map("newuidmap", &own, &linux.uid_mappings)
                    .and_then(|()| write_map("newgidmap", &own, &linux.gid_mappings));
                if let Err(error) = written {
                    let _ = rustix::io::write(&failure, format!("{error:#}").as_bytes());
                }
            }
            std::process::exit(0);
        }
    };
    drop(failure);
    let unshared = host::namespace::unshare_mounts(true).map_err(refused);
    if unshared.is_ok() {
        rustix::io::write(&enter, &[1])?;
    }
    drop(enter);
    let mut text = String::new();
    fs::File::from(failures).take(4096).read_to_string(&mut text)?;
    let _ = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty());
    unshared?;
    ensure!(text.is_empty(), "{text}");
    Ok(())
}

/// Calls newuidmap(1) or newgidmap(1) for a process.
fn write_map(program: &str, pid: &str, mappings: &[IdMapping]) -> Result<()> {
    ensure!(!mappings.is_empty(), "the bundle maps no ids for {program}");
    let numbers = mappings.iter().flat_map(|map| [map.container_id, map.host_id, map.size]);
    let output = Command::new(program)
        .arg(pid)
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("ids beside the caller's own need {program} (package uidmap)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", text.trim());
    Ok(())
}

/// Maps that give the caller its own id and, where /etc/subuid and /etc/subgid
/// have some for it, the others from its subordinate ones; else none.
pub(crate) fn with_subordinates(uid: u32, gid: u32) -> (Vec<IdMapping>, Vec<IdMapping>) {
    let name = crate::container::user_name(uid);
    let maps = |path: &str, own: u32| {
        let (start, count) = subordinates(&fs::read_to_string(path).ok()?, &name, uid)?;
        around(own, start, count)
    };
    let installed = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"].iter().all(|path| Path::new(path).exists());
    match (maps("/etc/subuid", uid), maps("/etc/subgid", gid)) {
        (Some(uids), Some(gids)) if installed => (uids, gids),
        _ => (Vec::new(), Vec::new()),
    }
}

/// The first range of subuid(5) for a user.
fn subordinates(text: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let numbers = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (owner == name || owner.parse() == Ok(uid)).then_some(numbers)
    })
}

/// One id onto itself, the others from 0 on onto a range.
fn around(own: u32, start: u32, count: u32) -> Option<Vec<IdMapping>> {
    let below = own.min(count);
    let ranges =
        [(0, start, below), (own, own, 1), (own.checked_add(1)?, start.checked_add(below)?, count - below)];
    Some(
        ranges
            .into_iter()
            .filter(|(_, _, size)| *size != 0)
            .map(|(container_id, host_id, size)| IdMapping { container_id, host_id, size })
            .collect(),
    )
}

/// Lines that map every id which is mapped here onto itself.
pub(crate) fn identity(map: &str) -> Vec<control::IdMapping> {
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
            let (inside, _, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(control::IdMapping { inside, outside: inside, length })
        })
        .collect()
}

/// Why the caller's own id may not be an id of its namespace.
fn unmapped(uid: u32, error: std::io::Error) -> anyhow::Error {
    let refused = error.kind() == std::io::ErrorKind::PermissionDenied;
    anyhow::Error::new(error).context(match uid {
        // Since Linux 5.12; Docker gives it, --cap-drop ALL takes it.
        0 if refused => {
            "write /proc/self/uid_map: root needs CAP_SETFCAP (--cap-add SETFCAP for a container around it), \
             other users nothing (--user 1000)"
        }
        _ => "write /proc/self/uid_map",
    })
}

fn refused(error: std::io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(1 | 13) if is_filtered() => anyhow::anyhow!(
            "the system call filter of the container around it forbids user namespaces: start that with \
             --security-opt seccomp=unconfined"
        ),
        Some(1 | 13) => anyhow::anyhow!(
            "the host forbids user namespaces to ordinary users: run as root, or allow them \
             (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
        ),
        Some(28 | 87) => anyhow::anyhow!(
            "the host's limit of user namespaces is reached (sysctl user.max_user_namespaces)"
        ),
        _ => anyhow::Error::new(error).context("make a user namespace"),
    }
}

/// Whether a seccomp filter judges our calls, as in most containers.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_names_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outside(map, 0), Some(1000));
        assert_eq!(outside(map, 3), Some(100_002));
        assert_eq!(outside(map, 70_000), None);
    }

    #[test]
    fn subordinate_ids_lie_around_the_callers() {
        let text = "else:1:2\nme:100000:65536\n1001:7:8\n";
        assert_eq!(subordinates(text, "me", 1000), Some((100_000, 65_536)));
        assert_eq!(subordinates(text, "you", 1001), Some((7, 8)));
        assert_eq!(subordinates(text, "you", 1002), None);
        let ranges = |own, count| -> Vec<(u32, u32, u32)> {
            let maps = around(own, 100_000, count).unwrap();
            maps.iter().map(|map| (map.container_id, map.host_id, map.size)).collect()
        };
        assert_eq!(ranges(1000, 65_536), [(0, 100_000, 1000), (1000, 1000, 1), (1001, 101_000, 64_536)]);
        assert_eq!(ranges(1000, 10), [(0, 100_000, 10), (1000, 1000, 1)]);
    }

    #[test]
    fn the_caller_alone_needs_no_help() {
        let mapping = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(own_line(&[], 1000).unwrap(), "1000 1000 1\n");
        assert_eq!(own_line(&[mapping(0, 1000, 1)], 1000).unwrap(), "0 1000 1\n");
        assert_eq!(own_line(&[mapping(0, 0, 1)], 1000), None);
        assert_eq!(own_line(&[mapping(0, 1000, 2)], 1000), None);
    }
}
