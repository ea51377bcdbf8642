//! Tasks, wait queues, timers and the driver of host readiness.
#![forbid(unsafe_code)]
