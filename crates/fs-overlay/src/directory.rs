//! Open directories of two layers: a listing made at the first read, whose positions stay.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{DirentType, OpenFlags};
use parking_lot::Mutex;
use vfs::{DirEntry, FileOps, Inode, OpenFile, Result, Whence};

use crate::copy_up;
use crate::inode::{Names, OverlayInode};

struct Entry {
    name: Box<[u8]>,
    ino: u64,
    kind: DirentType,
}

/// An open directory.
pub(crate) struct OpenDirectory {
    inode: Arc<OverlayInode>,
    /// As it was when it was last read from the start.
    listing: Mutex<Option<Vec<Entry>>>,
}

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<OverlayInode>) -> OpenDirectory {
        OpenDirectory { inode, listing: Mutex::new(None) }
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let fs = self.inode.fs()?;
        let own = self.inode.shown().1;
        let names = self.inode.layers.lock().names.clone();
        let parent = match names {
            Some(Names::At(parent, _)) => parent.shown().1,
            _ => own,
        };
        let dot = |name: &[u8], ino| Entry { name: name.into(), ino, kind: DirentType::Dir };
        let mut entries = vec![dot(b".", own), dot(b"..", parent)];
        if let Some(upper) = self.inode.upper() {
            each(&upper, &mut |entry| {
                let ino = fs.shown_ino(entry.ino);
                entries.push(Entry { name: entry.name.into(), ino, kind: entry.kind });
            })?;
        }
        if let Some(lower) = self.inode.lower() {
            let hidden: HashSet<Box<[u8]>> = self.inode.layers.lock().hidden.clone();
            each(&lower, &mut |entry| {
                if !hidden.contains(entry.name) {
                    entries.push(Entry { name: entry.name.into(), ino: entry.ino, kind: entry.kind });
                }
            })?;
        }
        Ok(entries)
    }
}

/// All entries of a layer but the dots.
fn each(layer: &Arc<dyn Inode>, sink: &mut dyn FnMut(DirEntry<'_>)) -> Result<()> {
    let file = copy_up::opened(layer, OpenFlags::DIRECTORY)?;
    let mut pos = 0;
    loop {
        let next = file.ops().readdir(&file, pos, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                sink(entry);
            }
            true
        })?;
        if next == pos {
            return Ok(());
        }
        pos = next;
    }
}

/// Whether nothing is visible in a directory.
pub(crate) fn is_empty(inode: &Arc<OverlayInode>) -> Result<bool> {
    let hidden = inode.layers.lock().hidden.clone();
    let layers = [(inode.upper(), false), (inode.lower(), true)];
    for (layer, hide) in layers {
        let Some(layer) = layer else { continue };
        let mut seen = false;
        each(&layer, &mut |entry| seen |= !(hide && hidden.contains(entry.name)))?;
        if seen {
            return Ok(false);
        }
    }
    Ok(true)
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let length = self.listing.lock().as_ref().map_or(0, |listing| listing.len() as u64);
        match whence {
            Whence::End => length.checked_add_signed(offset).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let mut listing = self.listing.lock();
        if pos == 0 || listing.is_none() {
            *listing = Some(self.list()?);
        }
        let entries = listing.as_deref().unwrap_or_default();
        let mut position = pos;
        let start = usize::try_from(pos).unwrap_or(usize::MAX).min(entries.len());
        for entry in entries.get(start..).unwrap_or_default() {
            let next = position + 1;
            if !sink(DirEntry { ino: entry.ino, next, kind: entry.kind, name: &entry.name }) {
                break;
            }
            position = next;
        }
        Ok(position)
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        Ok(())
    }
}
