//! Open directories: of one layer alone as that layer lists it, of two a listing made at the first read,
//! whose positions stay.

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
    /// What it is read from since it was last read from the start.
    source: Mutex<Option<Source>>,
}

/// Where entries come from; positions are those of this source.
enum Source {
    /// The only layer that has the directory.
    Layer { file: Arc<OpenFile>, upper: bool },
    /// Both layers, as they were.
    Joined(Vec<Entry>),
}

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<OverlayInode>) -> OpenDirectory {
        OpenDirectory { inode, source: Mutex::new(None) }
    }

    /// The inode numbers of `.` and `..`.
    fn dots(&self) -> (u64, u64) {
        let own = self.inode.shown().1;
        let names = self.inode.layers.lock().names.clone();
        match names {
            Some(Names::At(parent, _)) => (own, parent.shown().1),
            _ => (own, own),
        }
    }

    fn source(&self) -> Result<Source> {
        let (layer, upper) = {
            let layers = self.inode.layers.lock();
            match (&layers.upper, &layers.lower) {
                (Some(upper), None) => (Some(upper.clone()), true),
                (None, Some(lower)) if layers.hidden.is_empty() => (Some(lower.clone()), false),
                _ => (None, false),
            }
        };
        match layer {
            Some(layer) => Ok(Source::Layer { file: copy_up::opened(&layer, OpenFlags::DIRECTORY)?, upper }),
            None => Ok(Source::Joined(self.list()?)),
        }
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let fs = self.inode.fs()?;
        let (own, parent) = self.dots();
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
        if whence != Whence::End {
            return Err(Errno::EINVAL);
        }
        let mut source = self.source.lock();
        if source.is_none() {
            *source = Some(self.source()?);
        }
        match source.as_ref() {
            Some(Source::Layer { file, .. }) => file.ops().seek(file, offset, whence),
            Some(Source::Joined(entries)) => {
                (entries.len() as u64).checked_add_signed(offset).ok_or(Errno::EINVAL)
            }
            None => Err(Errno::EIO),
        }
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let mut source = self.source.lock();
        if pos == 0 || source.is_none() {
            *source = Some(self.source()?);
        }
        let entries = match source.as_ref() {
            Some(Source::Joined(entries)) => entries,
            Some(Source::Layer { file, upper }) => {
                let (own, parent) = self.dots();
                let fs = self.inode.fs()?;
                return file.ops().readdir(file, pos, &mut |entry| {
                    let ino = match entry.name {
                        b"." => own,
                        b".." => parent,
                        _ if *upper => fs.shown_ino(entry.ino),
                        _ => entry.ino,
                    };
                    sink(DirEntry { ino, ..entry })
                });
            }
            None => return Err(Errno::EIO),
        };
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
