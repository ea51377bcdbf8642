//! Mount options (tmpfs(5)).

use linux_abi::Errno;
use vfs::Result;

use crate::PAGE;

/// How a tmpfs is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of contents; none is no limit.
    pub size: Option<u64>,
    /// Most inodes; none is no limit.
    pub inodes: Option<u64>,
    /// Permissions of the root directory.
    pub mode: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// The device number that its files show.
    pub device: u64,
    /// What percentages of a size are of, in bytes.
    pub memory: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { size: None, inodes: None, mode: 0o1777, uid: 0, gid: 0, device: 0, memory: 0 }
    }
}

impl Options {
    /// From the data of mount(2), such as `size=64m,mode=1777`. `memory` is what percentages are of,
    /// in bytes; half of it is the default size, as on Linux.
    ///
    /// # Errors
    /// `EINVAL` for an option that tmpfs does not have.
    pub fn parse(data: &[u8], memory: u64, device: u64) -> Result<Options> {
        let (size, inodes) = default_limits(memory);
        let mut options = Options { size, inodes, device, memory, ..Options::default() };
        options.apply(data)?;
        Ok(options)
    }

    /// Takes over what the data of mount(2) says.
    fn apply(&mut self, data: &[u8]) -> Result<()> {
        for option in data.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let text = std::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match key {
                "size" => self.size = limit(size(value, self.memory)?),
                "nr_blocks" => {
                    self.size = limit(size(value, self.memory)?.checked_mul(PAGE).ok_or(Errno::EINVAL)?);
                }
                "nr_inodes" => self.inodes = limit(size(value, self.memory)?),
                "mode" => self.mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
                "uid" => self.uid = id(value)?,
                "gid" => self.gid = id(value)?,
                // About memory policy, huge pages and inode numbers: nothing that shows.
                "mpol" | "huge" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(())
    }

    /// What becomes of them by the data of a remount, when so many bytes and inodes are in use: limits alone
    /// change. The root has its mode and owner.
    ///
    /// # Errors
    /// `EINVAL` for an option that tmpfs does not have, a limit below what is in use, or one where there was none.
    pub(crate) fn remounted(&self, data: &[u8], bytes: u64, inodes: u64) -> Result<Options> {
        let mut new = self.clone();
        new.apply(data)?;
        let refused = |new: Option<u64>, old: Option<u64>, used: u64| {
            new != old && new.is_some_and(|limit| old.is_none() || limit < used)
        };
        // Its pages are in swap, perhaps.
        let no_swap = data.split(|&b| b == b',').any(|option| option == b"noswap");
        if no_swap || refused(new.size, self.size, bytes) || refused(new.inodes, self.inodes, inodes) {
            return Err(Errno::EINVAL);
        }
        Ok(Options { size: new.size, inodes: new.inodes, ..self.clone() })
    }

    /// As /proc/self/mountinfo shows them: limits only where they are others than without any option.
    pub(crate) fn shown(&self) -> String {
        let mut shown = Vec::new();
        let (size, inodes) = default_limits(self.memory);
        if self.size != size {
            shown.push(format!("size={}k", self.size.unwrap_or(0) / 1024));
        }
        if self.inodes != inodes {
            shown.push(format!("nr_inodes={}", self.inodes.unwrap_or(0)));
        }
        if self.mode != 0o1777 {
            shown.push(format!("mode={:o}", self.mode));
        }
        if self.uid != 0 {
            shown.push(format!("uid={}", self.uid));
        }
        if self.gid != 0 {
            shown.push(format!("gid={}", self.gid));
        }
        shown.join(",")
    }
}

/// Limits of bytes and inodes without any option, by the machine's memory; none where nothing is known of that.
fn default_limits(memory: u64) -> (Option<u64>, Option<u64>) {
    let half = memory / 2;
    if memory == 0 { (None, None) } else { (Some(half), Some((half / PAGE).max(1024))) }
}

/// 0 means no limit.
fn limit(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn id(value: &str) -> Result<u32> {
    value.parse().ok().filter(|&id| id != u32::MAX).ok_or(Errno::EINVAL)
}

/// A number with `k`, `m`, `g`, `t` or `%`.
fn size(value: &str, memory: u64) -> Result<u64> {
    let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(split);
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "%" => {
            let part = u128::from(memory).saturating_mul(u128::from(number)) / 100;
            return u64::try_from(part).map_err(|_| Errno::EINVAL);
        }
        _ => return Err(Errno::EINVAL),
    };
    number.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn mount_data() {
        let options = Options::parse(b"size=64m,mode=755,uid=1,nr_inodes=10k", 1 << 30, 7).unwrap();
        assert_eq!(options.size, Some(64 << 20));
        assert_eq!((options.mode, options.uid, options.inodes), (0o755, 1, Some(10 << 10)));
        assert_eq!(options.shown(), "size=65536k,nr_inodes=10240,mode=755,uid=1");
        let shown = |data: &[u8]| Options::parse(data, 1 << 30, 7).unwrap().shown();
        assert_eq!(shown(b""), "");
        assert_eq!(shown(b"size=50%,mode=700"), "mode=700");
        assert_eq!(shown(b"size=0"), "size=0k");
        assert_eq!(Options::parse(b"size=25%", 400, 0).unwrap().size, Some(100));
        assert_eq!(Options::parse(b"size=0", 400, 0).unwrap().size, None);
        for wrong in [&b"size=x"[..], b"mode=9", b"colour=red", b"uid=-1", b"size=99999999999999t"] {
            assert!(Options::parse(wrong, 1 << 30, 0).is_err());
        }
    }

    #[test]
    fn a_remount_changes_limits() {
        let old = Options::parse(b"size=64k,nr_inodes=8,mode=755", 1 << 30, 7).unwrap();
        let new = old.remounted(b"size=128k,mode=700,uid=3", 4096, 2).unwrap();
        assert_eq!(new, Options { size: Some(128 << 10), ..old.clone() });
        assert_eq!(old.remounted(b"", 4096, 2).unwrap(), old);
        assert_eq!(old.remounted(b"size=4k,nr_inodes=2", 4096, 2).unwrap().inodes, Some(2));
        let none = old.remounted(b"size=0", 4096, 2).unwrap();
        assert_eq!((none.size, none.remounted(b"size=1m", 0, 0).is_err()), (None, true));
        for wrong in [&b"size=4k"[..], b"nr_inodes=2", b"colour=red", b"size=x", b"noswap"] {
            assert!(old.remounted(wrong, 8192, 3).is_err());
        }
    }
}
