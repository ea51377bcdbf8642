//! The position of an open file (lseek(2)).

use std::ops::{Deref, DerefMut};

use parking_lot::MutexGuard;

use crate::OpenFile;

/// The position of an open file, to be locked.
pub struct Position<'a>(pub(crate) &'a OpenFile);

/// The locked position.
pub struct PositionGuard<'a> {
    file: &'a OpenFile,
    locked: MutexGuard<'a, u64>,
    /// Where it was, if others share it.
    before: Option<u64>,
}

impl<'a> Position<'a> {
    /// Holds the position over what uses it, so that two threads do not read the same bytes.
    pub fn lock(&self) -> PositionGuard<'a> {
        PositionGuard::new(self.0, self.0.own_position().lock())
    }

    /// The same, if nobody has it.
    pub fn try_lock(&self) -> Option<PositionGuard<'a>> {
        Some(PositionGuard::new(self.0, self.0.own_position().try_lock()?))
    }
}

impl<'a> PositionGuard<'a> {
    fn new(file: &'a OpenFile, mut locked: MutexGuard<'a, u64>) -> PositionGuard<'a> {
        let before = file.shares_position().then(|| {
            *locked = file.ops().shared_position().unwrap_or(*locked);
            *locked
        });
        PositionGuard { file, locked, before }
    }
}

impl Deref for PositionGuard<'_> {
    type Target = u64;
    fn deref(&self) -> &u64 {
        &self.locked
    }
}

impl DerefMut for PositionGuard<'_> {
    fn deref_mut(&mut self) -> &mut u64 {
        &mut self.locked
    }
}

impl Drop for PositionGuard<'_> {
    fn drop(&mut self) {
        if self.before.is_some_and(|before| before != *self.locked) {
            self.file.ops().move_shared_position(*self.locked);
        }
    }
}
