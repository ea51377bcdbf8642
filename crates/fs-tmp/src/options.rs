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
}

impl Default for Options {
    fn default() -> Options {
        Options { size: None, inodes: None, mode: 0o1777, uid: 0, gid: 0, device: 0 }
    }
}

impl Options {
    /// From the data of mount(2), such as `size=64m,mode=1777`. `memory` is what percentages are of,
    /// in bytes; half of it is the default size, as on Linux.
    ///
    /// # Errors
    /// `EINVAL` for an option that tmpfs does not have.
    pub fn parse(data: &[u8], memory: u64, device: u64) -> Result<Options> {
        let half = memory / 2;
        let mut options =
            Options { size: Some(half), inodes: Some((half / PAGE).max(1024)), device, ..Options::default() };
        for option in data.split(|&b| b == b',').filter(|option| !option.is_empty()) {
            let text = std::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match key {
                "size" => options.size = limit(size(value, memory)?),
                "nr_blocks" => {
                    options.size = limit(size(value, memory)?.checked_mul(PAGE).ok_or(Errno::EINVAL)?);
                }
                "nr_inodes" => options.inodes = limit(size(value, memory)?),
                "mode" => options.mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
                "uid" => options.uid = id(value)?,
                "gid" => options.gid = id(value)?,
                // About memory policy, huge pages and inode numbers: nothing that shows.
                "mpol" | "huge" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }

    /// As /proc/self/mountinfo shows them.
    pub(crate) fn shown(&self) -> String {
        let mut shown = Vec::new();
        if let Some(size) = self.size {
            shown.push(format!("size={}k", size / 1024));
        }
        if let Some(inodes) = self.inodes {
            shown.push(format!("nr_inodes={inodes}"));
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
        "%" => return (memory / 100).checked_mul(number).ok_or(Errno::EINVAL),
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
        assert_eq!(Options::parse(b"size=25%", 400, 0).unwrap().size, Some(100));
        assert_eq!(Options::parse(b"size=0", 400, 0).unwrap().size, None);
        for wrong in [&b"size=x"[..], b"mode=9", b"colour=red", b"uid=-1", b"size=99999999999999t"] {
            assert!(Options::parse(wrong, 1 << 30, 0).is_err());
        }
    }
}
