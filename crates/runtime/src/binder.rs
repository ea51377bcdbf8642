//! Starts the binder of a sandbox on a network over which its kernel process has no right.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use control::NetworkMode;
use host::namespace::Fork;

use crate::cgroup::Cgroup;
use crate::create::Plan;
use crate::log;

const NET_BIND_SERVICE: u64 = 1 << 10;

/// Whether the first process could bind ports below 1024 there that the kernel process cannot.
pub(crate) fn is_needed(mode: NetworkMode, plan: &Plan, rootless: bool) -> bool {
    // Who is not root has no right to hand on.
    mode != NetworkMode::Own && !rootless && plan.process.capabilities.bounding & NET_BIND_SERVICE != 0
}

/// Starts one, in the container's control groups. It lives as long as somebody holds the other end of its channel, which is
/// returned, for the kernel process.
pub(crate) fn start(cgroup: &Cgroup, id: &str) -> Result<OwnedFd> {
    let (ours, theirs) = host::binder::channel().context("make the binder's channel")?;
    match host::namespace::fork().context("fork the binder")? {
        Fork::Parent(_) => Ok(ours),
        Fork::Child => {
            let error = match prepare(cgroup) {
                Ok(()) => host::binder::replace(&theirs, id),
                Err(error) => error,
            };
            log::debug(&format!("ports below 1024 cannot be bound: the binder: {error}"));
            // Nothing of the parent's may be dropped here.
            std::process::exit(1)
        }
    }
}

fn prepare(cgroup: &Cgroup) -> io::Result<()> {
    cgroup.enter()?;
    // As the kernel process: not what shall go when memory runs out.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    Ok(())
}
