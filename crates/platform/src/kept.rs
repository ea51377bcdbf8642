//! Descriptors of open files that stay in a stub: what maps one file several times, or reads it often at offsets, takes it
//! there once.
//!
//! The filter lets the shim, and so the guest, read such a file and map it in any way that its descriptor allows. Each is opened
//! for reading alone, and the guest has the file open for reading itself when it comes there. It goes with the guest's own
//! descriptor where an answer can have the shim close it, else when the number is needed, or with the process
//! (docs/gaps.md). A number is given to another file only when no thread has an answer any more that names it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use slot::layout::{KEPT_FD, KEPT_FDS};

/// `MAP_*` of mmap(2) with which the filter lets the shim map such files.
pub(crate) const MAP_KEPT: u32 = crate::filter::MAP_NATIVE;

/// What is known of one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing lies there.
    #[default]
    Free,
    /// A thread was told to take the file there.
    Coming,
    /// The file lies there.
    There,
    /// A thread was told to close it.
    Going,
    /// Something may lie there that is not to be mapped: of the parent, or closed while it came.
    Left,
}

#[derive(Clone, Debug, Default)]
struct Place {
    state: State,
    /// Of the open file as the guest sees it.
    id: u64,
    file: Weak<OwnedFd>,
    /// Threads whose answer names the number, and which have not come in since.
    users: u32,
}

impl Place {
    fn is(&self, id: u64, file: &Arc<OwnedFd>) -> bool {
        self.id == id && std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
    }
    /// The guest has closed it elsewhere: in a table of descriptors that another process shares.
    fn is_lost(&self) -> bool {
        self.state == State::There && self.file.strong_count() == 0
    }
}

/// The files that are kept in one host process.
#[derive(Default)]
pub(crate) struct Kept(Vec<Place>);

/// A number to map a file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// The descriptor.
    pub fd: u32,
    /// The file is yet to be taken there.
    pub fresh: bool,
}

impl Kept {
    fn place(&mut self, fd: u32) -> Option<&mut Place> {
        let at = fd.checked_sub(KEPT_FD as u32)?;
        self.0.get_mut(usize::try_from(at).ok()?)
    }

    /// The number of a file for one more answer, see [`Kept::heard`]; none if there is none just now. `own` are those
    /// that the answer names already.
    pub(crate) fn use_of(&mut self, id: u64, file: &Arc<OwnedFd>, own: &[u32]) -> Option<Number> {
        let known = self.0.iter().position(|place| place.state != State::Left && place.is(id, file));
        if let Some(at) = known {
            let fd = KEPT_FD as u32 + at as u32;
            let named = own.contains(&fd);
            let place = self.0.get_mut(at)?;
            match place.state {
                State::Coming if named => {}
                State::There if named => {}
                State::There => place.users = place.users.saturating_add(1),
                _ => return None,
            }
            return Some(Number { fd, fresh: false });
        }
        let usable = |place: &Place, left: bool| {
            place.users == 0
                && match left {
                    false => place.state == State::Free,
                    true => place.state == State::Left || place.is_lost(),
                }
        };
        let free = self.0.iter().position(|place| usable(place, false));
        let at = match free {
            Some(at) => at,
            None if self.0.len() < KEPT_FDS => {
                self.0.push(Place::default());
                self.0.len() - 1
            }
            None => self.0.iter().position(|place| usable(place, true))?,
        };
        let place = self.0.get_mut(at)?;
        *place = Place { state: State::Coming, id, file: Arc::downgrade(file), users: 1 };
        Some(Number { fd: KEPT_FD as u32 + at as u32, fresh: true })
    }

    /// The number of a file that lies there.
    pub(crate) fn there(&self, id: u64, file: &Arc<OwnedFd>) -> Option<u32> {
        let at = self.0.iter().position(|place| place.state == State::There && place.is(id, file))?;
        Some(KEPT_FD as u32 + at as u32)
    }

    /// Whether there is something to close for an open file.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.0.iter().any(|place| place.state != State::Free && place.id == id)
    }

    /// The guest has closed an open file: numbers that the next answer has the shim close.
    pub(crate) fn close(&mut self, id: u64, own: &mut Vec<u32>) -> Vec<u32> {
        let mut closed = Vec::new();
        for (at, place) in self.0.iter_mut().enumerate().filter(|(_, place)| place.id == id) {
            let fd = KEPT_FD as u32 + at as u32;
            let named = own.contains(&fd);
            match place.state {
                State::There | State::Left => {}
                State::Coming if named => {}
                // It is on its way by another thread.
                State::Coming => {
                    place.id = 0;
                    continue;
                }
                State::Free | State::Going => continue,
            }
            place.state = State::Going;
            if !named {
                place.users = place.users.saturating_add(1);
                own.push(fd);
            }
            closed.push(fd);
        }
        closed
    }

    /// The shim has closed an open file by itself.
    pub(crate) fn gone(&mut self, id: u64) {
        for place in self.0.iter_mut().filter(|place| place.id == id && place.state != State::Free) {
            match place.users {
                0 => *place = Place::default(),
                _ => place.state = State::Going,
            }
        }
    }

    /// A thread may use the number without an answer, until it is [`Kept::heard`] of once more than that.
    pub(crate) fn pin(&mut self, fd: u32) {
        if let Some(place) = self.place(fd) {
            place.users = place.users.saturating_add(1);
        }
    }
    /// Whether a pinned number is no longer mapped by. Of a file that nobody has open no thread is told a number any more.
    pub(crate) fn is_over(&mut self, fd: u32) -> bool {
        self.place(fd).is_none_or(|place| {
            matches!(place.state, State::Going | State::Left) || place.id == 0 || place.is_lost()
        })
    }

    /// As `close`, where no answer can have it closed now: it stays until the number is needed.
    pub(crate) fn leave(&mut self, id: u64) {
        for place in self.0.iter_mut().filter(|place| place.id == id) {
            place.id = 0;
            if place.state == State::There {
                place.state = State::Left;
            }
        }
    }

    /// A thread has come in whose answer named these numbers.
    pub(crate) fn heard(&mut self, numbers: &[u32]) {
        for fd in numbers {
            let Some(place) = self.place(*fd) else { continue };
            place.users = place.users.saturating_sub(1);
            match place.state {
                State::Coming if place.id == 0 => place.state = State::Left,
                State::Coming => place.state = State::There,
                State::Going if place.users == 0 => *place = Place::default(),
                _ => {}
            }
        }
    }

    /// What a forked process has: the same descriptors, but which of those that come or go is not known.
    pub(crate) fn forked(&self) -> Kept {
        let left = |place: &Place| match place.state {
            State::Free => Place::default(),
            _ => Place { state: State::Left, users: 0, ..place.clone() },
        };
        Kept(self.0.iter().map(left).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    const FIRST: u32 = KEPT_FD as u32;

    #[test]
    fn a_file_is_taken_once_and_closed_with_the_guests() {
        let (mut kept, file) = (Kept::default(), file());
        let first = kept.use_of(1, &file, &[]).unwrap();
        assert_eq!(first, Number { fd: FIRST, fresh: true });
        // While it comes, others do without; the same answer may map it again.
        assert_eq!(kept.use_of(1, &file, &[]), None);
        assert_eq!(kept.use_of(1, &file, &[FIRST]), Some(Number { fd: FIRST, fresh: false }));
        assert_eq!(kept.there(1, &file), None);
        kept.heard(&[FIRST]);
        assert_eq!((kept.there(1, &file), kept.there(2, &file)), (Some(FIRST), None));
        assert_eq!(kept.use_of(1, &file, &[]), Some(Number { fd: FIRST, fresh: false }));
        let mut own = Vec::new();
        assert_eq!(kept.close(1, &mut own), [FIRST]);
        assert_eq!((own.as_slice(), kept.close(1, &mut Vec::new())), ([FIRST].as_slice(), vec![]));
        // Two threads have answers that name it: until both are heard of, nothing else goes there.
        kept.heard(&own);
        assert_eq!(kept.use_of(2, &file, &[]).unwrap().fd, FIRST + 1);
        kept.heard(&[FIRST]);
        assert_eq!(kept.use_of(3, &file, &[]), Some(Number { fd: FIRST, fresh: true }));
    }

    #[test]
    fn an_open_file_is_not_mistaken_for_another() {
        let (mut kept, one, two) = (Kept::default(), file(), file());
        kept.use_of(1, &one, &[]).unwrap();
        kept.heard(&[FIRST]);
        // Opened anew by the file system, as after a copy to the upper layer.
        assert_eq!(kept.use_of(1, &two, &[]), Some(Number { fd: FIRST + 1, fresh: true }));
        assert_eq!(kept.use_of(2, &one, &[]), Some(Number { fd: FIRST + 2, fresh: true }));
        kept.heard(&[FIRST + 1, FIRST + 2]);
        assert_eq!(kept.close(1, &mut Vec::new()), [FIRST, FIRST + 1]);
    }

    #[test]
    fn what_a_fork_leaves_is_closed_and_never_mapped() {
        let (mut parent, file) = (Kept::default(), file());
        parent.use_of(1, &file, &[]).unwrap();
        parent.heard(&[FIRST]);
        let mut child = parent.forked();
        assert_eq!(child.use_of(1, &file, &[]), Some(Number { fd: FIRST + 1, fresh: true }));
        assert_eq!(child.close(1, &mut vec![FIRST + 1]), [FIRST, FIRST + 1]);
        let mut other = parent.forked();
        for id in 2..=KEPT_FDS as u64 {
            assert!(other.use_of(id, &file, &[]).unwrap().fd > FIRST);
        }
        assert_eq!(other.use_of(99, &file, &[]), Some(Number { fd: FIRST, fresh: true }));
        assert_eq!(other.use_of(100, &file, &[]), None);
    }

    #[test]
    fn what_is_closed_while_it_comes_is_left() {
        let (mut kept, file) = (Kept::default(), file());
        kept.use_of(1, &file, &[]).unwrap();
        assert_eq!(kept.close(1, &mut Vec::new()), []);
        kept.heard(&[FIRST]);
        assert!(!kept.has(1));
        assert_eq!(kept.use_of(1, &file, &[]).unwrap().fd, FIRST + 1);
    }

    #[test]
    fn numbers_of_files_that_are_gone_are_used_again() {
        let mut kept = Kept::default();
        for id in 1..=KEPT_FDS as u64 {
            let file = file();
            let number = kept.use_of(id, &file, &[]).unwrap();
            kept.heard(&[number.fd]);
        }
        assert!(kept.use_of(99, &file(), &[]).unwrap().fresh);
    }

    #[test]
    fn a_number_that_a_thread_may_use_is_over_when_its_file_is_gone() {
        let mut kept = Kept::default();
        for id in 1..=KEPT_FDS as u64 {
            let file = file();
            let number = kept.use_of(id, &file, &[]).unwrap();
            kept.pin(number.fd);
            kept.heard(&[number.fd]);
            assert!(!kept.is_over(number.fd));
            // Closed by a process that shares the guest's descriptors: this one hears nothing of it.
            drop(file);
            assert!(kept.is_over(number.fd));
        }
        assert_eq!(kept.use_of(99, &file(), &[]), None);
        kept.heard(&[FIRST + 5]);
        assert_eq!(kept.use_of(99, &file(), &[]), Some(Number { fd: FIRST + 5, fresh: true }));
    }
}
