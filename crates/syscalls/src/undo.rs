//! Taking back what a call did whose answer could not be copied to the guest.

use crate::Cx;

/// What the last call took that is given back if its answer cannot be copied to the guest.
#[derive(Clone, Copy, Debug, Default)]
pub enum Undo {
    /// Nothing.
    #[default]
    Nothing,
    /// So many bytes, which begin the scratch buffer, read from this descriptor of this open file (its id).
    Read {
        /// The descriptor.
        fd: i32,
        /// `OpenFile::id`.
        id: u64,
        /// Bytes.
        count: usize,
        /// Read at the file's position.
        moved: bool,
    },
    /// The call of this id, received from this descriptor of this open file.
    Notification {
        /// The descriptor.
        fd: i32,
        /// `OpenFile::id`.
        id: u64,
        /// The id of the call.
        call: u64,
    },
    /// New descriptors.
    Descriptors([i32; 2]),
}

/// Takes back what the last call took, as its answer did not reach the guest.
pub fn undo(cx: &mut Cx<'_>) {
    match std::mem::take(&mut cx.local.undo) {
        Undo::Nothing => {}
        Undo::Read { fd, id, count, moved } => {
            let Some(file) = cx.file(fd).ok().filter(|file| file.id() == id) else { return };
            if moved {
                let mut pos = file.pos().lock();
                *pos = pos.saturating_sub(count as u64);
            } else if !file.ops().seekable() {
                // What was read at an offset has taken nothing.
                file.ops().unread(cx.local.scratch.get(..count).unwrap_or_default());
            }
        }
        Undo::Notification { fd, id, call } => {
            let file = cx.file(fd).ok().filter(|file| file.id() == id);
            if let Some(listener) = file.and_then(|file| kernel::guest_filter::listener_of(&file)) {
                listener.announce_again(call);
            }
        }
        Undo::Descriptors(fds) => {
            for fd in fds {
                let _ = cx.files().remove(fd);
            }
        }
    }
}
