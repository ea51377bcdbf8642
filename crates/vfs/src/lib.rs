//! Inodes, dentries, mounts, path walk and open files.
//!
//! What a file-system author writes is in [`inode`], [`file_ops`] and [`file_system`]; the walk
//! from a name to a place is in `walk`. This crate knows neither tasks nor which file systems exist.
#![forbid(unsafe_code)]

pub mod acl;
pub mod anonymous;
pub mod caller;
pub mod dentry;
pub mod dentry_cache;
pub mod file_ops;
pub mod file_system;
pub mod inode;
pub mod mount;
pub mod mount_namespace;
pub mod mountinfo;
pub mod names;
#[expect(missing_docs, reason = "what happens is named in inotify(7)")]
pub mod notify;
pub mod open_file;
pub mod ops;
pub mod owner;
pub mod permission;
pub mod place;
pub mod position;
pub mod shown;
pub mod time;
pub mod walk;
pub mod writers;

pub use acl::Acl;
pub use anonymous::AnonInode;
pub use caller::Caller;
pub use dentry::{Dentry, Place};
pub use file_ops::{AT_SHARED_POSITION, AtHostFile, DirEntry, FileOps, MapRequest, MapSource, Whence};
pub use file_system::{FileSystem, StatFs};
pub use inode::{Inode, Metadata, NewNode, RenameFlags, SetAttr, SetTime};
pub use mount::{Mount, MountFlags, Propagation};
pub use mount_namespace::MountNamespace;
pub use open_file::{InUse, OpenFile};
pub use owner::{Fasync, FileOwner, OtherwiseOwner, OwnerKind};
pub use position::{Position, PositionGuard};
pub use walk::{WalkFlags, Walker};
pub use writers::{DenyWrite, Writers};

/// Results of this floor carry Linux's own error number.
pub type Result<T> = core::result::Result<T, linux_abi::Errno>;
