//! From a configuration to a container that waits for `start`.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use control::{
    BinderSpec, BootSpec, FdIndex, HostUds, JailMode, MountKind, MountSpec, NetworkMode, NetworkRights,
    ProcessSpec, RootSpec, StartHook, StdioSpec, Tracing,
};

use crate::bind::Binder;
use crate::cgroup::{Cgroup, Hierarchy, Scope};
use crate::cli::{Globals, MemoryMode};
use crate::container::Container;
use crate::launch::{self, FdList, Ids, Network, Tie};
use crate::oci::config::Linux;
use crate::oci::mounts::{ParsedKind, parse};
use crate::oci::{self, Config, Hook, Process, seccomp, support, translate};
use crate::rootless;
use crate::state::{Recorded, State, Status};
use crate::supervise::Relay;
use crate::terminal::{CallersTerminal, Pty};
use crate::{binder, callers_limits, clock, hooks, log};

/// What to make a container of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) config: Config,
    /// The first program: what JSON can hold of it is in `config`.
    pub(crate) process: ProcessSpec,
    /// Descriptors 3 to 2 + N go to the first process.
    pub(crate) preserve_fds: u32,
    pub(crate) terminal: Terminal,
    /// Whether the caller's standard error is the program's, too, though it has a terminal.
    pub(crate) error_elsewhere: bool,
    pub(crate) pid_file: Option<PathBuf>,
    /// Whether the container ends when the caller does.
    pub(crate) attached: bool,
    /// Whether signals end the first process as any other: nobody's init.
    pub(crate) ordinary_init: bool,
    /// Whether the caller stops and continues with the first process, as a job of a shell.
    pub(crate) job_control: bool,
}

/// Who holds the other end of the first process's terminal.
#[derive(Debug)]
pub(crate) enum Terminal {
    /// There is no terminal.
    None,
    /// Whoever listens on this socket.
    Socket(PathBuf),
    /// The caller, who sits at this one.
    Ours(CallersTerminal),
}

/// The files a sandbox sees.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) root: RootSpec,
    pub(crate) mounts: Vec<MountSpec>,
}

/// A container that waits for `start`.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) container: Container,
    /// The kernel process, our child.
    pub(crate) pidfd: OwnedFd,
    /// What makes it end with us, where it shall.
    pub(crate) tie: Option<Tie>,
    /// Between the first process's terminal and the caller's: [`Terminal::Ours`].
    pub(crate) relay: Option<Relay>,
}

impl Plan {
    /// Reads a bundle.
    pub(crate) fn from_bundle(id: &str, bundle: &Path) -> Result<Plan> {
        let bundle = fs::canonicalize(bundle).with_context(|| format!("bundle {}", bundle.display()))?;
        let config = Config::load(&bundle)?;
        support::refuse(&config)?;
        let root = config.root.as_ref().context("root is missing")?;
        let rootfs = bundle.join(&root.path);
        if !rootfs.is_dir() {
            bail!("rootfs {} does not exist or is no directory", rootfs.display());
        }
        let mut process = translate::process(config.process.as_ref().unwrap_or(&Process::default()))?;
        callers_limits::inherit(&mut process.rlimits)?;
        callers_limits::take()?;
        Ok(Plan {
            process,
            id: id.to_owned(),
            bundle,
            rootfs,
            config,
            preserve_fds: 0,
            terminal: Terminal::None,
            error_elsewhere: false,
            pid_file: None,
            attached: false,
            ordinary_init: false,
            job_control: false,
        })
    }
}

/// Makes a container of a bundle.
pub(crate) fn create(globals: &Globals, plan: Plan) -> Result<Created> {
    let rootfs = plan.rootfs.clone();
    let bundle = plan.bundle.clone();
    let config = plan.config.clone();
    create_with(globals, plan, |fds| bundle_view(&config, &bundle, &rootfs, fds))
}

/// Makes a container whose files `view` opens, after the hooks have run.
pub(crate) fn create_with(
    globals: &Globals,
    plan: Plan,
    view: impl FnOnce(&mut FdList) -> Result<View>,
) -> Result<Created> {
    let linux = plan.config.linux.clone().unwrap_or_default();
    for (for_users, text) in support::left_out(&plan.config) {
        if for_users { log::warning(&text) } else { log::debug(&text) }
    }
    let owner_uid = rustix::process::geteuid().as_raw();
    let rootless = rootless::is_needed();
    // `do` says what it cannot limit.
    let must_limit = plan.ordinary_init && linux.resources.is_some();
    let unlimited = rootless && !globals.systemd_cgroup && !must_limit;
    if unlimited
        && linux
            .resources
            .as_ref()
            .is_some_and(|resources| translate::cgroup_info(Some(resources)).has_limits())
    {
        log::warning(
            "linux.resources sets no limits: without root and --systemd-cgroup there is no control group",
        );
    }
    let properties = plan.config.annotations.keys().filter(|name| name.starts_with("org.systemd.property."));
    for name in properties.filter(|_| globals.systemd_cgroup) {
        log::warning(&format!("annotation {name} is ignored"));
    }
    let cgroup = if globals.systemd_cgroup {
        Scope::plan(&Hierarchy::find(), &linux.cgroups_path, &plan.id)?
    } else if rootless && !must_limit {
        Cgroup::default()
    } else {
        let planned = Cgroup::plan(&Hierarchy::find(), &linux.cgroups_path, &plan.id);
        if must_limit && let Some(why) = planned.lacks(linux.resources.as_ref()) {
            bail!(
                "limits of memory, CPU time and processes need a control group, and {why}: {}",
                how_to_limit(&planned)
            );
        }
        // In a container they often are. What nobody asked limits of runs without a group, as a user's does.
        if plan.ordinary_init && planned.is_read_only() {
            log::debug("the control groups are read-only: none is made");
            Cgroup::default()
        } else {
            planned
        }
    };
    let ids = if rootless {
        rootless::enter(&linux)?;
        Ids::Entered
    } else {
        ids_of(&linux)
    };
    let mut container = Container::record(
        &globals.root(),
        State {
            oci_version: plan.config.oci_version.clone(),
            id: plan.id.clone(),
            bundle: plan.bundle.clone(),
            rootfs: plan.rootfs.clone(),
            recorded: Recorded::Creating,
            attached: plan.attached,
            created: clock::rfc3339(clock::now()),
            owner_uid,
            rootless,
            annotations: plan.config.annotations.clone(),
            cgroup,
            hooks: plan.config.hooks.clone().unwrap_or_default(),
            resources: linux.resources.clone().unwrap_or_default(),
            ..State::default()
        },
    )?;
    if let Err(error) = container.state.cgroup.ensure_unused() {
        container.forget_record();
        return Err(error);
    }
    match fill(globals, &plan, &linux, &ids, &mut container, view) {
        Ok(Filled { pidfd, tie, relay }) => Ok(Created { container, pidfd, tie, relay }),
        Err(error) => {
            container.forget();
            Err(error)
        }
    }
}

/// What helps where no control group can be made.
fn how_to_limit(planned: &Cgroup) -> &'static str {
    if planned.is_read_only() {
        "limit that container itself (docker run --memory, --cpus, --pids-limit)"
    } else {
        "run it as root, or as a user by systemd-run --user --scope -p Delegate=yes (cgroup version 2)"
    }
}

/// What [`fill`] leaves to its caller.
struct Filled {
    pidfd: OwnedFd,
    tie: Option<Tie>,
    relay: Option<Relay>,
}

/// Everything after the record.
fn fill(
    globals: &Globals,
    plan: &Plan,
    linux: &Linux,
    ids: &Ids,
    container: &mut Container,
    view: impl FnOnce(&mut FdList) -> Result<View>,
) -> Result<Filled> {
    let process = plan.process.clone();
    let cgroup = container.state.cgroup.clone();
    cgroup.create(linux.resources.as_ref())?;
    let (network, mode) = network_of(linux)?;
    let mut sysctl = linux.sysctl.clone();
    let wanted = binder::wanted(plan, linux, &network, container.state.rootless)?;
    if let Network::Join(namespace) = &network {
        launch::set_network_sysctls(namespace.as_fd(), &linux.sysctl)?;
        if let Some(first) = launch::low_ports(namespace.as_fd(), container.state.rootless)? {
            sysctl.insert(control::UNPRIVILEGED_PORT_START.to_owned(), first);
        }
    }
    let entrance = cgroup.entrance()?;
    let (io_priority, rlimits) = (process.io_priority, process.rlimits.clone());
    let kernel = launch::spawn(&plan.id, ids, network, &entrance, |pid| {
        if let Some(priority) = io_priority {
            // Inherited by the guest's processes.
            host::process::set_io_priority(pid, priority).context("process.ioPriority: ioprio_set")?;
        }
        launch::raise_limits(pid, &rlimits);
        container.set_process(pid)?;
        cgroup.place(pid, linux.resources.as_ref())
    })?;
    drop(entrance);
    let all_hooks = container.state.hooks.clone();
    if !all_hooks.prestart.is_empty()
        || !all_hooks.create_runtime.is_empty()
        || !all_hooks.create_container.is_empty()
    {
        let state = container.hook_state(Status::Creating)?;
        hooks::run("prestart", &all_hooks.prestart, &state)?;
        hooks::run("createRuntime", &all_hooks.create_runtime, &state)?;
        hooks::run("createContainer", &all_hooks.create_container, &state)?;
    }

    let mut fds = FdList::default();
    let binder = match wanted {
        Some(wanted) => {
            let channel = fds.add(binder::start(&wanted, &cgroup, &plan.id)?);
            Some(BinderSpec { channel, opens: wanted.duties.opens })
        }
        None => None,
    };
    let (stdio, relay) = open_stdio(plan, &process, &mut fds)?;
    let preserved = preserved(plan.preserve_fds, &globals.inherited, &mut fds)?;
    let view = view(&mut fds)?;
    let hierarchy = Hierarchy::find();
    let cpu_quota = crate::cgroup::quota::open(&cgroup, &hierarchy, &mut fds);
    let load = std::fs::File::open("/proc/loadavg").ok().map(|file| fds.add(file));
    let meminfo = std::fs::File::open("/proc/meminfo").ok().map(|file| fds.add(file));
    let memory_groups = crate::cgroup::quota::open_memory(&cgroup, &hierarchy, &mut fds);
    let control = fds.add(container.listen()?);
    let start_container_hooks =
        all_hooks.start_container.iter().map(|hook| guest_hook(hook, &process)).collect();
    let stub_oom_score_adj = process.oom_score_adj.unwrap_or(0);
    let tracing = open_tracing(globals, &plan.id, process.terminal, &mut fds)?;
    let spec = BootSpec {
        id: plan.id.clone(),
        hostname: some_text(&plan.config.hostname),
        domainname: some_text(&plan.config.domainname),
        process,
        stdio,
        preserved,
        root: view.root,
        mounts: view.mounts,
        host_uds: host_uds(globals, &plan.config)?,
        root_propagation: oci::mounts::propagation(&linux.rootfs_propagation),
        devices: translate::devices(linux)?,
        masked_paths: linux.masked_paths.clone(),
        readonly_paths: linux.readonly_paths.clone(),
        sysctl,
        control,
        network: mode,
        network_rights: network_rights(mode, plan),
        binder,
        cgroup: translate::cgroup_info(linux.resources.as_ref()),
        cpus: crate::cgroup::quota::online_cpus(),
        cpu_quota,
        load,
        meminfo,
        memory_groups,
        uid_mappings: translate::id_mappings(&linux.uid_mappings),
        gid_mappings: translate::id_mappings(&linux.gid_mappings),
        seccomp: linux.seccomp.as_ref().map(seccomp::resolve).transpose()?,
        memory_policy: linux.memory_policy.as_ref().map(translate::memory_policy).transpose()?,
        annotations: plan.config.annotations.clone(),
        start_container_hooks,
        hook_state: container.hook_state(Status::Created)?,
        stub_oom_score_adj: if rootless::host_uid() != 0 {
            // Nobody may go below the caller's score; the guest goes above.
            stub_oom_score_adj.max(500)
        } else {
            stub_oom_score_adj
        },
        tracing,
        jail: globals.jail.unwrap_or(JailMode::On),
        platform: control::PlatformSpec {
            checked_memory: globals.memory == MemoryMode::Checked,
            without: globals.without.clone(),
        },
        own_id: ids.own_id(),
        ordinary_init: plan.ordinary_init,
        job_control: plan.job_control,
    };
    kernel.boot(&spec, fds)?;
    container.state.recorded = Recorded::Created;
    container.save()?;
    if let Some(path) = &plan.pid_file {
        write_pid_file(path, kernel.pid)?;
    }
    let (pidfd, tie) = if plan.attached {
        let (pidfd, tie) = kernel.attach()?;
        (pidfd, Some(tie))
    } else {
        (kernel.release()?, None)
    };
    Ok(Filled { pidfd, tie, relay })
}

/// The annotation of config.json that says what `--host-uds` says.
pub(crate) const HOST_UDS: &str = "org.sallet.host-uds";

/// What the flag and the annotation grant. Who set the flag has said how much an annotation may.
fn host_uds(globals: &Globals, config: &Config) -> Result<HostUds> {
    let Some(text) = config.annotations.get(HOST_UDS) else {
        return Ok(globals.host_uds.unwrap_or_default());
    };
    let wanted = HostUds::named(text)
        .with_context(|| format!("annotation {HOST_UDS}: {text:?} is not none, mounted, open or all"))?;
    if let Some(most) = globals.host_uds.filter(|most| wanted > *most) {
        bail!("annotation {HOST_UDS}: {} is more than --host-uds={} allows", wanted.name(), most.name());
    }
    Ok(wanted)
}

/// A startContainer hook as a guest program: in the first process's
/// environment unless it has one of its own.
fn guest_hook(hook: &Hook, process: &ProcessSpec) -> StartHook {
    let arguments = hook.args.iter().skip(1).map(OsString::from);
    let process = ProcessSpec {
        args: std::iter::once(hook.path.clone().into_os_string()).chain(arguments).collect(),
        env: match &hook.env[..] {
            [] => process.env.clone(),
            own => own.iter().map(OsString::from).collect(),
        },
        cwd: "/".into(),
        capabilities: process.capabilities,
        ..ProcessSpec::default()
    };
    StartHook { process, timeout_seconds: hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()) }
}

/// Opens what the bundle mounts.
fn bundle_view(config: &Config, bundle: &Path, rootfs: &Path, fds: &mut FdList) -> Result<View> {
    let readonly = config.root.as_ref().is_some_and(|root| root.readonly);
    let tree =
        host::mount::clone_tree(rootfs).with_context(|| format!("open rootfs {}", rootfs.display()))?;
    let root = RootSpec::Host { fd: fds.add(tree), readonly, private_overlay: false };
    let mut mounts = Vec::new();
    let mut binder = Binder::default();
    for mount in &config.mounts {
        let parsed = parse(mount)?;
        match &parsed.kind {
            ParsedKind::Internal(kind) => {
                if matches!(kind, MountKind::Proc | MountKind::Sysfs) {
                    check_mount_point(rootfs, &parsed.destination)?;
                }
                mounts.push(MountSpec {
                    destination: parsed.destination.into(),
                    source: parsed.source.into(),
                    kind: kind.clone(),
                    flags: parsed.flags,
                    data: parsed.data,
                });
            }
            ParsedKind::Bind { recursive } => binder
                .bind(bundle, &parsed, *recursive, fds, &mut mounts)
                .with_context(|| format!("mount {} to {}", parsed.source, parsed.destination))?,
        }
    }
    Ok(View { root, mounts })
}

/// proc and sysfs belong on a real folder of the image: a link would let the
/// image choose which one is hidden.
fn check_mount_point(rootfs: &Path, destination: &str) -> Result<()> {
    match fs::symlink_metadata(rootfs.join(destination.trim_start_matches('/'))) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!("filesystem {destination:?} must be mounted on ordinary directory")
        }
        _ => Ok(()),
    }
}

fn open_stdio(plan: &Plan, process: &ProcessSpec, fds: &mut FdList) -> Result<(StdioSpec, Option<Relay>)> {
    if !process.terminal {
        let mut stream = |fd| -> Result<FdIndex> {
            Ok(fds.add(host::inherited::duplicate(fd).context("standard streams")?))
        };
        return Ok((StdioSpec::Files([stream(0)?, stream(1)?, stream(2)?]), None));
    }
    let pty = Pty::open(process.console_size)?;
    let relay = match &plan.terminal {
        Terminal::None => bail!("a terminal is asked for, but nobody holds its other end"),
        Terminal::Socket(socket) => {
            pty.send_master(socket)?;
            None
        }
        Terminal::Ours(callers) => Some(Relay::new(pty.master, callers.clone())),
    };
    let error = plan.error_elsewhere.then(|| host::inherited::duplicate(2).context("standard error"));
    let error = error.transpose()?.map(|error| fds.add(error));
    Ok((StdioSpec::Terminal { slave: fds.add(pty.slave), error }, relay))
}

/// The caller's descriptors from 3 on, at most `count`. There may be fewer, but
/// no hole: the program gets them as 3, 4, …
pub(crate) fn preserved(count: u32, inherited: &[RawFd], fds: &mut FdList) -> Result<Vec<FdIndex>> {
    let last = 2 + i32::try_from(count).unwrap_or(i32::MAX - 2);
    let mut wanted: Vec<RawFd> = inherited.iter().copied().filter(|fd| (3..=last).contains(fd)).collect();
    wanted.sort_unstable();
    if let Some((place, fd)) = (3..).zip(&wanted).find(|(place, fd)| place != *fd) {
        bail!("descriptor {fd} shall be preserved, but {place} is not open");
    }
    wanted
        .into_iter()
        .map(|fd| Ok(fds.add(host::inherited::duplicate(fd).context("preserve descriptors")?)))
        .collect()
}

fn open_tracing(globals: &Globals, id: &str, terminal: bool, fds: &mut FdList) -> Result<Tracing> {
    let mut debug_log = None;
    if let Some(path) = &globals.debug_log {
        let path = if path.is_dir() { path.join(format!("{id}.log")) } else { path.clone() };
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(|| format!("--debug-log: open {}", path.display()))?;
        debug_log = Some(fds.add(file));
    }
    if globals.strace && debug_log.is_none() {
        // In raw mode its lines would not begin at the left, and they would lie in the program's own output.
        ensure!(!terminal, "--strace of a program with a terminal wants --debug-log FILE");
        debug_log = Some(fds.add(host::inherited::duplicate(2)?));
    }
    Ok(Tracing { debug_log, strace: globals.strace, debug: globals.debug })
}

fn ids_of(linux: &Linux) -> Ids {
    let own = linux.namespaces.iter().any(|n| n.kind == "user");
    if own && !linux.uid_mappings.is_empty() && !linux.gid_mappings.is_empty() {
        Ids::Mapped {
            uids: translate::id_mappings(&linux.uid_mappings),
            gids: translate::id_mappings(&linux.gid_mappings),
        }
    } else {
        // As on the host, or in the user namespace that an engine made around us.
        let all = |file| fs::read_to_string(file).map(|map| rootless::identity(&map)).unwrap_or_default();
        Ids::Mapped { uids: all("/proc/self/uid_map"), gids: all("/proc/self/gid_map") }
    }
}

fn network_of(linux: &Linux) -> Result<(Network, NetworkMode)> {
    let found = linux.namespaces.iter().find(|n| n.kind == "network");
    match found {
        None => {
            if let Some(name) = linux.sysctl.keys().find(|name| name.starts_with("net.")) {
                bail!("sysctl \"{name}\" not allowed in host network namespace");
            }
            Ok((Network::Caller, NetworkMode::Host))
        }
        Some(namespace) if namespace.path.is_empty() => Ok((Network::New, NetworkMode::Own)),
        Some(namespace) => {
            let file = fs::File::open(&namespace.path)
                .with_context(|| format!("network namespace {}", namespace.path))?;
            Ok((Network::Join(file.into()), NetworkMode::Joined))
        }
    }
}

/// What the kernel process keeps of the capabilities that the first process could have. Over a namespace that is
/// joined, or the host's, it could have none.
fn network_rights(mode: NetworkMode, plan: &Plan) -> NetworkRights {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    let own = mode == NetworkMode::Own;
    let granted = plan.process.capabilities.bounding;
    NetworkRights {
        raw: own && granted & NET_RAW != 0,
        // `do` gives its program every capability without being asked for this one.
        admin: own && granted & NET_ADMIN != 0 && !plan.ordinary_init,
    }
}

/// Writes a pid file in one step.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let draft = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::write(&draft, pid.to_string())
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("write pid file {}", path.display()))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
