//! `sallet`: an OCI runtime and a one-line sandbox.
#![forbid(unsafe_code)]

fn main() {}
