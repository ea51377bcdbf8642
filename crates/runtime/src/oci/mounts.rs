//! Mount options of config.json: mount(8) words, sorted by who reads them.

use anyhow::{Result, bail};
use control::{MountFlags, MountKind, Propagation};

use super::config::Mount;

/// A mount whose source has not been opened yet.
#[derive(Debug)]
pub(crate) struct ParsedMount {
    pub(crate) destination: String,
    pub(crate) source: String,
    pub(crate) kind: ParsedKind,
    pub(crate) flags: MountFlags,
    /// Whether an option speaks of flags; a bind has its source's where none does.
    pub(crate) has_flags: bool,
    /// Words that also hold for the mounts below a bind (`rro` as `ro`).
    pub(crate) below: Vec<String>,
    /// Whether the mounts below a bind propagate as it does (`rshared`).
    pub(crate) propagates_below: bool,
    pub(crate) data: String,
    /// Words without an effect here.
    pub(crate) left_out: Vec<String>,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum ParsedKind {
    /// A host path, still to be opened; whether with the mounts below it.
    Bind { recursive: bool },
    /// A file system of the guest kernel.
    Internal(MountKind),
}

/// How mount events travel, by a word of mount(8).
pub(crate) fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::Slave,
        "shared" | "rshared" => Propagation::Shared,
        "unbindable" | "runbindable" => Propagation::Unbindable,
        _ => return None,
    })
}

/// Changes flags by a word of mount(8); whether it is one.
pub(crate) fn apply_word(flags: &mut MountFlags, word: &str) -> bool {
    match word {
        "ro" => flags.readonly = true,
        "rw" => flags.readonly = false,
        "nosuid" => flags.nosuid = true,
        "suid" => flags.nosuid = false,
        "nodev" => flags.nodev = true,
        "dev" => flags.nodev = false,
        "noexec" => flags.noexec = true,
        "exec" => flags.noexec = false,
        "noatime" => (flags.noatime, flags.relatime, flags.strictatime) = (true, false, false),
        "atime" => flags.noatime = false,
        "nodiratime" => flags.nodiratime = true,
        "diratime" => flags.nodiratime = false,
        "relatime" => (flags.noatime, flags.relatime, flags.strictatime) = (false, true, false),
        "norelatime" => flags.relatime = false,
        "strictatime" => (flags.noatime, flags.relatime, flags.strictatime) = (false, false, true),
        "nostrictatime" => flags.strictatime = false,
        "nosymfollow" => flags.nosymfollow = true,
        "symfollow" => flags.nosymfollow = false,
        _ => return false,
    }
    true
}

/// Sorts the options of one mount.
pub(crate) fn parse(mount: &Mount) -> Result<ParsedMount> {
    if mount.destination.is_empty() {
        bail!("a mount without destination");
    }
    let mut flags = MountFlags::default();
    let mut has_flags = false;
    let mut below = Vec::new();
    let mut data = Vec::new();
    // mount(8) takes the type `bind` for the option; runc, for the recursive one.
    let mut bind = mount.kind == "bind";
    let mut recursive = bind && !mount.options.iter().any(|option| option == "bind");
    let mut copy_up = false;
    let mut propagates_below = false;
    let mut left_out = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "tmpcopyup" => copy_up = true,
            // It shows inside. Nothing outside sees the guest's mounts, and nothing new of the
            // host's appears in a detached tree.
            word if propagation(word).is_some() => {
                flags.propagation = propagation(word);
                propagates_below = word.starts_with('r');
            }
            "defaults" | "silent" | "loud" | "nomand" | "noiversion" | "async" => {}
            "sync" | "mand" | "dirsync" | "iversion" | "remount" => left_out.push(option.clone()),
            "idmap" | "ridmap" => bail!("mount of {}: id-mapped mounts are not supported", mount.destination),
            word if apply_word(&mut flags, word) => has_flags = true,
            word => match word.strip_prefix('r').filter(|plain| apply_word(&mut flags, plain)) {
                Some(plain) => {
                    has_flags = true;
                    below.push(plain.to_owned());
                }
                None => data.push(word),
            },
        }
    }
    if bind || matches!(mount.kind.as_str(), "sysfs" | "mqueue" | "cgroup" | "cgroup2") {
        left_out.extend(data.drain(..).map(str::to_owned));
    }
    if copy_up && (bind || mount.kind != "tmpfs" || mount.destination == "/dev") {
        left_out.push("tmpcopyup".into());
    }
    let kind = if bind {
        if mount.source.is_empty() {
            bail!("bind mount of {} has no source", mount.destination);
        }
        ParsedKind::Bind { recursive }
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
    let source = mount.source.clone();
    let data = data.join(",");
    Ok(ParsedMount { destination, source, kind, flags, has_flags, below, propagates_below, data, left_out })
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
            ..Mount::default()
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
            assert!(matches!(parsed.kind, ParsedKind::Bind { recursive: true }));
            assert!(parsed.data.is_empty());
        }
        let parsed = parse(&mount("bind", &["bind"])).unwrap();
        assert!(matches!(parsed.kind, ParsedKind::Bind { recursive: false }));
    }

    #[test]
    fn recursive_words_hold_for_the_mounts_below() {
        let parsed = parse(&mount("", &["rbind", "rro", "nodev", "rnosuid", "ro"])).unwrap();
        assert!(parsed.flags.readonly && parsed.flags.nodev && parsed.flags.nosuid && parsed.has_flags);
        assert_eq!(parsed.below, ["ro", "nosuid"]);
        assert!(parse(&mount("tmpfs", &["relatime"])).unwrap().below.is_empty());
        assert!(!parse(&mount("", &["rbind", "rprivate"])).unwrap().has_flags);
    }

    #[test]
    fn what_has_no_effect_is_known() {
        let left = |kind: &str, options: &[&str]| parse(&mount(kind, options)).unwrap().left_out;
        assert_eq!(left("bind", &["ro", "sync", "x-mine=1", "tmpcopyup"]), ["sync", "x-mine=1", "tmpcopyup"]);
        assert_eq!(left("sysfs", &["nosuid", "x=2"]), ["x=2"]);
        let hidden = parse(&mount("proc", &["nosuid", "hidepid=2"])).unwrap();
        assert!(hidden.left_out.is_empty() && hidden.data == "hidepid=2");
        assert!(left("tmpfs", &["size=1m", "tmpcopyup", "rshared"]).is_empty());
        let parsed = parse(&mount("bind", &["rslave"])).unwrap();
        assert!(parsed.flags.propagation == Some(Propagation::Slave) && parsed.propagates_below);
        assert!(!parsed.has_flags);
    }

    #[test]
    fn unknown_file_systems_are_refused_by_name() {
        let error = parse(&mount("nfs", &[])).unwrap_err();
        assert!(error.to_string().contains("nfs"));
    }
}
