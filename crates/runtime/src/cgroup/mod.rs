//! The container's control groups on the host: cgroups(7).
//!
//! Version 1 (also mixed with an empty version 2 tree) and version 2, by
//! plain file writes or by systemd. Everything a [`Cgroup`] names was recorded in the
//! container's state before it was made.

mod files;
mod hierarchy;
pub(crate) mod quota;
mod stats;
mod systemd;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use crate::oci::Resources;
pub(crate) use hierarchy::Hierarchy;
pub(crate) use stats::Stats;
pub(crate) use systemd::Scope;
pub(crate) use v2::weight;

/// Tasks of ours beside the guest's: the zygote, and the kernel process with the threads that it may have.
const OWN_TASKS: i64 = 64;

/// The directories of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cgroup {
    /// Version 1: directory by controller. A hierarchy that carries several
    /// controllers is listed for each.
    v1: BTreeMap<String, PathBuf>,
    /// Version 2: the directory.
    v2: Option<PathBuf>,
    /// Mount points the directories lie under.
    roots: Vec<PathBuf>,
    /// What systemd makes for the container.
    scope: Option<Scope>,
}

/// Open files through which a new process enters.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// Version 1: the `tasks` files.
    pub(crate) tasks_files: Vec<OwnedFd>,
    /// Version 2: the directory.
    pub(crate) directory: Option<OwnedFd>,
}

impl Cgroup {
    /// The directories for a container, none of which is made yet.
    ///
    /// `path` is `linux.cgroupsPath`; when it is empty or relative it goes
    /// below the caller's own group, in version 2 beside it: a group with
    /// members hands no controllers down.
    pub(crate) fn plan(hierarchy: &Hierarchy, path: &str, id: &str) -> Cgroup {
        let mut cgroup = Cgroup::default();
        let place = |root: &Path, own: &str| -> PathBuf {
            let relative = match path {
                "" => Path::new(own.trim_start_matches('/')).join(id),
                absolute if absolute.starts_with('/') => PathBuf::from(absolute.trim_start_matches('/')),
                relative => Path::new(own.trim_start_matches('/')).join(relative),
            };
            // ".." must not lead out of the hierarchy.
            let clean: PathBuf = relative
                .components()
                .filter(|part| matches!(part, std::path::Component::Normal(_)))
                .collect();
            root.join(clean)
        };
        for mounted in &hierarchy.v1 {
            let directory = place(&mounted.root, &mounted.own);
            for controller in &mounted.controllers {
                cgroup.v1.insert(controller.clone(), directory.clone());
            }
            cgroup.roots.push(mounted.root.clone());
        }
        if cgroup.v1.is_empty()
            && let Some(mounted) = &hierarchy.v2
        {
            let beside = mounted.own.rsplit_once('/').map_or("", |(above, _)| above);
            cgroup.v2 = Some(place(&mounted.root, beside));
            cgroup.roots.push(mounted.root.clone());
        }
        cgroup
    }

    /// Whether a hierarchy that it would be made in is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.roots.iter().any(|root| {
            rustix::fs::statvfs(root)
                .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        })
    }

    /// Why these limits cannot be set in it; none where they can.
    pub(crate) fn lacks(&self, resources: Option<&Resources>) -> Option<String> {
        let resources = resources?;
        let wanted = [
            ("memory", resources.memory.is_some()),
            ("cpu", resources.cpu.is_some()),
            ("pids", resources.pids.is_some()),
        ];
        let mut wanted = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name);
        if self.is_read_only() {
            return Some("those here are mounted read-only, as in a container".into());
        }
        let closed = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_err();
        let Some(above) = self.v2.as_deref().and_then(Path::parent) else {
            if let Some(missing) = wanted.find(|name| !self.v1.contains_key(*name)) {
                return Some(format!("the host has none for {missing}"));
            }
            return self.roots.iter().any(|root| closed(root)).then(|| "only root can make one here".into());
        };
        // Who goes from one group to another must own what is above both.
        if closed(above) || closed(&above.join("cgroup.procs")) {
            return Some(format!("{} is not the caller's", above.display()));
        }
        let available = files::read(above, "cgroup.controllers").unwrap_or_default();
        let missing = wanted.find(|name| !available.split_whitespace().any(|one| one == *name))?;
        Some(format!("{} hands down none for {missing}", above.display()))
    }

    /// Fails where others live in a group: deleting the container would kill them.
    pub(crate) fn ensure_unused(&self) -> Result<()> {
        let members = self.directories().into_iter().map(|group| files::members(group).len()).max();
        match members.unwrap_or(0) {
            0 => Ok(()),
            n => bail!("container's cgroup is not empty: {n} process(es) found"),
        }
    }

    /// Makes the directories that systemd does not make, and sets limits.
    pub(crate) fn create(&self, resources: Option<&Resources>) -> Result<()> {
        if self.is_systemds() {
            return Ok(());
        }
        if let Some(directory) = &self.v2 {
            v2::create(directory, self.root_of(directory))?;
        }
        for (controller, directory) in &self.v1 {
            v1::create(controller, directory, self.root_of(directory))
                .with_context(|| format!("make cgroup {}", directory.display()))?;
        }
        resources.map_or(Ok(()), |resources| self.apply(resources))
    }

    /// Has systemd make its group around a process that has not run yet.
    pub(crate) fn place(&self, pid: i32, resources: Option<&Resources>) -> Result<()> {
        let Some(scope) = &self.scope else {
            return Ok(());
        };
        scope.start(pid, resources.unwrap_or(&Resources::default()), self.v2.is_some())?;
        match (resources, self.is_systemds()) {
            (Some(resources), true) => self.apply(resources),
            _ => Ok(()),
        }
    }

    /// Whether systemd alone makes it. Of version 1 it makes some controllers'.
    fn is_systemds(&self) -> bool {
        self.scope.is_some() && self.v2.is_some()
    }

    /// Changes limits.
    pub(crate) fn update(&self, resources: &Resources) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.set(resources, self.v2.is_some())?;
        }
        self.apply(resources)
    }

    /// Moves the calling process in, once all directories are there.
    pub(crate) fn enter(&self) -> std::io::Result<()> {
        // 0 is who writes.
        self.directories().into_iter().try_for_each(|directory| files::write(directory, "cgroup.procs", 0))
    }

    /// Opens what a new process needs to go in by itself.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let mut entrance = Entrance::default();
        if self.is_systemds() {
            return Ok(entrance);
        }
        if let Some(directory) = &self.v2 {
            let file =
                fs::File::open(directory).with_context(|| format!("open cgroup {}", directory.display()))?;
            entrance.directory = Some(file.into());
        } else {
            for directory in self.directories() {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(directory.join("tasks"))
                    .with_context(|| format!("open cgroup {}", directory.display()))?;
                entrance.tasks_files.push(file.into());
            }
        }
        Ok(entrance)
    }

    /// Sets limits.
    fn apply(&self, resources: &Resources) -> Result<()> {
        if let Some(directory) = &self.v2 {
            v2::apply(directory, resources)?;
        }
        if !self.v1.is_empty() {
            v1::apply(&self.v1, resources)?;
        }
        Ok(())
    }

    /// Stops or resumes all processes and waits until that is done.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        if let Some(directory) = &self.v2 {
            return v2::freeze(directory, frozen);
        }
        let directory = self.v1.get("freezer").context("the host has no freezer cgroup")?;
        v1::freeze(directory, frozen)
    }

    /// Whether the processes are stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        if let Some(directory) = &self.v2 {
            return files::read(directory, "cgroup.freeze").is_ok_and(|text| text.trim() == "1");
        }
        self.v1
            .get("freezer")
            .and_then(|directory| files::read(directory, "freezer.state").ok())
            .is_some_and(|text| text.trim() != "THAWED")
    }

    /// Host process ids of all members.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let Some(directory) = self.v2.as_deref().or_else(|| {
            ["pids", "memory", "freezer"]
                .iter()
                .find_map(|name| self.v1.get(*name))
                .or_else(|| self.v1.values().next())
                .map(PathBuf::as_path)
        }) else {
            return Vec::new();
        };
        files::members(directory)
    }

    /// Counters.
    pub(crate) fn stats(&self) -> Stats {
        match &self.v2 {
            Some(directory) => v2::stats(directory),
            None => v1::stats(&self.v1),
        }
    }

    /// How many processes the host has killed since there was no memory left for them.
    pub(crate) fn killed_for_memory(&self) -> u64 {
        let v1 = self.v1.get("memory").map(|group| group.join("memory.oom_control"));
        let v2 = self.v2.as_ref().map(|group| group.join("memory.events"));
        let texts = v1.into_iter().chain(v2).filter_map(|path| std::fs::read_to_string(path).ok());
        texts
            .flat_map(|text| {
                let counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
                counts.filter_map(|count| count.trim().parse::<u64>().ok()).collect::<Vec<_>>()
            })
            .sum()
    }

    /// Removes the directories; processes must be dead or dying.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.stop();
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        for directory in self.directories() {
            loop {
                match files::remove_tree(directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                    // The host takes a moment to forget the dead.
                    Err(error) if error.raw_os_error() == Some(16) && Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("remove cgroup {}", directory.display()));
                    }
                }
            }
        }
        Ok(())
    }

    fn directories(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.v1.values().map(PathBuf::as_path).chain(self.v2.as_deref()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn root_of<'a>(&'a self, directory: &'a Path) -> &'a Path {
        self.roots.iter().find(|root| directory.starts_with(root)).map_or(directory, PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::hierarchy::Mounted;
    use super::*;

    fn hierarchy() -> Hierarchy {
        Hierarchy {
            v1: vec![Mounted {
                root: "/sys/fs/cgroup/memory".into(),
                controllers: vec!["memory".into()],
                own: "/session".into(),
            }],
            v2: None,
        }
    }

    #[test]
    fn paths_follow_runc() {
        let plan = |path: &str| {
            let cgroup = Cgroup::plan(&hierarchy(), path, "box");
            cgroup.v1["memory"].display().to_string()
        };
        assert_eq!(plan("/docker/x"), "/sys/fs/cgroup/memory/docker/x");
        assert_eq!(plan(""), "/sys/fs/cgroup/memory/session/box");
        assert_eq!(plan("rel/x"), "/sys/fs/cgroup/memory/session/rel/x");
        assert_eq!(plan("/../../x"), "/sys/fs/cgroup/memory/x");
    }

    #[test]
    fn version_2_goes_beside_the_caller() {
        let plan = |own: &str, path: &str| {
            let mounted = Mounted { root: "/sys/fs/cgroup".into(), controllers: Vec::new(), own: own.into() };
            let hierarchy = Hierarchy { v1: Vec::new(), v2: Some(mounted) };
            Cgroup::plan(&hierarchy, path, "box").v2.unwrap().display().to_string()
        };
        assert_eq!(plan("/system.slice/ssh.service", ""), "/sys/fs/cgroup/system.slice/box");
        assert_eq!(plan("/session", "rel/x"), "/sys/fs/cgroup/rel/x");
        assert_eq!(plan("/", ""), "/sys/fs/cgroup/box");
        assert_eq!(plan("/a/b", "/docker/x"), "/sys/fs/cgroup/docker/x");
    }
}
