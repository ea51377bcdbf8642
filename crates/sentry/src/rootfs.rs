//! The guest's first mount namespace, from the specification.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use control::{BootSpec, DeviceKind, DeviceSpec, MountKind, MountSpec, Propagation, RootSpec};
use kernel::Kernel;
use linux_abi::Errno;
use linux_abi::fs::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFREG, makedev};
use vfs::ops::create;
use vfs::{FileSystem, Mount, MountFlags, MountNamespace, Place, WalkFlags, Walker};

use crate::descriptors::Descriptors;
use crate::launch::Booter;
use crate::sandbox::SandboxError;

/// What the file systems of a sandbox are made with.
pub(crate) struct Maker<'a> {
    pub(crate) kernel: &'a Arc<Kernel>,
    pub(crate) terminals: &'a Arc<fs_kernel::tty::Terminals>,
    pub(crate) descriptors: &'a mut Descriptors,
    /// Which sockets and FIFOs are the host's.
    pub(crate) grants: crate::outside::Grants,
    /// Who connects to the host's sockets, and binds such.
    pub(crate) connector: Option<Arc<host::connector::Connector>>,
    /// `/proc/self/fd` of the kernel process.
    pub(crate) proc_self_fd: Option<Arc<OwnedFd>>,
}

/// Makes the root and all mounts; gives the root directory.
pub(crate) fn build(spec: &BootSpec, maker: &mut Maker<'_>) -> Result<(Arc<MountNamespace>, Place)> {
    let root_fs = match &spec.root {
        // Mount points are made before the root becomes read-only, as with runc.
        RootSpec::Host { fd, private_overlay, .. } => maker.host_root(*fd, *private_overlay)?,
        RootSpec::Scratch => maker.tmpfs("mode=755")?,
    };
    let readonly = matches!(&spec.root, RootSpec::Host { readonly: true, .. });
    let namespace = MountNamespace::with_root(root_fs, MountFlags::RELATIME, b"rootfs")
        .map_err(errno("mount the root"))?;
    let root = namespace.root().map_err(errno("find the root"))?;
    for mount in &spec.mounts {
        make_mount(&namespace, &root, mount, maker).with_context(|| {
            format!("mount {} at {}", mount.source.display(), mount.destination.display())
        })?;
    }
    for device in &spec.devices {
        let kind = match device.kind {
            DeviceKind::Character => S_IFCHR,
            DeviceKind::Block => S_IFBLK,
            DeviceKind::Fifo => S_IFIFO,
        };
        let made = make_node(
            &root,
            device.path.as_bytes(),
            kind | (device.mode & 0o7777),
            makedev(device.major, device.minor),
        );
        // One that the image has is left as it is.
        let made = made.and_then(|made| if made { own(&root, device) } else { Ok(()) });
        if let Err(errno) = made {
            tracing::debug!(path = device.path, %errno, "device node");
        }
    }
    for path in &spec.readonly_paths {
        protect(&namespace, &root, path, maker, true);
    }
    for path in &spec.masked_paths {
        protect(&namespace, &root, path, maker, false);
    }
    // The first program's folder is made, as with runc: before the root becomes read-only.
    make_directory(&root, spec.process.cwd.as_encoded_bytes())
        .map_err(|errno| SandboxError::no_directory(&spec.process.cwd, errno))
        .context("unable to start container process")?;
    propagate(&namespace, &root.mount, spec.root_propagation);
    if readonly {
        let mount = root.mount.clone();
        let flags = mount.flags() | MountFlags::RDONLY;
        namespace.remount(&mount, flags).map_err(errno("make the root read-only"))?;
    }
    Ok((namespace, root))
}

fn errno(what: &'static str) -> impl Fn(Errno) -> anyhow::Error {
    move |errno| anyhow!("{what}: {errno}")
}

fn flags_of(spec: &MountSpec) -> MountFlags {
    let f = &spec.flags;
    let mut flags = MountFlags::empty();
    for (on, flag) in [
        (f.readonly, MountFlags::RDONLY),
        (f.nosuid, MountFlags::NOSUID),
        (f.nodev, MountFlags::NODEV),
        (f.noexec, MountFlags::NOEXEC),
        (f.noatime, MountFlags::NOATIME),
        (f.nodiratime, MountFlags::NODIRATIME),
        (f.nosymfollow, MountFlags::NOSYMFOLLOW),
        (!f.noatime && !f.strictatime, MountFlags::RELATIME),
    ] {
        flags.set(flag, on);
    }
    flags
}

/// What a mount's entry in mountinfo says of mount events.
fn propagate(namespace: &MountNamespace, mount: &Arc<Mount>, wanted: Option<Propagation>) {
    let kind = match wanted {
        None => return,
        Some(Propagation::Private) => vfs::Propagation::Private,
        Some(Propagation::Slave) => vfs::Propagation::Slave(0),
        Some(Propagation::Shared) => vfs::Propagation::Shared(0),
        Some(Propagation::Unbindable) => vfs::Propagation::Unbindable,
    };
    // Those below a bind are mounts of their own, told of by themselves.
    namespace.set_propagation(mount, kind, false);
}

fn make_mount(
    namespace: &Arc<MountNamespace>,
    root: &Place,
    spec: &MountSpec,
    maker: &mut Maker<'_>,
) -> Result<()> {
    let destination = spec.destination.as_encoded_bytes();
    let flags = flags_of(spec);
    let fs: Arc<dyn FileSystem> = match &spec.kind {
        MountKind::Symlink { target } => {
            return symlink(root, destination, target.as_encoded_bytes()).map_err(errno("make the link"));
        }
        MountKind::Bind { fd, directory, private_overlay } => {
            let place = make_point(root, destination, *directory).map_err(errno("make the mount point"))?;
            let fs = if *directory {
                maker.host(*fd, spec.flags.readonly, *private_overlay)?
            } else {
                maker.host_file(*fd, spec.flags.readonly)?
            };
            let mount = namespace
                .mount(fs, &place, flags, spec.source.as_encoded_bytes())
                .map_err(errno("attach"))?;
            propagate(namespace, &mount, spec.flags.propagation);
            return Ok(());
        }
        MountKind::Tmpfs { copy_up } => {
            // The mode of a folder that is there, unless an option says another.
            let mode = resolve(root, destination, true).and_then(|place| place.inode()?.metadata());
            let mode = mode.map_or_else(|_| String::new(), |meta| format!("mode={:o},", meta.mode & 0o7777));
            let fs = maker.tmpfs(&format!("{mode}{}", spec.data))?;
            let place = make_point(root, destination, true).map_err(errno("make the mount point"))?;
            if *copy_up {
                crate::copy_up::fill(fs.clone(), &place).map_err(errno("copy what is below"))?;
            }
            fs
        }
        kind => match maker.kernel_fs(kind, &spec.data)? {
            Some(fs) => fs,
            None => {
                tracing::warn!(destination = %spec.destination.display(), "this kind of mount is not there yet");
                return Ok(());
            }
        },
    };
    let place = make_point(root, destination, true).map_err(errno("make the mount point"))?;
    let mount =
        namespace.mount(fs, &place, flags, spec.source.as_encoded_bytes()).map_err(errno("attach"))?;
    propagate(namespace, &mount, spec.flags.propagation);
    if matches!(spec.kind, MountKind::Dev) {
        maker.fill_dev(&mount.root_place())?;
    }
    Ok(())
}

/// Covers a path: read-only, or with nothing.
fn protect(namespace: &Arc<MountNamespace>, root: &Place, path: &str, maker: &mut Maker<'_>, readonly: bool) {
    // As runc: what is not there needs no cover.
    let Ok(place) = resolve(root, path.as_bytes(), true) else { return };
    let is_dir = place.inode().and_then(|i| i.metadata()).is_ok_and(|m| m.kind() == S_IFDIR);
    let done = if readonly {
        namespace
            .bind(&place, &place, true)
            .and_then(|mount| namespace.remount(&mount, mount.flags() | MountFlags::RDONLY))
    } else {
        let cover = if is_dir { maker.tmpfs("size=0,mode=755").ok() } else { maker.empty_file() };
        match cover {
            Some(fs) => namespace.mount(fs, &place, MountFlags::RDONLY, b"tmpfs").map(|_| ()),
            None => Err(Errno::ENODEV),
        }
    };
    if let Err(errno) = done {
        tracing::warn!(path, %errno, "cannot cover");
    }
}

/// Resolves an absolute guest path with every right.
pub(crate) fn resolve(root: &Place, path: &[u8], follow: bool) -> Result<Place, Errno> {
    let mut booter = Booter::root();
    let flags = if follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
    Walker::new(root.clone(), root.clone(), &mut booter, flags).resolve(path)
}

/// Makes the directories of a path as far as they are missing.
pub(crate) fn make_directory(root: &Place, path: &[u8]) -> Result<(), Errno> {
    let mut so_far = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        so_far.push(b'/');
        so_far.extend_from_slice(part);
        match resolve(root, &so_far, true) {
            Ok(_) => {}
            Err(Errno::ENOENT) => {
                let mut booter = Booter::root();
                let parent = Walker::new(root.clone(), root.clone(), &mut booter, WalkFlags::empty())
                    .resolve_parent(&so_far)?;
                create::mkdir(&Booter::root(), &parent, 0o755)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn split(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// The mount point, made as a directory or file if it is missing.
fn make_point(root: &Place, path: &[u8], directory: bool) -> Result<Place, Errno> {
    if directory {
        make_directory(root, path)?;
    } else if resolve(root, path, true).is_err() {
        make_node(root, path, S_IFREG | 0o644, 0)?;
    }
    resolve(root, path, true)
}

/// Gives a new device node its owner.
fn own(root: &Place, device: &DeviceSpec) -> Result<(), Errno> {
    let place = resolve(root, device.path.as_bytes(), false)?;
    vfs::ops::attributes::chown(&Booter::root(), &place, Some(device.uid), Some(device.gid))?;
    vfs::ops::attributes::chmod(&Booter::root(), &place, device.mode & 0o7777)
}

/// Makes a node unless there is one; whether it did.
pub(crate) fn make_node(root: &Place, path: &[u8], mode: u32, rdev: u64) -> Result<bool, Errno> {
    make_directory(root, split(path))?;
    let mut booter = Booter::root();
    let parent =
        Walker::new(root.clone(), root.clone(), &mut booter, WalkFlags::empty()).resolve_parent(path)?;
    match create::mknod(&Booter::root(), &parent, mode, rdev) {
        Ok(_) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a symbolic link unless there is something.
pub(crate) fn symlink(root: &Place, path: &[u8], target: &[u8]) -> Result<(), Errno> {
    make_directory(root, split(path))?;
    let mut booter = Booter::root();
    let parent =
        Walker::new(root.clone(), root.clone(), &mut booter, WalkFlags::empty()).resolve_parent(path)?;
    match create::symlink(&Booter::root(), &parent, target) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
