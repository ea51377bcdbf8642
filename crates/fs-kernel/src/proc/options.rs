//! Options of a procfs: whose processes it shows to whom. proc(5).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use kernel::Process;
use linux_abi::Errno;
use vfs::{Caller, Result};

/// Nobody sees the files of others' processes.
const NO_ACCESS: u8 = 1;
/// Nobody sees that these are there.
const INVISIBLE: u8 = 2;
/// Nobody sees processes that he may not trace, whatever group he is in.
const PTRACEABLE: u8 = 4;

/// The options of one mount(2), which a remount changes.
#[derive(Default)]
pub(crate) struct Options {
    hide: AtomicU8,
    /// Members see all.
    gid: AtomicU32,
    /// There is nothing but processes.
    pids_only: AtomicBool,
}

impl Options {
    /// Sets what is named, or nothing with `EINVAL`.
    pub(crate) fn set(&self, data: &[u8]) -> Result<()> {
        let (mut hide, mut gid, mut pids_only) = (None, None, None);
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').ok_or(Errno::EINVAL)? {
                ("hidepid", "0" | "off") => hide = Some(0),
                ("hidepid", "1" | "noaccess") => hide = Some(NO_ACCESS),
                ("hidepid", "2" | "invisible") => hide = Some(INVISIBLE),
                ("hidepid", "4" | "ptraceable") => hide = Some(PTRACEABLE),
                ("gid", id) => gid = Some(id.parse::<u32>().map_err(|_| Errno::EINVAL)?),
                ("subset", "pid") => pids_only = Some(true),
                _ => return Err(Errno::EINVAL),
            }
        }
        if let Some(hide) = hide {
            self.hide.store(hide, Ordering::Relaxed);
        }
        if let Some(gid) = gid {
            self.gid.store(gid, Ordering::Relaxed);
        }
        if let Some(pids_only) = pids_only {
            self.pids_only.store(pids_only, Ordering::Relaxed);
        }
        Ok(())
    }

    /// As mountinfo shows them.
    pub(crate) fn shown(&self) -> String {
        let mut all = Vec::new();
        match self.gid.load(Ordering::Relaxed) {
            0 => {}
            gid => all.push(format!("gid={gid}")),
        }
        match self.hide.load(Ordering::Relaxed) {
            NO_ACCESS => all.push("hidepid=noaccess".into()),
            INVISIBLE => all.push("hidepid=invisible".into()),
            PTRACEABLE => all.push("hidepid=ptraceable".into()),
            _ => {}
        }
        if self.pids_only() {
            all.push("subset=pid".into());
        }
        all.join(",")
    }

    pub(super) fn pids_only(&self) -> bool {
        self.pids_only.load(Ordering::Relaxed)
    }

    /// Whether a caller sees the directory of a process, or (`within`) what is in it; `ENOENT`, `EPERM`.
    pub(super) fn check(&self, caller: &dyn Caller, process: &Process, within: bool) -> Result<()> {
        let hide = self.hide.load(Ordering::Relaxed);
        let least = if within { NO_ACCESS } else { INVISIBLE };
        if hide < least || caller.pid() == process.pid() {
            return Ok(());
        }
        let cred = caller.credentials();
        let by_group = hide != PTRACEABLE && cred.in_group(self.gid.load(Ordering::Relaxed));
        let may = by_group
            || match process.any_thread() {
                Some(thread) => {
                    kernel::ptrace::may_access(cred, kernel::ptrace::Ids::FileSystem, &thread).is_ok()
                }
                // A zombie has no more than an owner.
                None => {
                    process.state.lock().uid == cred.fsuid || cred.capable(identity::Capability::SYS_PTRACE)
                }
            };
        match (may, within && hide != INVISIBLE) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ENOENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let options = Options::default();
        options.set(b"").unwrap();
        assert_eq!(options.shown(), "");
        options.set(b"hidepid=2,gid=7,subset=pid").unwrap();
        assert_eq!(options.shown(), "gid=7,hidepid=invisible,subset=pid");
        options.set(b"hidepid=noaccess").unwrap();
        assert_eq!(options.shown(), "gid=7,hidepid=noaccess,subset=pid");
        for wrong in ["hidepid=3", "hidepid=", "hidepid", "gid=x", "gid=-1", "subset=all", "size=1m"] {
            assert_eq!(options.set(format!("hidepid=4,{wrong}").as_bytes()), Err(Errno::EINVAL), "{wrong}");
        }
        assert_eq!(options.shown(), "gid=7,hidepid=noaccess,subset=pid");
    }
}
