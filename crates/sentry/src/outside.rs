//! Sockets and FIFOs of the host that the guest may use: `--host-uds`.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use control::{BootSpec, HostUds, JailMode, MountKind, MountSpec};
use host::connector::{Connector, Granted, Walls, mount_of};
use linux_abi::fs::{S_IFMT, S_IFSOCK};

use crate::descriptors::Descriptors;

/// Where they are the host's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grants {
    /// Where a file is mounted.
    pub(crate) files: bool,
    /// In directories that are mounted writable.
    pub(crate) directories: bool,
    /// Those that are bound there, too.
    pub(crate) binds: bool,
}

impl Grants {
    pub(crate) fn of(spec: &BootSpec) -> Grants {
        let least = |wanted| spec.host_uds >= wanted;
        Grants {
            files: least(HostUds::Mounted),
            directories: least(HostUds::Open),
            binds: least(HostUds::All),
        }
    }

    /// The descriptor of a mount that is granted and has or may have sockets.
    fn mount<'a>(
        self,
        mount: &MountSpec,
        descriptors: &'a Descriptors,
    ) -> Result<Option<std::os::fd::BorrowedFd<'a>>> {
        let MountKind::Bind { fd, directory, private_overlay } = mount.kind else { return Ok(None) };
        let granted = if directory {
            self.directories && !private_overlay && !mount.flags.readonly
        } else {
            self.files
        };
        if !granted {
            return Ok(None);
        }
        let fd = descriptors.get(fd)?;
        let has_sockets = directory || rustix::fs::fstat(fd)?.st_mode & S_IFMT == S_IFSOCK;
        Ok(has_sockets.then_some(fd))
    }
}

/// Starts the connector if sockets of the host are granted at all. One thread only, in the namespaces and with the
/// rights to make more of them.
pub(crate) fn start(
    spec: &BootSpec,
    descriptors: &Descriptors,
    proc: impl AsFd,
) -> Result<Option<Connector>> {
    let grants = Grants::of(spec);
    let mut granted = Granted { mounts: Vec::new(), binds: grants.binds };
    for mount in &spec.mounts {
        if let Some(fd) = grants.mount(mount, descriptors)? {
            granted.mounts.push(mount_of(fd).context("the number of a mount")?);
        }
    }
    if granted.mounts.is_empty() {
        return Ok(None);
    }
    let walls = Walls {
        id: spec.own_id,
        jailed: spec.jail != JailMode::Off,
        seccomp: matches!(spec.jail, JailMode::On | JailMode::Probe),
    };
    Connector::start(proc.as_fd(), &granted, walls)
        .map(Some)
        .context("start the connector (--host-uds=none does without)")
}
