//! The machine under raw guest code, without a kernel.
#![expect(clippy::panic, reason = "helpers of tests fail so")]

mod attacks;
mod basic;
mod common;
mod patched;
mod state;
