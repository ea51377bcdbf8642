//! Makes the file systems of a sandbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};
use control::{FdIndex, MountKind};
use linux_abi::Errno;
use linux_abi::fs::{S_IFCHR, makedev};
use vfs::{FileSystem, Place};

use crate::rootfs::{self, Maker};

/// Minor numbers of file systems without a device (major 0).
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(64);

pub(crate) fn fresh_device() -> u64 {
    makedev(0, u32::try_from(NEXT_DEVICE.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX))
}

fn errno(what: &'static str) -> impl Fn(Errno) -> anyhow::Error {
    move |errno| anyhow!("{what}: {errno}")
}

/// Bytes of memory of the machine: what Linux sizes a tmpfs by. The container's own limit is the
/// cgroup's business, which ends who goes over it.
pub(crate) fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit).max(1))
}

impl Maker<'_> {
    /// A host directory, perhaps below a private layer.
    pub(crate) fn host(&mut self, fd: FdIndex, readonly: bool, overlay: bool) -> Result<Arc<dyn FileSystem>> {
        let outside = !readonly && !overlay && self.grants.directories;
        let fs = self.host_tree(fd, readonly || overlay, outside)?;
        if overlay {
            return crate::overlay::private(fs, host_memory(), fresh_device());
        }
        Ok(fs)
    }

    /// The root, whose sockets and FIFOs join programs of the guest alone, whatever is granted.
    pub(crate) fn host_root(&mut self, fd: FdIndex, overlay: bool) -> Result<Arc<dyn FileSystem>> {
        let fs = self.host_tree(fd, overlay, false)?;
        if overlay {
            return crate::overlay::private(fs, host_memory(), fresh_device());
        }
        Ok(fs)
    }

    /// A single host file.
    pub(crate) fn host_file(&mut self, fd: FdIndex, readonly: bool) -> Result<Arc<dyn FileSystem>> {
        Ok(self.host_tree(fd, readonly, self.grants.files)?)
    }

    fn host_tree(&mut self, fd: FdIndex, readonly: bool, outside: bool) -> Result<Arc<fs_host::HostFs>> {
        let root = self.descriptors.copy(fd)?;
        let options = fs_host::Options {
            read_only: readonly,
            device: Some(fresh_device()),
            proc_self_fd: self.proc_self_fd.clone(),
            outside,
            binder: self.connector.clone().filter(|_| outside && self.grants.binds),
        };
        fs_host::HostFs::new(root, options).map_err(errno("open the host tree"))
    }

    /// A tmpfs with mount options.
    pub(crate) fn tmpfs(&mut self, data: &str) -> Result<Arc<dyn FileSystem>> {
        let options = fs_tmp::Options::parse(data.as_bytes(), host_memory(), fresh_device())
            .map_err(errno("tmpfs options"))?;
        Ok(fs_tmp::TmpFs::new(options))
    }

    /// Something empty to cover a file with.
    pub(crate) fn empty_file(&mut self) -> Option<Arc<dyn FileSystem>> {
        Some(fs_kernel::synthetic::empty_file(fresh_device()))
    }

    /// A file system that shows the kernel; `None` where there is none of this kind yet.
    pub(crate) fn kernel_fs(&mut self, kind: &MountKind, data: &str) -> Result<Option<Arc<dyn FileSystem>>> {
        Ok(match kind {
            MountKind::Dev => Some(self.tmpfs(if data.is_empty() { "mode=755" } else { data })?),
            MountKind::Proc => Some(
                fs_kernel::proc::mount(self.kernel, data.as_bytes(), fresh_device())
                    .map_err(errno("proc options"))?,
            ),
            MountKind::Devpts => {
                Some(fs_kernel::tty::Devpts::new(self.terminals.clone(), fresh_device(), data))
            }
            MountKind::Sysfs => Some(fs_kernel::sys::mount(self.kernel, fresh_device())),
            MountKind::Cgroup => Some(fs_kernel::cgroup::mount(self.kernel, fresh_device())),
            MountKind::Mqueue => Some(kernel::mqueue::MqueueFs::new(self.kernel.ipc.clone())),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } | MountKind::Symlink { .. } => None,
        })
    }

    /// The default nodes and links of `/dev`.
    pub(crate) fn fill_dev(&mut self, dev: &Place) -> Result<()> {
        let nodes: [(&[u8], u32, u32); 7] = [
            (b"/null", 1, 3),
            (b"/zero", 1, 5),
            (b"/full", 1, 7),
            (b"/random", 1, 8),
            (b"/urandom", 1, 9),
            (b"/tty", 5, 0),
            (b"/console", 5, 1),
        ];
        for (path, major, minor) in nodes {
            rootfs::make_node(dev, path, S_IFCHR | 0o666, makedev(major, minor))
                .map_err(errno("device node"))?;
        }
        let links: [(&[u8], &[u8]); 5] = [
            (b"/fd", b"/proc/self/fd"),
            (b"/stdin", b"/proc/self/fd/0"),
            (b"/stdout", b"/proc/self/fd/1"),
            (b"/stderr", b"/proc/self/fd/2"),
            (b"/ptmx", b"pts/ptmx"),
        ];
        for (path, target) in links {
            rootfs::symlink(dev, path, target).map_err(errno("device link"))?;
        }
        Ok(())
    }
}
