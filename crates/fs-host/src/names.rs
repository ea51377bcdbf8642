//! Names in host directories: look-up, creation, removal, renaming.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use host::connector::Connector;
use linux_abi::Errno;
use linux_abi::fs::{NAME_MAX, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use vfs::{Inode, NewNode, RenameFlags, Result};

use crate::attributes::{Known, chown};
use crate::errno;
use crate::inode::{HostInode, Link, RESOLVE, host, open_beneath};
use crate::node::Node;

/// The index of `O_RDWR` among an inode's handles.
const READ_WRITE: usize = 2;

/// The walk gives single components; an entry must stay one whatever comes here.
fn check(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&b| b == b'/' || b == 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn permissions(node: &NewNode) -> Mode {
    Mode::from_raw_mode(node.mode & 0o7777)
}

/// A user and a group in one number.
fn pair(uid: u32, gid: u32) -> u64 {
    u64::from(uid) << 32 | u64::from(gid)
}

impl HostInode {
    fn directory(&self) -> Result<Arc<OwnedFd>> {
        if self.identity().kind != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        self.fd()
    }

    fn named(&self, name: &[u8]) -> Link {
        Link::Name(self.shared(), name.into())
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        check(name)?;
        let directory = self.directory()?;
        let events = self.before_question();
        let fd = open_beneath(&directory, name, OFlags::PATH | OFlags::NOFOLLOW).inspect_err(|&error| {
            if error == Errno::ENOENT {
                self.found(name, None, events);
            }
        })?;
        let known = Known::of(&fd)?;
        let inode = self.fs().inode_of(Arc::new(fd), known, self.named(name));
        self.found(name, Some((&inode, &known)), events);
        Ok(inode)
    }

    pub(crate) fn make_node(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        check(name)?;
        let directory = self.directory()?;
        let kind = match node.mode & S_IFMT {
            S_IFREG | 0 => return self.make_regular(&directory, name, node),
            S_IFIFO => FileType::Fifo,
            S_IFSOCK => match (&self.fs().binder, u32::try_from(node.rdev).unwrap_or(0)) {
                (Some(binder), kind @ 1..) => return self.bind(binder, &directory, name, node, kind),
                _ => FileType::Socket,
            },
            S_IFCHR | S_IFBLK => return self.make_device(&directory, name, node),
            _ => return Err(Errno::EINVAL),
        };
        rustix::fs::mknodat(&*directory, name, kind, permissions(node), 0).map_err(errno)?;
        self.finish(&directory, name, node)
    }

    /// A socket file that a socket of the host is bound to, which the inode keeps for who asked for it.
    fn bind(
        &self,
        binder: &Connector,
        directory: &OwnedFd,
        name: &[u8],
        node: &NewNode,
        kind: u32,
    ) -> Result<Arc<dyn Inode>> {
        let bound = binder.bind(directory.as_fd(), name, kind, node.mode & 0o7777);
        let socket = bound.map_err(|error| if error == Errno::EADDRINUSE { Errno::EEXIST } else { error })?;
        let inode = self.finish(directory, name, node)?;
        *host(&inode)?.bound.lock() = Some(socket);
        Ok(inode)
    }

    fn make_regular(&self, directory: &OwnedFd, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(directory, name, flags, permissions(node), RESOLVE).map_err(errno)?;
        let fd = Arc::new(fd);
        let known = self.owned(&fd, node).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        })?;
        let inode = self.fs().inode_of(Arc::clone(&fd), known, self.named(name));
        inode.remember_handle(READ_WRITE, &fd);
        self.name_changed(name);
        self.own(&inode, &known, node).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        })?;
        Ok(inode)
    }

    fn make_device(&self, directory: &OwnedFd, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.mark_directory()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(directory, name, flags, Mode::empty(), RESOLVE).map_err(errno)?;
        let made = Node::make(&fd, node).and_then(|()| Known::of(&fd));
        let known = made.inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        })?;
        let inode = self.fs().inode_of(Arc::new(fd), known, self.named(name));
        self.name_changed(name);
        Ok(inode)
    }

    pub(crate) fn make_directory(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        check(name)?;
        let directory = self.directory()?;
        rustix::fs::mkdirat(&*directory, name, permissions(node)).map_err(errno)?;
        self.finish(&directory, name, &NewNode { mode: S_IFDIR | node.mode & 0o7777, ..*node })
    }

    pub(crate) fn make_symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        check(name)?;
        let directory = self.directory()?;
        rustix::fs::symlinkat(target, &*directory, name).map_err(errno)?;
        self.finish(&directory, name, &NewNode { mode: 0o120777, ..*node })
    }

    pub(crate) fn make_unnamed(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        let directory = self.directory()?;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&*directory, ".", flags, permissions(node), RESOLVE).map_err(errno)?;
        let fd = Arc::new(fd);
        let known = self.owned(&fd, node)?;
        let inode = self.fs().inode_of(Arc::clone(&fd), known, Link::None);
        inode.remember_handle(READ_WRITE, &fd);
        self.own(&inode, &known, node)?;
        Ok(inode)
    }

    /// The inode of an entry just made, with its owner.
    fn finish(&self, directory: &OwnedFd, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        let fd = open_beneath(directory, name, OFlags::PATH | OFlags::NOFOLLOW)?;
        let flags = if node.mode & S_IFMT == S_IFDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let known = self.owned(&fd, node).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, flags);
        })?;
        let inode = self.fs().inode_of(Arc::new(fd), known, self.named(name));
        self.name_changed(name);
        self.own(&inode, &known, node).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(directory, name, flags);
        })?;
        Ok(inode)
    }

    /// Gives a new file its owner where the host is expected to have given another one, and its attributes.
    /// In this order: hosts with fine time stamps give a file that was looked at before chown(2) a later
    /// time of its last change than of its birth.
    fn owned(&self, fd: &OwnedFd, node: &NewNode) -> Result<Known> {
        let given = &self.fs().given_owner;
        let expected = given.load(Ordering::Relaxed);
        if expected != u64::MAX && expected != pair(node.uid, node.gid) {
            chown(fd, Some(node.uid), Some(node.gid))?;
            return Known::of(fd);
        }
        let known = Known::of(fd)?;
        given.store(pair(known.metadata.uid, known.metadata.gid), Ordering::Relaxed);
        Ok(known)
    }

    /// Gives a new file its owner and exact mode.
    fn own(&self, inode: &HostInode, known: &Known, node: &NewNode) -> Result<()> {
        inode.copied_up.store(true, Ordering::Relaxed);
        let (uid, gid) = (known.metadata.uid, known.metadata.gid);
        let chown = (uid, gid) != (node.uid, node.gid);
        if chown {
            inode.chown((uid != node.uid).then_some(node.uid), (gid != node.gid).then_some(node.gid))?;
        }
        inode.changed();
        let wanted = node.mode & 0o7777;
        let lost_set_id = chown && wanted & 0o6000 != 0;
        if known.metadata.kind() != linux_abi::fs::S_IFLNK
            && (lost_set_id || known.metadata.mode & 0o7777 != wanted)
        {
            inode.chmod(wanted)?;
        }
        Ok(())
    }

    pub(crate) fn make_link(&self, name: &[u8], target: &HostInode) -> Result<()> {
        check(name)?;
        if target.identity().kind == S_IFDIR {
            return Err(Errno::EPERM);
        }
        let directory = self.directory()?;
        if target.node.is_some() {
            self.mark_directory()?;
        }
        let fd = target.fd()?;
        let linked = self.fs().reopener.through_proc(&fd, |proc, number| {
            rustix::fs::linkat(proc, number, &*directory, name, AtFlags::SYMLINK_FOLLOW)
        });
        match linked {
            Some(result) => result,
            // Needs CAP_DAC_READ_SEARCH on older hosts.
            None => rustix::fs::linkat(&*fd, "", &*directory, name, AtFlags::EMPTY_PATH),
        }
        .map_err(errno)?;
        target.set_link(self.named(name));
        target.changed();
        self.name_changed(name);
        Ok(())
    }

    pub(crate) fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        check(name)?;
        let directory = self.directory()?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let victim = self.pin_named(&directory, name)?;
        rustix::fs::unlinkat(&*directory, name, flags).map_err(errno)?;
        self.name_changed(name);
        if let Some(victim) = victim {
            victim.set_link(Link::None);
            victim.changed();
        }
        Ok(())
    }

    /// Pins the file that is about to lose this name, if anybody has it.
    fn pin_named(&self, directory: &OwnedFd, name: &[u8]) -> Result<Option<Arc<HostInode>>> {
        let known = Known::at(directory, name)?;
        let victim = self.fs().living(&known.identity);
        if let Some(victim) = &victim {
            victim.pin()?;
        }
        Ok(victim)
    }

    pub(crate) fn move_entry(
        &self,
        name: &[u8],
        new_dir: &HostInode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        check(name)?;
        check(new_name)?;
        if !Arc::ptr_eq(self.fs(), new_dir.fs()) {
            return Err(Errno::EXDEV);
        }
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        let flags = flags.difference(RenameFlags::WHITEOUT);
        if whiteout {
            self.mark_directory()?;
        }
        let (from, to) = (self.directory()?, new_dir.directory()?);
        let moved = self.fs().living(&Known::at(&*from, name)?.identity);
        let replaced = match new_dir.pin_named(&to, new_name) {
            Ok(replaced) => replaced,
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        let device = |inode: &Option<Arc<HostInode>>| inode.as_ref().is_some_and(|i| i.node.is_some());
        if device(&moved) {
            new_dir.mark_directory()?;
        }
        if device(&replaced) && flags.contains(RenameFlags::EXCHANGE) {
            self.mark_directory()?;
        }
        let host_flags = rustix::fs::RenameFlags::from_bits_truncate(flags.bits());
        rustix::fs::renameat_with(&*from, name, &*to, new_name, host_flags).map_err(errno)?;
        self.name_changed(name);
        new_dir.name_changed(new_name);
        for inode in [&moved, &replaced].into_iter().flatten() {
            inode.changed();
        }
        let same = matches!((&moved, &replaced), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
        if same && !flags.contains(RenameFlags::EXCHANGE) {
            // Two names of one file: rename(2) does nothing.
            return Ok(());
        }
        if let Some(replaced) = replaced {
            let exchanged = flags.contains(RenameFlags::EXCHANGE);
            replaced.set_link(if exchanged { self.named(name) } else { Link::None });
        }
        if let Some(moved) = moved {
            moved.set_link(new_dir.named(new_name));
        }
        if whiteout {
            let owner = Known::of(&*from)?.metadata;
            let node = NewNode { mode: S_IFCHR, uid: owner.uid, gid: owner.gid, rdev: 0 };
            self.make_device(&from, name, &node)?;
        }
        Ok(())
    }
}
