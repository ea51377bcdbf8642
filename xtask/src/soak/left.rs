//! What containers leave behind on the host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where engines and runtimes keep state by a container's id, and how deep.
const STATE: [(&str, usize); 3] = [("/run", 8), ("/sys/fs/cgroup", 8), ("/var/lib/docker/containers", 1)];
/// Engines clean up in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// Processes, mounts, control groups and files that name one of the containers, or were their first processes.
pub(super) fn behind(ids: &[&str], processes: &[u32]) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = look(ids, processes);
        if found.is_empty() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn look(ids: &[&str], first: &[u32]) -> Vec<String> {
    let named = |text: &str| ids.iter().any(|id| text.contains(id));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        // Our own command lines may name a container for a moment.
        if pid != std::process::id() && (first.contains(&pid) || named(&command) || named(&read("cgroup"))) {
            found.push(format!("process {pid} {}: {}", read("comm").trim(), command.trim()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| named(line)).map(|line| format!("mount {line}")));
    for (folder, depth) in STATE {
        walk(Path::new(folder), depth, &mut |path| {
            if path.file_name().and_then(|name| name.to_str()).is_some_and(&named) {
                found.push(format!("file {}", path.display()));
            }
        });
    }
    found
}

/// Calls `each` for what lies below the folder, through no links.
fn walk(folder: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        each(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, depth - 1, each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::look;

    #[test]
    fn our_parent_is_found_as_a_first_process() {
        assert!(look(&["no container has this name"], &[]).is_empty());
        let parent = std::os::unix::process::parent_id();
        let found = look(&["no container has this name"], &[parent]);
        assert!(found.iter().any(|line| line.starts_with(&format!("process {parent} "))), "{found:?}");
    }
}
