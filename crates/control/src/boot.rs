//! Everything a kernel process is told when it is born.
//!
//! The descriptors named here by [`FdIndex`] travel beside the message with
//! `SCM_RIGHTS`; the kernel process opens nothing by path.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::ProcessSpec;

/// The sysctl of the first port that everybody may bind: ip(7).
pub const UNPRIVILEGED_PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";

/// Position of a descriptor among those sent with the [`BootSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdIndex(pub usize);

/// One sandbox, ready to boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BootSpec {
    /// Container id.
    pub id: String,
    /// Guest host name; the host's own where absent.
    pub hostname: Option<String>,
    /// Guest NIS domain name.
    pub domainname: Option<String>,
    /// The first process. It is prepared at boot and runs at `Start`.
    pub process: ProcessSpec,
    /// Its standard streams.
    pub stdio: StdioSpec,
    /// Further descriptors the first process inherits as 3, 4, …
    pub preserved: Vec<FdIndex>,
    /// The root file system.
    pub root: RootSpec,
    /// Mounts in the order of the configuration.
    pub mounts: Vec<MountSpec>,
    /// Which sockets and FIFOs in them reach programs of the host.
    #[serde(default)]
    pub host_uds: HostUds,
    /// How mount events travel from the root.
    #[serde(default)]
    pub root_propagation: Option<Propagation>,
    /// Device nodes to make in `/dev` beside the default ones.
    pub devices: Vec<DeviceSpec>,
    /// Guest paths made unreadable.
    pub masked_paths: Vec<String>,
    /// Guest paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Guest `/proc/sys` values by dotted name (`net.*` also on the host's
    /// side where the network namespace is ours).
    pub sysctl: BTreeMap<String, String>,
    /// Listening control socket.
    pub control: FdIndex,
    /// Network of the sandbox.
    pub network: NetworkMode,
    /// What the kernel process may do there beside ordinary sockets.
    #[serde(default)]
    pub network_rights: NetworkRights,
    /// Who does there what the kernel process may not.
    #[serde(default)]
    pub binder: Option<BinderSpec>,
    /// What the guest may know of its limits.
    pub cgroup: CgroupInfo,
    /// CPUs of the host that are online.
    pub cpus: usize,
    /// Where the kernel process reads how much CPU time it has: the container's group and those above.
    #[serde(default)]
    pub cpu_quota: Vec<QuotaFds>,
    /// The host's `/proc/loadavg`: how many threads want its CPUs.
    #[serde(default)]
    pub load: Option<FdIndex>,
    /// The host's `/proc/meminfo`.
    #[serde(default)]
    pub meminfo: Option<FdIndex>,
    /// Where the kernel process reads how much memory it may use: the container's group and those above.
    #[serde(default)]
    pub memory_groups: Vec<MemoryFds>,
    /// Guest user id ranges, when the bundle asks for a user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Guest group id ranges, likewise.
    pub gid_mappings: Vec<IdMapping>,
    /// The container's filter of system calls.
    pub seccomp: Option<SeccompSpec>,
    /// Where the host takes the guest's memory from.
    pub memory_policy: Option<MemoryPolicy>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// OCI startContainer hooks, run inside before the first program.
    pub start_container_hooks: Vec<StartHook>,
    /// OCI state for those hooks' standard input, as JSON text.
    pub hook_state: String,
    /// Value for `/proc/PID/oom_score_adj` of stub processes.
    pub stub_oom_score_adj: i32,
    /// Diagnostics.
    pub tracing: Tracing,
    /// Whether the kernel process locks itself in.
    pub jail: JailMode,
    /// How guest code runs.
    #[serde(default)]
    pub platform: PlatformSpec,
    /// User and group id, in its own user namespace, that the kernel process
    /// takes; absent where the one mapped id must do (rootless).
    pub own_id: Option<u32>,
    /// Signals without a handler end the first process too, unlike the init of a pid namespace: a program that
    /// somebody started by hand is to end by Ctrl-C.
    #[serde(default)]
    pub ordinary_init: bool,
    /// The caller belongs to a job of a shell, and stops and continues with the first process: its group is not
    /// orphaned.
    #[serde(default)]
    pub job_control: bool,
}

/// A hook that runs inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHook {
    /// Its program.
    pub process: ProcessSpec,
    /// Seconds that it may take; absent is no limit.
    pub timeout_seconds: Option<u64>,
}

/// Standard streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdioSpec {
    /// One host pty slave in raw mode; the guest's line discipline runs on it. Standard error may lie elsewhere.
    Terminal {
        /// The pty slave.
        slave: FdIndex,
        /// Standard error, where it is not the terminal.
        error: Option<FdIndex>,
    },
    /// Three descriptors: standard input, output, error.
    Files([FdIndex; 3]),
}

/// Where `/` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSpec {
    /// A detached mount of a host directory.
    Host {
        /// The mount.
        fd: FdIndex,
        /// Refuse writes.
        readonly: bool,
        /// Keep writes in memory, above the directory.
        private_overlay: bool,
    },
    /// An empty tmpfs; mount points are made as needed.
    Scratch,
}

/// Which sockets and FIFOs of the host join programs of the guest with those outside; all others join programs of the
/// guest alone. Each grants what those before it grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostUds {
    /// None.
    None,
    /// Those that are the source of a mount themselves.
    #[default]
    Mounted,
    /// Those in host directories that are mounted writable, too.
    Open,
    /// And what is bound in those directories is the host's.
    All,
}

impl HostUds {
    /// All of them, by name.
    pub const NAMES: [(&str, HostUds); 4] = [
        ("none", HostUds::None),
        ("mounted", HostUds::Mounted),
        ("open", HostUds::Open),
        ("all", HostUds::All),
    ];

    /// By its name.
    pub fn named(name: &str) -> Option<HostUds> {
        HostUds::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        HostUds::NAMES.into_iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

/// One mount of the guest's first mount namespace. Its mount point is made
/// when it is missing (a file for a file, else a directory).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute guest path.
    pub destination: OsString,
    /// The source as `/proc/self/mountinfo` shall show it.
    pub source: OsString,
    /// What is mounted.
    pub kind: MountKind,
    /// Per-mount flags.
    pub flags: MountFlags,
    /// File system options left over, comma separated (`size=64m,mode=1777`).
    pub data: String,
}

/// What is mounted at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A detached mount of a host file or directory.
    Bind {
        /// The mount.
        fd: FdIndex,
        /// Whether it is a directory.
        directory: bool,
        /// Keep writes in memory, above the directory.
        private_overlay: bool,
    },
    /// tmpfs.
    Tmpfs {
        /// Fill it first with what the mount point shows (`tmpcopyup`).
        copy_up: bool,
    },
    /// proc.
    Proc,
    /// sysfs.
    Sysfs,
    /// devpts.
    Devpts,
    /// The tmpfs at `/dev`, with its default nodes and links.
    Dev,
    /// POSIX message queues.
    Mqueue,
    /// cgroup or cgroup2.
    Cgroup,
    /// A symbolic link, not a mount: made in the root as it stands.
    Symlink {
        /// Contents of the link.
        target: OsString,
    },
}

/// Per-mount flags; all off is a writable mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFlags {
    /// `ro`
    pub readonly: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`
    pub noatime: bool,
    /// `nodiratime`
    pub nodiratime: bool,
    /// `relatime`
    pub relatime: bool,
    /// `strictatime`
    pub strictatime: bool,
    /// `nosymfollow`
    pub nosymfollow: bool,
    /// How mount events travel, as mountinfo shows it.
    pub propagation: Option<Propagation>,
}

/// How mount events travel to and from a mount: mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named in mount_namespaces(7)")]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

/// A device node of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Absolute guest path.
    pub path: String,
    /// Character, block or FIFO.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Type of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// How the sandbox reaches a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A namespace of its own, made with the kernel process; holds loopback
    /// and what an engine's hook puts there.
    Own,
    /// A namespace given by path, entered before the jail.
    Joined,
    /// The host's.
    Host,
}

/// The binder of a network over which the kernel process has no right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinderSpec {
    /// Over which it is asked.
    pub channel: FdIndex,
    /// Whether it opens raw and packet sockets, beside binding ports below 1024.
    pub opens: bool,
}

/// Capabilities over a network namespace that was made with the kernel process. Over any other one it has none, whatever
/// the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkRights {
    /// `CAP_NET_RAW`: raw and packet sockets.
    pub raw: bool,
    /// `CAP_NET_ADMIN`: changes of interfaces, addresses and routes.
    pub admin: bool,
}

/// Limits the guest is shown; the cgroup enforces them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupInfo {
    /// Bytes; absent is no limit.
    pub memory_limit: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap_limit: Option<u64>,
    /// Microseconds of CPU time per period; absent is no quota.
    pub cpu_quota_us: Option<u64>,
    /// Length of the period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// `cpu.weight`, 1 to 10000.
    pub cpu_weight: Option<u64>,
    /// Greatest number of tasks.
    pub pids_limit: Option<u64>,
}

impl CgroupInfo {
    /// Whether it limits anything.
    pub fn has_limits(&self) -> bool {
        *self != CgroupInfo::default()
    }
}

/// Control files of one group, open for reading: cgroups(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaFds {
    /// `cpu.max`, or version 1's `cpu.cfs_quota_us`.
    pub quota: FdIndex,
    /// Version 1's `cpu.cfs_period_us`.
    pub period: Option<FdIndex>,
    /// `cpu.stat`.
    pub stat: Option<FdIndex>,
}

/// Control files of one group, open for reading: cgroups(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFds {
    /// `memory.max`, or version 1's `memory.limit_in_bytes`.
    pub limit: FdIndex,
    /// `memory.current`, or version 1's `memory.usage_in_bytes`.
    pub usage: FdIndex,
    /// `memory.stat`.
    pub stat: FdIndex,
    /// What happened at the limit: `memory.events`, or version 1's `memory.oom_control` and `memory.failcnt`.
    #[serde(default)]
    pub events: Vec<FdIndex>,
    /// `memory.peak`, or version 1's `memory.max_usage_in_bytes`.
    #[serde(default)]
    pub peak: Option<FdIndex>,
    /// The container has it for itself.
    pub own: bool,
}

/// One range of ids, as in /proc/PID/uid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// Length of the range.
    pub length: u32,
}

/// A memory policy of set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// Mode and flags.
    pub mode: u32,
    /// Numbers of memory nodes.
    pub nodes: Vec<u16>,
}

/// An engine's profile of system calls, with names resolved to numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompSpec {
    /// For calls that no rule is about.
    pub default: SeccompAction,
    /// Greatest number that the profile names.
    pub newest: u32,
    /// In the order of the profile.
    pub rules: Vec<SeccompRule>,
}

/// One rule of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    /// Numbers of calls.
    pub numbers: Vec<u32>,
    /// What happens when all conditions hold.
    pub action: SeccompAction,
    /// Conditions on arguments.
    pub conditions: Vec<SeccompCondition>,
}

/// What becomes of a call, as in seccomp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named in seccomp(2)")]
pub enum SeccompAction {
    Allow,
    Log,
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompCondition {
    /// 0 to 5.
    pub index: usize,
    /// How it is compared.
    pub compare: SeccompCompare,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the operators are")]
pub enum SeccompCompare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`
    Masked(u64),
}

/// Diagnostics asked for on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// Destination of debug messages.
    pub debug_log: Option<FdIndex>,
    /// Whether the guest's system calls go there too, in strace's format.
    pub strace: bool,
    /// Whether debug messages are wanted at all.
    pub debug: bool,
}

/// Whether the kernel process locks itself in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JailMode {
    /// Everything.
    On,
    /// Everything but the seccomp filter.
    NoSeccomp,
    /// Nothing: a development aid.
    Off,
    /// Everything; then attempts to get out, whose result is the answer to the
    /// boot specification.
    Probe,
}

/// How guest code runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformSpec {
    /// The kernel process sees every memory call (`--memory=checked`).
    pub checked_memory: bool,
    /// Things that it is to do without.
    pub without: Vec<HostFeature>,
}

/// Something that makes guests faster or safer where it can be had, and that can be turned off to test a sandbox
/// without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostFeature {
    /// Flags of seccomp notification: `WAIT_KILLABLE_RECV` (Linux 5.19), `SYNC_WAKE_UP` (Linux 6.6).
    NotifyFlags,
    /// mseal(2) (Linux 6.10).
    Sealing,
    /// Rewriting of system call sites, by /proc/PID/mem.
    Patching,
    /// A worker that spins on an idle CPU.
    Spinning,
    /// Calls without a doorbell while the worker that hears it is awake.
    Parking,
    /// A look at whether that pays.
    ParkingTrial,
    /// Reads and writes of streams without an answer.
    Posting,
    /// A look at whether these pay: they are granted at once, and again and again.
    PostingTrial,
}

/// Answer to a [`BootSpec`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootReply {
    /// The first process stands ready and waits for `Start`.
    Ready,
    /// The sandbox could not be made; the kernel process ends.
    Failed {
        /// One line for the engine.
        message: String,
    },
}

/// Sent by the runtime after [`BootReply::Ready`] when the sandbox shall live
/// on without it. Until then, and for ever where it is never sent, the end of
/// the connection ends the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach;
