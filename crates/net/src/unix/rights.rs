//! Descriptors on their way in messages (`SCM_RIGHTS`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use linux_abi::Errno;
use linux_abi::socket::SCM_MAX_FD;
use parking_lot::Mutex;
use vfs::OpenFile;

use crate::Result;

/// The most files in flight.
const MAX_IN_FLIGHT: usize = 65_536;

static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);

/// Files that a message carries. Counted while they are on their way.
#[derive(Default)]
pub(super) struct Rights(Vec<Arc<OpenFile>>);

impl Rights {
    /// `EINVAL` for more than one message takes, `ETOOMANYREFS` if too many are in flight.
    pub(super) fn new(files: Vec<Arc<OpenFile>>) -> Result<Rights> {
        if files.len() > SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        let before = IN_FLIGHT.fetch_add(files.len(), Ordering::Relaxed);
        // Those in circles are never closed: who only makes such closes none.
        if super::garbage::fly(&files) {
            super::garbage::collect();
        }
        let rights = Rights(files);
        // Dropping them takes the count back.
        if before.saturating_add(rights.0.len()) > MAX_IN_FLIGHT {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(rights)
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The files, for a look (`MSG_PEEK`).
    pub(super) fn files(&self) -> Vec<Arc<OpenFile>> {
        self.0.clone()
    }
    /// The same, to be looked at where they are.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<OpenFile>> {
        self.0.iter()
    }
    /// Takes them out of flight.
    pub(super) fn take(&mut self) -> Vec<Arc<OpenFile>> {
        IN_FLIGHT.fetch_sub(self.0.len(), Ordering::Relaxed);
        super::garbage::land(&self.0);
        std::mem::take(&mut self.0)
    }
}

#[derive(Default)]
struct Graves {
    files: Vec<Arc<OpenFile>>,
    digging: bool,
}

static GRAVES: Mutex<Graves> = Mutex::new(Graves { files: Vec::new(), digging: false });

impl Drop for Rights {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        // A socket in flight may hold another one in flight, and so on: one loop drops them all, as a chain of
        // destructors would overflow the stack.
        let files = self.take();
        let mut graves = GRAVES.lock();
        graves.files.extend(files);
        if graves.digging {
            return;
        }
        graves.digging = true;
        while let Some(file) = graves.files.pop() {
            drop(graves);
            drop(file);
            graves = GRAVES.lock();
        }
        graves.digging = false;
    }
}
