//! The machine under raw guest code, without a kernel.
#![expect(clippy::panic, reason = "helpers of tests fail so")]

mod announcements;
mod attacks;
mod basic;
mod common;
mod gadget;
mod native;
mod patched;
mod state;
