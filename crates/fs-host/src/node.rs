//! Device nodes. Only host root may make real ones, so a guest's is an empty file of a mode that no other
//! file has, and an attribute says what it stands for. Its directory is marked too, since listings tell
//! types.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use linux_abi::Errno;
use linux_abi::fs::{S_IFBLK, S_IFCHR, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_ISVTX, major, makedev, minor};
use rustix::fs::{Mode, OFlags, XattrFlags};
use vfs::{Metadata, NewNode, Result};

use crate::errno;
use crate::inode::HostInode;

/// All three of the bits that are no permissions, and no permission at all.
const MARK: u32 = S_ISUID | S_ISGID | S_ISVTX;
/// Of the file: type, major and minor number, permissions.
const NODE: &str = "user.sallet.node";
/// Of a directory in which there were such files.
const NODES: &str = "user.sallet.nodes";
const LONGEST: usize = 64;

/// What a device node is besides its file.
#[derive(Debug)]
pub(crate) struct Node {
    /// `S_IFCHR` or `S_IFBLK`.
    pub(crate) kind: u32,
    rdev: u64,
    /// Permission bits.
    mode: AtomicU32,
}

/// Whether a file may be a device node.
pub(crate) fn is_marked(metadata: &Metadata) -> bool {
    metadata.mode & (S_IFMT | 0o7777) == S_IFREG | MARK && metadata.size == 0
}

impl Node {
    fn new(node: &NewNode) -> Node {
        Node { kind: node.mode & S_IFMT, rdev: node.rdev, mode: AtomicU32::new(node.mode & 0o7777) }
    }

    /// What the attribute says: `c 1 3 666`. None if it is not of this form.
    fn parse(text: &[u8]) -> Option<Node> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let kind = match words.next()? {
            "c" => S_IFCHR,
            "b" => S_IFBLK,
            _ => return None,
        };
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let whole = words.next().is_none() && mode <= 0o7777;
        whole.then(|| Node { kind, rdev: makedev(major, minor), mode: AtomicU32::new(mode) })
    }

    fn text(&self) -> String {
        let kind = if self.kind == S_IFBLK { 'b' } else { 'c' };
        format!("{kind} {} {} {:o}", major(self.rdev), minor(self.rdev), self.mode.load(Ordering::Relaxed))
    }

    /// Of a marked file that is open with access.
    pub(crate) fn read(fd: impl AsFd) -> Option<Node> {
        let mut text = [0; LONGEST];
        let length = rustix::fs::fgetxattr(fd, NODE, &mut text[..]).ok()?;
        Node::parse(text.get(..length)?)
    }

    fn write(&self, fd: impl AsFd) -> Result<()> {
        match rustix::fs::fsetxattr(fd, NODE, self.text().as_bytes(), XattrFlags::empty()) {
            // A host directory that keeps no attributes can hold no devices.
            Err(rustix::io::Errno::OPNOTSUPP) => Err(Errno::EPERM),
            result => result.map_err(errno),
        }
    }

    /// Makes an empty file into a device node.
    pub(crate) fn make(fd: &OwnedFd, node: &NewNode) -> Result<()> {
        Node::new(node).write(fd)?;
        let owner = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
        rustix::fs::fchown(fd, Some(owner.0), Some(owner.1)).map_err(errno)?;
        mark(fd)
    }

    /// The attributes of the file as those of the device.
    pub(crate) fn show(&self, metadata: &mut Metadata) {
        metadata.mode = self.kind | self.mode.load(Ordering::Relaxed);
        metadata.rdev = self.rdev;
    }
}

fn mark(fd: impl AsFd) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(MARK)).map_err(errno)
}

impl HostInode {
    /// chmod(2) of a device node.
    pub(crate) fn chmod_node(&self, node: &Node, mode: u32) -> Result<()> {
        node.mode.store(mode & 0o7777, Ordering::Relaxed);
        node.write(&*self.handle(OFlags::RDONLY)?)
    }

    /// The owner of a device node was changed, and with it the file's mode.
    pub(crate) fn mark_again(&self) -> Result<()> {
        mark(&*self.handle(OFlags::RDONLY)?)
    }

    /// Device nodes are, or are about to be, among the names of this directory.
    pub(crate) fn mark_directory(&self) -> Result<()> {
        let Some(names) = &self.names else { return Ok(()) };
        if names.devices.get() != Some(true) {
            let fd = self.handle(OFlags::RDONLY)?;
            match rustix::fs::fsetxattr(&*fd, NODES, b"", XattrFlags::empty()) {
                Err(rustix::io::Errno::OPNOTSUPP) => return Err(Errno::EPERM),
                result => result.map_err(errno)?,
            }
            names.devices.set(true);
            self.changed();
        }
        Ok(())
    }

    /// Whether a file of this open directory may be a device node.
    pub(crate) fn has_devices(&self, fd: impl AsFd) -> bool {
        let Some(names) = &self.names else { return false };
        names.devices.get().unwrap_or_else(|| {
            let marked = rustix::fs::fgetxattr(fd, NODES, &mut [0; LONGEST][..]).is_ok();
            names.devices.set(marked);
            marked
        })
    }
}

/// Whether a directory holds device nodes, once it is known.
#[derive(Default)]
pub(crate) struct Devices(AtomicU8);

impl Devices {
    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            known => Some(known == 2),
        }
    }

    fn set(&self, devices: bool) {
        self.0.store(1 + u8::from(devices), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Node;
    use linux_abi::fs::{S_IFBLK, S_IFCHR, makedev};
    use vfs::Metadata;

    #[test]
    fn an_attribute_is_one_of_four_words() {
        let mut metadata = Metadata { mode: 0o107000, ..Metadata::default() };
        let node = Node::parse(b"b 259 1048575 640").unwrap();
        node.show(&mut metadata);
        assert_eq!((metadata.mode, metadata.rdev), (S_IFBLK | 0o640, makedev(259, 1_048_575)));
        assert_eq!(node.text(), "b 259 1048575 640");
        assert_eq!(Node::parse(b"c 0 0 0").unwrap().kind, S_IFCHR);
        for bad in ["", "c", "c 1 3", "d 1 3 644", "c 1 3 10000", "c -1 3 644", "c 1 3 644 ", "c 1 3 9"] {
            assert!(Node::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
