//! The machine under raw guest code, without a kernel.

mod basic;
mod common;
mod state;
