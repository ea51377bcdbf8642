//! Which hierarchies the host has mounted, and where the caller is in them.

use std::fs;
use std::path::PathBuf;

/// The host's control group mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchy {
    /// Version 1 mounts.
    pub(super) v1: Vec<Mounted>,
    /// The version 2 mount.
    pub(super) v2: Option<Mounted>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Mount point.
    pub(super) root: PathBuf,
    /// Controllers, `name=…` for named ones; none with version 2.
    pub(super) controllers: Vec<String>,
    /// The caller's own group, seen from the mount point.
    pub(super) own: String,
}

impl Hierarchy {
    /// What /proc says.
    pub(crate) fn find() -> Hierarchy {
        Hierarchy::parse(
            &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
            &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        )
    }

    fn parse(mountinfo: &str, own: &str) -> Hierarchy {
        let mut hierarchy = Hierarchy::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(inner), Some(point)) = (left.get(3), left.get(4)) else {
                continue;
            };
            let seen_from_mount = |path: &str| {
                let rest = path.strip_prefix(inner).unwrap_or(path);
                format!("/{}", rest.trim_start_matches('/'))
            };
            match (right.first().copied(), right.get(2)) {
                (Some("cgroup2"), _) if hierarchy.v2.is_none() => {
                    hierarchy.v2 = Some(Mounted {
                        root: point.into(),
                        controllers: Vec::new(),
                        own: seen_from_mount(own_path(own, "").unwrap_or("/")),
                    });
                }
                (Some("cgroup"), Some(options)) => {
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| {
                            !matches!(*option, "rw" | "ro" | "xattr" | "clone_children")
                                && !option.starts_with("release_agent=")
                        })
                        .map(str::to_owned)
                        .collect();
                    let known = hierarchy.v1.iter().any(|m| m.controllers == controllers);
                    if let (false, Some(first)) = (known, controllers.first()) {
                        hierarchy.v1.push(Mounted {
                            root: point.into(),
                            own: seen_from_mount(own_path(own, first).unwrap_or("/")),
                            controllers,
                        });
                    }
                }
                _ => {}
            }
        }
        hierarchy
    }
}

/// The path in /proc/self/cgroup of the hierarchy that carries a controller.
fn own_path<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        names.split(',').any(|name| name == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_host_is_read() {
        let mounts = "\
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 1 0:31 / /tmp rw - tmpfs tmpfs rw";
        let own = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x";
        let found = Hierarchy::parse(mounts, own);
        assert_eq!(found.v1.len(), 3);
        assert_eq!(found.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1[1].own, "/a/b");
        assert_eq!(found.v1[2].controllers, ["name=systemd"]);
        assert_eq!(found.v2.unwrap().own, "/x");
    }
}
