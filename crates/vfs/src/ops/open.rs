//! open(2).

use std::any::Any;
use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use crate::anonymous::AnonInode;
use crate::notify::{self, Happening};
use crate::ops::{new_node, plain_name, writable_dir};
use crate::walk::{Last, Parent};
use crate::writers::Writing;
use crate::{
    Caller, Dentry, FileOps, Inode, Metadata, MountFlags, OpenFile, Place, Result, SetAttr, SetTime,
    WalkFlags, Walker, permission,
};

/// What opening gave.
pub enum Opened {
    /// An open file.
    File(Arc<OpenFile>),
    /// A FIFO, device or socket: permission is checked, opening it is the kernel's.
    Special {
        /// Where.
        place: Place,
        /// Its inode.
        inode: Arc<dyn Inode>,
        /// Its type bits (`S_IF*`).
        kind: u32,
    },
}

/// The operations of an `O_PATH` file: none.
struct PathOps;

impl FileOps for PathOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Opens the path of a walk. `mode` are the permission bits for a new file, before the umask.
pub fn open(walker: &mut Walker<'_>, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Opened> {
    if flags.contains(OpenFlags::PATH) {
        return open_path(walker, path, flags);
    }
    if flags.contains(OpenFlags::CREAT) && flags.intersects(OpenFlags::DIRECTORY | OpenFlags::TMPFILE_BIT) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(OpenFlags::NOFOLLOW) {
        walker.flags.remove(WalkFlags::FOLLOW);
    } else {
        walker.flags.insert(WalkFlags::FOLLOW);
    }
    if flags.contains(OpenFlags::TMPFILE_BIT) {
        return tmpfile(walker, path, flags, mode);
    }
    if flags.contains(OpenFlags::CREAT) {
        let parent = walker.resolve_parent(path)?;
        return create(walker, parent, flags, mode);
    }
    if flags.contains(OpenFlags::DIRECTORY) {
        walker.flags.insert(WalkFlags::DIRECTORY);
    }
    let place = walker.resolve(path)?;
    open_place(walker.caller, place, flags, false)
}

fn open_path(walker: &mut Walker<'_>, path: &[u8], flags: OpenFlags) -> Result<Opened> {
    walker.flags.set(WalkFlags::FOLLOW, !flags.contains(OpenFlags::NOFOLLOW));
    walker.flags.set(WalkFlags::DIRECTORY, flags.contains(OpenFlags::DIRECTORY));
    let place = walker.resolve(path)?;
    let inode = place.inode()?;
    // Of all other flags only these mean something.
    let kept = flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC);
    Ok(Opened::File(OpenFile::new(place, inode, Arc::new(PathOps), kept)))
}

fn create(walker: &mut Walker<'_>, mut parent: Parent, flags: OpenFlags, mode: u32) -> Result<Opened> {
    let exclusive = flags.contains(OpenFlags::EXCL);
    loop {
        if parent.last != Last::Name {
            if exclusive {
                return Err(Errno::EEXIST);
            }
            let place = walker.finish(parent)?;
            return open_place(walker.caller, place, flags, false);
        }
        if parent.slash {
            return Err(Errno::EISDIR);
        }
        let place = walker.step_name(&parent.dir, &parent.name)?;
        let Some(inode) = place.dentry.inode() else {
            match create_new(walker.caller, &parent, flags, mode)? {
                Some(opened) => return Ok(opened),
                // Somebody else was faster.
                None if exclusive => return Err(Errno::EEXIST),
                None => continue,
            }
        };
        if exclusive {
            return Err(Errno::EEXIST);
        }
        let meta = inode.metadata()?;
        if meta.kind() == S_IFLNK {
            if !walker.flags.contains(WalkFlags::FOLLOW) {
                return Err(Errno::ELOOP);
            }
            parent = walker.follow_last(&parent, &place)?;
            continue;
        }
        check_protected(walker.caller, &parent, &meta)?;
        return open_place(walker.caller, place, flags, false);
    }
}

/// fs.protected_regular and fs.protected_fifos (1): in a sticky directory that anybody may write, O_CREAT
/// opens only one's own.
fn check_protected(caller: &dyn Caller, parent: &Parent, meta: &Metadata) -> Result<()> {
    if !matches!(meta.kind(), S_IFREG | S_IFIFO) {
        return Ok(());
    }
    let dir = parent.dir.inode()?.metadata()?;
    let shared = dir.mode & linux_abi::fs::S_ISVTX != 0 && dir.mode & 0o002 != 0;
    if shared && meta.uid != caller.credentials().fsuid && meta.uid != dir.uid {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Creates the last name and opens it; none if it exists by now.
fn create_new(
    caller: &mut dyn Caller,
    parent: &Parent,
    flags: OpenFlags,
    mode: u32,
) -> Result<Option<Opened>> {
    let name = plain_name(parent, Errno::EISDIR)?;
    let (dir, meta) = writable_dir(caller.credentials(), &parent.dir)?;
    let (node, inherited) = new_node(caller, &*dir, &meta, S_IFREG | (mode & 0o7777), 0)?;
    let dentry = {
        let _changes = parent.dir.dentry.lock_changes();
        let dentry = parent.dir.dentry.child_locked(&dir, name)?;
        if dentry.inode().is_some() {
            return Ok(None);
        }
        match dir.create(name, &node) {
            Ok(inode) => {
                inherited.give(&*inode)?;
                dentry.instantiate(inode);
            }
            Err(Errno::EEXIST) => {
                parent.dir.dentry.invalidate(name);
                return Ok(None);
            }
            Err(err) => return Err(err),
        }
        dentry
    };
    notify::created(&dentry);
    let place = Place { mount: parent.dir.mount.clone(), dentry };
    open_place(caller, place, flags, true).map(Some)
}

fn tmpfile(walker: &mut Walker<'_>, path: &[u8], flags: OpenFlags, mode: u32) -> Result<Opened> {
    if !flags.contains(OpenFlags::TMPFILE) || !flags.writable() {
        return Err(Errno::EINVAL);
    }
    walker.flags.insert(WalkFlags::DIRECTORY);
    let place = walker.resolve(path)?;
    let cred = walker.caller.credentials();
    let (dir, meta) = writable_dir(cred, &place)?;
    let (node, inherited) = new_node(walker.caller, &*dir, &meta, S_IFREG | (mode & 0o7777), 0)?;
    let inode = dir.tmpfile(&node)?;
    inherited.give(&*inode)?;
    let name = format!("#{}", inode.metadata()?.ino);
    let dentry = Dentry::unnamed(&place.dentry, name.as_bytes(), inode);
    let file = Place { mount: place.mount, dentry };
    open_place(walker.caller, file, flags - OpenFlags::DIRECTORY, true)
}

/// Opens what is at a place. A file just `created` needs no permission for the access asked.
pub fn open_place(caller: &mut dyn Caller, place: Place, flags: OpenFlags, created: bool) -> Result<Opened> {
    let inode = place.inode()?;
    let meta = inode.metadata()?;
    let kind = meta.mode & S_IFMT;
    let access = flags.bits() & 3;
    let writes = access != 0;
    match kind {
        S_IFLNK => return Err(Errno::ELOOP),
        S_IFDIR if writes || flags.intersects(OpenFlags::CREAT | OpenFlags::TRUNC) => {
            return Err(Errno::EISDIR);
        }
        S_IFDIR => {}
        _ if flags.contains(OpenFlags::DIRECTORY) => return Err(Errno::ENOTDIR),
        S_IFBLK | S_IFCHR if place.mount.has(MountFlags::NODEV) => return Err(Errno::EACCES),
        _ => {}
    }
    let truncates = flags.contains(OpenFlags::TRUNC) && kind == S_IFREG && !created;
    if !created {
        // Access mode 3 asks for both permissions and gives neither.
        let mut want = match access {
            0 => permission::READ,
            1 => permission::WRITE,
            _ => permission::READ | permission::WRITE,
        };
        if flags.contains(OpenFlags::TRUNC) {
            want |= permission::WRITE;
        }
        permission::check_file(caller.credentials(), &*inode, &meta, want)?;
        if want & permission::WRITE != 0 && matches!(kind, S_IFREG | S_IFDIR) {
            place.mount.check_writable()?;
        }
        if flags.contains(OpenFlags::NOATIME) && !permission::is_owner(caller.credentials(), &meta) {
            return Err(Errno::EPERM);
        }
    }
    let anonymous = inode.as_any().downcast_ref::<AnonInode>();
    if let Some(ops) = anonymous.and_then(AnonInode::shared_ops) {
        if let Some(contents) = anonymous.and_then(AnonInode::contents) {
            contents.check_access(flags)?;
            if truncates {
                contents.set_size(0)?;
            }
        }
        return Ok(Opened::File(OpenFile::new(place, inode, ops, flags)));
    }
    if matches!(kind, S_IFIFO | S_IFCHR | S_IFBLK | S_IFSOCK) {
        return Ok(Opened::Special { place, inode, kind });
    }
    let writing = if kind == S_IFREG && (flags.writable() || truncates) {
        Some(Writing::begin(&*inode)?)
    } else {
        None
    };
    if truncates {
        let mode = permission::without_suid(caller.credentials(), &meta);
        let now = Some(SetTime::Now);
        inode.set_attributes(&SetAttr { size: Some(0), mode, mtime: now, ..SetAttr::default() })?;
        notify::file(&place.dentry, Happening::MODIFY);
    }
    let ops = inode.clone().open(flags, caller)?;
    notify::file(&place.dentry, Happening::OPEN);
    let writes = writing.filter(|_| flags.writable()).is_some_and(Writing::keep);
    let file = OpenFile::new(place, inode, ops, flags);
    if writes {
        file.set_writes();
    }
    if created {
        file.set_created();
    }
    Ok(Opened::File(file))
}
