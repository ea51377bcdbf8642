//! What a thread was told that can be granted to it.

use std::sync::Arc;

use executor::Events;
use vfs::OpenFile;

use super::is_stream;

/// A stream that was found ready, or was just read.
pub struct Ready {
    /// By this descriptor.
    pub fd: i32,
    /// The stream.
    pub file: Arc<OpenFile>,
    /// It is to be read.
    pub reads: bool,
    /// It had not ended, or its end will be told for as long as nobody has read it.
    pub open: bool,
    /// Bytes that were just asked for, and came; 0 if nobody has read.
    pub asked: usize,
}

impl Ready {
    /// What a wait has found at a descriptor; none if it is no stream, or one that tells of an end.
    pub fn found(fd: i32, file: &Arc<OpenFile>, events: Events, open: bool) -> Option<Ready> {
        let ends = Events::ERR | Events::HUP | Events::RDHUP;
        let fits = events.intersects(Events::IN | Events::OUT) && !events.intersects(ends) && is_stream(file);
        fits.then(|| Ready { fd, file: file.clone(), reads: events.contains(Events::IN), open, asked: 0 })
    }
}
