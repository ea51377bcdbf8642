//! Who is told of input and output of an open file: fcntl(2), `F_SETOWN` and `O_ASYNC`.

use std::any::Any;
use std::sync::Arc;

use executor::WaitQueue;

/// Whose id an owner's is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP")]
pub enum OwnerKind {
    Thread,
    #[default]
    Process,
    Group,
}

/// `F_SETOWN_EX`, with the ids of who set it: they decide who may be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileOwner {
    /// Whose id it is.
    pub kind: OwnerKind,
    /// The id; 0 if there is no owner.
    pub id: i32,
    /// When the process or thread of this id was born, as ids are used again; 0 for a group.
    pub born: u64,
    /// Real user of the setter.
    pub uid: u32,
    /// Effective user of the setter.
    pub euid: u32,
}

/// What `O_ASYNC` means to a file (Linux's `fasync`).
pub struct Fasync {
    /// Woken with what happened when the owner is to be told.
    pub queue: Arc<WaitQueue>,
    /// Who becomes the owner of a file without one.
    pub otherwise: OtherwiseOwner,
}

impl Fasync {
    /// Of a file that has no owner until one is set.
    #[must_use]
    pub fn of(queue: Arc<WaitQueue>) -> Fasync {
        Fasync { queue, otherwise: OtherwiseOwner::Nobody }
    }
}

/// The owner of a file to which none was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherwiseOwner {
    /// None.
    Nobody,
    /// The process that sets `O_ASYNC`.
    Caller,
    /// This process group.
    Group(i32),
}

/// An open file's owner, the signal it gets, and what watches the file for it.
#[derive(Default)]
pub(crate) struct Ownership {
    pub(crate) owner: FileOwner,
    pub(crate) signal: i32,
    pub(crate) watch: Option<(i32, Box<dyn Any + Send + Sync>)>,
}
