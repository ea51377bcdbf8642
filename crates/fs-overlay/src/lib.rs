//! A private writable layer above a tree that stays as it is.
//!
//! The upper layer is a file system that nobody else sees (a tmpfs), so that what ties both together
//! (which names are hidden, which file came from where) is kept in memory and not in the layer.
//! A file is copied up when it is first changed; whoever has it open for reading keeps the lower one.
#![forbid(unsafe_code)]

mod copy_up;
mod directory;
mod file_system;
mod inode;
mod names;

#[cfg(test)]
mod tests;

pub use file_system::OverlayFs;
