//! A host inode's use of what is remembered: attributes and names without asking the host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::Errno;
use vfs::{Inode, Metadata, Result};

use crate::attributes::Known;
use crate::cache::Names;
use crate::inode::{HostInode, Link};
use crate::listing::{self, Listing};
use crate::watch;

impl HostInode {
    fn key(&self) -> (u64, u64) {
        (self.identity().dev, self.identity().ino)
    }

    /// The host answered a question about this directory: is it worth a watch?
    fn slow(&self, names: &Names) {
        if names.slow() {
            watch::request(self.weak());
        }
    }

    /// stat(2) with the host's device number, from what is remembered or from the host.
    pub(crate) fn known_metadata(&self) -> Result<Metadata> {
        if let Some(names) = &self.names {
            return self.directory_metadata(names);
        }
        let link = self.link.lock();
        let Link::Name(parent, name) = &*link else {
            drop(link);
            return Ok(Known::of(&*self.fd()?)?.metadata);
        };
        let Some(names) = &parent.names else { return Err(Errno::EIO) };
        if let Some(generation) = names.generation()
            && let Some(metadata) = self.attributes.get(generation)
        {
            return Ok(metadata);
        }
        let (parent, name) = (Arc::clone(parent), name.clone());
        drop(link);
        self.file_metadata(&parent, &name)
    }

    fn directory_metadata(&self, names: &Names) -> Result<Metadata> {
        let Some(generation) = names.generation() else {
            self.slow(names);
            return Ok(Known::of(&*self.fd()?)?.metadata);
        };
        if let Some(metadata) = self.attributes.get(generation) {
            return Ok(metadata);
        }
        let changes = self.attributes.changes();
        let metadata = Known::of(&*self.fd()?)?.metadata;
        self.attributes.keep(&metadata, generation, changes);
        Ok(metadata)
    }

    fn file_metadata(&self, parent: &HostInode, name: &[u8]) -> Result<Metadata> {
        let Some(names) = &parent.names else { return Err(Errno::EIO) };
        let Some(generation) = names.generation() else {
            parent.slow(names);
            return Ok(Known::of(&*self.fd()?)?.metadata);
        };
        let (events, changes) = (names.events(), self.attributes.changes());
        if !names.leads(name, Some(self.key())) {
            // The name tells as much, and where it leads besides.
            match Known::at(&*parent.fd()?, name) {
                Ok(known) if self.is(&known.identity) => {
                    if names.remember(name, Some(self.key()), events) {
                        self.keep(&known.metadata, generation, changes);
                    }
                    return Ok(known.metadata);
                }
                _ => return Ok(Known::of(&*self.fd()?)?.metadata),
            }
        }
        let metadata = Known::of(&*self.fd()?)?.metadata;
        self.keep(&metadata, generation, changes);
        Ok(metadata)
    }

    /// Changes by another hard link come from a directory that may not be watched.
    fn keep(&self, metadata: &Metadata, generation: u64, changes: u64) {
        if metadata.nlink == 1 {
            self.attributes.keep(metadata, generation, changes);
        }
    }

    /// Events so far, to be given to [`HostInode::found`] after the host was asked about a name.
    pub(crate) fn before_question(&self) -> u64 {
        self.names.as_ref().map_or(0, |names| names.events())
    }

    /// The host said what a name leads to.
    pub(crate) fn found(&self, name: &[u8], child: Option<(&HostInode, &Known)>, events: u64) {
        let Some(names) = &self.names else { return };
        let Some(generation) = names.generation() else { return self.slow(names) };
        if names.remember(name, child.map(|(child, _)| child.key()), events)
            && let Some((child, known)) = child
            && child.names.is_none()
        {
            // Kept only if nobody changed it since it is known here.
            child.keep(&known.metadata, generation, 0);
        }
    }

    /// Whether a name still leads to the same file (or none).
    pub(crate) fn still_holds(&self, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let child = match child.map(|child| child.as_any().downcast_ref::<HostInode>()) {
            Some(None) => return false,
            Some(child) => child,
            None => None,
        };
        let Some(names) = &self.names else { return false };
        if names.generation().is_some() && names.leads(name, child.map(HostInode::key)) {
            return true;
        }
        let Ok(directory) = self.fd() else { return false };
        let events = names.events();
        match (Known::at(&*directory, name), child) {
            (Ok(known), Some(child)) if child.is(&known.identity) => {
                self.found(name, Some((child, &known)), events);
                true
            }
            (Err(Errno::ENOENT), None) => {
                self.found(name, None, events);
                true
            }
            _ => {
                names.forget(name);
                false
            }
        }
    }

    /// We changed the file: what is remembered of it no longer counts, in any tree.
    pub(crate) fn changed(&self) {
        self.may_be_copied_up();
        self.forget_attributes();
        self.fs().for_peers(self.key(), HostInode::forget_attributes);
    }

    /// The first change of a file on an overlay copies it up, which gives a hard link of several a new number:
    /// its name leads to another file then.
    pub(crate) fn may_be_copied_up(&self) {
        if !self.fs().copies_up || self.names.is_some() || self.copied_up.swap(true, Ordering::Relaxed) {
            return;
        }
        let number = self.fd().and_then(|fd| Known::of(&*fd)).map(|known| known.identity.ino);
        let Link::Name(parent, name) = self.link.lock().clone() else { return };
        if number != Ok(self.identity().ino)
            && let Some(names) = &parent.names
        {
            names.forget(&name);
        }
    }

    fn forget_attributes(&self) {
        self.attributes.invalidate();
        self.lists.invalidate();
        if let Some(names) = &self.names {
            names.search_changed();
        }
    }

    /// We changed a name of this directory.
    pub(crate) fn name_changed(&self, name: &[u8]) {
        self.name_changed_here(name);
        self.fs().for_peers(self.key(), |twin| twin.name_changed_here(name));
    }

    fn name_changed_here(&self, name: &[u8]) {
        if let Some(names) = &self.names {
            names.forget(name);
        }
        self.attributes.invalidate();
    }

    /// The attributes of a file while they are remembered, if each change from now on is told.
    pub(crate) fn shown_metadata(&self) -> Option<Metadata> {
        let generation = match &self.names {
            Some(names) => names.generation()?,
            None => {
                let link = self.link.lock();
                let Link::Name(parent, _) = &*link else { return None };
                parent.names.as_ref()?.generation()?
            }
        };
        if let Some(metadata) = self.attributes.show(generation) {
            return Some(metadata);
        }
        self.known_metadata().ok()?;
        self.attributes.show(generation)
    }

    /// Whether stat(2) is answered without the host.
    #[cfg(test)]
    pub(crate) fn is_remembered(&self) -> bool {
        let Link::Name(parent, _) = &*self.link.lock() else { return false };
        let generation = parent.names.as_ref().and_then(|names| names.generation());
        generation.is_some_and(|generation| self.attributes.get(generation).is_some())
    }

    /// The entries of this directory, if they are known.
    pub(crate) fn known_listing(&self) -> Option<Arc<Listing>> {
        self.names.as_ref()?.listing()
    }

    /// Changes of names so far, to be given to [`HostInode::listed`] after the host was asked.
    pub(crate) fn before_listing(&self) -> u64 {
        let Some(names) = &self.names else { return 0 };
        if names.generation().is_none() {
            self.slow(names);
        }
        names.name_changes()
    }

    /// The host told all entries.
    pub(crate) fn listed(&self, listing: &Arc<Listing>, changes: u64) {
        if self.names.as_ref().is_some_and(|names| names.keep_listing(listing, changes)) {
            listing::kept(self.weak());
        }
    }

    pub(crate) fn forget_listing(&self) {
        if let Some(names) = &self.names {
            names.drop_listing();
        }
    }

    /// Whether it was used since this was asked last.
    pub(crate) fn listing_was_used(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.take_listing_used())
    }

    /// It is, or is not, among those that keep a listing; true if that is news.
    pub(crate) fn queue_listing(&self, queued: bool) -> bool {
        self.names.as_ref().is_some_and(|names| names.queue_listing(queued))
    }

    pub(crate) fn watch_began(&self, watch: i32) {
        if let Some(names) = &self.names {
            names.began(watch);
        }
    }

    pub(crate) fn watch_ended(&self) {
        if let Some(names) = &self.names {
            names.ended();
        }
    }

    pub(crate) fn watch_descriptor(&self) -> i32 {
        self.names.as_ref().map_or(-1, |names| names.watch())
    }

    pub(crate) fn watch_was_used(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.take_used())
    }

    /// An event: about a name in this directory, or about the directory itself.
    pub(crate) fn happened(&self, name: Option<&[u8]>, names_changed: bool) {
        let Some(names) = &self.names else { return };
        if names_changed || name.is_none() {
            self.attributes.invalidate();
        }
        if name.is_none() {
            self.lists.invalidate();
            // It may have moved: `..` is another directory then.
            names.drop_listing();
        }
        if let Some(key) = names.event(name, names_changed)
            && let Some(child) = self.fs().living_by_key(key)
        {
            child.forget_attributes();
        }
    }
}
