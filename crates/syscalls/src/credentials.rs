//! User and group ids: getuid(2), setresuid(2), setgroups(2) and relatives.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::{Capability, Credentials};
use linux_abi::Errno;

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `NGROUPS_MAX`.
const NGROUPS_MAX: usize = 65_536;

/// Puts new credentials in place; a change of the effective ones makes the process undumpable and forgets
/// the parent death signal, as `commit_creds` of Linux does.
pub fn commit(cx: &mut Cx<'_>, new: Credentials) {
    let old = &cx.credentials;
    let changed =
        old.euid != new.euid || old.egid != new.egid || old.fsuid != new.fsuid || old.fsgid != new.fsgid;
    if changed || new.permitted.0 & !old.permitted.0 != 0 {
        cx.mm().dumpable.store(false, Ordering::Relaxed);
        cx.thread.parent_death_signal.store(0, Ordering::Relaxed);
    }
    let new = Arc::new(new);
    cx.thread.set_credentials(new.clone());
    cx.credentials = new;
    if cx.local.identity_told {
        cx.tell_identity();
    }
}

fn change(cx: &mut Cx<'_>, new: Result<Credentials, Errno>) -> SysResult {
    commit(cx, new?);
    Ok(0)
}

/// getuid(2).
pub fn getuid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.credentials.uid))
}
/// geteuid(2).
pub fn geteuid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.credentials.euid))
}
/// getgid(2).
pub fn getgid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.credentials.gid))
}
/// getegid(2).
pub fn getegid(cx: &mut Cx<'_>) -> SysResult {
    cx.tell_identity();
    Ok(i64::from(cx.credentials.egid))
}

/// getresuid(2).
pub fn getresuid(cx: &mut Cx<'_>, uid: Ptr, euid: Ptr, suid: Ptr) -> SysResult {
    let creds = cx.credentials.clone();
    cx.write(uid, &creds.uid)?;
    cx.write(euid, &creds.euid)?;
    cx.write(suid, &creds.suid)?;
    Ok(0)
}
/// getresgid(2).
pub fn getresgid(cx: &mut Cx<'_>, gid: Ptr, egid: Ptr, sgid: Ptr) -> SysResult {
    let creds = cx.credentials.clone();
    cx.write(gid, &creds.gid)?;
    cx.write(egid, &creds.egid)?;
    cx.write(sgid, &creds.sgid)?;
    Ok(0)
}

/// setuid(2).
pub fn setuid(cx: &mut Cx<'_>, uid: u32) -> SysResult {
    let new = cx.credentials.set_uid(uid);
    change(cx, new)
}
/// setgid(2).
pub fn setgid(cx: &mut Cx<'_>, gid: u32) -> SysResult {
    let new = cx.credentials.set_gid(gid);
    change(cx, new)
}
/// setreuid(2).
pub fn setreuid(cx: &mut Cx<'_>, uid: u32, euid: u32) -> SysResult {
    let new = cx.credentials.set_reuid(uid, euid);
    change(cx, new)
}
/// setregid(2).
pub fn setregid(cx: &mut Cx<'_>, gid: u32, egid: u32) -> SysResult {
    let new = cx.credentials.set_regid(gid, egid);
    change(cx, new)
}
/// setresuid(2).
pub fn setresuid(cx: &mut Cx<'_>, uid: u32, euid: u32, suid: u32) -> SysResult {
    let new = cx.credentials.set_resuid(uid, euid, suid);
    change(cx, new)
}
/// setresgid(2).
pub fn setresgid(cx: &mut Cx<'_>, gid: u32, egid: u32, sgid: u32) -> SysResult {
    let new = cx.credentials.set_resgid(gid, egid, sgid);
    change(cx, new)
}
/// setfsuid(2): returns the old id, failed or not.
pub fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> SysResult {
    let old = cx.credentials.fsuid;
    let new = cx.credentials.set_fsuid(uid);
    commit(cx, new);
    Ok(i64::from(old))
}
/// setfsgid(2): returns the old id, failed or not.
pub fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> SysResult {
    let old = cx.credentials.fsgid;
    let new = cx.credentials.set_fsgid(gid);
    commit(cx, new);
    Ok(i64::from(old))
}

/// getgroups(2).
pub fn getgroups(cx: &mut Cx<'_>, size: i32, list: Ptr) -> SysResult {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let creds = cx.credentials.clone();
    if size == 0 {
        return Ok(creds.groups.len() as i64);
    }
    if size < creds.groups.len() {
        return Err(Errno::EINVAL.into());
    }
    cx.write_bytes(list, zerocopy::IntoBytes::as_bytes(creds.groups.as_slice()))?;
    Ok(creds.groups.len() as i64)
}

/// setgroups(2).
pub fn setgroups(cx: &mut Cx<'_>, size: usize, list: Ptr) -> SysResult {
    cx.require(Capability::SETGID)?;
    if size > NGROUPS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut groups = vec![0u32; size];
    cx.guest.copy_in(list.0, zerocopy::IntoBytes::as_mut_bytes(groups.as_mut_slice()))?;
    if groups.contains(&identity::NO_ID) {
        return Err(Errno::EINVAL.into());
    }
    groups.sort_unstable();
    let new = Credentials { groups, ..cx.credentials.as_ref().clone() };
    commit(cx, new);
    Ok(0)
}
