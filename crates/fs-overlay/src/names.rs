//! Names in joined directories.

use std::sync::Arc;

use linux_abi::Errno;
use vfs::{Inode, RenameFlags, Result, SetAttr, SetTime};

use crate::directory;
use crate::file_system::OverlayFs;
use crate::inode::{Names, OverlayInode};

/// Where a name was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Upper,
    Lower,
}

impl OverlayInode {
    fn at(&self, name: &[u8]) -> Result<Names> {
        Ok(Names::At(self.shared().ok_or(Errno::EIO)?, name.into()))
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Arc<OverlayInode>> {
        Ok(self.find_layer(name)?.0)
    }

    fn find_layer(&self, name: &[u8]) -> Result<(Arc<OverlayInode>, Layer)> {
        if !self.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let fs = self.fs()?;
        let layers = self.layers.lock();
        let (upper, lower) = (layers.upper.clone(), layers.lower.clone());
        let hidden = layers.hidden.contains(name);
        drop(layers);
        if let Some(upper) = upper {
            match upper.lookup(name) {
                Ok(found) => return Ok((fs.join_upper(found, self.at(name)?)?, Layer::Upper)),
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let lower = lower.filter(|_| !hidden).ok_or(Errno::ENOENT)?;
        Ok((fs.join_lower(lower.lookup(name)?, self.at(name)?)?, Layer::Lower))
    }

    /// Whether what was found under a name earlier is still there: only the lower layer can change
    /// without us.
    pub(crate) fn still_holds(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let layers = self.layers.lock();
        let Some(lower) = layers.lower.clone().filter(|_| !layers.hidden.contains(name)) else { return true };
        drop(layers);
        match child {
            None => lower.revalidate(name, None),
            Some(child) => {
                let Some(child) = child.as_any().downcast_ref::<OverlayInode>() else { return false };
                match (child.upper(), child.lower()) {
                    (None, Some(inode)) => lower.revalidate(name, Some(&inode)),
                    _ => true,
                }
            }
        }
    }

    /// Runs what makes a new upper file under a name that is free.
    pub(crate) fn make(
        &self,
        name: &[u8],
        make: impl FnOnce(&Arc<dyn Inode>) -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        let fs = self.fs()?;
        let _changes = fs.changes.lock();
        match self.find(name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let made = make(&self.copy_up(&fs, u64::MAX)?)?;
        // Should the lower directory get such a name later, ours was first.
        self.hide(name);
        Ok(fs.join_upper(made, self.at(name)?)?)
    }

    fn hide(&self, name: &[u8]) {
        let mut layers = self.layers.lock();
        if layers.lower.is_some() {
            layers.hidden.insert(name.into());
        }
    }

    pub(crate) fn add_link(&self, name: &[u8], target: &OverlayInode) -> Result<()> {
        let fs = self.fs()?;
        if target.is_directory() {
            return Err(Errno::EPERM);
        }
        if !std::ptr::eq(Arc::as_ptr(&fs), Arc::as_ptr(&target.fs()?)) {
            return Err(Errno::EXDEV);
        }
        let _changes = fs.changes.lock();
        match self.find(name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let directory = self.copy_up(&fs, u64::MAX)?;
        let upper = target.copy_up(&fs, u64::MAX)?;
        directory.link(name, &upper)?;
        self.hide(name);
        target.set_names(self.at(name)?);
        fs.copied_up(upper.metadata()?.ino, target);
        Ok(())
    }

    /// Gives a file found under a lower name an upper one in its place.
    fn materialize(&self, fs: &OverlayFs, name: &[u8], child: &OverlayInode, layer: Layer) -> Result<()> {
        if layer == Layer::Upper {
            return Ok(());
        }
        child.set_names(self.at(name)?);
        if child.upper().is_none() {
            child.copy_up(fs, u64::MAX)?;
            return Ok(());
        }
        // Copied up already, under another of its names.
        let upper = child.copy_up(fs, u64::MAX)?;
        self.copy_up(fs, u64::MAX)?.link(name, &upper)?;
        self.hide(name);
        child.lost_lower_name();
        Ok(())
    }

    fn lost_lower_name(&self) {
        let mut layers = self.layers.lock();
        layers.lower_names = layers.lower_names.saturating_sub(1);
        drop(layers);
        vfs::shown::all_changed();
    }

    /// A name of this file went: forgets it with its last one.
    fn lost_name(&self, fs: &OverlayFs) {
        self.set_names(Names::None);
        let lower_names = self.layers.lock().lower_names;
        let Some(upper) = self.upper() else {
            // The count of its other names is known here only.
            if !self.is_directory() {
                fs.keep_lower(self, lower_names > 0);
            }
            return;
        };
        let Ok(metadata) = upper.metadata() else { return };
        if self.is_directory() || metadata.nlink + lower_names == 0 {
            fs.forget_upper(metadata.ino);
        }
    }

    /// `ENOTEMPTY` for a directory with visible entries.
    fn check_empty(self: &Arc<Self>) -> Result<()> {
        if self.is_directory() && !directory::is_empty(self)? {
            return Err(Errno::ENOTEMPTY);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        let fs = self.fs()?;
        let changes = fs.changes.lock();
        let (child, layer) = self.find_layer(name)?;
        match (child.is_directory(), is_directory) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            _ => child.check_empty()?,
        }
        self.drop_name(&fs, name, &child, layer)?;
        drop(changes);
        // Perhaps the last holder of much.
        drop(child);
        Ok(())
    }

    /// Removes a name whose file may go.
    fn drop_name(&self, fs: &OverlayFs, name: &[u8], child: &Arc<OverlayInode>, layer: Layer) -> Result<()> {
        let directory = self.copy_up(fs, u64::MAX)?;
        match layer {
            Layer::Upper if child.is_directory() => directory.rmdir(name)?,
            Layer::Upper => directory.unlink(name)?,
            Layer::Lower => {
                self.hide(name);
                child.lost_lower_name();
                let time = Some(SetTime::Now);
                directory.set_attributes(&SetAttr { mtime: time, ..SetAttr::default() })?;
            }
        }
        child.lost_name(fs);
        Ok(())
    }

    /// Whether `other` is this directory or lies below it.
    fn is_above(&self, other: &OverlayInode) -> bool {
        let mut at = other.shared();
        while let Some(inode) = at {
            if std::ptr::eq(Arc::as_ptr(&inode), self) {
                return true;
            }
            let names = inode.layers.lock().names.clone();
            at = match names {
                Some(Names::At(parent, _)) => Some(parent),
                _ => None,
            };
        }
        false
    }

    pub(crate) fn move_entry(
        &self,
        name: &[u8],
        new_dir: &OverlayInode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let fs = self.fs()?;
        if !std::ptr::eq(Arc::as_ptr(&fs), Arc::as_ptr(&new_dir.fs()?)) {
            return Err(Errno::EXDEV);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let changes = fs.changes.lock();
        let (moved, moved_layer) = self.find_layer(name)?;
        let target = match new_dir.find_layer(new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        if target.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if moved.is_directory() && moved.is_above(new_dir) {
            return Err(Errno::EINVAL);
        }
        if let Some((target, _)) = &target
            && exchange
            && target.is_directory()
            && target.is_above(self)
        {
            return Err(Errno::EINVAL);
        }
        // Two names of one file: nothing would change.
        if target.as_ref().is_some_and(|(target, _)| Arc::ptr_eq(target, &moved)) {
            return Ok(());
        }
        if let Some((target, _)) = &target
            && !exchange
        {
            match (moved.is_directory(), target.is_directory()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => target.check_empty()?,
            }
        }
        self.materialize(&fs, name, &moved, moved_layer)?;
        let (from, to) = (self.copy_up(&fs, u64::MAX)?, new_dir.copy_up(&fs, u64::MAX)?);
        if let (Some((target, layer)), true) = (&target, exchange) {
            new_dir.materialize(&fs, new_name, target, *layer)?;
        }
        from.rename(name, &to, new_name, flags - RenameFlags::NOREPLACE)?;
        new_dir.hide(new_name);
        match &target {
            Some((target, _)) if exchange => target.set_names(self.at(name)?),
            Some((target, layer)) => {
                if *layer == Layer::Lower {
                    target.lost_lower_name();
                }
                target.lost_name(&fs);
            }
            None => {}
        }
        moved.set_names(new_dir.at(new_name)?);
        drop(changes);
        drop((moved, target));
        Ok(())
    }
}
