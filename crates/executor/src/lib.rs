//! Tasks, wait queues, timers and the driver of host readiness.
//!
//! A guest thread is one task. A task runs where it was woken: on the worker thread that woke it
//! (a platform worker or a blocking thread), else on the driver thread, which also watches host
//! descriptors and timers. Nothing here starts a thread before its first use.
#![forbid(unsafe_code)]

mod affinity;
mod block_on;
mod blocking;
mod clock;
mod crew;
mod deferred;
mod driver;
mod host_source;
mod pace;
mod task;
mod timer;
mod wait_queue;
mod worker;

pub use affinity::run_anywhere;
pub use block_on::block_on;
pub use blocking::{Blocking, blocking};
pub use clock::{monotonic_ns, realtime_ns};
pub use crew::{is_short, start_duty};
pub use deferred::{defer, is_owing, settle};
pub use driver::{leave_host, look_at_host, set_panic_hook};
pub use host_source::HostSource;
pub use linux_abi::poll::Events;
pub use pace::{Pace, step_aside};
pub use task::{TaskHandle, spawn, yield_now};
pub use timer::{Alarm, Sleep, sleep, sleep_until};
pub use wait_queue::{Key, Listener, Observer, WaitQueue, Waiter};
pub use worker::{is_relieved, run_ready};
