//! The image of the stub: zygote and shim, the only code of ours inside a guest process.
//!
//! `build.rs` compiles `shim/` for its fixed address, without vector instructions, so that a patched
//! call keeps every register that Linux keeps.
#![no_std]
#![forbid(unsafe_code)]

/// A static ELF program: exec it with the shared files at the descriptors that `slot::layout` names.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));
