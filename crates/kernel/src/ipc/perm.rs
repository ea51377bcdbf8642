//! Owners and permission bits of System V objects.

use identity::{Capability, Credentials};
use linux_abi::Errno;
use linux_abi::ipc::IpcPerm;

use crate::Result;

/// Owner, creator and mode of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named in sysvipc(7)")]
pub struct Perm {
    pub id: i32,
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
}

/// Asks for reading.
pub const READ: u32 = 0o444;
/// Asks for writing.
pub const WRITE: u32 = 0o222;

impl Perm {
    /// A new object's.
    pub fn new(id: i32, key: i32, flags: i32, creds: &Credentials) -> Perm {
        let (uid, gid) = (creds.euid, creds.egid);
        Perm { id, key, uid, gid, cuid: uid, cgid: gid, mode: flags as u32 & 0o777 }
    }

    /// Whether the caller may do what the mode bits `flags` ask; `EACCES`.
    pub fn check(&self, creds: &Credentials, flags: u32) -> Result<()> {
        let wanted = (flags >> 6 | flags >> 3 | flags) & 7;
        let in_group = |gid| creds.egid == gid || creds.groups.binary_search(&gid).is_ok();
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if in_group(self.cgid) || in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted != 0 && !creds.capable(Capability::IPC_OWNER) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// Whether the caller may change or remove it; `EPERM`.
    pub fn check_owner(&self, creds: &Credentials) -> Result<()> {
        let owner = creds.euid == self.uid || creds.euid == self.cuid;
        if owner || creds.capable(Capability::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// `IPC_SET`: owner and the nine permission bits.
    pub fn set(&mut self, to: &IpcPerm) -> Result<()> {
        if to.uid == u32::MAX || to.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        self.uid = to.uid;
        self.gid = to.gid;
        self.mode = self.mode & !0o777 | to.mode & 0o777;
        Ok(())
    }

    /// As the guest's structure.
    pub fn to_abi(self) -> IpcPerm {
        IpcPerm {
            key: self.key,
            uid: self.uid,
            gid: self.gid,
            cuid: self.cuid,
            cgid: self.cgid,
            mode: self.mode,
            seq: (self.id >> 15) as u16,
            ..IpcPerm::default()
        }
    }
}
