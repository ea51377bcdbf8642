//! Guest processes as a machine: address spaces, guest threads and their exits.
//!
//! A guest runs in host processes ("stubs") under a seccomp filter; the shim inside them puts each exit
//! into a slot of shared memory and rings. See `docs/decisions` and the files here: `filter` (what may
//! run natively), `slots` (the shared memory), `machine` (threads and processes), `worker` (doorbells and
//! announced calls), `native` (native calls that somebody wants to see), `spinner` (answers without a doorbell), `patch` (sites that no longer trap), `kept` (files that stay in a process), `posting` (calls that need no answer), `thread` (the kernel's handle).

mod bpf;
mod filter;
mod instructions;
mod kept;
mod limits;
mod machine;
mod names;
mod native;
mod parking;
mod patch;
mod placement;
mod posting;
mod process;
mod quota;
mod slots;
mod spinner;
mod start;
mod thread;
mod types;
mod vdso;
mod watch;
mod worker;

/// What the guest has no part in: the shim's ranges of a guest's address space.
pub mod shim {
    use std::ops::Range;

    use slot::layout;

    /// Addresses of it, all of them mapped.
    pub const RANGES: [Range<u64>; 2] = [
        (layout::RESERVED_HI as u64) << 32..(layout::PROTECTED_HI_END as u64) << 32,
        layout::TABLE_VA..layout::TABLE_VA + layout::TABLE_SIZE,
    ];
    /// Bytes of them that the host counts as data (`RLIMIT_DATA`): the shim's stacks, and its own.
    pub const DATA: u64 = layout::MAX_THREADS as u64 * layout::STACK_SIZE + 4096;

    /// Bytes of them all.
    pub fn size() -> u64 {
        RANGES.iter().map(|range| range.end - range.start).sum()
    }
}

pub use filter::{KEPT_CALLS, NATIVE_CALLS};
pub use machine::{Platform, Usage};
pub use names::{MAX_NAME, NameKind, name_hash};
pub use posting::{
    FILES, Granted, MAX_CONTENTS, MAX_COUNTS, MAX_GRANTS, MAX_POSTED, MAX_PREFETCHED, PostArea, Posted, What,
};
pub use process::{AddressSpace, LOWEST_ADDRESS, before_reserved, is_reserved, touches_reserved};
pub use quota::{Quota, QuotaFiles};
pub use start::{Config, Error};
pub use thread::{GuestThread, ThreadHandle};
pub use types::{
    CloneRequest, Exit, Fault, HostLayout, Identity, MemoryLimits, NOT_MADE, NativeOp, Regs, SignalFrame,
};
pub use vdso::Vdso;
