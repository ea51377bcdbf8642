//! What is recorded of a container, before it is made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::oci::{Hooks, Resources};

const FILE: &str = "state.json";

/// The contents of `ROOT/ID/state.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// Absolute path of the bundle.
    #[serde(with = "any_path")]
    pub(crate) bundle: PathBuf,
    /// Absolute path of the root file system.
    #[serde(with = "any_path")]
    pub(crate) rootfs: PathBuf,
    /// Host process id of the kernel process; 0 while there is none.
    pub(crate) pid: i32,
    /// Its start time in ticks since boot: the same id with another time is
    /// another process.
    pub(crate) pid_start: u64,
    pub(crate) recorded: Recorded,
    /// The process that makes this container, and its start time.
    pub(crate) creator: i32,
    pub(crate) creator_start: u64,
    /// Whether the container ends with its creator (`run`, `do`).
    pub(crate) attached: bool,
    /// RFC 3339.
    pub(crate) created: String,
    pub(crate) owner_uid: u32,
    pub(crate) rootless: bool,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroup: Cgroup,
    pub(crate) hooks: Hooks,
    pub(crate) resources: Resources,
}

/// How far the commands have brought a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Recorded {
    /// `create` has not finished.
    #[default]
    Creating,
    /// `start` has not been called.
    Created,
    /// `start` has been called.
    Started,
}

/// OCI's status of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// OCI's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl State {
    /// Reads the record in a container's directory.
    pub(crate) fn load(directory: &Path) -> Result<State> {
        let text = fs::read(directory.join(FILE))?;
        serde_json::from_slice(&text).context("state.json is damaged")
    }

    /// Replaces the record in one step, so that a reader or a crash sees the
    /// old or the new one.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_vec(self)?;
        let draft = directory.join(".state.json");
        let mut file = fs::File::create(&draft)
            .with_context(|| format!("record the state in {}", directory.display()))?;
        file.write_all(&text)?;
        fs::rename(&draft, directory.join(FILE))?;
        Ok(())
    }

    /// Whether the kernel process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.pid > 0
            && process_stat(self.pid).is_some_and(|stat| stat.start == self.pid_start && !stat.is_dead())
    }

    /// Whether this is the rest of a command that was killed: nobody will
    /// finish it and nobody waits for it. Its kernel process, if it lives still, is about to end.
    pub(crate) fn is_abandoned(&self) -> bool {
        let unfinished = self.attached || self.recorded == Recorded::Creating;
        let creator_lives = process_stat(self.creator)
            .is_some_and(|stat| stat.start == self.creator_start && !stat.is_dead());
        unfinished && !creator_lives
    }

    /// OCI's status now.
    pub(crate) fn status(&self) -> Status {
        if !self.is_alive() {
            return Status::Stopped;
        }
        match self.recorded {
            Recorded::Creating => Status::Creating,
            _ if self.cgroup.is_frozen() => Status::Paused,
            Recorded::Created => Status::Created,
            Recorded::Started => Status::Running,
        }
    }
}

/// The fields of /proc/PID/stat that tell processes apart.
pub(crate) struct ProcessStat {
    state: char,
    /// Its parent's id.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// Its session.
    pub(crate) session: i32,
    /// Ticks since boot.
    pub(crate) start: u64,
}

impl ProcessStat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads /proc/PID/stat.
pub(crate) fn process_stat(pid: i32) -> Option<ProcessStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let id = |at: usize| fields.get(at)?.parse().ok();
    Some(ProcessStat {
        state: fields.first()?.chars().next()?,
        parent: id(1)?,
        group: id(2)?,
        session: id(3)?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// Paths as JSON: text, else their bytes.
mod any_path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Text(PathBuf),
        Bytes(OsString),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(to),
            None => path.as_os_str().serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Any::deserialize(from)? {
            Any::Text(path) => path,
            Any::Bytes(bytes) => bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_can_be_a_bundle() {
        use std::os::unix::ffi::OsStrExt;
        for name in [&b"/x"[..], b"/\xff"] {
            let bundle = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            let state = State { bundle: bundle.clone(), ..State::default() };
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap().bundle, bundle);
            assert_eq!(text.contains(r#""bundle":"/x""#), name == b"/x");
        }
    }

    #[test]
    fn a_reused_process_id_is_another_process() {
        let own = std::process::id() as i32;
        let mut state = State { pid: own, pid_start: process_stat(own).unwrap().start, ..State::default() };
        assert!(state.is_alive());
        state.pid_start += 1;
        assert!(!state.is_alive());
        assert_eq!(state.status(), Status::Stopped);
    }
}
