//! The inode of a file in one layer or both.

use std::any::Any;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR};
use parking_lot::Mutex;
use vfs::{Caller, FileOps, FileSystem, Inode, Metadata, NewNode, RenameFlags, Result, SetAttr, Writers};

use crate::directory::OpenDirectory;
use crate::file_system::OverlayFs;

/// Where a file was last found, so that it can be copied up there.
#[derive(Clone)]
pub(crate) enum Names {
    Root,
    At(Arc<OverlayInode>, Box<[u8]>),
    /// No name that we know.
    None,
}

/// The layers of a file.
#[derive(Default)]
pub(crate) struct Layers {
    pub(crate) upper: Option<Arc<dyn Inode>>,
    pub(crate) lower: Option<Arc<dyn Inode>>,
    /// Of a directory: names of the lower one that no longer count.
    pub(crate) hidden: HashSet<Box<[u8]>>,
    /// Names in the lower layer that still lead here.
    pub(crate) lower_names: u64,
    pub(crate) names: Option<Names>,
}

/// A file of the joined tree.
pub(crate) struct OverlayInode {
    this: Weak<OverlayInode>,
    fs: Weak<OverlayFs>,
    /// Device and inode number, which stay over a copy up.
    shown: (u64, u64),
    kind: u32,
    pub(crate) layers: Mutex<Layers>,
    writers: Writers,
}

impl OverlayInode {
    pub(crate) fn new(
        fs: &OverlayFs,
        shown: (u64, u64),
        kind: u32,
        upper: Option<Arc<dyn Inode>>,
        lower: Option<Arc<dyn Inode>>,
        names: Names,
    ) -> Arc<OverlayInode> {
        let layers = Layers { upper, lower, names: Some(names), ..Layers::default() };
        Arc::new_cyclic(|this| OverlayInode {
            this: this.clone(),
            fs: fs.weak(),
            shown,
            kind,
            layers: Mutex::new(layers),
            writers: Writers::default(),
        })
    }

    pub(crate) fn kind(&self) -> u32 {
        self.kind
    }
    pub(crate) fn shown(&self) -> (u64, u64) {
        self.shown
    }
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == S_IFDIR
    }
    pub(crate) fn shared(&self) -> Option<Arc<OverlayInode>> {
        self.this.upgrade()
    }
    /// The instance; `EIO` after it is gone, when nobody can reach a file any more.
    pub(crate) fn fs(&self) -> Result<Arc<OverlayFs>> {
        self.fs.upgrade().ok_or(Errno::EIO)
    }
    pub(crate) fn set_lower_names(&self, count: u64) {
        self.layers.lock().lower_names = count;
    }
    pub(crate) fn upper(&self) -> Option<Arc<dyn Inode>> {
        self.layers.lock().upper.clone()
    }
    pub(crate) fn lower(&self) -> Option<Arc<dyn Inode>> {
        self.layers.lock().lower.clone()
    }

    /// A look-up came here by this name.
    pub(crate) fn found_again(&self, names: Names) {
        self.set_names(names);
    }

    pub(crate) fn set_names(&self, names: Names) {
        let mut layers = self.layers.lock();
        if matches!(layers.names, Some(Names::Root)) {
            return;
        }
        let old = layers.names.replace(names);
        drop(layers);
        // It may be the last holder of a directory.
        drop(old);
    }

    /// The layer that counts for contents and attributes.
    pub(crate) fn real(&self) -> Result<Arc<dyn Inode>> {
        let layers = self.layers.lock();
        layers.upper.as_ref().or(layers.lower.as_ref()).cloned().ok_or(Errno::EIO)
    }

    /// What stat(2) tells, made from what it tells of the layer that counts.
    fn joined(&self, mut metadata: Metadata) -> Metadata {
        let layers = self.layers.lock();
        let (upper, lower) = (layers.upper.is_some(), layers.lower.is_some());
        let lower_names = layers.lower_names;
        drop(layers);
        (metadata.dev, metadata.ino) = self.shown;
        if upper && lower && self.is_directory() {
            // "Unknown", as counting would mean to read both.
            metadata.nlink = 1;
        } else if upper && lower {
            metadata.nlink = metadata.nlink.saturating_add(lower_names);
        } else if !upper && !self.is_directory() {
            metadata.nlink = lower_names;
        }
        metadata
    }

    /// The same with the upper layer made sure of.
    pub(crate) fn writable(&self) -> Result<Arc<dyn Inode>> {
        self.writable_with(u64::MAX)
    }

    /// As [`OverlayInode::writable`], of contents only the first `keep` bytes.
    pub(crate) fn writable_with(&self, keep: u64) -> Result<Arc<dyn Inode>> {
        if let Some(upper) = self.upper() {
            return Ok(upper);
        }
        let fs = self.fs()?;
        let _changes = fs.changes.lock();
        self.copy_up(&fs, keep)
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        // A loop, since the guest decides how deep a tree is and the stack has an end.
        let mut next = self.layers.get_mut().names.take();
        while let Some(Names::At(parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut last| last.layers.get_mut().names.take());
        }
    }
}

impl Inode for OverlayInode {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.joined(self.real()?.metadata()?))
    }
    fn keeps_access_time(&self) -> bool {
        self.real().is_ok_and(|real| real.keeps_access_time())
    }
    fn names_told(&self) -> Option<u64> {
        let told = |layer: Option<Arc<dyn Inode>>| layer.map_or(Some(0), |layer| layer.names_told());
        Some(told(self.upper())? | told(self.lower())?)
    }
    fn show(&self) -> Option<Metadata> {
        if self.is_directory() && self.upper().is_some() {
            return None;
        }
        Some(self.joined(self.real().ok()?.show()?))
    }
    fn set_attributes(&self, attr: &SetAttr) -> Result<()> {
        self.writable_with(attr.size.unwrap_or(u64::MAX))?.set_attributes(attr)
    }
    fn file_system(&self) -> Arc<dyn FileSystem> {
        match (self.fs.upgrade(), self.real()) {
            (Some(fs), _) => fs,
            (None, Ok(real)) => real.file_system(),
            // An inode has a layer from the start.
            (None, Err(_)) => unreachable!("an inode of no layer"),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn writers(&self) -> Option<&Writers> {
        Some(&self.writers)
    }
    fn open(self: Arc<Self>, flags: OpenFlags, caller: &mut dyn Caller) -> Result<Arc<dyn FileOps>> {
        if self.is_directory() {
            if flags.writable() {
                return Err(Errno::EISDIR);
            }
            return Ok(Arc::new(OpenDirectory::new(self)));
        }
        if flags.writable() {
            let keep = if flags.contains(OpenFlags::TRUNC) { 0 } else { u64::MAX };
            return self.writable_with(keep)?.open(flags, caller);
        }
        self.real()?.open(flags, caller)
    }
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }
    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |upper| upper.create(name, node))
    }
    fn mkdir(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |upper| upper.mkdir(name, node))
    }
    fn symlink(&self, name: &[u8], target: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, |upper| upper.symlink(name, target, node))
    }
    fn tmpfile(&self, node: &NewNode) -> Result<Arc<dyn Inode>> {
        let fs = self.fs()?;
        let upper = self.writable()?.tmpfile(node)?;
        let ino = upper.metadata()?.ino;
        let inode = fs.join_upper(upper, Names::None)?;
        // Without a name it lives as long as its users.
        fs.forget_upper(ino);
        Ok(inode)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.add_link(name, target.as_any().downcast_ref().ok_or(Errno::EXDEV)?)
    }
    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove(name, false)
    }
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove(name, true)
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let new_dir: &OverlayInode = new_dir.as_any().downcast_ref().ok_or(Errno::EXDEV)?;
        self.move_entry(name, new_dir, new_name, flags)
    }
    fn readlink(&self, caller: &mut dyn Caller) -> Result<Vec<u8>> {
        self.real()?.readlink(caller)
    }
    fn revalidate(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        self.still_holds(name, child)
    }
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.real()?.get_xattr(name)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.writable()?.set_xattr(name, value, flags)
    }
    fn acl(&self, attribute: &[u8]) -> Result<Option<vfs::Acl>> {
        self.real()?.acl(attribute)
    }
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.real()?.list_xattr()
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.writable()?.remove_xattr(name)
    }
}
