//! Guest processes as a machine: address spaces, guest threads and their exits.
//!
//! A guest runs in host processes ("stubs") under a seccomp filter; the shim inside them puts each exit
//! into a slot of shared memory and rings. See `docs/decisions` and the files here: `filter` (what may
//! run natively), `slots` (the shared memory), `machine` (threads and processes), `worker` (doorbells and
//! announced calls), `spinner` (answers without a doorbell), `patch` (sites that no longer trap), `thread` (the kernel's handle).

mod filter;
mod instructions;
mod machine;
mod patch;
mod process;
mod quota;
mod slots;
mod spinner;
mod start;
mod thread;
mod types;
mod watch;
mod worker;

pub use machine::{Platform, Usage};
pub use process::{AddressSpace, is_reserved};
pub use quota::{Quota, QuotaFiles};
pub use start::{Config, Error};
pub use thread::{GuestThread, ThreadHandle};
pub use types::{CloneRequest, Exit, Fault, Identity, NativeOp, Regs, SignalFrame};
