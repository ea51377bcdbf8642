//! Locks the kernel process in, step by step.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use control::{BootSpec, JailMode, NetworkMode};
use host::jail;

use crate::loopback;

/// Everything that must be done before the host's file system goes out of
/// sight, then the empty root and the unprivileged ids. Returns the procfs of
/// our own PID namespace.
pub(crate) fn enter(spec: &BootSpec) -> Result<OwnedFd> {
    prepare_network(spec)?;
    let proc = host::mount::process_filesystem().context("mount proc for the kernel process")?;
    jail::set_limits().context("set the limits of the kernel process")?;
    if spec.jail == JailMode::Off {
        return Ok(proc);
    }
    // Any directory will do; it is covered for a moment, in our namespace only.
    host::mount::enter_empty_root(Path::new("/proc")).context("enter an empty root")?;
    let capabilities = jail::kept_capabilities();
    match spec.own_id {
        Some(id) => host::caps::drop_to(id, id, capabilities),
        // One id is mapped: there is no other to take.
        None => host::caps::limit_to(capabilities),
    }
    .context("drop privileges")?;
    // A change of ids resets it to the host's fs.suid_dumpable.
    jail::set_limits().context("set the limits of the kernel process")?;
    Ok(proc)
}

fn prepare_network(spec: &BootSpec) -> Result<()> {
    if spec.network == NetworkMode::Own {
        loopback::bring_up().context("bring the loopback interface up")?;
    }
    if spec.network == NetworkMode::Host {
        return Ok(());
    }
    for (name, value) in &spec.sysctl {
        if !name.starts_with("net.") {
            continue;
        }
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        if path.contains("..") {
            continue;
        }
        let written = fs::write(&path, value);
        // In a joined namespace the runtime has written it already.
        if spec.network == NetworkMode::Own {
            written.with_context(|| format!("set sysctl {name}"))?;
        }
    }
    Ok(())
}
