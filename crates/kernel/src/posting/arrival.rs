//! A stream in which nothing waits, until something comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, Key, Observer, WaitQueue};
use platform::PostArea;
use vfs::OpenFile;

/// While it lives, whatever comes takes back what a thread was told of the stream.
pub(super) struct Arrival {
    queue: Arc<WaitQueue>,
    key: Key,
    seen: Arc<Seen>,
}

struct Seen {
    area: PostArea,
    place: usize,
    came: AtomicBool,
}

impl Observer for Seen {
    fn notify(&self, _events: Events) -> bool {
        // Before: who is about to tell looks at this afterwards.
        self.came.store(true, Ordering::SeqCst);
        self.area.not_dry(self.place);
        false
    }
}

impl Arrival {
    /// Of an open file's wait queue; none if it has none.
    pub(super) fn of(file: &OpenFile, area: &PostArea, place: usize) -> Option<Arrival> {
        let queue = file.ops().wait_queue()?;
        let seen = Arc::new(Seen { area: area.clone(), place, came: AtomicBool::new(false) });
        let key = queue.add(seen.clone(), Events::READABLE | Events::RDHUP, false);
        Some(Arrival { queue, key, seen })
    }

    /// Whether anything has come.
    pub(super) fn came(&self) -> bool {
        self.seen.came.load(Ordering::SeqCst)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.queue.remove(self.key);
    }
}
