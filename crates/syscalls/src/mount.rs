//! mount(2), mount_setattr(2), umount2(2), pivot_root(2), and new mount namespaces.

use std::sync::Arc;

use identity::Capability;
use linux_abi::Errno;
use linux_abi::fs::AT_FDCWD;
use vfs::{MountFlags, MountNamespace, Place, Propagation, WalkFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::path::{at, check_flags, resolve, resolve_at};
use crate::{Cx, SysResult};

const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
const MS_SILENT: u64 = 32768;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MS_STRICTATIME: u64 = 1 << 24;
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;
const PROPAGATION: u64 = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;

/// The namespace of the caller's root; `EINVAL` if that is detached.
fn namespace(cx: &Cx<'_>) -> SysResult<Arc<MountNamespace>> {
    Ok(cx.fs().namespace().ok_or(Errno::EINVAL)?)
}

/// `EINVAL` unless a place is the root of a mount.
fn check_root(place: &Place) -> SysResult<()> {
    let root = Arc::ptr_eq(&place.dentry, &place.mount.root);
    if root { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// mount(2).
pub fn mount(cx: &mut Cx<'_>, source: Ptr, target: Ptr, fs_type: Ptr, flags: u64, data: Ptr) -> SysResult {
    cx.require(Capability::SYS_ADMIN)?;
    // The magic number of old programs.
    let flags = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
    let flags = flags & !MS_SILENT;
    let target = cx.read_path(target)?;
    let place = resolve(cx, AT_FDCWD, &target, WalkFlags::FOLLOW)?;
    let namespace = namespace(cx)?;
    let recursive = flags & MS_REC != 0;
    if flags & MS_REMOUNT != 0 {
        check_root(&place)?;
        if flags & MS_BIND == 0 {
            let data = if data.is_null() { Vec::new() } else { read_options(cx, data)? };
            place.mount.file_system.remount(&data)?;
        }
        namespace.remount(&place.mount, mount_flags(flags, Some(place.mount.flags())))?;
    } else if flags & MS_BIND != 0 {
        let from = read_source(cx, source)?;
        namespace.bind(&from, &place, recursive)?;
    } else if flags & PROPAGATION != 0 {
        check_root(&place)?;
        namespace.set_propagation(&place.mount, propagation(flags & !MS_REC)?, recursive);
    } else if flags & MS_MOVE != 0 {
        let from = read_source(cx, source)?;
        check_root(&from)?;
        namespace.move_mount(&from.mount, &place)?;
    } else {
        let kind = cx.read_cstr(fs_type, 4096)?.ok_or(Errno::EINVAL)?;
        let name = if source.is_null() { b"none".to_vec() } else { cx.read_path(source)? };
        let options = if data.is_null() { Vec::new() } else { read_options(cx, data)? };
        let make = cx.kernel().io.file_systems.get(&kind)?;
        let fs = make(&name, &options)?;
        namespace.mount(fs, &place, mount_flags(flags, None), &name)?;
    }
    Ok(0)
}

/// Options are at most a page.
fn read_options(cx: &mut Cx<'_>, data: Ptr) -> SysResult<Vec<u8>> {
    Ok(cx.read_cstr(data, 4096)?.ok_or(Errno::EINVAL)?)
}

fn read_source(cx: &mut Cx<'_>, source: Ptr) -> SysResult<Place> {
    let path = cx.read_path(source)?;
    resolve(cx, AT_FDCWD, &path, WalkFlags::FOLLOW)
}

/// Flags of a mount from `MS_*`; one that says nothing of access times keeps the old rule, or gets relatime.
fn mount_flags(flags: u64, old: Option<MountFlags>) -> MountFlags {
    let times = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME;
    // The low half holds all that we know.
    let mut new = MountFlags::from_bits_truncate((flags & 0xffff_ffff) as u32);
    if flags & MS_STRICTATIME != 0 {
        return new - ACCESS_TIMES;
    }
    match old {
        Some(old) if !new.intersects(times) => new |= old & times,
        // Also beside MS_NODIRATIME, which is of directories alone.
        _ => new.set(MountFlags::RELATIME, !new.contains(MountFlags::NOATIME)),
    }
    new
}

fn propagation(flags: u64) -> SysResult<Propagation> {
    match flags {
        MS_UNBINDABLE => Ok(Propagation::Unbindable),
        MS_PRIVATE => Ok(Propagation::Private),
        MS_SLAVE => Ok(Propagation::Slave(0)),
        MS_SHARED => Ok(Propagation::Shared(0)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_*` but for the rule of access times.
const ATTRIBUTES: [(u64, MountFlags); 6] = [
    (1, MountFlags::RDONLY),
    (2, MountFlags::NOSUID),
    (4, MountFlags::NODEV),
    (8, MountFlags::NOEXEC),
    (0x80, MountFlags::NODIRATIME),
    (0x20_0000, MountFlags::NOSYMFOLLOW),
];
/// `MOUNT_ATTR__ATIME`: a field of three values, of which relatime is 0.
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
/// The rule of access times; neither is strictatime.
const ACCESS_TIMES: MountFlags = MountFlags::NOATIME.union(MountFlags::RELATIME);

/// Flags of attributes; `EINVAL` for those that we lack: `MOUNT_ATTR_IDMAP` as of a file system without.
fn attributes(bits: u64) -> SysResult<MountFlags> {
    let mut rest = bits & !ATTR_ATIME;
    let mut flags = MountFlags::empty();
    for (bit, flag) in ATTRIBUTES {
        if rest & bit != 0 {
            rest &= !bit;
            flags |= flag;
        }
    }
    if rest == 0 { Ok(flags) } else { Err(Errno::EINVAL.into()) }
}

/// mount_setattr(2).
pub fn mount_setattr(
    cx: &mut Cx<'_>,
    dirfd: i32,
    path: Ptr,
    flags: u32,
    attr: Ptr,
    size: usize,
) -> SysResult {
    const RECURSIVE: u32 = 0x8000;
    check_flags(flags, at::EMPTY_PATH | at::SYMLINK_NOFOLLOW | at::NO_AUTOMOUNT | RECURSIVE)?;
    let attr: MountAttr = cx.read_extensible(attr, size, size_of::<MountAttr>())?;
    cx.require(Capability::SYS_ADMIN)?;
    if attr.set == 0 && attr.clear == 0 && attr.propagation == 0 {
        return Ok(0);
    }
    let mut set = attributes(attr.set)?;
    let mut clear = attributes(attr.clear)?;
    match (attr.clear & ATTR_ATIME, attr.set & ATTR_ATIME) {
        (0, 0) => {}
        (ATTR_ATIME, rule) => {
            clear |= ACCESS_TIMES;
            match rule {
                0 => set |= MountFlags::RELATIME,
                ATTR_NOATIME => set |= MountFlags::NOATIME,
                ATTR_STRICTATIME => {}
                _ => return Err(Errno::EINVAL.into()),
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    let kind = if attr.propagation == 0 { None } else { Some(propagation(attr.propagation)?) };
    let place = resolve_at(cx, dirfd, path, flags)?;
    check_root(&place)?;
    let namespace = namespace(cx)?;
    let recursive = flags & RECURSIVE != 0;
    namespace.set_attributes(&place.mount, clear, set, recursive)?;
    if let Some(kind) = kind {
        namespace.set_propagation(&place.mount, kind, recursive);
    }
    Ok(0)
}

/// umount2(2).
pub fn umount2(cx: &mut Cx<'_>, target: Ptr, flags: u32) -> SysResult {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0
        || (flags & EXPIRE != 0 && flags & (FORCE | DETACH) != 0)
    {
        return Err(Errno::EINVAL.into());
    }
    cx.require(Capability::SYS_ADMIN)?;
    let target = cx.read_path(target)?;
    let walk = if flags & NOFOLLOW == 0 { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    let place = resolve(cx, AT_FDCWD, &target, walk)?;
    check_root(&place)?;
    let namespace = namespace(cx)?;
    let mount = place.mount.clone();
    drop(place);
    if flags & EXPIRE != 0 {
        // The first call only marks; a mount is never found unused since.
        return Err(Errno::EAGAIN.into());
    }
    namespace.umount(&mount, flags & DETACH != 0, 1)?;
    Ok(0)
}

/// pivot_root(2).
pub fn pivot_root(cx: &mut Cx<'_>, new_root: Ptr, put_old: Ptr) -> SysResult {
    cx.require(Capability::SYS_ADMIN)?;
    let new_root = cx.read_path(new_root)?;
    let put_old = cx.read_path(put_old)?;
    let new_root = resolve(cx, AT_FDCWD, &new_root, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    let put_old = resolve(cx, AT_FDCWD, &put_old, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    let namespace = namespace(cx)?;
    let old = namespace.root()?;
    namespace.pivot_root(&new_root, &put_old)?;
    cx.kernel().names.stop();
    // Who was at the old root is at the new one.
    for process in cx.kernel().pids.processes() {
        let threads: Vec<_> = process.threads.lock().values().cloned().collect();
        for thread in threads {
            let fs = thread.fs();
            if fs.root().same(&old) {
                fs.set_root(new_root.clone());
            }
            if fs.cwd().same(&old) {
                fs.set_cwd(new_root.clone());
            }
        }
    }
    Ok(0)
}

/// Gives the thread a private copy of its mount namespace (`CLONE_NEWNS`).
pub fn unshare_mounts(cx: &mut Cx<'_>) -> SysResult<()> {
    cx.require(Capability::SYS_ADMIN)?;
    let own = cx.fs().duplicate();
    let mut places = [own.root(), own.cwd()];
    let copy = namespace(cx)?.duplicate(&mut places)?;
    let [root, cwd] = places;
    own.set_root(root);
    own.set_cwd(cwd);
    cx.thread.set_fs(own);
    crate::names::root_changed(cx);
    drop(copy);
    Ok(())
}
