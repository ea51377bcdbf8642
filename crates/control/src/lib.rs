//! Requests and replies between the runtime and a sandbox's kernel process.
//!
//! Two conversations share one framing ([`Channel`]): the *boot* conversation
//! over an inherited socket pair, where the runtime sends a [`BootSpec`] with
//! every descriptor the kernel process will ever hold, and the *control*
//! conversation over the socket in the container's state directory.
#![forbid(unsafe_code)]

mod boot;
mod channel;
mod message;
mod process;

pub use boot::{
    BinderSpec, BootReply, BootSpec, CgroupInfo, Detach, DeviceKind, DeviceSpec, FdIndex, HostFeature,
    HostUds, IdMapping, JailMode, MemoryFds, MemoryPolicy, MountFlags, MountKind, MountSpec, NetworkMode,
    NetworkRights, PlatformSpec, Propagation, QuotaFds, RootSpec, SeccompAction, SeccompCompare,
    SeccompCondition, SeccompRule, SeccompSpec, StartHook, StdioSpec, Tracing, UNPRIVILEGED_PORT_START,
};
pub use channel::{Channel, ChannelError, MAX_BODY_BYTES, MAX_FDS};
pub use message::{ErrorKind, ExitStatus, ProcessInfo, Reply, Request, SandboxState, Stats};
pub use process::{CapabilityMasks, ConsoleSize, ProcessSpec, Rlimit, Scheduling};
