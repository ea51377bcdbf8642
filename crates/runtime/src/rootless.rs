//! Without root on the host: a user namespace around the runtime itself.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::thread::CapabilitySet;

use crate::oci::config::{IdMapping, Linux};

/// Whether the caller lacks what namespaces, mounts and id maps need.
pub(crate) fn is_needed() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    let has = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    !(has && rustix::process::geteuid().is_root())
}

/// Moves this process into a new user and mount namespace. The id maps are
/// the bundle's where it maps the caller alone, else the caller onto itself.
pub(crate) fn enter(linux: &Linux) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let uid_line = line(&linux.uid_mappings, uid, "uid")?;
    let gid_line = line(&linux.gid_mappings, gid, "gid")?;
    host::namespace::unshare_mounts(true).map_err(refused)?;
    // Required before an unprivileged process may write its gid_map.
    fs::write("/proc/self/setgroups", "deny").context("write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", uid_line).context("write /proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", gid_line).context("write /proc/self/gid_map")?;
    // The kernel process is executed by an id other than 0.
    host::caps::inherit_all().context("keep capabilities for the kernel process")
}

fn line(mappings: &[IdMapping], own: u32, word: &str) -> Result<String> {
    match mappings {
        [] => Ok(format!("{own} {own} 1\n")),
        [one] if one.host_id == own && one.size == 1 => Ok(format!("{} {own} 1\n", one.container_id)),
        _ => bail!("without root on the host only the caller's own {word} can be mapped"),
    }
}

fn refused(error: std::io::Error) -> anyhow::Error {
    match error.raw_os_error() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_caller_is_mapped() {
        let mapping = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(line(&[], 1000, "uid").unwrap(), "1000 1000 1\n");
        assert_eq!(line(&[mapping(0, 1000, 1)], 1000, "uid").unwrap(), "0 1000 1\n");
        assert!(line(&[mapping(0, 0, 1)], 1000, "uid").is_err());
        assert!(line(&[mapping(0, 1000, 2)], 1000, "uid").is_err());
    }
}
