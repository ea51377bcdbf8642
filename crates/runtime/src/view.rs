//! What a program started by `sallet do` sees of this machine.
//!
//! Shown: /usr and the folders beside it, a chosen part of /etc, the current
//! folder and the program's own. All under private layers: writes stay in the
//! sandbox. /tmp, /run, /var/tmp, /home and /root are fresh. Sockets and
//! devices of the host are never reachable.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use control::{MountFlags, MountKind, MountSpec, RootSpec};
use host::mount::Attributes;

use crate::create::View;
use crate::launch::FdList;

/// Folders that hold programs and libraries, or are links into those.
const SYSTEM: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store"];

/// Entries of /etc that programs need and that hold no secret. Everything else
/// there stays out of sight.
const ETC: [&str; 62] = [
    "adduser.conf",
    "alternatives",
    "bash.bashrc",
    "bash_completion.d",
    "bindresvport.blacklist",
    "ca-certificates",
    "ca-certificates.conf",
    "debconf.conf",
    "debian_version",
    "default",
    "deluser.conf",
    "dpkg",
    "environment",
    "ethertypes",
    "fonts",
    "gai.conf",
    "gitconfig",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "issue",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld.so.preload",
    "libaudit.conf",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "manpath.config",
    "mime.types",
    "nanorc",
    "netconfig",
    "networks",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "profile",
    "profile.d",
    "protocols",
    "python2.7",
    "python3",
    "python3.11",
    "redhat-release",
    "resolv.conf",
    "rpc",
    "services",
    "shells",
    "skel",
    "subgid",
    "subuid",
    "timezone",
    "vim",
];

/// Single files and folders deeper in /etc.
const ETC_DEEP: [&str; 4] = ["ssl/certs", "ssl/openssl.cnf", "pki/tls/certs", "pki/ca-trust/extracted"];

/// Fresh folders with their modes.
const FRESH: [(&str, &str); 6] = [
    ("/tmp", "1777"),
    ("/run", "755"),
    ("/var/tmp", "1777"),
    ("/home", "755"),
    ("/root", "700"),
    ("/dev/shm", "1777"),
];

/// Folders that are never shown as a whole because one happens to be in them.
const NEVER: [&str; 15] = [
    "/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/proc", "/root", "/run", "/srv", "/sys",
    "/tmp", "/var", "/var/tmp",
];

/// What the caller asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) command: OsString,
    pub(crate) cwd: PathBuf,
    pub(crate) readonly: Vec<PathBuf>,
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) all_files: bool,
    pub(crate) uid: u32,
}

/// A view that has been chosen and not opened.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Home folder inside.
    pub(crate) home: String,
    /// Folder to start in.
    pub(crate) cwd: PathBuf,
    /// The folder to start in, if the program finds an empty one in its place: a home or a shared folder.
    pub(crate) hidden: Option<PathBuf>,
    /// Folders under a private layer.
    folders: BTreeSet<PathBuf>,
    readonly: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    all_files: bool,
    uid: u32,
}

/// Decides what is shown.
pub(crate) fn choose(wanted: &Wanted) -> Result<Chosen> {
    let mut folders = BTreeSet::new();
    if let Ok(cwd) = fs::canonicalize(&wanted.cwd)
        && may_show(&cwd)
    {
        folders.insert(cwd);
    }
    if wanted.command.as_bytes().contains(&b'/') {
        // A missing program is reported from inside, as a shell would.
        if let Ok(program) = fs::canonicalize(wanted.cwd.join(&wanted.command))
            && let Some(folder) = program.parent().filter(|folder| may_show(folder))
        {
            folders.insert(folder.to_path_buf());
        }
    }
    let resolve = |flag: &str, paths: &[PathBuf]| -> Result<Vec<PathBuf>> {
        paths.iter().map(|path| shown_path(path).with_context(|| flag.to_owned())).collect()
    };
    let (readonly, writable) = (resolve("--ro", &wanted.readonly)?, resolve("--rw", &wanted.writable)?);
    if let Some(path) = readonly.iter().find(|path| writable.contains(path)) {
        bail!("{} is asked for with --ro and with --rw: choose one", path.display());
    }
    let hidden = fs::canonicalize(&wanted.cwd).ok().filter(|cwd| {
        !wanted.all_files
            && !folders.contains(cwd)
            && !readonly.iter().chain(&writable).any(|shown| cwd.starts_with(shown) || shown.starts_with(cwd))
    });
    let home = match wanted.uid {
        0 => "/root".to_owned(),
        uid => format!("/home/{}", crate::container::user_name(uid).trim_start_matches('#')),
    };
    Ok(Chosen {
        home,
        cwd: wanted.cwd.clone(),
        folders,
        hidden,
        readonly,
        writable,
        all_files: wanted.all_files,
        uid: wanted.uid,
    })
}

/// A path of --ro or --rw, without links. The sandbox has a root, processes and devices of its own.
fn shown_path(path: &Path) -> Result<PathBuf> {
    let resolved = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    if resolved == Path::new("/") {
        bail!("/ cannot be shown as a whole: name folders, or use --all-files");
    }
    if resolved == Path::new("/dev") || ["/proc", "/sys"].iter().any(|own| resolved.starts_with(own)) {
        bail!("{} of this machine cannot be shown: the sandbox has one of its own", path.display());
    }
    Ok(resolved)
}

/// Whether a folder may be shown because one is in it: not a folder that
/// holds more than one thing's files, not the state of the machine, no home.
fn may_show(folder: &Path) -> bool {
    let home = std::env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
    let inside = |parent: &str| folder.starts_with(parent);
    let is_home = home.as_deref() == Some(folder)
        || (folder.parent() == Some(Path::new("/home")) && folder.components().count() == 3);
    !NEVER.iter().any(|never| Path::new(never) == folder)
        && !["/proc", "/sys", "/dev", "/etc", "/run", "/boot"].iter().any(|parent| inside(parent))
        && !is_home
}

impl Chosen {
    /// Opens everything. Runs in a mount namespace of its own.
    pub(crate) fn open(&self, fds: &mut FdList) -> Result<View> {
        let mut mounts = Vec::new();
        let root = if self.all_files {
            let tree = host::mount::clone_tree(Path::new("/"))?;
            protect(&tree)?;
            RootSpec::Host { fd: fds.add(tree), readonly: false, private_overlay: true }
        } else {
            self.system(fds, &mut mounts)?;
            RootSpec::Scratch
        };
        self.kernel_mounts(&mut mounts);
        if !self.all_files {
            for folder in &self.folders {
                let shown = SYSTEM.iter().any(|system| folder.starts_with(system));
                if !shown {
                    mounts.push(layered(folder, folder, fds)?);
                }
            }
        }
        for (path, readonly) in self.named() {
            mounts.push(bound(path, readonly, fds)?);
        }
        Ok(View { root, mounts })
    }

    /// What --ro and --rw name, and whether it is read-only. A folder comes before what is in it, so that the
    /// innermost flag decides, whatever their order.
    fn named(&self) -> Vec<(&Path, bool)> {
        let mut named: Vec<(&Path, bool)> = (self.readonly.iter().map(|path| (path.as_path(), true)))
            .chain(self.writable.iter().map(|path| (path.as_path(), false)))
            .collect();
        named.sort_unstable();
        named.dedup();
        named
    }

    /// /usr, the links and folders beside it, and /etc.
    fn system(&self, fds: &mut FdList, mounts: &mut Vec<MountSpec>) -> Result<()> {
        for path in SYSTEM {
            let path = Path::new(path);
            match fs::symlink_metadata(path) {
                Err(_) => {}
                Ok(metadata) if metadata.is_symlink() => {
                    let target = fs::read_link(path)?;
                    mounts.push(spec(path, MountKind::Symlink { target: target.into() }, ""));
                }
                Ok(metadata) if metadata.is_dir() => mounts.push(layered(path, path, fds)?),
                Ok(_) => {}
            }
        }
        stage_etc(fds, mounts)
    }

    fn kernel_mounts(&self, mounts: &mut Vec<MountSpec>) {
        mounts.push(spec(Path::new("/proc"), MountKind::Proc, ""));
        mounts.push(spec(Path::new("/sys"), MountKind::Sysfs, ""));
        // Language run-times size themselves by its limits.
        let mut cgroup = spec(Path::new("/sys/fs/cgroup"), MountKind::Cgroup, "");
        (cgroup.flags.readonly, cgroup.flags.nodev, cgroup.flags.noexec) = (true, true, true);
        mounts.push(cgroup);
        mounts.push(spec(Path::new("/dev"), MountKind::Dev, "mode=755"));
        mounts.push(spec(Path::new("/dev/pts"), MountKind::Devpts, "mode=0620"));
        for (path, mode) in FRESH {
            let kind = MountKind::Tmpfs { copy_up: false };
            mounts.push(spec(Path::new(path), kind, &format!("mode={mode}")));
        }
        if self.uid != 0 {
            let kind = MountKind::Tmpfs { copy_up: false };
            let options = format!("mode=700,uid={0},gid={1}", self.uid, rustix::process::getegid().as_raw());
            mounts.push(spec(Path::new(&self.home), kind, &options));
        }
    }
}

/// A folder under a private layer.
fn layered(source: &Path, destination: &Path, fds: &mut FdList) -> Result<MountSpec> {
    let tree = host::mount::clone_tree(source).with_context(|| format!("open {}", source.display()))?;
    protect(&tree)?;
    Ok(spec(destination, MountKind::Bind { fd: fds.add(tree), directory: true, private_overlay: true }, ""))
}

/// A file or folder that the caller names.
fn bound(path: &Path, readonly: bool, fds: &mut FdList) -> Result<MountSpec> {
    let metadata = fs::metadata(path)?;
    let kind = metadata.file_type();
    if !(kind.is_dir() || kind.is_file() || kind.is_socket() || kind.is_fifo()) {
        bail!("{} is neither a file nor a folder, a socket or a FIFO", path.display());
    }
    let tree = host::mount::clone_tree(path).with_context(|| format!("open {}", path.display()))?;
    host::mount::set_attributes(
        &tree,
        Attributes { readonly, nodev: true, nosuid: true, ..Attributes::default() },
    )?;
    let mut mount = spec(
        path,
        MountKind::Bind { fd: fds.add(tree), directory: metadata.is_dir(), private_overlay: false },
        "",
    );
    mount.flags.readonly = readonly;
    Ok(mount)
}

/// The host side of a private layer is never written.
fn protect(tree: &std::os::fd::OwnedFd) -> Result<()> {
    host::mount::set_attributes(
        tree,
        Attributes { readonly: true, nodev: true, nosuid: true, ..Attributes::default() },
    )
    .context("make a mount read-only")
}

fn spec(destination: &Path, kind: MountKind, data: &str) -> MountSpec {
    let source = match &kind {
        MountKind::Bind { .. } => destination.into(),
        MountKind::Proc => "proc".into(),
        MountKind::Sysfs => "sysfs".into(),
        MountKind::Devpts => "devpts".into(),
        MountKind::Cgroup => "cgroup".into(),
        _ => "tmpfs".into(),
    };
    MountSpec {
        destination: destination.into(),
        source,
        kind,
        flags: MountFlags { nosuid: true, ..MountFlags::default() },
        data: data.to_owned(),
    }
}

/// Copies the allowed files of /etc into a tmpfs that only this process sees,
/// and shows allowed folders on top of it. A file that not everybody may read
/// is left out even when its name is allowed.
fn stage_etc(fds: &mut FdList, mounts: &mut Vec<MountSpec>) -> Result<()> {
    let tree = host::mount::new_filesystem(
        "tmpfs",
        &[("mode", "0755"), ("size", "16m")],
        rustix::mount::MountAttrFlags::empty(),
    )
    .context("make a private /etc")?;
    let stage = attach_stage(&tree)?;
    let mut folders = Vec::new();
    for name in ETC.iter().chain(&ETC_DEEP) {
        let source = Path::new("/etc").join(name);
        let Ok(metadata) = fs::symlink_metadata(&source) else {
            continue;
        };
        let target = stage.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if metadata.is_symlink() {
            copy_link(&source, &target)?;
        } else if metadata.is_dir() {
            fs::create_dir(&target)?;
            folders.push(source);
        } else if metadata.is_file() && metadata.mode() & 0o004 != 0 {
            copy_file(&source, &target)?;
        }
    }
    protect(&tree)?;
    mounts.push(spec(
        Path::new("/etc"),
        MountKind::Bind { fd: fds.add(tree), directory: true, private_overlay: true },
        "",
    ));
    for folder in folders {
        mounts.push(layered(&folder, &folder, fds)?);
    }
    Ok(())
}

/// Paths below an attached mount are needed to fill it: /proc/self/fd names
/// it without a place in the tree.
fn attach_stage(tree: &std::os::fd::OwnedFd) -> Result<PathBuf> {
    use std::os::fd::AsRawFd;
    Ok(PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd())))
}

/// A link inside /etc or into /usr stays a link; one that leads elsewhere
/// (`resolv.conf` into /run) is followed once, now.
fn copy_link(source: &Path, target: &Path) -> Result<()> {
    let link = fs::read_link(source)?;
    let full = normalise(&Path::new("/etc").join(&link));
    if full.starts_with("/etc") || full.starts_with("/usr") {
        symlink(&link, target)?;
        return Ok(());
    }
    match fs::metadata(source) {
        Ok(metadata) if metadata.is_file() && metadata.mode() & 0o004 != 0 => copy_file(source, target),
        _ => Ok(()),
    }
}

fn copy_file(source: &Path, target: &Path) -> Result<()> {
    match fs::copy(source, target) {
        Ok(_) => {
            fs::set_permissions(target, fs::Permissions::from_mode(0o644))?;
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error).with_context(|| format!("copy {}", source.display())),
    }
}

/// Removes `.` and `..` without looking at the disk.
fn normalise(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowded_folders_are_not_shown() {
        for hidden in ["/", "/tmp", "/etc/ssh", "/run/user/0", "/home/anna", "/var", "/proc/1"] {
            assert!(!may_show(Path::new(hidden)), "{hidden}");
        }
        for shown in ["/srv/project", "/home/anna/project", "/tmp/build", "/usr/bin"] {
            assert!(may_show(Path::new(shown)), "{shown}");
        }
    }

    #[test]
    fn dots_are_removed_by_name() {
        assert_eq!(normalise(Path::new("/etc/../run/x/./y")), Path::new("/run/x/y"));
        assert_eq!(normalise(Path::new("/../../x")), Path::new("/x"));
    }
}
