//! The host's mounts as this process sees them: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use control::MountFlags;
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::oci::mounts::apply_word;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostMount {
    id: u64,
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Its per-mount flags.
    pub(crate) flags: MountFlags,
}

/// The mounts in the order of the table: parents come first.
#[derive(Debug)]
pub(crate) struct HostMounts(Vec<HostMount>);

impl HostMounts {
    /// Reads the table.
    pub(crate) fn read() -> Result<HostMounts> {
        let text = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        Ok(HostMounts::parse(&text))
    }

    fn parse(text: &[u8]) -> HostMounts {
        HostMounts(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
    }

    /// The flags of the mount that an absolute path without links lies in.
    pub(crate) fn flags_at(&self, path: &Path) -> MountFlags {
        let mut best: Option<&HostMount> = None;
        for mount in self.0.iter().filter(|mount| path.starts_with(&mount.point)) {
            let deeper =
                best.is_none_or(|best| mount.point.as_os_str().len() >= best.point.as_os_str().len());
            if deeper {
                best = Some(mount);
            }
        }
        best.map(|mount| mount.flags).unwrap_or_default()
    }

    /// The mounts that can be seen below an absolute path without links,
    /// parents first.
    pub(crate) fn below(&self, path: &Path) -> Vec<&HostMount> {
        self.0
            .iter()
            .filter(|mount| mount.point != path && mount.point.starts_with(path))
            .filter(|mount| mount.is_on_top())
            .collect()
    }
}

impl HostMount {
    /// Whether a walk to its point ends in it, not in a mount that covers it.
    fn is_on_top(&self) -> bool {
        rustix::fs::statx(CWD, &self.point, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)
            .is_ok_and(|status| status.stx_mnt_id == self.id)
    }
}

/// `ID PARENT DEVICE ROOT POINT OPTIONS ...`
fn parse_line(line: &[u8]) -> Option<HostMount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
    let options = std::str::from_utf8(fields.next()?).ok()?;
    let mut flags = MountFlags::default();
    for word in options.split(',') {
        apply_word(&mut flags, word);
    }
    flags.strictatime = !flags.noatime && !flags.relatime;
    Some(HostMount { id, point, flags })
}

/// Blanks, line ends and backslashes are written in octal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(u8::is_ascii_digit));
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
        21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 21 0:30 / /mnt rw,nosuid,nodev,noatime - tmpfs none rw\n\
        31 30 0:31 / /mnt/a\\040b ro,noexec - tmpfs none rw\n";

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = HostMounts::parse(TABLE);
        assert!(mounts.flags_at(Path::new("/etc")).relatime);
        let flags = mounts.flags_at(Path::new("/mnt/x"));
        assert!(flags.nosuid && flags.noatime && !flags.readonly);
        let flags = mounts.flags_at(Path::new("/mnt/a b"));
        assert!(flags.readonly && flags.noexec && flags.strictatime && !flags.nosuid);
        assert!(!mounts.flags_at(Path::new("/mntx")).nosuid);
    }
}
