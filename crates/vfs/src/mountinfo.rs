//! /proc/PID/mountinfo and /proc/PID/mounts (proc_pid_mountinfo(5)).

use std::io::Write;

use crate::{Mount, MountFlags, MountNamespace, Place, Propagation};

const OPTIONS: [(MountFlags, &str); 7] = [
    (MountFlags::NOSUID, "nosuid"),
    (MountFlags::NODEV, "nodev"),
    (MountFlags::NOEXEC, "noexec"),
    (MountFlags::NOATIME, "noatime"),
    (MountFlags::NODIRATIME, "nodiratime"),
    (MountFlags::RELATIME, "relatime"),
    (MountFlags::NOSYMFOLLOW, "nosymfollow"),
];

fn mount_options(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut text = String::from(if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
    for (flag, name) in OPTIONS {
        if flags.contains(flag) {
            text.push(',');
            text.push_str(name);
        }
    }
    text
}

/// Writes blanks, backslashes and what is in `also` in octal, as the kernel does.
fn push_escaped(out: &mut Vec<u8>, path: &[u8], also: &[u8]) {
    for byte in path {
        if b" \t\n\\".contains(byte) || also.contains(byte) {
            let _ = write!(out, "\\{byte:03o}");
        } else {
            out.push(*byte);
        }
    }
}

/// The root of a mount within its file system.
fn root_in_fs(mount: &Mount) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = mount.root.clone();
    while let (Some(parent), name) = at.parent_and_name() {
        names.push(name);
        at = parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The mount point as a process with this root sees it; none if it is outside.
fn point(mount: &std::sync::Arc<Mount>, root: &Place) -> Option<Vec<u8>> {
    if std::sync::Arc::ptr_eq(mount, &root.mount) {
        return Some(b"/".to_vec());
    }
    mount.root_place().reachable_path(root)
}

fn super_options(mount: &Mount) -> String {
    let options = mount.file_system.options();
    if options.is_empty() { "rw".to_owned() } else { format!("rw,{options}") }
}

impl MountNamespace {
    /// The text of /proc/PID/mountinfo for a process with this root.
    pub fn mountinfo(&self, root: &Place) -> Vec<u8> {
        let mut text = Vec::new();
        for mount in self.mounts() {
            let Some(point) = point(&mount, root) else { continue };
            let dev = mount.device().unwrap_or(0);
            let parent = mount.at().map_or(mount.id(), |at| at.mount.id());
            let propagation = match mount.propagation() {
                Propagation::Private => String::new(),
                Propagation::Shared(group) => format!("shared:{group} "),
                Propagation::Slave(group) => format!("master:{group} "),
                Propagation::Unbindable => "unbindable ".to_owned(),
            };
            let (major, minor) = (linux_abi::fs::major(dev), linux_abi::fs::minor(dev));
            let _ = write!(text, "{} {parent} {major}:{minor} ", mount.id());
            push_escaped(&mut text, &root_in_fs(&mount), b"");
            text.push(b' ');
            push_escaped(&mut text, &point, b"");
            let (options, kind) = (mount_options(&mount), mount.file_system.type_name());
            let _ = write!(text, " {options} {propagation}- {kind} ");
            push_escaped(&mut text, mount.source(), b"#");
            let _ = writeln!(text, " {}", super_options(&mount));
        }
        text
    }

    /// The text of /proc/PID/mounts for a process with this root.
    pub fn mounts_text(&self, root: &Place) -> Vec<u8> {
        let mut text = Vec::new();
        for mount in self.mounts() {
            let Some(point) = point(&mount, root) else { continue };
            let fs_options = mount.file_system.options();
            let comma = if fs_options.is_empty() { "" } else { "," };
            push_escaped(&mut text, mount.source(), b"#");
            text.push(b' ');
            push_escaped(&mut text, &point, b"");
            let (kind, options) = (mount.file_system.type_name(), mount_options(&mount));
            let _ = writeln!(text, " {kind} {options}{comma}{fs_options} 0 0");
        }
        text
    }
}
