//! Locks the kernel process in, step by step.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use control::{BootSpec, JailMode, NetworkMode};
use host::connector::Connector;
use host::jail;

use crate::descriptors::Descriptors;
use crate::{loopback, outside};

/// Everything that must be done before the host's file system goes out of
/// sight, then the empty root and the unprivileged ids. Returns the procfs of
/// our own PID namespace, and who connects to the host's sockets, if any are granted.
pub(crate) fn enter(spec: &BootSpec, descriptors: &Descriptors) -> Result<(OwnedFd, Option<Connector>)> {
    prepare_network(spec)?;
    let proc = process_filesystem()?;
    jail::set_limits().context("set the limits of the kernel process")?;
    if spec.jail == JailMode::Off {
        let connector = outside::start(spec, descriptors, &proc)?;
        return Ok((proc, connector));
    }
    // Any directory will do; it is covered for a moment, in our namespace only.
    host::mount::enter_empty_root(Path::new("/proc")).map_err(|error| {
        // pivot_root(2) is forbidden by Docker's filter, whatever capabilities it leaves.
        let denied = error.raw_os_error() == Some(1);
        anyhow::Error::new(error).context(match denied {
            true => {
                "enter an empty root (within a container: start that with --security-opt seccomp=unconfined)"
            }
            false => "enter an empty root",
        })
    })?;
    // Its root is the empty one, too; making its network namespace takes a capability that goes now.
    let connector = outside::start(spec, descriptors, &proc)?;
    let capabilities = jail::kept_capabilities(spec.network_rights.raw, spec.network_rights.admin);
    match spec.own_id {
        Some(id) => host::caps::drop_to(id, id, capabilities),
        // One id is mapped: there is no other to take.
        None => host::caps::limit_to(capabilities),
    }
    .context("drop privileges")?;
    // A change of ids resets it to the host's fs.suid_dumpable.
    jail::set_limits().context("set the limits of the kernel process")?;
    Ok((proc, connector))
}

/// A procfs of our own PID namespace. In a container whose /proc has parts hidden the host lets nobody mount another
/// one, and the container's, with what hides them, must do.
fn process_filesystem() -> Result<OwnedFd> {
    let denied = match host::mount::process_filesystem() {
        Err(error) if error.raw_os_error() == Some(1) => error,
        other => return other.context("mount proc for the kernel process"),
    };
    let outer = host::mount::clone_tree(Path::new("/proc")).and_then(|proc| {
        let attributes = host::mount::Attributes { nodev: true, nosuid: true, ..Default::default() };
        host::mount::set_attributes(&proc, attributes)?;
        host::proc_fs::set_outer(&proc)?;
        tracing::debug!("no new /proc is allowed here: the container's /proc is used");
        Ok(proc)
    });
    outer.map_err(|error| {
        tracing::debug!(%error, "the /proc that is there");
        anyhow::Error::new(denied).context(
            "the host lets no /proc be mounted where the one that is there has parts hidden, as in a container: \
             start that with --security-opt systempaths=unconfined",
        )
    })
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
