//! The walls around the kernel process.
//!
//! Steps, in order: [`proc` mount, empty root](crate::mount), ids and
//! capabilities ([`crate::caps`]), limits and dumpability here, and last the
//! [seccomp filter](crate::seccomp_jail).

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;

/// User and group id of kernel process and stubs, so that they are never the
/// host's root even with an identity map.
pub const UNPRIVILEGED_ID: u32 = 65533;

/// What the kernel process may do to the guest's files, its own children and its network, of which the container's
/// configuration decides: `raw` and `admin`. All of it counts in its own user namespace only.
pub fn kept_capabilities(raw: bool, admin: bool) -> CapabilitySet {
    // Raw and packet sockets; our kernel asks for the guest's own capability.
    let raw = if raw { CapabilitySet::NET_RAW } else { CapabilitySet::empty() };
    // Changes of addresses, routes and interfaces; likewise.
    let admin = if admin { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    raw | admin
        // Files get their guest owner.
        | CapabilitySet::CHOWN
        // The guest's permissions are checked by our kernel, not the host's.
        | CapabilitySet::DAC_OVERRIDE
        // chmod, utimensat and link on files of other owners.
        | CapabilitySet::FOWNER
        // Keep set-id bits over writes that our kernel allows.
        | CapabilitySet::FSETID
        // security.capability.
        | CapabilitySet::SETFCAP
        // process_vm_readv on non-dumpable children.
        | CapabilitySet::SYS_PTRACE
        // Children may have other ids than the kernel process.
        | CapabilitySet::KILL
        // Guest servers on ports below 1024, in a network namespace of ours.
        | CapabilitySet::NET_BIND_SERVICE
}

/// No core dumps (the host's handler for them runs as root), no reading of
/// this process by its peers, and as many descriptors as the host allows.
pub fn set_limits() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let files = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    Ok(())
}
