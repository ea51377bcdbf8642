//! A container as the commands see it: a directory below `--root`, a record
//! in it, a control socket, a kernel process.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use control::{Channel, ChannelError, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;

use crate::hooks;
use crate::log;
use crate::state::{Recorded, State, Status, process_stat};

const SOCKET: &str = "control.sock";
const SIGKILL: i32 = 9;
/// Names of directories that become containers; no container is called so.
const DRAFT: &str = ".#";
/// What the name of a `sallet do` begins with, before its process id.
pub(crate) const DO: &str = "do-";

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    directory: PathBuf,
    pub(crate) state: State,
}

/// The OCI state, for `state` and for hooks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OciState<'a> {
    oci_version: &'a str,
    id: &'a str,
    pub(crate) pid: i32,
    pub(crate) status: Status,
    bundle: Cow<'a, str>,
    rootfs: Cow<'a, str>,
    created: &'a str,
    owner: String,
    annotations: &'a std::collections::BTreeMap<String, String>,
}

impl Container {
    /// Records a new container. What `state` names may be made afterwards.
    /// The rest of a killed command of the same name is removed first.
    pub(crate) fn record(root: &Path, mut state: State) -> Result<Container> {
        check_id(&state.id)?;
        make_root(root)?;
        remove_rests(root);
        state.creator = rustix::process::getpid().as_raw_nonzero().get();
        state.creator_start = process_stat(state.creator).context("read /proc/self/stat")?.start;
        // Renamed when its record is complete: there is no container without.
        let draft = root.join(format!("{DRAFT}{}-{}", state.creator, state.creator_start));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&draft)
            .with_context(|| format!("make {}", draft.display()))?;
        let directory = root.join(&state.id);
        let placed = state.save(&draft).and_then(|()| place(root, &draft, &directory, &state.id));
        if let Err(error) = placed {
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
        Ok(Container { directory, state })
    }

    /// Finds a container. What a killed command left of one is removed, and not found.
    pub(crate) fn load(root: &Path, id: &str) -> Result<Container> {
        let found = Container::find(root, id)?;
        let Some(rest) = found.rest() else { return Ok(found) };
        rest.clear()?;
        Container::find(root, id)
    }

    /// Finds a container, or what a killed command left of one.
    pub(crate) fn find(root: &Path, id: &str) -> Result<Container> {
        check_id(id)?;
        let directory = root.join(id);
        match State::load(&directory) {
            Ok(state) => Ok(Container { directory, state }),
            // Where one may not look, nobody knows.
            Err(_) if matches!(directory.try_exists(), Ok(false)) => {
                // Of a command that was killed while it removed this name.
                remove_rests(root);
                bail!(
                    "container does not exist: {id:?} in {} (`list` with the same --root shows what does)",
                    root.display()
                )
            }
            Err(error) => Err(error.context(format!("container {id}"))),
        }
    }

    /// Every container below `root`, by id. Removes the rests of commands that
    /// were killed.
    pub(crate) fn all(root: &Path) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read {}", root.display()))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if id.starts_with(DRAFT) {
                remove_dead_draft(&entry.path(), &id);
                continue;
            }
            if !entry.file_type()?.is_dir() || check_id(&id).is_err() {
                continue;
            }
            match Container::find(root, &id) {
                Ok(container) => match container.rest().map(Container::clear) {
                    None => all.push(container),
                    Some(Ok(())) => {}
                    Some(Err(error)) => log::warning(&format!("{error:#}")),
                },
                Err(error) => log::warning(&format!("{error:#}")),
            }
        }
        all.sort_by(|a, b| a.state.id.cmp(&b.state.id));
        Ok(all)
    }

    /// Writes the record.
    pub(crate) fn save(&self) -> Result<()> {
        self.state.save(&self.directory)
    }

    /// Records the kernel process.
    pub(crate) fn set_process(&mut self, pid: i32) -> Result<()> {
        self.state.pid = pid;
        self.state.pid_start = process_stat(pid).context("the kernel process is gone")?.start;
        self.save()
    }

    /// Forgets a container that never came to be.
    pub(crate) fn forget(self) {
        if let Err(error) = self.state.cgroup.remove() {
            log::debug(&format!("{error:#}"));
        }
        self.forget_record();
    }

    /// Forgets a container of which nothing but the record is its own.
    pub(crate) fn forget_record(self) {
        let _ = remove_directory(&self.directory);
    }

    /// The OCI state.
    pub(crate) fn oci_state(&self) -> OciState<'_> {
        let status = self.state.status();
        OciState {
            oci_version: crate::oci::VERSION,
            id: &self.state.id,
            pid: if status == Status::Stopped { 0 } else { self.state.pid },
            status,
            bundle: self.state.bundle.to_string_lossy(),
            rootfs: self.state.rootfs.to_string_lossy(),
            created: &self.state.created,
            owner: user_name(self.state.owner_uid),
            annotations: &self.state.annotations,
        }
    }

    /// The OCI state as hooks get it.
    pub(crate) fn hook_state(&self, status: Status) -> Result<String> {
        let mut state = self.oci_state();
        state.status = status;
        if status != Status::Stopped {
            state.pid = self.state.pid;
        }
        Ok(serde_json::to_string(&state)?)
    }

    /// The control socket, listening, for a new kernel process.
    pub(crate) fn listen(&self) -> Result<OwnedFd> {
        let socket = new_socket()?;
        self.with_socket_address(|address| rustix::net::bind(&socket, address))
            .context("bind the control socket")?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket)
    }

    /// A conversation with the kernel process.
    pub(crate) fn connect(&self) -> Result<Channel> {
        let socket = new_socket()?;
        self.with_socket_address(|address| rustix::net::connect(&socket, address))
            .context("connect to the kernel process")?;
        Ok(Channel::new(socket))
    }

    /// Socket addresses hold 107 bytes, directories may be longer.
    fn with_socket_address(
        &self,
        call: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>,
    ) -> Result<()> {
        use std::os::fd::AsRawFd;
        let path = self.directory.join(SOCKET);
        if let Ok(address) = SocketAddrUnix::new(&path) {
            return Ok(call(&address)?);
        }
        let directory = fs::File::open(&self.directory)?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        Ok(call(&SocketAddrUnix::new(short)?)?)
    }

    /// Sends one request and gives its answer; an `Error` answer is an error.
    pub(crate) fn ask(&self, request: &Request) -> Result<Reply> {
        let channel = self.connect()?;
        channel.send(request, &[])?;
        let (reply, _) = channel.receive::<Reply>().map_err(|error| match error {
            ChannelError::Closed => anyhow!("the sandbox has ended (a limit of memory?) before it answered"),
            error => error.into(),
        })?;
        match reply {
            Reply::Error { message, .. } => Err(anyhow!(message)),
            reply => Ok(reply),
        }
    }

    /// Sends one request whose answer is of no interest. A paused sandbox reads it when it goes on.
    pub(crate) fn tell(&self, request: &Request) -> Result<()> {
        if self.state.status() != Status::Paused {
            return self.ask(request).map(drop);
        }
        Ok(self.connect()?.send(request, &[])?)
    }

    /// Runs the prepared first process, then the poststart hooks.
    pub(crate) fn start(&mut self) -> Result<()> {
        let id = &self.state.id;
        match self.state.status() {
            Status::Created => {}
            Status::Stopped => {
                bail!("cannot start a container that has stopped: {id:?} (delete it and create it anew)")
            }
            Status::Creating => {
                bail!("cannot start a container that is being created: {id:?}")
            }
            Status::Running | Status::Paused => {
                bail!("cannot start an already running container: {id:?}")
            }
        }
        let before = self.state.recorded;
        self.state.recorded = Recorded::Started;
        self.save()?;
        if let Err(error) = self.ask(&Request::Start) {
            self.state.recorded = before;
            self.save()?;
            return Err(error);
        }
        let state = self.hook_state(Status::Running)?;
        if let Err(error) = hooks::run("poststart", &self.state.hooks.poststart, &state) {
            self.kill_process()?;
            return Err(error);
        }
        Ok(())
    }

    /// Sends a signal to the first process, or to all.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let status = self.state.status();
        if status == Status::Stopped {
            if all {
                return Ok(());
            }
            bail!("container not running: {:?} is stopped", self.state.id);
        }
        if signal == 0 {
            return Ok(());
        }
        if signal == SIGKILL {
            if status == Status::Running {
                self.kill_inside();
            }
            self.send_kill()?;
            if status == Status::Paused {
                self.state.cgroup.freeze(false)?;
            }
            return Ok(());
        }
        if status == Status::Paused {
            bail!("cannot signal a paused container with a signal other than SIGKILL");
        }
        self.ask(&Request::Signal { pid: None, signal, all })?;
        Ok(())
    }

    /// Removes a container that has stopped, or with `force` any.
    pub(crate) fn delete(self, force: bool) -> Result<()> {
        let status = self.state.status();
        match status {
            Status::Stopped => {}
            Status::Created => self.kill_process()?,
            _ if force => self.kill_process()?,
            _ => bail!("cannot delete container {} that is not stopped: {}", self.state.id, status.word()),
        }
        self.destroy()
    }

    /// This, as it is recorded now, if it is what a killed command left.
    fn rest(&self) -> Option<Container> {
        let mut known = self.state.clone();
        while known.is_abandoned() {
            // Its creator may have finished it after we have read: what is read of one that is dead is final.
            let now = State::load(&self.directory).ok()?;
            if (now.creator, now.creator_start) == (known.creator, known.creator_start) {
                let rest = Container { directory: self.directory.clone(), state: now };
                return rest.state.is_abandoned().then_some(rest);
            }
            known = now;
        }
        None
    }

    /// Removes what a killed command left. Its kernel process may be dying yet, or too busy to have noticed.
    fn clear(self) -> Result<()> {
        self.kill_process()?;
        self.destroy()
    }

    /// Removes everything of a dead container, then runs the poststop hooks.
    pub(crate) fn destroy(self) -> Result<()> {
        for pid in self.state.cgroup.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        self.state.cgroup.remove()?;
        let state = self.hook_state(Status::Stopped)?;
        remove_directory(&self.directory)?;
        for hook in &self.state.hooks.poststop {
            if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &state) {
                log::warning(&format!("{error:#}"));
            }
        }
        Ok(())
    }

    /// Kills the kernel process, and with it everything in its PID namespace,
    /// and waits until it is dead.
    pub(crate) fn kill_process(&self) -> Result<()> {
        let Some(pidfd) = self.send_kill()? else {
            return Ok(());
        };
        if self.state.cgroup.is_frozen() {
            self.state.cgroup.freeze(false)?;
        }
        // The namespace's other processes are dead before its first one is.
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(Duration::from_secs(10))?;
        if rustix::event::poll(&mut fds, Some(&timeout))? == 0 {
            bail!("the kernel process {} does not die", self.state.pid);
        }
        Ok(())
    }

    /// Host process ids of the kernel process and the guest's.
    pub(crate) fn host_processes(&self) -> Vec<i32> {
        let members = self.state.cgroup.processes();
        if members.is_empty() { same_pid_namespace(self.state.pid) } else { members }
    }

    /// Kills all programs inside, whereupon the kernel process ends by itself, after those who wait for programs
    /// of `exec`. One that does not, for whatever reason, is killed all the same.
    fn kill_inside(&self) {
        const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 700_000_000 };
        let Ok(Some(pidfd)) = self.pidfd() else { return };
        let request = Request::Signal { pid: None, signal: SIGKILL, all: true };
        let Ok(channel) = self.connect() else { return };
        if channel.send(&request, &[]).is_ok() {
            let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&PATIENCE));
        }
    }

    fn send_kill(&self) -> Result<Option<OwnedFd>> {
        let Some(pidfd) = self.pidfd()? else {
            return Ok(None);
        };
        match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(Some(pidfd)),
            Err(error) => Err(error).context("kill the kernel process"),
        }
    }

    /// A descriptor of the kernel process, if it lives.
    fn pidfd(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.state.pid) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("find the kernel process"),
        };
        // Only now is it certain whose descriptor this is.
        Ok(self.state.is_alive().then_some(pidfd))
    }
}

/// Without a cgroup: who lives in the kernel process's PID namespace.
fn same_pid_namespace(pid: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(pid) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).as_ref() == Some(&wanted))
        .collect()
}

fn new_socket() -> Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Takes the name away first: there is no container with half a record, even
/// when we are killed on the way.
fn remove_directory(directory: &Path) -> Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let start = process_stat(own).map_or(0, |stat| stat.start);
    // Not the name of the draft that we may be about to put here.
    let nameless = directory.with_file_name(format!("{DRAFT}{own}-{start}-old"));
    match fs::rename(directory, &nameless) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.and_then(|()| fs::remove_dir_all(&nameless)),
    }
    .with_context(|| format!("remove {}", directory.display()))
}

/// Gives a complete record its name.
fn place(root: &Path, draft: &Path, directory: &Path, id: &str) -> Result<()> {
    for _ in 0..2 {
        // A directory that is not empty is never replaced by rename(2).
        match fs::rename(draft, directory) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(17 | 39 | 20)) => {}
            Err(error) => return Err(error).with_context(|| directory.display().to_string()),
        }
        match Container::find(root, id).ok().and_then(|left| left.rest()) {
            Some(rest) => rest.clear()?,
            None => break,
        }
    }
    bail!("container with id exists: {id}")
}

/// Removes what killed commands left nameless, and what is left of killed `sallet do`: nobody asks for them by name.
fn remove_rests(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(DRAFT) {
            remove_dead_draft(&entry.path(), name);
        } else if let Some(pid) = name.strip_prefix(DO).and_then(|pid| pid.parse().ok()) {
            remove_dead_do(entry.path(), pid);
        }
    }
}

/// The rest of a `sallet do` whose process is gone.
fn remove_dead_do(directory: PathBuf, pid: i32) {
    let gone = Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
    if gone
        && let Ok(state) = State::load(&directory)
        && let Some(rest) = (Container { directory, state }).rest()
        && let Err(error) = rest.clear()
    {
        log::debug(&format!("{error:#}"));
    }
}

/// `.#PID-START` or `.#PID-START-old` of a process that is gone.
fn remove_dead_draft(path: &Path, name: &str) {
    let owner = name
        .strip_prefix(DRAFT)
        .and_then(|rest| rest.strip_suffix("-old").unwrap_or(rest).split_once('-'))
        .and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let lives = owner
        .is_some_and(|(pid, start): (i32, u64)| process_stat(pid).is_some_and(|stat| stat.start == start));
    if !lives {
        let _ = fs::remove_dir_all(path);
    }
}

fn make_root(root: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .with_context(|| format!("make {} (sallet --root DIR ... takes another folder)", root.display()))?;
    let owner = fs::metadata(root)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        bail!("{} belongs to somebody else", root.display());
    }
    Ok(())
}

/// runc's rule for names.
fn check_id(id: &str) -> Result<()> {
    let fits = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if id.is_empty() || !fits || id == "." || id == ".." || id.len() > 1024 {
        bail!("invalid container id format: {id:?} (letters, digits and _+-. only, 1 to 1024 of them)");
    }
    Ok(())
}

/// The name in /etc/passwd, else the number.
pub(crate) fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_inside_the_root() {
        for good in ["a", "A_b+c-d.e", "0", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest_of_the_dead_gives_way() {
        let root = std::env::temp_dir().join(format!("sallet-test-rest-{}", std::process::id()));
        let state = || State { id: "box".into(), ..State::default() };
        let mut first = Container::record(&root, state()).unwrap();
        // Its creator is another process now.
        first.state.creator_start += 1;
        first.save().unwrap();
        let second = Container::record(&root, state()).unwrap();
        assert!(fs::read_dir(&root).unwrap().count() == 1);
        second.delete(false).unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn who_finished_and_ended_was_not_killed() {
        let root = std::env::temp_dir().join(format!("sallet-test-final-{}", std::process::id()));
        let mut first = Container::record(&root, State { id: "box".into(), ..State::default() }).unwrap();
        first.state.creator_start += 1;
        first.save().unwrap();
        assert!(first.rest().is_some());
        let read_before = Container { directory: first.directory.clone(), state: first.state.clone() };
        first.state.recorded = Recorded::Created;
        first.save().unwrap();
        assert!(read_before.state.is_abandoned() && read_before.rest().is_none());
        assert!(Container::load(&root, "box").is_ok());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_id_is_taken_once_and_freed() {
        let root = std::env::temp_dir().join(format!("sallet-test-{}", std::process::id()));
        let state = || State { id: "box".into(), ..State::default() };
        let first = Container::record(&root, state()).unwrap();
        assert!(Container::record(&root, state()).is_err());
        assert_eq!(Container::all(&root).unwrap().len(), 1);
        assert_eq!(first.state.status(), Status::Stopped);
        first.delete(false).unwrap();
        assert!(Container::load(&root, "box").is_err());
        fs::remove_dir_all(root).unwrap();
    }
}
