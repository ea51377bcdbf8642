//! Host files and folders as detached mounts for a sandbox.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use control::{MountFlags, MountKind, MountSpec};
use host::mount::Attributes;

use crate::host_mounts::HostMounts;
use crate::launch::FdList;
use crate::oci::mounts::{ParsedMount, apply_word};

/// Opens the bind mounts of a bundle.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    /// Read when the first bind needs it.
    host: Option<HostMounts>,
}

impl Binder {
    /// Adds one bind mount, and with `recursive` each mount below its source.
    pub(crate) fn bind(
        &mut self,
        bundle: &Path,
        parsed: &ParsedMount,
        recursive: bool,
        fds: &mut FdList,
        mounts: &mut Vec<MountSpec>,
    ) -> Result<()> {
        let source = bundle.join(&parsed.source);
        let source = fs::canonicalize(&source).with_context(|| source.display().to_string())?;
        if self.host.is_none() {
            self.host = Some(HostMounts::read()?);
        }
        let host = self.host.as_ref().context("the host's mounts")?;
        let mut flags = if parsed.has_flags { parsed.flags } else { host.flags_at(&source) };
        flags.propagation = parsed.flags.propagation;
        let spec = |destination: OsString, source: &Path, kind: MountKind, flags: MountFlags| MountSpec {
            destination,
            source: source.into(),
            kind,
            flags,
            data: String::new(),
        };
        let Some(top) = open_single(&source, flags, fds)? else {
            // Somebody else's mounts lie on it, and we may not look below them:
            // one mount with all that is in it.
            flags.readonly |= parsed.flags.readonly;
            let kind = open_bind(&source, flags.readonly, fds)?;
            mounts.push(spec(parsed.destination.clone().into(), &source, kind, flags));
            return Ok(());
        };
        mounts.push(spec(parsed.destination.clone().into(), &source, top, flags));
        if !recursive {
            return Ok(());
        }
        for mount in host.below(&source) {
            let mut flags = mount.flags;
            flags.propagation = parsed.flags.propagation.filter(|_| parsed.propagates_below);
            for word in &parsed.below {
                apply_word(&mut flags, word);
            }
            let relative = mount.point.strip_prefix(&source)?;
            let destination = Path::new(&parsed.destination).join(relative);
            let kind = open_single(&mount.point, flags, fds)?
                .with_context(|| format!("{} cannot be mounted alone", mount.point.display()))?;
            mounts.push(spec(destination.into(), &mount.point, kind, flags));
        }
        Ok(())
    }
}

/// One mount without those below it; none where the host forbids to part them
/// (a user namespace that inherited them).
fn open_single(source: &Path, flags: MountFlags, fds: &mut FdList) -> Result<Option<MountKind>> {
    let directory = fs::metadata(source).with_context(|| source.display().to_string())?.is_dir();
    let tree = match host::mount::clone_mount(source) {
        Ok(tree) => tree,
        Err(error) if error.raw_os_error() == Some(22) => return Ok(None),
        Err(error) => return Err(error).with_context(|| source.display().to_string()),
    };
    let attributes = Attributes {
        readonly: flags.readonly,
        noatime: flags.noatime,
        strictatime: flags.strictatime,
        nodiratime: flags.nodiratime,
        ..Attributes::default()
    };
    host::mount::set_attributes(&tree, attributes).context("set the mount's flags")?;
    Ok(Some(MountKind::Bind { fd: fds.add(tree), directory, private_overlay: false }))
}

/// Opens one host file or folder, with all mounts below it, as one detached mount.
pub(crate) fn open_bind(source: &Path, readonly: bool, fds: &mut FdList) -> Result<MountKind> {
    let directory = fs::metadata(source).with_context(|| source.display().to_string())?.is_dir();
    let tree = host::mount::clone_tree(source)?;
    if readonly {
        host::mount::set_attributes(&tree, Attributes { readonly: true, ..Attributes::default() })?;
    }
    Ok(MountKind::Bind { fd: fds.add(tree), directory, private_overlay: false })
}
