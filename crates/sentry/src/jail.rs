//! Locks the kernel process in, step by step.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
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

/// A namespace of our own is set up here, where our capabilities count; the
/// runtime has set a joined one up.
fn prepare_network(spec: &BootSpec) -> Result<()> {
    if spec.network != NetworkMode::Own {
        return Ok(());
    }
    loopback::bring_up().context("bring the loopback interface up")?;
    for (name, value) in spec.sysctl.iter().filter(|(name, _)| name.starts_with("net.")) {
        if name.contains("..") || name.contains('/') {
            bail!("sysctl {name:?} is no name");
        }
        fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
            .with_context(|| format!("set sysctl {name}"))?;
    }
    Ok(())
}
