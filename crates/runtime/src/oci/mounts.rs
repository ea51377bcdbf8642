//! Mount options of config.json: mount(8) words, sorted by who reads them.

use anyhow::{Result, bail};
use control::{MountFlags, MountKind};

use super::config::Mount;

/// A mount whose source has not been opened yet.
#[derive(Debug)]
pub(crate) struct ParsedMount {
    pub(crate) destination: String,
    pub(crate) source: String,
    pub(crate) kind: ParsedKind,
    pub(crate) flags: MountFlags,
    pub(crate) data: String,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum ParsedKind {
    /// A host path, still to be opened.
    Bind,
    /// A file system of the guest kernel.
    Internal(MountKind),
}

/// Sorts the options of one mount.
pub(crate) fn parse(mount: &Mount) -> Result<ParsedMount> {
    if mount.destination.is_empty() {
        bail!("a mount without destination");
    }
    let mut flags = MountFlags::default();
    let mut data = Vec::new();
    let mut bind = mount.kind == "bind";
    let mut copy_up = false;
    for option in &mount.options {
        match option.as_str() {
            "bind" | "rbind" => bind = true,
            "tmpcopyup" => copy_up = true,
            "ro" | "rro" => flags.readonly = true,
            "rw" | "rrw" => flags.readonly = false,
            "nosuid" | "rnosuid" => flags.nosuid = true,
            "suid" | "rsuid" => flags.nosuid = false,
            "nodev" | "rnodev" => flags.nodev = true,
            "dev" | "rdev" => flags.nodev = false,
            "noexec" | "rnoexec" => flags.noexec = true,
            "exec" | "rexec" => flags.noexec = false,
            "noatime" | "rnoatime" => flags.noatime = true,
            "atime" | "ratime" => flags.noatime = false,
            "nodiratime" | "rnodiratime" => flags.nodiratime = true,
            "diratime" | "rdiratime" => flags.nodiratime = false,
            "relatime" | "rrelatime" => flags.relatime = true,
            "norelatime" | "rnorelatime" => flags.relatime = false,
            "strictatime" | "rstrictatime" => flags.strictatime = true,
            "nostrictatime" | "rnostrictatime" => flags.strictatime = false,
            "sync" => flags.synchronous = true,
            "async" => flags.synchronous = false,
            "nosymfollow" | "rnosymfollow" => flags.nosymfollow = true,
            "symfollow" | "rsymfollow" => flags.nosymfollow = false,
            // Nothing outside sees the guest's mounts, and nothing new of the
            // host's appears in a detached tree.
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "runbindable" => {}
            "defaults" | "silent" | "loud" | "mand" | "nomand" | "dirsync" | "iversion" | "noiversion"
            | "remount" => {}
            "idmap" | "ridmap" => bail!("mount of {}: id-mapped mounts are not supported", mount.destination),
            other => data.push(other),
        }
    }
    let kind = if bind {
        if mount.source.is_empty() {
            bail!("bind mount of {} has no source", mount.destination);
        }
        ParsedKind::Bind
    } else {
        ParsedKind::Internal(match mount.kind.as_str() {
            "tmpfs" if mount.destination == "/dev" => MountKind::Dev,
            "tmpfs" => MountKind::Tmpfs { copy_up },
            "proc" => MountKind::Proc,
            "sysfs" => MountKind::Sysfs,
            "devpts" => MountKind::Devpts,
            "devtmpfs" => MountKind::Dev,
            "mqueue" => MountKind::Mqueue,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            other => bail!("mount of {}: file system type {other:?} is not supported", mount.destination),
        })
    };
    // A relative destination is taken from the root, as runc does.
    let destination = format!("/{}", mount.destination.trim_start_matches('/'));
    Ok(ParsedMount { destination, source: mount.source.clone(), kind, flags, data: data.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/data".into(),
            kind: kind.into(),
            source: "/srv".into(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn options_are_sorted() {
        let parsed = parse(&mount("tmpfs", &["nosuid", "size=64k", "ro", "mode=755"])).unwrap();
        assert!(parsed.flags.nosuid && parsed.flags.readonly && !parsed.flags.nodev);
        assert_eq!(parsed.data, "size=64k,mode=755");
        assert!(matches!(parsed.kind, ParsedKind::Internal(MountKind::Tmpfs { copy_up: false })));
    }

    #[test]
    fn a_bind_is_known_by_type_or_option() {
        for parsed in
            [parse(&mount("bind", &["rprivate"])).unwrap(), parse(&mount("", &["rbind", "rw"])).unwrap()]
        {
            assert!(matches!(parsed.kind, ParsedKind::Bind));
            assert!(parsed.data.is_empty());
        }
    }

    #[test]
    fn unknown_file_systems_are_refused_by_name() {
        let error = parse(&mount("nfs", &[])).unwrap_err();
        assert!(error.to_string().contains("nfs"));
    }
}
