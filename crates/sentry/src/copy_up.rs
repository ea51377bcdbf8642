//! `tmpcopyup`: a new tmpfs begins with what its mount point shows.

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFLNK, S_IFREG};
use vfs::ops::open::{Opened, open_place};
use vfs::ops::{attributes, create};
use vfs::{FileSystem, Metadata, MountFlags, MountNamespace, OpenFile, Place, SetTime, WalkFlags, Walker};

use crate::launch::Booter;

/// Deeper trees than images have are not copied.
const MAX_DEPTH: usize = 128;
const CHUNK: usize = 64 << 10;

/// Copies the tree below `from` into a file system that is mounted nowhere yet; `ENOSPC` where it does not fit.
pub(crate) fn fill(fs: Arc<dyn FileSystem>, from: &Place) -> Result<(), Errno> {
    let namespace = MountNamespace::with_root(fs, MountFlags::empty(), b"tmpfs")?;
    copy_directory(from, &namespace.root()?, 0)
}

fn copy_directory(from: &Place, to: &Place, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    for name in names(from)? {
        let mut booter = Booter::root();
        // Names, not paths: no link is followed.
        let source =
            Walker::new(from.clone(), from.clone(), &mut booter, WalkFlags::empty()).resolve(&name)?;
        let meta = source.inode()?.metadata()?;
        copy_one(&source, &meta, to, &name, depth)?;
    }
    Ok(())
}

fn copy_one(source: &Place, meta: &Metadata, to: &Place, name: &[u8], depth: usize) -> Result<(), Errno> {
    let caller = Booter::root();
    let mut booter = Booter::root();
    let parent = Walker::new(to.clone(), to.clone(), &mut booter, WalkFlags::empty()).resolve_parent(name)?;
    let permissions = meta.mode & 0o7777;
    let made = match meta.kind() {
        S_IFDIR => {
            let made = create::mkdir(&caller, &parent, permissions)?;
            copy_directory(source, &made, depth + 1)?;
            made
        }
        S_IFLNK => {
            let target = source.inode()?.readlink(&mut Booter::root())?;
            let made = create::symlink(&caller, &parent, &target)?;
            return attributes::chown(&caller, &made, Some(meta.uid), Some(meta.gid));
        }
        S_IFREG => {
            let made = create::mknod(&caller, &parent, S_IFREG | permissions, 0)?;
            copy_bytes(source, &made)?;
            made
        }
        _ => create::mknod(&caller, &parent, meta.mode, meta.rdev)?,
    };
    attributes::chown(&caller, &made, Some(meta.uid), Some(meta.gid))?;
    attributes::chmod(&caller, &made, permissions)?;
    attributes::utimens(&caller, &made, Some(SetTime::At(meta.atime)), Some(SetTime::At(meta.mtime)))
}

fn copy_bytes(source: &Place, made: &Place) -> Result<(), Errno> {
    let (from, to) = (opened(source, OpenFlags::empty())?, opened(made, OpenFlags::WRONLY)?);
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0u64;
    loop {
        let read = from.ops().read(&from, &mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = to.ops().write(&to, rest, offset)?;
            if written == 0 {
                return Err(Errno::ENOSPC);
            }
            rest = rest.get(written..).unwrap_or_default();
            offset = offset.checked_add(written as u64).ok_or(Errno::EFBIG)?;
        }
    }
}

/// What is in a directory.
fn names(directory: &Place) -> Result<Vec<Vec<u8>>, Errno> {
    let file = opened(directory, OpenFlags::DIRECTORY)?;
    let mut names = Vec::new();
    let mut position = 0;
    loop {
        let before = names.len();
        position = file.ops().readdir(&file, position, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        })?;
        if names.len() == before {
            names.retain(|name| name != b"." && name != b"..");
            return Ok(names);
        }
    }
}

fn opened(place: &Place, flags: OpenFlags) -> Result<Arc<OpenFile>, Errno> {
    match open_place(&mut Booter::root(), place.clone(), flags, false)? {
        Opened::File(file) => Ok(file),
        Opened::Special { .. } => Err(Errno::ENXIO),
    }
}
