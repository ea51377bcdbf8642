//! Copying a file to the upper layer when it is first changed.

use std::any::Any;
use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFLNK, S_IFREG};
use vfs::{
    Caller, Dentry, FileSystem, Inode, Metadata, Mount, NewNode, OpenFile, Place, Result, SetAttr, SetTime,
    Whence,
};

use crate::file_system::OverlayFs;
use crate::inode::{Names, OverlayInode};

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;

/// The layer itself, which opens files on nobody's behalf.
struct Internal(Credentials);

impl Caller for Internal {
    fn credentials(&self) -> &Credentials {
        &self.0
    }
    fn pid(&self) -> i32 {
        0
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl OverlayInode {
    /// The upper inode, made if there is none, with at most `keep` bytes of contents.
    /// The instance's changes are locked.
    pub(crate) fn copy_up(&self, fs: &OverlayFs, keep: u64) -> Result<Arc<dyn Inode>> {
        if let Some(upper) = self.upper() {
            return Ok(upper);
        }
        // From the nearest directory that is up downwards: not by recursion, as trees may be deep.
        let mut path = vec![self.shared().ok_or(Errno::EIO)?];
        while let Some(last) = path.last() {
            let names = last.layers.lock().names.clone();
            match names {
                Some(Names::At(parent, _)) if parent.upper().is_none() => path.push(parent),
                _ => break,
            }
        }
        let mut upper = Err(Errno::EIO);
        while let Some(inode) = path.pop() {
            upper = Ok(inode.copy_one_up(fs, keep)?);
        }
        upper
    }

    /// Copies up; the directory it is in is up already.
    fn copy_one_up(&self, fs: &OverlayFs, keep: u64) -> Result<Arc<dyn Inode>> {
        let lower = self.lower().ok_or(Errno::EIO)?;
        let metadata = lower.metadata()?;
        let names = self.layers.lock().names.clone();
        let place = match names {
            Some(Names::At(parent, name)) => {
                let directory = parent.upper().ok_or(Errno::EIO)?;
                Some((parent, directory, name))
            }
            _ => None,
        };
        let upper = match &place {
            Some((_, directory, name)) => self.copy_to(fs, &lower, &metadata, directory, name, keep)?,
            None => self.copy_unnamed(fs, &lower, &metadata, keep)?,
        };
        let upper_metadata = upper.metadata()?;
        let mut layers = self.layers.lock();
        layers.upper = Some(Arc::clone(&upper));
        if place.is_some() {
            layers.lower_names = layers.lower_names.saturating_sub(1);
        }
        let named = place.is_some() || layers.lower_names > 0;
        drop(layers);
        vfs::shown::all_changed();
        if let Some((parent, directory, name)) = place {
            parent.layers.lock().hidden.insert(name);
            // The directory did not change for anybody.
            let _ = directory.set_attributes(&times(&parent.real()?.metadata()?));
        }
        if named {
            fs.copied_up(upper_metadata.ino, self);
        }
        Ok(upper)
    }

    fn copy_to(
        &self,
        fs: &OverlayFs,
        lower: &Arc<dyn Inode>,
        metadata: &Metadata,
        directory: &Arc<dyn Inode>,
        name: &[u8],
        keep: u64,
    ) -> Result<Arc<dyn Inode>> {
        let node = node(metadata);
        match self.kind() {
            S_IFREG => {
                // Under its name only when it is whole.
                let upper = self.copy_unnamed(fs, lower, metadata, keep)?;
                directory.link(name, &upper)?;
                Ok(upper)
            }
            kind => {
                let upper = match kind {
                    S_IFDIR => directory.mkdir(name, &node)?,
                    S_IFLNK => {
                        let target = lower.readlink(&mut Internal(Credentials::root()))?;
                        directory.symlink(name, &target, &node)?
                    }
                    _ => directory.create(name, &node)?,
                };
                dress(lower, &upper, metadata)?;
                Ok(upper)
            }
        }
    }

    /// A copy without a name, as of a file that was unlinked while open.
    fn copy_unnamed(
        &self,
        fs: &OverlayFs,
        lower: &Arc<dyn Inode>,
        metadata: &Metadata,
        keep: u64,
    ) -> Result<Arc<dyn Inode>> {
        if self.kind() != S_IFREG {
            return Err(Errno::ESTALE);
        }
        let upper = fs.upper_root()?.tmpfile(&node(metadata))?;
        copy_contents(lower, &upper, metadata.size.min(keep))?;
        dress(lower, &upper, metadata)?;
        Ok(upper)
    }
}

fn node(metadata: &Metadata) -> NewNode {
    NewNode { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, rdev: metadata.rdev }
}

fn times(metadata: &Metadata) -> SetAttr {
    SetAttr {
        atime: Some(SetTime::At(metadata.atime)),
        mtime: Some(SetTime::At(metadata.mtime)),
        ..SetAttr::default()
    }
}

/// Extended attributes and times.
fn dress(lower: &Arc<dyn Inode>, upper: &Arc<dyn Inode>, metadata: &Metadata) -> Result<()> {
    for name in lower.list_xattr().unwrap_or_default() {
        let Ok(value) = lower.get_xattr(&name) else { continue };
        match upper.set_xattr(&name, &value, 0) {
            // What the layer cannot keep is left behind, as on a plain cp -a.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    upper.set_attributes(&times(metadata))
}

/// An open file of a layer, on behalf of nobody.
pub(crate) fn opened(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let ops = Arc::clone(inode).open(flags, &mut Internal(Credentials::root()))?;
    let fs: Arc<dyn FileSystem> = inode.file_system();
    let dentry = Dentry::detached(b"", Arc::clone(inode));
    let place = Place { mount: Mount::detached(fs, Arc::clone(&dentry)), dentry };
    Ok(OpenFile::new(place, Arc::clone(inode), ops, flags))
}

fn copy_contents(lower: &Arc<dyn Inode>, upper: &Arc<dyn Inode>, size: u64) -> Result<()> {
    if size == 0 {
        return Ok(());
    }
    let from = opened(lower, OpenFlags::empty())?;
    let to = opened(upper, OpenFlags::RDWR)?;
    let mut buf = vec![0; usize::try_from(size).unwrap_or(CHUNK).min(CHUNK)];
    let mut pos = 0;
    while pos < size {
        // Holes stay holes.
        let start = i64::try_from(pos).map_err(|_| Errno::EFBIG)?;
        let Ok(data) = from.ops().seek(&from, start, Whence::Data) else { break };
        pos = data;
        if pos >= size {
            break;
        }
        let want = usize::try_from(size - pos).unwrap_or(CHUNK).min(buf.len());
        let Some(part) = buf.get_mut(..want) else { break };
        let count = from.ops().read(&from, part, pos)?;
        let mut left = part.get(..count).unwrap_or_default();
        if left.is_empty() {
            break;
        }
        while !left.is_empty() {
            let written = to.ops().write(&to, left, pos)?;
            if written == 0 {
                return Err(Errno::ENOSPC);
            }
            pos += written as u64;
            left = left.get(written..).unwrap_or_default();
        }
    }
    upper.set_attributes(&SetAttr { size: Some(size), ..SetAttr::default() })
}
