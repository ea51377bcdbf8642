//! The descriptors that came with a boot specification.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use control::{FdIndex, StdioSpec};

use crate::sandbox::Stdio;

/// Received descriptors, each taken out once.
#[derive(Debug, Default)]
pub struct Descriptors {
    slots: Vec<Option<OwnedFd>>,
}

impl Descriptors {
    /// Wraps descriptors in the order they were sent.
    pub fn new(fds: Vec<OwnedFd>) -> Descriptors {
        Descriptors { slots: fds.into_iter().map(Some).collect() }
    }

    /// Takes one out; an error if it is absent or was taken before.
    pub fn take(&mut self, index: FdIndex) -> Result<OwnedFd> {
        self.slots
            .get_mut(index.0)
            .and_then(Option::take)
            .with_context(|| format!("descriptor {} was not sent, or is used twice", index.0))
    }

    /// One that is still there.
    pub fn get(&self, index: FdIndex) -> Result<BorrowedFd<'_>> {
        let fd = self.slots.get(index.0).and_then(Option::as_ref);
        Ok(fd.with_context(|| format!("descriptor {} was not sent", index.0))?.as_fd())
    }

    /// A copy of one that is still there.
    pub fn copy(&self, index: FdIndex) -> Result<OwnedFd> {
        Ok(self.get(index)?.try_clone_to_owned()?)
    }

    /// Takes the standard streams out.
    pub fn take_stdio(&mut self, stdio: StdioSpec) -> Result<Stdio> {
        Ok(match stdio {
            StdioSpec::Terminal { slave, error } => {
                Stdio::Terminal(self.take(slave)?, error.map(|error| self.take(error)).transpose()?)
            }
            StdioSpec::Files([input, output, error]) => {
                Stdio::Files([self.take(input)?, self.take(output)?, self.take(error)?])
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_taken_once() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let mut fds = Descriptors::new(vec![file.into()]);
        assert!(fds.take(FdIndex(1)).is_err());
        assert!(fds.take(FdIndex(0)).is_ok());
        assert!(fds.take(FdIndex(0)).is_err());
    }
}
