//! The rules of capabilities(7), case by case.

use crate::{Capability, CapabilitySet, Credentials, ExecFile, FileCapabilities, NO_ID, securebits};
use linux_abi::Errno;

fn user(id: u32) -> Credentials {
    match Credentials::root().set_resuid(id, id, id) {
        Ok(user) => user,
        Err(errno) => panic!("{errno:?}"),
    }
}

#[test]
fn leaving_root_drops_everything_but_bounding() {
    let user = user(1000);
    assert_eq!((user.uid, user.euid, user.suid, user.fsuid), (1000, 1000, 1000, 1000));
    assert_eq!(user.permitted, CapabilitySet::EMPTY);
    assert_eq!(user.effective, CapabilitySet::EMPTY);
    assert_eq!(user.bounding, CapabilitySet::FULL);
    assert_eq!(user.set_uid(0), Err(Errno::EPERM));
    assert_eq!(user.set_reuid(0, NO_ID), Err(Errno::EPERM));
    assert!(user.set_reuid(1000, 1000).is_ok());
    assert_eq!(user.set_uid(NO_ID), Err(Errno::EINVAL));
}

#[test]
fn a_saved_root_comes_back_with_its_capabilities() -> Result<(), Errno> {
    let away = Credentials::root().set_resuid(NO_ID, 1000, NO_ID)?;
    assert_eq!(away.effective, CapabilitySet::EMPTY);
    assert_eq!(away.permitted, CapabilitySet::FULL);
    let back = away.set_resuid(NO_ID, 0, NO_ID)?;
    assert_eq!(back.effective, CapabilitySet::FULL);
    Ok(())
}

#[test]
fn keep_caps_keeps_permitted_only() -> Result<(), Errno> {
    let user = Credentials::root().set_keep_caps(true)?.set_uid(1000)?;
    assert_eq!(user.permitted, CapabilitySet::FULL);
    assert_eq!(user.effective, CapabilitySet::EMPTY);
    Ok(())
}

#[test]
fn fsuid_moves_the_file_capabilities() {
    let user = Credentials::root().set_fsuid(1000);
    assert!(!user.capable(Capability::DAC_OVERRIDE));
    assert!(user.capable(Capability::SETUID));
    assert!(user.set_fsuid(0).capable(Capability::DAC_OVERRIDE));
}

#[test]
fn capset_only_takes_away() -> Result<(), Errno> {
    let net: CapabilitySet = [Capability::NET_RAW].into_iter().collect();
    let less = Credentials::root().set_capabilities(net, net, CapabilitySet::EMPTY)?;
    assert_eq!(less.effective, net);
    assert_eq!(less.set_capabilities(CapabilitySet::FULL, net, net), Err(Errno::EPERM));
    assert_eq!(less.set_capabilities(net, CapabilitySet::FULL, net), Err(Errno::EPERM));
    let chown: CapabilitySet = [Capability::CHOWN].into_iter().collect();
    assert_eq!(less.set_capabilities(net, net, chown), Err(Errno::EPERM));
    Ok(())
}

#[test]
fn exec_as_root_gives_the_bounding_set_and_as_user_nothing() -> Result<(), Errno> {
    let mut root = Credentials::root();
    root.bounding = [Capability::CHOWN].into_iter().collect();
    let (after, secure) = root.after_exec(&ExecFile::default())?;
    assert_eq!(after.permitted, root.bounding);
    assert_eq!(after.effective, root.bounding);
    assert!(!secure);
    let (after, secure) = user(1000).after_exec(&ExecFile::default())?;
    assert_eq!(after.permitted, CapabilitySet::EMPTY);
    assert!(!secure);
    Ok(())
}

#[test]
fn setuid_root_programs_are_root_and_secure() -> Result<(), Errno> {
    let file = ExecFile { mode: 0o4755, ..ExecFile::default() };
    let (after, secure) = user(1000).after_exec(&file)?;
    assert_eq!((after.uid, after.euid, after.suid, after.fsuid), (1000, 0, 0, 0));
    assert_eq!(after.effective, CapabilitySet::FULL);
    assert!(secure);
    let mut bound = user(1000);
    bound.no_new_privs = true;
    let (after, secure) = bound.after_exec(&file)?;
    assert_eq!((after.euid, after.effective), (1000, CapabilitySet::EMPTY));
    assert!(!secure);
    let (after, _) = user(1000).after_exec(&ExecFile { nosuid: true, ..file })?;
    assert_eq!(after.euid, 1000);
    Ok(())
}

#[test]
fn file_capabilities_are_given_within_the_bounding_set() -> Result<(), Errno> {
    let bytes = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let Some(caps) = FileCapabilities::parse(&bytes) else { panic!("malformed") };
    assert!(caps.effective && caps.permitted.has(Capability::NET_RAW));
    let file = ExecFile { mode: 0o755, capabilities: Some(caps), ..ExecFile::default() };
    let (after, secure) = user(1000).after_exec(&file)?;
    assert!(after.capable(Capability::NET_RAW) && secure);
    let mut bound = user(1000);
    bound.bounding = CapabilitySet::EMPTY;
    assert_eq!(bound.after_exec(&file), Err(Errno::EPERM));
    assert_eq!(FileCapabilities::parse(&bytes[..12]), None);
    Ok(())
}

#[test]
fn ambient_capabilities_survive_exec_of_plain_programs() -> Result<(), Errno> {
    let net: CapabilitySet = [Capability::NET_RAW].into_iter().collect();
    let mut user = user(1000);
    (user.permitted, user.inheritable, user.ambient) = (net, net, net);
    let (after, secure) = user.after_exec(&ExecFile::default())?;
    assert_eq!((after.permitted, after.effective, secure), (net, net, false));
    let (after, _) = user.after_exec(&ExecFile { mode: 0o4755, uid: 2000, ..ExecFile::default() })?;
    assert_eq!((after.permitted, after.ambient), (CapabilitySet::EMPTY, CapabilitySet::EMPTY));
    Ok(())
}

#[test]
fn locked_securebits_stay() -> Result<(), Errno> {
    let locked = Credentials::root().set_securebits(securebits::NOROOT | securebits::NOROOT << 1)?;
    assert_eq!(locked.set_securebits(0), Err(Errno::EPERM));
    assert_eq!(locked.set_securebits(1 << 12 | 3), Err(Errno::EPERM));
    let (after, _) = locked.after_exec(&ExecFile::default())?;
    assert_eq!(after.permitted, CapabilitySet::EMPTY);
    Ok(())
}
