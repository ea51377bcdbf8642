//! tmpfs: files in memory.
#![forbid(unsafe_code)]
