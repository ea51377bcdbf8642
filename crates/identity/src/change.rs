//! How credentials change: setuid(2) and its relatives, capset(2), prctl(2).

use linux_abi::Errno;

use crate::{Capability, CapabilitySet, Credentials};

/// `SECBIT_*` of capabilities(7).
#[expect(missing_docs, reason = "named in capabilities(7)")]
pub mod securebits {
    pub const NOROOT: u32 = 1;
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    pub const KEEP_CAPS: u32 = 1 << 4;
    pub const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    /// Each flag.
    pub const ALL: u32 = NOROOT | NO_SETUID_FIXUP | KEEP_CAPS | NO_CAP_AMBIENT_RAISE;
    /// The lock of each flag.
    pub const LOCKS: u32 = ALL << 1;
}

/// "Leave as it is" and never a valid id.
pub const NO_ID: u32 = u32::MAX;

/// The capabilities that the file-system user id governs.
fn file_capabilities() -> CapabilitySet {
    [
        Capability::CHOWN,
        Capability::MKNOD,
        Capability::DAC_OVERRIDE,
        Capability::DAC_READ_SEARCH,
        Capability::FOWNER,
        Capability::FSETID,
        Capability::LINUX_IMMUTABLE,
        Capability::MAC_OVERRIDE,
    ]
    .into_iter()
    .collect()
}

impl Credentials {
    /// Whether a securebit is set.
    pub fn secure(&self, bit: u32) -> bool {
        self.securebits & bit != 0
    }

    /// setuid(2): `EINVAL`, `EPERM`.
    pub fn set_uid(&self, uid: u32) -> Result<Credentials, Errno> {
        check_id(uid)?;
        let mut new = self.clone();
        if self.capable(Capability::SETUID) {
            new.uid = uid;
            new.suid = uid;
        } else if uid != self.uid && uid != self.suid {
            return Err(Errno::EPERM);
        }
        new.euid = uid;
        new.fsuid = uid;
        new.fix_capabilities(self);
        Ok(new)
    }

    /// setreuid(2): `EPERM`.
    pub fn set_reuid(&self, uid: u32, euid: u32) -> Result<Credentials, Errno> {
        let free = self.capable(Capability::SETUID);
        let mut new = self.clone();
        if uid != NO_ID {
            if !free && uid != self.uid && uid != self.euid {
                return Err(Errno::EPERM);
            }
            new.uid = uid;
        }
        if euid != NO_ID {
            if !free && ![self.uid, self.euid, self.suid].contains(&euid) {
                return Err(Errno::EPERM);
            }
            new.euid = euid;
        }
        if uid != NO_ID || (euid != NO_ID && euid != self.uid) {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        new.fix_capabilities(self);
        Ok(new)
    }

    /// setresuid(2): `EPERM`.
    pub fn set_resuid(&self, uid: u32, euid: u32, suid: u32) -> Result<Credentials, Errno> {
        let own = [self.uid, self.euid, self.suid, NO_ID];
        if !self.capable(Capability::SETUID) && [uid, euid, suid].iter().any(|id| !own.contains(id)) {
            return Err(Errno::EPERM);
        }
        let mut new = self.clone();
        replace(&mut new.uid, uid);
        replace(&mut new.euid, euid);
        replace(&mut new.suid, suid);
        new.fsuid = new.euid;
        new.fix_capabilities(self);
        Ok(new)
    }

    /// setfsuid(2): unchanged if it may not.
    pub fn set_fsuid(&self, uid: u32) -> Credentials {
        let mut new = self.clone();
        let own = [self.uid, self.euid, self.suid, self.fsuid].contains(&uid);
        if uid == NO_ID || !(own || self.capable(Capability::SETUID)) {
            return new;
        }
        new.fsuid = uid;
        if !self.secure(securebits::NO_SETUID_FIXUP) {
            let files = file_capabilities();
            if self.fsuid == 0 && uid != 0 {
                new.effective = CapabilitySet(new.effective.0 & !files.0);
            } else if self.fsuid != 0 && uid == 0 {
                new.effective = new.effective.or(files.and(new.permitted));
            }
        }
        new
    }

    /// setgid(2): `EINVAL`, `EPERM`.
    pub fn set_gid(&self, gid: u32) -> Result<Credentials, Errno> {
        check_id(gid)?;
        let mut new = self.clone();
        if self.capable(Capability::SETGID) {
            new.gid = gid;
            new.sgid = gid;
        } else if gid != self.gid && gid != self.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = gid;
        new.fsgid = gid;
        Ok(new)
    }

    /// setregid(2): `EPERM`.
    pub fn set_regid(&self, gid: u32, egid: u32) -> Result<Credentials, Errno> {
        let free = self.capable(Capability::SETGID);
        let mut new = self.clone();
        if gid != NO_ID {
            if !free && gid != self.gid && gid != self.egid {
                return Err(Errno::EPERM);
            }
            new.gid = gid;
        }
        if egid != NO_ID {
            if !free && ![self.gid, self.egid, self.sgid].contains(&egid) {
                return Err(Errno::EPERM);
            }
            new.egid = egid;
        }
        if gid != NO_ID || (egid != NO_ID && egid != self.gid) {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(new)
    }

    /// setresgid(2): `EPERM`.
    pub fn set_resgid(&self, gid: u32, egid: u32, sgid: u32) -> Result<Credentials, Errno> {
        let own = [self.gid, self.egid, self.sgid, NO_ID];
        if !self.capable(Capability::SETGID) && [gid, egid, sgid].iter().any(|id| !own.contains(id)) {
            return Err(Errno::EPERM);
        }
        let mut new = self.clone();
        replace(&mut new.gid, gid);
        replace(&mut new.egid, egid);
        replace(&mut new.sgid, sgid);
        new.fsgid = new.egid;
        Ok(new)
    }

    /// setfsgid(2): unchanged if it may not.
    pub fn set_fsgid(&self, gid: u32) -> Credentials {
        let mut new = self.clone();
        let own = [self.gid, self.egid, self.sgid, self.fsgid].contains(&gid);
        if gid != NO_ID && (own || self.capable(Capability::SETGID)) {
            new.fsgid = gid;
        }
        new
    }

    /// "Effect of user ID changes on capabilities" of capabilities(7).
    fn fix_capabilities(&mut self, old: &Credentials) {
        if old.secure(securebits::NO_SETUID_FIXUP) {
            return;
        }
        let had_root = [old.uid, old.euid, old.suid].contains(&0);
        let has_root = [self.uid, self.euid, self.suid].contains(&0);
        if had_root && !has_root {
            if !old.secure(securebits::KEEP_CAPS) {
                self.permitted = CapabilitySet::EMPTY;
                self.effective = CapabilitySet::EMPTY;
            }
            self.ambient = CapabilitySet::EMPTY;
        }
        if old.euid == 0 && self.euid != 0 {
            self.effective = CapabilitySet::EMPTY;
        } else if old.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
    }

    /// capset(2): `EPERM`.
    pub fn set_capabilities(
        &self,
        effective: CapabilitySet,
        permitted: CapabilitySet,
        inheritable: CapabilitySet,
    ) -> Result<Credentials, Errno> {
        let within = |a: CapabilitySet, b: CapabilitySet| a.0 & !b.0 == 0;
        let capped = !self.capable(Capability::SETPCAP);
        if (capped && !within(inheritable, self.inheritable.or(self.permitted)))
            || !within(inheritable, self.inheritable.or(self.bounding))
            || !within(permitted, self.permitted)
            || !within(effective, permitted)
        {
            return Err(Errno::EPERM);
        }
        Ok(Credentials {
            effective,
            permitted,
            inheritable,
            ambient: self.ambient.and(permitted).and(inheritable),
            ..self.clone()
        })
    }

    /// `PR_SET_SECUREBITS`: `EPERM` without `CAP_SETPCAP`, on unknown bits and on locked ones.
    pub fn set_securebits(&self, bits: u32) -> Result<Credentials, Errno> {
        let locked = (self.securebits & securebits::LOCKS) >> 1;
        let changed = self.securebits ^ bits;
        if locked & changed != 0
            || self.securebits & securebits::LOCKS & !bits != 0
            || bits & !(securebits::ALL | securebits::LOCKS) != 0
            || !self.capable(Capability::SETPCAP)
        {
            return Err(Errno::EPERM);
        }
        Ok(self.with_securebits(bits))
    }

    /// `PR_SET_KEEPCAPS`: `EPERM` if locked.
    pub fn set_keep_caps(&self, keep: bool) -> Result<Credentials, Errno> {
        if self.secure(securebits::KEEP_CAPS << 1) {
            return Err(Errno::EPERM);
        }
        let others = self.securebits & !securebits::KEEP_CAPS;
        Ok(self.with_securebits(others | if keep { securebits::KEEP_CAPS } else { 0 }))
    }

    /// `PR_CAPBSET_DROP`: `EPERM` without `CAP_SETPCAP`.
    pub fn drop_bounding(&self, cap: Capability) -> Result<Credentials, Errno> {
        if !self.capable(Capability::SETPCAP) {
            return Err(Errno::EPERM);
        }
        Ok(Credentials { bounding: self.bounding.without(cap), ..self.clone() })
    }

    /// `PR_CAP_AMBIENT_RAISE`: `EPERM` unless it is permitted and inheritable.
    pub fn raise_ambient(&self, cap: Capability) -> Result<Credentials, Errno> {
        let allowed = self.permitted.has(cap)
            && self.inheritable.has(cap)
            && !self.secure(securebits::NO_CAP_AMBIENT_RAISE);
        if !allowed {
            return Err(Errno::EPERM);
        }
        Ok(Credentials { ambient: self.ambient.with(cap), ..self.clone() })
    }

    /// `PR_CAP_AMBIENT_LOWER` of these.
    pub fn lower_ambient(&self, set: CapabilitySet) -> Credentials {
        Credentials { ambient: CapabilitySet(self.ambient.0 & !set.0), ..self.clone() }
    }

    pub(crate) fn with_securebits(&self, bits: u32) -> Credentials {
        Credentials { securebits: bits, keep_caps: bits & securebits::KEEP_CAPS != 0, ..self.clone() }
    }
}

fn check_id(id: u32) -> Result<(), Errno> {
    if id == NO_ID { Err(Errno::EINVAL) } else { Ok(()) }
}

fn replace(slot: &mut u32, id: u32) {
    if id != NO_ID {
        *slot = id;
    }
}
