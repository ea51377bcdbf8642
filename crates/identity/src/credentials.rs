//! Credentials of a thread: credentials(7).

use crate::{Capability, CapabilitySet};

/// Who acts. Immutable; threads share it by `Arc` and replace it whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// File-system user id.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// File-system group id.
    pub fsgid: u32,
    /// Supplementary groups, in order.
    pub groups: Vec<u32>,
    /// Capabilities in use.
    pub effective: CapabilitySet,
    /// Capabilities that may be put to use.
    pub permitted: CapabilitySet,
    /// Kept over exec by programs with inheritable file capabilities.
    pub inheritable: CapabilitySet,
    /// Upper bound of what exec can give.
    pub bounding: CapabilitySet,
    /// Kept over exec of an unprivileged program.
    pub ambient: CapabilitySet,
    /// `SECBIT_*` of prctl(2).
    pub securebits: u32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `PR_SET_KEEPCAPS`.
    pub keep_caps: bool,
}

impl Credentials {
    /// Root with every capability.
    pub fn root() -> Credentials {
        Credentials {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new(),
            effective: CapabilitySet::FULL,
            permitted: CapabilitySet::FULL,
            inheritable: CapabilitySet::EMPTY,
            bounding: CapabilitySet::FULL,
            ambient: CapabilitySet::EMPTY,
            securebits: 0,
            no_new_privs: false,
            keep_caps: false,
        }
    }

    /// Whether a capability is in effect.
    pub fn capable(&self, cap: Capability) -> bool {
        self.effective.has(cap)
    }

    /// Whether the file-system group or a supplementary one is `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }
}
