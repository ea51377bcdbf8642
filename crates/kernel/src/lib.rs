//! Processes, threads, signals, descriptors and everything they share.
#![forbid(unsafe_code)]
