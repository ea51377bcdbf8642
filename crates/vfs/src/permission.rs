//! Who may do what to a file: path_resolution(7), capabilities(7), chmod(2).

use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFLNK, S_IFREG, S_ISGID, S_ISUID, S_ISVTX};

use crate::{Inode, Metadata, Result, acl};

/// `R_OK`.
pub const READ: u32 = 4;
/// `W_OK`.
pub const WRITE: u32 = 2;
/// `X_OK`: run a file, search a directory.
pub const EXEC: u32 = 1;

/// Whether the mode bits and capabilities allow all of `want`; `EACCES`.
pub fn check(cred: &Credentials, meta: &Metadata, want: u32) -> Result<()> {
    let class = if cred.fsuid == meta.uid {
        meta.mode >> 6
    } else if cred.in_group(meta.gid) {
        meta.mode >> 3
    } else {
        meta.mode
    };
    if class & want == want { Ok(()) } else { check_override(cred, meta, want) }
}

/// Whether capabilities allow what neither mode nor list does.
fn check_override(cred: &Credentials, meta: &Metadata, want: u32) -> Result<()> {
    let is_dir = meta.kind() == S_IFDIR;
    // CAP_DAC_OVERRIDE runs only what somebody may run.
    let runnable = want & EXEC == 0 || is_dir || meta.mode & 0o111 != 0;
    if cred.capable(Capability::DAC_OVERRIDE) && runnable {
        return Ok(());
    }
    let only_reads = want & WRITE == 0 && (want & EXEC == 0 || is_dir);
    if cred.capable(Capability::DAC_READ_SEARCH) && only_reads {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Whether mode, access control list and capabilities allow all of `want` of an inode with these
/// attributes; `EACCES`.
pub fn check_file(cred: &Credentials, inode: &dyn Inode, meta: &Metadata, want: u32) -> Result<()> {
    // The owner's class is in the mode, and so is the mask, without which the list grants nothing.
    let by_mode = cred.fsuid == meta.uid || meta.mode & 0o070 == 0 || meta.kind() == S_IFLNK;
    // Who may do it anyway needs no list.
    if by_mode || check_override(cred, meta, want).is_ok() {
        return check(cred, meta, want);
    }
    match inode.acl(acl::ACCESS)? {
        Some(list) if list.permits(cred, meta, want) => Ok(()),
        Some(_) => Err(Errno::EACCES),
        None => check(cred, meta, want),
    }
}

/// The same for an inode.
pub fn check_inode(cred: &Credentials, inode: &dyn Inode, want: u32) -> Result<()> {
    check_file(cred, inode, &inode.metadata()?, want)
}

/// Whether the caller owns the file or acts as its owner (`CAP_FOWNER`).
pub fn is_owner(cred: &Credentials, meta: &Metadata) -> bool {
    cred.fsuid == meta.uid || cred.capable(Capability::FOWNER)
}

/// May an entry with these attributes be taken out of a directory that the caller may write: in a sticky one
/// who owns one of the two. `EPERM`.
pub fn check_remove(cred: &Credentials, dir: &Metadata, child: &Metadata) -> Result<()> {
    let mine = cred.fsuid == child.uid || cred.fsuid == dir.uid;
    if dir.mode & S_ISVTX != 0 && !mine && !cred.capable(Capability::FOWNER) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// The mode that chmod(2) really sets: sgid is lost by who is not in the group.
pub fn chmod_mode(cred: &Credentials, meta: &Metadata, mode: u32) -> u32 {
    let mode = mode & 0o7777;
    if may_keep_sgid(cred, meta) { mode } else { mode & !S_ISGID }
}

fn may_keep_sgid(cred: &Credentials, meta: &Metadata) -> bool {
    cred.in_group(meta.gid) || cred.capable(Capability::FSETID)
}

/// May the owner be changed so; `EPERM`. `None` leaves an id.
pub fn check_chown(cred: &Credentials, meta: &Metadata, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if cred.capable(Capability::CHOWN) {
        return Ok(());
    }
    let uid_kept = uid.is_none_or(|uid| uid == meta.uid && cred.fsuid == meta.uid);
    let gid_mine = gid.is_none_or(|gid| cred.fsuid == meta.uid && (gid == meta.gid || cred.in_group(gid)));
    if uid_kept && gid_mine { Ok(()) } else { Err(Errno::EPERM) }
}

/// The permission bits after a write or truncation, where they change: suid goes, and sgid where the group
/// may run the file, unless the caller has `CAP_FSETID`.
pub fn without_suid(cred: &Credentials, meta: &Metadata) -> Option<u32> {
    if meta.kind() != S_IFREG || meta.mode & (S_ISUID | S_ISGID) == 0 || cred.capable(Capability::FSETID) {
        return None;
    }
    after_chown(cred, meta)
}

/// The permission bits after chown(2), where they change: as for a write, but for every caller and all that
/// is not a directory.
pub fn after_chown(cred: &Credentials, meta: &Metadata) -> Option<u32> {
    if meta.kind() == S_IFDIR {
        return None;
    }
    let mut drop = meta.mode & S_ISUID;
    if meta.mode & 0o010 != 0 || !may_keep_sgid(cred, meta) {
        drop |= meta.mode & S_ISGID;
    }
    (drop != 0).then_some(meta.mode & 0o7777 & !drop)
}

/// Whether running it may change who one is.
pub fn is_set_id(meta: &Metadata) -> bool {
    meta.mode & S_ISUID != 0 || meta.mode & (S_ISGID | 0o010) == S_ISGID | 0o010
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::CapabilitySet;
    use linux_abi::fs::S_IFREG;

    fn user(uid: u32) -> Credentials {
        Credentials { fsuid: uid, fsgid: uid, effective: CapabilitySet::EMPTY, ..Credentials::root() }
    }

    fn file(mode: u32) -> Metadata {
        Metadata { mode: S_IFREG | mode, uid: 1, gid: 2, ..Metadata::default() }
    }

    #[test]
    fn the_owner_class_wins_even_if_it_has_less() {
        assert_eq!(check(&user(1), &file(0o077), READ), Err(Errno::EACCES));
        assert_eq!(check(&user(2), &file(0o070), READ | WRITE), Ok(()));
        assert_eq!(check(&user(3), &file(0o770), READ), Err(Errno::EACCES));
    }

    #[test]
    fn root_runs_only_what_somebody_may_run() {
        assert_eq!(check(&Credentials::root(), &file(0o644), EXEC), Err(Errno::EACCES));
        assert_eq!(check(&Credentials::root(), &file(0o001), EXEC), Ok(()));
        assert_eq!(check(&Credentials::root(), &file(0), READ | WRITE), Ok(()));
    }

    #[test]
    fn a_sticky_directory_protects_the_files_of_others() {
        let dir = Metadata { mode: S_IFDIR | 0o1777, ..Metadata::default() };
        assert_eq!(check_remove(&user(3), &dir, &file(0o666)), Err(Errno::EPERM));
        assert_eq!(check_remove(&user(1), &dir, &file(0o666)), Ok(()));
    }
}
