//! Starts a kernel process: namespaces, cgroups, descriptors, jail.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use control::{BootReply, BootSpec, Channel, Detach, FdIndex, IdMapping};
use host::namespace::{NewNamespaces, Program, Spawned};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::cgroup::Entrance;
use crate::log;

/// Descriptors that will travel with a [`BootSpec`].
#[derive(Debug, Default)]
pub(crate) struct FdList {
    fds: Vec<OwnedFd>,
}

impl FdList {
    /// Adds one and names its place.
    pub(crate) fn add(&mut self, fd: impl Into<OwnedFd>) -> FdIndex {
        self.fds.push(fd.into());
        FdIndex(self.fds.len() - 1)
    }

    /// All of them, to be sent.
    pub(crate) fn borrow(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

/// Which network namespace the kernel process gets.
#[derive(Debug)]
pub(crate) enum Network {
    /// A new one.
    New,
    /// This one.
    Join(OwnedFd),
    /// The caller's.
    Caller,
}

/// User and group id maps of the kernel process's user namespace.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    /// These ranges.
    Mapped { uids: Vec<IdMapping>, gids: Vec<IdMapping> },
    /// The caller is in its user namespace already (rootless).
    Entered,
}

impl Ids {
    /// Whether an id is another one inside.
    fn are_others(&self) -> bool {
        match self {
            Ids::Entered => false,
            Ids::Mapped { uids, gids } => uids.iter().chain(gids).any(|range| range.inside != range.outside),
        }
    }

    /// The id the kernel process takes: an unprivileged one that is mapped.
    pub(crate) fn own_id(&self) -> Option<u32> {
        let wanted = host::jail::UNPRIVILEGED_ID;
        match self {
            Ids::Entered => None,
            Ids::Mapped { uids, gids } => {
                let last = |ranges: &[IdMapping]| {
                    ranges
                        .iter()
                        .filter_map(|range| range.inside.checked_add(range.length.checked_sub(1)?))
                        .max()
                        .unwrap_or(0)
                };
                let id = last(uids).min(last(gids)).min(wanted);
                (id != 0).then_some(id)
            }
        }
    }
}

/// A kernel process that waits for its [`BootSpec`]; killed when dropped.
#[derive(Debug)]
pub(crate) struct KernelProcess {
    pub(crate) pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    keep: bool,
}

/// Starts a kernel process. `placed` is called with its process id before it
/// runs anything: the place to record it.
pub(crate) fn spawn(
    id: &str,
    ids: &Ids,
    network: Network,
    entrance: &Entrance,
    placed: impl FnOnce(i32) -> Result<()>,
) -> Result<KernelProcess> {
    let executable = own_executable()?;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let args = [c"sallet".to_owned(), c"boot".to_owned(), CString::new(id)?];
    let tasks_files: Vec<BorrowedFd<'_>> = entrance.tasks_files.iter().map(AsFd::as_fd).collect();
    let program = Program {
        executable: executable.as_fd(),
        args: &args,
        env: &[],
        channel: theirs.as_fd(),
        tasks_files: &tasks_files,
        cgroup: entrance.directory.as_ref().map(AsFd::as_fd),
    };
    let namespaces = NewNamespaces {
        user: !matches!(ids, Ids::Entered),
        net: matches!(network, Network::New),
        take_root: ids.are_others(),
    };
    let spawned = match network {
        Network::Join(namespace) => in_network(namespace.as_fd(), || clone(&program, namespaces))?,
        Network::New | Network::Caller => clone(&program, namespaces)?,
    };
    drop(theirs);
    let pid = spawned.pid;
    let guard = KillGuard(Some(spawned.pidfd.try_clone()?));
    write_maps(pid, ids)?;
    set_oom_score(pid);
    placed(pid)?;
    let (pid, pidfd) = spawned.go().context("execute the kernel process")?;
    guard.disarm();
    Ok(KernelProcess { pid, pidfd, channel: Channel::new(ours), keep: false })
}

impl KernelProcess {
    /// Sends everything and waits until the first process stands ready.
    pub(crate) fn boot(&self, spec: &BootSpec, fds: FdList) -> Result<()> {
        self.channel.send(spec, &fds.borrow()).map_err(|error| self.died(error))?;
        drop(fds);
        match self.channel.receive::<BootReply>() {
            Ok((BootReply::Ready, _)) => Ok(()),
            // runc's words: Docker finds its exit status (126, 127) in them.
            Ok((BootReply::Failed { message }, _)) if message.starts_with("exec") => {
                bail!("unable to start container process: {message}")
            }
            Ok((BootReply::Failed { message }, _)) => bail!("{message}"),
            Err(error) => Err(self.died(error)),
        }
    }

    /// Why it does not answer: where it has ended, how.
    fn died(&self, error: control::ChannelError) -> anyhow::Error {
        const PATIENCE: Duration = Duration::from_millis(200);
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = rustix::time::Timespec::try_from(PATIENCE)
            .is_ok_and(|patience| matches!(rustix::event::poll(&mut polled, Some(&patience)), Ok(1..)));
        let status = ended
            .then(|| {
                let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), how).ok().flatten()
            })
            .flatten();
        match status {
            Some(status) if status.terminating_signal() == Some(Signal::KILL.as_raw()) => anyhow::anyhow!(
                "the kernel process was killed while it was starting: a limit of memory may be too small for it"
            ),
            Some(_) => anyhow::anyhow!("the kernel process ended while it was starting"),
            None => anyhow::Error::new(error).context("hand the configuration to the kernel process"),
        }
    }

    /// Lets it live on without us. Returns its pidfd.
    pub(crate) fn release(mut self) -> Result<OwnedFd> {
        self.channel.send(&Detach, &[]).context("let go of the kernel process")?;
        self.keep = true;
        Ok(self.pidfd.try_clone()?)
    }

    /// Ties it to us: it ends when we do. Returns its pidfd, and what ties.
    pub(crate) fn attach(mut self) -> Result<(OwnedFd, Tie)> {
        self.keep = true;
        let socket = self.channel.as_fd().try_clone_to_owned()?;
        Ok((self.pidfd.try_clone()?, Tie(socket)))
    }
}

/// The kernel process lives as long as this does.
#[derive(Debug)]
pub(crate) struct Tie(#[expect(dead_code, reason = "it is held, not read")] OwnedFd);

impl Drop for KernelProcess {
    fn drop(&mut self) {
        if !self.keep {
            kill_and_reap(self.pidfd.as_fd());
        }
    }
}

/// Kills the child when something fails before it runs.
struct KillGuard(Option<OwnedFd>);

impl KillGuard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillGuard {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            kill_and_reap(pidfd.as_fd());
        }
    }
}

fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
}

fn clone(program: &Program<'_>, namespaces: NewNamespaces) -> Result<Spawned> {
    host::namespace::spawn(program, namespaces).map_err(|error| match error.raw_os_error() {
        Some(1) => anyhow::anyhow!(
            "the host forbids new namespaces (operation not permitted); run as root, or allow \
             unprivileged user namespaces"
        ),
        Some(28 | 87) => {
            anyhow::anyhow!("the host's limit of namespaces is reached (see /proc/sys/user/max_*_namespaces)")
        }
        Some(22) => anyhow::anyhow!("the host's kernel lacks namespaces that are needed"),
        _ => anyhow::Error::new(error).context("make the namespaces"),
    })
}

/// Sets `net.*` values of a network namespace that is joined: the kernel
/// process holds no capability over it.
pub(crate) fn set_network_sysctls(
    namespace: BorrowedFd<'_>,
    sysctl: &BTreeMap<String, String>,
) -> Result<()> {
    in_network(namespace, || {
        for (name, value) in sysctl.iter().filter(|(name, _)| name.starts_with("net.")) {
            if name.contains("..") || name.contains('/') {
                bail!("sysctl {name:?} is no name");
            }
            fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
                .with_context(|| format!("set sysctl {name}"))?;
        }
        Ok(())
    })
}

/// The first port that programs without `CAP_NET_BIND_SERVICE` may bind in a network namespace that is joined and not the
/// caller's, which the sandbox's own kernel sees to. `open` lets everybody there bind all ports, where nobody can bind them
/// for the kernel process, who holds no capability over it.
pub(crate) fn low_ports(namespace: BorrowedFd<'_>, open: bool) -> Result<Option<String>> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (own, joined) = (fs::metadata("/proc/self/ns/net"), rustix::fs::fstat(namespace));
    if let (Ok(own), Ok(joined)) = (own, joined)
        && std::os::unix::fs::MetadataExt::ino(&own) == joined.st_ino
    {
        return Ok(None);
    }
    in_network(namespace, || {
        let Ok(first) = fs::read_to_string(FILE) else { return Ok(None) };
        if open && let Err(error) = fs::write(FILE, "0") {
            log::debug(&format!("{FILE}: {error}: ports below {} cannot be bound", first.trim()));
        }
        Ok(Some(first.trim().to_owned()))
    })
}

/// Calls `action` in another network namespace: in a thread that ends there,
/// since whoever is root in a user namespace alone may not return to the
/// host's.
fn in_network<T: Send>(namespace: BorrowedFd<'_>, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            host::namespace::enter_network(namespace).context("join the network namespace")?;
            action()
        });
        inside.join().unwrap_or_else(|_| bail!("the thread in the network namespace panicked"))
    })
}

/// Our own program as a file that nobody can write: a read-only mount of it,
/// shared in memory by all sandboxes, else a sealed copy.
fn own_executable() -> Result<OwnedFd> {
    let mounted = host::mount::clone_tree(Path::new("/proc/self/exe")).and_then(|tree| {
        let attributes = host::mount::Attributes {
            readonly: true,
            nodev: true,
            nosuid: true,
            ..host::mount::Attributes::default()
        };
        host::mount::set_attributes(&tree, attributes)?;
        Ok(tree)
    });
    match mounted {
        Ok(tree) => Ok(tree),
        Err(error) => {
            log::debug(&format!("no read-only mount of our program ({error}): copied"));
            sealed_copy()
        }
    }
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("sallet", flags)?;
    let own = rustix::fs::openat(CWD, "/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30)? > 0 {}
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}

fn write_maps(pid: i32, ids: &Ids) -> Result<()> {
    let text = |ranges: &[IdMapping]| -> String {
        ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.length)).collect()
    };
    let (uids, gids) = match ids {
        Ids::Entered => return Ok(()),
        Ids::Mapped { uids, gids } => (text(uids), text(gids)),
    };
    host::namespace::write_id_maps(pid, &uids, &gids).context("write the id maps")
}

/// The kernel process dies last when memory runs out: the guest's own
/// processes are what the killer shall find. Only root may lower the score.
fn set_oom_score(pid: i32) {
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), "-900") {
        log::debug(&format!("oom_score_adj: {error}"));
    }
}

/// The host lets the guest have as much memory as its limits allow. Only root may raise limits of the host.
pub(crate) fn raise_limits(pid: i32, wanted: &[control::Rlimit]) {
    // RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_AS.
    const OF_MEMORY: [u32; 4] = [2, 3, 8, 9];
    for control::Rlimit { resource, hard, .. } in wanted {
        if !OF_MEMORY.contains(resource) {
            continue;
        }
        let raised = host::process::limit(pid, *resource).and_then(|(soft, old)| match *hard > old {
            true => host::process::set_limit(pid, *resource, soft, *hard),
            false => Ok(()),
        });
        if let Err(error) = raised {
            log::debug(&format!("hard limit {resource} of the host: {error}"));
        }
    }
}
