//! Mounts held by descriptors: open_tree(2), mount_setattr(2), fsmount(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

/// A detached copy of the mount tree at `path`, with all mounts below it.
/// Needs CAP_SYS_ADMIN over the caller's mount namespace.
pub fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    clone_tree_at(CWD, path)
}

/// A detached copy of the mount that `path` lies in, from there down, without
/// the mounts below it. `EINVAL` where those are locked (mount_namespaces(7)).
pub fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// [`clone_tree`] relative to a directory.
pub fn clone_tree_at(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// Attributes to set on a mount tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// No writes through these mounts.
    pub readonly: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Set-id bits do not count.
    pub nosuid: bool,
    /// Access times stay.
    pub noatime: bool,
    /// Access times follow each access.
    pub strictatime: bool,
    /// Access times of directories stay.
    pub nodiratime: bool,
}

/// Sets attributes on a mount and all mounts below it.
pub fn set_attributes(tree: impl AsFd, attributes: Attributes) -> io::Result<()> {
    let mut set = 0;
    if attributes.readonly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attributes.nodev {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    if attributes.nosuid {
        set |= libc::MOUNT_ATTR_NOSUID;
    }
    if attributes.nodiratime {
        set |= libc::MOUNT_ATTR_NODIRATIME;
    }
    let mut clear = 0;
    if attributes.noatime || attributes.strictatime {
        clear = libc::MOUNT_ATTR__ATIME;
        set |= if attributes.noatime { libc::MOUNT_ATTR_NOATIME } else { libc::MOUNT_ATTR_STRICTATIME };
    }
    if set == 0 && clear == 0 {
        return Ok(());
    }
    mount_setattr(
        tree.as_fd(),
        libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 },
    )
}

fn mount_setattr(tree: BorrowedFd<'_>, mut attributes: libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is a C string, and the structure is valid for its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw mut attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A detached mount of a new file system with the given options.
pub fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A detached procfs of the caller's PID namespace that shows processes only:
/// no `/proc/sys`, no machine-wide file.
pub fn process_filesystem() -> io::Result<OwnedFd> {
    new_filesystem(
        "proc",
        &[("subset", "pid")],
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// Attaches a detached mount at `target`.
pub fn attach(mount: impl AsFd, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes every mount of the namespace private, recursively.
pub fn make_all_private() -> io::Result<()> {
    use rustix::mount::MountPropagationFlags;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Replaces the root of the caller's mount namespace by an empty read-only
/// tmpfs and drops everything else. `anchor` is any directory to mount on.
pub fn enter_empty_root(anchor: &Path) -> io::Result<()> {
    make_all_private()?;
    let root = new_filesystem(
        "tmpfs",
        &[("size", "4096"), ("nr_inodes", "2"), ("mode", "0555")],
        MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    attach(&root, anchor)?;
    rustix::process::fchdir(&root)?;
    // Stacks the old root on the new one (pivot_root(2), notes), whence it goes.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}
