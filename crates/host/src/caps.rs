//! Giving up ids and capabilities: capabilities(7), credentials(7).

use std::io;

use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

/// Takes on a user and group id without supplementary groups, keeping exactly
/// the capabilities in `keep` (permitted and effective, in the caller's user
/// namespace), and makes sure that no later exec gains any.
///
/// One thread only: capabilities belong to threads.
pub fn drop_to(uid: u32, gid: u32, keep: CapabilitySet) -> io::Result<()> {
    take_ids(uid, gid)?;
    limit_to(keep)
}

/// The same for a program that this thread executes next.
pub(crate) fn drop_to_through_exec(uid: u32, gid: u32, keep: CapabilitySet) -> io::Result<()> {
    take_ids(uid, gid)?;
    limit(keep, true)
}

fn take_ids(uid: u32, gid: u32) -> io::Result<()> {
    rustix::thread::set_keep_capabilities(true)?;
    // SAFETY: no groups are passed, so no pointer is read.
    if unsafe { libc::setgroups(0, std::ptr::null()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers only.
    if unsafe { libc::setresgid(gid, gid, gid) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers only.
    if unsafe { libc::setresuid(uid, uid, uid) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // The change of ids left everything permitted and nothing effective.
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Keeps exactly the capabilities in `keep` and locks that choice. One thread
/// only.
pub fn limit_to(keep: CapabilitySet) -> io::Result<()> {
    limit(keep, false)
}

fn limit(keep: CapabilitySet, through_exec: bool) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let inherited = if through_exec { keep } else { CapabilitySet::empty() };
    if through_exec {
        let sets = rustix::thread::capabilities(None)?;
        rustix::thread::set_capabilities(None, CapabilitySets { inheritable: keep, ..sets })?;
    }
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if inherited.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true)?;
        }
    }
    // Bounding set and secure bits need CAP_SETPCAP, which goes last.
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if inherited.contains(one) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // Beyond the host's last capability.
            Err(_) => break,
        }
    }
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: keep, permitted: keep, inheritable: inherited },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Lets a program that this thread executes keep all its capabilities even
/// though its user id is not 0: the ambient set.
pub fn inherit_all() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if sets.permitted.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}
