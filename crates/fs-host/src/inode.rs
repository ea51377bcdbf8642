//! The inode of a host file.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};
use linux_abi::time::Timespec;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use vfs::{Caller, FileOps, FileSystem, Inode, Metadata, NewNode, RenameFlags, Result, SetAttr, Writers};

use crate::acl::Lists;
use crate::attributes::{Identity, Known};
use crate::cache::{Attributes, Names};
use crate::descriptors::{Slot, with_room};
use crate::directory::OpenDirectory;
use crate::file::OpenRegular;
use crate::file_system::HostFs;
use crate::node::Node;
use crate::{errno, watch, xattr};

/// One component, within the tree, links not followed.
pub(crate) const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// How a file is found again.
#[derive(Clone)]
pub(crate) enum Link {
    /// The root of the tree.
    Root,
    /// A name in a directory.
    Name(Arc<HostInode>, Box<[u8]>),
    /// No name: `O_TMPFILE`, or unlinked.
    None,
}

/// A host file, found by name and held by an `O_PATH` descriptor that can be dropped and found again.
pub(crate) struct HostInode {
    this: Weak<HostInode>,
    fs: Arc<HostFs>,
    identity: Identity,
    /// Of a device node, which the host has as a regular file.
    pub(crate) node: Option<Node>,
    slot: Arc<Slot>,
    /// Of a socket, which the host has bound for who makes it.
    pub(crate) bound: Mutex<Option<OwnedFd>>,
    pub(crate) link: Mutex<Link>,
    /// Open handles by access mode, shared by all who open the file so.
    handles: Mutex<[Weak<OwnedFd>; 3]>,
    pub(crate) attributes: Attributes,
    pub(crate) lists: Lists,
    /// Of a symbolic link, once it was read, and when it had been changed last.
    target: OnceLock<(Timespec, Box<[u8]>)>,
    /// Of a directory.
    pub(crate) names: Option<Box<Names>>,
    /// On an overlay: nothing that is done to it copies it up any more.
    pub(crate) copied_up: AtomicBool,
    /// Held over a write at the end and the question where it went.
    pub(crate) appending: Mutex<()>,
    writers: Writers,
}

impl HostInode {
    pub(crate) fn new(
        fs: Arc<HostFs>,
        fd: Arc<OwnedFd>,
        known: Known,
        node: Option<Node>,
        link: Link,
    ) -> Arc<HostInode> {
        let slot = Arc::new(Slot::default());
        if !matches!(link, Link::Name(..)) {
            slot.pin();
        }
        slot.put(fd);
        Arc::new_cyclic(|this| HostInode {
            this: this.clone(),
            fs,
            identity: known.identity,
            node,
            slot,
            bound: Mutex::default(),
            link: Mutex::new(link),
            handles: Mutex::default(),
            attributes: Attributes::default(),
            lists: Lists::default(),
            target: OnceLock::new(),
            names: (known.identity.kind == S_IFDIR).then(Box::default),
            copied_up: AtomicBool::new(false),
            appending: Mutex::new(()),
            writers: Writers::default(),
        })
    }

    /// A look-up came to this file once more, by this name.
    pub(crate) fn found_again(&self, fd: Arc<OwnedFd>, _known: &Known, link: Link) {
        if matches!(link, Link::Name(..)) {
            self.set_link(link);
        }
        self.slot.put(fd);
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it is this file.
    pub(crate) fn is(&self, identity: &Identity) -> bool {
        self.identity.same(identity, self.fs.copies_up)
    }

    pub(crate) fn fs(&self) -> &Arc<HostFs> {
        &self.fs
    }

    pub(crate) fn is_root(&self) -> bool {
        matches!(*self.link.lock(), Link::Root)
    }

    pub(crate) fn weak(&self) -> Weak<HostInode> {
        self.this.clone()
    }

    pub(crate) fn shared(&self) -> Arc<HostInode> {
        // `self` lives inside its own Arc: upgrade cannot fail while it is borrowed.
        self.this.upgrade().unwrap_or_else(|| unreachable!("borrowed inode was dropped"))
    }

    /// Says how it is found from now on.
    pub(crate) fn set_link(&self, link: Link) {
        let mut held = self.link.lock();
        if matches!(*held, Link::Root) {
            return;
        }
        let old = std::mem::replace(&mut *held, link);
        drop(held);
        // Dropping the old one may drop a directory, and so take locks.
        drop(old);
    }

    /// Keeps the descriptor for good, as the name is about to go.
    pub(crate) fn pin(&self) -> Result<()> {
        self.fd()?;
        self.slot.pin();
        // It may have been dropped in between.
        self.fd().map(drop)
    }

    /// The `O_PATH` descriptor (or one with more access), opened again if it was dropped.
    ///
    /// # Errors
    /// `ESTALE` if another file has the name by now.
    pub(crate) fn fd(&self) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.slot.get() {
            return Ok(fd);
        }
        // Who has it open has a descriptor, whatever became of the name.
        if let Some(fd) = self.handles.lock().iter().find_map(Weak::upgrade) {
            return Ok(fd);
        }
        // From the nearest directory that is open downwards: not by recursion, as trees may be deep.
        let mut path: Vec<(Arc<HostInode>, Box<[u8]>)> = Vec::new();
        let mut fd = loop {
            let link = path.last().map_or(&self.link, |(inode, _)| &inode.link).lock().clone();
            let Link::Name(parent, name) = link else { return Err(Errno::ESTALE) };
            let fd = parent.slot.get();
            path.push((parent, name));
            if let Some(fd) = fd {
                break fd;
            }
        };
        while let Some((parent, name)) = path.pop() {
            let inode = path.last().map_or(self, |(inode, _)| inode);
            fd = inode.find_again(&fd, &name).inspect_err(|_| {
                // The next walk asks the host again.
                if let Some(names) = &parent.names {
                    names.forget(&name);
                }
            })?;
        }
        Ok(fd)
    }

    /// The descriptor of this file, found by its name in a directory.
    fn find_again(&self, directory: &OwnedFd, name: &[u8]) -> Result<Arc<OwnedFd>> {
        let fd = open_beneath(directory, name, OFlags::PATH | OFlags::NOFOLLOW)
            .map_err(|error| if error == Errno::ENOENT { Errno::ESTALE } else { error })?;
        if !self.is(&Known::of(&fd)?.identity) {
            return Err(Errno::ESTALE);
        }
        let fd = Arc::new(fd);
        self.slot.put(Arc::clone(&fd));
        Ok(fd)
    }

    /// Opens the file of this inode with access; regular files and directories only.
    pub(crate) fn open_handle(&self, flags: OFlags) -> Result<OwnedFd> {
        match self.identity.kind {
            S_IFREG | S_IFDIR => {}
            S_IFLNK => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        }
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = self.fd()?;
        if let Some(result) = self.fs.reopener.reopen(&fd, flags) {
            return result.map_err(errno);
        }
        if self.identity.kind == S_IFDIR {
            return open_beneath(&fd, b".", flags | OFlags::DIRECTORY);
        }
        let link = self.link.lock().clone();
        let Link::Name(parent, name) = link else { return Err(Errno::EACCES) };
        let opened = open_beneath(&*parent.fd()?, &name, flags | OFlags::NOFOLLOW)?;
        if !self.is(&Known::of(&opened)?.identity) {
            return Err(Errno::ESTALE);
        }
        Ok(opened)
    }

    /// A handle with exactly this access mode, shared with others who have it open so.
    pub(crate) fn handle(&self, access: OFlags) -> Result<Arc<OwnedFd>> {
        let index = (access.bits() & 3) as usize;
        let reads = access == OFlags::RDONLY && self.identity.kind == S_IFREG;
        if reads && let Some(fd) = self.slot.reader() {
            return Ok(fd);
        }
        let existing = self.handles.lock().get(index).and_then(Weak::upgrade);
        if let Some(fd) = existing {
            return Ok(fd);
        }
        let fd = Arc::new(self.open_handle(access)?);
        if access != OFlags::RDONLY {
            self.may_be_copied_up();
        }
        self.remember_handle(index, &fd);
        if reads {
            self.slot.put_reader(Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// A handle that creation gave.
    pub(crate) fn remember_handle(&self, index: usize, fd: &Arc<OwnedFd>) {
        if let Some(slot) = self.handles.lock().get_mut(index) {
            *slot = Arc::downgrade(fd);
        }
    }

    #[cfg(test)]
    pub(crate) fn drop_descriptor(&self) {
        self.slot.clear();
    }

    pub(crate) fn writable(&self) -> Result<()> {
        if self.fs.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl Drop for HostInode {
    fn drop(&mut self) {
        self.fs.forget(&self.identity);
        if let Some(names) = &self.names
            && names.generation().is_some()
        {
            watch::forget(names.watch());
        }
        // A loop, since the guest decides how deep a tree is and the stack has an end.
        let mut next = std::mem::replace(self.link.get_mut(), Link::None);
        while let Link::Name(parent, _) = next {
            next = match Arc::into_inner(parent) {
                Some(mut last) => std::mem::replace(last.link.get_mut(), Link::None),
                None => Link::None,
            };
        }
    }
}

/// openat2(2) of one component.
pub(crate) fn open_beneath(directory: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    with_room(|| rustix::fs::openat2(directory, name, flags, Mode::empty(), RESOLVE)).map_err(errno)
}

/// An inode of this crate, else `EXDEV`.
pub(crate) fn host(inode: &Arc<dyn Inode>) -> Result<&HostInode> {
    inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
}

impl Inode for HostInode {
    fn metadata(&self) -> Result<Metadata> {
        self.stat()
    }
    fn kind(&self) -> Result<u32> {
        Ok(self.node.as_ref().map_or(self.identity.kind, |node| node.kind))
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        self.writable()?;
        self.change(attr)
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }
    fn names_told(&self) -> Option<u64> {
        self.names.as_ref()?.tell()
    }
    fn show(&self) -> Option<Metadata> {
        if self.node.is_some() {
            return None;
        }
        let mut metadata = self.shown_metadata()?;
        metadata.dev = self.fs().shown_device(metadata.dev);
        Some(metadata)
    }
    fn keeps_access_time(&self) -> bool {
        // Linux's overlayfs reads lower layers with O_NOATIME.
        self.fs.copies_up && !self.copied_up.load(Ordering::Relaxed)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn writers(&self) -> Option<&Writers> {
        Some(&self.writers)
    }
    fn open(self: Arc<Self>, flags: OpenFlags, _caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        if flags.writable() {
            self.writable()?;
        }
        match self.identity.kind {
            _ if self.node.is_some() => Err(Errno::ENXIO),
            S_IFDIR if flags.writable() => Err(Errno::EISDIR),
            S_IFDIR => Ok(Arc::new(OpenDirectory::new(self)?)),
            S_IFREG => Ok(Arc::new(OpenRegular::new(self, flags)?)),
            S_IFLNK => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }
    fn outside_socket(&self) -> Option<Result<Arc<OwnedFd>>> {
        (self.fs.outside && self.identity.kind == S_IFSOCK).then(|| self.fd())
    }
    fn binds_outside(&self) -> bool {
        self.fs.binder.is_some() && self.names.is_some()
    }
    fn take_bound(&self) -> Option<OwnedFd> {
        self.bound.lock().take()
    }
    fn open_outside(&self, flags: OpenFlags) -> Option<Result<OwnedFd>> {
        if !self.fs.outside || self.identity.kind != S_IFIFO {
            return None;
        }
        let flags = OFlags::from_bits_retain(flags.bits() & 3) | OFlags::NONBLOCK | OFlags::NOCTTY;
        // By name another file could come in its place.
        Some(self.fd().and_then(|fd| self.fs.reopener.reopen(&fd, flags).ok_or(Errno::ENXIO)?.map_err(errno)))
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.find(name)
    }
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.writable()?;
        self.make_node(name, node)
    }
    fn mkdir(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.writable()?;
        self.make_directory(name, node)
    }
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.writable()?;
        self.make_symlink(name, target, node)
    }
    fn tmpfile(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.writable()?;
        self.make_unnamed(node)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.writable()?;
        self.make_link(name, host(target)?)
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.writable()?;
        self.remove(name, false)
    }
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.writable()?;
        self.remove(name, true)
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.writable()?;
        self.move_entry(name, host(new_dir)?, new_name, flags)
    }
    fn readlink(&self, _caller: &mut dyn Caller) -> Result<Vec<u8>> {
        if self.identity.kind != S_IFLNK {
            return Err(Errno::EINVAL);
        }
        // Another link in its place may have its number.
        let changed = self.known_metadata()?.ctime;
        if let Some((read, target)) = self.target.get()
            && *read == changed
        {
            return Ok(target.to_vec());
        }
        let target = rustix::fs::readlinkat(&*self.fd()?, "", Vec::new()).map_err(errno)?.into_bytes();
        let _ = self.target.set((changed, target.as_slice().into()));
        Ok(target)
    }
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        self.still_holds(name, child)
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        xattr::get(self, name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.writable()?;
        xattr::set(self, name, value, flags)
    }
    fn acl(&self, attribute: &[u8]) -> Result<Option<vfs::Acl>> {
        self.list(attribute)
    }
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        xattr::list(self)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.writable()?;
        xattr::remove(self, name)
    }
}
