//! Starts the binder of a sandbox on a network over which its kernel process has no right.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use host::binder::Duties;
use host::namespace::Fork;

use crate::cgroup::Cgroup;
use crate::create::Plan;
use crate::launch::Network;
use crate::log;
use crate::oci::config::Linux;

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;

/// What a binder is to do for a container, and where.
pub(crate) struct Wanted {
    pub(crate) duties: Duties,
    /// The network namespace that it enters: it opens sockets there.
    namespace: Option<OwnedFd>,
}

/// What the first process could do on its network that the kernel process cannot; none if that is nothing, or if there is
/// no right to hand on, since the caller is not root.
pub(crate) fn wanted(
    plan: &Plan,
    linux: &Linux,
    network: &Network,
    rootless: bool,
) -> Result<Option<Wanted>> {
    let granted = plan.process.capabilities.bounding;
    let joined = match network {
        _ if rootless => return Ok(None),
        Network::New => return Ok(None),
        Network::Join(namespace) => Some(namespace),
        Network::Caller => None,
    };
    let opens = granted & NET_RAW != 0 && joined.is_some_and(|namespace| may_open(linux, namespace.as_fd()));
    let duties = Duties { binds: granted & NET_BIND_SERVICE != 0, opens };
    let namespace = joined.filter(|_| opens).map(OwnedFd::try_clone).transpose()?;
    Ok((duties.binds || duties.opens).then_some(Wanted { duties, namespace }))
}

/// Whether a container may have raw sockets in a network namespace that it joins. Not if that is the host's, as it is in
/// pods on the host's network: what is heard there is everybody's. Nor if the container's user namespace would give it
/// no right over that one.
fn may_open(linux: &Linux, namespace: BorrowedFd<'_>) -> bool {
    let Ok(joined) = Id::of(namespace) else { return false };
    match linux.namespaces.iter().find(|namespace| namespace.kind == "user") {
        // The host tells what root may do there.
        None => {}
        // What is made now owns nothing that was there before.
        Some(user) if user.path.is_empty() => return false,
        Some(user) => {
            let owner = host::namespace::owner(namespace).and_then(|owner| Id::of(owner.as_fd()));
            let (Ok(owner), Ok(user)) = (owner, Id::at(&user.path)) else { return false };
            if owner != user {
                return false;
            }
        }
    }
    let own = Id::at("/proc/self/ns/net");
    // A runtime that may not look there, or sees another process there, is in a container, or goes by its own.
    let first = Id::at("/proc/1/ns/net");
    !joined.is_initial() && own.is_ok_and(|own| own != joined) && first.map_or(true, |first| first != joined)
}

/// Which namespace a file is of.
#[derive(PartialEq, Eq)]
struct Id(u64, u64);

impl Id {
    fn of(file: BorrowedFd<'_>) -> io::Result<Id> {
        Ok(rustix::fs::fstat(file).map(|stat| Id(stat.st_dev, stat.st_ino))?)
    }

    fn at(path: &str) -> io::Result<Id> {
        Ok(rustix::fs::stat(path).map(|stat| Id(stat.st_dev, stat.st_ino))?)
    }

    /// The network namespace that Linux begins with, as Linux 6.18 and later number it.
    fn is_initial(&self) -> bool {
        const NET_NS_INIT_INO: u64 = 0xefff_fff9;
        self.1 == NET_NS_INIT_INO
    }
}

/// Starts one, in the container's control groups. It lives as long as somebody holds the other end of its channel, which is
/// returned, for the kernel process.
pub(crate) fn start(wanted: &Wanted, cgroup: &Cgroup, id: &str) -> Result<OwnedFd> {
    let (ours, theirs) = host::binder::channel().context("make the binder's channel")?;
    match host::namespace::fork().context("fork the binder")? {
        Fork::Parent(_) => Ok(ours),
        Fork::Child => {
            let error = match prepare(wanted, cgroup) {
                Ok(()) => host::binder::replace(&theirs, id, wanted.duties),
                Err(error) => error,
            };
            log::debug(&format!("neither ports below 1024 nor raw sockets: the binder: {error}"));
            // Nothing of the parent's may be dropped here.
            std::process::exit(1)
        }
    }
}

fn prepare(wanted: &Wanted, cgroup: &Cgroup) -> io::Result<()> {
    cgroup.enter()?;
    // As the kernel process: not what shall go when memory runs out.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    wanted.namespace.as_ref().map_or(Ok(()), host::namespace::enter_network)
}
