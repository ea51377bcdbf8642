//! What a program gets at exec: setuid bits, file capabilities, AT_SECURE (execve(2), capabilities(7)).

use crate::change::securebits;
use crate::{Capability, CapabilitySet, Credentials};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

/// Capabilities of a file: the `security.capability` attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCapabilities {
    /// Given, within the bounding set.
    pub permitted: CapabilitySet,
    /// Given as far as the thread has them inheritable.
    pub inheritable: CapabilitySet,
    /// They are put to use at once.
    pub effective: bool,
}

impl FileCapabilities {
    /// Reads the attribute (`struct vfs_ns_cap_data`, versions 1 to 3); none if malformed.
    pub fn parse(bytes: &[u8]) -> Option<FileCapabilities> {
        let word = |at: usize| -> Option<u64> {
            let raw = bytes.get(at * 4..at * 4 + 4)?;
            Some(u64::from(u32::from_le_bytes(raw.try_into().ok()?)))
        };
        let magic = word(0)?;
        let (size, pairs) = match magic & 0xff00_0000 {
            0x0100_0000 => (12, 1),
            0x0200_0000 => (20, 2),
            0x0300_0000 => (24, 2),
            _ => return None,
        };
        if bytes.len() != size {
            return None;
        }
        let (mut permitted, mut inheritable) = (word(1)?, word(2)?);
        if pairs == 2 {
            permitted |= word(3)? << 32;
            inheritable |= word(4)? << 32;
        }
        Some(FileCapabilities {
            permitted: CapabilitySet(permitted).and(CapabilitySet::FULL),
            inheritable: CapabilitySet(inheritable).and(CapabilitySet::FULL),
            effective: magic & 1 != 0,
        })
    }
}

/// What exec looks at of a program's file.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `security.capability`, if it has one.
    pub capabilities: Option<FileCapabilities>,
    /// Its mount is `nosuid`.
    pub nosuid: bool,
    /// The thread is traced by who may not see it gain rights.
    pub traced: bool,
}

impl Credentials {
    /// The credentials after exec of a file, and whether the program must be careful (AT_SECURE).
    /// `EPERM` if the file needs capabilities beyond the bounding set.
    pub fn after_exec(&self, file: &ExecFile) -> Result<(Credentials, bool), linux_abi::Errno> {
        let mut new = self.clone();
        let may_change = !file.nosuid && !self.no_new_privs;
        if may_change && file.mode & S_ISUID != 0 {
            new.euid = file.uid;
        }
        if may_change && file.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
            new.egid = file.gid;
        }
        let of_file = file.capabilities.filter(|_| !file.nosuid);
        let mut effective = false;
        new.permitted = CapabilitySet::EMPTY;
        if let Some(caps) = of_file {
            effective = caps.effective;
            new.permitted = caps.permitted.and(self.bounding).or(caps.inheritable.and(self.inheritable));
            if effective && caps.permitted.0 & !new.permitted.0 != 0 {
                return Err(linux_abi::Errno::EPERM);
            }
        }
        // Root has all, unless the file says less to somebody who is not root.
        let by_file = of_file.is_some() && new.euid == 0 && self.uid != 0;
        if !self.secure(securebits::NOROOT) && !by_file {
            if new.euid == 0 || new.uid == 0 {
                new.permitted = self.bounding.or(self.inheritable);
            }
            if new.euid == 0 {
                effective = true;
            }
        }
        let changed_id = new.euid != self.uid || new.egid != self.gid;
        let gained = new.permitted.0 & !self.permitted.0 != 0;
        if (self.no_new_privs || file.traced) && (changed_id || gained) {
            // Who may set ids anyway may also be traced with new ones.
            if self.no_new_privs || !self.capable(Capability::SETUID) {
                new.euid = self.uid;
                new.egid = self.gid;
            }
            new.permitted = new.permitted.and(self.permitted);
        }
        new.suid = new.euid;
        new.fsuid = new.euid;
        new.sgid = new.egid;
        new.fsgid = new.egid;
        if of_file.is_some() || changed_id {
            new.ambient = CapabilitySet::EMPTY;
        }
        new.permitted = new.permitted.or(new.ambient);
        new.effective = if effective { new.permitted } else { new.ambient };
        let grew = new.permitted.0 & !new.ambient.0 != 0;
        let secure = changed_id || (new.uid != 0 && (effective || grew));
        Ok((new.with_securebits(new.securebits & !securebits::KEEP_CAPS), secure))
    }
}
