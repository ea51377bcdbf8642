//! Requests and replies between the runtime and a sandbox's kernel process.
#![forbid(unsafe_code)]
