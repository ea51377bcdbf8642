//! What a thread is granted, by place and one after the other.

use platform::MAX_GRANTS;

use super::state::Held;

/// At most one grant for each place.
#[derive(Default)]
pub(super) struct Grants {
    list: Vec<Held>,
    /// By place: one more than the index in the list, 0 for none. Made for the first one.
    places: Vec<u16>,
}

impl Grants {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
    pub(super) fn get(&self, index: usize) -> Option<&Held> {
        self.list.get(index)
    }
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Held> {
        self.list.get_mut(index)
    }
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Held> {
        self.list.iter()
    }
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Held> {
        self.list.iter_mut()
    }
    /// Where the grant of a place is.
    pub(super) fn at(&self, place: usize) -> Option<usize> {
        usize::from(*self.places.get(place)?).checked_sub(1)
    }
    pub(super) fn of(&mut self, place: usize) -> Option<&mut Held> {
        let index = self.at(place)?;
        self.list.get_mut(index)
    }
    /// Adds one, for a place that has none.
    pub(super) fn push(&mut self, held: Held) {
        if self.places.is_empty() {
            self.places.resize(MAX_GRANTS, 0);
        }
        let place = held.place;
        self.list.push(held);
        self.note(place, self.list.len());
    }
    /// Takes one out; the last one takes its index.
    pub(super) fn remove(&mut self, index: usize) -> Option<Held> {
        if index >= self.list.len() {
            return None;
        }
        let held = self.list.swap_remove(index);
        self.note(held.place, 0);
        if let Some(place) = self.list.get(index).map(|moved| moved.place) {
            self.note(place, index + 1);
        }
        Some(held)
    }
    /// Takes out all that are like this.
    pub(super) fn take(&mut self, gone: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut taken = Vec::new();
        let mut index = 0;
        while let Some(held) = self.list.get(index) {
            if gone(held) {
                taken.extend(self.remove(index));
            } else {
                index += 1;
            }
        }
        taken
    }

    fn note(&mut self, place: usize, index: usize) {
        if let Some(entry) = self.places.get_mut(place) {
            *entry = index as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use platform::MAX_GRANTS;

    use super::Grants;
    use crate::posting::state::{Held, Kind};

    fn held(fd: i32) -> Held {
        let (file, _) = crate::pidfd::reserve(false);
        Held::new(Kind::Stream, fd, &file)
    }

    /// Each place leads to its own grant, and to none after that has gone.
    fn check(grants: &mut Grants, fds: &[i32]) {
        assert_eq!(grants.len(), fds.len());
        let places: Vec<_> = fds.iter().map(|fd| held(*fd).place).collect();
        for place in 0..MAX_GRANTS {
            let found = grants.of(place).map(|held| held.place);
            assert_eq!(found, places.contains(&place).then_some(place));
        }
    }

    #[test]
    fn places_follow_what_moves() {
        let mut grants = Grants::default();
        assert!(grants.at(3).is_none() && grants.remove(0).is_none());
        for fd in [3, 4, 5, MAX_GRANTS as i32 + 6] {
            grants.push(held(fd));
        }
        check(&mut grants, &[3, 4, 5, 6]);
        assert_eq!(grants.remove(1).map(|held| held.fd), Some(4));
        check(&mut grants, &[3, 5, 6]);
        assert_eq!(grants.remove(2).map(|held| held.fd), Some(5));
        check(&mut grants, &[3, 6]);
        grants.push(held(4));
        let mut taken: Vec<_> = grants.take(|held| held.fd != 3).iter().map(|held| held.fd).collect();
        taken.sort_unstable();
        assert_eq!(taken, [4, MAX_GRANTS as i32 + 6]);
        check(&mut grants, &[3]);
    }

    #[test]
    fn forged_places_have_none() {
        let mut grants = Grants::default();
        grants.push(held(0));
        assert!(grants.of(MAX_GRANTS).is_none() && grants.of(usize::MAX).is_none());
    }
}
