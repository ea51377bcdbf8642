//! Tasks, wait queues, timers and the driver of host readiness.
#![forbid(unsafe_code)]

/// Placeholder until the executor lands.
pub struct WaitQueue;
