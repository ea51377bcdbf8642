//! Who writes a regular file and who executes it: each keeps the other out (`ETXTBSY` of open(2) and execve(2)).

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::shown::Appends;

use linux_abi::Errno;

use crate::{Inode, Result};

/// Of one file: how many have it open for writing, or, below 0, how many execute it.
#[derive(Debug, Default)]
pub struct Writers(AtomicI32, pub(crate) Appends);

impl Writers {
    /// One more writes, unless somebody executes it; `ETXTBSY`.
    fn enter(&self) -> Result<()> {
        self.add(1, |count| count >= 0)
    }
    /// Whoever entered has left.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
    /// One more executes it, unless somebody writes; `ETXTBSY`.
    fn deny(&self) -> Result<()> {
        self.add(-1, |count| count <= 0)
    }
    fn add(&self, step: i32, may: impl Fn(i32) -> bool) -> Result<()> {
        let next = |count| if may(count) { count.checked_add(step) } else { None };
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ETXTBSY),
        }
    }
}

/// Write access to a file while this lives, or for good.
pub(crate) struct Writing<'a>(Option<&'a Writers>);

impl<'a> Writing<'a> {
    /// Of whatever nobody can execute there is no account.
    pub(crate) fn begin(inode: &'a dyn Inode) -> Result<Writing<'a>> {
        let writers = inode.writers();
        if let Some(writers) = writers {
            writers.enter()?;
        }
        Ok(Writing(writers))
    }
    /// Somebody else will call `Writers::leave`; whether that is needed.
    pub(crate) fn keep(mut self) -> bool {
        self.0.take().is_some()
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(writers) = self.0 {
            writers.leave();
        }
    }
}

/// Nobody opens a file for writing while this lives.
pub struct DenyWrite(Arc<dyn Inode>);

impl DenyWrite {
    /// Of a file that is to be executed; `ETXTBSY`.
    pub fn new(inode: &Arc<dyn Inode>) -> Result<DenyWrite> {
        if let Some(writers) = inode.writers() {
            writers.deny()?;
        }
        Ok(DenyWrite(inode.clone()))
    }
}

impl Drop for DenyWrite {
    fn drop(&mut self) {
        if let Some(writers) = self.0.writers() {
            writers.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_and_programs_exclude_each_other() {
        let writers = Writers::default();
        assert_eq!([writers.enter(), writers.enter()], [Ok(()); 2]);
        assert_eq!(writers.deny(), Err(Errno::ETXTBSY));
        writers.leave();
        assert_eq!(writers.deny(), Err(Errno::ETXTBSY));
        writers.leave();
        assert_eq!([writers.deny(), writers.deny()], [Ok(()); 2]);
        assert_eq!(writers.enter(), Err(Errno::ETXTBSY));
    }
}
