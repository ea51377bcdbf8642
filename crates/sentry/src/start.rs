//! Makes the kernel of one sandbox from its specification.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use control::{BootSpec, HostFeature, IdMapping, PlatformSpec};
use host::binder::Binder;
use host::connector::Connector;
use kernel::memory::{MemoryFiles, MemorySources};
use kernel::{Kernel, KernelConfig};
use platform::{Config, Platform, Quota, QuotaFiles};

use crate::descriptors::Descriptors;
use crate::kernel_sandbox::{KernelSandbox, set_limits};
use crate::launch;
use crate::outside::Grants;
use crate::rootfs::{self, Maker};
use crate::sandbox::{Sandbox, Stdio};
use crate::streams::Streams;

/// More CPUs than Linux knows on any machine.
const MAX_CPUS: usize = 8192;

/// What a kernel is made from, once the process is jailed.
#[derive(Debug)]
pub(crate) struct Boot {
    /// The specification.
    pub(crate) spec: BootSpec,
    /// Its descriptors, those of the control server taken out.
    pub(crate) descriptors: Descriptors,
    /// The first process's standard streams.
    pub(crate) stdio: Stdio,
    /// A procfs of our own PID namespace, processes only.
    pub(crate) proc: OwnedFd,
    /// Who connects to sockets of the host.
    pub(crate) connector: Option<Connector>,
}

/// Makes the kernel, its mounts and the first process, which must stand ready
/// to run: a missing program is an error here, as with runc.
pub(crate) fn start_sandbox(boot: Boot) -> Result<Arc<dyn Sandbox>> {
    let Boot { mut spec, mut descriptors, stdio, proc, connector } = boot;
    let proc_self_fd = rustix::fs::openat(
        proc.as_fd(),
        "self/fd",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()
    .map(Arc::new);
    if let Some(directory) = &proc_self_fd {
        fs_tmp::set_proc_self_fd(Arc::clone(directory));
    }
    host::proc_fs::set_root(proc);
    if let Some(policy) = &spec.memory_policy {
        // Stubs inherit it from us.
        host::process::set_memory_policy(policy.mode, &policy.nodes)
            .context("linux.memoryPolicy: set_mempolicy")?;
    }
    let quota = quota(&spec, &mut descriptors)?;
    let memory = memory(&spec, &mut descriptors)?;
    let config = config(&spec);
    let seen: Vec<u32> = platform::NATIVE_CALLS
        .into_iter()
        .chain(platform::KEPT_CALLS)
        .filter(|number| config.sees(*number))
        .collect();
    tracing::debug!(?seen, "calls that do not run natively");
    let helper = connector.as_ref().map(Connector::pid);
    let how = Config { quota, seen, helper, ..platform_config(&spec.platform) };
    let platform = Platform::start(how).context("start guest processes")?;
    let kernel = Kernel::new(platform, config, memory, syscalls::spawn);
    for (name, value) in &spec.sysctl {
        if !name.starts_with("net.") && name != "kernel.domainname" {
            let set = kernel.ipc.set_sysctl(name, value);
            set.map_err(|errno| anyhow::anyhow!("set sysctl {name} to {value:?}: {errno}"))?;
        }
    }
    crate::guest_mounts::register(&kernel);
    set_limits(&kernel, &spec.cgroup);
    fs_kernel::mem_devices::register(&kernel);
    let first_free_port =
        spec.sysctl.get(control::UNPRIVILEGED_PORT_START).and_then(|text| text.trim().parse().ok());
    let opens = spec.binder.is_some_and(|binder| binder.opens);
    let rights =
        net::host::Rights { raw: spec.network_rights.raw || opens, admin: spec.network_rights.admin };
    let binder = spec.binder.map(|binder| descriptors.take(binder.channel)).transpose()?;
    let binder = binder.map(|channel| Binder::new(channel, opens));
    let maker = Arc::new(net::host::Maker::new(first_free_port.unwrap_or(1024), rights, binder));
    kernel.io.network.add_provider(Arc::new(net::inet::InetProvider::new(maker.clone())));
    kernel.io.network.add_provider(Arc::new(net::netlink::NetlinkProvider));
    let outside = maker.clone();
    kernel.io.network.add_provider(Arc::new(net::host::HostProvider::new(maker)));
    let connector = connector.map(Arc::new);
    if let Some(connector) = &connector {
        kernel.io.network.set_outside(net::host::local::Outside::new(connector.clone(), outside));
    }
    let grants = Grants::of(&spec);
    let terminals = fs_kernel::tty::Terminals::register(&kernel);
    let mut maker = Maker {
        kernel: &kernel,
        terminals: &terminals,
        descriptors: &mut descriptors,
        grants,
        connector,
        proc_self_fd,
    };
    let (_namespace, root) = rootfs::build(&spec, &mut maker)?;
    let preserved = std::mem::take(&mut spec.preserved)
        .into_iter()
        .map(|fd| descriptors.take(fd))
        .collect::<Result<Vec<_>>>()?;
    let streams = Streams::open(stdio, preserved, &terminals, &root)?;
    if let Some(terminal) = &streams.terminal {
        terminals.set_console(terminal);
    }
    let init = launch::prepare(&kernel, &root, &spec.process, streams)?;
    Ok(KernelSandbox::new(kernel, root, terminals, init))
}

/// What limits our CPU time.
fn quota(spec: &BootSpec, descriptors: &mut Descriptors) -> Result<Arc<Quota>> {
    let mut groups = Vec::new();
    for files in &spec.cpu_quota {
        let mut take = |index: Option<_>| index.map(|index| descriptors.take(index)).transpose();
        let (period, stat) = (take(files.period)?, take(files.stat)?);
        groups.push(QuotaFiles { quota: descriptors.take(files.quota)?, period, stat });
    }
    let load = spec.load.map(|index| descriptors.take(index)).transpose()?;
    Ok(Arc::new(Quota { groups, load, online: spec.cpus }))
}

/// Where we learn how much memory there is.
fn memory(spec: &BootSpec, descriptors: &mut Descriptors) -> Result<MemorySources> {
    let mut groups = Vec::new();
    for files in &spec.memory_groups {
        groups.push(MemoryFiles {
            limit: descriptors.take(files.limit)?,
            usage: descriptors.take(files.usage)?,
            stat: descriptors.take(files.stat)?,
            events: files.events.iter().map(|index| descriptors.take(*index)).collect::<Result<_>>()?,
            peak: files.peak.map(|index| descriptors.take(index)).transpose()?,
            own: files.own,
        });
    }
    let meminfo = spec.meminfo.map(|index| descriptors.take(index)).transpose()?;
    Ok(MemorySources { meminfo, groups })
}

fn platform_config(spec: &PlatformSpec) -> Config {
    let has = |feature| !spec.without.contains(&feature);
    Config {
        checked_memory: spec.checked_memory,
        allow_spin: has(HostFeature::Spinning),
        parking: has(HostFeature::Parking),
        eager_parking: !has(HostFeature::ParkingTrial),
        patching: has(HostFeature::Patching),
        sealing: has(HostFeature::Sealing),
        old_host: !has(HostFeature::NotifyFlags),
        ..Config::default()
    }
}

fn config(spec: &BootSpec) -> KernelConfig {
    let mut config = KernelConfig::default();
    let uname = rustix::system::uname();
    config.hostname =
        spec.hostname.clone().unwrap_or_else(|| uname.nodename().to_string_lossy().into_owned());
    if let Some(name) = &spec.domainname {
        config.domainname.clone_from(name);
    }
    config.cpus = spec.cpus.clamp(1, MAX_CPUS);
    config.ordinary_init = spec.ordinary_init;
    config.job_control = spec.job_control;
    config.strace = spec.tracing.strace;
    config.no_posting = spec.platform.without.contains(&HostFeature::Posting);
    config.eager_posting = spec.platform.without.contains(&HostFeature::PostingTrial);
    config.seccomp = spec.seccomp.as_ref().map(crate::seccomp::compile);
    config.sysctl.clone_from(&spec.sysctl);
    if let Some(name) = config.sysctl.remove("kernel.domainname") {
        config.domainname = name;
    }
    let lines = |map: &[IdMapping]| map.iter().map(|m| [m.inside, m.outside, m.length]).collect();
    if !spec.uid_mappings.is_empty() {
        config.uid_map = lines(&spec.uid_mappings);
    }
    if !spec.gid_mappings.is_empty() {
        config.gid_map = lines(&spec.gid_mappings);
    }
    config
}
