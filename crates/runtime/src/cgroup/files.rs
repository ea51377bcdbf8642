//! Reading and writing control files.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Writes one value.
pub(super) fn write(directory: &Path, file: &str, value: impl Display) -> io::Result<()> {
    fs::write(directory.join(file), value.to_string())
}

/// Reads a whole file.
pub(super) fn read(directory: &Path, file: &str) -> io::Result<String> {
    fs::read_to_string(directory.join(file))
}

/// Process ids of a group's members.
pub(super) fn members(directory: &Path) -> Vec<i32> {
    let text = read(directory, "cgroup.procs").unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Reads one number; "max" and unreadable files are absent.
pub(super) fn number(directory: &Path, file: &str) -> Option<u64> {
    read(directory, file).ok()?.trim().parse().ok()
}

/// Reads lines of `key value`.
pub(super) fn table(directory: &Path, file: &str) -> Vec<(String, u64)> {
    let text = read(directory, file).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// One entry of a [`table`].
pub(super) fn entry(table: &[(String, u64)], key: &str) -> u64 {
    table.iter().find(|(known, _)| known == key).map_or(0, |(_, value)| *value)
}

/// How long tasks get to stop before [`all_still`] is asked.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// Whether no thread of a group runs. A guest thread that waits for an answer
/// of the kernel process sleeps where the host cannot freeze it; it stays so
/// as long as the kernel process is frozen, and the host calls the whole
/// "freezing" until then.
pub(super) fn all_still(directory: &Path) -> bool {
    let Ok(processes) = read(directory, "cgroup.procs") else {
        return false;
    };
    processes.lines().all(|pid| {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return true;
        };
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('R'))
        })
    })
}

/// Removes a group and the groups inside it.
pub(super) fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        // Groups inside it: they go first.
        Err(error) if error.raw_os_error() == Some(16) => {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
            fs::remove_dir(directory)
        }
        other => other,
    }
}
